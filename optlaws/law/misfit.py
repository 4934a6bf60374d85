"""Runs that the columns cannot follow: a wider field where evidence is plain, and what is said of a doubtful fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from optlaws.dynamics.model import FloatArray
from optlaws.errors import OptlawsWarning, RankDeficiencyWarning, TooFewRunsWarning
from optlaws.law.outliers import outliers_warning, warn_of_units
from optlaws.regression.settings import Settings
from optlaws.regression.trend_field import FEWEST_CHECKED
from optlaws.runs import RunTable
from optlaws.runs._repeats import configurations

COLUMNS = 16
DEPENDENT = 1e-6  # a unit column with less than this of its own is a combination of others
SUSPECT = 0.005  # relative scatter about the trend above which the field is asked whether it is none
FIELDS = (2.0, 4.0)  # times the usual sds of the field
FEWEST = 24  # runs: a few leave the columns by chance
PLAIN = 0.7  # nats for every run, by which a wider field must be likelier


def wider_field(settings: Settings, scatter: float, runs: int, evidence: Callable[[Settings], float]) -> Settings:
    """Return the constants with the sds of the field times 2 or 4 where that is far likelier, else as they are.

    The field's sds suit the public runs. Losses that leave the columns by more, smoothly, would be taken for run noise:
    laws of 100 runs of the Multi-Power Law with a noise of 0.1 % had 1 % of it, and errors six times those that the
    same columns can reach. Evidence alone is no guide (of the public sources it would have chosen wider fields for
    most, with larger errors of left-out sizes): it must be plain. Made-up worlds gave 0.8 to 2 nats a run, no public
    source more than 0.5.

    Parameters
    ----------
    settings : Settings
        Those of the fit.
    scatter : relative sd of single runs about the trend that it found.
    runs : number of runs that it had.
    evidence : log evidence of the trend under other constants.
    """
    if scatter < SUSPECT or runs < FEWEST:
        return settings
    found = [(evidence(settings), settings)]
    for factor in FIELDS:
        trial = replace(settings, trend_sd=factor * settings.trend_sd, field_sd=factor * settings.field_sd)
        found.append((evidence(trial), trial))
    best, chosen = max(found, key=lambda each: each[0])
    return chosen if best - found[0][0] > PLAIN * runs else settings


def warn_of_fit(
    runs: RunTable, curves: bool, groups: bool, residuals: int, odd: Sequence[Mapping[str, Any]], scatter: float,
    settings: Settings, unknown: Sequence[str], stacklevel: int,
) -> int:  # fmt: skip
    """Warn of few runs, of intervals that nothing calibrated, of outliers, of runs that scatter, and of columns.

    Returns the number of different configurations.

    `runs` are those with a final loss; `groups` says whether any could be left out, `residuals` how many were;
    `unknown` names the columns that the runs do not determine.
    """
    count, tried = len(runs), len(np.unique(configurations(runs)))

    def warn(text: str, kind: type[OptlawsWarning] = OptlawsWarning) -> None:
        warnings.warn(kind(text), stacklevel=stacklevel + 1)

    if not curves and tried < COLUMNS:
        repeated = f" ({count} with their repeats)" if tried < count else ""
        warn(
            f"{tried} runs{repeated} for {COLUMNS} columns: the priors decide much of this law, its intervals too;"
            " `optlaws compare` says what one fitted to the shorter or smaller of them makes of the others",
            TooFewRunsWarning,
        )
    elif groups and residuals < FEWEST_CHECKED:
        warn(
            "too few runs are left in groups that can be held out: interval widths are not calibrated by them; give"
            " groups of more runs",
            TooFewRunsWarning,
        )
    warn_of_units(runs, stacklevel + 1)
    if odd:
        warnings.warn(outliers_warning(odd), stacklevel=stacklevel)
    elif scatter >= max(settings.noise_grid):
        warn(
            f"these runs scatter by {100 * scatter:g} % or more about any law of these columns: are they"
            " from more than one data set, or the losses not smoothed? fit each source by itself"
        )
    if unknown:
        vary, them = ("does not vary by itself", "it") if len(unknown) == 1 else ("do not vary by themselves", "them")
        warn(
            f"{len(unknown)} of {COLUMNS} columns ({', '.join(unknown)}) {vary} in these runs: for others the priors"
            f" decide; add runs that vary {them} alone",
            RankDeficiencyWarning,
        )
    return tried


def undetermined(columns: FloatArray, names: Sequence[str]) -> list[str]:
    """Return the columns that are combinations of those before them, to one part in a million; columns (m, k)."""
    scaled = columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    kept: list[FloatArray] = []
    lost = []
    for name, column in zip(names, scaled.T, strict=True):
        rest = column - sum((q * (q @ column) for q in kept), np.zeros(len(column)))
        size = float(np.linalg.norm(rest))
        if size < DEPENDENT:
            lost.append(name)
        else:
            kept.append(rest / size)
    return lost
