"""A fitted rival law (`optlaws.baselines`) in a law file, with what ranking and prediction need of a `Law`.

A rival law predicts a loss and nothing else. Its intervals come from residuals: groups of runs are left out in turn,
the law is fitted to the rest, and loss / prediction of these runs make the interval (`tails`); where no group can be
left out they are those of the training runs themselves, which is optimistic, and the file says so. Errors of two runs
are taken as independent, so that a difference of two candidates is less sure than either loss.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optlaws._version import __version__
from optlaws.baselines import get_baseline
from optlaws.baselines.base import DERIVED, FloatArray, column, not_above_zero, usable
from optlaws.errors import FitError, InputError, LawError, OptlawsError
from optlaws.law.entries import number, ranges
from optlaws.law.groups import group_labels
from optlaws.law.model import SLACK, UNITS, in_domain_text, rows_of_steps
from optlaws.runs import CurveTable, RunTable

KIND = "baseline"
TAIL = 0.05
GROUPS = 6  # neighbours are put together until there are no more groups than this
READINGS = 40  # of a curve, evenly spread, whose residuals count
SHOWN = 12  # parameters named in a text
LARGEST_RESIDUAL = 100.0  # of ln loss in a law file: intervals of more run out of range
GROUP_COLUMNS = ("params", "tokens", "steps", "peak_lr", "batch_tokens")


@dataclass(frozen=True)
class BaselinePrediction:
    """Predictions of a rival law for n points, as `optlaws.law.Prediction`; all error is noise, independent."""

    loss: FloatArray
    sd: FloatArray
    lower: FloatArray
    upper: FloatArray
    noise: FloatArray
    in_domain: np.ndarray
    reasons: Sequence[str]
    assumed: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.loss)

    def covariance(self, i: Any) -> FloatArray:
        """Return zeros (m, m): the expected losses are taken as known, all error is in `noise`."""
        count = np.arange(len(self))[i].size
        return np.zeros((count, count))


@dataclass(frozen=True)
class BaselineFit:
    """A rival law, its residuals, the range of its training runs.

    Attributes
    ----------
    name : str
    law : BaselineLaw
        The fitted rival.
    residuals : mapping
        `lower`, `upper`: 5 and 95 % points of ln(loss / prediction) of a new run; `sd`: root mean square of what was
        left out, so that a law that is wrong on average is not called sure; `from`: what they are residuals of.
    domain : dict of (lowest, highest)
    info : dict
        Number and digest of the runs, left-out errors, source and formula of the law, versions.
    """

    name: str
    law: Any
    residuals: Mapping[str, Any]
    domain: Mapping[str, tuple[float, float]]
    info: Mapping[str, Any]
    defaults: Mapping[str, float] = field(default_factory=dict)

    @property
    def basis_id(self) -> str:
        """What stands for a basis in listings."""
        return f"none (rival law {self.law.name})"

    @property
    def has_curves(self) -> bool:
        """Whether the law predicts losses along a run."""
        return hasattr(self.law, "predict_curve")

    @property
    def blind(self) -> str:
        """What a law that does not look at the schedule looks at, in words; "" where it does."""
        if "schedule" in self.law.needs:
            return ""
        *first, last = self.law.needs
        seen = f"{', '.join(first)} and {last}" if first else last
        return f"law {self.name!r} looks only at {seen}"

    def parameters_text(self) -> str:
        """Return the parameters in words, the first dozen of them."""
        values = self.law.parameters()
        shown = ", ".join(f"{key} {value:.6g}" for key, value in list(values.items())[:SHOWN])
        return shown + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")

    def save(self, path: Any) -> None:
        """Write the law as one JSON file."""
        from optlaws.law.store import write_document

        write_document(self.to_dict(), path)

    def to_dict(self) -> dict[str, Any]:
        """Return the law as plain numbers, lists and texts."""
        from optlaws.law.store import FORMAT, VERSION

        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": KIND,
            "name": self.name,
            "law": self.law.name,
            "parameters": self.law.parameters(),
            "residuals": dict(self.residuals),
            "domain": {key: list(value) for key, value in self.domain.items()},
            "info": dict(self.info),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BaselineFit:
        """Return the law of a law file's content.

        Raises
        ------
        LawError
            The law is not known here, or a parameter that must be above 0 is not.
        KeyError, TypeError, ValueError
            An entry is missing or damaged.
        """
        kind = get_baseline(data["law"])
        values = {key: number(value, f"parameters.{key}") for key, value in data["parameters"].items()}
        make = getattr(kind, "from_parameters", None)
        law = make(values) if make else kind(**values)
        wrong = not_above_zero(law)
        if wrong:
            raise LawError(f"{wrong}; fit it again with `optlaws fit`")
        residuals = {
            key: number(data["residuals"][key], f"residuals.{key}", -LARGEST_RESIDUAL, LARGEST_RESIDUAL)
            for key in ("lower", "upper", "sd")
        }
        if residuals["lower"] > residuals["upper"] or residuals["sd"] <= 0:
            raise ValueError("residuals must have lower at most upper, and sd above 0")
        if not isinstance(data["name"], str):
            raise TypeError(f"name must be text, got {data['name']!r}")
        origin = {"from": str(data["residuals"]["from"])}
        return cls(data["name"], law, {**residuals, **origin}, ranges(data["domain"]), dict(data["info"]))

    def predict(self, runs: RunTable, *, threads: int | None = None) -> BaselinePrediction:
        """Predict the loss at the end of every run; `threads` changes nothing.

        Raises
        ------
        LawError
            The law predicts no losses, or a run lacks a column that it needs.
        """
        return self._around(self.expected_loss(runs), runs)

    def expected_loss(self, runs: RunTable, *, threads: int | None = None) -> FloatArray:
        """Return the predicted losses alone, shape (n,)."""
        self._need("predict", "final losses")
        return np.asarray(self.law.predict(runs), dtype=np.float64)

    def predict_curve(self, runs: RunTable, steps: Any) -> BaselinePrediction:
        """Predict the losses of runs after the given numbers of updates, run by run; `steps` as for `Law`.

        Raises
        ------
        LawError
            The law predicts no curves, or a run lacks a column that it needs.
        InputError
            `steps` is neither one row of numbers nor one row for each run.
        """
        self._need("predict_curve", "losses along a run")
        every = rows_of_steps(steps, len(runs))
        parts = [
            np.asarray(self.law.predict_curve(runs.select([i]), at), dtype=np.float64) for i, at in enumerate(every)
        ]
        index = np.repeat(np.arange(len(runs)), [len(at) for at in every])
        return self._around(np.concatenate(parts), runs, index)

    def _need(self, method: str, what: str) -> None:
        if hasattr(self.law, method):
            return
        offers = {
            "recommend": "advises peak rates or batches",
            "allocate": "divides compute",
            "predict": "predicts final losses",
        }
        does = " and ".join(text for key, text in offers.items() if hasattr(self.law, key))
        raise LawError(f"law {self.name!r} ({self.law.name}) {does} but predicts no {what}; choose another law")

    def _around(self, loss: FloatArray, runs: RunTable, index: np.ndarray | None = None) -> BaselinePrediction:
        """Return the losses with their intervals."""
        r = self.residuals
        inside, reasons = self._domain_check(runs)
        if index is not None:
            inside, reasons = inside[index], [reasons[i] for i in index]
        sd = r["sd"] * loss
        return BaselinePrediction(loss, sd, loss * np.exp(r["lower"]), loss * np.exp(r["upper"]), sd, inside, reasons)

    def _domain_check(self, runs: RunTable) -> tuple[np.ndarray, list[str]]:
        """Return which runs lie in the range of the training runs, and why the others do not."""
        texts: list[list[str]] = [[] for _ in range(len(runs))]
        for name, (low, high) in self.domain.items():
            values = column(runs, name)
            for i in np.flatnonzero((values < low / SLACK) | (values > high * SLACK)):
                word, edge, far = ("below", low, "lowest") if values[i] < low else ("above", high, "highest")
                value, end = (in_domain_text(name, x) for x in (values[i], edge))
                texts[i].append(f"{name} {value} {word} {end}, the {far} in training")
        return np.array([not text for text in texts], dtype=bool), ["; ".join(text) for text in texts]


def fit_baseline(
    kind: str,
    runs: RunTable,
    curves: CurveTable | None = None,
    *,
    group: str | None = None,
    name: str | None = None,
    seed: int = 0,
) -> BaselineFit:
    """Fit a rival law and measure its residuals with groups left out.

    Parameters
    ----------
    kind : str
        Its name, see `optlaws.baselines.baseline_names`.
    runs, curves
        As for `fit_law`.
    group : str, optional
        Column whose groups are left out in turn; default: size, else data, steps, peak rate or batch, whichever varies
        first, neighbours together. With curves nothing is left out: residuals are then those of the curves fitted.
    name : str, optional
        Of the law; default: `kind`.
    seed : int
        Of the starts that are drawn, 0 or more.

    Raises
    ------
    LawError, FitError
        No such law, runs that it cannot be fitted to, or a group column with an empty cell or one value only.
    TableError
        There is no column `group`.
    InputError
        A name that is no text.
    """
    if name is not None and not isinstance(name, str):
        raise InputError(f"name must be text, got {name!r}; leave it out for the law's own")
    law_class = get_baseline(kind)
    law = law_class.fit(runs, curves, seed=seed)
    for key, value in law.parameters().items():
        if not np.isfinite(value):
            raise FitError(
                f"{key} of law {kind!r} must come out as a finite number, got {value:g}: these runs do not tell it;"
                " add runs of other sizes, lengths or rates, or choose another law"
            )
    wrong = not_above_zero(law)
    if wrong:
        raise FitError(
            f"{wrong}: these runs do not follow the law; add runs of other sizes, lengths or rates, or choose another"
        )
    kept = runs.select(usable(runs))
    left_out, errors = _left_out(law_class, kept, group, seed) if curves is None else (np.empty(0), {})
    residuals, origin = left_out, "groups left out"
    if len(residuals) < 2 and hasattr(law, "predict"):
        residuals, origin = _training(law, kept, runs, curves), "the training runs themselves, which is optimistic"
    if not hasattr(law, "predict"):
        origin = "nothing: the law predicts no losses"
    low, high = tails(residuals)
    sd = max(float(np.sqrt((residuals**2).mean())), 1e-9) if len(residuals) else 1e-9
    info: dict[str, Any] = {
        "n_runs": len(kept),
        "n_curves": 0 if curves is None else len(set(curves.run_id) & set(runs.run_id)),
        "n_left_out": len(runs) - len(kept),
        "digest": runs.digest(),
        "sources": sorted({s for s in runs.source if s}),
        "leave_group_out": errors,
        "formula": law.formula,
        "parameters": law.parameters(),
        "versions": {"optlaws": __version__, "numpy": np.__version__, "python": platform.python_version()},
    }
    quantities = [name for name in dict.fromkeys((*law.needs, "peak_lr", "steps")) if name in (*DERIVED, *UNITS)]
    domain = {}
    for quantity in quantities:
        values = column(runs if curves is not None else kept, quantity)
        if np.isfinite(values).all() and len(values):
            domain[quantity] = (float(values.min()), float(values.max()))
    about: dict[str, Any] = {"lower": low, "upper": high, "sd": sd, "from": origin}
    fitted = BaselineFit(name or kind, law, about, domain, info)
    info["notes"] = f"{law.formula}, with {fitted.parameters_text()}; {law.source}; intervals from {origin}"
    return fitted


def tails(residuals: FloatArray) -> tuple[float, float]:
    """Return what a new residual lies below, and above, with a chance of 5 % each.

    Of n residuals, shape (n,), those with the ranks k and n + 1 - k, k = 0.05 (n + 1) rounded down: one more of the
    same kind lies outside of them with a chance of at most 2 k / (n + 1), whatever their distribution (order
    statistics; Vovk et al., Algorithmic Learning in a Random World, 2005). Fewer than 19 have no such rank: then
    Student's t interval about 0 with n degrees of freedom, which is exact for normal ones. Without any: (0, 0).
    """
    from scipy.special import stdtrit

    count = len(residuals)
    if not count:
        return 0.0, 0.0
    rank = int(TAIL * (count + 1) + 1e-9)
    if rank:
        ordered = np.sort(residuals)
        return float(ordered[rank - 1]), float(ordered[count - rank])
    half = float(stdtrit(count, 1.0 - TAIL) * np.sqrt((residuals**2).mean()))
    return -half, half


def _groups(runs: RunTable, group: str | None) -> tuple[str, np.ndarray] | None:
    """Return what is left out in turn, and the runs' labels 0, 1, ... (n,); None if nothing varies."""
    if group is not None:
        return group, np.unique(group_labels(runs, group), return_inverse=True)[1]
    for name in GROUP_COLUMNS:
        values = column(runs, name)
        if not np.isfinite(values).all():
            continue
        levels, label = np.unique(values, return_inverse=True)
        if len(levels) > GROUPS:
            label = label * GROUPS // len(levels)
        if len(levels) > 1:
            return name, label
    return None


def _left_out(kind: Any, runs: RunTable, group: str | None, seed: int) -> tuple[FloatArray, dict[str, Any]]:
    """Return ln(loss / prediction) of runs whose group was left out, and a summary by the partition's name."""
    found = _groups(runs, group)
    if found is None or not hasattr(kind, "predict"):
        return np.empty(0), {}
    name, label = found
    parts = []
    for value in np.unique(label):
        held = label == value
        try:
            law = kind.fit(runs.select(~held), seed=seed)
            parts.append(np.log(runs.final_loss[held] / law.predict(runs.select(held))))
        except OptlawsError:  # too little is left without this group
            continue
    residuals = np.concatenate(parts) if parts else np.empty(0)
    residuals = residuals[np.isfinite(residuals)]
    if len(residuals) < 2:
        return np.empty(0), {}
    error = 100 * np.abs(np.expm1(-residuals))
    return residuals, {
        name: {"mean_error_pct": float(error.mean()), "max_error_pct": float(error.max()), "n_runs": len(residuals)}
    }


def _training(law: Any, kept: RunTable, runs: RunTable, curves: CurveTable | None) -> FloatArray:
    """Return ln(loss / prediction) of the training runs, or of their curves."""
    if curves is None or not hasattr(law, "predict_curve"):
        residuals = np.log(kept.final_loss / law.predict(kept)) if len(kept) else np.empty(0)
    else:
        row_of, parts = {name: i for i, name in enumerate(runs.run_id)}, []
        for name, index in curves.runs().items():
            rows = index[(curves.step[index] > 0) & np.isfinite(curves.loss[index])]
            if name not in row_of or len(rows) < 2:
                continue
            rows = rows[len(rows) // 4 :]  # what comes after the warm-up
            rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(READINGS, len(rows))).astype(int))]
            predicted = law.predict_curve(runs.select([row_of[name]]), curves.step[rows])
            parts.append(np.log(curves.loss[rows] / predicted))
        residuals = np.concatenate(parts) if parts else np.empty(0)
    return np.asarray(residuals[np.isfinite(residuals)])
