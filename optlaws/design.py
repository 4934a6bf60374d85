"""Which small runs to make so that a law fitted to them predicts the runs that matter.

The covariance of the losses of any two runs is known before either is made (`optlaws.regression.design`), so a list of
runs can be judged by how narrow it will leave the prediction of the targets, and the next run chosen that narrows it
most. What that was worth on public runs is measured in docs/design.md.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from optlaws._accepted import accepted_risk
from optlaws._normal import NORMAL_90
from optlaws.baselines import get_baseline
from optlaws.baselines.base import usable
from optlaws.dynamics import final_states
from optlaws.dynamics.model import FloatArray, family
from optlaws.dynamics.solve import effective_decay
from optlaws.errors import InputError, OptlawsWarning, RiskError
from optlaws.features import Basis, get_basis
from optlaws.law import fit_law
from optlaws.law.builtin import public_risk
from optlaws.law.fitting import FEWEST_RUNS
from optlaws.regression.design import choose_runs, joint_prior
from optlaws.regression.settings import Settings
from optlaws.risk import ACCEPTED
from optlaws.risk.model import USUAL
from optlaws.runs import RunTable, check_fitted, check_runs, format_quantity
from optlaws.runs._compute import FLOPS
from optlaws.runs._optimizers import USUAL_OPTIMIZER
from optlaws.schedules import Schedule
from optlaws.schedules.quantity import as_number, as_numbers

FEWER = (1 / 64, 1 / 32, 1 / 16, 1 / 8)  # of the target's parameters
TOKENS = (0.5, 1.0, 2.0)  # of the target's tokens per parameter
BATCHES = (0.5, 1.0, 2.0)  # of the batch that the target's becomes with fewer tokens
PEAKS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the peak rate that the target's becomes with fewer parameters and tokens
SHAPES = (
    "cosine:peak={p:.4g},steps={t},warmup={w},final={f:.4g}",
    "linear:peak={p:.4g},steps={t},warmup={w}",
    "wsd:peak={p:.4g},steps={t},warmup={w},decay=0.2",
    "wsd:peak={p:.4g},steps={t},warmup={w},decay=0.5,shape=sqrt",
    "constant:peak={p:.4g},steps={t},warmup={w}",
)
SHORTEST = 100  # steps
SEQUENCE = 1024  # tokens of a sequence where nobody says
FEWEST_SEQUENCES = 8  # in the target's batch, else that length is halved
USUAL_BETAS = {"beta1": USUAL["beta1"], "beta2": 0.95}
"""Betas of Adam and AdamW where nobody says: the risk model's beta1, and the beta2 that language models are mostly
trained with, which no column of a basis looks at."""
MOST = 20_000  # runs to choose from
EXPONENTS = tuple(0.125 * i for i in range(9))  # of the cost that a gain is divided by, tried where there is a budget


@dataclass(frozen=True, eq=False)
class Design:
    """Runs to make, in the order of what they teach.

    Attributes
    ----------
    pool : RunTable
        The n runs that could be made, those too likely to diverge left out.
    picked : ndarray of shape (k,)
        Places in the pool, in the order of choice.
    cost : ndarray of shape (k,)
        Of each pick, in `unit`.
    unit : str
        "FLOPs" (6 N D), "tokens" where a size is missing, "steps" where tokens are missing too.
    width : ndarray of shape (k + 1,)
        Width of the 90 % interval of a target's expected loss, % of it (root mean square over the targets), before the
        first pick and after each: the prior's own account, which no loss has calibrated yet.
    risky : int
        Runs that were left out of the pool.
    known : int
        Finished runs that were taken into account.
    """

    pool: RunTable
    picked: np.ndarray
    cost: FloatArray
    unit: str
    width: FloatArray
    risky: int
    known: int

    @property
    def runs(self) -> RunTable:
        """The picked runs in the order of choice."""
        return self.pool.select(self.picked)


def design_runs(
    targets: RunTable,
    pool: RunTable,
    count: int,
    *,
    have: RunTable | None = None,
    budget: float | str | None = None,
    max_risk: float = ACCEPTED,
    basis: str | Basis | None = None,
    settings: Settings | None = None,
) -> Design:
    """Choose the runs of a pool that will narrow the predicted losses of targets most.

    Parameters
    ----------
    targets : RunTable
        Runs to be predicted; losses and status are not looked at.
    pool : RunTable
        Runs that can be made, at most 20,000; `standard_pool` builds one.
    count : int
        How many to choose, from 1 to the runs of the pool.
    have : RunTable, optional
        Runs that are finished: they are taken into account, and with 4 completed ones or more, the law fitted to them
        says what losses are expected and in which units.
    budget : float, optional
        Of all chosen runs together, in FLOPs (or tokens, or steps; see `Design.unit`). Gains are then divided by powers
        of the cost from 0 to 1, and the plan that leaves the targets narrowest is taken.
    max_risk : float
        Runs likelier to diverge are left out, 0 .. 1: a diverged run has no loss.
    basis : str or Basis, optional
        As in `fit_law`.
    settings : Settings, optional
        Constants of the regression.

    Raises
    ------
    InputError
        No target, a count, budget or accepted risk out of range, settings of another kind, too large a pool, or a size
        or batch that some of the runs have and others lack.
    RiskError
        Fewer runs than asked for are likely enough to be completed.
    FitError
        No law can be fitted to the finished runs.

    Notes
    -----
    The choice is greedy. It rests on the priors of `optlaws.regression.trend_field` and on nothing measured unless
    there are finished runs; a field of residuals, offsets of sizes and run-to-run noise are in it, so that runs are
    spread over sizes, horizons and rates and repeats are not thrown away.
    """
    max_risk, constants = accepted_risk(max_risk), Settings.checked(settings)
    budget = as_number(budget, "budget")
    if budget is not None and not 0.0 < float(budget) < np.inf:
        raise InputError(f"budget must be a finite number above 0, got {budget!r:.40}; leave it out for no bound")
    for name, table in (("targets", targets), ("pool", pool), ("have", have)):
        if table is not None:
            check_fitted(check_runs(table, name))
    done = have.select(usable(have)) if have is not None else None
    whole = isinstance(count, Integral) and not isinstance(count, bool)
    if not len(targets) or not len(pool):
        what = "targets" if not len(targets) else "pool"
        raise InputError(f"{what} must hold at least one run, got an empty table; add one")
    if len(pool) > MOST:
        raise InputError(f"pool must hold at most {MOST:,} runs, got {len(pool):,}; thin it out")
    if not whole or not 1 <= count <= len(pool):
        raise InputError(
            f"runs must be a whole number from 1 to {len(pool)}, the pool's, got {count!r}; choose one of these"
        )
    expected, units = _expected(done, get_basis(basis), settings)
    everything = _join(targets, pool, done)
    use_params = _all_or_none(everything.size, "params", len(targets))
    use_batch = _all_or_none(everything.batch_tokens, "batch_tokens", len(targets))
    safe = _safe(pool, max_risk) if use_params and use_batch else np.ones(len(pool), dtype=bool)
    if safe.sum() < count:
        raise RiskError(
            f"{count} runs of the pool must have a divergence risk of at most {max_risk:g}, got {int(safe.sum())};"
            " lower the peak rates of the pool or raise --max-risk"
        )
    cost, unit = _cost(everything)
    a, n = len(targets), len(targets) + len(pool)
    places = a + np.flatnonzero(safe)
    if budget is not None:
        least = float(np.sort(cost[places])[:count].sum())
        if budget < least * (1.0 - 1e-9):
            raise InputError(
                f"budget must be at least {least:.6g} {unit}, the {count} cheapest runs of the pool, got {budget:g};"
                " raise it or ask for fewer runs"
            )
    states = final_states(everything, units.dynamics, use_params=use_params, use_batch=use_batch)
    peak = np.asarray(everything.batch().peak, dtype=float)
    joint = joint_prior(
        units.evaluate(states, use_batch=use_batch),
        units.coordinates(states, peak, units.peak_scale(peak, constants.peak_gaps)),
        np.log(states.n),
        coefficients=expected[0],
        scale=units.prior * expected[1],
        damage_columns=units.damage,
        peak_columns=units.peaks,
        settings=constants,
    )
    plans = [
        choose_runs(
            joint, places, np.arange(a), int(count), known=np.arange(n, len(everything)), cost=cost,
            budget=np.inf if budget is None else budget, exponent=exponent,
        )
        for exponent in ((0.0,) if budget is None else EXPONENTS)
    ]  # fmt: skip
    picked, variance = min(plans, key=lambda plan: float(plan[1][-1]))
    kept = pool.select(safe)
    back = np.full(len(everything), -1)
    back[places] = np.arange(len(places))
    return Design(
        kept, back[picked], cost[picked], unit, 200.0 * NORMAL_90 * np.sqrt(variance), int((~safe).sum()),
        0 if done is None else len(done),
    )  # fmt: skip


def standard_pool(
    targets: RunTable,
    sizes: float | str | Sequence[float | str] | FloatArray | None = None,
    *,
    seq_len: float | str | None = None,
) -> RunTable:
    """Return small runs about the targets: sizes, tokens, batches, peak rates and five shapes of schedule, crossed.

    Parameters
    ----------
    targets : RunTable
        Their medians of parameters, tokens, batch, peak rate and warm-up share are scaled down.
    sizes : number, text like "85M", or several of them, optional
        Parameters of the runs; default: 1/64, 1/32, 1/16 and 1/8 of the target's.
    seq_len : float, optional
        Tokens of a sequence, whole, 1 or more; default: the targets' own, else 1024, halved until the target's batch
        holds 8 sequences.

    Returns
    -------
    RunTable
        At half, once and twice the target's tokens per parameter. Peak rates and batches follow Step Law's exponents
        (arXiv 2503.04715, eq. 1) from the target's, and lie on both sides of that. Batches are whole sequences: 1,
        1.25, 1.5 or 1.75 times a power of two of them; one that comes out as the target's own stays that. What the
        targets do not say is filled in with `usual_settings`.

    Raises
    ------
    InputError
        Sizes, tokens or batches of the targets are not known, a size or `seq_len` is out of range, or all runs are
        shorter than 100 steps.
    """
    check_runs(targets, "targets")
    number, tokens, batch = (_median(values) for values in (targets.size, targets.tokens, targets.batch_tokens))
    for name, value in (("params", number), ("tokens", tokens), ("batch_tokens", batch)):
        if not np.isfinite(value):
            raise InputError(
                f"{name} of the targets must be known to propose runs, got none; add it or give runs to choose from"
            )
    asked = as_numbers(sizes, "sizes")
    if asked is not None and not all(np.isfinite(value) and 0 < value <= number for value in asked):
        raise InputError(
            f"sizes must be above 0 and at most the target's {format_quantity(number)} parameters, got"
            f" {', '.join(format_quantity(value) for value in asked)}; propose smaller ones"
        )
    length = _sequence(targets, batch) if seq_len is None else _whole_length(seq_len)
    schedules = targets.batch()
    peak = _median(np.asarray(schedules.peak, dtype=float))
    share = _median(np.asarray(schedules.warmup_steps, dtype=float) / np.asarray(schedules.total_steps, dtype=float))
    advice: Any = get_baseline("step_law").published()
    there = advice.recommend(number, tokens)
    specs: list[str] = []
    rows: list[tuple[float, float, float]] = []
    largest = 0.0
    for n in sorted(set(asked)) if asked else [number * part for part in FEWER]:
        for ratio in TOKENS:
            d = n * tokens / number * ratio
            here = advice.recommend(n, d)
            for times in BATCHES:
                scaled = batch * here.batch_tokens / there.batch_tokens * times
                largest = max(largest, scaled)
                b = batch if math.isclose(scaled, batch, rel_tol=1e-6) else _whole_batch(scaled, length)
                if b == 0.0 or round(d / b) < SHORTEST:
                    continue
                steps = round(d / b)
                for factor in PEAKS:
                    p = peak * here.peak_lr / there.peak_lr * factor
                    warm = min(round(share * steps), steps // 2)
                    specs += [shape.format(p=p, t=steps, w=warm, f=0.1 * p) for shape in SHAPES]
                    rows += [(_round(n), b, steps * b)] * len(SHAPES)
    if not specs and largest < length:
        raise InputError(
            f"seq_len must be at most the largest batch of a proposed run, {format_quantity(largest, 3)} tokens, got"
            f" {format_quantity(length)}; choose a shorter one, or give larger sizes"
        )
    if not specs:
        raise InputError(
            f"proposed runs must have at least {SHORTEST} steps, got fewer at every size; give larger sizes, or runs to"
            " choose from"
        )
    table = np.array(rows)
    made = RunTable.build(
        specs, params=table[:, 0], batch_tokens=table[:, 1], tokens=table[:, 2],
        **{**_common(targets), "seq_len": length},
    )  # fmt: skip
    usual = usual_settings(made)
    names = tuple(name or usual.get("optimizer", name) for name in made.optimizer)
    numbers = {
        name: np.where(np.isfinite(getattr(made, name)), getattr(made, name), value)
        for name, value in usual.items()
        if name != "optimizer"
    }
    return replace(made, optimizer=names, **numbers)


def as_finished(targets: RunTable, done: RunTable, said: Sequence[str] = ()) -> tuple[RunTable, dict[str, Any]]:
    """Return targets with what they do not say taken from finished runs that all agree in it, and what that is.

    Settings are the optimizer, weight decay, betas and the length of sequences, by the names of their columns, without
    those that were `said`.
    """
    taken: dict[str, Any] = {}
    for name in ("optimizer", "weight_decay", "beta1", "beta2", "seq_len"):
        values, own = list(getattr(done, name)), list(getattr(targets, name))
        known = values[0] is not None and values[0] == values[0]
        if (
            name not in said
            and known
            and all(value == values[0] for value in values)
            and any(x is None or x != x for x in own)
        ):
            taken[name] = values[0] if name == "optimizer" else float(values[0])
    filled: dict[str, Any] = {
        name: tuple(x or value for x in targets.optimizer)
        if name == "optimizer"
        else np.where(np.isnan(getattr(targets, name)), value, getattr(targets, name))
        for name, value in taken.items()
    }
    return replace(targets, **filled), taken


def usual_settings(runs: RunTable) -> dict[str, Any]:
    """Return what the first run that does not say counts as: optimizer, and by it weight decay (1/rate) and betas.

    Columns that all runs fill are left out, and so are betas unless all runs are of Adam or AdamW. `beta2` is a usual
    value that nothing here looks at.
    """
    found: dict[str, Any] = {} if all(runs.optimizer) else {"optimizer": USUAL_OPTIMIZER}
    unsaid = ~np.isfinite(runs.weight_decay)
    if unsaid.any():
        found["weight_decay"] = float(effective_decay(runs)[unsaid][0])
    if all(family(name) == USUAL_OPTIMIZER for name in set(runs.optimizer)):
        found |= {name: value for name, value in USUAL_BETAS.items() if not np.isfinite(getattr(runs, name)).all()}
    return found


def _whole_length(seq_len: Any) -> float:
    """Return a length of sequences that was given, or refuse it."""
    seq_len = as_number(seq_len, "seq_len") if isinstance(seq_len, str) else seq_len
    number = isinstance(seq_len, Real) and not isinstance(seq_len, bool)
    if not (number and 1 <= float(seq_len) < np.inf and float(seq_len).is_integer()):
        raise InputError(f"seq_len must be a whole number of tokens above 0, got {seq_len!r:.40}; 1024 is usual")
    return float(seq_len)


def _sequence(targets: RunTable, batch: float) -> float:
    """Return the tokens of a sequence where nobody gives them: the targets' own, else a power of two."""
    own = _median(targets.seq_len)
    if np.isfinite(own):
        return _whole_length(float(round(own)) or own)  # of less than half a token there is none
    length = SEQUENCE
    while length > 1 and batch < FEWEST_SEQUENCES * length:
        length //= 2
    return float(length)


def _whole_batch(tokens: float, length: float) -> float:
    """Return a batch near `tokens` of 1, 1.25, 1.5 or 1.75 times a power of two of sequences, whole; 0 below one."""
    if tokens < length:
        return 0.0
    unit = max(2.0 ** (math.floor(math.log2(tokens / length)) - 2), 1.0)
    return round(tokens / length / unit) * unit * length


def _round(value: float) -> float:
    """Return a count to three figures, as it will be written."""
    return float(max(round(float(f"{value:.3g}")), 1))


def _median(values: FloatArray) -> float:
    good = values[np.isfinite(values)]
    return float(np.median(good)) if len(good) else float("nan")


def _common(runs: RunTable) -> dict[str, Any]:
    """Return what the runs have in common and small runs should have too."""
    numbers = {name: _median(getattr(runs, name)) for name in ("beta1", "beta2", "weight_decay")}
    names = {name for name in runs.optimizer if name}
    found: dict[str, Any] = {name: value for name, value in numbers.items() if np.isfinite(value)}
    return {**found, "optimizer": names.pop()} if len(names) == 1 else found


def _join(targets: RunTable, pool: RunTable, done: RunTable | None) -> RunTable:
    """Return all runs as one table, under names of its own."""
    tables = [table for table in (targets, pool, done) if table is not None and len(table)]
    renamed, start = [], 0
    for table in tables:
        held = table.schedules if isinstance(table.schedules, tuple) else tuple(_objects(table))
        names = tuple(str(start + i) for i in range(len(table)))
        renamed.append(replace(table, run_id=names, schedules=held))
        start += len(table)
    return RunTable.concat(renamed)


def _objects(table: RunTable) -> list[Schedule]:
    """Return the schedules as objects; a `ScheduleBatch` has none."""
    raise InputError(f"runs must be built from schedules, got a ScheduleBatch of {len(table)}; build them one by one")


def _all_or_none(values: FloatArray, name: str, targets: int) -> bool:
    """Return whether a column is known in every run (True) or in none (False); some is an error."""
    missing = np.flatnonzero(~np.isfinite(values))
    if 0 < len(missing) < len(values):
        where = "the targets" if missing[0] < targets else "the runs to choose from or the finished ones"
        raise InputError(
            f"{name} must be given for targets, runs to choose from and finished runs alike, or for none, but"
            f" {len(missing)} of {len(values)} lack it, first in {where}; add it"
        )
    return len(missing) == 0


def _expected(done: RunTable | None, basis: Basis, settings: Settings | None) -> tuple[tuple[FloatArray, float], Basis]:
    """Return expected coefficients, the mean loss that priors are relative to, and the basis in its units."""
    if done is None or len(done) < FEWEST_RUNS:
        usual = np.where(np.isfinite(basis.prior), basis.prior, 1.0)
        return (basis.centre if basis.centre.any() else usual, 1.0), basis
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptlawsWarning)  # that there are few of them is why more are looked for
        law = fit_law(done, basis=basis, settings=settings)
    return (law.posterior.coefficients, float(done.final_loss.mean())), law.basis


def _safe(pool: RunTable, max_risk: float) -> np.ndarray:
    """Return which runs are likely enough to be completed, by the risk model of the public runs, shape (n,).

    Where that is not known they are.
    """
    with np.errstate(invalid="ignore"):
        return ~(np.asarray(public_risk().probability(pool, {}), dtype=float) > max_risk)


def training_flops(runs: RunTable) -> FloatArray:
    """Return the FLOPs of each run's training, 6 N D, N the parameters that a token meets, (n,); NaN where unknown."""
    return FLOPS * runs.size * runs.tokens


def _cost(runs: RunTable) -> tuple[FloatArray, str]:
    """Return what each run costs, and the unit."""
    if np.isfinite(runs.tokens).all():
        if np.isfinite(runs.size).all():
            return training_flops(runs), "FLOPs"
        return runs.tokens, "tokens"
    return np.asarray(runs.steps, dtype=float), "steps"
