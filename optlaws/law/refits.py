"""Laws of curves fitted again without a fifth of them: how wide their intervals must be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from optlaws._normal import NORMAL_90, share_to_cover
from optlaws.dynamics.model import FloatArray
from optlaws.features import Basis
from optlaws.regression.settings import Settings
from optlaws.regression.trend_field import Problem, fit_trend_field, predict_trend_field
from optlaws.runs import RunTable
from optlaws.runs._repeats import configurations

FOLDS = 5
FEWEST = 4  # configurations with curves: of fewer a law without one of them says nothing
NARROWEST, WIDEST = 1.0, 20.0  # factors of the sds of expected losses
CALLED = "a fifth of the curves"


class LeftOut(NamedTuple):
    """Readings that laws fitted without their run predicted: squares of errors of ln loss, and variances, (m,) each.

    `model` is the variance of the expected loss at a factor of 1, `noise` that of one run about it; `curves` is the
    number of configurations.
    """

    squares: FloatArray
    model: FloatArray
    noise: FloatArray
    curves: int

    def coverage(self, spread: float) -> float:
        """Return the share inside 90 % intervals with that factor of the sds of expected losses."""
        return float((self.squares <= NORMAL_90**2 * (spread**2 * self.model + self.noise)).mean())

    def least_spread(self) -> float:
        """Return the factor with which intervals hold for other curves.

        The readings of one curve err together, so that n configurations count as n and not as their readings.
        """
        wanted = share_to_cover(self.curves)
        tried = np.geomspace(NARROWEST, WIDEST, 200)
        return float(next((s for s in tried if self.coverage(s) >= wanted), tried[-1]))

    def errors(self, spread: float) -> dict[str, float]:
        """Return what a law file says of them: mean error and mean width in %, and coverage."""
        width = np.sqrt(spread**2 * self.model + self.noise)
        return {
            "mean_error_pct": 100.0 * float(np.sqrt(self.squares).mean()),
            "coverage": self.coverage(spread),
            "width_pct": 200.0 * NORMAL_90 * float(width.mean()),
        }


def _part(problem: Problem, which: npt.NDArray[np.bool_]) -> Problem:
    """Return some points of a problem."""
    names = ("columns", "loss", "coordinates", "size", "curve", "share")
    return replace(problem, **{name: getattr(problem, name)[which] for name in names})


def left_out(
    problem: Problem, rows: npt.NDArray[Any], runs: RunTable, basis: Basis, settings: Settings
) -> LeftOut | None:
    """Return what laws fitted again without each fifth of the curves make of it; None for fewer than four.

    The residuals of `optlaws.regression.trend_field` are by a formula that keeps active columns, noise and weights as
    the left-out curves themselves shaped them: of curves of the public runs left out at random its 90 % intervals
    covered 57 to 98 %. Here the law is fitted anew without each fifth of the configurations (repeats together). The
    constants that curves calibrate are kept, so that it costs little: calibrated anew they asked for the same widths.

    Parameters
    ----------
    problem : Problem
        All m points.
    rows : (m,)
        The run of each.
    runs : RunTable
        The runs.
    basis, settings
        Those of the fit.
    """
    labels = np.unique(configurations(runs), return_inverse=True)[1]
    readings = problem.curve > 0 if (problem.curve > 0).any() else np.ones(len(rows), dtype=bool)
    logged = np.unique(labels[rows[readings]])
    if len(logged) < FEWEST:
        return None
    fold = np.full(labels.max() + 1, -1)  # runs without a curve stay
    fold[logged] = np.random.default_rng(0).permutation(len(logged)) % FOLDS
    of_point = fold[labels[rows]]
    parts: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    for number in range(min(FOLDS, len(logged))):
        out = of_point == number
        law, _ = fit_trend_field(_part(problem, ~out), basis.prior, settings, centre=basis.centre)
        law = replace(law, spread=1.0)
        for curve in (False, True):
            held = _part(problem, out & ((problem.curve > 0) == curve))
            if len(held.loss):
                point, _ = predict_trend_field(law, held.columns, held.coordinates, held.size, curve=curve)
                parts.append((np.log(held.loss / point.loss) ** 2, point.sd**2, point.noise**2))
    squares, model, noise = (np.concatenate(each) for each in zip(*parts, strict=True))
    return LeftOut(squares, model, noise, len(logged))
