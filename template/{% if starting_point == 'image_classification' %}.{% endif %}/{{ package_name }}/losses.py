"""Your losses: add a module here, and a file in configs/loss/ that names it as `.losses.NAME`."""
