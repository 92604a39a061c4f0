"""From overrides to a checked config, composed by Hydra. Without torch."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError
from ..paths import CONFIGS
from .check import from_dict
from .hydra_errors import explain, first_line
from .hydra_internals import make_current
from .retired import accept_retired
from .schema import SECTIONS, Config


@dataclass
class Schema(Config):
    """`Config` plus Hydra's own settings; `defaults: [schema]` in train.yaml brings it in."""

    defaults: list[Any] = field(
        default_factory=lambda: [
            "_self_",
            {"sweep": None},  # here, so that projects with an older train.yaml have it too
            {"override hydra/job_logging": "none"},
            {"override hydra/hydra_logging": "none"},
        ]
    )
    hydra: Any = field(
        default_factory=lambda: {
            "run": {"dir": "."},
            "sweep": {"dir": "runs/${name}/.sweeps/${now:%Y-%m-%d_%H-%M-%S}", "subdir": "."},
            "output_subdir": None,
            "callbacks": {"check": {"_target_": f"{__package__}.sweep.CheckEveryJob"}},
        }
    )


def compose(*overrides: str) -> Config:
    """Return the checked config of `python train.py OVERRIDES`. Raises `UserError`."""
    return to_config(composed(overrides))


def composed(overrides: Iterable[str], with_hydra: bool = False) -> Any:
    """Return the DictConfig of `overrides`, not yet checked. Raises `UserError`.

    with_hydra: with Hydra's own settings.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    register()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        overrides = accept_retired(list(overrides))
        try:
            return hydra.compose("train", overrides, return_hydra_config=with_hydra)
        except Exception as error:
            raise UserError(explain(error, overrides)) from error


def single_run(arguments: list[str]) -> Any:
    """Return the DictConfig of a single run, or None if Hydra's own main has to compose it.

    Hydra's main does sweeps and flags. Raises `UserError`.
    """
    if any(argument.startswith("-") or "hydra" in argument for argument in arguments):
        return None
    config = composed(arguments, with_hydra=True)
    if config.hydra.mode is not None or not make_current(config):
        return None
    from omegaconf import open_dict

    with open_dict(config):
        del config["hydra"]
    return config


def register() -> None:
    """Make the schema, and the resolver that configs/sweep/ uses, known to Hydra."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    node = OmegaConf.structured(Schema)
    for part in (node, *(node[name] for name in SECTIONS)):
        OmegaConf.set_struct(part, False)  # config files may hold retired keys: from_dict decides
    ConfigStore.instance().store(name="schema", node=node)
    directions = {"max": "maximize", "min": "minimize"}
    OmegaConf.register_new_resolver("direction", directions.get, replace=True)


def to_config(composed: Any) -> Config:
    """Return the checked plain `Config` of a composed DictConfig. Raises `UserError`."""
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(
            f"{error.full_key} has no value yet. Write {error.full_key}=VALUE."
        ) from None
    except OmegaConfBaseException as error:
        raise UserError(first_line(error)) from None
    for key in Config.__dataclass_fields__:
        if key not in values:
            raise UserError(f"The config key '{key}' cannot be removed. Give it a value.")
    return from_dict({k: v for k, v in values.items() if k not in ("hydra", "defaults")})
