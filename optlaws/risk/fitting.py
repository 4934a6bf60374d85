"""Fit the criterion to labelled runs.

One observation is a *row*: runs that differ in the peak rate only. Its threshold lies between the highest felt rate
that went well and the lowest that did not,

    ln u_c + source + cell + scatter z,   z ~ Normal(0, 1),

so a row says P(lower < threshold <= upper): runs of one row share their luck, and are no independent trials. All of
theta, the offsets of the sources and those of their (N, D) cells have normal priors; the maximum of the posterior is
found by Gauss-Newton, its covariance is the inverse of the Gauss-Newton Hessian, and the scatter is the one of highest
marginal likelihood (Laplace). `fit_risk` starts from the prior chosen by hand, or from a fitted model, whose theta is
then the prior: runs of one's own move the offset first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from optlaws.dynamics import Dynamics
from optlaws.dynamics.model import FloatArray
from optlaws.dynamics.solve import effective_decay
from optlaws.errors import FitError
from optlaws.risk.criterion import PARAMETERS, Prior, log_critical
from optlaws.risk.labels import run_labels
from optlaws.risk.model import RiskModel, known_runs, range_values, reach_values
from optlaws.risk.quantities import Quantities, quantities, strange
from optlaws.runs import RunTable

APART = 0.01  # ln u by which a row's bracket is widened where a run went well above one that did not
SCATTER = (0.02, 0.8)  # range of the scatter
STEPS = 200  # most Gauss-Newton steps
CLOSE = 1e-8  # largest change of a parameter at which the search ends


@dataclass(frozen=True, eq=False)
class Rows:
    """m rows: their brackets in ln u (may be infinite), quantities, and places of source and cell, each (m,)."""

    low: FloatArray
    high: FloatArray
    quantities: Quantities
    source: npt.NDArray[np.intp]
    cell: npt.NDArray[np.intp]
    sources: tuple[str, ...]
    cells: int


def usable(runs: RunTable) -> npt.NDArray[np.bool_]:
    """Return which runs can enter a fit, shape (n,): a known outcome, size and batch, and Adam or AdamW."""
    sized = np.isfinite(runs.size) & np.isfinite(runs.batch_tokens)
    return np.asarray(np.isfinite(run_labels(runs)) & sized & ~strange(runs))


def rows_of(runs: RunTable, dynamics: Dynamics) -> Rows:
    """Return the rows of labelled runs.

    Raises
    ------
    InputError
        A run has no size or batch, or a width that is no number above 0.
    TableError
        The table holds a `ScheduleBatch`.
    """
    q, label, batch = quantities(runs, dynamics), run_labels(runs), runs.batch()
    ln_u = np.log(q.felt)
    settings = (
        runs.size, q.width, runs.batch_tokens, runs.steps, batch.warmup_steps, effective_decay(runs), runs.beta1,
    )  # fmt: skip
    shape = [schedule.kind for schedule in runs.schedule_tuple()]
    keys = [
        (source, kind, *(f"{v:.6g}" for v in row))
        for source, kind, row in zip(runs.source, shape, np.stack(settings, axis=1).tolist(), strict=True)
    ]
    cells = [(s, f"{n:.6g}", f"{d:.6g}") for s, n, d in zip(runs.source, runs.size, runs.tokens, strict=True)]
    members: dict[tuple[str, ...], list[int]] = {}
    for i, key in enumerate(keys):
        members.setdefault(key, []).append(i)
    low, high, first = [], [], []
    for rows in members.values():
        u, bad = ln_u[rows], label[rows] > 0
        lower, upper = u[~bad].max(initial=-np.inf), u[bad].min(initial=np.inf)
        if lower >= upper:  # the order is broken: the threshold is somewhere between the two
            lower, upper = upper - APART, lower + APART
        low.append(lower)
        high.append(upper)
        first.append(rows[0])
    pick = np.array(first)
    names, source = np.unique([runs.source[i] for i in first], return_inverse=True)
    places = {cell: k for k, cell in enumerate(dict.fromkeys(cells[i] for i in first))}
    part = Quantities(**{name: getattr(q, name)[pick] for name in Quantities.__dataclass_fields__})
    return Rows(
        np.array(low), np.array(high), part, source, np.array([places[cells[i]] for i in first]),
        tuple(names.tolist()), len(places),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class RiskFit:
    """A fit to one or more sources.

    Attributes
    ----------
    mean, covariance : of theta and the offsets of `sources`, (7 + k,) and (7 + k, 7 + k).
    scatter : of ln u_c from row to row.
    evidence : ln of the marginal likelihood of the rows (Laplace) at that scatter, less its prior's
        (ln scatter - its median)^2 / 2 over its variance: what the scatter was chosen by. Constants of that prior are
        left out, so that fits of one `scatter_sd` alone can be compared.
    prior : what it started from.
    rows : number of rows.
    reach : ranges of `reach_values` among the runs.
    """

    mean: FloatArray
    covariance: FloatArray
    scatter: float
    evidence: float
    prior: Prior
    rows: int
    sources: tuple[str, ...]
    dynamics: Dynamics
    domain: dict[str, tuple[float, float]]
    typical: dict[str, float]
    reach: dict[str, tuple[float, float]]

    def model(self, source: str | None = None, **about: object) -> RiskModel:
        """Return the model for runs of one of the sources, or of a source not seen (None); `about` becomes its `info`.

        Raises
        ------
        FitError
            There is no such source.
        """
        k = len(PARAMETERS)
        if source is not None and source not in self.sources:
            raise FitError(
                f"source must be one of {', '.join(self.sources)}, got {source!r}; leave it out for a new one"
            )
        if source is None:
            pick = np.arange(k)
            mean = np.append(self.mean[pick], 0.0)
            covariance = np.zeros((k + 1, k + 1))
            covariance[:k, :k] = self.covariance[:k, :k]
            covariance[k, k] = self.prior.source_sd**2
        else:
            pick = np.append(np.arange(k), k + self.sources.index(source))
            mean, covariance = self.mean[pick], self.covariance[np.ix_(pick, pick)]
        return RiskModel(
            mean=mean,
            covariance=covariance,
            scatter=self.scatter,
            cell_sd=self.prior.cell_sd,
            source_sd=self.prior.source_sd,
            dynamics=self.dynamics,
            domain=self.domain,
            typical=self.typical,
            reach=self.reach,
            info=dict(about),
        )


def fit_risk(
    runs: RunTable, *, start: RiskModel | None = None, prior: Prior | None = None, dynamics: Dynamics | None = None
) -> RiskFit:
    """Fit the criterion to labelled runs of one or more sources.

    Parameters
    ----------
    runs : RunTable
        Those that `usable` refuses (no known outcome, params or batch_tokens, or another optimizer than Adam and AdamW)
        are left out; a missing beta1 counts as 0.9.
    start : RiskModel, optional
        A fitted model whose theta (not its offset) is the prior.
    prior : Prior, optional
        Default: `Prior()`.
    dynamics : Dynamics, optional
        Default: that of `start`, or the defaults.

    Raises
    ------
    FitError
        No run can be used.
    InputError
        A width is no number above 0.
    TableError
        The table holds a `ScheduleBatch`.
    """
    chosen = prior or Prior()
    units = dynamics or (start.dynamics if start else Dynamics())
    kept = usable(runs)
    if not kept.any():
        raise FitError(
            "runs must have at least one with a known outcome, params and batch_tokens and Adam or AdamW to"
            f" judge divergence by, got none of {len(runs)}; fill status, params and batch_tokens"
        )
    table = known_runs(runs.select(kept))
    rows = rows_of(table, units)
    k = len(PARAMETERS)
    if start is None:
        center, spread = np.array(chosen.mean), np.diag(np.square(chosen.sd))
    else:
        center, spread = start.mean[:k], start.covariance[:k, :k]
    offsets = np.concatenate([np.full(len(rows.sources), chosen.source_sd**2), np.full(rows.cells, chosen.cell_sd**2)])
    center = np.concatenate([center, np.zeros(len(offsets))])
    precision = np.zeros((len(center), len(center)))
    precision[:k, :k] = np.linalg.inv(spread)
    precision[np.arange(k, len(center)), np.arange(k, len(center))] = 1.0 / offsets
    state = center
    middle = start.scatter if start else chosen.scatter
    width = chosen.scatter_sd if start is None else 0.5 * chosen.scatter_sd

    def loss(ln_scatter: float) -> float:
        nonlocal state
        state, evidence, _ = _maximum(rows, float(np.exp(ln_scatter)), center, precision, state)
        return float(-evidence + 0.5 * ((ln_scatter - np.log(middle)) / width) ** 2)

    from scipy.optimize import minimize_scalar  # here, so that what only predicts does not load it

    found = minimize_scalar(loss, bounds=np.log(SCATTER), method="bounded", options={"xatol": 1e-3})
    scatter = float(np.exp(found.x))
    state, _, hessian = _maximum(rows, scatter, center, precision, state)
    covariance = np.linalg.inv(hessian)
    keep = k + len(rows.sources)
    return RiskFit(
        mean=state[:keep],
        covariance=0.5 * (covariance + covariance.T)[:keep, :keep],
        scatter=scatter,
        evidence=-float(found.fun),
        prior=chosen,
        rows=len(rows.low),
        sources=rows.sources,
        dynamics=units,
        domain=_joined(_ends(range_values(table, units)), start.domain if start else {}),
        typical=dict(start.typical) if start else _typical(table, units),
        reach=_ends(reach_values(rows.quantities, units)),
    )


def _maximum(
    rows: Rows, scatter: float, center: FloatArray, precision: FloatArray, state: FloatArray
) -> tuple[FloatArray, float, FloatArray]:
    """Return the maximum of the posterior, ln of its marginal likelihood, and the Gauss-Newton Hessian there."""
    from scipy.sparse import csr_matrix  # here, so that what only predicts does not load it

    k, m = len(PARAMETERS), len(rows.low)
    places = np.stack([rows.source, len(rows.sources) + rows.cell], axis=1)
    ends = np.arange(0, 2 * m + 1, 2)
    shared = csr_matrix((np.ones(2 * m), places.ravel(), ends), shape=(m, len(center) - k))

    def value(x: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        ln_u, slopes = log_critical(rows.quantities, x[:k])
        log_p, first, second = interval_terms(rows.low, rows.high, ln_u + shared @ x[k:], scatter)
        gap = x - center
        gradient = np.concatenate([slopes.T @ first, shared.T @ first]) - precision @ gap
        hessian = precision.copy()
        weighted = slopes * second[:, None]
        hessian[:k, :k] += weighted.T @ slopes
        border = shared.T @ weighted
        hessian[k:, :k] += border
        hessian[:k, k:] += border.T
        hessian[k:, k:] += (shared.T @ shared.multiply(second[:, None])).toarray()
        return float(log_p.sum() - 0.5 * gap @ precision @ gap), gradient, hessian

    top, gradient, hessian = value(state)
    for _ in range(STEPS):
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6:
            trial = value(state + size * step)
            if trial[0] >= top - 1e-12:
                break
            size *= 0.5
        else:
            break
        state = state + size * step
        top, gradient, hessian = trial
        if np.abs(size * step).max() < CLOSE:
            break
    evidence = top - 0.5 * np.linalg.slogdet(hessian)[1] + 0.5 * np.linalg.slogdet(precision)[1]
    return state, float(evidence), hessian


def interval_terms(
    low: FloatArray, high: FloatArray, mean: FloatArray, sd: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return ln P(low < mean + sd z <= high), its slope by the mean, and minus its curvature, each (m,)."""
    a, b = (low - mean) / sd, (high - mean) / sd
    flip = a + b > 0  # work in the lower tail, where logarithms keep their digits
    left, right = np.where(flip, -b, a), np.where(flip, -a, b)
    upper, lower = log_ndtr(right), log_ndtr(left)
    log_p = upper + np.log1p(-np.exp(np.minimum(lower - upper, -1e-12)))
    ends = [np.where(np.isfinite(z), z, 0.0) for z in (a, b)]
    density = [
        np.where(np.isfinite(z), np.exp(np.minimum(-0.5 * e**2 - log_p, 700.0)) / np.sqrt(2.0 * np.pi), 0.0)
        for z, e in zip((a, b), ends, strict=True)
    ]
    slope = density[0] - density[1]
    bend = slope**2 - (ends[0] * density[0] - ends[1] * density[1])
    return log_p, slope / sd, np.clip(bend, 1e-9, None) / sd**2


def _joined(
    ranges: dict[str, tuple[float, float]], others: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Return ranges that hold both."""
    return {
        k: (min(low, others.get(k, (low,))[0]), max(high, others.get(k, (high,))[-1]))
        for k, (low, high) in ranges.items()
    }


def _ends(values: Mapping[str, FloatArray]) -> dict[str, tuple[float, float]]:
    return {name: (float(column.min()), float(column.max())) for name, column in values.items()}


def _typical(runs: RunTable, dynamics: Dynamics) -> dict[str, float]:
    """Return the medians over the runs that went well and felt most: what a run's drivers are measured against."""
    good = run_labels(runs) == 0
    if not good.any():
        good = ~good
    felt = quantities(runs, dynamics).felt
    chosen = good & (felt >= np.median(felt[good]))
    return {name: float(np.median(values[chosen])) for name, values in range_values(runs, dynamics).items()}
