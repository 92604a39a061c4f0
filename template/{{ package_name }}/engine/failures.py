"""How a failed run ends: its status in the manifest, and one sentence for the user."""

import contextlib
import errno
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from . import errors, signals
from .build.optimizer_state import cannot_use
from .build.passes import too_large
from .config.schema import Config
from .errors import NO_SPACE, Exit, Failed, SaveError, Stopped, UserError, of_device, own_words
from .machine import distributed
from .paths import not_written
from .run.facts import timestamp
from .run.folder import Run
from .text import logger, say


@contextlib.contextmanager
def recorded(run: Run, config: Config) -> Iterator[None]:
    """Write the end of the run into its manifest, and turn each failure into an `Exit`."""
    try:
        yield
    except Exception as error:
        told = _tell(error, run, config)
        with contextlib.suppress(OSError, UserError):  # must not hide why the run ended
            run.update_manifest(status=told.status, ended=timestamp())
        if told is error:
            raise
        raise told from error


def _tell(error: Exception, run: Run, config: Config) -> Exit:
    """Return the `Exit` for an error. Log the traceback if one sentence cannot tell the cause."""
    text = str(error)
    if isinstance(error, SaveError | UserError | OSError) and not run.folder.is_dir():
        return SaveError(
            f"{run.shown} was moved or deleted while the run was training. Move it back, or go on at "
            "its new place: python train.py resume=PATH"
        )
    if isinstance(error, UserError):  # training has begun: it is not a mistake without consequences
        return Failed(own_words(error))
    if isinstance(error, Stopped | SaveError):
        if "by max_minutes" in text:
            text += " A resumed run keeps this limit. Add max_minutes=null to lift it."
        return type(error)(f"{text} {run.resume_hint}")
    if isinstance(error, Exit):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        return Failed(f"{too_large(config)} {run.resume_hint}")
    if "DataLoader worker" in text and (reason := signals.requested()):
        said = f"Stopped by {reason} together with its loader workers, without saving."
        return Stopped(f"{said} {run.resume_hint}")
    if "DataLoader worker" in text and "exited unexpectedly" in text:
        return Failed(
            "A loader worker was killed. Most likely memory or shared memory (/dev/shm) ran out. "
            f"Lower workers. {run.resume_hint}"
        )
    if "Too many open files" in text or "received 0 items of ancdata" in text:
        why = "Too many files are open. Raise the limit with ulimit -n 65536, or lower workers."
        return Failed(f"{why} {run.resume_hint}")
    if config.detect_anomaly and "returned nan values" in text:
        where = "The warning above names the line of the forward pass."
        return errors.NotFiniteError(f"{text} {where}")
    others = distributed.of_others(error)
    told = others or of_device(error) or _of_stored_state(error, run)
    with contextlib.suppress(OSError):
        logger.error(f"The run failed: {error}", exc_info=error, extra={"file_only": bool(told)})
    if others and distributed.LOCAL_RANK == 0 and not distributed.is_main():
        say(others)  # the main process may be cut off from this host
    if others:
        return Failed(f"{others} {run.resume_hint}")
    if told:
        return Failed(f"{told} {run.shown}/train.log says where.")
    return Failed(f"The run failed. Its folder is {run.shown}.")


def _of_stored_state(error: Exception, run: Run) -> str | None:
    """Return what to say if an optimizer cannot use the state that a checkpoint gave it."""
    owners = [f.f_locals.get("self") for f, _ in traceback.walk_tb(error.__traceback__)]
    is_first = any(getattr(x, "first_step", 0) == getattr(x, "step", 0) + 1 for x in owners)
    is_its_own = any(isinstance(x, torch.optim.Optimizer) for x in owners)
    is_likely = isinstance(error, LookupError | TypeError | AttributeError) and is_its_own
    if not (is_likely and is_first and run.manifest().get("resumed")):
        return None
    return cannot_use(error)


@contextlib.contextmanager
def writing(run: Run) -> Iterator[None]:
    """Turn an I/O error on a file of the run into `SaveError`."""
    try:
        yield
    except OSError as error:
        name, of_disk = error.filename, (*NO_SPACE, errno.EROFS)
        is_own = Path(str(name)).is_relative_to(run.folder)
        if name is None and error.errno == errno.EIO:  # a read of the data tells no name either
            name = f"A file of {run.shown} or of the data"
        elif not is_own and error.errno not in of_disk:
            raise
        raise not_written(name or run.shown, error) from error
