"""Built-in data sets; `configs/data/` names them."""

SPLIT_KEY = 0x5EED
"""The key that chooses the held-out pictures. It does not depend on the run's seed."""
