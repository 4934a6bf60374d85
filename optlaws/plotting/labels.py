"""Labels of many things in one figure: short, and different where the things are."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

from optlaws._advice import one_line
from optlaws.plotting.axes import wrapped

Units = tuple[str, ...]

_CUT = " … "
# ever more of what texts share is cut: (what it is cut into, characters of each shared part that stay)
_WAYS: tuple[tuple[Callable[[str], Sequence[str]], int], ...] = (
    (lambda text: re.findall(r"[^\W_]+|[\W_]+", text), 24),
    (lambda text: re.findall(r"[^\W_]+|[\W_]+", text), 8),
    (list, 4),
    (list, 1),
)


def told_apart(texts: Sequence[str], width: int, lines: int = 2) -> list[str]:
    """Return each text as `wrapped` does; where that makes different ones alike, what they share is cut instead.

    >>> told_apart(["a-long-name-of-run-1", "a-long-name-of-run-2"], 16, 1)
    ['a-long … 1', 'a-long … 2']
    """
    whole = [one_line(text) for text in texts]
    labels = [wrapped(text, width, lines) for text in whole]
    for split, kept in _WAYS:
        if len(set(labels)) == len(set(whole)):
            break
        short = _without_shared([tuple(split(text)) for text in dict.fromkeys(whole)], kept)
        labels = [wrapped(short[tuple(split(text))], width, lines) for text in whole]
    return labels


def places_text(places: Sequence[int]) -> str:
    """Return rising numbers as a short text.

    >>> places_text([1, 2, 5, 6, 7])
    '1, 2, 5 to 7'
    """
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    parts = [[f"{run[0]} to {run[-1]}"] if len(run) > 2 else list(map(str, run)) for run in runs]
    return ", ".join(itertools.chain.from_iterable(parts))


def _without_shared(group: Sequence[Units], kept: int) -> dict[Units, str]:
    """Return texts, different ones, with each part that several begin with cut to about `kept` characters."""
    if len(group) == 1:
        return {group[0]: "".join(group[0])}
    shared = 0
    while all(len(one) > shared and one[shared] == group[0][shared] for one in group):
        shared += 1
    head = _beginning(group[0][:shared], kept)
    branches: dict[Units, list[Units]] = {}
    for one in group:
        branches.setdefault(one[shared : shared + 1], []).append(one[shared:])
    out: dict[Units, str] = {}
    for branch in branches.values():
        out |= {(*group[0][:shared], *rest): head + text for rest, text in _without_shared(branch, kept).items()}
    return out


def _beginning(units: Units, kept: int) -> str:
    """Return the units at the beginning that have `kept` characters at most, and one at least; all if few more."""
    whole = "".join(units)
    if len(whole) <= kept + len(_CUT):
        return whole
    text = units[0]
    for unit in units[1:]:
        if len(text) + len(unit) > kept:
            break
        text += unit
    return (text.rstrip("-_/., ") or text) + _CUT
