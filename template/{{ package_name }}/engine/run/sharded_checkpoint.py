"""A checkpoint that all processes write and read in parts: the folder `step-00000123.dcp/`.

It holds the files of `torch.distributed.checkpoint`, and `state.pt`: the dict of a plain checkpoint
with a checksum of each file. There, a tensor of those files is empty. `state.pt` is written last.
"""

import dataclasses
import enum
import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader, FileSystemWriter

from ..machine.distributed import RANK, is_main
from ..machine.sharding import map_places
from ..paths import checksums, disk_error
from .names import Damaged

STATE = "state.pt"
_MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_NAMES = {("torch", "Size"), ("torch.serialization", "_get_layout"), ("pathlib", "PosixPath")}


class Writer(FileSystemWriter):
    """Tells the error of the disk, which torch hides."""

    def write_data(self, *arguments: Any) -> Any:
        try:
            return super().write_data(*arguments)
        except Exception as error:
            raise disk_error(error) from None


class _Names(pickle.Unpickler):
    """Reads an index that holds plain values and torch's descriptions of tensors. Runs no code."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES and "." not in name:
            found = super().find_class(module, name)
            if dataclasses.is_dataclass(found) or issubclass(found, enum.Enum):
                return found
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not is_dtype and (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


class _Reader(FileSystemReader):
    def read_metadata(self, *arguments: Any, **options: Any) -> Any:
        with open(Path(self.path, ".metadata"), "rb") as file:
            return _Names(file).load()


def separate(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return `state` with an empty tensor for each divided one, and the divided ones by name."""
    divided: dict[str, Tensor] = {}

    def leave(tensor: Any, *place: str) -> Any:
        if not hasattr(tensor, "to_local"):
            return tensor
        divided["/".join(place)] = tensor
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    return map_places(leave, state), divided


def write_parts(folder: Path, divided: dict[str, Tensor], group: Any) -> dict[str, str]:
    """Write this process's parts into a folder. Return a checksum of each file that it wrote."""
    from torch.distributed import checkpoint

    checkpoint.save(divided, storage_writer=Writer(folder), process_group=group)
    names = [path.name for path in folder.glob(f"__{RANK}_*")]
    return checksums(folder, [*names, ".metadata"] if RANK == 0 else names)


def damage(folder: Path, files: Mapping[str, str]) -> str | None:
    """Say which file of a checkpoint is missing or has changed. None: all are whole."""
    for name in files:
        if os.path.basename(name) != name or not (folder / name).is_file():
            return f"its file {name} is missing"
    now = checksums(folder, files)
    wrong = [name for name in files if now[name] != files[name]]
    return f"the checksum of {wrong[0]} is wrong" if wrong else None


def read_parts(folder: Path, tensors: dict[str, Tensor], files: Iterable[str]) -> None:
    """Fill tensors by their names in a checkpoint, whole or divided. Raises `ValueError`."""
    reader, planner = _Reader(folder), DefaultLoadPlanner()
    index = reader.read_metadata()
    if not {info.relative_path for info in index.storage_data.values()} <= set(files):
        raise ValueError("its index names other files")
    planner.set_up_planner(tensors, index, is_coordinator=True)
    reader.set_up_storage_reader(index, is_coordinator=True)
    reader.read_data(planner.create_local_plan(), planner).wait()


def with_tensors(folder: Path, state: dict[str, Any], mapped: bool) -> dict[str, Any]:
    """Return the state with its tensors, or with empty ones if `mapped`. Raises `Damaged`."""
    if is_main() and (why := damage(folder, state["files"])) is not None:  # for all processes
        raise Damaged(folder, f"is damaged: {why}")
    state["folder"] = str(folder)
    if mapped:
        return state
    tensors: dict[str, Tensor] = {}

    def empty(tensor: Any, *place: str) -> Any:
        if isinstance(tensor, Tensor) and tensor.is_meta:
            tensor = tensors["/".join(place)] = torch.empty(tensor.shape, dtype=tensor.dtype)
        return tensor

    whole: dict[str, Any] = map_places(empty, state)
    read_parts(folder, tensors, state["files"])
    return whole
