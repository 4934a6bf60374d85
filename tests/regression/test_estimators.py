"""Scikit-learn contract, recovery of known truths, and errors of the estimators."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

from optlaws.errors import FitError, InputError, RankDeficiencyWarning
from optlaws.regression import PlainLinear, Settings, SignedLinear, TrendFieldRegressor

ESTIMATORS = [
    PlainLinear(),
    PlainLinear(fit_intercept=False),
    SignedLinear(),
    SignedLinear(positive=False, prior=1.0, robust=None),
    TrendFieldRegressor(),
]
EXPECTED_FAILURES: dict[str, str] = {}  # every check applies; one that cannot be met is named here with its reason


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=lambda estimator: EXPECTED_FAILURES)
@pytest.mark.filterwarnings("ignore::optlaws.errors.RankDeficiencyWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def columns(rng, n=120):
    """Sixteen non-negative columns of very different sizes, the constant first."""
    x = rng.uniform(0.2, 1.8, size=(n, 16)) * np.geomspace(1, 1e-3, 16)
    x[:, 0] = 1.0
    return x


def sparse_truth():
    c = np.zeros(16)
    c[[0, 2, 5, 11]] = 1.9, 0.4, 3.0, 30.0
    return c


def test_importing_regression_leaves_scikit_learn_alone():
    code = "import sys, optlaws.regression as r; r.Settings; r.fit_trend_field; print('sklearn' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False"]


def test_public_names_of_the_package():
    import optlaws.regression as package

    assert dir(package) == sorted(package.__all__)
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


class TestPlainLinear:
    def test_recovers_a_linear_truth_exactly(self, rng):
        x = columns(rng)
        model = PlainLinear().fit(x, x @ sparse_truth())
        assert model.coef_[0] == 0.0
        assert model.intercept_ == pytest.approx(1.9, rel=1e-9)
        np.testing.assert_allclose(model.coef_[1:], sparse_truth()[1:], atol=1e-8)
        assert model.undetermined_ == ()
        assert model.rank_ == 15

    @pytest.mark.parametrize("intercept", [True, False])
    def test_agrees_with_scikit_learn(self, rng, intercept):
        x, y = rng.normal(size=(50, 6)), rng.normal(size=50)
        ours = PlainLinear(fit_intercept=intercept).fit(x, y)
        theirs = LinearRegression(fit_intercept=intercept).fit(x, y)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-12)
        assert ours.intercept_ == pytest.approx(theirs.intercept_, abs=1e-12)

    def test_a_constant_column_changes_no_prediction(self, rng):
        x, y = rng.normal(size=(50, 3)), rng.normal(size=50)
        with_one = np.column_stack([np.full(50, 7.0), x])
        np.testing.assert_allclose(PlainLinear().fit(x, y).predict(x), PlainLinear().fit(with_one, y).predict(with_one))

    def test_names_what_the_rows_do_not_determine(self, rng):
        x = rng.uniform(1, 2, size=(30, 5))
        x[:, 0] = 1.0
        x[:, 2] = 3.0  # a second constant
        x[:, 4] = 2 * x[:, 3] + 1.0
        names = ["constant", "a", "size", "b", "b again"]
        with pytest.warns(
            RankDeficiencyWarning, match=r"^3 of 5 coefficients are not .* \(size, b, b again\): .*; drop"
        ):
            model = PlainLinear(names=names).fit(x, x[:, 1] + x[:, 3])
        assert model.undetermined_ == ("size", "b", "b again")
        assert model.rank_ == 2
        np.testing.assert_allclose(model.predict(x), x[:, 1] + x[:, 3])

    def test_names_come_from_a_data_frame_or_count(self, rng):
        x = pd.DataFrame({"peak": rng.uniform(size=9), "nothing": np.zeros(9)})
        with pytest.warns(RankDeficiencyWarning, match=r"\(nothing\)"):
            PlainLinear().fit(x, np.arange(9.0))
        with pytest.warns(RankDeficiencyWarning, match=r"\(column 1\)"):
            PlainLinear().fit(x.to_numpy(), np.arange(9.0))

    def test_fewer_rows_than_columns_warn_and_still_interpolate(self, rng):
        x, y = rng.normal(size=(5, 9)), rng.normal(size=5)
        with pytest.warns(RankDeficiencyWarning, match="9 of 9"):
            model = PlainLinear().fit(x, y)
        np.testing.assert_allclose(model.predict(x), y, atol=1e-12)

    def test_one_row_is_an_error(self):
        with pytest.raises(FitError, match="PlainLinear must be given at least 2 rows, got 1 "):
            PlainLinear().fit([[1.0, 2.0]], [2.0])

    def test_wrong_number_of_names(self, rng):
        with pytest.raises(InputError, match="names must be 3, one a column of X, got 1"):
            PlainLinear(names=["a"]).fit(rng.normal(size=(9, 3)), np.ones(9))


class TestSignedLinear:
    def test_recovers_sparse_positive_coefficients(self, rng):
        x = columns(rng, 200)
        y = x @ sparse_truth() * (1 + 0.0005 * rng.normal(size=200))
        model = SignedLinear(prior=30.0).fit(x, y)
        share = model.coef_ * x.mean(axis=0) / y.mean()
        true = sparse_truth() * x.mean(axis=0) / y.mean()
        np.testing.assert_allclose(share, true, atol=2e-3)
        assert (model.coef_ >= 0).all()
        assert (model.coef_ == 0).sum() >= 4
        assert model.noise_ == pytest.approx(0.0005, rel=0.3)

    def test_outliers_lose_their_weight(self, rng):
        x = columns(rng, 300)
        clean = x @ sparse_truth()
        y = clean * (1 + 0.0005 * rng.normal(size=300))
        y[::10] *= 1.05
        error = [np.abs(SignedLinear(robust=k).fit(x, y).predict(x) / clean - 1).mean() for k in (3.0, None)]
        assert error[0] < 5e-4 < 2e-3 < error[1]

    def test_satisfies_the_conditions_of_the_minimum(self, rng):
        x = columns(rng, 60)
        y = x @ sparse_truth() * (1 + 0.002 * rng.normal(size=60))
        prior = np.geomspace(0.1, 30, 16)
        model = SignedLinear(prior=prior, tol=1e-14, max_iter=500).fit(x, y)

        def cost(c):
            e = (1 - x @ c / y) / (3 * model.noise_)
            return (2 * 9 * (np.sqrt(1 + e**2) - 1)).sum() + ((c / (y.mean() * prior)) ** 2).sum()

        unit = 1e-4 * y.mean() / x.mean(axis=0)
        for j in range(16):
            step = np.zeros(16)
            step[j] = unit[j]
            up, here = cost(model.coef_ + step), cost(model.coef_)
            assert up >= here
            if model.coef_[j] > unit[j]:
                assert cost(model.coef_ - step) >= here

    def test_a_tight_prior_shrinks_one_coefficient(self, rng):
        x = columns(rng)
        y = x @ sparse_truth()
        free = SignedLinear(prior=np.full(16, np.inf)).fit(x, y)
        prior = np.full(16, np.inf)
        prior[5] = 1e-9
        tight = SignedLinear(prior=prior, robust=None).fit(x, y)
        assert free.coef_[5] == pytest.approx(3.0, rel=1e-6)
        assert 0 <= tight.coef_[5] < 0.1

    def test_a_tight_prior_about_a_centre_holds_one_coefficient_there(self, rng):
        x = columns(rng)
        y = x @ sparse_truth()
        prior, centre = np.full(16, np.inf), np.zeros(16)
        prior[5], centre[5] = 1e-9, 0.3
        model = SignedLinear(prior=prior, centre=centre, robust=None).fit(x, y)
        assert model.coef_[5] == pytest.approx(0.3 * y.mean(), rel=1e-3)
        wide = SignedLinear(prior=1e4, centre=0.3).fit(x, y)
        np.testing.assert_allclose(wide.coef_, SignedLinear(prior=1e4).fit(x, y).coef_, atol=1e-4)

    @pytest.mark.parametrize("centre", [np.zeros(3), np.nan])
    def test_a_centre_is_one_finite_number_or_one_a_column(self, rng, centre):
        with pytest.raises(InputError, match="centre must be one finite number or 16, one a column of X"):
            SignedLinear(prior=1.0, centre=centre).fit(columns(rng), np.ones(120))

    @pytest.mark.parametrize("factor", [1e-6, 1e5])
    def test_units_do_not_matter(self, rng, factor):
        x = columns(rng)
        y = x @ sparse_truth() * (1 + 0.001 * rng.normal(size=120))
        prior, k = np.full(16, 5.0), np.ones(16)
        k[3] = factor
        one, other = SignedLinear(prior=prior).fit(x, y), SignedLinear(prior=prior / k).fit(x * k, 10 * y)
        np.testing.assert_allclose(other.predict(x * k), 10 * one.predict(x), rtol=1e-8)
        assert other.noise_ == pytest.approx(one.noise_, rel=1e-6)

    def test_any_sign_without_priors_is_least_squares_of_relative_residuals(self, rng):
        x, y = rng.normal(size=(40, 3)), rng.uniform(2, 3, size=40)
        ours = SignedLinear(positive=False, robust=None).fit(x, y)
        theirs = LinearRegression().fit(x, y, sample_weight=1 / y**2)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-10)
        assert ours.intercept_ == pytest.approx(theirs.intercept_)

    def test_names_what_neither_rows_nor_priors_determine(self, rng):
        x = rng.uniform(1, 2, size=(20, 3))
        x[:, 2] = x[:, 1]
        with pytest.warns(RankDeficiencyWarning, match=r"2 of 4 .* \(b, c\)"):
            SignedLinear(names=["a", "b", "c"]).fit(x, x.sum(axis=1))
        assert SignedLinear(prior=1.0).fit(x, x.sum(axis=1)).undetermined_ == ()

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"robust": 0.0}, "robust must be a number above 0 or None, got 0.0"),
            ({"prior": -1.0}, "prior must be above 0, got -1"),
            ({"prior": [1.0, 2.0]}, r"prior must be one number or 3, one a column of X, got shape \(2,\)"),
            ({"max_iter": 0}, "max_iter must be a whole number of at least 1, got 0"),
        ],
    )
    def test_parameters_out_of_range(self, rng, parameters, message):
        with pytest.raises(InputError, match=message):
            SignedLinear(**parameters).fit(rng.uniform(size=(9, 3)), np.ones(9))

    def test_losses_must_be_positive(self, rng):
        with pytest.raises(FitError, match="losses must be above 0, got 0 in row 2"):
            SignedLinear().fit(rng.uniform(size=(9, 3)), [1, 1, 0, 1, 1, 1, 1, 1, 1])

    def test_one_row_is_an_error(self):
        with pytest.raises(FitError, match="at least 2 rows, got 1"):
            SignedLinear().fit([[1.0, 2.0]], [2.0])


class TestTrendField:
    def make(self, rng, n=90):
        x = columns(rng, n)[:, :4]
        z = rng.uniform(-1.5, 1.5, size=(n, 2))
        field = 0.006 * np.sin(1.5 * z[:, 0]) * np.cos(z[:, 1])
        expected = x @ [1.9, 0.4, 0.0, 2.0] / (1 - field)
        return np.hstack([x, z]), expected, expected * (1 + 0.0005 * rng.normal(size=n))

    def test_recovers_trend_and_smooth_field(self, rng):
        x, expected, y = self.make(rng, 150)
        model = TrendFieldRegressor(n_columns=4).fit(x[:110], y[:110])
        loss, sd = model.predict(x[110:], return_std=True)
        assert np.abs(loss / expected[110:] - 1).mean() < 6e-4
        without = SignedLinear().fit(x[:110, :4], y[:110]).predict(x[110:, :4])
        assert np.abs(without / expected[110:] - 1).mean() > 1.5e-3
        assert (sd > 0).all()
        assert (sd < 0.01 * loss).all()
        np.testing.assert_array_equal(model.predict(x[110:]), loss)
        assert model.intercept_ == 0.0

    def test_groups_calibrate_the_width(self, rng):
        x, _, y = self.make(rng)
        plain, grouped = TrendFieldRegressor(n_columns=4), TrendFieldRegressor(n_columns=4)
        plain.fit(x, y)
        grouped.fit(x, y, groups=np.where(x[:, 4] > 0, "right", "left"))
        assert plain.spread_ == 1.0
        assert grouped.spread_ != 1.0
        assert grouped.noise_ == plain.noise_
        (loss, sd), (same, wider) = plain.predict(x, return_std=True), grouped.predict(x, return_std=True)
        np.testing.assert_array_equal(same, loss)
        noise = plain.noise_**2  # of one new run: the factor is for the sd of the expected loss alone
        model = (sd / loss) ** 2 - noise
        assert (model > 0.01 * noise).all()
        np.testing.assert_allclose((wider / loss) ** 2 - noise, grouped.spread_**2 * model, rtol=1e-9)

    def test_an_intercept_stands_in_for_a_missing_constant(self, rng):
        x, _, y = self.make(rng)
        free = TrendFieldRegressor(n_columns=3).fit(x[:, 1:], y)
        assert free.intercept_ > 1
        np.testing.assert_allclose(
            free.predict(x[:, 1:]), TrendFieldRegressor(n_columns=4).fit(x, y).predict(x), rtol=1e-6
        )

    def test_works_inside_scikit_learn(self, rng):
        x, _, y = self.make(rng)
        search = GridSearchCV(
            TrendFieldRegressor(n_columns=4),
            {"settings": [Settings(), Settings(field_sd=1e-6)]},
            cv=KFold(3, shuffle=True, random_state=0),
        ).fit(x, y)
        assert search.best_params_["settings"] == Settings()
        assert make_pipeline(StandardScaler(), PlainLinear()).fit(x[:, 1:], y).score(x[:, 1:], y) > 0.9
        copy = clone(search.best_estimator_)
        assert copy.get_params() == search.best_estimator_.get_params()

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"n_columns": 6}, "n_columns must be at least 1 and below the 6 columns of X, or None, got 6"),
            ({"length_scale": 0.0}, "length_scale must be a number above 0, got 0.0"),
            ({"n_columns": 4, "prior": 0.0}, "prior must be above 0, got 0"),
        ],
    )
    def test_parameters_out_of_range(self, rng, parameters, message):
        x, _, y = self.make(rng)
        with pytest.raises(InputError, match=message):
            TrendFieldRegressor(**parameters).fit(np.abs(x), y)

    def test_bad_rows(self, rng):
        x, _, y = self.make(rng)
        model = TrendFieldRegressor(n_columns=4)
        with pytest.raises(FitError, match="at least 4 rows, got 3"):
            model.fit(x[:3], y[:3])
        with pytest.raises(FitError, match="losses must be above 0"):
            model.fit(x, -y)
        worse = x.copy()
        worse[5, 2] = -1
        with pytest.raises(FitError, match="columns of the trend must be at least 0, got -1 in row 5 of column 2"):
            model.fit(worse, y)
        with pytest.raises(FitError, match="columns of X must not all be 0"):
            TrendFieldRegressor(n_columns=4, fit_intercept=False).fit(x * [0, 0, 0, 0, 1, 1], y)
        with pytest.raises(InputError, match=r"groups must have shape \(90,\), one label a row, got \(3,\)"):
            model.fit(x, y, groups=[1, 2, 3])


@pytest.fixture
def rng():
    return np.random.default_rng(20240)


class TestEdges:
    """What the estimators do with columns and parameters that say nothing, or are out of range."""

    def test_nothing_but_zeros_is_an_error_and_not_the_end_of_the_process(self):
        code = (
            "import numpy as np; from optlaws.regression import SignedLinear;"
            "SignedLinear(fit_intercept=False).fit(np.zeros((5, 2)), np.ones(5))"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert out.returncode == 1
        assert "FitError: columns of X must not all be 0" in out.stderr

    def test_a_column_of_zeros_is_named_and_changes_nothing(self, rng):
        x = rng.uniform(0.1, 1.0, (20, 3))
        y = 2.0 + x @ [1.0, 0.0, 0.5]
        with pytest.warns(RankDeficiencyWarning, match="column 3"):
            model = SignedLinear().fit(np.column_stack([x, np.zeros(20)]), y)
        np.testing.assert_allclose(model.coef_[:3], SignedLinear().fit(x, y).coef_, atol=1e-9)
        assert model.coef_[3] == 0.0

    @pytest.mark.parametrize("estimator", [PlainLinear(), SignedLinear()])
    @pytest.mark.parametrize("unit", [2.0**700, 2.0**-700])
    def test_units_far_from_one_do_not_matter(self, rng, estimator, unit):
        x = rng.uniform(0.1, 1.0, (20, 3))
        y = 2.0 + x @ [1.0, 0.3, 0.5] + 0.01 * rng.normal(size=20)
        usual = clone(estimator).fit(x, y).predict(x)
        np.testing.assert_array_equal(clone(estimator).fit(unit * x, y).predict(unit * x), usual)

    @pytest.mark.parametrize(
        ("estimator", "message"),
        [
            (SignedLinear(prior="wide"), "prior must be a number or one a column of X, got 'wide'"),
            (SignedLinear(centre="low"), "centre must be a number or one a column of X, got 'low'"),
            (SignedLinear(robust="yes"), "robust must be a number above 0 or None, got 'yes'"),
            (SignedLinear(max_iter=2.5), "max_iter must be a whole number of at least 1, got 2.5"),
            (SignedLinear(tol=-1.0), "tol must be a number of at least 0, got -1.0"),
            (SignedLinear(tol=float("nan")), "tol must be a number of at least 0, got nan"),
            (TrendFieldRegressor(n_columns=1.5), "n_columns must be at least 1 and below the 3 columns of X"),
            (TrendFieldRegressor(n_columns=True), "n_columns must be at least 1 and below the 3 columns of X"),
            (TrendFieldRegressor(length_scale="long"), "length_scale must be a number above 0, got 'long'"),
            (TrendFieldRegressor(settings="usual"), "settings must be a Settings or None, got 'usual'"),
        ],
    )
    def test_parameters_of_a_wrong_kind(self, rng, estimator, message):
        with pytest.raises(InputError, match=message):
            estimator.fit(rng.uniform(0.1, 1.0, (20, 3)), rng.uniform(2.0, 3.0, 20))

    def test_groups_of_mixed_kinds(self, rng):
        with pytest.raises(InputError, match="groups must be labels of one kind, all numbers or all text, got"):
            TrendFieldRegressor().fit(
                rng.uniform(0.1, 1.0, (20, 3)), rng.uniform(2.0, 3.0, 20), groups=[None, "a"] * 10
            )
