"""What is to be planned: a run's sizes, a law, the bounds, and how a schedule is judged by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws._accepted import ACCEPTED, accepted_risk, no_risk_model
from optlaws.errors import InputError, LawError, told_otherwise
from optlaws.law import load_any_law
from optlaws.ranking import Z, risks
from optlaws.runs import RunTable, format_quantity
from optlaws.runs._optimizers import usually_decays
from optlaws.schedules import Schedule, ScheduleBatch
from optlaws.schedules.keys import MAX_STEPS
from optlaws.schedules.quantity import as_number

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SIZES = ("params", "tokens", "batch_tokens", "steps", "weight_decay", "plain_sgd", "optimizer")
"""Quantities of a law's domain that no schedule of a given length can change."""

UNLIKE = "schedule unlike"
BEYOND = 4.0  # factor beyond the law's own peak rates that is searched where leaving the domain is allowed
ROUNDING = 0.05  # of tokens = steps * batch_tokens
AT_LIMIT = 0.8  # part of the accepted risk above which the risk is said to bound a plan
SHORTEST = 4  # steps of a run that can be planned


@dataclass(frozen=True, eq=False)
class Judged:
    """Predictions for m schedules, arrays of shape (m,).

    Attributes
    ----------
    loss : expected loss, nats per token.
    sd : standard deviation of ln of the expected loss (run noise left out).
    risk : probability of divergence, NaN where nobody knows.
    inside : whether nothing but the job's own sizes is outside the law's domain.
    why : what is not ("" inside).
    prediction : the law's own.
    known : standard deviation of ln of the expected loss that settings like those of the law's runs may have, (m,).
    """

    loss: FloatArray
    sd: FloatArray
    risk: FloatArray
    inside: BoolArray
    why: Sequence[str]
    prediction: Any
    known: FloatArray

    @property
    def noise(self) -> FloatArray:
        """Standard deviation of ln loss among repeats of one run, shape (m,)."""
        return np.asarray(np.asarray(self.prediction.noise, dtype=np.float64) / self.loss)

    def score(self, caution: float) -> FloatArray:
        """Return ln of the expected loss and the `caution` (at least 0) that counts against it, shape (m,).

        That is ln L + c max(sd - known, 0): standard deviations of the expected loss count as far as they exceed how
        far the law's own runs lie off its trend. Less is what a law does not know of settings like those that it has
        seen; among these it would only draw the choice to the middle of the runs (docs/optimize.md has what it is
        worth). The noise of the run itself would not do: it is higher at higher rates, which would gain by it.
        """
        return np.asarray(np.log(self.loss) + caution * np.maximum(self.sd - self.known, 0.0))


@dataclass(frozen=True)
class Task:
    """A run to be planned.

    Attributes
    ----------
    law : the law that judges.
    steps : T, warm-up and decay included, at least `SHORTEST`.
    columns : what the run table says of the run beside its schedule; absent = not known.
    low, high : bounds of the peak rate, 0 < low <= high.
    floor : lowest rate that a decay may reach, 0 .. high.
    max_risk : divergence risk that is accepted, 0 .. 1.
    strict_risk : whether a risk that is not known is refused.
    outside : whether schedules outside the law's domain are allowed.
    monotone : whether the rate of a free schedule never rises after the warm-up.
    caution : standard deviations that count against a schedule, 0 .. 10; see `Judged.score`.
    sizes_outside : why the run itself, whatever its schedule, is outside the domain ("" inside).
    assumed : what was taken from the law because nobody gave it.
    notes : sentences on how the bounds came about.
    """

    law: Any
    steps: int
    columns: Mapping[str, Any]
    low: float
    high: float
    floor: float = 0.0
    max_risk: float = ACCEPTED
    strict_risk: bool = False
    outside: bool = False
    monotone: bool = True
    caution: float = Z
    sizes_outside: str = ""
    assumed: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def runs(self, schedules: Sequence[Schedule] | ScheduleBatch, names: Sequence[str] | None = None) -> RunTable:
        """Return the run with each of these schedules."""
        return RunTable.build(schedules, run_id=names, **self.columns)

    def judge(self, schedules: Sequence[Schedule] | ScheduleBatch, *, risk: bool = True) -> Judged:
        """Predict the run with each of these schedules; without `risk` that of divergence is left at 0.

        Raises
        ------
        LawError
            The law predicts no finite loss above 0 for one of them.
        InputError
            There is no schedule, or a column of the run is out of range.
        """
        return judge(self.law, self.runs(schedules), bool(self.sizes_outside), risk)

    def allowed(self, judged: Judged) -> BoolArray:
        """Return which schedules lie inside the domain, or may lie outside, shape (m,)."""
        return np.ones(len(judged.loss), dtype=bool) if self.outside else judged.inside

    def safe(self, judged: Judged) -> BoolArray:
        """Return which schedules have an accepted risk, shape (m,)."""
        unknown = np.isnan(judged.risk)
        with np.errstate(invalid="ignore"):
            return np.asarray((judged.risk <= self.max_risk) | (unknown & (not self.strict_risk)))


def judge(law: Any, runs: RunTable, sizes_outside: bool = False, risk: bool = True) -> Judged:
    """Predict runs; reasons that lie in the sizes do not count, nor, with `sizes_outside`, that of strangeness.

    Raises
    ------
    LawError
        The law predicts no finite loss above 0 for one of them.
    InputError
        There is no run, or one lacks what the law needs.
    """
    with told_otherwise():
        prediction = law.predict(runs)
    loss = np.asarray(prediction.loss, dtype=np.float64)
    if not (np.isfinite(loss) & (loss > 0)).all():
        raise LawError(
            f"law {law.name!r} predicts no finite loss above 0 for a schedule of this run; check its sizes and bounds"
        )
    sd = np.sqrt(np.maximum(np.asarray(prediction.sd) ** 2 - np.asarray(prediction.noise) ** 2, 0.0)) / loss
    why = [_of_schedule(reason, sizes_outside) for reason in prediction.reasons]
    model = getattr(law, "risk", None)
    danger = np.full(len(loss), np.nan) if model is None else np.zeros(len(loss))
    if risk and model is not None:
        danger = np.asarray(risks(runs, law), dtype=np.float64)
    inside = np.array([not text for text in why], dtype=bool)
    return Judged(loss, sd, danger, inside, why, prediction, _known(law, prediction))


def _known(law: Any, prediction: Any) -> FloatArray:
    """Return the scatter of the law's runs about its trend, of a law without one the noise of a run, shape (m,)."""
    fit = (getattr(law, "info", None) or {}).get("fit", {})
    scatter = fit.get("scatter", fit.get("noise")) if isinstance(fit, Mapping) else None  # `noise`, of older files
    loss = np.asarray(prediction.loss, dtype=np.float64)
    if isinstance(scatter, Real):
        return np.full(len(loss), float(scatter))
    return np.asarray(np.asarray(prediction.noise, dtype=np.float64) / loss)


def _of_schedule(reason: str, sizes_outside: bool) -> str:
    """Return what a text of reasons says of the schedule."""
    if not reason:
        return ""
    parts = [part for part in reason.split("; ") if part.split(" ", 1)[0] not in SIZES]
    if sizes_outside:
        parts = [part for part in parts if not part.startswith(UNLIKE)]
    return "; ".join(parts)


def size_reasons(reason: str) -> str:
    """Return what a text of reasons says of the sizes.

    >>> size_reasons("params 1B above 169.9M, the highest in training; schedule unlike those in training")
    'params 1B above 169.9M, the highest in training'
    """
    return "; ".join(part for part in reason.split("; ") if part.split(" ", 1)[0] in SIZES)


def lengths(
    steps: float | None, tokens: float | None, batch: float | None, defaults: Mapping[str, float]
) -> tuple[int, float | None, float | None]:
    """Return steps, tokens and tokens a step: each left out follows from the two others, or from the law's default.

    Raises
    ------
    InputError
        One is not a finite number above 0, `steps` is not whole, they disagree by more than 5 %, or the steps cannot be
        known.

    Examples
    --------
    >>> lengths(None, 1e9, 5e5, {})
    (2000, 1000000000.0, 500000.0)
    """
    for name, value in (("steps", steps), ("tokens", tokens), ("batch_tokens", batch)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} must be a finite number above 0, got {value!r}; correct it")
    if steps is not None and steps != int(steps):
        raise InputError(f"steps must be a whole number of updates, got {steps!r}; round it")
    if steps is not None and tokens is not None and batch is not None:
        if abs(steps * batch / tokens - 1) > ROUNDING:
            raise InputError(
                f"tokens must be steps * batch_tokens, {steps:,.0f} * {format_quantity(batch)} ="
                f" {format_quantity(steps * batch)}, got {format_quantity(tokens)}; leave one of the three out"
            )
        return int(steps), tokens, batch
    batch = batch if batch is not None or (steps and tokens) else defaults.get("batch_tokens")
    if steps is None:
        if tokens is None or batch is None:
            missing = "steps, or tokens" if tokens is None else "steps, or batch_tokens"
            raise InputError(f"{missing} must be given to know the length of the run, got neither; add one of them")
        if not tokens / batch <= MAX_STEPS:
            raise InputError(
                f"steps, tokens / batch_tokens, must be at most {MAX_STEPS:,}, got {tokens:g} / {batch:g} ="
                f" {tokens / batch:g}; correct one of the two"
            )
        steps = max(round(tokens / batch), 1)
        if steps >= SHORTEST and abs(steps * batch / tokens - 1) > ROUNDING:
            raise InputError(
                f"tokens must be about a whole number of updates of {format_quantity(batch)} tokens, got"
                f" {format_quantity(tokens)}, {tokens / batch:.3g} updates; take {format_quantity(steps * batch)}"
            )
    if tokens is not None:
        batch = tokens / steps if batch is None else batch
    return int(steps), tokens, batch


def peak_bounds(
    law: Any, min_peak: float | None, max_peak: float | None, outside: bool, optimizer: str | None = None
) -> tuple[float, float, tuple[str, ...]]:
    """Return the bounds of the peak rate: those given, inside the law's own unless it may be left; and notes.

    The law's own count as rates of `optimizer`, as far as it knows it.

    Raises
    ------
    InputError
        A bound is no rate, or none is left between them.
    """
    for name, value in (("min_peak", min_peak), ("max_peak", max_peak)):
        if value is not None and not (np.isfinite(value) and 0 < value <= 1e3):
            raise InputError(f"{name} must be a finite rate above 0, got {value!r}; give a learning rate like 1e-3")
    if min_peak is not None and max_peak is not None and min_peak > max_peak:
        raise InputError(f"min_peak must be at most max_peak = {max_peak:g}, got {min_peak:g}; change one of them")
    known = law.domain.get("peak_lr")
    if known is None:
        if min_peak is None or max_peak is None:
            raise InputError(
                f"min_peak and max_peak must be given for law {law.name!r}, which states no range of peak rates,"
                f" got {min_peak} and {max_peak}; add both"
            )
        return min_peak, max_peak, ()
    optimizers = getattr(law, "optimizers", None)
    unit = optimizers.rate_unit(optimizer) if optimizers else 1.0
    low, high = (float(end) * unit for end in known)
    if outside:
        return min_peak or min(low / BEYOND, max_peak or low), max_peak or max(high * BEYOND, min_peak or high), ()
    if (max_peak is not None and max_peak < low) or (min_peak is not None and min_peak > high):
        name, value = ("max_peak", max_peak) if max_peak is not None and max_peak < low else ("min_peak", min_peak)
        raise InputError(
            f"{name} must leave peak rates from {low:g} to {high:g}, those that law {law.name!r} was trained on,"
            f" got {value:g}; change it, or allow schedules outside the domain (--outside-domain)"
        )
    notes: tuple[str, ...] = ()
    if max_peak is not None and max_peak > high:
        notes = (f"peak rates above {high:g} were left out: the law has seen none",)
    return max(low, min_peak or low), min(high, max_peak or high), notes


def risk_notes(law: Any, risk: float, accepted: float = np.inf) -> tuple[str, ...]:
    """Return what is to be said of a plan's divergence risk: that it is not known, or that it bounds the plan."""
    if np.isnan(risk):
        why = "the law has no risk model" if getattr(law, "risk", None) is None else "the law has no model of such runs"
        return (f"the divergence risk is not known, and nothing was left out because of it: {why}",)
    if risk > AT_LIMIT * accepted:
        return (
            f"the accepted divergence risk bounds this plan ({100 * risk:.2g} % of at most {100 * accepted:.2g} %): a"
            " longer warm-up may allow a lower loss, a lower --max-risk a safer run",
        )
    return ()


def check_knows_rates(law: Any) -> None:
    """Refuse a law without losses, or whose losses do not depend on the learning rate.

    Raises
    ------
    LawError
        It is such a law.
    """
    if not hasattr(law, "predict"):
        raise LawError(f"law must be a fitted law that predicts losses, got {law!r}; load one with load_law")
    rival = getattr(law, "law", None)
    if rival is None:
        return
    way_out = "take a built-in law, or fit one of your own"
    if not hasattr(rival, "predict"):
        raise LawError(f"law {law.name!r} must predict losses, and {rival.name} does not; {way_out}")
    if "schedule" in rival.needs:
        raise LawError(
            f"law {law.name!r} must be quick to predict thousands of schedules, and {rival.name} sums over every"
            f" update; {way_out}, or rank candidates by it"
        )
    if "peak_lr" not in rival.needs:
        raise LawError(
            f"law {law.name!r} must know learning rates to find the best one, and {rival.name} does not; {way_out}"
        )


def law_of(law: Any) -> Any:
    """Return a law that may be given by its name or its file.

    Raises
    ------
    LawError
        There is no such law.
    """
    return load_any_law(law) if isinstance(law, str | PathLike) else law


def make_task(
    law: Any,
    *,
    params: float | str | None = None,
    tokens: float | str | None = None,
    steps: float | str | None = None,
    batch_tokens: float | str | None = None,
    weight_decay: float | str | None = None,
    optimizer: str | None = None,
    min_peak: float | None = None,
    max_peak: float | None = None,
    min_lr: float = 0.0,
    max_risk: float | None = None,
    outside: bool = False,
    monotone: bool = True,
    caution: float = Z,
) -> Task:
    """Return the task of planning one run; see `optimize_schedule` for the arguments.

    Raises
    ------
    InputError
        A value is out of range.
    LawError
        The law predicts no losses, does not know learning rates, or is too slow for a search.
    """
    law = law_of(law)
    check_knows_rates(law)
    params, tokens, steps, batch_tokens = (
        as_number(value, name)
        for name, value in {"params": params, "tokens": tokens, "steps": steps, "batch_tokens": batch_tokens}.items()
    )
    weight_decay = as_number(weight_decay, "weight_decay", zero=True)
    if params is not None and not (np.isfinite(params) and params > 0):
        raise InputError(f"params must be a finite number above 0, got {params!r}; give non-embedding parameters")
    if max_risk is not None:
        accepted_risk(max_risk)
        if getattr(law, "risk", None) is None:
            raise no_risk_model(law)
    if not (np.isfinite(caution) and 0 <= caution <= 10):
        raise InputError(f"caution must be from 0 to 10 standard deviations, got {caution!r}; {Z:.3f} is the default")
    total, tokens, batch = lengths(steps, tokens, batch_tokens, law.defaults)
    low, high, notes = peak_bounds(law, min_peak, max_peak, outside, optimizer)
    if not (np.isfinite(min_lr) and 0 <= min_lr <= high):
        raise InputError(f"min_lr must be a rate from 0 to the highest peak, {high:g}, got {min_lr!r}; lower it")
    low = max(low, min_lr)
    if total < SHORTEST:
        raise InputError(
            f"steps must be at least {SHORTEST} for a schedule worth planning, got {total}; plan a longer run"
        )
    if optimizer is not None and not optimizer.strip():
        raise InputError(f"optimizer must be a name like adamw, got {optimizer!r}; leave it out for AdamW")
    given: dict[str, Any] = {
        "params": params, "tokens": tokens, "batch_tokens": batch, "weight_decay": weight_decay, "optimizer": optimizer
    }  # fmt: skip
    assumed = {
        name: float(value)
        for name, value in law.defaults.items()
        if name in given
        and given[name] is None
        and (name != "weight_decay" or usually_decays(optimizer))
        and name != "tokens"
    }
    if batch is not None and batch_tokens is None and not (steps and tokens):
        assumed["batch_tokens"] = batch
    columns: dict[str, Any] = {name: value for name, value in {**given, **assumed}.items() if value is not None}
    middle = Schedule("cosine", peak=float(np.sqrt(low * high)), steps=total)
    with told_otherwise():
        whole = law.predict(RunTable.build([middle], **columns))
    return Task(
        law=law, steps=total, columns=columns, low=low, high=high, floor=float(min_lr),
        max_risk=ACCEPTED if max_risk is None else max_risk, strict_risk=max_risk is not None, outside=outside,
        monotone=monotone, caution=caution, sizes_outside=size_reasons(whole.reasons[0]), assumed=assumed, notes=notes,
    )  # fmt: skip
