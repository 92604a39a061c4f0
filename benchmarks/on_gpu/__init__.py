"""The checks that need a GPU, for a machine without network, Copier, Hydra and git: see ../gpu_bundle.py."""
