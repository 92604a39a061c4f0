"""Values of a wrong type in a checkpoint or a manifest are found, and named."""

import pytest
import torch

SHAPE = {
    **{"step": "int", "ema": ["NoneType", {"each": "Tensor"}], "seen": ["str"]},
    "best?": {"value": "int | float | NoneType"},
}
RIGHT = {"step": 3, "ema": {"w": torch.zeros(1)}, "best": {"value": 0.5}, "seen": ["loss"], "more": object()}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, None),
        ({"ema": None}, None),
        ({"best": {"value": None}}, None),
        ({"seen": ()}, None),
        ({"step": True}, "step"),
        ({"step": 3.0}, "step"),
        ({"ema": {"w": [0.0]}}, "ema.w"),
        ({"ema": []}, "ema"),
        ({"best": {}}, "best.value"),
        ({"best": {"value": "0.5"}}, "best.value"),
        ({"seen": ["loss", 3]}, "seen[1]"),
        ({"seen": "loss"}, "seen"),
    ],
)
def test_the_first_misfit_is_named(engine, change, wrong):
    assert engine("run.facts").misfit({**RIGHT, **change}, SHAPE) == wrong


def test_a_key_is_missed_unless_it_may_be_absent(engine):
    misfit = engine("run.facts").misfit
    assert misfit({key: value for key, value in RIGHT.items() if key != "best"}, SHAPE) is None
    assert misfit({key: value for key, value in RIGHT.items() if key != "step"}, SHAPE) == "step"
    assert misfit([], SHAPE) == ""
