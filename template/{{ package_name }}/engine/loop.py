"""The training step, the loop around it, and validation."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import checkpoint, rng, signals
from .api import Context, Mean
from .device import autocast, to_device
from .errors import NotFiniteError, Stopped, UserError
from .log import MetricsFile, Windows, columns, duration, logger, mean
from .optim import load_optimizer_state, optimizer_state
from .rng import Domain
from .runs import Run, to_yaml

if TYPE_CHECKING:
    from .setup import Parts


class Loop:
    """Trains `parts` from `step` to `parts.total_steps` and keeps the run's folder."""

    def __init__(self, parts: Parts, run: Run, started: float) -> None:
        self.parts, self.run, self.config = parts, run, parts.config
        self.started = started
        self.step = 0
        """Optimizer steps done."""
        self.best: float | None = None
        self.last: float | None = None
        self.pending = False
        """Whether the validation that is due after `step` is still to be done."""
        self.validated_at = -1
        self.saved_at = -1
        self.windows = Windows()
        self.scaler = torch.amp.GradScaler(parts.device.type, enabled=parts.precision == "fp16")
        self.forward: nn.Module = parts.model
        if self.config.compile:
            # The compiled module shares the weights; the state dict stays that of the plain one.
            self.forward = torch.compile(parts.model)  # type: ignore[assignment]

    # ---------------------------------------------------------------- one step

    def training_step(self, batches: Iterator[Any]) -> None:
        """One optimizer step, over all its micro-batches."""
        p, config = self.parts, self.config
        p.optimizer.zero_grad(set_to_none=True)
        counts = p.train.plan.counts(self.step)
        ctx = Context(self.step, self.epoch, training=True, device=p.device)
        total_n: Tensor | float = 0.0
        for micro, count in enumerate(counts):
            waited = time.perf_counter()
            batch = to_device(next(batches), p.device, config.channels_last)
            self.data_seconds += time.perf_counter() - waited
            rng.seed_all(rng.mix(rng.mix(self.step_key, self.step), micro))
            with autocast(p.precision, p.device):
                values = p.task.training_step(self.forward, batch, ctx)
                loss = values["loss"]
            # A micro-batch counts by what its mean was taken over: samples, or the n of a Mean.
            if len(counts) == 1:
                loss = loss.value if isinstance(loss, Mean) else loss
            elif isinstance(loss, Mean):
                total_n = total_n + loss.n
                loss = loss.value * loss.n
            else:
                loss = loss * (count / sum(counts))
            self.scaler.scale(loss).backward()
            self.windows.add(self.step, values, count)
        if isinstance(total_n, Tensor) or total_n:
            for parameter in p.parameters.values():
                if parameter.grad is not None:
                    parameter.grad.div_(total_n)
        if config.clip_grad_norm is not None:
            self.scaler.unscale_(p.optimizer)
            norm = nn.utils.clip_grad_norm_(p.parameters.values(), config.clip_grad_norm)
            self.windows.add(self.step, {"grad_norm": norm}, 1)
        self.scaler.step(p.optimizer)
        self.scaler.update()
        p.scheduler.step()
        if p.averaged is not None:
            p.averaged.update(p.model)
        self.step += 1

    # ---------------------------------------------------------------- the run

    def fit(self) -> None:
        """Train to the end. Raises `Stopped`, `NotFiniteError`, `SaveError` and what the task raises."""
        p, config = self.parts, self.config
        self.metrics = MetricsFile(
            self.run.folder / "metrics.jsonl", self.step, validate_again=self.pending
        )
        self.loggers = p.open_loggers(self.run.folder, self.step + 1)
        self.step_key = rng.make_key(config.seed, Domain.STEP)
        p.scheduler.begin(p.optimizer, self.step)
        self.bar = tqdm(
            total=p.total_steps,
            initial=self.step,
            unit="step",
            leave=False,
            dynamic_ncols=True,
            disable=not sys.stderr.isatty() or config.log.level in ("warning", "error"),
        )
        try:
            self._start_clock()
            self.fit_started, self.fit_from = time.perf_counter(), self.step
            if self.pending:
                self.validate()
                self.save()
            self._stop_if_asked()
            batches = p.train.read(self.step, p.total_steps)
            p.model.train()
            while self.step < p.total_steps:
                self.training_step(batches)
                self.bar.update()
                self._after_step()
            if self.validated_at != self.step:
                self.pending = p.val is not None
                self.validate()
            if self.saved_at != self.step:
                self.save()
        finally:
            self.bar.close()
            self.metrics.close()
            for sink in self.loggers:
                sink.close()

    def _after_step(self) -> None:
        config, steps_per_epoch = self.config, self.parts.train.plan.steps
        epoch_ends = self.step % steps_per_epoch == 0
        epochs_done = self.step // steps_per_epoch
        at_end = self.step == self.parts.total_steps

        def due(every_epochs: int, every_steps: int | None) -> bool:
            by_epoch = epoch_ends and every_epochs > 0 and epochs_done % every_epochs == 0
            return by_epoch or (every_steps is not None and self.step % every_steps == 0)

        if self.step % config.log.every == 0 or epoch_ends or at_end:
            self.log(epoch_ends)
        by_epochs = config.val_every_epochs if config.val_every_steps is None else 0
        self.pending = self.parts.val is not None and due(by_epochs, config.val_every_steps)
        self._stop_if_asked()
        if self.pending:
            self.validate()
        if due(config.save_every_epochs, config.save_every_steps):
            self.save()
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        reason = signals.requested()
        minutes = self.config.max_minutes
        if (
            reason is None
            and minutes is not None
            and time.monotonic() - self.started > 60 * minutes
        ):
            reason = f"max_minutes={minutes:g}"
        if reason is None or (self.step == self.parts.total_steps and not self.pending):
            return
        if self.saved_at != self.step:
            self.save()
        raise Stopped(f"Stopped by {reason} after step {self.step} and saved.")

    # ---------------------------------------------------------------- validation

    @torch.no_grad()
    def validate(self) -> None:
        """Every validation sample once; values are means weighted by what they were taken over."""
        p = self.parts
        if p.val is None:
            return
        self._refuse_not_finite()
        model = p.averaged.model if p.averaged is not None else p.model
        model.eval()
        values = Windows()
        ctx = Context(self.step, self.epoch_done, training=False, device=p.device)
        key = rng.make_key(self.config.seed, Domain.VALIDATION)
        number_ = 0
        batches = p.val.read(0, p.val.plan.steps)
        for step in range(p.val.plan.steps):
            for count in p.val.plan.counts(step):
                batch = to_device(next(batches), p.device, self.config.channels_last)
                rng.seed_all(rng.mix(key, number_))
                with autocast(p.precision, p.device):
                    values.add(number_, p.task.validation_step(model, batch, ctx), count)
                number_ += 1
            self._stop_if_asked()  # the resumed run validates: `pending` is in the checkpoint
        model.train()
        values.fetch()
        results = {f"val/{k}": mean(*total) for k, total in values.sums["train"].items()}
        self.pending, self.validated_at = False, self.step
        self._write(results)
        self._judge(results)

    def _judge(self, results: Mapping[str, float]) -> None:
        config = self.config
        value = results.get(config.monitor)
        if value is None:
            raise UserError(
                f"monitor={config.monitor} was not among the validation values "
                f"{', '.join(results)}; set monitor to one of them."
            )
        self.last = value
        sign = 1 if config.monitor_mode == "max" else -1
        is_best = math.isfinite(value) and (self.best is None or sign * (value - self.best) > 0)
        line = f"{self._place()}  val    {columns(results)}"
        if is_best:
            self.best = value
            self.save(best=True)
            line += f"  best {config.monitor.split('/', 1)[1]}"
        logger.info(line, extra={"colour": "\x1b[32m" if is_best else ""})

    # ---------------------------------------------------------------- saying and keeping

    @property
    def epoch(self) -> int:
        """The epoch of the next step, from 1."""
        return self.step // self.parts.train.plan.steps + 1

    @property
    def epoch_done(self) -> int:
        """The epoch of the last step, from 1; 0 before the first."""
        return -(-self.step // self.parts.train.plan.steps)

    def _place(self) -> str:
        steps = self.parts.train.plan.steps
        epochs = -(-self.parts.total_steps // steps)
        place = self.step - max(0, self.epoch_done - 1) * steps
        wide, wide_epoch = len(str(steps)), len(str(epochs))
        return f"Epoch {self.epoch_done:{wide_epoch}}/{epochs} [{place:{wide}}/{steps}]"

    def _start_clock(self) -> None:
        self.clock, self.clock_step, self.data_seconds = time.perf_counter(), self.step, 0.0

    def log(self, epoch_ends: bool) -> None:
        """A log point: the only place within training where the host waits for the device."""
        self._refuse_not_finite()
        steps = max(1, self.step - self.clock_step)
        seconds = time.perf_counter() - self.clock
        values = self.windows.means("train")
        lrs = self.parts.scheduler.rates(self.step - 1)
        rates = {f"lr/{name}": lr for name, lr in lrs.items()}
        times = {"time/step": seconds / steps, "time/data": self.data_seconds / steps}
        over_epoch = self.windows.means("train_epoch") if epoch_ends else {}
        self._write({**values, **over_epoch, **rates, **times})
        left = (time.perf_counter() - self.fit_started) / max(1, self.step - self.fit_from)
        low, high = min(lrs.values()), max(lrs.values())
        lr = f"{low:.1e}" if low == high else f"{low:.1e}…{high:.1e}"
        line = f"{self._place()}  lr {lr}  {columns(values)}"
        line += f"  eta {duration(left * (self.parts.total_steps - self.step))}"
        line += f"  time {times['time/step']:.3f}  data {times['time/data']:.3f}"
        if self.parts.device.type == "cuda":
            line += f"  mem {torch.cuda.max_memory_allocated(self.parts.device) / 2**30:.1f}G"
        logger.info(line)
        self._start_clock()

    def _write(self, values: Mapping[str, float]) -> None:
        self.metrics.write({"step": self.step, "epoch": self.epoch_done, **values})
        for sink in self.loggers:
            sink.scalars(self.step, values)

    def _refuse_not_finite(self) -> None:
        bad = self.windows.fetch()
        if bad is None:
            return
        samples = self.parts.train.plan.samples(bad).tolist()
        shown = ", ".join(map(str, samples[:16])) + (", …" if len(samples) > 16 else "")
        raise NotFiniteError(
            f"The loss is not finite at step {bad + 1} (samples {shown} of the training set). "
            "Nothing was saved after it; look at these samples, or lower lr or set clip_grad_norm."
        )

    def save(self, best: bool = False) -> None:
        """Write a checkpoint of this step; with `best`, name it best.pt as well."""
        self._refuse_not_finite()
        folder = self.run.checkpoints
        path = checkpoint.path_of(folder, self.step)
        checkpoint.save(self.state_dict(), path)
        self.saved_at = self.step
        if best:
            checkpoint.link(path, "best.pt")
        checkpoint.prune(folder, self.config.keep_last)

    def state_dict(self) -> dict[str, Any]:
        p = self.parts
        return {
            "format": checkpoint.FORMAT,
            "interface": checkpoint.INTERFACE,
            "step": self.step,
            "epoch": self.epoch_done,
            "model": p.model.state_dict(),
            "ema": p.averaged.model.state_dict() if p.averaged is not None else None,
            "loss": p.task_loss.state_dict(),
            "optimizer": optimizer_state(p.optimizer, p.parameters),
            "scheduler": {"step": p.scheduler.step_count},
            "scaler": self.scaler.state_dict(),
            "windows": self.windows.state_dict(),
            "best": {"value": self.best, "last": self.last},
            "pending": self.pending,
            "config": to_yaml(self.config),
            "fingerprint": p.fingerprint,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        p = self.parts
        self.step = state["step"]
        load_weights(p.model, state["model"], "model")
        load_weights(p.task_loss, state["loss"], "loss")
        if p.averaged is not None:
            load_weights(p.averaged.model, state["ema"] or state["model"], "ema")
        load_optimizer_state(p.optimizer, p.parameters, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.windows.load_state_dict(state["windows"])
        self.best, self.last = state["best"]["value"], state["best"]["last"]
        self.pending = state["pending"]
        self.saved_at = self.step
        self.validated_at = -1 if self.pending else self.step


def load_weights(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load a state dict that must fit exactly. Raises `UserError` with a table where it does not."""
    own = module.state_dict()
    rows = [f"  missing in the checkpoint: {k} {tuple(own[k].shape)}" for k in own.keys() - state]
    rows += [f"  only in the checkpoint: {k} {tuple(state[k].shape)}" for k in state.keys() - own]
    rows += [
        f"  {k}: {tuple(state[k].shape)} in the checkpoint, {tuple(own[k].shape)} in the {what}"
        for k in own.keys() & state.keys()
        if own[k].shape != state[k].shape
    ]
    if rows:
        table = "\n".join(sorted(rows))
        raise UserError(f"The checkpoint's {what} weights do not fit the {what}:\n{table}")
    module.load_state_dict(dict(state))
