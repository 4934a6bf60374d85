"""Documents of candidates as columns: YAML, JSON and lines of text, and what candidates are called by their files."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from optlaws.errors import TableError, nearest
from optlaws.runs._cells import RawTable, as_text, clip, schedule_keys
from optlaws.runs._rates import RATE_COLUMNS, text_of_rates
from optlaws.runs._table import RUN_COLUMNS
from optlaws.schedules.schedule import no_repeats

WIDTH = "width"  # of the network: a column that risk models read, and no other further column is known in documents
_ENTRY_KEYS = ("name", *RUN_COLUMNS, WIDTH)
_SHARED_KEYS = tuple(key for key in _ENTRY_KEYS if key not in ("name", "run_id", "schedule", "status", "final_loss"))
_NEAR = 0.85  # how alike a key must be to a known one to be called a misspelling and no name


def load_document(text: str, name: str, suffix: str) -> Any:
    """Return a JSON or YAML document.

    Raises
    ------
    TableError
        It is neither.
    """
    if suffix == ".json" or text.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(text, object_pairs_hook=no_repeats)
        except (ValueError, RecursionError) as bad:
            if suffix == ".json":
                raise TableError(f"{name}: not valid JSON ({bad}); check quotes, commas and brackets") from None
    from optlaws.runs._yaml import load_yaml

    return load_yaml(text, name)


def raw_from_lines(text: str, name: str) -> RawTable:
    """Read a schedule (or a candidate as a JSON object) from every line that is neither blank nor a comment.

    Raises
    ------
    TableError
        With the line, if it is not valid JSON or no candidate, or there is none.
    """
    entries: list[tuple[int, Any]] = []
    for place, line in enumerate(text.split("\n"), start=1):
        entry: Any = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if entry[0] in '{"':
            try:
                entry = json.loads(entry, object_pairs_hook=no_repeats)
            except (ValueError, RecursionError) as bad:
                raise TableError(f"{name}, line {place}: not valid JSON ({bad}); is the file cut off?") from None
        entries.append((place, entry))
    if not entries:
        raise TableError(f"{name}: no schedule in it, only comments; write one on a line")
    return _raw_from_entries(entries, "line", name, {})


def raw_from_document(document: Any, name: str) -> RawTable:
    """Lay out a YAML or JSON document as columns, one entry a row.

    Raises
    ------
    TableError
        It holds no candidate, or a key that is not known.
    """
    rates = _rates_of(document, name)
    if rates is not None:
        return rates
    shared: dict[str, Any] = {}
    if isinstance(document, dict) and "candidates" in document:
        shared = {key: value for key, value in document.items() if key != "candidates"}
        _check_keys(shared, ("candidates", *_SHARED_KEYS), name)
        document = document["candidates"]
    document = named_entries(document, name) or document
    if isinstance(document, str | dict):
        document = [document]
    if not isinstance(document, list) or not document:
        raise TableError(f"{name}: a list of schedules or of candidates is needed, got {clip(document)}")
    if all(isinstance(entry, dict) and entry.keys() == set(RATE_COLUMNS) for entry in document):
        columns = {key: [entry[key] for entry in document] for key in RATE_COLUMNS}
        return RawTable(columns, range(1, len(document) + 1), "entry", name)
    return _raw_from_entries(enumerate(document, start=1), "entry", name, shared)


def _rates_of(document: Any, name: str) -> RawTable | None:
    """Return the table of a document that is one rate a step, else None."""
    if not _is_rates(document):
        return None
    columns = dict(zip(RATE_COLUMNS, (list(range(len(document))), document), strict=True))
    return RawTable(columns, range(1, len(document) + 1), "entry", name)


def _is_rates(value: Any) -> bool:
    """Tell whether a value is a list of rates, one a step.

    Two numbers at least, since a lone one is more likely a slip than a schedule of one step.
    """
    return (
        isinstance(value, list)
        and len(value) >= 2
        and all(isinstance(rate, int | float) and not isinstance(rate, bool) for rate in value)
    )


def named_entries(document: Any, name: str) -> list[dict[str, Any]] | None:
    """Return the candidates of a mapping of names to schedules, or None where a document is none.

    It is one where no key is a known one or close to one, and every value may be a schedule, by its rates or in another
    way, or a candidate.

    Raises
    ------
    TableError
        A candidate in it has another name of its own.
    """
    if not isinstance(document, Mapping) or not document:
        return None
    known = (*_ENTRY_KEYS, "candidates", "kind")
    for key, value in document.items():
        if not (isinstance(value, str | dict) or (key not in RATE_COLUMNS and _is_rates(value))):
            return None
        if difflib.get_close_matches(str(key), known, n=1, cutoff=_NEAR):
            return None
    entries = []
    for key, value in document.items():
        own = next((word for word in ("name", "run_id") if isinstance(value, dict) and word in value), None)
        if own is not None:
            raise TableError(
                f"{name}: a candidate must have one name, got {as_text(key)!r} and {own} {as_text(value[own])!r}; drop"
                f" the key {own!r}"
            )
        whole = isinstance(value, dict) and "kind" not in value
        entries.append({"name": as_text(key), **(value if whole else {"schedule": value})})
    return entries


def _raw_from_entries(entries: Iterable[tuple[int, Any]], unit: str, name: str, shared: Mapping[str, Any]) -> RawTable:
    rows, places = [], []
    for place, entry in entries:
        where = f"{name}, {unit} {place}"
        if isinstance(entry, str) or (isinstance(entry, dict) and "kind" in entry):
            entry = {"schedule": entry}
        if not isinstance(entry, dict):
            raise TableError(f"{where}: a schedule or a mapping with the key 'schedule' is needed, got {clip(entry)}")
        _check_keys(entry, _ENTRY_KEYS, where)
        if entry.get("schedule") in (None, ""):
            raise TableError(f"{where}: the key 'schedule' is missing or empty; give it a short form or a mapping")
        if _is_rates(entry["schedule"]):
            entry = {**entry, "schedule": text_of_rates(entry["schedule"], where)}
        rows.append({**shared, **entry})
        places.append(place)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = {key: [row.get(key) for row in rows] for key in keys}
    return RawTable(columns, places, unit, name)


def _check_keys(entry: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    for key in entry:
        if key in known:
            continue
        if schedule_keys([key]):
            raise TableError(
                f"{where}: unknown key {as_text(key)!r}; a schedule is one entry, schedule: cosine:peak=1e-3,warmup=300"
                " or schedule: {kind: cosine, peak: 1e-3, warmup: 300}, where kind is its family"
            )
        hint = nearest(str(key), known)
        raise TableError(f"{where}: unknown key {as_text(key)!r}{hint} (known: {', '.join(known)})")


def file_names(paths: Sequence[str]) -> dict[str, str]:
    """Return what to call a candidate by its file: the file's name, or as much of the path as tells it from the others.

    Files that no part of their path tells apart have one name.

    Examples
    --------
    >>> file_names(["runs/a.csv", "d1/s.csv", "d2/s.csv"])
    {'runs/a.csv': 'a', 'd1/s.csv': 'd1/s', 'd2/s.csv': 'd2/s'}
    """
    ends = {path: _ends(path) for path in paths}
    names = {}
    for path, own in ends.items():
        others = {end for other, found in ends.items() if other != path for end in found}
        names[path] = next((end for end in own if end not in others), own[0])
    return names


def _ends(path: str) -> list[str]:
    """Return the last parts of a path, one first, without the file's suffix and then with it."""
    forms = (Path(path).with_suffix("").parts, Path(path).parts)
    return [PurePath(*parts[-count:]).as_posix() for parts in forms for count in range(1, len(parts) + 1)]
