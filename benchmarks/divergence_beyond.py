"""How sure the risk model is beyond the runs that it was fitted on: half of the values of a quantity held out, in turn.

The likelihood of the labels held out, over the posterior, with and without a further standard deviation of
ln u_c for every factor of e by which a run lies beyond the reach of those fitted (`FAR`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from divergence_runs import load_wide, steplaw

from optlaws import load_law, load_sweep, with_risk
from optlaws.dynamics import Dynamics
from optlaws.errors import OptlawsWarning
from optlaws.risk import PARAMETERS, RiskModel, fit_risk, usable
from optlaws.risk.criterion import log_critical
from optlaws.risk.fitting import interval_terms, rows_of
from optlaws.risk.model import SLACK_OF_REACH, known_runs, range_values, reach_values
from optlaws.runs import RunTable

SWEEPS = ("cpu_sweep", "cpu_sweep_long", "cpu_sweep_rich", "cpu_sweep_wide", "cpu_sweep_repeats", "cpu_sweep_seeds")
QUANTITIES = {
    "params": "params",
    "steps": "high_steps",
    "batch_tokens": "batch_tokens",
}  # column split: its reach
WIDTHS = (0.0, 0.02, 0.04, 0.06, 0.1)
FEWEST = (20, 8)  # runs fitted and held out
Fit = Callable[[RunTable], RiskModel]


@dataclass(frozen=True)
class Part:
    """Rows held out.

    Attributes
    ----------
    public : a part of the public runs, not of our sweeps.
    low, high : (m,) brackets of the rows in ln u, less the ln u_c that the model expects.
    slopes : (m, 8) of ln u_c by what the model does not know, in units of its posterior (independent, sd 1 each).
    beyond : how far out of reach the rows lie above and below, in factors of e, by quantity, (m, 2).
    sd : from row to row.
    """

    public: bool
    low: np.ndarray
    high: np.ndarray
    slopes: np.ndarray
    beyond: dict[str, np.ndarray]
    sd: float

    def score(self, quantity: str, width: float) -> float:
        """Return ln of the likelihood of the labels (Laplace), with a slope of sd `width` to either side."""
        slopes = np.concatenate([self.slopes, width * self.beyond[quantity]], axis=1)
        state = np.zeros(slopes.shape[1])

        def value(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
            ln_p, first, second = interval_terms(self.low, self.high, slopes @ x, self.sd)
            return float(ln_p.sum() - 0.5 * x @ x), slopes.T @ first - x, (slopes.T * second) @ slopes + np.eye(len(x))

        top, gradient, hessian = value(state)
        for _ in range(200):
            step = np.linalg.solve(hessian, gradient)
            while value(state + step)[0] < top - 1e-12 and np.abs(step).max() > 1e-9:
                step = 0.5 * step
            state = state + step
            top, gradient, hessian = value(state)
            if np.abs(step).max() < 1e-8:
                break
        return top - 0.5 * float(np.linalg.slogdet(hessian)[1])


def held_out(public: bool, train: RunTable, test: RunTable, fit: Fit) -> Part:
    """Fit to one part and return the other."""
    model = fit(train)
    seen, rows = rows_of(known_runs(train), model.dynamics), rows_of(known_runs(test), model.dynamics)
    ln_u, slopes = log_critical(rows.quantities, model.mean[: len(PARAMETERS)])
    slopes = np.concatenate([slopes, np.ones((len(ln_u), 1))], axis=1)
    center = ln_u + model.mean[-1]
    root = np.linalg.cholesky(model.covariance)
    beyond = {}
    for name, key in QUANTITIES.items():
        fitted, asked = (np.log(reach_values(r.quantities, model.dynamics)[key]) for r in (seen, rows))
        sides = np.stack([asked - fitted.max(), fitted.min() - asked], axis=1)
        beyond[name] = np.maximum(sides - np.log(SLACK_OF_REACH), 0.0)
    sd = float(np.hypot(model.scatter, model.cell_sd))
    return Part(public, rows.low - center, rows.high - center, slopes @ root, beyond, sd)


def halves(public: bool, runs: RunTable, fit: Fit) -> Iterator[Part]:
    """Hold out the runs above, then those below, the middle of the values of each quantity."""
    runs = runs.select(usable(runs))
    for name in QUANTITIES:
        values = np.log(range_values(known_runs(runs), Dynamics())[name])
        steps = np.unique(np.round(values, 6))
        for test in (values > steps[(len(steps) - 1) // 2] + 1e-5, values < steps[len(steps) // 2] - 1e-5):
            if (~test).sum() >= FEWEST[0] and test.sum() >= FEWEST[1]:
                yield held_out(public, runs.select(~test), runs.select(test), fit)


def parts() -> list[Part]:
    """Return all halves, of the public runs by their own source, and of our sweeps as `optlaws fit` fits them."""
    dense, marin = (runs.select(usable(runs)) for runs in (steplaw(), load_wide("marin")))
    law = load_law("steplaw-dense")

    def public_fit(runs: RunTable) -> RiskModel:
        return fit_risk(replace(runs, source=("public",) * len(runs))).model("public")

    def new_source(runs: RunTable) -> RiskModel:
        return fit_risk(runs).model()

    def own_fit(runs: RunTable) -> RiskModel:
        risk = with_risk(law, runs).risk
        assert risk is not None
        return risk

    out = [*halves(True, dense, public_fit), *halves(True, marin, public_fit)]
    out += [held_out(True, dense, marin, new_source), held_out(True, marin, dense, new_source)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptlawsWarning)
        for name in SWEEPS:
            out += halves(False, load_sweep(name)[0], own_fit)
    return out


def beyond_rows() -> list[list[str]]:
    """Return quantity, which runs and how many parts, and what each width adds to ln of the likelihood."""
    found, rows = parts(), []
    for quantity in QUANTITIES:
        for public, words in ((True, "public"), (False, "our sweeps")):
            mine = [p for p in found if p.public == public and p.beyond[quantity].max() > 0]
            if mine:
                scores = np.array([[p.score(quantity, width) for width in WIDTHS] for p in mine]).sum(axis=0)
                added = (f"{value:+.2f}" for value in scores[1:] - scores[0])
                rows.append([quantity, words, f"{len(mine)}", f"{scores[0]:.1f}", *added])
    return rows


if __name__ == "__main__":
    for row in beyond_rows():
        print("  ".join(row))
