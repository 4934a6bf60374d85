"""Alarms during a run, from the past alone: has it diverged, or left what its law allows?

Readings are put into blocks of 1/400 of the run, each the median of its readings, so that neither single spikes nor
how often a run is logged decide. Over the latest blocks (the *window*: `patience` of the run, 3 blocks at least):

    rise     lower quartile of the window - lowest median of an earlier window   (of ln loss)

Divergence is a rise above `rise`, and above `noise` standard errors of a window, that is not still falling (a spike on
its way back has `recovery` of the run to do so). A rise that the law expects, where the rate goes up again, is taken
off twice over. A loss that is not finite is divergence at once, and so is one that stays far above what the law holds
to be within reach (of this schedule at the best lower peak rate) and does not fall where that must.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from optlaws.dynamics.model import FloatArray
from optlaws.errors import InputError, nearest
from optlaws.monitor.forecast import CurvePrior
from optlaws.monitor.path import Path

BLOCKS = 400  # blocks of a run
BLOCK_READINGS = 128  # readings of a block that are kept; more are thinned evenly
FEW_BLOCKS = 6.0  # an sd from n differences is taken 1 + 6 / n times as large
FALLEN = 0.2  # a spike is on its way back if it has lost this share of its height within the window
DIVERGENCE, OFF_TRACK = "divergence", "off_track"
GROWN = 0.25  # share of `stuck` by which a run must have left its own level: that of another corpus is high throughout


@dataclass(frozen=True)
class Thresholds:
    """When to raise an alarm; fractions are of the run, losses relative. All are above 0.

    Attributes
    ----------
    rise : sustained rise of the loss over its best level that is divergence, 0.05 = 5 %.
    patience : how long it must last, at most 0.5; the window over which levels are taken.
    fewest : blocks that the window has at least, a whole number.
    noise : standard errors of a window's level that a rise must exceed.
    recovery : how long a spike that is still falling may take, at most 0.5.
    grad_norm : a gradient norm above this many times its running median, over a window, halves `rise` and `patience`.
    stuck : loss above what is within reach (`Path.reach`) by this much that is divergence, if it does not fall: less
        than a fifth of what that falls within `off_patience`.
    off_track : sds between curve and law that put a run off its track, if exceeded by every block of `off_patience`.
    off_patience : see there; at most 0.5.
    off_from : fraction of the run, at most 0.5, before which no run is called off its track or stuck.

    Raises
    ------
    InputError
        A threshold is out of range.
    """

    rise: float = 0.05
    patience: float = 0.02
    fewest: int = 3
    noise: float = 6.0
    recovery: float = 0.06
    grad_norm: float = 3.0
    stuck: float = 0.2
    off_track: float = 3.5
    off_patience: float = 0.05
    off_from: float = 0.1

    def __post_init__(self) -> None:
        """Refuse thresholds that cannot be used."""
        for one in fields(self):
            value = getattr(self, one.name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise InputError(f"{one.name} must be a finite number above 0, got {value!r}; leave it out for default")
        for name in ("patience", "recovery", "off_patience", "off_from"):
            if getattr(self, name) > 0.5:
                raise InputError(f"{name} must be a fraction of the run of at most 0.5, got {getattr(self, name)!r}")
        if self.fewest != int(self.fewest):
            raise InputError(f"fewest must be a whole number of blocks above 0, got {self.fewest!r}; 3 is the default")
        object.__setattr__(self, "fewest", int(self.fewest))  # 3.0, too, must do in a slice

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Thresholds:
        """Return the thresholds of `dataclasses.asdict`.

        Raises
        ------
        InputError
            A name is not known, or a threshold out of range.
        """
        known = [one.name for one in fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(f"no threshold {name!r}{nearest(name, known)}; known: {', '.join(known)}")
        return cls(**values)


@dataclass(frozen=True)
class Alarm:
    """Something that a monitor saw.

    Attributes
    ----------
    kind : "divergence" or "off_track".
    reason : "nonfinite", "rise" or "stuck"; "above" or "below".
    step : step at which it was raised.
    value, threshold : what was measured, and what was allowed.
    message : one sentence.
    ended : step at which it was over, None while it lasts.
    """

    kind: str
    reason: str
    step: float
    value: float
    threshold: float
    message: str
    ended: float | None = None


@dataclass
class Blocks:
    """Readings in blocks; the last block is open."""

    length: float
    steps: list[float] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)
    grads: list[float] = field(default_factory=list)  # NaN = none given
    open_steps: list[float] = field(default_factory=list)
    open_logs: list[float] = field(default_factory=list)
    open_grads: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # readings of each closed block
    stride: int = 1
    seen: int = 0  # readings of the open block

    def add(self, step: float, log_loss: float, grad: float) -> bool:
        """Add a reading; return whether it closed a block."""
        closed = bool(self.open_steps) and math.floor(step / self.length) > math.floor(self.open_steps[0] / self.length)
        if closed:
            self.steps, self.logs, self.grads = (list(part) for part in self.arrays())
            self.counts = [*self.counts, self.seen]
            self.open_steps, self.open_logs, self.open_grads = [], [], []
            self.stride, self.seen = 1, 0
        if self.seen % self.stride == 0:
            self.open_steps.append(step)
            self.open_logs.append(log_loss)
            self.open_grads.append(grad)
            if len(self.open_steps) == BLOCK_READINGS:
                self.open_steps, self.open_logs = self.open_steps[::2], self.open_logs[::2]
                self.open_grads = self.open_grads[::2]
                self.stride *= 2
        self.seen += 1
        return closed

    @property
    def readings(self) -> int:
        """Number of readings in all blocks, those that were thinned out included."""
        return sum(self.counts) + self.seen

    def current(self) -> tuple[float, float, float]:
        """Return step, ln loss and gradient norm of the open block."""
        grads = [g for g in self.open_grads if not math.isnan(g)]
        steps = sum(self.open_steps) / len(self.open_steps)
        return steps, _middle(self.open_logs), _middle(grads) if grads else math.nan

    def arrays(self) -> tuple[list[float], list[float], list[float]]:
        """Return steps, ln losses and gradient norms of all blocks, the open one included."""
        if not self.open_steps:
            return self.steps, self.logs, self.grads
        step, log, grad = self.current()
        return [*self.steps, step], [*self.logs, log], [*self.grads, grad]

    def cut(self, step: float) -> None:
        """Forget what was read after a step; a block that reaches over it goes whole."""
        edge = math.floor(step / self.length) * self.length
        kept = sum(s < edge for s in self.steps)
        if self.open_steps and self.open_steps[-1] > step:
            self.open_steps, self.open_logs, self.open_grads, self.stride, self.seen = [], [], [], 1, 0
        self.steps, self.logs, self.grads = self.steps[:kept], self.logs[:kept], self.grads[:kept]
        self.counts = self.counts[:kept]

    def as_now(self) -> Blocks:
        """Return the blocks as they are now, whatever is read later; cheap, as lists of closed ones never change."""
        return Blocks(
            self.length, self.steps, self.logs, self.grads, self.open_steps[:], self.open_logs[:], self.open_grads[:],
            self.counts, self.stride, self.seen,
        )  # fmt: skip


def _middle(values: list[float]) -> float:
    """Return the median of a short list (faster than NumPy's)."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])


def _quartile(values: list[float]) -> float:
    """Return the lower quartile of a short list, the value at rank floor(n / 4)."""
    return sorted(values)[len(values) // 4]


def window(steps: list[float], span: float, fewest: int) -> int:
    """Return how many of the latest blocks lie within `span` steps of the last, `fewest` at least."""
    count = 1
    while count < len(steps) and steps[-1] - steps[-count - 1] < span:
        count += 1
    return max(count, fewest)


def block_noise(logs: list[float], latest: int = 64) -> float:
    """Return the sd of a block, larger while there are few.

    From the median absolute second difference, which a steady fall leaves at 0: of independent blocks it has 6 times
    the variance of one.
    """
    part = logs[-latest - 2 :]
    if len(part) < 3:
        return abs(part[-1] - part[0]) if len(part) == 2 else 0.0
    few = 1.0 + FEW_BLOCKS / (len(part) - 2)
    bends = [abs(part[k] - 2.0 * part[k + 1] + part[k + 2]) for k in range(len(part) - 2)]
    return few * 1.4826 / math.sqrt(6.0) * _middle(bends)


def expected_rises(path: Path) -> FloatArray:
    """Return how far the law's ln loss lies above its lowest so far, at the path's steps (g,); 0 before `start`."""
    usable = path.steps >= path.start
    low = np.minimum.accumulate(np.where(usable, path.log_loss, np.inf))
    return np.where(usable, path.log_loss - low, 0.0)


@dataclass
class Divergence:
    """Watches for divergence: `look` is told the blocks so far and returns the reason to raise, or None."""

    thresholds: Thresholds
    total: float
    best: float = math.inf  # lowest median of a window so far
    since: float | None = None  # step at which the present excursion above `best` was first seen

    def strained(self, grads: list[float]) -> bool:
        """Return whether the gradient norm is far above its running median."""
        known = [g for g in grads if not math.isnan(g)]
        if len(known) < 10 + self.thresholds.fewest:
            return False
        late, early = known[-self.thresholds.fewest :], known[: -self.thresholds.fewest]
        return _quartile(late) > self.thresholds.grad_norm * _middle(early)

    def look(
        self, steps: list[float], logs: list[float], grads: list[float], expected_rise: float, closed: bool
    ) -> tuple[float, float, bool] | None:
        """Return (rise, limit, still falling) of an excursion that has lasted, or None.

        `closed` says that the last block is new, so that the window before it may lower `best`.
        """
        t = self.thresholds
        half = 0.5 if self.strained(grads) else 1.0
        span = half * t.patience * self.total
        count = window(steps, span, t.fewest)
        if closed and len(logs) > t.fewest:
            before = logs[-1 - count : -1]
            if len(before) >= t.fewest:
                self.best = min(self.best, _middle(before))
        if len(logs) < t.fewest or not math.isfinite(self.best):
            return None
        late = logs[-count:]
        noise = block_noise(logs)
        limit = max(half * t.rise, t.noise * 1.25 * noise / math.sqrt(len(late)))
        base = self.best + 2.0 * expected_rise
        rise = _quartile(late) - base
        if rise <= limit:
            if _middle(late) - base < 0.5 * limit:
                self.since = None
            return None
        self.since = steps[-count] if self.since is None else self.since
        now = _middle(late[-max(len(late) // 3, 1) :])
        falling = max(late) - now > max(0.5 * limit, FALLEN * (max(late) - base))
        if falling and steps[-1] - self.since < t.recovery * self.total:
            return None
        return rise, limit, falling

    def recovered(self, logs: list[float], steps: list[float], expected_rise: float) -> bool:
        """Return whether the loss is back within half of `rise` of its best level."""
        count = window(steps, self.thresholds.patience * self.total, self.thresholds.fewest)
        return _middle(logs[-count:]) - self.best - 2.0 * expected_rise < 0.5 * self.thresholds.rise


def stuck(
    path: Path, prior: CurvePrior, t: Thresholds, steps: FloatArray, logs: FloatArray
) -> tuple[float, float] | None:
    """Return (excess, allowed) of ln loss if it stays far above what is within reach and does not fall as it must.

    A run that was as far above it from its first steps on and falls in parallel is one on another corpus, it may be.
    `steps` and `logs` (ln loss) are those of the blocks so far, (m,), m >= 1, steps ascending.
    """
    span = t.off_patience * path.total
    late = steps >= steps[-1] - span
    if late.sum() < t.fewest:
        late[-t.fewest :] = True
    if late.sum() < t.fewest or steps[-1] < max(t.off_from * path.total, path.start + span) or late.all():
        return None
    expected = path.reach_at(steps[late])
    above = logs[late] - expected + float(prior.mean[0])
    excess = float(np.median(above))
    if above[0] < 0.5 * math.log1p(t.stuck):  # it has only just risen: a spike may be on its way back
        return None
    early = np.flatnonzero(steps >= path.start)[: t.fewest]
    first = float(np.median(logs[early] - path.reach_at(steps[early]))) + float(prior.mean[0])
    if excess - first < GROWN * math.log1p(t.stuck):  # as high as from its first steps on: another corpus, it may be
        return None
    fall, wanted = float(logs[late][0] - logs[late][-1]), float(expected[0] - expected[-1])
    if excess > math.log1p(t.stuck) and wanted > 0.005 and fall < 0.2 * wanted:
        return excess, math.log1p(t.stuck)
    return None


def off_track(
    path: Path, prior: CurvePrior, t: Thresholds, steps: FloatArray, logs: FloatArray
) -> tuple[float, float] | None:
    """Return (signed sds from the law, allowed) if every block of the last `off_patience` lies outside, else None.

    Where the level is not known (`CurvePrior.elsewhere`) no run is off its track.

    Arguments as in `stuck`.
    """
    if steps[-1] < max(t.off_from * path.total, path.start + t.off_patience * path.total):
        return None
    late = steps >= steps[-1] - t.off_patience * path.total
    if late.sum() < t.fewest:
        late[-t.fewest :] = True
    if late.sum() < t.fewest:
        return None
    z = departures(path, prior, steps[late], logs[late], block_noise(logs.tolist()))
    if (z > t.off_track).all() or (z < -t.off_track).all():
        return float(np.median(z)), t.off_track
    return None


def departures(path: Path, prior: CurvePrior, steps: FloatArray, logs: FloatArray, noise: float) -> FloatArray:
    """Return how many sds each reading lies above (or below) what law and prior expect, shape (m,)."""
    expected, effects = path.at(steps)
    design = np.column_stack([-np.ones(len(steps)), effects])
    own = ((design @ prior.shape_covariance(prior.shape_scale(path.sd))) * design).sum(axis=1)
    variance = max(prior.spread, 1.0) ** 2 * (path.sd**2 + own + prior.misfit**2) + prior.level**2 + noise**2
    return np.asarray((logs - expected - design @ prior.mean) / np.sqrt(variance))


__all__ = ["DIVERGENCE", "OFF_TRACK", "Alarm", "Blocks", "Divergence", "Thresholds", "departures", "off_track", "stuck"]
