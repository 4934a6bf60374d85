"""The settings of a configuration as text, made of their declarations. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from optlaws.harness.config import TrainConfig
from optlaws.harness.sections import DATA, MODELS, SECTIONS


class Setting(NamedTuple):
    """One setting: its key in the file, what its value must be, its default as JSON, and what it is."""

    key: str
    rule: str
    default: str
    about: str


class Group(NamedTuple):
    """Settings that belong together, under a heading."""

    heading: str
    settings: list[Setting]


REQUIRED = "required"
_SCHEDULE = [
    Setting("schedule", "a short form or a mapping", REQUIRED, "learning rates, like wsd:peak=1e-3,warmup=100"),
    Setting("steps", "a whole number of at least 1", "null", "its length, where it states none"),
    Setting("tokens", "a whole number of at least 1", "null", "its length in tokens, in place of steps"),
]


def settings_of_a_run() -> list[Group]:
    """Return every setting of a configuration, group by group."""
    groups = [Group("the run", [*_SCHEDULE, *_settings(TrainConfig, "")])]
    for name, kinds in (("model", MODELS), ("data", DATA)):
        groups += _kinds(name, kinds)
    return [*groups, *(Group(_heading(name, cls), _settings(cls, name)) for name, cls in SECTIONS.items())]


def _kinds(name: str, kinds: Mapping[str, Any]) -> list[Group]:
    first = next(iter(kinds))
    kind = Setting(f"{name}.kind", f"one of {', '.join(kinds)}", first, f"which {name}; each has its own settings")
    groups = [Group(_heading(f"{name}, kind {key}", cls), _settings(cls, name)) for key, cls in kinds.items()]
    return [Group(name, [kind]), *(group for group in groups if group.settings)]


def _heading(name: str, cls: Any) -> str:
    about = (cls.__doc__ or "").split("\n")[0].rstrip(".")
    return f"{name}: {about}" if about else name


def _settings(cls: Any, where: str) -> list[Setting]:
    found = []
    for entry in fields(cls):
        check = entry.metadata.get("check")
        if check is None or entry.name == "kind":
            continue
        default = REQUIRED if entry.default == "" else _text(entry.default)
        key = f"{where}.{entry.name}" if where else entry.name
        found.append(Setting(key, check.rule, default, entry.metadata["about"]))
    return found


def _text(value: Any) -> str:
    """Return a default as it is written in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]" if value else "{}"
    return f"{value:g}" if isinstance(value, float) else str(value)
