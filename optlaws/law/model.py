"""A fitted law: plain numbers that predict losses, with joint uncertainty and a training domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from optlaws._content import Content
from optlaws._normal import NORMAL_90
from optlaws._ranges import SLACK, outside
from optlaws.dynamics import Drive, States, curve_states, drive, final_states
from optlaws.dynamics.model import Dynamics, FloatArray
from optlaws.dynamics.solve import fill_decay, spread_over_threads
from optlaws.errors import InputError
from optlaws.features import Basis
from optlaws.law.discrepancy import OTHER_CORPUS, Discrepancy
from optlaws.law.domain import (
    SLACKS,
    UNCHECKED,
    curve_from,
    domain_values,
    far_apart,
    far_out,
    in_domain_text,
    rows_of_steps,
    scaled,
    warn_outside,
)
from optlaws.law.joint import Joint
from optlaws.law.optimizers import SIZES, Optimizers, beside
from optlaws.regression.kernel import field_features, matern32
from optlaws.regression.trend_field import (
    Posterior,
    expected_loss,
    group_matrix,
    new_size_variance,
    predict_trend_field,
)
from optlaws.runs import RunTable, check_runs
from optlaws.runs._optimizers import USUAL_OPTIMIZER

if TYPE_CHECKING:
    from pathlib import Path

    from optlaws.risk import RiskModel

PIECE = 1024  # points per pass of a prediction
EXPLAINING = ("steps ", "params ", "batch_tokens ", "peak_lr ")  # reasons that make any schedule unlike those seen
UNLIKE = 0.3  # share of the field's variance that training leaves at a point, above which its shape is called new


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predictions for n points (runs at their end, or one run along its curve); losses in nats per token.

    Attributes
    ----------
    loss : (n,) expected loss.
    sd : (n,) standard deviation of one new run about `loss`, run noise included.
    lower, upper : (n,) 90 % prediction interval for one new run.
    noise : (n,) standard deviation of the run noise alone.
    in_domain : (n,) whether the point lies inside the training domain.
    reasons : why not, one text a point ("" inside).
    assumed : values that the law filled in where the runs left them empty.
    """

    loss: FloatArray
    sd: FloatArray
    lower: FloatArray
    upper: FloatArray
    noise: FloatArray
    in_domain: np.ndarray
    reasons: Sequence[str]
    assumed: Mapping[str, float]
    _law: Law = field(repr=False)
    _view: View = field(repr=False)

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.loss)

    def covariance(self, i: Any) -> FloatArray:
        """Return the joint covariance of the expected losses of points i, shape (m, m), nats^2, run noise left out.

        `i` is a place, places, a mask (n,) or a slice.
        """
        rows = np.atleast_1d(np.arange(len(self))[i])
        part = self._view.take(rows)
        return self._law._cross(part, self.loss[rows], part, self.loss[rows])

    def covariance_with(self, j: int, rows: Any = None) -> FloatArray:
        """Return the covariances of expected losses (all, or those of `rows`) with that of point j, nats^2."""
        one = self._view.take(np.array([j]))
        which = np.arange(len(self)) if rows is None else np.arange(len(self))[rows]
        out = np.empty(len(which))
        for start in range(0, len(which), PIECE):
            part = which[start : start + PIECE]
            out[start : start + PIECE] = self._law._cross(self._view.take(part), self.loss[part], one, self.loss[[j]])[
                :, 0
            ]
        return out


@dataclass(frozen=True, eq=False)
class View:
    """What the regression sees of n points: columns (n, 16), coordinates (n, k), ln of the scaled size (n,).

    `shared`, (n, q): rows whose products are the covariances that runs of other optimizers, and those far outside the
    domain, have beside; `apart`, (n,): the sd of a field over the coordinates that the latter have; None: none has.
    """

    columns: FloatArray
    coordinates: FloatArray
    size: FloatArray
    curve: bool
    shared: FloatArray | None = None
    apart: FloatArray | None = None

    def take(self, rows: np.ndarray) -> View:
        """Return some rows."""
        shared = None if self.shared is None else self.shared[rows]
        apart = None if self.apart is None else self.apart[rows]
        return View(self.columns[rows], self.coordinates[rows], self.size[rows], self.curve, shared, apart)


@dataclass(frozen=True, eq=False)
class Law(Content):
    """A fitted law. Two are equal (==) where all that they hold is; arrays are read-only.

    Attributes
    ----------
    name : str
    basis : Basis
        With the constants of this law.
    posterior : Posterior
        Coefficients, field, noise.
    use_params, use_batch : bool
        Whether the law knows model sizes and batch sizes.
    peak_scale : float
        Length scale of ln peak rate.
    has_curves : bool
        Whether it was fitted on curves as well.
    domain : dict of (lowest, highest)
        Ranges of the training runs, those of the quantities in `UNITS` that are known.
    defaults : dict
        Values taken where a candidate leaves them empty.
    info : dict
        Number and digest of the runs, sources, leave-group-out errors, versions, how to rebuild it.
    risk : RiskModel, optional
        How likely a run is to diverge; None where the law does not know.
    discrepancy : Discrepancy, optional
        What predictions count for another corpus than the law's own, see `on_other_corpus`; not part of the law file.
    optimizers : Optimizers, optional
        The optimizer of its runs, and how runs of others count as such; None = not known.
    joint : combinations of sizes, lengths, rates and batches that its runs had; None = not known.
    """

    name: str
    basis: Basis
    posterior: Posterior
    use_params: bool
    use_batch: bool
    peak_scale: float
    has_curves: bool
    domain: Mapping[str, tuple[float, float]]
    defaults: Mapping[str, float]
    info: Mapping[str, Any]
    risk: RiskModel | None = None
    discrepancy: Discrepancy | None = None
    optimizers: Optimizers | None = None
    joint: Joint | None = None

    def __repr__(self) -> str:
        """Return a short description: name, whether on another corpus, basis, number of runs, domain."""
        texts = {name: [in_domain_text(name, end) for end in ends] for name, ends in self.domain.items()}
        ends = (f"{name} {' .. '.join(dict.fromkeys(text))}" for name, text in texts.items())
        runs = self.info.get("n_runs", "unknown number of")
        name = f"{self.name!r}{' on another corpus' if self.discrepancy else ''}"
        return f"<Law {name}, basis {self.basis.id}, {runs} runs; domain {', '.join(ends) or 'not known'}>"

    @property
    def basis_id(self) -> str:
        """Id of the basis."""
        return self.basis.id

    @classmethod
    def load(cls, path: str | Path) -> Law:
        """Read a law file; see `optlaws.law.store`."""
        from optlaws.law.store import read_law

        return read_law(path)

    def save(self, path: str | Path) -> None:
        """Write the law as one JSON file; a half-written file never replaces a good one."""
        from optlaws.law.store import write_law

        write_law(self, path)

    def on_other_corpus(self, discrepancy: Discrepancy = OTHER_CORPUS) -> Law:
        """Return the law with the uncertainty that it has on another corpus, tokenizer or kind of network.

        Expected losses and the domain stay; intervals, and the covariances behind differences and P(best), count how
        far laws of one source were off on others. `save` leaves that out: a law file read again is on its own corpus.

        Parameters
        ----------
        discrepancy : Discrepancy
            Default: what the built-in laws showed on sources that they were not fitted to (`docs/transfer.md`).

        Raises
        ------
        InputError
            It is no `Discrepancy`.

        Examples
        --------
        >>> from optlaws import load_law, parse, rank, RunTable
        >>> law = load_law("llama-slimpajama")
        >>> rates = [parse(f"cosine:peak={peak},steps=50000,warmup=300") for peak in ("5e-4", "2e-3")]
        >>> runs = RunTable.build(rates, params=85e6)
        >>> here, there = rank(runs, law), rank(runs, law.on_other_corpus())
        >>> bool(here.p_best.max() > 0.9), bool(there.p_best.max() < 0.9)
        (True, True)
        """
        if not isinstance(discrepancy, Discrepancy):
            raise InputError(
                f"discrepancy must be a Discrepancy, got {discrepancy!r:.60}; leave it out for the default"
            )
        return replace(self, discrepancy=discrepancy)

    def complete(self, runs: RunTable) -> tuple[RunTable, dict[str, float]]:
        """Return the runs with the law's defaults in empty cells that it needs, and what was filled in.

        Raises
        ------
        InputError
            `runs` is no run table, or a size or batch that the law needs is neither given nor has a default.
        """
        check_runs(runs)
        filled: dict[str, float] = {}
        changes: dict[str, FloatArray] = {}
        for name, needed in (("params", self.use_params), ("batch_tokens", self.use_batch)):
            values = getattr(runs, name)
            if name == "params":
                values = np.where(np.isfinite(values), values, runs.active_params)
            if needed and not np.isfinite(values).all():
                if name not in self.defaults:
                    raise InputError(
                        f"{name} must be given for law {self.name!r}, which has no default for it;"
                        " add it to every candidate"
                    )
                filled[name] = self.defaults[name]
                changes[name] = np.where(np.isfinite(values), values, self.defaults[name])
        decay = runs.weight_decay
        if not np.isfinite(decay).all() and "weight_decay" in self.defaults:
            changes["weight_decay"], filled["weight_decay"] = fill_decay(runs, self.defaults["weight_decay"])
        if not changes:
            return runs, filled
        if "batch_tokens" in changes:
            changes["tokens"] = np.where(np.isfinite(runs.tokens), runs.tokens, runs.steps * changes["batch_tokens"])
        return replace(runs, **changes), filled  # type: ignore[arg-type]  # the changes are number columns only

    def predict(self, runs: RunTable, *, threads: int | None = None) -> Prediction:
        """Predict the loss at the end of every run.

        Parameters
        ----------
        runs : RunTable
            n runs; losses and status are not looked at.
        threads : int, optional
            Default: one per processor.

        Raises
        ------
        InputError
            `runs` is no run table or has no run, a size or batch that the law needs is neither given nor has a default,
            or `threads` is no whole number above 0.

        Warns
        -----
        ExtrapolationWarning
            A run lies outside the domain; `in_domain` and `reasons` say which and why.
        """
        if not len(check_runs(runs)):
            raise InputError("runs must be at least one, got an empty table; add a run")
        full, assumed = self.complete(runs)
        own = self.as_own(full)
        states = final_states(
            own, self.basis.dynamics, use_params=self.use_params, use_batch=self.use_batch, threads=threads
        )
        peak = np.asarray(own.batch().peak, dtype=float)
        found = self._predict(full, own, states, peak, assumed, curve=False, threads=threads)
        warn_outside(self.name, found.in_domain, found.reasons, stacklevel=2)
        return found

    def expected_loss(self, runs: RunTable, *, threads: int | None = None) -> FloatArray:
        """Return the expected losses at the end of every run and nothing else, shape (n,): for very many candidates.

        Arguments and errors as in `predict`, but that an empty table gives an empty array.
        """
        full, _ = self.complete(runs)
        own = self.as_own(full)
        states = final_states(
            own, self.basis.dynamics, use_params=self.use_params, use_batch=self.use_batch, threads=threads
        )
        peak, out = np.asarray(own.batch().peak, dtype=float), np.empty(len(states))

        def work(start: int) -> None:
            rows = slice(start, start + PIECE)
            view = self.view(states.take(rows), peak[rows], curve=False)
            out[rows] = expected_loss(self.posterior, view.columns, view.coordinates, view.size)

        in_pieces(work, len(out), threads)
        return out * np.exp(self.loss_shift(full))

    def predict_curve(self, runs: RunTable, steps: Any) -> Prediction:
        """Predict the loss of runs after the given numbers of updates.

        Parameters
        ----------
        runs : RunTable
            n runs.
        steps : list, range or array of numbers, or n of them
            Updates done, 1 .. total_steps; one row of numbers for one run or for all, or one row for each run.

        Returns
        -------
        Prediction
            Points run by run. On the curves' evaluation set if the law was fitted on curves. Those of the warm-up and
            of the first 2 % of a run are not in the domain: there the formula's loss is far above any real one.

        Raises
        ------
        InputError
            `runs` is no run table, a step lies outside its run, `steps` is neither one row of numbers nor one row for
            each run, or a size or batch that the law needs is neither given nor has a default.
        """
        steps = rows_of_steps(steps, len(check_runs(runs)))
        full, assumed = self.complete(runs)
        own = self.as_own(full)
        lengths = [len(at) for at in steps]
        states = curve_states(own.schedule_tuple(), steps, self.drive(own), self.basis.dynamics)
        index = np.repeat(np.arange(len(full)), lengths)
        peak = np.asarray(own.batch().peak, dtype=float)[index]
        found = self._predict(full, own, states, peak, assumed, curve=self.has_curves, index=index)
        first = curve_from(own)[index]
        early = np.concatenate([np.asarray(at, dtype=float) for at in steps]) < first
        if not early.any():
            return found
        said = [
            f"step before {begin:g}, where this law's curve begins" if too_soon else reason
            for too_soon, begin, reason in zip(early, first, found.reasons, strict=True)
        ]
        return replace(found, in_domain=found.in_domain & ~early, reasons=said)

    @property
    def own_optimizer(self) -> str:
        """Family of the optimizer of the law's runs, AdamW where that is not known."""
        return self.optimizers.own if self.optimizers else USUAL_OPTIMIZER

    def as_own(self, runs: RunTable) -> RunTable:
        """Return the runs as runs of the law's own optimizer, as far as their optimizers are known to it."""
        return self.optimizers.as_own(runs) if self.optimizers else runs

    def as_usual(self, runs: RunTable) -> RunTable:
        """Return the runs as the risk model takes them: as `as_own`, and the law's own optimizer counts as AdamW."""
        return self.optimizers.as_usual(runs, self.usual_factor) if self.optimizers else runs

    @property
    def usual_factor(self) -> float:
        """Factor from rates of the law's optimizer to those of the risk model, whose unit is AdamW's; 1 for AdamW."""
        return 1.0 if self.own_optimizer == USUAL_OPTIMIZER else Dynamics().lr_ref / self.basis.dynamics.lr_ref

    def loss_shift(self, runs: RunTable) -> FloatArray:
        """Return ln of each run's loss over that of the law's own optimizer at the same place, (n,)."""
        if self.optimizers is None:
            return np.zeros(len(runs))
        names = self.optimizers.families(runs)
        table = {name: self.optimizers.of(name).log_loss for name in set(names) - {self.optimizers.own}}
        return np.array([table.get(name, 0.0) for name in names]) if table else np.zeros(len(runs))

    def risks(self, runs: RunTable) -> FloatArray | None:
        """Return the divergence risk of each run, (n,), NaN where it is not known; None without a risk model."""
        if self.risk is None:
            return None
        return self.risk.probability(self.as_usual(runs), self.defaults)

    def drive(self, runs: RunTable) -> Drive:
        """Return what the dynamics need to know of the runs beside their schedules."""
        return drive(runs, self.basis.dynamics, use_params=self.use_params, use_batch=self.use_batch)

    def view(self, states: States, peak: FloatArray, *, curve: bool) -> View:
        """Return what the regression sees of the states."""
        return View(
            self.basis.evaluate(states), self.basis.coordinates(states, peak, self.peak_scale), np.log(states.n), curve
        )

    def _predict(
        self, runs: RunTable, own: RunTable, states: States, peak: FloatArray, assumed: dict[str, float], *,
        curve: bool, index: np.ndarray | None = None, threads: int | None = None,
    ) -> Prediction:  # fmt: skip
        """Return the prediction for `runs`, which count as the runs `own`, at states of these."""
        n = len(states)
        loss, sd, noise, novel = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
        size = np.log(states.n)
        starts = range(0, n, PIECE)
        parts: dict[int, View] = {}

        def work(start: int) -> None:
            rows = slice(start, start + PIECE)
            view = self.view(states.take(rows), peak[rows], curve=curve)
            point, new = predict_trend_field(self.posterior, view.columns, view.coordinates, view.size, curve=curve)
            loss[rows], sd[rows], noise[rows], novel[rows] = point.loss, point.sd, point.noise, new
            parts[start] = view

        in_pieces(work, n, threads)
        columns = np.concatenate([parts[s].columns for s in starts])
        coordinates = np.concatenate([parts[s].coordinates for s in starts])
        every = np.arange(len(runs)) if index is None else index
        values = domain_values(own, self.use_params, self.use_batch)
        of_others, scatter = beside(self, runs, own)
        further = [rows[every] for rows in (of_others, far_out(values, self.domain)) if rows is not None]
        shared = np.hstack(further) if further else None
        if of_others is not None:
            loss *= np.exp(self.loss_shift(runs))[every]
            noise = np.sqrt(noise**2 + scatter[every] ** 2)
        if shared is not None:
            sd = np.sqrt(sd**2 + (shared**2).sum(axis=1))
        apart = far_apart(values, self.domain)
        if apart is not None:
            apart = apart[every]
            sd = np.sqrt(sd**2 + apart**2)
        total = np.sqrt(sd**2 + noise**2 + (self.discrepancy.variance if self.discrepancy else 0.0))
        inside, reasons = self._domain_check(runs, values, novel, every)
        return Prediction(
            loss, loss * total, loss * np.exp(-NORMAL_90 * total), loss * np.exp(NORMAL_90 * total), loss * noise,
            inside, reasons, assumed, self, View(columns, coordinates, size, curve, shared, apart),
        )  # fmt: skip

    def _domain_check(
        self, runs: RunTable, values: Mapping[str, FloatArray], novel: FloatArray, index: np.ndarray
    ) -> tuple[np.ndarray, list[str]]:
        """Return which points lie in the training domain, and why the others do not; point i is of run `index[i]`."""
        known = self.optimizers or Optimizers(self.own_optimizer)
        names = known.families(runs) if self.optimizers else [known.own] * len(runs)
        of_run: dict[int, list[str]] = {}
        if self.optimizers:
            for i in np.flatnonzero(known.unseen(runs)).tolist():
                seen = " and ".join([known.own, *known.others])
                of_run.setdefault(i, []).append(f"optimizer {names[i]}, {seen} in training")
        for name, ends in self.domain.items():
            if name not in values or name in UNCHECKED:
                continue
            v = values[name]
            low, high, unit = known.bounds(names, name, ends)
            x, floor, top = (scaled(name, each) for each in (v, low, high))
            for i in outside(x, floor, top, SLACKS.get(name, SLACK)).tolist():
                word, far, edge = ("below", "lowest", low) if v[i] < low[i] else ("above", "highest", high)
                value, end = (in_domain_text(name, float(each[i] * unit[i])) for each in (v, edge))
                whose = f" of {names[i]}" if names[i] in known.others and name in SIZES else ""
                of_run.setdefault(i, []).append(f"{name} {value} {word} {end}, the {far}{whose} in training")
        for i, text in (self.joint.reasons(values, np.isin(names, known.own)) if self.joint else {}).items():
            of_run.setdefault(i, [text])
        texts = {i: list(of_run[row]) for i, row in enumerate(index.tolist()) if row in of_run} if of_run else {}
        strange = np.flatnonzero(novel > UNLIKE).tolist()
        for i in [i for i in strange if not any(text.startswith(EXPLAINING) for text in texts.get(i, ()))]:
            texts.setdefault(i, []).append("schedule unlike those in training")
        inside = np.ones(len(novel), dtype=bool)
        inside[list(texts)] = False
        if not texts:
            return inside, [""] * len(novel)
        return inside, ["; ".join(texts[i]) if i in texts else "" for i in range(len(novel))]

    def _cross(self, a: View, loss_a: FloatArray, b: View, loss_b: FloatArray) -> FloatArray:
        """Return the covariance of the expected losses of points a and b, shape (len a, len b)."""
        p, s = self.posterior, self.posterior.settings
        _, rows_a = predict_trend_field(p, a.columns, a.coordinates, a.size, curve=a.curve, rows=True)
        _, rows_b = predict_trend_field(p, b.columns, b.coordinates, b.size, curve=b.curve, rows=True)
        phi_a, phi_b = (field_features(v.coordinates, p.inducing, p.whitening) for v in (a, b))
        own = s.field_sd**2 * (matern32(a.coordinates, b.coordinates) - phi_a @ phi_b.T)
        left_a, left_b = (np.sqrt(new_size_variance(p, group_matrix(v.size, p.sizes))) for v in (a, b))
        new = group_matrix(a.size, b.size) * left_a[:, None] * left_b
        out = rows_a @ rows_b.T + p.spread**2 * own + new
        if self.discrepancy:
            out += self.discrepancy.covariance(a.coordinates, b.coordinates)
        if a.shared is not None and b.shared is not None:
            out += a.shared @ b.shared.T
        if a.apart is not None and b.apart is not None:
            out += a.apart[:, None] * b.apart * matern32(a.coordinates, b.coordinates)
        return np.asarray(out * loss_a[:, None] * loss_b[None])


def in_pieces(work: Callable[[int], None], count: int, threads: int | None) -> None:
    """Call work(start) for every piece of `count` points, on as many threads as asked for or as processors."""
    with threadpool_limits(1):  # the pieces are small: more threads inside each only get in each other's way
        spread_over_threads(work, range(0, count, PIECE), threads)
