"""Built-in data sets; `configs/data/` names them."""

SPLIT_KEY = 0x5EED
"""The key of the pictures that are held out: the same in every run, whatever its seed."""
