"""Functions that a config may name, and others that it may not: as a file of the project and as another package."""

from os import remove  # noqa: F401
from pathlib import Path
from shutil import rmtree  # noqa: F401

from torch import nn
from torch.fx.graph_module import reduce_graph_module  # noqa: F401

eval = eval


class Net(nn.Linear):
    def __init__(self, width):
        super().__init__(width, width)


class Holder(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner


def plain(width):
    return nn.Linear(width, width)


def annotated(width: int) -> nn.Module:
    return nn.Linear(width, width)


def promised(width: int) -> "nn.Linear":
    return nn.Linear(width, width)


def text():
    return "text"


def liar() -> nn.Module:
    return 3  # type: ignore[return-value]


def erase(path):
    Path(path).unlink()


def told(path: str) -> None:
    Path(path).unlink()


bound = Path(__file__ if "__file__" in globals() else ".").unlink
