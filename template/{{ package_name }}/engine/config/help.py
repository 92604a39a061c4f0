"""`python train.py --help`: every choice, every key with its value and its meaning."""

from typing import Any

from ..paths import CONFIGS
from ..text import typed
from .schema import GROUPS, RULES
from .stored import flat

_USE = """Train a model. Override any config key as KEY=VALUE:

  python train.py lr=0.001 epochs=5
  python train.py optimizer=sgd scheduler=step
  python train.py -m lr=0.1,0.01            one run for each value
  python train.py sweep=optuna              search for good values
  python train.py dry_run=true              everything up to the end of the first step
  python train.py resume=auto               go on where the last run stopped
  python train.py -q                        only warnings and errors
  python train.py -v                        debug messages and tracebacks, too
  python train.py --cfg job                 only the config, as YAML
  python train.py --hydra-help              the flags of Hydra, which composes the config

Choices, one file each in configs/:

{choices}

Keys with their values here:
{keys}
"""


def text(composed: Any) -> str:
    """Return the help of a composed DictConfig."""
    from omegaconf import OmegaConf

    tree: Any = OmegaConf.to_container(composed, resolve=False)
    values = flat(tree)
    choices = []
    for folder in sorted(path for path in CONFIGS.iterdir() if path.is_dir()):
        files = sorted(path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml"))
        choices.append(f"{folder.name}: {', '.join(file.as_posix() for file in files)}")
    lines = []
    for key, rule in RULES.items():
        lines += [f"\n{rule.heading}"] if rule.heading else []
        inner = [k for k in values if k.startswith(f"{key}.")] if key in (*GROUPS, "vars") else []
        lines += [f"  {k}={typed(values[k])}" for k in inner]
        if not inner:
            limits = f" ({rule.limits()})" if rule.limits() else ""
            lines.append(f"  {f'{key}={typed(values.get(key))}':<32}  {rule.meaning}{limits}")
    return _USE.format(choices="\n".join(choices), keys="\n".join(lines))
