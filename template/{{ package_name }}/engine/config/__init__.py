"""The config: its keys, how it is composed, checked and stored. Without torch."""

import functools
from pathlib import Path


@functools.cache
def words(file: str) -> dict[str, str]:
    """Return the meaning of each word in a YAML file of this folder."""
    import yaml

    table = yaml.safe_load(Path(__file__).with_name(file).read_text(encoding="utf-8"))
    return {word: meaning for meaning, line in table.items() for word in line.split()}
