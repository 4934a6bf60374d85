"""Which columns of a log are read, which runs it holds, and what a NaN in it says."""

import gzip
import math

import pytest

from optlaws.errors import InputError, TableError
from optlaws.runs import read_logs
from optlaws.runs._names import find_columns, rate_columns, unlogged


def write(path, lines, mark=","):
    path.write_text("\n".join(mark.join(map(str, line)) for line in lines) + "\n")
    return path


def log(tmp_path, header, lines, name="log.csv", **options):
    return read_logs([write(tmp_path / name, [header.split(","), *lines])], **options)


NAMES = ["Name", "ID", "id", "run", "Run", "run_name", "Run ID", "_run", "run_path", "experiment", "run_id"]


class TestRuns:
    @pytest.mark.parametrize("name", NAMES)
    def test_runs_under_one_another_are_told_by_their_names(self, tmp_path, name):
        lines = [(run, k, k, loss) for run, loss in (("long", 3.0), ("short", 4.0)) for k in range(10, 100, 10)]
        first, second = log(tmp_path, f"{name},_step,trainer/global_step,loss", lines[:-4])
        assert (first.run_id, second.run_id) == ("long", "short")
        assert (first.steps, second.steps) == (90, 50)
        assert set(first.loss) == {3.0}
        assert set(second.loss) == {4.0}
        assert first.replaced == second.replaced == 0
        assert first.columns["run"] == name

    @pytest.mark.parametrize("cell", [lambda k: "same", lambda k: k, lambda k: f"u{k:03}", lambda k: ""])
    def test_a_constant_or_a_count_of_rows_names_no_runs(self, tmp_path, cell):
        (run,) = log(tmp_path, "id,step,loss", [(cell(k), 10 * k, 3.0) for k in range(1, 30)])
        assert (run.run_id, len(run.loss)) == ("log", 29)
        assert "run" not in run.columns

    def test_names_that_two_runs_share_are_told_apart_by_their_ids(self, tmp_path):
        lines = [("cosine", seed, k, 3.0) for seed in ("x", "y") for k in range(1, 5)]
        lines += [("wsd", "z", k, 3.0) for k in range(1, 5)]
        found = log(tmp_path, "Name,ID,step,loss", lines)
        assert [run.run_id for run in found] == ["cosine/x", "cosine/y", "wsd/z"]

    def test_a_counter_that_begins_anew_in_every_run_names_none(self, tmp_path):
        lines = [(run, k, k, 3.0) for run in "ab" for k in range(1, 9)]
        assert [run.run_id for run in log(tmp_path, "Name,id,step,loss", lines)] == ["a", "b"]

    def test_a_table_of_runs_is_no_log(self, tmp_path):
        header = "Name,State,Created,Runtime,_step,eval/loss,train/loss,trainer/global_step"
        lines = [(f"w{i}", "finished", "2024-05-01", 3600, 4000 + i, 3.1, 3.0, 4000) for i in range(3)]
        with pytest.raises(
            TableError, match=r"got the table of runs that W&B exports, one row a run; export the runs'"
        ):
            log(tmp_path, header, lines)
        lines = [(f"w{i}", 4000, 3.0) for i in range(3)]
        with pytest.raises(TableError, match="got another 'Name' in every row, one row a run"):
            log(tmp_path, "Name,step,loss", lines)


class TestRates:
    @pytest.mark.parametrize(
        ("header", "found"),
        [
            ("lr_max,lr", ["lr"]),
            ("lr_min,train/learning_rate", ["train/learning_rate"]),
            ("lr/embed,optim/lr", ["optim/lr"]),
            ("group0/lr,lr_max", ["group0/lr"]),
            ("lr_max", []),
            ("lr (%)", []),
            ("lr (1e-3)", []),
            ("lr/embed,lr/body", ["lr/embed", "lr/body"]),
            ("lr-AdamW/pg1,lr-AdamW/pg2", ["lr-AdamW/pg1", "lr-AdamW/pg2"]),
            ("learning rate", ["learning rate"]),
        ],
    )
    def test_which_columns_may_be_the_rate(self, header, found):
        assert rate_columns(header.split(",")) == found

    def test_rates_that_differ_are_named_and_none_is_read(self, tmp_path):
        lines = [(k, 3.0, 0.01, 0.001) for k in range(100)]
        (run,) = log(tmp_path, "step,loss,lr_group_0,lr_group_1", lines)
        assert len(run.rate) == 0
        assert run.rates_missing() == "the rates of 'lr_group_0' and 'lr_group_1' differ, and --rate-column names one"
        (run,) = log(tmp_path, "step,loss,lr_group_0,lr_group_1", lines, rate="lr_group_1")
        assert run.rate.tolist() == [0.001] * 100
        assert run.rates_missing() == ""

    def test_rates_that_are_the_same_are_one(self, tmp_path):
        (run,) = log(tmp_path, "step,loss,lr-Adam/pg1,lr-Adam/pg2", [(k, 3.0, 0.01, 0.01) for k in range(100)])
        assert run.columns["rate"] == "lr-Adam/pg1"


class TestWrittenNaN:
    HEADER = "step,train/loss,eval/loss,lr"

    def lines(self, end=1000):
        nan = "NaN"
        for k in range(10, end + 1, 10):
            yield k, 3 + 1 / k, nan, 1e-3
            if k % 100 == 0:
                yield k, nan, 3.1, nan

    def test_a_nan_for_an_empty_cell_is_no_loss(self, tmp_path):
        (run,) = log(tmp_path, self.HEADER, self.lines())
        assert run.good.all()
        assert (len(run.loss), len(run.eval_loss), len(run.rate), run.replaced) == (100, 10, 100, 0)
        assert run.final_loss() == (3.1, "evaluation")
        assert run.schedule().kind == "constant"

    def test_without_rates_the_other_loss_tells(self, tmp_path):
        (run,) = log(tmp_path, "step,train/loss,eval/loss", [line[:3] for line in self.lines()])
        assert run.good.all()
        assert (len(run.loss), len(run.eval_loss), run.replaced) == (100, 10, 0)

    def test_a_number_of_the_same_step_tells(self, tmp_path):
        lines = [(10, 3.0, 5.0), (10, "NaN", "NaN"), (20, "NaN", "NaN"), (20, 2.9, 5.0)]
        (run,) = log(tmp_path, "step,loss,grad_norm", lines)
        assert (run.loss.tolist(), run.replaced) == ([3.0, 2.9], 0)

    def test_a_run_that_diverged_is_still_seen(self, tmp_path):
        lines = [*self.lines(500), *((k, "NaN", "NaN", 1e-3) for k in range(510, 1001, 10))]
        (run,) = log(tmp_path, self.HEADER, lines)
        assert not run.good[-1]
        assert (~run.good).sum() == 50
        assert math.isnan(run.final_loss()[0])

    def test_where_empty_cells_are_empty_a_nan_is_a_loss(self):
        assert unlogged("loss", {"loss": math.nan, "eval": 3.0}, ())
        assert not unlogged("loss", {"loss": math.nan, "eval": 3.0}, ("eval",))
        assert not unlogged("eval", {"loss": 3.0, "eval": math.nan}, ("eval",))
        assert not unlogged("loss", {"loss": math.nan, "rate": 1e-3}, ())


class TestResumed:
    @pytest.mark.parametrize("end", [1600, 650])
    def test_the_branch_that_was_left_is_dropped(self, tmp_path, end):
        """A crash at 720, resumed at 605 with readings at other steps; the second run may not get as far."""
        lines = [(k, 9.0 if k > 600 else 3.0) for k in range(10, 721, 10)]
        lines += [(k, 2.0) for k in range(605, end, 10)]
        (run,) = log(tmp_path, "step,loss", lines)
        assert 9.0 not in run.loss
        assert (run.dropped, run.replaced) == (12, 0)
        assert run.step[-1] == max(range(605, end, 10))

    def test_what_other_columns_held_of_it_goes_too(self, tmp_path):
        lines = (
            [(k, 3.0, "") for k in range(10, 721, 10)] + [(720, "", 9.0)] + [(k, 2.0, "") for k in range(605, 700, 10)]
        )
        (run,) = log(tmp_path, "step,loss,eval_loss", lines)
        assert len(run.eval_loss) == 0
        assert run.steps < 700

    def test_evaluations_under_the_curve_are_no_resume(self, tmp_path):
        lines = [(k, 3.0, "") for k in range(10, 721, 10)] + [(k, "", 3.1) for k in range(100, 721, 100)]
        (run,) = log(tmp_path, "step,loss,eval_loss", lines)
        assert (len(run.loss), len(run.eval_loss), run.dropped) == (72, 7, 0)

    def test_a_log_out_of_order_is_sorted(self, tmp_path):
        (run,) = log(tmp_path, "step,loss", [(k, 3.0) for k in range(1000, 0, -10)])
        assert (len(run.loss), run.dropped) == (100, 0)


class TestTokens:
    @pytest.mark.parametrize("first", [0, 10])
    def test_the_logs_own_count_gives_the_batch(self, tmp_path, first):
        lines = [(k, 3.0, 65536 * k) for k in range(first, 1001, 10)]
        (run,) = log(tmp_path, "step,loss,num_input_tokens_seen", lines)
        assert run.batch_tokens == 65536
        (run,) = log(tmp_path, "step,loss,tokens", [(k, 3.0, 65536 * (k + 1)) for k in range(first, 1001, 10)])
        assert run.batch_tokens == 65536

    def test_every_run_of_a_log_has_its_own_count_and_kind(self, tmp_path):
        batches = {f"r{i}": 1024 * (1 + i) for i in range(5)}
        steps = range(10, 101, 10)
        lines = [(run, k, 3.0, batch * k, "training") for k in steps for run, batch in batches.items()]
        lines += [("lone", k, 3.0, "", "evaluation") for k in steps] + [("unread", 10, "", 5, "")]
        found = log(tmp_path, "run_id,step,loss,tokens,loss_kind", lines)
        assert {run.run_id: run.batch_tokens for run in found[:-1]} == batches
        assert math.isnan(found[-1].batch_tokens)
        assert [run.loss_kind for run in found] == ["training"] * 5 + ["evaluation"]
        assert ["tokens" in run.columns for run in found] == [True] * 5 + [False]

    @pytest.mark.parametrize("count", [lambda k: 65536, lambda k: k * k, lambda k: "many"])
    def test_what_does_not_rise_evenly_is_no_count(self, tmp_path, count):
        (run,) = log(tmp_path, "step,loss,tokens", [(k, 3.0, count(k)) for k in range(10, 1001, 10)])
        assert math.isnan(run.batch_tokens)

    @pytest.mark.parametrize("name", ["tokens", "consumed samples", "train/tokens_seen"])
    def test_tokens_are_no_steps(self, tmp_path, name):
        lines = [(65536 * k, 3.0) for k in range(10)]
        with pytest.raises(TableError, match=r"--step-column must count updates, got .*--updates-per-step 1/B"):
            log(tmp_path, f"{name},loss", lines, step=name)
        with pytest.raises(TableError, match=f"{name!r} counts no updates: add --updates-per-step 1/B"):
            log(tmp_path, f"{name},loss", lines)
        (run,) = log(tmp_path, f"{name},loss", lines, step=name, updates_per_step=1 / 65536)
        assert run.step.tolist() == list(range(10))


class TestUpdatesPerStep:
    def test_micro_batches_and_log_calls(self, tmp_path):
        (run,) = log(tmp_path, "_step,loss", [(4 * k, 3.0) for k in range(10, 101, 10)], updates_per_step=0.25)
        assert (run.steps, run.step[0]) == (100, 10)
        (run,) = log(tmp_path, "_step,loss", [(k, 3.0) for k in range(1, 11)], updates_per_step=10)
        assert run.steps == 100
        with pytest.raises(TableError, match=r"steps must be finite, got 1e\+300 times 1e\+300 updates"):
            log(tmp_path, "step,loss", [(1e300, 3.0)], updates_per_step=1e300)

    def test_readings_between_updates_are_of_the_one_before(self, tmp_path):
        (run,) = log(tmp_path, "step,loss", [(k, k + 1.0) for k in range(1, 13)], updates_per_step=1 / 3)
        assert (run.step.tolist(), run.loss.tolist()) == ([0, 1, 2, 3, 4], [3, 6, 9, 12, 13])

    @pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
    def test_what_it_must_be(self, tmp_path, bad):
        with pytest.raises(InputError, match="updates_per_step must be a finite number above 0, got"):
            log(tmp_path, "step,loss", [(1, 3.0)], updates_per_step=bad)


class TestForms:
    def test_semicolons_are_read(self, tmp_path):
        (run,) = read_logs([write(tmp_path / "a.csv", [("step", "loss"), (1, 3.5), (2, 3.25)], ";")])
        assert run.loss.tolist() == [3.5, 3.25]

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("step;loss\n1;3,5\n", "line 2: loss must be a number, got '3,5'; write it with a decimal point"),
            ('step,loss\n"1,000",3.5\n', "got '1,000'; write it without commas, or name another column"),
            ("[2024-05-01 10:00] iteration 10/500 | loss 3.5\n" * 3, r"got lines of text like '\[2024-05-01 10:00\]"),
            ("{'loss': 3.5, 'epoch': 0.1}\n" * 3, r"got lines of text like .*write step and loss as CSV or JSON lines"),
            (
                "Step,a - loss,a - loss\n1,2,3\n",
                "'a - loss' occurs twice in the header; rename one of them, as where two",
            ),
        ],
    )
    def test_what_is_refused(self, tmp_path, text, why):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(TableError, match=why):
            read_logs([tmp_path / "a.csv"])

    def test_a_compressed_file(self, tmp_path):
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"step,loss\n1,3\n"))
        with pytest.raises(TableError, match=r"a text file is needed, got a compressed one \(gzip\); unpack it first"):
            read_logs([tmp_path / "a.csv.gz"])


def test_updates_go_before_log_calls():
    assert find_columns(["_step", "loss", "trainer/global_step"])["step"] == "trainer/global_step"
    assert find_columns(["_step", "loss"])["step"] == "_step"
