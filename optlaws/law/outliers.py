"""Runs that stand apart from the law of the others: mistyped losses, and runs that were called completed by mistake.

They are named, and left out where the others then scatter less about their law: one loss in 120 that was 20 % too high
had made errors 2.7 times as large and intervals nearly five times as wide.

The constants below were chosen with random parts of the public runs in view, with and without a made-up error: up to a
sixth of such small parts still name a run that is none, and errors of a few per cent are mostly missed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from optlaws.dynamics.model import FloatArray
from optlaws.errors import OptlawsWarning
from optlaws.regression.run_noise import noise_variance, share_of
from optlaws.regression.trend_field import Posterior, Problem, expected_loss
from optlaws.runs import RunTable
from optlaws.runs._table import NUMBER_COLUMNS

FEWEST = 12  # runs: fewer do not say which of them is the odd one
LEAST = 0.01  # of the loss: less is not worth a word
ROBUST_SDS = 5.0
APART = 3.0  # times as far as the next run: tails that fall off step by step are no mistakes
MOST = 0.2  # of the runs: more of them are no exception
NAMED = 5
DIGITS = 6  # of a loss that is not another run's by chance
MANY = 0.25  # share of runs that are no copies by chance
LEAST_USUAL = {  # medians below which a column is doubted, what it may hold instead, and what it should
    "params": (1000.0, "millions", "parameters, such as 85e6 or 85M"),
    "batch_tokens": (256.0, "sequences", "tokens of a step: sequences times their length"),
}
FAR_RATE = 10.0  # times the peak rate of any other run: public tables leave gaps of five at most
NORMAL_MAD = 1.4826  # standard deviations per median absolute deviation of normal errors
WAY_OUT = "correct or drop them, or set their status to diverged"
WAY_OUT_OF_ONE = "correct or drop it, or set its status to diverged"


def apart(residuals: FloatArray, growth: FloatArray) -> np.ndarray:
    """Return the places of runs that stand apart, the farthest first.

    A run counts with the least of its residuals, 0 where they disagree in sign: what is left out together with runs of
    its kind may be far off without being wrong. In units of the noise that grows with damage, these are put in order;
    the largest k <= `MOST` n whose last is `APART` times as far as the next run, and all of them beyond `ROBUST_SDS`
    robust standard deviations (1.4826 times the median), stand apart if they are off by more than `LEAST` too.

    Parameters
    ----------
    residuals : (p, n) relative, one row for the fit and each partition; NaN where a run was not left out.
    growth : (n,) noise sd in units of that of an undamaged run, at least 1.

    >>> apart(np.array([[0.001, -0.002, 0.09, *9 * [0.001]]]), np.ones(12)).tolist()
    [2]
    """
    count = residuals.shape[1]
    if count < FEWEST:
        return np.empty(0, dtype=np.intp)
    known = np.isfinite(residuals)
    least = np.where(known, np.abs(residuals), np.inf).min(axis=0)
    sign = np.where(known, np.sign(residuals), 0.0)
    least[(sign.max(axis=0) > 0) & (sign.min(axis=0) < 0)] = 0.0
    far = least / growth
    order = np.argsort(-far, kind="stable")
    ranked, limit = far[order], ROBUST_SDS * NORMAL_MAD * float(np.median(far))
    gaps = [k for k in range(1, int(MOST * count) + 1) if ranked[k - 1] > max(limit, APART * ranked[k])]
    if not gaps:
        return np.empty(0, dtype=np.intp)
    found = order[: gaps[-1]]
    return np.asarray(found[least[found] > LEAST])


def outliers(
    problem: Problem, posterior: Posterior, left_out: Mapping[str, FloatArray], runs: RunTable
) -> list[dict[str, Any]]:
    """Return the runs that stand apart, as `run_id`, `loss` and `predicted`, the farthest first.

    Parameters
    ----------
    problem, posterior : a fit and its points, of which the first n are the final losses of the n runs.
    left_out : residuals of points whose group was left out, (m,) each, by partition.
    runs : the n runs.
    """
    if len(runs) < FEWEST:
        return []
    first = slice(len(runs))
    columns, loss = problem.columns[first], problem.loss[first]
    predicted = expected_loss(posterior, columns, problem.coordinates[first], problem.size[first])
    share = share_of(columns, posterior.coefficients, posterior.damage_columns, predicted)
    peaks = share_of(columns, posterior.coefficients, posterior.peak_columns, predicted)
    s = posterior.settings  # not the runs' own growth and spikes: outliers are in these
    spike = s.spike_typical / s.noise_typical**2
    growth = np.sqrt(noise_variance(1.0, s.noise_growth, spike, share, peaks))
    residuals = np.stack([1.0 - predicted / loss, *(errors[first] for errors in left_out.values())])
    return [
        {"run_id": runs.run_id[i], "loss": float(loss[i]), "predicted": float(predicted[i])}
        for i in apart(residuals, growth).tolist()
    ]


def by_the_others(
    found: Sequence[Mapping[str, Any]], problem: Problem, posterior: Posterior, runs: RunTable
) -> list[dict[str, Any]]:
    """Return runs that stand apart as left out, `predicted` by a law of the others; arguments as in `outliers`."""
    rows = np.array([runs.run_id.index(one["run_id"]) for one in found])
    loss = expected_loss(posterior, problem.columns[rows], problem.coordinates[rows], problem.size[rows])
    return [{**one, "predicted": float(x), "left_out": True} for one, x in zip(found, loss, strict=True)]


def copies(runs: RunTable) -> list[tuple[str, str]]:
    """Return pairs of names of runs that are one another's copies: equal in all columns, to the loss' last digit.

    Repeats differ by their noise; a copy under another name counts as a second run that it is not. Losses of fewer than
    `DIGITS` digits may be equal by chance: those are copies only where they are `MANY` of the runs.
    """
    if not isinstance(runs.schedules, tuple):
        return []
    numbers = [getattr(runs, name) for name in NUMBER_COLUMNS]
    texts = [runs.optimizer, runs.source, *runs.extra.values()]
    first: dict[tuple[Any, ...], str] = {}
    pairs, sure = [], []
    for i, name in enumerate(runs.run_id):
        loss = float(runs.final_loss[i])
        key = (runs.schedules[i], *(str(values[i]) for values in (*numbers, *texts)))
        other = first.setdefault(key, name) if np.isfinite(loss) else name
        if other == name:
            continue
        pairs.append((other, name))
        if len(f"{loss:.12g}".replace(".", "").lstrip("0")) >= DIGITS:
            sure.append((other, name))
    return pairs if len(pairs) >= MANY * len(runs) else sure


def warn_of_copies(runs: RunTable, stacklevel: int) -> None:
    """Warn of runs that are copies of others, if there are any."""
    pairs = copies(runs)
    if not pairs:
        return
    (one, two), count = pairs[0], len(pairs)
    words, them = ("1 run is a copy", "it") if count == 1 else (f"{count} runs are copies", "them")
    warnings.warn(
        OptlawsWarning(
            f"{words} of another under a new name, to the last digit of the loss (first {two!r} of {one!r}), and"
            f" intervals come out too narrow; drop {them}"
        ),
        stacklevel=stacklevel + 1,
    )


def lonely_rates(peak: FloatArray) -> np.ndarray:
    """Return the places of the few runs whose peak rates, (n,), are ten or more times all others', or a tenth of them.

    `MOST` of the runs at the most, of at least `FEWEST`: a rate in per cent among rates as they are. A loss beside a
    wrong rate looks like any other, and spoils the risk and advice about rates without a word.

    >>> lonely_rates(np.array([0.1, *11 * [0.001]])).tolist()
    [0]
    """
    order = np.argsort(peak, kind="stable")
    if len(peak) < FEWEST or not peak[order[0]] > 0:
        return np.empty(0, dtype=np.intp)
    cut = np.flatnonzero(peak[order[1:]] >= FAR_RATE * peak[order[:-1]]) + 1
    few = int(MOST * len(peak))
    low, high = cut[cut <= few], cut[len(peak) - cut <= few]
    return np.sort(np.concatenate([order[: low[-1] if len(low) else 0], order[high[0] if len(high) else len(peak) :]]))


def warn_of_units(runs: RunTable, stacklevel: int) -> None:
    """Warn of sizes and batches that are none, and of runs whose peak rate stands apart from all others'."""
    for name, values in (("params", runs.size), ("batch_tokens", runs.batch_tokens)):
        least, perhaps, unit = LEAST_USUAL[name]
        known = values[np.isfinite(values)]
        if len(known) and np.median(known) < least:
            warnings.warn(
                OptlawsWarning(f"{name} has a median of {np.median(known):.4g}: {perhaps}? it counts {unit}"),
                stacklevel=stacklevel + 1,
            )
    peak = np.asarray(runs.batch().peak, dtype=float)
    odd = lonely_rates(peak)
    if not len(odd):
        return
    rest = np.delete(peak, odd)
    named = ", ".join(f"{runs.run_id[i]!r} ({peak[i]:.4g})" for i in odd[:NAMED])
    more = f" and {len(odd) - NAMED} more" if len(odd) > NAMED else ""
    noun, them = ("1 run has a peak rate", "it") if len(odd) == 1 else (f"{len(odd)} runs have peak rates", "them")
    warnings.warn(
        OptlawsWarning(
            f"{noun} ten or more times off those of all others, {rest.min():.4g} .. {rest.max():.4g}: {named}{more};"
            f" correct {them} if mistyped (per cent?), or advice on rates and risk is of no use"
        ),
        stacklevel=stacklevel + 1,
    )


def outliers_text(found: Sequence[Mapping[str, Any]]) -> str:
    """Return runs that stand apart in words, `NAMED` of them."""
    named = ", ".join(f"{x['run_id']!r} (loss {x['loss']:.5g}, predicted {x['predicted']:.5g})" for x in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    noun, verb = ("1 run does", "is") if len(found) == 1 else (f"{len(found)} runs do", "are")
    fate = f"{verb} left out" if found[0].get("left_out") else "may spoil the law"
    return f"{noun} not fit the others and {fate}: {named}{more}"


def outliers_warning(found: Sequence[Mapping[str, Any]]) -> OptlawsWarning:
    """Return the warning about them, with the way out."""
    return OptlawsWarning(f"{outliers_text(found)}; {WAY_OUT if len(found) > 1 else WAY_OUT_OF_ONE}")
