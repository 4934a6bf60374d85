"""The sentence of advice under a ranking, and numbers written for people."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.runs import RunTable

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.intp]

LIKELY = 0.4  # times the lowest one's P(best): the least with which a cheaper or extendable one is preferred
_UNEVEN = 0.4  # by which a line may be longer than the mean, so that it ends at a comma
_KEPT = "\N{NO-BREAK SPACE}"
_CHEAPER = 0.05  # share of compute that counts as a reason to prefer a candidate


def decimals(half: FloatArray, width: FloatArray, order: IndexArray) -> int:
    widths = half[order[1:12]]
    widths = widths[widths > 0]
    typical = float(np.median(widths)) if len(widths) else float(width[order[0]])
    if not np.isfinite(typical) or typical <= 0:
        return 4
    return int(np.clip(1 - np.floor(np.log10(typical)), 3, 6))


def advise(
    runs: RunTable,
    order: IndexArray,
    width: FloatArray,
    in_domain: BoolArray,
    reasons: Sequence[str],
    risk: FloatArray | None,
    max_risk: float,
    *,
    difference: FloatArray,
    difference_lower: FloatArray,
    difference_upper: FloatArray,
    p_best: FloatArray,
    blind: str = "",
    left_out: int = 0,
    left_out_unknown: int = 0,
) -> tuple[str, int | None]:
    """Say in one sentence what follows from the ranking, and which candidate that names (None: none of them).

    Candidates are called by their rank, from 1.

    `blind` says of a law that does not look at the schedule what it looks at; "" for other laws. `left_out` counts the
    candidates that are not among these because of their risk, `left_out_unknown` those of them whose risk is not known.
    """
    safe = np.ones(len(order), dtype=bool) if risk is None else ~(risk > max_risk)
    digits = decimals(difference_upper - difference, width, order)
    best = int(order[0])
    chosen: int | None = 0  # rank from 0
    if len(order) == 1:
        chosen = 0 if safe[best] else None
        text = f"Only one candidate{' is left' if left_out else ''}: nothing to compare it with"
    else:
        rivals = np.flatnonzero(difference_lower[order] <= 0.0)  # ranks from 0, the best among them
        equal = np.flatnonzero(difference[order] == 0.0)
        if blind and len(equal) > 1:
            chosen = None
            text = (
                f"{_list(equal + 1)} have the same predicted loss because {blind}, not at the schedule:"
                " it cannot rank them; take a built-in law, or fit one without --law"
            )
        elif not safe[order[rivals]].any():
            text = _risky_best(order, rivals, safe, risk, max_risk, difference, digits)
            others = np.flatnonzero(safe[order])
            chosen = int(others[0]) if len(others) else None
        elif len(rivals) == 1:
            second = int(order[1])
            low, high = (number_text(end[second], digits) for end in (difference_lower, difference_upper))
            lead = f"{number_text(difference[second], digits)} below the next, 90 % interval {low} .. {high}"
            take = "Choose" if in_domain.any() else "By this law's account, which has seen no such run, take"
            text = f"{take} 1: its predicted loss is {lead}, P(best) {percent(p_best[best])}"
        else:
            text, chosen = _undecided(
                runs, order, rivals, in_domain, safe, risk, max_risk,
                difference, difference_lower, difference_upper, p_best, digits,
            )  # fmt: skip
    if chosen is not None and _unknown(risk, int(order[chosen])):
        text += f"; the divergence risk of {chosen + 1} is not known"
    which = {f"above {_share(max_risk)}": left_out > left_out_unknown, "not known": left_out_unknown > 0}
    why = " or ".join(text for text, some in which.items() if some)
    gone = f"; {left_out:,} left out: divergence risk {why}" if left_out else ""
    text = f"{text}{_risky(order, safe, risk, max_risk)}{gone}{_outside(order, in_domain, reasons)}."
    return text, None if chosen is None else int(order[chosen])


def _risky_best(
    order: IndexArray,
    rivals: IndexArray,
    safe: BoolArray,
    risk: FloatArray | None,
    max_risk: float,
    difference: FloatArray,
    digits: int,
) -> str:
    """Say what to do where every candidate of lowest loss has a divergence risk above the accepted one."""
    shares = np.zeros(1) if risk is None else risk[order[rivals]]
    if len(rivals) == 1:
        what = f"it has the lowest predicted loss, but diverges with a probability of {percent(float(shares[0]))}"
    else:
        ends = dict.fromkeys(percent(float(end)) for end in (shares.min(), shares.max()))
        odds = f"a probability of {' to '.join(ends)} each"
        what = f"they have the lowest predicted losses, but diverge with {odds}"
    account = f"by this law's account, above the accepted {_share(max_risk)}"
    text = f"Do not run {_list(rivals + 1)} as planned: {what} {account}"
    others = np.flatnonzero(safe[order])
    if not len(others):
        return f"{text}, and no candidate is safe"
    cost = number_text(difference[order[others[0]]], digits)
    row = int(order[others[0]])
    what = f"other one is {others[0] + 1}, of unknown risk" if _unknown(risk, row) else f"safe one is {others[0] + 1}"
    return f"{text}; the best {what}, for {cost} more predicted loss"


def _unknown(risk: FloatArray | None, row: int) -> bool:
    return risk is not None and bool(np.isnan(risk[row]))


def _risky(order: IndexArray, safe: BoolArray, risk: FloatArray | None, max_risk: float) -> str:
    """Name the candidates above the accepted divergence risk: all of them if few, else how many."""
    ranks = np.flatnonzero(~safe[order])
    if risk is None or not len(ranks):
        return ""
    if len(ranks) > 6:
        return f"; divergence risk above {_share(max_risk)}: {len(ranks):,} candidates"
    named = ", ".join(f"{place + 1} ({percent(float(risk[order[place]]))})" for place in ranks.tolist())
    return f"; divergence risk above {_share(max_risk)}: {named}"


def _share(p: float) -> str:
    return f"{100 * p:g} %"


def _undecided(
    runs: RunTable,
    order: IndexArray,
    rivals: IndexArray,
    in_domain: BoolArray,
    safe: BoolArray,
    risk: FloatArray | None,
    max_risk: float,
    difference: FloatArray,
    difference_lower: FloatArray,
    difference_upper: FloatArray,
    p_best: FloatArray,
    digits: int,
) -> tuple[str, int]:
    """Say which of several that cannot be told apart to take, and why; return its rank from 0, too."""
    last = int(order[rivals[-1]])
    low, high = (number_text(end[last], digits) for end in (difference_lower, difference_upper))
    what = "difference" if len(rivals) == 2 else "largest difference"
    numbers = f"{what} {number_text(difference[last], digits)}, 90 % interval {low} .. {high}"
    choice, why, other = _prefer(runs, order, rivals, in_domain, safe, risk, max_risk, p_best)
    more = number_text(difference[order[choice]], digits)
    cost = f", for {more} more predicted loss" if float(more) > 0 and len(rivals) > 2 else ""
    text = f"{_list(rivals + 1)} cannot be told apart ({numbers}); prefer {choice + 1}: {why}{cost}"
    if other is not None:
        more = number_text(difference[order[other]] - difference[order[choice]], digits)
        dearer = f", for {more} more" if float(more) > 0 else ""
        text += f"; {other + 1} could be extended without a restart{dearer}"
    return text, choice


def _prefer(
    runs: RunTable,
    order: IndexArray,
    rivals: IndexArray,
    in_domain: BoolArray,
    safe: BoolArray,
    risk: FloatArray | None,
    max_risk: float,
    p_best: FloatArray,
) -> tuple[int, str, int | None]:
    """Choose among ranks that cannot be told apart, one of them safe; also return one that could be extended instead.

    Safe ones, of those the ones inside the domain, then the cheapest, then the first extendable, then the lowest. A
    cheaper or an extendable one is taken only if its P(best) is at least `LIKELY` times that of the lowest of these.
    """
    calm = rivals[safe[order[rivals]]]
    reasons = []
    if calm[0] != rivals[0]:
        unknown = any(_unknown(risk, row) for row in order[calm].tolist())
        stands = "not known to be above" if unknown else "at most"
        reasons = [f"its divergence risk is {stands} the accepted {_share(max_risk)}"]
    inside = calm[in_domain[order[calm]]]
    pool = inside if len(inside) else calm
    if len(inside) and inside[0] != calm[0]:
        reasons.append("it lies inside the law's domain")
    why = ", and ".join(reasons)
    able = _extendable(runs, order[pool])
    whole, could = pool, pool[able]
    near = p_best[order[pool]] >= LIKELY * p_best[order[pool[0]]]
    near[0] = True
    pool = pool[near]
    compute = (runs.size * runs.tokens)[order[pool]]  # active parameters, where a network is sparse
    if np.isfinite(compute).all() and compute.min() < compute[0] * (1.0 - _CHEAPER):
        saved = 1.0 - compute.min() / compute[0]
        pool = pool[compute <= compute.min() * (1.0 + 1e-9)]
        why = f"it needs {100 * saved:.0f} % less compute"
    extendable = pool[np.isin(pool, could)]
    if len(extendable):
        choice, reason = int(extendable[0]), "it can be extended without a restart"
        if choice == 0:
            reason = "it has the lowest predicted loss and can be extended without a restart"
        return choice, f"{why}, and {reason}" if why else reason, None
    other = int(could[0]) if len(could) and len(pool) < len(whole) else None
    return int(pool[0]), why or "it has the lowest predicted loss", other


def _extendable(runs: RunTable, rows: IndexArray) -> BoolArray:
    """Return which schedules can go on past their end without starting again, shape of `rows`."""
    schedules = runs.schedules
    if not isinstance(schedules, tuple):
        return np.zeros(len(rows), dtype=bool)
    return np.array([schedules[row].extendable for row in rows.tolist()], dtype=bool)


def _outside(order: IndexArray, in_domain: BoolArray, reasons: Sequence[str]) -> str:
    """Name the candidates outside the law's domain: all of them if few, else how many, with the reasons they share."""
    ranks = np.flatnonzero(~in_domain[order])
    if not len(ranks):
        return ""
    texts = [reasons[int(row)].rstrip(".") for row in order[ranks]]
    shared = [part for part in texts[0].split("; ") if all(part in text.split("; ") for text in texts)]
    first = "; ".join(shared) if any(shared) else f"{ranks[0] + 1}: {texts[0]}" if texts[0] else ""
    why = f": {first}" if first else ""
    if len(ranks) == 1:
        return f" (careful: {ranks[0] + 1} lies outside the law's domain{why})"
    what = "all" if len(ranks) == len(order) > 2 else _list(ranks + 1)
    if len(ranks) > 6 and what != "all":
        what = f"{len(ranks):,} candidates"
    return f" (careful: {what} lie outside the law's domain{why})"


def _list(ranks: npt.NDArray[Any]) -> str:
    if len(ranks) > 3 and ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"{ranks[0]} to {ranks[-1]}"
    if len(ranks) > 6:
        return ", ".join(map(str, ranks[:5])) + f" and {len(ranks) - 5:,} more"
    numbers = [int(rank) for rank in ranks]
    if len(numbers) == 1:
        return str(numbers[0])
    return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"


def one_line(text: str) -> str:
    """Return text in which line breaks, tabs and other characters that cannot be shown are escaped.

    >>> one_line("a\\nb")
    'a\\\\nb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def even_lines(text: str, width: int, most: int) -> list[str]:
    """Return text in lines of at most `width` characters; up to `most` of them are about as long as each other.

    They end at commas where that makes no more lines, and none much longer than their mean.

    >>> even_lines("Law a, 85M parameters, 2.56B tokens, weight decay 0.05", 50, 2)
    ['Law a, 85M parameters,', '2.56B tokens, weight decay 0.05']
    >>> even_lines("one two three four", 17, 2)
    ['one two', 'three four']
    """
    lines = textwrap.wrap(text, width)
    if not 1 < len(lines) <= most:
        return lines
    clauses = text.replace(", ", ",\n").replace(" ", _KEPT).replace("\n", " ")
    mean = len(text) / len(lines)
    for whole, widest in ((clauses, min(width, int((1.0 + _UNEVEN) * mean))), (text, width)):
        for narrow in range(int(mean), widest + 1):
            parts = textwrap.wrap(whole, narrow, break_long_words=False, break_on_hyphens=whole is text)
            if len(parts) <= len(lines) and max(map(len, parts)) <= widest:
                return [part.replace(_KEPT, " ") for part in parts]
    return lines


def percent(p: float) -> str:
    """Return a probability for people; draws never make it quite 0 or 1.

    >>> percent(0.971), percent(1.0), percent(0.0)
    ('97 %', '> 99 %', '< 1 %')
    """
    if p < 0.005:
        return "< 1 %"
    return "> 99 %" if p > 0.995 else f"{100 * p:.0f} %"


def number_text(value: float, digits: int, sign: bool = False) -> str:
    """Return a loss or a difference for people, without a minus before zero; absurd ones as a power of ten.

    >>> number_text(-0.00001, 3), number_text(0.01, 3, sign=True), number_text(1.234e9, 3)
    ('0.000', '+0.010', '1.23e+09')
    """
    plus = "+" if sign else ""
    return f"{value:{plus}z.{digits}f}" if abs(value) < 1e5 else f"{value:{plus}.3g}"
