"""The annealing law: a power of the summed rate, less a momentum of the rate's decrease summed over the run.

Source: Tissue, Wang and Wang 2024, arXiv 2408.11029, eq. 1 and 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines._readings import Readings, asked, ends, fit_separable, gather, reach, without_slopes
from optlaws.baselines.base import FloatArray, Parametric, Progress
from optlaws.errors import LawError
from optlaws.runs import CurveTable, RunTable

STARTS = 64
LOWER, UPPER = 0.03, 3.0  # of the starts of alpha
LAM = 0.999  # the authors' default


def areas(run: Readings, lam: float) -> tuple[FloatArray, FloatArray]:
    """Return S1 and S2 at every reading, each (r,), summed rates.

    m_i = lam m_{i-1} + (eta_{i-1} - eta_i) from the end of the warm-up on, m = 0 before; S2 after n updates is
    m_0 + ... + m_{n-1}, S1 is eta_0 + ... + eta_{n-1}.
    """
    from scipy.signal import lfilter

    fall = np.zeros(len(run.rates))
    fall[1:] = run.rates[:-1] - run.rates[1:]
    fall[: run.warmup + 1] = 0.0
    second = np.cumsum(lfilter([1.0], [1.0, -lam], fall))
    return np.cumsum(run.rates)[run.steps - 1], second[run.steps - 1]


@dataclass(frozen=True)
class AnnealingLaw(Parametric):
    """L = L0 + A S1^-alpha - C S2, S2 = sum_{i<n} sum_{k<=i} (eta_{k-1} - eta_k) lam^(i-k).

    S1 is the sum of all rates, the warm-up included; S2 begins after the warm-up. lam = 0.999 is not fitted, as in the
    paper. A law holds for one model size, data set and batch size: fit one for each.

    Attributes
    ----------
    L0, A, C : nats per token (A and C with the powers of the rate that make them so).
    alpha : exponent.
    lam : memory of the momentum per update, 0 < lam < 1.

    Raises
    ------
    LawError
        `lam` is out of range.
    """

    name: ClassVar[str] = "annealing"
    source: ClassVar[str] = "Tissue, Wang and Wang 2024, arXiv 2408.11029, eq. 1 and 3"
    formula: ClassVar[str] = "L0 + A S1^-alpha - C S2, S2 = sum_i sum_{k<=i} (eta_{k-1} - eta_k) lam^(i-k)"
    needs: ClassVar[tuple[str, ...]] = ("schedule",)
    above_zero: ClassVar[tuple[str, ...]] = ("alpha",)
    box: ClassVar[dict[str, tuple[float, float]]] = {"alpha": reach(LOWER, UPPER)}

    L0: float
    A: float
    alpha: float
    C: float
    lam: float = LAM

    def __post_init__(self) -> None:
        """Check that the momentum fades."""
        if not 0 < self.lam < 1:
            raise LawError(f"lam of law {self.name!r} must be above 0 and below 1, got {self.lam:g}; 0.999 is usual")

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

        Raises
        ------
        FitError
            There are fewer than 4 losses.
        """
        readings = gather(cls, runs, curves, 4)
        first, second = (np.concatenate(v) for v in zip(*(areas(r, LAM) for r in readings), strict=True))
        scale, unit = float(first.max()), max(float(np.abs(second).max()), 1e-300)
        loss = np.concatenate([r.loss for r in readings])
        log_share = np.log(first / scale)

        def features(theta: FloatArray, slopes: bool) -> tuple[FloatArray, FloatArray]:
            power = np.exp(-theta[0] * log_share)
            F = np.stack([np.ones_like(power), power, -second / unit], axis=1)
            if not slopes:
                return without_slopes(F)
            dF = np.zeros((*F.shape, 1))
            dF[:, 1, 0] = -theta[0] * log_share * power
            return F, dF

        c, theta = fit_separable(
            features, np.array([LOWER]), np.array([UPPER]), loss, seed=seed, starts=starts or STARTS, progress=progress
        )
        alpha = float(theta[0])
        return cls(L0=float(c[0]), A=float(c[1] * scale**alpha), alpha=alpha, C=float(c[2] / unit))

    def _loss(self, run: Readings) -> FloatArray:
        first, second = areas(run, self.lam)
        return np.asarray(self.L0 + self.A * first**-self.alpha - self.C * second)

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
