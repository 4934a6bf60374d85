"""Logs that are still being written, by other trackers than our own: their names, their gaps, their files."""

import gzip
import json
import math

import pytest

from optlaws.errors import InputError, TableError
from optlaws.integrations import LiveLog
from optlaws.runs import read_logs


def write(path, header, lines, mark=","):
    path.write_text("\n".join([header, *(mark.join(map(str, line)) for line in lines)]) + "\n")
    return path


def read(path, *args, whole=True, **options):
    return [(reading.step, reading.loss) for reading in LiveLog(path, *args, **options).new(whole=whole)]


STEPS = ["global_step", "trainer/global_step", "train/global_step", "iteration", "iter", "num_updates", "step"]
LOSSES = ["loss", "train/loss", "lm loss", "train_loss_step", "eval/loss", "val_loss"]


class TestNames:
    @pytest.mark.parametrize("name", STEPS)
    def test_updates_go_before_log_calls(self, tmp_path, name):
        lines = [(i, 3.0, 10 * i) for i in range(1, 5)]
        log = LiveLog(write(tmp_path / "a.csv", f"_step,loss,{name}", lines))
        assert [r.step for r in log.new()] == [10, 20, 30, 40]
        assert not log.own_step
        text = "".join(json.dumps({"_step": i, "loss": 3.0, name: 10 * i}) + "\n" for i in range(1, 5))
        (tmp_path / "a.jsonl").write_text(text)
        assert [step for step, _ in read(tmp_path / "a.jsonl")] == [10, 20, 30, 40]

    def test_log_calls_are_taken_where_there_is_nothing_else(self, tmp_path):
        log = LiveLog(write(tmp_path / "a.csv", "_step,loss", [(1, 3.0)]))
        assert [r.step for r in log.new()] == [1]
        assert log.own_step

    @pytest.mark.parametrize("step", STEPS)
    @pytest.mark.parametrize("loss", LOSSES)
    def test_import_and_monitor_know_the_same_names(self, tmp_path, step, loss):
        path = write(tmp_path / "a.csv", f"{step},{loss}", [(1, 3.0), (2, 2.5)])
        (run,) = read_logs([path])
        assert read(path) == list(zip(run.step, run.loss, strict=True))

    def test_training_goes_before_evaluation_in_what_there_is(self, tmp_path):
        lines = [{"step": 0, "eval/loss": 9.0}, {"step": 1, "train/loss": 8.0}, {"step": 2, "train/loss": 7.0}]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert read(tmp_path / "a.jsonl") == [(1, 8.0), (2, 7.0)]

    def test_named_columns(self, tmp_path):
        path = write(tmp_path / "a.csv", "it;nll;loss", [(1, 3.0, 9), (2, 2.5, 9)], ";")
        assert read(path, step="it", loss="nll") == [(1, 3.0), (2, 2.5)]
        with pytest.raises(TableError, match=r"got it, nll, loss; name the column of the step \(--step-column\)"):
            read(path)
        with pytest.raises(TableError, match=r"without 'nl'; did you mean 'nll'\?; correct it"):
            read(path, step="it", loss="nl")
        with pytest.raises(TableError, match="--step-column must count updates, got 'tokens'"):
            LiveLog(path, step="tokens")
        (tmp_path / "a.jsonl").write_text('{"it": 1, "nll": 3.0}\n')
        assert read(tmp_path / "a.jsonl", step="it", loss="nll") == [(1, 3.0)]

    def test_steps_that_are_no_updates(self, tmp_path):
        path = write(tmp_path / "a.csv", "_step,loss", [(40, 3.0), (81, 2.5)])
        assert read(path, updates_per_step=0.25) == [(10, 3.0), (20, 2.5)]
        assert read(path, updates_per_step=10) == [(400, 3.0), (810, 2.5)]
        with pytest.raises(InputError, match="updates_per_step must be a finite number above 0, got 0"):
            LiveLog(path, updates_per_step=0.0)

    @pytest.mark.parametrize("name", ["Name", "run", "ID", "run_id"])
    def test_runs_under_one_another(self, tmp_path, name):
        lines = [(run, k, loss) for run, loss in (("a", 3.0), ("b", 4.0)) for k in (1, 2, 3)]
        path = write(tmp_path / "a.csv", f"{name},step,loss", lines)
        with pytest.raises(
            TableError, match="line 5: a log must be that of one run, got 'a' and 'b'; name one of them"
        ):
            read(path)
        assert read(path, "b") == [(1, 4.0), (2, 4.0), (3, 4.0)]

    def test_a_count_of_rows_names_no_run(self, tmp_path):
        path = write(tmp_path / "a.csv", "id,step,loss", [(f"u{k}", k, 3.0) for k in range(1, 9)])
        assert len(read(path)) == 8


class TestWrittenNaN:
    HEADER = "step,train/loss,eval/loss,lr"
    LINES = ((10, 3.0, "NaN", 1e-3), (20, 2.9, "NaN", 1e-3), (20, "NaN", 3.1, "NaN"), (30, 2.8, "NaN", 1e-3))

    @pytest.mark.parametrize("columns", [4, 3, 2])
    def test_a_nan_for_an_empty_cell_is_no_loss(self, tmp_path, columns):
        """The rate, the other loss, or a number of the same step tells."""
        header = ",".join(self.HEADER.split(",")[:columns])
        path = write(tmp_path / "a.csv", header, [line[:columns] for line in self.LINES])
        assert read(path) == [(10, 3.0), (20, 2.9), (30, 2.8)]

    def test_a_run_that_diverged_is_still_seen(self, tmp_path):
        path = write(tmp_path / "a.csv", self.HEADER, [*self.LINES, (40, "NaN", "NaN", 1e-3)])
        assert math.isnan(read(path)[-1][1])
        path = write(tmp_path / "b.csv", "step,loss,eval_loss", [(10, 3.0, ""), (20, "NaN", 3.0)])
        assert math.isnan(read(path)[-1][1])


class TestFiles:
    @pytest.mark.parametrize("indent", [None, 2])
    def test_a_trainers_state(self, tmp_path, indent):
        path = tmp_path / "trainer_state.json"
        history = [{"step": k, "loss": 9.0 - k, "grad_norm": 1.0} for k in (1, 2)]
        path.write_text(json.dumps({"global_step": 2, "log_history": history}, indent=indent))
        log = LiveLog(path)
        assert [tuple(r) for r in log.new()] == [(1, 8, 1), (2, 7, 1)]
        assert not log.pending
        assert list(log.new()) == []
        path.write_text('{"log_history": [')  # half of it
        assert list(log.new()) == []
        assert log.pending
        history += [{"step": 3, "loss": 5.0}, {"step": 3, "train_loss": 7.0}]
        path.write_text(json.dumps({"global_step": 3, "log_history": history}, indent=indent))
        assert [r.loss for r in log.new()] == [8, 7, 5]
        path.write_text('{"log_history": [1]}')
        with pytest.raises(TableError, match="log_history must be a list of JSON objects"):
            list(LiveLog(path).new())

    def test_a_compressed_log(self, tmp_path):
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"step,loss\n1,3\n"))
        with pytest.raises(TableError, match="a log must be text, got a compressed file; unpack it first"):
            read(tmp_path / "a.csv.gz")

    def test_a_number_with_commas(self, tmp_path):
        with pytest.raises(TableError, match="line 2: step must be a number, got '1,000'; write it without commas"):
            read(write(tmp_path / "a.csv", "step,loss", [('"1,000"', 3.0)]))

    @pytest.mark.parametrize("header", [["step,loss"], []])
    @pytest.mark.parametrize("renamed", [True, False])
    def test_a_log_that_is_rotated_goes_on(self, tmp_path, renamed, header):
        """A log may be renamed, or copied and emptied; what follows may have a header or none."""
        path = write(tmp_path / "a.csv", "step,loss", [(1, 9.0), (2, 8.0), (3, 7.0)])
        log = LiveLog(path)
        assert len(list(log.new())) == 3
        if renamed:
            path.rename(tmp_path / "a.csv.1")
        path.write_text("".join(line + "\n" for line in [*header, "4,6.0"]))
        assert [tuple(r) for r in log.new()] == [(4, 6, None)]
        with path.open("a") as stream:
            stream.write("5,5.0\n")
        assert [r.step for r in log.new()] == [5]

    def test_a_log_that_is_emptied_waits(self, tmp_path):
        path = write(tmp_path / "a.csv", "step,loss", [(1, 9.0)])
        log = LiveLog(path)
        list(log.new())
        path.write_text("")
        assert list(log.new()) == []
        path.write_bytes(b"\0" * 14 + b"2,8.0\n")  # of a writer that does not append
        assert [r.step for r in log.new()] == [2]
