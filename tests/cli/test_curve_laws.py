"""Laws of curves alone on the command line: their runs count as completed, the first step of a curve is left open."""

import csv
import io
import json

import numpy as np
import pytest

from optlaws.runs import RunTable, read_runs, write_runs
from optlaws.schedules import parse

SPECS = [
    f"{kind}:peak={peak},steps=4000,warmup=100{more}"
    for peak in (4e-4, 1e-3, 2e-3)
    for kind, more in (("cosine", ""), ("wsd", ",decay=0.2"), ("constant", ""))
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Curves of a made-up power law with an annealing bonus, of runs without a loss and without a status."""
    folder = tmp_path_factory.mktemp("curves")
    runs = RunTable.build([parse(spec) for spec in SPECS], params=8e7, batch_tokens=131072)
    steps = np.arange(0, 4001, 50)
    rows = []
    for name, schedule in zip(runs.run_id, runs.schedule_tuple(), strict=True):
        rate = np.append(schedule.array(), schedule.array()[-1])[steps]
        loss = 2.6 + 4.0 * (np.maximum(steps, 1) * 1e-3) ** -0.4 + 0.1 * rate / 2e-3
        rows += [(name, step, value) for step, value in zip(steps.tolist(), loss.tolist(), strict=True)]
    write_runs(folder / "runs.csv", runs)
    lines = ["run_id,step,loss", *(f'"{name}",{step},{loss!r}' for name, step, loss in rows)]
    (folder / "curves.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_runs_without_a_status_count_as_completed_for_the_risk_too(tables, run):
    assert all(status is None for status in read_runs(tables / "runs.csv").status)
    law = tables / "law.json"
    code, out, err = run("fit", tables / "runs.csv", "--curves", tables / "curves.csv", "-o", law)
    assert code == 0, err
    assert f"basis sde16, {len(SPECS)} curves, no final losses" in out
    assert f"moved by {len(SPECS)} of these runs ({len(SPECS)} completed, 0 diverged)" in out
    code, out, err = run("risk", law, "cosine:peak=1e-3,steps=4000,warmup=100", "--format", "json")
    assert code == 0, err
    assert 0 <= json.loads(out)["candidates"][0]["divergence_risk"] < 0.2


def test_the_first_step_is_left_open(tables, run):
    law = tables / "first.json"
    assert run("fit", tables / "runs.csv", "--curves", tables / "curves.csv", "-o", law)[0] == 0
    code, out, err = run("predict", law, tables / "runs.csv", "--curves", tables / "curves.csv", "-o", "-")
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 81 * len(SPECS)
    first = [row for row in rows if float(row["step"]) == 0]
    assert len(first) == len(SPECS)
    assert {(row["predicted_loss"], row["in_domain"]) for row in first} == {("", "false")}
    assert all(row["predicted_loss"] for row in rows if float(row["step"]) > 0)
