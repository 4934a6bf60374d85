"""The figure of docs/monitor.md: a held-out run whose forecast narrows, and a run that blows up.

The held-out run has two losses: its log is of one evaluation set, its final loss, and so the law, of another, on which
losses are about 1.2 % higher. The synthetic run has one: its readings are made from the law's path.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from public import completed, load, load_curves

from optlaws.law import fit_law
from optlaws.monitor import DIVERGENCE, Monitor, learn_prior
from optlaws.plotting import COLOURS, save_figure

RUN = "constant"  # the family that the law knows least when it is left out
GREY = "#4d4d4d"


def draw(path: Path) -> None:
    """Draw the figure and write it."""
    from matplotlib.figure import Figure

    runs, curves = completed(load("schaipp")), load_curves("schaipp")
    kind = np.array([s.kind for s in runs.schedule_tuple()])
    part = runs.select(kind != RUN)
    law = fit_law(part)
    prior = learn_prior(law, part, curves)
    held = [i for i in np.flatnonzero(kind == RUN) if np.isclose(runs.batch().peak[i], 2e-3) and runs.steps[i] == 50000]
    row = held[0]
    index = curves.runs()[runs.run_id[row]]
    steps, loss, final = curves.step[index], curves.loss[index], float(runs.final_loss[row])
    run = runs.select([row])

    figure = Figure(figsize=(9.0, 6.4), layout="constrained")
    (a, b), (c, d) = figure.subplots(2, 2, sharex="col", height_ratios=[1.0, 1.0])
    monitor, seen = Monitor(law, run, prior=prior), []
    for s, y in zip(steps, loss, strict=True):
        f = monitor.update(s, y).forecast
        if s >= monitor.path.start:
            seen.append((s, f.loss, f.lower, f.upper))
    at, middle, low, high = np.array(seen).T
    first = monitor.status.forecast
    a.plot(steps, loss, color=GREY, linewidth=1.0, label="logged loss")
    a.plot(
        monitor.path.steps,
        np.exp(monitor.path.log_loss - prior.mean[0]),
        color=COLOURS[1],
        linewidth=1.2,
        label="law before the run, put on the log's scale",
    )
    a.set_ylim(loss[-1] * 0.97, loss[-1] * 1.25)
    a.set_ylabel("logged loss, the log's evaluation set\n(nats per token)")
    a.set_title("A held-out run (constant rate, family left out)", fontsize=9.5)
    a.legend(fontsize=8, frameon=False)
    c.fill_between(at, low, high, color=COLOURS[0], alpha=0.2, linewidth=0, label="90 % interval")
    c.plot(at, middle, color=COLOURS[0], linewidth=1.6, label="forecast of the final loss")
    c.axhline(final, color="black", linewidth=1.0, linestyle="--", label="final loss")
    c.errorbar(
        [-0.02 * monitor.path.total],
        [first.prior_loss],
        [[first.prior_loss - first.prior_lower], [first.prior_upper - first.prior_loss]],
        fmt="o",
        color=COLOURS[1],
        markersize=4,
        capsize=3,
        label="law before the run",
    )
    c.set_ylabel("final loss, the law's evaluation set\n(nats per token)")
    c.set_xlabel("step")
    c.legend(fontsize=8, frameon=False, loc="upper right")

    rng = np.random.default_rng(1)
    grid = np.arange(100, int(run.steps[0]) + 1, 100.0)
    expected = np.exp(np.interp(grid, monitor.path.steps, monitor.path.log_loss))
    u = grid / run.steps[0]
    spike = np.log(1.6) * np.exp(-np.maximum(u - 0.3, 0) / 0.006) * (u >= 0.3)
    blow = np.log(2.0) * -np.expm1(-np.maximum(u - 0.62, 0) / 0.03)
    noisy = expected * np.exp(spike + blow + 0.02 * rng.standard_normal(len(u)))
    watch, alarm, seen = Monitor(law, run), None, []
    for s, y in zip(grid, noisy, strict=True):
        status = watch.update(s, y)
        alarm = next((x for x in status.new if x.kind == DIVERGENCE), alarm)
        if s >= watch.path.start and alarm is None:
            f = status.forecast
            seen.append((s, f.last_reading, f.last_lower, f.last_upper))
    at, middle, low, high = np.array(seen).T
    first_last = float(np.exp(watch.path.log_loss[-1]))
    b.plot(grid, noisy, color=GREY, linewidth=0.7, label="logged (synthetic, 2 % noise)")
    b.plot(watch.path.steps, np.exp(watch.path.log_loss), color=COLOURS[1], linewidth=1.2, label="law before the run")
    b.set_ylim(2.5, 7.0)
    b.set_ylabel("loss, the law's evaluation set")
    b.set_title("A spike that recovers, then a blow-up (synthetic)", fontsize=9.5)
    b.annotate("no alarm", (0.31 * run.steps[0], 4.9), fontsize=8, ha="left")
    d.fill_between(at, low, high, color=COLOURS[0], alpha=0.2, linewidth=0)
    d.plot(at, middle, color=COLOURS[0], linewidth=1.6, label="forecast, 90 % interval")
    d.axhline(first_last, color=COLOURS[1], linewidth=1.2, label="law before the run")
    d.set_ylim(first_last * 0.93, first_last * 1.07)
    d.set_xlabel("step")
    d.set_ylabel("last reading, the law's evaluation set")
    d.legend(fontsize=8, frameon=False, loc="upper left")
    if alarm is not None:
        for axes in (b, d):
            axes.axvline(alarm.step, color=COLOURS[3], linewidth=1.2)
        b.annotate(
            f"divergence alarm,\nstep {alarm.step:,.0f}", (alarm.step * 1.03, 3.75), fontsize=8, color=COLOURS[3]
        )
    b.legend(fontsize=8, frameon=False, loc="upper left")
    for axes in (a, b, c, d):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        axes.set_xlim(-0.04 * run.steps[0], 1.02 * run.steps[0])
    save_figure(figure, path)
