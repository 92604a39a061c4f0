"""`pack RUN`: one file with all that it takes to repeat a run. docs/run-files.md describes it."""

import contextlib
import io
import os
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from ..config.schema import Config
from ..errors import SaveError, UserError
from ..paths import ROOT, checksums, replacing, shown, to_json
from ..run.facts import LEFT_OUT, template_address, weights_sha256, without_secrets
from ..run.find import is_run
from ..run.folder import Run, read_metrics
from ..run.names import Unusable, bests, newest_first
from ..run.source import git, read_source
from ..text import say, tell
from .compare import Summary, differing_keys

Files = dict[str, bytes | Path]


def pack_run(
    folder: Path, config: Config, out: Path | None, with_weights: bool, with_data: bool
) -> None:
    """Write the file of a run. Raises `UserError`, `SaveError`."""
    run, name = Run(folder, None), f"{config.name}/{folder.name}"
    manifest = run.manifest()
    if manifest["status"] != "finished":
        raise UserError(f"{run.shown} is not finished but {manifest['status']}. {run.resume_hint}")
    out = out or folder.with_name(f"{name.replace('/', '-')}.run.zip")
    source = past_source(manifest)
    files: Files = {f"source/{path}": content for path, content in source.items()}
    files |= {name: (folder / name).read_bytes() for name in ("config.yaml", "manifest.json")}
    left_out = _replace_secrets(files, manifest)
    checkpoints = checkpoint_hashes(folder, left_out)
    if with_weights:
        for path in (folder / entry["file"] for entry in checkpoints):
            parts = filter(Path.is_file, (path, *path.glob("*")))
            files |= {part.relative_to(folder).as_posix(): part for part in parts}
    data = _data(folder, config, manifest, files if with_data else None)
    requirements, unavailable = _requirements(manifest)
    told = {
        "format": 1,
        "name": name,
        "package": __name__.partition(".")[0],
        "template": manifest.get("template"),
        "python": manifest.get("fingerprint", {}).get("versions", {}).get("python"),
        "command": manifest.get("command"),
        "claims": manifest["result"],
        "checkpoints": [e if with_weights else {**e, "file": None} for e in checkpoints],
        "seeds": seeds_of(folder),
        "data": data,
        "left_out": left_out,
        "unavailable": unavailable,
    }
    readme = Path(__file__).with_name("run_file.txt").read_text(encoding="utf-8")
    readme = readme.format(**told, file=quote(out.name), address=template_address())
    files |= {
        "README.txt": readme.encode(),
        "metrics.jsonl": folder / "metrics.jsonl",
        "requirements.txt": requirements.encode(),
    }
    _write(out, files, told)
    tell(
        f"{shown(out)}: {out.stat().st_size / 2**20:.1f} MiB, {len(source)} source files, "
        f"{'the' if with_weights else 'no'} weights, {'the' if with_data else 'no'} data."
    )
    for path, why in left_out.items():
        say(f"{path} {why}.")
    for resumed in manifest.get("resumed", []):
        for change in (*resumed["extended"], *resumed["differences"]):
            say(f"Resumed at step {resumed['step']} with {change}: a repetition may differ.")


def past_source(manifest: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the source files of a run by path: those of today that are unchanged, others from git.

    Raises `UserError` if one cannot be had any more.
    """
    facts, wanted = manifest.get("git"), manifest.get("source")
    if wanted is None:  # releases before 0.3.0 recorded no more than commit and changes
        if facts is None:
            raise UserError("This run began without git in an old release. Train it again.")
        return _from_git(facts, None)
    for path in wanted:
        if (
            not path.isprintable()
            or path != os.path.normpath(path)
            or path.startswith(("/", "../"))
        ):
            raise UserError(f"manifest.json names the source file {path!r}. Restore manifest.json.")
    now = {path: read_source(path) or b"" for path in wanted}
    found = {path: text for path, text in now.items() if sha256(text).hexdigest() == wanted[path]}
    gone = wanted.keys() - found.keys()
    past = _from_git(facts, gone) if gone and facts is not None else {}
    for path in sorted(gone):
        found[path] = past.get(path, b"")
        if sha256(found[path]).hexdigest() != wanted[path]:
            raise UserError(
                f"{path} has changed since the run, and git does not hold its old state. Bring it back, "
                "or train the run again."
            )
    return found


def _from_git(facts: Mapping[str, Any], wanted: set[str] | None) -> dict[str, bytes]:
    """Return files from a commit with the changes to it, in an index and objects of its own.

    wanted: None for all files that the commit has below the project. Raises `UserError`.
    """
    untracked = facts.get("untracked", {})
    found = {path: text.encode(errors="replace") for path, text in untracked.items()}
    with TemporaryDirectory() as scratch:
        objects = ROOT / os.fsdecode(git("rev-parse", "--git-path", "objects") or b"").strip()
        places = {"GIT_INDEX_FILE": f"{scratch}/index", "GIT_OBJECT_DIRECTORY": scratch}
        env = {**os.environ, **places, "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects)}
        commit = facts["commit"]
        is_known = re.fullmatch("[0-9a-f]{40,64}", commit) is not None
        if (not is_known or git("read-tree", commit, env=env) is None) and wanted is None:
            raise UserError(f"git does not have the run's commit {commit[:40]}. Fetch it first.")
        for part in filter(None, re.split(r"(?m)^(?=diff --git )", facts["diff"])):
            change = part.encode(errors="replace")
            applied = git("apply", "--cached", "--whitespace=nowarn", input=change, env=env)
            if applied is None and wanted is None:
                name = part.partition("\n")[0].rpartition(" b/")[2]
                raise UserError(f"The run's changes to {name} are not known. Train the run again.")
        lines = os.fsdecode(git("ls-files", "--stage", "-z", env=env) or b"").split("\0")
        files = {line.partition("\t")[2] for line in lines if line.startswith("100")}  # no links
        for path in files if wanted is None else files & wanted:
            found[path] = git("cat-file", "--filters", f":./{path}", env=env) or b""
    return found


def _replace_secrets(files: dict[str, Any], manifest: Mapping[str, Any]) -> dict[str, str]:
    """Replace secrets in the files. Return a reason for each file that changes."""
    texts: dict[str, Any] = {n: c.decode(errors="surrogateescape") for n, c in files.items()}
    texts["manifest.json"] = manifest  # JSON escapes the quotes around a secret
    left_out = {}
    for name, clean in without_secrets(texts).items():
        if clean != texts[name]:
            text = clean if isinstance(clean, str) else to_json(clean, indent=2)
            files[name] = text.encode(errors="surrogateescape")
            left_out[name] = f"holds {LEFT_OUT!r} in place of texts that look like secrets"
    return left_out


def _requirements(manifest: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the text of requirements.txt, and the packages that no index has."""
    versions = manifest.get("fingerprint", {}).get("versions", {})  # releases before 0.3.0
    told = manifest.get("environment", {"packages": versions, "sources": {}})
    lines, unavailable = list[str](), list[str]()
    for name, version in sorted(told["packages"].items()):
        line, origin = f"{name}=={version}", told["sources"].get(name)
        if name in ("python", "CUDA", "cuDNN") or version == "not installed":
            continue
        if origin is None and re.fullmatch(
            r"[A-Za-z0-9][\w.-]*==[A-Za-z0-9][\w.!]*(\+[\w.]+)?", line
        ):
            lines.append(f"{line}\n")
        elif origin != ROOT.as_uri():  # the project itself
            unavailable.append(name)
    return "".join(lines), unavailable


def checkpoint_hashes(folder: Path, unusable: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Return step, hashes and file of each checkpoint of a run.

    unusable: is given the reason for each checkpoint that is left out.
    """
    from ..run import checkpoint  # here: a mistake is reported before torch is loaded

    found, rows, place = dict[Any, dict[str, Any]](), read_metrics(folder), folder / "checkpoints"
    for path in (*newest_first(place), *bests(place)):
        name = f"checkpoints/{path.name}"
        try:
            state = checkpoint.load(path)
        except Unusable as error:
            if unusable is not None:
                unusable[name] = f"is left out: it {str(error).partition(' ')[2]}"
            continue
        hashes = {
            "step": state["step"],
            "weights_sha256": weights_sha256(state["model"]),
            "ema_sha256": state["ema"] and weights_sha256(state["ema"]),
            "values_sha256": values_sha256(rows, state["step"]),
        }
        # best.pt may be a second name of a numbered checkpoint.
        entry = found.setdefault(tuple(hashes.values()), {**hashes, "best": False, "file": name})
        entry["best"] |= path.stem == "best"
    return list(found.values())


def values_sha256(rows: Sequence[Mapping[str, Any]], step: int) -> str:
    """Return a hash over the rows of metrics.jsonl up to a step, without times and memory."""
    digest = sha256()
    for row in rows:
        if row["step"] <= step:
            kept = sorted(key for key in row if not key.startswith(("time/", "memory/")))
            digest.update(f"{to_json({key: row[key] for key in kept})}\n".encode())
    return digest.hexdigest()


def seeds_of(folder: Path) -> list[dict[str, Any]]:
    """Return how a run ended, and the finished runs beside it that differ in the seed only."""
    own, found = Summary(folder), dict[str, dict[str, Any]]()
    for path in (*filter(is_run, sorted(folder.parent.iterdir())), folder):
        with contextlib.suppress(UserError):  # of a damaged run
            run = Summary(path)
            if run.status == "finished" and {*differing_keys([own, run])} <= {"seed"}:
                ends = {key: run.result.get(key) for key in ("last", "best")}
                found[str(run.config.get("seed"))] = {"seed": run.config.get("seed"), **ends}
    return list(found.values())


def _data(
    folder: Path, config: Config, manifest: Mapping[str, Any], files: Files | None
) -> dict[str, Any]:
    """Describe the data. Add their files to `files`, if it is not None. Raises `UserError`."""
    from .. import rng  # here, as above
    from ..api import Data
    from ..build.content import data_files, data_place, fingerprint_of
    from ..build.target import build

    key, place = data_place(config.data)
    told = {
        "_target_": config.data.get("_target_"),
        "fingerprint": manifest.get("fingerprint", {}).get("data"),
        "files": None,
        "needs": key,
        "packed": files is not None,
        "place": None,
    }
    if (sums := folder / "data.sha256").exists():
        lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
        told["files"] = {line[66:]: line[:64] for line in lines}
    if files is None:
        return told
    base, names = data_files(place, config.data.get("cache")) if key else (place, [])
    if not names:
        why = f"{shown(place)} has none" if key else "no data.root or data.path names them"
        raise UserError(f"--data packs the files of the data, but {why}. Leave --data out.")
    rng.seed_all(rng.make_key(config.seed, rng.Domain.INIT, 0))
    data = build(config.data, "data", Data, config.allowed_packages)
    if fingerprint_of(data, config)[0] != told["fingerprint"]:
        raise UserError(
            f"The data in {shown(place)} differ from those of the run. Bring the old ones back, or "
            f"name their place: data.{key}=PATH."
        )
    files |= {f"data/{name}": base / name for name in names}
    place = Path("data", place.relative_to(base))
    return {**told, "files": checksums(base, names), "place": place.as_posix()}


def _write(out: Path, files: Files, told: dict[str, Any]) -> None:
    """Write the archive so that it is whole or absent. Equal files give equal bytes."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as path, open(path, "xb") as file, ZipFile(file, "w") as archive:
            told["files"] = {name: _add(archive, name, files[name]) for name in sorted(files)}
            _add(archive, "run.json", to_json(told, indent=2).encode(errors="replace"))
    except OSError as error:
        raise SaveError(
            f"{shown(out)} cannot be written: {error.strerror or error}. Put this right, or name another "
            "place: --out FILE."
        ) from error


def _add(archive: ZipFile, name: str, content: bytes | Path) -> str:
    """Add a file to the archive. Return its SHA-256."""
    info, digest = ZipInfo(name), sha256()  # ZipInfo says 1980: equal files, equal bytes
    is_dense = name.startswith(("checkpoints/", "data/"))  # compressing would gain little
    info.compress_type = ZIP_STORED if is_dense else ZIP_DEFLATED
    info.create_system, info.external_attr = 3, 0o100644 << 16  # a plain file of Unix
    with open(content, "rb") if isinstance(content, Path) else io.BytesIO(content) as source:
        info.file_size = source.seek(0, io.SEEK_END)  # it decides on ZIP64
        source.seek(0)
        with archive.open(info, "w") as target:
            while block := source.read(1 << 20):
                digest.update(block)
                target.write(block)
    return digest.hexdigest()
