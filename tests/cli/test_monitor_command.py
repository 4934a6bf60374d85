"""optlaws monitor, in a process of its own and in this one."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from optlaws import load_law, parse
from optlaws.cli import run
from optlaws.monitor import Monitor

SPEC = "wsd:peak=1e-3,steps=20000,warmup=300"
ASK = ["monitor", "llama-slimpajama", SPEC, "--params", "85M", "--batch-tokens", "51200"]


def write_log(path, blow_up=None, until=10_000):
    path_of = Monitor(load_law("llama-slimpajama"), parse(SPEC), params=85e6, batch_tokens=51_200).path
    steps = np.arange(100, until + 1, 100)
    rows = ["step,loss"]
    for s in steps:
        factor = 2.0 if blow_up is not None and s >= blow_up else 1.0
        rows.append(f"{s},{factor * np.exp(path_of.log_loss_at(float(s))):.5f}")
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def test_forecast_of_a_partial_log(tmp_path):
    log = write_log(tmp_path / "log.csv")
    done = subprocess.run([sys.executable, "-m", "optlaws", *ASK, "--log", log], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("step 10000 of 20000: final loss 3.")
    assert "no alarm" in done.stdout


def test_exit_code_3_when_diverged_and_json(tmp_path, capsys):
    log = write_log(tmp_path / "log.csv", blow_up=6000)
    assert run([*ASK, "--log", log, "--format", "json"]) == 3
    got = json.loads(capsys.readouterr().out)
    assert got["diverged"]
    assert 6000 <= min(alarm["step"] for alarm in got["history"]) <= 6600
    assert got["forecast"]["loss"] is got["forecast"]["upper"] is None  # no forecast holds
    assert got["forecast"]["prior_lower"] < got["forecast"]["prior_loss"]


def test_half_a_last_line_is_left_out(tmp_path, capsys):
    log = tmp_path / "log.csv"
    write_log(log, until=9000)
    with open(log, "a", encoding="utf-8") as stream:
        stream.write("9100,2.")
    assert run([*ASK, "--log", str(log)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("step 9000 of 20000")
    assert "the log's last line has no end and is left out" in captured.err


def test_off_track_may_count(tmp_path, capsys):
    path_of = Monitor(load_law("llama-slimpajama"), parse(SPEC), params=85e6, batch_tokens=51_200).path
    rows = ["global_step,train/loss"]
    rows += [f"{s},{0.8 * np.exp(path_of.log_loss_at(float(s))):.5f}" for s in range(100, 10_001, 100)]
    (tmp_path / "log.csv").write_text("\n".join(rows) + "\n")
    ask = [*ASK, "--log", str(tmp_path / "log.csv")]
    assert run(ask) == 0
    assert "off track" in capsys.readouterr().out
    assert run([*ask, "--stop-on", "off-track"]) == 3
    assert run([*ask, "--stop-on", "off-track", "--follow", "--every", "0.05"]) == 3


def test_follow_ends_with_the_run_or_its_divergence(tmp_path, capsys):
    log = write_log(tmp_path / "log.csv", until=20_000)
    assert run([*ASK, "--log", log, "--follow", "--every", "0.05"]) == 0
    assert "step 20000 of 20000" in capsys.readouterr().out
    log = write_log(tmp_path / "bad.csv", blow_up=15_000, until=20_000)
    assert run([*ASK, "--log", log, "--follow", "--every", "0.05"]) == 3
    assert "diverged, no forecast holds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--log", "nothing.csv"], "--log must name a file, got 'nothing.csv'"),
        (["--log", "LOG", "--run-id", "x"], "at least one reading of run 'x', got none"),
        (["--log", "LOG", "--follow", "--format", "json"], "--follow prints lines"),
        (["--log", "LOG", "-o", "LOG"], "--output must not be the log"),
    ],
)
def test_bad_input(tmp_path, capsys, extra, message):
    log = write_log(tmp_path / "log.csv")
    assert run([*ASK, *[log if item == "LOG" else item for item in extra]]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "log.csv").read_text().startswith("step,loss")


def test_a_history_of_wandb_is_read_by_its_updates(tmp_path, capsys):
    """Its `_step` counts log calls; where there is nothing else, that is said."""
    log = tmp_path / "log.csv"
    write_log(log)
    assert run([*ASK, "--log", str(log)]) == 0
    plain = capsys.readouterr().out
    rows = [line.split(",") for line in log.read_text().splitlines()[1:]]
    text = "".join(f"{i},{loss},NaN,1e-3,{step}\n{i},NaN,3,NaN,{step}\n" for i, (step, loss) in enumerate(rows))
    log.write_text("_step,train/loss,eval/loss,train/lr,trainer/global_step\n" + text)
    assert run([*ASK, "--log", str(log)]) == 0
    got = capsys.readouterr()
    assert got.out == plain
    assert "log calls" not in got.err
    log.write_text("_step,train/loss\n" + "".join(f"{i + 1},{loss}\n" for i, (_, loss) in enumerate(rows)))
    assert run([*ASK, "--log", str(log)]) == 0
    assert "the steps are W&B's own count of log calls" in capsys.readouterr().err
    assert run([*ASK, "--log", str(log), "--updates-per-step", "100"]) == 0
    got = capsys.readouterr()
    assert (got.out, "log calls" in got.err) == (plain, False)


def test_a_folder_of_a_trainer_and_named_columns(tmp_path, capsys):
    log = tmp_path / "log.csv"
    write_log(log)
    assert run([*ASK, "--log", str(log)]) == 0
    plain = capsys.readouterr().out
    log.write_text(log.read_text().replace("step,loss", "it,nll"))
    assert run([*ASK, "--log", str(log)]) == 2
    assert "name the column of the step and of the loss (--step-column, --loss-column)" in capsys.readouterr().err
    assert run([*ASK, "--log", str(log), "--step-column", "it", "--loss-column", "nll"]) == 0
    assert capsys.readouterr().out == plain
    rows = [line.split(",") for line in log.read_text().splitlines()[1:]]
    history = [{"step": int(step), "loss": float(loss)} for step, loss in rows]
    (tmp_path / "out" / "checkpoint-10").mkdir(parents=True)
    (tmp_path / "out" / "checkpoint-10" / "trainer_state.json").write_text(
        json.dumps({"log_history": history}, indent=2)
    )
    assert run([*ASK, "--log", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == plain


def test_a_log_beyond_the_schedule_is_refused(tmp_path, capsys):
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n20001,3.0\n")
    assert run([*ASK, "--log", str(path)]) == 2
    assert "step must be 0 to 20000, the length of the schedule, got 20001" in capsys.readouterr().err


@pytest.mark.parametrize(("follow", "lines"), [([], 1), (["--follow"], 5)])
@pytest.mark.parametrize("style", ["csv", "jsonl"])
def test_a_log_on_standard_input(tmp_path, follow, lines, style):
    log = write_log(tmp_path / "log.csv", until=4000)
    with open(log) as stream:
        text = stream.read()
    if style == "jsonl":
        rows = [row.split(",") for row in text.splitlines()[1:]]
        text = "".join(json.dumps({"step": int(step), "loss": float(loss)}) + "\n" for step, loss in rows)
    command = [sys.executable, "-m", "optlaws", *ASK, "--log", "-", *follow]
    done = subprocess.run(command, input=text.rstrip("\n"), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "optlaws: note: assumed where the table says nothing: weight_decay 0.1\n"
    assert done.stdout.count("\n") == lines
    assert done.stdout.splitlines()[-1 if follow else 0].startswith("step 4000 of 20000: final loss 3.")


@pytest.mark.parametrize(
    ("text", "extra", "message"),
    [
        ("step,loss\n", [], "--log must hold at least one reading, got none in standard input"),
        ("", ["--follow"], "--log must hold at least one reading, got none in standard input"),
        ("step,loss\n1,x\n", [], "standard input, line 2: loss must be a number, got 'x'"),
        ('{"step": 1\n', [], "standard input, line 1: a line must be one JSON object"),
    ],
)
def test_bad_standard_input(text, extra, message):
    command = [sys.executable, "-m", "optlaws", *ASK, "--log", "-", *extra]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_standard_input_is_read_once(capsys):
    assert run(["monitor", "llama-slimpajama", "-", "--log", "-"]) == 2
    assert "can be read only once, got it for RUN and --log" in capsys.readouterr().err


def test_nothing_is_noted_before_an_error(tmp_path, capsys):
    (tmp_path / "log.csv").write_text("step,loss\n1,x\n")
    short = ["monitor", "llama-slimpajama", SPEC, "--log", str(tmp_path / "log.csv")]
    assert run(short) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run([*short[:-1], write_log(tmp_path / "log.csv")]) == 0
    assert "note: assumed where the table says nothing: params" in capsys.readouterr().err


def test_a_curve_of_another_corpus_is_asked_for_by_name(tmp_path, capsys):
    log = tmp_path / "log.csv"
    write_log(log)
    assert run([*ASK, "--log", str(log)]) == 0
    plain = capsys.readouterr()
    assert "--other-corpus" not in plain.err
    rows = [line.split(",") for line in log.read_text().splitlines()[1:]]
    log.write_text("step,loss\n" + "".join(f"{step},{1.3 * float(loss):.5f}\n" for step, loss in rows))
    assert run([*ASK, "--log", str(log), "--format", "json"]) == 0
    away = capsys.readouterr()
    assert "note: the curve lies 30 % above what the law expects; if its corpus" in away.err
    assert run([*ASK, "--log", str(log), "--format", "json", "--other-corpus"]) == 0
    other = capsys.readouterr()
    assert "--other-corpus" not in other.err
    said = "note: the curve lies 30 % above what the law expects on its own corpus, and that is taken as the level of"
    assert f"{said} another one, not as off its track" in other.err
    here, there = json.loads(away.out)["forecast"], json.loads(other.out)["forecast"]
    final = float(plain.out.split("final loss ")[1].split()[0])
    assert there["loss"] == pytest.approx(1.3 * final, rel=2e-3)
    assert there["lower"] < 1.3 * final < there["upper"]
    assert abs(there["loss"] - 1.3 * final) < abs(here["loss"] - 1.3 * final)
    assert there["last_reading"] == pytest.approx(there["loss"], rel=1e-6)


def scaled(path, factors):
    """Write a log of the law's own curve times factors, by step."""
    write_log(path, until=20_000)
    lines = path.read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    kept = [(int(step), float(loss)) for step, loss in rows]
    path.write_text("step,loss\n" + "".join(f"{s},{f * y:.5f}\n" for s, y in kept if (f := factors(s))))
    return str(path)


def process(*args):
    done = subprocess.run([sys.executable, "-m", "optlaws", *args], capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()


def test_the_law_s_set_and_the_log_s_own_losses_are_told_apart(tmp_path):
    code, lines = process(*ASK, "--log", scaled(tmp_path / "log.csv", lambda s: 1.3))
    assert code == 0
    first = lines[0].split("; ")[0]
    assert re.fullmatch(
        r"step 20000 of 20000: final loss \d\.\d{4} \(\S+ \.\. \S+\) on the law's own evaluation set,"
        r" \d\.\d{4} \(\S+ \.\. \S+\) in this log's own losses, before the run \S+ \(\S+ \.\. \S+\)",
        first,
    )
    assert "the curve itself" not in lines[0]


def test_an_alarm_that_is_over_is_not_denied(tmp_path):
    code, lines = process(*ASK, "--log", scaled(tmp_path / "log.csv", lambda s: 1.2 if s < 8000 else 1.0))
    assert code == 0
    told = re.fullmatch(r"off track: .* at step (\d+) \(over at step (\d+)\)", lines[1])
    assert lines[0].endswith(f"; no alarm now; off track from step {told[1]} to {told[2]}")


def test_digits_of_a_forecast_that_is_none_are_left_out(tmp_path):
    """A few wild readings of another corpus tell nothing; JSON has the numbers."""
    log = scaled(tmp_path / "log.csv", lambda s: 0.4 + s % 200 / 200 if s <= 300 else 0)
    ask = (
        "monitor",
        "llama-slimpajama",
        "wsd:peak=1e-3,steps=3000,warmup=300",
        "--params",
        "1M",
        "--batch-tokens",
        "512",
    )
    code, lines = process(*ask, "--log", log, "--other-corpus")
    assert code == 0
    assert lines[0].startswith("step 300 of 3000: the curve says too little yet of the final loss, before the run ")
    assert lines[0].endswith("; no alarm")
    code, lines = process(*ask, "--log", log, "--other-corpus", "--format", "json")
    found = json.loads("\n".join(lines))["forecast"]
    assert found["upper"] > 2 * found["lower"] > 0


def write_table(path):
    lines = [
        f'{name},{n},51200,"{SPEC}"' for name, n, spec in (("a", "25M", SPEC), ("b", "85M", SPEC), ("c", "1B", SPEC))
    ]
    path.write_text("\n".join(["run_id,params,batch_tokens,schedule", *lines]) + "\n")


@pytest.mark.parametrize("column", [False, True])
def test_the_row_of_a_table_is_chosen_by_its_name(tmp_path, capsys, column):
    log = tmp_path / "log.csv"
    write_log(log)
    assert run([*ASK, "--log", str(log)]) == 0
    alone = capsys.readouterr().out
    write_table(tmp_path / "runs.csv")
    if column:
        head, *lines = log.read_text().splitlines()
        other = [f"c,{line.replace(',', ',9')}" for line in lines]
        log.write_text("\n".join([f"run_id,{head}", *other, *(f"b,{line}" for line in lines)]) + "\n")
    asked = ["monitor", "llama-slimpajama", "runs.csv", "--log", "log.csv", "--run-id", "b"]
    done = subprocess.run([sys.executable, "-m", "optlaws", *asked], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, alone), done.stderr


def test_a_table_of_several_runs_without_a_choice(tmp_path, capsys):
    log = write_log(tmp_path / "log.csv")
    write_table(tmp_path / "runs.csv")
    asked = ["monitor", "llama-slimpajama", str(tmp_path / "runs.csv"), "--log", log]
    assert run(asked) == 2
    assert capsys.readouterr().err == (
        "optlaws: RUN must be one run, got 3 (a, b, c); choose one of them with --run-id\n"
    )
    assert run([*asked, "--run-id", "d"]) == 2
    assert "--run-id must be a run of RUN (a, b, c), got 'd'" in capsys.readouterr().err
