"""`python -m benchmarks.gpu_bundle FOLDER`: make a folder that answers what is only known on a GPU.

Copy it to a machine with a GPU, which needs no network, Copier, Hydra and git, and enter `python FOLDER/run.py`. It
ends by itself after 450 s. `python FOLDER/run.py PART …` runs some parts, and `--help` says more. FOLDER/results/
(or $OUT) gets results.jsonl, line by line, and at the end logs.zip with what the commands printed; see on_gpu/.

    FOLDER/run.py        the command
    FOLDER/projects/     one project for each starting point
    FOLDER/packages/     what such a machine lacks, each package in a folder; those that it has are not used
    FOLDER/repository/   the benchmarks and tests of this repository, and what the tests read
"""

from __future__ import annotations

import argparse
import shutil
import sys
from importlib import metadata
from pathlib import Path

from .common import ROOT, render, tracked
from .on_gpu.right import POINTS

PACKAGES = {
    **{"hydra": "hydra-core", "omegaconf": "omegaconf", "antlr4": "antlr4-python3-runtime", "yaml": "pyyaml"},
    **{"packaging": "packaging", "tqdm": "tqdm"},
    **{"pytest_timeout": "pytest-timeout", "xdist": "pytest-xdist", "execnet": "execnet"},
}
"""Distributions by a module that they have."""
MOST = 40 << 20  # bytes


def make(folder: Path) -> None:
    """Make the bundle. Raises `FileExistsError` if there is something already."""
    folder.mkdir(parents=True)
    for point in POINTS:
        render(folder / "projects" / point, starting_point=point)
    for name in tracked():
        if name.startswith(("benchmarks/", "tests/", "template/", "pyproject.toml")):
            (folder / "repository" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / "repository" / name)
    (folder / "packages" / "copier").mkdir(parents=True)
    shutil.copyfile(ROOT / "benchmarks/on_gpu/copier.py", folder / "packages" / "copier" / "copier.py")
    for module, distribution in PACKAGES.items():
        for file in metadata.files(distribution) or []:
            if ".." not in file.parts and "__pycache__" not in file.parts and file.suffix != ".so":
                target = folder / "packages" / module / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), target)
    shutil.copyfile(ROOT / "benchmarks/on_gpu/run.py", folder / "run.py")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_bundle", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if folder.exists():
        sys.exit(f"{folder} exists. Name a new folder.")
    make(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB. On the machine with a GPU, enter: python {folder.name}/run.py")
    if size > MOST:
        sys.exit(f"The folder may have {MOST / 2**20:.0f} MiB. Leave something out.")


if __name__ == "__main__":
    main()
