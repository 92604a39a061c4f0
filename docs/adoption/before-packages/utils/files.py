from pathlib import Path


def ensure_folder(name):
    Path(name).mkdir(exist_ok=True)
    return Path(name)
