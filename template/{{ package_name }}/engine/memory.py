"""How much memory there is."""

from __future__ import annotations

from pathlib import Path


def free_bytes() -> int | None:
    """What this machine and container can still give; None where Linux does not say."""
    free: list[int] = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(1024 * int(line.split()[1]))
        group = Path("/sys/fs/cgroup")
        most, used = (
            (group / "memory.max").read_text().strip(),
            (group / "memory.current").read_text(),
        )
        if most != "max":
            free.append(int(most) - int(used))
    except (OSError, ValueError):  # another system, or another kind of container
        return min(free, default=None)
    return min(free, default=None)
