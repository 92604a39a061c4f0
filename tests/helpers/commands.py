"""Whole command lines drawn at random: any script, verb, flag, sweep and override, and any odd value."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from helpers.overrides import CHOICES, GOOD, NAMES, ODD

TRAIN, FIND_LR, VERBS = "train.py", "find_lr.py", "digits/__main__.py"

NUMBERS = ["1e3", "2024_01_05", "007", "1_000", ".5", "5.", "+5", "-0", "1.10", "1E5", "0b1", "٣", "1e-400", "7", "Inf"]
"""Text that one reader takes for a number, and another one for text."""

WORDS = ["TRUE", "yes", "on", "'true'", "NULL", "Null", "'null'", "'3'", '"3"', "a\\,b", "2026-01-01", "1:30", "t"]

COMPUTED = ["${seed}", "${lr}", "${name}", "${model}", "${oc.env:HOME}", "${now:%Y}", "${.}", "${..lr}", "${vars.x}"]

SLOW = ("compile", "experiment", "sweep", "data.download", "dry_run", "resume")
"""Keys that take long, or end before the others are read; `resume` and `experiment` have cases of their own."""

FLAGS = [
    *(["--cfg", "job"], ["--cfg=job"], ["-c", "all"], ["--cfg", "hydra"], ["--cfg"], ["--cfg", "x"], ["--cfg="]),
    *(["--package", "model"], ["--package=x"], ["-p", "_global_"], ["-p"], ["--resolve"], ["--resolve", "-c", "job"]),
    *(["--info"], ["--info", "searchpath"], ["--info=defaults-tree"], ["-i", "x"], ["--version"], ["--hydra-help"]),
    *(["--help"], ["-h"], ["-q"], ["-v"], ["-q", "-v"], ["-qv"], ["-vv"], ["--run"], ["-r"], ["-m"], ["--multirun"]),
    *(["-m", "-m"], ["-r", "-m"], ["--config-name", "train"], ["--config-name=x"], ["-cn"], ["-cn", "../x"]),
    *(["--config-dir", "nowhere"], ["-cd", "configs"], ["--config-path=/nowhere"], ["-cp", "x"], ["--dry-run"]),
    *(["--shell-completion"], ["-sc", "query=bash"], ["--experimental-rerun", "x"], ["--"], ["-"], ["---"], ["-x"]),
    *(["--lr", "0.1"], ["--lr=0.1"], ["-lr=1"], ["--größe"], ["--\x1b[31m"], ["-m=1"], ["--help=x"], ["-q=1"], ["--m"]),
]

OF_HYDRA = [
    *("hydra.run.dir=out", "hydra.run.dir=null", "hydra.sweep.dir=''", "hydra.sweep.subdir=/", "hydra.verbose=true"),
    *("hydra.verbose=[x]", "hydra.mode=MULTIRUN", "hydra.mode=x", "hydra.mode=RUN", "hydra.job.name=x", "hydra=x"),
    *("hydra.job.chdir=true", "hydra.job.num=3", "hydra.output_subdir=null", "hydra/launcher=basic", "hydra.x=1"),
    *("hydra/launcher=x", "hydra/sweeper=x", "hydra/job_logging=default", "hydra/job_logging=x", "hydra/help=default"),
    *("hydra.searchpath=[file://nowhere]", "hydra.searchpath=3", "hydra.callbacks=null"),
    *("~hydra", "+hydra=1", "~hydra.callbacks", "hydra.sweeper.max_batch_size=0", "hydra.sweeper.params={lr: '1,x'}"),
    *("hydra.job.env_set={A: B}", "hydra.job.env_set=3", "hydra.job.config_name=x", "hydra.runtime.cwd=/", "hydra."),
    *("hydra.launcher._target_=os.system", "hydra.sweeper._target_=os.system", "+hydra.callbacks.x._target_=os.system"),
]

PATHS = [
    *("kept/old", "kept/old/", "kept", "kept/empty", "kept/binary", "kept/list", "kept/old/checkpoints", "", " ", "."),
    *("kept/old/config.yaml", "train.py", "/dev/null", "/proc/self/mem", "nowhere", "~nobody_at_all/x", "x" * 3000),
    *("\x1b[31m", "a\nb", "größe", "kept/old/checkpoints/best.pt", "pictures", "pictures/a/0.png", "*", "-", "/"),
]
COUNTS = [
    "1",
    "0",
    "-1",
    "",
    "1e3",
    "1.0",
    "²",
    "１",
    "9" * 30,
    "9" * 5000,
    "2147483648",
    "x",
    "1_000",
    " 1",
    "0x1",
    "3",
]

OPTIONS: dict[str, dict[str, Sequence[str]]] = {
    "evaluate": {"--split": ["val", "test", "train", "", "VAL"], "--out": PATHS, "--batch-size": COUNTS},
    "predict": {"--out": [*PATHS, "a.csv", "a.jsonl", "nowhere/a.csv", ".csv", "kept/.jsonl"], "--batch-size": COUNTS},
    "export": {"--format": ["torch", "x", "", "torch,", "safetensors,torch", "torch,torch", "TORCH"], "--out": PATHS},
    "compare": {"--out": [*PATHS, "a.png", "a.x", "a.pdf"], "--key": ["val/loss", "", "x", "val/acc", "\x1b[31m", "*"]},
    "reproduce": {"--stop-at": ["1", "", "1,", "0", "x", "9" * 30, "1,1", "-1"], "--workers": ["0", *COUNTS[1:8]]},
}
OF_MODEL: dict[str, Sequence[str]] = {
    "--checkpoint": ["best", "last", "", "x", "*", "..", "step-00000001.pt", "BEST", "best.pt", *PATHS],
    "--device": ["cpu", "auto", "", "x", "cuda", "meta", "cpu:7", "cuda:-1", "mps", "CPU", "\x1b[31m"],
    "--workers": ["0", "1025", *COUNTS[1:8]],
    "--allow": ["", "numpy", ",", "x", "os", "../x", "torch,torch", "\x1b[31m"],
}


@dataclass(frozen=True)
class Command:
    script: str
    arguments: list[str]

    @property
    def plans(self) -> bool:
        """Whether it is `train.py` with overrides and nothing else."""
        return self.script == TRAIN and not any(a.startswith("-") or "hydra" in a for a in self.arguments)


class Draw:
    """Draws commands. defaults: each key of the schema with its default; keys: those of the choices."""

    def __init__(self, seed: int, defaults: Mapping[str, str], keys: Sequence[str]) -> None:
        self.random, self.defaults = random.Random(seed), defaults
        self.keys = [key for key in (*defaults, *keys) if key not in SLOW]
        self.seed = seed

    def command(self) -> Command:
        kinds = [self.plan, self.plan, self.plan, self.flags, self.sweep, self.of_hydra, self.find_lr, self.verb]
        return self.random.choice(kinds)()

    def odd(self) -> str:
        return self.random.choice(self.random.choice((ODD, ODD, ODD, NUMBERS, WORDS, COMPUTED)))

    def good(self, key: str) -> str:
        return str(self.random.choice(GOOD.get(key, [self.defaults.get(key, "null")])))

    def override(self) -> str:
        draw = self.random
        if draw.random() < 0.1:
            key, prefix = draw.choice([*NAMES, "experiment", "resume"]), draw.choice(("", "+", "++", "~"))
            return f"{prefix}{key}" if draw.random() < 0.2 else f"{prefix}{key}={self.odd()}"
        if draw.random() < 0.3:
            choice, values = draw.choice(draw.choice(list(CHOICES.values())))
            return draw.choice([choice, *(f"{key}={draw.choice(those)}" for key, those in values.items())])
        key = draw.choice(self.keys)
        if draw.random() < 0.3:
            return f"{key}={self.good(key)}"
        return draw.choice(("", "", "", "", "+", "++", "~")) + f"{key}={self.odd()}"

    def overrides(self, most: int = 3) -> list[str]:
        found = [self.override() for _ in range(self.random.randint(1, most))]
        found = [one for one in found if one.lstrip("+~").partition("=")[0] not in (*SLOW[:4], "~", "")]
        if self.random.random() < 0.1 and found:  # a key twice
            key = self.random.choice(found).lstrip("+~").partition("=")[0]
            found.append(f"{key}={self.good(key)}")
        return [*found, "dry_run=true"]

    def plan(self) -> Command:
        """One value for one key, in turn, so that each key has its share; or several overrides."""
        if self.random.random() < 0.5:
            return Command(TRAIN, [f"{self.keys[self.seed % len(self.keys)]}={self.odd()}", "dry_run=true"])
        return Command(TRAIN, self.overrides())

    def flags(self) -> Command:
        words = [flag for _ in range(self.random.randint(1, 2)) for flag in self.random.choice(FLAGS)]
        more = self.overrides(2) if self.random.random() < 0.6 else ["dry_run=true"]
        return Command(TRAIN, [*more, *words] if self.random.random() < 0.5 else [*words, *more])

    def sweep(self) -> Command:
        draw = self.random
        key = draw.choice(self.keys)
        values = [self.good(key) if draw.random() < 0.6 else self.odd() for _ in range(2)]
        swept = f"{key}={','.join(values)}"
        if draw.random() < 0.2:
            swept = f"{key}={draw.choice(('range(1,3)', 'choice(1,2)', 'glob(*)', 'interval(0,1)', 'range(0,0)'))}"
        rest = self.overrides(1) if draw.random() < 0.3 else ["dry_run=true"]
        return Command(TRAIN, ["-m", swept, *rest])

    def of_hydra(self) -> Command:
        some = self.random.sample(OF_HYDRA, self.random.randint(1, 2))
        flags = ["-m"] if self.random.random() < 0.3 else []
        return Command(TRAIN, [*flags, *some, *(self.overrides(1) if self.random.random() < 0.3 else ["dry_run=true"])])

    def find_lr(self) -> Command:
        fixed = ["find_lr.steps=20", "batch_size=8", "model=mlp", "model.hidden=[4]", "limit_val_batches=1"]
        odd = [one for one in self.overrides(2)[:-1] if "find_lr.steps" not in one]
        return Command(FIND_LR, [*fixed, *odd])

    def verb(self) -> Command:
        draw = self.random
        name = draw.choice(list(OPTIONS))
        options = {**OPTIONS[name], **({} if name == "compare" else OF_MODEL)}
        run = "kept/old" if draw.random() < 0.8 else draw.choice(PATHS)
        words = [name if draw.random() < 0.97 else draw.choice(("", "x", "Evaluate", "--help", "-h")), run]
        if name == "predict":
            words.append(draw.choice(("pictures/a/0.png", "pictures", *PATHS)))
        for option in draw.sample(list(options), draw.randint(0, 2)):
            value = draw.choice(options[option])
            words += draw.choice(
                ([option, value], [f"{option}={value}"], [option] if draw.random() < 0.1 else [option, value])
            )
        if draw.random() < 0.05:
            words.append(draw.choice(("--x", "-h", "--split=", "--", "x", "lr=1", "")))
        return Command(VERBS, words)


def meant(kind: str, text: str) -> object:
    """Return the value that a person means who types `text` for a key of this type; `...` if nobody can say."""
    if "${" in text or "(" in text or text[:1] in "[{" or text == "???" or kind.startswith(("dict", "list")):
        return ...
    bare = text.strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "'\"":
        bare = bare[1:-1]
    elif bare.lower() == "null":
        return None
    if kind.startswith("str"):
        return ... if "\\" in bare else bare
    try:
        if kind.startswith("bool"):
            return {"true": True, "1": True, "yes": True, "on": True, "t": True, "y": True}.get(bare.lower(), False)
        return int(bare) if kind.startswith("int") and "float" not in kind else float(bare)
    except ValueError:
        return "nothing that fits"
