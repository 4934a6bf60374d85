"""The noise of single runs: its size and how it grows with damage, by the evidence of the model that predicts.

While the trend is found, what the trend misses counts as noise beside the narrow field that is allowed then. Trend and
field together miss less: on runs made several times with different seeds, the noise found with the trend was a third
larger than measured, the noise found here as large (tests/regression/test_run_noise.py, docs/residuals.md).
"""

from __future__ import annotations

from itertools import product

import numpy as np

from optlaws.dynamics.model import FloatArray
from optlaws.regression.settings import Settings
from optlaws.regression.whitened import Whitened


def choose_noise(
    residual: FloatArray,
    features: FloatArray,
    diagonal: FloatArray,
    share: FloatArray,
    damage: FloatArray,
    noise: float,
    settings: Settings,
) -> tuple[float, float]:
    """Return the noise sd and its growth among those of the settings' grids that are most probable.

    The residuals are taken for normal with covariance F F' + diag(d + noise^2 share (1 + (damage / growth)^2)); priors
    as in `Settings`. The search climbs from neighbour to neighbour on the lattice of both grids.

    Parameters
    ----------
    residual : (n,) relative residuals of points about the centre of the prior.
    features : (n, m) F, field, offsets and columns.
    diagonal : (n,) variance that the field's inducing points leave.
    share : (n,) noise variance of a point is multiplied by this.
    damage : (n,) share of the loss in variance and escape.
    noise : where to start.
    settings : grids and priors.
    """
    sds, growths = np.array(settings.noise_grid), settings.noise_growth * np.array(settings.growth_grid)
    sds, growths = np.sort(sds), np.sort(growths)
    prior = 0.5 * np.add.outer(
        (np.log(sds / settings.noise_typical) / settings.noise_range) ** 2,
        (np.log(growths / settings.noise_growth) / settings.growth_range) ** 2,
    )
    known: dict[tuple[int, int], float] = {}

    def evidence(place: tuple[int, int]) -> float:
        if place not in known:
            i, j = place
            own = sds[i] ** 2 * share * (1.0 + (damage / growths[j]) ** 2)
            white = Whitened(features, diagonal + own)
            known[place] = -0.5 * (float(residual @ white.solve(residual)) + white.logdet()) - float(prior[place])
        return known[place]

    here = int(np.abs(np.log(sds / noise)).argmin()), int(np.abs(np.log(growths / settings.noise_growth)).argmin())
    while True:
        beside = [
            (here[0] + a, here[1] + b)
            for a, b in product((0, -1, 1), repeat=2)
            if 0 <= here[0] + a < len(sds) and 0 <= here[1] + b < len(growths)
        ]
        best = max(beside, key=evidence)
        if best == here:
            return float(sds[here[0]]), float(growths[here[1]])
        here = best
