"""Build objects from config sections: `_target_` names a class or function, the other keys are its
arguments."""

import importlib.util
import inspect
import shutil
import subprocess
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from ..api import Data, Logger, Task
from ..config.hints import hint
from ..config.schema import OWN_KEYS
from ..errors import Exit, UserError, nearest, one_line
from ..paths import ROOT
from ..schedule import Schedule

PACKAGE = __name__.split(".")[0]

# What a `_target_` inside a section may be, besides transforms. A metric of torchmetrics is a Module.
_BUILDABLE = (nn.Module, Optimizer, LRScheduler, Dataset, Data, Task, Schedule, Logger)


def build(
    section: Mapping[str, Any],
    key: str,
    kind: type | tuple[type, ...],
    allowed: Sequence[str] = (),
    offered: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
    instead: Callable[[Any], Any] = lambda target: target,
) -> Any:
    """Return the object that `section` describes. Raises `UserError`.

    `key`: the section's place in the config, for messages. `locate` and `_makes` say which targets
    may be called. The returned object is a `kind`. Arguments come from the section. A parameter that
    the section leaves out comes from `offered`, by its name. All of `given` are passed.
    `instead(target)` is called in place of the target.
    """
    target, filled = bind(section, key, kind, allowed, offered, given)
    skipped = {"_target_", *own_keys(target, key)}
    arguments = {k: v for k, v in section.items() if k not in skipped}
    arguments = {k: _nested(v, f"{key}.{k}", allowed) for k, v in arguments.items()}
    wanted = argument_types(target)
    try:
        for name, value in arguments.items():
            arguments[name] = _as_wanted(value, wanted.get(name))
        made = instead(target)(**arguments, **filled, **(given or {}))
    except (Exit, ImportError, NameError):  # a traceback shows where your file is wrong
        raise
    except Exception as error:
        raise UserError(
            f"{section['_target_']} refuses the values of the config's section '{key}'. {describe_error(error)}"
        ) from error
    if not isinstance(made, kind):
        what = f"{key}._target_={section['_target_']} returned an object of {type(made).__name__}"
        raise UserError(f"{what}. It must return {_spelled(kind)}.")
    return made


def bind(
    section: Any,
    key: str,
    kind: type | tuple[type, ...],
    allowed: Sequence[str] = (),
    offered: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Return a section's target and its arguments from `offered`. Calls nothing. Raises `UserError`."""
    if not isinstance(section, Mapping) or "_target_" not in section:
        raise UserError(f"{key} must be a section with a `_target_`: the name of a class.")
    name = section["_target_"]
    target = locate(name, f"{key}._target_", allowed)
    if not _makes(target, kind):
        what, made = f"{key}._target_={name}", _spelled(kind)
        if isinstance(target, type):
            raise UserError(f"{what} is not {made}. Name a subclass of it.")
        raise UserError(
            f"{what} does not say that it returns {made}. Call it in a function of this project, "
            "and name that function."
        )
    parameters = inspect.signature(target).parameters
    wanted = argument_types(target)
    own = {"_target_", *own_keys(target, key)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for argument, value in section.items():
        if argument in own:
            continue
        if argument in (given or {}):
            raise UserError(f"{key}.{argument} cannot be set. Set {argument} at the top level.")
        if argument not in parameters and not takes_any:
            known = [*parameters, *OWN_KEYS.get(key, ())]
            meant = hint(f"{key}.{argument}", known, name) or f" {name} does not take it."
            raise UserError(f"Unknown config key '{key}.{argument}'.{meant}")
        if not has_type(value, wanted.get(argument)):
            raise UserError(
                f"{key}.{argument}={value!r} has the wrong type. {name} expects "
                f"{inspect.formatannotation(wanted[argument])}."
            )
    filled: dict[str, Any] = {}
    for argument, p in parameters.items():
        if argument in section or argument in (given or {}):
            continue
        if offered is not None and argument in offered:
            filled[argument] = offered[argument]
        elif p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            facts = ", ".join(sorted(offered or {}))
            info = f", or add it to the data's `info`, which has {facts}" if facts else ""
            raise UserError(f"{name} needs '{argument}'. Set {key}.{argument}{info}.")
    return target, filled


def own_keys(target: Any, key: str) -> set[str]:
    """Return the keys of a section that the engine reads and the target does not take."""
    return set(OWN_KEYS.get(key, ())) - inspect.signature(target).parameters.keys()


def describe_error(error: BaseException) -> str:
    """Return an exception's type and text, the line of your file that raised it, and its notes."""
    text, where = one_line(error)[:240].rstrip("."), ""
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT / PACKAGE) and "/engine/" not in frame.filename:
            where = f" ({path.relative_to(ROOT)}, line {frame.lineno})"
    notes = " ".join(getattr(error, "__notes__", ())).split()
    return " ".join([f"{type(error).__name__}: {text}{where}.", *notes])


def locate(name: str, key: str, allowed: Sequence[str] = ()) -> Any:
    """Return the class or function called `name`. ".models.cnn.CNN" is relative to this package.

    It must be *defined* in an allowed package: torch does not define `torch.os.system`. No function
    of torch may be named: some run code that their arguments hold, and none is made for configs.
    """
    if not isinstance(name, str):
        raise UserError(f"{key}={name!r} must be the name of a class, such as .models.cnn.CNN.")
    full = PACKAGE + name if name.startswith(".") else name
    packages = (PACKAGE, "torch", "torchvision", *allowed)
    root = full.split(".")[0]
    module, _, attribute = full.rpartition(".")
    if root not in packages or not module or "__main__" in full.split("."):
        raise UserError(
            f"{key}={name} is not in one of the packages {', '.join(packages)}. Add its package to "
            "allowed_packages if you trust it."
        )
    _refuse_code_among_data(root, f"{key}={name}")
    try:
        place = importlib.import_module(module)
        found = getattr(place, attribute, None)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if f"{module}.".startswith(f"{missing}."):
            raise UserError(f"{key}={name} does not exist: there is no '{missing}'.") from None
        what = f"{key}={name} needs the package '{missing}'"
        raise UserError(f"{what}. Install it: uv add {missing}") from None
    except Exception as error:
        if root == PACKAGE:  # a traceback shows where your file is wrong
            raise
        raise UserError(f"{key}={name} cannot be imported. {describe_error(error)}") from None
    if found is None:
        raise UserError(f"{key}={name} does not exist.{nearest(attribute, vars(place))}")
    home = str(getattr(found, "__module__", "")).split(".")[0]
    kinds = type if home == "torch" else type | types.FunctionType
    if home not in packages or not isinstance(found, kinds):
        what = "class" if root == "torch" else "class or function"
        raise UserError(f"{key}={name} is not a {what} of {root}.")
    return found


def _refuse_code_among_data(root: str, what: str) -> None:
    """Refuse a package that lies in the project but is no part of it: in runs/, data/, ignored."""
    spec = None if root == PACKAGE else importlib.util.find_spec(root)
    if spec is None:
        return
    for place in map(Path, spec.submodule_search_locations or [spec.origin or ""]):
        if place.parent == ROOT and (place.name in ("runs", "data") or _is_ignored(place)):
            raise UserError(
                f"{what} lies in {place.name}, which is no part of the project's code. Nothing there is "
                "imported. Copy the code into the package if you trust it."
            )


def _is_ignored(path: Path) -> bool:
    command = ["git", "-C", str(ROOT), "check-ignore", "--quiet", str(path)]
    return (
        bool(shutil.which("git")) and subprocess.run(command, capture_output=True).returncode == 0
    )


def _makes(target: Any, kind: type | tuple[type, ...]) -> bool:
    """Return whether `target` may be called to get a `kind`.

    A class must be a subclass. A function may do anything before the returned object can be looked
    at, so its annotation must promise a `kind`. Only your own functions may go without one.
    """
    if not isinstance(target, type):
        if inspect.signature(target).return_annotation is inspect.Signature.empty:
            return _is_yours(target)
        target = argument_types(target).get("return")
    return isinstance(target, type) and issubclass(target, kind)


def _is_yours(target: Any) -> bool:
    """Whether a class or function is defined in this project, outside the engine."""
    place = f"{target.__module__}."
    return place.startswith(f"{PACKAGE}.") and not place.startswith(f"{PACKAGE}.engine.")


def _is_transform(target: Any) -> bool:
    """Whether a target is a class of torchvision's transforms, or one of yours with `__call__`."""
    known = target.__module__.startswith("torchvision.transforms")
    return isinstance(target, type) and (known or (_is_yours(target) and "__call__" in dir(target)))


def _spelled(kind: type | tuple[type, ...]) -> str:
    return f"a {kind.__name__}" if isinstance(kind, type) else "a Module or another part of a run"


def _nested(value: Any, key: str, allowed: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        if "_target_" not in value:
            return {k: _nested(v, f"{key}.{k}", allowed) for k, v in value.items()}
        target = locate(value["_target_"], f"{key}._target_", allowed)
        kind = object if _is_transform(target) else _BUILDABLE
        if not _makes(target, kind):
            raise UserError(
                f"{key}._target_={value['_target_']} cannot be built inside a section. It must be a "
                "part of a run, such as a Module, or a class of yours with a method `__call__`."
            )
        return build(value, key, kind, allowed)
    if isinstance(value, list):
        return [_nested(v, f"{key}[{i}]", allowed) for i, v in enumerate(value)]
    return value


def argument_types(target: Any) -> dict[str, Any]:
    """Return the annotated types of the arguments of a class or function, by name."""
    function = inspect.getattr_static(target, "__init__") if isinstance(target, type) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, KeyError):  # an annotation that cannot be evaluated
        return {}


def _as_wanted(value: Any, expected: Any) -> Any:
    """Return a config value as an argument annotated as `expected` takes it."""
    options = typing.get_args(expected) or (expected,)
    if expected is float:  # MixUp refuses 1 where it expects 1.0
        return float(value)
    if Tensor in options and not any(has_type(value, x) for x in options if x is not Tensor):
        return torch.tensor(value, dtype=torch.float32)
    return value


def has_type(value: Any, expected: Any) -> bool:
    """Return whether a plain config value may be passed to an argument annotated as `expected`."""
    if expected is Any:
        return True
    origin, inner = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return any(has_type(value, option) for option in inner)
    if expected in (bool, int, float, str, type(None)):
        return type(value) is expected or (expected is float and type(value) is int)
    if expected is Tensor and isinstance(value, list):
        return all(has_type(v, Tensor) for v in value)
    if expected is Tensor:
        return not isinstance(value, str | bool)
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list | tuple):
            return False
        if origin is tuple and Ellipsis not in inner:
            return len(value) == len(inner) and all(map(has_type, value, inner))
        return all(has_type(v, (inner or (Any,))[0]) for v in value)
    is_plain = isinstance(value, str | int | float | list)
    return not is_plain or not isinstance(expected, type) or isinstance(value, expected)
