"""How the error of a prediction grows with the distance from the runs: on paper and in simulation.

On paper. With relative run noise d, a law linear in its coefficients and with exponents p, the least-squares covariance
is d^2 (J'J + prior)^-1, J = d ln L / d(coefficients, ln p) at the runs, and a target with row j has relative sd
(j' cov j)^1/2. With the exponents known j tends to that of the constant alone, and the error saturates at the error of
the irreducible loss. With the exponents free the runs must tell a power law's level from its curvature: for
L = E + A n^-a at K runs evenly spread over w = ln(largest / smallest n), a w < 1, expansion to second order gives

    sd(E) / L = 2 / a^2 sd(c2) = 2 (180)^1/2 d / ((a w)^2 K^1/2) = 27 d / ((a w)^2 K^1/2)

against 2 (3)^1/2 d / (a w K^1/2) where a is known: a factor 7.7 / (a w). Both tend to constants: what grows on and on
is only the error of a wrong exponent, until the power-law terms are gone.

In simulation. The same from several noise draws: exponents known, exponents free (at the maximum of the evidence), and
exponents held at the default basis' values, each with the 90 % interval of the fitted law, which knows nothing of the
exponents' uncertainty.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from optlaws._normal import NORMAL_90
from optlaws.dynamics import final_states
from optlaws.errors import OptlawsWarning
from optlaws.features import Basis, get_basis
from optlaws.law import Law, fit_law
from optlaws.law.calibrate import CLEAN, EXPONENT_SD, profile_exponents
from optlaws.runs import RunTable
from theory.montecarlo.rows import FloatArray
from theory.world.model import World
from theory.world.recover import FREE, relative_errors, target_runs, training_runs

FACTORS = (1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 4.9e5)
"""Of compute; sizes and steps grow with the root: the last is 70 B parameters from 100 M."""
NOISES = (0.0005, 0.001)
STEP = 1e-4  # of ln exponent, in numerical derivatives
VARIANTS = ("exponents known", "exponents free", "sde16 exponents", "sde16")


def power_law_inflation(exponent: float, span: float, runs: int) -> dict[str, float]:
    """Return sd(E) / (run noise) on paper with the exponent known and free, for sizes over ln range `span`."""
    reach, root = exponent * span, np.sqrt(runs)
    return {
        "known": float(2.0 * np.sqrt(3.0) / (reach * root)),
        "free": float(2.0 * np.sqrt(180.0) / (reach**2 * root)),
    }


def paper_sd(law: Law, runs: RunTable, targets: RunTable, noise: float, free: Sequence[str] = ()) -> FloatArray:
    """Return the relative sd of predictions by the delta method, shape (len(targets),).

    Parameters
    ----------
    law : Law
        Fitted to noise-free runs: where the derivatives are taken.
    runs, targets : RunTable
        Runs of the fit, and what is predicted.
    noise : float
        Relative run-to-run sd.
    free : sequence of str
        Exponents that the runs have to tell as well.
    """
    basis, c = law.basis, law.posterior.coefficients
    used = np.flatnonzero(c > 0)

    def rows(table: RunTable) -> FloatArray:
        states = final_states(table, basis.dynamics, threads=1)
        columns = basis.evaluate(states)
        loss = columns @ c
        parts = [columns[:, used]]
        for name in free:
            moved = basis.with_constants(exponents={name: basis.exponents[name] * np.exp(STEP)})
            parts.append((((moved.evaluate(states) - columns) @ c) / STEP)[:, None])
        return np.asarray(np.hstack(parts) / loss[:, None])

    scale = np.concatenate([basis.prior[used] * runs.final_loss.mean(), np.full(len(free), EXPONENT_SD)])
    j, at = rows(runs), rows(targets)
    information = j.T @ j / noise**2 + np.diag(1.0 / scale**2)
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", at, np.linalg.solve(information, at.T).T)))


@dataclass(frozen=True)
class Growth:
    """Errors at one distance, in per cent of the loss.

    Attributes
    ----------
    variant : str
        One of `VARIANTS`.
    noise : float
        Run-to-run sd, relative.
    compute, size : float
        Factors over the largest run.
    bias, rms : float
        Mean and root mean square error over the seeds.
    interval : float
        Mean half width of the law's 90 % interval.
    covered : float
        Share of seeds whose interval holds the true loss.
    paper : float
        90 % half width on paper (1.645 sd), nan where there is none.
    """

    variant: str
    noise: float
    compute: float
    size: float
    bias: float
    rms: float
    interval: float
    covered: float
    paper: float


def variant_basis(world: World, runs: RunTable, variant: str, trials: int) -> Basis:
    """Return the basis of a variant, its exponents fitted to the runs where they are free."""
    if variant == "exponents free":
        return profile_exponents(runs, world.basis(), FREE, trials=trials).basis
    return {
        "exponents known": world.true_basis(),
        "sde16 exponents": world.basis(),
        "sde16": get_basis(),
    }[variant]


def error_growth(
    world: World | None = None,
    *,
    factors: Sequence[float] = FACTORS,
    noises: Sequence[float] = NOISES,
    seeds: int = 5,
    count: int = 150,
    trials: int = 200,
    variants: Sequence[str] = VARIANTS,
) -> list[Growth]:
    """Return how errors and intervals grow, by variant, run noise and distance.

    Parameters
    ----------
    world : World, optional
    factors : sequence of float
        Of compute, from 1.
    noises : sequence of float
        Run-to-run sds, relative.
    seeds : int
        Noise draws.
    count, trials : int
        Runs of a fit, and evaluations from each start of the search for exponents.
    variants : sequence of str
        Of `VARIANTS`.
    """
    w = World() if world is None else world
    clean, targets = training_runs(w, count), target_runs(w, factors, families=("WSD",))
    ideal = fit_law(clean, basis=w.true_basis(), settings=CLEAN)
    out = []
    for noise in noises:
        paper = {
            "exponents known": paper_sd(ideal, clean, targets, noise),
            "exponents free": paper_sd(ideal, clean, targets, noise, FREE),
        }
        found: dict[str, list[tuple[FloatArray, FloatArray]]] = {variant: [] for variant in variants}
        for seed in range(seeds):
            draw = np.random.default_rng([1, seed]).standard_normal(len(clean))
            runs = replace(clean, final_loss=clean.final_loss * np.exp(noise * draw))
            for variant in variants:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", OptlawsWarning)  # bases that do not fit say so; here errors do
                    law = fit_law(runs, basis=variant_basis(w, runs, variant, trials))
                half = NORMAL_90 * law.predict(targets, threads=1).sd / targets.final_loss
                found[variant].append((relative_errors(law, targets), half))
        for variant in variants:
            errors, halves = (100.0 * np.array(part) for part in zip(*found[variant], strict=True))
            wide = 100.0 * NORMAL_90 * paper.get(variant, np.full(len(targets), np.nan))
            for i, factor in enumerate(factors):
                e, h = errors[:, i], halves[:, i]
                rms, covered = float(np.sqrt((e**2).mean())), float((np.abs(e) <= h).mean())
                row = (float(e.mean()), rms, float(h.mean()), covered, float(wide[i]))
                out.append(Growth(variant, noise, float(factor), float(np.sqrt(factor)), *row))
    return out
