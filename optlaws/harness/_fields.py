"""Reading frozen dataclasses from mappings: every field with its own check, every error in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, TypeVar

from optlaws.errors import InputError, nearest
from optlaws.runs import parse_quantity

Section = TypeVar("Section")


@dataclass(frozen=True)
class Check:
    """A check of one setting: called with its name and value it returns the value to keep, or raises.

    Attributes
    ----------
    rule
        What the value must be, in words.
    read
        The check itself.
    """

    rule: str
    read: Callable[[str, Any], Any]

    def __call__(self, name: str, value: Any) -> Any:
        """Return the value to keep; an `InputError` for any other than `rule` says."""
        return self.read(name, value)


def _or_null(rule: str, optional: bool) -> str:
    return f"{rule}, or null" if optional else rule


def whole(low: int = 0, high: int | None = None, optional: bool = False) -> Check:
    """Return a check for a whole number from `low` to `high`; texts like 85M are read."""
    rule = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"

    def check(name: str, value: Any) -> int | None:
        if value is None and optional:
            return None
        number = _number(name, value, rule)
        finite = math.isfinite(number) and number == math.floor(number)
        if not finite or number < low or (high is not None and number > high):
            raise wrong(name, rule, value)
        return int(number)

    return Check(_or_null(rule, optional), check)


def real(low: float = 0.0, high: float = math.inf, optional: bool = False, above: bool = False) -> Check:
    """Return a check for a number from `low` (or above it) to `high`, `high` itself left out."""
    least = f"above {low:g}" if above else f"of at least {low:g}"
    rule = f"a finite number {least}" + ("" if math.isinf(high) else f" and below {high:g}")

    def check(name: str, value: Any) -> float | None:
        if value is None and optional:
            return None
        number = _number(name, value, rule)
        if not math.isfinite(number) or number < low or (above and number == low) or number >= high:
            raise wrong(name, rule, value)
        return number

    return Check(_or_null(rule, optional), check)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong(name, "true or false", value)
    return value


flag = Check("true or false", _flag)
"""Check that a value is true or false."""


def word(*choices: str, optional: bool = False) -> Check:
    """Return a check for one of some words."""

    rule = _or_null(f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0], optional)

    def check(name: str, value: Any) -> str | None:
        if value is None and optional:
            return None
        if value not in choices or not isinstance(value, str):
            hint = nearest(str(value), choices)
            raise wrong(name, rule, value, f"choose one of them{hint}")
        return str(value)

    return Check(rule, check)


def text(optional: bool = False) -> Check:
    """Return a check for a text that is not empty."""

    def check(name: str, value: Any) -> str | None:
        if value is None and optional:
            return None
        if not isinstance(value, str) or not value.strip():
            raise wrong(name, "a text that is not empty", value)
        return value

    return Check(_or_null("a text that is not empty", optional), check)


_WEIGHTS, _SETTINGS = "two or three numbers of at least 0 that add up to 1", "a mapping of setting to value"


def _weights(name: str, value: Any) -> tuple[float, ...]:
    rule = _WEIGHTS
    if not isinstance(value, list | tuple) or not 2 <= len(value) <= 3:
        raise wrong(name, rule, value)
    numbers = tuple(_number(name, entry, rule) for entry in value)
    if not (min(numbers) >= 0 and abs(sum(numbers) - 1) <= 1e-9):  # NaN is neither
        raise wrong(name, rule, value)
    return numbers


weights = Check(_WEIGHTS, _weights)
"""Check a list of two or three numbers of at least 0 that add up to 1."""


def _settings(name: str, value: Any) -> tuple[tuple[str, Any], ...]:
    pairs = dict(value) if isinstance(value, tuple) else value
    if not isinstance(pairs, Mapping) or not all(isinstance(key, str) for key in pairs):
        raise wrong(name, _SETTINGS, value)
    return tuple(sorted(pairs.items()))


settings = Check(_SETTINGS, _settings)
"""Check a mapping of further settings; kept as pairs in order of their names, so that it can be hashed."""


def setting(check: Check, default: Any, about: str, *, quiet: bool = False) -> Any:
    """Return a dataclass field with its check and one line about it; a `quiet` one is not written while it is None."""
    return field(default=default, metadata={"check": check, "about": about, "quiet": quiet})


def read_section(cls: type[Section], given: Any, where: str) -> Section:
    """Return a dataclass made of a mapping; `where` is what to call the mapping in messages.

    Raises
    ------
    InputError
        If it is no mapping, a key is unknown or missing, or a value is out of its range.
    """
    if not isinstance(given, Mapping):
        raise wrong(where, "a mapping of setting to value", given)
    known: dict[str, Field[Any]] = {f.name: f for f in fields(cls) if "check" in f.metadata}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise unknown(where, key, tuple(known))
        values[key] = known[key].metadata["check"](f"{where}.{key}", value)
    for name, entry in known.items():
        if name not in values and entry.default is MISSING:
            raise InputError(f"{where}.{name} must be given, got nothing; add it")
    return cls(**values)


def plain(section: Any) -> dict[str, Any]:
    """Return a section as JSON knows it, every field included but quiet ones that are not set."""
    out: dict[str, Any] = {}
    for entry in fields(section):
        value = getattr(section, entry.name)
        if value is None and entry.metadata.get("quiet"):
            continue
        if entry.metadata.get("check") is settings:
            value = dict(value)
        out[entry.name] = list(value) if isinstance(value, tuple) else value
    return out


def unknown(where: str, key: Any, known: tuple[str, ...]) -> InputError:
    """Return the error for a key that a section does not have."""
    hint = nearest(str(key), known)
    return InputError(f"{where}: key must be one of {', '.join(known)}, got {key!r}; drop it or correct it{hint}")


def wrong(name: str, rule: str, value: Any, way_out: str = "correct it") -> InputError:
    """Return the error for a value out of its range."""
    return InputError(f"{name} must be {rule}, got {value!r:.80}; {way_out}")


def _number(name: str, value: Any, rule: str) -> float:
    if isinstance(value, str):
        try:
            return parse_quantity(value, name, zero=True)
        except InputError:
            raise wrong(name, rule, value) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(name, rule, value)
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        raise wrong(name, rule, value) from None
