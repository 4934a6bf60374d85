"""Our times beside the rivals' own procedures: python benchmarks/rivals_speed.py [--write] [--repeat N] [--full].

The Multi-Power Law's procedures are written here as published, with sums over every update, in vectorised numpy with
exact derivatives; where torch is installed, their second stage also as the authors run it, with automatic ones. What
would take minutes is timed on a part and scaled, and says so; --full runs all steps. Against a busy
machine the rivals are timed by their fastest part and ours by the median, and processor seconds (of all threads: ours
uses every core, the rivals' one) stand beside those of the clock. --write puts the table into docs/speed_rivals.md and,
between its markers, README.md. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import mark, splice, table
from numpy.typing import NDArray
from public import FITTED, load, load_curves, write_page
from scipy.optimize import minimize

from optlaws import RunTable, ScheduleBatch, load_law, optimize_schedule
from optlaws.baselines._readings import Readings, gather
from optlaws.baselines.base import HUBER
from optlaws.baselines.multi_power import FIT_CHANGES, MultiPowerLaw, Slopes, _Features, adamw, optimise_rates
from optlaws.baselines.optimise import huber
from optlaws.law import fit_law
from optlaws.runs import CurveTable
from optlaws.schedules import Schedule

ROOT = Path(__file__).resolve().parents[1]
Floats = NDArray[np.float64]
SIZE, SEED = "25M", 0
PUBLISHED = MultiPowerLaw(3.0405, 0.52469, 0.50787, 363.79, 2.0656, 0.58279, 0.64142)  # arXiv 2503.12811, 25M
MILLION, SAMPLED = 1_000_000, 200
STEPS = (3000, 200_000)
ADAM_STEPS, TIMED_ITERATIONS = 10_000, 100
PLANNED, PLANNED_PEAK = 24_000, 3e-4
TARGETS = {"fit": 100.0, "predict": 100.0}


def timed(call: Callable[[], object], repeat: int) -> Floats:
    """Return seconds of so many calls: by the clock and of the processor, all threads, shape (repeat, 2)."""
    seconds = []
    for _ in range(repeat):
        clock, processor = time.perf_counter(), time.process_time()
        call()
        seconds.append((time.perf_counter() - clock, time.process_time() - processor))
    return np.array(seconds)


def drop_slopes(rates: Floats, C: float, beta: float, gamma: float) -> Floats:
    """Return the loss drop after all these updates and its derivatives to C, beta, gamma."""
    total = np.cumsum(rates)
    gap, span, rate = rates[:-1] - rates[1:], total[-1] - total[:-1], rates[1:]
    one = 1.0 + C * rate**-gamma * span
    kept = one**-beta
    inner = gap * beta * kept * (1.0 - 1.0 / one)
    return np.array([gap @ (1.0 - kept), inner.sum() / C, gap @ (kept * np.log(one)), -(inner @ np.log(rate))])


def slopes_as_published(readings: list[Readings]) -> Callable[[Floats], tuple[float, Floats]]:
    """Return the objective of the second stage and its derivatives, reading by reading."""

    def slopes(x: Floats) -> tuple[float, Floats]:
        cost, out = 0.0, np.zeros(7)
        for run in readings:
            rates = np.maximum(run.rates, 1e-300)
            total = np.cumsum(rates)
            for n, loss in zip(run.steps, run.loss, strict=True):
                drop = drop_slopes(rates[:n], x[4], x[5], x[6])
                power = total[n - 1] ** -x[2]
                value = x[0] + x[1] * power - x[3] * drop[0]
                point, slope = huber(np.array(np.log(value / loss)), HUBER)
                cost += float(point)
                first = [1.0, power, -x[1] * power * np.log(total[n - 1]), -drop[0], *(-x[3] * drop[1:])]
                out += float(slope) / value * np.array(first)
        return cost, out

    return slopes


def torch_step(readings: list[Readings], x: Floats) -> Callable[[], float] | None:
    """Return one AdamW step of the second stage in torch, reading by reading, or None where torch is not installed."""
    try:
        torch = import_module("torch")
    except ImportError:
        return None
    p = [torch.tensor(float(v), dtype=torch.float64, requires_grad=True) for v in x]
    groups = [{"params": [p[i] for i in (0, 1, 3, 4)], "lr": 5e-2}, {"params": [p[i] for i in (2, 5, 6)], "lr": 5e-3}]
    optimizer = torch.optim.AdamW(groups)
    data = []
    for run in readings:
        rates = torch.tensor(np.maximum(run.rates, 1e-300))
        gap = torch.zeros_like(rates)
        gap[1:] = rates[:-1] - rates[1:]
        data.append((rates, gap, torch.cumsum(rates, 0), run.steps.tolist(), torch.tensor(run.loss)))

    def step() -> float:
        optimizer.zero_grad()
        cost = 0.0
        for rates, gap, total, steps, loss in data:
            drops = []
            for n in steps:
                inner = 1 + p[4] * rates[1:n] ** -p[6] * (total[n - 1] - total[: n - 1])
                drops.append(torch.sum(gap[1:n] * (1 - inner ** -p[5])))
            at = torch.tensor(steps) - 1
            value = p[0] + p[1] * total[at] ** -p[2] - p[3] * torch.stack(drops)
            r = torch.log(loss) - torch.log(value)
            cost = cost + torch.where(r.abs() < HUBER, 0.5 * r**2, HUBER * (r.abs() - 0.5 * HUBER)).sum()
        cost.backward()  # type: ignore[attr-defined]  # a tensor by now
        optimizer.step()
        return float(cost.detach())  # type: ignore[attr-defined]

    return step


def losses(readings: list[Readings]) -> Floats:
    """Return all losses."""
    return np.concatenate([r.loss for r in readings])


def first_stage(readings: list[Readings]) -> Floats:
    """Run the 135 starts of L-BFGS-B of the four-parameter law and return the best parameters."""
    loss = losses(readings)
    now = np.concatenate([r.rates[r.steps - 1] for r in readings])
    peak, low, log_loss = max(float(r.rates.max()) for r in readings), float(loss.min()), np.log(loss)

    def seen() -> Floats:
        return np.concatenate([np.cumsum(r.rates)[r.steps - 1] for r in readings])

    def cost(x: Floats) -> float:  # the authors sum the rates anew at every evaluation
        value = x[0] + x[1] * seen() ** -x[2] - x[3] * (peak - now)
        return float(huber(log_loss - np.log(np.maximum(value, 1e-10)), HUBER)[0].sum())

    slope, height = np.polyfit(np.log(seen()), np.log(loss - low + 0.01), 1)
    best, kept = np.inf, np.zeros(4)
    for start in product(
        np.linspace(low - 0.2, low + 0.2, 5), np.exp(height) + np.linspace(-0.1, 0.1, 3),
        -slope + np.linspace(-0.1, 0.1, 3), np.linspace(100, 1000, 3),
    ):  # fmt: skip
        options = {"maxiter": 100_000, "ftol": 1e-9, "gtol": 1e-6, "eps": 1e-8}
        done = minimize(cost, start, method="L-BFGS-B", bounds=[(0, None)] * 4, options=options)
        if done.fun < best:
            best, kept = float(done.fun), done.x
    return kept


def fits(repeat: int, full: bool) -> dict[str, Any]:
    """Return seconds of our fit of three curves and of the published procedure."""
    runs, curves = load("mpl"), load_curves("mpl")
    names = {f"{SIZE}-{shape}" for shape in FITTED}
    train = runs.select([i for i, name in enumerate(runs.run_id) if name in names])
    readings = gather(MultiPowerLaw, train, CurveTable(curves.run_id, curves.step + 1.0, curves.loss), 7)
    four: list[Floats] = []
    first = timed(lambda: four.append(first_stage(readings)), 1)[0]
    x, slopes = np.array([*four[0], 1.0, 0.5, 0.5]), slopes_as_published(readings)
    calls: list[int] = []

    def counted(each: Slopes) -> Slopes:
        def wrapped(y: Floats) -> tuple[float, Floats]:
            calls.append(1)
            return each(y)

        return wrapped

    if full:
        second = timed(lambda: adamw(counted(slopes), x), 1)[0]
    else:  # the number of steps is what the rule of the authors makes it, counted with merged changes of the rate
        adamw(counted(_Features(readings, 1.0, 1.0, FIT_CHANGES).huber_slopes(losses(readings))), x)
        second = timed(lambda: slopes(x), repeat).min(axis=0) * len(calls)
    step = torch_step(readings, x)
    third = timed(step, max(2, repeat // 2)).min(axis=0) * len(calls) if step else None
    fit_law(train, curves)
    ours = timed(lambda: fit_law(train, curves), repeat)
    merged = timed(lambda: MultiPowerLaw.fit(train, curves), repeat)
    return {
        "ours": ours, "ours_multi_power": merged, "rival_first": first, "rival_second": second, "rival_torch": third,
        "adamw_steps": len(calls), "scaled": not full,
    }  # fmt: skip


def predictions(repeat: int) -> dict[str, Any]:
    """Return seconds of a million final losses: ours through the API, the per-step sum on a sample, scaled."""
    rng = np.random.default_rng(SEED)
    law = load_law("llama-slimpajama")
    steps = rng.integers(*STEPS, MILLION)
    peak, decay = rng.uniform(1e-4, 2e-3, MILLION), rng.uniform(0.05, 0.9, MILLION)

    def ours() -> Floats:
        batch = ScheduleBatch.grid("wsd", peak=peak, steps=steps, warmup=300, decay=decay)
        return law.expected_loss(RunTable.build(batch, params=8.5e7, batch_tokens=51200.0, weight_decay=0.1))

    seconds = timed(ours, max(1, repeat // 2))
    schedules = [
        Schedule("wsd", peak=float(peak[i]), steps=int(steps[i]), warmup=300, decay=float(decay[i]))
        for i in range(SAMPLED)
    ]
    rates = [np.maximum(s.array(), 1e-300) for s in schedules]

    def rival(each: Floats) -> float:
        total = np.cumsum(each)
        inner = 1.0 + PUBLISHED.C * each[1:] ** -PUBLISHED.gamma * (total[-1] - total[:-1])
        drop = np.sum((each[:-1] - each[1:]) * (1.0 - inner**-PUBLISHED.beta))
        return float(PUBLISHED.L0 + PUBLISHED.A * total[-1] ** -PUBLISHED.alpha - PUBLISHED.B * drop)

    check = PUBLISHED.predict_curve(RunTable.build([schedules[0]]), np.array([float(len(rates[0]))]))[0]
    if not np.isclose(rival(rates[0]), check, rtol=1e-9):
        raise SystemExit(f"rivals_speed: the per-step sum gives {rival(rates[0])}, the law {check}")
    each = np.min([timed(partial(rival, r), 5) for r in rates], axis=1)
    return {"ours": seconds, "rival": each.mean(axis=0) * MILLION, "sample": SAMPLED}


def plans(repeat: int, full: bool) -> dict[str, Any]:
    """Return seconds of planning a schedule of 24,000 updates: ours, and the authors' 10,000 Adam steps on all rates.

    Ours from a law fitted on their three curves, at their peak rate and warm-up, both stages; fits are not counted.
    """
    runs, curves = load("mpl"), load_curves("mpl")
    names = {f"{SIZE}-{shape}" for shape in FITTED}
    law = fit_law(runs.select([i for i, name in enumerate(runs.run_id) if name in names]), curves)

    def ours() -> object:
        return optimize_schedule(law, steps=PLANNED, min_peak=PLANNED_PEAK, max_peak=PLANNED_PEAK)

    ours()
    iterations = ADAM_STEPS if full else TIMED_ITERATIONS
    part = timed(lambda: optimise_rates(PUBLISHED, iterations=iterations), 1 if full else 3)
    rival = part.min(axis=0) * ADAM_STEPS / iterations
    return {"ours": timed(ours, repeat), "rival": rival, "iterations": iterations}


def show(seconds: Floats) -> str:
    """Return the median, the range by the clock, and the processor's median."""
    clock, processor = seconds.T
    return f"{np.median(clock):.3g} ({clock.min():.3g} to {clock.max():.3g}); {np.median(processor):.3g}"


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/speed_rivals.md and the README's table")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="run all AdamW and Adam steps instead of a part (minutes)")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    fit, predict, plan = (
        fits(options.repeat, options.full),
        predictions(options.repeat),
        plans(options.repeat, options.full),
    )
    count = fit["adamw_steps"]
    part = "scaled from a part" if fit["scaled"] else "whole"
    numpy_fit = fit["rival_first"] + fit["rival_second"]
    jobs = [
        ("fit of three curves", fit["ours"], numpy_fit, f"135 starts + {count} AdamW steps in numpy, {part}", "fit")
    ]
    if fit["rival_torch"] is not None:
        torch_fit = fit["rival_first"] + fit["rival_torch"]
        jobs.append(("the same", fit["ours"], torch_fit, f"135 starts + {count} AdamW steps in torch, scaled", "fit"))
    note = f"sums over every update, scaled from {SAMPLED} schedules"
    jobs.append(("1,000,000 final losses", predict["ours"], predict["rival"], note, "predict"))
    rows = []
    for name, ours, rival, text, key in jobs:
        clock, processor = rival / np.median(ours, axis=0)
        reached = mark(float(clock), TARGETS[key], larger=True)
        rows.append([name, show(ours), f"{rival[0]:.3g} ({text})", f"{clock:.0f}; {processor:.0f}", reached])
    clock, processor = plan["rival"] / np.median(plan["ours"], axis=0)
    how = "whole" if plan["iterations"] == ADAM_STEPS else f"scaled from {plan['iterations']}"
    text = f"{plan['rival'][0]:.3g} ({ADAM_STEPS:,} Adam steps in numpy, {how})"
    rows.append(["schedule of 24,000 updates", show(plan["ours"]), text, f"{clock:.1f}; {processor:.1f}", "none set"])
    head = ["what", "ours, s: clock (range); processor", "Multi-Power Law as published, s", "ratio: clock; processor"]
    text = table([*head, "target, clock"], rows)
    text = "Written by `python benchmarks/rivals_speed.py --write`.\n\n" + text
    text += (
        f"\n\n{os.cpu_count()} cores, Python {platform.python_version()}, load average {load_before:.1f} at first;"
        " data loaded before; rivals by their fastest part, ours by the median; processor seconds are of all threads."
        " Our fit also calibrates intervals by leaving groups out. The Multi-Power Law itself, with changes of the rate"
        " merged and the first stage by variable projection, ends at the same parameters in"
        f" {show(fit['ours_multi_power'])} s (`optlaws.baselines.multi_power`)."
    )
    print(text)
    if options.write:
        write_page(ROOT / "docs" / "speed_rivals.md", f"# Speed beside the rivals\n\n{text}\n")
        if "<!-- rivals-speed:begin -->" in (ROOT / "README.md").read_text(encoding="utf-8"):
            splice(ROOT / "README.md", "rivals-speed", text)
    parts = {"fit": fit, "predict": predict, "schedule": plan}
    print(json.dumps({"benchmark": "rivals_speed", **parts}, default=lambda array: array.tolist()))


if __name__ == "__main__":
    main()
