"""Branches: a run that begins at a checkpoint of another one, the trunk, instead of at update 0."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from optlaws.errors import InputError
from optlaws.harness.checkpoint import list_checkpoints, load_checkpoint, step_of
from optlaws.harness.config import NOT_THE_RUN, TrainConfig, read_config
from optlaws.harness.member import Member, every_loss
from optlaws.harness.record import CHECKPOINT_FOLDER, CONFIG_FILE, MEMBERS_FILE

FROM_THE_START = "or train this run from the start"
KEPT = "with checkpoint: {every: ..., keep: null} in its configuration"
Place = str | os.PathLike[str]


def trunk_folder(place: Place) -> Path:
    """Return the folder of the run that a path names, which is the folder itself or a file in its checkpoints."""
    path = Path(place).absolute()
    return path if path.is_dir() else path.parent.parent


def check_apart(out: Place, place: Place) -> None:
    """Check that a branch has a folder of its own.

    Raises
    ------
    InputError
        `out` is the trunk's folder.
    """
    if Path(out).resolve() == trunk_folder(place).resolve():
        raise InputError(
            f"out must be another folder than that of the run to branch from, got {str(out)!r}; name a new one"
        )


def trunk_checkpoint(config: TrainConfig, place: Place) -> Path:
    """Return the newest checkpoint of a trunk that a run may begin at.

    Parameters
    ----------
    config
        The run.
    place
        The trunk's folder, or one of its checkpoints: that one and no other.

    Raises
    ------
    InputError
        If there is no such run or checkpoint, or the runs differ before it.
    """
    path = Path(place)
    folder = trunk_folder(path)
    if (path if path.is_dir() else path.parent).joinpath(MEMBERS_FILE).exists():
        raise InputError(
            f"branch: {path} is of runs that were trained as a stack, whose checkpoints hold all of them; name a run "
            f"that was trained on its own, {FROM_THE_START}"
        )
    named = path.is_file() and path.parent.name == CHECKPOINT_FOLDER and step_of(path) is not None
    if not (named or path.is_dir()) or not (folder / CONFIG_FILE).is_file():
        raise InputError(
            "branch must be the folder of a run of optlaws train or a file checkpoints/step-000000NNN.pt in it, got "
            f"{str(path)!r}, which is {'something else' if path.exists() else 'not there'}; name another one"
        )
    trunk = read_config(folder / CONFIG_FILE)
    _check_settings(config, trunk)
    found = [path] if named else list_checkpoints(folder / CHECKPOINT_FOLDER)
    if not found:
        raise InputError(
            f"branch: {path} must hold a checkpoint, got none; train that run {KEPT} (one that is over keeps none with "
            f"every: 0, and runs of a stack have none of their own), {FROM_THE_START}"
        )
    same = _same_rates(config, trunk)
    usable = [one for one in found if (step_of(one) or 0) <= min(same, config.steps - 1)]
    if usable:
        return usable[-1]
    first = step_of(found[0])
    way_out = f"name an earlier checkpoint, as the trunk keeps them {KEPT}, {FROM_THE_START}"
    if same == min(config.steps, trunk.steps):
        raise InputError(
            f"branch: the checkpoint must be of fewer updates than the {config.steps} of this run, got {first} in "
            f"{found[0]}; {way_out}"
        )
    raise InputError(
        f"branch: the rates must be the trunk's up to the checkpoint {found[0]}, got {config.schedule.lr(same)!r} "
        f"instead of {trunk.schedule.lr(same)!r} at step {same}; {way_out}"
    )


def branched(config: TrainConfig, path: Path) -> dict[str, Any]:
    """Return a trunk's checkpoint as the run's own would be, had it been trained from the start.

    Its losses are judged anew, as the verdict knows the length of the run.

    Parameters
    ----------
    config
        The run.
    path
        As `trunk_checkpoint` returns it.

    Raises
    ------
    InputError
        If the checkpoint is damaged or of another run, or does not tell every loss.
    """
    trunk = read_config(trunk_folder(path) / CONFIG_FILE)
    saved = load_checkpoint(path, lambda digest: True)
    if not trunk.goes_on_from(saved["digest"]) or saved["step"] != step_of(path):
        raise InputError(
            f"branch: {path} must be a checkpoint of the run whose config.json lies in {trunk_folder(path)}, got one "
            f"of another run, of a stack or of another update; name another one, {FROM_THE_START}"
        )
    (state,) = saved["members"]
    steps = int(saved["step"])
    rows = {int(row[0]): row for row in np.asarray(state["curve"]).tolist()}
    losses = every_loss(state) or []
    if len(losses) != steps or any(step not in rows for step in range(0, steps, config.log_every)):
        lacks = "a loss that is not finite" if state["status"] == "nonfinite" else "not every loss"
        raise InputError(
            f"branch: {path} must hold the loss of each of its {steps} updates, got {lacks}; name another checkpoint, "
            f"{FROM_THE_START}"
        )
    member = Member(config)
    unread = (0.0, math.nan, math.nan, math.nan, math.nan)
    for step, loss in enumerate(losses):
        _, _, val_loss, rate, norm = rows.get(step, unread)
        member.read(step, loss, norm, rate, val_loss)
    return {
        **saved,
        "members": [member.state()],
        "active": [0],
        "clock": [0.0, 0, 0.0],
        "earlier": 0.0,
        "branched_from": f"{trunk.run_id}@{steps}",
    }


def _settings(config: TrainConfig, micro_batch: bool) -> dict[str, Any]:
    """Return the settings that the first updates depend on, by name, those of a section with a point."""
    without = {*NOT_THE_RUN, "schedule", "eval"} - {"log_every"} | (set() if micro_batch else {"micro_batch"})
    found: dict[str, Any] = {}
    for key, value in {**config.to_dict(), "data_seed": config.order}.items():
        if key not in without:
            found |= {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, dict) else {key: value}
    return found


def _check_settings(config: TrainConfig, trunk: TrainConfig) -> None:
    mine, theirs = (_settings(one, not config.any_micro_batch) for one in (config, trunk))
    for key in {**theirs, **mine}:
        if mine.get(key) != theirs.get(key):
            raise InputError(
                f"branch: {key} must be the trunk's, {theirs.get(key)!r:.80}, got {mine.get(key)!r:.80}; change it, "
                f"{FROM_THE_START}"
            )


def _same_rates(config: TrainConfig, trunk: TrainConfig) -> int:
    """Return how many first updates have the same rates, bit for bit."""
    both = min(config.steps, trunk.steps)
    steps = np.arange(both)
    differ = np.flatnonzero(config.schedule.lr(steps) != trunk.schedule.lr(steps)).tolist()
    return next((step for step in differ if config.schedule.lr(step) != trunk.schedule.lr(step)), both)
