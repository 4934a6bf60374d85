"""`-` as a law: a fitted law goes from one command to the next without a file."""

import io
import json

import pytest

from optlaws.cli import run
from optlaws.law import builtin_names, load_any_law, load_law

NAME = "llama-slimpajama"
SPEC = "cosine:peak=1e-3,steps=50000,warmup=300"


@pytest.fixture
def law_text(tmp_path):
    load_law(NAME).save(tmp_path / "law.json")
    return (tmp_path / "law.json").read_text()


def test_every_command_that_reads_a_law_takes_it(law_text, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs.csv").write_text(f'run_id,schedule,params,batch_tokens\na,"{SPEC}",85e6,51200\n')
    for command in (
        ["rank", SPEC, "--law", "LAW", "--format", "json"],
        ["risk", "LAW", SPEC, "--params", "85M", "--batch-tokens", "51200", "--format", "json"],
        ["predict", "LAW", str(tmp_path / "runs.csv"), "-o", "-"],
    ):
        said = []
        for law in (NAME, "-"):
            monkeypatch.setattr("sys.stdin", io.StringIO(law_text))
            assert run([law if word == "LAW" else word for word in command]) == 0
            said.append(capsys.readouterr().out)
        assert said[0].replace(" ", "") == said[1].replace(" ", "")


def test_what_is_no_law_is_refused(law_text, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(law_text[:100]))
    assert run(["rank", SPEC, "--law", "-"]) == 2
    assert "law file '-' is not complete JSON" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))
    assert run(["rank", SPEC, "--law", "-"]) == 2
    assert "law file '-' cannot be read (not UTF-8 text)" in capsys.readouterr().err
    for command in (["rank", "-", "--law", "-"], ["risk", "-", "-"], ["predict", "-", "-", "-o", "x.csv"]):
        assert run(command) == 2
        assert "standard input ('-') can be read only once" in capsys.readouterr().err


def test_in_python(law_text, monkeypatch):
    for read in (load_law, load_any_law):
        monkeypatch.setattr("sys.stdin", io.StringIO(law_text))
        assert read("-") == load_law(NAME)
    assert json.loads(law_text)["name"] == NAME
    assert "-" not in builtin_names()
