"""Strict YAML: numbers like 1e-3 are numbers, a key written twice is an error."""

from __future__ import annotations

import re
from typing import Any

import yaml

from optlaws.errors import TableError

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FLOAT = re.compile(r"^[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)$")


class _Loader(_BASE):  # type: ignore[misc]  # the base is the C loader where there is one
    """The safe loader with YAML 1.2's floats."""


def _mapping(loader: Any, node: Any) -> dict[Any, Any]:
    pairs = [(loader.construct_object(k, deep=True), loader.construct_object(v, deep=True)) for k, v in node.value]
    mapping: dict[Any, Any] = {}
    for (key, value), (key_node, _) in zip(pairs, node.value, strict=True):
        if not isinstance(key, str | int | float | bool | type(None)) or key in mapping:
            problem = f"the key {key!r} occurs twice" if isinstance(key, str) else "a key must be text"
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        mapping[key] = value
    return mapping


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def load_yaml(text: str, name: str) -> Any:
    """Return the document in `text`; `name` is what to call it in messages.

    Raises
    ------
    TableError
        With the line, if it is not valid YAML or holds anything but plain values.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as bad:
        line = f", line {bad.problem_mark.line + 1}" if bad.problem_mark else ""
        raise TableError(
            f"{name}{line}: not valid YAML ({bad.problem}); check indentation, colons and quotes"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as bad:
        raise TableError(f"{name}: not valid YAML ({str(bad).splitlines()[0]}); check its characters") from None
