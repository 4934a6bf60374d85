"""The sweep of gpu_sweep.yaml on one GPU: gpu_sweep.py [--work DIR] [--minutes M] [--from FILE] [--eager] [--toy].

Needs torch, numpy and pyyaml; nothing has to be installed, as the repository's own package is used. Runs that are
finished in the work folder are not trained again, so the script may be stopped, killed or given a time limit, and
started again. Small models are trained in stacks, and all of them compiled unless torch.compile does not work here or
--eager is given. If the environment variable OUT names a folder, runs.csv, curves.csv
and runs.tar.gz are put there at the end; --from takes such an archive of finished runs up again on another machine.
--toy takes tiny models on the CPU: a test of the script, no more. `optlaws validate DIR` says afterwards how well a law
fitted on the small half predicts the rest.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NEEDED = {"torch": "torch", "numpy": "numpy", "yaml": "pyyaml"}
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        sys.exit(f"gpu_sweep: {' and '.join(missing)} must be installed, got none; pip install {' '.join(missing)}")

from optlaws.harness.grid import read_grid  # noqa: E402
from optlaws.harness.sweep import (  # noqa: E402
    CURVE_TABLE,
    RUN_TABLE,
    RUNS,
    SweepProgress,
    SweepResult,
    finished,
    sweep,
)
from optlaws.runs._files import read_text  # noqa: E402
from optlaws.runs._yaml import load_yaml  # noqa: E402

GRID = ROOT / "benchmarks" / "gpu_sweep.yaml"
STACKED = {"S": 24, "M": 8, "L": 1}  # one L keeps a GPU busy by itself
ARCHIVE = "runs.tar.gz"
SHRINK = 200  # a toy run has this part of the updates


def grid(toy: bool, compiled: bool = False) -> dict[str, Any]:
    """Return the content of the grid file; a toy has the same runs with tiny models and hardly any updates."""
    content: dict[str, Any] = load_yaml(*read_text(GRID))
    content["base"]["compile"] = compiled  # no part of what a run is: finished ones stay finished
    if toy:
        content["base"] |= {"seq_len": 8, "batch": 2, "device": "cpu", "threads": 1, "log_every": 2}
        content["base"] |= {"eval": {"sequences": 4}, "data": {"vocab": 32, "branching": 4}}
        content["sizes"] = {
            name: {"depth": 1, "width": 8 * place, "heads": 2} for place, name in enumerate("SML", start=1)
        }
        content["warmups"] = [1]
        for block in content["blocks"].values():
            block["horizons"] = [steps // SHRINK for steps in block["horizons"]]
            if "warmups" in block:
                block["warmups"] = [0, 2]
    return content


def compiles() -> bool:
    """Return whether torch.compile works on the GPU here: it needs Triton and a C compiler."""
    import torch

    if not torch.cuda.is_available():
        return False
    torch._dynamo.config.suppress_errors = True  # what cannot be compiled later runs as it is
    try:
        point = torch.ones(8, device="cuda", requires_grad=True)
        torch.compile(lambda x: (x * x).sum())(point).backward()
        return bool((point.grad == 2).all())
    except Exception as bad:  # whatever it is, training goes on without it
        print(f"torch.compile does not work here ({type(bad).__name__}), so nothing is compiled", flush=True)
        return False


def run(work: Path, minutes: float, toy: bool, compiled: bool = False) -> SweepResult:
    """Train what is left, for so many minutes at most."""
    planned = read_grid(grid(toy, compiled))
    began = time.monotonic()
    cost = {one.config.run_id: float(one.config.steps) * weight(one.config.model) for one in planned}
    total, state = sum(cost.values()), {"first": -1, "share": 0.0}

    def show(now: SweepProgress) -> None:
        if state["first"] < 0:
            state["first"] = now.done
            print(f"{now.done} of {now.total} runs are finished", flush=True)
        elif now.record is not None:
            state["share"] += cost[now.record.run_id] / total
            spent = (time.monotonic() - began) / 60
            loss, rate = now.record.final_loss, now.record.runs.extra["tokens_per_second"][0]
            print(
                f"{spent:6.1f} min  {now.done}/{now.total}  {now.record.run_id}  {now.record.status}  loss {loss:.4f}  "
                f"{rate or '?'} tokens/s  {100 * state['share']:.1f} % of the work done here",
                flush=True,
            )

    return sweep(planned, work, stacked=STACKED, progress=show, stop=lambda: time.monotonic() - began > 60 * minutes)


def weight(model: Any) -> float:
    """Return what an update costs, in proportion to the parameters of the layers."""
    return float(model.depth * model.width**2)


def pack(work: Path, out: Path) -> None:
    """Put the tables and an archive of the finished runs into a folder, without checkpoints."""
    for name in (RUN_TABLE, CURVE_TABLE):
        if (work / name).exists():
            shutil.copyfile(work / name, out / name)
    with tarfile.open(out / ARCHIVE, "w:gz") as archive:
        for folder in sorted((work / RUNS).iterdir()) if (work / RUNS).is_dir() else []:
            if finished(folder):
                for path in sorted(folder.iterdir()):
                    if path.is_file():
                        archive.add(path, f"{RUNS}/{folder.name}/{path.name}")


def unpack(source: Path, work: Path) -> None:
    """Take up the finished runs of an archive."""
    work.mkdir(parents=True, exist_ok=True)
    with tarfile.open(source) as archive:
        archive.extractall(work, filter="data")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "gpu_sweep")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--from", dest="source", type=Path, help="runs.tar.gz of an earlier call")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--toy", action="store_true")
    given = parser.parse_args()
    if given.source:
        unpack(given.source, given.work)
    out = os.environ.get("OUT")
    try:
        result = run(given.work, given.minutes, given.toy, not (given.toy or given.eager) and compiles())
    finally:  # what is finished is worth keeping, whatever stopped the rest
        if out:
            pack(given.work, Path(out))
    statuses = list(result.runs.status) if result.runs else []
    ends = ", ".join(f"{statuses.count(name)} {name}" for name in sorted({str(status) for status in statuses}))
    print(f"{result.done} of {result.total} runs finished ({ends}), {result.trained} of them now, in {given.work}")


if __name__ == "__main__":
    main()
