"""An environment for the other libraries, made on demand and kept in the user's cache."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
from functools import cache
from importlib import metadata
from pathlib import Path


@cache
def _folder() -> Path:
    """Return a virtual environment that sees all packages of this one, so all use the same torch."""
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"python{platform.python_version()}-torch{metadata.version('torch')}"
    folder = cached / "ostinato-benchmarks" / name
    inner = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    if not (inner / "parent.pth").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        (inner / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@cache
def install(*packages: str) -> str:
    """Install missing packages. Return the path of the environment's Python.

    Raises `RuntimeError` with the installer's last line.
    """
    try:
        python = str(_folder() / "bin" / "python")
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"no environment could be made: {error}") from error
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or "pip failed").splitlines()[-1]
        raise RuntimeError(f"not installed: {last}")
    return python


def versions(*packages: str) -> str:
    """Return the installed versions, such as "lightning 2.6.6, accelerate 1.15.0"."""
    code = "import sys; from importlib.metadata import version\nfor n in sys.argv[1:]: print(n, version(n))"
    python = str(_folder() / "bin" / "python")
    done = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True)
    return ", ".join(done.stdout.split("\n")[:-1])
