"""Entries of a law file, checked: numbers, lists of numbers, ranges. What is wrong is a TypeError or a ValueError."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
T = TypeVar("T")
BEYOND = "a whole number beyond floats"


def _of_number(kind: type) -> bool:
    """Return whether entries of a type are numbers, NumPy's included; true, false and text are none."""
    return issubclass(kind, (int, float, np.integer, np.floating)) and kind is not bool


def _finite(value: Any, what: str) -> float:
    """Return an entry as a float, if it is a finite number; `what` says what it must be."""
    if not _of_number(type(value)):
        raise TypeError(f"{what}, got {value!r:.40}")
    try:
        found = float(value)
    except OverflowError:
        raise ValueError(f"{what}, got {BEYOND}") from None
    if not np.isfinite(found):
        raise TypeError(f"{what}, got {value!r:.40}")
    return found


def _between(least: float, most: float) -> str:
    """Return a range in words; an infinite end is none."""
    if most == np.inf:
        return f"at least {least:g}"
    return f"at most {most:g}" if least == -np.inf else f"from {least:g} to {most:g}"


def number(value: Any, name: str, least: float = -np.inf, most: float = np.inf) -> float:
    """Return an entry as a float, if it is a finite number (true, false and text are none) in its range."""
    found = _finite(value, f"{name} must be a finite number")
    if not least <= found <= most:
        raise ValueError(f"{name} must be {_between(least, most)}, got {found:g}")
    return found


def whole(value: Any, name: str, least: int = 0) -> int:
    """Return an entry as an int, if it is a whole number, 12.0 too (true, false and text are none), from `least`."""
    what = f"{name} must be a whole number from {least}"
    if _finite(value, what) != int(value) or value < least:
        raise TypeError(f"{what}, got {value!r:.40}")
    return int(value)


def numbers(values: Any, *shape: int, name: str = "", most: float = np.inf) -> FloatArray:
    """Return a list (of lists) as an array of the given shape (-1 = any), all finite and at most `most` from 0."""
    entries, called = np.array(values, dtype=object), name or "lists of numbers"
    if not all(map(_of_number, set(map(type, entries.ravel())))):  # text that looks like a number, true, false, null
        raise TypeError(f"{called} must hold numbers only")
    if entries.ndim != len(shape) or any(
        asked not in (-1, got) for asked, got in zip(shape, entries.shape, strict=True)
    ):
        asked = ", ".join("any" if length == -1 else str(length) for length in shape) + "," * (len(shape) == 1)
        raise ValueError(f"{called} must have the shape ({asked}), got {entries.shape}")
    try:
        array = entries.astype(np.float64)
    except OverflowError:
        raise ValueError(f"{called} must be finite, got {BEYOND}") from None
    if not (np.isfinite(array) & (np.abs(array) <= most)).all():
        raise ValueError(f"{called} must be finite" + (f", at most {most:g} from 0" if most < np.inf else ""))
    return array


def ranges(domain: Any, name: str = "domain") -> dict[str, tuple[float, float]]:
    """Return the entry `domain` of a law file: the lowest and the highest value of each quantity, 0 or more."""
    found = {}
    for key, ends in mapping(domain, name).items():
        if not isinstance(ends, (list, tuple)) or len(ends) != 2:
            raise TypeError(f"{name}.{key} must be two numbers, got {ends!r:.40}")
        low, high = (number(end, f"{name}.{key}", 0.0) for end in ends)
        if low > high:
            raise ValueError(f"{name}.{key} must be two numbers, the lowest first, got {low:g} and {high:g}")
        found[key] = low, high
    return found


def mapping(value: Any, name: str) -> Mapping[str, Any]:
    """Return an entry that is an object."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be an object, got {value!r:.40}")
    return value


def part(data: Mapping[str, Any], name: str, read: Callable[[Mapping[str, Any]], T]) -> T | None:
    """Return what `read` makes of an entry that is an object; None where there is no such entry, or it is null."""
    if data.get(name) is None:
        return None
    try:
        return read(mapping(data[name], name))
    except KeyError as missing:
        raise ValueError(f"{name} must have the entry {missing}") from None
