"""Logs of trackers and trainers: every format, what follows from it, and what is refused."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optlaws.errors import InputError, ScheduleError, TableError
from optlaws.runs import log_file, read_curves, read_logs, write_curves
from optlaws.runs._logged import SAME_RATE
from optlaws.runs._recognise import MEETS, RECOGNISED
from optlaws.schedules import parse

T = 400
WSD = parse(f"wsd:peak=1e-3,steps={T},warmup=40,decay=80")
EVERY = 10


def loss_at(k):
    return 2.5 + 3 * (k + 20) ** -0.4


def rate_at(k):
    """The rate of update k, and the one that would follow the last."""
    return float(WSD.lr(k)) if k < T else 0.0


def trainer_state(**changes):
    history = []
    for k in range(EVERY, T + 1, EVERY):
        history.append({"epoch": k / T, "grad_norm": 0.5, "learning_rate": rate_at(k), "loss": loss_at(k), "step": k})
        if k % 100 == 0:
            history.append({"epoch": k / T, "eval_loss": loss_at(k) + 0.01, "eval_runtime": 1.0, "step": k})
    history.append({"epoch": 1.0, "step": T, "train_loss": 2.9, "train_runtime": 10.0})
    return {"epoch": 1.0, "global_step": T, "max_steps": T, "log_history": history} | changes


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def rows(header, lines):
    return "\n".join([header, *(",".join(map(str, line)) for line in lines)]) + "\n"


def one(path, **options):
    found = read_logs([path], **options)
    assert len(found) == 1
    return found[0]


class TestTrainer:
    def test_state(self, tmp_path):
        run = one(write(tmp_path / "my-run" / "trainer_state.json", json.dumps(trainer_state(), indent=2)))
        assert (run.run_id, run.format, run.steps, run.finished) == ("my-run", "hf-trainer", T, True)
        assert run.step.tolist() == list(range(EVERY, T + 1, EVERY))
        assert run.loss.tolist() == [loss_at(k) for k in run.step]
        assert run.eval_step.tolist() == [100, 200, 300, 400]
        assert run.final_loss() == (loss_at(T) + 0.01, "evaluation")

    def test_the_rates_give_back_the_schedule(self, tmp_path):
        run = one(write(tmp_path / "r" / "trainer_state.json", json.dumps(trainer_state())))
        assert run.schedule() == WSD

    def test_folders(self, tmp_path):
        for step in (90, 100, 1000):
            write(tmp_path / "out" / f"checkpoint-{step}" / "trainer_state.json", json.dumps(trainer_state()))
        (tmp_path / "out" / "checkpoint-2000").mkdir()
        assert log_file(tmp_path / "out").endswith("checkpoint-1000/trainer_state.json")
        assert one(tmp_path / "out").run_id == "out"
        assert one(tmp_path / "out" / "checkpoint-90").run_id == "out"
        with pytest.raises(TableError, match=r"a folder must hold trainer_state\.json"):
            read_logs([tmp_path])

    def test_a_run_that_was_cut_is_taken_as_it_ends(self, tmp_path):
        run = one(write(tmp_path / "r" / "trainer_state.json", json.dumps(trainer_state(max_steps=1000))))
        assert (run.steps, run.finished, run.planned) == (T, False, 1000)

    def test_the_mean_over_the_run_is_no_loss(self, tmp_path):
        state = trainer_state(log_history=[{"step": T, "train_loss": 2.9}])
        with pytest.raises(TableError, match="no loss was found among its columns step, train_loss"):
            read_logs([write(tmp_path / "trainer_state.json", json.dumps(state))])

    def test_named_column(self, tmp_path):
        path = write(tmp_path / "r" / "trainer_state.json", json.dumps(trainer_state()))
        run = one(path, loss="eval_loss")
        assert run.step.tolist() == [100, 200, 300, 400]
        assert run.final_loss() == (loss_at(T) + 0.01, "curve")
        assert one(path, loss="loss").final_loss() == (loss_at(T), "curve")
        with pytest.raises(TableError, match=r"missing column 'los'.*did you mean 'loss'"):
            one(path, loss="los")

    @pytest.mark.parametrize("history", [[], "x", [1], None])
    def test_broken_history(self, tmp_path, history):
        with pytest.raises(TableError, match="log_history"):
            read_logs([write(tmp_path / "trainer_state.json", json.dumps({"log_history": history}))])


class TestWandb:
    def test_history_with_the_trainers_own_step(self, tmp_path):
        """`_step` counts log calls: 0, 1, 2, ... for readings 10 steps apart."""
        header = ",_step,_timestamp,train/loss,train/learning_rate,train/global_step,eval/loss"
        lines = [(i, i, 1.5e9, loss_at(k), rate_at(k), k, "") for i, k in enumerate(range(EVERY, T + 1, EVERY))]
        lines.append((40, 40, 1.5e9, "", "", T, 2.7))
        run = one(write(tmp_path / "frosty-1.csv", rows(header, lines)))
        assert (run.run_id, run.format, run.steps, run.own_step) == ("frosty-1", "wandb", T, False)
        assert run.columns["loss"] == "train/loss"
        assert run.final_loss() == (2.7, "evaluation")
        np.testing.assert_allclose(run.schedule().array(), WSD.array(), atol=1e-15)

    def test_json_lines_with_missing_and_written_nan(self, tmp_path):
        lines = [
            {"_step": 0, "loss": 5.0},
            {"_step": 1, "val_loss": 4.9},
            {"_step": 2, "loss": None},
            {"_step": 3, "loss": "NaN"},
            {"_step": 4, "loss": 4.0},
        ]
        run = one(write(tmp_path / "h.jsonl", "\n".join(map(json.dumps, lines))))
        assert run.own_step
        assert run.step.tolist() == [0, 3, 4]
        assert run.good.tolist() == [True, False, True]
        assert run.curve().step.tolist() == [0, 4]

    def test_chart_has_one_run_a_column(self, tmp_path):
        header = ",".join(
            f'"{name}"'
            for name in (
                "Step",
                *(
                    f"{r} - {m}{end}"
                    for r in ("a - b", "c")
                    for m in ("_step", "train/loss", "train/lr")
                    for end in ENDS
                ),
            )
        )
        lines = [
            (
                k,
                k,
                k,
                k,
                loss_at(k),
                1,
                9,
                rate_at(k),
                0,
                1,
                k,
                k,
                k,
                loss_at(k) + 1 if k < 200 else "",
                "",
                "",
                0.1,
                "",
                "",
            )
            for k in range(0, T + 1, EVERY)
        ]
        first, second = read_logs([write(tmp_path / "chart.csv", rows(header, lines))])
        assert (first.run_id, second.run_id) == ("a - b", "c")
        assert first.own_step
        assert first.loss.tolist() == [loss_at(k) for k in range(0, T + 1, EVERY)]
        assert second.step[-1] == 190
        assert first.schedule().breakpoints == WSD.breakpoints
        only = read_logs([tmp_path / "chart.csv"], run_id="c")
        assert [run.run_id for run in only] == ["c"]
        with pytest.raises(TableError, match="run_id must be one of the runs that the logs name, a - b, c, got 'd'"):
            read_logs([tmp_path / "chart.csv"], run_id="d")
        with pytest.raises(TableError, match="--loss-column and --rate-column cannot name one"):
            read_logs([tmp_path / "chart.csv"], loss="c - train/loss")

    def test_chart_over_something_else(self, tmp_path):
        head = "Relative Time (Wall),a - loss,a - loss__MIN,a - loss__MAX"
        with pytest.raises(TableError, match="must be over steps, got 'Relative Time"):
            read_logs([write(tmp_path / "c.csv", rows(head, [(1, 2, 2, 2)]))])
        head = "Step,a - accuracy,a - accuracy__MIN,a - accuracy__MAX"
        with pytest.raises(TableError, match="must be a loss or a learning rate, got 'accuracy'"):
            read_logs([write(tmp_path / "d.csv", rows(head, [(1, 2, 2, 2)]))])


ENDS = ("", "__MIN", "__MAX")


class TestTensorBoard:
    HEADER = "Wall time,Step,Value"

    def test_loss_and_rate_of_one_run_are_put_together(self, tmp_path):
        steps = range(0, T, EVERY)
        for tag, value in (("train_loss", loss_at), ("train_learning_rate", rate_at), ("eval_loss", loss_at)):
            write(
                tmp_path / f"run-big_1-tag-{tag}.csv",
                rows(self.HEADER, [(1.5e9 + k, k, np.float32(value(k))) for k in steps]),
            )
        run = one(tmp_path / "run-big_1-tag-train_loss.csv")
        assert (run.run_id, run.format, len(run.rate)) == ("big_1", "tensorboard", 0)
        run = read_logs(sorted(tmp_path.glob("*.csv")))[0]
        assert (len(run.loss), len(run.eval_loss), len(run.rate)) == (40, 40, 40)
        assert run.steps == T - EVERY  # what lies after the last reading is not known
        kinks = run.schedule().breakpoints  # 32-bit rates: the kinks are found all the same
        assert {40, 320} <= set(kinks)
        assert len(kinks) <= 4

    def test_plain_names(self, tmp_path):
        path = write(tmp_path / "a.csv", rows(self.HEADER, [(1, 10, 3.0), (2, 20, 2.5)]))
        assert one(path).loss.tolist() == [3.0, 2.5]
        rate = write(tmp_path / "lr.csv", rows(self.HEADER, [(1, 10, 1e-3), (2, 20, 1e-3)]))
        run = read_logs([path, rate], run_id="mine")[0]
        assert (run.run_id, run.rate.tolist()) == ("mine", [1e-3, 1e-3])
        with pytest.raises(TableError, match="the logs must have its loss, got none"):
            read_logs([rate])
        with pytest.raises(TableError, match=r"got its loss in .* and in"):
            read_logs([path, write(tmp_path / "b.csv", path.read_text())], run_id="mine")

    def test_event_files_are_not_read(self, tmp_path):
        (tmp_path / "events.out.tfevents.1").write_bytes(b"\x00\xff")
        with pytest.raises(TableError, match="event file cannot be read; export its scalars as CSV"):
            read_logs([tmp_path / "events.out.tfevents.1"])


class TestLightning:
    def test_sparse_rows_counted_from_0(self, tmp_path):
        lines = []
        for k in range(9, T, 10):
            lines.append(("", rate_at(k), k, "", "", ""))
            lines.append((0, "", k, loss_at(k), "", ""))
        lines.append((0, "", T - 1, "", 2.9, 2.75))
        header = "epoch,lr-AdamW,step,train_loss_step,train_loss_epoch,val_loss"
        run = one(write(tmp_path / "version_3" / "metrics.csv", rows(header, lines)))
        assert (run.run_id, run.format, run.steps) == ("version_3", "lightning", T)
        assert len(run.loss) == 40
        assert run.columns["loss"] == "train_loss_step"
        assert run.final_loss() == (2.75, "evaluation")
        assert one(tmp_path / "version_3").run_id == "version_3"
        assert run.schedule() == WSD  # though the kinks lie between readings


class TestTables:
    def test_several_runs(self, tmp_path):
        text = rows("run_id,step,loss", [("a", 1, 3.0), ("b", 1, 4.0), ("a", 2, 2.0)])
        first, second = read_logs([write(tmp_path / "c.csv", text)])
        assert (first.run_id, first.loss.tolist(), second.run_id) == ("a", [3.0, 2.0], "b")

    def test_named_columns(self, tmp_path):
        text = rows("it\tnll\teta", [])[:-1] + "\n" + "\n".join(f"{k}\t{loss_at(k)}\t{rate_at(k)}" for k in range(T))
        run = one(write(tmp_path / "x.log", text), step="it", loss="nll", rate="eta")
        assert (run.run_id, run.steps, len(run.loss)) == ("x", T, T)
        np.testing.assert_allclose(run.schedule().array(), WSD.array(), atol=3e-10)
        with pytest.raises(TableError, match="no step and no loss was found among its columns it, nll, eta; name them"):
            read_logs([tmp_path / "x.log"])

    def test_a_repeated_step_keeps_the_later_reading(self, tmp_path):
        text = rows("step,loss", [(10, 3.0), (20, 2.9), (30, 2.8), (20, 2.95), (30, 2.85), (30, 2.85)])
        run = one(write(tmp_path / "r.csv", text))
        assert (run.step.tolist(), run.loss.tolist(), run.replaced) == ([10, 20, 30], [3.0, 2.95, 2.85], 2)

    def test_round_trip(self, tmp_path):
        text = rows("step,loss,val_loss,lr,grad_norm", [(1, 0.1 + 0.2, "", 1e-3, 2.0), (2, 1 / 3, 0.5, 1e-3, "nan")])
        table = one(write(tmp_path / "r.csv", text)).curve()
        write_curves(tmp_path / "c.csv", table)
        again = read_curves(tmp_path / "c.csv")
        assert again.loss.tolist() == [0.1 + 0.2, 1 / 3]
        beside = {"val_loss": ("", "0.5"), "lr": ("0.001",) * 2, "grad_norm": ("2", "")}
        assert again.extra == table.extra == beside | {"loss_kind": ("training",) * 2}

    def test_steps_counted_from_0(self, tmp_path):
        def length(steps):
            return one(write(tmp_path / "n.csv", rows("step,loss", [(k, 3.0) for k in steps]))).steps

        assert length(range(100)) == 100
        assert length(range(1, 101)) == 100
        assert length(range(49, 1000, 50)) == 1000
        assert length(range(0, 1001, 50)) == 1000
        assert length(range(50, 1001, 50)) == 1000
        assert length([7]) == 7


class TestFinalLoss:
    def table(self, tmp_path, lines, header="step,loss,val_loss"):
        return one(write(tmp_path / "f.csv", rows(header, lines)))

    def test_mean_of_the_last_share(self, tmp_path):
        run = self.table(tmp_path, [(k, float(k), "") for k in range(1, 1001)])
        assert run.final_loss() == (np.mean(range(990, 1001)), "curve")
        run = self.table(tmp_path, [(k, float(k), "") for k in range(100, 1001, 100)])
        assert run.final_loss() == (1000.0, "curve")

    def test_an_evaluation_before_the_end_does_not_count(self, tmp_path):
        run = self.table(tmp_path, [(900, 3.0, 3.1), (1000, 2.5, "")])
        assert run.final_loss() == (2.5, "curve")
        run = self.table(tmp_path, [(900, 3.0, 3.1), (990, "", 2.6), (1000, 2.5, "")])
        assert run.final_loss() == (2.6, "evaluation")

    def test_a_longer_schedule(self, tmp_path):
        run = self.table(tmp_path, [(500, 3.0, ""), (1000, 2.5, "")])
        assert run.final_loss(1005) == (2.5, "curve")
        value, why = run.final_loss(2000)
        assert math.isnan(value)
        assert why == "the last reading is at step 1000, before the last 1 % of the run"

    @pytest.mark.parametrize("bad", ["NaN", "inf", "0.0"])
    def test_a_run_that_broke_down_has_none(self, tmp_path, bad):
        run = self.table(tmp_path, [(500, 3.0, ""), (1000, bad, 2.0)])
        assert math.isnan(run.final_loss()[0])
        assert run.curve().step.tolist() == [500]


class TestSchedules:
    def run(self, tmp_path, steps, rates):
        lines = [(k, 3.0, r) for k, r in zip(steps, rates, strict=True)]
        return one(write(tmp_path / "s.csv", rows("step,loss,lr", lines)))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(1, 5), st.floats(0, 1e-2)), min_size=25, max_size=60), st.booleans())
    def test_passes_through_every_logged_rate(self, tmp_path_factory, gaps, zero):
        steps = np.cumsum([gap for gap, _ in gaps]) - (gaps[0][0] if zero else gaps[0][0] - 1)
        rates = [rate for _, rate in gaps]
        run = self.run(tmp_path_factory.mktemp("s"), steps.tolist(), rates)
        if run.rates_missing():
            with pytest.raises(ScheduleError, match="give its schedule yourself"):
                run.schedule()
            return
        schedule = run.schedule()
        inside = steps < run.steps
        late = schedule.kind in RECOGNISED and bool((steps > 0).all())  # then a rate may be that of the update before
        off = [
            np.abs(np.asarray(schedule.lr(steps[inside] - back)) - np.array(rates)[inside]).max()
            for back in ((0, 1) if late else (0,))
        ]
        assert min(off) <= 1.01 * MEETS * max(rates)

    def test_rates_too_small_to_compare_are_none(self, tmp_path):
        run = self.run(tmp_path, range(25), [0.0] * 24 + [5e-324])
        assert run.rates_missing() == "all logged learning rates are 0"

    def test_a_curve_of_another_family_needs_fewer_points_than_steps(self, tmp_path):
        curve = parse("polynomial:peak=1e-3,steps=5000,warmup=100")
        run = self.run(tmp_path, range(5000), np.asarray(curve.array()).tolist())
        schedule = run.schedule()
        assert schedule.kind == "piecewise"
        assert np.abs(schedule.array() - curve.array()).max() <= 1.01 * SAME_RATE * 1e-3
        assert len(schedule.breakpoints) < 2500

    def test_noise_becomes_an_array(self, tmp_path):
        rates = np.random.default_rng(0).uniform(1e-4, 1e-3, 5000)
        schedule = self.run(tmp_path, range(5000), rates.tolist()).schedule()
        assert schedule.kind == "array"
        assert np.array_equal(schedule.array(), rates)

    @pytest.mark.parametrize(
        ("steps", "rates", "why"),
        [
            (range(100, 1001, 100), [1e-3] * 10, "first learning rate is logged at step 100 of 1000"),
            (
                [*range(0, 500, 5), *range(600, 1001, 5)],
                None,
                "no learning rate is logged from step 495 to 600 of 1000",
            ),
            ([1, 2, 3], [0.0, 0.0, 0.0], "all logged learning rates are 0"),
            ([1, 2, 3], [1e-3, -1e-3, 0.0], "negative or not finite"),
            ([1, 2, 3], ["", "", ""], "no learning rate is logged"),
        ],
    )
    def test_too_few_rates(self, tmp_path, steps, rates, why):
        run = self.run(tmp_path, steps, rates or [1e-3] * len(steps))
        assert why in run.rates_missing()
        with pytest.raises(ScheduleError, match=why):
            run.schedule()

    def test_a_warm_up_in_progress_may_begin_later(self, tmp_path):
        run = self.run(tmp_path, range(10, 401, 10), [rate_at(k) for k in range(10, 401, 10)])
        assert run.rates_missing() == ""
        run = self.run(tmp_path, range(10, 401, 10), [rate_at(k - 1) for k in range(10, 401, 10)])  # one step late
        assert run.rates_missing() == ""
        assert run.schedule() == WSD

    def test_a_schedule_of_the_users_own(self, tmp_path):
        run = self.run(tmp_path, [1, 2, 400], ["", "", ""])
        assert run.planned_schedule("wsd:peak=1e-3,warmup=40,decay=80") == WSD
        assert run.planned_schedule("cosine:peak=1e-3,steps=500").total_steps == 500
        with pytest.raises(ScheduleError, match="at least as many steps as its log, 400, got 300"):
            run.planned_schedule("cosine:peak=1e-3,steps=300")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "hello world\nfoo\n",
            "no log of a known kind, since no step and no loss was found among its columns hello world",
        ),
        ("", "nothing in it"),
        ("step,loss\n", "only a header"),
        ("step,loss\n1,abc\n", "line 2: loss must be a number, got 'abc'"),
        ("step,loss\n1.5,3\n", "step of a reading of loss must be a whole number of at least 0, got '1.5'"),
        ("step,loss\n,3\n", "must be a whole number of at least 0, got ''"),
        ("step,loss\n1,-3\n", r"loss must be at least 0 nats per token, got -3 at step 1 of run 'x'.*--loss-column"),
        ("step,loss\n1,nan\n2,0\n", "has no loss that is finite and above 0"),
        ("step,loss\n1,\n", "column 'loss' is empty"),
        ("step,loss\n0,3\n", "must have steps above 0"),
        ('{"step": 1, "loss": true}\n', "loss must be a number, got True"),
        ('{"a": 1,\n "b": 2}', "one JSON object with the keys 'a, b'"),
        ("[1, 2]", "a JSON object with the columns is needed, got 1"),
    ],
)
def test_what_is_no_log(tmp_path, text, why):
    with pytest.raises(InputError, match=why) as error:
        read_logs([write(tmp_path / "x.txt", text)])
    assert "\n" not in str(error.value)


def test_missing_files(tmp_path):
    with pytest.raises(TableError, match="no such file"):
        read_logs([tmp_path / "none.csv"])
    with pytest.raises(TableError, match=r"standard input .* only once"):
        read_logs(["-", "-"])


SHORT = ["linear:peak=8e-3,steps=20000,warmup=100", "constant:peak=8e-3,steps=20000,warmup=50"]


@pytest.mark.parametrize("spec", SHORT)
def test_a_warm_up_that_no_reading_shows_is_not_made_up(tmp_path, spec):
    rates = parse(spec).array()
    at = list(range(0, 20000, 500))
    log = one(write(tmp_path / "s.csv", rows("step,loss,lr", [(k, 3.0, rates[k]) for k in at])))
    with pytest.raises(ScheduleError, match="rises from step 0 to 500 with none logged between them"):
        log.schedule()
    finer = sorted({*at, *range(0, 200, 10)})
    log = one(write(tmp_path / "f.csv", rows("step,loss,lr", [(k, 3.0, rates[k]) for k in finer])))
    assert log.schedule().warmup_steps == parse(spec).warmup_steps


@pytest.mark.parametrize("key", ["global_step", "max_steps"])
@pytest.mark.parametrize("count", [10**400, math.inf, 1e300, 10**12 + 1])
def test_counts_of_a_trainer_beyond_all_runs(tmp_path, key, count):
    path = write(tmp_path / "trainer_state.json", json.dumps(trainer_state(**{key: count})))
    with pytest.raises(TableError, match=rf"trainer_state\.json: {key} must be at most 1,000,000,000,000, got "):
        read_logs([path])
