"""The noise of single runs: its size and how it grows with damage, by the evidence of the model that predicts.

While the trend is found, what the trend misses counts as noise beside the narrow field that is allowed then. Trend and
field together miss less. docs/residuals.md has what laws take for noise beside what runs made several times show.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from optlaws.dynamics.model import FloatArray
from optlaws.regression.settings import Settings
from optlaws.regression.whitened import Whitened

NEGLIGIBLE = 6.0  # nats below the most probable place


def choose_noise(
    residual: FloatArray,
    features: FloatArray,
    diagonal: FloatArray,
    share: FloatArray,
    damage: FloatArray,
    noise: float,
    settings: Settings,
) -> tuple[float, float]:
    """Return the noise sd and its growth: means of the variances over their posterior on the lattice of both grids.

    The residuals are taken for normal with covariance F F' + diag(d + share (s^2 + a^2 damage^2)), s the noise sd and
    s / a the growth; priors as in `Settings`. Few runs leave much open, and noise that is told too small is worse than
    noise that is told too large: what is returned is (E s^2)^1/2 and (E s^2 / E a^2)^1/2. The mode is climbed to from
    neighbour to neighbour; from there all that is at most `NEGLIGIBLE` nats less probable, and hangs together, counts.

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
    sds, growths = np.sort(settings.noise_grid), settings.noise_growth * np.sort(settings.growth_grid)
    prior = 0.5 * np.add.outer(
        (np.log(sds / settings.noise_typical) / settings.run_noise_range) ** 2,
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

    def beside(place: tuple[int, int]) -> list[tuple[int, int]]:
        around = [(place[0] + a, place[1] + b) for a, b in product((0, -1, 1), repeat=2)]
        return [(i, j) for i, j in around if 0 <= i < len(sds) and 0 <= j < len(growths)]

    here = int(np.abs(np.log(sds / noise)).argmin()), int(np.abs(np.log(growths / settings.noise_growth)).argmin())
    while (best := max(beside(here), key=evidence)) != here:
        here = best
    edge, counted = [here], {here}
    while edge:
        new = {place for at in edge for place in beside(at)} - counted
        edge = [place for place in new if evidence(place) > known[here] - NEGLIGIBLE]
        counted |= set(edge)
    places = sorted(counted)
    chance = np.array([known[place] for place in places])
    weight = np.exp(chance - chance.max())
    variance = np.array([[sds[i] ** 2, (sds[i] / growths[j]) ** 2] for i, j in places])
    plain, damaged = weight @ variance / weight.sum()
    return float(np.sqrt(plain)), float(np.sqrt(plain / damaged))
