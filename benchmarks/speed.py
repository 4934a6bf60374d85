"""Wall-clock times of whole processes and of the Python API: python benchmarks/speed.py [--write] [--repeat N].

Each command runs as a fresh process, once to warm the disk cache and then N times; median, smallest and largest are
printed. --write puts the table into docs/speed.md. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from accuracy import mark, splice, table
from public import FITTED, completed, data_file, load

from optlaws._normal import NORMAL_90
from optlaws.ranking import rank
from optlaws.runs import RunTable, read_runs, write_runs
from optlaws.schedules import ScheduleBatch

ROOT = Path(__file__).resolve().parents[1]
SECONDS = {
    "optlaws --version": 0.3,
    "rank of 10 candidates": 1.5,
    "rank of 10,000 candidates": 3.0,
    "fit of 181 runs": 2.0,
    "fit of three curves": 1.0,
    "1,000,000 candidates through the Python API": 10.0,
    "run table of 10,000 rows read (in Python)": 0.5,
    "10,000 predictions ranked (in Python)": 0.3,
    "1,000,000 predictions ranked (in Python)": 3.0,
}
MILLION = """
import numpy as np, resource, time
from optlaws import RunTable, ScheduleBatch, load_law, rank
n = 1_000_000
rng = np.random.default_rng(0)
law = load_law("llama-slimpajama")
start = time.perf_counter()
steps = rng.integers(STEPS_LOW, STEPS_HIGH, n)
peak, decay = rng.uniform(1e-4, 2e-3, n), rng.uniform(0.05, 0.9, n)
batch = ScheduleBatch.grid("wsd", peak=peak, steps=steps, warmup=300, decay=decay)
runs = RunTable.build(batch, params=8.5e7, batch_tokens=51200.0, weight_decay=0.1)
ranking = rank(runs, law)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def candidates(path: Path, count: int) -> Path:
    """Write a CSV of short forms."""
    rng = np.random.default_rng(0)
    rows = [
        f'"wsd:peak={p:.6g},steps=50000,warmup=300,decay={d:.4f}"'
        for p, d in zip(rng.uniform(2e-4, 2e-3, count), rng.uniform(0.05, 0.9, count), strict=True)
    ]
    path.write_text("schedule\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def timed(command: list[str], repeat: int) -> list[float]:
    """Return the wall-clock seconds of fresh processes."""
    seconds = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def read_table(path: Path) -> float:
    """Return seconds to read a run table from Python."""
    start = time.perf_counter()
    read_runs(path)
    return time.perf_counter() - start


def ranked(count: int) -> float:
    """Return seconds to rank made-up predictions with a joint covariance: `rank` without what a law costs."""
    rng = np.random.default_rng(0)
    runs = RunTable.build(ScheduleBatch.grid("cosine", peak=np.linspace(1e-4, 1e-3, count), steps=1000))
    loss, factors, noise = 3 + 0.02 * rng.random(count), 0.01 * rng.standard_normal((count, 6)), np.full(count, 1e-3)
    sd = np.sqrt((factors**2).sum(axis=1) + noise**2)
    half = NORMAL_90 * sd
    prediction = SimpleNamespace(
        loss=loss, sd=sd, noise=noise, lower=loss - half, upper=loss + half, in_domain=np.ones(count, bool),
        reasons=[""] * count, covariance=lambda i: factors[i] @ factors[i].T,
        covariance_with=lambda j, rows=None: factors[slice(None) if rows is None else rows] @ factors[j],
    )  # fmt: skip
    law: Any = SimpleNamespace(name="made up", predict=lambda runs: prediction)
    start = time.perf_counter()
    rank(runs, law)
    return time.perf_counter() - start


def million(low: int, high: int) -> tuple[float, float]:
    """Return seconds and GiB of ranking a million candidates of so many steps in a fresh process."""
    code = MILLION.replace("STEPS_LOW", str(low)).replace("STEPS_HIGH", str(high))
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    seconds, memory = map(float, out.split())
    return seconds, memory


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/speed.md")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    optlaws = [sys.executable, "-m", "optlaws"]
    seconds: dict[str, list[float]] = {}
    memory = 0.0
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        runs, curves = completed(load("schaipp")), load("mpl")
        write_runs(here / "runs.csv", runs)
        three = [i for i, name in enumerate(curves.run_id) if name.startswith("25M-") and name.split("-")[1] in FITTED]
        write_runs(here / "three.csv", curves.select(three))
        curve_file = data_file("mpl_curves.csv")
        size = ["--params", "85M", "--batch-tokens", "51200"]
        jobs = {
            "optlaws --version": [*optlaws, "--version"],
            "rank of 10 candidates": [*optlaws, "rank", str(candidates(here / "ten.csv", 10)), *size],
            "rank of 10,000 candidates": [*optlaws, "rank", str(candidates(here / "many.csv", 10000)), *size],
            "fit of 181 runs": [*optlaws, "fit", str(here / "runs.csv"), "-o", str(here / "law.json")],
            "fit of three curves": [
                *optlaws, "fit", str(here / "three.csv"), "--curves", str(curve_file), "-o", str(here / "law3.json"),
            ],
        }  # fmt: skip
        for name, command in jobs.items():
            seconds[name] = timed(command, arguments.repeat)
        seconds["1,000,000 candidates through the Python API"] = []
        for _ in range(max(1, arguments.repeat // 2)):
            took, used = million(3000, 200000)
            seconds["1,000,000 candidates through the Python API"].append(took)
            memory = max(memory, used)
        specs = [row.strip('"') for row in (here / "many.csv").read_text(encoding="utf-8").splitlines()[1:]]
        write_runs(here / "table.csv", RunTable.build(specs, params=8.5e7, final_loss=3.0))
        table_seconds = [read_table(here / "table.csv") for _ in range(arguments.repeat)]
        seconds["run table of 10,000 rows read (in Python)"] = table_seconds
    for count in (10_000, 1_000_000):
        name = f"{count:,} predictions ranked (in Python)"
        seconds[name] = [ranked(count) for _ in range(arguments.repeat)]
    long_runs = million(3_000_000, 200_000_000)[0]
    body = [
        [name, f"{np.median(s):.2f} ({min(s):.2f} to {max(s):.2f})", mark(float(np.median(s)), SECONDS[name])]
        for name, s in seconds.items()
    ]
    text = table(["what", "seconds, median (range)", "target"], body)
    text = "Written by `python benchmarks/speed.py --write`.\n\n" + text
    text += (
        f"\n\nWhole processes on {os.cpu_count()} cores, Python {platform.python_version()}, each {arguments.repeat}"
        f" times, the million {max(1, arguments.repeat // 2)} times; it used {memory:.1f} GiB,"
        f" and took {long_runs:.1f} s with a thousand times the steps."
    )
    print(text)
    if arguments.write:
        splice(ROOT / "docs" / "speed.md", "speed", text)
    print(json.dumps({"benchmark": "speed", "seconds": seconds, "gib": memory, "million_long": long_runs}))


if __name__ == "__main__":
    main()
