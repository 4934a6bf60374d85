"""Training from Python: one run, or many small ones as one program."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from optlaws.errors import InputError
from optlaws.harness._fields import wrong
from optlaws.harness.branch import branched, check_apart, trunk_checkpoint
from optlaws.harness.config import MAY_DIFFER, TrainConfig, read_config, stack_digest, stack_folder
from optlaws.harness.distributed import joined
from optlaws.harness.lock import RUN_LOCK, held, held_together
from optlaws.harness.loop import Loop, Predict, Progress, interruptible, saved_names
from optlaws.harness.machine import Machine
from optlaws.harness.optim import check_optimizer
from optlaws.harness.record import (
    CHECKPOINT_FOLDER,
    CONFIG_FILE,
    CURVE_FILE,
    MEMBERS_FILE,
    PLANNED_FILE,
    RUN_FILE,
    RunRecord,
    read_record,
)
from optlaws.runs import CurveTable, atomic_write, write_curves, write_runs

Config = TrainConfig | Mapping[str, Any] | str | os.PathLike[str]
CPU_STACK = 4


def train(
    config: Config,
    out: str | os.PathLike[str] | None = None,
    *,
    branch: str | os.PathLike[str] | None = None,
    restart: bool = False,
    progress: Callable[[Progress], None] | None = None,
    predict: Predict | None = None,
    stop: Callable[[], bool] | None = None,
) -> RunRecord:
    """Train one run to its end and return its record.

    With a folder, the run can be taken up again: if the folder holds the finished run nothing is trained, if it holds
    checkpoints the run goes on from the newest one, bit for bit on the CPU as if it had never stopped. SIGTERM and
    SIGINT end the run as "interrupted", with a checkpoint.

    Parameters
    ----------
    config
        Configuration, mapping, or file; see `read_config`.
    out
        The run's folder, made if it is not there: config.json (once the configuration has passed all checks),
        planned.csv (the row of run.csv without its end, until there is one), curve.csv (replaced every few seconds by
        the curve so far), run.csv (last), checkpoints/. None writes nothing.
    branch
        The folder of another run, the trunk, or one of its checkpoints: the run begins there instead of at update 0
        and is, bit for bit on the CPU, the run from the start. All but name, schedule, evaluation, checkpoints and what
        may differ when a run is taken up must be the trunk's, and every rate up to the checkpoint; of a folder the
        newest checkpoint with which that is so is taken. Not looked at once the run has a checkpoint of its own.
    restart
        Remove what an earlier run left in the folder, once the configuration has passed all checks.
    progress
        Called every now and then.
    predict
        Returns the predicted final loss for the run's row of a run table and its curve so far.
    stop
        Asked before every update whether to end as "interrupted".

    Returns
    -------
    RunRecord

    Raises
    ------
    InputError
        If the configuration is wrong, the folder holds a run with other settings or is another process's now, or the
        run cannot begin at a checkpoint of the trunk.
    """
    config = read_config(config)
    if branch is not None and out is not None:
        check_apart(out, branch)
    check_optimizer(config.optimizer)
    with joined(config) as (world, config), ExitStack() as at_end:
        if world.first:
            folder = _run_folder(config, out, restart, config.goes_on_from)
            if folder and not _finished(folder, restart):
                at_end.enter_context(held(folder, RUN_LOCK))
        else:  # the first process makes the folder and alone writes into it
            folder = Path(out) if out is not None else None
            progress = predict = None
        world.wait()
        done = _finished(folder, restart)
        if done:
            return done
        checkpoints = folder / CHECKPOINT_FOLDER if folder else None

        def begin() -> None:
            if folder and world.first:
                _begin_folder(folder, config, restart)
                write_runs(folder / PLANNED_FILE, loop.planned())
            world.wait()

        def begin_from() -> dict[str, Any]:
            found = trunk_checkpoint(config, branch) if branch is not None and world.first else ""
            return branched(config, Path(world.told(str(found))))

        def write(curve: CurveTable) -> None:
            with suppress(InputError, OSError):  # no reason to end a run: what is written at its end counts
                if folder and len(curve):
                    write_curves(folder / CURVE_FILE, curve)

        loop = Loop(
            [config], checkpoints, config.digest(), stacked=False, progress=progress, predict=predict, stop=stop,
            world=world, ready=begin, fresh=restart, curve=write if folder and world.first else None,
            branch=None if branch is None else begin_from,
        )  # fmt: skip
        record = loop.run()[0]
        world.wait()
        if folder is None or not world.first:
            return record
        record = record.write(folder)
        (folder / PLANNED_FILE).unlink(missing_ok=True)
        if record.status != "interrupted" and not config.checkpoint.every and checkpoints:
            shutil.rmtree(checkpoints, ignore_errors=True)
    return record


def train_stacked(
    configs: Sequence[Config],
    out: str | os.PathLike[str] | None = None,
    *,
    at_once: int | None = None,
    restart: bool = False,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> list[RunRecord]:
    """Train runs that differ only in schedule, weight decay, seeds and name as one batched program.

    Each run gets the losses that it would get on its own, up to rounding, which the eigenvectors of SOAP and Shampoo
    make large (up to some 1 % of the loss of tiny networks). A run that diverges or ends early leaves the
    stack; the others go on undisturbed. Runs with the same data seed share their batches.

    Parameters
    ----------
    configs
        The runs; their names differ.
    out
        Each run gets the folder out/<run_id> as for `train`; finished ones are not trained again. The stack's
        checkpoints lie in out/stack-<digest> until its end.
    at_once
        Runs in one stack at most; unless given all on a GPU and 4 on the CPU, whose caches hold no more.
    restart, progress, stop
        As for `train`.

    Returns
    -------
    list of RunRecord
        In the order of `configs`; after an interruption without the runs that were not begun.

    Raises
    ------
    InputError
        If there is no run, two share a name, they differ in anything else, or the folder of one that is not finished
        is another process's now.
    """
    runs = [read_config(config) for config in configs]
    _check_stack(runs)
    if at_once is None:
        at_once = len(runs) if Machine.of(runs[0]).device.type == "cuda" else CPU_STACK
    if at_once < 1:
        raise wrong("at_once", "a whole number of at least 1", at_once)
    check_optimizer(runs[0].optimizer)
    folders = {
        run.run_id: _run_folder(run, Path(out) / run.run_id if out else None, restart, run.digest().__eq__)
        for run in runs
    }
    begun = [folder for folder in folders.values() if folder and not _finished(folder, restart)]
    with held_together(begun, RUN_LOCK), interruptible() as interrupted:
        ended = {name: _finished(folder, restart) for name, folder in folders.items()}
        records = {name: record for name, record in ended.items() if record}
        for begin in range(0, len(runs), at_once):
            if interrupted():  # while the group before was about to end
                break
            group = runs[begin : begin + at_once]
            digest = stack_digest(group)
            place = Path(out) / stack_folder(group) if out else None
            if place and all(run.run_id in records for run in group):  # killed after its last run had ended
                shutil.rmtree(place, ignore_errors=True)
                continue
            saved = saved_names(place, digest) if place and not restart else None
            names = [run.run_id for run in group if run.run_id not in records] if saved is None else saved
            if not names:
                continue
            members, group = [run.run_id for run in group], [run for run in group if run.run_id in names]
            # What is to be cleared is so at once.
            homes = {folders[run.run_id]: run for run in (group if begin else runs)}
            ready = partial(_begin_stack, homes, place, members, restart and not begin, restart)

            def keep(record: RunRecord) -> None:
                home = folders[record.run_id]
                if record.run_id not in records:
                    records[record.run_id] = record.write(home) if home else record

            made = Loop(
                group, place, digest, stacked=True, progress=progress, stop=stop, done=keep, ready=ready, fresh=restart
            ).run()
            for record in made:
                keep(record)
            if any(record.status == "interrupted" for record in made):
                break
            if place:
                shutil.rmtree(place, ignore_errors=True)
    return [records[run.run_id] for run in runs if run.run_id in records]


def _check_stack(runs: Sequence[TrainConfig]) -> None:
    if not runs:
        raise InputError("runs of a stack must be at least one, got none; add a run")
    names = [run.run_id for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise wrong("name", "another one for each run of a stack", name, "rename or drop one of the two")
    first = runs[0]
    for run in runs[1:]:
        same_way = (run.device, run.compile, run.threads, run.checkpoint, run.log_every) == (
            first.device, first.compile, first.threads, first.checkpoint, first.log_every
        )  # fmt: skip
        if not same_way or run.digest(*MAY_DIFFER) != first.digest(*MAY_DIFFER):
            raise InputError(
                f"runs of a stack must differ only in name, schedule, weight decay and seeds, but {run.run_id} differs "
                f"from {first.run_id} in something else; train it on its own or in another stack"
            )


def _run_folder(
    config: TrainConfig, out: str | os.PathLike[str] | None, restart: bool, fits: Callable[[str], bool]
) -> Path | None:
    """Return the run's folder, made if it is not there and checked to be empty, this run's or to be cleared.

    `fits` tells of a digest whether a run with it may be taken up.
    """
    if out is None:
        return None
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise wrong("out", "a folder", str(out), "name another one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as bad:
        raise InputError(f"out: the folder {str(out)!r} cannot be made ({bad.strerror}); name another one") from None
    place = folder / CONFIG_FILE
    if place.exists() and not restart:
        before = read_config(place)
        if (before.run_id != config.run_id and before.name != config.name) or not fits(before.digest()):
            raise InputError(
                f"out: {folder} holds the run {before.run_id!r} with other settings; name another folder, or use "
                "--restart to remove that run"
            )
    return folder


def _finished(folder: Path | None, restart: bool) -> RunRecord | None:
    """Return the record of a finished run in a folder that is not to be cleared, None if there is none."""
    record = read_record(folder) if folder and not restart else None
    return record if record and record.status != "interrupted" else None


def _begin_stack(
    homes: Mapping[Path | None, TrainConfig], place: Path | None, members: list[str], clear: bool, restart: bool
) -> None:
    """Write config.json of every run and, in the stack's own folder, the names of its members."""
    for home, run in homes.items():
        if home:
            _begin_folder(home, run, clear)
    if place:
        if restart:
            shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        with atomic_write(place / MEMBERS_FILE) as stream:  # a grown grid would put other runs together
            json.dump(members, stream)


def _begin_folder(folder: Path, config: TrainConfig, restart: bool) -> None:
    """Write config.json, after removing an earlier run if told so: a configuration that fails leaves no trace."""
    if restart:
        for name in (RUN_FILE, PLANNED_FILE, CURVE_FILE, CONFIG_FILE):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / CHECKPOINT_FOLDER, ignore_errors=True)
    with atomic_write(folder / CONFIG_FILE) as stream:
        stream.write(json.dumps(config.to_dict(), indent=1) + "\n")
