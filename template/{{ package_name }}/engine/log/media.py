"""What loggers show of a run besides numbers: pictures, the graph, histograms, texts.

None of it changes a result. It computes only what a logger takes.
"""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import rng
from ..api import Context, Logger
from ..build.kept import keep_state
from ..build.parts import Parts
from ..build.target import describe_error
from ..machine.device import autocast
from ..machine.sharding import is_sharded
from ..machine.torch_internals import version
from ..run.folder import Run
from ..text import logger


class Media:
    """Sends pictures, the graph, histograms and texts to the loggers of the main process."""

    def __init__(self, parts: Parts, run: Run, loggers: Sequence[Logger]) -> None:
        self.parts, self.run, self.loggers = parts, run, loggers
        self.is_alone = not is_sharded(parts.config)  # else all processes would have to compute
        is_wanted = parts.config.log.images > 0 and self.is_alone
        self.draws = is_wanted and self._is_taken("images")
        self.shows = self.draws or (is_wanted and self._is_taken("texts"))

    def _is_taken(self, method: str) -> bool:
        return any(getattr(type(x), method) is not getattr(Logger, method) for x in self.loggers)

    def _send(self, method: str, *values: Any) -> None:
        for sink in self.loggers:
            getattr(sink, method)(*values)

    def begin(self, ctx: Context, batch: Any) -> None:
        """Send the config, and graph and pictures of `batch`. `ctx` belongs to the next step."""
        p = self.parts
        self._send("begin", ctx.step, dataclasses.asdict(p.config), self.run.manifest())
        if ctx.step > 1:  # the run has sent the rest before it was resumed
            return
        if p.config.log.graph and self.is_alone and self._is_taken("graph"):
            with self._harmless("graph is"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the tracer is deprecated
                values = p.task.example(batch)
                one = tuple(v[:1] if isinstance(v, Tensor) and v.ndim else v for v in values)
                self._send("graph", copy.deepcopy(p.model).eval(), one)  # a call may change buffers
        if self.draws:
            put_back = keep_state(p, p.model)
            with self.watching(p.model) as look:
                look(batch, ctx)
            put_back()

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[Callable[[Any, Context], None]]:
        """Yield a function to call with each batch of `model`. Send what it saw afterwards."""
        if not self.draws and not self.shows:
            yield lambda batch, ctx: None
            return
        from .grids import Collected

        p = self.parts
        names = [str(name) for name in p.data.info.get("class_names") or ()]
        collected = Collected(p.config.log.images, names)
        seen: list[tuple[Any, Context]] = []
        with _remembering(model) as forget:

            def look(batch: Any, ctx: Context) -> None:
                if not seen:
                    seen.append((batch, ctx))
                if self.draws:
                    with self._harmless("pictures are"):
                        collected.add(p.task.images(model, batch, ctx))
                forget()

            yield look
        batch, ctx = seen[0]
        place = "train" if ctx.training else "val"
        with self._harmless("pictures are"):
            if grids := {f"{place}/{tag}": grid for tag, grid in collected.grids().items()}:
                self._send("images", ctx.step, grids)
        if self.shows and not ctx.training:
            rng.seed_all(rng.make_key(p.config.seed, rng.Domain.PREDICTION))
            with self._harmless("texts and figures are"):
                for key, value in p.task.show(model, batch, ctx).items():
                    if isinstance(value, str):
                        self._send("texts", ctx.step, {f"val/{key}": value})
                    else:
                        self._send("images", ctx.step, {f"val/{key}": _pixels(value)})

    def histograms(self, step: int) -> None:
        """Send the weights and gradients."""
        named = self.parts.parameters.items()
        values = {f"weights/{name}": parameter.detach() for name, parameter in named}
        if self.parts.precision != "fp16":  # whose gradients are scaled
            values |= {f"gradients/{name}": q.grad for name, q in named if q.grad is not None}
        self._send("histograms", step, values)

    def finish(self, step: int, best: float | None) -> None:
        """Send the best monitored value at the end of the run."""
        key = self.parts.config.monitor.removeprefix("val/")
        self._send("finish", step, {} if best is None else {f"best/{key}": best})

    @contextmanager
    def _harmless(self, what: str) -> Iterator[None]:
        """Run a block without gradients. Log its error and let the run go on."""
        p = self.parts
        try:
            with torch.no_grad(), autocast(p.precision, p.device):
                yield
        except Exception as error:
            self.draws = self.draws and what != "pictures are"
            self.shows = self.shows and what != "texts and figures are"
            logger.warning(f"No {what} shown: {describe_error(error)}")


def _pixels(figure: Any) -> np.ndarray:
    """Draw a figure of matplotlib: uint8 [height, width, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


@contextmanager
def _remembering(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Let `model` return the same result for the same tensors, without another forward pass.

    Yields a function that forgets all results.
    """
    calls: dict[tuple[Any, ...], Any] = {}
    forward, had_own = model.forward, "forward" in vars(model)

    def remembered(*args: Any, **kwargs: Any) -> Any:
        given = [*enumerate(args), *kwargs.items()]
        # The version changes with the tensor, for example with a text that grows in place.
        key = tuple((k, id(v), isinstance(v, Tensor) and version(v)) for k, v in given)
        if key not in calls:
            calls[key] = forward(*args, **kwargs), given  # an id is unique while its object lives
        return calls[key][0]

    model.forward = remembered  # type: ignore[method-assign]
    yield calls.clear
    del model.forward
    if had_own:
        model.forward = forward
