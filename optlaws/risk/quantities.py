"""Dimensionless quantities of a run from which its divergence risk is judged; theory/stability.py derives them.

The network feels u = x / R, the scaled rate over the weight norm (`optlaws.dynamics`). Over a warm-up the norm grows
with the squared rate, so that u has a maximum: for a linear warm-up of W steps to the peak x_p, weight decay left out,

    R^2 = 1 + c (t / W)^3,  c = kappa x_p^2 W / 3,  highest u = x_p 2^(1/3) 3^(-1/2) c^(-1/3) at t = W (2 / c)^(1/3)

where c >= 2, that is (2 x_p / (3^(1/2) kappa W))^(1/3): it depends on the slope x_p / W of the warm-up alone. With a
shorter or gentler one u is highest at its end, x_p (1 + c)^(-1/2), and without a warm-up it is x_p at the first step;
at a constant rate eta it settles at (2 wd eta / kappa)^(1/2), which is the highest where it lies above these. The code
follows R cell by cell, whatever c is.

How wide the network is (d_model, column `width` of a run table) counts relative to what is usual for its size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optlaws.dynamics import Drive, Dynamics, drive, weight_norm
from optlaws.dynamics.model import FloatArray, family
from optlaws.dynamics.solve import spread_over_threads
from optlaws.errors import InputError
from optlaws.runs import RunTable
from optlaws.runs._optimizers import USUAL_OPTIMIZER
from optlaws.schedules import Cells, cells

SPLIT = 8  # parts of a cell in which the rate rises: 48 over a linear warm-up, where u changes fast
INSIDE = (0.25, 0.5, 0.75)  # places in a cell at which u is looked at beside its ends
PIECE = 512  # runs per pass
BLOCK = 4096  # runs per task of a thread

WIDTH = "width"
"""Column of a run table with the width of the residual stream, d_model; it may be absent or empty."""

USUAL_WIDTH = 800.0
"""Width of a model of params_ref parameters whose width is 64 times its depth, 12 depth width^2 = params_ref."""


@dataclass(frozen=True, eq=False)
class Quantities:
    """Quantities of n runs, arrays of shape (n,).

    Attributes
    ----------
    felt : highest felt rate u = x / R of the run, dimensionless.
    at : steps done when it is felt.
    high : steps with a rate of at least half the peak rate, in steps_ref.
    n, b : active parameters in params_ref, tokens a step in batch_ref.
    slack : 1 - beta1 over that of AdamW's usual 0.9: 1 / slack is the memory of the momentum in tens of steps.
    width : width over the usual one of a model of its size, `USUAL_WIDTH` n^(1/3); 1 where it is not known.
    """

    felt: FloatArray
    at: FloatArray
    high: FloatArray
    n: FloatArray
    b: FloatArray
    slack: FloatArray
    width: FloatArray

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.felt)


def strange(runs: RunTable) -> npt.NDArray[np.bool_]:
    """Return which runs have an optimizer whose risk is not known, any but Adam and AdamW, (n,)."""
    known = {name: family(name) != USUAL_OPTIMIZER for name in set(runs.optimizer)}
    return np.array([known[name] for name in runs.optimizer], dtype=bool)


def relative_width(runs: RunTable, n: FloatArray) -> FloatArray:
    """Return the width of each run's network over the usual one of its size, 1 where no width is given, (m,).

    Parameters
    ----------
    runs : RunTable
        m runs; the column `width` is looked at, if there is one.
    n : (m,) array
        Sizes in params_ref.

    Raises
    ------
    InputError
        A width that is no number above 0.
    """
    out = np.ones(len(runs))
    for i, text in enumerate(runs.extra.get(WIDTH, ())):
        if not text.strip():
            continue
        try:
            value = float(text)
        except ValueError:
            value = np.nan
        if not 0.0 < value < np.inf:
            raise InputError(
                f"width of run {runs.run_id[i]!r} must be a number above 0 (d_model), got {text!r};"
                " correct it or leave it empty"
            )
        out[i] = value / (USUAL_WIDTH * n[i] ** (1.0 / 3.0))
    return out


def quantities(runs: RunTable, dynamics: Dynamics, *, threads: int | None = None) -> Quantities:
    """Return the quantities of n runs whose sizes, batches and beta1 are known.

    Parameters
    ----------
    runs : RunTable
        `params` (or `active_params`), `batch_tokens` and `beta1` must be there; weight decay defaults to AdamW's.
    dynamics : Dynamics
        Constants of the norm equation and units.
    threads : int, optional
        Default: one per processor.

    Raises
    ------
    InputError
        A size or batch is missing, a width is no number above 0, or `threads` is no whole number above 0.

    Notes
    -----
    NaN for the slack of a run without beta1; the module's text has the formulas (theory/stability.py).
    """
    batch, every = runs.batch(), drive(runs, dynamics)
    out = {name: np.empty(len(runs)) for name in ("felt", "at", "high")}

    def work(start: int) -> None:
        rows = np.arange(start, min(start + BLOCK, len(runs)))
        for index, grid in cells(batch[rows], chunk=PIECE):
            felt, at, high = of_cells(grid, every.take(rows[index]), dynamics)
            for name, values in (("felt", felt), ("at", at), ("high", high)):
                out[name][rows[index]] = values

    spread_over_threads(work, range(0, len(runs), BLOCK), threads)
    slack, width = (1.0 - runs.beta1) / 0.1, relative_width(runs, every.n)
    return Quantities(n=every.n, b=every.b, slack=slack, width=width, **out)


def of_cells(grid: Cells, run: Drive, dynamics: Dynamics) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the highest felt rate, the step at which it is felt, and the steps (steps_ref) at a high rate, each (n,).

    The highest of the values at the cells' ends, or inside the two cells beside it, where u is taken for the cubic
    with the values and slopes of its ends, u' = x' / R - x (R^2)' / (2 R^3).
    """
    grid = _refined(grid)
    norm = weight_norm(grid, run, dynamics)
    scale = dynamics.rate_scale(run.n)
    u = np.stack([grid.left / norm[:, :-1], grid.right / norm[:, 1:]], axis=2) * scale[:, None, None]
    row = np.arange(len(scale))
    top = u.reshape(len(row), -1).argmax(axis=1)
    cell, end = top // 2, top % 2
    best, at = u[row, cell, end], grid.edges[row, cell + end]
    for beside in (cell, np.clip(cell + 2 * end - 1, 0, norm.shape[1] - 2)):
        width = grid.edges[row, beside + 1] - grid.edges[row, beside]
        left, right = grid.left[row, beside] * scale, grid.right[row, beside] * scale
        value, slope = [], []
        for x, r in ((left, norm[row, beside]), (right, norm[row, beside + 1])):
            growth = dynamics.kappa * x**2 - 2.0 * run.weight_decay * (x / scale) * r**2
            value.append(x / r)
            slope.append((right - left - 0.5 * width * x * growth / r**2) / r)
        for s in INSIDE:
            t = 1.0 - s
            inside = t * t * ((1 + 2 * s) * value[0] + s * slope[0]) + s * s * ((1 + 2 * t) * value[1] - t * slope[1])
            better = (slope[0] > 0) & (slope[1] < 0) & (inside > best)
            best = np.where(better, inside, best)
            at = np.where(better, grid.edges[row, beside] + s * width, at)
    return best, at, _steps_high(grid) / dynamics.steps_ref


def _refined(grid: Cells) -> Cells:
    """Return the cells with those in which the rate of some run rises cut into `SPLIT` parts of linear rate."""
    parts = np.where((grid.right > grid.left).any(axis=0), SPLIT, 1)
    if parts.max() == 1:
        return grid
    cell = np.repeat(np.arange(len(parts)), parts)
    first = np.cumsum(parts) - parts
    low = (np.arange(len(cell)) - first[cell]) / parts[cell]
    top = low + 1.0 / parts[cell]
    left, climb = grid.left[:, cell], (grid.right - grid.left)[:, cell]
    edges = np.concatenate([grid.edges[:, cell] + low * grid.width[:, cell], grid.edges[:, -1:]], axis=1)
    begin, end = left + low * climb, left + top * climb
    mean = np.where(parts[cell] > 1, 0.5 * (begin + end), grid.mean[:, cell])
    return Cells(edges, begin, mean, end)


def _steps_high(grid: Cells) -> FloatArray:
    """Return the steps with a rate of at least half the highest, shape (n,); the rate is linear within a cell."""
    half = 0.5 * np.maximum(grid.left, grid.right).max(axis=1, keepdims=True)
    low, top = np.minimum(grid.left, grid.right), np.maximum(grid.left, grid.right)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(top > low, (top - half) / (top - low), top >= half)
    out: npt.NDArray[np.float64] = (np.clip(share, 0.0, 1.0) * grid.width).sum(axis=1)
    return np.maximum(out, 1.0)
