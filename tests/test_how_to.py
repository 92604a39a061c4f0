"""The pages of docs/how-to/ and the tutorial are executed: their files are written, their commands run."""

import csv
import re
import shlex
import shutil

import pytest
from helpers import pages
from helpers.runs import result, rows, the_run
from helpers.starting_points import render_point

HOW_TO = pages.DOCS / "how-to"
QUICK = ("logger=none", "workers=0")


def page(name: str) -> str:
    return (HOW_TO / f"{name}.md").read_text(encoding="utf-8")


def test_own_data_model_and_loss(train, workspace):
    pages.install(HOW_TO / "own-data-model-loss.md", workspace)
    (command,) = [words for words in pages.commands(page("own-data-model-loss")) if "data=rings" in words[1:3]]
    done = train(*command[1:], *QUICK)
    assert done.code == 0, done.out
    assert result(the_run(workspace))["best"] > 0.9


def test_own_table(render, server, tmp_path):
    project = render_point(render, tmp_path / "table", "regression")
    pages.install(HOW_TO / "your-table.md", project)
    with open(project / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rooms", "price", "age"])
        writer.writerows([n % 7, 3 * (n % 7) - (n % 11), n % 11] for n in range(200))
    (command,) = [words for words in pages.commands(page("your-table")) if "task._target_=.rows.Rows" in words]
    words = [*command[1:], *QUICK, "data.target=price", "epochs=20", "log.curves=false"]
    done = server.run(project / "train.py", *words)
    assert done.code == 0, done.out
    assert result(the_run(project))["best"] < 1, "the deviation of the target is 7"
    other = server.run(project / "train.py", *command[1:], "data.target=cost", "logger=none")
    assert (other.code, other.last) == (2, "table.csv has no column 'cost'. Set data.target=NAME.")


def test_learning_rates_per_layer(train, workspace):
    pages.install(HOW_TO / "rates-per-layer.md", workspace)
    done = train("experiment=head_first", "dry_run=true", *QUICK)
    assert done.code == 0, done.out
    for row in re.findall(r"^(?:head|backbone) .*$", page("rates-per-layer"), re.MULTILINE):
        assert row.split() in [line.split() for line in done.out.splitlines()], row


def test_two_optimizers(train, workspace):
    pages.install(pages.DOCS / "gallery/gan.md", workspace)
    pages.install(HOW_TO / "two-optimizers.md", workspace)
    experiment = workspace / "configs/experiment/gan.yaml"
    text = experiment.read_text()
    start = text.index("\noptimizer:")
    experiment.write_text(text[:start] + text[text.index("\ntask:") :])
    done = train("experiment=gan", "optimizer=in_turn", "epochs=2", "log.every=1", *QUICK)
    assert done.code == 0, done.out
    rates = {key for row in rows(the_run(workspace, "gan")) for key in row if key.startswith("lr/")}
    assert rates == {"lr/generator", "lr/discriminator"}


def test_a_logged_value(train, workspace):
    pages.install(HOW_TO / "log-a-value.md", workspace)
    done = train("task._target_=.margins.Margins", "epochs=1", "log.every=5", *QUICK)
    assert done.code == 0, done.out
    assert all(row["train/margin"] > 0 for row in rows(the_run(workspace)) if "train/margin" in row)


def test_cross_validation(train, workspace):
    pages.install(HOW_TO / "cross-validation.md", workspace)
    (command,) = [words for words in pages.commands(page("cross-validation")) if "data=halves" in words]
    done = train(*command[1:], "name=folds", "max_steps=5", "log.level=error", *QUICK)
    assert done.code == 0, done.out
    assert len(list((workspace / "runs/folds").glob("*/manifest.json"))) == 5
    assert done.last.startswith("Best: all with val/acc 0."), done.out


def test_a_crashed_grid_goes_on(train, workspace, stopping):
    grid = ("-m", "seed=0,1", *stopping, "epochs=1", "model=mlp", "name=grid", "log.level=error", "logger=none")
    assert train(*grid, "name=whole").code == 0
    stopped = train(*grid, AT="10", WITH="SIGKILL")
    assert stopped.code == 137
    assert len(list((workspace / "runs/grid").glob("*/manifest.json"))) == 1
    done = train(*grid, "resume=auto")
    assert done.code == 0, done.out
    hashes = {}
    for name in ("grid", "whole"):
        manifests = (workspace / f"runs/{name}").glob("*/manifest.json")
        hashes[name] = sorted(result(path.parent)["weights_sha256"] for path in manifests)
    assert len(hashes["grid"]) == 2
    assert hashes["grid"] == hashes["whole"]


# ---------------------------------------------------------------- all pages

OF_OTHER_PROJECTS = ("starting-points", "reference", "zh")
PAGES = [path for path in sorted(pages.DOCS.rglob("*.md")) if path.parts[-2] not in OF_OTHER_PROJECTS]
NOT_ALONE = re.compile(r".*(<TAB>|…)|resume=runs|resume=RUN|init_from=|experiment=NAME|vars\.|.*\$\{")
"""Overrides that need a run, a file that is not on the page, or a shell."""


def single(words: list[str]) -> list[str]:
    """The first job of a sweep: the first of the values between commas."""
    return [re.sub(r"^([\w.]+=[^\[({',]+),.*", r"\1", word) for word in words]


def test_every_override_that_a_page_shows_is_right(engine, project, tmp_path, monkeypatch):
    """Or the page shows the message, too."""
    compose, mistake, wrong, count = engine("launch").compose, engine("errors").UserError, [], 0
    for number, path in enumerate(PAGES):
        text, configs = path.read_text(encoding="utf-8"), project / "configs"
        own = {place: content for place, content in pages.files(text).items() if re.match("configs/.+/", place)}
        if own:
            configs = shutil.copytree(configs, tmp_path / f"{number}/configs")
        for place, content in own.items():
            (configs.parent / place).parent.mkdir(exist_ok=True)
            (configs.parent / place).write_text(content, encoding="utf-8")
        for module in ("config.compose", "config.hints"):
            monkeypatch.setattr(engine(module), "CONFIGS", configs)
        for words in pages.commands(text):
            if words[0] != "-m" and not any(map(NOT_ALONE.match, words)) and path.stem != "benchmarks":
                overrides = [word for word in single(words[1:]) if re.match(r"(?!sweep=|.*hydra)[^-].*=", word)]
                count += 1
                try:
                    compose(*overrides)
                except mistake as error:
                    wrong += [f"{path.name}: {shlex.join(words)}: {error}"] if str(error) not in text else []
    assert wrong == []
    assert count > 60


def examples(mark: str) -> list[tuple[str, str, str]]:
    """Each command of a page with the line below it that holds `mark`."""
    lines = rf"^\$ python (train\.py .*)\n(.*{mark}.*)$"
    found = [(path.name, re.findall(lines, path.read_text(encoding="utf-8"), re.MULTILINE)) for path in PAGES]
    return [(name, *pair) for name, pairs in found for pair in pairs]


@pytest.mark.parametrize(("name", "command", "answer"), examples("Did you mean"))
def test_the_answers_to_typing_mistakes(name, command, answer, train):
    done = train(*shlex.split(command)[1:])
    assert (done.code, done.out.strip()) == (2, answer)


# ---------------------------------------------------------------- the tutorial

TUTORIAL = (pages.DOCS / "tutorial.md").read_text(encoding="utf-8")


QUICK_PART = {"name=first", "name=tuned", "evaluate", "predict", "export"}
"""What the commands hold that are always run. The others run with --thorough."""


def test_the_tutorial(server, workspace, pytestconfig):
    """The commands in their order, each run with few steps, print what the page shows. Other tools are left out."""
    pages.install(pages.DOCS / "tutorial.md", workspace)
    exec((workspace / "draw_shapes.py").read_text().replace('Path("shapes")', f"Path({str(workspace / 'shapes')!r})"))
    done, printed, compared = [], set(), 0
    for language, block in pages.blocks(TUTORIAL):
        if language == "text" and printed:  # the output of the block above
            assert [line for line in block.splitlines() if line != "…" and shape(line) not in printed] == []
            compared += 1
        if language in pages.SHELLS:
            printed = set()
        for words in pages.commands(f"```{language}\n{block}```\n"):
            script, rest = words[0], words[1:]
            if rest[:1] == ["my_project"]:
                script, rest = "digits/__main__.py", rest[1:]
            rest = [re.sub(r"\$\(echo (.*)\)", r"\1", word) for word in rest]
            is_mistake = any("learning_rate" in word for word in rest)
            if not (pytestconfig.getoption("thorough") or QUICK_PART & {*rest} or is_mistake):
                continue
            rest = [spread(word, workspace) for word in rest]
            if script == "train.py" and "experiment=finetune" in rest:
                continue  # it downloads weights
            if script in ("train.py", "find_lr.py") and not is_mistake:
                rest += ["max_steps=12", "logger=none", "log.curves=false", "workers=0"]
            if script == "find_lr.py":
                rest = [*(word for word in rest if not word.startswith("max_steps")), "find_lr.steps=20"]
            result = server.run(workspace / script, *rest, cwd=workspace)
            assert result.code == (2 if is_mistake else 0), (words, result.out)
            done.append(script)
            printed |= set(map(shape, result.out.splitlines()))
    (exported,) = (workspace / "runs/tuned").glob("*/model.pt2")
    (block,) = [text for language, text in pages.blocks(TUTORIAL) if "torch.export.load" in text]
    exec(block.replace("runs/tuned/*/model.pt2", str(exported)))
    assert compared >= 4
    if pytestconfig.getoption("thorough"):
        assert done.count("train.py") >= 7
        assert done.count("digits/__main__.py") == 4
        names = {path.name for path in (workspace / "runs").iterdir()}
        assert {"first", "small", "killed", "scratch", "tuned", "sweep"} <= names


def shape(line: str) -> str:
    """A line of output without its numbers, hashes and times."""
    line = re.sub(r"DATE_TIME|\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", "#", line)
    line = re.sub(r"weights_sha256 \w+", "weights_sha256 #", line)
    return " ".join(re.sub(r"\d[\d.,]*(?:e[-+]\d+)?", "#", line).split())


def spread(word: str, workspace) -> str:
    """A path with a `*` becomes the only one that matches, as a shell does."""
    key, equals, pattern = word.rpartition("=") if "=" in word else ("", "", word)
    if "*" not in pattern:
        return word
    (path,) = workspace.glob(pattern)
    return f"{key}{equals}{path.relative_to(workspace)}"
