"""One sweep, or one training run, at a time in a folder: a lock file that tells who holds it, and is taken over from a
process that is gone.

The file holds host, process id and, where the system tells it, the time at which that process began, since process ids
are used again. It comes into being whole (a link to a finished file), so no reader sees half of it. Worker processes
leave their marks beside it: a sweep that was killed leaves workers which end at their next update, and until then the
folder is theirs. The lock of a run is touched every few seconds, so that another host can tell whether it is still
trained: a job that was killed on one host may be begun again on the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optlaws.errors import InputError

LOCK_FILE, RUN_LOCK, WORKERS = "sweep.lock", "train.lock", ".workers"
WHO = {LOCK_FILE: "a sweep", RUN_LOCK: "a training run"}
BEAT, SILENCE = 5.0, 60.0  # seconds from one touch of a run's lock to the next, and without one until it counts as left
PATIENCE = 120.0  # seconds that workers of a killed sweep get to see that they are alone
_PAUSE = 0.05


def _began(pid: int) -> str:
    """Return when a process began, in the system's own clock; "" where it does not tell."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    return ""


def _me(beats: bool = False) -> dict[str, Any]:
    me = {"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid())}
    return me | ({"beats": True} if beats else {})


def alive(holder: dict[str, Any]) -> bool:
    """Return whether a process of this host is still the one that was written down."""
    pid = int(holder["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not holder.get("began") or _began(pid) in ("", holder["began"])


@contextmanager
def held(folder: Path, name: str = LOCK_FILE) -> Iterator[None]:
    """Hold the lock of a sweep's folder, or with the name `RUN_LOCK` that of a run's.

    Raises
    ------
    InputError
        If another process holds it, or one of another host wrote it, of which nobody here can tell whether it lives.
    """
    with held_together([folder], name):
        yield


@contextmanager
def held_together(folders: Iterable[Path], name: str = LOCK_FILE) -> Iterator[None]:
    """Hold the locks of several folders, all or none; errors as for `held`.

    They are taken in the order of their names, so that of two processes which want some of the same one gets its own.
    """
    me = _me(beats=name == RUN_LOCK)
    locks: list[Path] = []
    over = threading.Event()
    try:
        silent: list[dict[str, Any]] = []
        for folder in sorted(folders):
            _take(folder, name, me, silent)
            locks.append(folder / name)
            if len(locks) == 1 and name == RUN_LOCK:
                threading.Thread(target=_beat, args=(locks, over), daemon=True).start()
            if name == LOCK_FILE:
                _wait_for_workers(folder)
        yield
    finally:
        over.set()
        for lock in locks:
            if _read(lock) == me:  # nobody has taken it over
                lock.unlink(missing_ok=True)


def _take(folder: Path, name: str, me: dict[str, Any], silent: list[dict[str, Any]]) -> None:
    """Take a folder's lock; `silent` holds those of other hosts that have been waited for, and is added to."""
    mine = folder / f".{name}.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}"
    try:
        mine.write_text(json.dumps(me), encoding="utf-8")
        while True:
            try:
                _put(mine, folder / name)
                break
            except FileExistsError:
                _remove_stale(folder / name, silent)
    except PermissionError:
        raise InputError(f"{folder}: the folder cannot be written; name another one") from None
    finally:
        mine.unlink(missing_ok=True)


def _put(mine: Path, lock: Path) -> None:
    """Let the lock be the finished file `mine`; a `FileExistsError` if there is one already."""
    try:
        os.link(mine, lock)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with open(lock, "x", encoding="utf-8") as stream:
            stream.write(mine.read_text(encoding="utf-8"))


def _beat(locks: Sequence[Path], over: threading.Event) -> None:
    """Touch locks, those added later, too, now and then until their time is over."""
    while not over.wait(BEAT):
        for lock in tuple(locks):
            with contextlib.suppress(OSError):
                os.utime(lock)


def _is_silent(lock: Path) -> bool:
    """Return whether nobody touches a lock for as long as `SILENCE`; the clocks of two hosts need not agree."""
    touched: set[int] = set()
    end = time.monotonic() + SILENCE
    while time.monotonic() < end:
        try:
            with open(lock, encoding="utf-8") as stream:  # opened, it is not of a cache
                touched.add(os.fstat(stream.fileno()).st_mtime_ns)
        except FileNotFoundError:
            return True
        if len(touched) > 1:
            return False
        time.sleep(min(1.0, SILENCE / 20))
    return True


def _remove_stale(lock: Path, silent: list[dict[str, Any]]) -> None:
    """Remove the lock of a process that is gone, as one of `silent` is; raise if it is not gone."""
    holder, who = _read(lock), WHO[lock.name]
    if holder is None:
        if lock.exists():  # not a lock of ours; nobody writes half of one
            raise InputError(f"{lock}: not the lock of {who}; remove it if nothing is at work in its folder")
        return
    if holder["host"] != socket.gethostname():
        if not (holder.get("beats") and (holder in silent or _is_silent(lock))):
            raise InputError(
                f"{lock}: {who} on host {holder['host']!r} (process {holder['pid']}) holds this folder; wait for it, "
                "or remove the file if that process is gone"
            )
        silent.append(holder)
    elif alive(holder):
        raise InputError(
            f"{lock}: {who} in process {holder['pid']} holds this folder; wait for it or name another folder"
        )
    # Whoever moves the file away looks at what it got: if two find the lock stale, one may move the other's new lock.
    away = lock.with_name(f".{lock.name}.stale.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(lock, away)
        if _read(away) != holder:
            with contextlib.suppress(FileExistsError):
                _put(away, lock)
        away.unlink(missing_ok=True)


def _read(lock: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(lock.read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("pid"), int) and "host" in found:
            return found
    return None


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Leave the mark of a worker process in a sweep's folder while it works."""
    place = folder / WORKERS
    place.mkdir(exist_ok=True)
    mark = place / f"{socket.gethostname()}.{os.getpid()}"
    mark.write_text(json.dumps(_me()), encoding="utf-8")
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _wait_for_workers(folder: Path) -> None:
    """Wait until the workers of a killed sweep are gone, and remove their marks."""
    end = time.monotonic() + PATIENCE
    place = folder / WORKERS
    for mark in sorted(place.iterdir()) if place.is_dir() else []:
        holder = _read(mark)
        while holder and holder["host"] == socket.gethostname() and alive(holder) and mark.exists():
            if time.monotonic() > end:
                raise InputError(
                    f"{mark}: process {holder['pid']} of an earlier sweep still works here; end it and try again"
                )
            time.sleep(_PAUSE)
        mark.unlink(missing_ok=True)
