"""What every rival law offers, and what their fits share.

A rival law is a frozen dataclass of its parameters with class attributes that say where it comes from. All laws have
`fit` and `parameters`; a law of the loss has `predict`, one of whole curves `predict_curve`, one that advises a peak
rate or a batch size `recommend`. Losses are in nats per token, parameters N without embeddings, data D and batches B in
tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from inspect import signature
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from optlaws.errors import FitError, InputError, LawError
from optlaws.runs import CurveTable, RunTable

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[str], None]
"""Called with a word on every step of a long search; it changes nothing."""
HUBER = 1e-3
"""Huber threshold on log losses that Chinchilla and the Multi-Power Law use."""

DERIVED = ("params", "tokens", "batch_tokens", "peak_lr", "steps")
"""Columns that `column` knows beside those of a run table: `params` is per token, `peak_lr` is the schedule's."""


class Advice(NamedTuple):
    """What a law advises for one run: highest rate, and batch size in tokens; NaN where the law says nothing of it."""

    peak_lr: float
    batch_tokens: float


@runtime_checkable
class BaselineLaw(Protocol):
    """A rival law.

    Attributes
    ----------
    name : its name in the registry.
    source : citation with arXiv id and equation.
    formula : in plain text.
    needs : columns of a run table that it needs, such as ("params", "tokens"); "schedule" where it reads the schedule,
        "curves" where it is fitted on curves only.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    formula: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    @classmethod
    def fit(cls, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, starts: int = 0) -> Self:
        """Fit the law to completed runs (and curves), from `starts` starts where the fit is a search.

        0 leaves their number to the law: all of its grid where it has one (Chinchilla, Kaplan, data-constrained and
        critical batch, which by default draw some hundreds of it), else the default.

        Laws that search from many starts take `progress`, a `Progress`, as well: see `fit_kind`.

        Raises
        ------
        FitError
            There are too few completed runs or readings, or they do not tell the law.
        LawError
            A run lacks a column of `needs`.
        """
        ...

    def parameters(self) -> dict[str, float]:
        """Return the parameters by name.

        `type(law)(**parameters)` is the same law; for a law with `from_parameters` (quadratic, cubic_ridge, whose
        number of coefficients is not fixed) it is `type(law).from_parameters(parameters)`.
        """
        ...


@runtime_checkable
class LossLaw(BaselineLaw, Protocol):
    """A law that predicts final losses."""

    def predict(self, runs: RunTable) -> FloatArray:
        """Return final losses, shape (n,), nats per token.

        Raises
        ------
        LawError
            A run lacks a column of `needs`.
        TableError
            The law reads schedules and the table holds a `ScheduleBatch`.
        """
        ...


@runtime_checkable
class CurveLaw(LossLaw, Protocol):
    """A law that predicts losses along a run."""

    def predict_curve(self, runs: RunTable, steps: FloatArray) -> FloatArray:
        """Return the losses of one run after the given numbers of updates, nats per token, shape of `steps`.

        Parameters
        ----------
        runs
            A table of one row.
        steps : ndarray
            Whole numbers, 1 .. T, in any order.

        Raises
        ------
        InputError
            The table has not one row, or a step lies outside 1 .. T or is not whole.
        TableError
            The table holds a `ScheduleBatch`, whose schedules have no objects.
        """
        ...


class Parametric:
    """Gives a dataclass of numbers `parameters`.

    Attributes
    ----------
    above_zero : parameters without a meaning unless above 0: exponents of terms that fall, scales, time constants.
    box : lowest and highest value that the fit's search can reach, by parameter, where it is bounded.
    idle : parameters that have no part in a law of some tables, one of a single size say, and may then be anything.
    """

    above_zero: ClassVar[tuple[str, ...]] = ()
    box: ClassVar[Mapping[str, tuple[float, float]]] = {}
    idle: ClassVar[tuple[str, ...]] = ()

    def parameters(self) -> dict[str, float]:
        """Return the parameters by name."""
        return {field.name: float(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]


def fit_kind(
    kind: Any, runs: RunTable, curves: CurveTable | None = None, *, seed: int = 0, progress: Progress | None = None
) -> Any:
    """Return a law of a kind fitted to runs; `progress` is told of its starts, if it searches from many.

    Raises
    ------
    FitError, LawError
        As for the kind's `fit`.
    """
    told = {"progress": progress} if "progress" in signature(kind.fit).parameters else {}
    return kind.fit(runs, curves, seed=seed, **told)


def in_order(runs: RunTable) -> RunTable:
    """Return the runs by loss, size, length, batch and schedule, whatever order they were given in.

    Fits are given this order (`training`, `gather`): where runs hardly tell a law, its search ends elsewhere from
    another order of the rows.
    """
    peak = column(runs, "peak_lr")
    numbers = (peak, runs.batch_tokens, runs.tokens, runs.steps, runs.size, runs.final_loss)
    texts = [schedule.to_json() for schedule in runs.schedules] if isinstance(runs.schedules, tuple) else []
    place = {text: i for i, text in enumerate(sorted(set(texts)))}
    last = np.array([place[text] for text in texts] or np.zeros(len(runs)), dtype=np.intp)
    return runs.select(np.lexsort((last, *(np.nan_to_num(values) for values in numbers))))


def not_above_zero(law: Any) -> str:
    """Return what is wrong with the first parameter that must be above 0 and is not, "" if none is."""
    for name in getattr(law, "above_zero", ()):
        if not getattr(law, name) > 0:
            return f"{name} of law {law.name!r} must be above 0, got {getattr(law, name):g}"
    return ""


def usable(runs: RunTable) -> npt.NDArray[np.bool_]:
    """Return which runs were completed (or do not say) with a finite loss, shape (n,)."""
    done = np.array([status in (None, "completed") for status in runs.status], dtype=bool)
    return np.asarray(done & np.isfinite(runs.final_loss))


def column(runs: RunTable, name: str) -> FloatArray:
    """Return a number of every run, shape (n,), NaN = missing: one of `DERIVED`, or a number column of the table.

    Raises
    ------
    TableError
        There is no such column.
    """
    if name == "params":
        return runs.size
    if name == "peak_lr":
        return np.asarray(runs.batch().peak, dtype=np.float64)
    return np.asarray(runs.column(name), dtype=np.float64)


def columns(law: Any, runs: RunTable, names: Sequence[str] | None = None) -> list[FloatArray]:
    """Return the columns that a law needs, each of shape (n,), all finite and above 0.

    Raises
    ------
    LawError
        A run lacks one.
    """
    found = []
    for name in law.needs if names is None else names:
        values = column(runs, name)
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if len(bad):
            raise LawError(
                f"{name} must be a finite number above 0 for law {law.name!r}, got {values[bad[0]]:g} in run"
                f" {runs.run_id[bad[0]]!r}; fill it, drop the run, or choose another law"
            )
        found.append(values)
    return found


def check_points(**arrays: FloatArray) -> None:
    """Refuse the points of a fit unless their columns are lists (m,), m >= 1, of finite numbers above 0.

    Raises
    ------
    InputError
        They are not, or differ in length.
    """
    shapes = {name: np.shape(values) for name, values in arrays.items()}
    if len(set(shapes.values())) > 1 or not all(len(shape) == 1 and shape[0] for shape in shapes.values()):
        got = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InputError(
            f"{', '.join(shapes)} must be lists of one length, at least 1, got shapes {got}; give one a run"
        )
    for name, values in arrays.items():
        array = np.asarray(values, dtype=np.float64)
        bad = np.flatnonzero(~(np.isfinite(array) & (array > 0)))
        if len(bad):
            raise InputError(
                f"{name} must be finite numbers above 0, got {array[bad[0]]:g} at place {bad[0]}; drop that point"
            )


def completed(law: Any, runs: RunTable, fewest: int) -> RunTable:
    """Return the runs that a law may be fitted on, as they come.

    Raises
    ------
    FitError
        There are fewer than `fewest`.
    """
    kept = runs.select(usable(runs))
    if len(kept) < fewest:
        noun = "run" if fewest == 1 else "runs"
        raise FitError(
            f"law {law.name!r} needs at least {fewest} completed {noun} with a finite final_loss, got {len(kept)}"
            f" of {len(runs)}; add runs"
        )
    return kept


def training(law: Any, runs: RunTable, fewest: int) -> RunTable:
    """Return the runs of `completed` in an order of their own (`in_order`), for laws whose fit is a search.

    Raises
    ------
    FitError
        As there.
    """
    return in_order(completed(law, runs, fewest))
