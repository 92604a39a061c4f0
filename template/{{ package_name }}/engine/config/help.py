"""`python train.py --help`: every choice, every key with its value and its meaning."""

from pathlib import Path
from typing import Any

from ..paths import CONFIGS
from ..text import typed
from .schema import GROUPS, RULES
from .stored import flat


def text(composed: Any) -> str:
    """Return the help of a composed DictConfig."""
    from omegaconf import OmegaConf

    values = flat(OmegaConf.to_container(composed, resolve=False))  # type: ignore[arg-type]
    choices = []
    for folder in sorted(path for path in CONFIGS.iterdir() if path.is_dir()):
        files = sorted(path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml"))
        choices.append(f"{folder.name}: {', '.join(file.as_posix() for file in files)}")
    lines = []
    for key, rule in RULES.items():
        lines += [f"\n{rule.heading}"] if rule.heading else []
        inner = [k for k in values if k.startswith(f"{key}.") and key in (*GROUPS, "vars")]
        lines += [f"  {k}={typed(values[k])}" for k in inner]
        if not inner:
            limits = f" ({rule.limits()})" if rule.limits() else ""
            lines.append(f"  {f'{key}={typed(values.get(key))}':<32}  {rule.meaning}{limits}")
    usage = Path(__file__).with_name("usage.txt").read_text(encoding="utf-8")
    return usage.format(choices="\n".join(choices), keys="\n".join(lines))
