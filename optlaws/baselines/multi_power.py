"""The Multi-Power Law: a power of the summed rate, less what each fall of the rate gives back.

Source: Luo et al. 2025, arXiv 2503.12811, eq. 1 and 2; convention of the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines._readings import (
    PREDICTED_FLOOR,
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
from optlaws.baselines.base import HUBER, FloatArray, Parametric, Progress
from optlaws.baselines.optimise import huber
from optlaws.errors import InputError
from optlaws.runs import CurveTable, RunTable

STARTS = 64
STARTING = {"alpha": (0.1, 1.5), "beta": (0.1, 2.0), "gamma": (0.05, 6.0)}
SCALED = (0.05, 3e4)  # C for rates over the peak and sums over the longest run's
FIT_CHANGES, COARSE_CHANGES = 1500, 200
TINY = 1e-300
Slopes = Callable[[FloatArray], tuple[float, FloatArray]]
"""The seven parameters in order -> a cost and its derivatives, (7,)."""


def drop_terms(change: Changes, rows: slice, C: float, beta: float, gamma: float) -> tuple[FloatArray, FloatArray]:
    """Return log(1 + C x) and (1 + C x)^-beta of every reading and change, x = eta_j^-gamma S_j(n), each (r, k)."""
    span = np.maximum(change.seen[rows, None] - change.before, 0.0)
    log_one = np.log1p(C * np.maximum(change.rate, TINY) ** -gamma * span)
    return log_one, np.exp(-beta * log_one)


def loss_drop(change: Changes, C: float, beta: float, gamma: float) -> FloatArray:
    """Return sum_j gap_j G(eta_j^-gamma S_j), G(x) = 1 - (1 + C x)^-beta (eq. 2), at every reading, shape (r,)."""
    out = np.empty(len(change.seen))
    for rows in pieces(len(out), len(change.gap)):
        out[rows] = (1.0 - drop_terms(change, rows, C, beta, gamma)[1]) @ change.gap
    return out


@dataclass(frozen=True)
class MultiPowerLaw(Parametric):
    """L = L0 + A (S1 + S_W)^-alpha - B sum_k (eta_{k-1} - eta_k) G(eta_k^-gamma S_k), G(x) = 1 - (1 + C x)^-beta.

    S1 + S_W is the sum of all rates so far, the warm-up's area S_W included; S_k the sum from update k on. The sum over
    k begins with the second update of the run, so that the warm-up enters it with negative differences, as in the
    authors' code. A law holds for one model size, data set and batch size: fit one for each.

    Attributes
    ----------
    L0, A, B : nats per token (A and B with the powers of the rate that make them so).
    alpha, beta, gamma : exponents.
    C : inverse of a summed rate.
    """

    name: ClassVar[str] = "multi_power"
    source: ClassVar[str] = "Luo et al. 2025, arXiv 2503.12811, eq. 1 and 2; convention of the authors' code"
    formula: ClassVar[str] = (
        "L0 + A (S1 + S_W)^-alpha - B sum_k (eta_{k-1} - eta_k) (1 - (1 + C eta_k^-gamma S_k)^-beta)"
    )
    needs: ClassVar[tuple[str, ...]] = ("schedule",)
    above_zero: ClassVar[tuple[str, ...]] = ("alpha", "C", "beta", "gamma")
    box: ClassVar[dict[str, tuple[float, float]]] = {name: reach(*ends) for name, ends in STARTING.items()}

    L0: float
    A: float
    alpha: float
    B: float
    C: float
    beta: float
    gamma: float

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
        """Fit to curves by the authors' procedure; to final losses, where there are no curves, by `fit_minimum`.

        The best L0 + A S1^-alpha - B (peak - eta), with C = 1 and beta = gamma = 1/2, goes through 200 steps of AdamW
        on the Huber losses of the log loss (rates 0.05 for L0, A, B, C and 0.005 for the exponents, decay 0.01), which
        end 20 steps after the last improvement; the parameters of the least loss on the way are kept. Where this stops
        the loss is far above its minimum: the published parameters are defined by the procedure.

        Parameters
        ----------
        runs : n runs of one model size.
        curves : their curves; readings before the end of the warm-up are left out.
        seed, starts : of the first stage (64 starts by default).

        Raises
        ------
        FitError
            There are fewer than 7 readings.
        """
        if curves is None:
            return cls.fit_minimum(runs, seed=seed, starts=starts, progress=progress)
        readings = gather(cls, runs, curves, 7)
        peak = max(float(r.rates.max()) for r in readings)
        loss = np.concatenate([r.loss for r in readings])
        fallen = peak - np.concatenate([r.rates[r.steps - 1] for r in readings])
        features = _Features(readings, 1.0, 1.0, FIT_CHANGES)
        start = four_parameter_start(loss, features.seen, fallen, seed=seed, starts=starts or STARTS, progress=progress)
        return cls(*map(float, adamw(features.huber_slopes(loss), np.array([*start, 1.0, 0.5, 0.5]))))

    @classmethod
    def fit_minimum(
        cls,
        runs: RunTable,
        curves: CurveTable | None = None,
        *,
        seed: int = 0,
        starts: int = 0,
        progress: Progress | None = None,
    ) -> Self:
        """Fit to the least Huber loss (1e-3) of the log loss, of curves or of final losses.

        The three linear parameters are eliminated at each of `starts` (64) points of the other four; the best few are
        then followed in all seven. Changes of the rate are merged to about 1,500 a run while fitting.

        Raises
        ------
        FitError
            There are fewer than 7 losses.
        """
        readings = gather(cls, runs, curves, 7)
        peak = max(float(r.rates.max()) for r in readings)
        total = max(float(r.rates.sum()) for r in readings)
        loss = np.concatenate([r.loss for r in readings])
        # theta = (alpha, C', beta, gamma) with C x = C' (eta / peak)^-gamma S / total
        fine = _Features(readings, peak, total, FIT_CHANGES)
        rough = _Features(readings, peak, total, COARSE_CHANGES)
        starting = {"alpha": STARTING["alpha"], "C": SCALED, **STARTING}
        lower, upper = np.array(list(starting.values())).T
        c, theta = fit_separable(
            fine, lower, upper, loss, seed=seed, starts=starts or STARTS, coarse=rough, progress=progress
        )
        alpha, scaled, beta, gamma = map(float, theta)
        return cls(
            L0=float(c[0]), A=float(c[1] * total**alpha), alpha=alpha, B=float(c[2] / peak),
            C=scaled * peak**gamma / total, beta=beta, gamma=gamma,
        )  # fmt: skip

    def _loss(self, run: Readings) -> FloatArray:
        change = changes(run)
        drop = loss_drop(change, self.C, self.beta, self.gamma)
        return np.asarray(self.L0 + self.A * np.maximum(change.seen, TINY) ** -self.alpha - self.B * drop)

    def predict(self, runs: RunTable) -> FloatArray:
        """Return final losses, shape (n,), nats per token; exact sums over every change of the rate.

        Raises
        ------
        TableError
            The table holds a `ScheduleBatch`, whose schedules have no objects.
        """
        return np.array([self._loss(run)[0] for run in ends(runs)])

    def predict_curve(self, runs: RunTable, steps: FloatArray) -> FloatArray:
        """Return the losses of one run (nats per token, shape of `steps`), as `CurveLaw.predict_curve` says."""
        return self._loss(asked(runs, steps))

    def gradient(self, rates: FloatArray) -> tuple[float, FloatArray]:
        """Return the final loss of a run with these rates (T,), all above 0, and its derivative to every rate, (T,).

        Raises
        ------
        InputError
            There is no rate, or one is not finite and above 0.
        """
        if not len(rates) or not (rates > 0).all() or not np.isfinite(rates).all():
            odd = rates[~((rates > 0) & np.isfinite(rates))]
            raise InputError(
                f"rates must be finite and above 0, at least one, got {f'{odd[0]:g}' if len(odd) else 'none'};"
                " give every update a rate"
            )
        total = np.cumsum(rates)
        span = total[-1] - total[:-1]  # S_k for k = 1 .. T-1
        gap, rate = rates[:-1] - rates[1:], rates[1:]
        power = rate**-self.gamma
        one = 1.0 + self.C * power * span
        kept = one**-self.beta
        drop = 1.0 - kept
        slope = self.beta * self.C * kept / one * gap  # d(gap G) / dx
        out = np.full(len(rates), -self.alpha * self.A * total[-1] ** (-self.alpha - 1.0))
        own = np.zeros(len(rates))
        own[:-1] += drop
        own[1:] -= drop
        own[1:] -= self.gamma * slope * power / rate * span
        own[1:] += np.cumsum(slope * power)  # eta_j is part of S_k for every k <= j
        out -= self.B * own
        return float(self.L0 + self.A * total[-1] ** -self.alpha - self.B * gap @ drop), out


def four_parameter_start(
    loss: FloatArray,
    seen: FloatArray,
    fallen: FloatArray,
    *,
    seed: int,
    starts: int,
    progress: Progress | None = None,
) -> tuple[float, float, float, float]:
    """Return L0, A, alpha, B of L0 + A S1^-alpha - B (peak - eta), from which the authors' procedure goes on.

    Parameters
    ----------
    loss, seen, fallen : (m,) losses, summed rates S1, and peak rate less the rate, at every reading.
    """
    scale, unit = float(seen.max()), max(float(fallen.max()), TINY)

    def features(theta: FloatArray, slopes: bool) -> tuple[FloatArray, FloatArray]:
        power = (seen / scale) ** -theta[0]
        F = np.stack([np.ones_like(power), power, -fallen / unit], axis=1)
        if not slopes:
            return without_slopes(F)
        dF = np.zeros((*F.shape, 1))
        dF[:, 1, 0] = -theta[0] * np.log(seen / scale) * power
        return F, dF

    c, theta = fit_separable(
        features, np.array([0.05]), np.array([2.0]), loss, seed=seed, starts=starts, progress=progress
    )
    return float(c[0]), float(c[1] * scale ** theta[0]), float(theta[0]), float(c[2] / unit)


def adamw(slopes: Slopes, x: FloatArray, steps: int = 200, patience: int = 20) -> FloatArray:
    """Return the parameters (7,) of the least cost among `steps` of AdamW with the authors' rates.

    `slopes` returns the cost of parameters and its derivatives. Stops `patience` steps after the last improvement.
    """
    rate = np.array([5e-2, 5e-2, 5e-3, 5e-2, 5e-2, 5e-3, 5e-3])
    first, second = np.zeros(7), np.zeros(7)
    best, kept, stale = np.inf, x, 0
    for i in range(1, steps + 1):
        cost, slope = slopes(x)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        x = x * (1 - 0.01 * rate) - rate * (first / (1 - 0.9**i)) / (np.sqrt(second / (1 - 0.999**i)) + 1e-8)
        if cost < best:  # the authors keep the parameters after the step that follows
            best, kept, stale = cost, x, 0
        else:
            stale += 1
        if i > patience + 1 and stale >= patience:
            break
    return kept


class _Features:
    """Columns of the separable fit: 1, (S / total)^-alpha, -drop / peak, and their slopes in log theta."""

    def __init__(self, readings: list[Readings], peak: float, total: float, most: int) -> None:
        self.changes = [changes(r, most) for r in readings]
        self.peak, self.total = peak, total
        self.seen = np.concatenate([c.seen for c in self.changes]) / total

    def __call__(self, theta: FloatArray, slopes: bool) -> tuple[FloatArray, FloatArray]:
        alpha, scaled, beta, gamma = map(float, theta)
        C = scaled * self.peak**gamma / self.total
        power = np.maximum(self.seen, TINY) ** -alpha
        F = np.stack([np.ones_like(power), power, np.empty_like(power)], axis=1)
        if not slopes:
            F[:, 2] = np.concatenate([-loss_drop(c, C, beta, gamma) for c in self.changes]) / self.peak
            return without_slopes(F)
        dF = np.zeros((len(power), 3, 4))
        dF[:, 1, 0] = -alpha * np.log(np.maximum(self.seen, TINY)) * power
        at = 0
        for c in self.changes:
            for rows in pieces(len(c.seen), len(c.gap)):
                log_one, kept = drop_terms(c, rows, C, beta, gamma)
                here = slice(at, at + len(log_one))
                gap = c.gap / self.peak
                F[here, 2] = -((1.0 - kept) @ gap)
                dF[here, 2, 2] = -beta * ((kept * log_one) @ gap)
                inner = beta * kept * -np.expm1(-log_one)  # dG / d log x
                dF[here, 2, 1] = -(inner @ gap)
                dF[here, 2, 3] = -gamma * (inner @ (gap * np.log(self.peak / np.maximum(c.rate, TINY))))
                at = here.stop
        return F, dF

    def huber_slopes(self, loss: FloatArray) -> Slopes:
        """Return the Huber loss of the log loss as a function of the seven parameters; for peak = total = 1."""
        log_loss = np.log(loss)

        def slopes(x: FloatArray) -> tuple[float, FloatArray]:
            theta, c = x[[2, 4, 5, 6]], x[[0, 1, 3]]
            F, dF = self(theta, True)
            value = np.maximum(F @ c, PREDICTED_FLOOR)
            cost, slope = huber(np.log(value) - log_loss, HUBER)
            weight = slope / value
            out = np.empty(7)
            out[[0, 1, 3]] = weight @ F
            out[[2, 4, 5, 6]] = np.einsum("m,mpq,p->q", weight, dF, c) / theta
            return float(cost.sum()), out

        return slopes


def optimise_rates(
    law: MultiPowerLaw,
    *,
    steps: int = 24_000,
    warmup: int = 2_160,
    peak: float = 3e-4,
    iterations: int = 10_000,
    rate: float = 5e-9,
    floor: float = 1e-10,
) -> FloatArray:
    """Return the rates (steps,) that the law holds best among those that rise linearly to `peak` and then never rise.

    The authors' procedure with their settings as defaults: eta_k = peak - sum_{j<=k} max(delta_j, 0), cut at `floor`,
    and Adam on the falls delta of every update after the warm-up, from a constant rate (arXiv 2503.12811, section 5).
    Here for comparison, not for speed: about 30 s. The rates of the lowest loss met are returned.

    Parameters
    ----------
    law : MultiPowerLaw
    steps, warmup : updates in all and of the warm-up, 1 <= warmup < steps - 1.
    peak : highest rate, above `floor`.
    iterations : of Adam, at least 1.
    rate : Adam's own rate, in units of the learning rate, above 0.
    floor : lowest rate, above 0.

    Raises
    ------
    InputError
        A number is out of range.
    """
    if not 1 <= warmup < steps - 1:
        raise InputError(f"warmup must be from 1 to steps - 2 = {steps - 2}, got {warmup}; change one of them")
    if not 0 < floor < peak < np.inf:
        raise InputError(f"floor must be above 0 and below the peak {peak:g}, got {floor:g}; lower it")
    if iterations < 1:
        raise InputError(f"iterations must be at least 1, got {iterations}; 10000 is the authors' number")
    if not 0 < rate < np.inf:
        raise InputError(f"rate must be a finite number above 0, got {rate:g}; 5e-9 is the authors' number")
    rising = peak * np.arange(1, warmup + 1) / (warmup + 1)
    falls = np.zeros(steps - warmup)
    first, second = np.zeros_like(falls), np.zeros_like(falls)
    best, kept = np.inf, np.full_like(falls, peak)
    for i in range(1, iterations + 1):
        free = np.maximum(peak - np.cumsum(np.maximum(falls, 0.0)), floor)
        loss, slope = law.gradient(np.concatenate([rising, free]))
        if loss < best:
            best, kept = loss, free
        # eta_k holds delta_j for every j <= k; nothing passes where the rate is cut or the fall is not above 0
        slope = -np.cumsum(np.where(free > floor, slope[warmup:], 0.0)[::-1])[::-1]
        slope = np.where(falls >= 0.0, slope, 0.0)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        falls = falls - rate * (first / (1 - 0.9**i)) / (np.sqrt(second / (1 - 0.999**i)) + 1e-8)
    return np.concatenate([rising, kept])
