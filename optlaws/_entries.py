"""Entries of a law file, checked: numbers, lists of numbers, ranges. What is wrong is a TypeError or a ValueError."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
T = TypeVar("T")


def number(value: Any, name: str, least: float = -np.inf, most: float = np.inf) -> float:
    """Return an entry as a float, if it is a finite number (true, false and text are none) in its range."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not np.isfinite(value):
        raise TypeError(f"{name} must be a finite number, got {value!r:.40}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least:g} to {most:g}, got {value:g}")
    return float(value)


def whole(value: Any, name: str, least: int = 0) -> int:
    """Return an entry as an int, if it is a whole number (true, false and text are none) from `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise TypeError(f"{name} must be a whole number from {least}, got {value!r:.40}")
    return value


def numbers(values: Any, *shape: int, name: str = "", most: float = np.inf) -> FloatArray:
    """Return a list (of lists) as an array of the given shape (-1 = any), all finite and at most `most` from 0."""
    entries, called = np.array(values, dtype=object), name or "lists of numbers"
    if not set(map(type, entries.ravel())) <= {int, float}:  # text that looks like a number, true, false, null
        raise TypeError(f"{called} must hold numbers only")
    array = entries.astype(np.float64)
    try:
        array = array.reshape(shape)
    except ValueError:
        raise ValueError(f"{called} must have the shape {shape}, got {array.shape}") from None
    if not (np.isfinite(array) & (np.abs(array) <= most)).all():
        raise ValueError(f"{called} must be finite, at most {most:g} from 0")
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
