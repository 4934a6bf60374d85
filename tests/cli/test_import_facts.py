"""optlaws import: what is said of single logs, and which loss each of them has."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from refusal import refused

from optlaws import parse
from optlaws.errors import TableError
from optlaws.runs import read_curves, read_logs, read_runs

ROOT = Path(__file__).resolve().parents[2]
OUT = ["-o", "curves.csv", "--runs", "r.csv"]


def optlaws(folder, *args):
    done = subprocess.run(
        [sys.executable, "-m", "optlaws", *map(str, args)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def write(folder, name, loss="train/loss", rate="lr", scale=1.0, level=3.0):
    """A log of a linear schedule, its loss and rate under these names, the rates times `scale`."""
    rates = scale * parse("linear:peak=1e-3,steps=400,warmup=40").array()
    lines = [f"{k},{level + 1 / (k + 1):.6f},{rates[k]:.17g}" for k in range(0, 400, 10)]
    path = folder / f"{name}.csv"
    path.write_text("\n".join([f"step,{loss},{rate}", *lines]) + "\n")
    return path.name


class TestKinds:
    def test_logs_of_both_losses_are_told_apart_together_and_in_calls_of_their_own(self, tmp_path):
        a, b, c = (write(tmp_path, n, loss=x) for n, x in zip("abc", ("loss", "train/loss", "eval/loss"), strict=True))
        sizes = ["--params", "1M", "--batch-tokens", "8K"]
        said = (
            "optlaws: warning: the final losses and the curves mix evaluation losses of 'c' with training losses of"
            " 'a', 'b': a law takes their difference for one of the runs; import all of one kind (--loss-column), or"
            " fit each kind on its own\n"
        )
        code, _, err = optlaws(tmp_path, "import", a, b, c, *OUT, *sizes)
        assert (code, err) == (0, said)
        assert read_runs(tmp_path / "r.csv").extra["loss_kind"] == ("training", "training", "evaluation")
        curves = read_curves(tmp_path / "curves.csv")
        assert set(zip(curves.run_id, curves.extra["loss_kind"], strict=True)) == {
            ("a", "training"),
            ("b", "training"),
            ("c", "evaluation"),
        }
        write(tmp_path, "d", loss="loss", level=3.2)
        one = optlaws(tmp_path, "import", a, b, "d.csv", "-o", "c1.csv", "--runs", "r1.csv", *sizes)
        two = optlaws(tmp_path, "import", c, "-o", "c2.csv", "--runs", "r2.csv", *sizes)
        assert [found[0] for found in (one, two)] == [0, 0]
        assert one[2] == two[2] == ""
        code, _, err = optlaws(tmp_path, "fit", "r1.csv", "r2.csv", "-o", "law.json")
        assert code == 0, err
        assert "warning: the final losses mix evaluation losses of 'c' with training losses of 'a', 'b', 'd'" in err
        code, _, err = optlaws(tmp_path, "fit", "r1.csv", "r2.csv", "-o", "law.json", "--curves", "c1.csv")
        assert code == 0, err

    def test_the_kind_is_that_of_the_loss_that_was_taken(self, tmp_path):
        path = tmp_path / "x.csv"
        path.write_text("step,train_loss,val_loss,y\n10,3,3.1,5\n20,2.9,3,4\n")
        kinds = {name: read_logs([path], loss=name)[0] for name in (None, "train_loss", "val_loss", "y")}
        assert [run.loss_kind for run in kinds.values()] == ["training", "training", "evaluation", ""]
        assert "loss_kind" not in kinds["y"].curve().extra
        path.write_text("step,val_loss\n10,3.1\n")
        assert read_logs([path])[0].loss_kind == "evaluation"

    def test_a_table_of_import_keeps_its_kinds(self, tmp_path, run):
        for name, loss in (("a", "train/loss"), ("c", "eval/loss"), ("y", "y")):
            write(tmp_path, name, loss=loss)
        assert run("import", "a.csv", "c.csv", "-o", "both.csv")[0] == 0
        assert run("import", "y.csv", "-o", "plain.csv", "--loss-column", "y")[0] == 0
        code, _, err = run("import", "both.csv", "-o", "again.csv", "--runs", "r.csv")
        assert code == 0
        assert "mix evaluation losses of 'c' with training losses of 'a'" in err
        assert (tmp_path / "again.csv").read_text() == (tmp_path / "both.csv").read_text()
        assert read_runs(tmp_path / "r.csv").extra["loss_kind"] == ("training", "evaluation")
        kinds = {n: read_logs([tmp_path / "both.csv"], loss=n)[1].loss_kind for n in (None, "loss")}
        assert kinds == {None: "evaluation", "loss": "evaluation"}
        assert read_logs([tmp_path / "plain.csv"])[0].loss_kind == "training"  # no column says anything

    @pytest.mark.parametrize(("cells", "kind"), [(",", ""), ("ce,ce", "training"), ("evaluation,", None)])
    def test_what_the_column_says(self, tmp_path, cells, kind):
        path, kinds = tmp_path / "x.csv", cells.split(",")
        path.write_text(f"step,loss,loss_kind\n10,3,{kinds[0]}\n20,2.9,{kinds[1]}\n")
        if kind is None:
            with pytest.raises(TableError, match="loss_kind must be one for all readings of a run, got '' and 'eval"):
                read_logs([path])
        else:
            assert read_logs([path])[0].loss_kind == kind

    def test_the_column_says_nothing_of_another_loss(self, tmp_path):
        (tmp_path / "x.csv").write_text("step,loss,y,val_loss,loss_kind\n10,3,4,5,evaluation\n20,2,3,4,evaluation\n")
        found = {name: read_logs([tmp_path / "x.csv"], loss=name)[0].loss_kind for name in ("loss", "y", "val_loss")}
        assert found == {"loss": "evaluation", "y": "", "val_loss": "evaluation"}


class TestSingleLogs:
    def test_each_log_has_its_own_sizes(self, tmp_path):
        a, b, c = (write(tmp_path, name) for name in "abc")
        code, _, err = optlaws(
            tmp_path, "import", a, b, c, *OUT, "--params", "a.csv=1e6", "--params", "4M", "--params", "c=16M",
            "--batch-tokens", "8K", "--batch-tokens", "c.csv=16Ki", "--weight-decay", "b=0", "--weight-decay", "0.1",
            "--optimizer", "c=Muon", "--optimizer", "adamw", "--schedule", "b.csv=linear:peak=1e-3,warmup=40,steps=400",
        )  # fmt: skip
        assert (code, err) == (0, "")
        runs = read_runs(tmp_path / "r.csv")
        assert runs.params.tolist() == [1e6, 4e6, 16e6]
        assert runs.batch_tokens.tolist() == [8000, 8000, 16384]
        assert runs.tokens.tolist() == [3.2e6, 3.2e6, 400 * 16384]
        assert runs.weight_decay.tolist() == [0.1, 0, 0.1]
        assert runs.optimizer == ("adamw", "adamw", "muon")
        assert runs.status == (None, "completed", None)

    def test_a_name_of_a_run_goes_before_that_of_its_log(self, tmp_path, run):
        (tmp_path / "all.csv").write_text("Name,step,loss\n" + "".join(f"{n},{k},3\n" for n in "ab" for k in range(9)))
        assert run("import", "all.csv", *OUT, "--params", "b=2M", "--params", "all.csv=1M", "--params", "3M")[0] == 0
        text = (tmp_path / "r.csv").read_text().splitlines()
        assert [line.split(",")[:2] for line in text[1:]] == [["a", "1000000"], ["b", "2000000"]]

    def test_what_one_log_lacks_is_said(self, tmp_path, run):
        write(tmp_path, "a"), write(tmp_path, "b")
        code, _, err = run("import", "a.csv", "b.csv", *OUT, "--params", "a.csv=1M")
        assert code == 0
        assert err == "optlaws: note: run 'b': params stays empty: --params is given for others only\n"
        params = read_runs(tmp_path / "r.csv").params
        assert params[0] == 1e6
        assert np.isnan(params[1])

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["--params", "x.csv=1M"], ["--params must name a run or log (a, a.csv, b, b.csv", "got 'x.csv'"]),
            (["--params", "a.csv=1M", "--params", "a.csv=2M"], ["--params must be given once for 'a.csv'"]),
            (["--params", "1M", "--params", "2M"], ["--params must be given once for all runs", "NAME=VALUE"]),
            (["--params", "a=1M,b=2M"], ["got 'a=1M,b'; repeat --params for each"]),
            (["--params", "a.csv=x"], ["--params must be a finite number above 0, got 'x'"]),
            (["--params", "m.csv=1M"], ["--params must name one run or log, got 'm.csv' for 2 logs"]),
            (["--schedule", "x.csv=constant:peak=1"], ["--schedule must name a run or log", "got 'x.csv'"]),
            (["--schedule", "a.csv=constnt:peak=1"], ["constant"]),
            (["--tokens", "a=1B", "--batch-tokens", "a=1K"], ["run 'a': tokens is 1000000000 but"]),
        ],
    )
    def test_bad_input(self, tmp_path, run, args, words):
        for folder in ("p", "q"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "m.csv").write_text(f"run_id,step,loss\n{folder},1,3\n{folder},2,3\n")
        write(tmp_path, "a"), write(tmp_path, "b")
        refused(run("import", "a.csv", "b.csv", "p/m.csv", "q/m.csv", *OUT, *args), *words)
        assert not (tmp_path / "r.csv").exists()

    def test_a_whole_path_names_one_of_two_logs(self, tmp_path, run):
        for folder in ("p", "q"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "m.csv").write_text(f"run_id,step,loss\n{folder},1,3\n{folder},2,3\n")
        assert run("import", "p/m.csv", "q/m.csv", *OUT, "--params", "q/m.csv=2M", "--params", "./p/m.csv=1M")[0] == 0
        text = (tmp_path / "r.csv").read_text().splitlines()
        assert [line.split(",")[:2] for line in text[1:]] == [["p", "1000000"], ["q", "2000000"]]


class TestPerCent:
    def test_a_lone_rate_in_per_cent_is_said(self, tmp_path, run):
        log = write(tmp_path, "a", rate="lr (%)", scale=100.0)
        said = "'lr (%)' is no plain rate by its name (0.1 % is 0.001): add a column lr that is"
        code, _, err = run("import", log, *OUT)
        assert code == 0
        assert err == f"optlaws: note: run 'a': schedule stays empty: {said}; --schedule SPEC gives it\n"
        assert run("import", log, "-o", "curves.csv")[2] == f"optlaws: note: run 'a': no rates are read: {said}\n"
        code, _, err = run("import", log, *OUT, "--rate-column", "lr (%)")
        assert code == 0
        assert "note: run 'a': 'lr (%)' is read as plain rates, though its name says another unit" in err
        assert read_runs(tmp_path / "r.csv").schedule_tuple()[0].peak == pytest.approx(0.1)

    @pytest.mark.parametrize(("name", "known"), [("lr x1e-3", True), ("lr_percent", True), ("loss (%)", False)])
    def test_names_of_other_units(self, tmp_path, name, known):
        log = read_logs([tmp_path / write(tmp_path, "a", rate=name)])[0]
        assert log.other_units == ((name,) if known else ())
        assert not len(log.rate)

    def test_a_scalar_of_such_rates_is_no_loss(self, tmp_path, run):
        (tmp_path / "run-a-tag-lr (%).csv").write_text("Wall time,Step,Value\n1,1,0.1\n2,2,0.1\n")
        refused(
            run("import", "run-a-tag-lr (%).csv", *OUT), "a scalar must be a loss or a plain learning rate, got 'lr"
        )

    def test_nothing_is_said_of_it_beside_a_plain_rate(self, tmp_path, run):
        (tmp_path / "a.csv").write_text("step,loss,lr (%),lr\n1,3,0.1,1e-3\n2,3,0.1,1e-3\n")
        assert "lr (%)" not in run("import", "a.csv", *OUT)[2]


class TestScheduleFiles:
    @pytest.mark.parametrize("output", ["-o", "--runs"])
    @pytest.mark.parametrize("name", ["a=", "a.csv=", ""])
    def test_a_schedule_that_is_read_is_not_replaced(self, tmp_path, run, output, name):
        write(tmp_path, "a")
        (tmp_path / "s.csv").write_text('schedule\n"linear:peak=1e-3,steps=400,warmup=40"\n')
        kept = (tmp_path / "s.csv").read_text()
        args = {"-o": "c.csv", "--runs": "r.csv", output: "./s.csv"}
        result = run("import", "a.csv", *(x for pair in args.items() for x in pair), "--schedule", f"{name}s.csv")
        refused(result, "the output must not be a file that is read, got './s.csv' for both; name another file")
        assert (tmp_path / "s.csv").read_text() == kept
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "s.csv"]

    def test_a_file_whose_name_has_the_sign_is_one_file(self, tmp_path, run):
        write(tmp_path, "a")
        (tmp_path / "b=s.csv").write_text('schedule\n"linear:peak=1e-3,steps=400,warmup=40"\n')
        code, _, err = run("import", "a.csv", "-o", "c.csv", "--runs", "s.csv", "--schedule", "b=s.csv")
        assert (code, err) == (0, "")
        refused(run("import", "a.csv", "-o", "c.csv", "--runs", "b=s.csv", "--schedule", "b=s.csv"), "must not be a")
