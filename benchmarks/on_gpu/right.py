"""Whether training on a GPU is right: tests, exact resuming, host waits, repeated steps, compiled choices."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ..common import ROOT
from .answers import Answers

POINTS = ("image_classification", "segmentation", "dense_prediction", "language_model", "regression", "tabular")
ABSENT = {"tabular": "pandas"} if importlib.util.find_spec("pandas") is None else {}
"""The package that a starting point lacks on this machine."""
FP16 = "precision=fp16 clip_grad_norm=1 accumulate=2 ema_decay=0.9"
SMALL = "data=synthetic data.shape=[3,64,64] batch_size=32 optimizer=sgd lr=0.01"
TINY = "data=synthetic data.shape=[3,16,16] batch_size=8 optimizer=sgd lr=0.01"
"""The same for a machine without a GPU."""
QUIET = ("logger=none", "log.curves=false")


LATE = "did not end in time"
ANSWERS = {0: "yes", None: LATE}
"""Whether a check holds, by the exit code of its command. Other codes: "no"."""


class Right:
    """Each method gives the jobs of a part. All jobs run at the same time, because none measures time."""

    def __init__(self, answers: Answers, bundle: Path, device: str, small: bool) -> None:
        """bundle: the projects as they were rendered."""
        self.answers, self.bundle, self.device, self.small = answers, bundle, device, small
        self.projects = shutil.copytree(bundle, answers.work / "projects")
        self.ends = answers.ends

    def run(self, parts: list[str], others: list[Callable[[], None]], seconds: float) -> None:
        """Run these parts and other jobs. A command of a part is ended after `seconds`: what follows needs time."""
        self.ends = time.monotonic() + seconds
        for point, package in ABSENT.items():
            self.answers.say("Left out", project=point, why=f"{package} is not on this machine")
        jobs = [*others, *(job for part in parts if hasattr(self, part) for job in getattr(self, part)())]
        with ThreadPoolExecutor(2 if self.small else 10) as pool:
            list(pool.map(self._guarded, jobs))

    def _guarded(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:
            self.answers.say("Parts that failed", what=job, error=f"{type(error).__name__}: {error}")

    def _inside(self, point: str, log: str, *arguments: object, limit: float = 150) -> tuple[int | None, str]:
        project = self.projects / point
        path = os.pathsep.join([str(project), os.environ["PYTHONPATH"]])
        env = {**os.environ, "PYTHONPATH": path}
        return self._command(log, *arguments, cwd=project, env=env, limit=limit)

    def _command(self, log: str, *arguments: object, limit: float, **options: object) -> tuple[int | None, str]:
        limit *= 4 if self.small else 1  # without a GPU
        return self.answers.command(log, *arguments, limit=min(limit, self.ends - time.monotonic()), **options)

    # ---------------------------------------------------------------- the tests that are marked `cuda`
    def tests(self) -> list[Callable[[], None]]:
        return [self._tests]

    def _tests(self) -> None:
        files = sorted((ROOT / "tests").rglob("test_*.py"))
        wanted = re.compile(r"mark\.cuda|ON_GPU|looped_on_device")
        files = [f for f in files if f.parent.name != "gpu" and wanted.search(f.read_text(encoding="utf-8"))]
        options = ["-m", "cuda", "-n0" if self.small else "-n6", "-v", "-rfE", "--tb=short", "-p", "no:cacheprovider"]
        env = {**os.environ, "RENDERED": str(self.bundle / POINTS[0])}
        code, text = self._command("tests", "-m", "pytest", *options, *files, cwd=ROOT, env=env, limit=200)
        for name in dict.fromkeys(re.findall(r"\b(?:FAILED|ERROR) (tests/\S+)", text)):
            self.answers.say("Failed tests", test=name)
        last = (text.strip().splitlines() or ["no output"])[-1].strip("= ")
        ended = ANSWERS.get(code, "no")
        self.answers.say("The tests that are marked `cuda`", **{"all pass": ended, "pytest": last})

    # ---------------------------------------------------------------- a killed and a stopped run end as a whole one
    def resume(self) -> list[Callable[[], None]]:
        precision = "bf16" if self.device == "cuda" else "fp32"
        data = f"{TINY} data.size=600" if self.small else f"{SMALL} data.size=2400"
        choices = {
            "CNN": ("image_classification", "epochs=4"),
            "CNN in fp16: the scaler": ("image_classification", f"epochs=4 {FP16}"),
            "CNN, two loader workers": ("image_classification", "epochs=4 workers=2"),
            "data on the device, MixUp, average": (
                "image_classification",
                "epochs=4 data_on_device=true mix=mixup ema_decay=0.9",
            ),
            f"ResNet-18 in {precision}, channels_last": (
                "image_classification",
                f"{data} model=resnet18 precision={precision} channels_last=true max_steps=75",
            ),
            "GPT": ("language_model", "max_steps=75"),
        }
        if self.device == "cpu":
            del choices["CNN in fp16: the scaler"]
        return [partial(self._resume, label, *choice) for label, choice in choices.items()]

    def _resume(self, label: str, point: str, overrides: str) -> None:
        name = re.sub(r"\W+", "-", label).lower()
        options = [*QUIET, f"device={self.device}", f"name={name}", "log.every=17", "save_every_steps=10"]
        code, text = self._inside(point, name, "train.py", *options, *overrides.split(), limit=100)
        if code != 0:
            self.answers.say("Exact resuming", run=label, exact=ANSWERS.get(code, "no"), told=text[-400:])
            return
        (run,) = (p for p in (self.projects / point / "runs" / name).iterdir() if p.name[0].isdigit())
        for how, stops in {"again": [], "killed at 20 and 60, stopped at 50": ["--stop-at", "20,50,60"]}.items():
            code, text = self._inside(point, name, "-m", "digits", "reproduce", run, *stops)
            last = (text.strip().splitlines() or ["no answer in time"])[-1]
            self.answers.say("Exact resuming", run=label, how=how, exact=ANSWERS.get(code, "no"), told=last[:200])

    # ---------------------------------------------------------------- where the host waits for the GPU
    def waits(self) -> list[Callable[[], None]]:
        fast = "data_on_device=true channels_last=true mix=mixup"
        resnet = f"{SMALL} data.size=2400 model=resnet18"
        other = FP16 if self.device == "cuda" else "accumulate=2"
        choices = [(point, more) for point in POINTS if point not in ABSENT for more in ("", other)]
        choices += [("image_classification", fast), ("image_classification", resnet)]
        return [partial(self._waits, number, *choice) for number, choice in enumerate(choices)]

    def _waits(self, number: int, point: str, overrides: str) -> None:
        options = ["max_steps=70", "epochs=99", "log.every=20", "val_every_steps=65", "save_every_steps=65"]
        given = [f"device={self.device}", f"name=waits{number}", *options, *overrides.split()]
        code, text = self._inside(point, f"waits-{number}", "-m", "benchmarks.on_gpu.inside", "waits", *given)
        found = _answers(text)
        if code != 0 or not found:
            self.answers.say("Host waits", project=point, overrides=overrides, error=_error(code, text))
            return
        steps = {place: n for place, n in found[-1]["waits"].items() if place.startswith("step ")}
        others = {place: n for place, n in found[-1]["waits"].items() if place not in steps}
        cells = {"in 67 steps": steps or 0, "at 4 log points, 2 validations, 2 saves": others or 0}
        cells["peak MiB"] = found[-1]["peak"]
        self.answers.say("Host waits", project=point, overrides=overrides, **cells)

    # ---------------------------------------------------------------- which models repeat bit for bit
    def repeats(self) -> list[Callable[[], None]]:
        tiny = f"{SMALL} data.size=200"
        large = tiny.replace("64,64", "224,224").replace("=32", "=1" if self.small else "=8")
        names = ["mobilenet_v3_small", "efficientnet_b0", "densenet121", "regnet_y_400mf", "swin_t"]
        names += ["alexnet", "vgg11_bn"]  # some of their kernels are not deterministic, and the run is refused
        torchvision = [f"{tiny} model=torchvision model.name={name}" for name in names]
        shipped = [f"{tiny} model={name}" for name in ("cnn", "mlp", "resnet18", "resnet50", "convnext_tiny")]
        groups = [
            ("image_classification", shipped),
            ("image_classification", torchvision),
            ("image_classification", [f"{large} model=torchvision model.name=vit_b_16", "mix=cutmix", "mix=mixup"]),
            *((point, [""]) for point in POINTS[1:] if point not in ABSENT),
        ]
        return [partial(self._repeats, number, *group) for number, group in enumerate(groups)]

    def _repeats(self, number: int, point: str, choices: list[str]) -> None:
        given = " / ".join(f"device={self.device} {choice}" for choice in choices)
        arguments = ("-m", "benchmarks.on_gpu.inside", "repeats", *given.split())
        code, text = self._inside(point, f"repeats-{number}", *arguments)
        for answer in _answers(text):
            told = answer.get("error") or ("yes" if answer["repeats"] else "no")
            self.answers.say("Three steps repeat bit for bit", project=point, what=answer["what"], repeats=told)
        if code != 0:
            self.answers.say("Three steps repeat bit for bit", project=point, what=choices, repeats=_error(code, text))

    # ---------------------------------------------------------------- compiled models, CUDA graphs, the profiler
    def choices(self) -> list[Callable[[], None]]:
        resnet = "data=synthetic data.size=20000 batch_size=512 model=resnet18 optimizer=sgd lr=0.05 max_steps=60"
        resnet = resnet.replace("20000", "64").replace("512", "4") if self.small else resnet
        gpt = "experiment=gpu data.size=4000 max_steps=20"
        gpt = f"{gpt} batch_size=4 model.width=32 model.depth=1" if self.small else gpt
        choices = [
            ("image_classification", f"experiment=fast {resnet}"),
            ("image_classification", f"{resnet} compile=true channels_last=true"),
            ("image_classification", "experiment=fast accumulate=2 epochs=2"),
            ("image_classification", "profile=true epochs=1"),
            ("language_model", gpt),
        ]
        return [partial(self._choice, number, *choice) for number, choice in enumerate(choices)]

    def _choice(self, number: int, point: str, overrides: str) -> None:
        given = [*QUIET, f"device={self.device}", f"name=choice{number}", *overrides.split()]
        code, text = self._inside(point, f"choice-{number}", "train.py", *given, limit=200)
        last = [line for line in text.splitlines() if "loss" in line][-1:]
        told = last if code == 0 else text[-400:]
        self.answers.say("Choices", project=point, overrides=overrides, works=ANSWERS.get(code, "no"), told=told)


def _answers(text: str) -> list[dict[str, Any]]:
    """Return the lines of JSON among what a process printed."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def _error(code: int | None, text: str) -> str:
    """Return why a command that printed `text` gave no answer."""
    return LATE if code is None else text[-400:]
