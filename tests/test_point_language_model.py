"""The starting point `language_model`: what it reaches, shows and repeats."""

import math

import pytest
import torch
from helpers.runs import result, rows
from helpers.starting_points import assert_nothing_of_others, point_fixture, shown

TINY = ("data.size=200", "model.width=16", "model.depth=1")


point = point_fixture("language_model", *TINY, "epochs=2", "limit_train_batches=6", "lr=0.001")


def test_it_learns_and_shows_samples(point):
    run = point.default_run()
    # The grammar's own perplexity is 1.195; without looking back it could not get below 1.4.
    assert 1.19 < result(run)["best"] < 1.25
    for row in rows(run):
        for place in ("train", "train_epoch", "val"):
            if f"{place}/ppl" in row:
                assert row[f"{place}/ppl"] == pytest.approx(math.exp(row[f"{place}/loss"]), rel=1e-9)
    _, texts = shown(run)
    assert len(texts["val/samples"]) == 3
    lines = texts["val/samples"][-1].strip("`\n").splitlines()
    assert len(lines) == 4
    assert all(line.endswith(".") and " the " in line for line in lines), lines


def test_samples_are_the_same_again(point):
    texts = []
    for name in ("once", "again"):
        done = point.server.run(point.project / "train.py", *point.short, f"name={name}")
        assert done.code == 0, done.out
        texts.append(shown(point.run(name))[1]["val/samples"])
    assert texts[0] == texts[1]
    assert len(texts[0]) == 2


def test_samples_change_no_weights(point):
    assert point.train(*point.short, "name=quiet").code == 0
    done = point.server.run(point.project / "train.py", *point.short, "name=loud")
    assert done.code == 0, done.out
    assert result(point.run("quiet")) == result(point.run("loud"))


def test_nothing_of_other_starting_points(point):
    assert_nothing_of_others(
        point.project,
        {
            "configs/data/huggingface.yaml",
            "configs/data/stories.yaml",
            "configs/data/text.yaml",
            "configs/data/tokens.yaml",
            "configs/model/gpt.yaml",
            "configs/experiment/gpu.yaml",
            "digits/data/huggingface.py",
            "digits/data/stories.py",
            "digits/data/text.py",
            "digits/data/tokens.py",
            "digits/models/gpt.py",
            "digits/models/generate.py",
        },
    )


def test_exact(point):
    point.assert_exact()


def test_in_parts(point):
    """The loss is a mean over tokens. The micro-batches of a batch have different numbers of tokens."""
    point.assert_equal_in_parts()


def test_tools(point, tmp_path):
    assert point.train(*point.short, "name=tools").code == 0
    for name, text in {"a.txt": "Anna the", "b.txt": "Zwölf\n"}.items():
        (tmp_path / name).write_text(text)
    said = point.assert_tools_work("tools", tmp_path, ["path", "text"], 2)
    assert said == point.assert_tools_work("tools", tmp_path, ["path", "text"], 2)
    (tmp_path / "c.txt").write_text("a" * 200)
    refused = point.tool("predict", point.run("tools"), tmp_path / "c.txt")
    assert refused.code == 2
    assert "200 bytes" in refused.last


def test_your_own_text(point, tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"A line about {n}." for n in range(40)))
    options = (f"data.root={tmp_path}", "data.context=32", *TINY[1:], "batch_size=8", "epochs=1")
    done = point.train("data=text", *options, "name=own")
    assert done.code == 0, done.out


def test_biases_and_norms_are_not_decayed(point):
    done = point.train(*TINY, "max_steps=1", "name=decay")
    assert done.code == 0, done.out
    lines = [line.split() for line in (point.run("decay") / "train.log").read_text().splitlines()]
    (decayed,) = [line for line in lines if "all" in line]
    (rest,) = [line for line in lines if "all/no_decay" in line]
    assert (decayed[-1], rest[-1]) == ("0.1", "0")


def test_a_text_that_grows_in_place_is_not_taken_for_what_it_was(engine):
    """A validation's outputs are shown again only while the tensors are the same."""
    model = torch.nn.Embedding(5, 2)
    tokens = torch.tensor([1, 2, 3])
    with engine("log.media")._remembering(model):
        first = model(tokens)
        assert model(tokens) is first
        tokens[0] = 4
        assert not torch.equal(model(tokens), first)
