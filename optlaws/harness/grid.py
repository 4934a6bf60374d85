"""Grid files: from lists of sizes, schedules, rates, horizons, batches, warm-ups and seeds to configurations. No torch.

A grid file is YAML or JSON:

    base: {seq_len: 32, data: {vocab: 64}}     # a train configuration, without model and schedule
    sizes: {S: {depth: 3, width: 32}}          # model sections by name
    schedules: {wsd: "wsd:decay=0.2"}          # short forms without peak, steps, warmup
    blocks:
      main: {sizes: [S], schedules: [wsd], peaks: [1e-3, 3e-3], horizons: [200, 400], warmups: [0.1]}
      seeds: {sizes: [S], schedules: [wsd], peaks: [3e-3], horizons: [200], warmups: [0.1], seeds: [1, 2]}

A block is the product of its lists. A list that a block leaves out is the one of the same name at the top of the file,
else all sizes and schedules, the base's batch, no warm-up and seed 0. Runs that two blocks share are trained once.
`set` in a block holds further settings of its runs, which go before the base's one by one; a section that gets another
optimizer or another kind of data has nothing of the base's.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optlaws.errors import InputError
from optlaws.harness._fields import real, unknown, whole, wrong
from optlaws.harness.config import TrainConfig, read_config
from optlaws.harness.sections import MOST_SEED, SECTIONS, OptimizerConfig, SyntheticData
from optlaws.runs._files import read_text
from optlaws.runs._yaml import load_yaml

AXES = ("sizes", "schedules", "peaks", "horizons", "tokens", "batches", "warmups", "seeds")
TOP = ("base", "sizes", "schedules", "blocks", *AXES[2:])
_USUAL = {"optimizer": OptimizerConfig().name, "data": SyntheticData().kind}
NOT_SET = ("model", "schedule", "steps", "tokens", "name")
MOST_RUNS = 100_000
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,39}")


@dataclass(frozen=True)
class Planned:
    """One run of a grid.

    Attributes
    ----------
    config
        What to train; its name holds size, schedule and digest, so it stays the same when the grid grows.
    block, size
        Names of the block that asks for the run first, and of its size.
    """

    config: TrainConfig
    block: str
    size: str


def read_grid(source: Mapping[str, Any] | str | os.PathLike[str]) -> list[Planned]:
    """Read a grid from a YAML or JSON file ("-" is standard input), or from a mapping.

    Returns
    -------
    list of Planned
        The runs in the order of the blocks, each once.

    Raises
    ------
    InputError
        If the file cannot be read, a key is unknown, a list is empty, a value is out of its range, or a run is
        impossible; the message names the block.
    """
    where = "grid"
    if not isinstance(source, Mapping):
        text, where = read_text(source)
        source = load_yaml(text, where)
        if not isinstance(source, Mapping):
            raise wrong(where, "a mapping of setting to value", source, "begin with 'base:'")
    for key in source:
        if key not in TOP:
            raise unknown(where, key, TOP)
    base = _mapping("base", source.get("base", {}))
    for key in NOT_SET:
        if key in base:
            raise InputError(f"base.{key} must be left out, got {base[key]!r:.60}; sizes, schedules and lists say it")
    sizes, schedules = (_named(name, source) for name in ("sizes", "schedules"))
    blocks = _mapping("blocks", source.get("blocks", {"main": {}}))
    if not blocks:
        raise InputError("blocks must hold at least one block, got none; add one or leave blocks out")
    plan: dict[str, Planned] = {}
    for name, block in blocks.items():
        if not isinstance(name, str) or not _LABEL.fullmatch(name):
            raise wrong("the name of a block", "at most 40 letters, digits and . _ = + -", name)
        own = _mapping(f"blocks.{name}", block or {})
        for key in own:
            if key not in (*AXES, "set"):
                raise unknown(f"blocks.{name}", key, (*AXES, "set"))
        lists = {axis: _list(axis, own, source, sizes, schedules, base, f"blocks.{name}") for axis in AXES}
        if bool(lists["horizons"]) == bool(lists["tokens"]):
            got = "both" if lists["horizons"] else "neither"
            raise InputError(f"blocks.{name}: one of horizons and tokens must be given, got {got}; give one of them")
        further = _mapping(f"blocks.{name}.set", own.get("set", {}))
        for key in (*NOT_SET, "batch", "seed"):  # they would be overruled without a word
            if key in further:
                raise InputError(
                    f"blocks.{name}.set.{key} must be left out, got {further[key]!r:.60}; the block's lists say it"
                )
        settings = _merged(base, further)
        lengths = [("steps", value) for value in lists["horizons"]] + [("tokens", value) for value in lists["tokens"]]
        axes = [lists[axis] for axis in ("sizes", "schedules", "peaks", "batches", "warmups", "seeds")]
        count = len(lengths)
        for values in axes:
            count *= len(values)
        if count > MOST_RUNS:
            raise InputError(f"blocks.{name} must ask for at most {MOST_RUNS} runs, got {count}; shorten its lists")
        for size, length, *rest in itertools.product(axes[0], lengths, *axes[1:]):
            shape, peak, batch, warmup, seed = rest
            content = {**settings, "model": sizes[size], "batch": batch, "seed": seed, length[0]: length[1]}
            try:
                draft = read_config({**content, "schedule": _spec(schedules[shape], peak, warmup)})
            except InputError as bad:
                raise InputError(
                    f"blocks.{name} ({size}, {shape}, peak {peak:g}, {length[0]} {length[1]}): {bad}"
                ) from None
            made = draft.with_(name=f"{size}-{shape}-{draft.digest()[:12]}")
            plan.setdefault(made.run_id, Planned(made, name, size))
    return list(plan.values())


def _merged(base: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base's settings with a block's before them, key by key in the sections, too."""
    settings = {**base, **further}
    for name in (*SECTIONS, "data"):
        old, new = (_section(name, given.get(name, {})) for given in (base, further))
        if isinstance(old, Mapping) and isinstance(new, Mapping) and name in base and name in further:
            key = {"optimizer": "name", "data": "kind"}.get(name, "")
            if key not in new or str(new[key]).lower() == str(old.get(key, _USUAL.get(name))).lower():
                settings[name] = {**old, **new}
    return settings


def _section(name: str, given: Any) -> Any:
    """Return a section as it is, or as a mapping where an optimizer is given by its name alone."""
    return {"name": given} if name == "optimizer" and isinstance(given, str) else given


def _spec(spec: str, peak: float, warmup: float) -> str:
    """Return the short form with peak and warm-up in it."""
    return f"{spec}{',' if ':' in spec else ':'}peak={peak!r},warmup={warmup!r}"


def _mapping(name: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise wrong(name, "a mapping of setting to value", given)
    return given


def _named(name: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return sizes or schedules by their names; a plain list of schedules names each by its text."""
    given = source.get(name)
    if name == "schedules" and isinstance(given, list | tuple):
        given = {str(spec): spec for spec in given}
    found = dict(_mapping(name, given if given is not None else {}))
    if not found:
        raise InputError(f"{name} must name at least one, got none; add {name}: to the grid")
    rule = "at most 40 letters, digits and . _ = + -"
    for key, value in found.items():
        if not isinstance(key, str) or not _LABEL.fullmatch(key):
            raise wrong(f"the name of one of {name}", rule, key, f"write {name}: {{a-name: ...}}")
        if name == "schedules" and (not isinstance(value, str) or not value.strip() or " then " in value):
            raise wrong(f"schedules.{key}", "a short form without peak, steps and warmup, such as wsd:decay=0.2", value)
        _mapping(f"sizes.{key}", value if name == "sizes" else {})
    return found


def _list(
    axis: str, own: Mapping[str, Any], source: Mapping[str, Any], sizes: Mapping[str, Any],
    schedules: Mapping[str, Any], base: Mapping[str, Any], where: str,
) -> Sequence[Any]:  # fmt: skip
    """Return the values of one list of a block, checked."""
    named = {"sizes": sizes, "schedules": schedules}.get(axis)
    either = {"horizons": "tokens", "tokens": "horizons"}.get(axis, "")
    given = own.get(axis, None if named or either in own else source.get(axis))
    if given is None:
        if axis == "peaks":
            raise InputError(f"{where}: peaks must be given, got nothing; list the highest rates, as in [1e-3, 3e-3]")
        usual = {"batches": [base.get("batch", 16)], "warmups": [0], "seeds": [base.get("seed", 0)]}
        return list(named) if named else usual.get(axis, [])
    if not isinstance(given, list | tuple) or not given:
        raise wrong(f"{where}.{axis}", "a list that is not empty", given)
    if named is not None:
        for value in given:
            if not isinstance(value, str) or value not in named:
                raise unknown(f"{where}.{axis}", value, tuple(named))
        return given
    checks = {"peaks": real(0, above=True), "warmups": real(0), "seeds": whole(0, MOST_SEED)}
    check = checks.get(axis, whole(1))
    return [check(f"{where}.{axis}", value) for value in given]
