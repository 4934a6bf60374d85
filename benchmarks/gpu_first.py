"""What to measure first on a GPU: gpu_first.py [--minutes M] [--toy].

Versions; then the three models of gpu_sweep.yaml as it trains them, on their own data: 16 S as one program, two of
which leave it half-way, 15 M, and one L, each as it is and compiled; from these the time of the whole sweep, and what
to do; then the 124M model of harness.py, its residual stream in bfloat16 and in float32, beside the plain loop. Each
item is printed as soon as it is known, one that fails is named and costs no other, and none is begun in the last minute
of --minutes (6). The last line is JSON. Nothing has to be installed but torch, numpy and pyyaml, and nothing is kept.
--toy takes tiny models on the CPU: a test of the script, its figures mean nothing.

Of each model: ms an update; seconds for setup, for the first updates beyond that (compiling, where nothing was compiled
before), for an evaluation, the first one beyond that, the end with its evaluation, and for two runs leaving; programs
that were compiled or could not be; the most memory taken.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

BEGAN = time.monotonic()
ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    absent = [name for name in ("torch", "numpy", "yaml") if importlib.util.find_spec(name) is None]
    if absent:
        sys.exit(f"gpu_first: torch, numpy and pyyaml must be installed, got no {' and no '.join(absent)}; use pip")

import gpu_sweep  # before torch, for the environment that it sets  # noqa: E402
import torch  # noqa: E402
from harness import large_run, plain_loop  # noqa: E402

from optlaws.harness import train, train_stacked  # noqa: E402
from optlaws.harness.config import TrainConfig  # noqa: E402
from optlaws.harness.grid import Planned, read_grid  # noqa: E402
from optlaws.harness.machine import Machine, commit, versions  # noqa: E402
from optlaws.harness.sweep import plan_jobs  # noqa: E402
from optlaws.schedules import parse  # noqa: E402

SWEEP = 25 * 60.0  # seconds that the sweep may take
WINDOWS = {"S": 10, "M": 6, "L": 6}  # of so many updates:
WINDOW = 10
LEAVE = 5  # the window of S at whose beginning two runs leave
Facts = dict[str, Any]


class Watch:
    """Asked before every update whether to stop, it notes when each window begins, all work done."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.asked, self.stamps = machine, 0, [time.perf_counter()]

    def __call__(self) -> bool:
        if self.asked % WINDOW == 0:
            self.machine.wait()
            self.stamps.append(time.perf_counter())
        self.asked += 1
        return False


def about() -> Facts:
    """Return what the figures depend on."""
    found: Facts = {"versions": versions(), "commit": commit(), "cuda": torch.version.cuda, "cores": os.cpu_count()}
    found["cudnn"] = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    triton = importlib.util.find_spec("triton")
    found["triton"] = __import__("triton").__version__ if triton else None
    found["compiler"] = next((path for name in ("gcc", "cc", "clang") if (path := shutil.which(name))), None)
    found["cudnn_attention_last"] = os.environ.get("TORCH_CUDNN_SDPA_DEPRIORITIZED")
    if torch.cuda.is_available():
        one = torch.cuda.get_device_properties(0)
        found |= {
            "device": one.name,
            "gib": round(one.total_memory / 2**30, 1),
            "capability": f"{one.major}.{one.minor}",
        }
    return found


def runs_of(planned: list[Planned], size: str, compiled: bool) -> list[TrainConfig]:
    """Return runs of a size as the sweep stacks them, of few updates: evaluated after every other window."""
    base = next(one.config for one in planned if one.size == size)
    steps = WINDOW * WINDOWS[size]
    lengths = [WINDOW * LEAVE if size == "S" and i < 2 else steps for i in range(gpu_sweep.STACKED[size])]
    return [
        base.with_(
            name=f"{size}{i}",
            schedule=parse(f"constant:peak={1e-3 * 1.05**i:.6g},steps={length}"),
            eval=replace(base.eval, every=2 * WINDOW),
            compile=compiled,
        )
        for i, length in enumerate(lengths)
    ]


def timed(runs: list[TrainConfig]) -> Facts:
    """Train a stack, or a single run, and return its times in seconds.

    Windows 2, 4, ... begin with an evaluation, so the others tell an update's time.
    """
    machine = Machine.of(runs[0])
    watch = Watch(machine)
    programs, broken = gpu_sweep.not_compiled()
    if machine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    records = train_stacked(runs, at_once=len(runs), stop=watch) if len(runs) > 1 else [train(runs[0], stop=watch)]
    machine.wait()
    end = time.perf_counter() - watch.stamps[-1]
    setup, *windows = (after - before for before, after in itertools.pairwise(watch.stamps))
    own = median(windows[1 : LEAVE if len(windows) > LEAVE else None : 2])
    evaluation = max(0.0, median(windows[4::2]) - own)
    after = gpu_sweep.not_compiled()
    rate = records[-1].runs.extra["tokens_per_second"][0]
    found = {
        "runs": len(runs), "ms": 1e3 * own / WINDOW,
        "tokens_per_second": len(runs) * WINDOW * runs[0].batch_tokens / own,
        "tokens_per_second_by_record": float(rate) if rate else None, "setup": setup, "first": windows[0] - own,
        "evaluation": evaluation, "first_evaluation": windows[2] - own - evaluation, "end": end - own,
        "programs": after[0] - programs, "programs_not_compiled": after[1] - broken,
        "gib": torch.cuda.max_memory_allocated() / 2**30 if machine.device.type == "cuda" else None,
    }  # fmt: skip
    if len(windows) > LEAVE:
        found["leaving"] = windows[LEAVE] - own - evaluation
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in found.items()}


def measure(planned: list[Planned], size: str, compiled: bool) -> Facts:
    """Return the times of a size as the sweep stacks it."""
    return timed(runs_of(planned, size, compiled))


def seconds(planned: list[Planned], found: dict[str, Facts]) -> dict[str, float]:
    """Return how long each part of the sweep takes by the times of its three sizes; nothing for runs that diverge."""
    order = gpu_sweep.turn(max(one.config.steps for one in planned))
    names = {0: "what a law is fitted to", 1: "the large model", 2: "the longest runs"}
    total = dict.fromkeys(names.values(), 0.0)
    for now, size in itertools.product(names, found):
        row, part = found[size], [one.config for one in planned if one.size == size and order(one) == now]
        for job in plan_jobs(part, gpu_sweep.STACKED[size]):
            share = len(job) / row["runs"]
            steps, every = max(run.steps for run in job), job[0].eval.every
            evaluations = steps // every if every else 0
            total[names[now]] += (
                row["setup"] + row["end"] + share * (steps * row["ms"] / 1e3 + evaluations * row["evaluation"])
            )
    first = sum(row["first"] + row["first_evaluation"] + row.get("leaving", 0.0) for row in found.values())
    return {**{name: round(value, 1) for name, value in total.items()}, "first updates": round(max(0.0, first), 1)}


def advice(found: dict[str, dict[str, float]]) -> str:
    """Return what the times of the sweep by way, compiled or not, say to do."""
    best = min(found, key=lambda way: sum(found[way].values()))
    whole, parts = sum(found[best].values()), ", ".join(f"{name} {value:.0f}" for name, value in found[best].items())
    call = f"benchmarks/gpu_sweep.py{'' if best == 'compiled' else ' --eager'}"
    text = f"The sweep takes about {whole:.0f} s {best} ({parts}), of {SWEEP:.0f} s: "
    if whole <= 0.9 * SWEEP:
        return text + f"it fits; run {call} in calls of 8 minutes with the same --work."
    if whole - found[best]["the longest runs"] <= 0.9 * SWEEP:
        return text + f"run {call} all the same, as what a validation needs comes first; the longest runs will lack."
    return (
        text + f"too long even without the longest runs; take L's families or peaks out of the grid, then run {call}."
    )


def large(steps: int, toy: bool, folder: str, **model: Any) -> Facts:
    """Return tokens a second and MFU of the 124M model."""
    config, _, _ = large_run(toy, folder, steps, **model)
    record = train(config)
    mfu, rate = (record.runs.extra[name][0] for name in ("mfu", "tokens_per_second"))
    return {"tokens_per_second": float(rate), "mfu": float(mfu) if mfu else None, "loss": record.final_loss}


def plain(steps: int, toy: bool, folder: str) -> Facts:
    """Return the same of the plain loop, by the work of our model of as many layers, which is a little more."""
    config, vocab, stream = large_run(toy, folder, steps)
    rate, peak = plain_loop(config, vocab, stream, steps), Machine.of(config).peak_flops
    shape: Any = config.model
    work = (
        6 * (12 * shape.depth + vocab / shape.width) * shape.width**2 + 12 * shape.depth * shape.width * config.seq_len
    )
    return {"tokens_per_second": round(rate, 1), "mfu": rate * work / peak if peak else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--toy", action="store_true")
    given = parser.parse_args()
    if not given.toy and not torch.cuda.is_available():
        sys.exit("gpu_first: a CUDA device must be here, got none that torch sees; give --toy to test the script")
    found: Facts = {"toy": given.toy}

    def item(name: str, work: Callable[[], Any]) -> None:
        spent = time.monotonic() - BEGAN
        if spent > 60 * (given.minutes - 1):
            print(f"{spent:6.1f} s  {name}: left out, as the time is nearly over", flush=True)
            return
        try:
            found[name] = work()
        except Exception as bad:  # whatever it is, the other items are worth having
            found[name] = {"failed": f"{type(bad).__name__}: {(str(bad).splitlines() or [''])[0]:.300}"}
        print(f"{time.monotonic() - BEGAN:6.1f} s  {name}: {json.dumps(found[name])}", flush=True)

    item("about", about)
    compiled = not given.toy and gpu_sweep.compiles()
    ways = ("eager", "compiled") if compiled else ("eager",)
    planned = read_grid(gpu_sweep.grid(given.toy))
    for size, way in itertools.product(WINDOWS, ways):
        item(f"{size} {way}", partial(measure, planned, size, way == "compiled"))
    sweep = {}
    for way in ways:
        rows = {size: found.get(f"{size} {way}", {"failed": "left out"}) for size in WINDOWS}
        if not any("failed" in row for row in rows.values()):
            sweep[way] = seconds(planned, rows)
    found["sweep"] = sweep
    found["advice"] = advice(sweep) if sweep else "The time of the sweep is not known; see what failed above."
    print(found["advice"], flush=True)
    steps = 12 if given.toy else 60
    with tempfile.TemporaryDirectory() as folder:
        item("124M", lambda: large(steps, given.toy, folder))
        item("124M float32 stream", lambda: large(steps, given.toy, folder, residual_dtype="float32"))
        item("124M plain loop", lambda: plain(steps, given.toy, folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
