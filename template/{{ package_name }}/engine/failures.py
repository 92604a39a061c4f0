"""How a failed run ends: its status in the manifest, and one sentence for the user."""

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from . import signals
from .build.passes import too_large
from .config.schema import Config
from .errors import NO_SPACE, Exit, Failed, NotFiniteError, SaveError, Stopped, UserError, own_words
from .run.disk import not_written
from .run.facts import timestamp
from .run.folder import Run
from .text import logger

_STATUS = {Stopped: "stopped", SaveError: "save failed", NotFiniteError: "not finite"}


@contextlib.contextmanager
def recorded(run: Run, config: Config) -> Iterator[None]:
    """Write the end of the run into its manifest, and turn each failure into an `Exit`."""
    try:
        yield
    except Exception as error:
        told = _tell(error, run, config)
        with contextlib.suppress(OSError):  # a full disk must not hide why the run ended
            run.update_manifest(status=_STATUS.get(type(told), "failed"), ended=timestamp())
        if told is error:
            raise
        raise told from error


def _tell(error: Exception, run: Run, config: Config) -> Exit:
    """Return the `Exit` for an error. Log the traceback if one sentence cannot tell the cause."""
    if isinstance(error, UserError):  # training has begun: it is not a mistake without consequences
        return Failed(own_words(error))
    if isinstance(error, Stopped | SaveError):
        return type(error)(f"{error} {run.resume_hint}")
    if isinstance(error, Exit):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        return Failed(f"{too_large(config)} {run.resume_hint}")
    text = str(error)
    if "DataLoader worker" in text and signals.requested():
        said = f"Stopped by {signals.requested()} together with its loader workers, without saving."
        return Stopped(f"{said} {run.resume_hint}")
    if "DataLoader worker" in text and "exited unexpectedly" in text:
        said = "A loader worker was killed. Most likely memory or shared memory (/dev/shm) ran out."
        return Failed(f"{said} Lower workers. {run.resume_hint}")
    operation = re.search(r"(\S+) does not have a deterministic implementation", text)
    with contextlib.suppress(OSError):
        logger.error(
            f"The run failed: {error}", exc_info=error, extra={"file_only": operation is not None}
        )
    if operation is not None:
        return Failed(
            f"{operation[1]} cannot be computed deterministically on this device. Use another, or "
            f"set deterministic=warn: then runs no longer repeat. {run.shown}/train.log says where."
        )
    return Failed(f"The run failed. Its folder is {run.shown}.")


@contextlib.contextmanager
def writing(run: Run) -> Iterator[None]:
    """Turn an I/O error on a file of the run into `SaveError`."""
    try:
        yield
    except OSError as error:
        is_own = Path(str(error.filename)).is_relative_to(run.folder)
        if not is_own and error.errno not in (*NO_SPACE, errno.EROFS):
            raise
        raise not_written(error.filename or run.shown, error) from error
