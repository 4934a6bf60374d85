"""Entries of a law file, checked: numbers, lists of numbers, ranges. What is wrong is a TypeError or a ValueError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from optlaws.dynamics.model import FloatArray


def number(value: Any, name: str, least: float = -np.inf, most: float = np.inf) -> float:
    """Return an entry as a float, if it is a finite number (true, false and text are none) in its range."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not np.isfinite(value):
        raise TypeError(f"{name} must be a finite number, got {value!r:.40}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least:g} to {most:g}, got {value:g}")
    return float(value)


def numbers(values: Any, *shape: int, most: float = np.inf) -> FloatArray:
    """Return a list (of lists) as an array of the given shape (-1 = any), all finite and at most `most` from 0."""
    entries = np.array(values, dtype=object)
    if not set(map(type, entries.ravel())) <= {int, float}:  # text that looks like a number, true, false, null
        raise TypeError("lists of numbers must hold numbers only")
    array = entries.astype(np.float64).reshape(shape)
    if not (np.isfinite(array) & (np.abs(array) <= most)).all():
        raise ValueError(f"numbers must be finite, at most {most:g} from 0")
    return array


def ranges(domain: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return the entry `domain` of a law file: the lowest and the highest value of each quantity, 0 or more."""
    found = {}
    for key, (low, high) in domain.items():
        found[key] = number(low, f"domain.{key}", 0.0), number(high, f"domain.{key}", 0.0)
        if low > high:
            raise ValueError(f"domain.{key} must be two numbers, the lowest first, got {low:g} and {high:g}")
    return found
