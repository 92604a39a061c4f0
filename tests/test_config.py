"""The config: rules beside fields, retired keys, and Hydra's private parts with their public paths."""

import shutil

import pytest
import yaml
from helpers.runs import result, the_run

SHORT = ("max_steps=3", "limit_val_batches=1", "logger=none", "model=mlp")

# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("rule", "good", "bad", "words"),
    [
        ({"at_least": 1}, [1, 2**70, 1.5], [0, -1], "at least 1"),
        ({"above": 0}, [1e-300, 1], [0, -1, float("nan"), float("inf")], "above 0"),
        ({"above": 0, "below": 1}, [0.5], [0, 1], "above 0 and below 1"),
        ({"at_least": 0, "at_most": 1024}, [0, 1024], [-1, 1025], "at least 0 and at most 1024"),
        ({"one_of": ("a", "b")}, ["a"], ["c", ""], "one of a, b"),
        ({"fits": str.isupper, "must_be": "in capitals"}, ["A"], ["a"], "in capitals"),
        ({}, [0, "", None, True], [float("nan")], ""),
    ],
)
def test_a_rule_decides_and_says_what_it_allows(engine, rule, good, bad, words):
    rule = engine("config.schema").Rule(**rule)
    assert all(rule.allows(value) for value in good)
    assert not any(rule.allows(value) for value in bad)
    assert rule.limits() == words


def test_every_key_has_a_meaning_and_a_default_that_its_rule_allows(engine):
    schema = engine("config.schema")
    config = schema.Config()
    for name, rule in schema.RULES.items():
        assert rule.meaning.endswith((".", "…")), name
        value = config
        for part in name.split("."):
            value = getattr(value, part)
        assert value is None or rule.allows(value), name


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("seed: 1.5", "seed=1.5 is not possible. Its type is int."),
        ("drop_last: 'no'", "drop_last=no is not possible. Its type is bool."),
        ("init_rename: x", "init_rename=x is not possible. Its type is list[str]."),
        ("mix: null", "mix=null is not possible."),
        ("epochs: true", "epochs=true is not possible."),
        ("log: 3", "log=3 is not possible."),
    ],
)
def test_a_stored_value_of_another_type_is_refused(engine, line, said):
    stored = engine("config.stored")
    values = yaml.safe_load(stored.to_yaml(engine("launch").compose())) | yaml.safe_load(line)
    with pytest.raises(engine("errors").UserError, match=r"^a/config.yaml has a mistake\. ") as caught:
        stored.parse_config(yaml.safe_dump(values), "a/config.yaml")
    assert said in str(caught.value)


def test_help_and_page_have_every_key(train, engine):
    out = train("--help").out
    for name, rule in engine("config.schema").RULES.items():
        assert f"  {name}=" in out or f"  {name}." in out, name
        if name not in engine("config.schema").GROUPS:
            assert rule.meaning in out


# ---------------------------------------------------------------- retired keys

RETIRED = """

RETIRED["tempo"] = Retired("9.9.9", 1, "Set lr instead.")
"""
WARNING = "The config key 'tempo' is ignored since release 9.9.9. Set lr instead."


@pytest.fixture
def retired(workspace):
    """A key of the top level that was retired, besides the real ones."""
    path = workspace / "digits/engine/config/check.py"
    path.write_text(path.read_text() + RETIRED)
    return workspace


@pytest.mark.parametrize("override", ["tempo=3", "+tempo=3", "++tempo=3", "log.digits=6"])
def test_a_retired_key_on_the_command_line_is_ignored_with_one_warning(retired, train, override):
    done = train(*SHORT, override)
    assert done.code == 0, done.out
    assert done.out.count("is ignored since release") == 1, done.out
    config = (the_run(retired) / "config.yaml").read_text()
    assert "tempo" not in config
    assert "digits: " not in config
    again = train(*SHORT, "resume=auto", override)
    assert "Nothing is left to do." in again.last
    assert again.out.count("is ignored since release") == 1, again.out


def test_a_retired_key_in_files_is_ignored_with_one_warning(retired, train):
    with open(retired / "configs/train.yaml", "a") as file:
        file.write("\ntempo: 3\nlog:\n  digits: 6\n")
    done = train("-m", "lr=0.1,0.01", *SHORT)
    assert done.code == 0, done.out
    assert done.out.count(WARNING) == 1, done.out
    assert done.out.count("'log.digits' is ignored") == 1
    assert "tempo" not in train("--help").out.replace(WARNING, "")
    assert train("lr=0.1", "resume=auto", *SHORT).out.count(WARNING) == 1


def test_a_stored_run_with_a_retired_key_is_the_same_run(retired, train):
    assert train(*SHORT).code == 0
    path = the_run(retired) / "config.yaml"
    before = path.read_text()
    path.write_text(f"tempo: 3\n{before}")
    done = train(*SHORT, "resume=auto", "max_steps=5")
    assert done.code == 0, done.out
    assert result(the_run(retired))["steps"] == 5
    assert done.out.count(WARNING) == 1, done.out
    path.write_text(f"tempo: 1\n{before}")  # what the engine does anyway
    assert "tempo" not in train(*SHORT, "resume=auto").out


def test_a_key_that_is_unknown_in_a_file_is_still_a_mistake(retired, train):
    with open(retired / "configs/train.yaml", "a") as file:
        file.write("\nlog:\n  evry: 6\n")
    done = train(*SHORT)
    assert (done.code, done.out.strip()) == (2, "Unknown config key 'log.evry'. Did you mean 'log.every'?")


# ---------------------------------------------------------------- Hydra's private parts


def test_without_hydras_private_parts_runs_are_the_same(workspace, train):
    assert train(*SHORT, "name=single").code == 0
    assert train("-m", "seed=0,1", *SHORT, "name=grid").code == 0
    kept = workspace.parent / "kept"
    shutil.move(workspace / "runs", kept)
    path = workspace / "digits/engine/config/hydra_internals.py"
    text = path.read_text()
    assert text.count("from hydra._internal.") == 2
    path.write_text(text.replace("from hydra._internal.", "from hydra._gone."))

    assert train(*SHORT, "name=single").code == 0
    done = train("-m", "seed=0,1", *SHORT, "name=grid")
    assert done.code == 0, done.out
    assert "job  overrides  status" in done.out
    for name in ("single", "grid"):
        before, after = (sorted((runs / name).glob("2*")) for runs in (kept, workspace / "runs"))
        assert [result(run) for run in before] == [result(run) for run in after]
    assert train("--hlep").code == 2

    done = train("-m", "seed=0,-1", *SHORT)
    assert done.code == 2, done.out
    assert "seed=-1 is not possible." in done.out  # said when the job starts
    assert train("sweep=optuna", "hydra.sweeper.n_trials=1", *SHORT, "lr=0.1").code == 0


# ---------------------------------------------------------------- your own keys


def test_own_keys_feed_others(workspace, train):
    with open(workspace / "configs/train.yaml", "a") as file:
        file.write("\nvars:\n  width: 7\n  nested: {rate: 0.25}\nmodel:\n  hidden: ['${vars.width}']\n")
        file.write("  dropout: ${vars.nested.rate}\n")
    assert train(*SHORT).code == 0
    stored = yaml.safe_load((the_run(workspace) / "config.yaml").read_text())
    assert (stored["model"]["hidden"], stored["model"]["dropout"]) == ([7], 0.25)
    assert stored["vars"] == {"width": 7, "nested": {"rate": 0.25}}
    assert train(*SHORT, "name=wide", "vars.width=9", "+vars.more=1").code == 0
    stored = yaml.safe_load((the_run(workspace, "wide") / "config.yaml").read_text())
    assert stored["model"]["hidden"] == [9]
    assert "Nothing is left to do." in train(*SHORT, "resume=auto").last
    done = train(*SHORT, "vars.widht=9")
    assert (done.code, done.out.strip()) == (2, "Unknown config key 'vars.widht'. Did you mean 'vars.width'?")
    assert (
        train(*SHORT, "vars.questionable=9").last
        == "Unknown config key 'vars.questionable'. Add it below vars in configs/train.yaml."
    )
    assert "  vars.width=7" in train("--help").out


def test_a_config_from_before_them_is_the_same(workspace, train):
    """Keys that a stored config lacks have their default."""
    assert train(*SHORT).code == 0
    path = the_run(workspace) / "config.yaml"
    text = path.read_text()
    assert "vars: {}\n" in text
    path.write_text(text.replace("vars: {}\n", ""))
    assert "Nothing is left to do." in train(*SHORT, "resume=auto").last
