"""`python train.py --help`: every choice, every key and its value with these overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..paths import CONFIGS

FLAGS = {"--help", "-h"}

_USE = """Train a model. Override any config key as KEY=VALUE:

  python train.py lr=0.001 epochs=5
  python train.py optimizer=sgd scheduler=step
  python train.py -m lr=0.1,0.01            one run for each value
  python train.py sweep=optuna              search for good values
  python train.py dry_run=true              everything up to the first step
  python train.py resume=auto               go on where the last run stopped
  python train.py -q                        say warnings and errors only
  python train.py -v                        debug messages and tracebacks, too
  python train.py --cfg job                 only the config, as YAML
  python train.py --hydra-help              the flags of Hydra, which composes the config

Choices, one file each in configs/:

{choices}

Keys and their values here:

{config}"""


def text(composed: Any) -> str:
    """The help where `composed` (a DictConfig) is the config."""
    from omegaconf import OmegaConf

    folders = sorted(folder for folder in CONFIGS.iterdir() if folder.is_dir())
    choices = [f"{folder.name}: {', '.join(_files(folder))}" for folder in folders]
    return _USE.format(choices="\n".join(choices), config=OmegaConf.to_yaml(composed))


def _files(folder: Path) -> Sequence[str]:
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    )
