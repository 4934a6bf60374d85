"""optlaws import: logs of past runs become tables that fit and monitor accept."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from refusal import refused

from optlaws import RunTable, load_law, parse
from optlaws.runs import read_curves, read_runs

ROOT = Path(__file__).resolve().parents[2]
LAW = "llama-slimpajama"
SIZES = ["--params", "85M", "--batch-tokens", "51200", "--weight-decay", "0.1", "--optimizer", "AdamW"]
SPECS = {
    "a": "wsd:peak=1e-3,steps=10000,warmup=300,decay=0.2",
    "b": "cosine:peak=1e-3,steps=20000,warmup=300,final=1e-4",
    "c": "linear:peak=5e-4,steps=10000,warmup=300",
    "d": "wsd:peak=5e-4,steps=20000,warmup=300,decay=0.4",
    "e": "cosine:peak=5e-4,steps=15000,warmup=300",
}


def optlaws(folder, *args, stdin=""):
    return subprocess.run(
        [sys.executable, "-m", "optlaws", *map(str, args)],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )


def write_state(folder, spec, seed):
    """What Hugging Face Trainer would have written of a run that the built-in law describes, with a little noise."""
    run = RunTable.build(spec, params=85e6, batch_tokens=51200, weight_decay=0.1)
    schedule = run.schedule_tuple()[0]
    total = schedule.total_steps
    steps = np.arange(50, total + 1, 50)
    noise = np.exp(0.002 * np.random.default_rng(seed).standard_normal(len(steps)))
    losses = load_law(LAW).predict_curve(run, steps.astype(float)).loss * noise
    rates = np.append(schedule.array(), schedule.lr(total - 1))
    history = [
        {"step": k, "loss": loss, "learning_rate": rates[k], "epoch": k / total}
        for k, loss in zip(steps.tolist(), losses.tolist(), strict=True)
    ]
    folder.mkdir(parents=True)
    state = {"global_step": total, "max_steps": total, "log_history": history}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return schedule


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Five runs in a folder, imported."""
    folder = tmp_path_factory.mktemp("logs")
    schedules = {name: write_state(folder / name, spec, i) for i, (name, spec) in enumerate(SPECS.items())}
    return folder, schedules, optlaws(folder, "import", *SPECS, "-o", "curves.csv", "--runs", "runs.csv", *SIZES)


def test_what_is_written(imported):
    folder, schedules, done = imported
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "Wrote curves.csv: 1,500 readings of 5 runs (hf-trainer: loss from 'loss', rate from 'learning_rate', "
        "step from 'step').\n"
        "Wrote runs.csv: 5 runs, 5 with a schedule; final_loss: the mean of the curve's last 1 %, 3 to 5 readings that"
        " scatter by up to 0.23 % (5).\n"
    )
    assert done.stderr.startswith(
        "optlaws: note: run 'a' (and 4 more runs): the first learning rate is logged at step 50"
    )
    assert done.stderr.count("\n") == 2
    said = r"final_loss of run '.' .* is the mean of 3 readings of the curve that scatter by 0.2. %"
    assert re.search(said, done.stderr)
    assert "all of them are those of a wsd schedule with a warm-up of 300 steps, which is taken" in done.stderr
    runs, curves = read_runs(folder / "runs.csv", need_loss=True), read_curves(folder / "curves.csv")
    assert runs.run_id == tuple(SPECS)
    assert runs.status == ("completed",) * 5
    assert runs.optimizer == ("adamw",) * 5
    assert runs.tokens.tolist() == [51200 * schedule.total_steps for schedule in schedules.values()]
    assert runs.schedule_tuple() == tuple(schedules.values())  # recognised, though rates are logged every 50 steps
    last = curves.runs()["a"][-3:]  # steps 9,900, 9,950 and 10,000
    assert runs.final_loss[0] == pytest.approx(np.mean(curves.loss[last]), rel=1e-12)


def test_fit_and_monitor_read_it(imported):
    folder, _, _ = imported
    for tables in (["runs.csv"], ["runs.csv", "--curves", "curves.csv"]):
        done = optlaws(folder, "fit", *tables, "-o", "law.json")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("Wrote law.json: law law,")
    done = optlaws(folder, "import", "a", "-o", "curve.csv", "--runs", "run.csv", *SIZES)
    assert done.returncode == 0, done.stderr
    done = optlaws(folder, "monitor", LAW, "run.csv", "--log", "curve.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("step 10000 of 10000: final loss ")


LOG = "step,loss\n" + "".join(f"{k},{3 + 10 / k}\n" for k in range(10, 1001, 10))


class TestCommand:
    @pytest.fixture
    def log(self, run, tmp_path):
        (tmp_path / "log.csv").write_text(LOG)
        return run

    def test_without_rates_the_schedule_stays_empty(self, log, tmp_path):
        code, _, err = log("import", "log.csv", "-o", "c.csv", "--runs", "r.csv")
        assert code == 0
        assert err == (
            "optlaws: note: run 'log': schedule stays empty: no learning rate is logged; --schedule SPEC gives it\n"
        )
        assert (tmp_path / "r.csv").read_text().splitlines()[
            1
        ] == f"log,,,1000,,,,,,{float(np.mean([3 + 10 / 990, 3.01]))!r},training"

    @pytest.mark.parametrize("spec", ["cosine:peak=1e-3,warmup=20", "cosine:peak=1e-3,warmup=20,steps=1000", "s.json"])
    def test_a_schedule_of_the_users_own(self, log, tmp_path, spec):
        (tmp_path / "s.json").write_text('{"kind": "cosine", "peak_lr": 1e-3, "warmup_steps": 20, "total_steps": 1000}')
        code, _, err = log(
            "import", "log.csv", "-o", "c.csv", "--runs", "r.csv", "--schedule", spec, "--run-id", "mine"
        )
        assert (code, err) == (0, "")
        runs = read_runs(tmp_path / "r.csv", need_loss=True)
        assert (runs.run_id, runs.status) == (("mine",), ("completed",))
        assert str(runs.schedule_tuple()[0]) == "cosine:peak=0.001,steps=1000,warmup=20"

    def test_a_log_that_ends_before_its_schedule(self, log, tmp_path):
        spec = "cosine:peak=1e-3,steps=2000"
        code, _, err = log("import", "log.csv", "-o", "c.csv", "--runs", "r.csv", "--schedule", spec)
        assert code == 0
        assert "final_loss stays empty: the last reading is at step 1000" in err
        runs = read_runs(tmp_path / "r.csv")
        assert runs.status == (None,)
        assert np.isnan(runs.final_loss[0])

    @pytest.mark.parametrize(
        ("tail", "status", "said"),
        [((4.5,) * 12, "diverged", "its loss rose by"), (("nan",), "nonfinite", "not finite")],
    )
    def test_divergence_is_said_and_labelled_where_asked_for(self, log, tmp_path, tail, status, said):
        more = "".join(f"{1010 + 10 * i},{loss}\n" for i, loss in enumerate(tail))
        (tmp_path / "log.csv").write_text(LOG + more)
        ask = ["import", "log.csv", "-o", "c.csv", "--runs", "r.csv", "--schedule", "constant:peak=1e-3"]
        code, _, err = log(*ask)
        assert code == 0
        assert said in err
        assert f"--label sets it to {status}" in err
        assert read_runs(tmp_path / "r.csv").status == (None,)
        code, _, err = log(*ask, "--label")
        assert code == 0
        assert "--label" not in err
        assert read_runs(tmp_path / "r.csv", need_loss=True).status == (status,)

    def test_notes(self, log, tmp_path):
        (tmp_path / "h.csv").write_text("_step,loss,val_loss\n1,3,2.9\n2,nan,\n3,2.5,\n3,2.4,\n")
        code, out, err = log("import", "h.csv", "-o", "-", "--runs", "r.csv")
        assert code == 0
        assert out == "run_id,step,loss,val_loss,loss_kind\nh,1,3,2.9,training\nh,3,2.4,,training\n"
        for said in (
            "1 reading of steps",
            "1 loss not finite or 0 left out",
            "W&B's own count",
            "at step 1, is not at",
        ):
            assert said in err
        assert "Wrote r.csv" in err

    def test_evaluation_of_some_runs_only_is_said(self, log, tmp_path):
        (tmp_path / "e.csv").write_text("step,loss,val_loss\n10,3,3.5\n")
        code, _, err = log("import", "log.csv", "e.csv", "-o", "c.csv", "--runs", "r.csv", "--label")
        assert code == 0
        assert "warning: the final losses mix evaluation losses of 'e' with training losses of 'log': a law" in err
        assert [line.rpartition(",")[2] for line in (tmp_path / "r.csv").read_text().splitlines()] == [
            "loss_kind",
            "training",
            "evaluation",
        ]
        assert read_curves(tmp_path / "c.csv").extra["val_loss"][-1] == "3.5"

    @pytest.mark.parametrize("digits", [3, 6, 12])
    def test_rates_that_are_of_no_family_are_said(self, tmp_path, digits):
        schedule = parse("cosine:peak=1e-3,steps=2000,warmup=100,final=1e-4")
        steps = np.arange(1, 2001, 10)
        rates = [f"{rate:.{digits}g}" for rate in schedule.lr(steps - 1)]
        lines = [f"{k},{3 + 1 / k:.4f},{rate}" for k, rate in zip(steps.tolist(), rates, strict=True)]
        (tmp_path / "log.csv").write_text("\n".join(["step,loss,lr", *lines]) + "\n")
        done = optlaws(tmp_path, "import", "log.csv", "-o", "curves.csv", "--runs", "runs.csv", *SIZES)
        assert done.returncode == 0, done.stderr
        said = "the logged rates meet no constant, linear, cosine or WSD schedule to a millionth" in done.stderr
        assert said == (digits == 3)

    def test_a_schedule_that_the_logged_rates_contradict(self, tmp_path, run):
        rates = parse("linear:peak=1e-3,steps=1000,warmup=100").array()
        lines = [f"{k},{3 + 1 / (k + 1):.4f},{rates[k]!r}\n" for k in range(0, 1000, 10)]
        (tmp_path / "log.csv").write_text("step,loss,lr\n" + "".join(lines).replace("np.float64(", "").replace(")", ""))
        ask = ["import", "log.csv", "-o", "c.csv", "--runs", "r.csv", "--schedule"]
        refused(
            run(*ask, "cosine:peak=5e-4,warmup=100"),
            "--schedule must agree with the rates that are logged, got one with 0.0005 at step 100, where run 'log'",
            "leave it out to take the logged rates",
        )
        assert not (tmp_path / "r.csv").exists()
        code, _, err = run(*ask, "linear:peak=1e-3,warmup=90,steps=1000")
        assert code == 0
        assert "--schedule says 0.001 at step 90, where run 'log' logged 0.0009; the schedule is taken" in err
        code, _, err = run(*ask, "linear:peak=1e-3,warmup=100,steps=1000")
        assert (code, err) == (0, "")

    def test_tokens_that_the_log_counts(self, tmp_path, run):
        lines = "".join(f"{k},{3 + 1 / k:.4f},{65536 * k}\n" for k in range(10, 1001, 10))
        (tmp_path / "log.csv").write_text("step,loss,num_input_tokens_seen\n" + lines)
        ask = ["import", "log.csv", "-o", "c.csv", "--runs", "r.csv", "--schedule", "constant:peak=1e-3"]
        assert run(*ask)[0] == 0
        assert read_runs(tmp_path / "r.csv").batch_tokens.tolist() == [65536]
        assert run(*ask, "--batch-tokens", "65536")[0] == 0
        assert run(*ask, "--tokens", "65.6M")[0] == 0
        said = "must agree with the tokens that run 'log' counts in its column 'num_input_tokens_seen'"
        refused(
            run(*ask, "--batch-tokens", "32768"), f"--batch-tokens {said}, 65536, got 32768; correct it, leave it out"
        )
        refused(run(*ask, "--tokens", "33M"), f"--tokens {said}, 65536000, got 33000000")

    def test_steps_that_rise_by_the_batch_are_tokens(self, tmp_path, run):
        (tmp_path / "log.csv").write_text("step,loss\n" + "".join(f"{65536 * k},3\n" for k in range(1, 50)))
        ask = ["import", "log.csv", "-o", "c.csv", "--runs", "r.csv", "--batch-tokens", "65536"]
        refused(run(*ask), "steps must count updates, got 65536 more in every reading", "--updates-per-step 1/65536")
        assert run(*ask, "--updates-per-step", "1/65536")[0] == 0
        assert read_curves(tmp_path / "c.csv").step.tolist() == list(range(1, 50))

    @pytest.mark.parametrize("text", ["0", "-1", "1/0", "x", "inf", "nan"])
    def test_updates_per_step_is_a_number_above_0(self, log, text):
        why = f"--updates-per-step must be a number above 0, got '{text}'; write it like 10, 0.25 or 1/4"
        refused(log("import", "log.csv", "-o", "c.csv", "--updates-per-step", text), why)

    def test_notes_on_what_was_chosen_or_dropped(self, tmp_path, run):
        lines = [f"{run},{k},3,1e-3,{rate}\n" for run, rate in (("a", "1e-3"), ("b", "2e-3")) for k in range(1, 30)]
        (tmp_path / "log.csv").write_text("Name,_step,loss,lr/a,lr/b\n" + "".join(lines) + "b,25,2,1e-3,2e-3\n")
        code, out, err = run("import", "log.csv", "-o", "c.csv")
        assert code == 0
        assert "2 runs" in out
        assert "run from 'Name'" in out
        assert "no rates are read, as those of 'lr/a' and 'lr/b' differ; name one (--rate-column)" in err
        assert "run 'b': 4 readings dropped that the log leaves behind where it goes back" in err
        assert "or say how many updates one counts (--updates-per-step)" in err
        assert "--updates-per-step" not in run("import", "log.csv", "-o", "c.csv", "--updates-per-step", "2")[2]

    def test_inputs_are_never_replaced(self, log, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "metrics.csv").write_text(LOG)
        refused(log("import", "log.csv", "-o", "log.csv"), "must not be a file that is read")
        refused(log("import", "log.csv", "-o", "c.csv", "--runs", "./log.csv"), "must not be a file that is read")
        refused(log("import", "out", "-o", "out/metrics.csv"), "must not be a file that is read")
        refused(log("import", "log.csv", "-o", "c.csv", "--runs", "c.csv"), "every output must have its own place")
        assert (tmp_path / "log.csv").read_text() == (tmp_path / "out" / "metrics.csv").read_text() == LOG

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["none.csv", "-o", "c.csv"], ["none.csv: no such file"]),
            (["log.csv", "-o", "c.txt2"], ["the suffix must be"]),
            (["log.csv", "-o", "c.csv", "--params", "85M"], ["--params goes into the run table", "add --runs"]),
            (["log.csv", "-o", "c.csv", "--label"], ["--label goes into the run table"]),
            (["log.csv", "-o", "c.csv", "--loss-column", "los"], ["missing column 'los'", "did you mean 'loss'?"]),
            (["log.csv", "-o", "c.csv", "--run-id", " "], ["the run's name must be text"]),
            (["log.csv", "log.csv", "-o", "c.csv"], ["run_id 'log': every quantity must be in one log"]),
            (["log.csv", "-o", "c.csv", "--runs", "r.csv", "--schedule", "cosine:peak=-1"], ["peak"]),
            (["log.csv", "-o", "c.csv", "--runs", "r.csv", "--schedule", "cosin:peak=1"], ["cosine"]),
            (
                ["log.csv", "-o", "c.csv", "--runs", "r.csv", "--tokens", "1B", "--batch-tokens", "1K"],
                ["run 'log': tokens is 1000000000 but steps * batch_tokens is"],
            ),
        ],
    )
    def test_bad_input(self, log, tmp_path, args, words):
        refused(log("import", *args), *words)
        assert not (tmp_path / "c.csv").exists()
        assert not (tmp_path / "r.csv").exists()

    def test_standard_input(self, tmp_path):
        done = optlaws(tmp_path, "import", "-", "-o", "-", stdin="step,loss\n1,3\n2,2.5\n")
        assert done.returncode == 0
        assert done.stdout == "run_id,step,loss,loss_kind\nrun,1,3,training\nrun,2,2.5,training\n"
        done = optlaws(tmp_path, "import", "-", "-o", "-", stdin="what is this\n")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1


def test_few_readings_at_the_end_are_doubted(tmp_path):
    """The scatter is that of neighbours; a mean of 10 times as many is sure to a third of it."""
    noise = 0.01 * np.random.default_rng(5).standard_normal(200)
    lines = [f"{50 * k},{3 + 1 / k + noise[k - 1]:.6f}" for k in range(1, 201)]
    (tmp_path / "log.csv").write_text("\n".join(["step,loss", *lines]) + "\n")
    ask = ["import", "log.csv", "-o", "c.csv", "--runs", "r.csv", "--schedule", "cosine:peak=1e-3,warmup=100", *SIZES]
    done = optlaws(tmp_path, *ask)
    loss = np.array([float(line.split(",")[1]) for line in lines])
    scatter = 100 * np.sqrt(np.mean(np.diff(loss[-20:]) ** 2) / 2) / loss[-20:].mean()
    assert f"last 1 %, 3 readings that scatter by {scatter:.2g} % (1)" in done.stdout
    assert (
        f"final_loss of run 'log' is the mean of 3 readings of the curve that scatter by {scatter:.2g} %: it is sure to"
        f" {scatter / np.sqrt(3):.2g} % only; import evaluation losses" in done.stderr
    )
    done = optlaws(tmp_path, *ask, "--final-share", "20%")
    assert "last 20 %, 41 readings" in done.stdout
    assert "is the mean of" not in done.stderr
    assert read_runs(tmp_path / "r.csv").final_loss[0] == pytest.approx(loss[-41:].mean())
    for share, said in (("0", "--final-share must be above 0"), ("2", "--final-share must be a share from 0 to 1")):
        done = optlaws(tmp_path, *ask, "--final-share", share)
        assert (done.returncode, said in done.stderr) == (2, True)


@pytest.mark.parametrize(("cut", "said"), [(6060, True), (9990, False)])
def test_a_run_that_was_cut_off_is_pointed_out(tmp_path, cut, said):
    rate = parse("cosine:peak=1e-3,steps=10000,warmup=100,final=1e-4").array()
    lines = [f"{k},{2 + 1 / (1 + k / 1000):.4f},{float(rate[k])!r}" for k in range(0, cut, 10)]
    (tmp_path / "log.csv").write_text("\n".join(["step,loss,lr", *lines]) + "\n")
    ask = ["import", "log.csv", "-o", "c.csv", "--runs", "r.csv", "--label", *SIZES]
    done = optlaws(tmp_path, *ask)
    assert read_runs(tmp_path / "r.csv").status == ("completed",)
    assert ("may have been cut off" in done.stderr) == said
    if said:
        last = 100 * rate[cut - 10] / rate.max()
        assert f"its rate ended at {last:.0f} % of its peak, so that it may have been cut off" in done.stderr
