"""Follow a folder that the owner moved as a whole, such as a package that lies in src/ now."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path


def moved_folders(rendered: Collection[str], present: Collection[str], package: str) -> dict[str, str]:
    """Return the new place of each folder that has no file left, and a quarter of whose files lie in another place."""
    found: dict[str, str] = {}
    for folder in (package, f"{package}/engine", "configs", "tests/engine"):
        start = f"{folder}/"
        names = {path.removeprefix(start) for path in rendered if path.startswith(start)}
        if not any(path.startswith(start) for path in present):
            parts = (path.split("/") for path in present)
            cuts = (("/".join(p[:n]), "/".join(p[n:])) for p in parts for n in range(1, len(p)))
            counts = Counter(place for place, name in cuts if name in names)
            found.update((folder, place) for place, count in counts.most_common(1) if 4 * count >= len(names))
    return found


def placed(path: str, moved: Mapping[str, str]) -> str:
    """Return where a rendered file belongs in the project."""
    for folder in sorted(moved, key=len, reverse=True):
        if path.startswith(f"{folder}/"):
            return moved[folder] + path.removeprefix(folder)
    return path


def folder_of(name: str, paths: Iterable[str]) -> Path:
    """Return the shallowest folder that holds a file of this name, such as `digits/__init__.py`."""
    found = [path.removesuffix(name) for path in paths if f"/{path}".endswith(f"/{name}")]
    return Path(min(found, key=lambda path: path.count("/"), default=""))
