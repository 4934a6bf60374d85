"""The command that watches a run: what it cannot do it refuses, and a log out of order is said to be so."""

from __future__ import annotations

import pytest

from optlaws.cli import run

ASK = ["monitor", "llama-slimpajama", "wsd:peak=1e-3,steps=20000,warmup=300", "--params", "85M"]
ASK += ["--batch-tokens", "51200", "--weight-decay", "0.1"]


def log_of(folder, rows):
    path = folder / "log.csv"
    path.write_text("step,loss\n" + "".join(f"{step},{loss}\n" for step, loss in rows))
    return str(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--every", "nan", "--follow"], "--every must be a finite number of seconds, at least 0.05, got nan"),
        (["--every", "2"], "--every counts while following only, got 2 without --follow"),
        (["--every", "inf", "--follow"], "--every must be a finite number of seconds"),
        (["--follow", "-o", "out.txt"], "--follow writes its lines to standard output, got --output 'out.txt'"),
    ],
)
def test_refusals(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    log = log_of(tmp_path, [(100, 9.0)])
    assert run([*ASK, "--log", log, *options]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert not (tmp_path / "out.txt").exists()


def test_steps_that_go_back_are_said(tmp_path, capsys):
    assert run([*ASK, "--log", log_of(tmp_path, [(100, 9.0), (200, 8.0), (300, 7.9)])]) == 0
    assert capsys.readouterr().err == ""
    rows = [(300, 7.9), (100, 9.0), (200, 8.0), (150, 8.5)]
    assert run([*ASK, "--log", log_of(tmp_path, rows)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("step 150 of 20000")
    assert "note: the step goes back 2 times, first from 300 to 100: taken as resumed from a checkpoint" in said.err


def test_following_says_that_steps_went_back(tmp_path, capsys):
    rows = [(step, 4.0) for step in (*range(100, 15001, 100), 5000)]
    rows += [(step, 4.0) for step in range(5100, 20001, 100)]
    assert run([*ASK, "--log", log_of(tmp_path, rows), "--follow", "--every", "0.05"]) in (0, 3)
    assert "from 15000 to 5000" in capsys.readouterr().err
