"""Runs under a law of another corpus. Part of benchmarks/monitor.py."""

# ruff: noqa: E501  (tables as they are printed)
from __future__ import annotations

from dataclasses import replace

import numpy as np
from accuracy import table
from monitor_scores import judge, power_law, shifted_law
from public import completed, load, load_curves

from optlaws.law import Law, fit_law
from optlaws.monitor import CurvePrior, learn_prior
from optlaws.runs import CurveTable, RunTable
from optlaws.sweeps import load_sweep

CUTS = (0.25, 0.5, 0.75)
ENDS = 0.97  # share of a run that its last reading must reach
Source = tuple[str, RunTable, CurveTable]


def sources() -> list[tuple[Source, Source]]:
    """Return pairs: the runs of a law, and runs of another corpus."""
    public = {name: (name, completed(load(name)), load_curves(name)) for name in ("schaipp", "mpl")}
    own = {}
    for name in ("cpu_sweep_long", "cpu_sweep_rich"):
        runs, curves = load_sweep(name)
        own[name] = (name, completed(runs), curves)
    pairs = [("schaipp", "mpl"), ("mpl", "schaipp")]
    tiny = [("cpu_sweep_rich", "cpu_sweep_long"), ("cpu_sweep_long", "cpu_sweep_rich")]
    return [(public[a], public[b]) for a, b in pairs] + [(own[a], own[b]) for a, b in tiny]


def ending_as_logged(runs: RunTable, curves: CurveTable) -> RunTable:
    """Return the runs whose curve reaches their end, its last reading as their final loss: that is what is forecast."""
    where, rows, last = curves.runs(), [], []
    for i, name in enumerate(runs.run_id):
        index = where.get(name)
        if index is not None and curves.step[index[-1]] >= ENDS * runs.steps[i]:
            rows.append(i)
            last.append(float(curves.loss[index[-1]]))
    return replace(runs.select(rows), final_loss=np.array(last))


def row(law: Law, prior: CurvePrior, runs: RunTable, curves: CurveTable, at: float) -> tuple[list[str], list[str]]:
    """Return the cells of the monitor, and those of the methods that are the same for all priors."""
    none, every = np.zeros(len(runs), dtype=bool), np.ones(len(runs), dtype=bool)
    others = {"shifted": shifted_law(law, prior), "power": power_law}
    s = judge(runs, curves, none, every, at, law, prior, others, last=True)
    own = [s.mean("monitor"), f"{np.mean(s.inside):.2f}", f"{np.mean(s.width):.1f}"]
    return own, [str(len(s.inside)), s.mean("shifted"), s.mean("power")]


def elsewhere() -> str:
    """Return the section."""
    rows = []
    for (name, runs, curves), (other, its_runs, its_curves) in sources():
        law = fit_law(runs, curves if name == "mpl" else None)
        priors = [
            (law, learn_prior(law, runs, curves)),
            (law.on_other_corpus(), CurvePrior.elsewhere()),
        ]
        its_runs = ending_as_logged(its_runs, its_curves)
        for at in CUTS:
            cells = [row(each, prior, its_runs, its_curves, at) for each, prior in priors]
            count, *rest = cells[0][1]
            rows.append([name, other, f"{100 * at:.0f} %", count, *cells[0][0], *cells[1][0], *rest])
    head = ["law of", "runs of", "seen", "runs", "own prior", "cover", "width"]
    head += ["other corpus", "cover", "width", "law's curve, shifted", "power law, this curve alone"]
    return (
        "## On another corpus\n\nRuns of one source under a law of another: other data, tokenizer and code; the last two pairs are tiny networks of our own in two made-up languages. Forecast is the curve's last reading; errors and widths in %. *Own prior* is what the law learnt from its own runs' curves, *other corpus* what `--other-corpus` takes (`CurvePrior.elsewhere`). Its one constant, the shape three times as uncertain as by default (`MOST_SHAPE`), was picked out of 1, 2, 3 and 4 with the first two pairs in view; the last two came after.\n\n"
        + table(head, rows)
    )


__all__ = ["elsewhere"]
