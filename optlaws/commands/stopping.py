"""What SIGTERM does to a command: it ends as Ctrl-C ends it, and leaves nothing half written. Standard library only."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CODE = 143  # 128 + SIGTERM, as shells report it
SAME = 1.0  # seconds within which a second SIGTERM is the first one again: `timeout` sends it to process and group


class Terminated(BaseException):
    """SIGTERM has come; not an `Exception`, so that only clean-ups see it on its way."""


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` in the block on SIGTERM, unless something else handles that already or threads forbid it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    first: list[float] = []

    def stop(number: int, frame: Any) -> None:
        if first and time.monotonic() - first[0] < SAME:
            return
        first[:] = [time.monotonic()]
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
