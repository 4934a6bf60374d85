"""A fitted risk model: plain numbers that give the probability that a run diverges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np
from scipy.special import ndtr

from optlaws._content import Content
from optlaws._entries import mapping, number, numbers, ranges
from optlaws._ranges import SLACK, outside
from optlaws.dynamics import Dynamics
from optlaws.dynamics.model import FloatArray, family
from optlaws.dynamics.solve import effective_decay, fill_decay
from optlaws.errors import InputError, LawError
from optlaws.risk.criterion import PARAMETERS, log_critical
from optlaws.risk.quantities import Quantities, quantities, relative_width, strange
from optlaws.runs import RunTable, check_runs, format_quantity

USUAL = {"beta1": 0.9}
"""What a run counts as where it says nothing: AdamW's default."""

SLACKS = {"relative_width": 1.5, "warmup_steps": 2.0, "steps": 1.5, "params": 1.5, "batch_tokens": 1.5, "peak_lr": 1.5}
UNIT = len(PARAMETERS)  # place of the offset
SDS = ("scatter", "cell_sd", "source_sd")
WIDEST = 1e3  # a standard deviation of ln rate above this is a damaged entry

FAR = 0.04
"""Sd of ln u_c for every factor of e by which a run's size, steps at a high rate or batch lies beyond `SLACK_OF_REACH`
times what the runs of its source reach.

The exponents are those of the public runs, which are of two laboratories; other networks need not share them. By
judgement, with the table "Beyond the runs seen" of docs/divergence.md in view.
"""
SLACK_OF_REACH = 1.5


@dataclass(frozen=True, eq=False)
class RiskPrediction:
    """Risk of n runs, arrays of shape (n,); NaN where the model cannot say (other optimizers than Adam and AdamW).

    Attributes
    ----------
    probability : that the run ends diverged.
    criterion : highest felt rate over the critical one; at 1 the probability is one half.
    felt, at : highest felt rate, dimensionless, and the step at which it is felt.
    critical : felt rate at which half of such runs diverge.
    in_domain, reasons : whether the model was fitted on runs like it, and why not ("" inside).
    assumed : values filled in for params, batch_tokens and weight_decay where any run left them empty, by name (0.9 for
        beta1 is not named).
    """

    probability: FloatArray
    criterion: FloatArray
    felt: FloatArray
    at: FloatArray
    critical: FloatArray
    in_domain: np.ndarray
    reasons: Sequence[str]
    assumed: Mapping[str, float]

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.probability)


@dataclass(frozen=True, eq=False)
class RiskModel(Content):
    """Criterion, its uncertainty and its domain.

    Attributes
    ----------
    mean, covariance : of theta (`PARAMETERS`) and of the offset of the runs' source, (8,) and (8, 8).
    scatter, cell_sd : standard deviations of ln u_c from row to row, and of a source's (N, D) cell.
    source_sd : standard deviation of the offset of a source not seen.
    dynamics : constants of the felt rate, and units.
    domain : ranges of the runs that it was fitted on.
    typical : medians of those that went well, of the half of them that felt most.
    reach : lowest and highest value of each quantity of `reach_values` among the source's own runs; of a source not
        seen, among all.
    info : number of runs and of diverged ones, sources, digest, scores, how to rebuild it.
    """

    mean: FloatArray
    covariance: FloatArray
    scatter: float
    cell_sd: float
    source_sd: float
    dynamics: Dynamics
    domain: Mapping[str, tuple[float, float]]
    typical: Mapping[str, float]
    reach: Mapping[str, tuple[float, float]]
    info: Mapping[str, Any] = field(default_factory=dict)

    def complete(
        self, runs: RunTable, defaults: Mapping[str, float] | None = None
    ) -> tuple[RunTable, dict[str, float]]:
        """Return the runs with values in the cells that the model needs, and what was filled in.

        `defaults` (a law's, `law.defaults`; parameters, tokens a step, weight decay by column name) come first, then
        the medians of the runs that the model was fitted on (`typical`), 0.9 for beta1. Without a law's defaults its
        `risks` say something else of runs with empty cells.

        Raises
        ------
        InputError
            `runs` is no run table, or a default that is needed is no number.
        """
        check_runs(runs)
        given = dict(defaults or {})
        filled, changes = {}, {}
        for name, values in (("params", runs.size), ("batch_tokens", runs.batch_tokens), ("beta1", runs.beta1)):
            empty = ~np.isfinite(values)
            if empty.any():
                value = given.get(name, USUAL.get(name, self.typical.get(name, np.nan)))
                if not isinstance(value, Real) or not np.isfinite(value):
                    first = runs.run_id[int(np.argmax(empty))]
                    raise InputError(
                        f"{name} of run {first!r} must be known for its divergence risk, got an empty cell and the"
                        f" default {value!r:.40}; fill the cell, or give a number in defaults"
                    )
                changes[name] = np.where(empty, value, getattr(runs, name) if name != "params" else values)
                if name not in USUAL:
                    filled[name] = float(value)
        decay = runs.weight_decay
        if "weight_decay" in given and not np.isfinite(decay).all():
            changes["weight_decay"], filled["weight_decay"] = fill_decay(runs, given["weight_decay"])
        return (replace(runs, **changes) if changes else runs), filled  # type: ignore[arg-type]

    def predict(
        self, runs: RunTable, defaults: Mapping[str, float] | None = None, *, threads: int | None = None
    ) -> RiskPrediction:
        """Return the risk of n runs; `defaults` stand in for empty cells, as in `complete`: give a law's.

        Raises
        ------
        InputError
            As for `complete`, a width is no number above 0, or `threads` is no whole number above 0.
        """
        full, assumed = self.complete(runs, defaults)
        q = quantities(full, self.dynamics, threads=threads)
        ratio, probability = self.of_quantities(q)
        criterion = np.exp(ratio)
        inside, reasons = self._domain_check(full, assumed)
        other = strange(full)
        if other.any():
            probability, criterion = np.where(other, np.nan, probability), np.where(other, np.nan, criterion)
            inside = inside & ~other
            called = {name: "plain SGD" if family(name) == "sgd" else name for name in set(full.optimizer)}
            pairs = zip(reasons, full.optimizer, other, strict=True)
            reasons = [f"the risk of {called[name]} is not known" if bad else text for text, name, bad in pairs]
        return RiskPrediction(probability, criterion, q.felt, q.at, q.felt / np.exp(ratio), inside, reasons, assumed)

    def probability(
        self, runs: RunTable, defaults: Mapping[str, float] | None = None, *, threads: int | None = None
    ) -> FloatArray:
        """Return the probability of divergence alone, shape (n,), NaN as there; quicker than `predict`.

        Raises
        ------
        InputError
            As for `predict`.
        """
        full, _ = self.complete(runs, defaults)
        risk = self.of_quantities(quantities(full, self.dynamics, threads=threads))[1]
        return np.where(strange(full), np.nan, risk)

    def of_quantities(self, q: Quantities) -> tuple[FloatArray, FloatArray]:
        """Return ln of the criterion and the probability of n runs, each (n,)."""
        ln_u, slopes = log_critical(q, self.mean[:UNIT])
        slopes = np.concatenate([slopes, np.ones((len(ln_u), 1))], axis=1)
        known = ((slopes @ self.covariance) * slopes).sum(axis=1)
        far = np.zeros(len(ln_u))
        for name, values in reach_values(q, self.dynamics).items():
            low, high = self.reach[name]
            beyond = np.log(np.maximum(values / high, low / values) / SLACK_OF_REACH)
            far += (FAR * np.maximum(beyond, 0.0)) ** 2
        sd = np.sqrt(self.scatter**2 + self.cell_sd**2 + known + far)
        ratio = np.log(q.felt) - ln_u - self.mean[UNIT]
        return ratio, np.asarray(ndtr(ratio / sd))

    def _domain_check(self, runs: RunTable, assumed: Mapping[str, float]) -> tuple[np.ndarray, list[str]]:
        texts: dict[int, list[str]] = {}
        for name, values in range_values(runs, self.dynamics).items():
            low, high = self.domain[name]
            for i in outside(values, low, high, SLACKS.get(name, SLACK)).tolist():
                below = values[i] < low
                value, end = (
                    format_quantity(x) if x >= 1000 else f"{x:.4g}" for x in (values[i], low if below else high)
                )
                side = f"below {end}, the lowest" if below else f"above {end}, the highest"
                texts.setdefault(i, []).append(f"{name} {value} {side} in the risk model's runs")
        for name in ("params", "batch_tokens"):
            if name in assumed:
                for i in range(len(runs)):
                    texts.setdefault(i, []).append(f"{name} not given, {format_quantity(assumed[name])} assumed")
        inside = np.ones(len(runs), dtype=bool)
        inside[list(texts)] = False
        return inside, ["; ".join(texts[i]) if i in texts else "" for i in range(len(runs))]

    def to_dict(self) -> dict[str, Any]:
        """Return the model as plain numbers, lists and texts."""
        rows, columns = np.triu_indices(UNIT + 1)
        return {
            "parameters": [*PARAMETERS, "offset"],
            "mean": self.mean.tolist(),
            "covariance_upper_triangle": self.covariance[rows, columns].tolist(),
            "scatter": self.scatter,
            "cell_sd": self.cell_sd,
            "source_sd": self.source_sd,
            "dynamics": self.dynamics.to_dict(),
            "domain": {name: list(ends) for name, ends in self.domain.items()},
            "typical": dict(self.typical),
            "reach": {name: list(ends) for name, ends in self.reach.items()},
            "info": dict(self.info),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RiskModel:
        """Return the model of `to_dict`.

        Raises
        ------
        LawError
            An entry is missing or damaged.
        """
        again = "build it again, or remove the entry 'risk'"
        try:
            if list(data["parameters"]) != [*PARAMETERS, "offset"]:
                raise LawError(
                    f"risk parameters must be {', '.join(PARAMETERS)}, offset, got {data['parameters']}; {again}"
                )
            size = UNIT + 1
            mean = numbers(data["mean"], size, name="risk.mean")
            covariance = np.zeros((size, size))
            rows, columns = np.triu_indices(size)
            triangle = "covariance_upper_triangle"
            covariance[rows, columns] = numbers(data[triangle], len(rows), name=f"risk.{triangle}")
            covariance = np.where(np.tri(size, k=-1, dtype=bool), covariance.T, covariance)
            sds = {name: number(data[name], f"risk.{name}", 0.0, WIDEST) for name in SDS}
            domain = ranges(data["domain"], "risk.domain")
            typical = {
                name: number(value, f"risk.typical.{name}", 0.0)
                for name, value in mapping(data["typical"], "risk.typical").items()
            }
            if domain and typical:  # files written before widths counted: all of theirs were the usual ones
                domain.setdefault("relative_width", (1.0, 1.0))
                typical.setdefault("relative_width", 1.0)
            if set(domain) != set(RANGES) or set(typical) != set(RANGES):
                raise ValueError(f"domain and typical must have the entries {', '.join(RANGES)}")
            reach = ranges(data.get("reach", {name: domain[old] for name, old in REACH.items()}), "risk.reach")
            if set(reach) != set(REACH) or not all(low > 0 for low, _ in reach.values()):
                raise ValueError(f"risk.reach must have {', '.join(REACH)}, above 0")
            absent = sorted(set(Dynamics().to_dict()) - set(mapping(data["dynamics"], "risk.dynamics")))
            if absent:
                raise ValueError(f"dynamics must have the entry {absent[0]!r}")
            model = cls(
                mean=mean, covariance=covariance, dynamics=Dynamics.from_dict(data["dynamics"]), domain=domain,
                typical=typical, reach=reach, info=dict(mapping(data["info"], "risk.info")), **sds,
            )  # fmt: skip
            if np.linalg.eigvalsh(covariance).min() <= -1e-12 or not all(sds.values()):
                raise ValueError("risk must have a covariance and standard deviations above 0")
            if not (all(typical[name] > 0 for name in ABOVE_ZERO) and typical["beta1"] < 1):
                raise ValueError(f"risk.typical must have {', '.join(ABOVE_ZERO)} above 0 and beta1 below 1")
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, LawError):
                raise
            raise LawError(f"the entry 'risk' is damaged ({type(error).__name__}: {error}); {again}") from None
        return model


def known_runs(runs: RunTable) -> RunTable:
    """Return the runs with AdamW's beta1 where they say nothing."""
    return replace(runs, beta1=np.where(np.isfinite(runs.beta1), runs.beta1, USUAL["beta1"]))


RANGES = (
    "peak_lr", "warmup_steps", "steps", "params", "batch_tokens", "beta1", "weight_decay", "restarts", "relative_width",
)  # fmt: skip


REACH = {"params": "params", "high_steps": "steps", "batch_tokens": "batch_tokens"}
"""Quantities of `reach_values`: entry of the domain that stands in for one in files written before they had it."""


def reach_values(q: Quantities, dynamics: Dynamics) -> dict[str, FloatArray]:
    """Return size, steps at half the peak rate or more, and tokens a step of n runs, (n,) each, named as in `REACH`."""
    scales = (q.n * dynamics.params_ref, q.high * dynamics.steps_ref, q.b * dynamics.batch_ref)
    return dict(zip(REACH, scales, strict=True))


ABOVE_ZERO = ("peak_lr", "steps", "params", "batch_tokens", "relative_width")


def range_values(runs: RunTable, dynamics: Dynamics) -> dict[str, FloatArray]:
    """Return the quantities whose range is the domain, by name (`RANGES`), (n,); an `InputError` for a bad width."""
    batch = runs.batch()
    values = (
        batch.peak, batch.warmup_steps, batch.total_steps, runs.size, runs.batch_tokens, runs.beta1,
        effective_decay(runs), batch.restarts, relative_width(runs, runs.size / dynamics.params_ref),
    )  # fmt: skip
    return {name: np.asarray(value, dtype=float) for name, value in zip(RANGES, values, strict=True)}
