"""Splits by group, scores against written-out formulas, cross-validation with any fit."""

import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from optlaws.errors import FitError, InputError, OptlawsWarning, TableError
from optlaws.runs import RunTable
from optlaws.schedules import constant, cosine, wsd
from optlaws.validation import (
    HeldOut,
    competing,
    cross_validate,
    finished,
    larger_size_out,
    leave_one_family_out,
    leave_one_out_by,
    longer_horizon_out,
    same_budget,
    same_horizon,
    scores,
    sizes,
)


def table(**columns):
    """Twenty-four runs: three families, two peaks, two lengths, two sizes."""
    schedules, params = [], []
    for size in (1e7, 1e8):
        for steps in (1000, 4000):
            for peak in (1e-3, 2e-3):
                schedules += [cosine(peak, steps), wsd(peak, steps, decay=0.2), constant(peak, steps)]
                params += [size] * 3
    loss = 3 + np.arange(24) / 100
    given = {"params": params, "batch_tokens": 1000.0, "status": "completed", "final_loss": loss}
    return RunTable.build(schedules, **(given | columns))


@dataclass(frozen=True)
class Guess:
    loss: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


class Mean:
    """Predicts the mean loss of its training runs, a bit more for every run."""

    def __init__(self, runs):
        self.level = np.nanmean(runs.final_loss[finished(runs)])
        self.trained = set(runs.run_id)

    def predict(self, runs):
        loss = self.level * (1 + 1e-3 * np.arange(len(runs)))
        assert not self.trained & set(runs.run_id)
        return Guess(loss, 0.97 * loss, 1.03 * loss)


def check(splits, runs):
    splits = list(splits)
    for name, train, test in splits:
        assert isinstance(name, str)
        assert train.shape == test.shape == (len(runs),)
        assert train.dtype == test.dtype == bool
        assert not (train & test).any()
        assert train.any()
        assert test.any()
    return splits


class TestSplits:
    def test_families(self):
        runs = table()
        splits = check(leave_one_family_out(runs), runs)
        assert [s.name for s in splits] == ["family constant left out", "family cosine left out", "family wsd left out"]
        for split in splits:
            held = {s.kind for s in runs.select(split.test).schedules}
            assert len(held) == 1
            assert held.isdisjoint(s.kind for s in runs.select(split.train).schedules)
            assert (split.train | split.test).all()

    def test_longer_horizons(self):
        runs = table()
        (split,) = check(longer_horizon_out(runs, 1000), runs)
        assert split.name == "steps > 1000"
        assert runs.steps[split.train].max() == 1000
        assert runs.steps[split.test].min() == 4000

    def test_larger_sizes_count_active_parameters(self):
        runs = table(active_params=[None] * 12 + [5e6] * 6 + [None] * 6)
        assert (sizes(runs)[12:18] == 5e6).all()
        (split,) = check(larger_size_out(runs, 1e7), runs)
        assert split.train.sum() == 18
        assert split.name == "params > 1e+07"

    def test_runs_without_a_size_are_on_neither_side(self):
        runs = table(params=[1e7] * 12 + [1e8] * 11 + [None])
        (split,) = check(larger_size_out(runs, 1e7), runs)
        assert not (split.train | split.test)[23]

    @pytest.mark.parametrize(
        ("column", "groups"),
        [("family", 3), ("peak_lr", 2), ("size", 2), ("steps", 2), ("params", 2), ("run_id", 24), ("lab", 4)],
    )
    def test_any_column(self, column, groups):
        runs = table(extra={"lab": ["a", "b", "c", "d"] * 6})
        splits = check(leave_one_out_by(runs, column), runs)
        assert len(splits) == groups
        assert np.sum([s.test for s in splits], axis=0).tolist() == [1] * 24
        assert len({s.name for s in splits}) == groups

    def test_errors(self):
        runs = table(extra={"lab": ["a"] * 23 + [""]})
        with pytest.raises(TableError, match="no column 'famly'"):
            list(leave_one_out_by(runs, "famly"))
        with pytest.raises(InputError, match=r"column 'lab' must be given for every run .* 1 of 24 lack it .*'24'"):
            list(leave_one_out_by(runs, "lab"))
        with pytest.raises(InputError, match="column 'seq_len' must be given for every run"):
            list(leave_one_out_by(runs, "seq_len"))
        with pytest.raises(InputError, match="column 'batch_tokens' must have at least 2 different values"):
            list(leave_one_out_by(runs, "batch_tokens"))
        with pytest.raises(InputError, match="threshold must leave runs on both sides of it, got 9000 where steps are"):
            list(longer_horizon_out(runs, 9e3))
        with pytest.raises(InputError, match="got 1 where params are no values"):
            list(larger_size_out(table(params=None), 1.0))

    def test_pools(self):
        runs = table()
        assert len(set(same_horizon(runs))) == 4
        assert len(set(same_budget(runs))) == 4
        assert same_budget(runs)[0] == "10000000x1000000"

    def test_runs_of_one_budget_compete_whatever_their_batch(self):
        steps, batch = [1000, 333, 500, 1000], [3e5, 9e5, 6e5, 6e5]  # whole steps: 3e8, 2.997e8, 3e8 and 6e8 tokens
        schedules = [f"cosine:peak=1e-3,steps={t}" for t in steps]
        runs = RunTable.build(schedules, params=1e8, batch_tokens=batch)

        def pools(table):
            found = competing(table).tolist()
            return [found.index(label) for label in found]

        assert pools(runs) == [0, 0, 0, 3]
        assert pools(replace(runs, params=np.array([1e8, 1e8, 2e8, 1e8]))) == [0, 0, 2, 3]
        silent = RunTable.build(schedules, params=1e8)
        assert pools(silent) == [0, 1, 2, 0]  # by steps

    def test_pools_of_different_parts_stay_apart(self):
        """Parts of a table that are added one by one make the same pools as all of them at once."""
        runs = table(final_loss=3 + np.random.default_rng(0).random(24))
        kept, whole = HeldOut(), HeldOut()
        for size in (1e7, 1e8):
            part = runs.select(runs.params == size)
            kept.add(Known(part.final_loss), part)
        whole.add(Known(runs.final_loss), runs)
        assert kept.row()["pools"] == whole.row()["pools"] == 4
        rows = cross_validate(runs, leave_one_out_by(runs, "params"), Mean)
        assert rows["all"]["pools"] == 4

    def test_pools_of_several_batches_are_scored_by_default(self):
        schedules = [f"cosine:peak={p}e-3,steps={t}" for t in (1000, 2000) for p in (1, 2)]
        loss = np.array([3.0, 3.1, 2.8, 2.9])
        runs = RunTable.build(schedules, params=1e8, batch_tokens=[4e5, 4e5, 2e5, 2e5], final_loss=loss)
        kept = HeldOut()
        kept.add(Known(loss), runs)
        assert kept.row()["pools"] == 1
        assert kept.row()["pool_spearman"] == pytest.approx(1)


@dataclass(frozen=True)
class Known:
    loss: np.ndarray

    def predict(self, runs):
        return Guess(self.loss, self.loss - 0.1, self.loss + 0.1)


class TestScores:
    def test_written_out(self):
        rng = np.random.default_rng(3)
        y = rng.uniform(2, 3, size=30)
        p = y * (1 + 0.02 * rng.normal(size=30))
        low, high = 0.98 * p, 1.03 * p
        pool = np.repeat(["a", "b", "c", "d"], [12, 10, 5, 3])
        row = scores(y, p, low, high, pool)
        error = [100 * abs(a / b - 1) for a, b in zip(p, y, strict=True)]
        assert row["runs"] == 30
        assert row["error"] == pytest.approx(sum(error) / 30)
        assert row["worst"] == pytest.approx(max(error))
        assert row["bias"] == pytest.approx(100 * np.mean(p / y) - 100)
        assert row["rmsle"] == pytest.approx(
            100 * np.sqrt(np.mean([np.log(a / b) ** 2 for a, b in zip(p, y, strict=True)]))
        )
        assert row["spearman"] == pytest.approx(spearmanr(y, p).statistic)
        inside = [spearmanr(y[pool == k], p[pool == k]).statistic for k in "abc"]
        assert row["pool_spearman"] == pytest.approx(np.mean(inside))
        hits, regrets = 0, []
        for k in "abc":
            yk, pk = list(y[pool == k]), list(p[pool == k])
            first, second = sorted(pk)[:2]
            hits += yk.index(min(yk)) in (pk.index(first), pk.index(second))
            regrets.append(100 * (yk[pk.index(first)] / min(yk) - 1))
        assert (row["hits"], row["pools"]) == (hits, 3)
        assert row["regret"] == pytest.approx(np.mean(regrets))
        assert row["worst_regret"] == pytest.approx(max(regrets))
        assert row["cover"] == pytest.approx(np.mean((low <= y) & (y <= high)))
        assert row["width"] == pytest.approx(5.0)
        by_pool = scores(y, p, low, high, pool, by_pool=True)["error"]
        assert by_pool == pytest.approx(np.mean([np.mean(np.array(error)[pool == k]) for k in "abcd"]))

    def test_the_width_is_the_mean_of_relative_ones(self):
        """2, 10 and 3 % of the predictions; two of three losses inside, one at the very end."""
        p = np.array([2.0, 4.0, 3.0])
        low, high = p - np.array([0.02, 0.3, 0.03]), p + np.array([0.02, 0.1, 0.06])
        row = scores([2.02, 4.05, 2.9], p, low, high)
        assert row["width"] == pytest.approx(5.0)
        assert row["cover"] == pytest.approx(2 / 3)

    def test_perfect(self):
        y = np.array([2.0, 2.1, 2.2, 2.3, 2.4])
        row = scores(y, y, y, y)
        assert (row["error"], row["regret"], row["cover"], row["hits"], row["pools"]) == (0, 0, 1, 1, 1)
        assert row["spearman"] == pytest.approx(1.0)

    @pytest.mark.parametrize(("place", "hit"), [(0, 1), (1, 1), (2, 0), (4, 0)])
    def test_a_hit_is_a_best_one_among_the_two_predicted_lowest(self, place, hit):
        p = np.array([2.0, 2.1, 2.2, 2.3, 2.4])
        y = p + 0.5
        y[place] = 2.0
        assert scores(y, p, p - 0.1, p + 0.1)["hits"] == hit

    def test_repeats_are_one_candidate(self):
        y = np.array([2.0, 2.2, 2.05, 2.05, 2.3, 2.5])
        p = np.array([2.1, 2.1, 2.0, 2.0, 2.4, 2.4])
        row = scores(y, p, p - 0.1, p + 0.1, candidate=["a", "a", "b", "b", "c", "c"])
        assert row["candidate_spearman"] == pytest.approx(spearmanr([2.1, 2.05, 2.4], [2.1, 2.0, 2.4]).statistic) == 1.0
        assert row["pool_spearman"] == pytest.approx(spearmanr(y, p).statistic)
        alone = scores(y, p, p - 0.1, p + 0.1)
        assert alone["candidate_spearman"] == alone["pool_spearman"]

    def test_small_pools_do_not_count(self):
        y = np.array([2.0, 2.1, 2.2])
        row = scores(y, y, y, y)
        assert row["pools"] == row["hits"] == 0
        assert np.isnan(row["regret"])
        assert np.isnan(row["pool_spearman"])
        assert scores(y, y, y, y, smallest=3)["pools"] == 1

    def test_constant_predictions_have_no_rank(self):
        y = np.array([2.0, 2.1, 2.2, 2.3])
        assert np.isnan(scores(y, np.full(4, 2.0), y, y)["spearman"])

    def test_ties_share_their_rank(self):
        y, p = np.array([1.0, 2.0, 2.0, 3.0, 4.0]), np.array([2.0, 1.0, 1.0, 1.0, 5.0])
        assert scores(y, p, y, y)["spearman"] == pytest.approx(spearmanr(y, p).statistic)

    def test_errors(self):
        y = np.array([2.0, 2.1])
        with pytest.raises(InputError, match=r"predicted must have shape \(2,\), one entry a run, got \(1,\)"):
            scores(y, y[:1], y, y)
        with pytest.raises(InputError, match="lower must be finite and above 0, got nan in place 1"):
            scores(y, y, [2.0, np.nan], y)
        with pytest.raises(InputError, match=r"loss must be finite and above 0, got 0\.0 in place 0"):
            scores([0.0, 1.0], y, y, y)
        with pytest.raises(InputError, match="loss must be one row of at least 1 number"):
            scores([], [], [], [])
        with pytest.raises(InputError, match="pool must have shape"):
            scores(y, y, y, y, ["a"])


class TestCrossValidation:
    def test_rows_and_all(self):
        runs = table()
        rows = cross_validate(runs, leave_one_family_out(runs), Mean)
        assert list(rows) == ["family constant left out", "family cosine left out", "family wsd left out", "all"]
        assert [row["runs"] for row in rows.values()] == [8, 8, 8, 24]
        mean = np.mean([row["error"] for name, row in rows.items() if name != "all"])
        assert rows["all"]["error"] == pytest.approx(mean)

    def test_one_split_by_hand(self):
        runs = table()
        (split,) = longer_horizon_out(runs, 1000)
        rows = cross_validate(runs, [split], Mean, pool=same_budget)
        held, kept = runs.select(split.test), HeldOut()
        kept.add(Mean(runs.select(split.train)), held, same_budget(held))
        assert rows["steps > 1000"] == kept.row() == rows["all"]
        assert rows["all"]["pools"] == 2

    def test_errors_by_pool_and_small_pools_are_passed_on(self):
        """Pools of one and three runs: by pools the error is the mean of the two means."""
        runs = table().select([0, 1, 2, 3])
        y, p = np.array([2.0, 2.0, 2.1, 2.2]), np.array([2.2, 2.0, 2.1, 2.2])
        kept = HeldOut()
        kept.add(Known(p), replace(runs, final_loss=y), ["a", "b", "b", "b"])
        assert kept.row()["error"] == pytest.approx(2.5)
        assert kept.row(by_pool=True)["error"] == pytest.approx(5.0)
        assert [kept.row(smallest=n)["pools"] for n in (1, 3, 4)] == [2, 1, 0]

    def test_every_row_of_a_validation_may_be_by_pool(self):
        runs = table().select(np.arange(23))  # the last pool has lost a run
        splits = list(longer_horizon_out(runs, 1000))
        plain, by_pool = (cross_validate(runs, splits, Mean, pool=same_budget, by_pool=k) for k in (False, True))
        for name, row in by_pool.items():
            held = runs.select(splits[0].test)
            guess = Mean(runs.select(splits[0].train)).predict(held).loss
            error, label = 100 * np.abs(guess / held.final_loss - 1), same_budget(held)
            expected = np.mean([error[label == k].mean() for k in np.unique(label)])
            assert row["error"] == pytest.approx(expected)
            assert plain[name]["error"] == pytest.approx(error.mean())
            assert expected != pytest.approx(error.mean(), rel=1e-6)

    def test_unfinished_runs_are_not_scored(self):
        status = ["completed"] * 22 + ["diverged", "interrupted"]
        loss = 3 + np.arange(24) / 100
        loss[[0, 23]] = np.nan
        runs = table(status=status, final_loss=loss)
        assert finished(runs).sum() == 21
        assert cross_validate(runs, leave_one_family_out(runs), Mean)["all"]["runs"] == 21

    def test_errors(self):
        runs = table()
        half = np.arange(24) < 12
        with pytest.raises(InputError, match="masks of split 'x' must not overlap, but run '1' is on both sides"):
            cross_validate(runs, [("x", half, half)], Mean)
        with pytest.raises(InputError, match=r"masks of split 'x' must have shape \(24,\), got \(12,\) and \(24,\)"):
            cross_validate(runs, [("x", half[:12], half)], Mean)
        with pytest.raises(InputError, match="names of splits must differ, and 'all' is taken, got 'x' again"):
            cross_validate(runs, [("x", half, ~half)] * 2, Mean)
        with pytest.raises(InputError, match="names of splits must differ, and 'all' is taken"):
            cross_validate(runs, [("all", half, ~half)], Mean)
        with pytest.raises(InputError, match="splits must hold at least one split, got none"):
            cross_validate(runs, [], Mean)
        with pytest.raises(FitError, match="split 'x' must hold out at least 1 completed run with a loss, got none"):
            cross_validate(table(status="diverged"), [("x", half, ~half)], Mean)
        with pytest.raises(InputError, match="at least one held-out run must be added"):
            HeldOut().row()


def test_importing_it_loads_neither_laws_nor_scikit_learn():
    code = "import sys, optlaws.validation; print('sklearn' in sys.modules, 'optlaws.law' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_with_the_default_fit():
    from optlaws.law import fit_law

    runs = table()
    with pytest.warns(OptlawsWarning, match="12 runs for 16 columns"):
        rows = cross_validate(runs, leave_one_out_by(runs, "peak_lr"), fit_law)
    assert rows["all"]["runs"] == 24
    assert 0 <= rows["all"]["cover"] <= 1


class TestEdges:
    def test_masks_of_the_caller_stay_as_they_are(self):
        loss = 3 + np.arange(24) / 100
        loss[[0, 5]] = np.nan
        runs = table(final_loss=loss)
        train, test = np.arange(24) >= 12, np.arange(24) < 12
        before = test.copy()
        assert cross_validate(runs, [("x", train, test)], Mean)["x"]["runs"] == 10
        np.testing.assert_array_equal(test, before)
        train.flags.writeable = test.flags.writeable = False
        assert cross_validate(runs, [("x", train, test)], Mean)["x"]["runs"] == 10

    def test_values_alike_in_six_digits_have_names_of_their_own(self):
        runs = table(params=[84934656.0] * 12 + [84934657.0] * 12)
        names = [split.name for split in leave_one_out_by(runs, "params")]
        assert names == ["params 84934656.0 left out", "params 84934657.0 left out"]
        assert len(cross_validate(runs, leave_one_out_by(runs, "params"), Mean)) == 3

    @pytest.mark.parametrize("name", ["pool", "candidate"])
    @pytest.mark.parametrize("label", [[1.0, np.nan], np.array(["a", None], dtype=object)])
    def test_labels_that_are_missing(self, name, label):
        y = np.array([2.0, 2.1])
        with pytest.raises(InputError, match=f"{name} must be a label for every run, got none in place 1; name it"):
            scores(y, y, y, y, **{name: label})

    def test_ends_the_wrong_way_round(self):
        y = np.array([2.0, 2.1])
        with pytest.raises(InputError, match=r"lower must be at most upper, got 2\.1 and 2 in place 1; swap"):
            scores(y, y, y, [2.0, 2.0])

    def test_whole_numbers_and_single_precision(self):
        assert scores([2, 3], [2, 3], [1, 2], [3, 4])["error"] == 0.0
        y = np.array([2.0, 2.5], dtype=np.float32)
        assert scores(y, y, y, y)["cover"] == 1.0
