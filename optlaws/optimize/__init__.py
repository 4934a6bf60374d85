"""The learning-rate schedule of lowest predicted loss, as far as the law can be trusted.

Two stages: the best member of each standard family (`families`), then a free schedule of straight pieces (`free`). A
search for the lowest prediction finds a law's errors first. So it stays inside the law's training domain, and what it
minimises is cautious: standard deviations of the expected loss are added, in the second stage those of the difference
to the best standard schedule, of which candidates share most of their error. See docs/optimize.md for what that is
worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from scipy.special import ndtr

from optlaws._advice import number_text, percent
from optlaws.errors import InputError
from optlaws.optimize.families import Best, Shape, search, standard_shapes, unseen_warmups, warmups
from optlaws.optimize.free import KNOTS, cautious, differences, refine
from optlaws.optimize.task import Task, make_task, risk_notes
from optlaws.ranking import LawLike, Ranking, Z, rank
from optlaws.schedules import Schedule
from optlaws.schedules.quantity import as_numbers

__all__ = ["KNOTS", "Gain", "Optimum", "Shape", "Task", "make_task", "optimize_schedule", "search", "standard_shapes"]

FREE = "free"
COMPARED = ("cosine", "wsd")
STARTS = 2  # standard schedules from which the free one is refined
TOLD_RISK = 0.005  # divergence risk from which it is said beside a probability
EDGE = 1.01  # a peak within this factor of a bound is at it


@dataclass(frozen=True)
class Gain:
    """How much lower the optimum is predicted to end than the best of a family.

    Interval and probability are of one run of each, their noise included. What a law does not know of the two expected
    losses is far less, but only if it is right in form: one that is not calls gains sure that are none, as the optimum
    is what it takes for the best. What its form misses is part of the noise that it finds.

    Attributes
    ----------
    family, schedule : what is compared with.
    gain, lower, upper : loss of the other minus that of the optimum, nats per token, and its 90 % interval.
    p_real : probability that a run of the optimum ends lower, by the law's own account; one that diverges does not, and
        one that does not is lower than one that does.
    noise : the part that the noise of the two runs has in the standard deviation of the gain, nats per token.
    risk : divergence risk of the optimum, of which the interval knows nothing; 0 where it is not known.
    """

    family: str
    schedule: Schedule
    gain: float
    lower: float
    upper: float
    p_real: float
    noise: float
    risk: float = 0.0

    @property
    def odds(self) -> str:
        """The probability for people, with the divergence risk in it where that is 1 % or more."""
        diverge = f" ({percent(self.risk)} diverge)" if self.risk >= TOLD_RISK else ""
        return f"{percent(self.p_real)}{diverge}"


@dataclass(frozen=True)
class Optimum:
    """The schedule found and what it is compared with.

    Attributes
    ----------
    schedule : the schedule, of exactly `task.steps` steps.
    family : "free", or the family that it belongs to where no free schedule is surely better.
    gains : against the best cosine and the best WSD, where they are others than the optimum.
    ranking : of the optimum and the best of each family, named by family.
    task : what was asked.
    evaluated : number of schedules that were predicted on the way, second stage.
    advice : one plain sentence.
    notes : further sentences on domain and bounds.
    """

    schedule: Schedule
    family: str
    gains: tuple[Gain, ...]
    ranking: Ranking
    task: Task
    evaluated: int
    advice: str
    notes: tuple[str, ...]

    @property
    def row(self) -> int:
        """Row of the optimum in the ranking."""
        return self.ranking.names.index(self.family)

    @property
    def loss(self) -> float:
        """Predicted loss of the optimum, nats per token."""
        return float(self.ranking.loss[self.row])


def optimize_schedule(
    law: LawLike | str | PathLike[str],
    *,
    params: float | str | None = None,
    tokens: float | str | None = None,
    steps: float | str | None = None,
    batch_tokens: float | str | None = None,
    weight_decay: float | str | None = None,
    optimizer: str | None = None,
    knots: int = KNOTS,
    min_peak: float | None = None,
    max_peak: float | None = None,
    min_lr: float = 0.0,
    max_risk: float | None = None,
    warmup: float | Sequence[float] | None = None,
    outside: bool = False,
    monotone: bool = True,
    caution: float = Z,
    progress: Callable[[str], None] | None = None,
) -> Optimum:
    """Find the learning-rate schedule of lowest cautiously predicted final loss.

    Parameters
    ----------
    law : a fitted law, the name of a built-in one, or a law file.
    params, tokens, steps, batch_tokens : sizes of the run, numbers or texts like "85M"; of the last three one follows
        from the two others or from the law's usual batch. What is left out is taken from the law where it needs it.
    weight_decay, optimizer : as in a run table.
    knots : straight pieces after the warm-up of the free schedule, 1 .. 64; 0 leaves it out.
    min_peak, max_peak : bounds of the peak rate; the law's training range by default.
    min_lr : lowest rate that the decay may reach.
    max_risk : accepted probability of divergence, 0 .. 1; 0.05 by default, where the law knows it.
    warmup : warm-up or warm-ups to try, in steps; by default those that the law has seen.
    outside : allow schedules outside the law's training domain.
    monotone : whether the free schedule never rises after its warm-up.
    caution : standard deviations that count against a schedule, 0 .. 10; by default the upper end of a 90 % interval.
    progress : called with a word on every step.

    Returns
    -------
    Optimum

    Raises
    ------
    InputError
        A value is out of range, or no schedule lies inside the domain.
    LawError
        The law predicts no losses, does not know learning rates, or is too slow for a search.
    RiskError
        No schedule has an accepted risk.
    """
    if not knots and not monotone:
        raise InputError(
            "knots must be above 0 where the free schedule may rise, got 0; add pieces, or leave rising (--rising) out"
        )
    tried = as_numbers(warmup, "warmup")
    task = make_task(
        law, params=params, tokens=tokens, steps=steps, batch_tokens=batch_tokens, weight_decay=weight_decay,
        optimizer=optimizer, min_peak=min_peak, max_peak=max_peak, min_lr=min_lr, max_risk=max_risk, outside=outside,
        monotone=monotone, caution=caution,
    )  # fmt: skip
    best = search(task, warmups(task, tried), standard_shapes(), progress)
    reference = best[0].schedule
    free: list[Schedule] = []
    evaluated = 0
    if knots:
        free, evaluated = refine(task, reference, [b.schedule for b in best[:STARTS]], knots, progress)
    pool = [*(b.schedule for b in best), *free]
    judged = task.judge(pool)
    kept = task.allowed(judged) & task.safe(judged)
    kept[0] = True
    score = np.where(kept, cautious(judged, 0, task.caution), np.inf)
    winner = int(np.argmin(score))
    chosen = pool[winner]
    family = best[winner].family if winner < len(best) else FREE
    members = [*best, Best(FREE, chosen, float(score[winner]))] if family == FREE else best
    ranking = rank(task.runs([m.schedule for m in members]), task.law, [m.family for m in members])
    gains = _gains(task, chosen, [m for m in members if m.family in COMPARED and m.schedule != chosen])
    risk = float(judged.risk[winner])
    notes = (
        *task.notes,
        *unseen_warmups(task, tried),
        *risk_notes(task.law, risk, task.max_risk),
        *_notes(task, chosen),
    )
    if not judged.sd.any():
        notes += ("the law states no error of its expected losses: caution has no effect on the search",)
    return Optimum(
        chosen,
        family,
        gains,
        ranking,
        task,
        evaluated,
        _advice(task, family, members, ranking, gains, tried_free=bool(free)),
        notes,
    )


def _gains(task: Task, chosen: Schedule, others: Sequence[Best]) -> tuple[Gain, ...]:
    """Return the gains over the best of other families."""
    if not others:
        return ()
    judged = task.judge([chosen, *(other.schedule for other in others)])
    ratio, sd = differences(judged, 0)
    noise = np.asarray(judged.prediction.noise, dtype=np.float64)
    risk = np.nan_to_num(judged.risk)
    out = []
    for i, other in enumerate(others, start=1):
        spread = float(np.hypot(noise[0], noise[i]))
        both = float(np.hypot(sd[i], spread / judged.loss[0]))
        ends = judged.loss[0] * np.expm1(ratio[i] + np.array([-1.0, 0.0, 1.0]) * Z * both)
        lower = float(ndtr(ratio[i] / both)) if both > 0 else float(ratio[i] > 0)
        real = float((1.0 - risk[0]) * (risk[i] + (1.0 - risk[i]) * lower))
        out.append(
            Gain(
                other.family,
                other.schedule,
                float(ends[1]),
                float(ends[0]),
                float(ends[2]),
                real,
                spread,
                float(risk[0]),
            )
        )
    return tuple(out)


def _notes(task: Task, chosen: Schedule) -> list[str]:
    """Return what is to be known of the domain and the bounds."""
    out = []
    if task.sizes_outside:
        out.append(f"the run itself lies outside the law's domain, whatever its schedule: {task.sizes_outside}")
    if chosen.peak > task.high / EDGE and task.high > task.low:
        out.append(f"the peak is at the highest that was allowed, {task.high:g}: a higher one may be better still")
    elif chosen.peak < task.low * EDGE and task.high > task.low:
        out.append(f"the peak is at the lowest that was allowed, {task.low:g}: a lower one may be better still")
    return out


def _advice(
    task: Task, family: str, members: Sequence[Best], ranking: Ranking, gains: Sequence[Gain], tried_free: bool
) -> str:
    """Say in one sentence what follows."""
    row = ranking.names.index(family)
    standard = next(m for m in members if m.family != FREE and family in (FREE, m.family))
    digits = ranking.decimals
    if family == FREE:
        other = ranking.names.index(standard.family)
        gain = number_text(float(ranking.loss[other] - ranking.loss[row]), max(digits, 4))
        free = f"its predicted loss is {gain} below that of the best standard one ({standard.family})"
        noise = float(np.hypot(*_noise(task, [m.schedule for m in members if m.family in (FREE, standard.family)])))
        if float(ranking.loss[other] - ranking.loss[row]) < noise:
            shown = number_text(noise, max(digits, 4))
            text = (
                f"Run the free schedule or, as well, {standard.schedule}: {free}, less than one run of each would show"
            )
            text += f" (noise {shown})"
        else:
            text = f"Run the free schedule: {free}"
    else:
        why = "no free schedule was surely better" if tried_free else "the best of the standard families"
        text = f"Run {standard.schedule}: {why}"
    real = [f"one of the best {g.family} with probability {g.odds}" for g in gains]
    if real:
        text += f"; by this law's account a run of it ends lower than {' and '.join(real)}"
    if not ranking.in_domain[row]:
        text += f" (careful: it lies outside the law's domain: {ranking.reasons[row]})"
    return text + "."


def _noise(task: Task, schedules: Sequence[Schedule]) -> tuple[float, float]:
    noise = np.asarray(task.judge(schedules).prediction.noise, dtype=np.float64)
    return float(noise[0]), float(noise[1])


def record(optimum: Optimum) -> dict[str, Any]:
    """Return the optimum as plain numbers, lists and texts."""
    task, row = optimum.task, optimum.row
    ranking = optimum.ranking
    return {
        "law": ranking.law,
        "family": optimum.family,
        "schedule": optimum.schedule.to_dict(),
        "steps": task.steps,
        "predicted_loss": optimum.loss,
        "lower": float(ranking.lower[row]),
        "upper": float(ranking.upper[row]),
        "divergence_risk": None if ranking.risk is None else float(ranking.risk[row]),
        "in_domain": bool(ranking.in_domain[row]),
        "reasons": ranking.reasons[row],
        "gains": [_gain_record(gain) for gain in optimum.gains],
        "advice": optimum.advice,
        "notes": list(optimum.notes),
        "evaluated": optimum.evaluated,
    }


def _gain_record(gain: Gain) -> Mapping[str, Any]:
    return {
        "over": gain.family,
        "schedule": gain.schedule.to_dict(),
        "short": str(gain.schedule),
        "gain": gain.gain,
        "lower": gain.lower,
        "upper": gain.upper,
        "p_real": gain.p_real,
        "run_noise_sd": gain.noise,
        "of_single_runs": True,
    }
