"""Read a packed run as docs/run-files.md describes it, with nothing but the standard library."""

import json
import zipfile
from hashlib import sha256
from pathlib import Path

ALWAYS = {"README.txt", "config.yaml", "manifest.json", "metrics.jsonl", "requirements.txt", "run.json"}


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def opened(path: Path) -> tuple[dict, dict[str, bytes]]:
    """Return run.json, and the contents by name. Each file is listed, and its hash is right."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
        files = {entry.filename: archive.read(entry) for entry in entries}
    names = [entry.filename for entry in entries]
    assert names == [*sorted(set(names) - {"run.json"}), "run.json"]
    for entry in entries:
        assert entry.date_time == (1980, 1, 1, 0, 0, 0)
        assert entry.external_attr >> 16 == 0o100644, "a plain file"
        assert not entry.filename.startswith("/")
        assert ".." not in entry.filename.split("/")
    told = json.loads(files["run.json"])
    assert told["files"] == {name: digest(files[name]) for name in names[:-1]}
    assert {name for name in names if name.split("/")[0] not in ("source", "checkpoints", "data")} == ALWAYS
    return told, files


def values_sha256(metrics: bytes, step: int) -> str:
    """The hash of the logged values up to a step."""
    text = ""
    for row in map(json.loads, metrics.decode().splitlines()):
        if row["step"] <= step:
            kept = {k: v for k, v in row.items() if not k.startswith(("time/", "memory/"))}
            text += json.dumps(dict(sorted(kept.items())), ensure_ascii=False) + "\n"
    return digest(text.encode())
