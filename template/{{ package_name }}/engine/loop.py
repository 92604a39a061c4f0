"""The training step, the loop around it, and validation."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import rng, signals
from .api import Context, recording
from .build.optimizer import groups_except
from .build.parts import Parts
from .config.stored import to_yaml
from .errors import NO_SPACE, Stopped
from .log.media import Media
from .log.report import Report, profiled
from .log.statistics import Statistics
from .machine import distributed
from .machine.device import autocast, ended, to_device
from .machine.distributed import WORLD_SIZE, Vote
from .machine.sharding import is_sharded, whole
from .machine.torch_internals import look_for_not_finite
from .means import Mean, parts_of_whole, value_and_n
from .progress import Progress, not_finite
from .rng import Domain
from .run import checkpoint
from .run.folder import Run
from .run.saver import bad_places
from .validation import Hooks, test_best, validate


class Steps:
    """Optimizer steps over `parts`. It needs no run folder and writes no file."""

    def __init__(self, parts: Parts, folder: Path | None = None) -> None:
        """folder: that of the run, if there is one."""
        self.parts, self.config = parts, parts.config
        self.step = 0
        """Optimizer steps done."""
        self.batch: Any = None
        """The last micro-batch."""
        self.lrs: dict[str, float] = {}
        """The learning rate that the last step used, by parameter group."""
        self.divisor: Tensor | float | None = None
        """What to divide the gradients by before the step, if losses are a `Mean`."""
        self.windows = Statistics(parts.device, parts.config.log.windows, parts.task.derived)
        self.data_seconds = 0.0
        """The time that steps waited for data since the last log point."""
        self.scaler = torch.amp.GradScaler(parts.device.type, enabled=parts.precision == "fp16")
        self.step_key = rng.make_key(self.config.seed, Domain.STEP)
        self.batch_key = rng.make_key(self.config.seed, Domain.BATCH)
        self.in_turn = parts.in_turn
        self.hooks = Hooks(parts, folder)
        self.forward = parts.wrapped_model()

    def training_step(self, batches: Iterator[Any]) -> None:
        """One optimizer step, over all its micro-batches."""
        p = self.parts
        self.lrs = {group["name"]: group["lr"] for group in p.optimizer.param_groups}
        for parameter in p.parameters.values():  # optimizer.zero_grad() in less time
            parameter.grad = None
        self.divisor = None
        counts = p.train.plan.counts(self.step)
        for micro, count in enumerate(counts):
            batch = self.next_batch(batches)
            number = self.step * p.train.plan.micro_batches + p.train.plan.mine[micro]
            if p.mix is not None:
                batch = self.mixed(batch, number)
            self.batch = batch
            rng.seed_all(rng.fold_in(self.step_key, number))
            with self.gradients_shared(micro == len(counts) - 1):
                with autocast(p.precision, p.device), recording() as recorded:
                    if p.train.plan.micro_batches > 1:
                        parts_of_whole[-1] = p.train.plan.total(self.step) / count  # see means.py
                    values = p.task.training_step(self.forward, batch, self.context())
                self.backward(values["loss"], count)
            self.windows.add(self.step, {**recorded, **values}, count)
        if WORLD_SIZE > 1 or self.divisor is not None:
            p.average_gradients(self.divisor)
        if self.in_turn:
            self.leave_out_groups()
        self.clip_gradients()
        self.scaler.step(p.optimizer)
        self.scaler.update()
        p.scheduler.step()
        if self.hooks.has_after_step:
            self.hooks.after_step(self.step + 1)
        if p.averaged is not None:
            p.averaged.update(p.model)
        self.step += 1

    def next_batch(self, batches: Iterator[Any]) -> Any:
        """Return the next micro-batch, which the loader put on the device. Count the wait as `time/data`."""
        began = time.perf_counter()
        batch = next(batches)
        if self.config.channels_last:
            batch = to_device(batch, self.parts.device, channels_last=True)
        self.data_seconds += time.perf_counter() - began
        return batch

    def mixed(self, batch: Any, number: int) -> Any:
        """Return the micro-batch after MixUp or CutMix. `number` counts micro-batches over the run."""
        p = self.parts
        assert p.mix is not None
        rng.seed_all(rng.fold_in(self.batch_key, number))
        return to_device(p.mix(*batch), p.device, self.config.channels_last)

    def backward(self, loss: Any, count: int) -> None:
        """Add the gradients of a micro-batch, weighted by the samples or things that its loss is
        a mean over. `loss`: a tensor or a `Mean`. `count`: samples of the micro-batch."""
        plan = self.parts.train.plan
        n = getattr(loss, "mean_over", None)
        if isinstance(loss, Mean):
            loss, n = value_and_n(loss)
        if plan.micro_batches > 1 and count != plan.total(self.step):  # a part of the step
            if n is None:  # processes average their gradients: each counts so many times
                loss = loss * (count * plan.processes / plan.total(self.step))
            else:  # the sum of all n is known after the last micro-batch
                self.divisor = n + (0 if self.divisor is None else self.divisor)
                loss = loss * n
        self.scaler.scale(loss).backward()
        if self.config.compile == "reduce-overhead" and self.config.accumulate > 1:
            self.parts.copy_gradients()  # the next call of the CUDA graph overwrites them

    def leave_out_groups(self) -> None:
        """Drop the gradients of groups that the task does not train: they keep value and state."""
        trained = self.parts.task.trains(self.context())
        if trained is not None:
            for group in groups_except(self.parts.optimizer, trained):
                for parameter in group["params"]:
                    parameter.grad = None

    def clip_gradients(self) -> None:
        """Clip gradients by value, then by norm, which is logged. Note whether all are finite."""
        p, config = self.parts, self.config
        if config.clip_grad_norm or config.clip_grad_value or config.log.grad_norm:
            self.scaler.unscale_(p.optimizer)
            if config.clip_grad_value is not None:
                nn.utils.clip_grad_value_(p.parameters.values(), config.clip_grad_value)
            limit = config.clip_grad_norm or math.inf
            norm = whole(nn.utils.clip_grad_norm_(p.parameters.values(), limit))
            self.windows.add(self.step, {"grad_norm": norm}, p.train.plan.processes / WORLD_SIZE)
        if not self.scaler.is_enabled():  # it leaves out a step whose gradient is not finite
            grads = [q.grad for q in p.parameters.values() if q.grad is not None]
            look_for_not_finite(grads, *self.windows.bad_gradient)

    def gradients_shared(self, last: bool) -> AbstractContextManager[Any]:
        """Return the context of a micro-batch: processes share gradients only in the last one."""
        if self.parts.tree is not None:
            return self.parts.tree.micro_batch(self, last)
        if last or self.parts.replicated is None:
            return nullcontext()
        context: AbstractContextManager[Any] = self.parts.replicated.no_sync()
        return context

    def context(self) -> Context:
        """Return the position of the step that comes next."""
        epoch = self.step // self.parts.train.plan.steps + 1
        return Context(self.step, epoch, training=True, device=self.parts.device)


class Loop(Steps):
    """Train `parts` from `step` to `parts.total_steps` and keep the run folder."""

    def __init__(
        self, parts: Parts, run: Run, started: float, state: Mapping[str, Any] | None = None
    ) -> None:
        """started: the time of the command's start, from `time.monotonic()`, in seconds.
        state: the checkpoint to go on from, which `parts` have loaded already."""
        super().__init__(parts, run.folder)
        self.run = run
        self.progress = Progress(parts.config, started)
        self.pending = self.config.val_at_start and parts.val is not None
        """True while the validation that is due after `step` is not done."""
        self.saved_at = -1
        """The step of the last checkpoint."""
        self.config_text = to_yaml(self.config)
        self.vote = Vote()
        never = 1 << 62
        self.val_interval = parts.val_interval or never
        self.save_intervals = [interval or never for interval in parts.save_intervals]
        if state is not None:
            self.step = self.saved_at = state["step"]
            self.scaler.load_state_dict(state["scaler"])
            self.windows.load_state_dict(state["windows"])
            self.progress.load_state_dict(state["best"])
            is_due = self.step % self.val_interval < 1 or self.step == parts.total_steps
            self.pending = state["pending"] and is_due  # not if this was the end of a shorter run
        start = {**parts.model.state_dict(), **parts.loss.state_dict()}
        masks = set(bad_places(start)) - parts.parameters.keys()  # infinite, and not trained
        self.saver = parts.new_saver(run.checkpoints, masks)
        self.first_step = self.step + 1  # of this process, from 1
        self.report = Report(parts, run.folder, self.step, validates_again=self.pending)
        self.media = Media(parts, run, self.report.loggers)

    def fit(self) -> None:
        """Train to the end. Raises `Exit` and all errors of the task."""
        p, config = self.parts, self.config
        try:
            p.scheduler.begin(p.optimizer, self.step)
            if self.pending:
                self.validate()
                self.save()
            self.stop_if_asked()
            self.saver.wait()  # loader workers are forked next: no other thread may run then
            p.begin_training()
            batches, left = p.train.read(self.step, p.total_steps), p.total_steps - self.step
            profiler = profiled(config.profile, self.run.folder, p.device, left)
            with ended(batches), profiler as step_done:
                while self.step < p.total_steps and not self.progress.out_of_patience:
                    self.training_step(batches)
                    step_done()
                    self.after_step()
            if self.saved_at != self.step:
                self.save()
            self.saver.wait()
            test_best(p, self.run, self.report, self.step)
            self.media.finish(self.step, self.progress.best)
        except OSError as error:
            if error.errno in NO_SPACE:  # a failed save knows how much room it needs: let it speak
                self.saver.wait()
            raise
        finally:
            self.saver.close()
            self.report.close()
        self.vote.restart()

    def after_step(self) -> None:
        """Log, validate, save and stop, if it is due."""
        p, step = self.parts, self.step
        self.progress.has_advanced = True
        self.report.bar.update()
        if self.saver.error is not None:
            self.saver.wait()  # raises it
        if step == self.first_step:  # what takes a while waits until the first step is done
            self.report.eta.first_step_ended()
            with self.report.aside("start"):
                self.media.begin(self.context(), self.batch)
        if p.config.log.histograms is not None and step % p.config.log.histograms == 0:
            self.media.histograms(step)
        epoch_ends, run_ends = step % p.train.plan.steps == 0, step == p.total_steps
        if epoch_ends or run_ends or step % p.config.log.every == 0:
            self.log(epoch_ends)
        self.pending = p.val is not None and (run_ends or step % self.val_interval < 1)
        if WORLD_SIZE > 1 or signals.pending is not None or p.config.max_minutes is not None:
            self.stop_if_asked()
        if self.pending:
            self.validate()
        by_epochs, by_steps = self.save_intervals
        if self.saved_at != step and (step % by_epochs == 0 or step % by_steps == 0):
            self.save()

    def log(self, epoch_ends: bool) -> None:
        """A log point. Only here and in validations the host waits for the device."""
        ends = epoch_ends or self.step == self.parts.total_steps
        self.fetch()
        self.windows.refuse_unknown_sources(ends)
        if self.config.log.by == "step" or ends:
            values = self.windows.log_point()
            values |= self.windows.epoch_end() if epoch_ends else {}
            self.report.train(self.step, values, self.lrs, self.data_seconds)
            self.data_seconds = 0.0

    def fetch(self) -> None:
        """Fetch the logged values. Raises `NotFiniteError` for a loss or gradient."""
        self.windows.fetch()
        if self.windows.not_finite is not None:
            step, what = self.windows.not_finite
            raise not_finite(what, step, self.parts.train.plan.samples(step).tolist())

    def stop_if_asked(self, put_back: Callable[[], None] = lambda: None) -> None:
        """Call `put_back`, save and raise `Stopped` if a signal or the time limit asks any process."""
        reason = self.progress.reason_to_stop()
        if not self.vote.ask(reason is not None):
            return
        if self.step == self.parts.total_steps and not self.pending:
            return  # the run ends anyway
        self.vote.restart()
        put_back()
        if self.saved_at != self.step:
            self.save()
        self.saver.wait()
        reason = next((r for r in distributed.from_all(reason) if r), "another process")
        raise Stopped(f"Stopped by {reason} after step {self.step} and saved.")

    def validate(self) -> None:
        """Evaluate the validation split, log the values, and save the weights if they are the best.

        It takes the averaged weights if there are any. A stop in between saves with `pending` set,
        and the resumed run validates again.
        """
        p = self.parts
        if p.val is None:
            return
        with self.report.aside("validation"):
            self.fetch()
            model = p.averaged.model if p.averaged is not None else p.model
            self.saver.wait()  # loader workers are forked next: no other thread may run then
            self.vote.restart()
            results = validate(p, model, self.step, self.stop_if_asked, self.media, self.hooks)
            self.vote.restart()
            self.pending, self.progress.has_advanced = False, True
            self.report.write(self.step, results)
            self.judge(results)

    def judge(self, results: Mapping[str, float]) -> None:
        """Save the weights as best.pt if the monitored value is the best so far."""
        is_best, is_to_save = self.progress.judge(results)
        value = self.progress.last
        if value is not None and self.step % self.val_interval < 1:  # as in a longer run
            self.progress.observe(value)
            self.parts.scheduler.observe(value)
        if is_to_save:
            self.save(best=True)
        monitor = self.config.monitor.removeprefix("val/")
        self.report.validation(self.step, results, monitor if is_best else None)

    def save(self, best: bool = False) -> None:
        """Begin to write a checkpoint of this step. With `best`, it is best.pt as well."""
        self.fetch()
        self.saved_at = self.step
        if distributed.is_main() or is_sharded(self.config):
            with self.report.aside("save"):
                self.report.flush()  # a kill after the save must not lose values logged before it
                self.saver.save(self.state_dict(), self.step, best)

    def state_dict(self) -> dict[str, Any]:
        """Return the contents of a checkpoint: tensors and plain values only."""
        return {
            "format": checkpoint.FORMAT,
            "interface": checkpoint.INTERFACE,
            "step": self.step,
            "epoch": self.parts.train.plan.epoch(self.step),
            **self.parts.state_dict(),  # model, ema, loss, optimizer, scheduler, fingerprint
            "scaler": self.scaler.state_dict(),
            "windows": self.windows.state_dict(),
            "best": self.progress.state_dict(),
            "pending": self.pending,
            "config": self.config_text,
        }
