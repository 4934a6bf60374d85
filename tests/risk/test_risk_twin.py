"""The fit of the divergence risk against its posterior written out densely, and what a fit takes from another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_risk import grid
from scipy.stats import norm

from optlaws.dynamics import Dynamics
from optlaws.risk import PARAMETERS, Prior, fit_risk, quantities, run_labels
from optlaws.risk.criterion import log_critical
from optlaws.risk.fitting import _maximum, rows_of
from optlaws.risk.model import range_values

K = len(PARAMETERS)
UNITS = Dynamics()


@pytest.fixture(scope="module")
def runs():
    """Rows of two sources, three batches of one size and two lengths each."""
    both = grid(sources=("a", "b"), offsets=(-0.05, 0.05), beta1=(0.9,))
    return both.select((both.size == 2e8) & (both.steps <= 20000))


@pytest.fixture(scope="module")
def fit(runs):
    return fit_risk(runs)


class Twin:
    """Rows one at a time, normal integrals by SciPy, slopes by differences."""

    def __init__(self, runs, center, spread, prior):
        self.rows = rows_of(runs, UNITS)
        kinds = len(self.rows.sources), self.rows.cells
        offsets = np.repeat([prior.source_sd, prior.cell_sd], kinds) ** -2.0
        self.center = np.concatenate([center, np.zeros(len(offsets))])
        self.precision = np.zeros((len(self.center), len(self.center)))
        self.precision[:K, :K] = np.linalg.inv(spread)
        self.precision[K:, K:] = np.diag(offsets)

    def threshold(self, x):
        r = self.rows
        return log_critical(r.quantities, x[:K])[0] + x[K + r.source] + x[K + len(r.sources) + r.cell]

    def log_p(self, mean, scatter):
        low, high = (self.rows.low - mean) / scatter, (self.rows.high - mean) / scatter
        return np.log(np.where(low < 0, norm.cdf(high) - norm.cdf(low), norm.sf(low) - norm.sf(high)))

    def height(self, x, scatter):
        gap = x - self.center
        return self.log_p(self.threshold(x), scatter).sum() - 0.5 * gap @ self.precision @ gap

    def hessian(self, x, scatter, step=1e-4):
        """Gauss-Newton: the curvature by the threshold's mean, the threshold itself taken for linear."""
        mean = self.threshold(x)
        high, here, low = (self.log_p(mean + s * step, scatter) for s in (1.0, 0.0, -1.0))
        slopes = np.stack([self.threshold(x + e) - self.threshold(x - e) for e in 1e-5 * np.eye(len(x))]) / 2e-5
        return (slopes * (2.0 * here - high - low) / step**2) @ slopes.T + self.precision

    def evidence(self, x, scatter):
        curved = np.linalg.slogdet(self.hessian(x, scatter))[1] - np.linalg.slogdet(self.precision)[1]
        return self.height(x, scatter) - 0.5 * curved


@pytest.fixture(scope="module")
def twin(runs):
    return Twin(runs, np.array(Prior().mean), np.diag(np.square(Prior().sd)), Prior())


@pytest.mark.parametrize("scatter", [0.03, 0.2])
def test_the_maximum_its_curvature_and_its_evidence(twin, scatter):
    state, evidence, hessian = _maximum(twin.rows, scatter, twin.center, twin.precision, twin.center)
    sds = np.sqrt(np.diag(np.linalg.inv(hessian)))
    for place, sd in enumerate(sds):  # a tenth of a standard deviation away on either side it is lower, and alike
        ends = [twin.height(state + side * 0.1 * sd * np.eye(len(state))[place], scatter) for side in (-1.0, 1.0)]
        assert max(ends) < twin.height(state, scatter)
        assert ends[0] == pytest.approx(ends[1], abs=2e-3)
    np.testing.assert_allclose(hessian, twin.hessian(state, scatter), rtol=1e-3, atol=1e-3 * hessian.diagonal().min())
    assert evidence == pytest.approx(twin.evidence(state, scatter), abs=1e-3)


def test_the_scatter_is_the_most_probable_one(fit, twin):
    """Normal in ln scatter; means and covariances are those at it, of theta and of the sources."""

    def profile(scatter):
        state, evidence, hessian = _maximum(twin.rows, scatter, twin.center, twin.precision, twin.center)
        far = np.log(scatter / Prior().scatter) / Prior().scatter_sd
        return evidence - 0.5 * far**2, state, np.linalg.inv(hessian)

    top, state, covariance = profile(fit.scatter)
    assert fit.evidence == pytest.approx(top, abs=1e-6)
    assert max(profile(fit.scatter * factor)[0] for factor in (0.97, 1.03)) < top
    np.testing.assert_allclose(fit.mean, state[: K + 2], atol=1e-6)
    np.testing.assert_allclose(fit.covariance, covariance[: K + 2, : K + 2], rtol=1e-4, atol=1e-9)


def test_a_fit_from_another_has_its_theta_for_a_prior_and_half_the_width_of_its_scatter(runs, fit):
    """The offset of the source starts anew at 0; ranges are those of both."""
    start = fit.model("a")
    start = replace(start, domain={**start.domain, "peak_lr": (1e-4, 3e-3), "params": (1e9, 2e9)})
    own = runs.select(np.array([source == "b" for source in runs.source]))
    found = fit_risk(own, start=start)
    twin = Twin(own, start.mean[:K], start.covariance[:K, :K], Prior())

    def profile(scatter):
        state, evidence, _ = _maximum(twin.rows, scatter, twin.center, twin.precision, twin.center)
        return evidence - 0.5 * (np.log(scatter / start.scatter) / (0.5 * Prior().scatter_sd)) ** 2, state

    top, state = profile(found.scatter)
    assert found.evidence == pytest.approx(top, abs=1e-6)
    assert max(profile(found.scatter * factor)[0] for factor in (0.97, 1.03)) < top
    np.testing.assert_allclose(found.mean, state[: K + 1], atol=1e-6)
    peaks = np.asarray(own.batch().peak)
    assert found.domain["peak_lr"] == pytest.approx((1e-4, peaks.max()))
    assert found.domain["params"] == pytest.approx((2e8, 2e9))
    assert found.typical == start.typical


def test_typical_runs_are_those_that_went_well_and_felt_most(runs, fit):
    good = run_labels(runs) == 0
    felt = quantities(runs, UNITS).felt
    most = good & (felt >= np.median(felt[good]))
    assert 0 < most.sum() < good.sum() < len(runs)
    expected = {name: float(np.median(values[most])) for name, values in range_values(runs, UNITS).items()}
    assert fit.typical == pytest.approx(expected)
    blown = fit_risk(runs.select(~good))
    assert blown.typical["peak_lr"] >= np.median(np.asarray(runs.batch().peak)[~good])


def test_the_units_are_those_that_are_asked_for(runs, fit):
    other = Dynamics(kappa=2.0 * UNITS.kappa)
    for start in (None, fit.model("a")):
        assert fit_risk(runs.select(slice(0, 24)), start=start, dynamics=other).dynamics == other
    assert fit_risk(runs.select(slice(0, 24)), start=replace(fit.model("a"), dynamics=other)).dynamics == other
