"""A learning-rate schedule: frozen, hashable, equal by value, written and read as JSON or as a short form.

Step convention, for the whole package: step k = 0 .. T-1, `lr(k)` is the rate used by update k, and T counts warm-up
and decay.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.errors import ScheduleError, nearest
from optlaws.schedules.families import FAMILIES, Family, Row, chain_rows
from optlaws.schedules.keys import DECAY, REQUIRED, Key, Steps, Values, complain, count, number, read_duration, whole
from optlaws.schedules.shapes import Array, Phase, Table, highest, is_rates, warmup_steps

MAX_SHORT_VALUES = 64
JOINT = " then "


class Schedule:
    """A learning-rate schedule, made of phases.

    Build it by a family's function (`wsd`, `cosine`, ...), by `parse`, or by ``Schedule(kind, **parameters)``.

    Parameters
    ----------
    kind : str
        A family's name, or ``"chain"`` with ``parts``.
    **parameters
        The family's parameters by their short names. Lengths are steps, or fractions of all steps where below 1; rates
        are absolute, or text like "10%" or "0.1*peak" for a share of the peak, which is worked out.

    Attributes
    ----------
    kind : str
        The family.
    parameters : tuple
        Values in the family's order; lengths in steps.
    total_steps : int
        T, steps, at least 1.
    warmup_steps : int
        Steps at the start during which the rate rises (at most T).

    Raises
    ------
    ScheduleError
        A parameter is unknown, missing, out of range, or the phases overlap.

    Examples
    --------
    >>> s = Schedule("wsd", peak=1.0, steps=1000, warmup=100, decay=200)
    >>> s.breakpoints, float(s.array().sum())
    ((0, 100, 800, 1000), 850.0)
    >>> s.short()
    'wsd:peak=1.0,steps=1000,warmup=100,decay=0.2'
    """

    kind: str
    parameters: tuple[Any, ...]
    rows: tuple[Row, ...]
    total_steps: int

    def __init__(self, kind: str, /, **parameters: Any) -> None:
        """Read and check the parameters, join the phases."""
        if kind == "chain":
            values = _read_chain(parameters)
            rows, joined = chain_rows(values), values["parts"]
            state = (joined,)
            if len(joined) == 1:  # is its part, as its short form says
                kind, state = joined[0].kind, joined[0].parameters
        else:
            family = family_of(kind)
            values = read(family, parameters)
            if np.ndarray in map(type, values.values()):
                got = next(k for k, v in values.items() if isinstance(v, np.ndarray))
                raise complain(
                    f"{got} of a schedule", "one number", parameters[got], "use ScheduleBatch.grid for arrays"
                )
            rows = family.rows(values)
            state = tuple(values.values())
        kept = tuple(r for r in rows if r[1] < r[2])
        self.__dict__.update(kind=kind, parameters=state, rows=kept, total_steps=kept[-1][2])

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse: schedules are frozen."""
        raise AttributeError(f"a Schedule is frozen: {name} cannot be set; build another one")

    def __delattr__(self, name: str) -> None:
        """Refuse: schedules are frozen."""
        raise AttributeError(f"a Schedule is frozen: {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        """Compare family and parameters."""
        if not isinstance(other, Schedule):
            return NotImplemented
        return self.kind == other.kind and self.parameters == other.parameters

    def __hash__(self) -> int:
        """Hash family and parameters."""
        return hash((self.kind, self.parameters))

    def __repr__(self) -> str:
        """Return the short form in angle brackets."""
        return f"<Schedule {self}>"

    def __str__(self) -> str:
        """Return the short form, or a summary of a long array."""
        try:
            return self.short()
        except ScheduleError:
            return f"{self.kind} of {self.total_steps} steps, peak {self.peak:.4g}"

    def __getitem__(self, name: str) -> Any:
        """Return one parameter by its short name."""
        names = ("parts",) if self.kind == "chain" else tuple(FAMILIES[self.kind].by_name)
        if name not in names:
            raise ScheduleError(f"parameter must be one of {', '.join(names)}, got {name!r}{nearest(str(name), names)}")
        return self.parameters[names.index(name)]

    @cached_property
    def tables(self) -> tuple[Table | None, ...]:
        """The table of each phase, None for phases with a formula."""
        if self.kind == "array":
            return (self.parameters[0],)
        if self.kind == "chain":
            return tuple(t for part in self.parameters[0] for t in part.tables)
        return (None,) * len(self.rows)

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The phases in order; they cover the steps 0 .. T-1 without gap or overlap."""
        return tuple(Phase(*(*row, table)) for row, table in zip(self.rows, self.tables, strict=True))

    @cached_property
    def breakpoints(self) -> tuple[int, ...]:
        """First step of every phase, and T."""
        return (*(row[1] for row in self.rows), self.total_steps)

    @cached_property
    def peak(self) -> float:
        """The highest rate used by any step."""
        return highest(self.phases)

    @cached_property
    def warmup_steps(self) -> int:
        """Steps at the start during which the rate rises, at most T."""
        return warmup_steps(self.phases)

    @property
    def extendable(self) -> bool:
        """Whether a run can go on for longer without a restart.

        True when the schedule (of a chain: its last part) stays for at least 1 % of its steps on a stretch that does
        not depend on T, constant or inverse square root: a checkpoint from there continues as if the longer run had
        been planned.
        """
        last = self.parameters[0][-1] if self.kind == "chain" else self
        least = max(2.0, 0.01 * last.total_steps)
        return any(r[0] in ("constant", "inverse_sqrt") and r[3] > 0 and r[2] - r[1] >= least for r in last.rows)

    def lr(self, k: Any) -> Any:
        """Return the rate used by update k.

        Parameters
        ----------
        k : int or array of int
            Steps, 0 <= k < T.

        Returns
        -------
        float or ndarray
            Rates, of the shape of `k`.

        Raises
        ------
        ScheduleError
            A step is not a whole number inside the run.
        """
        if type(k) is int:
            if not 0 <= k < self.total_steps:
                raise self._outside(k)
            # through an array of one step: a power of Python numbers may differ from numpy's in the last digit
            return float(self.phases[bisect_right(self.breakpoints, k) - 1].rate(np.array([k]))[0])
        steps = np.asarray(k)
        if steps.dtype.kind == "f" and np.all(np.isfinite(steps)) and np.all(steps == np.floor(steps)):
            steps = steps.astype(np.int64)
        if steps.dtype.kind not in "iu":
            raise self._outside(k)
        flat = steps.ravel().astype(np.int64)
        if not len(flat):
            return np.empty(steps.shape)
        outside = np.flatnonzero((flat < 0) | (flat >= self.total_steps))
        if len(outside):
            raise self._outside(int(flat[outside[0]]))
        which = np.searchsorted(self.breakpoints, flat, side="right") - 1
        order = np.argsort(which, kind="stable")
        out = np.empty(flat.shape)
        used, first = np.unique(which[order], return_index=True)
        for i, rows in zip(used, np.split(order, first[1:]), strict=True):
            out[rows] = self.phases[i].rate(flat[rows])
        return out.reshape(steps.shape) if steps.ndim else float(out[0])

    def _outside(self, k: Any) -> ScheduleError:
        return complain("step", f"a whole number from 0 to {self.total_steps - 1}", k, "lr(k) is the rate of update k")

    def array(self) -> Array:
        """Return the rates of all steps, shape (T,)."""
        if len(self.phases) == 1:
            p = self.phases[0]
            return np.array(p.rate(np.arange(p.begin, p.end)), dtype=np.float64)
        return np.concatenate([p.rate(np.arange(p.begin, p.end)) for p in self.phases])

    def scaled(self, factor: float) -> Schedule:
        """Return the schedule of the same family with every rate multiplied by `factor`.

        Raises
        ------
        ScheduleError
            `factor` is not one finite number above 0, or makes a rate above 1e6.

        Examples
        --------
        >>> Schedule("cosine", peak=1e-3, steps=1000, warmup=100, final=1e-4).scaled(2.0).short()
        'cosine:peak=0.002,steps=1000,warmup=100,final=0.0002'
        """
        value = number("factor", factor)
        if isinstance(value, np.ndarray) or not 0 < value < float("inf"):
            raise complain("factor", "one finite number above 0", factor, "give ScheduleBatch.scaled one for each")
        if self.kind == "chain":
            return Schedule("chain", parts=tuple(part.scaled(value) for part in self.parameters[0]))
        keys = FAMILIES[self.kind].keys
        return Schedule(
            self.kind,
            **{key.name: key.scaled(old, value) for key, old in zip(keys, self.parameters, strict=True)},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: kind, peak_lr, total_steps, ... with absolute rates and lengths in steps."""
        if self.kind == "chain":
            return {"kind": "chain", "parts": [p.to_dict() for p in self.parameters[0]]}
        out: dict[str, Any] = {"kind": self.kind}
        values: Values = {}
        for key, value in zip(FAMILIES[self.kind].keys, self.parameters, strict=True):
            if key.always or key.default is REQUIRED or value != key.default_value(values):
                out[key.json] = _plain(value)
            values[key.name] = value
        if self.kind == "array":
            out = {"kind": "array", "total_steps": self.total_steps, "values": out["values"]}
        return out

    def to_json(self) -> str:
        """Return the JSON form as text; `parse` reads it back exactly."""
        return json.dumps(self.to_dict())

    def short(self) -> str:
        """Return the short form, ``kind:key=value,...``; `parse` reads it back exactly.

        Raises
        ------
        ScheduleError
            An array of more than 64 rates: write JSON.
        """
        if self.kind == "chain":
            return JOINT.join(p.short() for p in self.parameters[0])
        items = []
        values: Values = {}
        for key, value in zip(FAMILIES[self.kind].keys, self.parameters, strict=True):
            if key.default is REQUIRED or key is DECAY or value != key.default_value(values):
                items.append(f"{key.name}={_text(key, value, values)}")
            values[key.name] = value
        return f"{self.kind}:{','.join(items)}"


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it."""
    if isinstance(value, Table):
        return value.values.tolist()
    if isinstance(value, tuple):
        return [_plain(x) for x in value]
    return value


def _text(key: Key, value: Any, values: Values) -> str:
    """Return a value as the short form writes it."""
    if isinstance(value, Table):
        if len(value) > MAX_SHORT_VALUES:
            rule = f"at most {MAX_SHORT_VALUES} rates in a short form"
            raise complain("array", rule, len(value), "write JSON instead")
        return "/".join(map(repr, value.values.tolist()))
    if isinstance(value, tuple):
        return "/".join(f"{x[0]}:{x[1]!r}" if isinstance(x, tuple) else repr(x) for x in value)
    if key.unit_is_fraction and value:
        share = value / values["steps"]
        if value == 1 or len(repr(share)) <= 4:
            return repr(share)
    return str(value)


def family_of(kind: Any) -> Family:
    """Return the family of that name.

    Raises
    ------
    ScheduleError
        There is none.
    """
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        known = (*FAMILIES, "chain")
        hint = nearest(kind, known) if isinstance(kind, str) else ""
        raise complain("kind", "one of " + ", ".join(known), kind, f"choose one of them{hint}")
    return family


def read(family: Family, given: Mapping[str, Any]) -> Values:
    """Return the family's parameters in order, read, checked one by one, with defaults filled in.

    Raises
    ------
    ScheduleError
        A parameter is unknown, missing or out of range.
    """
    values: Values = {}
    used = 0
    for key in family.keys:
        name = key.name
        if name in given:
            values[name] = key.read(key, given[name], values)
            used += 1
        elif key.default is REQUIRED:
            raise _missing(family, key, given)
        else:
            values[name] = key.default(values) if callable(key.default) else key.default
    if used != len(given):
        unknown = next(name for name in given if name not in family.by_name)
        raise _unknown(family, unknown)
    return values


def _missing(family: Family, key: Key, given: Mapping[str, Any]) -> ScheduleError:
    for name in given:
        if name not in family.by_name:
            return _unknown(family, name)
    way_out = f"add {key.name}=VALUE ({key.json} in JSON)"
    return ScheduleError(f"{key.name} of {family.name} must be given, got nothing; {way_out}")


def _unknown(family: Family, name: Any) -> ScheduleError:
    known = tuple(family.by_name)
    meant = family.by_json.get(name) if isinstance(name, str) else None  # JSON's name in a short form
    hint = f"; did you mean {meant.name!r}?" if meant else nearest(str(name), (*known, *family.by_json))
    return complain(f"key of {family.name}", "one of " + ", ".join(known), name, f"drop it or correct it{hint}")


def _read_chain(given: Mapping[str, Any]) -> Values:
    """Read the parts of a chain: schedules, dicts or short forms; chains among them are flattened."""
    parts = given.get("parts")
    if set(given) != {"parts"} or not isinstance(parts, (list, tuple)) or not parts:
        got = next((k for k in given if k != "parts"), parts)
        raise complain("chain", "a list of at least one schedule under 'parts', no other key", got, "give parts=[...]")
    read_parts = [p if isinstance(p, Schedule) else parse(p) for p in parts]
    flat: list[Schedule] = []
    for part in read_parts:
        flat.extend(part["parts"] if part.kind == "chain" else [part])
    return {"parts": tuple(flat)}


def parse(spec: str | Mapping[str, Any] | Schedule | Sequence[float] | npt.NDArray[Any]) -> Schedule:
    """Return the schedule written as a short form, as JSON text, as a dict, or as its rates, one a step.

    Parameters
    ----------
    spec : str, dict, or rates (T,)
        ``"wsd:peak=1e-3,steps=25000,warmup=300,decay=0.2"`` (lengths in steps like 300 or 20K, or fractions of all
        steps like 0.2 or 20%, for `decay` 1 is the whole run; rates other than the peak may be shares of it, like 10%
        or 0.1*peak), parts of a chain joined by ``" then "``; or the JSON form of `Schedule.to_dict`.
        A dict may also use the short names. Rates, a list of numbers or a one-dimensional array, make an array.

    Raises
    ------
    ScheduleError
        The text cannot be read or the schedule is impossible; says what is allowed and the nearest known name.

    Examples
    --------
    >>> parse("cosine:peak=1e-3,steps=10").lr(5)
    0.0005
    """
    if isinstance(spec, str):
        text = spec.strip()
        if text.startswith("{"):
            try:
                spec = json.loads(text, object_pairs_hook=no_repeats)
            except (ValueError, RecursionError) as error:
                raise complain("schedule", "valid JSON", text, f"correct it ({error})") from None
        else:
            return _parse_short(text)
    if isinstance(spec, Schedule):
        return spec
    if is_rates(spec):
        return Schedule("array", values=np.asarray(spec, dtype=np.float64))
    if not isinstance(spec, Mapping):
        known = "a short form, JSON text or a dict, or a list of rates"
        raise complain("schedule", known, spec, "write 'cosine:peak=1e-3,steps=1000'")
    return _parse_dict(spec)


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dict, for ``json.loads(..., object_pairs_hook=no_repeats)``.

    Raises
    ------
    ValueError
        A key occurs twice: which of its values is meant cannot be known.
    """
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return mapping


def _parse_short(text: str) -> Schedule:
    if JOINT in text:
        return Schedule("chain", parts=[_parse_short(t.strip()) for t in text.split(JOINT)])
    kind, colon, rest = text.partition(":")
    kind = kind.strip()
    if not colon and (kind in FAMILIES or not kind):
        raise complain("schedule", "kind:key=value,...", text, "write 'cosine:peak=1e-3,steps=1000'")
    if kind != "chain":
        family_of(kind)
    given: dict[str, Any] = {}
    for item in rest.split(","):
        name, equals, value = item.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not value:
            raise complain(f"{kind} item", "key=value", item, "write 'cosine:peak=1e-3,steps=1000'")
        if name in given:
            raise complain(f"{kind}: {name!r}", "given once", value, "drop one of the two")
        given[name] = value
    return Schedule(kind, **given) if kind != "chain" else Schedule("chain", parts=None)


def _is_word(value: Any) -> bool:
    """Return whether a value is text that is no length (JSON's "decay" names the shape, not the length)."""
    if not isinstance(value, str):
        return False
    try:
        count("decay", value, shares=True)
    except ScheduleError:
        return not value.rstrip().endswith("%")
    return False


def _json_steps(key: Key, value: Any) -> Steps:
    """Read a length that JSON gives in steps, never as a fraction."""
    steps = count(key.json, value)
    way_out = f"write {key.name} instead of {key.json} for a fraction of all steps"
    if isinstance(steps, np.ndarray):
        raise complain(key.json, "one whole number of steps", value, way_out)
    return Steps(whole(key.json, steps, key.low, way_out))


def _parse_dict(spec: Mapping[str, Any]) -> Schedule:
    if "kind" not in spec:
        hint = ", in place of 'family'" if "family" in spec else ""
        raise ScheduleError(f'kind must be given, got nothing; add "kind": "cosine" or another family{hint}')
    kind = spec["kind"]
    if kind == "chain":
        return Schedule("chain", **{str(k): v for k, v in spec.items() if k != "kind"})
    family = family_of(kind)
    given: dict[str, Any] = {}
    for name, value in spec.items():
        if name == "kind":
            continue
        if kind == "array" and name == "total_steps":
            continue
        key = family.by_name.get(name)
        if key is None or (name == "decay" and _is_word(value)):
            key = family.by_json.get(name)
            if key is None:
                raise _unknown(family, name)
            if key.read is read_duration:
                value = _json_steps(key, value)
        if key.name in given:
            raise complain(f"{kind}: {name!r}", "given once", value, "drop one of the two")
        given[key.name] = value
    schedule = Schedule(kind, **given)
    if kind == "array" and "total_steps" in spec and spec["total_steps"] != schedule.total_steps:
        rule = f"the number of values, {schedule.total_steps}"
        raise complain("total_steps", rule, spec["total_steps"], "drop it or correct the values")
    return schedule
