"""Exponents of a basis by evidence: for runs that obey one law closely, and are many.

The exponents are constants of the columns, not coefficients. They are taken at the maximum of the trend's log evidence
(coefficients integrated out), with a log-normal prior about the basis' own values. The states of the dynamics do not
depend on them, so one solution serves all trials. On real runs this made left-out families worse, so that a fit does it
only when asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from optlaws.baselines.base import Progress
from optlaws.dynamics import States, final_states
from optlaws.dynamics.model import FloatArray
from optlaws.errors import InputError, nearest
from optlaws.features import Basis
from optlaws.regression.trend_field import Problem, Settings, trend_evidence
from optlaws.runs import RunTable

EXPONENT_SD = 1.0  # of ln exponent about the basis' value: within a factor of 2.7, two times in three
STARTS, TRIALS = 4, 200
CLEAN = Settings(
    trend_sd=3e-5,
    field_sd=1e-4,
    size_sd=1e-5,
    noise_grid=tuple(np.geomspace(1e-5, 1e-2, 16).tolist()),
    noise_growth=10.0,
    robust=100.0,
    most_inducing=16,
    noise_range=100.0,
)
"""For runs that obey a law up to noise of one relative size: next to nothing is left to the field. The defaults
leave it 0.4 % of the loss, and let the noise grow with the damage, as real runs need."""


@dataclass(frozen=True)
class Profile:
    """Exponents at the maximum of the evidence.

    Attributes
    ----------
    basis : Basis
        With them.
    values : dict of str to float
        The exponents that were free.
    evidence : float
        Its log, prior included.
    """

    basis: Basis
    values: dict[str, float]
    evidence: float


class Evidence:
    """Log evidence of a run table as a function of a basis' exponents, dynamics held."""

    def __init__(
        self, runs: RunTable, basis: Basis, settings: Settings, *, use_params: bool = True, use_batch: bool = True
    ) -> None:
        """Solve the states once."""
        self.runs, self.basis, self.settings, self.use_batch = runs, basis, settings, use_batch
        self.states: States = final_states(runs, basis.dynamics, use_params=use_params, use_batch=use_batch, threads=1)
        peak = np.asarray(runs.batch().peak, dtype=float)
        self.coordinates = basis.coordinates(self.states, peak, basis.peak_scale(peak, settings.peak_gaps))

    def residual(self, basis: Basis) -> float:
        """Return the norm of the relative residuals of the best non-negative coefficients, priors left out."""
        from scipy.optimize import nnls  # slow to import, and only a fit needs it

        columns = basis.evaluate(self.states, use_batch=self.use_batch) / self.runs.final_loss[:, None]
        scaled = columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
        return float(nnls(scaled, np.ones(len(columns)), maxiter=2000)[1])

    def __call__(self, basis: Basis) -> float:
        """Return the log evidence under another basis with the same dynamics."""
        zero = np.zeros(len(self.runs))
        problem = Problem(
            basis.evaluate(self.states, use_batch=self.use_batch), self.runs.final_loss, self.coordinates,
            np.log(self.states.n), zero, zero + 1.0, basis.damage, basis.peaks,
        )  # fmt: skip
        return trend_evidence(problem, basis.prior, self.settings, centre=basis.centre)


def profile_exponents(
    runs: RunTable,
    basis: Basis,
    free: Sequence[str],
    *,
    settings: Settings | None = None,
    prior_sd: float = EXPONENT_SD,
    trials: int = TRIALS,
    use_params: bool = True,
    use_batch: bool = True,
    progress: Progress | None = None,
) -> Profile:
    """Return the exponents of a basis that the runs make most probable.

    Parameters
    ----------
    runs : RunTable
        Completed runs with losses.
    basis : Basis
        Where the search starts, and the centre of the prior.
    free : sequence of str
        Names of the exponents that are free; all above 0.
    settings : Settings, optional
        Of the regression; default `CLEAN`.
    prior_sd : float
        Of the logarithm of each.
    trials : int
        Most evaluations of each search by Nelder and Mead: from `STARTS` starts (the prior's centre and draws from it)
        for the least squared residual, which is smooth and quick, twice more from the best, and last for the evidence.
    use_params, use_batch : bool
        False: no run states its size (batch).
    progress : callable, optional
        Called with a word at every evaluation; it changes nothing.

    Raises
    ------
    InputError
        A name is no exponent of the basis, its value there is not above 0, or it is named twice.
    """
    from scipy.optimize import minimize  # slow to import, and only a fit needs it

    if isinstance(free, str) or len(set(free)) != len(free):
        raise InputError(f"exponents to calibrate must be a list of different names, got {free!r}; name each once")
    for name in free:
        if not basis.exponents.get(name, 0.0) > 0.0:
            able = [key for key, value in basis.exponents.items() if value > 0.0]
            raise InputError(
                f"exponents to calibrate must be of {', '.join(able)}, got {name!r}{nearest(name, able)};"
                " see `optlaws features` for the formulas they stand in"
            )
    evidence = Evidence(runs, basis, settings or CLEAN, use_params=use_params, use_batch=use_batch)
    centre = np.log([basis.exponents[name] for name in free])

    def build(x: FloatArray) -> Basis:
        values = np.exp(centre + prior_sd * x)
        return basis.with_constants(exponents=dict(zip(free, values.tolist(), strict=True)))

    def misfit(x: FloatArray) -> float:
        if progress is not None:
            progress("trial of exponents")
        return 0.5 * float(x @ x) + len(runs) * float(np.log(evidence.residual(build(x))))

    def cost(x: FloatArray) -> float:
        if progress is not None:
            progress("trial of exponents, by evidence")
        return 0.5 * float(x @ x) - evidence(build(x))

    def search(function: Callable[[FloatArray], float], x: FloatArray, size: float) -> tuple[float, FloatArray]:
        simplex = np.vstack([x, x + size * np.eye(len(free))])
        options = {"maxfev": trials, "initial_simplex": simplex, "xatol": 1e-5, "fatol": 1e-4}
        found = minimize(function, x, method="Nelder-Mead", options=options)
        return float(found.fun), np.asarray(found.x)

    with threadpool_limits(1):
        starts = [np.zeros(len(free)), *0.6 * np.random.default_rng(0).standard_normal((STARTS - 1, len(free)))]
        best = min((search(misfit, x, 0.4) for x in starts), key=lambda found: found[0])[1]
        for size in (0.2, 0.05):  # a simplex that has collapsed on a ridge goes on when it is spread again
            best = search(misfit, best, size)[1]
        least, best = search(cost, best, 0.03)
    chosen = build(best)
    return Profile(chosen, {name: float(chosen.exponents[name]) for name in free}, -least)
