"""Owners edit the training step: an update merges nearly every edit of one line of a release's step."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.releases import commit, git, unpack, versions
from helpers.template import ROOT
from helpers.updating import contents, write

from ostinato.merge import merge
from ostinato.render import ANSWERS

LOOP = "template/{{ package_name }}/engine/loop.py"
MERGED = 0.8
"""At least this share of the edits merges. The others change a line that the template changed, too."""


def edits(text: str) -> Iterator[str]:
    """The file with a line added below each line of its step, and with each of these lines changed."""
    lines = text.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("    def training_step("))
    last = lines.index("        self.step += 1", first)
    for place in range(first, last + 1):
        line = lines[place]
        indent = re.match(" *", line)[0] + "    " * line.endswith(":")
        for edited in ([line, f"{indent}mine()"], [f"{line}  # mine"]):
            yield "\n".join([*lines[:place], *edited, *lines[place + 1 :]]) + "\n"


@pytest.mark.parametrize("version", versions())
def test_one_line_edits_of_the_step_merge(tmp_path: Path, version: str):
    """All edits are merged at once, each in a copy of the file."""
    old = (unpack(version, tmp_path / "release") / LOOP).read_text(encoding="utf-8")
    new = (ROOT / LOOP).read_text(encoding="utf-8")
    copies = {f"loop_{number}.py": text for number, text in enumerate(edits(old))}
    assert len(copies) >= 44
    for folder, texts in (("old", dict.fromkeys(copies, old)), ("new", dict.fromkeys(copies, new)), ("mine", copies)):
        write(tmp_path / folder, {ANSWERS: "", **texts})
    project = tmp_path / "mine"
    git(project, "init", "--quiet")
    commit(project)

    merged = merge(project, tmp_path / "old", tmp_path / "new", lambda path: False, tmp_path / "scratch", moved={})

    clean = [path for path in copies if path not in merged.conflicts]
    after = contents(merged.scratch, merged.tree)
    assert all(b"mine" in after[path] for path in copies)
    assert len(clean) >= MERGED * len(copies), merged.conflicts
