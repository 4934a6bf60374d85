"""A signal that arrives while a run of several is evaluated for the last time: that run ends, and no other begins."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from tiny_runs import tiny

from optlaws.harness import train_stacked
from optlaws.harness.engine import Engine
from optlaws.harness.loop import interruptible
from optlaws.runs import read_runs

ROOT = Path(__file__).resolve().parents[2]

# The command line, in which the first final evaluation sends its own process the signal.
STRUCK = """
import os, sys
from optlaws import cli
from optlaws.harness.engine import Engine
own, left = Engine.losses, [int(sys.argv.pop())]
def losses(engine, source, step):
    if step is None and left:
        os.kill(os.getpid(), left.pop())
    return own(engine, source, step)
Engine.losses = losses
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stacked", ["1", "2"])
def test_a_sweep_stops_after_a_run_that_a_signal_struck_at_its_end(number, stacked, tmp_path):
    base = {"data": {"vocab": 32, "branching": 4}, "seq_len": 8, "batch": 4, "device": "cpu", "threads": 1}
    grid = {
        "base": {**base, "eval": {"sequences": 8}},
        "sizes": {"t": {"depth": 1, "width": 16, "heads": 2}},
        "schedules": ["wsd"],
        "blocks": {"main": {"peaks": [1e-3], "horizons": [10], "seeds": list(range(6))}},
    }
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    (tmp_path / "struck.py").write_text(STRUCK)
    command = ["sweep", "grid.json", "--out", "out", "--stacked", stacked]
    done = subprocess.run(
        [sys.executable, "struck.py", *command, str(int(number))],
        capture_output=True, text=True, check=False, timeout=240, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert f"{stacked} of 6 runs of the grid are finished" in done.stdout
    assert read_runs(tmp_path / "out" / "runs.csv").status == ("completed",) * int(stacked)
    again = subprocess.run(
        [sys.executable, "-m", "optlaws", *command], capture_output=True, text=True, check=False, timeout=240,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert again.returncode == 0, again.stderr


def test_stacks_one_after_the_other_stop_so(monkeypatch):
    own, left = Engine.losses, [signal.SIGTERM]

    def losses(engine, source, step):
        if step is None and left:
            os.kill(os.getpid(), left.pop())
        return own(engine, source, step)

    monkeypatch.setattr(Engine, "losses", losses)
    configs = [tiny(name=f"r{seed}", seed=seed) for seed in range(5)]
    records = train_stacked(configs, at_once=2)
    assert [(record.run_id, record.status) for record in records] == [("r0", "completed"), ("r1", "completed")]


def test_what_is_nested_tells_the_outer_and_knows_what_it_was_told():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with interruptible() as outer:
        with interruptible() as inner:
            assert not inner()
            assert not outer()
            os.kill(os.getpid(), signal.SIGINT)
            assert inner()
            assert outer()
        with pytest.raises(KeyboardInterrupt):  # the second one interrupts at once, in the outer, too
            os.kill(os.getpid(), signal.SIGINT)
        with interruptible() as late:
            assert late()
    with interruptible() as fresh:
        assert not fresh()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
