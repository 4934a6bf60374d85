"""Logged runs: series put in order, the loss that a run ended with, and the schedule that its rates were."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optlaws.errors import ScheduleError, TableError, nearest
from optlaws.runs._checks import FloatArray
from optlaws.runs._curves import CurveTable
from optlaws.runs._logs import OWN_STEP, Columns, Part, Series, read_parts
from optlaws.runs._read import parse_with_steps
from optlaws.runs._recognise import MEETS, SOON, recognise
from optlaws.runs._write import number_text
from optlaws.schedules import Schedule, from_array, piecewise
from optlaws.schedules.keys import MAX_POINTS

LAST_SHARE = 0.01
"""Of a run: its end, over which training losses are averaged, and in which an evaluation must lie to be the last."""

FEW_STEPS = 10.0
"""Steps that a warm-up may be wrong by in a run that has hardly more."""

FIRST_SHARE = SOON
"""Of a run: a learning rate must have been logged by then, or a warm-up could have been missed."""

GAP_SHARE = 0.05
"""Of a run: the longest stretch without a logged learning rate."""

SAME_RATE = 2.5e-7
"""Of the highest rate: how far a thinned schedule may be off a logged one; 32-bit logs are rounded by a quarter."""


@dataclass(frozen=True, eq=False)
class LoggedRun:
    """One run as its log shows it; steps ascend without repeats.

    Attributes
    ----------
    run_id
        Its name.
    format
        "hf-trainer", "wandb", "wandb-chart", "tensorboard", "lightning" or "table".
    step, loss
        The curve: updates done and nats per token, shape (m,); training losses, or evaluation losses if the log has no
        others. A loss that is not finite, or exactly 0 as some trainers log it after one, is kept here; see `good`.
    eval_step, eval_loss
        Evaluation losses beside the curve, shape (e,), e >= 0.
    rate_step, rate
        The learning rates that were logged, shape (r,), r >= 0. A rate logged at step k is taken for that of update k;
        trainers differ by one step in this.
    grad_step, grad_norm
        Gradient norms, shape (g,), g >= 0.
    steps
        The length T of the run: the steps done where the log says so itself; else its last step, counted from 0 where
        the steps begin with 0 without a gap or end one before a multiple of their distance.
    finished
        True or False where the log says whether all planned steps were done, else None.
    planned
        The steps that were planned, NaN where the log does not say.
    columns
        What was read, by "step", "loss", "eval", "rate", "grad".
    replaced
        Readings that a later one of the same step and another value replaced: the run was resumed.
    """

    run_id: str
    format: str
    step: FloatArray
    loss: FloatArray
    eval_step: FloatArray
    eval_loss: FloatArray
    rate_step: FloatArray
    rate: FloatArray
    grad_step: FloatArray
    grad_norm: FloatArray
    steps: int
    finished: bool | None
    planned: float
    columns: dict[str, str]
    replaced: int

    @property
    def good(self) -> npt.NDArray[np.bool_]:
        """Which losses can stand in a curve table, shape (m,): those that are finite and above 0."""
        return np.isfinite(self.loss) & (self.loss > 0)

    @property
    def own_step(self) -> bool:
        """Whether the steps are W&B's own count of log calls, which need not be updates."""
        step = self.columns["step"].rpartition(" - ")[2]
        return step == OWN_STEP or (self.format == "wandb-chart" and step == "Step")

    def curve(self) -> CurveTable:
        """Return the readings that a curve table may hold, with `val_loss`, `lr` and `grad_norm` of the same steps."""
        keep = self.good
        step = self.step[keep]
        extra = {}
        beside = {
            "val_loss": (self.eval_step, self.eval_loss),
            "lr": (self.rate_step, self.rate),
            "grad_norm": (self.grad_step, self.grad_norm),
        }
        for name, (at, values) in beside.items():
            if len(at):
                known = dict(zip(at.tolist(), values.tolist(), strict=True))
                cells = [known.get(k, math.nan) for k in step.tolist()]
                extra[name] = tuple(number_text(v) if math.isfinite(v) else "" for v in cells)
        return CurveTable((self.run_id,) * len(step), step, self.loss[keep], extra)

    def final_loss(self, total: int | None = None) -> tuple[float, str]:
        """Return the loss that the run ended with, and in words how it was found.

        It is the last evaluation loss, if that was measured in the last 1 % of the run; else the mean of the curve's
        readings in the last 1 %, the last one at least. It is NaN where no reading lies there, or where the last one is
        not finite.

        Parameters
        ----------
        total
            The length of the run in steps, if it is not `steps`.
        """
        start = (1 - LAST_SHARE) * (self.steps if total is None else total)
        if not self.good[-1]:
            return math.nan, "the last loss is not finite or 0"
        if len(self.eval_step) and self.eval_step[-1] >= start:
            last = float(self.eval_loss[-1])
            return (
                (last, "evaluation")
                if math.isfinite(last) and last > 0
                else (math.nan, "the last evaluation loss is not finite")
            )
        rows = self.good & (self.step >= start)
        if not rows.any():
            return math.nan, f"the last reading is at step {self.step[-1]:g}, before the last 1 % of the run"
        return float(self.loss[rows].mean()), "curve"

    def rates_missing(self) -> str:
        """Return why the logged rates are too few to know the schedule, "" if they are enough.

        Enough is: one within the first 1 % of the run (5 % if the first two lie on a line from 0, a warm-up in
        progress), none more than 5 % of the run after the one before, and the last not earlier than 5 % before the end.
        """
        if not len(self.rate):
            return "no learning rate is logged"
        if not (np.isfinite(self.rate) & (self.rate >= 0)).all():
            return "a logged learning rate is negative or not finite"
        if not (self.rate > 0).any():
            return "all logged learning rates are 0"
        first, gap = float(self.rate_step[0]), GAP_SHARE * self.steps
        limit = gap if self._rises_from_zero() else FIRST_SHARE * self.steps
        if first > max(1.0, limit):
            return f"the first learning rate is logged at step {first:g} of {self.steps}, and a warm-up may be missed"
        ends = np.append(self.rate_step, max(float(self.steps), float(self.rate_step[-1])))
        gaps = np.diff(ends)
        widest = int(np.argmax(gaps))
        if gaps[widest] > max(1.0, gap):
            return f"no learning rate is logged from step {ends[widest]:g} to {ends[widest + 1]:g} of {self.steps}"
        return ""

    def _rises_from_zero(self) -> bool:
        if len(self.rate) < 2:
            return False
        slope = (self.rate[1] - self.rate[0]) / (self.rate_step[1] - self.rate_step[0])
        return bool(slope > 0 and abs(self.rate[0] - slope * self.rate_step[0]) <= 1.5 * slope)

    def _rise_unseen(self) -> bool:
        """Return whether the rate rises between the first two readings, far apart, and no further."""
        step, rate = self.rate_step[:3], self.rate[:3]
        far = len(rate) > 1 and step[1] - step[0] > max(FEW_STEPS, FIRST_SHARE * self.steps)
        return bool(far and rate[1] > rate[0] and (len(rate) < 3 or rate[2] <= rate[1] * (1 + MEETS)))

    def schedule(self) -> Schedule:
        """Return the schedule that the logged rates are of: one of a standard family, else straight lines between them.

        A constant, linear, cosine or WSD schedule (linear or sqrt decay), with a linear warm-up or without, is
        recognised if it meets every logged rate within 1e-6, whatever the distance of the readings. It may end up to
        one such distance after the last reading (1 % of the run at most) where the log does not say the length.

        Else rates that lie on a line with their neighbours (to 2.5e-7 of the highest) are left out. Before the first
        logged rate the line through the first two goes on, not below 0; after the last one it is held.

        Raises
        ------
        ScheduleError
            If `rates_missing` says why not, or a warm-up lies between the first two readings, far apart.
        """
        missing = self.rates_missing()
        if missing:
            raise ScheduleError(f"run {self.run_id!r}: {missing}; give its schedule yourself")
        step, rate = self.rate_step, self.rate
        family = recognise(step, rate, self.steps, self._longest())
        if family is not None:
            return family
        if self._rise_unseen():
            raise ScheduleError(
                f"run {self.run_id!r}: the learning rate rises from step {step[0]:g} to {step[1]:g} with none logged"
                " between them, so that the warm-up's length is not known; give its schedule yourself"
            )
        if step[0] > 0:
            slope = (rate[1] - rate[0]) / (step[1] - step[0]) if len(step) > 1 else 0.0
            step = np.append(0.0, step)
            rate = np.append(max(0.0, float(rate[0] - slope * step[1])), rate)
        inside = step < self.steps
        inside[: int(inside.sum()) + 1] = True  # one point at the end or after it: the line towards it is needed
        step, rate = step[inside], rate[inside]
        keep = _corners(step, rate, SAME_RATE * float(rate.max()))
        if len(keep) > MAX_POINTS:
            return from_array(np.interp(np.arange(self.steps), step, rate))
        return piecewise([(int(step[i]), float(rate[i])) for i in keep], self.steps)

    def _longest(self) -> int:
        """Return the longest that the run can have been, steps."""
        if not math.isnan(self.planned) or len(self.rate_step) < 2:
            return self.steps
        last, gap = float(self.rate_step[-1]), float(np.median(np.diff(self.rate_step)))
        return max(self.steps, int(min(last + gap, last / (1 - LAST_SHARE))))

    def planned_schedule(self, text: str) -> Schedule:
        """Return the schedule that a user wrote for this run; one without a length gets the run's.

        Raises
        ------
        ScheduleError
            If it is none, or ends before the log does.
        """
        schedule = parse_with_steps(text, float(self.steps))
        last = float(self.step[-1])
        if last > schedule.total_steps:
            raise ScheduleError(
                f"run {self.run_id!r}: a schedule must have at least as many steps as its log, {last:g}, "
                f"got {schedule.total_steps}; correct it or leave its length out"
            )
        return schedule


def read_logs(
    paths: Sequence[str | os.PathLike[str]],
    *,
    run_id: str | None = None,
    step: str | None = None,
    loss: str | None = None,
    rate: str | None = None,
) -> list[LoggedRun]:
    """Read logs of past runs, whatever wrote them; the content says which it was.

    Read are `trainer_state.json` of Hugging Face Trainer (or a folder with one), histories and charts exported from
    Weights & Biases, scalars exported from TensorBoard, `metrics.csv` of Lightning, and any CSV, JSON-lines or Parquet
    table with a step and a loss. Logs that hold different quantities of a run of one name, like TensorBoard's one file
    a scalar, are put together. Where a step was logged more than once the later reading counts.

    Parameters
    ----------
    paths
        Files or folders; "-" is standard input.
    run_id
        The run to read, where a log names several; else the name of the one run that the logs hold.
    step, loss, rate
        Columns to read, where their names are not usual ones. With `loss` no evaluation loss is looked for.

    Returns
    -------
    list of LoggedRun
        In the order of the logs; at least one where there is a log.

    Raises
    ------
    TableError
        If a log cannot be read, or no run with a loss is found, or two logs have the same quantity of one run.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "small.csv")
    ...     with open(path, "w") as stream:
    ...         _ = stream.write("step,train/loss,lr\\n50,3.0,0.001\\n100,2.5,0.0\\n")
    ...     runs = read_logs([path])
    >>> runs[0].run_id, runs[0].steps, runs[0].final_loss()
    ('small', 100, (2.5, 'curve'))
    """
    if [str(path) for path in paths].count("-") > 1:
        raise TableError("standard input ('-') can be read only once, got it twice; give the other logs as files")
    parts = [part for path in paths for part in read_parts(path, Columns(step, loss, rate))]
    if run_id is not None:
        parts = _of_run(parts, run_id)
    together: dict[str, list[Part]] = {}
    for part in parts:
        together.setdefault(part.run_id, []).append(part)
    return [_join(name, some) for name, some in together.items()]


def _of_run(parts: list[Part], run_id: str) -> list[Part]:
    if not run_id.strip():
        raise TableError(f"the run's name must be text, got {run_id!r}; leave it out to take the log's")
    chosen = [part for part in parts if part.run_id == run_id]
    if chosen:
        return chosen
    names = list(dict.fromkeys(part.run_id for part in parts))
    if len({part.path for part in parts}) < len(parts):
        raise TableError(
            f"run_id must be one of the runs that the logs name, {', '.join(names[:8])}{', ...' * (len(names) > 8)}, "
            f"got {run_id!r}{nearest(run_id, names)}"
        )
    for part in parts:
        part.run_id = run_id
    return parts


def _join(name: str, parts: list[Part]) -> LoggedRun:
    """Put what several logs say of one run together and in order."""
    series: dict[str, Series] = {}
    where: dict[str, str] = {}
    for part in parts:
        for role, values in part.series.items():
            if role in series:
                raise TableError(
                    f"run_id {name!r}: every quantity must be in one log, got its {_WORDS[role]} in {where[role]} and "
                    f"in {part.path}; import them apart, each with its own name (--run-id)"
                )
            series[role], where[role] = values, part.path
    if "loss" not in series and "eval" not in series:
        raise TableError(f"run_id {name!r}: the logs must have its loss, got none in {parts[0].path}; add that log")
    ordered = {role: _ordered(series.get(role, ([], []))) for role in ("loss", "eval", "rate", "grad")}
    replaced = sum(count for _, _, count in ordered.values())
    columns = {key: value for part in parts for key, value in part.columns.items()}
    curve = "loss" if "loss" in series else "eval"
    step, loss, _ = ordered[curve]
    below = np.flatnonzero(loss < 0)
    if len(below):
        row = int(below[0])
        raise TableError(
            f"{where[curve]}: loss must be at least 0 nats per token, got {loss[row]:g} at step {step[row]:g} of run "
            f"{name!r}; name the column of the loss (--loss-column)"
        )
    if not (np.isfinite(loss) & (loss > 0)).any():
        raise TableError(f"{where[curve]}: run {name!r} has no loss that is finite and above 0; leave the run out")
    reached = max((part.reached for part in parts if not math.isnan(part.reached)), default=math.nan)
    planned = max((part.planned for part in parts if not math.isnan(part.planned)), default=math.nan)
    last = max(float(at[-1]) for at, _, _ in ordered.values() if len(at))
    steps = _length(step, last) if math.isnan(reached) else max(reached, last)
    if steps < 1:
        raise TableError(f"{where[curve]}: run {name!r} must have steps above 0, got none; correct the step column")
    empty = np.zeros(0)
    eval_step, eval_loss = ordered["eval"][:2] if curve == "loss" else (empty, empty)
    return LoggedRun(
        run_id=name,
        format=parts[0].format,
        step=step,
        loss=loss,
        eval_step=eval_step,
        eval_loss=eval_loss,
        rate_step=ordered["rate"][0],
        rate=ordered["rate"][1],
        grad_step=ordered["grad"][0],
        grad_norm=ordered["grad"][1],
        steps=int(steps),
        finished=None if math.isnan(reached) or math.isnan(planned) else steps >= planned,
        planned=planned,
        columns=columns,
        replaced=replaced,
    )


_WORDS = {"loss": "loss", "eval": "evaluation loss", "rate": "learning rate", "grad": "gradient norm"}


def _ordered(series: Series) -> tuple[FloatArray, FloatArray, int]:
    """Return steps in order, the last value of each, and how many other values that replaced."""
    last: dict[float, float] = {}
    replaced = 0
    for step, value in zip(*series, strict=True):
        before = last.get(step, value)
        replaced += before != value and not (math.isnan(before) and math.isnan(value))
        last[step] = value
    steps = sorted(last)
    return np.array(steps, dtype=np.float64), np.array([last[k] for k in steps], dtype=np.float64), replaced


def _length(step: FloatArray, last: float) -> float:
    """Return the number of updates: the last step, or one more where they are counted from 0."""
    gap = float(np.median(np.diff(step))) if len(step) > 1 else 0.0
    if gap == 1.0:
        return last + 1 if step[0] == 0 else last
    return last + 1 if gap > 1 and (last + 1) % gap == 0 and (step[0] + 1) % gap == 0 else last


def _corners(step: FloatArray, rate: FloatArray, tolerance: float) -> list[int]:
    """Return the points to keep so that straight lines between them pass all others within `tolerance`.

    From each kept point the line is carried on to the farthest point that leaves none between them too far off; the
    slopes that would do so narrow with every point passed.
    """
    keep, low, high = [0], -math.inf, math.inf
    at, value = step.tolist(), rate.tolist()
    for i in range(1, len(at)):
        width = at[i] - at[keep[-1]]
        slope = (value[i] - value[keep[-1]]) / width
        if not low <= slope <= high:
            keep.append(i - 1)
            width = at[i] - at[i - 1]
            slope = (value[i] - value[i - 1]) / width
            low, high = -math.inf, math.inf
        low, high = max(low, slope - tolerance / width), min(high, slope + tolerance / width)
    return [*keep, len(at) - 1] if len(at) > 1 else keep
