"""The criterion: the highest felt rate of a run over the rate at which runs like it blow up.

A run is expected to diverge where u_max / u_c > 1, with

    ln u_c = level + size ln n - 1/3 ln a + recovery ln(1 + h / h0) - ln(1 + (s / b) h / (h + h1))
             + momentum ln((1 - beta1) / .1)

h = steps at a rate of at least half the peak, n = parameters, b = tokens a step, in the units of `Dynamics`;
a = width over what is usual for n, 1 where it is not known.

- `size`: beyond the n^cN in the felt rate itself. A network of width w takes peak rates like 1 / w, and N grows like
  w^2 (depth kept) to w^3 (depth grown alike).
- a: a network that is narrow for its size takes higher peak rates, by the same 1 / w; u goes with their cube root.
  Nothing of this term is fitted.
- `recovery`, h0: a run that blew up early and has steps enough left comes back and does not end diverged.
- s: the fastest mode under multiplicative noise is stable up to 2 / (1 + s / b) instead of 2 (the escape of its
  covariance); noise needs about h1 steps to tell.
- `momentum`: a memory of 1 / (1 - beta1) steps makes a warm-up shorter in units of it.

theory/stability.py derives what can be derived: the maximum of u, both edges, the role of beta1 in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optlaws.dynamics.model import FloatArray
from optlaws.errors import InputError
from optlaws.risk.quantities import Quantities

PARAMETERS = ("level", "size", "recovery", "ln_recovery_steps", "ln_noise", "ln_noise_steps", "momentum")
"""Names of theta: level, size, recovery, ln h0 and ln h1 (steps_ref), ln s (batch_ref), momentum; h0, s, h1 > 0."""


SPREADS = ("scatter", "scatter_sd", "cell_sd", "source_sd")

WIDTH_POWER = -1.0 / 3.0
"""Power of the relative width in u_c: peak rates like 1 / width (arXiv 2203.03466), u as their cube root, which it is
where a warm-up has c >= 2 (`optlaws.risk.quantities`), as that of every public run that diverged. With a shorter or
gentler one it would be -1 / (1 + c), up to -1 without a warm-up; it is not carried there."""


@dataclass(frozen=True)
class Prior:
    """Normal priors of theta and of what varies from row to row, chosen by hand; see docs/divergence.md.

    Attributes
    ----------
    mean, sd : of the seven `PARAMETERS`.
    scatter, scatter_sd : median and log standard deviation of the scatter of ln u_c from one row of runs to the next.
    cell_sd : standard deviation of ln u_c that runs of one source, N and D share.
    source_sd : standard deviation of ln u_c that runs of one source share.

    Raises
    ------
    InputError
        `mean` or `sd` has not seven finite numbers, or a standard deviation or the scatter is not above 0.
    """

    mean: tuple[float, ...] = (np.log(0.13), -0.04, 0.0, np.log(0.3), np.log(0.03), np.log(3.0), 1.0 / 6.0)
    sd: tuple[float, ...] = (0.2, 0.02, 0.1, 0.7, 0.5, 0.7, 1.0 / 12.0)
    scatter: float = 0.06
    scatter_sd: float = 0.25
    cell_sd: float = 0.015
    source_sd: float = 0.06

    def __post_init__(self) -> None:
        """Refuse a prior that no fit can start from."""
        for name in ("mean", "sd"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape != (len(PARAMETERS),) or not np.isfinite(values).all():
                raise InputError(
                    f"{name} must be {len(PARAMETERS)} finite numbers, one for each of {', '.join(PARAMETERS)}, got"
                    f" {getattr(self, name)!r:.80}; leave it out for the default"
                )
        for name, value in (("sd", min(self.sd)), *((k, getattr(self, k)) for k in SPREADS)):
            if not 0 < value < np.inf:
                raise InputError(f"{name} must be finite and above 0, got {value:g}; leave it out for the default")


def log_critical(q: Quantities, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return ln u_c of n runs, shape (n,), and its derivatives by theta (7,), shape (n, 7); formula above."""
    level, size, recovery, ln_h0, ln_s, ln_h1, momentum = theta
    h = q.high
    back = np.log1p(h * np.exp(-ln_h0))
    late = h / (h + np.exp(ln_h1))
    noise = np.exp(ln_s) / q.b * late
    shape = size * np.log(q.n) + WIDTH_POWER * np.log(q.width)
    value = level + shape + recovery * back - np.log1p(noise) + momentum * np.log(q.slack)
    share = noise / (1.0 + noise)
    slopes = np.stack(
        [
            np.ones_like(h),
            np.log(q.n),
            back,
            -recovery * h / (h + np.exp(ln_h0)),
            -share,
            share * (1.0 - late),
            np.log(q.slack),
        ],
        axis=1,
    )
    return value, slopes
