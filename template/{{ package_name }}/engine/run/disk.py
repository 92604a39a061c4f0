"""What disks do to checkpoints: they become full, fail, or change bytes."""

import errno
import shutil
import zipfile
from pathlib import Path
from typing import IO, Any

from ..errors import NO_SPACE, SaveError, one_line
from ..machine.device import map_tensors


def find_damage(file: IO[bytes]) -> str | None:
    """Say what is wrong with a zip archive, or return None. Raises OSError if it cannot be read.

    torch.load does not compare checksums: it would load a flipped bit as a wrong weight.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if (name := archive.testzip()) is not None:
                return f"the checksum of '{name}' is wrong"
            # No checksum covers the archive's directory. If a record is marked as a folder there,
            # torch returns uninitialised bytes for it.
            marked = next((i.filename for i in archive.infolist() if i.external_attr & 16), None)
            return None if marked is None else f"'{marked}' is marked as a folder"
    except Exception as error:  # a broken archive makes zipfile raise errors of many kinds
        # EINVAL: the archive names a place before its own start. Other OSErrors come from the disk.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        return one_line(error)[:120]


def save_error(error: BaseException, path: Path, state: Any) -> SaveError | None:
    """Describe why `state` was not saved at `path`; None if no I/O error is behind `error`."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__  # torch.save hides the I/O error
    if cause is None:
        return None
    room = ""
    if cause.errno in NO_SPACE:
        sizes: list[int] = []
        map_tensors(lambda tensor: sizes.append(tensor.nbytes), state)
        free = shutil.disk_usage(path.parent).free
        room = f". It needs about {sum(sizes) / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free"
    return not_written(path, cause, room)


def not_written(path: Path | str, error: OSError, more: str = "") -> SaveError:
    """Describe why a file of a run was not written. `failures.py` adds how to go on."""
    first = "Make room" if error.errno in NO_SPACE else "Put this right"
    why = f"{path} cannot be written: {error.strerror or error}{more}."
    return SaveError(f"{why} Earlier checkpoints are intact. {first} first.")
