"""A table of one rate a step, as `optlaws schedule` writes it, as one candidate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from optlaws.errors import ScheduleError, TableError
from optlaws.runs._cells import RawTable
from optlaws.runs._checks import FloatArray
from optlaws.runs._recognise import recognise
from optlaws.schedules import Schedule, from_array

RATE_COLUMNS = ("step", "lr")


def is_rates(raw: RawTable) -> bool:
    """Tell whether a table has the columns of one rate a step, and no others."""
    return set(raw.columns) == set(RATE_COLUMNS)


def raw_from_rates(raw: RawTable) -> RawTable:
    """Return a table with one candidate, without a name: the schedule that has these rates.

    Raises
    ------
    TableError
        If the steps are not 0, 1, 2, ..., or a rate is none.
    """
    step, rate = (raw.numbers(name, way="correct it") for name in RATE_COLUMNS)
    wrong = np.flatnonzero(step != np.arange(len(step)))
    if len(wrong):
        row = int(wrong[0])
        raise TableError(
            f"{raw.where(row)}: step must be {row}, as a schedule has one row a step, from step 0 on, got "
            f"{raw.columns['step'][row]!r}; add the rows that are missing"
        )
    missing = np.flatnonzero(np.isnan(rate))
    if len(missing):
        raise TableError(f"{raw.where(int(missing[0]))}: lr is empty; every step needs its rate")
    return RawTable({"schedule": [text_of_rates(rate, raw.name)]}, [raw.places[0]], raw.unit, raw.name)


def text_of_rates(rate: npt.ArrayLike, where: str) -> str:
    """Return the JSON text of the schedule that has these rates (T,), one a step.

    Raises
    ------
    TableError
        If a rate is none.
    """
    try:
        return _schedule(np.asarray(rate, dtype=np.float64)).to_json()
    except ScheduleError as bad:
        raise TableError(f"{where}: {bad}") from None


def _schedule(rate: FloatArray) -> Schedule:
    """Return the schedule with exactly these rates: of a standard family if there is one, else an array."""
    array = from_array(rate)
    family = recognise(np.arange(len(rate), dtype=np.float64), rate, len(rate))
    return family if family is not None and np.array_equal(family.array(), array.array()) else array
