"""What is shown of a run besides numbers: pictures, the model's graph, histograms.

Nothing of it changes a result, and what no logger takes is not computed.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import rng
from ..api import Context, Logger, Task
from ..build.target import describe_error
from ..machine.device import autocast
from ..machine.torch_internals import version
from ..run.folder import Run
from ..text import logger

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..build.parts import Parts
    from .grids import Collected


Look = Callable[[Any, Context], None]


class Media:
    """Send pictures, the graph, histograms and texts to the loggers of the main process.

    `step` is the one that the process starts from.
    """

    def __init__(self, parts: Parts, run: Run) -> None:
        self.parts, self.run = parts, run
        self.loggers: Sequence[Logger] = []
        self.start = 0
        self.has_begun = True
        self.draws = self.shows = False
        self.names = [str(name) for name in parts.data.info.get("class_names") or ()]

    def open(self, loggers: Sequence[Logger], step: int) -> None:
        """Send to `loggers` from now on. `step` optimizer steps are done."""
        self.loggers, self.start = loggers, step
        self.has_begun = not loggers
        has_images = bool(self.parts.config.log.images)
        self.draws = has_images and bool(self.takers("images"))
        has_more = type(self.parts.task).show is not Task.show
        self.shows = has_images and has_more and bool(self.takers("images") + self.takers("texts"))

    def takers(self, what: str) -> list[Logger]:
        """The loggers that do something with `what`, a method of theirs."""
        return [
            sink for sink in self.loggers if getattr(type(sink), what) is not getattr(Logger, what)
        ]

    def begin(self, ctx: Context, batch: Any) -> None:
        """Show the config, the graph and the pictures of `batch`, once, after the first step of this
        process. `ctx` is the context of the next step."""
        self.has_begun = True
        config, manifest = dataclasses.asdict(self.parts.config), self.run.manifest()
        for sink in self.loggers:
            sink.begin(ctx.step, config, manifest)
        if self.start > 0:  # a resumed run has shown the rest
            return
        if self.parts.config.log.graph and self.takers("graph"):
            with self._harmless("graph is"):
                self._graph(batch)
        if self.draws:
            drawn = self._collected()
            self._look(drawn, self.parts.model, batch, ctx)
            self._draw(drawn, "train", ctx.step)

    def _graph(self, batch: Any) -> None:
        p = self.parts
        example = tuple(_one(value) for value in p.task.example(batch))
        # A copy: its hooks, buffers and counters are not those of the run.
        model = copy.deepcopy(p.model).eval()
        with torch.no_grad(), autocast(p.precision, p.device), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, which is deprecated
            for sink in self.takers("graph"):
                sink.graph(model, example)

    @contextmanager
    def validation(self, model: nn.Module, step: int) -> Iterator[Look | None]:
        """What is to be called with each batch of a validation within the block; at its end the
        pictures are drawn and what else the task shows."""
        if not self.draws and not self.shows:
            yield None
            return
        drawn = self._collected()
        first: list[tuple[Any, Context]] = []
        with _remembering(model) as forget:

            def look(batch: Any, ctx: Context) -> None:
                if not first:
                    first.append((batch, ctx))
                if self.draws:
                    self._look(drawn, model, batch, ctx)
                forget()

            yield look
        self._draw(drawn, "val", step)
        if self.shows:
            self._show(model, *first[0], step)

    def _collected(self) -> Collected:
        from .grids import Collected

        return Collected(self.parts.config.log.images)

    def _look(self, drawn: Collected, model: nn.Module, batch: Any, ctx: Context) -> None:
        p = self.parts
        with self._harmless("pictures are"), torch.no_grad(), autocast(p.precision, p.device):
            drawn.add(p.task.images(model, batch, ctx))

    def _draw(self, drawn: Collected, place: str, step: int) -> None:
        with self._harmless("pictures are"):
            images = {f"{place}/{tag}": picture for tag, picture in drawn.grids(self.names)}
            for sink in self.takers("images") if images else ():
                sink.images(step, images)

    @torch.no_grad()
    def _show(self, model: nn.Module, batch: Any, ctx: Context, step: int) -> None:
        p = self.parts
        rng.seed_all(rng.make_key(p.config.seed, rng.Domain.PREDICTION))
        with self._harmless("texts and figures are"):
            with autocast(p.precision, p.device):
                shown = {f"val/{tag}": v for tag, v in p.task.show(model, batch, ctx).items()}
            texts = {tag: value for tag, value in shown.items() if isinstance(value, str)}
            figures = {tag: _pixels(v) for tag, v in shown.items() if not isinstance(v, str)}
            for sink in self.takers("texts") if texts else ():
                sink.texts(step, texts)
            for sink in self.takers("images") if figures else ():
                sink.images(step, figures)

    def histograms(self, step: int) -> None:
        p = self.parts
        values: dict[str, Tensor] = {}
        for name, parameter in p.parameters.items():
            values[f"weights/{name}"] = parameter.detach()
            if parameter.grad is not None and p.precision != "fp16":  # there they are scaled
                values[f"gradients/{name}"] = parameter.grad
        for sink in self.takers("histograms"):
            sink.histograms(step, values)

    def finish(self, step: int, best: float | None) -> None:
        """Called once the run has come to its end."""
        key = self.parts.config.monitor.removeprefix("val/")
        for sink in self.loggers:
            sink.finish(step, {} if best is None else {f"best/{key}": best})

    @contextmanager
    def _harmless(self, what: str) -> Iterator[None]:
        """Whatever a task, a model or a library raises there: a run does not end for it."""
        try:
            yield
        except Exception as error:
            self.draws = self.draws and what != "pictures are"
            self.shows = self.shows and what != "texts and figures are"
            logger.warning(f"No {what} shown: {describe_error(error)}")


def _pixels(figure: Figure) -> np.ndarray:
    """uint8 [height, width, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _one(value: Any) -> Any:
    """The first sample of a batch's tensor, as a batch."""
    return value[:1] if isinstance(value, Tensor) and value.ndim else value


@contextmanager
def _remembering(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Within the block, `model` called again with the same tensors returns what it returned, until
    what is yielded is called: so looking at predictions costs no second forward pass."""
    calls: list[tuple[Any, Any, Any, Any]] = []
    forward, own = model.forward, "forward" in vars(model)

    def remembered(*args: Any, **kwargs: Any) -> Any:
        # A tensor that was changed in place, such as a text that grows, counts as another one.
        given = [*args, *kwargs.values()]
        versions = [version(value) for value in given if isinstance(value, Tensor)]
        for seen, named, known, returned in calls:
            if known == versions and _same([*args, *kwargs.items()], [*seen, *named.items()]):
                return returned
        returned = forward(*args, **kwargs)
        calls.append((args, kwargs, versions, returned))
        return returned

    model.forward = remembered  # type: ignore[method-assign]
    try:
        yield calls.clear
    finally:
        if own:
            model.forward = forward  # type: ignore[method-assign]
        else:
            del model.forward


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two calls have the very same arguments."""
    if len(one) != len(other):
        return False
    return all(
        _same(a, b) if isinstance(a, tuple) and isinstance(b, tuple) else a is b
        for a, b in zip(one, other, strict=True)
    )
