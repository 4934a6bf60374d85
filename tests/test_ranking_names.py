"""What candidates are called in a ranking, and a ranking as text."""

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from fake_law import FixedLaw

from optlaws import load_law, parse, rank
from optlaws.report import rank_table
from optlaws.runs import RunTable, read_candidates
from optlaws.schedules import ScheduleBatch

SPECS = ["cosine:peak=1e-3,steps=1000", "wsd:peak=1e-3,steps=1000,decay=0.2", "cosine:peak=1e-3,steps=1000"]
SHORT = tuple(str(parse(spec)) for spec in SPECS[:2])


def law(n):
    return FixedLaw(np.linspace(3.1, 3.0, n), 0.01 * np.eye(n))


def test_numbered_runs_are_called_by_their_schedules():
    runs = RunTable.build(SPECS)
    names = (*SHORT, f"{SHORT[0]} #2")
    assert rank(runs, law(3)).names == names == read_candidates(SPECS).run_id
    assert rank(runs.select([1, 2]), law(2)).names == (SHORT[1], SHORT[0])
    assert rank(pickle.loads(pickle.dumps(runs)), law(3)).names == names


def test_given_names_are_kept():
    given = RunTable.build(SPECS, run_id=[1, 2, 3])
    assert rank(given, law(3)).names == ("1", "2", "3")
    assert rank(replace(RunTable.build(SPECS), run_id=("a", "b", "c")), law(3)).names == ("a", "b", "c")
    assert rank(RunTable.build(SPECS), law(3), names=["x", "y", "z"]).names == ("x", "y", "z")


def test_schedules_of_a_batch_are_called_by_their_numbers():
    runs = RunTable.build(ScheduleBatch.grid("cosine", peak=np.linspace(1e-4, 1e-3, 4), steps=1000)).select([3, 1])
    found = rank(runs, law(2))
    assert found.names == ("schedule 4", "schedule 2")
    header, first = str(found).split("\n")[2:5:2]
    assert "name" not in header
    assert first.split()[:3] == ["1", "schedule", "2"]


@pytest.mark.parametrize("max_risk", [None, 0.05])
def test_a_ranking_prints_its_table(max_risk):
    specs = ["cosine:peak=1e-3,steps=50000,warmup=300", "wsd:peak=9e-3,steps=50000,warmup=300"]
    built = load_law("llama-slimpajama")
    found = rank(RunTable.build(specs, params=85e6, batch_tokens=51200, weight_decay=0.1), built, max_risk=max_risk)
    assert f"{found}\n" == rank_table(found)
    options = ["--params", "85M", "--batch-tokens", "51200", "--weight-decay", "0.1", "--law", "llama-slimpajama"]
    options += [] if max_risk is None else ["--max-risk", str(max_risk)]
    command = [sys.executable, "-m", "optlaws", "rank", *specs, *options]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    wanted = [line for line in printed.split("\n") if not line.startswith("Note:")]
    assert [line for line in str(found).split("\n") if line] == [line for line in wanted if line]
