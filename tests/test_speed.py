"""What a step costs, counted in calls and operations. Times differ between machines, counts do not."""

import collections
import sys
import threading

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

STEPS = (
    "model=mlp", "epochs=2", "max_steps=30", "log.every=1000", "log.graph=false", "logger=none",
    "val_every_epochs=0", "save_every_epochs=0",
)  # fmt: skip


class Operations(TorchDispatchMode):
    """Counts what torch is asked to compute."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


def in_a_step(loop, counting, step=25):
    """Run the loop, with step `step` and all that follows it up to the next step inside `counting`."""
    inner, after = loop.training_step, loop.after_step

    def training_step(batches):
        if loop.step == step:
            counting.__enter__()
        inner(batches)

    def after_step():
        after()
        if loop.step == step + 1:
            counting.__exit__(None, None, None)

    loop.training_step, loop.after_step = training_step, after_step
    loop.fit()
    return counting


def test_a_step_computes_what_a_bare_one_does_and_little_more(looped):
    loop = looped(*STEPS)
    ours = in_a_step(loop, Operations()).counts
    model, optimizer = loop.parts.model, loop.parts.optimizer
    images, labels = loop.parts.train.first()
    with Operations() as bare:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    more = ours - bare.counts
    # The loss is kept and the accuracy counted; slices cut a batch out of many.
    accuracy = {"aten.argmax": 1, "aten.eq": 1, "aten.count_nonzero": 1}
    slices = {key: more[key] for key in more if "slice" in key}
    gradient = {"aten._amp_foreach_non_finite_check_and_unscale_": 1, "aten.add_": 1}  # it is looked at
    assert more == {"aten.detach": 3, "aten.stack": 1, **gradient, **accuracy, **slices}, more
    assert sum(more.values()) <= 11
    with Operations() as own:
        optimizer.step()
    assert own.counts == {"aten.add_": 1, "aten._fused_adamw_": 1}, "however many parameters there are"
    less = bare.counts - ours
    assert all("profiler" in key for key in less), less


class Calls:
    """Count the calls of the project's functions."""

    def __init__(self):
        self.counts = collections.Counter()

    def __enter__(self):
        sys.setprofile(self.note)

    def __exit__(self, *error):
        sys.setprofile(None)

    def note(self, frame, event, arg):
        if event == "call" and "/digits/" in frame.f_code.co_filename:
            self.counts[frame.f_code.co_qualname] += 1


def test_a_step_calls_few_functions(looped):
    calls = in_a_step(looped(*STEPS), Calls()).counts
    assert 20 < calls.total() <= 55, sorted(
        calls.items(), key=lambda i: -i[1]
    )  # each takes a thousandth of the step of a small network
    assert calls["seed_all"] == 1


def test_nothing_else_runs_beside_the_steps(looped):
    before, loop, during = threading.active_count(), looped(*STEPS, "logger=tensorboard", "log.every=10"), set()
    after = loop.after_step

    def count():
        if loop.step < loop.parts.total_steps:  # after the last one a checkpoint is written
            during.add(threading.active_count())
        after()

    loop.after_step = count
    loop.fit()
    assert during <= {before, before + 1}, "only the event writer has a thread"


def test_a_step_opens_no_file_and_starts_nothing(looped):
    seen, counting = collections.Counter(), []
    sys.addaudithook(lambda event, _: seen.update([event]) if counting else None)

    class Audit:
        def __enter__(self):
            counting.append(True)

        def __exit__(self, *error):
            counting.clear()

    in_a_step(looped(*STEPS), Audit())
    assert not {event for event in seen if event.startswith(("open", "os.", "subprocess", "socket", "import"))}, seen


def test_memory_does_not_grow_with_the_steps(looped):
    loop, held = looped(*STEPS[:1], "epochs=40", "max_steps=700", "log.every=50", "val_every_epochs=0"), {}
    after = loop.after_step

    def count():
        after()
        if loop.step in (300, 650):
            tensors = [value for value in vars(loop.windows).values() if isinstance(value, list)]
            held[loop.step] = (sum(map(len, tensors)), len(loop.windows.seen), torch.get_num_threads())

    loop.after_step = count
    loop.fit()
    assert held[300] == held[650]


def test_a_step_enters_at_most_twenty_functions_of_the_engine(looped):
    """Comprehensions do not count. All defaults are on."""
    loop, entered = looped("epochs=1", "logger=none"), set()
    training_step = loop.training_step

    def profile(frame, event, arg):
        code = frame.f_code
        if event == "call" and "/engine/" in code.co_filename and not code.co_name.startswith("<"):
            entered.add(f"{code.co_filename.split('/engine/')[1]}: {code.co_qualname}")

    def profiled_step(batches):
        sys.setprofile(profile if loop.step == 10 else None)
        training_step(batches)
        sys.setprofile(None)

    loop.training_step = profiled_step
    loop.fit()
    assert "loop.py: Steps.training_step" in entered
    assert len(entered) <= 20, sorted(entered)
