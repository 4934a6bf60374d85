"""Frozen values with arrays: equal by content, and not changed by accident."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

import numpy as np


class Content:
    """Base of frozen dataclasses with `eq=False` that hold arrays: equal where all fields are, arrays read-only.

    Two are equal if they are of one class and their fields are equal: arrays in shape and in every number (NaN as NaN),
    mappings and sequences entry by entry, a list like a tuple, since files have lists alone; other values NaN as NaN.
    Equal ones have equal hashes. Copies, and what pickles hold, are made by the constructor anew, and so are read-only.
    """

    def __post_init__(self) -> None:
        """Put read-only views in place of the arrays; whoever passed one may still write to it."""
        for name, value in _fields(self).items():
            if isinstance(value, np.ndarray):
                object.__setattr__(self, name, read_only(value))

    def __eq__(self, other: object) -> bool:
        """Return whether all fields are equal."""
        return _same(_fields(self), _fields(other)) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        """Return a hash of the texts and the numbers among the fields."""
        plain = (value for value in _fields(self).values() if isinstance(value, (str, int, float)) and value == value)
        return hash((type(self), *plain))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the class and the fields, from which `pickle` and `copy` make it again."""
        plain = {k: dict(v) if isinstance(v, MappingProxyType) else v for k, v in _fields(self).items()}
        return _rebuilt, (type(self), plain)


def _rebuilt(kind: type[Content], values: dict[str, Any]) -> Content:
    return kind(**values)


def read_only(array: np.ndarray) -> Any:
    """Return a view of an array that cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _same(a: Any, b: Any) -> bool:
    """Return whether two values are equal, arrays within them by content."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape == b.shape):
            return False
        return bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) or bool(a != a and b != b)
