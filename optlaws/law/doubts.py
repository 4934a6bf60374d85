"""What makes a fitted rival law doubtful: said at the fit, kept in the law's file, said again where it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from optlaws.baselines.base import FloatArray, column
from optlaws.baselines.optimal_rate import cells
from optlaws.errors import OptlawsError, OptlawsWarning
from optlaws.runs import RunTable, format_quantity

WRONG = 10.0  # %, mean error of a left-out group that a law does not predict
SMALL = 0.01  # parameters below it are asked whether they have any part in the law
NO_PART = 1e-4  # relative: predictions that move by less when a parameter is 0 do not know it
AT_EDGE = 1e-3  # relative distance from the end of a box
ASKED = 40  # runs, evenly spread, whose predictions are compared
UNSEEN = ("params", "batch_tokens")  # what a law may be blind to
ALIKE = 1.5  # sizes within this factor are one
MOST = 0.5  # share of the pairs of N and D whose best rate may lie at the edge of those tried


def unseen(law: Any, runs: RunTable) -> dict[str, list[float]]:
    """Return lowest, median and highest value of what a law of losses does not look at and the runs all state.

    Batches count only for a law that looks at neither sizes nor data: tokens stand for them elsewhere.
    """
    if not hasattr(law, "predict") or not len(runs):
        return {}
    names = [name for name in UNSEEN if name not in law.needs]
    if {"params", "tokens"} & set(law.needs):
        names = [name for name in names if name != "batch_tokens"]
    found = {}
    for name in names:
        values = column(runs, name)
        if np.isfinite(values).all():
            found[name] = [float(values.min()), float(np.median(values)), float(values.max())]
    return found


def unlike(name: str, value: float, seen: list[float]) -> str:
    """Return why a run lies outside a law that is blind to a quantity, "" if it is near the training runs' median."""
    if not np.isfinite(value) or max(value / seen[1], seen[1] / value) <= ALIKE:
        return ""
    return (
        f"the law does not look at {name}, {format_quantity(value)} here and {format_quantity(seen[1])}"
        " in training (median)"
    )


def doubts(law: Any, runs: RunTable, groups: Mapping[str, float], by: str) -> list[str]:
    """Return what makes a law doubtful, each in words; none: [].

    Parameters
    ----------
    law : a rival law fitted to the runs.
    runs : RunTable
        Those that it was fitted to.
    groups : mapping
        Mean errors of the groups left out, in %, by the group in words.
    by : str
        The column whose groups they are.
    """
    found = []
    bad = {text: error for text, error in groups.items() if not error <= WRONG}
    if bad:
        worst = max(bad, key=lambda text: bad[text])
        more = f" ({len(bad)} of {len(groups)} groups above {WRONG:g} %)"
        found.append(
            f"it does not predict left-out groups: mean error {bad[worst]:.3g} % with {by} {worst} left out{more}"
        )
    found += _without_part(law, runs)
    for name, ends in law.box.items() if hasattr(law, "box") else ():
        value = getattr(law, name)
        if name not in law.idle and value > 0 and np.abs(np.log(value / np.array(ends))).min() < AT_EDGE:
            found.append(f"{name} {value:.3g} lies at the edge of the values searched")
    if hasattr(law, "doubts"):
        found += law.doubts(runs)
    found += _rates_at_the_edge(law, runs)
    for name, (low, _, high) in unseen(law, runs).items():
        if high > ALIKE * low:
            span = f"{format_quantity(low)} to {format_quantity(high)}"
            what = "size" if name == "params" else "batch"
            found.append(f"it does not look at {name}, which vary from {span} over these runs: fit one {what}")
    return found


def doubts_warning(law: Any, found: list[str]) -> OptlawsWarning:
    """Return the warning about a fitted law."""
    return OptlawsWarning(
        f"law {law.name!r} is doubtful: {'; '.join(found)}; add runs that tell more, or choose another law"
    )


def _answers(law: Any, runs: RunTable) -> FloatArray | None:
    """Return what a law says of the runs: losses, or rates and batches; None where it does neither."""
    if hasattr(law, "predict"):
        return np.asarray(law.predict(runs), dtype=np.float64)
    if not hasattr(law, "recommend"):
        return None
    rows = zip(runs.size.tolist(), runs.tokens.tolist(), runs.final_loss.tolist(), strict=True)
    answers = np.array([law.recommend(n, d, loss) for n, d, loss in rows], dtype=np.float64)
    return answers[:, np.isfinite(answers).all(axis=0)].ravel()


def _without_part(law: Any, runs: RunTable) -> list[str]:
    """Name the small parameters that might as well be 0."""
    if hasattr(law, "from_parameters"):  # a polynomial's terms may be 0
        return []
    small = [name for name, value in law.parameters().items() if abs(value) < SMALL and name not in law.idle]
    if not small or not len(runs):
        return []
    some = runs.select(np.unique(np.linspace(0, len(runs) - 1, min(ASKED, len(runs))).round().astype(int)))
    found = []
    with np.errstate(all="ignore"):
        for name in small:
            try:
                now, without = _answers(law, some), _answers(replace(law, **{name: 0.0}), some)
            except (OptlawsError, ArithmeticError, ValueError):  # 0 is no value for it
                continue
            if now is None or without is None or not len(now) or now.shape != without.shape:
                continue
            if (np.abs(without - now) <= NO_PART * np.abs(now)).all():
                found.append(f"{name} ({law.parameters()[name]:.2g})")
    return [f"of no part in it came out {', '.join(found)}"] if found else []


def _rates_at_the_edge(law: Any, runs: RunTable) -> list[str]:
    """Say whether most pairs of N and D are best at the highest or the lowest rate tried, for laws that advise one."""
    if "peak_lr" not in law.needs or not hasattr(law, "recommend") or not len(runs):
        return []
    if not np.isfinite(law.recommend(runs.size[0], runs.tokens[0], runs.final_loss[0]).peak_lr):
        return []
    at = [column(runs, name) if name in law.needs else np.ones(len(runs)) for name in ("params", "tokens")]
    rate, loss = column(runs, "peak_lr"), runs.final_loss
    edge, groups = 0, cells(at[0], at[1])
    for group in groups:
        best = rate[group][np.argmin(loss[group])]
        edge += bool(best in (rate[group].min(), rate[group].max()))
    if edge <= MOST * len(groups):
        return []
    return [
        f"the best rate lies at the edge of those tried in {edge} of {len(groups)} pairs of N and D:"
        " try rates beyond it"
    ]
