"""From overrides to a checked config, composed by Hydra. Without torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError
from ..paths import CONFIGS
from .hydra_errors import explain, first_line
from .schema import Config, from_dict


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
            "sweep": {
                "dir": "runs/${name}/.sweeps/${now:%Y-%m-%d_%H-%M-%S}",
                "subdir": ".",
            },
            "output_subdir": None,
            "job": {"chdir": False},
            "callbacks": {"check": {"_target_": f"{__package__}.sweep.CheckEveryJob"}},
        }
    )


def compose(*overrides: str) -> Config:
    """The checked config of `python train.py OVERRIDES`, for tests and notebooks.

    Raises `UserError`.
    """
    return to_config(composed(overrides))


def composed_alone(arguments: list[str]) -> Any:
    """The DictConfig of a single run; None where Hydra has more to do than to compose it.

    Hydra would compose it twice, which takes as long as importing it. Raises `UserError`.
    """
    if any(argument.startswith("-") or "hydra" in argument for argument in arguments):
        return None
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    config = composed(arguments, with_hydra=True)
    if config.hydra.mode is not None:
        return None
    HydraConfig.instance().set_config(config)  # for interpolations
    with open_dict(config):
        del config["hydra"]
    return config


def composed(overrides: Iterable[str], with_hydra: bool = False) -> Any:
    """The DictConfig that Hydra makes of `overrides`, not yet checked; `with_hydra` with Hydra's own
    settings. Raises `UserError`."""
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    ConfigStore.instance().store(name="schema", node=Schema)
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        overrides = list(overrides)
        try:
            return hydra.compose("train", overrides, return_hydra_config=with_hydra)
        except Exception as error:
            raise UserError(explain(error, overrides)) from error


def to_config(composed: Any) -> Config:
    """The checked plain `Config` of a composed DictConfig. Raises `UserError`."""
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise UserError(f"{key} has no value yet: give it one as {key}=VALUE.") from None
    except OmegaConfBaseException as error:
        raise UserError(first_line(error)) from None
    assert isinstance(values, dict)
    for key in ("hydra", "defaults"):
        values.pop(key, None)
    plain = {str(key): value for key, value in values.items()}
    missing = [key for key in Config.__dataclass_fields__ if key not in plain]
    if missing:
        raise UserError(f"The config key '{missing[0]}' cannot be removed; give it a value.")
    return from_dict(plain)
