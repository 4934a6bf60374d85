"""Trend and field against dense matrix algebra, its invariances, and the coverage of its intervals."""

from dataclasses import replace

import numpy as np
import pytest
from naive_kriging import Kriging, interval, matern, prior_sds, residual_covariance, without_noise
from threadpoolctl import threadpool_limits

from optlaws.errors import FitError, InputError
from optlaws.regression import Problem, Settings, fit_trend_field, predict_trend_field
from optlaws.regression.kernel import choose_inducing, field_features, matern32, whitening
from optlaws.regression.whitened import Whitened

PLAIN = Settings(robust=1e9, noise_growth=1e9, rounds=8)  # no weights, one noise: as the dense twin
PRIOR = np.array([np.inf, np.inf, 8.0, 1.0, 0.02])
TRUTH = np.array([1.9, 0.5, 0.0, 0.7, 0.01])


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with threadpool_limits(1):
        yield


def trend_columns(rng, n):
    scales = np.array([1.0, 1.0, 0.05, 0.3, 2.0])
    x = rng.uniform(0.1, 1.6, size=(n, 5)) * scales
    x[:, 0] = 1.0
    return x


def make(rng, n=40, curves=False, noise=0.0012, sizes=(0.2, 0.7, 2.0)):
    """A problem drawn from the model itself, and its losses before noise, shape (n,)."""
    x, z = trend_columns(rng, n), rng.uniform(-1.5, 1.5, size=(n, 2))
    size = np.log(rng.choice(sizes, size=n))
    curve = np.where(np.arange(n) % 3 == 0, 1.0, 0.0) if curves else np.zeros(n)
    share = np.where(curve > 0, 4.0, 1.0)
    gram = matern32(z, z) + 1e-10 * np.eye(n)
    field = 0.006 * np.linalg.cholesky(gram) @ rng.normal(size=n)
    levels, index = np.unique(size, return_inverse=True)
    offset = 0.002 * rng.normal(size=len(levels))[index] + 0.02 * rng.normal() * curve
    expected = x @ TRUTH / (1 - field - offset)
    loss = x @ TRUTH / (1 - field - offset - noise * np.sqrt(share) * rng.normal(size=n))
    return Problem(x, loss, z, size, curve, share), expected


def part(problem, rows):
    return Problem(
        **{k: getattr(problem, k)[rows] for k in ("columns", "loss", "coordinates", "size", "curve", "share")}
    )


def predict(posterior, problem, **more):
    return predict_trend_field(posterior, problem.columns, problem.coordinates, problem.size, **more)


class TestKernel:
    def test_matern_is_the_formula(self, rng):
        a, b = rng.normal(size=(7, 3)), rng.normal(size=(5, 3))
        np.testing.assert_allclose(matern32(a, b), matern(a, b), rtol=1e-12)
        np.testing.assert_allclose(np.diag(matern32(a, a)), 1.0, atol=1e-6)

    def test_inducing_points_are_distinct(self, rng):
        points = np.repeat(rng.normal(size=(20, 2)), 3, axis=0)  # every point three times
        chosen = choose_inducing(points, 60)
        assert len(chosen) == 20
        assert len({tuple(points[i]) for i in chosen}) == 20

    def test_inducing_points_explain_the_kernel(self, rng):
        points = rng.uniform(-1, 1, size=(300, 2))
        left = []
        for most in (10, 40, 160):
            chosen = points[choose_inducing(points, most)]
            phi = field_features(points, chosen, whitening(chosen))
            left.append((1 - (phi**2).sum(axis=1)).max())
        assert left[0] > 5 * left[1] > 25 * left[2]
        assert left[2] < 5e-3

    def test_greedy_choice_beats_a_random_one(self, rng):
        points = rng.normal(size=(200, 2))

        def unexplained(rows):
            phi = field_features(points, points[rows], whitening(points[rows]))
            return (1 - (phi**2).sum(axis=1)).max()

        assert unexplained(choose_inducing(points, 25)) < unexplained(rng.choice(200, 25, replace=False))

    def test_it_stops_when_all_is_explained(self, rng):
        points = rng.uniform(-0.01, 0.01, size=(50, 2))
        chosen = choose_inducing(points, 50, tolerance=1e-2)
        assert len(chosen) < 10
        phi = field_features(points, points[chosen], whitening(points[chosen]))
        assert (1 - (phi**2).sum(axis=1)).max() < 1e-2 + 1e-6

    def test_features_are_exact_at_inducing_points(self, rng):
        points = rng.normal(size=(15, 3))
        phi = field_features(points, points, whitening(points))
        np.testing.assert_allclose(phi @ phi.T, matern32(points, points), atol=1e-8)


class TestAgainstDenseAlgebra:
    @pytest.mark.parametrize("curves", [False, True])
    def test_prediction_and_joint_covariance(self, rng, curves):
        problem, _ = make(rng, 36, curves)
        posterior, about = fit_trend_field(problem, PRIOR, PLAIN)
        assert len(posterior.inducing) == 36
        twin = Kriging(problem, posterior.coefficients, PRIOR, PLAIN, posterior.noise, about["scatter"])
        new, _ = make(rng, 9)
        for at in (new, problem):
            loss, covariance = twin.predict(at.columns, at.coordinates, at.size, float(curves))
            point, _ = predict(posterior, at, curve=curves)
            np.testing.assert_allclose(point.loss, loss, rtol=1e-8)
            np.testing.assert_allclose(point.sd**2, np.diag(covariance), rtol=1e-6, atol=1e-12)
            _, rows = predict(posterior, at, curve=curves, rows=True)
            phi = field_features(at.coordinates, posterior.inducing, posterior.whitening)
            left = PLAIN.field_sd**2 * (matern(at.coordinates, at.coordinates) - phi @ phi.T)
            np.testing.assert_allclose(rows @ rows.T + left, covariance, rtol=1e-6, atol=1e-12)

    def test_coefficients_meet_the_conditions_of_the_minimum(self, rng):
        problem, _ = make(rng, 50)
        posterior, about = fit_trend_field(problem, PRIOR, PLAIN)
        c, scatter = posterior.coefficients, about["scatter"]
        x = problem.columns / without_noise(problem, c, PLAIN, scatter)[:, None]
        k = residual_covariance(problem, PLAIN, scatter, PLAIN.trend_sd, offsets=False)
        slope = x.T @ np.linalg.solve(k, 1.0 - problem.columns @ c / problem.loss) - c / prior_sds(problem, PRIOR) ** 2
        unit = np.abs(x.T @ np.linalg.solve(k, np.ones(50)))
        assert (c >= 0).all()
        assert (np.abs(slope)[c > 0] < 1e-7 * unit[c > 0]).all()
        assert (slope[c == 0] <= 1e-7 * unit[c == 0]).all()

    def test_few_inducing_points_come_close(self, rng):
        problem, _ = make(rng, 60)
        whole, _ = fit_trend_field(problem, PRIOR, PLAIN)
        few, _ = fit_trend_field(problem, PRIOR, replace(PLAIN, most_inducing=30))
        assert len(few.inducing) == 30
        new, _ = make(rng, 20)
        a, b = predict(whole, new)[0], predict(few, new)[0]
        assert np.abs(a.loss / b.loss - 1).max() < 2e-3
        assert (b.sd > 0.5 * a.sd).all()

    def test_inducing_points_may_come_from_a_pool(self, rng):
        problem, _ = make(rng, 40)
        pool = rng.uniform(-1.5, 1.5, size=(200, 2))
        posterior, _ = fit_trend_field(problem, PRIOR, PLAIN, pool=pool)
        known = {tuple(row) for row in pool}
        assert all(tuple(row) in known for row in posterior.inducing)
        own, _ = fit_trend_field(problem, PRIOR, PLAIN)
        new, _ = make(rng, 20)
        assert np.abs(predict(posterior, new)[0].loss / predict(own, new)[0].loss - 1).max() < 2e-3


class TestInvariance:
    def fit(self, problem, prior=PRIOR):
        groups = [np.arange(len(problem.loss)) % 5.0]
        return fit_trend_field(problem, prior, Settings(), groups=groups, names=["fold"])[0]

    @pytest.mark.parametrize("column", range(5))
    @pytest.mark.parametrize("factor", [1e-3, 50.0])
    def test_rescaling_a_column_changes_nothing(self, rng, column, factor):
        problem, _ = make(rng, 40)
        k = np.ones(5)
        k[column] = factor
        other = replace(problem, columns=problem.columns * k)
        a, _ = predict(self.fit(problem), problem)
        b, _ = predict(self.fit(other, PRIOR / k), other)
        for name in ("loss", "sd", "noise"):
            np.testing.assert_allclose(getattr(b, name), getattr(a, name), rtol=1e-8)

    @pytest.mark.parametrize("factor", [0.1, 7.0])
    def test_multiplying_the_loss_changes_no_relative_width(self, rng, factor):
        problem, _ = make(rng, 40, curves=True)
        other = replace(problem, loss=factor * problem.loss)
        a, _ = predict(self.fit(problem), problem)
        b, _ = predict(self.fit(other), other)
        np.testing.assert_allclose(b.loss, factor * a.loss, rtol=1e-10)
        np.testing.assert_allclose(b.sd, a.sd, rtol=1e-8)
        np.testing.assert_allclose(b.noise, a.noise, rtol=1e-8)

    def test_moving_the_coordinates_changes_nothing(self, rng):
        problem, _ = make(rng, 40)
        other = replace(problem, coordinates=problem.coordinates + np.array([3.0, -2.0]))
        a, b = predict(self.fit(problem), problem)[0], predict(self.fit(other), other)[0]
        np.testing.assert_allclose(b.loss, a.loss, rtol=1e-8)
        np.testing.assert_allclose(b.sd, a.sd, rtol=1e-6)

    def test_order_of_the_points_changes_nothing(self, rng):
        problem, _ = make(rng, 40)
        turned = part(problem, np.arange(40)[::-1])
        settings = Settings()
        a = fit_trend_field(problem, PRIOR, settings)[0]
        b = fit_trend_field(turned, PRIOR, settings)[0]
        np.testing.assert_allclose(predict(b, problem)[0].loss, predict(a, problem)[0].loss, rtol=1e-8)


class TestCentre:
    def test_where_the_runs_say_nothing_the_prior_does(self, rng):
        problem, _ = make(rng, 40)
        unit = problem.loss.mean()
        prior, centre = np.full(5, 1e-7), np.array([0.5, 0.1, 0.1, 0.05, 0.05])
        posterior, _ = fit_trend_field(problem, prior, Settings(), centre=centre)
        np.testing.assert_allclose(posterior.coefficients, centre * unit, rtol=1e-3)

    def test_where_the_runs_say_all_the_centre_does_not_matter(self, rng):
        problem, _ = make(rng, 200)
        prior = np.full(5, 1e3)
        a, b = (fit_trend_field(problem, prior, PLAIN, centre=c)[0] for c in (None, np.full(5, 0.2)))
        np.testing.assert_allclose(b.coefficients, a.coefficients, rtol=1e-3, atol=1e-4)

    def test_a_few_runs_do_not_show_that_they_have_no_noise(self, rng):
        problem, _ = make(rng, 200, noise=1e-5)
        few = part(problem, np.arange(6))
        posterior = [fit_trend_field(p, PRIOR, Settings())[0] for p in (few, problem)]
        assert posterior[1].noise <= 0.0004 <= posterior[0].noise
        sure = Settings(noise_typical=0.0035, noise_range=0.001, run_noise_range=0.001)
        assert fit_trend_field(few, PRIOR, sure)[0].noise == pytest.approx(0.0035, rel=1e-6)


class TestUncertainty:
    def test_wider_outside_the_training_domain(self, rng):
        problem, _ = make(rng, 60)
        posterior, _ = fit_trend_field(problem, PRIOR, Settings())
        inside, left = predict(posterior, problem)
        far = replace(problem, coordinates=problem.coordinates + 6.0)
        field, novel = predict(posterior, far)
        assert np.median(field.sd) > 1.5 * np.median(inside.sd)
        assert novel.min() > 0.9
        assert left.max() < 1e-3
        stretched = replace(problem, columns=problem.columns * [1, 6, 1, 6, 1])
        trend, _ = predict(posterior, stretched)
        assert (trend.sd > inside.sd).all()
        unknown, _ = predict(posterior, replace(problem, size=problem.size + 5.0))
        assert (unknown.sd > inside.sd).all()

    def test_noise_is_found(self):
        found = [
            fit_trend_field(make(np.random.default_rng(seed), 80, noise=noise, sizes=(1.0,))[0], PRIOR, Settings())[
                0
            ].noise
            for noise in (0.0007, 0.0035)
            for seed in range(5)
        ]
        np.testing.assert_allclose(found[:5], 0.0007, rtol=0.2)
        np.testing.assert_allclose(found[5:], 0.0035, rtol=0.2)

    def test_intervals_cover_new_runs_of_the_model(self):
        """One new run for each of 240 seeds: 90 % coverage within four standard errors of a binomial."""
        seeds, inside = 240, 0
        for seed in range(seeds):
            problem, _ = make(np.random.default_rng(1000 + seed), 41, sizes=(1.0,))
            posterior, _ = fit_trend_field(part(problem, np.arange(40)), PRIOR, Settings())
            point, _ = predict(posterior, part(problem, [40]))
            low, high = interval(point)
            inside += bool((low <= problem.loss[40:]) & (problem.loss[40:] <= high))
        error = np.sqrt(0.9 * 0.1 / seeds)
        assert abs(inside / seeds - 0.9) < 4 * error

    @pytest.mark.parametrize(
        ("shift", "noise", "where"),
        [(0.0, 0.006, "lowest"), (0.001, 0.005, "below 1"), (0.004, 0.0012, "above 1"), (0.2, 0.0012, "highest")],
    )
    def test_groups_give_the_errors_of_leaving_them_out(self, rng, shift, noise, where):
        """The quick leave-group-out formula against dense algebra: field and trend given the other groups.

        Groups that lie apart by more than the model allows for need a factor above 1 on the model's sds; the run
        noise, held at one value here, is never scaled.
        """
        settings = replace(PLAIN, noise_grid=(noise,))
        problem, _ = make(rng, 30)
        groups = np.arange(30) % 3.0
        problem = replace(problem, size=np.zeros(30), loss=problem.loss * np.exp(shift * (groups - 1.0)))
        posterior, about = fit_trend_field(problem, PRIOR, settings, groups=[groups], names=["fold"])
        c = posterior.coefficients
        x = problem.columns / without_noise(problem, c, settings, noise)[:, None]
        active = c > 0
        a = x[:, active] * prior_sds(problem, PRIOR)[active]
        k = residual_covariance(problem, settings, posterior.noise, settings.field_sd) + a @ a.T
        residual = 1.0 - problem.columns @ c / problem.loss + x @ c  # of the priors' trend, 0
        errors, model = np.empty(30), np.empty(30)
        for value in range(3):
            out, rest = np.flatnonzero(groups == value), np.flatnonzero(groups != value)
            gain = np.linalg.solve(k[np.ix_(rest, rest)], k[np.ix_(rest, out)])
            errors[out] = residual[out] - gain.T @ residual[rest]
            model[out] = np.diag(k[np.ix_(out, out)] - k[np.ix_(out, rest)] @ gain) - posterior.noise**2
        fold = about["groups"]["fold"]
        assert fold["mean_error_pct"] == pytest.approx(100 * np.abs(errors).mean(), rel=1e-5)
        np.testing.assert_allclose(about["left_out"]["fold"], errors, rtol=1e-4, atol=1e-9)
        assert about["residuals"] == 30
        # what each residual needs to lie in its interval; 28 of 30 must, as 28 are .9 (30 + 1) rounded up: the 28th
        # smallest, rounded up to a grid value
        needed = np.sqrt(np.maximum((errors / 1.6448536269514722) ** 2 - posterior.noise**2, 0.0) / model)
        exact, step = np.sort(needed)[27], 10 ** (1 / 199)
        found = ["lowest", "below 1", "above 1", "highest"][np.searchsorted([0.4, 1.0, 4.0], exact)]
        assert found == where
        least, most = np.clip([exact, exact * step if 0.4 < exact < 4.0 else exact], 0.4, 4.0)
        assert least * (1 - 1e-5) <= posterior.spread <= most * (1 + 1e-5)
        assert fold["coverage"] == pytest.approx((needed <= posterior.spread).mean(), abs=1e-12)
        if 0.4 < exact < 4.0:
            assert fold["coverage"] == pytest.approx(28 / 30, abs=1e-12)
        width = 2 * 1.6448536269514722 * np.sqrt(posterior.spread**2 * model + posterior.noise**2).mean()
        assert fold["width_pct"] == pytest.approx(100 * width, rel=1e-5)
        point, _ = predict(posterior, problem)
        plain, _ = predict(replace(posterior, spread=1.0), problem)
        np.testing.assert_allclose(point.sd, posterior.spread * plain.sd, rtol=1e-12)
        np.testing.assert_array_equal(point.noise, plain.noise)


@pytest.mark.parametrize("width", [0.1, 0.3])
def test_left_out_errors_are_those_of_a_fit_to_the_rest(rng, width):
    """Where priors say much of the trend too: a group that was left out must not have moved its coefficients."""
    settings = replace(PLAIN, noise_grid=(0.0035,), trend_sd=PLAIN.field_sd, size_sd=1e-9, rounds=1)
    problem, _ = make(rng, 12)
    problem = replace(problem, size=np.zeros(12))
    groups, centre, prior = np.arange(12) % 4.0, 0.5 * TRUTH + 0.05, width * np.ones(5)
    posterior, about = fit_trend_field(problem, prior, settings, centre=centre, groups=[groups], names=["fold"])
    assert (posterior.coefficients > 0).all()
    errors = np.empty(12)
    for value in range(4):
        out, rest = np.flatnonzero(groups == value), part(problem, np.flatnonzero(groups != value))
        scale = problem.loss.mean() / rest.loss.mean()  # priors are relative to the mean loss of the runs at hand
        other, _ = fit_trend_field(rest, scale * prior, settings, centre=scale * centre)
        assert (other.coefficients > 0).all()
        held = part(problem, out)
        point, _ = predict(other, held)
        trend = held.columns @ other.coefficients
        errors[out] = trend / point.loss - trend / held.loss
    assert about["groups"]["fold"]["mean_error_pct"] == pytest.approx(100 * np.abs(errors).mean(), rel=1e-4)


@pytest.mark.parametrize(("count", "least"), [(8, 1.0), (9, 0.4)])
def test_fewer_runs_than_a_quantile_needs_never_narrow(rng, count, least):
    settings = replace(PLAIN, noise_grid=(0.01,))
    problem, _ = make(rng, count, sizes=(1.0,), noise=1e-5)  # far less noise than stated: residuals ask for less
    groups = [np.arange(count) % 2.0, np.arange(count) % 3.0, np.arange(count) // 3.0]
    posterior, _ = fit_trend_field(problem, PRIOR, settings, groups=groups, names=["a", "b", "c"])
    assert posterior.spread == pytest.approx(least, rel=0.02)


def test_infinite_columns_are_an_error(rng):
    problem, _ = make(rng, 12)
    problem.columns[3, 1] = np.inf
    with pytest.raises(FitError, match="columns must be finite, got an infinite one"):
        fit_trend_field(problem, PRIOR, Settings())


def test_an_outlier_loses_its_weight(rng):
    problem, expected = make(rng, 80, noise=0.0004, sizes=(1.0,))
    bad = problem.loss.copy()
    bad[::20] *= 1.03
    worse = replace(problem, loss=bad)
    error = []
    for robust in (3.0, 1e9):
        posterior, _ = fit_trend_field(worse, PRIOR, Settings(robust=robust))
        error.append(np.abs(predict(posterior, problem)[0].loss / expected - 1).mean())
    assert error[0] < 0.8 * error[1]


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"field_sd": -1.0}, "field_sd must be a number from 1e-12 to 1e.12, got -1.0; 0.0075 is the default"),
        ({"field_sd": float("nan")}, "field_sd must be a number from 1e-12"),
        ({"field_sd": True}, "field_sd must be a number from 1e-12"),
        ({"rounds": 0}, "rounds must be a whole number from 1 to"),
        ({"most_inducing": 2.5}, "most_inducing must be a whole number from 1 to"),
        ({"noise_grid": ()}, "noise_grid must be one or more numbers from 1e-12"),
        ({"noise_grid": (0.0, 0.1)}, "noise_grid must be one or more numbers from 1e-12"),
        ({"noise_grid": 0.001}, "noise_grid must be one or more numbers from 1e-12"),
        ({"spreads": (4.0, 0.4)}, "spreads must be two numbers, the lower one first,"),
        ({"curve_spreads": (1.0, "4")}, "curve_spreads must be two numbers, the lower one first,"),
    ],
)
def test_settings_out_of_range(given, message):
    with pytest.raises(InputError, match=message):
        Settings(**given)


@pytest.mark.parametrize("loss", [0.0, -1.0, 1e-200, 1e200, np.nan])
def test_losses_out_of_range_are_an_error(rng, loss):
    problem, _ = make(rng, 12)
    problem.loss[3] = loss
    with pytest.raises(FitError, match=r"losses must be from 1e-100 to 1e\+100 nats per token, got"):
        fit_trend_field(problem, PRIOR, Settings())


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_a_loss_far_from_all_others_is_an_error(rng, factor):
    problem, _ = make(rng, 12)
    problem.loss[3] *= factor
    with pytest.raises(FitError, match=r"losses must be from .*e-05 to .* nats per token, got .*; drop that run or"):
        fit_trend_field(problem, PRIOR, Settings())


def test_rows_without_the_others_are_the_dense_answer(rng):
    """What the others say of some rows, through the low rank, against the inverse of the whole covariance."""
    features, diagonal, b = rng.normal(size=(60, 9)) * 0.3, rng.uniform(1e-4, 1e-2, 60), rng.normal(size=60)
    white = Whitened(features, diagonal)
    inverse = np.linalg.inv(features @ features.T + np.diag(diagonal))
    for rows in (np.array([3]), np.arange(0, 60, 2), np.arange(1, 60)):
        block = np.linalg.inv(inverse[np.ix_(rows, rows)])
        product, variance = white.without(rows, b[rows])
        np.testing.assert_allclose(product, block @ b[rows], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(variance, np.diag(block), rtol=1e-8)


def test_many_points_are_calibrated_by_their_groups(rng):
    """Thousands of runs were left at a factor of 1, without a word on their groups."""
    problem, _ = make(rng, n=300)
    many = Problem(
        **{
            name: np.concatenate([getattr(problem, name)] * 15)
            for name in ("columns", "loss", "coordinates", "size", "curve", "share")
        }
    )
    groups = [np.arange(4500) % 300 // 100]
    _, info = fit_trend_field(many, PRIOR, replace(PLAIN, most_inducing=30), groups=groups, names=["part"])
    assert info["residuals"] == 4500
    assert info["spread"] != 1.0
    assert info["groups"]["part"]["coverage"] >= 0.9


def test_many_noisy_points_do_not_pull_the_trend_below_them(rng):
    """Shares of measured losses hold their noise, and the smaller the trend the less of it is left (it was .7 %)."""
    x, z = trend_columns(rng, 2000), rng.uniform(-1.5, 1.5, size=(2000, 2))
    loss = x @ TRUTH * np.exp(0.0035 * rng.standard_normal(2000))
    zero = np.zeros(2000)
    problem = Problem(x, loss, z, zero, zero, zero + 1.0)
    posterior, _ = fit_trend_field(problem, PRIOR, replace(PLAIN, rounds=3, most_inducing=60))
    assert abs((x @ posterior.coefficients / (x @ TRUTH)).mean() - 1) < 1e-3
