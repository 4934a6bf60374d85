"""A fitted rival law (`optlaws.baselines`) in a law file, with what ranking and prediction need of a `Law`.

A rival law predicts a loss and nothing else. Its intervals come from residuals: groups of runs are left out in turn,
the law is fitted to the rest, and loss / prediction of these runs make the interval (`tails`); where no group can be
left out they are those of the training runs themselves, which is optimistic, and the file says so.

Residuals of left-out groups are split into what the runs of a group share (the law is wrong about this size, say) and
what each run has of its own (`shared_and_own`). Candidates that would have been left out together, those with the same
value of the column whose groups were left out, share the former: it drops out of their differences. Between candidates
of different values it is drawn anew, because that is what leaving groups out has measured; and where a candidate does
not say its value, all candidates are taken to be of one unknown group. Residuals of training runs are not split: a law
fitted to a group has no error in common with it that these could show.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optlaws._entries import number, ranges
from optlaws._normal import NORMAL_90
from optlaws._ranges import outside
from optlaws.baselines import get_baseline
from optlaws.baselines._readings import logged
from optlaws.baselines.advice import bootstrap
from optlaws.baselines.base import DERIVED, FloatArray, Progress, column, fit_kind, not_above_zero, usable
from optlaws.errors import FitError, InputError, LawError
from optlaws.law.baseline_residuals import left_out_residuals, said, training_residuals
from optlaws.law.domain import UNITS, in_domain_text, rows_of_steps, schedules_seen
from optlaws.law.doubts import doubts, doubts_warning, unlike, unseen
from optlaws.law.residuals import (
    Parts,
    same_level,
    shared_and_own,
    tails,
    versions,
)
from optlaws.runs import CurveTable, RunTable, check_fitted, check_losses, check_runs

KIND = "baseline"
SHOWN = 12  # parameters named in a text
LARGEST_RESIDUAL = 100.0  # of ln loss in a law file: intervals of more run out of range
LEAST_SD = 1e-9  # of a residual
DRAW_FIGURES = 6


@dataclass(frozen=True, eq=False)
class BaselinePrediction:
    """Predictions of a rival law for n points, as `optlaws.law.Prediction`.

    Attributes
    ----------
    loss, sd, lower, upper, noise, in_domain, reasons, assumed
        As there; `noise` is what a run's error has of its own.
    shared_sd : float
        Relative standard deviation of the error that points of one level share.
    level : (n,) labels
        None: all are of one.
    factor : float, optional
        Half-widths per standard deviation of the intervals of differences, which lack the few groups' errors that the
        tails of single losses are made of. None: as single losses.
    """

    loss: FloatArray
    sd: FloatArray
    lower: FloatArray
    upper: FloatArray
    noise: FloatArray
    in_domain: np.ndarray
    reasons: Sequence[str]
    assumed: Mapping[str, float] = field(default_factory=dict)
    shared_sd: float = 0.0
    level: np.ndarray | None = None
    factor: float | None = None

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.loss)

    def covariance(self, i: Any) -> FloatArray:
        """Return the joint covariance of the expected losses of points i, shape (m, m), nats^2, run noise left out.

        `i` is a place, places, a mask (n,) or a slice.
        """
        rows = np.atleast_1d(np.arange(len(self))[i])
        return self._cross(rows[:, None], rows)

    def covariance_with(self, j: int, rows: Any = None) -> FloatArray:
        """Return the covariances of expected losses (all, or those of `rows`) with that of point j, nats^2."""
        every = np.arange(len(self))
        return self._cross(every if rows is None else every[rows], every[j])

    def _cross(self, a: Any, b: Any) -> FloatArray:
        """Return the covariances of points a and b, which are broadcast against each other."""
        together = True if self.level is None else self.level[a] == self.level[b]
        return np.asarray(self.shared_sd**2 * self.loss[a] * self.loss[b] * together)


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
        left out, so that a law that is wrong on average is not called sure; `shared_sd`, `own_sd`: its parts, of what
        runs with the same value of the column `by` share ("": all runs), and of each run's own; `own_factor`: standard
        deviations on either side of a 90 % interval of the latter's differences; `from`: what they are residuals of. In
        files from before the split nothing is shared.
    domain : dict of (lowest, highest)
    info : dict
        Number and digest of the runs, left-out errors, source and formula of the law, versions; `doubts`, in words;
        `unseen`, by column lowest, median and highest value in training of what the law does not look at.
    draws : sequence of BaselineLaw
        The law fitted to bootstrap samples of the runs, for laws that have a `band`: how sure their advice is.
    """

    name: str
    law: Any
    residuals: Mapping[str, Any]
    domain: Mapping[str, tuple[float, float]]
    info: Mapping[str, Any]
    defaults: Mapping[str, float] = field(default_factory=dict)
    draws: Sequence[Any] = ()

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
            **({"draws": [list(law.parameters().values()) for law in self.draws]} if self.draws else {}),
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
            raise TypeError(f"name must be text, got {data['name']!r:.40}")
        given = data["residuals"]
        for key, usual in (("shared_sd", 0.0), ("own_sd", residuals["sd"])):
            residuals[key] = number(given.get(key, usual), f"residuals.{key}", 0.0, LARGEST_RESIDUAL)
        if (
            abs(residuals["shared_sd"] ** 2 + residuals["own_sd"] ** 2 - residuals["sd"] ** 2)
            > 1e-6 * residuals["sd"] ** 2
        ):
            raise ValueError("the squares of shared_sd and own_sd must add up to that of sd")
        residuals["own_factor"] = number(
            given.get("own_factor", NORMAL_90), "residuals.own_factor", 0.0, LARGEST_RESIDUAL
        )
        by = given.get("by", "")
        if not isinstance(by, str):
            raise TypeError(f"residuals.by must be text, got {by!r:.40}")
        about = {**residuals, "by": by, "from": str(given["from"])}
        draws = _read_draws(data.get("draws", []), make or (lambda row: kind(**row)), list(values))
        return cls(data["name"], law, about, ranges(data["domain"]), dict(data["info"]), draws=draws)

    def predict(self, runs: RunTable, *, threads: int | None = None) -> BaselinePrediction:
        """Predict the loss at the end of every run; `threads` changes nothing.

        Raises
        ------
        InputError
            `runs` is no run table.
        LawError
            The law predicts no losses, or a run lacks a column that it needs.
        """
        return self._around(self.expected_loss(runs), runs)

    def expected_loss(self, runs: RunTable, *, threads: int | None = None) -> FloatArray:
        """Return the predicted losses alone, shape (n,)."""
        self._need("predict", "final losses")
        return np.asarray(self.law.predict(check_runs(runs)), dtype=np.float64)

    def predict_curve(self, runs: RunTable, steps: Any) -> BaselinePrediction:
        """Predict the losses of runs after the given numbers of updates, run by run; `steps` as for `Law`.

        Raises
        ------
        LawError
            The law predicts no curves, or a run lacks a column that it needs.
        InputError
            `runs` is no run table, or `steps` is neither one row of numbers nor one row for each run.
        """
        self._need("predict_curve", "losses along a run")
        every = rows_of_steps(steps, len(check_runs(runs)))
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
        level = same_level(runs, r["by"]) if r["by"] else np.zeros(len(runs), dtype=np.intp)
        if index is not None:
            inside, reasons, level = inside[index], [reasons[i] for i in index], level[index]
        ends = np.exp([min(r["lower"], 0.0), max(r["upper"], 0.0)])  # an interval holds its own prediction
        return BaselinePrediction(
            loss, r["sd"] * loss, loss * ends[0], loss * ends[1], r["own_sd"] * loss,
            inside, reasons, shared_sd=r["shared_sd"], level=level,
            factor=r["own_factor"] if r["shared_sd"] else None,
        )  # fmt: skip

    def _domain_check(self, runs: RunTable) -> tuple[np.ndarray, list[str]]:
        """Return which runs lie in the range of the training runs, and why the others do not."""
        texts: list[list[str]] = [[] for _ in range(len(runs))]
        for name, (low, high) in self.domain.items():
            values = column(runs, name)
            for i in outside(values, low, high).tolist():
                word, edge, far = ("below", low, "lowest") if values[i] < low else ("above", high, "highest")
                value, end = (in_domain_text(name, x) for x in (values[i], edge))
                texts[i].append(f"{name} {value} {word} {end}, the {far} in training")
        for name, seen in self.info.get("unseen", {}).items():
            for text, value in zip(texts, column(runs, name).tolist(), strict=True):
                if reason := unlike(name, value, seen):
                    text.append(reason)
        return np.array([not text for text in texts], dtype=bool), ["; ".join(text) for text in texts]


def fit_baseline(
    kind: str,
    runs: RunTable,
    curves: CurveTable | None = None,
    *,
    group: str | None = None,
    name: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
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
        Of the starts that are drawn, and of the bootstrap samples of a law with a band; 0 or more.
    progress : callable, optional
        Called with a word at every start and every fit; it changes nothing.

    Raises
    ------
    LawError, FitError
        No such law, runs that it cannot be fitted to, or a group column with an empty cell or one value only.
    TableError
        There is no column `group`.
    InputError
        A name that is no text.

    Warns
    -----
    OptlawsWarning
        What makes the law doubtful (`optlaws.law.doubts`): left-out groups that it does not predict, constants without
        a part in it, terms that the runs do not determine, rates tried on one side of the best only, sizes that it does
        not look at. `info["doubts"]` too.
    """
    if name is not None and not isinstance(name, str):
        raise InputError(f"name must be text, got {name!r}; leave it out for the law's own")
    law_class = get_baseline(kind)
    check_fitted(check_runs(runs))
    if (keep := usable(runs)).any():
        check_losses(runs.final_loss[keep])
    law = fit_kind(law_class, runs, curves, seed=seed, progress=said("all runs", progress))
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
    left_out = left_out_residuals(law_class, kept, group, seed, progress) if curves is None else None
    if left_out is not None:
        residuals, origin = left_out.residuals, "groups left out"
        label = left_out.label
    else:
        residuals, origin = np.empty(0), "the training runs themselves, which is optimistic"
        if hasattr(law, "predict"):
            residuals = training_residuals(law, kept, runs, curves)
        label = np.arange(len(residuals))
    if not hasattr(law, "predict"):
        origin = "nothing: the law predicts no losses"
    low, high = tails(residuals)
    sd = max(float(np.sqrt((residuals**2).mean())), LEAST_SD) if len(residuals) else LEAST_SD
    info: dict[str, Any] = {
        "n_runs": len(kept),
        "n_curves": 0 if curves is None else len(set(curves.run_id) & set(runs.run_id)),
        "n_left_out": len(runs) - len(kept),
        "digest": runs.digest(),
        "sources": sorted({s for s in runs.source if s}),
        "leave_group_out": {} if left_out is None else {left_out.by: left_out.errors},
        "left_out_groups": {} if left_out is None else {left_out.by: left_out.groups},
        "formula": law.formula,
        "parameters": law.parameters(),
        "versions": versions(),
        "schedules": schedules_seen(kept if curves is None else runs),
    }
    used = kept if curves is None else runs.select(logged(runs, curves))
    info["unseen"] = unseen(law, used)
    by, groups = ("", {}) if left_out is None else (left_out.by, left_out.means)
    info["doubts"] = doubts(law, used, groups, by)
    if info["doubts"]:
        warnings.warn(doubts_warning(law, info["doubts"]), stacklevel=2)
    quantities = [name for name in dict.fromkeys((*law.needs, "peak_lr", "steps")) if name in (*DERIVED, *UNITS)]
    domain = {}
    for quantity in quantities:
        values = column(runs if curves is not None else kept, quantity)
        if np.isfinite(values).all() and len(values):
            domain[quantity] = (float(values.min()), float(values.max()))
    parts = shared_and_own(residuals, label)._asdict() if sd > LEAST_SD else Parts(0.0, sd, NORMAL_90)._asdict()
    about: dict[str, Any] = {"lower": low, "upper": high, "sd": sd, **parts, "by": by, "from": origin}
    draws = [rounded(one) for one in bootstrap(law_class, runs, seed=seed)]
    fitted = BaselineFit(name or kind, law, about, domain, info, draws=tuple(draws))
    info["notes"] = f"{law.formula}, with {fitted.parameters_text()}; {law.source}; intervals from {origin}"
    return fitted


def rounded(law: Any) -> Any:
    """Return the law with parameters of so many figures as a file keeps of a bootstrap sample's."""
    return type(law)(**{key: float(f"{value:.{DRAW_FIGURES}g}") for key, value in law.parameters().items()})


def _read_draws(rows: Any, make: Callable[[dict[str, float]], Any], names: Sequence[str]) -> tuple[Any, ...]:
    """Return the laws in the entry `draws` of a law file."""
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == len(names) for row in rows):
        raise TypeError("draws must be a list of lists, one number a parameter")
    return tuple(make({key: number(x, f"draws.{key}") for key, x in zip(names, row, strict=True)}) for row in rows)
