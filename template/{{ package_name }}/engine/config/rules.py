"""The rule of a config key: its meaning and the values it takes, beside its default."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError


@dataclass(frozen=True)
class Rule:
    """What a config key means and which values it takes: for the check, `--help` and the docs."""

    meaning: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    one_of: tuple[str, ...] = ()
    fits: Callable[[Any], bool] | None = None  # returns True for a value that can work
    must_be: str = ""  # the allowed values in words, where the fields above do not tell them
    may_change: bool = False  # in a resumed run, because the result does not depend on it
    may_grow: bool = False  # in a resumed run, to train for longer
    heading: str = ""  # the title above this key and the keys after it

    def allows(self, value: Any) -> bool:
        """Return True if the value can work. The type is checked before, by OmegaConf."""
        if self.fits is not None:
            return self.fits(value)
        return (
            (not self.one_of or value in self.one_of)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
            and (not isinstance(value, float) or math.isfinite(value))
        )

    def limits(self) -> str:
        """Return the allowed values in words, such as "at least 1"; "" if all of the type are."""
        if self.one_of:
            return f"one of {', '.join(self.one_of)}"
        words = ("at least", "above", "at most", "below")
        bounds = zip(words, (self.at_least, self.above, self.at_most, self.below), strict=True)
        in_words = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
        return self.must_be or in_words


def check_value(name: str, value: Any, rule: Rule) -> None:
    """Refuse a value that its rule does not allow. None is always allowed. Raises `UserError`."""
    if value is not None and not rule.allows(value):
        raise UserError(f"{name}={value} is not possible. It must be {rule.limits()}.")


def key(default: Any, meaning: str, **rule: Any) -> Any:
    """Return a config field; `default` is a value, or a class that makes one for each config."""
    metadata = {"rule": Rule(meaning, **rule)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def is_run_name(name: str) -> bool:
    """Return True if `name` can be a folder below runs/."""
    return (
        not set(name) & set('\\:*?"<>|\0\n')
        and ".." not in name
        and not name.startswith("~")
        and len(os.fsencode(name)) <= 200
        and all(part and part == part.strip() and part[0] != "." for part in name.split("/"))
    )
