"""One training run at a time in a folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from test_harness_train import assert_same
from tiny_runs import tiny

from optlaws.errors import InputError
from optlaws.harness import lock, read_record, train, train_stacked
from optlaws.harness.lock import LOCK_FILE, RUN_LOCK, held

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def waiting_for(path, process):
    end = time.monotonic() + 240
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert path.exists(), process.communicate()


def test_a_second_run_in_a_folder_is_refused_and_the_first_goes_on(tmp_path):
    config = tiny("constant:peak=1e-3,steps=1000000", name="one", threads=1, checkpoint={"every": 50})
    (tmp_path / "run.json").write_text(json.dumps(config.to_dict()))
    command = [sys.executable, "-m", "optlaws", "train", "run.json", "--out", "out"]
    out = tmp_path / "out"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, **pipes) as first:
        try:
            waiting_for(out / "config.json", first)
            before = (out / "config.json").stat().st_mtime_ns
            for more in ([], ["--restart"]):
                second = subprocess.run(
                    [*command, *more], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
                )
                assert second.returncode == 2
                assert second.stderr == (
                    f"optlaws: out/{RUN_LOCK}: a training run in process {first.pid} holds this folder; wait for it or "
                    "name another folder\n"
                )
            assert (out / "config.json").stat().st_mtime_ns == before
        finally:
            first.send_signal(signal.SIGTERM)
            _, errors = first.communicate(timeout=240)
    assert (first.returncode, read_record(out).status) == (130, "interrupted"), errors
    assert not [path for path in out.iterdir() if "lock" in path.name]


def test_the_lock_of_a_run_that_was_killed_is_taken_over(tmp_path):
    whole = train(tiny())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / RUN_LOCK).write_text(json.dumps({"host": socket.gethostname(), "pid": dead.pid, "began": "1"}))
    assert_same(train(tiny(), tmp_path), whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "curve.csv", "run.csv"]


def test_a_finished_run_is_read_whoever_holds_its_folder(tmp_path):
    whole = train(tiny(), tmp_path)
    with held(tmp_path, RUN_LOCK):
        assert_same(train(tiny(), tmp_path), whole)
        with pytest.raises(InputError, match=f"a training run in process {os.getpid()} holds this folder"):
            train(tiny(), tmp_path, restart=True)


def elsewhere(folder, **more):
    (folder / RUN_LOCK).write_text(json.dumps({"host": "elsewhere", "pid": 1, "began": "", **more}))


def test_another_hosts_run_is_known_by_its_heart(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SILENCE", 0.4)
    elsewhere(tmp_path, beats=True)  # a job that was killed there and is begun again here
    with held(tmp_path, RUN_LOCK):
        assert json.loads((tmp_path / RUN_LOCK).read_text())["pid"] == os.getpid()
    monkeypatch.setattr(lock, "BEAT", 0.02)
    monkeypatch.setattr(lock, "SILENCE", 240.0)
    elsewhere(tmp_path, beats=True)
    over = threading.Event()
    heart = threading.Thread(target=lock._beat, args=([tmp_path / RUN_LOCK], over))
    heart.start()
    try:
        with pytest.raises(InputError, match="a training run on host 'elsewhere'"), held(tmp_path, RUN_LOCK):
            pass
    finally:
        over.set()
        heart.join()
    elsewhere(tmp_path)  # without a heart nobody can tell
    with pytest.raises(InputError, match="a training run on host 'elsewhere'"), held(tmp_path, RUN_LOCK):
        pass


def test_the_lock_of_a_run_beats_while_it_is_held_and_is_left_to_who_took_it_over(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with held(tmp_path, RUN_LOCK):
        os.utime(tmp_path / RUN_LOCK, (1.0, 1.0))
        end = time.monotonic() + 240
        while (tmp_path / RUN_LOCK).stat().st_mtime < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert (tmp_path / RUN_LOCK).stat().st_mtime > 2
        elsewhere(tmp_path)
    assert json.loads((tmp_path / RUN_LOCK).read_text())["host"] == "elsewhere"


@pytest.mark.parametrize("name", [LOCK_FILE, RUN_LOCK])
def test_a_lock_where_files_cannot_be_linked(name, tmp_path, monkeypatch):
    def no_links(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(lock.os, "link", no_links)
    with held(tmp_path, name), pytest.raises(InputError, match="holds this folder"), held(tmp_path, name):
        pass
    assert not list(tmp_path.iterdir())


def stack(folder=None, **options):
    runs = [tiny(name=name, seed=seed) for seed, name in enumerate("ab")]
    return train_stacked(runs, folder, **options)


def test_a_stack_holds_the_folder_of_every_run_until_its_end(tmp_path):
    seen = []

    def look():
        if not seen:
            seen.extend(sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob(f"*/{RUN_LOCK}")))
            for again in (lambda: stack(tmp_path), lambda: stack(tmp_path, restart=True)):
                with pytest.raises(InputError, match=f"a/{RUN_LOCK}: a training run in process {os.getpid()} holds"):
                    again()
            with pytest.raises(InputError, match=f"b/{RUN_LOCK}: a training run in process {os.getpid()} holds"):
                train(tiny(name="b", seed=1), tmp_path / "b")
        return False

    for record, other in zip(stack(tmp_path, stop=look), stack(), strict=True):
        assert_same(record, other)
    assert seen == [f"a/{RUN_LOCK}", f"b/{RUN_LOCK}"]
    assert not list(tmp_path.rglob("*lock*"))


def test_a_stack_is_refused_where_one_of_its_runs_is_trained_and_leaves_no_lock(tmp_path):
    (tmp_path / "b").mkdir()
    with held(tmp_path / "b", RUN_LOCK):
        with pytest.raises(InputError, match="holds this folder"):
            stack(tmp_path)
        assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*lock*")] == [f"b/{RUN_LOCK}"]
    assert [record.status for record in stack(tmp_path)] == ["completed"] * 2
    with held(tmp_path / "b", RUN_LOCK):  # what is finished is read
        assert [record.status for record in stack(tmp_path)] == ["completed"] * 2


def test_another_hosts_stack_that_was_killed_is_waited_for_once(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SILENCE", 0.1)
    waited, is_silent = [], lock._is_silent
    monkeypatch.setattr(lock, "_is_silent", lambda path: waited.append(path) or is_silent(path))
    for name in "ab":
        (tmp_path / name).mkdir()
        elsewhere(tmp_path / name, beats=True)
    assert [record.status for record in stack(tmp_path)] == ["completed"] * 2
    assert waited == [tmp_path / "a" / RUN_LOCK]
