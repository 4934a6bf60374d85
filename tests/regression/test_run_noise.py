"""Noise that grows with damage, offsets of sizes that no run had, and the evidence of reweighted fits."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from made_runs import plan, with_losses
from naive_kriging import prior_sds, residual_covariance
from test_trend_field import PRIOR, make, predict

import optlaws
from optlaws import RunTable, fit_law, parse
from optlaws._normal import NORMAL_90
from optlaws.features import basis_ids, feature_table, get_basis
from optlaws.law.calibrate import Evidence
from optlaws.law.fitting import _Fit
from optlaws.law.outliers import outliers
from optlaws.regression import Settings, fit_trend_field
from optlaws.regression.run_noise import NEGLIGIBLE, _Search, choose_noise
from optlaws.regression.trend_field import expected_loss, trend_evidence
from optlaws.runs import read_runs
from optlaws.validation import configurations

DATA = Path(optlaws.__file__).parent / "data"
STEADY = Settings(robust=1e9, rounds=8, noise_grid=(0.0012,), growth_grid=(1.0,))  # no weights; damage to convergence


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_a_new_run_scatters_as_its_share_of_damage_says(rng):
    """Variance = noise^2 (1 + (share / growth)^2) + spike share by the peak, one run and one column at a time."""
    problem, _ = make(rng, 40)
    posterior, _ = fit_trend_field(replace(problem, damage_columns=(3, 4), peak_columns=(4,)), PRIOR, Settings())
    new, _ = make(rng, 9)
    point, _ = predict(posterior, new)
    for i in range(9):
        share = sum(posterior.coefficients[j] * new.columns[i, j] for j in (3, 4)) / point.loss[i]
        peak = posterior.coefficients[4] * new.columns[i, 4] / point.loss[i]
        variance = posterior.noise**2 * (1.0 + (share / posterior.growth) ** 2) + posterior.spike * peak
        assert point.noise[i] == pytest.approx(np.sqrt(variance), rel=1e-12)
    assert point.noise.max() > 1.1 * point.noise.min()
    plain, _ = fit_trend_field(problem, PRIOR, Settings())
    assert np.ptp(predict(plain, new)[0].noise) == 0.0


def drawn(rng, n, noise, growth, field_sd=0.006):
    """A problem as of `make` whose noise grows with the share of its columns 3 and 4, and these shares."""
    problem, expected = make(rng, n, noise=0.0, sizes=(1.0,))
    share = problem.columns[:, [3, 4]] @ [0.7, 0.01] / expected
    loss = expected * np.exp(noise * np.hypot(1.0, share / growth) * rng.standard_normal(n))
    return replace(problem, loss=loss, damage_columns=(3, 4))


@pytest.mark.parametrize(("noise", "growth"), [(0.0012, 0.2), (0.0012, 0.025), (0.0035, 0.05), (0.0007, 0.0125)])
def test_the_noise_of_damaged_runs_is_found(noise, growth):
    """In problems drawn from the model itself, at a damage of a tenth of the loss."""
    found = [
        fit_trend_field(drawn(np.random.default_rng(seed), 300, noise, growth), PRIOR, Settings()) for seed in range(8)
    ]
    sds = np.array([posterior.noise * np.hypot(1.0, 0.1 / posterior.growth) for posterior, _ in found])
    assert np.exp(np.log(sds / (noise * np.hypot(1.0, 0.1 / growth))).mean()) == pytest.approx(1.0, abs=0.15)


def test_the_noise_is_the_mean_over_its_posterior(rng):
    """Dense normal densities at every place of the grids, and the means of the variances over all of them."""
    problem, settings = drawn(rng, 40, 0.002, 0.05), Settings()
    peaks = problem.columns[:, 4] * 0.01 / problem.loss
    x = problem.columns / problem.loss[:, None] * prior_sds(problem, PRIOR)
    k = residual_covariance(problem, settings, 0.0, settings.field_sd)
    share = problem.columns[:, [3, 4]] @ [0.7, 0.01] / problem.loss
    residual = rng.multivariate_normal(np.zeros(40), k + x @ x.T + np.diag(4e-6 * (1.0 + (share / 0.05) ** 2)))
    whole = np.linalg.cholesky(k + 1e-12 * np.eye(40))
    found = choose_noise(residual, np.hstack([whole, x]), np.zeros(40), np.ones(40), share, peaks, 0.0003, settings)
    density, variances = [], []
    multiples = settings.noise_growth * np.array(settings.growth_grid)
    for noise, growth, spike in product(settings.noise_grid, multiples, settings.spike_grid):
        covariance = k + x @ x.T + np.diag(noise**2 * (1.0 + (share / growth) ** 2) + spike * peaks)
        _, logdet = np.linalg.slogdet(covariance)
        away = [np.log(noise / 0.001) / 0.7, np.log(growth / 0.1) / 0.7, np.log(spike / 0.001) / 1.5]
        density.append(-0.5 * (residual @ np.linalg.solve(covariance, residual) + logdet + np.dot(away, away)))
        variances.append([noise**2, (noise / growth) ** 2, spike])
    weight = np.exp(np.array(density) - max(density))
    plain, damaged, spike = weight @ np.array(variances) / weight.sum()
    assert found[:2] == pytest.approx((np.sqrt(plain), np.sqrt(plain / damaged)), rel=0.02)
    assert found[2] == pytest.approx(spike, rel=0.05)


@pytest.mark.parametrize("stiff", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("start", [(1.0, 1.0, 1.0), (1e3, 1e3, 1.0), (1e3, 1.0, 1e3)])
def test_the_search_ends_at_the_highest_place_of_its_lattice(stiff, start):
    """On a ridge across the axes, whose places no neighbour along an axis overtops; all places as the naive twin."""

    def ridge(at):
        x, y, z = np.log(at)
        return -stiff * (x - y) ** 2 - 0.3 * (x + y - 8.0) ** 2 - 0.5 * (z - 3.0) ** 2

    search = _Search([np.geomspace(1.0, 1e3, 7) for _ in range(3)], ridge)
    found = search.probable(start)
    places = list(product(*(range(len(axis)) for axis in search.axes)))
    heights = np.array([ridge(search.values(place)) for place in places])
    assert search.height(found[-1]) == heights.max()
    assert {at for at, h in zip(places, heights, strict=True) if h > heights.max() - 2.0} <= set(found)
    assert (heights > heights.max() - NEGLIGIBLE).sum() >= len(found)


def spiked(rng, peaks, left):
    """Damage (n,) by a Poisson number of spikes that leave shares of the loss from 0 to `left`; `peaks` on average."""
    return np.array([(left * rng.random(count)).sum() for count in rng.poisson(peaks / (left / 2.0))])


def spiky(rng, n, left):
    """A problem whose column 4 is damage by spikes."""
    problem, expected = make(rng, n, noise=0.0, sizes=(1.0,))
    columns = problem.columns.copy()
    columns[:, 4] = rng.lognormal(0.0, 1.0, n)
    factor = (1.0 + spiked(rng, 0.003 * columns[:, 4], left)) * np.exp(0.001 * rng.standard_normal(n))
    loss = (expected - problem.columns[:, 4] * 0.01) * factor
    return replace(problem, columns=columns, loss=loss, damage_columns=(3, 4), peak_columns=(4,))


@pytest.mark.parametrize("left", [0.0015, 0.006])
def test_damage_by_spikes_scatters_as_a_poisson_number_of_them(left):
    """The factor is E J^2 / E J, 2/3 of `left` where shares J are uniform: in draws, and as laws tell it."""
    peaks = np.full(40_000, 0.003)
    assert np.var(spiked(np.random.default_rng(0), peaks, left)) / 0.003 == pytest.approx(2.0 / 3.0 * left, rel=0.05)
    ratios = []
    for seed in range(8):
        problem = spiky(np.random.default_rng([seed, 1]), 300, left)
        posterior, _ = fit_trend_field(problem, PRIOR, Settings())
        told = predict(posterior, problem)[0].noise
        true = np.sqrt(1e-6 + 2.0 / 3.0 * left * 0.003 * problem.columns[:, 4])
        most = problem.columns[:, 4] > np.quantile(problem.columns[:, 4], 0.8)
        ratios.append([np.log(told / true)[which].mean() for which in (most, ~most)])
    assert np.exp(np.mean(ratios, axis=0)) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("noise", [0.0009, 0.0015, 0.0027])
def test_a_noise_between_two_places_of_the_grid_is_found(rng, noise):
    """Many runs say it more exactly than the grid is fine; without halving it would be at a place, a fifth away."""
    n, z, settings = 600, np.zeros(600), Settings()
    residual = noise * rng.standard_normal(n)
    found, _, _ = choose_noise(residual, np.zeros((n, 1)), z, z + 1.0, z, z, 0.001, settings)
    assert found == pytest.approx(np.sqrt(np.mean(residual**2)), rel=0.05)


@pytest.mark.parametrize("noise", [0.001, 0.003])
@pytest.mark.parametrize("count", [30, 60, 120])
def test_the_noise_of_few_runs_is_not_told_too_small(noise, count):
    """Problems drawn from the model itself: mean ratio to the truth, and cover of new seeds of runs that were seen."""
    ratios, inside = [], []
    for seed in range(36):
        problem, expected = make(np.random.default_rng([seed, count]), count, noise=noise, sizes=(1.0,))
        posterior, _ = fit_trend_field(problem, PRIOR, Settings())
        point, _ = predict(posterior, problem)
        again = expected * np.exp(noise * np.random.default_rng([seed, 1]).standard_normal(count))
        ratios.append(posterior.noise / noise)
        inside.append(np.mean(np.abs(np.log(again / point.loss)) < NORMAL_90 * np.hypot(point.sd, point.noise)))
    assert 0.75 < np.exp(np.mean(np.log(ratios))) < 1.6
    assert np.mean(inside) > 0.8


def test_the_noise_of_the_sweeps_with_most_repeats_is_what_these_show():
    """The law is not told which runs repeat which; docs/residuals.md has the other sweeps."""
    for name in ("cpu_sweep_seeds", "cpu_sweep_repeats"):
        runs = read_runs(DATA / name / "runs.csv")
        runs = runs.select(np.isfinite(runs.final_loss) & np.array([s == "completed" for s in runs.status]))
        p, label = fit_law(runs).predict(runs), configurations(runs)
        squares, freedom = 0.0, 0
        for value in np.unique(label):
            mine = label == value
            if mine.sum() > 1:
                squares += np.sum((np.log(runs.final_loss[mine]) - np.log(runs.final_loss[mine]).mean()) ** 2) / (
                    np.mean(p.noise[mine] / p.loss[mine]) ** 2
                )
                freedom += int(mine.sum()) - 1
        assert freedom > 200
        assert np.sqrt(squares / freedom) == pytest.approx(1.0, abs=0.1)  # 0.74 and 0.78 with the trend's scatter


def test_a_fit_trusts_damaged_runs_less(rng):
    """It is the fit to the same runs whose noise variances are told from the start, growth put into the shares."""
    problem, _ = make(rng, 40)
    problem = replace(problem, damage_columns=(3, 4))
    found, _ = fit_trend_field(problem, PRIOR, STEADY)
    share = problem.columns[:, [3, 4]] @ found.coefficients[[3, 4]] / problem.loss
    told = replace(problem, share=1.0 + (share / STEADY.noise_growth) ** 2, damage_columns=())
    twin, _ = fit_trend_field(told, PRIOR, STEADY)
    unaware, _ = fit_trend_field(replace(problem, damage_columns=()), PRIOR, STEADY)
    new, _ = make(rng, 20)
    (a, _), (b, _), (other, _) = (predict(p, new) for p in (found, twin, unaware))
    np.testing.assert_allclose(a.loss, b.loss, rtol=1e-7)
    np.testing.assert_allclose(a.sd, b.sd, rtol=1e-5)
    assert np.abs(a.loss / other.loss - 1).max() > 1e-4


def test_groups_that_agree_do_not_make_a_new_size_surer(rng):
    """Runs of known sizes say nothing of how far off a new size may lie; groups that disagree do widen it."""
    problem, _ = make(rng, 40)
    posterior, _ = fit_trend_field(problem, PRIOR, Settings())
    size_sd = posterior.settings.size_sd
    unseen = replace(problem, size=problem.size + 5.0)

    def offset_variance(spread):
        return predict(replace(posterior, spread=spread), unseen)[0].sd ** 2

    usual, narrow, wide = (offset_variance(spread) for spread in (1.0, 0.4, 2.0))
    assert (narrow >= size_sd**2).all()
    np.testing.assert_allclose(narrow - size_sd**2, 0.16 * (usual - size_sd**2), rtol=1e-9)
    np.testing.assert_allclose(wide, 4.0 * usual, rtol=1e-9)


def soft_evidence(problem, prior, settings):
    """Log evidence without a field: scatter by soft-L1 weights of a first fit, Laplace in the active coefficients."""
    x = problem.columns / problem.loss[:, None]
    noise, sds = settings.noise_grid[0], prior_sds(problem, prior)

    def fit(weight, x, target):
        a = np.vstack([np.sqrt(weight)[:, None] * x / noise, np.diag(1.0 / sds)])
        c = np.linalg.lstsq(a, np.concatenate([np.sqrt(weight) * target / noise, np.zeros(len(sds))]), rcond=None)[0]
        return c, np.linalg.slogdet(a.T @ a)[1] + 2.0 * np.log(sds).sum()

    first, _ = fit(np.ones(len(x)), x, 1.0)
    residual = 1.0 - x @ first
    weight = 1.0 / np.sqrt(1.0 + (residual / noise / settings.robust) ** 2)
    x = problem.columns / (problem.columns @ first)[:, None]  # without a field, what is not noise is the trend
    c, curvature = fit(weight, x, residual + 1.0)
    assert (c > 0).all()
    residual = residual + 1.0 - x @ c
    squares = weight @ residual**2 / noise**2 + ((c / sds) ** 2).sum()
    change = np.log(1.0 - residual).sum()  # from the density of the residual to that of ln loss
    return -0.5 * (squares + 2.0 * len(x) * np.log(noise) + curvature) + change, weight


def test_an_outlier_that_counts_less_is_no_evidence_for_a_law(rng):
    """Weights make the noise of outliers larger; what that adds to the evidence by its width alone is taken off."""
    problem, _ = make(rng, 60, sizes=(1.0,))
    loss = problem.columns @ [1.9, 0.5, 0.02, 0.7, 0.01] * np.exp(0.002 * rng.standard_normal(60))
    loss[::12] *= 1.04
    problem = replace(problem, loss=loss)
    settings = Settings(trend_sd=1e-9, noise_grid=(0.002,), noise_typical=0.002, robust=2.0)
    expected, weight = soft_evidence(problem, PRIOR, settings)
    assert -0.5 * np.log(weight).sum() > 3.0
    assert trend_evidence(problem, PRIOR, settings) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("basis", basis_ids())
def test_damage_is_what_vanishes_with_the_rate(basis):
    """Columns of variance, peak and escape widen the noise: those that a run of next to no rate has none of.

    Of these the highest rate alone sets the peak columns: a long decay leaves them and takes from the others.
    """
    texts = [f"wsd:peak={peak},steps=5000,warmup=300,decay=0.2" for peak in ("1e-3", "1e-9")]
    runs = RunTable.build([parse(text) for text in texts], params=8e7, batch_tokens=51200.0, weight_decay=0.1)
    usual, still = feature_table(runs, basis)
    gone = np.flatnonzero(still < 1e-3 * usual)
    assert get_basis(basis).damage == tuple(gone)
    decays = [f"wsd:peak=1e-3,steps=5000,warmup=300,decay={share}" for share in (0.2, 0.8)]
    runs = RunTable.build([parse(text) for text in decays], params=8e7, batch_tokens=51200.0, weight_decay=0.1)
    short, long = feature_table(runs, basis)[:, gone]
    assert get_basis(basis).peaks == tuple(gone[np.isclose(short, long, rtol=1e-9)])


def test_intervals_of_left_out_runs_are_those_of_new_ones_and_not_of_outliers(rng):
    """Dense algebra with weights: a run that counts less has more variance in the fit, and as a new run no more."""
    settings = Settings(trend_sd=1e-9, rounds=1, noise_grid=(0.002,), robust=1.0, spreads=(1.0, 4.0), noise_growth=1e9)
    problem, _ = make(rng, 30, noise=0.002, sizes=(1.0,))
    problem = replace(problem, loss=problem.loss * np.where(np.arange(30) % 6 == 0, 1.03, 1.0))
    groups = np.arange(30) % 5.0
    posterior, about = fit_trend_field(problem, PRIOR, settings, groups=[groups], names=["fold"])
    x = problem.columns / problem.loss[:, None]
    weight = 1.0 / np.sqrt(1.0 + ((1.0 - x @ posterior.coefficients) / 0.002) ** 2)
    assert weight.min() < 0.15
    active = posterior.coefficients > 0
    a = x[:, active] * prior_sds(problem, PRIOR)[active]
    k = residual_covariance(replace(problem, share=1.0 / weight), settings, 0.002, settings.field_sd) + a @ a.T
    errors, own = np.empty(30), np.empty(30)
    for value in range(5):
        out, rest = np.flatnonzero(groups == value), np.flatnonzero(groups != value)
        gain = np.linalg.solve(k[np.ix_(rest, rest)], k[np.ix_(rest, out)])
        errors[out] = 1.0 - gain.T @ np.ones(len(rest))
        own[out] = np.diag(k[np.ix_(out, out)] - k[np.ix_(out, rest)] @ gain) - 0.002**2 / weight[out]
    np.testing.assert_allclose(about["left_out"]["fold"], errors, rtol=1e-3, atol=1e-8)
    width = np.sqrt(posterior.spread**2 * own + 0.002**2)
    assert about["groups"]["fold"]["width_pct"] == pytest.approx(200.0 * NORMAL_90 * width.mean(), rel=1e-4)
    assert about["groups"]["fold"]["coverage"] == pytest.approx((np.abs(errors) <= NORMAL_90 * width).mean())


def test_what_nobody_knows_is_uncertain_by_half_and_not_by_more(rng):
    """Relative sds beyond 0.5 say nothing, and intervals would run out of range; joint covariances keep to it, too."""
    problem, _ = make(rng, 40)
    posterior, _ = fit_trend_field(problem, PRIOR, Settings())
    point, rows = predict(replace(posterior, root=posterior.root / 2e3), problem, rows=True)
    plain, _ = predict(posterior, problem)
    assert (2e3 * plain.sd > 1.0).all()
    np.testing.assert_allclose(np.sqrt((rows**2).sum(axis=1)), 0.5, rtol=1e-9)
    np.testing.assert_allclose(point.sd, 0.5, rtol=1e-3)
    np.testing.assert_array_equal(point.loss, plain.loss)


def test_a_run_that_its_damage_explains_does_not_stand_apart(rng):
    """Runs at far too high rates scatter: what is off by a few of their own sds is no mistake in a table."""
    problem, _ = make(rng, 40, noise=0.001, sizes=(1.0,))
    columns, loss = problem.columns.copy(), problem.loss.copy()
    columns[7, 3] *= 8.0  # nearly all of this run's loss
    loss[7] = 0.97 * (columns[7] @ [1.9, 0.5, 0.0, 0.7, 0.01])
    problem = replace(problem, columns=columns, loss=loss, damage_columns=(3,))
    runs = RunTable.build([parse("constant:peak=1e-3,steps=1000")] * 40, run_id=[f"r{i}" for i in range(40)])
    named = []
    for which in ((3,), ()):
        posterior, _ = fit_trend_field(problem, PRIOR, Settings(robust=1.0, noise_growth=0.03))
        odd = outliers(problem, replace(posterior, damage_columns=which), {}, runs)
        named.append([one["run_id"] for one in odd])
    assert named == [[], ["r7"]]


def test_a_run_that_loss_spikes_explain_does_not_stand_apart(rng):
    """At a share of 10 % by the peak noise is ten times that of a run without: 1.2 % off is no mistake in a table."""
    problem, expected = make(rng, 120, noise=0.001, sizes=(1.0,))
    columns, loss = problem.columns.copy(), problem.loss.copy()
    columns[7, 4] = 0.1 * expected[7] / 0.01
    loss[7] += 0.01 * (columns[7, 4] - problem.columns[7, 4])
    problem = replace(problem, columns=columns, loss=loss, peak_columns=(4,))
    posterior, _ = fit_trend_field(problem, PRIOR, Settings())
    told = (posterior, problem.columns, problem.coordinates, problem.size)
    loss[7] = 1.012 * expected_loss(*told)[7]  # another run of the same law
    runs = RunTable.build([parse("constant:peak=1e-3,steps=1000")] * 120, run_id=[f"r{i}" for i in range(120)])
    named = [
        [one["run_id"] for one in outliers(problem, replace(posterior, peak_columns=which), {}, runs)]
        for which in ((4,), ())
    ]
    assert named == [[], ["r7"]]


def test_the_search_for_exponents_sees_the_problem_of_the_fit():
    """Evidence is that of runs whose noise grows with damage, the same in both."""
    runs, basis, settings = with_losses(plan(peaks=(3e-4, 2e-3, 6e-3)), noise=0.0005), get_basis(), Settings()
    fit = _Fit(runs, None, basis, settings, None).problem(basis)[0]
    there = trend_evidence(fit, basis.prior, settings, centre=basis.centre)
    assert Evidence(runs, basis, settings)(basis) == pytest.approx(there, rel=1e-9)
    unaware = trend_evidence(replace(fit, damage_columns=()), basis.prior, settings, centre=basis.centre)
    assert abs(there - unaware) > 0.1
