"""Bad input of every kind through the real commands: exit code 2, one sentence, no traceback, nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import pytest
from refusal import refused

GOOD = "cosine:peak=1e-3,steps=25000,warmup=300"
LAW = "llama-slimpajama"
HEADER = "run_id,schedule,params,batch_tokens,final_loss,status"
SPEC = '"{""kind"": ""cosine"", ""peak_lr"": 0.001, ""total_steps"": 25000, ""warmup_steps"": 300}"'


TABLES = {
    "empty": ("", "nothing in it"),
    "blank": ("\n\n", "nothing in it"),
    "header": (f"{HEADER}\n", "only a header and no row"),
    "no schedule": ("run_id,params\na,1\n", "missing column"),
    "twice": (f"{HEADER}\n" + f"a,{SPEC},1e8,51200,3,\n" * 2, "line 3: run_id 'a' was used before"),
    "text": (f"{HEADER}\na,{SPEC},abc,51200,3,\n", "line 2: params must be a number, got 'abc'"),
    "negative": (f"{HEADER}\na,{SPEC},-5,51200,3,\n", "line 2: params must be a finite number above 0"),
    "huge": (f"{HEADER}\na,{SPEC},1e999,51200,3,\n", "line 2: params must be a finite number above 0"),
    "nan": (f"{HEADER}\na,{SPEC},1e8,51200,nan,\n", "line 2: final_loss must be a number, got nan"),
    "infinite": (f"{HEADER}\na,{SPEC},1e8,51200,inf,\n", "line 2: final_loss"),
    "negative loss": (f"{HEADER}\na,{SPEC},1e8,51200,-3,\n", "line 2: final_loss"),
    "status": (f"{HEADER}\na,{SPEC},1e8,51200,3,weird\n", "line 2: status must be one of"),
    "json": (f'{HEADER}\na,"{{""kind"": ""cosine"",",1e8,51200,3,\n', "line 2: schedule: not valid JSON"),
    "kind": (f'{HEADER}\na,"{{""kind"": ""cosin""}}",1e8,51200,3,\n', "did you mean 'cosine'"),
    "rate": (f'{HEADER}\na,"cosine:peak=-1e-3,steps=9",1e8,51200,3,\n', "peak must be a finite rate above 0"),
    "no steps": (f'{HEADER}\na,"cosine:peak=1e-3,steps=0",1e8,51200,3,\n', "steps must be a whole number"),
    "short row": (f"{HEADER}\na,{SPEC}\n", "line 2: 2 cells where the header has 6"),
    "quote": (f'{HEADER}\na,"{{\n', "not a CSV table"),
    "semicolons": ("run_id;schedule\na;x\n", "parted by ';'"),
    "decimal commas": (
        "run_id;params;lr;loss\na;1,5;0,001;3,2\n",
        "line 2: columns are separated by ';' and decimals by ','; save it with commas and points",
    ),
    "contradiction": (f"run_id,schedule,steps\na,{SPEC},7\n", "steps is 7 but the schedule has 25000 steps"),
}


@pytest.mark.parametrize("case", TABLES)
def test_bad_tables(run, tmp_path, case):
    text, message = TABLES[case]
    (tmp_path / "runs.csv").write_text(text)
    refused(run("predict", LAW, "runs.csv", "-o", "out.csv"), "runs.csv", message)
    refused(run("fit", "runs.csv", "-o", "law.json"), "runs.csv")
    assert sorted(os.listdir(tmp_path)) == ["runs.csv"]


@pytest.mark.parametrize("name", ["runs.csv", "c.yaml", "c.txt"])
def test_other_encodings_are_named(run, tmp_path, name):
    (tmp_path / name).write_bytes(f"é {GOOD}".encode("latin-1"))
    refused(run("rank", name), name, "not UTF-8 text")


def test_too_few_runs_to_fit(run, tmp_path):
    (tmp_path / "one.csv").write_text(f"{HEADER}\na,{SPEC},1e8,51200,3.1,completed\n")
    refused(run("fit", "one.csv", "-o", "law.json"), "got 1")
    (tmp_path / "out.csv").write_text(f"{HEADER}\na,{SPEC},1e8,51200,,diverged\nb,{SPEC},1e8,51200,nan,nonfinite\n")
    refused(run("fit", "out.csv", "-o", "law.json"), "got none of 2")
    assert not (tmp_path / "law.json").exists()


def test_odd_but_good_csv_keeps_its_columns(run, tmp_path):
    text = f'\ufeff{HEADER},note,Größe\r\na,{SPEC},,,,,"x, ""y""",é\r\n\r\n\r\nb,{SPEC},1e8,,,,,z\r\n\r\n'
    (tmp_path / "runs.csv").write_text(text, encoding="utf-8", newline="")
    code, _, err = run("predict", LAW, "runs.csv", "-o", "out.csv")
    assert code == 0
    assert err.startswith("optlaws: note: assumed where the table says nothing: params ")
    lines = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"{HEADER},note,Größe,predicted_loss,lower,upper,divergence_risk,in_domain"
    assert '"x, ""y""",é,' in lines[1]
    assert run("predict", LAW, "out.csv", "-o", "again.csv")[0] == 0
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()


def test_schedules_one_a_line(run, tmp_path, monkeypatch):
    lines = [GOOD, "wsd:peak=1e-3,steps=25000,warmup=300,decay=0.2"]
    (tmp_path / "c.txt").write_text("# two of them\n\n" + "\n".join(lines) + "\n")
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    want = run("rank", *lines, "--format", "csv")
    assert want[0] == 0
    for name in ("c.txt", "c.jsonl"):
        assert run("rank", name, "--format", "csv") == want
        with open(tmp_path / name) as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            assert run("rank", "-", "--format", "csv") == want


def law_file(**changes):
    document = json.loads(files("optlaws.laws").joinpath(f"{LAW}.json").read_text())
    return json.dumps({**document, **changes})


LAWS = {
    "empty": (lambda: b"", "truncated"),
    "truncated": (lambda: law_file().encode()[:30000], "truncated"),
    "binary": (lambda: b"\xb0\x00\xff" * 99, "cannot be read"),
    "version": (lambda: law_file(version=7).encode(), "must be of version 1, got 7"),
    "list": (lambda: b"[1, 2]", "must be a JSON object"),
    "other": (lambda: b"{}", "must be a JSON object"),
    "nested": (lambda: b"[" * 100_000, "damaged"),
    "nan": (lambda: law_file(peak_scale=float("nan")).encode(), "numbers must be finite, got NaN"),
    "text": (lambda: law_file(peak_scale="x").encode(), "damaged"),
    "domain": (lambda: law_file(domain=5).encode(), "damaged"),
    "basis": (lambda: law_file(basis="other").encode(), "basis must be one of"),
}


@pytest.mark.parametrize("case", LAWS)
def test_bad_laws(run, tmp_path, case):
    content, message = LAWS[case]
    (tmp_path / "law.json").write_bytes(content())
    refused(run("rank", GOOD, "--law", "law.json"), "law.json", message)
    refused(run("laws", "law.json"), "law.json", message)


def test_a_law_may_start_with_a_byte_order_mark(run, tmp_path):
    (tmp_path / "law.json").write_text("\ufeff" + law_file(), encoding="utf-8")
    assert run("rank", GOOD, "--law", "law.json")[0] == 0


def test_a_folder_is_no_law(run, tmp_path):
    (tmp_path / "law").mkdir()
    refused(run("rank", GOOD, "--law", "law"), "'law' cannot be read", "directory")


@pytest.mark.parametrize("option", ["-o", "--plot", "--html"])
def test_outputs_are_checked_before_the_work(run, tmp_path, option, monkeypatch):
    monkeypatch.setattr("optlaws.law.load_law", lambda name: pytest.fail("work was done first"))
    refused(run("rank", GOOD, option, "no/such/x.png"), "does not exist; make it first")
    (tmp_path / "x.png").mkdir()
    refused(run("rank", GOOD, option, "x.png"), "this is a folder")


def test_read_only_files_stay(run, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    out.write_text("keep")
    out.chmod(0o444)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for anybody but root
    refused(run("rank", GOOD, "-o", "out.csv"), "read-only")
    refused(run("rank", GOOD, "-o", "new.csv"), "cannot be written")
    assert out.read_text() == "keep"


def test_far_outside_the_domain_stays_readable(run):
    code, out, err = run("rank", GOOD, "cosine:peak=0.1,steps=25000", "--params", "1B")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines()[2:6])) < 170
    assert "no [2]" in out
    assert "peak_lr" in out


def test_a_name_that_the_terminal_cannot_show(tmp_path):
    (tmp_path / "c.yaml").write_text(f"- {{name: é, schedule: '{GOOD}'}}\n", encoding="utf-8")
    done = process(["rank", str(tmp_path / "c.yaml")], PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert b"\\xe9" in done.stdout


def process(args, stdout=subprocess.PIPE, **environ):
    command = [sys.executable, "-m", "optlaws", *args]
    env = {**os.environ, **environ}
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=env, timeout=240, check=False)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_line_and_code_1():
    with open("/dev/full", "wb") as full:
        done = process(["schedule", GOOD], stdout=full)
    assert done.returncode == 1
    assert done.stderr.decode().strip() == "optlaws: cannot read or write (No space left on device)"


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
@pytest.mark.parametrize(("closed", "args"), [(">&-", ["rank", GOOD]), ("<&-", ["rank", "-"])])
def test_closed_streams(closed, args):
    command = ["/bin/sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-m", "optlaws", *args]
    done = subprocess.run(command, capture_output=True, timeout=240, check=False)
    assert done.returncode == 2
    assert b"closed" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_a_killed_command_leaves_the_old_file(tmp_path):
    out = tmp_path / "rates.csv"
    out.write_text("good")
    command = [sys.executable, "-m", "optlaws", "schedule", "cosine:peak=1e-3,steps=1000000000", "-o", str(out)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while not any(part.stat().st_size for part in tmp_path.glob(".rates.csv.*")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    assert out.read_text() == "good"


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("times", [1, 2])
def test_a_terminated_command_leaves_nothing_behind(tmp_path, times):
    """Twice is what `timeout` sends: to the process, and to its group."""
    out = tmp_path / "rates.csv"
    out.write_text("good")
    # A machine may be so busy that the second signal is sent late.
    code = "from optlaws import cli; from optlaws.commands import stopping; stopping.SAME = 240.0; cli.main()"
    command = [sys.executable, "-c", code, "schedule", "cosine:peak=1e-3,steps=1000000000", "-o", str(out)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 240
        while not any(part.stat().st_size for part in tmp_path.glob(".rates.csv.*")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for _ in range(times):
            child.send_signal(signal.SIGTERM)
        stdout, stderr = child.communicate(timeout=240)
    finally:
        child.kill()
        child.wait()
    assert (child.returncode, stdout, stderr) == (143, "", "optlaws: terminated\n")
    assert os.listdir(tmp_path) == ["rates.csv"]
    assert out.read_text() == "good"


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_who_handles_sigterm_already_goes_on_doing_so(run):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        assert run("schedule", "cosine:peak=1e-3,steps=3")[0] == 0
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
    assert run("schedule", "cosine:peak=1e-3,steps=3")[0] == 0
    assert signal.getsignal(signal.SIGTERM) == before  # as it was before the command


@pytest.mark.parametrize("command", [["rank", GOOD], ["optimize", "--params", "85M", "--tokens", "2.56B"]])
def test_the_name_of_a_rival_law_is_no_law_but_says_how_to_make_one(run, command):
    way_out = "got 'chinchilla', a rival law; `optlaws fit RUNS --law chinchilla -o FILE` makes a file of it"
    refused(run(*command, "--law", "chinchilla"), way_out)


def test_what_is_read_is_not_replaced(tmp_path):
    """`predict` and `fit` refuse an output that is one of their inputs."""
    table = tmp_path / "runs.csv"
    shutil.copy(Path(__file__).resolve().parents[2] / "examples" / "my_runs.csv", table)
    before = table.read_text()
    fit = ["fit", str(table), "-o", str(table)]
    for args in (["predict", LAW, str(table), "-o", str(table)], fit, [*fit, "--law", "chinchilla"]):
        done = subprocess.run(
            [sys.executable, "-m", "optlaws", *args], capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 2
        assert "the output must not be a file that is read" in done.stderr
    assert table.read_text() == before


def test_neither_candidates_nor_laws_are_replaced(run, tmp_path):
    (tmp_path / "c.txt").write_text(f"{GOOD}\n")
    (tmp_path / "law.json").write_text(law_file())
    law, runs = ["--law", "law.json"], ["--params", "85M", "--tokens", "2.56B"]
    for option in ("-o", "--html"):
        refused(run("rank", "c.txt", option, "c.txt"), "the output must not be a file that is read, got 'c.txt'")
        refused(run("rank", GOOD, *law, option, "./law.json"), "must not be a file that is read")
    refused(run("recommend", *runs, *law, "-o", "law.json"), "must not be a file that is read")
    refused(run("optimize", *runs, *law, "-o", "law.json"), "must not be a file that is read")
    assert (tmp_path / "law.json").read_text() == law_file()
    assert (tmp_path / "c.txt").read_text() == f"{GOOD}\n"


@pytest.mark.parametrize(
    ("target", "args"),
    [
        ("c.txt", ["schedule", "c.txt"]),
        ("c.txt", ["features", GOOD, "c.txt"]),
        ("c.txt", ["risk", LAW, "c.txt"]),
        ("law.json", ["risk", "law.json", GOOD]),
        ("law.json", ["laws", "law.json"]),
        ("c.txt", ["monitor", LAW, "c.txt", "--log", "log.csv"]),
        ("law.json", ["monitor", "law.json", GOOD, "--log", "log.csv"]),
    ],
)
def test_no_command_replaces_what_it_reads(run, tmp_path, target, args):
    (tmp_path / "c.txt").write_text(f"{GOOD}\n")
    (tmp_path / "law.json").write_text(law_file())
    (tmp_path / "log.csv").write_text("step,loss\n100,5\n")
    before = (tmp_path / target).read_bytes()
    refused(run(*args, "-o", f"./{target}"), "the output must not be a file that is read", target)
    assert (tmp_path / target).read_bytes() == before


def test_spreadsheets_are_named(run, tmp_path):
    (tmp_path / "runs.xlsx").write_bytes(b"PK\x03\x04 and more")
    (tmp_path / "runs.csv").write_bytes(b"PK\x03\x04 and more")
    for name in ("runs.xlsx", "runs.csv"):
        refused(run("fit", name, "-o", "law.json"), name, "save the sheet as CSV")
