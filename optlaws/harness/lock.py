"""One sweep at a time in a folder: a lock file that tells who holds it, and is taken over from a process that is gone.

The file holds host, process id and, where the system tells it, the time at which that process began, since process ids
are used again. It comes into being whole (a link to a finished file), so no reader sees half of it. Worker processes
leave their marks beside it: a sweep that was killed leaves workers which end at their next update, and until then the
folder is theirs.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optlaws.errors import InputError

LOCK_FILE, WORKERS = "sweep.lock", ".workers"
PATIENCE = 120.0  # seconds that workers of a killed sweep get to see that they are alone
_PAUSE = 0.05


def _began(pid: int) -> str:
    """Return when a process began, in the system's own clock; "" where it does not tell."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    return ""


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid())}


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
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a sweep's folder.

    Raises
    ------
    InputError
        If another process holds it, or one of another host wrote it, of which nobody here can tell whether it lives.
    """
    lock = folder / LOCK_FILE
    mine = folder / f".{LOCK_FILE}.{socket.gethostname()}.{os.getpid()}"
    mine.write_text(json.dumps(_me()), encoding="utf-8")
    try:
        while True:
            try:
                os.link(mine, lock)
                break
            except FileExistsError:
                _remove_stale(lock)
    finally:
        mine.unlink(missing_ok=True)
    try:
        _wait_for_workers(folder)
        yield
    finally:
        lock.unlink(missing_ok=True)


def _remove_stale(lock: Path) -> None:
    """Remove the lock of a process that is gone; raise if it is not gone."""
    holder = _read(lock)
    if holder is None:
        if lock.exists():  # not a lock of ours; nobody writes half of one
            raise InputError(f"{lock}: not the lock of a sweep; remove it if no sweep is running in its folder")
        return
    if holder["host"] != socket.gethostname():
        raise InputError(
            f"{lock}: a sweep on host {holder['host']!r} (process {holder['pid']}) holds this folder; wait for it, or "
            "remove the file if that process is gone"
        )
    if alive(holder):
        raise InputError(
            f"{lock}: a sweep in process {holder['pid']} holds this folder; wait for it or name another folder"
        )
    # Whoever moves the file away looks at what it got: if two find the lock stale, one may move the other's new lock.
    away = lock.with_name(f".{lock.name}.stale.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(lock, away)
        if _read(away) != holder:
            with contextlib.suppress(FileExistsError):
                os.link(away, lock)
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
