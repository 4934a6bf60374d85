"""The monitor: fed step, loss and gradient norm; answers with a re-forecast of the final loss and with alarms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np

from optlaws.errors import InputError, LawError
from optlaws.law import Law, load_law
from optlaws.monitor.alarms import (
    BLOCKS,
    DIVERGENCE,
    OFF_TRACK,
    Alarm,
    Blocks,
    Divergence,
    Thresholds,
    expected_rises,
    off_track,
    stuck,
)
from optlaws.monitor.forecast import CurvePrior, Forecast, check_prior, reforecast
from optlaws.monitor.path import FARTHEST, Path, paths, with_reach
from optlaws.runs import RunTable, check_runs
from optlaws.schedules import Schedule

FORMAT, VERSION = "optlaws-monitor", 1
FORECAST = ("loss", "lower", "upper", "last_reading", "last_lower", "last_upper")  # what a diverged run has not
LEVEL = 0.05  # of the run, its latest part, by which its level is judged
LOOKS = 4  # alarms are looked for at most this many times a block


@dataclass(frozen=True)
class Status:
    """What a monitor knows after a reading.

    Attributes
    ----------
    step, total : updates done, and the run's.
    readings : finite readings so far; those that `Monitor.rewind` forgets do not count.
    loss : latest reading, nats per token; right after `Monitor.rewind` the median of the last 1/400 of the run left.
    alarms : those that last.
    new : those raised by this very reading.
    """

    step: float
    total: float
    readings: int
    loss: float
    alarms: tuple[Alarm, ...]
    new: tuple[Alarm, ...]
    _path: Path = field(repr=False, compare=False)
    _prior: CurvePrior = field(repr=False, compare=False)
    _blocks: Blocks = field(repr=False, compare=False)

    @property
    def fraction(self) -> float:
        """Share of the run that is done."""
        return self.step / self.total

    @property
    def diverged(self) -> bool:
        """Whether a divergence alarm lasts."""
        return any(alarm.kind == DIVERGENCE for alarm in self.alarms)

    @property
    def off_track(self) -> bool:
        """Whether an off-track alarm lasts."""
        return any(alarm.kind == OFF_TRACK for alarm in self.alarms)

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence for each alarm that lasts."""
        return tuple(alarm.message for alarm in self.alarms)

    @property
    def forecast(self) -> Forecast:
        """Final loss as seen from here; computed when asked for, in about a millisecond."""
        steps, logs, _ = (np.array(part, dtype=float) for part in self._blocks.arrays())
        seen = reforecast(self._path, self._prior, steps, logs)
        return replace(seen, step=self.step, fraction=self.fraction)

    @property
    def in_domain(self) -> bool:
        """Whether the run lies in the law's training domain."""
        return self._path.in_domain

    def to_dict(self) -> dict[str, Any]:
        """Return status and forecast as plain values that JSON knows, for a log: what is not finite is None.

        Once the run has diverged no forecast holds: what it says of the end is None, what was expected before stays.
        """
        forecast: dict[str, Any] = dict(self.forecast.to_dict())
        if self.diverged:
            forecast.update(dict.fromkeys(FORECAST))
        return {
            "step": self.step,
            "fraction": self.fraction,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "diverged": self.diverged,
            "off_track": self.off_track,
            "alarms": [_alarm_dict(alarm) for alarm in self.alarms],
            "in_domain": self.in_domain,
            "forecast": forecast,
        }


class Monitor:
    """Watches one run against a law.

    Parameters
    ----------
    law : Law, or the name or file of one
        Its prediction of the final loss is the prior, its dynamics give the shape of the curve. It need not have been
        fitted to curves.
    run : RunTable, Schedule or str
        A table of one row, or a schedule (or its short form) with the sizes below.
    params, tokens, batch_tokens, weight_decay, optimizer : optional
        With a schedule: as in `RunTable.build`.
    prior : CurvePrior, optional
        How curves depart from this law (`learn_prior`); default: the one that the law carries, else a wide one.
    thresholds : Thresholds, optional
        When to raise an alarm.

    Raises
    ------
    InputError
        The table has not one row, sizes are given beside a table, the run has fewer than 2 steps, a size that the law
        needs is missing, or the prior cannot be used.
    LawError
        It is no law of dynamics, a rival law say, or the prior in it is damaged.
    TableError
        A size is out of range, or the table holds a `ScheduleBatch`.

    Examples
    --------
    >>> from optlaws import load_law, parse
    >>> law = load_law("llama-slimpajama")
    >>> schedule = parse("wsd:peak=1e-3,steps=50000,warmup=300,decay=0.2")
    >>> monitor = Monitor(law, schedule, params=85e6, batch_tokens=51_200)
    >>> status = monitor.update(1000, 4.5)
    >>> status.diverged, status.fraction
    (False, 0.02)
    >>> monitor.update(1100, float("nan")).diverged
    True
    """

    def __init__(
        self,
        law: Law | str | PathLike[str],
        run: RunTable | Schedule | str,
        *,
        params: float | None = None,
        tokens: float | None = None,
        batch_tokens: float | None = None,
        weight_decay: float | None = None,
        optimizer: str | None = None,
        prior: CurvePrior | None = None,
        thresholds: Thresholds | None = None,
    ) -> None:
        """Compute what the law expects along the run."""
        if isinstance(law, (str, PathLike)):
            law = load_law(law)
        sizes = {
            "params": params,
            "tokens": tokens,
            "batch_tokens": batch_tokens,
            "weight_decay": weight_decay,
            "optimizer": optimizer,
        }
        if isinstance(run, (Schedule, str)):
            run = RunTable.build(run, **sizes)  # type: ignore[arg-type]  # one number or text a column
        else:
            given = [name for name, value in sizes.items() if value is not None]
            if given:
                raise InputError(f"{', '.join(given)} must stand in the run table itself; give a schedule or drop them")
        if len(check_runs(run, "run")) != 1:
            raise InputError(f"run must be one run, got a table of {len(run)}; select one row")
        path = with_reach(paths(law, run)[0], law, run)
        chosen = CurvePrior.of(law) if prior is None else prior
        check_prior(chosen)
        self._start(path, chosen, thresholds or Thresholds())

    def _start(self, path: Path, prior: CurvePrior, thresholds: Thresholds) -> None:
        self.path, self.prior, self.thresholds = path, prior, thresholds
        self._rises = expected_rises(path)
        self._blocks = Blocks(path.total / BLOCKS)
        self._divergence = Divergence(thresholds, path.total)
        self._step, self._loss, self._readings, self._looked = 0.0, math.nan, 0, -math.inf
        self._lasting: list[Alarm] = []
        self._ended: list[Alarm] = []
        self._new: tuple[Alarm, ...] = ()

    @property
    def status(self) -> Status:
        """What is known after the latest reading."""
        return Status(
            self._step, self.path.total, self._readings, self._loss, tuple(self._lasting), self._new,
            self.path, self.prior, self._blocks.as_now(),
        )  # fmt: skip

    @property
    def level(self) -> float | None:
        """Median of ln loss minus what the law expects, over the latest 1/20 of the run; None before the law speaks."""
        steps, logs, _ = (np.array(part, dtype=float) for part in self._blocks.arrays())
        recent = (steps >= self.path.start) & (steps >= self._step - LEVEL * self.path.total)
        if not recent.any():
            return None
        return float(np.median(logs[recent] - self.path.at(steps[recent])[0]) + self.prior.mean[0])

    @property
    def history(self) -> tuple[Alarm, ...]:
        """All alarms so far, those that are over included, in order of their steps."""
        return tuple(sorted([*self._ended, *self._lasting], key=lambda alarm: alarm.step))

    def update(self, step: float, loss: float, grad_norm: float | None = None) -> Status:
        """Take in a reading.

        Parameters
        ----------
        step : float
            Updates done, 0 .. T, not below the latest reading's.
        loss : float
            Nats per token, 1e-30 or more; NaN and infinity are taken as what they are, and above 1e30 as infinity.
        grad_norm : float, optional
            Norm of the gradient, supporting evidence only; NaN and infinity count as not given.

        Returns
        -------
        Status

        Raises
        ------
        InputError
            A step out of range or out of order, or a loss that is no number or below 1e-30.
        """
        step, loss = _reading("step", step), _reading("loss", loss)
        if not 0 <= step <= self.path.total:
            raise InputError(
                f"step must be 0 to {self.path.total:g}, the length of the schedule, got {step:g};"
                " make a monitor with the schedule that is run"
            )
        if step < self._step:
            raise InputError(
                f"step must not be below {self._step:g}, the latest reading's, got {step:g}; call rewind({step:g})"
                " where a run goes back to a checkpoint"
            )
        if loss < 1 / FARTHEST:
            raise InputError(
                f"loss must be above 0 nats per token, {1 / FARTHEST:g} at the least, got {loss!r}; leave such readings"
                " out"
            )
        self._step, self._loss, self._new = step, loss, ()
        if not loss <= FARTHEST:
            self._raise(DIVERGENCE, "nonfinite", loss, math.inf, f"loss is {loss} at step {step:g}")
            return self.status
        grad = math.nan if grad_norm is None or not math.isfinite(grad_norm) else float(grad_norm)
        closed = self._blocks.add(step, math.log(loss), grad)
        self._readings += 1
        if closed or step - self._looked >= self._blocks.length / LOOKS:
            self._looked = step
            self._look(closed)
        return self.status

    def rewind(self, step: float) -> Status:
        """Forget what was read after a step, and the alarms raised there: the run goes back to a checkpoint.

        What was read in the same 1/400 of the run goes as well.

        Raises
        ------
        InputError
            `step` is not from 0 to T.
        """
        if not 0 <= step <= self.path.total:
            raise InputError(f"step must be 0 to {self.path.total:g} to go back to, got {step:g}")
        self._blocks.cut(step)
        steps, logs, grads = self._blocks.arrays()
        self._divergence = Divergence(self.thresholds, self.path.total)
        for i in range(1, len(steps) + 1):
            self._divergence.look(steps[:i], logs[:i], grads[:i], self._rise_at(steps[i - 1]), True)
        self._step, self._looked, self._new = min(self._step, float(step)), -math.inf, ()
        self._readings, self._loss = self._blocks.readings, math.exp(logs[-1]) if logs else math.nan
        reopened = [replace(a, ended=None) for a in self._ended if a.ended is not None and a.ended > step]
        self._lasting = [a for a in [*self._lasting, *reopened] if a.step <= step]
        self._ended = [a for a in self._ended if a.ended is not None and a.ended <= step]
        return self.status

    def to_dict(self) -> dict[str, Any]:
        """Return the whole state as plain numbers: keep it in the checkpoint, and a resumed run goes on."""
        b, d = self._blocks, self._divergence
        return {
            "format": FORMAT,
            "version": VERSION,
            "path": self.path.to_dict(),
            "prior": self.prior.to_dict(),
            "thresholds": asdict(self.thresholds),
            "blocks": {name: _plain(value) for name, value in vars(b).items()},
            "best": None if math.isinf(d.best) else d.best,
            "since": d.since,
            "step": self._step,
            "loss": self._loss if math.isfinite(self._loss) else None,
            "readings": self._readings,
            "looked": None if math.isinf(self._looked) else self._looked,
            "lasting": [_alarm_dict(alarm) for alarm in self._lasting],
            "ended": [_alarm_dict(alarm) for alarm in self._ended],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Monitor:
        """Return the monitor of `to_dict`; no law is needed.

        Raises
        ------
        LawError
            It is no monitor's state, of another version, or damaged.
        """
        found = (values.get("format"), values.get("version")) if isinstance(values, Mapping) else (None, None)
        if found != (FORMAT, VERSION):
            raise LawError(
                f"state must be that of a monitor, format {FORMAT!r} version {VERSION}, got"
                f" {found[0]!r} version {found[1]!r}; start a new monitor"
            )
        try:
            return cls._of(values)
        except InputError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise LawError(
                f"state of a monitor must be whole, got a damaged one ({type(error).__name__}: {error});"
                " start a new monitor"
            ) from None

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> Monitor:
        """Return the monitor of a state of this format and version."""
        out = cls.__new__(cls)
        thresholds = Thresholds.from_dict(values["thresholds"])
        out._start(Path.from_dict(values["path"]), CurvePrior.from_dict(values["prior"]), thresholds)
        blocks = {name: _unplain(value) for name, value in values["blocks"].items()}
        blocks.setdefault("counts", [1] * len(blocks["steps"]))  # states written before readings were counted
        out._blocks = Blocks(**blocks)
        best = values["best"]
        out._divergence.best = math.inf if best is None else best
        out._divergence.since = values["since"]
        out._step, out._readings = float(values["step"]), int(values["readings"])
        out._loss = math.nan if values["loss"] is None else values["loss"]
        out._looked = -math.inf if values["looked"] is None else values["looked"]
        out._lasting = [_alarm_of(alarm) for alarm in values["lasting"]]
        out._ended = [_alarm_of(alarm) for alarm in values["ended"]]
        return out

    def _rise_at(self, step: float) -> float:
        return float(np.interp(step, self.path.steps, self._rises))

    def _look(self, closed: bool) -> None:
        """Look for alarms in the blocks so far."""
        steps, logs, grads = self._blocks.arrays()
        watch, t = self._divergence, self.thresholds
        expected = self._rise_at(self._step)
        found = watch.look(steps, logs, grads, expected, closed)
        if found is not None:
            rise, limit, _ = found
            strain = ", the gradient norm is high as well" if watch.strained(grads) else ""
            self._raise(
                DIVERGENCE, "rise", math.expm1(rise), math.expm1(limit),
                f"loss has risen by {100 * math.expm1(rise):.1f} % above its best level"
                f" (allowed {100 * math.expm1(limit):.1f} %) and stays there at step {self._step:g}{strain}",
            )  # fmt: skip
        elif watch.recovered(logs, steps, expected):
            self._end(DIVERGENCE, "rise")
            self._end(DIVERGENCE, "nonfinite", before=self._step - t.patience * self.path.total)
        if not closed:
            return
        at, log = np.array(steps), np.array(logs)
        used = at >= self.path.start
        at, log = at[used], log[used]
        if not len(at):
            return
        over = stuck(self.path, self.prior, t, at, log)
        if over is not None:
            excess = 100 * math.expm1(over[0])
            self._raise(
                DIVERGENCE, "stuck", math.expm1(over[0]), t.stuck,
                f"loss is {excess:.0f} % above what the law holds to be within reach and does not fall as it must"
                f" at step {self._step:g}",
            )  # fmt: skip
        elif log[-1] - float(self.path.reach_at(at[-1:])[0]) + self.prior.mean[0] < math.log1p(t.stuck):
            self._end(DIVERGENCE, "stuck")
        away = off_track(self.path, self.prior, t, at, log)
        if away is not None:
            side = "above" if away[0] > 0 else "below"
            self._end(OFF_TRACK, "below" if side == "above" else "above")
            self._raise(
                OFF_TRACK, side, away[0], away[1],
                f"loss has been {abs(away[0]):.1f} sds {side} what the law expects (allowed {away[1]:g}) for"
                f" {100 * t.off_patience:g} % of the run at step {self._step:g}",
            )  # fmt: skip
        else:
            self._end(OFF_TRACK, "above")
            self._end(OFF_TRACK, "below")

    def _raise(self, kind: str, reason: str, value: float, threshold: float, message: str) -> None:
        if any(alarm.kind == kind and alarm.reason == reason for alarm in self._lasting):
            return
        alarm = Alarm(kind, reason, self._step, value, threshold, message)
        self._lasting.append(alarm)
        self._new = (*self._new, alarm)

    def _end(self, kind: str, reason: str, before: float = math.inf) -> None:
        over = [a for a in self._lasting if a.kind == kind and a.reason == reason and a.step < before]
        for alarm in over:
            self._lasting.remove(alarm)
            self._ended.append(replace(alarm, ended=self._step))


def _plain(value: Any) -> Any:
    """Return a block's field with NaN as None."""
    if isinstance(value, list):
        return [None if math.isnan(v) else v for v in value]
    return value


def _unplain(value: Any) -> Any:
    return [math.nan if v is None else v for v in value] if isinstance(value, list) else value


def _alarm_dict(alarm: Alarm) -> dict[str, Any]:
    """Return an alarm as plain values that JSON knows."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(alarm).items()}


def _alarm_of(values: Mapping[str, Any]) -> Alarm:
    known = dict(values)
    known["value"] = math.nan if known["value"] is None else known["value"]
    known["threshold"] = math.inf if known["threshold"] is None else known["threshold"]
    return Alarm(**known)


__all__ = ["Monitor", "Status"]


def _reading(name: str, value: Any) -> float:
    """Return a step or a loss as a float; a tensor or array of one number is one, too."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a number, got {value!r:.60}; leave steps without one out") from None
