"""Saves of a run with divided parameters: all processes write parts of one checkpoint."""

import os
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import CheckpointException

from ..errors import Failed, one_line
from ..machine import distributed
from ..machine.device import each
from ..machine.distributed import is_main
from ..paths import not_written, remove
from . import checkpoint
from .names import link_best, path_of
from .saver import Saver
from .sharded_checkpoint import STATE, separate, write_parts


class ShardedSaver(Saver):
    """Writes in a thread of each process. The threads talk through a group of their own.

    All processes raise the same error, in the same call of `save` or `wait`.
    """

    def __init__(self, folder: Path, keep_last: int | None, masks: Collection[str] = ()) -> None:
        super().__init__(folder, keep_last, masks)
        self.group = distributed.new_group()
        self._failed: Exception | None = None  # of the write under way

    def close(self) -> None:
        super().close()
        self.error, self._failed = self._failed, None

    def _write(
        self, state: Mapping[str, Any], step: int, best: bool, event: torch.cuda.Event | None
    ) -> None:
        path = path_of(self.folder, step, "dcp")
        try:
            if event is not None:
                event.synchronize()
            self._together(lambda: self._refuse_not_finite(state, step))
            token = self._together(lambda: secrets.token_hex(8))[0]
            hidden = path.with_name(f".{path.name}.{token}.tmp")
            plain, divided = separate(state)
            try:
                parts = self._together(lambda: write_parts(hidden, divided, self.group))
                files = {name: checksum for part in parts for name, checksum in part.items()}
                whole = {**plain, "files": files, "is_best": best}
                self._together(lambda: self._finish(whole, hidden, path) if is_main() else None)
            finally:
                if is_main():
                    shutil.rmtree(hidden, ignore_errors=True)
        except OSError as error:
            self._failed = not_written(path, error, sum(t.nbytes for t in each(state)))
        except Exception as error:  # nobody would see it in a thread
            self._failed = error

    def _finish(self, state: Mapping[str, Any], hidden: Path, path: Path) -> None:
        """Make the written files a checkpoint: whole on the disk, then by its name."""
        checkpoint.write(state, hidden / STATE)
        checkpoint.sync(hidden)
        remove(path)  # one that could not be used
        os.rename(hidden, path)
        checkpoint.sync(path.parent)
        if state["is_best"]:
            link_best(path)
        checkpoint.prune(path, self.keep_last)

    def _together(self, work: Callable[[], Any]) -> list[Any]:
        """Do `work` in each process. Return the results of all, or raise the first error in all."""
        result: Any = None
        error: Exception | None = None
        try:
            result = work()
        except CheckpointException as failed:  # the failures of all processes, by rank
            told = [failure for failure, _ in failed.failures.values()]
            causes = [failure for failure in told if isinstance(failure, OSError)]
            error = causes[0] if causes else Failed(f"A save failed: {one_line(failed)}")
        except Exception as failed:
            error = failed
        outcomes = distributed.from_all((result, error), self.group)
        for _, failure in outcomes:
            if failure is not None:
                raise failure
        return [result for result, _ in outcomes]
