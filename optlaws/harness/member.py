"""One run while it is trained: its readings, its verdict, how far it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from optlaws.harness.config import TrainConfig
from optlaws.harness.record import CurveLog, Verdict


class Member:
    """One run while it is trained."""

    def __init__(self, config: TrainConfig) -> None:
        """Start with nothing done."""
        self.config = config
        self.log = CurveLog()
        self.verdict = Verdict(config.divergence, config.steps)
        self.status: str | None = None
        self.final_loss = math.nan
        self.val_loss = math.nan
        self.steps_done = 0
        self.every_loss: list[float] | None = []  # of every update done, for who judges them anew; None: not known

    def read(self, step: int, loss: float, norm: float, rate: float, val_loss: float) -> None:
        """Take the readings of update `step`, unless the run has ended before."""
        if self.status is not None:
            return
        self.status = self.verdict.add(loss)
        if self.status == "nonfinite":
            return
        self.steps_done = step + 1
        if self.every_loss is not None:
            self.every_loss.append(loss)
        if not math.isnan(val_loss):
            self.val_loss = val_loss
        if step % self.config.log_every == 0 or not math.isnan(val_loss):
            self.log.add(step, loss, val_loss, rate, norm)

    def finish(self, step: int, loss: float, val_loss: float) -> None:
        """Take the last readings, after all updates."""
        self.status = self.verdict.end(val_loss if math.isfinite(loss) else math.nan)
        if self.status != "nonfinite":
            self.final_loss = self.val_loss = val_loss
            self.log.add(step, loss, val_loss, math.nan, math.nan)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {
            "curve": torch.from_numpy(self.log.array()),
            "verdict": self.verdict.state(),
            "status": self.status,
            "losses": [self.final_loss, self.val_loss],
            "steps_done": self.steps_done,
            "every_loss": None if self.every_loss is None else torch.tensor(self.every_loss, dtype=torch.float64),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up a state again."""
        self.log = CurveLog.of(np.asarray(state["curve"]))
        self.verdict.load(state["verdict"])
        self.status = state["status"]
        self.final_loss, self.val_loss = state["losses"]
        self.steps_done = state["steps_done"]
        self.every_loss = every_loss(state)


def every_loss(state: dict[str, Any]) -> list[float] | None:
    """Return the loss of every update done in a state of a `Member`, None if it does not tell them all."""
    if "every_loss" in state:
        found = state["every_loss"]
        return None if found is None else [float(loss) for loss in found.tolist()]
    rows = np.asarray(state["curve"])  # of an earlier version: the curve alone
    whole = np.array_equal(rows[:, 0], np.arange(state["steps_done"]))
    return [float(loss) for loss in rows[:, 1]] if whole else None
