"""A logged run: its curve, the loss that it ended with, and the schedule that its rates were."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optlaws.errors import ScheduleError
from optlaws.runs._checks import FloatArray
from optlaws.runs._curves import CurveTable
from optlaws.runs._digits import rounding
from optlaws.runs._names import OWN_STEP
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

APART = 0.02
"""Of the larger one: how far a logged rate must be off a schedule's to contradict it."""

FEW_READINGS = 20
"""Readings at the end that say how much they scatter, where fewer are averaged."""

FEW_VALUES = 4
"""Rates that differ: fewer do not show how they were rounded."""

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
    dropped
        Further readings of what a run did that was then resumed from an earlier step.
    rival_rates
        Columns that may each be the learning rate and differ, so that none was read; empty where there is no doubt.
    batch_tokens
        Tokens an update by the log's own count of tokens, NaN where it has none that rises evenly.
    loss_kind
        Of what the curve's losses are: "training", "evaluation", or "" where the caller named a column that does not
        tell.
    paths
        The logs that it was read from, as the caller named them.
    other_units
        Columns of a learning rate in another unit, such as "lr (%)": not read unless the caller named it.
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
    dropped: int = 0
    rival_rates: tuple[str, ...] = ()
    batch_tokens: float = math.nan
    loss_kind: str = "training"
    other_units: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

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
        """Return the readings that a curve table may hold, with `val_loss`, `lr` and `grad_norm` of the same steps.

        `loss_kind` says of every one what its loss is of.
        """
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
        if self.loss_kind:
            extra["loss_kind"] = (self.loss_kind,) * len(step)
        return CurveTable((self.run_id,) * len(step), step, self.loss[keep], extra)

    def final_loss(self, total: int | None = None, share: float = LAST_SHARE) -> tuple[float, str]:
        """Return the loss that the run ended with, and in words how it was found.

        It is the last evaluation loss, if that was measured in the last 1 % of the run; else the mean of the curve's
        readings in the last 1 % (or `share`), or its last reading where no other was due before the end (`reaches`). It
        is NaN where no reading lies there, or where the last one is not finite.

        Parameters
        ----------
        total
            The length of the run in steps, if it is not `steps`.
        share
            Of the run, above 0 and at most 1: its end over which readings of the curve are averaged.
        """
        total = self.steps if total is None else total
        start = (1 - LAST_SHARE) * total
        if not self.good[-1]:
            return math.nan, "the last loss is not finite or 0"
        if len(self.eval_step) and self.eval_step[-1] >= start:
            last = float(self.eval_loss[-1])
            return (
                (last, "evaluation")
                if math.isfinite(last) and last > 0
                else (math.nan, "the last evaluation loss is not finite")
            )
        rows = self._last(total, share)
        if not rows.any():
            end = f"before the last {100 * share:.3g} % of the run"
            return math.nan, f"the last reading is at step {self.step[-1]:g}, {end}"
        return float(self.loss[rows].mean()), "curve"

    def _last(self, total: int, share: float) -> npt.NDArray[np.bool_]:
        """Return which readings of the curve its final loss is the mean of, shape (m,)."""
        start = (1 - share) * total
        return self.good & (self.step >= (min(start, float(self.step[-1])) if self.reaches(total) else start))

    def scatter(self, total: int | None = None, share: float = LAST_SHARE) -> tuple[int, float]:
        """Return of how many readings of the curve its final loss is the mean, and how much readings there scatter.

        The scatter is their standard deviation as a fraction of the loss, from differences of neighbours among the
        averaged ones and the `FEW_READINGS` before the end, so that a falling loss does not count; NaN of one reading.
        """
        total = self.steps if total is None else total
        count = int(self._last(total, share).sum())
        loss = self.loss[self.good][-max(count, FEW_READINGS) :]
        if len(loss) < 2:
            return count, math.nan
        return count, float(np.sqrt(np.mean(np.diff(loss) ** 2) / 2) / loss.mean())

    def reaches(self, total: int) -> bool:
        """Return whether the curve goes on to the end of a run of `total` steps, as far as it was logged at all.

        Its last reading then lies in the last 1 %, or in the last 5 % with no further one due before the end.
        """
        last = float(self.step[-1])
        gap = float(np.median(np.diff(self.step))) if len(self.step) > 1 else 0.0
        return last >= (1 - LAST_SHARE) * total or (last >= (1 - GAP_SHARE) * total and last + gap >= total)

    def rates_missing(self) -> str:
        """Return why the logged rates are too few to know the schedule, "" if they are enough.

        Enough is: one within the first 1 % of the run (5 % if the first two lie on a line from 0, a warm-up in
        progress), none more than 5 % of the run after the one before, and the last not earlier than 5 % before the end.
        """
        if self.rival_rates:
            return f"the rates of {' and '.join(map(repr, self.rival_rates))} differ, and --rate-column names one"
        if not len(self.rate):
            if self.other_units:
                return f"{self.other_units[0]!r} is no plain rate by its name (0.1 % is 0.001): add a column lr that is"
            return "no learning rate is logged"
        if not (np.isfinite(self.rate) & (self.rate >= 0)).all():
            return "a logged learning rate is negative or not finite"
        if not (self.rate >= np.finfo(np.float64).tiny).any():  # below it floats have too few digits to compare
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
        recognised if it meets every logged rate within 1e-6, or half a unit of the last of the log's 4 to 6 digits,
        whatever the distance of the readings. It may end up to
        one such distance after the last reading (5 % of the run at most) where the log does not say the length.

        Else rates that lie on a line with their neighbours (to 2.5e-7 of the highest, or to their digits) are left out.
        Before the first logged rate the line through the first two goes on, not below 0; after the last one it is held.

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
        half = rounding(rate)
        room = np.full(len(rate), SAME_RATE * float(rate.max()))
        keep = _corners(step, rate, room if half is None else np.maximum(room, half))
        if len(keep) > MAX_POINTS:
            return from_array(np.interp(np.arange(self.steps), step, rate))
        return piecewise([(int(step[i]), float(rate[i])) for i in keep], self.steps)

    def _longest(self) -> int:
        """Return the longest that the run can have been, steps."""
        if not math.isnan(self.planned) or len(self.rate_step) < 2:
            return self.steps
        last, gap = float(self.rate_step[-1]), float(np.median(np.diff(self.rate_step)))
        return max(self.steps, int(min(last + gap, last / (1 - GAP_SHARE))))

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

    def overruled_rate(self, schedule: Schedule) -> tuple[float, tuple[float, float, float] | None]:
        """Return how far the logged rates are from those of a schedule, and the reading where that shows most.

        A logged rate may be that of the update before or after, and rounded as the others of the log are.

        Returns
        -------
        off
            The median over the readings, as a fraction of the larger one of the two rates; 0 where nothing is logged.
        worst
            Step, logged rate and the schedule's rate where they differ most; None where no reading differs by `APART`.
        """
        known = np.isfinite(self.rate) & (self.rate_step < schedule.total_steps)
        at, logged = self.rate_step[known], self.rate[known]
        if not len(at):
            return 0.0, None
        near = np.stack([schedule.lr(np.clip(at + k, 0, schedule.total_steps - 1)) for k in (-1, 0, 1)])
        room = 0.5 * (1 + MEETS) * _unit(logged)
        gap = np.maximum(np.maximum(near.min(axis=0) - logged, logged - near.max(axis=0)) - room, 0.0)
        share = gap / np.maximum(np.maximum(near[1], logged), np.finfo(float).tiny)
        worst = int(np.argmax(gap))
        plain = float(share.max()) > APART
        return float(np.median(share)), (
            float(at[worst]),
            float(logged[worst]),
            float(near[1, worst]),
        ) if plain else None


def _unit(rate: FloatArray) -> float:
    """Return the unit that rates were rounded to, as by a log with 4 digits after the point; 0 where none shows."""
    values = np.unique(rate[rate > 0])
    if len(values) < FEW_VALUES and not (len(values) > 1 and (rate[1:] == 0).sum() > 1):
        return 0.0
    for digits in range(3, 13):
        scaled = values * 10.0**digits
        if (np.abs(scaled - np.round(scaled)) <= MEETS * scaled).all():
            return 10.0**-digits
    return 0.0


def _corners(step: FloatArray, rate: FloatArray, tolerance: FloatArray) -> list[int]:
    """Return the points to keep so that straight lines between them pass all others within `tolerance`.

    From each kept point the line is carried on to the farthest point that leaves none between them too far off; the
    slopes that would do so narrow with every point passed.
    """
    keep, low, high = [0], -math.inf, math.inf
    at, value, room = step.tolist(), rate.tolist(), tolerance.tolist()
    for i in range(1, len(at)):
        width = at[i] - at[keep[-1]]
        slope = (value[i] - value[keep[-1]]) / width
        if not low <= slope <= high:
            keep.append(i - 1)
            width = at[i] - at[i - 1]
            slope = (value[i] - value[i - 1]) / width
            low, high = -math.inf, math.inf
        low, high = max(low, slope - room[i] / width), min(high, slope + room[i] / width)
    return [*keep, len(at) - 1] if len(at) > 1 else keep
