"""The convex bound's agreement with real curves and its learning-rate transfer (arXiv 2501.18965).

The paper shows both in figures and prints few numbers. What it prints, or what follows from a formula, has a tolerance;
the rest is measured here on the public runs and is for information ("other measure").
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import spearmanr

from optlaws.baselines.convex_bound import ConvexBound, best_factor, bound_terms
from optlaws.runs import CurveTable, RunTable, read_curves, read_runs
from optlaws.schedules import Schedule, parse
from paper_repro.core import Missing, Row, expected, need, new_axes

Floats = NDArray[np.float64]
SIZE, STEPS = 84_934_656, 50_000  # the runs of the paper's figures, "124M" with embeddings
SHARES = np.linspace(0.1, 1.0, 33)
FIRST, READINGS = 0.1, 60  # share of a run before which its curve is not compared; readings kept
OTHER = "other measure: the paper shows a figure and prints no number"


def wsd(steps: int, share: float) -> Schedule:
    """Return a schedule of peak 1 with a linear decay over a share of the steps."""
    return parse({"kind": "wsd", "peak_lr": 1.0, "total_steps": steps, "decay_steps": max(1, round(share * steps))})


def reproduce(data: Path, quick: bool, figures: Path | None = None) -> list[Row | Missing]:
    """Return the rows."""
    out: list[Row | Missing] = [*_theory()]
    runs = read_runs(need(data, "schaipp_runs.csv", "the runs; only the theory's rows can be computed without them"))
    curves = read_curves(need(data, "schaipp_curves.csv", "the curves; no agreement of shapes without them"))
    runs = runs.select((runs.params == SIZE) & (runs.steps == STEPS))
    out += _shapes(runs, curves, quick, figures)
    out += _transfer(runs, figures)
    return out


def _theory() -> list[Row]:
    book = expected("convex_bound")
    before = best_factor(wsd(4000, 0.2).array())[0]
    after = np.array([best_factor(wsd(8000, share).array())[0] for share in SHARES])
    best = float(SHARES[np.argmin(np.abs(after - before))])
    lengths = [best_factor(wsd(steps, 0.2).array())[0] for steps in (400, 1600, 6400, 25_600, 102_400)]
    decays = [best_factor(wsd(25_600, share).array())[0] for share in SHARES]
    worst = 0.0
    for count in (1, 2, 10, 100, 1000):
        exact = np.array([1.0 / count, 0.25 * (1.0 + np.sum(1.0 / np.arange(1.0, count)))])
        worst = max(worst, float(np.abs(np.array(bound_terms(np.full(count, 0.5))) / exact - 1).max()))
    ratio = [a / b for a, b in pairwise(lengths)]
    return [
        book.row("horizon transfer", "decay share that keeps the rate best at twice the length", best),
        book.row(
            "signs", "best rate falls with the length", float(np.all(np.diff(lengths) < 0)),
            f"by {min(ratio):.3f} to {max(ratio):.3f} for four times the length (a square root would be 2)",
        ),
        book.row("signs", "best rate rises with the share of the decay", float(np.all(np.diff(decays) > 0))),
        book.row("closed form", "constant rate: largest relative error against harmonic numbers", worst),
    ]  # fmt: skip


def bound_curve(run: RunTable, steps: Floats, loss: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the bound at its best rate, the measured losses and the share of the run, at readings evenly spread."""
    rates = run.schedule_tuple()[0].array()
    late = np.flatnonzero(steps >= max(2.0, FIRST * len(rates)))
    late = late[np.unique(np.linspace(0, len(late) - 1, min(READINGS, len(late))).astype(int))]
    factor = best_factor(rates)[0]
    terms = np.array([bound_terms(rates[: int(n)]) for n in steps[late]])
    return terms @ np.array([1.0 / factor, factor]), loss[late], steps[late] / len(rates)


def _shapes(runs: RunTable, curves: CurveTable, quick: bool, figures: Path | None) -> list[Row | Missing]:
    where = curves.runs()
    found: dict[tuple[str, float], list[tuple[float, float]]] = {}
    shown: dict[tuple[str, float], tuple[Floats, Floats, Floats]] = {}
    for i, name in enumerate(runs.run_id):
        if name not in where:
            continue
        run = runs.select([i])
        schedule = run.schedule_tuple()[0]
        key = schedule.kind, schedule.peak
        if quick and key in found:
            continue
        bound, loss, share = bound_curve(run, curves.step[where[name]], curves.loss[where[name]])
        late = share > 0.8
        end = float(np.corrcoef(bound[late], loss[late])[0, 1]) if late.sum() > 5 else np.nan
        found.setdefault(key, []).append((float(np.corrcoef(bound, loss)[0, 1]), end))
        shown.setdefault(key, (bound, loss, share))
    if not found:
        return [Missing("schaipp_curves.csv", f"curves of {SIZE} parameters and {STEPS} steps; no shapes to compare")]
    out: list[Row | Missing] = []
    for (kind, peak), values in sorted(found.items()):
        whole, end = np.nanmean(values, axis=0)
        note = f"{len(values)} runs, readings after 10 % of the run; last fifth alone {end:.4f}; {OTHER}"
        cell = f"correlation of bound and loss, {kind}, peak {peak:g}"
        out.append(Row("shape agreement", cell, None, float(whole), None, note))
    law = ConvexBound.fit(runs)
    rank = float(spearmanr(law.predict(runs), runs.final_loss).statistic)
    error = 100 * np.abs(law.predict(runs) / runs.final_loss - 1)
    note = f"{len(runs)} runs, one D, G, L0: error {error.mean():.2f} % (max {error.max():.2f}); {OTHER}"
    out.append(Row("shape agreement", "Spearman of bound and final loss", None, rank, None, note))
    if figures:
        figure, axes = new_axes(2)
        for (kind, peak), (bound, loss, share) in shown.items():
            if np.isclose(peak, 1e-3):
                axes[0].plot(share, bound, label=kind)
                axes[1].plot(share, loss, label=kind)
        axes[0].set(xlabel="share of the run", ylabel="bound at its best rate", title="theory")
        axes[1].set(xlabel="share of the run", ylabel="validation loss", title="85M parameters, peak 1e-3")
        axes[1].legend(fontsize=7)
        figure.savefig(figures / "convex_bound_shapes.png", dpi=120)
    return out


def _transfer(runs: RunTable, figures: Path | None) -> list[Row | Missing]:
    """Return the best rate by share of the decay: theory and measured."""
    points: dict[float, list[tuple[float, float]]] = {}
    for schedule, loss in zip(runs.schedule_tuple(), runs.final_loss, strict=True):
        if schedule.kind == "wsd" and schedule["shape"] == "linear":
            points.setdefault(schedule["decay"] / STEPS, []).append((schedule.peak, float(loss)))
    best, spans = {}, []
    for share, pairs in sorted(points.items()):
        rate, loss = np.array(pairs).T
        if len(np.unique(rate)) < 3:
            continue
        columns = np.stack([1.0 / rate, rate, np.ones(len(rate))], axis=1)
        scale = np.linalg.norm(columns, axis=0)
        low, high, _ = nnls(columns / scale, loss)[0] / scale
        if low > 0 and high > 0:
            best[share] = float(np.sqrt(low / high))
            spans.append((len(pairs), rate.min(), rate.max()))
    if len(best) < 3:
        return [
            Missing("schaipp_runs.csv", "WSD runs at three peak rates and three decay shares; no transfer to compare")
        ]
    shares = np.array(list(best))
    measured = np.log(best[shares[-1]] / np.array(list(best.values())))
    rates = np.array([best_factor(wsd(STEPS, share).array())[0] for share in shares])
    theory = np.log(rates[-1] / rates)
    rising = float(np.all(np.diff(measured) < 0))
    pairs_text = ", ".join(f"{share:.3g}: {value:.2g}" for share, value in best.items())
    cell = "measured best rate rises with the share of the decay"
    rows: list[Row | Missing] = [expected("convex_bound").row("signs", cell, rising, pairs_text)]
    cell = "ln(best rate, largest share / this share): correlation of theory and measured"
    note = f"{len(shares)} shares, {sum(s[0] for s in spans)} runs; the authors' runs at a rate of 3e-3 are not here"
    agreement = float(np.corrcoef(theory, measured)[0, 1])
    rows.append(Row("learning-rate transfer", cell, None, agreement, None, f"{note}; {OTHER}"))
    cell = "measured change of ln(best rate) per unit of the theory's"
    note = "1 would be agreement in size, not only in shape: the measured best rate moves more"
    slope = float(theory @ measured / (theory @ theory))
    rows.append(Row("learning-rate transfer", cell, None, slope, None, f"{note}; {OTHER}"))
    if figures:
        figure, ax = new_axes()
        ax.plot(shares, theory, "o-", label="theory")
        ax.plot(shares, measured, "s-", label="measured, 85M, 50,000 steps")
        ax.set(xlabel="share of the decay", ylabel="ln(best rate, largest share / best rate)", title="rate transfer")
        ax.legend()
        figure.savefig(figures / "convex_bound_transfer.png", dpi=120)
    return rows
