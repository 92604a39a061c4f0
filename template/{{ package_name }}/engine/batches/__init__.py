"""Which samples make up a batch, and reading them."""
