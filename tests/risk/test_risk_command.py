"""The command about divergence: options that would say nothing are refused, and the map shows what is near."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from optlaws.cli import run
from optlaws.risk import changes

RISKY = "cosine:peak=3e-2,steps=20000,warmup=100"
ASK = ["risk", "steplaw-dense", RISKY, "--params", "200M", "--batch-tokens", "256K"]


def test_an_axis_without_a_map_is_refused(capsys):
    assert run([*ASK, "--over", "batch"]) == 2
    assert "--over is an axis of the map that --plot writes, got batch without --plot" in capsys.readouterr().err


def test_plain_sgd_has_no_map_and_no_driver(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    path.write_text(f'schedule,params,batch_tokens,optimizer\n"{RISKY}",200M,256K,sgd\n')
    assert run(["risk", "steplaw-dense", str(path), "--plot", str(tmp_path / "map.png")]) == 2
    said = capsys.readouterr().err
    assert "--plot must have a first candidate whose risk is known" in said
    assert not (tmp_path / "map.png").exists()
    assert run(["risk", "steplaw-dense", str(path), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["candidates"][0]
    assert found["driven_by"] == ""
    assert set(found["shares"].values()) == {None}


@pytest.mark.parametrize(("over", "lever"), [("warmup", "warmup_steps"), ("batch", "batch_tokens")])
def test_the_map_reaches_the_nearest_safe_change(tmp_path, capsys, monkeypatch, over, lever):
    """The run is twenty times too fast: a map of a factor of eight would be of one colour."""
    drawn = []

    def noted(*given, **named):
        drawn.append(changes.risk_map(*given, **{**named, "points": 25}))
        return drawn[-1]

    monkeypatch.setattr("optlaws.commands.risk.risk_map", noted)
    assert run([*ASK, "--plot", str(tmp_path / "map.png"), "--over", over]) == 0
    assert drawn[0].over == lever
    assert np.nanmin(drawn[0].probability) <= 0.05
    assert (tmp_path / "map.png").stat().st_size > 0


def test_a_rate_that_is_always_zero_has_no_map(tmp_path, capsys):
    path = tmp_path / "map.png"
    spec = "two_stage:peak=1e-3,steps=100,switch=0,second=0"
    assert run(["risk", "llama-slimpajama", spec, "--plot", str(path)]) == 2
    assert "whose rate is above 0 at some step, got 'two_stage" in capsys.readouterr().err
    assert not path.exists()


def test_the_domain_of_the_risk_model_is_not_called_that_of_the_law(tmp_path):
    ask = ["llama-slimpajama", "wsd:peak=4e-3,steps=50000,warmup=300", "--params", "85M", "--batch-tokens", "51200"]

    def process(*args):
        return subprocess.run(
            [sys.executable, "-m", "optlaws", *args], capture_output=True, text=True, check=True
        ).stdout

    out = process("risk", *ask)
    assert "  in risk domain\n" in out
    assert "In risk domain: whether the risk model has seen such runs; the law of losses has a domain of its own" in out
    (found,) = json.loads(process("risk", *ask, "--format", "json"))["candidates"]
    assert found["in_domain"] is True
    law = json.loads(process("rank", *ask[1:], "--law", ask[0], "--format", "json"))["candidates"][0]
    assert law["in_domain"] is False  # of this very run
