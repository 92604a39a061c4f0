"""What a manifest records (no secrets: people share runs), and what a run's files must hold."""

import contextlib
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from ..paths import ROOT
from ..text import logger
from .source import git_facts, source_hashes

CHECKPOINT, MANIFEST = yaml.safe_load(
    Path(__file__).with_name("shape.yaml").read_text(encoding="utf-8")
).values()

_VARIABLES = re.compile(
    "PYTHONHASHSEED|CUBLAS_WORKSPACE_CONFIG|NVIDIA_TF32_OVERRIDE|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE|"
    r"ATEN_CPU_CAPABILITY|NCCL_(ALGO|PROTO)|(OMP|GOMP|KMP|MKL|DNNL|ONEDNN|OPENBLAS)_\w+"
)
"""Environment variables that can change the bits of a result."""

LEFT_OUT = "[left out: looks like a secret]"
_NAME = (  # not what stands before it: a search would try each letter of a long word
    r"(?:api_?key|access_?key|private_?key|secret|token(?!i[sz])|passw(?:or)?d|credential)[\w-]*"
)
_FORMS = (
    # name = "value", "name": 'value'
    re.compile(rf"""(?i)({_NAME}["']?\s*[:=]\s*)(["'])(?!\2)[^"'\n]{{4,}}\2"""),
    # NAME=value without quotes: long, with letters and digits, as generated keys are
    re.compile(rf"(?i)({_NAME}\s*[:=]\s*)(?=[\w+/-]*\d)(?=[\w+/-]*[a-z])[\w+/-]{{16,}}={{0,2}}"),
    # an address with user and password, not with $PASSWORD
    re.compile(r"(://[^/\s:@]+:)(?!\$)[^/\s@]+(?=@)"),
    # keys that services mark by their first letters
    re.compile(r"()\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_\w{30,}|github_pat_\w{30,}|glpat-[\w-]{20,})"),
    re.compile(r"()\b(?:hf_\w{30,}|sk-[\w-]{20,}|xox[abprs]-[\w-]{10,}|AIza[\w-]{35})"),
    re.compile(r"()-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----"),
)


def describe_start(overrides: list[str]) -> dict[str, Any]:
    """Return what a manifest says at the start of a run, without the fingerprint and secrets."""
    told = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "overrides": overrides,
        "template": answer("_commit"),
        "git": git_facts(),
        "environment": environment(),
    }
    told = without_secrets(told)
    if found := str(told).count(LEFT_OUT):
        logger.warning(f"manifest.json leaves out {found} texts that look like passwords or keys.")
    return {"status": "running", "started": timestamp(), **told, "source": source_hashes()}


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


def without_secrets(value: Any) -> Any:
    """Return a text, or plain values that hold texts, with LEFT_OUT in place of each secret."""
    if isinstance(value, str):
        for form in _FORMS:
            value = form.sub(rf"\g<1>{LEFT_OUT}", value)
    elif isinstance(value, list):
        return [without_secrets(entry) for entry in value]
    elif isinstance(value, dict):
        return {key: without_secrets(entry) for key, entry in value.items()}
    return value


def timestamp() -> str:
    """The local time with its zone, as ISO 8601."""
    return datetime.now().astimezone().isoformat()


def fingerprint_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the differences between two fingerprints, each like "torch 2.6.0 → 2.7.0"."""
    found = []
    for key, value in one.items():
        stored = other.get(key)
        if isinstance(value, Mapping) and isinstance(stored, Mapping | None):
            found += fingerprint_differences(value, stored or {})
        elif value != stored:
            found.append(f"{key} {value} → {stored}")
    return found


def template_address() -> str:
    """Return the template's address for `uvx --from`; "SOURCE" if the project knows a folder only."""
    address = re.sub("^gh:", "https://github.com/", answer("_src_path") or "")
    address = re.sub("^gl:", "https://gitlab.com/", address)
    address = re.sub("^([^/:]+@[^/:]+):", r"ssh://\1/", address)
    return f"git+{address}" if re.match(r"(https?|ssh)://\S+$", address) else "SOURCE"


def answer(key: str) -> str | None:
    """Return a line of .copier-answers.yml, which tells from where and when the template is."""
    answers = ROOT / ".copier-answers.yml"
    text = answers.read_text(encoding="utf-8") if answers.is_file() else ""
    found = re.search(rf"^{key}: *(.*\S)", text, re.MULTILINE)
    return found and found[1]


def weights_sha256(state: Mapping[str, Any]) -> str:
    """Return a hash over a state dict: each key in order, with dtype, shape and bytes."""
    import torch

    from ..machine.sharding import whole

    digest = hashlib.sha256()
    for name, tensor in state.items():
        tensor = whole(tensor.detach()).cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def misfit(value: Any, shape: Any, place: str = "") -> str | None:
    """Return the dotted key of the first value that does not fit, None, or "" for `value`."""
    if isinstance(shape, list) and len(shape) > 1:
        found = [misfit(value, one, place) for one in shape]
        return None if None in found else max(filter(None, found), key=len, default=place)
    if isinstance(shape, dict) and isinstance(value, Mapping):
        if "each" in shape:
            entries = [(f".{key}", one, shape["each"]) for key, one in value.items()]
        else:
            keys = [key for key in shape if key[-1] != "?" or key[:-1] in value]
            entries = [(f".{k.rstrip('?')}", value.get(k.rstrip("?"), ...), shape[k]) for k in keys]
    elif isinstance(shape, list) and isinstance(value, list | tuple):
        entries = [(f"[{i}]", one, shape[0]) for i, one in enumerate(value)]
    else:
        names = shape.split(" | ") if isinstance(shape, str) else ()
        is_list = isinstance(value, list | tuple)
        is_pair = is_list and [type(one) in (int, float) for one in value] == [True, True]
        fits = "any" in names or type(value).__name__ in names or (is_pair and "pair" in names)
        return None if fits else place
    inner = (misfit(one, own, f"{place}{key}".lstrip(".")) for key, one, own in entries)
    return next((found for found in inner if found is not None), None)
