"""Alarms, for benchmarks/monitor.py: false ones on real curves, and how soon true ones come."""

# ruff: noqa: E501  (tables as they are printed)
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import table
from monitor_runs import BLOW_UPS, LASTING, SPIKES, Curve, blown_up, networks, quadratics
from public import completed, load, load_curves
from scipy.stats import binomtest

from optlaws.law import Law, fit_law, load_law
from optlaws.monitor import DIVERGENCE, OFF_TRACK, CurvePrior, Monitor, learn_prior
from optlaws.risk.labels import RISE, curve_outcome
from optlaws.runs import RunTable, read_curves, read_runs

Array = np.ndarray
DENSE = 500  # readings of a curve that is filled in, as a training loss is logged
ONSETS = (0.2, 0.5, 0.8)
SEED = 0
DATA = Path(__file__).resolve().parents[1] / "optlaws" / "data"
SWEEPS = tuple(sorted(folder.name for folder in DATA.iterdir() if (folder / "law.json").exists()))


def watched(
    monitor: Monitor, steps: Array, loss: Array, grad: Array | None = None, until: str | None = None
) -> Monitor:
    """Return the monitor after the readings, or after the first alarm of a kind."""
    for k in range(len(steps)):
        status = monitor.update(steps[k], loss[k], None if grad is None else grad[k])
        if until is not None and any(alarm.kind == until for alarm in status.new):
            break
    return monitor


def dense(steps: Array, loss: Array) -> tuple[Array, Array]:
    """Return the curve at `DENSE` steps, linear in ln loss between its readings."""
    at = np.unique(np.linspace(steps[0], steps[-1], DENSE).round())
    return at, np.exp(np.interp(at, steps, np.log(loss)))


def held_out(name: str) -> Iterable[tuple[RunTable, Law, CurvePrior, Array, Array]]:
    """Yield each run with the law and prior of the other families, and its readings."""
    runs, curves = completed(load(name)), load_curves(name)
    kind, where = np.array([s.kind for s in runs.schedule_tuple()]), curves.runs()
    for family in np.unique(kind):
        part = runs.select(kind != family)
        law = fit_law(part, curves if name == "mpl" else None)
        prior = learn_prior(law, part, curves)
        for i in np.flatnonzero(kind == family):
            rows = where[runs.run_id[i]]
            yield runs.select([i]), law, prior, curves.step[rows], curves.loss[rows]


def interval(hits: int, count: int) -> str:
    """Return a share with its exact 95 % binomial interval."""
    low, high = binomtest(hits, count).proportion_ci(0.95)
    return f"{hits} of {count} (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"


def noisy(rng: np.random.Generator, loss: Array, kind: str) -> Array:
    """Return the losses with noise: "2 %" normal, "2 %, heavy" Student's t with 3 degrees, "spikes" 1 % of them 1.3 x."""
    level = float(kind.split(" ")[0]) / 100
    draw = rng.standard_t(3, len(loss)) / np.sqrt(3) if "heavy" in kind else rng.standard_normal(len(loss))
    out = loss * np.exp(level * draw)
    if "spikes" in kind:
        out *= np.where(rng.random(len(loss)) < 0.01, 1.3, 1.0)
    return np.asarray(out)


def false_alarms() -> str:
    """Alarms on completed runs, as they are and with noise."""
    rng = np.random.default_rng(SEED)
    noises = ("as logged", "1 %", "2 %", "5 %", "2 %, heavy tails", "2 %, spikes")
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name in ("schaipp", "mpl"):
        for run, law, prior, steps, loss in held_out(name):
            for noise in noises:
                at, y = (steps, loss) if noise == "as logged" else dense(steps, loss)
                z = y if noise == "as logged" else noisy(rng, y, noise)
                history = watched(Monitor(law, run, prior=prior), at, z).history
                for source in (name, "both"):
                    counts[source, noise]["runs"] += 1
                    for kind in (DIVERGENCE, OFF_TRACK):
                        counts[source, noise][kind] += any(alarm.kind == kind for alarm in history)
    rows = [
        [
            {"schaipp": "arXiv 2501.18965", "mpl": "arXiv 2503.12811", "both": "both"}[source],
            noise,
            interval(c[DIVERGENCE], c["runs"]),
            interval(c[OFF_TRACK], c["runs"]),
        ]
        for source in ("schaipp", "mpl", "both")
        for noise in noises
        for c in (counts[source, noise],)
    ]
    return (
        "## False alarms on completed runs\n\nEvery completed curve of the public data, each under the law of the other schedule families. "
        f"With noise: {DENSE} readings, linear between those logged, times random factors of that sd (seed {SEED}).\n\n"
        + table(["runs", "noise of a reading", "divergence alarms", "off-track alarms"], rows)
    )


def some(every: dict[str, int]) -> Iterable[tuple[RunTable, Law, Array, Array]]:
    """Yield a few runs of each source that are logged from 20 % to 90 % of their length at least, under a law of all."""
    for name, step in every.items():
        runs, curves = completed(load(name)), load_curves(name)
        where, law = curves.runs(), fit_law(runs)
        whole = [
            i
            for i, run in enumerate(runs.run_id)
            if curves.step[where[run][0]] <= 0.15 * runs.steps[i]
            and curves.step[where[run][-1]] >= 0.97 * runs.steps[i]
        ]
        for i in whole[::step]:
            rows = where[runs.run_id[i]]
            yield runs.select([i]), law, curves.step[rows], curves.loss[rows]


def injected() -> str:
    """Blow-ups and spikes put into completed runs."""
    rng = np.random.default_rng(SEED)
    delay: dict[tuple[str, str], list[float]] = defaultdict(list)
    labelled: dict[tuple[str, str], list[bool]] = defaultdict(list)
    noises = ("as logged", "2 %", "5 %")
    for run, law, steps, loss in some({"schaipp": 9, "mpl": 3}):
        total = float(run.steps[0])
        for noise in noises:
            at, y = (steps, loss) if noise == "as logged" else dense(steps, loss)
            base = y if noise == "as logged" else noisy(rng, y, noise)
            for onset in ONSETS:
                u = at / total - onset
                for name, shape in {**BLOW_UPS, **SPIKES}.items():
                    z = base * np.exp(shape(u))
                    labelled[name, noise].append(curve_outcome(at, z).status != "completed")
                    history = watched(Monitor(law, run), at, z, until=DIVERGENCE).history
                    hits = [alarm.step for alarm in history if alarm.kind == DIVERGENCE]
                    delay[name, noise].append(hits[0] / total - onset if hits else np.nan)
    rows, calm = [], []
    for name in BLOW_UPS:
        for noise in noises:
            d, wanted = np.array(delay[name, noise]), np.array(labelled[name, noise])
            found = d[np.isfinite(d)]
            rows.append(
                [
                    name,
                    noise,
                    str(len(d)),
                    f"{wanted.sum()}",
                    f"{np.isfinite(d[wanted]).sum()}",
                    f"{np.isfinite(d[~wanted]).sum()}",
                    f"{(found < 0).sum()}",
                    f"{100 * np.median(found):.1f} / {100 * found.max():.1f}",
                ]
            )
    for name in SPIKES:
        calm.append(
            [
                name,
                *(
                    f"{np.isfinite(np.array(delay[name, noise])).sum()} of {len(delay[name, noise])}"
                    for noise in noises
                ),
            ]
        )
    return (
        f"## Blow-ups injected into completed runs\n\nNo public curve of a diverged run is at hand. Completed curves are multiplied by a factor from {', '.join(f'{100 * o:.0f} %' for o in ONSETS)} of the run on, and watched under a law fitted to all runs, these included. "
        "*Diverged* is what the detector for finished curves says in hindsight (`optlaws.risk.labels`: 15 % above the lowest level, to the end). Delay from the onset to the alarm in % of the run; a slow rise must first make up for what the loss still falls, and an alarm needs three readings: the longest delays as logged are those of a run with 18.\n\n"
        + table(
            [
                "blow-up",
                "noise",
                "runs",
                "diverged",
                "of them alarmed",
                "others alarmed",
                "alarms before the onset",
                "delay median / longest",
            ],
            rows,
        )
        + "\n\nSpikes that recover, and alarms on them:\n\n"
        + table(["spike", *noises], calm)
    )


def simulated(runs: Iterable[Curve], grads: Sequence[bool]) -> dict[str, list[tuple[float, ...]]]:
    """Return by name: step of the blow-up in hindsight and of the alarm (with and without gradients), as fractions."""
    law = load_law("llama-slimpajama")
    rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for curve in runs:
        total = float(curve.schedule.total_steps)
        cells = [blown_up(curve.steps, curve.loss, total) / total]
        keep = slice(None, None, 2)  # every second step is logged
        steps, loss, norm = curve.steps[keep], curve.loss[keep], curve.grad[keep]
        for grad in grads:
            monitor = Monitor(law, curve.schedule, params=85e6, batch_tokens=51200)
            history = watched(monitor, steps, loss, norm if grad else None, until=DIVERGENCE).history
            hits = [alarm.step for alarm in history if alarm.kind == DIVERGENCE]
            cells.append(hits[0] / total if hits else np.nan)
        rows[curve.name].append(tuple(cells))
    return rows


def counted(cells: Iterable[tuple[float, ...]], column: int) -> list[str]:
    """Return runs, blown up, alarmed, in time, other alarms, and the lag in % of the run."""
    table_of = np.array(list(cells))
    since, at = table_of[:, 0], table_of[:, column]
    bad, hit = np.isfinite(since), np.isfinite(at)
    timely = hit & bad & ((at <= 0.9) | (at <= since + 0.05))
    lag = 100 * (at - since)[bad & hit]
    longest = f"{np.median(lag):+.1f} / {lag.max():+.1f}" if len(lag) else "-"
    return [
        str(len(since)),
        str(bad.sum()),
        str((hit & bad).sum()),
        str(timely.sum()),
        str((hit & ~bad).sum()),
        longest,
    ]


def simulations() -> str:
    """Noisy quadratics and tiny networks."""
    found = simulated(quadratics(SEED), (False, True))
    nets = simulated(networks(SEED), (False, True))
    rows, totals = [], []
    for title, part in (("noisy quadratic", found), ("tiny network", nets)):
        for name, cells in part.items():
            rows.append([title, name, *counted(cells, 1), counted(cells, 2)[-1]])
        every = [cell for cells in part.values() for cell in cells]
        totals += [["all, " + title, "", *counted(every, 1), counted(every, 2)[-1]]]
        totals += [["all, with gradient norms", "", *counted(every, 2), "-"]]
    return (
        "## Runs that blow up by themselves\n\nSGD on noisy quadratics below and above their stability threshold, and training runs of a tiny character model (`benchmarks/monitor_runs.py`), watched under the built-in law, which knows nothing of them. "
        f"*Blown up* in hindsight: the level (median of 1 % of the run) stays above {RISE:g} times its lowest for {100 * LASTING:g} % of the run. "
        "*In time*: at least 10 % of the run before its end, or within 5 % of the run of the step from which the level stays up. Lag from that step to the alarm in % of the run (negative: before it). "
        "Another alarm is one on a run whose loss stayed up for less long, or by less.\n\n"
        + table(
            [
                "what",
                "run",
                "runs",
                "blown up",
                "of them alarmed",
                "in time",
                "others alarmed",
                "lag median / longest",
                "with gradient norm",
            ],
            totals + rows,
        )
    )


def departed() -> str:
    """Off-track alarms on runs that leave their law for good."""
    found: dict[float, list[float]] = defaultdict(list)
    for factor in (0.97, 0.98, 0.99, 1.01, 1.02, 1.03):
        for k, (run, law, prior, steps, loss) in enumerate(held_out("schaipp")):
            if k % 5 or steps[0] > 0.1 * run.steps[0] or steps[-1] < 0.97 * run.steps[0]:
                continue
            total = float(run.steps[0])
            z = loss * np.where(steps >= 0.3 * total, factor, 1.0)
            history = watched(Monitor(law, run, prior=prior), steps, z, until=OFF_TRACK).history
            hits = [alarm.step for alarm in history if alarm.kind == OFF_TRACK]
            found[factor].append(hits[0] / total - 0.3 if hits else np.nan)
    rows: list[list[Any]] = []
    for factor, values in found.items():
        d = np.array(values)
        hit = d[np.isfinite(d)]
        rows.append(
            [
                f"{100 * (factor - 1):+.0f} %",
                f"{len(hit)} of {len(d)}",
                f"{100 * np.median(hit):.0f}" if len(hit) else "-",
            ]
        )
    return "## Off track: what it sees\n\nCurves of held-out families shifted from 30 % of the run on.\n\n" + table(
        ["shift of the loss", "off-track alarms", "median delay, % of the run"], rows
    )


def own_sweeps() -> str:
    """Alarms on the runs of the built-in sweeps, under the law fitted to the small half of each."""
    rows, total = [], np.zeros(3, dtype=int)
    for name in SWEEPS:
        folder = DATA / name
        law, runs = load_law(str(folder / "law.json")), read_runs(folder / "runs.csv", need_loss=True)
        curves = read_curves(folder / "curves.csv")
        where, found = curves.runs(), []
        for i, status in enumerate(runs.status):
            if runs.run_id[i] not in where:
                continue
            index = where[runs.run_id[i]]
            late = curves.step[index] >= 1
            steps, loss = curves.step[index][late], curves.loss[index][late]
            history = watched(Monitor(law, runs.select([i])), steps, loss).history
            hits = [alarm.step / float(runs.steps[i]) for alarm in history if alarm.kind == DIVERGENCE]
            away = any(alarm.kind == OFF_TRACK for alarm in history)
            seen = curve_outcome(steps, loss).status != "completed"
            found.append((status == "diverged", hits[0] if hits else np.nan, away, seen, len(steps)))
        values = np.array(found, dtype=float)
        bad, off, told = (values[:, k] > 0 for k in (0, 2, 3))
        at, count = values[:, 1], values[:, 4]
        hit = np.isfinite(at)
        total += np.array([bad.sum(), (hit & bad & (at <= 0.9)).sum(), (hit & ~bad).sum()])
        rows.append(
            [
                name, str(bad.sum()), str((hit & bad).sum()), str((hit & bad & (at <= 0.9)).sum()),
                f"{100 * np.median(at[hit & bad]):.0f}", str((~hit & off & bad).sum()), str((told & bad).sum()),
                str((~bad).sum()), str((hit & ~bad).sum()), str((off & ~bad).sum()),
                f"{np.median(count[bad]):.0f}",
            ]
        )  # fmt: skip
    head = [
        "sweep", "diverged", "of them alarmed", "by 90 % of the run", "median place of the alarm, % of the run",
        "only off track", "the curve detector says so", "completed", "of them alarmed", "of them off track",
        "readings of a diverged run (median)",
    ]  # fmt: skip
    return (
        "## Runs of our own sweeps that learnt nothing\n\nThe diverged runs of `optlaws/data` carry that status by the rule of Step Law's table, a loss above 1.2 times the best of their size and tokens: at rates ten to a hundred times too high they stay near the loss of guessing by frequency, most with no rise at all, so that a detector of one finished curve cannot tell them. The monitor can, for the law knows what the same schedule would have reached at a lower peak rate (`Path.reach`). That comparison, and the threshold `stuck` = 0.2 (0.3 before), which is that rule's, were set with these runs in view: before, none of the 50 raised a divergence alarm. Of `cpu_sweep_wide` two came after, and nine are those of `cpu_sweep_rich`. Watched are the committed readings of the validation loss.\n\n"
        + table(head, rows)
        + f"\n\n- {total[1]} of {total[0]} diverged runs raise an alarm by 90 % of the run (target all: {'reached' if total[1] == total[0] else '**missed**'}); {total[2]} completed ones do (target none: {'reached' if not total[2] else '**missed**'})"
    )


def alarm_sections() -> list[str]:
    """Return all sections."""
    return [false_alarms(), injected(), simulations(), own_sweeps(), departed()]


__all__ = ["alarm_sections"]
