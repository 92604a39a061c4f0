"""Built-in models; `configs/model/` names them."""
