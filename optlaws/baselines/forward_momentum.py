"""The forward-momentum law: powers of the summed rate and of the size, less an Adam-like momentum of the decay.

Source: Wang et al. 2025, arXiv 2512.13705; constants of the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from optlaws.baselines._readings import Readings, asked, ends, fit_separable, gather, logged, reach, without_slopes
from optlaws.baselines.base import FloatArray, Parametric, Progress, columns
from optlaws.runs import CurveTable, RunTable

STARTS = 128
LOWER, UPPER = 0.03, 3.0  # of the starts of a and b
FAST, SLOW = 0.9, 0.999  # memories of the two moments
SECOND_SCALE, EPSILON = 1e5, 1e-8  # of the authors' code


def momentum(run: Readings) -> FloatArray:
    """Return M at every reading, shape (r,).

    With d_i = eta_{i-1} - eta_i (0 up to the end of the warm-up): m_i = 0.9 m_{i-1} + 0.1 d_i and
    v_i = 0.999 v_{i-1} + 0.001 d_i^2, both bias-corrected with i + 1 steps, and M after n updates is the sum over
    i < n of m_i / (sqrt(1e5 v_i + 1e-8) + 1e-8), as in the authors' code with a reading at every update.
    """
    from scipy.signal import lfilter

    fall = np.zeros(len(run.rates))
    fall[1:] = run.rates[:-1] - run.rates[1:]
    fall[: run.warmup + 1] = 0.0
    count = np.arange(1, len(fall) + 1)
    first = lfilter([1.0 - FAST], [1.0, -FAST], fall) / (1.0 - FAST**count)
    second = lfilter([1.0 - SLOW], [1.0, -SLOW], fall**2) / (1.0 - SLOW**count)
    second = np.maximum(second, 0.0)
    return np.asarray(np.cumsum(first / (np.sqrt(SECOND_SCALE * second + EPSILON) + EPSILON))[run.steps - 1])


@dataclass(frozen=True)
class ForwardMomentumLaw(Parametric):
    """L = L0 + A S^-a + B N^-b - C M, S the sum of all rates, M an Adam-like momentum of the rate's decrease.

    Made for warm-up, constant rate and decay (WSD). Where all runs have one size, B is 0 and L0 holds its term.

    Attributes
    ----------
    L0, A, B, C : nats per token (with the powers that make them so).
    a, b : exponents of S and N.
    """

    name: ClassVar[str] = "forward_momentum"
    source: ClassVar[str] = "Wang et al. 2025, arXiv 2512.13705; constants of the authors' code"
    formula: ClassVar[str] = "L0 + A S^-a + B N^-b - C M"
    needs: ClassVar[tuple[str, ...]] = ("params", "schedule")
    above_zero: ClassVar[tuple[str, ...]] = ("a", "b")
    box: ClassVar[dict[str, tuple[float, float]]] = {"a": reach(LOWER, UPPER), "b": reach(LOWER, UPPER)}
    idle: ClassVar[tuple[str, ...]] = ("B", "b")

    L0: float
    A: float
    a: float
    B: float
    b: float
    C: float

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

        The authors' code takes Huber losses of the loss itself, from one start: low losses weigh a little more here.

        Raises
        ------
        FitError
            There are fewer than 6 losses.
        LawError
            A run has no size.
        """
        columns(cls, runs.select(logged(runs, curves)), ("params",))
        readings = gather(cls, runs, curves, 6)
        count = [len(r.loss) for r in readings]
        size = np.repeat([r.size for r in readings], count)
        seen = np.concatenate([np.cumsum(r.rates)[r.steps - 1] for r in readings])
        falls = np.concatenate([momentum(r) for r in readings])
        loss = np.concatenate([r.loss for r in readings])
        scale, unit, least = float(seen.max()), max(float(np.abs(falls).max()), 1e-300), float(size.min())
        sizes = bool(size.max() > least)
        log_share, log_size = np.log(seen / scale), np.log(size / least)

        def features(theta: FloatArray, slopes: bool) -> tuple[FloatArray, FloatArray]:
            power, small = np.exp(-theta[0] * log_share), np.exp(-theta[1] * log_size)
            F = np.stack([np.ones_like(power), power, -falls / unit, small][: 4 if sizes else 3], axis=1)
            if not slopes:
                return without_slopes(F)
            dF = np.zeros((*F.shape, 2))
            dF[:, 1, 0] = -theta[0] * log_share * power
            if sizes:
                dF[:, 3, 1] = -theta[1] * log_size * small
            return F, dF

        box = np.array([LOWER, LOWER]), np.array([UPPER, UPPER])
        c, (a, b) = fit_separable(features, *box, loss, seed=seed, starts=starts or STARTS, progress=progress)
        B = float(c[3] * least**b) if sizes else 0.0
        return cls(L0=float(c[0]), A=float(c[1] * scale**a), a=float(a), B=B, b=float(b), C=float(c[2] / unit))

    def _loss(self, run: Readings) -> FloatArray:
        seen = np.cumsum(run.rates)[run.steps - 1]
        # a law fitted on one size says nothing of N: B = 0
        sized = self.B * run.size**-self.b if self.B else 0.0
        return np.asarray(self.L0 + self.A * seen**-self.a + sized - self.C * momentum(run))

    def predict(self, runs: RunTable) -> FloatArray:
        """Return final losses, shape (n,), nats per token.

        Raises
        ------
        LawError
            A run has no size.
        TableError
            The table holds a `ScheduleBatch`, whose schedules have no objects.
        """
        columns(self, runs, ("params",))
        return np.array([self._loss(run)[0] for run in ends(runs)])

    def predict_curve(self, runs: RunTable, steps: FloatArray) -> FloatArray:
        """Return the losses of one run (nats per token, shape of `steps`), as `CurveLaw.predict_curve` says.

        Raises
        ------
        LawError
            The run has no size; other errors as there.
        """
        columns(self, runs, ("params",))
        return self._loss(asked(runs, steps))
