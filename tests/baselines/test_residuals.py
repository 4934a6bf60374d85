"""Left-out residuals of rival laws: what the runs of a group share, differences of candidates, what files keep."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm, t

sys.path.insert(0, str(Path(__file__).parent))
from made import KnownLaw, grid, table

from optlaws import baselines
from optlaws._normal import NORMAL_90
from optlaws.law import load_any_law
from optlaws.law.baseline import fit_baseline
from optlaws.law.residuals import difference_factor, group_texts, same_level, shared_and_own, summary, tails
from optlaws.ranking import rank
from optlaws.runs import CurveTable, RunTable

SHARED, OWN = 0.02, 0.004


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(baselines.REGISTRY, "known", "made:KnownLaw")


@pytest.fixture(scope="module")
def runs():
    """Eight lengths of each of eight sizes."""
    return table(*grid(np.geomspace(5e7, 2e9, 8), np.geomspace(1e9, 1e11, 8)), loss=3.0, status="completed")


def noisy(runs, rng, shared=SHARED, own=OWN):
    """Return the runs with the known law's losses, times exp(error of the size + error of the run)."""
    _, label = np.unique(runs.params, return_inverse=True)
    error = shared * rng.standard_normal(label.max() + 1)[label] + own * rng.standard_normal(len(runs))
    return replace(runs, final_loss=KnownLaw(1.7).predict(runs) * np.exp(error))


def loops(residuals, label):
    """Moments of the one-way layout about 0, group by group."""
    groups = [residuals[label == g] for g in sorted(set(label.tolist()))]
    n, count = len(residuals), len(groups)
    own = sum(((r - r.mean()) ** 2).sum() for r in groups) / (n - count)
    shared = (sum(len(r) * r.mean() ** 2 for r in groups) - count * own) / n
    return np.sqrt(shared), np.sqrt(own)


class TestParts:
    def test_twin(self):
        rng = np.random.default_rng(0)
        label = rng.integers(0, 7, 60)
        residuals = 0.02 * rng.standard_normal(7)[label] + 0.01 * rng.standard_normal(60)
        found = shared_and_own(residuals, label * 10)
        assert found[:2] == pytest.approx(loops(residuals, label), rel=1e-12)
        assert found.own_factor == difference_factor(residuals, label, found.own_sd)
        assert np.hypot(*found[:2]) == pytest.approx(np.sqrt((residuals**2).mean()), rel=1e-12)

    @pytest.mark.parametrize(("shared", "own"), [(0.02, 0.004), (0.01, 0.01), (0.002, 0.01)])
    def test_recovery(self, shared, own):
        """Variances come back on average, from unequal groups, within four standard errors."""
        rng = np.random.default_rng(1)
        label = np.repeat(np.arange(12), rng.integers(2, 15, 12))
        parts = []
        for _ in range(1000):
            residuals = shared * rng.standard_normal(12)[label] + own * rng.standard_normal(len(label))
            parts.append(np.square(shared_and_own(residuals, label)[:2]))
        error = np.std(parts, axis=0) / np.sqrt(len(parts))
        # cut off at 0 the smallest shared variance comes out a little high
        assert np.mean(parts, axis=0) == pytest.approx(np.square([shared, own]), abs=4 * error.max() + 0.1 * shared**2)

    def test_a_law_that_is_wrong_on_average_is_wrong_for_all_alike(self):
        rng = np.random.default_rng(2)
        residuals = 0.05 + 0.001 * rng.standard_normal(40)
        shared, own, _ = shared_and_own(residuals, np.arange(40) // 5)
        assert shared == pytest.approx(0.05, rel=0.02)
        assert own == pytest.approx(0.001, rel=0.4)

    def test_two_groups_are_enough(self):
        """Means of 0.03 and 0.01, and 0.01 about them: t^2 = 4e-4 / 2, s^2 the mean square less that."""
        shared, own, _ = shared_and_own(np.array([0.04, 0.02, 0.02, 0.0]), np.array([0, 0, 1, 1]))
        assert own == pytest.approx(np.sqrt(4e-4 / 2.0), rel=1e-12)
        assert shared == pytest.approx(np.sqrt(24e-4 / 4.0 - 4e-4 / 2.0), rel=1e-12)

    @pytest.mark.parametrize("label", [np.zeros(6), np.arange(6)], ids=["one group", "groups of one"])
    def test_what_cannot_be_told_apart_is_each_runs_own(self, label):
        residuals = np.array([0.01, 0.02, 0.015, 0.03, 0.01, 0.02])
        assert shared_and_own(residuals, label) == (0.0, np.sqrt((residuals**2).mean()), NORMAL_90)

    def test_never_negative(self):
        """Groups whose means agree better than chance has it share nothing."""
        residuals = np.array([-1.0, 1.0, -2.0, 2.0, -3.0, 3.0])
        assert shared_and_own(residuals, np.array([0, 0, 1, 1, 2, 2])) == (
            0.0,
            np.sqrt((residuals**2).mean()),
            NORMAL_90,
        )


class TestTails:
    def test_of_few_they_are_students_about_zero(self):
        """Points of t tables at 5 %, with n degrees of freedom; of none there is no width."""
        assert tails(np.array([])) == (0.0, 0.0)
        assert tails(np.array([-0.01])) == pytest.approx((-0.063138, 0.063138), rel=1e-4)
        low, high = tails(np.array([0.03, 0.0, -0.01, 0.02]))
        assert high == -low == pytest.approx(2.131847 * np.sqrt(14e-4 / 4.0), rel=1e-6)

    @pytest.mark.parametrize(("count", "rank"), [(19, 1), (38, 1), (39, 2), (99, 5)])
    def test_of_many_they_are_order_statistics(self, count, rank):
        low, high = tails(np.random.default_rng(0).permutation(count).astype(float))
        assert (low, high) == (rank - 1.0, count - rank)


class TestDifferenceFactor:
    def test_of_normal_errors(self):
        rng = np.random.default_rng(3)
        label = np.repeat(np.arange(20), 100)
        residuals = rng.standard_normal(20)[label] + 0.1 * rng.standard_normal(2000)
        assert difference_factor(residuals, label, 0.1) == pytest.approx(NORMAL_90, rel=0.03)

    def test_of_heavy_tails(self):
        """Nine in ten differences of new runs stay below it, far fewer than a normal factor would have it."""
        rng = np.random.default_rng(4)
        label = np.repeat(np.arange(10), 200)
        old, new = (np.where(rng.random(2000) < 0.03, 1.0, 0.1) * rng.standard_normal(2000) for _ in range(2))
        factor = difference_factor(rng.standard_normal(10)[label] + old, label, float(old.std()))
        inside = np.abs(new[::2] - new[1::2]) < factor * np.sqrt(2) * old.std()
        assert inside.mean() == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 1000))
        assert factor < 0.8 * NORMAL_90

    def test_of_few(self):
        """Three groups of three leave six degrees of freedom: Student's t."""
        residuals, label = np.arange(9.0), np.repeat([0, 1, 2], 3)
        assert difference_factor(residuals, label, 1.0) == pytest.approx(t.ppf(0.95, 6))


class TestLevels:
    def test_numbers_to_the_factor_and_texts(self):
        some = table([1e8, 1.002e8, 2e8, 1e8], 1e10, source=["a", "b", "a", "a"])
        assert same_level(some, "params", 1.01).tolist() == [0, 0, 1, 0]
        assert same_level(some, "params", 1.0001).tolist() == [0, 1, 2, 0]
        assert same_level(some, "source", 1.01).tolist() == [0, 1, 0, 0]

    def test_what_candidates_do_not_say_is_one_level(self):
        some = table([1e8, 2e8], 1e10)
        assert same_level(some, "corpus", 1.01).tolist() == [0, 0]
        half = RunTable.build(some.schedules, params=[1e8, np.nan], batch_tokens=5e5)
        assert same_level(half, "params", 1.01).tolist() == [0, 0]
        bare = RunTable.build(some.schedules, batch_tokens=5e5)
        assert same_level(bare, "params", 1.01).tolist() == [0, 0]


class TestDifferences:
    def test_cover(self, runs):
        """About 90 % of the differences of two new runs lie in their interval, of one size and of two.

        The part of normal errors that lies in each interval is taken, not draws of them.
        """
        one, two = table([3e8, 3e8], [1e10, 2e10]), table([3e8, 6e8], [1e10, 1.01e10])
        rng = np.random.default_rng(3)
        covers = []
        for _ in range(60):
            fitted = fit_baseline("known", noisy(runs, rng), group="params")
            for candidates, spread in ((one, OWN), (two, np.hypot(OWN, SHARED))):
                ranking = rank(candidates, fitted)
                other, best = 1 - ranking.best, float(ranking.loss.min())
                ends = np.log1p(np.array([ranking.difference_lower[other], ranking.difference_upper[other]]) / best)
                middle = np.log(ranking.loss[other] / best)
                covers.append(np.diff(norm.cdf((ends - middle) / (np.sqrt(2) * spread)))[0])
        same, apart = np.mean(np.reshape(covers, (-1, 2)), axis=0)
        assert 0.86 < same < 0.94
        assert 0.82 < apart < 0.94  # eight sizes tell less of what a new one is

    def test_single_intervals_are_those_of_the_residuals(self, runs):
        some = noisy(runs, np.random.default_rng(4))
        fitted = fit_baseline("known", some, group="params")
        residuals = np.log(some.final_loss / KnownLaw(1.7).predict(some))
        p = fitted.predict(some)
        low, high = tails(residuals)
        np.testing.assert_allclose(p.lower, p.loss * np.exp(low), rtol=1e-14)
        np.testing.assert_allclose(p.upper, p.loss * np.exp(high), rtol=1e-14)
        np.testing.assert_allclose(p.sd, p.loss * np.sqrt((residuals**2).mean()), rtol=1e-14)
        np.testing.assert_allclose(np.diag(p.covariance(slice(None))), p.sd**2 - p.noise**2, rtol=1e-9)

    def test_covariance(self, runs):
        fitted = fit_baseline("known", noisy(runs, np.random.default_rng(5)), group="params")
        p = fitted.predict(table([1e8, 2e8, 1e8], 1e10))
        whole = p.covariance(slice(None))
        together = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
        np.testing.assert_allclose(whole, together * np.outer(p.loss, p.loss) * fitted.residuals["shared_sd"] ** 2)
        assert np.linalg.eigvalsh(whole).min() > -1e-15
        np.testing.assert_array_equal(p.covariance([2, 0]), whole[np.ix_([2, 0], [2, 0])])
        np.testing.assert_array_equal(p.covariance(np.array([True, False, True])), whole[np.ix_([0, 2], [0, 2])])
        np.testing.assert_array_equal(p.covariance_with(2), whole[:, 2])
        np.testing.assert_array_equal(p.covariance_with(2, [1, 0]), whole[[1, 0], 2])
        assert p.covariance(1).shape == (1, 1)

    def test_p_best_is_that_of_what_candidates_do_not_share(self, runs):
        fitted = fit_baseline("known", noisy(runs, np.random.default_rng(6)), group="params")
        candidates = table([3e8, 3e8], [1e10, 1.1e10])
        ranking = rank(candidates, fitted)
        apart = np.log(ranking.loss.max() / ranking.loss.min())
        own = fitted.residuals["own_sd"]
        assert ranking.p_best.max() == pytest.approx(norm.cdf(apart / (np.sqrt(2) * own)), abs=4e-3)

    def test_runs_of_one_curve_share(self):
        steps = np.arange(100.0, 2001.0, 100.0)
        some = table([1e8, 1e8], 1e9, run_id=["a", "b"], status="completed", loss=[3.005, 3.105])
        loss = np.concatenate([3.0 + 10 / steps, 3.1 + 10 / steps])
        curves = CurveTable(tuple(["a"] * len(steps) + ["b"] * len(steps)), np.tile(steps, 2), loss)
        fitted = fit_baseline("annealing", some, curves)
        assert fitted.residuals["shared_sd"] == 0.0
        assert fitted.residuals["own_sd"] == fitted.residuals["sd"]
        assert fitted.residuals["by"] == ""
        assert (fitted.predict(some).covariance([0, 1]) == 0).all()


class TestFiles:
    def test_files_from_before_the_split_answer_as_they_did(self, runs, tmp_path):
        fitted = fit_baseline("known", noisy(runs, np.random.default_rng(7)), group="params")
        path = tmp_path / "law.json"
        fitted.save(path)
        same = load_any_law(path)
        assert same.to_dict() == fitted.to_dict()
        document = json.loads(path.read_text())
        assert document["residuals"]["shared_sd"] == pytest.approx(SHARED, rel=0.6)
        assert document["residuals"]["own_sd"] == pytest.approx(OWN, rel=0.2)
        for key in ("shared_sd", "own_sd", "own_factor", "by"):
            del document["residuals"][key]
        path.write_text(json.dumps(document))
        old = load_any_law(path)
        candidates = table([3e8, 3e8], [1e10, 2e10])
        p, q = same.predict(candidates), old.predict(candidates)
        for name in ("loss", "sd", "lower", "upper"):
            np.testing.assert_array_equal(getattr(p, name), getattr(q, name))
        np.testing.assert_array_equal(q.noise, q.sd)
        assert (q.covariance([0, 1]) == 0).all()

    def test_what_is_kept_of_the_groups(self, runs):
        some = noisy(runs, np.random.default_rng(8))
        fitted = fit_baseline("known", some, group="params")
        kept = fitted.info["left_out_groups"]["params"]
        assert [group["n_runs"] for group in kept["groups"]] == [8] * 8
        relative = 100 * (1 - KnownLaw(1.7).predict(some) / some.final_loss)
        assert kept["bias_pct"] == pytest.approx(relative.mean(), rel=1e-3)
        for group, size in zip(kept["groups"], np.unique(some.params), strict=True):
            own = relative[some.params == size]
            assert group["group"] == f"{size:.6g}"
            assert group["bias_pct"] == pytest.approx(own.mean(), rel=1e-3)
            assert group["error_pct"] == pytest.approx(np.abs(own).mean(), rel=1e-3)
        assert np.abs(relative).mean() == pytest.approx(fitted.info["leave_group_out"]["params"]["mean_error_pct"])
        assert set(fitted.info["versions"]) == {"optlaws", "numpy", "scipy", "python"}

    @pytest.mark.parametrize(
        ("sizes", "shown"),
        [
            ([3, 4, 5], [3, 4, 5]),
            ([1, 4, 5, 6], [5, 6]),  # the one run of the first would follow from the mean of all
            ([2, 4, 5], [5]),
            ([2, 2, 4, 5], [4, 5]),
            ([1, 1, 1, 3], [3]),
            ([1, 4], []),
            ([1, 2], []),
        ],
    )
    def test_no_single_run_can_be_read_back(self, sizes, shown):
        label = np.repeat(np.arange(len(sizes)), sizes)
        found = summary(0.01 * np.arange(1.0, len(label) + 1), label, [str(g) for g in range(len(sizes))])
        assert [group["n_runs"] for group in found["groups"]] == shown
        hidden = sum(sizes) - sum(shown)
        assert hidden == 0 or hidden >= 3

    def test_the_largest_of_very_many_groups(self):
        label = np.repeat(np.arange(60), np.arange(60) % 7 + 3)
        found = summary(np.ones(len(label)), label, [str(g) for g in range(60)])["groups"]
        assert len(found) == 40
        assert min(group["n_runs"] for group in found) == 5

    def test_names_of_groups(self):
        values, label = np.array([1e6, 2e6, 2e6, 5e7]), np.array([0, 0, 0, 4])
        assert group_texts(values, label) == ["1e+06 .. 2e+06", "5e+07"]
        assert group_texts(np.array(["b", "a", "b"]), np.array([1, 0, 1])) == ["a", "b"]
