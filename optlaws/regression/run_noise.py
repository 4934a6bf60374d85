"""The noise of single runs: its size, how it grows with damage and with loss spikes, by the evidence of the model.

While the trend is found, what the trend misses counts as noise beside the narrow field that is allowed then. Trend and
field together miss less.

High rates leave damage (columns `peak...`) through events that come by chance, loss spikes: if their number is Poisson
and each leaves a share of the loss of its own, the variance of what they leave is proportional to its mean. The factor,
`spike`, is the mean square over the mean of what one of them leaves (theory/derivations/peak_damage.py). Runs made
several times show this law: in four of six sweeps of ours their noise is 15 to 58 nats more probable for it, and no
more probable for another part that goes with the whole damage; the other two, and the public repeats, do not tell
(docs/residuals.md, which also has what laws take for noise beside what repeats show).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from optlaws.dynamics.model import FloatArray
from optlaws.regression.settings import Settings
from optlaws.regression.whitened import Whitened

Place = tuple[int, ...]
NEGLIGIBLE = 6.0  # nats below the most probable place
COARSE, HALVINGS = 2.0, 2  # a grid is halved, so often at most, where both neighbours are more nats below


def share_of(columns: FloatArray, coefficients: FloatArray, which: tuple[int, ...], loss: FloatArray) -> FloatArray:
    """Return the share of the loss (n,) that the columns `which` of (n, 16) make, shape (n,)."""
    rows = list(which)
    return np.asarray(columns[:, rows] @ coefficients[rows] / loss)


def noise_variance(noise: float, growth: float, spike: float, damage: FloatArray, peaks: FloatArray) -> FloatArray:
    """Return the relative variance of single runs, (n,): noise^2 (1 + (damage / growth)^2) + spike peaks.

    Parameters
    ----------
    noise : relative sd where there is no damage.
    growth : share of the loss in damage at which that has grown by sqrt(2).
    spike : share of the loss that one loss spike leaves, mean square over mean.
    damage : (n,) share of the loss in variance, peak and escape columns.
    peaks : (n,) of it the share that the highest rate left.
    """
    return np.asarray(noise**2 * (1.0 + (damage / growth) ** 2) + spike * peaks)


def choose_noise(
    residual: FloatArray,
    features: FloatArray,
    diagonal: FloatArray,
    share: FloatArray,
    damage: FloatArray,
    peaks: FloatArray,
    noise: float,
    settings: Settings,
) -> tuple[float, float, float]:
    """Return noise, growth and spike of `noise_variance`: means of variances over their posterior on three grids.

    The residuals are taken for normal with covariance F F' + diag(d + share v), v of `noise_variance`; priors as in
    `Settings`. Few runs leave much open, and noise that is told too small is worse than noise that is told too large:
    what is returned is (E s^2)^1/2, (E s^2 / E (s / g)^2)^1/2 and E k. The mode is climbed to from neighbour to
    neighbour, on grids that are halved where many runs make them too coarse; from there all that is at most
    `NEGLIGIBLE` nats less probable, and hangs together, counts.

    Parameters
    ----------
    residual : (n,) relative residuals of points about the centre of the prior.
    features : (n, m) F, field, offsets and columns.
    diagonal : (n,) variance that the field's inducing points leave.
    share : (n,) noise variance of a point is multiplied by this.
    damage, peaks : (n,) as in `noise_variance`.
    noise : where to start.
    settings : grids and priors.
    """
    typical = (settings.noise_typical, settings.noise_growth, settings.spike_typical)
    ranges = (settings.run_noise_range, settings.growth_range, settings.spike_range)

    def log_chance(at: tuple[float, ...]) -> float:
        white = Whitened(features, diagonal + share * noise_variance(at[0], at[1], at[2], damage, peaks))
        fit = float(residual @ white.solve(residual)) + white.logdet()
        far = sum((np.log(x / t) / sd) ** 2 for x, t, sd in zip(at, typical, ranges, strict=True))
        return -0.5 * float(fit + far)

    spikes = settings.spike_grid if (peaks > 0).any() else (settings.spike_typical,)
    multiples = settings.noise_growth * np.array(settings.growth_grid)
    search = _Search([np.unique(settings.noise_grid), np.unique(multiples), np.unique(spikes)], log_chance)
    places = search.probable((noise, *typical[1:]))
    chance = np.array([search.height(place) for place in places])
    weight = np.exp(chance - chance.max())
    variances = [(s**2, (s / g) ** 2, k) for s, g, k in map(search.values, places)]
    plain, damaged, spike = weight @ np.array(variances) / weight.sum()
    return float(np.sqrt(plain)), float(np.sqrt(plain / damaged)), float(spike)


class _Search:
    """The places of a lattice, tuples of indices, by the height of a function of the positive numbers there."""

    def __init__(self, axes: list[FloatArray], function: Callable[[tuple[float, ...]], float]) -> None:
        self.axes, self.function = axes, function
        self.known: dict[tuple[float, ...], float] = {}
        self.halved = [0] * len(axes)

    def values(self, place: Place) -> tuple[float, ...]:
        return tuple(float(axis[i]) for axis, i in zip(self.axes, place, strict=True))

    def height(self, place: Place) -> float:
        at = self.values(place)
        if at not in self.known:
            self.known[at] = self.function(at)
        return self.known[at]

    def nearest(self, values: tuple[float, ...]) -> Place:
        return tuple(int(np.abs(np.log(axis / x)).argmin()) for axis, x in zip(self.axes, values, strict=True))

    def beside(self, place: Place, along: int | None = None) -> list[Place]:
        """Return the neighbours of a place, along one axis or along each."""
        ways = range(len(place)) if along is None else (along,)
        moved = [(j, place[j] + by) for j in ways for by in (-1, 1)]
        return [(*place[:j], i, *place[j + 1 :]) for j, i in moved if 0 <= i < len(self.axes[j])]

    def climb(self, place: Place) -> Place:
        while (best := max([place, *self.beside(place)], key=self.height)) != place:
            place = best
        return place

    def halve(self, mode: Place) -> Place:
        """Put a place between any two on axes that are too coarse for what lies about the mode; return the new mode."""
        for j in [*range(len(mode))] * HALVINGS:
            around = self.beside(mode, j)
            coarse = bool(around) and self.height(mode) - max(map(self.height, around)) > COARSE
            if coarse and self.halved[j] < HALVINGS:
                axis, self.halved[j] = self.axes[j], self.halved[j] + 1
                self.axes[j] = np.sort(np.concatenate([axis, np.sqrt(axis[1:] * axis[:-1])]))
                mode = self.climb((*mode[:j], 2 * mode[j], *mode[j + 1 :]))
        return mode

    def hanging(self, mode: Place) -> list[Place]:
        """Return the places that hang together with one and lie at most `NEGLIGIBLE` below it, the highest last.

        At once where one is found that lies higher: a ridge across the axes has places that no neighbour overtops.
        """
        edge, counted = [mode], {mode}
        while edge:
            new = {at for place in edge for at in self.beside(place)} - counted
            edge = [at for at in sorted(new) if self.height(at) > self.height(mode) - NEGLIGIBLE]
            counted |= set(edge)
            if max(map(self.height, edge), default=-np.inf) > self.height(mode):
                break
        return sorted(counted, key=self.height)

    def probable(self, values: tuple[float, ...]) -> list[Place]:
        """Return the places of the lattice, halved as far as is needed, that are not negligible."""
        mode = self.halve(self.climb(self.nearest(values)))
        places = self.hanging(mode)
        while self.height(places[-1]) > self.height(mode):
            mode = self.halve(self.climb(places[-1]))
            places = self.hanging(mode)
        return places
