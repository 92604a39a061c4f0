"""Answer what is only known on a GPU: the command of the bundle. Results are in results/results.jsonl."""

import importlib.util
import os
import runpy
import sys
import time
from pathlib import Path

began = time.monotonic()
here = Path(__file__).resolve().parent
packages = sorted((here / "packages").iterdir())
lacking = [f for f in packages if f.name == "copier" or importlib.util.find_spec(f.name) is None]
paths = [str(path) for path in (here / "repository", *lacking)]
sys.path[:0] = paths
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*paths, os.environ.get("PYTHONPATH")]))
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
out = os.environ.get("OUT", here / "results")
sys.argv[1:1] = [f"--projects={here / 'projects'}", f"--out={out}", f"--began={began}"]
runpy.run_module("benchmarks.on_gpu", run_name="__main__")
