"""A CUDA runtime for machines without a GPU. It is compiled from gpu/stand_in.cpp where torch is built for CUDA.

Commands that preload it see GPUs. torch's own code for CUDA runs: memory, copies, streams, events, checks
of determinism. Kernels do nothing, so tests compare no numbers.
"""

import shutil
import subprocess
from pathlib import Path

import torch

SOURCE = Path(__file__).parents[1] / "gpu" / "stand_in.cpp"
PACKAGES = Path(torch.__file__).parents[1]
LIBRARY = "libcuda.so.1"
"""Its second name: torch also loads the driver."""
PREPARE = "import torch; torch.backends.cudnn.enabled = False; torch.backends.cuda.enable_cudnn_sdp(False)"
"""cuDNN asks the driver itself, so convolutions and attention must do without it."""
ZEROS = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
"""Variables with which all memory is new, so that all results are zeros. Otherwise they are what was there before."""


def headers() -> list[Path]:
    """The folders of CUDA's headers, which come with torch. Empty if they are not there."""
    wanted = (("nvidia/cu*/include", "driver_types.h"), ("triton/backends/nvidia/include", "crt/host_defines.h"))
    found = [next((f for f in sorted(PACKAGES.glob(place)) if (f / name).exists()), None) for place, name in wanted]
    return [folder for folder in found if folder] if all(found) else []


def missing() -> str:
    """Why the runtime cannot be built here, or ""."""
    if torch.version.cuda is None:
        return "this build of torch is for the CPU alone"
    if shutil.which("g++") is None:
        return "there is no g++ to build the stand-in for a GPU"
    return "" if headers() else "CUDA's headers did not come with torch"


def build(folder: Path) -> None:
    """Compile the runtime as `LIBRARY` of this new folder. A process that preloads it sees GPUs."""
    folder.mkdir()
    major, minor = map(int, str(torch.version.cuda).split(".")[:2])
    subprocess.run(
        [
            *("g++", "-std=c++17", "-O1", "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}"),
            *(f"-DSTAND_IN_VERSION={1000 * major + 10 * minor}", *(f"-I{path}" for path in headers())),
            *(str(SOURCE), "-o", str(folder / LIBRARY)),
        ],
        check=True,
    )
