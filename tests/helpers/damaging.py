"""Damage a run folder as people, disks and programs do: any file, any kind of damage."""

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 2**70, 1e400, float("nan"), "", "x", "a/b", "\x1b[31m", "\x00", "名", "9" * 5000),
    *([], {}, [[]], {"": 1}, {"a": {"b": []}}, ["x"], [1, "a", None], {"_target_": "os.system"}),
)
"""Values that somebody may write where another type belongs."""

NESTED: dict[str, Any] = {}
for _ in range(200):
    NESTED = {"a": NESTED}


def places(values: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in nested dicts and lists."""
    if isinstance(values, dict):
        inner = values.items()
    elif isinstance(values, list):
        inner = enumerate(values)
    else:
        return []
    return [place for key, value in inner for place in ((*prefix, key), *places(value, (*prefix, key)))]


def odd_value(draw: random.Random, values: Any) -> str:
    """Replace or delete a random value in nested dicts and lists. Return a description of the change."""
    if not (found := places(values)):
        return "nothing"
    place = draw.choice(found)
    holder = values
    for key in place[:-1]:
        holder = holder[key]
    if draw.random() < 0.2:
        del holder[place[-1]]
        return f"without {place}"
    holder[place[-1]] = draw.choice((*ODD, NESTED))
    return f"{place} = {str(holder[place[-1]])[:40]!r}"


def damage_json(draw: random.Random, path: Path) -> str:
    values = json.loads(path.read_text())
    done = odd_value(draw, values) if draw.random() < 0.9 else "another type"
    path.write_text(json.dumps(values if done != "another type" else draw.choice(ODD)))
    return done


def damage_yaml(draw: random.Random, path: Path) -> str:
    values = yaml.safe_load(path.read_text())
    done = odd_value(draw, values) if draw.random() < 0.9 else "another type"
    path.write_text(yaml.safe_dump(values if done != "another type" else draw.choice(ODD), allow_unicode=True))
    return done


def damage_rows(draw: random.Random, path: Path) -> str:
    lines = path.read_text().splitlines() or ["{}"]
    number = draw.randrange(len(lines))
    row = json.loads(lines[number])
    done = odd_value(draw, row) if draw.random() < 0.8 else "another type"
    lines[number] = json.dumps(row if done != "another type" else draw.choice(ODD))
    path.write_text("\n".join(lines) + "\n" * draw.randrange(2))
    return f"line {number}: {done}"


def damage_checkpoint(draw: random.Random, path: Path) -> str:
    """Change a value and write a file that is whole again."""
    state = torch.load(path, weights_only=True)
    done = odd_value(draw, state)
    torch.save(state, path)
    return done


def in_bytes(draw: random.Random, path: Path) -> str:
    data = bytearray(path.read_bytes())
    kind = draw.choice(("missing", "empty", "half", "noise", "zeros", "folder", "link", "other encoding", "longer"))
    path.unlink()
    if kind == "folder":
        path.mkdir()
        return kind
    if kind == "link":
        path.symlink_to(path.with_name("nowhere"))
        return kind
    if kind == "missing":
        return kind
    if kind == "half":
        del data[len(data) // 2 :]
    elif kind == "noise":
        data = bytearray(draw.randbytes(len(data) or 1))
    elif kind == "zeros":
        data = bytearray(len(data) or 1)
    elif kind == "other encoding":
        data = bytearray(data.decode("latin-1").encode("utf-16"))
    elif kind == "longer":
        data += draw.randbytes(draw.choice((1, 100, 10_000)))
    path.write_bytes(data if kind != "empty" else b"")
    return kind


def renamed(draw: random.Random, path: Path) -> str:
    """Copy a checkpoint to the name of another step."""
    step = draw.choice((0, 1, 99, 12345678901234567890))
    twin = path.with_name(f"step-{step:08d}.pt")
    if twin == path:
        return "as it was"
    shutil.copy(path, twin)
    return f"also as step {step}"


_BY_NAME: dict[str, Callable[[random.Random, Path], str]] = {
    "manifest.json": damage_json,
    "config.yaml": damage_yaml,
    "metrics.jsonl": damage_rows,
}


def damage(draw: random.Random, run: Path) -> str:
    """Do one damage to a run. Return which."""
    path = draw.choice([p for p in sorted(run.rglob("*")) if p.is_file() and not p.is_symlink()])
    kinds = [in_bytes]
    if path.name in _BY_NAME:
        kinds += 3 * [_BY_NAME[path.name]]
    elif path.suffix == ".pt":
        kinds += [damage_checkpoint, damage_checkpoint, renamed]
    kind = draw.choice(kinds)
    try:
        done = kind(draw, path)
    except (ValueError, RuntimeError, pickle.UnpicklingError):  # an earlier damage left nothing that it can read
        done = in_bytes(draw, path)
    return f"{path.relative_to(run)}: {done}"
