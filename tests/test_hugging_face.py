"""Models of Hugging Face's transformers, which return an object with logits."""

import re

import pytest
from helpers import snippets
from helpers.template import ROOT


def use(workspace, text: str, target: str) -> None:
    (workspace / "digits/models/face.py").write_text(text)
    (workspace / "configs/model/face.yaml").write_text(f"_target_: .models.face.{target}\n")


def test_an_object_with_logits_is_refused_with_the_line_that_helps(train, workspace):
    use(workspace, snippets.text("digits/models/face.py"), "Net")
    done = train("model=face", "max_steps=2", "logger=none")
    assert done.code == 2, done.out
    assert "The model returns Output. In task.py, take model(…).logits." in done.last
    assert "task.py, line" in done.last
    assert not list((workspace / "runs").glob("*/[!.]*"))
    task = workspace / "digits/task.py"
    task.write_text(task.read_text().replace("model(images)", "model(images).logits"))
    done = train("model=face", "max_steps=2", "logger=none")
    assert done.code == 0, done.out


def test_a_model_that_returns_a_tensor_gets_no_such_line(train, workspace):
    text = snippets.text("digits/models/face.py")
    use(workspace, text.replace("Output(self.net(x))", "self.net(x)").replace("64", "7"), "Net")
    done = train("model=face", "max_steps=2", "logger=none")
    assert done.code == 2, done.out
    assert "The model returns" not in done.last


def test_the_page_shows_a_model_that_trains(train, workspace):
    pytest.importorskip("transformers")
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+face\.(?:py|yaml)).*?\n(.*?)```", page, re.DOTALL)
    assert [path for path, _ in blocks] == ["my_project/models/face.py", "configs/model/face.yaml"]
    for path, text in blocks:
        (workspace / path.replace("my_project", "digits")).write_text(text)
    done = train("model=face", "max_steps=2", "logger=none")
    assert done.code == 0, done.out
