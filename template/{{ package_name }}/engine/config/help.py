"""`python train.py --help`: every choice, every key with its value and its meaning."""

from pathlib import Path
from typing import Any

from ..paths import CONFIGS
from ..text import typed
from .schema import GROUPS, RULES
from .stored import flat


def words() -> dict[str, Any]:
    """Return the usage as text, and the meaning of each key below its heading."""
    import yaml

    return yaml.safe_load(Path(__file__).with_name("help.yaml").read_text(encoding="utf-8"))


def text(composed: Any) -> str:
    """Return the help of a composed DictConfig."""
    from omegaconf import OmegaConf

    values = flat(OmegaConf.to_container(composed, resolve=False))  # type: ignore[arg-type]
    choices = []
    for folder in sorted(path for path in CONFIGS.iterdir() if path.is_dir()):
        files = sorted(path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml"))
        choices.append(f"{folder.name}: {', '.join(file.as_posix() for file in files)}")
    said, lines = words(), []
    for heading, keys in said["meanings"].items():
        lines.append(f"\n{heading}")
        for key, meaning in keys.items():
            inner = [k for k in values if k.startswith(f"{key}.") and key in (*GROUPS, "vars")]
            lines += [f"  {k}={typed(values[k])}" for k in inner]
            if not inner:
                limits = f" ({RULES[key].limits()})" if RULES[key].limits() else ""
                lines.append(f"  {f'{key}={typed(values.get(key))}':<32}  {meaning}{limits}")
    return said["usage"].format(choices="\n".join(choices), keys="\n".join(lines))
