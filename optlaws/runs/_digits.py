"""How far logged numbers may be off for the digits that they were written with."""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from optlaws.runs._checks import FloatArray

FEWEST_DIGITS, MOST_DIGITS = 4, 15  # of a log that was rounded; fewer say too little, more are not rounded
FEWEST_VALUES = 2  # that differ: one does not show how it was rounded


def rounding(values: FloatArray) -> FloatArray | None:
    """Return half a unit of the last digit of rounded numbers, (n,), None where it is not seen that they were.

    A log rounds to significant digits or to places after the point. The most that occur of either are the log's, and of
    the two the one that more of its numbers have in full, where there is such a one.

    Examples
    --------
    >>> rounding(np.array([1.2345, 12.346, 1.4448, 1.5559, 1.6661, 1.7772, 1.8883, 0.99994]))[:2].round(9).tolist()
    [5e-05, 0.0005]
    """
    known = [Decimal(repr(value)).normalize().as_tuple() for value in np.unique(values[values > 0]).tolist()]
    if len(known) < FEWEST_VALUES:
        return None
    digits = [len(number.digits) for number in known]
    places = [-int(number.exponent) for number in known]
    most, last = max(digits), max(places)
    if not FEWEST_DIGITS <= most <= MOST_DIGITS:
        return None
    of_places = np.full(len(values), 0.5 * 10.0**-last)
    if places.count(last) > digits.count(most):
        return of_places
    exponents = np.floor(np.log10(np.where(values > 0, values, 1.0)) + 1e-12)
    of_digits = np.where(values > 0, 0.5 * 10.0 ** (exponents - most + 1), 0.0)
    return of_digits if digits.count(most) > places.count(last) else np.maximum(of_places, of_digits)
