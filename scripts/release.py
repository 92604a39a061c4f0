"""Make a release of the template: `python scripts/release.py VERSION`, from a clean main branch.

It dates the changes in CHANGELOG.md, writes the version into pyproject.toml, commits and tags. The commit holds an
archive of the release in tests/releases/, because every later version tests its updates with it. Nothing is pushed.
"""

import argparse
import datetime
import re
import subprocess
import sys
from pathlib import Path

from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.releases import RENDERED  # noqa: E402 - it lies in tests/


def git(root: Path, *arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=root, text=True).strip()


def changed(text: str, pattern: str, replacement: str, what: str) -> str:
    text, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
    if count == 0:
        raise SystemExit(f"{what}.")
    return text


def release(root: Path, version: str, today: str) -> None:
    """Make the release. Raises `SystemExit` with a sentence if the tree or the version does not allow it."""
    archives, tags = root / "tests/releases", git(root, "tag", "--list").split()
    try:
        canonical = str(Version(version))
    except InvalidVersion:
        canonical = ""
    if canonical != version:
        raise SystemExit(f"{version} is not a version. Write it like 0.2.0.")
    if git(root, "status", "--porcelain"):
        raise SystemExit("There are changes that are not committed. Commit them first.")
    known = [*tags, *(path.name.removesuffix(".tar.gz") for path in archives.glob("*.tar.gz"))]
    later = [name for name in known if Version(name) >= Version(version)]
    if later:
        raise SystemExit(f"{later[0]} is already released. Choose a higher version.")

    changes, project = root / "CHANGELOG.md", root / "pyproject.toml"
    log = changes.read_text(encoding="utf-8")
    if not re.search(r"^## Unreleased\n+[-*]", log, re.MULTILINE):
        raise SystemExit("CHANGELOG.md has nothing under Unreleased. Write there what changes for projects.")
    log = changed(log, "^## Unreleased$", f"## {version} ({today})", "CHANGELOG.md has no section Unreleased")
    settings = project.read_text(encoding="utf-8")
    settings = changed(settings, '^version = ".*"$', f'version = "{version}"', "pyproject.toml has no version")
    changes.write_text(log, encoding="utf-8")
    project.write_text(settings, encoding="utf-8")
    git(root, "add", "CHANGELOG.md", "pyproject.toml")

    # The archive holds the released tree and is committed with it. So the tag has its own archive.
    archives.mkdir(parents=True, exist_ok=True)
    archive = f"tests/releases/{version}.tar.gz"
    git(root, "archive", "--format=tar.gz", f"--output={archive}", git(root, "write-tree"), "--", *RENDERED)
    git(root, "add", archive)
    git(root, "commit", "--quiet", "--message", f"Release {version}")
    git(root, "tag", "--annotate", "--message", f"Ostinato {version}", version)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="such as 0.2.0; higher than all releases")
    wanted = parser.parse_args().version
    release(ROOT, wanted, datetime.datetime.now(tz=datetime.UTC).date().isoformat())
    print(f"Released {wanted}. Next: bash .ci/run, then git push --follow-tags.")
