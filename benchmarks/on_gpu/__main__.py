"""`python -m benchmarks.on_gpu`: answer what is only known on a GPU. run.py of the bundle starts it."""

from __future__ import annotations

import argparse
import os
import traceback
from pathlib import Path

import torch

from .. import common
from .answers import Answers
from .fast import Fast
from .right import POINTS, Right

RIGHT = ("tests", "resume", "waits", "repeats", "choices")
FAST = ("steps", "resnet18", "saving", "epochs", "resnet50")
PARTS = [*RIGHT, *FAST]


def main() -> None:
    parser = argparse.ArgumentParser(prog="run.py", description="Answer what is only known on a GPU.")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=f"default: {', '.join(PARTS)}")
    parser.add_argument("--projects", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)  # to import torch takes a while
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; default: $OUT, or results/")
    parser.add_argument("--limit", type=float, default=445, help="seconds until it ends")
    parser.add_argument("--small", action="store_true", help="small sizes, to try it on a machine without a GPU")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.small:
        parser.error("torch finds no GPU. Add --small to try this command without one.")
    answers = Answers(options.out.resolve(), options.limit, options.began)
    gpu = torch.cuda.get_device_properties(0) if device == "cuda" else None
    memory = f"{gpu.total_memory >> 30} GiB" if gpu else ""
    answers.say("Machine", machine=common.machine(), memory=memory, CUDA=torch.version.cuda, cores=os.cpu_count())
    chosen = options.parts or PARTS
    measured = [part for part in FAST if part in chosen]
    right = Right(answers, options.projects.resolve(), device, options.small)
    os.environ["RENDERED"] = str(right.projects / POINTS[0])
    fast = Fast(answers, device, options.small)
    right.run(chosen, fast.ahead(measured), answers.left() * (0.6 if measured else 1))
    for part in measured:
        if answers.left() < 30:
            answers.say("Parts that failed", what=part, error="no time is left")
            continue
        try:
            getattr(fast, part)()
        except Exception as error:
            traceback.print_exc()
            answers.say("Parts that failed", what=part, error=f"{type(error).__name__}: {error}")
    answers.end("all parts were tried")  # workers of a part that failed may still run


if __name__ == "__main__":
    main()
