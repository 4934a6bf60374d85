"""The page on planned and trained schedules says what its figures are."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import planned_runs

ROWS = [
    {"family": "wsd", "schedule": {}, "loss": 2.0, "lower": 1.9, "upper": 2.1},
    {"family": "cosine", "schedule": {}, "loss": 2.2, "lower": 2.1, "upper": 2.3},
]
PLAN = {"params": 1000, "steps": 100, "optimum": "wsd", "rows": ROWS}
PLAN["gains"] = [{"family": "cosine", "gain": 0.2, "lower": 0.1, "upper": 0.3, "p_real": 0.99}]


def losses(wsd, cosine):
    shape = np.linspace(-0.01, 0.01, planned_runs.SEEDS)
    return {"wsd": wsd + shape, "cosine": cosine + shape}


def test_figures_are_those_of_the_runs():
    text, figures = planned_runs.report(PLAN, losses(2.0, 2.42))
    assert figures["error_pct"] == pytest.approx(100 * 0.5 * (0.22 / 2.42))
    assert figures["bias_pct"] == pytest.approx(-100 * 0.5 * (0.22 / 2.42))
    assert (figures["best"], figures["regret_pct"], figures["cover_pct"]) == ("wsd", 0.0, 50.0)
    assert "it has the lowest mean, too" in text
    assert "| cosine | +0.2000 (+0.1000 to +0.3000) | +0.4200 |" in text


def test_a_wrong_choice_is_said():
    text, figures = planned_runs.report(PLAN, losses(2.2, 2.0))
    assert figures["regret_pct"] == pytest.approx(10.0)
    assert "the lowest mean is that of **cosine**, 10.00 % below" in text


def test_the_setting_is_the_sweeps_own():
    base = planned_runs.settings()
    assert base["model"] == planned_runs.MODEL
    assert base["data"]["kind"] == "synthetic"
    assert planned_runs.law_of_the_sweep().info["units"]


def test_a_family_that_the_runs_do_not_tell_apart_is_named():
    text, _ = planned_runs.report(PLAN, losses(2.0, 2.2))
    assert "do not tell it from" not in text
    near = losses(2.0, 2.002)
    near["cosine"] = near["cosine"][::-1]
    assert "These runs do not tell it from cosine." in planned_runs.report(PLAN, near)[0]
