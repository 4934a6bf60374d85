"""What a comparison says, in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optlaws.compare.contenders import OURS
from optlaws.compare.figures import Comparison, Difference, Row, SplitResult
from optlaws.validation import SMALLEST_POOL

NARROW = 0.7  # cover of 90 % intervals below which the verdict says so
TOLD = ("ahead", "behind")
NOT_TOLD, NO_FIGURE = "not told apart", "without a figure"
ONCE = ", but by one fit of each law to one part of the runs, which could have come out otherwise,"
MEASURES = (("error", "mean error"), ("regret", "regret"))


def verdict(found: Comparison) -> str:
    """Return which law is lowest on most splits, and where ours is ahead, behind, or neither by more than the spread.

    Of a split of one fold, where every law was fitted once, that is said: what a fit owes to the runs that it was given
    is not seen there. Ours is behind a rival only where it would be at the level of as many rivals as there are, any of
    which could have been the best by luck; where that alone makes the difference it is said. Only laws that predicted
    every held-out run of a split (or rank in every pool of it) count there; what others are lower in is said apart.
    """
    parts = [_about(found.splits, key, words) for key, words in MEASURES]
    narrow = [
        f"{row.law} {100 * row.cover:.0f} % ({split.name})"
        for split in found.splits
        for row in split.rows
        if row.cover < NARROW and row.runs >= SMALLEST_POOL
    ]
    if narrow:
        parts.append(
            f"90 % intervals that cover far fewer: {', '.join(narrow)}; take their losses for rough ones there."
        )
    simple = [
        f"{row.law} ({split.name}, {row.error:.3g} %)"
        for split in found.splits
        for row in split.rows[:1]
        if row.kind == "reference" and "error" in row.best
    ]
    if simple:
        parts.append(f"No law has a lower error than a simple line: {', '.join(simple)}.")
    for key, words in MEASURES:
        partly: dict[bool, list[str]] = {True: [], False: []}
        for split in found.splits:
            for row in split.rows:
                apart: Difference | None = getattr(row, f"{key}_difference")
                if row.kind != "rival" or _whole(row, split, key) or apart is None or not apart.mean < 0:
                    continue
                by = f"{-apart.mean:.3g}" + (f" ± {apart.upper - apart.mean:.2g}" if np.isfinite(apart.upper) else "")
                partly[apart.behind(_rivals(split))].append(f"{row.law} ({split.name}, by {by})")
        for told, which in partly.items():
            if which:
                what = "ahead of" if told else "lower than, but not told apart from,"
                parts.append(
                    f"On the part of the runs that they predict, {what} {OURS} in {words}: {', '.join(which)}."
                )
    return " ".join(part for part in parts if part)


def _about(splits: Sequence[SplitResult], key: str, words: str) -> str:
    """Return the sentences on one measure, "" where no two laws have it."""
    lowest: dict[str, int] = {}
    beside: dict[str, list[str]] = {name: [] for name in (*TOLD, NOT_TOLD, *(f"{t}{ONCE}" for t in TOLD), NO_FIGURE)}
    counted = 0
    for split in splits:
        whole = [row for row in split.rows if row.kind != "reference" and _whole(row, split, key)]
        rivals = [row for row in whole if row.kind == "rival"]
        ours = next((row for row in whole if row.kind == "ours"), None)
        if not rivals:
            continue
        counted += 1
        least = min(getattr(row, key) for row in whole)
        for row in whole:
            if getattr(row, key) <= least + 1e-12:
                lowest[row.law] = lowest.get(row.law, 0) + 1
        best = min(rivals, key=lambda row: float(getattr(row, key)))
        if ours is None:
            beside[NO_FIGURE].append(f"{split.name} ({best.law} {_number(best, key)})")
            continue
        apart: Difference | None = getattr(best, f"{key}_difference")
        among = _rivals(split)
        sign = 0 if apart is None else -1 if apart.behind(among) else max(apart.sign, 0)
        text = f"{split.name} ({_number(ours, key)}, {best.law} {_number(best, key)}"
        if apart is not None and apart.sign:
            text += f": {abs(apart.mean):.3g} ± {apart.upper - apart.mean:.2g}"
            text += "" if sign else f", which the best of {among} rivals may be lower by luck"
        told = TOLD[sign < 0] + (ONCE if len(split.folds) == 1 else "") if sign else NOT_TOLD
        beside[told].append(f"{text})")
    if not counted:
        return ""
    most = max(lowest.values())
    names = [name for name in lowest if lowest[name] == most]
    shown = " and ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])
    text = f"Lowest {words} on {most} of {counted} split{'s' * (counted > 1)}: {shown}"
    if OURS not in names:
        text += f"; {OURS} on {lowest.get(OURS, 0)}"
    said = "; ".join(f"{what} on {', '.join(which)}" for what, which in beside.items() if which)
    return f"{text}. {OURS} against the best rival of each: {said}."


def _rivals(split: SplitResult) -> int:
    return sum(row.kind == "rival" for row in split.rows)


def _whole(row: Row, split: SplitResult, key: str) -> bool:
    return row.runs == split.held_out if key == "error" else row.pools == split.pools > 0


def _number(row: Row, key: str) -> str:
    return f"{getattr(row, key):.3g} %"
