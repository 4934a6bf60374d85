"""Grids, jobs, tables and locks of a sweep; what a kill -9 leaves behind."""

import importlib.util
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from optlaws.errors import InputError
from optlaws.runs import CurveTable, RunTable, read_curves, read_runs
from optlaws.schedules import parse

pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from optlaws.harness import training
from optlaws.harness.grid import read_grid
from optlaws.harness.lock import LOCK_FILE, alive, held
from optlaws.harness.record import RunRecord, read_record
from optlaws.harness.sweep import plan_jobs, relabel, run_job, sweep
from optlaws.harness.training import train, train_stacked

ROOT = Path(__file__).resolve().parents[2]
GRID = {
    "base": {
        "data": {"vocab": 32, "branching": 4},
        "seq_len": 8,
        "batch": 4,
        "device": "cpu",
        "threads": 1,
        "eval": {"sequences": 8},
    },
    "sizes": {"t": {"depth": 1, "width": 16, "heads": 2}},
    "schedules": {"cosine": "cosine:final=0.1*peak", "wsd": "wsd:decay=0.25"},
    "warmups": [0.1],
    "blocks": {
        "main": {"peaks": [1e-3, "3e-3"], "horizons": [10, 20]},
        "seeds": {"schedules": ["wsd"], "peaks": [3e-3], "horizons": [20], "seeds": [0, 1, 2]},
    },
}


def grid(**changes):
    return {**GRID, **changes}


def test_a_block_is_a_product_and_shared_runs_occur_once():
    planned = read_grid(GRID)
    assert [one.block for one in planned] == ["main"] * 8 + ["seeds"] * 2
    assert len({one.config.run_id for one in planned}) == 10
    shapes = {(p.config.schedule.kind, p.config.schedule.peak, p.config.steps, p.config.seed) for p in planned}
    assert shapes == {(k, p, t, 0) for k in ("cosine", "wsd") for p in (1e-3, 3e-3) for t in (10, 20)} | {
        ("wsd", 3e-3, 20, 1),
        ("wsd", 3e-3, 20, 2),
    }
    assert {p.config.schedule.warmup_steps for p in planned} == {1, 2}
    cosine = next(p.config.schedule for p in planned if p.config.schedule.kind == "cosine")
    assert cosine.to_dict()["final_lr"] == pytest.approx(0.1 * cosine.peak)


def test_names_stay_when_the_grid_grows():
    more = grid(blocks={**GRID["blocks"], "main": {"peaks": [1e-3, 2e-3, 3e-3], "horizons": [10, 20]}})
    before, after = ({one.config.run_id for one in read_grid(g)} for g in (GRID, more))
    assert before < after


def test_horizons_in_tokens_and_settings_of_a_block():
    planned = read_grid(
        grid(blocks={"b": {"peaks": [1e-3], "tokens": [320], "set": {"optimizer": {"weight_decay": 0.2}}}})
    )
    assert {one.config.steps for one in planned} == {10}
    assert {one.config.optimizer.weight_decay for one in planned} == {0.2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 1}, "key must be one of .*did you mean 'sizes'"),
        ({"sizes": {}}, "sizes must name at least one"),
        ({"schedules": {"a b": "cosine"}}, "the name of one of schedules must be"),
        ({"schedules": {"c": 3}}, "schedules.c must be a short form"),
        ({"base": {"steps": 3}}, "base.steps must be left out"),
        ({"blocks": {"b": {"peaks": [1e-3]}}}, "one of horizons and tokens must be given, got neither"),
        ({"blocks": {"b": {"horizons": [10]}}}, "blocks.b: peaks must be given"),
        ({"blocks": {"b": {"peaks": [], "horizons": [10]}}}, "blocks.b.peaks must be a list that is not empty"),
        ({"blocks": {"b": {"peaks": [-1], "horizons": [10]}}}, "blocks.b.peaks must be a finite number above 0"),
        ({"blocks": {"b": {"sizes": ["x"], "peaks": [1], "horizons": [10]}}}, "blocks.b.sizes: key must be one of t"),
        ({"blocks": {"b": {"peaks": [1], "horizons": [3], "warmups": [9]}}}, r"blocks.b \(t, wsd, peak 1, steps 3\)"),
        ({"blocks": {"b": {"peaks": [1e-3] * 400, "horizons": list(range(1, 400))}}}, "at most 100000 runs"),
        ({"blocks": {}}, "blocks must hold at least one block"),
        ({"blocks": {"b": {"sizes": [["t"]], "peaks": [1], "horizons": [10]}}}, "blocks.b.sizes: key must be one of t"),
        ({"schedules": {"c": "cosine:final=1e*peak"}}, "final must be a number"),
        *(
            ({"blocks": {"b": {"peaks": [1], "horizons": [10], "set": {key: 3}}}}, f"blocks.b.set.{key} must be left")
            for key in ("seed", "batch", "model", "steps")
        ),
    ],
)
def test_bad_grids_are_told_in_a_sentence(changes, message):
    with pytest.raises(InputError, match=message) as bad:
        read_grid(grid(**changes))
    assert "\n" not in str(bad.value)


def test_jobs_hold_every_run_once_and_may_be_stacked():
    configs = [one.config for one in read_grid(GRID)]
    assert plan_jobs(configs, 1) == [(config,) for config in configs]
    jobs = plan_jobs(configs, 4)
    assert sorted(c.run_id for job in jobs for c in job) == sorted(c.run_id for c in configs)
    assert max(map(len, jobs)) == 4
    steps = [c.steps for job in jobs for c in job]
    assert steps == sorted(steps)
    other = read_grid(grid(base={**GRID["base"], "batch": 8}))
    for job in plan_jobs(configs + [one.config for one in other], 100):
        assert len({c.batch for c in job}) == 1
    with pytest.raises(InputError, match="stacked must be a whole number of at least 1"):
        plan_jobs(configs, 0)


def losses(table):
    return dict(zip(table.run_id, table.final_loss, strict=True))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Losses of the grid's runs, each trained by itself."""
    folder = tmp_path_factory.mktemp("alone")
    result = sweep(GRID, folder)
    assert (result.done, result.trained, result.whole) == (10, 10, True)
    return folder


def test_a_sweep_is_its_runs(alone):
    planned = read_grid(GRID)
    table = read_runs(alone / "runs.csv")
    assert table.run_id == tuple(one.config.run_id for one in planned)
    assert table.extra["block"] == tuple(one.block for one in planned)
    assert set(table.extra["ended"]) == {"completed"}
    curves = read_curves(alone / "curves.csv").runs()
    assert set(curves) == set(table.run_id)
    one = planned[3].config
    assert train(one).final_loss == losses(table)[one.run_id]
    assert sweep(GRID, alone).trained == 0
    assert not (alone / LOCK_FILE).exists()


def test_stacked_and_several_processes_give_the_same_losses(alone, tmp_path):
    expected = losses(read_runs(alone / "runs.csv"))
    stacked = sweep(GRID, tmp_path / "stacked", stacked=4).runs
    assert losses(stacked) == pytest.approx(expected, rel=1e-5)
    several = sweep(GRID, tmp_path / "several", workers=2)
    assert (several.done, several.trained) == (10, 10)
    assert losses(several.runs) == pytest.approx(expected, rel=1e-6)
    assert list((tmp_path / "several" / ".workers").iterdir()) == []


def test_runs_of_an_earlier_grid_stay_in_the_table(alone, tmp_path):
    small = grid(blocks={"main": {"peaks": [1e-3], "horizons": [10]}})
    sweep(small, tmp_path)
    other = grid(blocks={"new": {"peaks": [2e-3], "horizons": [10]}})
    table = sweep(other, tmp_path).runs
    assert len(table) == 4
    assert set(table.extra["block"]) == {"new", ""}


def test_a_stopped_sweep_goes_on(tmp_path, alone):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 60

    first = sweep(GRID, tmp_path, stacked=2, stop=stop)
    assert 0 < first.done < 10
    second = sweep(GRID, tmp_path, stacked=2)
    assert (second.whole, second.trained) == (True, 10 - first.done)
    assert losses(second.runs) == pytest.approx(losses(read_runs(alone / "runs.csv")), rel=1e-5)


def test_a_stack_goes_on_although_the_grid_has_grown(tmp_path, alone, monkeypatch):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 25

    sweep(GRID, tmp_path, stacked=3, stop=stop)
    (begun,) = tmp_path.glob("runs/stack-*")
    members = json.loads((begun / "members.json").read_text())
    assert len(members) == 3
    stacks = []

    class Spied(training.Loop):
        def __init__(self, configs, *rest, **more):
            stacks.append([config.run_id for config in configs])
            super().__init__(configs, *rest, **more)

    monkeypatch.setattr(training, "Loop", Spied)
    grown = grid(blocks={"first": {"peaks": [5e-4], "horizons": [10, 15]}, **GRID["blocks"]})
    smaller = sweep(grown, tmp_path, stacked=2, stop=lambda: True)  # three at once are more than asked for
    assert not smaller.whole
    assert begun.exists()
    stacks.clear()
    result = sweep(grown, tmp_path, stacked=4)
    assert set(stacks[0]) <= set(members)
    assert result.whole
    assert not list(tmp_path.glob("runs/stack-*"))
    mine = losses(read_runs(alone / "runs.csv"))
    assert {name: losses(result.runs)[name] for name in mine} == pytest.approx(mine, rel=1e-5)


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"a": 1}', '["no-such-run"]', "[]"])
def test_a_stack_that_is_not_of_this_grid_is_left_alone(tmp_path, content):
    place = tmp_path / "runs" / "stack-0123456789ab"
    place.mkdir(parents=True)
    (place / "members.json").write_text(content)
    (place / "step-5.pt").write_text("none of ours")
    small = grid(blocks={"main": {"peaks": [1e-3], "horizons": [10]}})
    assert sweep(small, tmp_path, stacked=2).whole
    assert (place / "step-5.pt").exists()


def made_record(name, loss, peak, status="completed", first=4.0, tokens=1e6):
    runs = RunTable.build(
        parse(f"constant:peak={peak},steps=100"), run_id=(name,), params=1e5, tokens=tokens, final_loss=loss,
        status=status,
    )  # fmt: skip
    return RunRecord(runs, CurveTable((name, name), np.array([0.0, 100.0]), np.array([first, min(loss, 9.0)])))


def test_relabel():
    table = relabel(
        [
            made_record("best", 2.0, 1e-2),
            made_record("fair", 2.3, 2e-2),
            made_record("bad", 2.5, 5e-2),
            made_record("slow", 2.5, 1e-3),
            made_record("gone", np.nan, 1e-1, "nonfinite"),
            made_record("other budget", 2.6, 5e-2, tokens=2e6),
            made_record("one of few steps", 3.96, 1e-3, tokens=3e6),
            made_record("never learnt", 3.97, 5e-2, tokens=3e6),
            made_record("alone and lost", 4.2, 5e-2, tokens=4e6),
        ]
    )
    status = dict(zip(table.run_id, table.status, strict=True))
    assert status == {
        "best": "completed",
        "fair": "completed",
        "bad": "diverged",
        "slow": "completed",
        "gone": "nonfinite",
        "other budget": "completed",
        "one of few steps": "completed",
        "never learnt": "diverged",
        "alone and lost": "diverged",
    }
    assert table.extra["ended"] == ("completed",) * 4 + ("nonfinite",) + ("completed",) * 4


def write_lock(folder, **holder):
    (folder / LOCK_FILE).write_text(json.dumps(holder))


def test_one_sweep_at_a_time(tmp_path):
    import socket

    host = socket.gethostname()
    with held(tmp_path):
        assert alive(json.loads((tmp_path / LOCK_FILE).read_text()))
        with pytest.raises(InputError, match="a sweep in process"), held(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_lock(tmp_path, host=host, pid=dead.pid, began="1")
    with held(tmp_path):
        pass
    write_lock(tmp_path, host=host, pid=os.getpid(), began="another process that had this id")
    if Path("/proc/self/stat").exists():
        with held(tmp_path):
            pass
    write_lock(tmp_path, host="elsewhere", pid=1, began="")
    with pytest.raises(InputError, match="on host 'elsewhere'"), held(tmp_path):
        pass
    (tmp_path / LOCK_FILE).write_text("what is this")
    with pytest.raises(InputError, match="not the lock of a sweep"), held(tmp_path):
        pass


def test_bad_calls(tmp_path):
    with pytest.raises(InputError, match="workers must be"):
        sweep(GRID, tmp_path, workers=0)
    with pytest.raises(InputError, match="workers and ray must not both"):
        sweep(GRID, tmp_path, workers=2, ray=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        sweep(GRID, tmp_path / "file")


def test_a_run_of_other_settings_under_the_same_name_is_no_finished_run(tmp_path):
    one = read_grid(GRID)[0]
    sweep([one], tmp_path)
    changed = replace(one, config=one.config.with_(seed=9))
    with pytest.raises(InputError, match="other settings"):
        sweep([changed], tmp_path)


def test_a_job_tells_which_runs_it_trained(tmp_path):
    job = plan_jobs([one.config for one in read_grid(GRID)], 4)[0]
    train_stacked(job[:1], tmp_path / "runs")
    assert sorted(run_job(job, str(tmp_path))) == sorted(run.run_id for run in job[1:])
    assert run_job(job, str(tmp_path)) == []


def long(seeds, every):
    return grid(
        blocks={"main": {"peaks": [1e-3, 2e-3, 3e-3, 4e-3, 5e-3], "horizons": [100], "seeds": list(range(seeds))}},
        base={**GRID["base"], "checkpoint": {"every": every}},
    )


def snapshot(folder):
    """Return what identifies each finished run's record: the file itself and when it was written."""
    found = {}
    for path in folder.glob("runs/*/run.csv"):
        record = read_record(path.parent)
        if record is not None and record.status != "interrupted":
            found[path.parent.name] = (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
    return found


def kill_again_and_again(tmp_path, content, kills, options):
    """Kill a sweep at random moments and check each time that nothing finished was lost or done again."""
    path, out = tmp_path / "grid.json", tmp_path / "out"
    path.write_text(json.dumps(content))
    command = [sys.executable, "-m", "optlaws", "sweep", str(path), "--out", str(out), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    chance = random.Random(0)
    before, cut = {}, 0
    for _ in range(kills):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        end = time.monotonic() + 240
        while not (out / LOCK_FILE).exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 1.5))
        cut += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        after = snapshot(out)
        assert {name: after.get(name) for name in before} == before
        if (out / "runs.csv").exists():
            table = read_runs(out / "runs.csv", need_loss=True)
            assert set(table.run_id) <= set(after)
            assert set(before) <= set(table.run_id) | set(after)
            read_curves(out / "curves.csv")
        before = after
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, [x for x in done.stderr.splitlines() if "runs are finished" not in x]) == (0, [])
    after = snapshot(out)
    assert {name: after[name] for name in before} == before
    table = read_runs(out / "runs.csv", need_loss=True)
    assert set(table.run_id) == {one.config.run_id for one in read_grid(content)} == set(after)
    assert f"{len(after) - len(before)} of them trained now" in done.stdout
    assert list(out.rglob("*.part")) == []
    assert {path.name for path in out.iterdir()} <= {"runs", "runs.csv", "curves.csv", ".workers"}
    return cut, table


def test_killed_three_times(tmp_path):
    content = long(seeds=2, every=40)
    cut, table = kill_again_and_again(tmp_path, content, 3, ["--stacked", "4"])
    assert cut
    name = table.run_id[-1]
    expected = train(next(one.config for one in read_grid(content) if one.config.run_id == name)).final_loss
    assert table.final_loss[-1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--stacked", "2"], ["--workers", "2"]], ids=["one process", "two workers"])
def test_killed_at_20_random_moments(tmp_path, options):
    cut, _ = kill_again_and_again(tmp_path, long(seeds=8, every=50), 20, options)
    assert cut >= 10


class FakeRay:
    """As much of Ray as a sweep uses: tasks are run when they are waited for, their arguments pickled as Ray does."""

    def __init__(self, resources):
        self.resources, self.asked, self.up = resources, [], False

    def is_initialized(self):
        return self.up

    def init(self, **settings):
        self.up = True

    def shutdown(self):
        self.up = False

    def cluster_resources(self):
        return self.resources

    def remote(self, function):
        fake = self

        class Task:
            def options(self, **wanted):
                fake.asked.append(wanted)
                return self

            def remote(self, *args):
                return pickle.dumps((function, args))

        return Task()

    def wait(self, waiting, num_returns, timeout):
        return waiting[-num_returns:], waiting[:-num_returns]

    def get(self, reference):
        function, args = pickle.loads(reference)
        return function(*args)


def test_over_ray(alone, tmp_path, monkeypatch):
    fake = FakeRay({"CPU": 4.0})
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    result = sweep(GRID, tmp_path, stacked=4, ray=True)
    assert result.whole
    assert not fake.up
    assert losses(result.runs) == pytest.approx(losses(read_runs(alone / "runs.csv")), rel=1e-5)
    assert {(wanted["num_cpus"], wanted["num_gpus"]) for wanted in fake.asked} == {(1, 0)}
    fake.asked.clear()
    assert sweep(GRID, tmp_path, stacked=4, ray=True).trained == 0
    assert fake.asked == []


def test_over_ray_a_job_asks_for_a_gpu_where_there_is_one(tmp_path, monkeypatch):
    fake = FakeRay({"CPU": 4.0, "GPU": 2.0})
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    anywhere = grid(base={**GRID["base"], "device": "auto"})
    sweep(anywhere, tmp_path, stacked=100, ray=True)
    assert [wanted["num_gpus"] for wanted in fake.asked] == [1]


def ray_sweep(content, tmp_path, *, wait_for=None):
    """Start a sweep over a real Ray on this machine; with `wait_for`, send SIGTERM once it returns true."""
    path, out = tmp_path / "grid.json", tmp_path / "out"
    path.write_text(json.dumps(content))
    command = [sys.executable, "-m", "optlaws", "sweep", "grid.json", "--out", "out", "--stacked", "4", "--ray"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 240
    while wait_for and not wait_for(out) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    if wait_for:
        process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=180)
    return process.returncode, said, errors, out


def test_over_a_real_ray(alone, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: sweeps over a cluster need the extra cluster")
    code, said, errors, out = ray_sweep(GRID, tmp_path)
    assert code == 0, errors
    assert "10 of 10 runs of the grid are finished, 10 of them trained now" in said
    assert losses(read_runs(out / "runs.csv")) == pytest.approx(losses(read_runs(alone / "runs.csv")), rel=1e-5)
    assert {path.name for path in out.iterdir()} == {"runs", "runs.csv", "curves.csv", ".workers"}


@pytest.mark.slow
def test_a_real_ray_stops_with_checkpoints_and_goes_on(tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: sweeps over a cluster need the extra cluster")
    content = grid(
        blocks={"main": {"peaks": [1e-3, 2e-3], "horizons": [1500]}},
        base={**GRID["base"], "checkpoint": {"every": 450}},
    )

    def under_way(out):
        found = any(out.rglob("step-*.pt"))
        time.sleep(0.5 * found)  # so that it stops between two of the checkpoints that it would leave anyway
        return found

    code, said, errors, out = ray_sweep(content, tmp_path, wait_for=under_way)
    assert code == 130, errors
    assert "are left" in said
    assert any(int(path.stem.removeprefix("step-")) % 450 for path in out.rglob("step-*.pt"))
    code, said, errors, out = ray_sweep(content, tmp_path)
    assert (code, len(read_runs(out / "runs.csv"))) == (0, len(read_grid(content))), errors


def test_without_ray_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="ray must be installed"):
        sweep(GRID, tmp_path, ray=True)
