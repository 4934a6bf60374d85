"""Many runs: one after the other, in stacks, in several processes, or over a Ray cluster.

The folder of a sweep is its only memory: runs/<run_id>/ holds each run as `optlaws train` leaves it, with run.csv
written last, so a run is either whole or not there. runs.csv and curves.csv are made anew from these folders and
replaced in one step; nothing is ever appended to. Killing a sweep at any moment costs at most what the runs at work
have done since their last checkpoint.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from optlaws.errors import InputError
from optlaws.harness._fields import unknown, wrong
from optlaws.harness.config import MAY_DIFFER, TrainConfig, stack_folder
from optlaws.harness.grid import Planned, read_grid
from optlaws.harness.lock import LOCK_FILE, RUN_LOCK, at_work, held
from optlaws.harness.record import MEMBERS_FILE, RUN_FILE, RunRecord, read_record
from optlaws.runs import CurveTable, RunTable, write_curves, write_runs

RUNS, RUN_TABLE, CURVE_TABLE = "runs", "runs.csv", "curves.csv"
WORST = 1.2  # times the best loss of the same (N, D), above which a run is no result (the rule of Step Law)
LEARNT = 0.98  # of the loss before the first update, above which a run has not learnt
UNLEARNT = 1.02  # of that loss, above which it has lost even what it began with
STOP_FILE = ".stop"  # in the folder of a sweep: its workers stop at their next update
TABLES_EVERY = 20.0  # seconds from one look of the tables to the next
Job = tuple[TrainConfig, ...]


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep has come: runs finished, runs in all, and the run that has just ended."""

    done: int
    total: int
    record: RunRecord | None = None


@dataclass(frozen=True)
class SweepResult:
    """A sweep's tables as they stand, and whether all of its runs are in them.

    Attributes
    ----------
    runs
        The run table; None while no run is finished.
    done, total, trained
        Runs of the grid that are finished, that there are, and that this call has trained.
    folder
        Where it all lies.
    """

    runs: RunTable | None
    done: int
    total: int
    trained: int
    folder: Path

    @property
    def whole(self) -> bool:
        """Whether every run of the grid is finished."""
        return self.done == self.total


def plan_jobs(runs: Sequence[TrainConfig], stacked: int) -> list[Job]:
    """Return the jobs: runs by themselves, or at most `stacked` at once that may be one program.

    The jobs depend on the runs alone and not on what is finished, so that the checkpoints of a stack are found again.
    Runs of like length are put together, since a stack takes as long as its longest run.

    Raises
    ------
    InputError
        `stacked` is below 1.
    """
    if stacked < 1:
        raise wrong("stacked", "a whole number of at least 1", stacked)
    if stacked == 1:
        return [(run,) for run in runs]
    kinds: dict[str, list[TrainConfig]] = {}
    for run in runs:
        if run.model.kind != "transformer" and run.model.kind != "mlp":
            kinds.setdefault(run.run_id, []).append(run)
        else:
            kinds.setdefault(f"{run.digest(*MAY_DIFFER)} {run.log_every} {run.checkpoint}", []).append(run)
    jobs: list[Job] = []
    for members in kinds.values():
        ordered = sorted(members, key=lambda run: (run.steps, run.order))
        jobs += [tuple(ordered[i : i + stacked]) for i in range(0, len(ordered), stacked)]
    return jobs


def begun_jobs(folder: Path, runs: Mapping[str, TrainConfig], most: Mapping[str, int]) -> list[Job]:
    """Return the stacks with checkpoints that a stopped sweep has left, whatever their runs would be put together with.

    Stacks of runs that are not asked for (`runs` by name), have other settings, or are more than `most` of each may be,
    are left where they are.

    Raises
    ------
    InputError
        A run's folder holds a table that this package did not write, or a damaged one.
    """
    jobs: list[Job] = []
    taken: set[str] = set()
    for path in sorted((folder / RUNS).glob(f"stack-*/{MEMBERS_FILE}")):
        try:
            names = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) and name in runs for name in names):
            continue
        job = tuple(runs[name] for name in names)
        if not job or path.parent.name != stack_folder(job) or taken.intersection(names):
            continue
        if all(finished(folder / RUNS / name) for name in names):  # killed between the last record and this
            shutil.rmtree(path.parent, ignore_errors=True)
            continue
        if len(job) > min(most[name] for name in names) or not any(path.parent.glob("step-*.pt")):
            continue
        taken.update(names)
        jobs.append(job)
    return jobs


def run_job(job: Job, folder: str, threads: int | None = None, stop: Callable[[], bool] | None = None) -> list[str]:
    """Train the runs of a job that are not finished; return the names of those that were not, and now are.

    Raises
    ------
    InputError
        As for `train` and `train_stacked`, or if a run's folder holds a damaged table.
    """
    from optlaws.harness.training import train, train_stacked

    place = Path(folder) / RUNS
    if threads is not None:
        job = tuple(run if run.threads is not None else run.with_(threads=threads) for run in job)
    before = {run.run_id for run in job if finished(place / run.run_id)}
    if len(before) == len(job):
        return []
    if len(job) == 1:
        records = [train(job[0], place / job[0].run_id, stop=stop)]
    else:
        records = train_stacked(job, place, at_once=len(job), stop=stop)
    return [r.run_id for r in records if r.status != "interrupted" and r.run_id not in before]


def finished(folder: Path) -> bool:
    """Return whether a run's folder holds a finished run.

    Raises
    ------
    InputError
        It holds a table that this package did not write, or a damaged one.
    """
    if not (folder / RUN_FILE).exists():
        return False
    record = read_record(folder)
    return record is not None and record.status != "interrupted"


def sweep(
    grid: Mapping[str, Any] | str | os.PathLike[str] | Sequence[Planned],
    out: str | os.PathLike[str],
    *,
    stacked: int | Mapping[str, int] = 1,
    workers: int = 1,
    ray: bool = False,
    order: Callable[[Planned], float] | None = None,
    progress: Callable[[SweepProgress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> SweepResult:
    """Train every run of a grid that is not finished, and write runs.csv and curves.csv.

    Parameters
    ----------
    grid
        A grid file, its content, or the planned runs.
    out
        The sweep's folder, made if it is not there; a sweep that was stopped or killed goes on in it.
    stacked
        Runs at most that are trained as one batched program (1: each by itself), or such a number for each size of the
        grid by its name (1 for those not named).
    workers
        Processes at once on this machine; they share its device.
    ray
        Hand the jobs to a Ray cluster instead; `out` must be a folder that its machines share.
    order
        Runs with lower numbers are trained first, in stacks of their own; stacks that were begun go before all.
    progress
        Called when a run has ended, and once before the first.
    stop
        Asked before every update whether to stop; runs at work leave a checkpoint.

    Raises
    ------
    InputError
        If the grid is wrong, the folder is another sweep's at this moment, or holds runs of these names with other
        settings.
    """
    if workers < 1:
        raise wrong("workers", "a whole number of at least 1", workers)
    if ray and workers > 1:
        raise InputError("workers and ray must not both be given, got both; Ray decides how many jobs run at once")
    planned = list(grid) if isinstance(grid, Sequence) and not isinstance(grid, str) else read_grid(grid)
    if not planned:
        raise InputError("a sweep must have at least one run, got none; add values to the grid's lists")
    names = list(dict.fromkeys(one.size for one in planned))
    if isinstance(stacked, Mapping):
        for name in stacked:
            if name not in names:
                raise unknown("stacked", name, tuple(names))
    most = {name: stacked.get(name, 1) if isinstance(stacked, Mapping) else stacked for name in names}
    if min(most.values()) < 1:
        raise wrong("stacked", "a whole number of at least 1", min(most.values()))
    folder = Path(out)
    try:
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
    except OSError as bad:
        raise InputError(f"out: the folder {str(out)!r} cannot be made ({bad.strerror}); name another one") from None
    with held(folder):
        _tidy(folder)
        tables = Tables(folder, planned)
        tables.write()
        asked = {one.config.run_id: one for one in planned}
        jobs = begun_jobs(
            folder,
            {name: one.config for name, one in asked.items()},
            {name: most[one.size] for name, one in asked.items()},
        )
        taken = {run.run_id for job in jobs for run in job}
        turn = {one.config.run_id: order(one) if order else 0 for one in planned}
        for now, name in itertools.product(sorted(set(turn.values())), names):
            left = [one.config for one in planned if one.size == name and one.config.run_id not in taken]
            jobs += plan_jobs([run for run in left if turn[run.run_id] == now], most[name])
        open_jobs = [job for job in jobs if any(run.run_id not in tables.records for run in job)]
        if progress:
            progress(SweepProgress(tables.done, len(planned)))
        if ray:
            from optlaws.harness.cluster import over_ray

            ended = over_ray(open_jobs, str(folder.resolve()))
        elif workers > 1:
            ended = _in_processes(open_jobs, str(folder), workers)
        else:
            ended = _in_turn(open_jobs, str(folder), stop)
        trained, written = 0, time.monotonic()
        for names in ended:
            trained += len(names)
            for name in names:
                record = tables.take(name)
                if progress:
                    progress(SweepProgress(tables.done, len(planned), record))
            if time.monotonic() - written > TABLES_EVERY:
                tables.write()
                written = time.monotonic()
        runs = tables.write()
    return SweepResult(runs, tables.done, len(planned), trained, folder)


def _tidy(folder: Path) -> None:
    """Remove files that a killed sweep had not finished writing."""
    for pattern in (".*.part", f".{LOCK_FILE}.*", f"{RUNS}/*/.*.part", f"{RUNS}/*/.{RUN_LOCK}.*"):
        for left in folder.glob(pattern):
            left.unlink(missing_ok=True)


def _in_turn(jobs: Sequence[Job], folder: str, stop: Callable[[], bool] | None) -> Iterator[list[str]]:
    """Run jobs one after the other in this process until one is interrupted."""
    if not jobs:
        return
    from optlaws.harness.loop import interruptible

    with interruptible() as interrupted:
        for job in jobs:
            if interrupted() or (stop and stop()):
                return
            yield run_job(job, folder, stop=stop)
            if not all(finished(Path(folder) / RUNS / run.run_id) for run in job):
                return


def _in_processes(jobs: Sequence[Job], folder: str, workers: int) -> Iterator[list[str]]:
    """Run jobs in several processes; SIGTERM and Ctrl-C stop all of them, with checkpoints."""
    if not jobs:
        return
    from optlaws.harness.loop import interruptible

    threads = max(1, (os.cpu_count() or 1) // workers)
    flag = Path(folder) / STOP_FILE
    flag.unlink(missing_ok=True)
    with interruptible() as interrupted:
        pool = ProcessPoolExecutor(
            min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_end_with, initargs=(os.getpid(),)
        )
        try:
            waiting = {pool.submit(_worker, job, folder, threads, os.getpid()) for job in jobs}
            while waiting:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
                if interrupted():
                    flag.touch()
                    for future in list(waiting):
                        if future.cancel():
                            waiting.discard(future)
        finally:
            flag.touch()  # if this is left early, the workers stop at their next update
            pool.shutdown(wait=True, cancel_futures=True)
            flag.unlink(missing_ok=True)


_busy = threading.Event()


def _end_with(parent: int) -> None:
    """Let this worker process end when the sweep is gone: a worker without work would wait for it for ever."""

    def watch() -> None:
        while os.getppid() == parent or _busy.is_set():
            time.sleep(0.1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _worker(job: Job, folder: str, threads: int, parent: int) -> list[str]:
    """Run a job in a worker process, and stop at once when the sweep is gone or says so."""
    told = stop_file(Path(folder))

    def stop() -> bool:
        return os.getppid() != parent or told()

    _busy.set()
    try:
        with at_work(Path(folder)):
            if (
                stop()
            ):  # asked after the mark is left, so that a new sweep waits for this one or this one sees it is gone
                return []
            return run_job(job, folder, threads, stop)
    finally:
        _busy.clear()


def stop_file(folder: Path) -> Callable[[], bool]:
    """Return a question whether the sweep in a folder says stop, which looks at the file ten times a second at most."""
    asked = [0.0]

    def stop() -> bool:
        now = time.monotonic()
        if now - asked[0] < 0.1:
            return False
        asked[0] = now
        return (folder / STOP_FILE).exists()

    return stop


class Tables:
    """The tables of a sweep, made of the finished runs in its folder."""

    def __init__(self, folder: Path, planned: Sequence[Planned]) -> None:
        """Read every finished run, those of earlier grids included."""
        self.folder = folder
        self.planned = {one.config.run_id: one for one in planned}
        self.records: dict[str, RunRecord] = {}
        others = sorted(path.name for path in (folder / RUNS).iterdir() if (path / RUN_FILE).exists())
        for name in [*self.planned, *(name for name in others if name not in self.planned)]:
            self.take(name)

    @property
    def done(self) -> int:
        """Finished runs of the grid."""
        return sum(name in self.records for name in self.planned)

    def take(self, name: str) -> RunRecord | None:
        """Read a run from its folder if it is finished there.

        Raises
        ------
        InputError
            The folder holds a run of this name with other settings, or a damaged table.
        """
        record = read_record(self.folder / RUNS / name)
        if record is None or record.status == "interrupted":
            return None
        if name in self.planned and not self.planned[name].config.goes_on_from(record.config_digest):
            raise InputError(
                f"{self.folder / RUNS / name}: must be a run of this grid, got one with other settings under the same "
                "name; name another folder or remove that run's"
            )
        self.records[name] = record
        return record

    def write(self) -> RunTable | None:
        """Write both tables and return that of the runs; None if there is no run yet.

        Raises
        ------
        InputError
            The folder cannot be written.
        """
        names = [name for name in self.planned if name in self.records]
        names += [name for name in self.records if name not in self.planned]
        if not names:
            return None
        runs = relabel([self.records[name] for name in names])
        about = {
            "block": tuple(self.planned[n].block if n in self.planned else "" for n in names),
            "size": tuple(self.planned[n].size if n in self.planned else "" for n in names),
        }
        columns = (*runs.columns, *(key for key in about if key not in runs.columns))
        runs = replace(runs, extra={**runs.extra, **about}, columns=columns)
        curves = [self.records[name].curve for name in names if len(self.records[name].curve)]
        if curves:
            write_curves(self.folder / CURVE_TABLE, CurveTable.concat(curves))
        write_runs(self.folder / RUN_TABLE, runs)
        return runs


def relabel(records: Sequence[RunRecord]) -> RunTable:
    """Return the table of finished runs, those that came to nothing among the diverged ones.

    A completed run counts as diverged if its final loss is above `WORST` times the best of the same size and tokens, or
    above `LEARNT` times the loss before the first update, and its peak rate is above that of the best run: a run that
    was too slow did not diverge. One that ends above `UNLEARNT` times its first loss did, whatever its rate. How each
    run really ended stays in the column `ended`.
    """
    runs = RunTable.concat([record.runs for record in records])
    peak = np.asarray(runs.batch().peak, dtype=np.float64)
    loss = runs.final_loss
    good = np.array([status == "completed" for status in runs.status]) & np.isfinite(loss)
    cell = [f"{n:.0f} {d:.0f}" for n, d in zip(runs.size, runs.tokens, strict=True)]
    best: dict[str, int] = {}
    for i in np.flatnonzero(good).tolist():
        if cell[i] not in best or loss[i] < loss[best[cell[i]]]:
            best[cell[i]] = i
    status = list(runs.status)
    for i in np.flatnonzero(good).tolist():
        curve = records[i].curve
        first = float(curve.loss[0]) if len(curve) else math.inf
        top = best[cell[i]]
        hotter = peak[i] > peak[top]
        if (hotter and (loss[i] > WORST * loss[top] or loss[i] > LEARNT * first)) or loss[i] > UNLEARNT * first:
            status[i] = "diverged"
    ended = tuple(state or "completed" for state in runs.status)
    return replace(
        runs, status=tuple(status), extra={**runs.extra, "ended": ended}, columns=(*runs.columns, "ended")
    )  # fmt: skip
