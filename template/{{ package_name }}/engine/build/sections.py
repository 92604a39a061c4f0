"""Check the sections of every job of a sweep before its first job. Torch is imported when called."""

from typing import Any

from ..config.schema import Config


class _Everything(dict[str, Any]):
    """Offers each argument: before the data are built, nobody knows which facts there will be."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> None:
        return None


def check_sections(config: Config) -> None:
    """Refuse unknown keys and values of a wrong type. Build nothing. Raises `UserError`."""
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from ..api import Data, Schedule, Task
    from .target import bind

    kinds: dict[str, Any] = {"task": Task, "data": Data, "model": nn.Module, "loss": nn.Module}
    kinds |= {"mix": nn.Module, "optimizer": Optimizer, "scheduler": (Schedule, LRScheduler)}
    for group, kind in kinds.items():
        if section := getattr(config, group):
            bind(section, group, kind, config.allowed_packages, _Everything())
