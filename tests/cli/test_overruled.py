"""Options that candidates overrule are named on standard error, by every command that gathers candidates."""

import csv
import json
from pathlib import Path

import pytest
from refusal import refused

from optlaws.cli import run

LAW = "llama-slimpajama"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my_runs.csv"
STATED = "a value that is stated counts, not the option's: "
SPEC = "cosine:peak=1e-3,steps=25000,warmup=300"


@pytest.fixture
def files(tmp_path):
    two = [{"name": "own", "schedule": SPEC, "params": "85M", "batch_tokens": "51200"}, SPEC]
    (tmp_path / "two.json").write_text(json.dumps(two))
    (tmp_path / "one.json").write_text(json.dumps(two[0]))
    (tmp_path / "log.csv").write_text("step,loss\n1000,5\n2000,4.5\n")


COMMANDS = {
    "rank": ["rank", "two.json", "--format", "csv"],
    "risk": ["risk", LAW, "two.json", "--format", "csv"],
    "features": ["features", "two.json", "--format", "csv"],
    "design": ["design", "two.json", "--runs", "1", "--format", "csv"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_so(run, files, command):
    args = COMMANDS[command]
    code, out, err = run(*args, "--params", "20M", "--batch-tokens", "51200")
    assert code == 0
    assert err.count("\n") == 1
    assert err == f"optlaws: note: {STATED}--params 20M for 1 of 2 candidates\n"
    code, plain, err = run(*args, "--params", "85M", "--batch-tokens", "51200")
    assert (code, err) == (0, "")
    assert STATED not in out + plain


def test_of_all_options(run, files):
    options = ["--params", "20M", "--tokens", "1B", "--weight-decay", "0", "--optimizer", "AdamW"]
    code, _, err = run("features", "two.json", *options)
    assert code == 0
    assert err == f"optlaws: note: {STATED}--params 20M for 1 of 2 candidates, --tokens 1B for 1 of 2 candidates\n"


def test_of_one_run(run, files):
    code, _, err = run("monitor", LAW, "one.json", "--log", "log.csv", "--params", "20M", "--optimizer", "adamw")
    assert code == 0
    assert f"optlaws: note: {STATED}--params 20M\n" in err


def test_of_runs_to_choose_from(run, tmp_path):
    pool = [{"schedule": f"cosine:peak={p},steps=2000", "params": "20M", "batch_tokens": "51200"} for p in (1e-3, 2e-3)]
    pool[0]["weight_decay"] = 0.2
    (tmp_path / "pool.json").write_text(json.dumps(pool))
    args = ["--params", "85M", "--batch-tokens", "51200", "--weight-decay", "0.1"]
    code, _, err = run("design", SPEC, "--pool", "pool.json", "--runs", "1", *args)
    assert code == 0
    assert err == f"optlaws: note: {STATED}--weight-decay 0.1 for 1 of 2 runs of --pool\n"


@pytest.mark.parametrize("command", ["rank", "risk", "features", "design", "monitor"])
def test_help_says_that_they_fill_what_is_open(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert " ".join(out.split()).count(f", where {'RUN' if command == 'monitor' else 'a candidate'} states none.") == 5
    assert "states none" not in run("optimize", "--help")[1]


def test_a_json_list_is_a_list_of_candidates(run):
    specs = [SPEC, "wsd:peak=1e-3,steps=25000,warmup=300"]
    want = run("rank", *specs, "--format", "csv")
    assert want[0] == 0
    assert run("rank", json.dumps(specs), "--format", "csv") == want
    refused(run("rank", json.dumps(specs)[:-1]), "command line, candidate 1: not valid JSON")


def test_rates_of_two_folders(run, tmp_path):
    for folder, peak in (("d1", "1e-3"), ("d2", "2e-3")):
        (tmp_path / folder).mkdir()
        assert run("schedule", f"cosine:peak={peak},steps=2k,warmup=10%", "-o", f"{folder}/s.csv")[0] == 0
    code, out, err = run("rank", "d1/s.csv", "d2/s.csv", "--format", "json")
    assert (code, err) == (0, "")
    found = json.loads(out)["candidates"]
    assert {one["name"] for one in found} == {"d1/s", "d2/s"}


@pytest.mark.parametrize(
    ("optimizer", "decay"), [("muon", 0.1), ("lion", 0.1), ("adamw", 0.1), ("sgd", 0.0), ("adam", 0.0)]
)
def test_the_weight_decay_that_is_assumed_is_said(optimizer, decay, capsys):
    """Muon and its like are trained with weight decay as AdamW is, and which one was taken stands in every output."""
    ask = ["rank", "wsd:peak=1e-3,steps=50000,warmup=300", "cosine:peak=1e-3,steps=50000,warmup=300", "--params", "85M"]
    assert run([*ask, "--optimizer", optimizer, "--format", "json"]) == 0
    unsaid = json.loads(capsys.readouterr().out)
    assert unsaid["assumed"]["weight_decay"] == decay
    assert run([*ask, "--optimizer", optimizer, "--weight-decay", str(decay), "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["predicted_loss"] for one in said["candidates"]] == [
        one["predicted_loss"] for one in unsaid["candidates"]
    ]
    assert run([*ask, "--optimizer", optimizer]) == 0
    assert f"weight decay {decay:g} (say otherwise with" in capsys.readouterr().out


@pytest.mark.parametrize(("optimizer", "decay"), [("lion", "0.1"), ("", "0.1"), ("adam", "0")])
def test_fit_says_the_weight_decay_that_it_assumes(optimizer, decay, tmp_path, capsys):
    with open(EXAMPLE, encoding="utf-8") as stream:
        rows = [{**row, "optimizer": optimizer, "weight_decay": ""} for row in csv.DictReader(stream)]
    with open(tmp_path / "runs.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert run(["fit", str(tmp_path / "runs.csv"), "--group", "family", "-o", str(tmp_path / "law.json")]) == 0
    assert f"Assumed where the table says nothing: weight decay {decay} (36 runs)" in capsys.readouterr().out
    assert run(["fit", str(EXAMPLE), "--group", "family", "-o", str(tmp_path / "law.json")]) == 0
    assert "Assumed" not in capsys.readouterr().out


@pytest.mark.parametrize("command", [["rank"], ["risk", "llama-slimpajama"]])
def test_a_batch_that_a_file_of_candidates_leaves_open_is_said_to_be_assumed(command, run):
    Path("candidates.yaml").write_text('params: 85M\ntokens: 2.56B\ncandidates: ["cosine:peak=1e-3,warmup=300"]\n')
    code, out, _ = run(*command, "candidates.yaml")
    assert code == 0
    assert "51.2K" in out[out.index("assumed: ") :].splitlines()[0]
    found = json.loads(run(*command, "candidates.yaml", "--format", "json")[1])
    assert found["assumed"] == {"batch_tokens": 51200.0, "weight_decay": 0.1}
