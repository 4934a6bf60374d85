"""A world of noisy quadratic modes with power-law spectrum, in which every exponent is known.

A model of N parameters has M = N / params_per_mode modes of the infinitely many that the data have. Plain SGD with rate
eta_k and batch B, expectation over the gradient noise, mode by mode and step by step without approximation:

    L = E + sum_{i > M} A i^-b + sum_{i <= M} l_i
    l_i <- (1 - eta_k h_i)^2 l_i + eta_k^2 h_i s_i / (2 B),   l_i = A i^-b at the start

    curvature h_i = top i^-a      signal A i^-b, b > 1      gradient noise s_i = s i^-c a token

For large M and S = int eta,

    sum_{i > M} A i^-b  ->  A / (b - 1) M^-(b - 1)
    bias                ->  A Gamma(aT) / a (2 top S)^-aT Q(aT, 2 top M^-a S),   aT = (b - 1) / a

so aN = b - 1, aT = (b - 1) / a, and the end of the spectrum moves as M^-a, r = a: the columns `size` and `bias`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import groupby

import numpy as np
from scipy.special import zeta

from optlaws.errors import InputError
from optlaws.features import Basis, get_basis
from optlaws.runs import RunTable
from optlaws.schedules import Schedule
from theory.montecarlo.rows import FloatArray

EXACT, NODES = 256, 64  # modes summed one by one, and nodes of the quadrature in ln i beyond them
NOTHING = 1e-12


@dataclass(frozen=True)
class World:
    """Constants of a world.

    Attributes
    ----------
    spectrum, signal, noise : float
        a > 0, b > 1 and c: exponents of curvature, signal and gradient noise.
    top : float
        Largest curvature, 1 / rate.
    amplitude : float
        A, nats: signal of the first mode.
    irreducible : float
        E, nats.
    noise_loss : float
        Loss (nats) that noise keeps in the first mode at rate 0.015 and batches of 524,288 tokens.
    params_per_mode : float
        Parameters that one mode costs.
    """

    spectrum: float = 1.2
    signal: float = 1.3
    noise: float = 1.2
    top: float = 3.0
    amplitude: float = 2.0
    irreducible: float = 1.7
    noise_loss: float = 0.01
    params_per_mode: float = 1e5

    def __post_init__(self) -> None:
        """Refuse constants for which the world is none."""
        for field in fields(self):
            value = getattr(self, field.name)
            low = 1.0 if field.name == "signal" else 0.0
            if not low < value < np.inf:
                raise InputError(f"{field.name} of a world must be finite and above {low:g}, got {value!r}; change it")

    @property
    def exponents(self) -> dict[str, float]:
        """Exponents by their names in a basis: aN, aT, r."""
        rest = self.signal - 1.0
        return {"aN": rest, "aT": rest / self.spectrum, "r": self.spectrum}

    def cutoff(self, basis: Basis) -> float:
        """Return lc of the column `bias` in the units of a basis."""
        modes = basis.dynamics.params_ref / self.params_per_mode
        return float(2.0 * self.top * basis.dynamics.lr_ref * 1000.0 * modes**-self.spectrum)

    def tail(self, modes: int) -> float:
        """Return the loss in the modes that a model of so many modes does not have, nats."""
        return float(self.amplitude * zeta(self.signal, modes + 1))

    def final_loss(self, schedule: Schedule, params: float, batch: float) -> float:
        """Return the expected loss at the end of a run, nats.

        Parameters
        ----------
        schedule : Schedule
            Rates below 2 / top, else the first modes diverge.
        params : float
            Parameters, at least params_per_mode.
        batch : float
            Tokens per step.

        Raises
        ------
        InputError
            Fewer than one mode, or rates that diverge.
        """
        modes = round(params / self.params_per_mode)
        if modes < 1:
            raise InputError(f"params must be at least {self.params_per_mode:g}, one mode, got {params:g}; take more")
        if not schedule.peak * self.top < 2.0:
            most = f"{2.0 / self.top:g}, where the first mode diverges"
            raise InputError(f"peak rate must be below {most}, got {schedule.peak:g}; lower it")
        index, weight = quadrature(modes)
        curvature = self.top * index**-self.spectrum
        loss = self.amplitude * index**-self.signal
        unit = 4.0 * self.noise_loss * 524288.0 / 0.015
        kick = 0.5 * curvature * unit * index**-self.noise / batch
        for rate, same in groupby(schedule.array().tolist()):
            count = sum(1 for _ in same)
            keep = (1.0 - rate * curvature) ** 2
            if count == 1:
                loss *= keep
                loss += rate**2 * kick
            elif rate > 0:  # a geometric series: the same steps at once
                power = keep**count
                loss = power * loss + rate**2 * kick * (1.0 - power) / (1.0 - keep)
        return float(self.irreducible + self.tail(modes) + weight @ loss)

    def runs(
        self,
        schedules: Sequence[Schedule],
        params: FloatArray,
        batch: FloatArray,
        *,
        noise: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> RunTable:
        """Return a run table of this world; losses are multiplied by exp(noise xi), xi ~ N(0, 1) of `rng`."""
        loss = np.array([self.final_loss(s, n, b) for s, n, b in zip(schedules, params, batch, strict=True)])
        if noise > 0.0:
            rng = np.random.default_rng(0) if rng is None else rng
            loss = loss * np.exp(noise * rng.standard_normal(len(loss)))
        return RunTable.build(
            schedules, params=params, batch_tokens=batch, optimizer="sgd", weight_decay=0.0, final_loss=loss,
            source="model world",
        )  # fmt: skip

    def basis(self, base: str | Basis | None = None, **exponents: float) -> Basis:
        """Return a basis whose dynamics are plain SGD's: no weight norm, no growth of the felt rate with size.

        Its exponents are those of `base` (default basis) unless given: it knows the optimizer, not the world.
        """
        return get_basis("sde16-plain" if base is None else base).with_constants(
            dynamics={"kappa": NOTHING, "size_exponent": NOTHING}, exponents={"gv": 0.0, **exponents}
        )

    def true_basis(self, base: str | Basis | None = None) -> Basis:
        """Return that basis with the exponents of this world."""
        basis = self.basis(base)
        return self.basis(base, lc=self.cutoff(basis), **self.exponents)


@lru_cache(maxsize=256)
def quadrature(modes: int) -> tuple[FloatArray, FloatArray]:
    """Return indices i and weights with which sums over 1 .. modes are taken, each shape (m,).

    One by one up to EXACT; beyond, Gauss-Legendre in ln i between half-integers (the midpoint rule
    read backwards): losses are right to 1e-7.
    """
    first = np.arange(1.0, min(modes, EXACT) + 1.0)
    if modes <= EXACT + NODES:
        index = np.arange(1.0, modes + 1.0)
        return index, np.ones(modes)
    low, high = np.log(EXACT + 0.5), np.log(modes + 0.5)
    x, w = np.polynomial.legendre.leggauss(NODES)
    index = np.exp(0.5 * (high - low) * x + 0.5 * (high + low))
    return np.concatenate([first, index]), np.concatenate([np.ones(len(first)), 0.5 * (high - low) * w * index])
