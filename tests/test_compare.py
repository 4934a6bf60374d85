"""Laws on a user's own runs: errors against written-out fits, who is told apart, what is left out and why."""

import csv
import io
import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from scipy import stats

from optlaws import cli, compare_laws, fit_law, read_runs
from optlaws.baselines.base import in_order
from optlaws.baselines.chinchilla import Chinchilla
from optlaws.baselines.mup import MuP
from optlaws.baselines.polynomial import CubicRidge
from optlaws.compare import OURS, REFERENCES, Difference, contenders, one_size, paired_difference, verdict
from optlaws.compare.splits import made_folds
from optlaws.errors import FitError, InputError, OptlawsWarning
from optlaws.law.baseline import fit_baseline
from optlaws.runs import CurveTable, RunTable, write_curves, write_runs

ROOT = Path(__file__).resolve().parents[1]
MINE = ROOT / "examples" / "my_runs.csv"
RATES = (3e-4, 1e-3, 3e-3)
KEYS = {
    "law", "kind", "n_runs", "folds", "mean_error_pct", "max_error_pct", "pool_spearman", "top2_hits", "pools",
    "regret_pct", "coverage", "fit_seconds", "error_beside_ours", "regret_beside_ours", "best", "reason",
}  # fmt: skip


def made(**columns):
    """Return runs of three sizes, four lengths, three rates and two batches with a valley about a best rate."""
    cells = [(n, t, r, b) for n in (5e7, 1e8, 2e8) for t in (3e3, 1e4, 3e4, 1e5) for r in RATES for b in (2e5, 4e5)]
    n, t, r, b = np.array(cells).T
    t = np.round(t * 2e5 / b)
    loss = 1.8 + 480 / n**0.35 + 2000 / (t * b) ** 0.365
    loss *= np.exp(0.01 * np.log(r / 8e-4) ** 2 + 0.004 * np.log(b / 3e5) ** 2 + 0.003 * np.sin(7 * np.arange(len(n))))
    kinds = ("cosine:peak={!r},steps={:d},warmup=100", "linear:peak={!r},steps={:d},warmup=100")
    specs = [kinds[i % 5 == 0].format(float(one), int(s)) for i, (one, s) in enumerate(zip(r, t, strict=True))]
    return RunTable.build(specs, **({"params": n, "batch_tokens": b, "final_loss": loss} | columns))


@pytest.fixture(scope="module")
def runs():
    return made()


@pytest.fixture(scope="module")
def found(runs):
    return compare_laws(runs, laws=["chinchilla", "critical_batch", "mup", "cubic_ridge", "isoflop"])


@dataclass(frozen=True)
class Fake:
    """A law that predicts by a rule, and does what a test wants of its fits."""

    level: float

    name: ClassVar[str] = "fake"
    needs: ClassVar[tuple[str, ...]] = ("params", "batch_tokens")
    seen: ClassVar[list] = []

    @classmethod
    def fit(cls, runs, curves=None, *, seed=0, starts=0):
        cls.seen.append((set(runs.run_id), None if curves is None else set(curves.run_id)))
        return cls(float(runs.final_loss.mean()))

    def predict(self, runs):
        return self.level * (runs.batch_tokens / 3e5) ** 0.01


@pytest.fixture
def fake(monkeypatch):
    """Put a law of one's own in the place of kaplan's."""

    def put(kind):
        kind.seen = []
        monkeypatch.setattr(contenders, "get_baseline", lambda name: kind)
        return kind

    return put


class TestFigures:
    @pytest.mark.parametrize(("split", "column"), [("horizon", "steps"), ("size", "size")])
    def test_error_of_a_naive_twin(self, runs, found, split, column):
        values = getattr(runs, column)
        levels = sorted(set(values.tolist()))
        limit = levels[(len(levels) - 1) // 2]
        train, test = runs.select(values <= limit), runs.select(values > limit)
        (result,) = [one for one in found.splits if one.name == split]
        for name, kind in (("chinchilla", Chinchilla), ("cubic_ridge", CubicRidge)):
            guess = kind.fit(in_order(train)).predict(test)
            errors = [abs(p / y - 1) * 100 for p, y in zip(guess, test.final_loss, strict=True)]
            row = result.row(name)
            assert row.error == pytest.approx(sum(errors) / len(errors), rel=1e-9)
            assert row.worst == pytest.approx(max(errors), rel=1e-9)
            assert (row.runs, row.folds, result.held_out) == (len(errors), 1, len(errors))

    def test_regret_of_a_naive_twin(self, runs, found):
        test = runs.select(runs.size > 1e8)
        law, regrets, hits = CubicRidge.fit(runs.select(runs.size <= 1e8)), [], 0
        for steps_times_batch in sorted({round(x) for x in test.tokens.tolist()}):
            pool = test.select(np.round(test.tokens) == steps_times_batch)
            guess, y = law.predict(pool), pool.final_loss
            regrets.append(100 * (y[np.argmin(guess)] / min(y) - 1))
            hits += int(np.argmin(y) in np.argsort(guess)[:2])
        row = next(one for one in found.splits if one.name == "size").row("cubic_ridge")
        assert row.pools == len(regrets) == 4
        assert row.regret == pytest.approx(np.mean(regrets), abs=1e-9)
        assert row.hits == hits

    def test_a_law_that_only_advises_has_a_regret_and_nothing_else(self, runs, found):
        row = next(one for one in found.splits if one.name == "size").row("mup")
        law, regrets = MuP.fit(runs.select(runs.size <= 1e8)), []
        test = runs.select(runs.size > 1e8)
        for tokens in np.unique(np.round(test.tokens)):
            pool = test.select(np.round(test.tokens) == tokens)
            rate = law.recommend(2e8, tokens).peak_lr
            apart = [abs(np.log(peak / rate)) for peak in pool.batch().peak]
            near = [y for y, gap in zip(pool.final_loss, apart, strict=True) if gap < min(apart) + 1e-9]
            assert len(near) == 2  # two batches: the law says nothing of them
            regrets.append(100 * (np.mean(near) / min(pool.final_loss) - 1))
        assert row.regret == pytest.approx(np.mean(regrets), rel=0.35, abs=0.05)  # which of the two is drawn
        assert (row.runs, np.isnan(row.error), np.isnan(row.spearman)) == (0, True, True)

    def test_laws_that_cannot_rank_have_no_regret(self, found):
        for split in found.splits:
            for name in ("chinchilla", "mean of runs"):
                assert np.isnan(split.row(name).regret)
                assert np.isnan(split.row(name).hits)

    def test_what_a_law_leaves_open_is_drawn(self, runs, fake):
        """The fake law knows batches only: among three rates it takes each as often as the others."""
        fake(Fake)
        row = compare_laws(runs, laws=["kaplan"], splits=["size"]).splits[0].row("kaplan")
        expected = []
        test = runs.select(runs.size > 1e8)
        for tokens in np.unique(np.round(test.tokens)):
            pool = test.select(np.round(test.tokens) == tokens)
            y = pool.final_loss
            expected.append(100 * (y[pool.batch_tokens == 2e5].mean() / y.min() - 1))
        assert row.regret == pytest.approx(np.mean(expected), rel=0.4)

    def test_a_fit_that_has_no_meaning_is_listed_as_none(self):
        """Losses that rise with the tokens: `fit` refuses them Chinchilla, and so does this."""
        rising = read_runs(MINE)
        rising = replace(rising, final_loss=3.0 + 0.05 * np.log(rising.tokens / 1e9))
        with pytest.raises(FitError, match=r"beta .* must be above 0, got -0.*: these runs do not follow the law"):
            fit_baseline("chinchilla", rising.select(rising.params <= 30e6))
        found = compare_laws(rising, laws=["chinchilla", "kaplan"], splits=["size"])
        assert found.splits[0].row("kaplan").error > 0
        assert found.splits[0].row("chinchilla") is None
        assert "these runs do not follow the law" in found.not_compared["chinchilla"]

    def test_the_order_of_the_runs_does_not_matter(self, runs, found):
        shuffled = runs.select(np.random.default_rng(1).permutation(len(runs)))
        again = compare_laws(shuffled, laws=["cubic_ridge"])
        for split, other in zip(found.splits, again.splits, strict=True):
            for law in ("optlaws", "cubic_ridge"):
                one, two = split.row(law), other.row(law)
                assert two.error == pytest.approx(one.error, rel=1e-5)
                assert two.error_difference is None or two.error_difference == pytest.approx(
                    one.error_difference, rel=1e-4, nan_ok=True
                )

    def test_rows_are_in_order_and_the_best_is_marked(self, found):
        for split in found.splits:
            errors = [row.error for row in split.rows if row.runs == split.held_out]
            assert errors == sorted(errors)
            whole = [row for row in split.rows if row.runs == split.held_out]
            least = min(row.error for row in whole)
            assert [row.law for row in split.rows if "error" in row.best] == [
                row.law for row in whole if row.error == least
            ]

    def test_ours_beats_the_mean_and_the_nearest_run_on_the_examples(self):
        found = compare_laws(read_runs(MINE), laws=["chinchilla", "kaplan"], splits=["horizon", "size", "peak"])
        for split in found.splits:
            ours = split.row("optlaws").error
            assert ours < split.row("mean of runs").error
            assert ours < split.row("nearest run").error
            assert split.row("optlaws").cover > 0.5
        assert "Lowest mean error on 3 of 3 splits: optlaws" in verdict(found)

    def test_intervals_on_request(self, runs):
        found = compare_laws(runs, laws=["kaplan"], splits=["size"], intervals=True)
        assert 0 <= found.splits[0].row("kaplan").cover <= 1
        assert np.isnan(found.splits[0].row("nearest run").cover)


class TestPairedDifference:
    def test_twin(self):
        rng = np.random.default_rng(0)
        group, values = np.repeat(np.arange(5), 4), rng.normal(size=20)
        mean = sum(values) / 20
        squares = sum(sum(values[i] - mean for i in range(20) if group[i] == g) ** 2 for g in range(5))
        half = stats.t(4).ppf(0.95) * (5 / 4 * squares) ** 0.5 / 20
        assert paired_difference(values, group) == pytest.approx((mean, mean - half, mean + half))

    def test_single_runs_as_groups_are_the_usual_interval(self):
        values = np.random.default_rng(1).normal(size=12)
        half = stats.t(11).ppf(0.95) * values.std(ddof=1) / 12**0.5
        assert paired_difference(values, np.arange(12)).upper == pytest.approx(values.mean() + half)

    def test_the_wider_counts_and_one_group_says_nothing(self):
        values, pools = np.array([1.0, 1.1, 2.0, 2.1]), [0, 0, 1, 1]
        by_pool, by_run = paired_difference(values, pools), paired_difference(values, range(4))
        assert paired_difference(values, pools, range(4)).upper == max(by_pool.upper, by_run.upper)
        assert paired_difference(values, pools, [0] * 4) == by_pool
        alone = paired_difference(values, [0] * 4)
        assert np.isnan(alone.upper)
        assert not alone.spreads
        assert not alone.behind(1)
        assert [freedom for _, freedom in paired_difference(values, pools, range(4)).spreads] == [1, 3]
        assert (alone.sign, Difference(1.0, 0.1, 2.0).sign, Difference(-1.0, -2.0, -0.1).sign) == (0, 1, -1)

    def test_the_best_of_many_rivals_is_ahead_only_by_more(self):
        """Of K draws about nothing the lowest is 'behind' in at most 5 % of the cases, as a single one is."""
        rng, false = np.random.default_rng(3), {1: 0, 8: 0}
        for _ in range(400):
            found = [paired_difference(rng.normal(size=6), range(6)) for _ in range(8)]
            for k in false:
                best = min(found[:k], key=lambda one: one.mean)
                false[k] += best.behind(k)
                assert not best.behind(k) or best.sign == -1
        assert max(false.values()) <= 0.05 * 400 + 2 * (0.05 * 0.95 * 400) ** 0.5
        ratio = stats.t(5).ppf(0.975) / stats.t(5).ppf(0.95)  # of the widths for two rivals and for one
        for mean, among in ((-1.01, 1), (-1.01 * ratio, 2)):
            edge = Difference(mean, mean - 1, mean + 1)
            edge.spreads = ((1 / stats.t(5).ppf(0.95), 5.0), (0.5, np.inf))
            assert edge.behind(among)
            assert not edge.behind(among + 1)
        assert not Difference(-0.2, np.nan, np.nan).behind(1)


class TestSplits:
    def test_bands_of_rates(self):
        peaks = np.geomspace(1e-4, 1e-2, 15)
        runs = RunTable.build([f"cosine:peak={float(p)!r},steps=1000" for p in peaks], final_loss=np.ones(15))
        made, refused = made_folds(runs, ["peak", "horizon", "size", "family"])
        assert len(made["peak"]) == 6
        np.testing.assert_array_equal(sum(split.test.astype(int) for split in made["peak"]), np.ones(15))
        assert all((split.train ^ split.test).all() for split in made["peak"])
        assert refused == {
            "horizon": "all runs have one length",
            "size": "params are not given for every run",
            "family": "all runs have one kind of schedule",
        }

    def test_laws_of_one_size(self):
        assert one_size(contenders.get_baseline("multi_power"))
        assert not one_size(contenders.get_baseline("forward_momentum"))
        assert not one_size(None)


class TestLeftOut:
    def test_what_predicts_nothing_and_what_columns_lack(self, found):
        assert found.not_compared == {"isoflop": "divides compute between size and data, and predicts no losses"}
        batch = made().batch_tokens.copy()
        batch[::4] = np.nan
        lacking = compare_laws(
            made(batch_tokens=batch), laws=["chinchilla", "mup", "convex_bound"], splits=["size", "peak"]
        )
        assert lacking.not_compared["chinchilla"] == "needs tokens, which 18 of 72 runs lack (first: '1')"
        assert lacking.not_compared["optlaws"].startswith(
            "batch_tokens must be given for all runs of a fit or for none"
        )
        size, peak = lacking.splits
        assert (
            size.row("convex_bound").reason == "holds for one size, and the held-out sizes are not among those fitted"
        )
        assert peak.row("convex_bound").runs == 72

    def test_one_fold_that_fails_keeps_the_others(self, runs, fake):
        @dataclass(frozen=True)
        class Fails(Fake):
            @classmethod
            def fit(cls, runs, curves=None, *, seed=0, starts=0):
                if not np.isclose(runs.batch().peak, 1e-3).any():
                    raise FitError("law 'kaplan' needs the middle rate")
                return super().fit(runs)

        fake(Fails)
        found = compare_laws(runs, laws=["kaplan"], splits=["peak"])
        here = found.splits[0].row("kaplan")
        assert (here.runs, here.folds, found.splits[0].held_out) == (48, 2, 72)
        assert here.reason == "needs the middle rate"
        assert "error" not in here.best
        ours = []
        for peak in (3e-4, 3e-3):  # the folds in which the law could be fitted
            held = np.isclose(runs.batch().peak, peak)
            test = runs.select(held)
            ours += (100 * np.abs(fit_law(runs.select(~held)).predict(test).loss / test.final_loss - 1)).tolist()
        assert here.error_difference.mean == pytest.approx(here.error - np.mean(ours), rel=1e-6)

    def test_warnings_become_one_line(self, runs, fake):
        @dataclass(frozen=True)
        class Warns(Fake):
            @classmethod
            def fit(cls, runs, curves=None, *, seed=0, starts=0):
                warnings.warn(OptlawsWarning(f"{len(runs)} runs are few"), stacklevel=2)
                return super().fit(runs)

        fake(Warns)
        found = compare_laws(runs, laws=["kaplan"], splits=["size", "horizon"])
        assert found.warned["kaplan"] == "36 runs are few (and 1 more)"

    def test_laws_see_training_runs_and_their_curves_only(self, runs, fake):
        kind = fake(Fake)
        some = [name for name in runs.run_id for _ in range(2)]
        curves = CurveTable(some, np.tile([200.0, 400.0], len(runs)), np.full(2 * len(runs), 4.0))
        compare_laws(runs, curves, laws=["kaplan"], splits=["size"])
        small = {name for name, size in zip(runs.run_id, runs.size, strict=True) if size <= 1e8}
        assert kind.seen == [(small, small)]

    def test_a_law_has_its_time(self, runs):
        with pytest.raises(
            FitError, match=r"at least one law must be fitted.*stopped: its fits took more than 1e-09 s"
        ):
            compare_laws(runs, laws=["chinchilla"], splits=["size"], seconds=1e-9)

    def test_unfinished_runs(self, runs):
        status = np.array(["completed"] * 70 + ["diverged"] * 2)
        found = compare_laws(made(status=status), laws=["chinchilla"], splits=["size"])
        assert (found.runs, found.unfinished) == (70, 2)


class TestInterrupted:
    """Ctrl-C at a fit of a law keeps what is finished; without `partial`, or before ours is, it is raised."""

    LAWS = ("kaplan", "chinchilla", "mup")

    def stop_at(self, start):
        def tick(word):
            if word.startswith(start):
                raise KeyboardInterrupt

        return tick

    def test_what_is_finished_is_kept(self, runs):
        splits, words = ["horizon", "peak"], []
        whole = compare_laws(runs, laws=self.LAWS, splits=splits, progress=words.append)
        fold = "kaplan (law 3 of 6, fold 3 of 4)"
        assert f"{fold}, fit" in words
        assert {word.split(" fold ")[1].split(")")[0] for word in words} == {f"{i} of 4" for i in (1, 2, 3, 4)}
        found = compare_laws(runs, laws=self.LAWS, splits=splits, progress=self.stop_at(fold), partial=True)
        assert (found.interrupted, whole.interrupted) == (True, False)
        assert found.not_compared == {"mup": "interrupted"}
        for split, other in zip(found.splits, whole.splits, strict=True):
            for name in (OURS, "chinchilla", *REFERENCES):
                assert split.row(name).error == other.row(name).error
        first, second = (split.row("kaplan") for split in found.splits)
        assert (first.error, first.reason) == (whole.splits[0].row("kaplan").error, "")
        assert (second.folds, second.reason) == (1, "interrupted")
        assert 0 < second.runs < whole.splits[1].row("kaplan").runs

    @pytest.mark.parametrize(("start", "partial"), [("chinchilla", False), (OURS, True)])
    def test_it_is_raised_where_nothing_is_kept(self, runs, start, partial):
        with pytest.raises(KeyboardInterrupt):
            compare_laws(runs, laws=self.LAWS, splits=["size"], progress=self.stop_at(start), partial=partial)

    def test_the_command_writes_it_and_exits_with_130(self, fake, capsys):
        class Stops(Fake):
            @classmethod
            def fit(cls, runs, curves=None, *, seed=0, starts=0):
                raise KeyboardInterrupt

        fake(Stops)
        assert cli.run(["compare", str(MINE), "--laws", "kaplan,chinchilla", "--splits", "size"]) == 130
        out, err = capsys.readouterr()
        assert err == "optlaws: interrupted; what was finished is written, without chinchilla, kaplan\n"
        assert "\nNot compared:\n- chinchilla, kaplan: interrupted\n" in out
        assert "\noptlaws " in out


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"laws": ["chinchila"]}, r"laws must be some of .*got 'chinchila'; did you mean 'chinchilla'\?"),
            ({"laws": []}, "laws must be a list of at least one of"),
            ({"laws": "kaplan"}, "laws must be a list"),
            (
                {"splits": ["sizes"]},
                "splits must be some of horizon, size, family, peak, got 'sizes'; did you mean 'size'",
            ),
            ({"seconds": 0.0}, "seconds must be above 0, got 0"),
            ({"seconds": float("nan")}, "seconds must be above 0, got nan"),
            ({"seconds": "30"}, "seconds must be above 0, got '30'"),
            ({"laws": 5}, "laws must be a list of at least one of .*, got 5; name some"),
            ({"curves": "curves.csv"}, "curves must be a CurveTable, got str; read one with read_curves"),
        ],
    )
    def test_refused(self, runs, options, message):
        with pytest.raises(InputError, match=message):
            compare_laws(runs, **options)

    @pytest.mark.parametrize("table", ["runs.csv", None, [1]])
    def test_what_is_no_run_table(self, table):
        with pytest.raises(InputError, match=r"runs must be a RunTable, got (str|NoneType|list)"):
            compare_laws(table)

    def test_runs_that_allow_no_split(self, runs):
        with pytest.raises(
            FitError, match=r"at least one split, got 1 completed runs \(horizon: all runs have one length"
        ):
            compare_laws(runs.select([0]))
        nothing = replace(runs, final_loss=np.full(len(runs), np.nan))
        with pytest.raises(FitError, match=r"got 0 completed runs .*there is no completed run with a loss"):
            compare_laws(nothing)


class TestCommand:
    def test_without_rivals_nothing_is_said_of_them(self, capsys):
        assert cli.run(["compare", str(MINE), "--laws", "optlaws", "--splits", "size"]) == 0
        text = capsys.readouterr().out
        assert text.endswith("a line to compare with.\n")
        assert "\n\n\n" not in text

    def test_in_a_process(self, tmp_path):
        done = subprocess.run(
            [sys.executable, "-m", "optlaws", "compare", str(MINE), "--laws", "chinchilla,convex_bound,isoflop",
             "--splits", "size,family", "-o", str(tmp_path / "out.txt")],
            capture_output=True, text=True, check=False, timeout=240, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        text = (tmp_path / "out.txt").read_text(encoding="utf-8")
        first, rest = text.split("\n\n", 1)
        assert rest.startswith(
            "36 runs. Every law is fitted anew in every fold.\n\nLarger models held out: params > 3e+07;"
        )
        assert "- convex_bound" not in text
        assert text.endswith("\n\nNot in full: 2 laws in one split or more; --full lists which and why.\n")
        assert "- isoflop: divides compute" in text
        assert "(nearest run)" in text
        assert first == verdict(
            compare_laws(read_runs(MINE), laws=["chinchilla", "convex_bound", "isoflop"], splits=["size", "family"])
        )

    def test_what_is_not_in_full_is_listed_last_where_asked(self, capsys):
        assert cli.run(["compare", str(MINE), "--laws", "convex_bound", "--splits", "size,family", "--full"]) == 0
        assert "- convex_bound (size): holds for one size" in capsys.readouterr().out.partition("\n\nNot in full:\n")[2]

    def test_json_and_csv_say_what_the_function_found(self, runs, tmp_path, capsys):
        write_runs(tmp_path / "runs.csv", runs)
        call = ["compare", str(tmp_path / "runs.csv"), "--laws", "kaplan, mup", "--splits", "peak,horizon"]
        assert cli.run([*call, "--format", "json"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        document = json.loads(out)
        assert set(document) == {
            "n_runs", "n_left_out", "n_curves", "splits", "not_split", "not_compared", "warnings", "verdict",
        }  # fmt: skip
        want = compare_laws(read_runs(tmp_path / "runs.csv"), laws=["kaplan", "mup"], splits=["peak", "horizon"])
        assert document["verdict"] == verdict(want)
        for split, expected in zip(document["splits"], want.splits, strict=True):
            assert set(split) == {"name", "folds", "held_out", "pools", "laws"}
            for law, one in zip(split["laws"], expected.rows, strict=True):
                assert set(law) == KEYS
                assert law["mean_error_pct"] == (None if np.isnan(one.error) else one.error)
        assert cli.run([*call, "--format", "csv"]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert len(rows) == sum(len(split.rows) for split in want.splits)
        ours = next(r for r in rows if (r["split"], r["law"]) == ("peak", "optlaws"))
        peak = next(split for split in want.splits if split.name == "peak")
        assert float(ours["mean_error_pct"]) == peak.row("optlaws").error
        assert ours["error_beside_ours_mean"] == ""

    def test_curves_are_read(self, runs, tmp_path, capsys):
        write_runs(tmp_path / "runs.csv", runs)
        curves = CurveTable([n for n in runs.run_id[:3] for _ in range(2)], np.tile([200.0, 400.0], 3), np.full(6, 4.0))
        write_curves(tmp_path / "curves.csv", curves)
        call = ["compare", str(tmp_path / "runs.csv"), "--curves", str(tmp_path / "curves.csv"), "--splits", "family"]
        assert cli.run([*call, "--laws", "chinchilla"]) == 0
        assert "\n\n72 runs, 3 of them with a curve." in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--laws", "chinchila"], "did you mean 'chinchilla'"),
            (["--splits", "batch"], "splits must be some of"),
            (["--seconds", "-1"], "seconds must be above 0"),
            (["-o", "no/such/folder/out.txt"], "no/such/folder"),
            (["-o", str(MINE)], "the output must not be a file that is read"),
        ],
    )
    def test_bad_input_is_one_sentence(self, options, words, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert cli.run(["compare", str(MINE), *options]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert words in err
