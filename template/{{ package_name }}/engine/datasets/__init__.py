"""Built-in data sets; `configs/data/` names them."""
