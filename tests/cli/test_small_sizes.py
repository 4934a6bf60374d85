"""Sizes whose suffix was forgotten and warm-ups as long as the run are warned of; a schedule needs a length."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from refusal import refused

from optlaws.commands.candidates import LEAST_TOKENS, warn_of_small
from optlaws.errors import OptlawsWarning
from optlaws.runs import RunTable

ROOT = Path(__file__).resolve().parents[2]
SPEC = "cosine:peak=1e-3,warmup=300,steps=20000"
WORDS = "optlaws: warning: params 85, tokens 20, batch_tokens 0.001 are far smaller than any training run's;"


@pytest.mark.parametrize("command", [["rank"], ["features"], ["risk", "llama-slimpajama"]])
def test_numbers_without_their_suffix(command, run):
    code, out, err = run(*command, SPEC, "--params", "85", "--tokens", "20")
    assert code == 0
    assert out
    assert err.count("\n") == 1
    assert err.startswith(WORDS)
    assert "85M means 85 million" in err
    assert run(*command, SPEC, "--params", "85M", "--tokens", "2.56B")[2] == ""


@pytest.mark.parametrize("command", [["rank"], ["features"], ["risk", "llama-slimpajama"]])
def test_warm_ups_as_long_as_the_run(command, run):
    long, whole, usual = (f"cosine:peak=1e-3,steps=20000,warmup={steps}" for steps in (40000, 20000, 19999))
    sizes = ["--params", "85M", "--batch-tokens", "51200"]
    code, out, err = run(*command, usual, long, whole, *sizes)
    assert (code, bool(out)) == (0, True)
    assert err == (
        "optlaws: warning: the warm-up of 'cosine:peak=0.001,steps=20000,warmup=40000' and of 1 more takes the whole"
        " run, whose rate rises to the end, to 0.0005; shorten warmup or raise steps if that is not meant\n"
    )
    assert run(*command, usual, *sizes)[2] == ""


@pytest.mark.parametrize("command", ["recommend", "design"])
def test_commands_that_plan_warn_as_well(command, run):
    specs = [SPEC] if command == "design" else []
    more = ["--batch-tokens", "51200", "--runs", "2"] if command == "design" else []
    _, _, err = run(command, *specs, "--params", "85", "--tokens", "1.024B", *more)
    assert "warning: params 85 is far smaller than any training run's" in err
    assert "85M means 85 million" in err


def test_in_a_process_of_its_own(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "optlaws", "rank", SPEC, "--params", "85M", "--tokens", "20"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.startswith("optlaws: warning: tokens 20, batch_tokens 0.001 are far smaller")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"params": 999.0, "batch_tokens": 1e3}, "^params 999 is far smaller"),
        ({"params": 1000.0, "batch_tokens": 255.0}, "^batch_tokens 255 is far smaller"),
        ({"params": 1000.0, "batch_tokens": 1.0}, "^tokens 2e.04, batch_tokens 1 are far smaller"),
        ({"params": [85.0, 86.0, 85e6], "batch_tokens": 1e3}, "^params 86 is far smaller"),
    ],
)
def test_what_counts_as_small(given, words):
    runs = RunTable.build([SPEC] * np.size(given["params"]), **given)
    with pytest.warns(OptlawsWarning, match=words):
        warn_of_small(runs.size, runs.tokens, runs.batch_tokens)


def test_small_networks_and_what_is_not_said_pass(recwarn):
    warn_of_small(1000.0, LEAST_TOKENS, 256.0)
    warn_of_small(np.nan, [np.nan, 2e9], np.nan)
    warn_of_small([85.0, 85e6, 85e6], 2e9, 1e5)
    assert not recwarn.list


def test_a_plan_for_such_sizes_is_warned_of(run):
    code, out, err = run("optimize", "--params", "85", "--tokens", "20", "--steps", "20000")
    assert (code, out) == (3, "")  # nothing is safe there
    assert err.startswith("optlaws: warning: params 85, tokens 20 are far smaller than any training run's;")


def test_a_schedule_without_a_length_is_told_to_state_it(run):
    done = run("schedule", "cosine:peak=1e-3,warmup=300")
    refused(done, "steps of cosine must be given, got nothing; add steps=VALUE")
    assert "tokens" not in done[2]
    refused(run("features", "cosine:peak=1e-3,warmup=300"), "add steps=VALUE", "or give the number of tokens")
