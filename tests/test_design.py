"""Runs worth making: the proposed pool, the choice with and without finished runs, and the command."""

import json
import subprocess
import sys

import numpy as np
import pytest

from optlaws import RunTable, cli, design_runs, fit_law, read_runs, standard_pool
from optlaws import design as design_module
from optlaws.baselines.step_law import StepLaw
from optlaws.design import as_finished, usual_settings
from optlaws.errors import InputError, RiskError

TARGETS = ("cosine:peak=3e-4,steps=40000,warmup=2000,final=3e-5", "wsd:peak=3e-4,steps=40000,warmup=2000,decay=0.2")


@pytest.fixture(scope="module")
def targets():
    return RunTable.build(TARGETS, params=1e9, batch_tokens=5e5, weight_decay=0.1, optimizer="adamw")


@pytest.fixture(scope="module")
def pool(targets):
    return standard_pool(targets)


class TestPool:
    def test_sizes_and_ratios(self, pool):
        assert sorted(set(pool.params.tolist())) == [15.6e6, 31.2e6, 62.5e6, 125e6]
        ratio = pool.tokens / pool.params / 20.0
        assert np.unique(np.round(np.log2(ratio)).astype(int)).tolist() == [-1, 0, 1]
        assert (np.abs(pool.tokens - pool.steps * pool.batch_tokens) < 0.5).all()
        assert set(pool.optimizer) == {"adamw"}
        assert set(pool.weight_decay.tolist()) == {0.1}

    def test_rates_follow_step_law_from_the_target(self, pool):
        law = StepLaw.published()
        peak = np.asarray(pool.batch().peak)
        there = law.recommend(1e9, 2e10).peak_lr
        own = [law.recommend(n, d).peak_lr for n, d in zip(pool.params, pool.tokens, strict=True)]
        factor = np.round(np.log2(peak / (3e-4 * np.array(own) / there)), 1)
        assert set(factor.tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}

    def test_warmup_share(self, pool):
        warm = np.asarray(pool.batch().warmup_steps) / pool.steps
        np.testing.assert_allclose(warm, 0.05, atol=0.5 / pool.steps.min())

    def test_own_sizes(self, targets):
        pool = standard_pool(targets, [2e7, 5e7])
        assert set(pool.params.tolist()) == {2e7, 5e7}

    @pytest.mark.parametrize(
        ("sizes", "words"),
        [([2e9], r"sizes must be above 0 and at most the target's 1B"), ([float("nan")], "sizes must be above 0")],
    )  # fmt: skip
    def test_bad_sizes(self, targets, sizes, words):
        with pytest.raises(InputError, match=words):
            standard_pool(targets, sizes)

    @pytest.mark.parametrize("length", [None, 512, 2000])
    def test_batches_are_whole_sequences_near_powers_of_two(self, targets, length):
        pool = standard_pool(targets, seq_len=length)
        assert set(pool.seq_len.tolist()) == {length or 1024}
        sequences = pool.batch_tokens / pool.seq_len
        assert (sequences == sequences.astype(int)).all()
        for count in set(sequences.astype(int).tolist()):
            while count >= 8:
                assert count % 2 == 0
                count //= 2
        free = standard_pool(targets, seq_len=1)  # all but free: the batches that the others are rounded from
        assert len(free) == len(pool)
        np.testing.assert_allclose(pool.batch_tokens / free.batch_tokens, 1.0, atol=0.3)

    def test_the_batch_of_the_target_is_kept(self, targets):
        """At the target's own size and tokens; it need not be whole sequences, for the user said so."""
        pool = standard_pool(targets, [1e9])
        assert 5e5 in pool.batch_tokens.tolist()
        assert set(pool.batch_tokens.tolist()) - {5e5} == set(1024 * np.round(pool.batch_tokens / 1024)) - {499712.0}

    def test_length_of_the_targets_or_one_that_fits_their_batch(self):
        own, small = (
            RunTable.build("constant:peak=1e-3,steps=90000", params=1e7, batch_tokens=batch, seq_len=length)
            for batch, length in ((2e5, 333.0), (600.0, None))
        )
        assert set(standard_pool(own).seq_len.tolist()) == {333.0}
        assert set(standard_pool(own, seq_len=64).seq_len.tolist()) == {64.0}
        assert set(standard_pool(small).seq_len.tolist()) == {64.0}

    @pytest.mark.parametrize("length", [0, -1, 2.5, float("nan"), float("inf"), True, "1.5"])
    def test_bad_length(self, targets, length):
        with pytest.raises(InputError, match="seq_len must be a whole number of tokens above 0, got"):
            standard_pool(targets, seq_len=length)

    @pytest.mark.parametrize("length", [0.4, 1e-308])
    def test_targets_with_less_than_a_token_in_a_sequence(self, length):
        own = RunTable.build("constant:peak=1e-3,steps=90000", params=1e7, batch_tokens=2e5, seq_len=length)
        with pytest.raises(InputError, match=f"seq_len must be a whole number of tokens above 0, got {length}; 1024"):
            standard_pool(own)

    def test_a_sequence_that_no_batch_holds(self, targets):
        with pytest.raises(InputError, match="seq_len must be at most the largest batch of a proposed run, 453K"):
            standard_pool(targets, seq_len=1_000_000)

    def test_what_the_targets_do_not_say_is_filled_in(self, targets):
        def values(**said):
            pool = standard_pool(RunTable.build(TARGETS, params=1e9, batch_tokens=5e5, **said))
            found = [set(getattr(pool, name).tolist()) for name in ("weight_decay", "beta1", "beta2")]
            return [set(pool.optimizer), *found]

        assert values() == [{"adamw"}, {0.1}, {0.9}, {0.95}]
        assert values(beta1=0.8, beta2=0.99, weight_decay=0.0) == [{"adamw"}, {0.0}, {0.8}, {0.99}]
        optimizer, decay, *betas = values(optimizer="sgd")
        assert (optimizer, decay) == ({"sgd"}, {0.0})
        assert all(np.isnan(list(beta)).all() for beta in betas)

    def test_short_targets(self):
        short = RunTable.build("constant:peak=1e-3,steps=60", params=1e9, batch_tokens=5e5)
        with pytest.raises(InputError, match="proposed runs must have at least 100 steps"):
            standard_pool(short)

    def test_unknown_targets(self):
        bare = RunTable.build(TARGETS[:1])
        with pytest.raises(InputError, match="params of the targets must be known"):
            standard_pool(bare)


class TestChoice:
    def test_narrows_and_stays_in_the_pool(self, targets, pool):
        found = design_runs(targets, pool, 10)
        assert len(set(found.picked.tolist())) == 10
        assert (np.diff(found.width) < 0).all()
        assert found.width[-1] < 0.15 * found.width[0]
        assert found.risky + len(found.pool) == len(pool)
        assert found.risky > 0
        np.testing.assert_allclose(found.cost, 6 * found.runs.params * found.runs.tokens)
        assert found.unit == "FLOPs"
        assert len(set(found.runs.params.tolist())) >= 3  # a law of sizes is wanted

    def test_widths_are_those_of_90_percent_intervals_given_the_runs(self, targets, pool, monkeypatch):
        """Conditioning on the first picks at once, and the root mean square over the targets, in %."""
        seen, real = [], design_module.joint_prior
        monkeypatch.setattr(design_module, "joint_prior", lambda *a, **k: seen.append(real(*a, **k)) or seen[-1])
        found = design_runs(targets, pool, 4)
        (joint,), first, names = seen, np.arange(len(targets)), list(pool.run_id)
        places = np.array([len(targets) + names.index(name) for name in found.runs.run_id])
        for count in range(5):
            i = places[:count]
            given = joint.between(i, i) + np.diag(joint.noise[i])
            across = joint.between(i, first)
            left = joint.between(first, first) - across.T @ np.linalg.solve(given, across)
            expected = 100.0 * 2.0 * 1.6448536269514722 * np.sqrt(np.diag(left).mean())
            assert found.width[count] == pytest.approx(expected, rel=1e-6)
        assert found.known == 0

    def test_fewer_runs_are_the_first_of_more(self, targets, pool):
        few, many = (design_runs(targets, pool, count) for count in (3, 8))
        assert few.picked.tolist() == many.picked[:3].tolist()

    def test_budget(self, targets, pool):
        free = design_runs(targets, pool, 8)
        tight = design_runs(targets, pool, 8, budget=0.1 * float(free.cost.sum()))
        assert tight.cost.sum() <= 0.1 * free.cost.sum()
        assert free.width[-1] < tight.width[-1] < free.width[0]
        with pytest.raises(InputError, match=r"budget must be at least .* FLOPs, the 8 cheapest"):
            design_runs(targets, pool, 8, budget=1.0)

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ({"max_risk": float("nan")}, "max_risk must be a probability from 0 to 1, got nan; 0.05 is a usual choice"),
            ({"max_risk": 2}, "max_risk must be a probability from 0 to 1, got 2"),
            ({"max_risk": "5%"}, "max_risk must be a probability from 0 to 1, got '5%'"),
            ({"max_risk": None}, "max_risk must be a probability from 0 to 1, got None"),
            ({"budget": "much"}, "budget must be a finite number above 0, got .much.; write it like"),
            ({"budget": float("inf")}, "budget must be a finite number above 0, got inf"),
            ({"budget": float("nan")}, "budget must be a finite number above 0, got nan"),
            ({"budget": True}, "budget must be a finite number above 0, got True"),
            ({"settings": {}}, "settings must be a Settings of optlaws.regression.settings, got {}"),
            ({"basis": 3}, "basis must be one of sde16"),
            ({"have": "runs.csv"}, "have must be a RunTable, got str"),
        ],
    )
    def test_arguments_of_another_kind_or_range(self, targets, pool, argument, message):
        with pytest.raises(InputError, match=message):
            design_runs(targets, pool, 2, **argument)

    def test_with_a_budget_the_best_of_many_prices_is_taken(self, targets, pool, monkeypatch):
        """Gains for their price, for its root and so on: what narrows the targets most, not one rule for all."""
        some = pool.select(np.arange(0, len(pool), 5))
        budget = 0.02 * float(design_runs(targets, some, 5).cost.sum())
        found = design_runs(targets, some, 5, budget=budget)
        widths = []
        for exponent in (0.0, 0.25, 0.5, 1.0):
            monkeypatch.setattr(design_module, "EXPONENTS", (exponent,))
            one = design_runs(targets, some, 5, budget=budget)
            assert one.cost.sum() <= budget * (1 + 1e-9)
            widths.append(float(one.width[-1]))
        assert found.width[-1] <= min(widths) * (1 + 1e-12)
        assert min(widths) < 0.99 * widths[0]

    def test_finished_runs_count(self, targets, pool):
        first = design_runs(targets, pool, 6)
        losses = 2.0 + 400.0 / np.sqrt(first.runs.params) + 500.0 / np.sqrt(first.runs.tokens)
        done = RunTable.build(
            first.runs.schedules, params=first.runs.params, batch_tokens=first.runs.batch_tokens,
            weight_decay=0.1, optimizer="adamw", final_loss=losses,
        )  # fmt: skip
        for have in (done, done.select([0, 1, 2])):
            second = design_runs(targets, pool, 4, have=have)
            assert second.known == len(have)
            assert second.width[0] < 0.5 * first.width[0]
            assert not set(second.picked.tolist()) & set(first.picked[: len(have)].tolist())

    def test_without_sizes_steps_are_the_cost(self):
        targets = RunTable.build(TARGETS[:1])
        pool = RunTable.build([f"wsd:peak={p},steps={t},warmup=100" for p in (1e-4, 3e-4) for t in (1000, 4000)])
        found = design_runs(targets, pool, 2)
        assert found.unit == "steps"
        assert found.cost.tolist() == found.runs.steps.tolist()

    @pytest.mark.parametrize("count", [0, 10_000, 2.0, True])
    def test_bad_count(self, targets, pool, count):
        with pytest.raises(InputError, match="runs must be a whole number from 1 to 900"):
            design_runs(targets, pool, count)

    def test_too_risky(self, targets, pool):
        wild = RunTable.build(["constant:peak=1,steps=2000,warmup=10"] * 3, params=2e7, batch_tokens=1e5)
        with pytest.raises(RiskError, match=r"2 runs of the pool must have a divergence risk of at most 0\.05, got 0"):
            design_runs(targets, wild, 2)

    def test_some_sizes_missing(self, targets):
        with pytest.raises(InputError, match="params must be given for targets, runs to choose from"):
            design_runs(targets, RunTable.build(["constant:peak=1e-3,steps=2000"], batch_tokens=1e5), 1)

    def test_empty(self, targets, pool):
        with pytest.raises(InputError, match="pool must hold at least one run"):
            design_runs(targets, pool.select([]), 1)

    def test_better_than_drawn_ones(self, data_dir):
        """On Step Law's grid: six chosen small runs say more of the large ones than most drawn sixes."""
        runs = read_runs(data_dir / "steplaw_runs.csv", need_loss=True)
        runs = runs.select(
            [s == "steplaw-dense" and t == "completed" for s, t in zip(runs.source, runs.status, strict=True)]
        )
        small = runs.select(runs.params < 3e8)
        held = runs.select(runs.params > 3e8)
        held = held.select(np.arange(0, len(held), 5))

        def error(rows):
            with pytest.warns(UserWarning, match="priors decide"):
                law = fit_law(small.select(np.sort(rows)))
            return float(np.abs(law.expected_loss(held) / held.final_loss - 1).mean())

        chosen = error(design_runs(held, small, 6, max_risk=1.0).picked)
        drawn = [error(np.random.default_rng(seed).choice(len(small), 6, replace=False)) for seed in range(8)]
        assert chosen < np.median(drawn)


class TestCommand:
    def call(self, folder, *args):
        done = subprocess.run(
            [sys.executable, "-m", "optlaws", "design", *args], cwd=folder, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    SIZES = ("--params", "1B", "--tokens", "20B", "--batch-tokens", "500K")
    SPECS = ("cosine:peak=3e-4,warmup=2000,final=3e-5", "wsd:peak=3e-4,warmup=2000,decay=0.2")

    def test_table_runs_and_figure(self, tmp_path):
        code, out, err = self.call(
            tmp_path, *self.SPECS, *self.SIZES, "--runs", "5", "-o", "runs.csv", "--plot", "d.png", "--budget", "1e19"
        )
        assert (code, err) == (0, "")
        assert "To be predicted: 2 runs, 1B parameters, 20B tokens." in out
        assert "put their final losses into runs.csv" in out
        made = read_runs(tmp_path / "runs.csv")
        assert made.run_id == tuple(f"design-{i}" for i in range(1, 6))
        assert not np.isfinite(made.final_loss).any()
        assert 6 * (made.params * made.tokens).sum() <= 1e19
        assert (tmp_path / "d.png").stat().st_size > 10_000

    def test_finished_runs_are_in_the_figure(self, tmp_path, monkeypatch):
        from optlaws import plotting

        kept = []
        monkeypatch.setattr(plotting, "save_figure", lambda figure, path: kept.append(figure))
        ask = ["design", *self.SPECS, *self.SIZES, "--runs", "3", "--budget", "1e19", "--plot", str(tmp_path / "d.png")]
        have = tmp_path / "have.csv"
        have.write_text(
            "run_id,params,tokens,batch_tokens,schedule,final_loss,status\n"
            + "".join(
                f'h{i},{n}M,1B,256K,"cosine:peak=1e-3,warmup=100",{3 + i},completed\n' for i, n in enumerate((20, 40))
            )
            + 'h3,50M,1B,256K,"cosine:peak=1,warmup=100",,diverged\n'
        )
        for more, names in (
            ([], ["chosen", "to be predicted"]),
            (["--have", str(have)], ["finished", "chosen", "to be predicted"]),
        ):
            assert cli.run([*ask, *more]) == 0
            lines = {line.get_label(): line for line in kept[-1].axes[1].lines}
            assert list(lines) == names
        widths = kept[-1].axes[0].lines[0]
        assert widths.get_xdata().tolist() == [0, 1, 2, 3]  # the width before the first run, too
        assert widths.get_ydata()[0] == max(widths.get_ydata())
        numbers = ", ".join(text.get_text() for text in kept[-1].axes[1].texts).split(", ")
        assert sorted(numbers) == ["1", "2", "3"]
        assert lines["finished"].get_xdata().tolist() == [1e9, 1e9]
        assert lines["finished"].get_ydata().tolist() == [20e6, 40e6]

    def test_settings_that_all_finished_runs_share_are_taken(self, tmp_path):
        have = tmp_path / "have.csv"
        head = "run_id,params,tokens,batch_tokens,schedule,final_loss,optimizer,weight_decay,seq_len,beta1\n"
        row = 'h{0},{0}0M,1B,256Ki,"cosine:peak=1e-3,warmup=100",3.{0},adamw,0.2,2048,0.{0}\n'
        args = (*self.SPECS, *self.SIZES, "--runs", "2", "--format", "json", "--have", str(have))
        have.write_text(head + "".join(row.format(i) for i in "897"))
        code, out, err = self.call(tmp_path, *args)
        assert code == 0
        assert err == f"optlaws: note: taken from {have}, whose runs agree in it: weight_decay 0.2, seq_len 2048\n"
        found = json.loads(out)
        assert {"optimizer", "weight_decay", "seq_len"}.isdisjoint(found["assumed"])
        assert {(run["optimizer"], run["weight_decay"], run["seq_len"]) for run in found["runs"]} == {
            ("adamw", 0.2, 2048)
        }
        assert all(run["batch_tokens"] % 2048 == 0 for run in found["runs"])
        code, out, err = self.call(tmp_path, *args, "--seq-len", "1Ki", "--weight-decay", "0.1")
        assert err == ""  # adamw is what would have been assumed
        assert {(run["weight_decay"], run["seq_len"]) for run in json.loads(out)["runs"]} == {(0.1, 1024)}

    def test_runs_at_one_place_are_named_together(self):
        from optlaws.commands.design import _together

        points = np.array([[1.0, 3.0, 1.01, 1.0, -np.inf], [2.0, 2.0, 2.0, 9.0, 2.0]])
        found = _together(points, np.array([0.1, 0.1]))
        assert [rows for _, rows in found] == [[0, 2], [1], [3]]

    def test_what_was_assumed_is_said(self, tmp_path):
        args = (*self.SPECS, *self.SIZES, "--runs", "2", "--seq-len", "2Ki", "--weight-decay", "0.05")
        code, out, err = self.call(tmp_path, *args)
        assert (code, err) == (0, "")
        said = (
            "optimizer adamw (assumed), weight decay 0.05, beta1 0.9 (assumed), beta2 0.95 (assumed), sequences of 2048"
        )
        assert f"Runs with {said} tokens; assumed is" in out
        found = json.loads(self.call(tmp_path, *args, "--format", "json")[1])
        assert found["assumed"] == {"optimizer": "adamw", "beta1": 0.9, "beta2": 0.95}
        assert all(row["seq_len"] == 2048 and row["batch_tokens"] % 2048 == 0 for row in found["runs"])
        assert {(row["optimizer"], row["weight_decay"], row["beta2"]) for row in found["runs"]} == {
            ("adamw", 0.05, 0.95)
        }
        text = self.call(tmp_path, *args, "--format", "csv")[1]
        assert ",2048,adamw,0.9,0.95,0.05," in text.splitlines()[1]

    def test_json_from_a_pool_of_ones_own(self, tmp_path):
        rows = ["run_id,schedule,params,batch_tokens"]
        rows += [
            f'r{n}-{p},"cosine:peak={p},steps=2000,warmup=100",{n},50K' for n in ("10M", "40M") for p in (5e-4, 2e-3)
        ]
        (tmp_path / "pool.csv").write_text("\n".join(rows), encoding="utf-8")
        args = (*self.SPECS, *self.SIZES, "--pool", "pool.csv", "--runs", "3", "--format", "json")
        code, out, err = self.call(tmp_path, *args)
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert len(found["runs"]) == 3
        assert {row["run_id"] for row in found["runs"]} < {f"r{n}-{p}" for n in ("10M", "40M") for p in (5e-4, 2e-3)}
        assert found["width_after_pct"] == found["runs"][-1]["width_pct"] < found["width_before_pct"]
        assert found["cost"] == pytest.approx(sum(row["cost"] for row in found["runs"]))

    @pytest.mark.parametrize(
        ("extra", "words"),
        [
            (("--runs", "0"), "runs must be a whole number from 1"),
            (("--budget", "1e3"), "budget must be at least"),
            (("--sizes", "20M,banana"), "banana"),
            (("--seq-len", "1.5"), "seq_len must be a whole number"),
            (("--seq-len", "512", "--pool", "pool.csv"), "--seq-len is for runs that are proposed here, got 512"),
            (("--sizes", "20M", "--pool", "pool.csv"), "--sizes is for runs that are proposed here"),
            (("-o", "x.csv", "--plot", "x.csv"), "x.csv"),
            (("--have", "missing.csv"), "missing.csv"),
        ],
    )
    def test_bad_input(self, tmp_path, extra, words):
        got, out, err = self.call(tmp_path, *self.SPECS, *self.SIZES, *extra)
        assert (got, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1
        assert not list(tmp_path.iterdir())

    def test_nothing_safe(self, tmp_path):
        code, out, err = self.call(tmp_path, "constant:peak=5", *self.SIZES)
        assert (code, out) == (3, "")
        assert "divergence risk of at most 0.05" in err
        assert err.count("\n") == 1

    def test_inputs_are_kept(self, tmp_path):
        (tmp_path / "pool.csv").write_text(f'run_id,schedule,params,batch_tokens\na,"{TARGETS[0]}",1M,50K\n')
        before = (tmp_path / "pool.csv").read_bytes()
        code, _, err = self.call(
            tmp_path, *self.SPECS, *self.SIZES, "--pool", "pool.csv", "--runs", "1", "-o", "pool.csv"
        )
        assert code == 2
        assert "must not be a file that is read" in err
        assert (tmp_path / "pool.csv").read_bytes() == before


class TestFilledIn:
    def runs(self, count=2, **columns):
        specs = [f"cosine:peak=1e-3,steps={1000 + i},warmup=10" for i in range(count)]
        return RunTable.build(specs, **({"params": 1e8, "tokens": 1e9, "batch_tokens": 1e6} | columns))

    def test_what_all_finished_runs_agree_in_is_taken_unless_it_was_said(self):
        done = self.runs(3, optimizer="lion", weight_decay=0.2, beta1=[0.9, 0.9, 0.8], beta2=0.99)
        targets = self.runs(weight_decay=[0.05, np.nan], beta2=0.95)
        filled, taken = as_finished(targets, done)
        assert taken == {"optimizer": "lion", "weight_decay": 0.2}  # they differ in beta1, and beta2 is there
        assert filled.optimizer == ("lion", "lion")
        assert filled.weight_decay.tolist() == [0.05, 0.2]
        assert np.isnan(filled.beta1).all()
        assert filled.beta2.tolist() == [0.95, 0.95]
        filled, taken = as_finished(targets, done, ["weight_decay"])
        assert taken == {"optimizer": "lion"}
        assert np.isnan(filled.weight_decay[1])
        assert as_finished(self.runs(optimizer="sgd", weight_decay=0.0, beta2=0.9), done)[1] == {}
        some = as_finished(self.runs(optimizer=["sgd", None], weight_decay=0.1, beta2=0.9), done)
        assert (some[0].optimizer, some[1]) == (("sgd", "lion"), {"optimizer": "lion"})
        first = self.runs(2, optimizer=[None, "lion"], weight_decay=[np.nan, 0.3])
        assert as_finished(targets, first)[1] == {}

    def test_betas_are_usual_ones_only_where_all_runs_are_of_adam(self):
        assert usual_settings(self.runs(optimizer=["adamw", "sgd"], weight_decay=0.1)) == {}
        adam = usual_settings(self.runs(optimizer="adam", weight_decay=0.1, beta1=[0.8, np.nan]))
        assert adam == {"beta1": 0.9, "beta2": 0.95}
        assert usual_settings(self.runs(beta1=0.9, beta2=0.9, weight_decay=0.1)) == {"optimizer": "adamw"}

    @pytest.mark.parametrize(
        ("asked", "count"),
        [(0.9, 0), (1.0, 1), (1.4, 1), (2.6, 3), (3.4, 3), (6.6, 7), (9.1, 10), (8.9, 8), (11.2, 12), (37.0, 40)],
    )
    def test_batches_are_whole_sequences_of_which_quarters_of_a_power_of_two(self, asked, count):
        assert design_module._whole_batch(asked * 1024.0, 1024.0) == count * 1024.0
