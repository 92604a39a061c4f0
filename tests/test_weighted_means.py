"""A loss over micro-batches, processes and validation batches equals torch's loss over all samples at once."""

import json
import math
import sys
from types import ModuleType

import pytest
import torch
from helpers import snippets
from helpers.runs import rows, the_run
from torch import nn

WEIGHT = [1.0, 5.0, 10.0, 20.0]
CASES = [
    ("classes", "CrossEntropyLoss", {}),
    ("classes", "CrossEntropyLoss", {"weight": WEIGHT}),
    ("classes", "CrossEntropyLoss", {"weight": [1, 2, 3, 4]}),
    ("classes", "CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1}),
    ("classes", "CrossEntropyLoss", {"weight": WEIGHT, "ignore_index": 1}),
    ("classes", "CrossEntropyLoss", {"ignore_index": 0}),
    ("classes", "CrossEntropyLoss", {"ignore_index": 0, "label_smoothing": 0.1}),
    ("classes", "CrossEntropyLoss", {"ignore_index": -100}),
    ("classes", "CrossEntropyLoss", {"reduction": "sum"}),
    ("classes", "CrossEntropyLoss", {"reduction": "sum", "weight": WEIGHT}),
    ("cells", "CrossEntropyLoss", {}),
    ("cells", "CrossEntropyLoss", {"ignore_index": 3}),
    ("cells", "CrossEntropyLoss", {"ignore_index": 3, "weight": WEIGHT}),
    ("shares", "CrossEntropyLoss", {"weight": WEIGHT}),
    ("shares", "CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1}),
    ("log_classes", "NLLLoss", {"weight": WEIGHT}),
    ("log_classes", "NLLLoss", {"ignore_index": 2}),
    ("log_classes", "NLLLoss", {"reduction": "sum"}),
    ("log_cells", "NLLLoss", {"ignore_index": 3, "weight": WEIGHT}),
    ("features", "LinearCrossEntropyLoss", {"in_features": 36, "num_classes": 4}),
    ("features", "LinearCrossEntropyLoss", {"in_features": 36, "num_classes": 4, "weight": WEIGHT}),
    ("features", "LinearCrossEntropyLoss", {"in_features": 36, "num_classes": 4, "ignore_index": 0}),
    ("bits", "BCEWithLogitsLoss", {"pos_weight": WEIGHT}),
    ("bits", "BCEWithLogitsLoss", {"pos_weight": 3, "weight": WEIGHT}),
    ("bits", "BCEWithLogitsLoss", {"pos_weight": WEIGHT, "reduction": "sum"}),
    ("probabilities", "BCELoss", {"weight": WEIGHT}),
    ("values", "MSELoss", {}),
    ("values", "MSELoss", {"reduction": "sum"}),
    ("values", "L1Loss", {}),
    ("values", "SmoothL1Loss", {"beta": 0.5}),
    ("values", "HuberLoss", {"delta": 0.5}),
    ("log_shares", "KLDivLoss", {}),
    ("log_shares", "KLDivLoss", {"reduction": "batchmean"}),
    ("logs", "KLDivLoss", {"reduction": "batchmean", "log_target": True}),
    ("log_shares", "KLDivLoss", {"reduction": "sum"}),
    ("gaussian", "GaussianNLLLoss", {"full": True}),
    ("counts", "PoissonNLLLoss", {}),
    ("signs", "SoftMarginLoss", {}),
    ("signs", "HingeEmbeddingLoss", {}),
    ("ranking", "MarginRankingLoss", {"margin": 0.5}),
    ("cosine", "CosineEmbeddingLoss", {"margin": 0.1}),
    ("triplet", "TripletMarginLoss", {"swap": True}),
    ("triplet", "TripletMarginWithDistanceLoss", {}),
    ("labels", "MultiLabelMarginLoss", {}),
    ("bits", "MultiLabelSoftMarginLoss", {"weight": WEIGHT}),
    ("classes", "MultiMarginLoss", {"weight": WEIGHT}),
    ("classes", "MultiMarginLoss", {"weight": WEIGHT, "reduction": "sum"}),
    ("texts", "CTCLoss", {"zero_infinity": True}),
    ("texts", "CTCLoss", {"reduction": "sum"}),
]
CASES = [case for case in CASES if hasattr(nn, case[1])]
TENSORS = ("weight", "pos_weight")
COMMON = (
    "data._target_=.any_loss.Points", "~data.shift", "model._target_=.any_loss.model", "~model.width", "~model.dropout",
    "task._target_=.any_loss.AnyLoss",
    "logger=none", "scheduler=constant", "optimizer=sgd", "drop_last=false", "batch_size=16", "epochs=2", "lr=0.01",
    "monitor=val/loss", "monitor_mode=min", "log.curves=false", "log.every=1", "workers=0",
)  # fmt: skip


def overrides(kind: str, name: str, options: dict) -> list[str]:
    target = name if name.startswith(".") else f"torch.nn.{name}"
    smoothing = [] if "label_smoothing" in options else ["~loss.label_smoothing"]
    given = [f"++loss.{key}={value}" for key, value in options.items()]
    return [f"loss._target_={target}", f"+task.kind={kind}", *smoothing, *given]


def torchs(name: str, options: dict) -> nn.Module:
    """The loss as a user of torch makes it."""
    tensors = {k: torch.tensor(v, dtype=torch.float32) if k in TENSORS else v for k, v in options.items()}
    return getattr(nn, name)(**tensors)


@pytest.fixture(scope="module")
def own(engine):
    """The snippet, as a module of the package that `engine` imports."""
    engine("api")
    module = ModuleType("digits.any_loss")
    module.__package__ = "digits"
    sys.modules["digits.any_loss"] = module
    exec(snippets.text("digits/any_loss.py"), module.__dict__)
    yield module
    del sys.modules["digits.any_loss"]


def plain(own, parts, kind: str, loss: nn.Module) -> tuple[list[torch.Tensor], list[float], float]:
    """Train as a loop of torch does, with whole batches.

    Return the weights, the loss of each step, and that of the validation split at the end.
    """
    model = own.model()
    model.load_state_dict(parts.model.state_dict())
    loss.load_state_dict(parts.loss.state_dict())
    weights = [*model.parameters(), *loss.parameters()]
    group = parts.optimizer.param_groups[0]
    options = {key: group[key] for key in ("momentum", "nesterov", "weight_decay")}
    optimizer = torch.optim.SGD(weights, lr=0.01, **options)
    train, val = (loader.reader.dataset.tensors for loader in (parts.train, parts.val))
    steps = []
    for step in range(parts.total_steps):
        x, y = (rows[parts.train.plan.samples(step)] for rows in train)
        optimizer.zero_grad()
        value = loss(*own.inputs(kind, model(x), x, y))
        value.backward()
        optimizer.step()
        steps.append(value.item())
    with torch.no_grad():
        return weights, steps, loss(*own.inputs(kind, model(val[0]), *val)).item()


@pytest.fixture
def built(engine, own, project, monkeypatch):
    """`built(*overrides)`: the checked parts of a run that has no folder."""
    monkeypatch.chdir(project)
    launch, setup, first_batch = map(engine, ("launch", "setup", "build.first_batch"))

    def built(*overrides):
        parts = setup.build_parts(launch.compose("device=cpu", *COMMON, *overrides))
        first_batch.check_one_batch(parts)
        return parts

    yield built
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def assert_equal_to_torch(engine, own):
    """`assert_equal_to_torch(parts, kind, loss)`: train `parts` as the engine does, and as torch does."""

    def assert_equal_to_torch(parts, kind, loss):
        weights, expected, validated = plain(own, parts, kind, loss)
        steps, losses = engine("loop").Steps(parts), []
        parts.scheduler.begin(parts.optimizer)
        parts.model.train()
        batches = parts.train.read(0, parts.total_steps)
        for _ in range(parts.total_steps):
            steps.training_step(batches)
            steps.windows.fetch()
            assert steps.windows.not_finite is None
            losses.append(steps.windows.means()["loss"])
        for mine, theirs in zip([*parts.model.parameters(), *parts.loss.parameters()], weights, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
        assert losses == pytest.approx(expected, rel=1e-5, nan_ok=True)
        values = engine("validation").evaluate_split(parts, parts.model.eval(), parts.val, 0, 1)
        assert values["loss"] == pytest.approx(validated, rel=1e-5)
        return losses

    return assert_equal_to_torch


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize(("kind", "name", "options"), CASES, ids=lambda part: str(part).replace(" ", ""))
def test_torchs_losses_equal_those_over_whole_batches(built, assert_equal_to_torch, kind, name, options, accumulate):
    parts = built(*overrides(kind, name, options), f"accumulate={accumulate}")
    assert_equal_to_torch(parts, kind, torchs(name, options))


def test_a_subclass_that_inherits_the_computation(engine):
    class Named(nn.CrossEntropyLoss):
        pass

    class Squares(nn.MSELoss):
        pass

    logits, targets, weight = torch.randn(6, 4), torch.tensor([0, 3, 3, 1, 2, 0]), torch.tensor(WEIGHT)
    say = engine("losses").say_what_counts
    assert say(Named(weight), {})(logits, targets).mean_over == weight[targets].sum()
    assert say(Squares(reduction="sum"), {})(logits, logits).mean_over == 1.0


def warnings_of(done) -> list[str]:
    return [line for line in done.out.splitlines() if "weight" in line and "weights_sha256" not in line]


@pytest.fixture
def any_loss(workspace):
    snippets.add(workspace, "digits/any_loss.py")
    return workspace


WEIGHTED = overrides("classes", "CrossEntropyLoss", {"weight": WEIGHT, "ignore_index": 1})
SUM = overrides("classes", "CrossEntropyLoss", {"reduction": "sum"})


@pytest.mark.parametrize("options", [WEIGHTED, SUM], ids=["weighted", "sum"])
def test_two_processes_and_evaluate_equal_one_process(train, train_together, server, any_loss, options):
    assert train(*COMMON, *options, "name=one", "save_every_epochs=1").code == 0
    done = train_together(*COMMON, *options, "name=two", "accumulate=2", "save_every_epochs=1")
    assert done.code == 0, done.out
    one, two = the_run(any_loss, "one"), the_run(any_loss, "two")
    states = [torch.load(run / "checkpoints/step-00000006.pt", weights_only=True)["model"] for run in (one, two)]
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-5, atol=1e-6)
    for a, b in zip(rows(one), rows(two), strict=True):
        for key in {"train/loss", "train_epoch/loss", "val/loss"} & {*a, *b}:
            assert a[key] == pytest.approx(b[key], rel=1e-5)
    done = server.run(
        any_loss / "digits/__main__.py", "evaluate", str(two), "--checkpoint", "last", "--batch-size", "5"
    )
    assert done.code == 0, done.out
    values = json.loads((two / "evaluate-val.json").read_text())["values"]
    assert values["val/loss"] == pytest.approx(rows(one)[-1]["val/loss"], rel=1e-5)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_batch_in_which_no_target_counts_changes_no_mean(built, assert_equal_to_torch, accumulate):
    """torch's loss of it is NaN and its gradient 0. It has no part in the means."""
    parts = built(*overrides("classes", "CrossEntropyLoss", {"ignore_index": 0}), f"accumulate={accumulate}")
    plan, labels = parts.train.plan, parts.train.reader.dataset.tensors[1]
    labels[plan.samples(1)[:4]] = 0  # a micro-batch
    labels[plan.samples(2)] = 0  # a step
    parts.val.reader.dataset.tensors[1][:16] = 0
    losses = assert_equal_to_torch(parts, "classes", torchs("CrossEntropyLoss", {"ignore_index": 0}))
    assert [math.isnan(value) for value in losses] == [False, False, True, False, False, False]


WITH_WEIGHTS = overrides("classes", "CrossEntropyLoss", {"weight": WEIGHT})
OWN = overrides("classes", ".any_loss.WeightedMean", {"weight": WEIGHT})


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("options", [(*WITH_WEIGHTS, "+task.tokens=7"), OWN, (*OWN, "+task.tokens=7")])
def test_what_the_loss_says_counts(built, assert_equal_to_torch, options, accumulate):
    """A loss of your own may return a `Mean`. A task that counts tokens gives way to a loss that counts weights."""
    parts = built(*options, f"accumulate={accumulate}")
    assert_equal_to_torch(parts, "classes", torchs("CrossEntropyLoss", {"weight": WEIGHT}))


SHORT = (*COMMON, "max_steps=1", "dry_run=true", "log.level=warning")


@pytest.mark.parametrize(
    ("options", "warns"),
    [
        (overrides("classes", ".any_loss.Weighted", {"weight": WEIGHT}), (True, True)),
        (overrides("classes", ".any_loss.WeightedMean", {"weight": WEIGHT}), (False, False)),
        (overrides("classes", ".any_loss.InBatch", {}), (False, True)),
        (overrides("classes", ".any_loss.Noisy", {}), (False, False)),
        (overrides("classes", ".any_loss.Sampled", {}), (False, False)),
        (SUM, (False, False)),
        (["+task.kind=classes"], (False, False)),
        (["+task.kind=classes", "+task.add=0.1"], (False, False)),
    ],
    ids=["weighted", "weighted Mean", "in batch", "random", "sampled", "sum", "plain", "plain plus"],
)
def test_a_weighted_mean_that_says_nothing_is_found_before_the_run(train, any_loss, options, warns):
    """A contrastive loss depends on the whole batch, which only matters if the batch is divided."""
    for accumulate, expected in zip((1, 4), warns, strict=True):
        done = train(*SHORT, *options, f"accumulate={accumulate}")
        assert done.code == 0, done.out
        assert ["Return Mean(value, n)" in line for line in warnings_of(done)] == [True] * expected, done.out


def test_a_task_that_computes_with_a_weighted_mean_is_told(train, any_loss):
    done = train(*SHORT, *WEIGHTED, "+task.add=0.1")
    assert done.code == 0, done.out
    assert len(warnings_of(done)) == 1, done.out
    done = train(*SHORT, *WEIGHTED, "+task.add=0.1", "accumulate=2")
    assert (done.code, "loss is a mean over class weights" in done.last) == (2, True), done.out
    assert not list(any_loss.glob("runs/default/20*"))


def test_a_weighted_mean_in_a_sum_of_terms_is_told(train):
    options = ("loss=terms", "+loss.terms.ce.loss.ignore_index=1", "dry_run=true", "log.level=warning", "logger=none")
    done = train(*options)
    assert (done.code, "loss.terms.ce is a mean over class weights" in done.out) == (0, True), done.out
    done = train(*options, "accumulate=2")
    assert (done.code, "loss.terms.ce is a mean over class weights" in done.last) == (2, True), done.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["+loss.weight=[1,2,x]"], "loss.weight=[1, 2, 'x'] has the wrong type"),
        (["+loss.weight=heavy"], "loss.weight='heavy' has the wrong type"),
        (["+loss.weight=[[1,2],[3]]"], "refuses the values of the section 'loss'"),
        (["+loss.weight=[1,2,3]"], "weight"),
        (["+loss.weight=[]"], "weight"),
    ],
)
def test_weights_that_cannot_be_are_refused(train, workspace, options, words):
    done = train(*options, "logger=none")
    assert done.code == 2, done.out
    assert words in done.last
    assert "Traceback" not in done.out
    assert not (workspace / "runs").exists()
