"""Progress where there is no terminal: a line now and then on standard error, for a log that somebody reads.

The environment variable OPTLAWS_PROGRESS=off keeps scripts that read standard error from it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import click

FIRST, EVERY = 15.0, 60.0  # seconds to the first line, and from line to line


class Lines:
    """Says what it is given once in a while, unless standard error is a terminal, which has a bar.

    Parameters
    ----------
    first, every
        Seconds from now to the first line, and between lines.
    """

    def __init__(self, first: float = FIRST, every: float = EVERY) -> None:
        """Start the clock."""
        self._every, self._at = every, time.monotonic() + first
        self._silent = sys.stderr is None or sys.stderr.isatty() or os.environ.get("OPTLAWS_PROGRESS") == "off"

    def say(self, words: Callable[[], str]) -> None:
        """Print a line if one is due; `words` makes it."""
        now = time.monotonic()
        if self._silent or now < self._at:
            return
        self._at = now + self._every
        click.echo(f"optlaws: {words()}", err=True)


__all__ = ["Lines"]
