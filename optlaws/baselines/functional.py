"""The functional scaling law: power-law kernel regression under SGD, in intrinsic time.

Source: Li et al. 2025, arXiv 2509.19189 (law); Li et al. 2026, arXiv 2602.06797 (schedules).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines._readings import (
    Changes,
    Readings,
    asked,
    changes,
    ends,
    fit_separable,
    gather,
    pieces,
    reach,
    without_slopes,
)
from optlaws.baselines.base import FloatArray, Parametric, Progress
from optlaws.errors import InputError, LawError
from optlaws.runs import CurveTable, RunTable
from optlaws.schedules import Schedule

STARTS = 64
SLOWEST, FASTEST = 0.03, 2.0  # of the starts of s
FIT_CHANGES, COARSE_CHANGES = 1500, 200
WIDEST = 1.0 - 1e-6  # w = 1 - 1/beta stays below 1


def noise(change: Changes, first: float, C: float, w: float) -> FloatArray:
    """Return int_0^t K(t - z) eta(z) dz at every reading, shape (r,), with K(x) = (1 + x)^-(1 + w).

    t is C times the summed rates. By parts, with the rate constant during every update, it is
    (eta_0 g(t) - sum_j gap_j g(t - t_j)) / w with g(x) = 1 - (1 + x)^-w, over the changes gap_j of the rate at t_j.

    Parameters
    ----------
    change : of one run.
    first : its first rate eta_0.
    C, w : intrinsic time in one unit of summed rate, and the kernel's exponent less 1; above 0.
    """
    out = np.empty(len(change.seen))
    for rows in pieces(len(out), len(change.gap)):
        span = np.maximum(change.seen[rows, None] - change.before, 0.0)
        out[rows] = np.expm1(-w * np.log1p(C * span)) @ change.gap
    return np.asarray((out - first * np.expm1(-w * np.log1p(C * change.seen))) / w)


@dataclass(frozen=True)
class FunctionalLaw(Parametric):
    """L = L0 + A (1 + t)^-s + B int_0^t K(t - z) eta(z) dz, K(x) = (1 + x)^-(2 - 1/beta), t = C x summed rates.

    The first power is what is not yet learnt (source exponent s), the integral the noise that is not yet forgotten
    (capacity exponent beta). In the paper's kernel the noise also has a share in proportion to what is not yet learnt;
    it fades with it and is left out, as is the term in the model size: fit one law for each size.

    Attributes
    ----------
    L0, A, B : nats per token (B per unit of rate).
    s : source exponent, above 0.
    beta : capacity exponent, above 1.
    C : intrinsic time in one unit of summed rate, above 0.

    Raises
    ------
    LawError
        `beta` is not above 1.
    """

    name: ClassVar[str] = "functional"
    source: ClassVar[str] = "Li et al. 2025, arXiv 2509.19189 (law); Li et al. 2026, arXiv 2602.06797 (schedules)"
    formula: ClassVar[str] = "L0 + A (1 + t)^-s + B int_0^t (1 + t - z)^-(2 - 1/beta) eta(z) dz, t = C sum eta"
    needs: ClassVar[tuple[str, ...]] = ("schedule",)
    above_zero: ClassVar[tuple[str, ...]] = ("s", "C")
    box: ClassVar[dict[str, tuple[float, float]]] = {"s": reach(SLOWEST, FASTEST)}

    L0: float
    A: float
    s: float
    B: float
    beta: float
    C: float

    def __post_init__(self) -> None:
        """Check that the kernel falls faster than 1 / x."""
        if not self.beta > 1:
            raise LawError(f"beta of law {self.name!r} must be above 1, got {self.beta:g}; raise it")

    @classmethod
    def fit(
        cls,
        runs: RunTable,
        curves: CurveTable | None = None,
        *,
        seed: int = 0,
        starts: int = 0,
        progress: Progress | None = None,
    ) -> Self:
        """Fit to curves, or to final losses where there are none, by Huber losses (1e-3) of the log loss.

        L0, A and B are eliminated at each of `starts` (64) points of the other three, and the best few are followed in
        all six. Changes of the rate are merged to about 1,500 a run while fitting.

        Raises
        ------
        FitError
            There are fewer than 6 losses.
        """
        readings = gather(cls, runs, curves, 6)
        loss = np.concatenate([r.loss for r in readings])
        fine, rough = _Features(readings, FIT_CHANGES), _Features(readings, COARSE_CHANGES)
        # theta = (s, C x largest summed rate, w = 1 - 1/beta)
        lower, upper = np.array([SLOWEST, 3.0, 0.05]), np.array([FASTEST, 1e5, 0.95])
        c, theta = fit_separable(
            fine, lower, upper, loss, seed=seed, starts=starts or STARTS, coarse=rough, progress=progress
        )
        s, C, w = float(theta[0]), float(theta[1]) / fine.total, min(float(theta[2]), WIDEST)
        return cls(L0=float(c[0]), A=float(c[1]), s=s, B=float(c[2] / fine.peak), beta=1.0 / (1.0 - w), C=C)

    def _loss(self, run: Readings) -> FloatArray:
        change = changes(run)
        forgotten = noise(change, float(run.rates[0]), self.C, 1.0 - 1.0 / self.beta)
        return np.asarray(self.L0 + self.A * (1.0 + self.C * change.seen) ** -self.s + self.B * forgotten)

    def predict(self, runs: RunTable) -> FloatArray:
        """Return final losses, shape (n,), nats per token.

        Raises
        ------
        TableError
            The table holds a `ScheduleBatch`, whose schedules have no objects.
        """
        return np.array([self._loss(run)[0] for run in ends(runs)])

    def predict_curve(self, runs: RunTable, steps: FloatArray) -> FloatArray:
        """Return the losses of one run (nats per token, shape of `steps`), as `CurveLaw.predict_curve` says."""
        return self._loss(asked(runs, steps))

    @property
    def easy(self) -> bool:
        """Whether the task is easy in the paper's sense, s >= 1 - 1/beta."""
        return self.s >= 1.0 - 1.0 / self.beta

    def best_schedule(self, *, steps: int, peak: float, warmup: int = 0) -> Schedule:
        """Return the schedule that the law advises for a length and a highest rate.

        Easy tasks (s >= 1 - 1/beta): peak (1 - z/N)^(2 beta - 1), as proved in arXiv 2602.06797. Hard tasks: the
        highest rate for long and a decay of that shape at the end; its length is the best of 40 by this law.

        Parameters
        ----------
        steps : updates in all, at least 2.
        peak : highest rate, above 0.
        warmup : updates of a linear warm-up before.

        Raises
        ------
        InputError
            A number is out of range.
        """
        if not (peak > 0 and np.isfinite(peak)):
            raise InputError(f"peak must be a finite number above 0, got {peak:g}; 1e-3 is usual")
        if steps < 2 or not 0 <= warmup < steps:
            raise InputError(f"warmup must be from 0 to steps - 1 and steps at least 2, got {warmup} and {steps}")
        power = 2.0 * self.beta - 1.0
        if self.easy:
            return Schedule("polynomial", peak=peak, steps=steps, warmup=warmup, power=power)
        longest = steps - warmup
        tried = sorted({max(1, round(longest * share)) for share in np.geomspace(0.005, 1.0, 40)})
        made = [
            Schedule("wsd", peak=peak, steps=steps, warmup=warmup, decay=d, shape="power", power=power) for d in tried
        ]
        return made[int(np.argmin(self.predict(RunTable.build(made))))]


class _Features:
    """Columns of the separable fit: 1, (1 + t)^-s, noise / peak, and their slopes in log theta."""

    def __init__(self, readings: list[Readings], most: int) -> None:
        self.changes = [changes(r, most) for r in readings]
        self.first = [float(r.rates[0]) for r in readings]
        self.peak = max(float(r.rates.max()) for r in readings)
        self.total = max(float(r.rates.sum()) for r in readings)
        self.seen = np.concatenate([c.seen for c in self.changes])

    def __call__(self, theta: FloatArray, slopes: bool) -> tuple[FloatArray, FloatArray]:
        s, C, w = float(theta[0]), float(theta[1]) / self.total, min(float(theta[2]), WIDEST)
        time = C * self.seen
        power = (1.0 + time) ** -s
        if not slopes:
            kept = [noise(c, f, C, w) for c, f in zip(self.changes, self.first, strict=True)]
            return without_slopes(np.stack([np.ones_like(power), power, np.concatenate(kept) / self.peak], axis=1))
        parts = np.concatenate([_noise_slopes(c, f, C, w) for c, f in zip(self.changes, self.first, strict=True)])
        F = np.stack([np.ones_like(power), power, parts[:, 0] / self.peak], axis=1)
        dF = np.zeros((len(power), 3, 3))
        dF[:, 1, 0] = -s * np.log1p(time) * power
        dF[:, 1, 1] = -s * time / (1.0 + time) * power
        dF[:, 2, 1:] = parts[:, 1:] / self.peak
        return F, dF


def _noise_slopes(change: Changes, first: float, C: float, w: float) -> FloatArray:
    """Return the noise of `noise`, its derivative to log C and that to log w at every reading, shape (r, 3)."""

    def parts(time: FloatArray) -> FloatArray:
        """Return -g, and the derivatives of (1 + time)^-w to log C and to log w, (3, *time.shape)."""
        one = np.log1p(time)
        lost = np.expm1(-w * one)
        kept = 1.0 + lost
        return np.stack([lost, -w * kept * time / (1.0 + time), -w * kept * one])

    out = np.empty((len(change.seen), 3))
    for rows in pieces(len(out), 4 * len(change.gap)):
        span = np.maximum(change.seen[rows, None] - change.before, 0.0)
        out[rows] = (parts(C * span) @ change.gap).T
    out = (out - first * parts(C * change.seen).T) / w
    out[:, 2] -= out[:, 0]
    return out
