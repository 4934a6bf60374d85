"""A comparison of a prediction with a simulation, and the rules by which it passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
SIGMAS = 3.0  # standard errors that a simulation may be away
RULES = {
    "3 se": "|simulated - predicted| <= 3 se",
    "order": "|simulated - predicted| <= 3 se + allowance of the stated order",
    "bound": "simulated <= predicted + 3 se + allowance of the stated order",
    "differs": "|simulated - predicted| > 3 se + allowance: a stated failure of the prediction",
}


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes
    ----------
    what : str
        The quantity and its setting.
    predicted : float
        By the theory, where there is one by `optlaws`.
    simulated : float
        Estimate from the simulation.
    error : float
        Standard error of `simulated`, at least 0.
    rule : str
        One of `RULES`.
    allowance : float
        Size of the terms that the approximation leaves out, in the unit of the quantity, at least 0.
    """

    what: str
    predicted: float
    simulated: float
    error: float
    rule: str = "3 se"
    allowance: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the comparison holds by its rule; never for a number that is not finite."""
        if not np.isfinite([self.predicted, self.simulated, self.error, self.allowance]).all():
            return False
        difference, noise = self.simulated - self.predicted, SIGMAS * self.error
        if self.rule == "bound":
            return difference <= noise + self.allowance
        if self.rule == "differs":
            return abs(difference) > noise + self.allowance
        return abs(difference) <= noise + (self.allowance if self.rule == "order" else 0.0)


@dataclass(frozen=True)
class Check:
    """A Monte-Carlo check.

    Attributes
    ----------
    name : str
        Short name, for the command line.
    claim : str
        What is compared with what, and the terms left out.
    run : callable
        () -> rows, seeded, with the sizes of the command line.
    """

    name: str
    claim: str
    run: Callable[[], list[Row]]


def mean_row(
    what: str, predicted: float, samples: FloatArray, rule: str = "3 se", allowance: float = 0.0, scale: float = 1.0
) -> Row:
    """Return the comparison of a mean of independent samples, shape (m,), with its prediction, both times `scale`."""
    error = float(samples.std(ddof=1) / np.sqrt(len(samples)))
    return Row(what, scale * predicted, scale * float(samples.mean()), scale * error, rule, scale * allowance)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text: predicted, simulated, standard error, distance in standard errors, rule, outcome."""
    wide = max(len(row.what) for row in rows)
    lines = [f"{'':{wide}}  {'predicted':>11} {'simulated':>11} {'se':>9} {'z':>7}  {'rule':<7} {'allowance':>9}"]
    for row in rows:
        z = (row.simulated - row.predicted) / row.error if row.error > 0 else np.nan
        allowance = f"{row.allowance:9.2g}" if row.allowance > 0 else " " * 9
        lines.append(
            f"{row.what:{wide}}  {row.predicted:11.5g} {row.simulated:11.5g} {row.error:9.2g} {z:7.1f}"
            f"  {row.rule:<7} {allowance}  {'ok' if row.passed else 'FAILED'}"
        )
    return "\n".join(lines)
