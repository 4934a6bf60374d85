"""What a run leaves behind: its verdict, its curve, its row of the run table."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.errors import InputError
from optlaws.harness.config import TrainConfig
from optlaws.harness.sections import DivergenceConfig
from optlaws.runs import CurveTable, RunTable, read_curves, read_runs, write_curves, write_runs
from optlaws.runs._write import number_text

RUN_FILE, CURVE_FILE, CONFIG_FILE, CHECKPOINT_FOLDER = "run.csv", "curve.csv", "config.json", "checkpoints"
PLANNED_FILE = "planned.csv"  # while a run is trained: its row of the run table without an end, for who watches it
LEAST_STEPS = 10  # a smoothing or a patience below this many steps would be ruled by the noise of a batch
MEMBERS_FILE = "members.json"  # in the folder of a stack: the names of its runs, in order
CURVE_COLUMNS = ("step", "loss", "val_loss", "lr", "grad_norm")


class Verdict:
    """Tells, loss by loss, whether a run goes on.

    A loss that is not finite ends a run as "nonfinite". The losses are smoothed by an exponential average over
    `window` T steps; while the average is above `factor` times its lowest value so far the run is in trouble, and it
    is "diverged" when that lasts for `patience` T steps in a row or holds at the end. A spike that heals is no
    divergence.
    """

    def __init__(self, config: DivergenceConfig, steps: int) -> None:
        """Start with a run of `steps` updates."""
        self.factor = config.factor
        self.keep = 1.0 - 1.0 / max(LEAST_STEPS, config.window * steps)
        self.patience = max(LEAST_STEPS, round(config.patience * steps))
        self.sum = self.weight = 0.0
        self.low = math.inf
        self.above = 0

    @property
    def smoothed(self) -> float:
        """The smoothed loss, NaN before the first one."""
        return self.sum / self.weight if self.weight else math.nan

    def add(self, loss: float) -> str | None:
        """Take the next loss; return the status that ends the run, or None to go on."""
        if not math.isfinite(loss):
            return "nonfinite"
        self.sum = self.keep * self.sum + (1 - self.keep) * loss
        self.weight = self.keep * self.weight + (1 - self.keep)
        self.low = min(self.low, self.smoothed)
        self.above = self.above + 1 if self.in_trouble else 0
        return "diverged" if self.above >= self.patience else None

    @property
    def in_trouble(self) -> bool:
        """Whether the smoothed loss is too far above its lowest value."""
        return self.factor is not None and self.smoothed > self.factor * self.low

    def end(self, final_loss: float) -> str:
        """Return the status of a run that did all its updates."""
        if not math.isfinite(final_loss):
            return "nonfinite"
        return "diverged" if self.in_trouble else "completed"

    def state(self) -> list[float]:
        """Return the state as numbers."""
        return [self.sum, self.weight, self.low, float(self.above)]

    def load(self, state: Sequence[float]) -> None:
        """Take up a state again."""
        self.sum, self.weight, self.low, self.above = state[0], state[1], state[2], int(state[3])


@dataclass
class CurveLog:
    """The readings of one run so far.

    The row of step k holds what is known of the parameters after k updates: the loss on the batch of update k, before
    that update, the rate that the update uses and the norm of its gradient, and the validation loss if measured there.
    The last row, of step T, has no rate and no gradient, and its loss is that of a batch which was never trained on.
    """

    rows: list[tuple[float, float, float, float, float]] = field(default_factory=list)

    def add(self, step: int, loss: float, val_loss: float, lr: float, grad_norm: float) -> None:
        """Add a reading; NaN is not measured."""
        self.rows.append((float(step), loss, val_loss, lr, grad_norm))

    def array(self) -> npt.NDArray[np.float64]:
        """Return the readings, shape (m, 5), columns as in `CURVE_COLUMNS`."""
        return np.array(self.rows, dtype=np.float64).reshape(-1, len(CURVE_COLUMNS))

    @classmethod
    def of(cls, array: npt.NDArray[np.float64]) -> CurveLog:
        """Return the log with these readings (m, 5), as of `array`."""
        return cls([tuple(row) for row in array.tolist()])

    def table(self, run_id: str) -> CurveTable:
        """Return the readings as a curve table."""
        values = self.array()
        extra = {
            name: tuple(number_text(value) for value in values[:, column].tolist())
            for column, name in enumerate(CURVE_COLUMNS)
            if column > 1
        }
        return CurveTable((run_id,) * len(values), values[:, 0], values[:, 1], extra)


@dataclass(frozen=True)
class RunRecord:
    """One run: its row of the run table, its curve, and where they lie.

    Attributes
    ----------
    runs
        A run table with one row.
    curve
        The readings.
    folder
        The run's folder, None if nothing was written.
    """

    runs: RunTable
    curve: CurveTable
    folder: Path | None = None

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.runs.run_id[0]

    @property
    def status(self) -> str:
        """completed, diverged, nonfinite or interrupted."""
        return self.runs.status[0] or "completed"

    @property
    def final_loss(self) -> float:
        """Validation loss after the last update, nats per token; NaN if the run did not get there."""
        return float(self.runs.final_loss[0])

    @property
    def steps_done(self) -> int:
        """Updates done."""
        return int(self.runs.extra["steps_done"][0])

    @property
    def config_digest(self) -> str:
        """Digest of the configuration that was run."""
        return self.runs.extra["config_digest"][0]

    def write(self, folder: Path) -> RunRecord:
        """Write curve and run table into a folder, the run table last: where it is, the run is whole.

        Raises
        ------
        InputError
            The folder is not there or cannot be written.
        """
        write_curves(folder / CURVE_FILE, self.curve)
        write_runs(folder / RUN_FILE, self.runs)
        return RunRecord(self.runs, self.curve, folder)


def read_record(folder: str | os.PathLike[str]) -> RunRecord | None:
    """Return the record in a run's folder, None if there is none (yet).

    Raises
    ------
    InputError
        If there is a run table in it that this package did not write, or a table in it is damaged.
    """
    place = Path(folder)
    if not (place / RUN_FILE).exists():
        return None
    runs = read_runs(place / RUN_FILE)
    if len(runs) != 1 or not {"steps_done", "config_digest"} <= set(runs.extra):
        raise InputError(f"{place / RUN_FILE}: must be the record of one training run; choose another folder")
    curve = CurveTable((), np.empty(0), np.empty(0))
    if (place / CURVE_FILE).exists() and (place / CURVE_FILE).read_bytes().count(b"\n") > 1:
        curve = read_curves(place / CURVE_FILE)
    return RunRecord(runs, curve, place)


def make_record(
    config: TrainConfig,
    counts: tuple[float, float],
    status: str | None,
    log: CurveLog,
    *,
    final_loss: float,
    betas: tuple[float | None, float | None],
    facts: Mapping[str, Any],
) -> RunRecord:
    """Return the record of a run.

    Parameters
    ----------
    config
        What was run.
    counts
        Non-embedding parameters, in total and per token.
    status, final_loss
        How it ended, None where it has not; NaN for a loss that was not reached.
    log
        The readings.
    betas
        Averaging factors used.
    facts
        Further columns; None and NaN are empty cells.

    Raises
    ------
    TableError
        A value is out of the range of its column.
    """
    shape = {
        "model": config.model.kind,
        "depth": getattr(config.model, "depth", None),
        "width": getattr(config.model, "width", None),
        "batch": config.batch,
        "grad_clip": config.optimizer.clip,
        "seed": config.seed,
        "data_seed": config.order,
        "data": config.data.kind,
        "config_digest": config.digest(),
    }
    beta1, beta2 = (math.nan if beta is None else beta for beta in betas)
    runs = RunTable.build(
        config.schedule,
        run_id=(config.run_id,),
        source="optlaws",
        params=counts[0],
        active_params=counts[1],
        tokens=config.steps * config.batch_tokens,
        batch_tokens=config.batch_tokens,
        seq_len=config.seq_len,
        optimizer=config.optimizer.name,
        beta1=beta1,
        beta2=beta2,
        weight_decay=config.optimizer.weight_decay,
        status=status,
        final_loss=final_loss,
        extra={name: (_cell(value),) for name, value in {**shape, **facts}.items()},
    )
    return RunRecord(runs, log.table(config.run_id))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return number_text(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
