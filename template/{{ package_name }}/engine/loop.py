"""The training step, the loop around it, and validation."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from . import rng, signals
from .api import Context, Mean, recording
from .build.optimizer import groups_but, load_optimizer_state, optimizer_state
from .config.stored import to_yaml
from .errors import NO_SPACE, NotFiniteError, Stopped, UserError
from .log.media import Media
from .log.profiling import Profiler
from .log.report import Report
from .log.statistics import Statistics
from .log.timing import Timing
from .machine import distributed
from .machine.device import autocast, to_device
from .machine.distributed import WORLD_SIZE, Vote
from .rng import Domain
from .run import checkpoint
from .run.folder import Run
from .run.saver import Saver
from .validation import evaluate_split

if TYPE_CHECKING:
    from .build.parts import Parts


class Loop:
    """Trains `parts` from `step` to `parts.total_steps` and keeps the run's folder."""

    def __init__(self, parts: Parts, run: Run, started: float) -> None:
        self.parts, self.run, self.config = parts, run, parts.config
        self.started = started
        self.step = 0
        """Optimizer steps done."""
        self.best: float | None = None
        self.best_saved: float | None = None
        """The value of best.pt: the best one, unless that file was lost."""
        self.last: float | None = None
        self.not_better = 0
        """Validations in a row without a better `monitor`."""
        self.pending = False
        """Whether the validation that is due after `step` is still to be done."""
        self.saved_at = -1
        self.has_advanced = False
        """Whether this process has done a step or a validation, so that a time limit that is too
        short for more still comes to an end."""
        self.divisor: Tensor | float | None = None
        """What the gradients of losses that are a `Mean` are still to be divided by."""
        self.keeps_nothing = parts.config.compile == "reduce-overhead"
        """Whether the model's outputs and gradients are overwritten when it is called again, as
        those of CUDA graphs are."""
        self.statistics = Statistics(parts.device, parts.config.log.windows, parts.task.derived)
        self.timing = Timing()
        self.saver = Saver(run.checkpoints, self.config.keep_last)
        self.config_text = to_yaml(self.config)
        self.media = Media(parts, run, [], 0)
        self.vote = Vote()
        self.scaler = torch.amp.GradScaler(parts.device.type, enabled=parts.precision == "fp16")
        self.step_key = rng.make_key(self.config.seed, Domain.STEP)
        self.batch_key = rng.make_key(self.config.seed, Domain.BATCH)
        self.in_turn = parts.in_turn
        self.forward = parts.wrapped_model()

    # ---------------------------------------------------------------- one step

    def training_step(self, batches: Iterator[Any]) -> None:
        """One optimizer step, over all its micro-batches."""
        p = self.parts
        p.zero_grad()
        self.divisor = None
        counts = p.train.plan.counts(self.step)
        for micro, count in enumerate(counts):
            batch = self.next_batch(batches, micro)
            with self.gradients_shared(micro == len(counts) - 1):
                with autocast(p.precision, p.device), recording() as recorded:
                    values = p.task.training_step(self.forward, batch, self.context())
                self.backward(values["loss"], count)
            self.statistics.add(self.step, {**recorded, **values}, count)
        self.average_gradients()
        self.leave_out_groups()
        self.clip_gradients()
        self.scaler.step(p.optimizer)
        self.scaler.update()
        p.scheduler.step()
        if p.averaged is not None:
            p.averaged.update(p.model)
        self.step += 1

    def next_batch(self, batches: Iterator[Any], micro: int) -> Any:
        """The next micro-batch on the device, with all generators set for its forward pass."""
        p = self.parts
        with self.timing.data():
            batch = to_device(next(batches), p.device, self.config.channels_last)
        number = self.step * p.train.plan.micro_batches + micro * WORLD_SIZE + distributed.RANK
        if p.mix is not None:
            rng.seed_all(rng.fold_in(self.batch_key, number))
            batch = to_device(p.mix(*batch), p.device, self.config.channels_last)
        self.media.keep(batch)
        rng.seed_all(rng.fold_in(self.step_key, number))
        return batch

    def backward(self, loss: Any, count: int) -> None:
        """Adds a micro-batch's gradients, weighted by what its loss, a tensor or `Mean`, was averaged over."""
        total = self.parts.train.plan.total(self.step)
        if count == total:  # the only micro-batch: its mean is the mean
            loss = loss.value if isinstance(loss, Mean) else loss
        elif isinstance(loss, Mean):  # how many things there are is known after the last one
            self.divisor = loss.n + (0 if self.divisor is None else self.divisor)
            loss = loss.value * loss.n
        else:  # gradients are averaged over processes: each counts WORLD_SIZE times as much
            loss = loss * (count * WORLD_SIZE / total)
        self.scaler.scale(loss).backward()
        if self.keeps_nothing and self.config.accumulate > 1:
            for q in self.parts.parameters.values():
                q.grad = None if q.grad is None else q.grad.clone()

    def average_gradients(self) -> None:
        """Divides sums over processes and micro-batches by what they were taken over."""
        p = self.parts
        if WORLD_SIZE > 1:
            p.average_loss_gradients()
        if self.divisor is not None:
            divisor = self.divisor
            if not isinstance(divisor, Tensor):  # copying a number would wait for the GPU
                divisor = torch.full((), float(divisor), device=p.device)
            divisor = divisor.to(p.device, torch.float32, copy=True)
            share = distributed.sum_over_processes(divisor) / WORLD_SIZE
            share.clamp_(min=1e-30)  # of nothing at all the gradients are 0, and stay 0
            torch._foreach_div_(
                [q.grad for q in p.parameters.values() if q.grad is not None], share
            )

    def leave_out_groups(self) -> None:
        """Without gradients a parameter keeps its weights and optimizer state in this step."""
        if not self.in_turn:
            return
        trained = self.parts.task.trains(self.context())
        if trained is not None:
            for group in groups_but(self.parts.optimizer, trained):
                for parameter in group["params"]:
                    parameter.grad = None

    def clip_gradients(self) -> None:
        """By value, by norm, or both; logs the norm that there was."""
        p, config = self.parts, self.config
        if config.clip_grad_norm is None and config.clip_grad_value is None:
            return
        self.scaler.unscale_(p.optimizer)
        if config.clip_grad_value is not None:
            nn.utils.clip_grad_value_(p.parameters.values(), config.clip_grad_value)
        limit = config.clip_grad_norm or math.inf
        norm = nn.utils.clip_grad_norm_(p.parameters.values(), limit)
        self.statistics.add(self.step, {"grad_norm": norm}, 1)

    def gradients_shared(self, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients in a step's last micro-batch only."""
        if WORLD_SIZE == 1 or last:
            return nullcontext()
        context: AbstractContextManager[Any] = self.parts.replicated.no_sync()
        return context

    def context(self) -> Context:
        epoch = self.step // self.parts.train.plan.steps + 1
        return Context(self.step, epoch, training=True, device=self.parts.device)

    # ---------------------------------------------------------------- the run

    def fit(self) -> None:
        """Train to the end. Raises `Exit` and what the task raises."""
        p, config = self.parts, self.config
        if config.val_at_start and self.saved_at < 0:  # not where a checkpoint says what is due
            self.pending = p.val is not None
        self.report = Report(
            p, self.run.folder, self.timing, self.step, validate_again=self.pending
        )
        try:
            if distributed.is_main():
                self.report.loggers = p.open_loggers(self.run.folder, self.step + 1)
            self.media = Media(p, self.run, self.report.loggers, self.step)
            p.scheduler.begin(p.optimizer, self.step)
            if self.pending:
                with self.report.aside("validation"):
                    self.validate()
                    self.save()
            self.stop_if_asked()
            self.saver.wait()  # loader workers are forked next, which no other thread should see
            p.model.train()
            left = p.total_steps - self.step
            profiler = Profiler(config.profile, self.run.folder, p.device, left)
            batches = p.train.read(self.step, p.total_steps)
            with closing(batches), closing(profiler):
                while self.step < p.total_steps and not self.out_of_patience():
                    self.training_step(batches)
                    self.has_advanced = True
                    profiler.step()
                    self.report.stepped()
                    self.after_step()
            if self.saved_at != self.step:
                self.save()
            self.saver.wait()
            self.media.finish(self.step, self.best)
        except OSError as error:
            if error.errno in NO_SPACE:  # a save that filled the disk says how much room it needs
                self.saver.wait()
            raise
        finally:
            self.saver.close()
            self.report.close()
        self.vote.close()

    def after_step(self) -> None:
        """Log, validate, save and stop, where it is time to."""
        self.saver.check()
        if not self.media.has_begun:  # not before the first step, which it would keep waiting
            with self.report.aside("start"):
                self.media.begin(self.context())
        self.media.stepped(self.step)
        config, steps_per_epoch = self.config, self.parts.train.plan.steps
        epochs, rest = divmod(self.step, steps_per_epoch)

        def due(every_epochs: int, every_steps: int | None) -> bool:
            by_epoch = not rest and every_epochs > 0 and epochs % every_epochs == 0
            return by_epoch or (every_steps is not None and self.step % every_steps == 0)

        if self.step % config.log.every == 0 or not rest or self.step == self.parts.total_steps:
            self.log(epoch_ends=not rest)
        by_epochs = config.val_every_epochs if config.val_every_steps is None else 0
        is_due = self.step == self.parts.total_steps or due(by_epochs, config.val_every_steps)
        self.pending = self.parts.val is not None and is_due
        self.stop_if_asked()
        if self.pending:
            with self.report.aside("validation"):
                self.validate()
        if self.saved_at != self.step and due(config.save_every_epochs, config.save_every_steps):
            self.save()

    def log(self, epoch_ends: bool) -> None:
        """A log point: the only place between validations where the host waits for the device."""
        self.statistics.fetch()
        self.refuse_not_finite()
        ends = epoch_ends or self.step == self.parts.total_steps
        self.statistics.refuse_unknown_sources(ends)
        if self.config.log.by == "epoch" and not ends:
            return
        self.report.train(
            self.step,
            self.statistics.log_point(),
            self.statistics.epoch_end() if epoch_ends else {},
            self.parts.scheduler.lrs(self.step - 1),
        )

    def stop_if_asked(self) -> None:
        """Save and raise `Stopped` where a signal came or the time is over, in any process."""
        reason, minutes = signals.requested(), self.config.max_minutes
        if reason is None and minutes is not None and self.has_advanced:
            is_over = time.monotonic() - self.started > 60 * minutes
            reason = f"max_minutes={minutes:g}" if is_over else None
        if not self.vote.ask(reason is not None):
            return
        if self.step == self.parts.total_steps and not self.pending:
            return
        self.vote.close()
        if self.saved_at != self.step:
            self.save()
        self.saver.wait()
        reason = next((r for r in distributed.from_all(reason) if r), "another process")
        raise Stopped(f"Stopped by {reason} after step {self.step} and saved.")

    def out_of_patience(self) -> bool:
        patience = self.config.early_stopping_patience
        return patience is not None and self.not_better > patience

    def refuse_not_finite(self) -> None:
        """Raise `NotFiniteError` if a fetched loss is not finite."""
        bad = self.statistics.first_not_finite
        if bad is None:
            return
        samples = self.parts.train.plan.samples(bad).tolist()
        shown = ", ".join(map(str, samples[:16])) + (", …" if len(samples) > 16 else "")
        raise NotFiniteError(
            f"The loss is not finite at step {bad + 1} (samples {shown} of the training set). "
            "Nothing was saved after it; look at these samples, or lower lr or set clip_grad_norm."
        )

    # ---------------------------------------------------------------- validation

    def validate(self) -> None:
        """Every validation sample once, with the averaged weights where there are any."""
        p = self.parts
        if p.val is None:
            return
        self.statistics.fetch()
        self.refuse_not_finite()
        model = p.averaged.model if p.averaged is not None else p.model
        epoch = self.report.epoch(self.step)
        self.saver.wait()  # loader workers are forked next, which no other thread should see
        self.vote.restart()
        # A stop in between saves; the resumed run validates, as `pending` is in the checkpoint.
        with self.media.validation(model, self.step) as look:
            values = evaluate_split(p, model, p.val, self.step, epoch, self.stop_if_asked, look)
        self.vote.restart()
        p.model.train()
        results = {f"val/{key}": value for key, value in values.items()}
        self.pending, self.has_advanced = False, True
        self.report.write(self.step, results)
        self.judge(results)

    def judge(self, results: Mapping[str, float]) -> None:
        """Is it the best so far? Then keep it."""
        config = self.config
        value = results.get(config.monitor)
        if value is None:
            raise UserError(
                f"monitor={config.monitor} was not among the validation values "
                f"{', '.join(results)}; set monitor to one of them."
            )
        self.last = value
        self.parts.scheduler.observe(value)
        is_best = self.is_better(value, self.best)
        self.not_better = 0 if is_best else self.not_better + 1
        if is_best:
            self.best = value
        if self.is_better(value, self.best_saved):
            self.best_saved = value
            self.save(best=True)
        self.report.validation(self.step, results, config.monitor[4:] if is_best else None)

    def is_better(self, value: float, than: float | None) -> bool:
        sign = 1 if self.config.monitor_mode == "max" else -1
        return math.isfinite(value) and (than is None or sign * (value - than) > 0)

    # ---------------------------------------------------------------- checkpoints

    def save(self, best: bool = False) -> None:
        """Begin to write a checkpoint of this step; with `best`, name it best.pt as well."""
        self.statistics.fetch()
        self.refuse_not_finite()
        self.saved_at = self.step
        if distributed.is_main():
            with self.report.aside("save"):
                self.report.flush()  # else a kill after the save loses what was logged before it
                self.saver.save(self.state_dict(), self.step, best)

    def state_dict(self) -> dict[str, Any]:
        p = self.parts
        return {
            "format": checkpoint.FORMAT,
            "interface": checkpoint.INTERFACE,
            "step": self.step,
            "epoch": self.report.epoch(self.step),
            "model": p.model.state_dict(),
            "ema": p.averaged.model.state_dict() if p.averaged is not None else None,
            "loss": p.loss.state_dict(),
            "optimizer": optimizer_state(p.optimizer, p.parameters),
            "scheduler": p.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "windows": self.statistics.state_dict(),
            "best": {
                "value": self.best,
                "saved": self.best_saved,
                "last": self.last,
                "not_better": self.not_better,
            },
            "pending": self.pending,
            "config": self.config_text,
            "fingerprint": p.fingerprint,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        p = self.parts
        self.step = state["step"]
        load_weights(p.model, state["model"], "model")
        load_weights(p.loss, state["loss"], "loss")
        if p.averaged is not None:
            load_weights(p.averaged.model, state["ema"] or state["model"], "ema")
        load_optimizer_state(p.optimizer, p.parameters, state["optimizer"])
        p.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.statistics.load_state_dict(state["windows"])
        best = state["best"]
        self.best, self.best_saved = best["value"], best["saved"]
        self.last, self.not_better = best["last"], best["not_better"]
        self.pending = state["pending"]
        self.saved_at = self.step


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
