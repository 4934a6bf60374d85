"""Recover a world's law from runs: exponents by evidence, and predictions far beyond the runs.

The exponents of a basis are constants of its columns, not coefficients; `optlaws.law.calibrate` finds them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optlaws.errors import OptlawsWarning
from optlaws.features import get_basis
from optlaws.law import Law, fit_law
from optlaws.law.calibrate import CLEAN, TRIALS, profile_exponents
from optlaws.runs import RunTable
from optlaws.schedules import Schedule, constant, cosine, wsd
from theory.montecarlo.rows import FloatArray
from theory.world.model import World

FREE = ("aN", "aT", "r", "lc")
SIZES = (5e6, 1e7, 2e7, 4e7, 7e7, 1e8)
HORIZONS = (1000, 2000, 4000, 8000, 16000)
PEAKS = (3e-3, 5e-3, 8e-3, 1.2e-2, 2e-2)
BATCHES = (262144.0, 524288.0, 1048576.0)
FAMILIES = ("cosine", "cosine to a tenth", "WSD", "WSD, long decay", "constant")


def make_schedule(family: str, peak: float, steps: int) -> Schedule:
    """Return a schedule of one of `FAMILIES`, with 2 % warm-up."""
    warm = max(round(0.02 * steps), 1)
    if family == "cosine":
        return cosine(peak, steps, warmup=warm)
    if family == "cosine to a tenth":
        return cosine(peak, steps, final=0.1 * peak, warmup=warm)
    if family == "WSD":
        return wsd(peak, steps, decay=0.1, warmup=warm)
    if family == "WSD, long decay":
        return wsd(peak, steps, decay=0.3, warmup=warm)
    return constant(peak, steps, warmup=warm)


def training_runs(world: World, count: int = 150, *, noise: float = 0.0, seed: int = 0) -> RunTable:
    """Return runs of at most 100M parameters and 16,000 steps, drawn evenly from the grid of settings."""
    rng = np.random.default_rng(seed)
    levels = (len(SIZES), len(HORIZONS), len(PEAKS), len(BATCHES), len(FAMILIES))
    size, steps, peak, batch, family = (rng.permutation(np.resize(np.arange(n), count)) for n in levels)
    schedules = [make_schedule(FAMILIES[f], PEAKS[p], HORIZONS[s]) for f, p, s in zip(family, peak, steps, strict=True)]
    return world.runs(schedules, np.array(SIZES)[size], np.array(BATCHES)[batch], noise=noise, rng=rng)


def target_runs(world: World, factors: Sequence[float], *, families: Sequence[str] = ("WSD", "cosine")) -> RunTable:
    """Return noise-free runs beyond 100M parameters and 16,000 steps at multiples of the compute.

    Size and steps both grow with the square root of the factor; peak rate 8e-3, batch 524,288 tokens.
    """
    growth = np.repeat(np.sqrt(factors), len(families))
    names = list(families) * len(factors)
    schedules = [make_schedule(name, 8e-3, round(16000 * g)) for name, g in zip(names, growth, strict=True)]
    return world.runs(schedules, 1e8 * growth, np.full(len(growth), 524288.0))


@dataclass(frozen=True)
class Recovery:
    """What a fit to the runs of one world finds.

    Attributes
    ----------
    world, note : str
        Name, and what is particular about it.
    true, found : dict of str to float
        Exponents aN, aT, r (and the cut-off lc, which is none) of the world and at the maximum of the evidence.
    errors : dict of str to float
        Relative errors (%) of the loss at `FAR` times the compute, by fit.
    """

    world: str
    note: str
    true: dict[str, float]
    found: dict[str, float]
    errors: dict[str, float]

    def exponent_errors(self) -> dict[str, float]:
        """Return the relative errors of the exponents, %."""
        return {name: 100.0 * (self.found[name] / self.true[name] - 1.0) for name in EXPONENTS}


EXPONENTS = ("aN", "aT", "r")
FAR = 1000.0
WORLDS = {
    "standard": (World(), "eta h <= .06, noise makes 1.5 % of the loss at a constant rate"),
    "flatter": (World(spectrum=0.9, signal=1.25, noise=1.3), "other exponents"),
    "equal": (World(spectrum=1.0, signal=1.4, noise=1.2), "other exponents"),
    "steeper": (World(spectrum=1.5, signal=1.5, noise=1.5), "other exponents"),
    "three times the noise": (World(noise_loss=0.03), "noise makes 4.4 % of the loss at a constant rate"),
    "edge of stability": (World(top=30.0), "eta h <= .6: the SDE is off by that order"),
    "noise without end": (World(spectrum=0.9, signal=1.25, noise=0.9), "c < 1: noise grows with the model"),
}

"""First trials were made in the fifth and sixth world; the first became the standard because there the link's own order
(eta h) and the six curvatures of the basis, which stand for a continuum of noisy modes, matter less. All are shown."""


def recover(name: str, *, count: int = 150, noise: float = 0.0, trials: int = TRIALS, seed: int = 0) -> Recovery:
    """Return what is recovered of one of `WORLDS` from `count` runs with relative run noise `noise`."""
    world, note = WORLDS[name]
    runs, far = training_runs(world, count, noise=noise, seed=seed), target_runs(world, [FAR])
    profile = profile_exponents(runs, world.basis(), FREE, trials=trials)
    fits = {
        "found": (profile.basis, None),
        "found, no field": (profile.basis, CLEAN),
        "known": (world.true_basis(), None),
        "sde16 exponents": (world.basis(), None),
        "sde16": (get_basis(), None),
    }
    errors = {}
    for fit, (basis, settings) in fits.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptlawsWarning)  # a basis that does not fit says so; here its error does
            law = fit_law(runs, basis=basis, settings=settings)
        at = relative_errors(law, far)
        errors[fit] = 100.0 * float(at[np.abs(at).argmax()])
    true = {**world.exponents, "lc": world.cutoff(profile.basis)}
    return Recovery(name, note, true, profile.values, errors)


def relative_errors(law: Law, runs: RunTable) -> FloatArray:
    """Return predicted over true loss, less 1, shape (n,)."""
    return np.asarray(law.predict(runs, threads=1).loss / runs.final_loss - 1.0)
