"""Errors and warnings of the package: one sentence each, saying name, allowed range, value got and a way out."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class OptlawsError(Exception):
    """Base class of every error this package raises on purpose."""


class InputError(OptlawsError, ValueError):
    """The caller's input cannot be used; the command line turns it into exit code 2."""


class ScheduleError(InputError):
    """A learning-rate schedule is impossible or badly written."""


class TableError(InputError):
    """A run, curve or candidate table cannot be read."""


class LawError(InputError):
    """A law file is missing, truncated, of another version, or does not fit the question asked."""


class FitError(InputError):
    """The runs given cannot determine a law."""


class RiskError(OptlawsError):
    """Every candidate has a divergence risk above the accepted one; the command line turns it into exit code 3.

    `left_out` holds the name and the risk of each candidate, where `optlaws.ranking.rank` refused them.
    """

    def __init__(self, message: str, left_out: tuple[tuple[str, float], ...] = ()) -> None:
        """Keep the sentence and the candidates refused."""
        super().__init__(message)
        self.left_out = left_out


class OptlawsWarning(UserWarning):
    """Base class of every warning this package raises on purpose."""


class ReadingNote(OptlawsWarning):
    """How something in a file was read that is written in another way than ours; nothing is wrong with it."""


class ExtrapolationWarning(OptlawsWarning):
    """A prediction lies outside the training domain of its law."""


class TooFewRunsWarning(OptlawsWarning):
    """A law was fitted to fewer runs than its columns, or its intervals need, so that its priors decide much of it."""


class RankDeficiencyWarning(OptlawsWarning):
    """The runs given do not determine every column of the basis."""


@contextmanager
def told_otherwise() -> Iterator[None]:
    """Drop warnings of extrapolation and of columns that runs do not determine, where a result says so itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        warnings.simplefilter("ignore", RankDeficiencyWarning)
        yield


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint naming the known word closest to `word`, or an empty string.

    >>> nearest("peek", ["peak", "steps"])
    "; did you mean 'peak'?"
    >>> nearest("zzz", ["peak", "steps"])
    ''
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
