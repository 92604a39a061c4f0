"""The free memory of this machine."""

from pathlib import Path


def free_bytes() -> int | None:
    """Return how many bytes this machine and container can still give, or None if unknown."""
    free: list[int] = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(1024 * int(line.split()[1]))
        group = Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text().strip()
        if most != "max":
            used = int((group / "memory.current").read_text())
            rows = (line.split() for line in (group / "memory.stat").read_text().splitlines())
            cached = next((int(row[1]) for row in rows if row[0] == "inactive_file"), 0)
            free.append(int(most) - used + cached)  # cached files make room
    except (OSError, ValueError):  # not Linux, or another kind of container
        return min(free, default=None)
    return min(free, default=None)
