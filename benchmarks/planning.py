"""What planned schedules are worth: python benchmarks/planning.py [--write].

Four checks on public runs. (1) Fitted on the three curves of the Multi-Power Law's protocol, what does each law hold
best, what does the other think of it, and what did the runs show that were not fitted? (2) With a whole pool of runs
(one size, one length) left out, is the schedule that is recommended the one that did best? (3) With families, horizons
and peak rates left out, how often was a difference that the law calls real there? (4) Does the range in which
`recommend` is 90 % sure of the best peak rate hold the real one, and what does its choice cost, with caution and
without? --write puts it into docs/optimize.md, with two figures. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import table
from numpy.typing import NDArray
from public import FITTED, completed, load, load_curves, schaipp_splits, write_page
from scipy.special import ndtr

from optlaws import Law, RunTable, Schedule, optimize_schedule
from optlaws.baselines.multi_power import MultiPowerLaw, optimise_rates
from optlaws.law import fit_law
from optlaws.optimize import FREE, Optimum
from optlaws.optimize.free import differences
from optlaws.optimize.task import Judged, judge
from optlaws.ranking import Z
from optlaws.recommend import FLAT, where_lowest
from optlaws.runs import CurveTable
from optlaws.validation import same_budget, sizes

ROOT = Path(__file__).resolve().parents[1]
Floats = NDArray[np.float64]
SIZES = ("25M", "100M")
STEPS, WARMUP, PEAK = 24_000, 2_160, 3e-4
SHOWN = ("cosine_24000", "wsd_20000_24000", "wsdld_20000_24000")
MIDDLE = 84_934_656
SURE, CLOSE = 0.95, 0.003
CHOICES = ("mean", "cautious", "every_sd")
RATES = 5  # peak rates of a row in which the lowest is looked for


def planned(law: Law, **bounds: Any) -> tuple[Optimum, float]:
    """Return the optimum for the protocol's run, and seconds."""
    start = time.perf_counter()
    found = optimize_schedule(law, steps=STEPS, min_peak=PEAK, max_peak=PEAK, warmup=[WARMUP], **bounds)
    return found, time.perf_counter() - start


def text_of(found: Optimum) -> str:
    """Return a schedule for a table."""
    if found.family == FREE:
        return "free: " + " / ".join(f"{step}:{rate:.3g}" for step, rate in found.schedule["points"])
    return str(found.schedule).replace(",steps=24000", "").replace(f",warmup={WARMUP}", "")


def against(size: str) -> dict[str, Any]:
    """Return what the laws fitted on three curves of a size hold of real runs and of each other's optimum."""
    runs, curves = load("mpl"), load_curves("mpl")
    shape = [name.split("-")[1] for name in runs.run_id]
    mine = [name.startswith(f"{size}-") for name in runs.run_id]
    train = runs.select([i for i, ok in enumerate(mine) if ok and shape[i] in FITTED])
    law = fit_law(train, curves)
    rival = MultiPowerLaw.fit(train, CurveTable(curves.run_id, curves.step + 1.0, curves.loss))
    found, seconds = planned(law)
    start = time.perf_counter()
    rates = optimise_rates(rival, steps=STEPS, warmup=WARMUP, peak=PEAK)
    rival_seconds = time.perf_counter() - start
    where, rows = curves.runs(), []
    schedules: list[tuple[str, Schedule, float]] = []
    for i, ok in enumerate(mine):
        if ok and shape[i] in SHOWN:
            loss = float(curves.loss[where[runs.run_id[i]]][-1])
            label = f"{shape[i]}, {'fitted' if shape[i] in FITTED else 'not fitted'}"
            schedules.append((label, runs.schedule_tuple()[i], loss))
    schedules.append(("our optimum", found.schedule, np.nan))
    schedules.append(("Multi-Power Law's optimum", Schedule("array", values=rates), np.nan))
    table_ = RunTable.build([s for _, s, _ in schedules], params=float(train.params[0]))
    ours, theirs = judge(law, table_), rival.predict(table_)
    cosine = next(k for k, (label, _, _) in enumerate(schedules) if label.startswith("cosine"))
    ratio, sd = differences(ours, cosine)
    level = ours.loss[cosine]
    for k, (label, _, real) in enumerate(schedules):
        ends = level * np.expm1(ratio[k] + np.array([-Z, 0.0, Z]) * sd[k])
        rows.append(
            {
                "schedule": label, "real": real - schedules[cosine][2], "ours": float(ends[1]),
                "interval": [float(ends[0]), float(ends[2])], "multi_power": float(theirs[k] - theirs[cosine]),
            }
        )  # fmt: skip
    half = float(np.argmax(rates[WARMUP:] < 0.98 * PEAK) + WARMUP) / STEPS
    return {
        "size": size, "rows": rows, "ours": text_of(found), "family": found.family, "seconds": seconds,
        "rival_seconds": rival_seconds, "rival_starts_to_fall": half, "rival_end": float(rates[-1]),
        "schedules": [schedules[-2][1], schedules[-1][1]], "advice": found.advice,
    }  # fmt: skip


def pools() -> list[dict[str, Any]]:
    """Return, for every length of the 85M runs, the recommendation of a law that has seen none of that pool."""
    runs = completed(load("schaipp"))
    lengths = [t for t in np.unique(runs.steps) if ((runs.size == MIDDLE) & (runs.steps == t)).sum() >= 10]
    out = []
    for steps in lengths:
        held = (runs.size == MIDDLE) & (runs.steps == steps)
        law, pool = fit_law(runs.select(~held)), runs.select(held)
        peaks = np.asarray(pool.batch().peak)
        kinds = np.array([s.kind for s in pool.schedule_tuple()])
        judged = judge(law, pool)
        pick, real = int(np.argmin(judged.loss)), int(np.argmin(pool.final_loss))
        found = optimize_schedule(
            law, params=float(MIDDLE), steps=float(steps), batch_tokens=float(pool.batch_tokens[0]),
            weight_decay=float(pool.weight_decay[0]), min_peak=float(peaks.min()), max_peak=float(peaks.max()),
        )  # fmt: skip
        cosine = np.flatnonzero(kinds == "cosine")
        best_cosine = int(cosine[np.argmin(pool.final_loss[cosine])])
        wsd = np.flatnonzero(kinds == "wsd")
        best_wsd = int(wsd[np.argmin(pool.final_loss[wsd])])
        ratio, sd = differences(judged, best_cosine)
        noise = np.hypot(judged.prediction.noise[best_wsd], judged.prediction.noise[best_cosine])
        wide = np.hypot(sd[best_wsd], noise / judged.loss[best_cosine])
        ends = judged.loss[best_cosine] * np.expm1(ratio[best_wsd] + np.array([-Z, 0, Z]) * wide)
        optimum = judge(law, RunTable.build(
            [found.schedule], params=float(MIDDLE), batch_tokens=float(pool.batch_tokens[0]),
            weight_decay=float(pool.weight_decay[0]),
        ))  # fmt: skip
        out.append(
            {
                "steps": int(steps), "runs": len(pool), "best": str(pool.schedule_tuple()[real]),
                "picked": str(pool.schedule_tuple()[pick]),
                "regret_pct": 100 * float(pool.final_loss[pick] / pool.final_loss[real] - 1),
                "cosine_over_wsd": float(pool.final_loss[best_cosine] - pool.final_loss[best_wsd]),
                "predicted": [-float(x) for x in ends[::-1]], "family": found.family, "peak": found.schedule.peak,
                "found": str(found.schedule), "below_picked": float(judged.loss[pick] - optimum.loss[0]),
                "schedule": found.schedule,
            }
        )  # fmt: skip
    return out


def claims() -> list[dict[str, Any]]:
    """Return how often a difference between two held-out runs of one pool was as predicted, for every split."""
    runs, out = completed(load("schaipp")), []
    for name, (train, test) in schaipp_splits(runs).items():
        held = runs.select(test)
        judged = judge(fit_law(runs.select(train)), held)
        noise = np.asarray(judged.prediction.noise) / judged.loss
        inside: list[bool] = []
        right: list[bool] = []
        close: list[bool] = []
        for i in range(len(held)):
            ratio, sd = differences(judged, i)
            same = (held.size == held.size[i]) & (held.steps == held.steps[i]) & (np.arange(len(held)) > i)
            for j in np.flatnonzero(same):
                observed = float(np.log(held.final_loss[j] / held.final_loss[i]))
                wide = Z * float(np.sqrt(sd[j] ** 2 + noise[i] ** 2 + noise[j] ** 2))
                inside.append(abs(observed - ratio[j]) <= wide)
                real = float(ndtr(abs(ratio[j]) / max(float(sd[j]), 1e-12)))
                if real > SURE:
                    right.append(bool(np.sign(observed) == np.sign(ratio[j])))
                    if abs(ratio[j]) < CLOSE:
                        close.append(right[-1])
        if inside:
            out.append(
                {
                    "split": name, "pairs": len(inside), "cover": float(np.mean(inside)), "sure": len(right),
                    "right": float(np.mean(right)) if right else float("nan"), "close": len(close),
                    "close_right": float(np.mean(close)) if close else float("nan"),
                }
            )  # fmt: skip
    return out


def regrets(judged: Judged, real: Floats, label: NDArray[np.intp]) -> dict[str, list[float]]:
    """Return per cent by which the runs chosen of each group (labels) of n ended above its lowest, by each choice."""
    out: dict[str, list[float]] = {name: [] for name in CHOICES}
    for place in np.unique(label):
        rows = np.flatnonzero(label == place)
        scores = judged.score(0.0), judged.score(Z), np.log(judged.loss) + Z * judged.sd
        for name, score in zip(CHOICES, scores, strict=True):
            if len(rows) >= RATES:
                out[name].append(100 * float(real[rows[np.argmin(score[rows])]] / real[rows].min() - 1))
    return out


def rates() -> list[dict[str, Any]]:
    """Return how often ranges of peak rates hold the one of lowest loss of a row: equal size, tokens and batch.

    With the regrets of what is chosen among the runs of a row, and of a cell: equal size and tokens.
    """
    runs, out = completed(load("steplaw")), []
    runs = runs.select([name == "steplaw-dense" for name in runs.source])
    for name, label in (("one N", sizes(runs).astype(str)), ("one (N, D)", same_budget(runs))):
        sure: list[bool] = []
        flat: list[bool] = []
        factors: list[float] = []
        costs: dict[str, list[float]] = {f"{what}_{name}": [] for what in ("row", "cell") for name in CHOICES}
        for one in np.unique(label):
            held = runs.select(label == one)
            judged, peak = judge(fit_law(runs.select(label != one)), held, risk=False), np.asarray(held.batch().peak)
            prediction = judged.prediction
            cells = np.unique(np.stack([held.size, held.tokens]), axis=1, return_inverse=True)[1].ravel()
            row_of = np.unique(np.stack([held.size, held.tokens, held.batch_tokens]), axis=1, return_inverse=True)[1]
            for what, groups in (("row", row_of.ravel()), ("cell", cells)):
                for choice, found in regrets(judged, held.final_loss, groups).items():
                    costs[f"{what}_{choice}"] += found
            for place in np.unique(row_of):
                rows = np.flatnonzero(row_of.ravel() == place)
                if len(rows) < RATES:
                    continue
                best = peak[rows[held.final_loss[rows].argmin()]]
                low, high = where_lowest(prediction, rows, peak)
                near = peak[rows[prediction.loss[rows] <= prediction.loss[rows].min() * (1 + FLAT)]]
                sure.append(bool(low <= best <= high))
                flat.append(bool(near.min() <= best <= near.max()))
                factors.append(high / low)
        out.append(
            {
                "left_out": name, "rows": len(sure), "sure": float(np.mean(sure)),
                "factor": float(np.exp(np.mean(np.log(factors)))), "flat": float(np.mean(flat)),
                "cells": len(costs["cell_mean"]), **{key: float(np.mean(values)) for key, values in costs.items()},
            }
        )  # fmt: skip
    return out


def draw(mpl: list[dict[str, Any]], left_out: list[dict[str, Any]]) -> list[str]:
    """Write the two figures and return their names."""
    from matplotlib.figure import Figure

    from optlaws.plotting import COLOURS, plot_schedules, save_figure

    (ROOT / "docs").mkdir(exist_ok=True)
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    for ax, row in zip(np.atleast_1d(np.asarray(figure.subplots(1, len(mpl)))), mpl, strict=True):
        plot_schedules(row["schedules"], ax, COLOURS[: len(row["schedules"])])
        ax.tick_params(labelsize=8)
        ax.set_ylabel("")
        ax.set_title(f"{row['size']}: our optimum (blue), the Multi-Power Law's (orange)", fontsize=9)
    figure.supylabel("learning rate", fontsize=9)
    save_figure(figure, ROOT / "docs" / "optimize_mpl.png")
    figure = Figure(figsize=(9.0, 5.2), layout="constrained")
    axes = np.asarray(figure.subplots(2, 2)).ravel()
    for ax, row in zip(axes, left_out, strict=False):
        plot_schedules([row["schedule"]], ax)
        ax.tick_params(labelsize=8)
        ax.set_ylabel("")
        ax.set_title(f"85M, {row['steps']:,} steps, pool left out: {row['family']}", fontsize=9)
    for ax in axes[len(left_out) :]:
        ax.remove()
    figure.supylabel("learning rate", fontsize=9)
    save_figure(figure, ROOT / "docs" / "optimize_pools.png")
    return ["optimize_mpl.png", "optimize_pools.png"]


def number(value: float, digits: int = 4, sign: bool = True) -> str:
    """Return a number, or a dash."""
    return "-" if np.isnan(value) else f"{value:{'+' if sign else ''}.{digits}f}"


def between(ends: list[float]) -> str:
    """Return a number with its interval: lower end, number, upper end."""
    return f"{number(ends[1])} ({number(ends[0])} .. {number(ends[2])})"


def three_curves(mpl: list[dict[str, Any]]) -> list[str]:
    """Return the first part of the page."""
    parts = [
        "## Three curves, and what each law holds best\n\nOur law and the Multi-Power Law, each fitted by its own"
        " procedure on the same three curves (cosine, constant, and a two-stage one; no WSD among them), then asked"
        f" for the best schedule of {STEPS:,} updates, peak {PEAK:g}, warm-up {WARMUP:,}. All numbers are differences"
        " to the cosine run; a real one is known only for the runs that were made. The real WSD runs end at a tenth of"
        " the peak, the optima are free to end lower."
    ]
    head = ["schedule", "real, last logged", "ours (90 % interval of the expected loss)", "Multi-Power Law"]
    for row in mpl:
        body = [
            [
                r["schedule"],
                number(r["real"]),
                between([r["interval"][0], r["ours"], r["interval"][1]]),
                number(r["multi_power"]),
            ]
            for r in row["rows"]
        ]
        parts.append(f"### {row['size']}\n\n{table(head, body)}")
        parts.append(
            f"Ours: `{row['ours']}`. The Multi-Power Law's begins to fall at {100 * row['rival_starts_to_fall']:.0f} %"
            f" of the run and ends at {row['rival_end']:.2g}. Ours took {row['seconds']:.1f} s, the 10,000 Adam steps"
            f" {row['rival_seconds']:.1f} s, fits not counted."
        )
    return [*parts, "![Optimal schedules by both laws](optimize_mpl.png)"]


def left_out_pools(left_out: list[dict[str, Any]]) -> list[str]:
    """Return the second part of the page."""
    head = ["steps", "runs", "best real run", "the law's pick among them", "regret %", "real gain"]
    body = [
        [
            f"{r['steps']:,}",
            str(r["runs"]),
            f"`{r['best']}`",
            f"`{r['picked']}`",
            number(r["regret_pct"], 3, False),
            number(r["cosine_over_wsd"]),
            between(r["predicted"]),
        ]
        for r in left_out
    ]
    first = (
        "## A pool of runs left out\n\n85M parameters (runs of arXiv 2501.18965): the law is fitted on all runs but"
        " those of one length. The gain is of the best real WSD over the best real cosine; its predicted interval is"
        " that of the difference of two single runs. Each pool's lowest run is one of many, so part of its lead is"
        " luck.\n\n" + table([*head, "predicted gain (90 %)"], body)
    )
    body = [[f"{r['steps']:,}", r["family"], f"`{r['found']}`", number(r["below_picked"], 4, False)] for r in left_out]
    second = (
        "What `optimize` recommends for the same runs, peak rates as in the pool, and how far the law puts it below the"
        " pool's run that it holds best. Nobody has trained these schedules: the figure is a prediction.\n\n"
        + table(["steps", "family", "schedule", "predicted gain"], body)
    )
    return [first, second, "![Schedules recommended with the pool left out](optimize_pools.png)"]


def report(
    mpl: list[dict[str, Any]], left_out: list[dict[str, Any]], sure: list[dict[str, Any]], where: list[dict[str, Any]]
) -> str:
    """Return the page."""
    parts = ["# Planned schedules\n\nWritten by `python benchmarks/planning.py --write`. Losses in nats per token."]
    parts += [*three_curves(mpl), *left_out_pools(left_out)]
    body = [
        [
            r["split"],
            f"{r['pairs']:,}",
            number(r["cover"], 2, False),
            f"{r['sure']:,}",
            number(100 * r["right"], 1, False),
            f"{r['close']:,}",
            number(100 * r["close_right"], 1, False),
        ]
        for r in sure
    ]
    parts.append(
        "## Is a difference that is called real there?\n\nAll pairs of held-out runs of one size and length. Cover:"
        " share of differences inside their 90 % interval (noise of both runs included). Sure: pairs of which the law"
        f" says that the lower one is lower with a probability above {SURE:g}; right: how many of them were, in %."
        f" Close: those of the sure pairs that the law puts less than {100 * CLOSE:g} % apart, and how many of them"
        " were right.\n\n" + table(["left out", "pairs", "cover", "sure", "right %", "close", "right %"], body)
    )
    head = ["left out", "rows", "held by the 90 % range", "its width, a factor of", "held by the flat range"]
    cells = [
        [
            r["left_out"],
            str(r["rows"]),
            number(r["sure"], 2, False),
            number(r["factor"], 2, False),
            number(r["flat"], 2, False),
        ]
        for r in where
    ]
    parts.append(
        "## Where does the best peak rate lie?\n\nStep Law's dense runs; a row has one size, token budget and batch and"
        f" {RATES} or more peak rates, of a grid of about a factor of 1.4. How many of the ranges hold the rate of the"
        f" run that did end lowest: those that `recommend` is 90 % sure of, and those that cost less than"
        f" {100 * FLAT:g} % more by the mean, both among the rates of the row.\n\n" + table(head, cells)
    )
    head = ["left out", "of", "the mean", "with caution", "every standard deviation"]
    cells = [
        [r["left_out"], text, *(number(r[f"{what}_{choice}"], 4, False) for choice in CHOICES)]
        for r in where
        for what, text in (("row", f"{r['rows']} rows"), ("cell", f"{r['cells']} (N, D), all rates and batches"))
    ]
    parts.append(
        "## What does caution cost where the law knows?\n\nThe same runs left out: mean regret in %, the real loss of"
        " the run that is chosen over the lowest real one of its row, or of its (N, D). By the mean; by the score of"
        " `optimize` and `recommend`, which counts standard deviations as far as they exceed the"
        " scatter of the law's runs about its trend"
        f" ({Z:.3f} of them); and were all of them counted, which drew the choice to the middle of the runs. Caution is"
        " for what lies beyond the runs. That only the excess counts was chosen with these rows in view, so that they"
        " are no test of it.\n\n" + table(head, cells)
    )
    parts.append(
        "## What this does not show\n\n"
        "- A free schedule is unlike every schedule in training. Its interval is the law's own, checked above on whole"
        " families that were left out, not on free schedules: none was trained on these data. Of a tiny network one was"
        " ([planned_runs.md](planned_runs.md)).\n"
        "- The shoulder late in the fall of the free schedules is likely a trace of the law's six separate curvatures,"
        " and no advice.\n"
        "- A search among many candidates finds the law's errors as well as good schedules. Caution counts standard"
        " deviations of the law against a gain, but a law that is wrong in form does not know by how much. Interval and"
        " probability of a gain that `optimize` prints therefore count the noise of one run of each, as above not done"
        " for pairs that are called sure.\n"
        "- Most of those pairs differ by far more than what a free schedule promises: the close ones are the ones to"
        " go by. Where the lowest peak is left out, intervals of differences are far too narrow.\n"
        "- Peak rates at the end of the law's training range are a sign that the best one may lie beyond it."
    )
    parts.append(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f} at the end:"
        " seconds measured on a busy machine are upper bounds. [speed_rivals.md](speed_rivals.md) has the ratio."
    )
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run the checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/optimize.md and its figures")
    options = parser.parse_args()
    mpl, left_out, sure, where = [against(size) for size in SIZES], pools(), claims(), rates()
    text = report(mpl, left_out, sure, where)
    print(text)
    if options.write:
        draw(mpl, left_out)
        write_page(ROOT / "docs" / "optimize.md", text)
    every = (*mpl, *left_out, *sure, *where)
    plain = [{k: v for k, v in row.items() if k not in ("schedule", "schedules")} for row in every]
    print(json.dumps({"benchmark": "planning", "rows": plain}))


if __name__ == "__main__":
    main()
