"""The noisy quadratic system: bias and variance of SGD on power-law modes, in closed form between changes of rate.

Source: arXiv 2605.09154 (Noisy Quadratic System); falling rate of the authors' demo, fitted with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from optlaws.baselines.base import FloatArray, Parametric, Progress, columns, training
from optlaws.errors import LawError
from optlaws.runs import CurveTable, RunTable

STARTS = 48
POLISHED = 6  # of the searches at a constant rate, that are followed
STAGES = ((1, 6), (4, 12), (12, 40))  # with the falling rate: of how many starts one goes on, for how many evaluations
FIRST, LAST = 25, 400  # evaluations at a constant rate, and of the best
FINE = (
    64,
    10,
    8,
)  # modes summed one by one; Gauss-Legendre panels in log n for the rest, with Euler-Maclaurin ends; nodes
COARSE = (16, 6, 6)  # for the search: losses within 0.3 % in the starting box, mostly 0.01 %
NAMES = ("p", "q", "P", "Q", "e", "R", "r")
RATE = 1.999  # the authors' learning rate
LARGEST_Q = 0.99  # beyond 2 / RATE the first mode diverges
FIRST_WEIGHT = 0.02  # standard deviation of a weight at the start
BLOCK = 64  # runs worked on together: what they need fits into a processor's cache
# starting box: wider at its low end than the authors' demo's, below which q, P and e of their fit end; Q keeps the
# first mode from growing without bound, as most of their starts do not; R is in tokens
LOWER = np.array([1.02, 0.3, 0.5, 0.05, 0.05, 1.0, 0.3])
UPPER = np.array([2.5, 2.5, 100.0, 0.9, 2.0, 1e5, 2.5])
LOWEST = np.array([1.001, 0.05, 1e-3, 1e-4, 1e-4, 1e-8, 0.05])
HIGHEST = np.array([10.0, 10.0, 1e5, LARGEST_Q, 10.0, 1e12, 20.0])


@dataclass(frozen=True)
class NoisyQuadraticSystem(Parametric):
    """L = e + 1/2 sum_{n>N} P n^-p + sum_{n<=N} (bias_n + variance_n) after K updates at batch B.

    bias_n = 1/2 P n^-p prod_k a_nk^2, variance_n the sum of 1/2 l_n R n^-r eta_k^2 / B, each shrunk by the a^2 of the
    updates after it, with curvatures l_n = Q n^-q and a_nk = 1 - eta_k l_n: gradient descent with noise on a quadratic.
    N is the number of parameters of the run; the schedule is not looked at, so all runs must share one rate and shape
    (Q takes up the rate's value).

    The rate falls in stairs as the weights grow: after every stair eta is at most 1.999 w0 / (w0 + w), with w the
    squared norm of the weights grown so far and w0 = 0.02^2 N that of their start. A stair has K / 100 updates, or
    min(1000, K / 10) if that is more. The law is fitted and predicts so. As published it is fitted at a constant rate
    of 1.999 (`fit_constant`; losses at it: `predict_constant`), and the authors' demo predicts with these parameters at
    the falling rate, which fits its own training runs worse than either form fits them by itself.

    Attributes
    ----------
    p, P : exponent and size of the signal, p > 1.
    q, Q : exponent and size of the curvatures, Q < 1.
    r, R : exponent and size of the noise; R in nats x tokens (the authors' R, in sequences, times the context length).
    e : irreducible loss, nats per token.

    Raises
    ------
    LawError
        Q or p is out of range.
    """

    name: ClassVar[str] = "noisy_quadratic"
    source: ClassVar[str] = (
        "arXiv 2605.09154 (Noisy Quadratic System); falling rate of the authors' demo, fitted with it"
    )
    formula: ClassVar[str] = (
        "e + 1/2 sum_{n>N} P n^-p + 1/2 sum_{n<=N} [P n^-p b_n + Q n^-q R n^-r v_n / B] after K updates b <- a^2 b,"
        " v <- a^2 v + eta^2 from b = 1, v = 0, a = 1 - eta Q n^-q, eta = 1.999 w0/(w0 + w), w of the weights grown"
    )
    needs: ClassVar[tuple[str, ...]] = ("params", "steps", "batch_tokens")
    above_zero: ClassVar[tuple[str, ...]] = ("p", "q", "P", "Q", "R", "r")
    box: ClassVar[dict[str, tuple[float, float]]] = {
        name: (float(low), float(high)) for name, low, high in zip(NAMES, LOWEST, HIGHEST, strict=True)
    }

    p: float
    q: float
    P: float
    Q: float
    e: float
    R: float
    r: float

    def __post_init__(self) -> None:
        """Check that the sums converge."""
        if not 0 < self.Q < 1:
            raise LawError(f"Q of law {self.name!r} must be above 0 and below 1, got {self.Q:g}; lower it")
        if not self.p > 1:
            raise LawError(f"p of law {self.name!r} must be above 1, got {self.p:g}; raise it")

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
        """Fit to final losses by least squares of the log loss; curves are not looked at.

        Trust-region least squares with an exact Jacobian in (log) parameters; runs of equal N, K and B are one point.
        From `starts` (48) points of a Latin hypercube the search runs with the falling rate, the better ones further,
        and at a constant rate; where the best of both lead, the falling rate goes on.

        Raises
        ------
        FitError
            There are fewer than 8 completed runs.
        LawError
            A run lacks its size, steps or batch.
        """
        search = _Search(cls, runs, starts or STARTS, seed, progress)
        return cls(*search.end(search.fine.falling, [search.falling()]))

    @classmethod
    def fit_constant(cls, runs: RunTable, *, seed: int = 0, starts: int = 0, progress: Progress | None = None) -> Self:
        """Fit the form at a constant rate, as the authors do, for `predict_constant`.

        By trust-region least squares as in `fit`, instead of the authors' 2,000 starts of 5,000 Adam steps; arguments
        and errors are those of `fit`.
        """
        search = _Search(cls, runs, starts or STARTS, seed, progress)
        return cls(*search.end(search.fine.loss, search.constant()))

    def predict(self, runs: RunTable) -> FloatArray:
        """Return final losses, shape (n,), nats per token.

        Raises
        ------
        LawError
            A run lacks its size, steps or batch.
        """
        points, place = _points(type(self), runs)
        return np.asarray(_Modes(*points).falling(self._theta, False)[0][place])

    def predict_constant(self, runs: RunTable) -> FloatArray:
        """Return final losses at a constant rate, that of `fit_constant`, shape (n,), nats per token.

        Raises
        ------
        LawError
            A run lacks its size, steps or batch.
        """
        points, place = _points(type(self), runs)
        return np.asarray(_Modes(*points).loss(self._theta, False)[0][place])

    def doubts(self, runs: RunTable) -> list[str]:
        """Return what makes the constants doubtful after a fit to these runs: fewer points than constants."""
        found = _points(type(self), runs)[0].shape[1]
        if found >= len(NAMES):
            return []
        return [f"its {len(NAMES)} constants stand on {found} different (params, steps, batch_tokens)"]

    @property
    def _theta(self) -> FloatArray:
        return np.array([getattr(self, name) for name in NAMES], dtype=np.float64)


Form = Callable[[FloatArray, bool], tuple[FloatArray, FloatArray]]  # of `_Modes`: its losses and their slopes


def _points(kind: Any, runs: RunTable) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """Return the different (N, K, B) of runs, shape (3, m), and the place of each run among them, (n,)."""
    rows, place = np.unique(np.stack(columns(kind, runs), axis=1), axis=0, return_inverse=True)
    return rows.T, place.ravel()


class _Search:
    """Least squares of log losses in the logarithms of the parameters; runs of one (N, K, B) are one point."""

    def __init__(self, kind: Any, runs: RunTable, starts: int, seed: int, progress: Progress | None) -> None:
        from scipy.stats import qmc

        kept = training(kind, runs, 8)
        (size, steps, batch), place = _points(kind, kept)
        count = np.bincount(place)
        self.fine, self.coarse = _Modes(size, steps, batch), _Modes(size, steps, batch, COARSE)
        self._root = np.sqrt(count)
        self._log_loss = np.bincount(place, np.log(kept.final_loss)) / count
        low, high = np.log(LOWER), np.log(UPPER)
        self._starts: list[FloatArray] = list(low + (high - low) * qmc.LatinHypercube(7, rng=seed).random(starts))
        self._say = progress or (lambda word: None)

    def constant(self) -> list[FloatArray]:
        """Return where the best starts lead at a constant rate, best first."""
        return self._followed(self.coarse.loss, self._starts, FIRST, "start")[:POLISHED]

    def falling(self) -> FloatArray:
        """Return where the best start leads with the falling rate."""
        ends = self.constant()
        found = self._starts
        for share, most in STAGES:
            found = found[: -(-len(self._starts) // share)]
            found = found + ends if (share, most) == STAGES[-1] else found
            found = self._followed(self.coarse.falling, found, most, "falling rate, start")
        return found[0]

    def end(self, form: Form, starts: list[FloatArray]) -> list[float]:
        """Return the parameters, p to r, where the best of the starts ends."""
        best = self._followed(form, starts, LAST, "last steps")[0]
        return [float(np.exp(value)) for value in best]

    def _followed(self, form: Form, starts: list[FloatArray], most: int, word: str) -> list[FloatArray]:
        """Return where searches of at most so many evaluations end, best first."""
        ended = []
        for i, x in enumerate(starts):
            self._say(word if word == "last steps" else f"{word} {i + 1} of {len(starts)}")
            ended.append(self._descend(form, x, most))
        return [x for _, x in sorted(ended, key=lambda end: end[0])]

    def _descend(self, form: Form, x: FloatArray, most: int) -> tuple[float, FloatArray]:
        """Return the cost and the place where a search of at most so many evaluations ends."""
        from scipy.optimize import least_squares

        memory: dict[bytes, tuple[FloatArray, FloatArray]] = {}

        def evaluate(x: FloatArray) -> tuple[FloatArray, FloatArray]:
            if x.tobytes() not in memory:
                memory.clear()
                value, slopes = form(np.exp(x), True)
                share = (self._root / value)[:, None]
                memory[x.tobytes()] = self._root * (np.log(value) - self._log_loss), share * slopes * np.exp(x)
            return memory[x.tobytes()]

        done = least_squares(
            lambda x: evaluate(x)[0], x, jac=lambda x: evaluate(x)[1], bounds=(np.log(LOWEST), np.log(HIGHEST)),
            x_scale="jac", max_nfev=most, xtol=1e-12, ftol=1e-12, gtol=1e-12,
        )  # fmt: skip
        return float(done.cost), done.x


class _Stair(NamedTuple):
    """What one stair of the falling rate leaves for the way back, of the first m runs of a block and their modes."""

    steps: FloatArray  # (m, 1)
    rate: FloatArray  # (m, 1)
    shrunk: FloatArray  # |a|^steps, (m, i)
    bias: FloatArray  # root of the bias' share before the stair, (m, i)
    variance: FloatArray  # before the stair, (m, i)
    grown: FloatArray  # squared norm of the weights after it, (m,)
    lower: npt.NDArray[np.bool_]  # whether the rate falls after it, (m,)


class _Modes:
    """Places n and weights w of the sums over modes of every run: sum_{n<=N} g(n) = sum_i w_i g(n_i), (runs, i)."""

    def __init__(
        self, size: FloatArray, steps: FloatArray, batch: FloatArray, grid: tuple[int, int, int] = FINE
    ) -> None:
        exact, panels, nodes = grid
        self.size, self.steps, self.batch = np.maximum(size.round(), FINE[0] + 1.0), steps, batch
        x, weight = np.polynomial.legendre.leggauss(nodes)
        edges = np.log(exact) + np.log(self.size / exact)[:, None] * np.linspace(0.0, 1.0, panels + 1)
        half = 0.5 * np.diff(edges, axis=1)[:, :, None]
        place = np.exp(0.5 * (edges[:, 1:] + edges[:, :-1])[:, :, None] + half * x)
        rows = len(size)
        head = np.broadcast_to(np.arange(1.0, exact + 1.0), (rows, exact))
        # sum over n in (M, N] = integral + (g(N) - g(M)) / 2, with M = exact
        ends = np.ones((rows, exact))
        ends[:, -1] = 0.5
        self.place = np.concatenate([head, place.reshape(rows, -1), self.size[:, None]], axis=1)
        self.weight = np.concatenate([ends, (half * weight * place).reshape(rows, -1), np.full((rows, 1), 0.5)], axis=1)
        self.log_place = np.log(self.place)
        self.whole = np.floor(self.steps)
        self.stair = np.where(self.whole > 10, np.maximum(self.whole // 100, np.minimum(1000, self.whole // 10)), 1.0)
        self.stairs = np.ceil(self.whole / self.stair).astype(int)

    def loss(self, theta: FloatArray, slopes: bool) -> tuple[FloatArray, FloatArray]:
        """Return the losses (n,) and their derivatives to p, q, P, Q, e, R, r, (n, 7) (zeros if not asked for)."""
        p, q, P, Q, e, R, r = theta
        ln, K, B = self.log_place, self.steps[:, None], self.batch[:, None]
        curved = RATE * Q * np.exp(-q * ln)
        power = np.exp(2.0 * K * log_shrink(curved))
        bias = 0.5 * P * np.exp(-p * ln) * power
        scale = 0.5 * RATE * R * np.exp(-r * ln) / B
        left = -np.expm1(2.0 * K * log_shrink(curved))
        noise = scale * left / (2.0 - curved)  # l (1 - a^2K) / (1 - a^2), as 1 - a^2 = l (2 - l)
        w = self.weight
        value = e + 0.5 * P * self._tail(p) + np.sum(w * (bias + noise), axis=1)
        out = np.zeros((len(value), 7))
        if not slopes:
            return value, out
        falls = 2.0 * K * power / (1.0 - curved)  # -d power / d curved
        by_curved = -0.5 * P * np.exp(-p * ln) * falls + scale * (falls / (2.0 - curved) + left / (2.0 - curved) ** 2)
        out[:, 0] = 0.5 * P * self._tail_slope(p) - np.sum(w * ln * bias, axis=1)
        out[:, 1] = -np.sum(w * by_curved * curved * ln, axis=1)
        out[:, 2] = 0.5 * self._tail(p) + np.sum(w * bias, axis=1) / P
        out[:, 3] = np.sum(w * by_curved * curved, axis=1) / Q
        out[:, 4] = 1.0
        out[:, 5] = np.sum(w * noise, axis=1) / R
        out[:, 6] = -np.sum(w * ln * noise, axis=1)
        return value, out

    def _tail(self, p: float) -> FloatArray:
        """Return sum_{n>N} n^-p, (n,), by Euler-Maclaurin; N > 64."""
        N = self.size
        return np.asarray(N ** (1.0 - p) / (p - 1.0) - 0.5 * N**-p + p / 12.0 * N ** (-p - 1.0))

    def _tail_slope(self, p: float) -> FloatArray:
        """Return the derivative of `_tail` to p, (n,)."""
        N, log_n = self.size, np.log(self.size)
        return np.asarray(
            -log_n * N ** (1.0 - p) / (p - 1.0) - N ** (1.0 - p) / (p - 1.0) ** 2 + 0.5 * log_n * N**-p
            + (1.0 - p * log_n) / 12.0 * N ** (-p - 1.0)
        )  # fmt: skip

    def falling(self, theta: FloatArray, slopes: bool) -> tuple[FloatArray, FloatArray]:
        """Return as `loss`, with the rate that falls in stairs as the weights grow."""
        p, _, P, _, e, _, _ = theta
        value, out = np.empty(len(self.size)), np.zeros((len(self.size), 7))
        order = np.argsort(-self.stairs, kind="stable")
        for rows in np.split(order, range(BLOCK, len(order), BLOCK)):
            value[rows], out[rows] = self._block(theta, rows, slopes)
        value += e + 0.5 * P * self._tail(p)
        if slopes:
            out[:, 0] += 0.5 * P * self._tail_slope(p)
            out[:, 2] += 0.5 * self._tail(p)
            out[:, 4] = 1.0
        return value, out

    def _block(self, theta: FloatArray, rows: npt.NDArray[np.intp], slopes: bool) -> tuple[FloatArray, FloatArray]:
        """Return the sums over modes of `falling` for some runs, most stairs first, and their derivatives."""
        p, q, P, Q, _, R, r = theta
        ln, weight = self.log_place[rows], self.weight[rows]
        curved, signal = Q * np.exp(-q * ln), P * np.exp(-p * ln)
        noise = 0.5 * R * np.exp(-r * ln) / self.batch[rows, None]
        norm, first = weight / curved, FIRST_WEIGHT**2 * self.size[rows]
        bias, variance, rate = np.ones_like(curved), np.zeros_like(curved), np.full(len(rows), RATE)
        tape: list[_Stair] = []
        for k in range(int(self.stairs[rows].max())):
            m = int((self.stairs[rows] > k).sum())
            stair, eta = self.stair[rows[:m]], rate[:m, None].copy()
            steps = np.minimum(stair, self.whole[rows[:m]] - k * stair)[:, None]
            drop = eta * curved[:m]
            # a^2 = 1 - drop (2 - drop); a mode with a = 0 is left with next to nothing
            gone = -np.expm1(steps * np.log1p(np.maximum(drop * (drop - 2.0), -1.0 + 1e-16)))
            shrunk, before = np.sqrt(1.0 - gone), (bias[:m].copy(), variance[:m].copy())
            bias[:m] *= shrunk
            variance[:m] += gone * (eta * noise[:m] / (2.0 - drop) - variance[:m])
            # E w^2 of a mode of target w*, w*^2 = signal / curved, is (1 - bias)^2 w*^2 + 2 variance / curved
            grown = np.sum(norm[:m] * ((1.0 - bias[:m]) ** 2 * signal[:m] + 2.0 * variance[:m]), axis=1)
            most = RATE * first[:m] / (first[:m] + grown)
            if slopes:
                tape.append(_Stair(steps, eta, shrunk, *before, grown, most < rate[:m]))
            rate[:m] = np.minimum(rate[:m], most)
        value = np.sum(weight * (0.5 * signal * bias**2 + variance), axis=1)
        if not slopes:
            return value, np.zeros((len(rows), 7))
        # the same way back: d_x is the derivative of each run's loss to x
        d_bias, d_variance, d_rate = weight * signal * bias, weight.copy(), np.zeros(len(rows))
        d_signal, d_curved, d_noise = 0.5 * weight * bias**2, np.zeros_like(curved), np.zeros_like(curved)
        for steps, eta, shrunk, bias_before, variance_before, grown, lower in reversed(tape):
            m = len(steps)
            fall = np.where(lower, -d_rate[:m] * RATE * first[:m] / (first[:m] + grown) ** 2, 0.0)
            d_rate[:m][lower] = 0.0
            d_norm, moved = fall[:, None] * norm[:m], 1.0 - bias[:m]
            d_bias[:m] -= 2.0 * d_norm * signal[:m] * moved
            d_variance[:m] += 2.0 * d_norm
            d_signal[:m] += d_norm * moved**2
            d_curved[:m] -= d_norm * (moved**2 * signal[:m] + 2.0 * variance[:m]) / curved[:m]
            a = 1.0 - eta * curved[:m]
            a[a == 0.0] = 1e-8
            level = eta * noise[:m] / (1.0 + a)
            d_shrunk = d_bias[:m] * bias_before + 2.0 * shrunk * d_variance[:m] * (variance_before - level)
            d_drop = -d_shrunk * steps * shrunk / a
            share = d_variance[:m] * (1.0 - shrunk**2) / (1.0 + a)
            d_noise[:m] += share * eta
            share *= noise[:m] / (1.0 + a)
            d_rate[:m] += np.sum(d_drop * curved[:m] + 2.0 * share, axis=1)
            d_curved[:m] += (d_drop + share * eta) * eta
            d_bias[:m] *= shrunk
            d_variance[:m] *= shrunk**2
            bias[:m], variance[:m] = bias_before, variance_before
        d_signal, d_curved, d_noise = d_signal * signal, d_curved * curved, d_noise * noise
        each = [
            -np.sum(d_signal * ln, axis=1), -np.sum(d_curved * ln, axis=1), d_signal.sum(axis=1) / P,
            d_curved.sum(axis=1) / Q, np.zeros(len(rows)), d_noise.sum(axis=1) / R, -np.sum(d_noise * ln, axis=1),
        ]  # fmt: skip
        return value, np.stack(each, axis=1)


def log_shrink(curved: FloatArray) -> FloatArray:
    """Return log |1 - curved|, same shape, exact for small values; only even powers of 1 - curved are ever needed."""
    near = np.minimum(curved, 0.5)
    return np.where(curved < 0.5, np.log1p(-near), np.log(np.maximum(np.abs(1.0 - curved), 1e-300)))
