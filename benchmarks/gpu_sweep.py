"""The sweep of gpu_sweep.yaml on one GPU: gpu_sweep.py [--work DIR] [--minutes M] [--from FILE] [--eager] [--toy].

Needs torch, numpy and pyyaml; nothing has to be installed, as the repository's own package is used. Runs that are
finished in the work folder are not trained again, so the script may be stopped, killed or given a time limit, and
started again. Small models are trained in stacks, and all of them compiled unless torch.compile does not work here or
--eager is given; a model that cannot be compiled is named. First comes what a law is fitted to, then the large model,
then the longest runs, so that `optlaws validate DIR` has something to predict if time runs out.

If the environment variable OUT names a folder, runs.csv, curves.csv and runs.tar.gz are put there, at most 30 s old
while runs are trained, as a machine with a time limit may kill this at any moment; the archive counts, the tables may
lag behind it. --minutes, from the very start of the script, should leave two of the limit for a model that is being
compiled and a checkpoint that is being written. --from takes an archive up again on another machine. It holds finished
runs only: the checkpoint of the stack at work is too large to bring back and stays in the work folder. So call again at
once, while the machine is warm, with the same --work, and give --from all the same, in case the machine is another.
Where the folder of the repository travels without .git, OPTLAWS_COMMIT says the commit for the records. The last line
is JSON. --toy takes tiny models on the CPU: a test of the script, no more.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

BEGAN = time.monotonic()  # torch takes seconds to load and more to compile its first program, and they count
# On Hopper torch prefers cuDNN's attention, which plans anew for every number of runs in a stack. Read when it is used.
os.environ.setdefault("TORCH_CUDNN_SDPA_DEPRIORITIZED", "1")
ROOT = Path(__file__).resolve().parents[1]
NEEDED = {"torch": "torch", "numpy": "numpy", "yaml": "pyyaml"}
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        sys.exit(f"gpu_sweep: {' and '.join(missing)} must be installed, got none; pip install {' '.join(missing)}")

from optlaws.harness.grid import Planned, read_grid  # noqa: E402
from optlaws.harness.sweep import (  # noqa: E402
    CURVE_TABLE,
    RUN_TABLE,
    RUNS,
    SweepProgress,
    SweepResult,
    finished,
    sweep,
)
from optlaws.runs import atomic_write  # noqa: E402
from optlaws.runs._files import read_text  # noqa: E402
from optlaws.runs._yaml import load_yaml  # noqa: E402

GRID = ROOT / "benchmarks" / "gpu_sweep.yaml"
STACKED = {"S": 16, "M": 15, "L": 1}  # no stack has runs of two lengths; one L keeps a GPU busy by itself
ARCHIVE = "runs.tar.gz"
PACK_EVERY = 30.0  # seconds
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
    torch._dynamo.config.recompile_limit = 64  # more programs of one function than usual would run as they are, too
    try:
        point = torch.ones(8, device="cuda", requires_grad=True)
        torch.compile(lambda x: (x * x).sum())(point).backward()
        return bool((point.grad == 2).all())
    except Exception as bad:  # whatever it is, training goes on without it
        print(f"torch.compile does not work here ({type(bad).__name__}), so nothing is compiled", flush=True)
        return False


def not_compiled() -> tuple[int, int]:
    """Return how many programs were to be compiled so far, and how many of them could not be and run as they are."""
    if "torch._dynamo.utils" not in sys.modules:
        return 0, 0
    frames = sys.modules["torch._dynamo.utils"].counters["frames"]
    return frames["total"], frames["total"] - frames["ok"]


def turn(longest: int) -> Any:
    """Return when a run comes: what a law is fitted to first, then the large model, then the longest runs."""
    return lambda one: 2 if one.config.steps == longest else int(one.size == "L")


def weight(model: Any) -> float:
    """Return what an update costs, in proportion to the parameters of the layers."""
    return float(model.depth * model.width**2)


class Account:
    """What is finished, how long it took here, and what that says of the rest."""

    def __init__(self, planned: list[Planned], work: Path, out: Path | None) -> None:
        """Take the runs of the grid, the work folder, and the folder for what is to be kept."""
        self.work, self.out = work, out
        self.size = {one.config.run_id: one.size for one in planned}
        self.cost = {one.config.run_id: one.config.steps * weight(one.config.model) for one in planned}
        self.open = {name for name in self.size if not finished(work / RUNS / name)}
        self.new: list[str] = []  # of the job that has just ended
        self.paces: dict[str, tuple[float, float]] = {}  # seconds and work done here, by size
        self.mark = self.packed = time.monotonic()
        self.unpacked = self.failures = 0

    def show(self, now: SweepProgress) -> None:
        """Say that a run has ended."""
        if now.record is None:
            print(f"{now.done} of {now.total} runs are finished", flush=True)
            self.pack()
            return
        name, record = now.record.run_id, now.record
        self.open.discard(name)
        self.new.append(name)
        rate = record.runs.extra["tokens_per_second"][0]
        print(
            f"{(time.monotonic() - BEGAN) / 60:6.1f} min  {now.done}/{now.total}  {name}  {record.status}  loss "
            f"{record.final_loss:.4f}  {rate or '?'} tokens/s",
            flush=True,
        )
        self.unpacked += 1
        self.pack_if_due()

    def settle(self) -> None:
        """After a job, say what is left, and whether its model could be compiled."""
        if self.new:
            now, size = time.monotonic(), self.size[self.new[0]]
            before = self.paces.get(size, (0.0, 0.0))
            done = sum(self.cost[name] for name in self.new)
            self.paces[size] = before[0] + now - self.mark, before[1] + done
            self.mark, self.new = now, []
            total, failed = not_compiled()
            if failed > self.failures:
                print(f"{size}: {failed} of {total} programs so far COULD NOT BE COMPILED and run slowly", flush=True)
            self.failures = failed
            left = self.left()
            print(f"about {left or 0:.1f} min are left for the {len(self.open)} runs not finished", flush=True)
        self.pack_if_due()

    def left(self) -> float | None:
        """Return the minutes that are left; None before the first job has ended, unless nothing is left."""
        if not self.paces or not self.open:
            return None if self.open else 0.0
        usual = sum(s for s, _ in self.paces.values()) / sum(w for _, w in self.paces.values())
        pace = {size: spent / work for size, (spent, work) in self.paces.items()}
        return sum(self.cost[name] * pace.get(self.size[name], usual) for name in self.open) / 60

    def pack_if_due(self) -> None:
        """Keep what has been finished since, if half a minute has passed."""
        if self.unpacked and time.monotonic() - self.packed >= PACK_EVERY:
            self.pack()

    def pack(self) -> None:
        """Keep what is finished."""
        if self.out:
            pack(self.work, self.out)
        self.packed, self.unpacked = time.monotonic(), 0


def run(
    work: Path, minutes: float, toy: bool, compiled: bool = False, out: Path | None = None
) -> tuple[SweepResult, float | None]:
    """Train what is left until the script is so many minutes old; return the minutes that are then left, if known."""
    planned = read_grid(grid(toy, compiled))
    account = Account(planned, work, out)

    def stop() -> bool:  # asked between two jobs, too
        account.settle()
        return time.monotonic() - BEGAN > 60 * minutes

    order = turn(max(one.config.steps for one in planned))
    return sweep(planned, work, stacked=STACKED, order=order, progress=account.show, stop=stop), account.left()


def pack(work: Path, out: Path) -> None:
    """Put the tables and an archive of the finished runs into a folder, without checkpoints, each whole or not."""
    for name in (RUN_TABLE, CURVE_TABLE):
        if (work / name).exists():
            with atomic_write(out / name, "wb") as stream:
                stream.write((work / name).read_bytes())
    with atomic_write(out / ARCHIVE, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
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
    parser.add_argument("--minutes", type=float, default=8.0, help="of this call, for a limit of 10 (8)")
    parser.add_argument("--from", dest="source", type=Path, help="runs.tar.gz of an earlier call")
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--toy", action="store_true")
    given = parser.parse_args()
    if given.source:
        unpack(given.source, given.work)
    out = Path(os.environ["OUT"]) if os.environ.get("OUT") else None
    compiled = not (given.toy or given.eager) and compiles()
    try:
        result, left = run(given.work, given.minutes, given.toy, compiled, out)
    finally:  # what is finished is worth keeping, whatever stopped the rest
        if out:
            pack(given.work, out)
    statuses = list(result.runs.status) if result.runs else []
    counts = {str(name): statuses.count(name) for name in sorted({str(status) for status in statuses})}
    ends = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"{result.done} of {result.total} runs finished ({ends}), {result.trained} of them now, in {given.work}")
    total, failed = not_compiled()
    print(
        json.dumps({
            "done": result.done, "total": result.total, "trained": result.trained, "statuses": counts,
            "minutes": round((time.monotonic() - BEGAN) / 60, 2),
            "minutes_left": None if left is None else round(left, 1),
            "compiled": compiled, "programs": total, "programs_not_compiled": failed,
        })
    )  # fmt: skip


if __name__ == "__main__":
    main()
