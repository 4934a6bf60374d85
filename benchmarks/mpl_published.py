"""Our fit beside the Multi-Power Law's as its authors run it, torch included: python benchmarks/mpl_published.py.

Needs torch (CPU) beside the package. The procedure, from arXiv 2503.12811 and its repository, written anew: 135 starts
of L-BFGS-B on a four-parameter law, curve by curve, with slopes by differences; then up to 200 steps of AdamW on all
seven parameters with slopes by automatic differentiation, the sum over all updates so far taken anew for every reading
and put into an array; it ends 20 steps after the last improvement. The whole of it is run, not a part scaled (--scaled
N times N AdamW steps and scales them). torch gets one thread or all of them, whichever takes a step faster.

On each of --repeat rounds ours and the rival's are timed one after the other, so that a busy machine slows both. Ratios
are of ours by the median and the rival's by its fastest round. Processor seconds are of all threads. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from public import FITTED, load, load_curves, write_page
from scipy.optimize import minimize
from scipy.special import huber

from optlaws.baselines._readings import Readings, gather
from optlaws.baselines.base import HUBER
from optlaws.baselines.multi_power import FIT_CHANGES, MultiPowerLaw, _Features, adamw
from optlaws.law import fit_law
from optlaws.runs import CurveTable

Floats = NDArray[np.float64]
SIZE, STEPS, PATIENCE = "25M", 200, 20


def clocked(call: Callable[[], Any]) -> tuple[Floats, Any]:
    """Return seconds by the clock and of the processor, and what the call gave."""
    clock, processor = time.perf_counter(), time.process_time()
    result = call()
    return np.array([time.perf_counter() - clock, time.process_time() - processor]), result


def first_stage(readings: list[Readings]) -> Floats:
    """Run the 135 starts of L-BFGS-B of the four-parameter law and return the best parameters."""
    peak = 3e-4  # of all curves; the authors write it so

    def cost(x: Floats) -> float:  # the rates are summed anew at every evaluation
        total = 0.0
        for run in readings:
            at = run.steps - 1
            value = x[0] + x[1] * np.cumsum(run.rates)[at] ** -x[2] - x[3] * (peak - run.rates[at])
            total += float(huber(HUBER, np.log(run.loss) - np.log(value)).sum())
        return total

    low = min(float(run.loss.min()) for run in readings)
    seen = np.concatenate([np.cumsum(run.rates)[run.steps - 1] for run in readings])
    loss = np.concatenate([run.loss for run in readings])
    slope, height = np.polyfit(np.log(seen), np.log(loss - low + 0.01), 1)
    options = {"maxiter": 100_000, "ftol": 1e-9, "gtol": 1e-6, "eps": 1e-8}
    starts = product(
        np.linspace(low - 0.2, low + 0.2, 5), np.exp(height) + np.linspace(-0.1, 0.1, 3),
        -slope + np.linspace(-0.1, 0.1, 3), np.linspace(100.0, 1000.0, 3),
    )  # fmt: skip
    with np.errstate(invalid="ignore", divide="ignore"):
        ended = [minimize(cost, x, method="L-BFGS-B", bounds=[(0, None)] * 4, options=options) for x in starts]
    return np.asarray(min(ended, key=lambda done: float(np.nan_to_num(done.fun, nan=np.inf))).x)


def torch_step(torch: Any, readings: list[Readings], x: Floats) -> Callable[[], float]:
    """Return one AdamW step of the second stage from these parameters, the cost before it."""
    p = [torch.tensor(float(v), dtype=torch.float64, requires_grad=True) for v in x]
    slow, fast = [p[i] for i in (2, 5, 6)], [p[i] for i in (0, 1, 3, 4)]
    optimizer = torch.optim.AdamW([{"params": fast, "lr": 5e-2}, {"params": slow, "lr": 5e-3}])
    data = []
    for run in readings:
        rates = torch.tensor(np.maximum(run.rates, 1e-300))
        rise = torch.zeros_like(rates)
        rise[1:] = torch.diff(rates)
        data.append((rates, rise, torch.cumsum(rates, 0), torch.tensor(run.steps - 1), torch.tensor(run.loss)))

    def step() -> float:
        optimizer.zero_grad()
        cost: Any = 0.0
        for rates, rise, total, at, loss in data:
            drop = torch.zeros(len(at), dtype=torch.float64)
            for i, k in enumerate(at):
                inner = 1 + p[4] * rates[1 : k + 1] ** -p[6] * (total[k] - total[:k])
                drop[i] = torch.sum(rise[1 : k + 1] * (1 - inner ** -p[5]))
            r = torch.log(loss) - torch.log(p[0] + p[1] * total[at] ** -p[2] + p[3] * drop)
            size = torch.abs(r)
            cost = cost + torch.where(size < HUBER, 0.5 * r**2, HUBER * (size - 0.5 * HUBER)).sum()
        cost.backward()
        optimizer.step()
        return float(cost.detach())

    return step


def second_stage(step: Callable[[], float], count: int | None) -> list[float]:
    """Take AdamW steps until the authors' rule ends them, or `count` of them; return the costs."""
    costs: list[float] = []
    best, stale = np.inf, 0
    for i in range(STEPS if count is None else count):
        costs.append(step())
        best, stale = (costs[-1], 0) if costs[-1] < best else (best, stale + 1)
        if count is None and i > PATIENCE and stale >= PATIENCE:
            break
    return costs


def fastest_threads(torch: Any, step: Callable[[], float]) -> int:
    """Return the number of threads, one or all, with which a step is taken faster."""
    spent = {}
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        spent[threads] = min(clocked(step)[0][0] for _ in range(2))
    return min(spent, key=lambda threads: float(spent[threads]))


def steps_of_the_rule(readings: list[Readings], x: Floats) -> int:
    """Return how many AdamW steps the authors' rule takes, counted with merged changes of the rate."""
    calls: list[int] = []
    each = _Features(readings, 1.0, 1.0, FIT_CHANGES).huber_slopes(np.concatenate([run.loss for run in readings]))

    def counted(y: Floats) -> tuple[float, Floats]:
        calls.append(1)
        return each(y)

    adamw(counted, x)
    return len(calls)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="rounds of the fits that are timed")
    parser.add_argument("--scaled", type=int, metavar="STEPS", help="time so many AdamW steps and scale them")
    parser.add_argument("--write", action="store_true", help="write docs/speed_published.md")
    options = parser.parse_args()
    if options.write and options.scaled:
        parser.error("--write needs the whole procedure, got --scaled, which times a part of it; leave it out")
    try:
        torch = import_module("torch")
    except ImportError:
        parser.error("torch cannot be imported; install it (CPU) beside the package")
    runs, curves = load("mpl"), load_curves("mpl")
    train = runs.select([i for i, name in enumerate(runs.run_id) if name in {f"{SIZE}-{shape}" for shape in FITTED}])
    readings = gather(MultiPowerLaw, train, CurveTable(curves.run_id, curves.step + 1.0, curves.loss), 7)
    load_before = os.getloadavg()[0]
    fit_law(train, curves)  # once before the clock: imports and caches
    ours, firsts, seconds = [], [], []
    counts: list[int] = []
    for _ in range(options.repeat):
        ours += [clocked(lambda: fit_law(train, curves))[0] for _ in range(3)]
        first, four = clocked(lambda: first_stage(readings))
        x = np.array([*four, 1.0, 0.5, 0.5])
        threads = fastest_threads(torch, torch_step(torch, readings, x))
        torch.set_num_threads(threads)
        step = torch_step(torch, readings, x)
        spent, costs = clocked(partial(second_stage, step, options.scaled))
        count, how = len(costs), f"cost {costs[0]:.4g} to {min(costs):.4g}"
        if options.scaled:
            count, how = steps_of_the_rule(readings, x), "scaled"
            spent = spent * count / options.scaled
        firsts.append(first)
        seconds.append(spent)
        counts.append(count)
        text = f"ours {ours[-1][0]:.3f} s; 135 starts {first[0]:.2f} s; {count} AdamW steps {spent[0]:.1f} s"
        print(f"{text} with {threads} thread{'s' if threads > 1 else ''} ({how})", flush=True)
    rival = np.array(firsts) + np.array(seconds)
    mine = np.array(ours)
    ratio = rival.min(axis=0) / np.median(mine, axis=0)
    low, high = rival.min(axis=0) / mine.max(axis=0), rival.max(axis=0) / mine.min(axis=0)
    said = [
        f"{name}: ours {np.median(mine[:, j]):.3f} s, rival {rival[:, j].min():.1f} s, ratio {ratio[j]:.0f}"
        f" (range {low[j]:.0f} to {high[j]:.0f})"
        for j, name in enumerate(("clock", "processor"))
    ]
    print("\n".join(said))
    if options.write:
        about = " ".join((__doc__ or "").split(".\n\n", 1)[1].split())
        text = "# Our fit beside the published procedure\n\nWritten by `python benchmarks/mpl_published.py --write`. "
        text += f"{about}\n\n" + "\n".join(f"- {line}" for line in said)
        text += f"\n\n{options.repeat} rounds on {os.cpu_count()} cores; {counts[0]} AdamW steps;"
        text += f" torch {torch.__version__}; load average {load_before:.1f} at first.\n"
        write_page(Path(__file__).resolve().parents[1] / "docs" / "speed_published.md", text)
    result = {
        "benchmark": "mpl_published", "ours": mine, "rival_first": firsts, "rival_second": seconds,
        "adamw_steps": counts, "ratio": ratio, "load": load_before, "torch": torch.__version__,
    }  # fmt: skip
    print(json.dumps(result, default=lambda array: array.tolist()))


if __name__ == "__main__":
    main()
