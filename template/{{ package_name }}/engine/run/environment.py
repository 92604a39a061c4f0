"""What a manifest records of Python, its packages and the machine."""

import contextlib
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

_VARIABLES = re.compile(
    "PYTHONHASHSEED|CUBLAS_WORKSPACE_CONFIG|NVIDIA_TF32_OVERRIDE|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE|"
    r"ATEN_CPU_CAPABILITY|NCCL_(ALGO|PROTO)|(OMP|GOMP|KMP|MKL|DNNL|ONEDNN|OPENBLAS)_\w+"
)
"""Environment variables that can change the bits of a result."""


def environment() -> dict[str, Any]:
    """Return what can change the bits of a result, besides config, code and data."""
    import torch  # here: only a new run needs it

    from ..machine.device import device_name

    packages, sources = installed()
    count = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
    gpus = [torch.cuda.get_device_properties(index) for index in range(count)]
    driver = Path("/sys/module/nvidia/version")  # Linux only
    return {
        "python": " ".join(sys.version.split()),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "packages": packages,
        "sources": sources,
        "cpu": {
            "model": device_name(torch.device("cpu")),
            "cores": os.cpu_count(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "mkl": torch.backends.mkl.is_available(),
            "mkldnn": torch.backends.mkldnn.is_available(),
        },
        "torch": torch.__config__.show(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpus else None,
        "driver": driver.read_text(encoding="utf-8").strip() if gpus and driver.exists() else None,
        "gpu": [f"{gpu.name}, {gpu.major}.{gpu.minor}" for gpu in gpus] or None,
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "variables": {k: v for k, v in sorted(os.environ.items()) if _VARIABLES.fullmatch(k)},
    }


def installed() -> tuple[dict[str, str], dict[str, str]]:
    """Return the version of each installed distribution, and where it is from if not from an index.

    The names of folders say it. To read their metadata would take 0.2 s.
    """
    packages, sources = dict[str, str](), dict[str, str]()
    for folder in map(Path, sys.path):
        for info in sorted((*folder.glob("*-*.dist-info"), *folder.glob("*-*.egg-info"))):
            title, version, *_ = info.stem.split("-")
            name = re.sub("[_.]+", "-", title).lower()
            if name not in packages:
                packages[name] = version
                if (source := _source(info)) is not None:
                    sources[name] = source
    return packages, sources


def _source(info: Path) -> str | None:
    """Return the address that a distribution was installed from; None: an index of packages."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        told = json.loads((info / "direct_url.json").read_text(encoding="utf-8"))
        url, vcs = re.sub("//[^/@]*@", "//", told["url"]), told.get("vcs_info")
        return f"{vcs['vcs']}+{url}@{vcs['commit_id']}" if vcs else url
    return "the operating system" if info.is_relative_to("/usr/lib") else None
