"""The source of a project as it was when a run began."""

import os
import re
from collections.abc import Mapping
from hashlib import sha256
from tempfile import TemporaryDirectory
from typing import Any

from ..errors import UserError
from ..paths import ROOT
from ..run.source import git, read_source


def past_source(manifest: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the source files of a run by path: those of today that are unchanged, others from git.

    Raises `UserError` if one cannot be had any more.
    """
    facts, wanted = manifest.get("git"), manifest.get("source")
    if wanted is None:  # releases before 0.3.0 recorded no more than commit and changes
        if facts is None:
            raise UserError(
                "This run began without git, in a release that recorded no source. Train it again."
            )
        return _from_git(facts, None)
    for path in wanted:
        if not path.isprintable() or path != os.path.normpath(path) or path.startswith(("/", "..")):
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
