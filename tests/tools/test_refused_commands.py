"""What the tools refuse in one sentence, and what they answer without torch."""

import shutil
import subprocess
import sys

import pytest
import torch
from helpers.forkserver import Result
from helpers.tools import runs


def refused(done: Result, *words: str) -> None:
    assert done.code == 2, done.out
    assert len(done.out.strip().splitlines()) == 1, done.out
    assert done.last.endswith(".")
    assert all(word in done.last for word in words), done.last


def test_mistakes_are_one_sentence(tool, digits, run, tmp_path):
    refused(tool("evaluate", "runs/nothing"), "runs/nothing")
    refused(tool("evaluate", run, "--split", "dev"), "dev", "'val', 'test'")
    refused(tool("predict"), "required: PATH")
    refused(tool("evaluate", run, "--batch-size", "0"), "'0'")
    refused(tool("evaluate", run, "--checkpoint", "step-1.pt"), "step-1.pt", "best.pt")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    refused(tool("evaluate", run, "--checkpoint", tmp_path / "other.pt"), "other.pt is not a checkpoint of a run")
    refused(tool("evaluate", run, "--device", "tpu"), "tpu")
    refused(tool("predict", run, tmp_path / "none.png"), "none.png")
    refused(tool("predict", run, run / "checkpoints"), "No file below")
    refused(tool("predict", run, tmp_path, "--out", "a.txt"), ".jsonl")
    refused(tool("predict", run, run / "config.yaml"), "config.yaml", "cannot be read")
    refused(tool("export", run, "--format", "tflite"), "tflite", "safetensors")
    refused(tool("compare", tmp_path / "none"), "none")
    refused(tool("compare", runs(digits, "ema")[0], "--key", "val/nothing", "--out", tmp_path / "x.png"), "val/nothing")
    (tmp_path / "file").touch()
    refused(tool("evaluate", run, "--out", tmp_path / "file"), "Cannot write to", "Choose another folder")
    shutil.rmtree(run / "checkpoints")
    refused(tool("evaluate", run), "no checkpoint")
    (run / "config.yaml").write_text("lr: [")
    refused(tool("evaluate", run), "config.yaml")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--help"], 0), (["compare", "runs/seeds"], 0), (["evaluate", "runs/nothing"], 2)],
    ids=["help", "compare", "mistake"],
)
def test_help_compare_and_mistakes_do_not_import_torch(digits, arguments, code):
    script = "import sys, runpy; sys.argv = sys.argv[:1] + {!r}\n"
    script += "try: runpy.run_module('digits', run_name='__main__')\n"
    script += "except SystemExit as end: assert end.code == {}\n"
    script += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script.format(arguments, code)], cwd=digits, check=True)
