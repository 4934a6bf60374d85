"""The cases shared by the tests of the dynamics: every schedule family x three optimizers, solved the naive way."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from naive import Array, Curve, naive_curve

from optlaws.dynamics import Dynamics
from optlaws.runs import RunTable
from optlaws.schedules import Schedule

sys.path.append(str(Path(__file__).resolve().parents[1] / "schedules"))
from examples import examples

STEPS = 600
SIZE, BATCH = 2.0, 3.0  # in params_ref and batch_ref: not 1, so that a forgotten unit shows
DYNAMICS = Dynamics(relaxation=1.3)
SCHEDULES = examples(STEPS)
NAMES = list(SCHEDULES)
STATES = ("peak", "tau", "radius", "variance", "escape")


@dataclass(frozen=True)
class Setting:
    optimizer: str
    weight_decay: float
    plain: bool = False


SETTINGS = {
    "adamw": Setting("adamw", 0.1),
    "adam": Setting("adam", 0.0),
    "sgd": Setting("sgd", 5e-4, plain=True),
}


def table(
    schedules: Sequence[Schedule], setting: Setting = SETTINGS["adamw"], *, batch: float | None = BATCH
) -> RunTable:
    """Return the runs of one size, batch and optimizer."""
    return RunTable.build(
        schedules,
        params=SIZE * DYNAMICS.params_ref,
        batch_tokens=None if batch is None else batch * DYNAMICS.batch_ref,
        optimizer=setting.optimizer,
        weight_decay=setting.weight_decay,
    )


@cache
def naive(name: str, setting: str) -> Curve:
    """Return the naive curve of one of `SCHEDULES`."""
    s = SETTINGS[setting]
    return naive_curve(SCHEDULES[name], DYNAMICS, n=SIZE, b=BATCH, weight_decay=s.weight_decay, plain=s.plain)


def relative(got: Array, expected: Array, curve: Array) -> float:
    """Return the largest error relative to the state's highest value along the naive curve."""
    return float(np.max(np.abs(got - expected) / np.maximum(curve.max(axis=0), 1e-300)))
