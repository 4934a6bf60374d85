"""A monitor for a plain training loop: warns through `logging`, and says when to stop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optlaws.errors import InputError
from optlaws.monitor import DIVERGENCE, OFF_TRACK, Alarm, Monitor, Status

LOGGER = logging.getLogger("optlaws.monitor")
KINDS = (DIVERGENCE, OFF_TRACK)
TOLD_APART = 1e-3  # share by which the end of the curve differs from the final loss, where both are said
WIDE = 2.0  # factor between the ends of an interval from which on a loss is not told
NAMED = 3  # alarms that are over


class TrainingMonitor:
    """Feeds a monitor from a training loop and never stops the loop by an error of its own.

    Parameters
    ----------
    monitor : Monitor
    stop_on : tuple of str
        Kinds of alarm ("divergence", "off_track") on which `step` says to stop; none by default.
    forecast_every : float
        Fraction of the run between forecasts written to the log, 0 = none.
    on_alarm : callable, optional
        Called with the status when an alarm is raised.

    Raises
    ------
    InputError
        `stop_on` holds another kind, or `forecast_every` is not 0 .. 1.

    Examples
    --------
    ::

        watch = TrainingMonitor(monitor, stop_on=("divergence",))
        for step, batch in enumerate(loader, start=1):
            loss, grad_norm = train_step(batch)
            if watch.step(step, float(loss), grad_norm):
                break

    Notes
    -----
    A reading that the monitor refuses (a step beyond the schedule, a loss of 0, no number) is left out with one warning
    of its kind. Where the step goes back, the run was resumed from a checkpoint, and the monitor is wound back with it.
    """

    def __init__(
        self,
        monitor: Monitor,
        *,
        stop_on: tuple[str, ...] = (),
        forecast_every: float = 0.1,
        on_alarm: Callable[[Status], None] | None = None,
    ) -> None:
        """Check the options."""
        for kind in stop_on:
            if kind not in KINDS:
                raise InputError(f"stop_on must hold kinds of alarm out of {', '.join(KINDS)}, got {kind!r}")
        if not 0.0 <= forecast_every <= 1.0:
            raise InputError(f"forecast_every must be a fraction of the run, 0 to 1, got {forecast_every!r}")
        self.monitor, self.stop_on, self.forecast_every, self.on_alarm = (
            monitor,
            tuple(stop_on),
            forecast_every,
            on_alarm,
        )
        self.quiet = False  # a process that only follows along says nothing and calls nobody
        self._told: set[str] = set()
        self._forecasts = self._due(monitor.status)

    def _due(self, status: Status) -> int:
        return math.floor(status.fraction / self.forecast_every + 1e-9) if self.forecast_every else 0

    def step(self, step: float, loss: float, grad_norm: float | None = None) -> bool:
        """Take in a reading (see `Monitor.update`); return whether training should stop.

        Raises nothing for a bad reading, so that a monitor never ends a training run: it is left out, with a warning.
        """
        try:
            if float(step) < self.monitor.status.step:
                if not self.quiet:
                    LOGGER.info("step went back to %g: taken as resumed from a checkpoint", step)
                self.monitor.rewind(float(step))
                self._forecasts = self._due(self.monitor.status)
            status = self.monitor.update(float(step), float(loss), None if grad_norm is None else float(grad_norm))
        except (TypeError, ValueError, OverflowError) as error:  # an InputError is a ValueError
            kind = str(error).split(" ", 1)[0]
            if kind not in self._told and not self.quiet:
                self._told.add(kind)
                LOGGER.warning("reading left out, and others like it without a word: %s", error)
            return False
        stop = any(alarm.kind in self.stop_on for alarm in status.new)
        if self.quiet:
            return stop
        for alarm in status.new:
            LOGGER.warning("%s: %s", alarm.kind.replace("_", " "), alarm.message)
        if status.new and self.on_alarm is not None:
            self.on_alarm(status)
        if self._due(status) > self._forecasts:
            self._forecasts = self._due(status)
            LOGGER.info("%s", describe(status, self.monitor.history))
        return stop

    def state_dict(self) -> dict[str, Any]:
        """Return the monitor's state, for the checkpoint."""
        return self.monitor.to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state in a checkpoint.

        Raises
        ------
        LawError
            It is no monitor's state, of another version, or damaged.
        """
        self.monitor = Monitor.from_dict(state)
        self._forecasts = self._due(self.monitor.status)


def describe(status: Status, history: Sequence[Alarm] = ()) -> str:
    """Return one line: where the run is, its forecast, and whether something is wrong.

    Where the curve's own last reading is expected elsewhere than the final loss as the law's runs state theirs (another
    evaluation set, or another corpus), both are said. A loss whose 90 % interval spans more than a factor of 2 is not.

    Parameters
    ----------
    status : Status
    history : sequence of Alarm, optional
        `Monitor.history`: where no alarm lasts, those that are over are named.
    """
    f = status.forecast
    alarms = "; ".join(status.reasons) or _no_alarm(history)
    if status.diverged:
        return f"step {status.step:g} of {status.total:g}: diverged, no forecast holds; {alarms}"
    apart = abs(f.last_reading / f.loss - 1.0) > TOLD_APART
    final = _loss(f.loss, f.lower, f.upper)
    yet = "" if status.step >= status.total else " yet"
    text = f"final loss {final}" if final else f"the curve says too little{yet} of the final loss"
    text += " on the law's own evaluation set" if apart else ""
    own = _loss(f.last_reading, f.last_lower, f.last_upper) if apart else ""
    before = _loss(f.prior_loss, f.prior_lower, f.prior_upper)
    text += f", {own} in this log's own losses" if own else ""
    text += f", before the run {before}" if before else ""
    return f"step {status.step:g} of {status.total:g}: {text}; {alarms}"


def _loss(loss: float, lower: float, upper: float) -> str:
    """Return a loss with its interval, "" where that is so wide that digits would mislead."""
    return f"{loss:.4f} ({lower:.4f} .. {upper:.4f})" if upper <= WIDE * lower else ""


def _no_alarm(history: Sequence[Alarm]) -> str:
    """Say that no alarm lasts, and when there was one."""
    over = [alarm for alarm in history if alarm.ended is not None]
    if not over:
        return "no alarm"
    named = [f"{alarm.kind.replace('_', ' ')} from step {alarm.step:g} to {alarm.ended:g}" for alarm in over[-NAMED:]]
    earlier = f", and {len(over) - NAMED} before" if len(over) > NAMED else ""
    return f"no alarm now; {', '.join(named)}{earlier}"


__all__ = ["LOGGER", "TrainingMonitor", "describe"]
