"""Build objects from config sections: `_target_` names a class or function, the other keys are its
arguments."""

import contextlib
import importlib.util
import inspect
import traceback
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, jit, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from ..api import Data, Logger, Task
from ..config.hints import hint, of_torch
from ..config.schema import OWN_KEYS, Config
from ..errors import Exit, UserError, nearest, of_device, one_line
from ..folds import check_folds
from ..machine.torch_internals import short_class
from ..paths import ROOT
from ..run.source import git
from ..schedule import Schedule

PACKAGE = __name__.split(".")[0]

Kind = type | tuple[type, ...]

# What a `_target_` inside a section may be, besides transforms. A metric of torchmetrics is a Module.
_BUILDABLE = (nn.Module, Optimizer, LRScheduler, Dataset, Data, Task, Schedule, Logger)


def build(
    section: Any, key: str, kind: Kind, allowed: Sequence[str], offered: Any = None, /, **given: Any
) -> Any:
    """Return the object that `section` describes, a `kind`. Raises `UserError`.

    key: the section's place in the config, for messages. allowed: packages besides this one and torch.
    Arguments come from the section. A parameter that the section leaves out comes from the mapping
    `offered`, by its name. All of `given` are passed.
    """
    target, arguments = bind(section, key, kind, allowed, offered, **given)
    wanted = argument_types(target)
    with refusals_of(section["_target_"], key):
        for name in [name for name in section if name in arguments]:
            value = _nested(section[name], f"{key}.{name}", allowed)
            arguments[name] = _as_wanted(value, wanted.get(name))
        made = short_class(target)(**arguments)
    if kind is nn.Module and isinstance(made, jit.ScriptModule):  # it takes no hooks
        raise UserError(
            f"{section['_target_']} returns a program of TorchScript. Return the module before "
            "torch.jit.script or trace, and set compile=true."
        )
    if not isinstance(made, kind):
        what = f"{key}._target_={section['_target_']} returned an object of {type(made).__name__}"
        raise UserError(f"{what}. It must return {_spelled(kind)}.")
    return made


@contextlib.contextmanager
def refusals_of(name: str, key: str) -> Iterator[None]:
    """Turn errors of the target `name` about the values of the section `key` into `UserError`."""
    try:
        yield
    except Exception as error:  # a traceback shows where your file is wrong
        if isinstance(error, Exit | ImportError | NameError) or of_device(error):
            raise
        why = describe_error(error)
        raise UserError(f"{name} refuses the values of the section '{key}'. {why}") from error


def bind(
    section: Any, key: str, kind: Kind, allowed: Sequence[str], offered: Any = None, /, **given: Any
) -> tuple[Any, dict[str, Any]]:
    """Return a section's target and arguments, as `build` finds them. Calls nothing."""
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
    parameters, wanted = inspect.signature(target).parameters, argument_types(target)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if key == "data":
        check_folds(section, parameters, takes_any)
    skipped = {"_target_", *own_keys(target, key)}
    arguments = {k: v for k, v in section.items() if k not in skipped}
    for argument, value in arguments.items():
        if argument in given:
            raise UserError(f"{key}.{argument} cannot be set. Set {argument} at the top level.")
        if argument not in parameters and not takes_any:
            known = [*parameters, *OWN_KEYS.get(key, ())]
            meant = hint(f"{key}.{argument}", known, name) or f" {name} does not take it."
            raise UserError(f"Unknown config key '{key}.{argument}'.{meant}")
        if not has_type(value, wanted.get(argument)):
            expected = f"{name} expects {inspect.formatannotation(wanted[argument])}."
            raise UserError(f"{key}.{argument}={value!r} has the wrong type. {expected}")
    arguments |= given
    for argument, p in parameters.items():
        if argument in arguments or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        if offered is not None and argument in offered:
            arguments[argument] = offered[argument]
        elif p.default is p.empty:
            facts = ", ".join(sorted(offered or {}))
            info = f", or add it to the data's `info`, which has {facts}" if facts else ""
            raise UserError(f"{name} needs '{argument}'. Set {key}.{argument}{info}.")
    return target, arguments


def check_sections(config: Config) -> None:
    """Refuse unknown keys and values of a wrong type. Build nothing. Raises `UserError`."""
    kinds: dict[str, Any] = {"task": Task, "data": Data, "model": nn.Module, "loss": nn.Module}
    kinds |= {"mix": nn.Module, "optimizer": Optimizer, "scheduler": (Schedule, LRScheduler)}
    allowed = config.allowed_packages
    for group, kind in kinds.items():
        if section := getattr(config, group):
            target = locate(section["_target_"], f"{group}._target_", allowed)
            # Before the data are built, nobody knows their facts.
            bind(section, group, kind, allowed, dict.fromkeys(inspect.signature(target).parameters))


def own_keys(target: Any, key: str) -> set[str]:
    """Return the keys of a section that the engine reads and the target does not take."""
    own = set(OWN_KEYS.get(key, ())) - {"folds", "fold"}  # the data make them
    return own - inspect.signature(target).parameters.keys()


def describe_error(error: BaseException) -> str:
    """Return an exception's type and text, the line of your file that raised it, and its notes."""
    text, where = one_line(error)[:240].rstrip("."), ""
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT / PACKAGE) and "/engine/" not in frame.filename:
            where = f" ({path.relative_to(ROOT)}, line {frame.lineno})"
    notes = " ".join(getattr(error, "__notes__", ())).split()
    return " ".join([f"{type(error).__name__}: {text}{where}.", *notes])


def locate(name: Any, key: str, allowed: Sequence[str] = ()) -> Any:
    """Return the class or function called `name`. ".models.cnn.CNN" is relative to this package.

    It must be *defined* in an allowed package: torch does not define `torch.os.system`. No function
    of torch may be named: some run code that their arguments hold, and none is made for configs.
    """
    what, full = f"{key}={name}", f"{PACKAGE if str(name).startswith('.') else ''}{name}"
    packages = (PACKAGE, "torch", "torchvision", *allowed)
    root = full.split(".")[0]
    module, _, attribute = full.rpartition(".")
    if root not in packages or not module or "__main__" in full.split("."):
        raise UserError(
            f"{what} is not in one of the packages {', '.join(packages)}. Add its package to "
            f'allowed_packages if you trust it: "allowed_packages=[{",".join((*allowed, root))}]".'
        )
    _refuse_code_among_data(root, what)
    try:
        place = importlib.import_module(module)
        found = getattr(place, attribute, None)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if missing != root and f"{module}.".startswith(f"{missing}."):
            raise UserError(f"{what} does not exist: there is no '{missing}'.") from None
        what += f" needs the package '{missing}'. Install it: uv add {missing}"
        raise UserError(what) from None
    except Exception as error:
        if root == PACKAGE:  # a traceback shows where your file is wrong
            raise
        raise UserError(f"{what} cannot be imported. {describe_error(error)}") from None
    home = str(getattr(found, "__module__", "")).split(".")[0]
    kinds = type if "torch" in (root, home) else type | types.FunctionType
    if home not in packages or not isinstance(found, kinds):
        fits = {n: v.__module__ for n, v in vars(place).items() if isinstance(v, kinds)}
        lead = nearest(attribute, [n for n, home in fits.items() if f"{home}".startswith(root)])
        lead = lead or of_torch(key.removesuffix("._target_"), attribute)
        is_folder = root == PACKAGE and hasattr(place, "__path__")
        if found is None and is_folder and importlib.util.find_spec(full) is not None:
            raise UserError(f"{what} is a file. Name a class in it: {name}.CLASS.")
        if found is None:
            raise UserError(f"{what} does not exist.{lead}")
        raise UserError(f"{what} is not a part of {root} that a config may name.{lead}")
    return found


def _refuse_code_among_data(root: str, what: str) -> None:
    """Refuse a package that lies in the project but is no part of it: in runs/, data/, ignored."""
    spec = None if root == PACKAGE else importlib.util.find_spec(root)
    places = (spec.submodule_search_locations or [spec.origin or ""]) if spec else []
    for place in map(Path, places):
        if place.parent == ROOT:
            is_ignored = git("check-ignore", "--quiet", str(place)) is not None
            if is_ignored or place.name in ("runs", "data"):
                raise UserError(f"{what} lies in {place.name}. Copy it into the package to use it.")


def _makes(target: Any, kind: Kind) -> bool:
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


def _spelled(kind: Kind) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return f"a {' or '.join(one.__name__ for one in kinds)}"


def _nested(value: Any, key: str, allowed: Sequence[str]) -> Any:
    """Return a value of a section with the objects that the sections inside it describe."""
    if isinstance(value, list):
        return [_nested(v, f"{key}[{i}]", allowed) for i, v in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if "_target_" not in value:
        return {k: _nested(v, f"{key}.{k}", allowed) for k, v in value.items()}
    target = locate(value["_target_"], f"{key}._target_", allowed)
    is_known = target.__module__.startswith("torchvision.transforms")
    is_transform = is_known or (_is_yours(target) and "__call__" in dir(target))
    kind = object if is_transform and isinstance(target, type) else _BUILDABLE
    return build(value, key, kind, allowed)


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
    origin, inner = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return any(has_type(value, option) for option in inner)
    if expected in (bool, int, float, str, type(None)):
        return type(value) is expected or (expected is float and type(value) is int)
    if expected is Tensor:
        parts = value if isinstance(value, list) else ()
        return not isinstance(value, str | bool) and all(has_type(part, Tensor) for part in parts)
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list | tuple):
            return False
        if origin is not tuple or Ellipsis in inner:
            inner = (*inner, Any)[:1] * len(value)
        return len(value) == len(inner) and all(map(has_type, value, inner))
    is_plain = isinstance(value, str | int | float | list)
    is_class = isinstance(expected, type) and expected is not Any
    return not is_plain or not is_class or isinstance(value, expected)
