"""A run in one file, NAME.run.zip: read it as the work of a stranger, and check that it agrees with itself.

Nothing of the file is run or imported here. docs/run-files.md describes the format.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from .errors import Refused

FORMAT = 1
ALONE = {"README.txt", "run.json", "config.yaml", "manifest.json", "metrics.jsonl", "requirements.txt"}
LARGE = ("checkpoints/", "data/")
"""What may take gigabytes."""
LARGEST, LARGEST_TOGETHER, TIMES = 2**28, 2**30, 200
"""The bytes of one other file and of all of them, and how many times its size a file may unpack to."""
NOT_SOURCE = {"runs", ".venv", ".git", "data-of-the-run", "report-of-the-run"}
"""Names below source/ that belong to the repetition."""
REQUIREMENT = re.compile(r"([A-Za-z0-9][\w.-]*)==([A-Za-z0-9][\w.!]*)(\+[\w.]+)?")
ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\]")
"""What no name has: control characters, line breaks, half characters, backslashes."""
OF_TOOLS = re.compile(r"[.@]|(__MACOSX|__pycache__|\$RECYCLE\.BIN|lost\+found|Thumbs\.db|desktop\.ini)$")
"""What tools leave among data. `data.fingerprint=content` does not count it."""
NAME, HASH, PYTHON = re.compile(r"[^\W\d]\w*"), re.compile(r"[0-9a-f]{64}"), re.compile(r"\d+\.\d+\.\d+\w*\+?")
SHAPE = {
    "name": str,
    "package": NAME,
    "template": str | None,
    "python": PYTHON,
    "command": [str],
    "claims": {"steps": int, "monitor": str | None, "last": float | int | None, "best": float | int | None},
    "checkpoints": [{"step": int, "weights_sha256": str | None, "values_sha256": str, "file": str | None}],
    "seeds": [{"seed": int}],
    "data": {"_target_": str, "fingerprint": str, "files": dict | None, "needs": str | None, "place": str | None},
    "left_out": {"*": str},
    "unavailable": [str],
    "files": {"*": HASH},
}
MANIFEST = {
    "status": str,
    "result": {"steps": int},
    "fingerprint": {"data": str, "versions": dict},
    **dict.fromkeys(("git", "environment", "source"), dict | None),
}
CONFIG = {"name": str, "seed": int, "monitor": str, "data": dict}
ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError)
"""What zipfile and json raise for a damaged or strange file."""


def fits(value: Any, shape: Any) -> bool:
    """Return True if plain values have a shape: types, patterns, [shape], {key: shape} and {"*": shape}."""
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(one, shape[0]) for one in value)
    if isinstance(shape, dict):
        wanted = dict.fromkeys(value, shape["*"]) if isinstance(value, dict) and "*" in shape else shape
        return isinstance(value, dict) and all(fits(value.get(key), one) for key, one in wanted.items())
    if isinstance(shape, re.Pattern):
        return isinstance(value, str) and shape.fullmatch(value) is not None
    return isinstance(value, shape)


def plain_json(text: str) -> Any:
    return json.loads(text, parse_constant=lambda nan: None)


def plain_yaml(text: str) -> Any:
    """Return the values of a text. Raises `ValueError` if a few lines of it may stand for gigabytes."""
    if len(text) > 2**20 or any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
        raise ValueError("it is too large or repeats parts by name")
    return yaml.safe_load(text)


def is_safe(name: str) -> bool:
    """Return True if a file of this name lies below the folder that it is unpacked into."""
    return ODD.search(name) is None and not {"", ".", ".."} & set(name.split("/"))


class Packed:
    """An open file. Raises `Refused` if it is not a run, or cannot be unpacked safely."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name.removesuffix(".zip").removesuffix(".run")
        if path.is_dir():
            raise Refused(f"{path} is a folder. Pack the run first: python -m PACKAGE pack RUN")
        if not path.exists():
            raise Refused(f"{path} does not exist. Name a packed run, NAME.run.zip.")
        try:
            self.zip = zipfile.ZipFile(path)
            self.entries = {info.filename: info for info in self.zip.infolist()}
        except ERRORS as error:
            raise Refused(f"{path} is not a whole zip file: {error}. Get it again.") from error
        self._refuse_entries()
        self.run = self._values("run.json", plain_json)
        if isinstance(number := self.run.get("format"), int) and number > FORMAT:
            raise Refused(
                f"{path} has the format {number}, and this version reads {FORMAT}. Take a newer one: uvx --refresh …"
            )
        self.manifest = self._values("manifest.json", plain_json)
        self.config = self._values("config.yaml", plain_yaml)
        for name, value, shape in (
            ("run.json", self.run, SHAPE),
            ("manifest.json", self.manifest, MANIFEST),
            ("config.yaml", self.config, CONFIG),
        ):
            if not fits(value, shape):
                wrong = next((key for key, one in shape.items() if not fits(value.get(key), one)), "format")
                raise self._refused(f"{name} has a wrong value or none at '{wrong}'")
        name, needs, place = self.run["name"], self.run["data"]["needs"], self.run["data"]["place"]
        is_inside = is_safe(name) and is_safe(place or "data") and (place or "data").split("/")[0] == "data"
        if number != FORMAT or needs not in ("root", "path", None) or not is_inside:
            raise self._refused("run.json has a wrong 'format', 'name' or 'data'")
        self.requirements = self._requirements()

    def _refused(self, why: str) -> Refused:
        return Refused(f"{self.path} is not a packed run: {why}. Get it again, or ask its author.")

    def _refuse_entries(self) -> None:
        if len(self.entries) != len(self.zip.infolist()):
            raise self._refused("two of its files have one name")
        small = 0
        for name, info in self.entries.items():
            top, _, rest = name.partition("/")
            is_known = name in ALONE or (rest and f"{top}/" in (*LARGE, "source/"))
            if not is_known or not is_safe(name) or (top == "source" and rest.split("/")[0] in NOT_SOURCE):
                raise self._refused(f"it holds {name!r:.100}, a name that no packed run has")
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG) or info.flag_bits & 1:
                raise self._refused(f"{name} is a link, a device or encrypted")
            small += 0 if name.startswith(LARGE) else info.file_size
            if small > LARGEST_TOGETHER or (info.file_size > LARGEST and not name.startswith(LARGE)):
                raise self._refused(f"{name} is too large")
        self.size = sum(info.file_size for info in self.entries.values())
        if self.size > max(LARGEST_TOGETHER, TIMES * self.path.stat().st_size):
            raise self._refused(f"it would unpack to {self.size / 2**30:.0f} GiB")

    def _read(self, name: str) -> str:
        try:
            return self.zip.read(name).decode("utf-8") if name in self.entries else ""
        except ERRORS as error:
            raise self._refused(f"{name} cannot be read: {error}") from error

    def _values(self, name: str, parse: Callable[[str], Any]) -> dict[str, Any]:
        try:
            value = parse(self._read(name))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise self._refused(f"{name} cannot be read: {' '.join(str(error).split())}") from error
        return value if isinstance(value, dict) else {}

    def _requirements(self) -> dict[str, str]:
        """Return the version of each package. Names and versions only: an option could run code of the file."""
        found = {}
        for line in self._read("requirements.txt").splitlines():
            if (match := REQUIREMENT.fullmatch(line)) is None:
                raise self._refused(f"requirements.txt has the line {line!r:.100} instead of NAME==VERSION")
            found[match[1]] = match[2] + (match[3] or "")
        return found

    def below(self, folder: str) -> list[str]:
        return [name for name in self.entries if name.startswith(folder)]

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file. Raises `Refused` at its end if the hash is not the one of run.json."""
        digest = hashlib.sha256()
        try:
            with self.zip.open(name) as file:
                while chunk := file.read(2**20):
                    digest.update(chunk)
                    yield chunk
        except ERRORS as error:
            raise self._refused(f"{name} cannot be read: {error}") from error
        if name != "run.json" and digest.hexdigest() != self.run["files"].get(name):
            raise self._refused(f"{name} differs from what run.json records")

    def rows(self) -> list[dict[str, Any]]:
        found = []
        for line in self._read("metrics.jsonl").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                row = plain_json(line)
                if isinstance(row, dict) and isinstance(row.get("step"), int):
                    found.append(row)
        return found

    # ------------------------------------------------------------ what does not agree

    def damages(self) -> Iterator[str]:
        """Yield a sentence for each file whose hash is wrong or missing."""
        names, listed = set(self.entries) - {"run.json"}, set(self.run["files"])
        yield from (f"run.json does not list {name}" for name in sorted(names - listed))
        yield from (f"{name} is missing" for name in sorted(listed - names))
        for name in sorted(names & listed):
            try:
                for _ in self.chunks(name):
                    pass
            except Refused:
                yield f"{name} differs from what run.json records"

    def contradictions(self) -> Iterator[str]:
        """Yield a sentence for each place where config, manifest, source, values and claims do not agree."""
        run, manifest, config = self.run, self.manifest, self.config
        said = [
            ("status", "finished", manifest["status"]),
            ("claims", run["claims"], manifest["result"]),
            ("command", run["command"], manifest.get("command")),
            ("template", run["template"], manifest.get("template")),
            ("python", run["python"], manifest["fingerprint"]["versions"].get("python")),
            ("data.fingerprint", run["data"]["fingerprint"], manifest["fingerprint"]["data"]),
            ("data._target_", run["data"]["_target_"], config["data"].get("_target_")),
            ("name", run["name"].rpartition("/")[0], config["name"]),
            ("monitor", run["claims"].get("monitor"), config["monitor"]),
        ]
        yield from (
            f"{key} is {one!r:.80} in one place and {other!r:.80} in another"
            for key, one, other in said
            if one != other
        )
        installed = (manifest.get("environment") or {}).get("packages")
        for name, version in self.requirements.items() if isinstance(installed, dict) else ():
            if installed.get(name) != version:
                yield f"requirements.txt has {name}=={version}, but manifest.json does not"
        for path, digest in (run["data"]["files"] or {}).items() if run["data"]["place"] else ():
            if run["files"].get(f"data/{path}") != digest:
                yield f"data/{path} differs from what run.json records"
        yield from self._of_source()
        yield from self._of_claims()

    def _of_source(self) -> Iterator[str]:
        recorded, left_out = self.manifest.get("source"), self.run["left_out"]
        if not isinstance(recorded, dict):
            return  # a release before 0.3.0 began the run
        wanted = {f"source/{path}": digest for path, digest in recorded.items()}
        packed = {name: self.run["files"].get(name) for name in self.below("source/")}
        for name in sorted((wanted.keys() | packed.keys()) - left_out.keys()):
            if wanted.get(name) != packed.get(name):
                yield f"{name} differs from what manifest.json records"

    def _of_claims(self) -> Iterator[str]:
        claims, rows, mode = self.run["claims"], self.rows(), self.config.get("monitor_mode")
        values = [row[claims["monitor"]] for row in rows if claims.get("monitor") in row]
        finite = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
        last = values[-1] if values and values[-1] in finite else None
        best = [pick(finite, default=None) for kind, pick in (("min", min), ("max", max)) if mode in (kind, "auto")]
        for key, known in (
            ("steps", [max((row["step"] for row in rows), default=0)]),
            ("last", [last]),
            ("best", best),
        ):
            if claims.get(key) not in known:
                yield f"the claim {key}={claims.get(key)} is not in metrics.jsonl, which has {known[0]}"
        for row in self.run["seeds"]:
            if row["seed"] == self.config["seed"] and (row.get("last"), row.get("best")) != (last, claims.get("best")):
                yield f"seeds has other values for the seed {row['seed']} than the claims"
        for row in self.run["checkpoints"]:
            step, file = row["step"], row["file"]
            if row["values_sha256"] != values_hash(rows, step):
                yield f"the values up to step {step} are not those of its checkpoint"
            if step == claims["steps"] and row["weights_sha256"] != claims.get("weights_sha256"):
                yield f"the weights of step {step} are not those of the claims"
            if file is not None and not self.below(file):
                yield f"{file} is missing"

    def data_differences(self, folder: Path) -> Iterator[str]:
        """Yield a sentence for each file of the data, in a folder or alone, that is not as in the run."""
        known = self.run["data"]["files"]
        if known is None:
            yield "the run was made without data.fingerprint=content, so its data cannot be checked. Leave --data out."
            return
        for name in sorted(known):
            path = folder if folder.is_file() else folder / name
            if not (is_safe(name) and path.is_file()):
                yield f"{name} is missing in {folder}"
                continue
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != known[name]:
                    yield f"{path} differs from the file of the run"
        if self.run["data"]["needs"] == "root":  # a whole folder: a file too many is a sample too many
            cache = Path(str(self.config["data"].get("cache"))).absolute()
            for place, folders, files in os.walk(folder):
                folders[:] = [name for name in folders if not OF_TOOLS.match(name) and Path(place, name) != cache]
                for path in (Path(place, name) for name in files if not OF_TOOLS.match(name)):
                    if path.relative_to(folder).as_posix() not in known:
                        yield f"{path} is not among the files of the run"


def values_hash(rows: list[dict[str, Any]], step: int) -> str:
    """Return the hash of what a run had logged up to a step, without times and memory."""
    digest = hashlib.sha256()
    for row in rows:
        if row["step"] <= step:
            kept = sorted(pair for pair in row.items() if not pair[0].startswith(("time/", "memory/")))
            digest.update(json.dumps(dict(kept), ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()
