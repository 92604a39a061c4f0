"""Parameter groups: every parameter in one, each with the rate and decay that the config says."""

import pytest
import torch
from helpers.runs import rows, the_run
from torch import nn
from torchvision import models


@pytest.fixture(scope="module")
def optim(engine):
    return engine("build.optimizer")


def build(optim, model, loss=None, lr=0.1, **section):
    parameters = optim.named_parameters(model, loss or nn.Module())
    section = {"_target_": "torch.optim.SGD", **section}
    return optim.build_optimizer(section, lr, model, parameters, []), parameters


def names(model, group):
    by_id = {id(p): n for n, p in model.named_parameters()}
    return [by_id[id(p)] for p in group["params"]]


def test_the_four_line_example(optim):
    model = models.resnet18()
    groups = [{"name": "head", "match": "fc.*"}, {"name": "backbone", "match": "*", "lr_scale": 0.1}]
    optimizer, parameters = build(optim, model, groups=groups, lr=0.3)
    head, backbone = optimizer.param_groups
    assert (head["name"], head["lr"]) == ("head", 0.3)
    assert (backbone["name"], backbone["lr"]) == ("backbone", pytest.approx(0.03))
    assert names(model, head) == ["fc.weight", "fc.bias"]
    assert sorted(names(model, head) + names(model, backbone)) == sorted(parameters)


def test_first_match_wins_and_regular_expressions(optim):
    model = models.resnet18()
    groups = [
        {"name": "norms", "match": r"re:bn\d\.", "weight_decay": 0.0},
        {"name": "early", "match": ["conv1.*", "layer1.*"], "momentum": 0.5},
        {"name": "rest", "match": "*"},
    ]
    optimizer, _ = build(optim, model, groups=groups, weight_decay=0.01, momentum=0.9)
    norms, early, rest = optimizer.param_groups
    assert all(".bn" in n or n.startswith("bn") for n in names(model, norms))
    assert "layer1.0.conv1.weight" in names(model, early)
    assert (norms["weight_decay"], early["momentum"], rest["momentum"]) == (0.0, 0.5, 0.9)


def test_no_decay_on_norms_and_biases(optim):
    model = models.convnext_tiny()
    optimizer, _ = build(optim, model, no_decay_norm_bias=True, weight_decay=0.05)
    for group in optimizer.param_groups:
        assert all((p.ndim < 2) == (group["weight_decay"] == 0) for p in group["params"])
    assert [g["name"] for g in optimizer.param_groups] == ["all", "all/no_decay"]


def test_freezing(optim):
    model = models.resnet18()
    groups = [{"name": "frozen", "match": "layer*", "lr_scale": 0}, {"name": "rest", "match": "*"}]
    optimizer, parameters = build(optim, model, groups=groups)
    assert [g["name"] for g in optimizer.param_groups] == ["rest"]
    assert not any(n.startswith("layer") for n in parameters)
    assert not model.layer1[0].conv1.weight.requires_grad
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert model.layer1[0].conv1.weight.grad is None


def test_parameters_of_the_loss_are_in_a_group(optim):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    groups = [{"name": "loss", "match": "loss.*", "lr_scale": 5}, {"name": "model", "match": "*"}]
    optimizer, parameters = build(optim, nn.Linear(2, 2), Scaled(), groups=groups)
    assert "loss.scale" in parameters
    assert [len(g["params"]) for g in optimizer.param_groups] == [1, 2]


def test_state_is_kept_by_name(optim, engine):
    stored = engine("build.optimizer_state")
    torch.manual_seed(0)
    model = models.resnet18(num_classes=3)
    a = [{"name": "head", "match": "fc.*"}, {"name": "rest", "match": "*", "lr_scale": 0.1}]
    b = [{"name": "first", "match": "conv1.*"}, {"name": "rest", "match": "*"}]
    optimizer, parameters = build(optim, model, groups=a, _target_="torch.optim.AdamW")
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    state = stored.optimizer_state(optimizer)["optimizer"]
    other, parameters = build(optim, model, groups=b, _target_="torch.optim.AdamW")
    stored.load_optimizer_state(other, state)
    for name, parameter in parameters.items():
        for key, value in state[name].items():
            assert torch.equal(other.state[parameter][key], value), name


MISTAKES = [
    ([{"name": "head", "match": "fcc.*"}, {"match": "*"}], "'fcc.*'"),
    ([{"name": "head", "match": "fc.*"}], "conv1.weight"),
    ([{"match": "*", "lr_scalee": 3}], "Did you mean 'lr_scale'?"),
    ([{"match": "*", "lr": 3}], "lr_scale"),
    ([{"match": "*", "lr_scale": -1}], "lr_scale=-1"),
    (
        [{"name": "a", "match": "*"}, {"name": "b", "match": "fc.*"}],
        "Earlier groups take all of the optimizer group 'b'",
    ),
    ([{"name": "a", "match": "fc.*"}, {"name": "a", "match": "*"}], "called 'a'"),
    ([{"match": "*", "lr_scale": 0}], "frozen"),
    ([{"name": "a"}], "needs a pattern"),
    ([{"match": "re:("}], "regular expression"),
]


@pytest.mark.parametrize(("groups", "named"), MISTAKES, ids=[named for _, named in MISTAKES])
def test_mistakes(optim, engine, groups, named):
    with pytest.raises(engine("errors").UserError) as caught:
        build(optim, models.resnet18(), groups=groups)
    assert named in str(caught.value)


def test_the_table_and_the_logged_rates(train, workspace):

    groups = "optimizer.groups=[{name: head, match: 'head.*'}, {name: rest, match: '*', lr_scale: 0.1}]"
    done = train(groups, "epochs=1", "logger=none", "scheduler=constant", "lr=0.01")
    assert done.code == 0, done.out
    assert "head" in done.out
    row = rows(the_run(workspace))[0]
    assert row["lr/head"] == 0.01
    assert row["lr/rest"] == pytest.approx(0.001)
    assert "1.0e-03…1.0e-02" in done.out
