"""Peak rate, batch, warm-up and schedule for a run of N parameters on D tokens, with published advice beside it.

The setting of lowest expected loss inside the law's training domain is recommended, as far as the law is sure of it:
what counts against one that it does not know is `optimize.task.Judged.score`, as in `optimize_schedule` (of schedules
that it cannot tell apart, one like those that the law has seen). Around it the loss is flat, and how flat is part of
the answer: the range of peak rates, and of batches with the peak rate tuned again, that are predicted to cost less than
`FLAT` more, uncertainty ignored. Where the lowest lies is uncertain, the more so far from the law's runs: beside stands
the range that holds the lowest of what was looked at with a probability of 90 %, by the joint covariance of their
expected losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optlaws._advice import number_text
from optlaws._flat import FLAT, TOO_FAR, FlatRange, flat_range, too_far, where_lowest
from optlaws.baselines.advice import published_laws, rival_advice
from optlaws.baselines.base import usable
from optlaws.dynamics.model import family
from optlaws.errors import InputError, OptlawsError, RiskError, told_otherwise
from optlaws.law import Law, builtin_names, load_law
from optlaws.law.domain import beyond
from optlaws.optimize import Gain, make_task, optimize_schedule, search, standard_shapes
from optlaws.optimize.families import Best, member, parameters, tidy, unseen_warmups, warmups
from optlaws.optimize.task import ROUNDING, FloatArray, Task, check_knows_rates, law_of, risk_notes
from optlaws.ranking import Ranking, Z, rank
from optlaws.runs import RunTable, format_quantity, parse_quantity
from optlaws.runs._optimizers import USUAL_OPTIMIZER
from optlaws.schedules import FAMILIES, Schedule, ScheduleBatch
from optlaws.schedules.quantity import as_numbers

__all__ = [
    "FLAT",
    "TOO_FAR",
    "FlatRange",
    "Published",
    "Recommendation",
    "choose_law",
    "flat_range",
    "published_laws",
    "recommend_settings",
    "rival_advice",
    "too_far",
    "where_lowest",
]

PEAKS, BATCHES = 61, 25  # of the scans
FEWEST = round(0.5 / ROUNDING)  # steps of a run whose batch is looked for: in fewer, whole steps miss its tokens
NARROW = 1.2  # a law whose mean rates span less has seen one shape of schedule
SHAPES_LAW = "llama-slimpajama"
FAR = 4.0  # factor beyond the law's peak rates at which the cost of advice is no longer told


@dataclass(frozen=True)
class Published:
    """What another law advises.

    Attributes
    ----------
    name, source : the law and where it is published.
    peak_lr, batch_tokens : its advice, NaN where it says nothing.
    cost : expected loss there, by the law that recommends, over that of its own recommendation, minus 1; what the other
        law leaves open, and the batch where it is settled, is taken from the recommendation. NaN where nothing of the
        advice can be judged: far outside the domain, or a batch alone by a law that has seen one batch.
    risk : divergence risk there, of which the cost knows nothing; NaN where it is not known or the cost is none.
    note : a reservation, or "".
    """

    name: str
    source: str
    peak_lr: float
    batch_tokens: float
    cost: float
    risk: float
    note: str


@dataclass(frozen=True)
class Recommendation:
    """A recommended setting and what is known about it.

    Attributes
    ----------
    law, task : the law, and the run with the recommended batch.
    schedule, family : what to run.
    loss, lower, upper : predicted final loss and its 90 % interval for one run, nats per token.
    risk : probability of divergence, NaN where it is not known.
    in_domain, reasons : whether the law has seen such runs, and why not.
    peak, batch : near-optimal ranges; `batch` is None where it was given or the law does not know batches.
    families : the best member of each family at that batch, ranked.
    shapes : gains of the best schedule over the best cosine by a law that knows shapes, where the own law does not;
        None otherwise.
    published : other laws' advice.
    notes : sentences on the domain.
    """

    law: str
    task: Task
    schedule: Schedule
    family: str
    loss: float
    lower: float
    upper: float
    risk: float
    in_domain: bool
    reasons: str
    peak: FlatRange
    batch: FlatRange | None
    families: Ranking
    shapes: tuple[str, Schedule, Gain] | None
    published: tuple[Published, ...]
    notes: tuple[str, ...]


def choose_law(params: float | None, tokens: float | None, batch_tokens: float | None) -> Law:
    """Return the built-in law whose training runs are nearest to these sizes."""
    given = {"params": params, "tokens": tokens, "batch_tokens": batch_tokens}
    sizes = {name: value for name, value in given.items() if value is not None}

    def distance(law: Law) -> tuple[float, bool]:
        far = sum(beyond(law.domain, sizes).values())
        span = law.domain.get("batch_tokens", (1.0, 1.0))
        return round(far, 6), not span[1] > span[0]

    return min((load_law(name) for name in builtin_names()), key=distance)


def recommend_settings(
    law: Any = None,
    *,
    params: float | str,
    tokens: float | str,
    batch_tokens: float | str | None = None,
    weight_decay: float | str | None = None,
    optimizer: str | None = None,
    max_risk: float | None = None,
    warmup: float | Sequence[float] | None = None,
    caution: float = Z,
    fitted_on: RunTable | None = None,
    progress: Callable[[str], None] | None = None,
) -> Recommendation:
    """Recommend peak rate, batch, warm-up and schedule.

    Parameters
    ----------
    law : fitted law, its name or its file; by default the built-in one whose runs are nearest (`choose_law`).
    params, tokens : N and D, numbers or texts like "85M".
    batch_tokens : tokens an update, if it is settled.
    weight_decay, optimizer : as in a run table.
    max_risk : accepted probability of divergence; 0.05 by default, where the law knows it.
    warmup : warm-up or warm-ups to try, in steps; by default those that the law has seen.
    caution : standard deviations that count against a setting, 0 .. 10, as in `optimize_schedule`.
    fitted_on : runs that the law was fitted to; published laws without printed constants (muP) are fitted to them, too.
    progress : called with a word on every step.

    Raises
    ------
    InputError
        A value is out of range, or nothing lies inside the domain.
    LawError
        The law does not know peak rates.
    RiskError
        No setting has an accepted risk.
    """
    n, d = parse_quantity(params, "params"), parse_quantity(tokens, "tokens")
    fixed = None if batch_tokens is None else parse_quantity(batch_tokens, "batch_tokens")
    tried = as_numbers(warmup, "warmup")
    law = choose_law(n, d, fixed) if law is None else law_of(law)
    check_knows_rates(law)
    given: dict[str, Any] = {
        "params": n, "tokens": d, "weight_decay": weight_decay, "optimizer": optimizer, "max_risk": max_risk,
        "caution": caution,
    }  # fmt: skip
    batches = _batches(law, d, fixed)
    first, tasks = _first_guess(law, batches, given, tried, progress)
    task = tasks[first]
    narrow, seen = _narrow(law), _seen(law, fitted_on)
    best, families, peak = _best(task, warmups(task, tried), seen, progress)
    batch = None
    if fixed is None and len(batches) > 1:
        batch = _scan_batch(task, best, batches, progress)
        if abs(np.log(batch.best / task.columns["batch_tokens"])) > 1e-9:
            task = replace(task, steps=_steps(d, batch.best), columns={**task.columns, "batch_tokens": batch.best})
            best, families, peak = _best(task, warmups(task, tried), seen, progress)
    judged = task.judge([best.schedule])
    prediction = judged.prediction
    shapes = _shapes(task, n, d, progress) if narrow else None
    notes = [
        *task.notes,
        *_instead(task, families, best, seen),
        *_cautious_peak(peak, caution),
        *unseen_warmups(task, tried),
        *risk_notes(law, float(judged.risk[0]), task.max_risk),
    ]
    if fixed is None and len(batches) == 1:
        only = format_quantity(batches[0])
        notes.append(f"the law has seen one batch, {only} tokens a step: others' rates are judged at it")
    elif fixed is not None:
        notes.append("others' rates are judged at the batch that was given")
    if task.sizes_outside:
        notes.append(f"the run itself lies outside the law's domain: {task.sizes_outside}")
    optimizers = getattr(law, "optimizers", None)
    if optimizer is not None and family(optimizer) not in (optimizers.others if optimizers else ()):
        own = optimizers.own if optimizers else USUAL_OPTIMIZER
        if family(optimizer) != own:
            notes.append(
                f"{optimizer} differs from {own} here in nothing but its weight decay and, if it is SGD, its noise: the"
                " law has seen no run of it"
            )
    return Recommendation(
        law=law.name, task=task, schedule=best.schedule, family=best.family, loss=float(judged.loss[0]),
        lower=float(prediction.lower[0]), upper=float(prediction.upper[0]), risk=float(judged.risk[0]),
        in_domain=bool(prediction.in_domain[0]), reasons=prediction.reasons[0], peak=peak, batch=batch,
        families=families, shapes=shapes, published=_published(task, best, float(judged.loss[0]), n, d,
        fixed is not None, fitted_on), notes=tuple(notes),
    )  # fmt: skip


def _steps(tokens: float, batch: float) -> int:
    return max(round(tokens / batch), 1)


def _narrow(law: Any) -> bool:
    low, high = law.domain.get("mean_rate", (0.0, np.inf))
    return bool(high <= low * NARROW)


def _seen(law: Any, runs: RunTable | None) -> frozenset[str]:
    """Return the kinds of schedule that a law was fitted to, as far as the runs or its file say; none: not known.

    Files of before `info["schedules"]` name them where families were left out in turn; of a law of one shape that does
    not, it is the cosine.
    """
    info = getattr(law, "info", {})
    if "schedules" in info:
        named = set(info["schedules"]["kinds"])
    elif runs is not None:
        named = {schedule.kind for schedule in runs.select(usable(runs)).schedule_tuple()}
    else:
        groups = info.get("left_out_groups", {}).get("family", {}).get("groups", ())
        named = {str(one["group"]) for one in groups} & set(FAMILIES)
    return frozenset(named or ({"cosine"} if _narrow(law) else ()))


def _batches(law: Any, tokens: float, batch_tokens: float | None) -> list[float]:
    """Return the batches to look at, tokens a step: whole steps, inside the law's domain where it can be."""
    if batch_tokens is not None:
        return [batch_tokens]
    low, high = law.domain.get("batch_tokens", (0.0, 0.0))
    if not _knows_batches(law):
        usual = law.defaults.get("batch_tokens", high if high > 0 else None)
        if usual is None:
            raise InputError(
                f"batch_tokens must be given for law {law.name!r}, which knows no batch sizes, got nothing;"
                " add --batch-tokens"
            )
        return [float(usual)]
    values = tidy(np.geomspace(low, high, BATCHES), 4)
    usable = values[tokens / values >= FEWEST]
    if not len(usable):
        raise InputError(
            f"tokens must be enough for {FEWEST} steps of {format_quantity(low)} tokens, got {format_quantity(tokens)};"
            " plan a longer run"
        )
    shortest, longest = law.domain.get("steps", (1.0, np.inf))
    steps = tokens / usable
    inside = usable[(steps >= shortest / 1.05) & (steps <= longest * 1.05)]
    return [float(b) for b in (inside if len(inside) else usable)]


def _knows_batches(law: Any) -> bool:
    """Return whether the law has seen several batch sizes, and looks at them."""
    low, high = law.domain.get("batch_tokens", (0.0, 0.0))
    return bool(getattr(law, "use_batch", True) and high > low > 0)


def _first_guess(
    law: Any,
    batches: Sequence[float],
    given: Mapping[str, Any],
    warmup: Sequence[float] | None,
    progress: Callable[[str], None] | None,
) -> tuple[int, list[Task]]:
    """Return the place of the batch whose best cosine has the lowest expected loss, and a task for each batch."""
    cosine = standard_shapes()[:1]
    tasks, scores = [], []
    failed: OptlawsError | None = None
    for batch in batches:
        task = make_task(law, **given, batch_tokens=batch)
        tasks.append(task)
        try:
            scores.append(search(task, warmups(task, warmup), cosine, progress)[0].score)
        except (InputError, RiskError) as bad:
            failed = bad
            scores.append(np.inf)
    if failed is not None and not np.isfinite(scores).any():
        raise failed
    return int(np.argmin(scores)), tasks


def _best(
    task: Task, warm: Sequence[int], seen: frozenset[str], progress: Callable[[str], None] | None
) -> tuple[Best, Ranking, FlatRange]:
    """Return what to run, the best of every family, and the near-optimal peak rates about it."""
    found = search(task, warm, standard_shapes(), progress)
    families = rank(task.runs([b.schedule for b in found]), task.law, [b.family for b in found])
    best = _settle(found, families, seen)
    peak, tuned = _scan_peak(task, best)
    if tuned is not best:
        found = [tuned if one is best else one for one in found]
        families = rank(task.runs([b.schedule for b in found]), task.law, [b.family for b in found])
    return tuned, families, peak


def _settle(found: Sequence[Best], families: Ranking, seen: frozenset[str]) -> Best:
    """Return the best family, or the best that the law has `seen` where an unseen one cannot be told apart from it."""
    for place, one in enumerate(found):  # of the lowest score first
        known = not seen or (one.shape is not None and one.shape.kind in seen)
        if known and (place == 0 or families.difference_lower[place] <= 0):
            return one
    return found[0]


def _instead(task: Task, families: Ranking, best: Best, seen: frozenset[str]) -> list[str]:
    """Say why a family is recommended that is not the one of lowest predicted loss; [] where it is."""
    lowest, place = families.names[families.best], families.names.index(best.family)
    kind = best.shape.kind if best.shape is not None else ""
    if place == families.best:
        return []
    more, low, high = (
        number_text(float(end[place]), families.decimals, sign=True)
        for end in (families.difference, families.difference_lower, families.difference_upper)
    )
    other = families.runs.schedule_tuple()[families.best].kind
    if kind not in seen or other in seen or families.difference_lower[place] > 0:
        return [
            f"{best.family} is recommended, and not {lowest} of lowest predicted loss ({more}, 90 % interval {low} .."
            f" {high}): the law is surer of it (--caution {task.caution:.3g}; 0 goes by the mean alone)"
        ]
    return [
        f"{best.family} is recommended, and not {lowest} of lowest predicted loss: the law was fitted to few schedules"
        f" like that, if any, and cannot tell it from {best.family}, which it has seen ({more}, 90 % interval"
        f" {low} .. {high})"
    ]


def _cautious_peak(peak: FlatRange, caution: float) -> list[str]:
    """Say where the lowest predicted loss lies, where that is another peak rate, for more than `FLAT` less."""
    lowest = int(np.nanargmin(peak.loss))
    own = float(peak.loss[np.abs(np.log(peak.values / peak.best)).argmin()])
    gain = 1.0 - float(peak.loss[lowest]) / own
    if gain <= FLAT:
        return []
    return [
        f"the lowest predicted loss is at a peak rate of {peak.values[lowest]:.3g}, {100 * gain:.2g} % below the"
        f" recommended one, where the law is less sure (--caution {caution:.3g}; 0 goes by the mean alone)"
    ]


def _varied(task: Task, best: Best, peaks: FloatArray, steps: FloatArray | None = None) -> tuple[Any, Any]:
    """Return the batch of schedules of that shape at other peaks (and lengths), and its parameters."""
    if best.shape is None:
        raise InputError("the best schedule must belong to a family")
    points = {name: np.full(len(peaks), value) for name, value in best.point.items()} | {"peak": peaks}
    if steps is not None:
        points["steps"] = steps
    values = parameters(task, best.shape, points)
    return ScheduleBatch.grid(best.shape.kind, **values, **best.shape.fixed), values


def _scan_peak(task: Task, best: Best) -> tuple[FlatRange, Best]:
    """Return the near-optimal peak rates, all else equal, and the best with the peak of lowest loss among them."""
    peaks = np.unique(np.append(np.geomspace(task.low, task.high, PEAKS), best.schedule.peak))
    schedules, values = _varied(task, best, peaks)
    judged = task.judge(schedules)
    ok = task.allowed(judged) & task.safe(judged)
    loss = np.where(ok, judged.loss, np.nan)
    ends = [np.where(ok, getattr(judged.prediction, name), np.nan) for name in ("lower", "upper")]
    score = np.where(ok, judged.score(task.caution), np.inf)
    row = int(np.argmin(score))
    own = np.flatnonzero((values["peak"] == best.schedule.peak) & (score <= score[row] + 1e-9))
    if len(own):
        row = int(own[0])
    elif best.shape is not None:  # where the search ran into a bound
        point = {**best.point, "peak": float(values["peak"][row])}
        best = replace(best, schedule=member(best.shape, values, row), score=float(score[row]), point=point)
    flat = flat_range(values["peak"], loss, ends[0], ends[1], row)
    least, most = where_lowest(judged.prediction, np.flatnonzero(ok), values["peak"])
    return replace(flat, least=least, most=most), best


def _scan_batch(task: Task, best: Best, batches: Sequence[float], progress: Callable[[str], None] | None) -> FlatRange:
    """Return the near-optimal batches, with the peak rate tuned again at each."""
    peaks = np.geomspace(task.low, task.high, PEAKS)
    tokens = task.columns["tokens"]
    rows = {name: np.full(len(batches), np.nan) for name in ("loss", "lower", "upper", "score")}
    tuned: dict[int, RunTable] = {}
    for place, batch in enumerate(batches):
        steps = np.full(len(peaks), float(_steps(tokens, batch)))
        there = replace(task, steps=int(steps[0]), columns={**task.columns, "batch_tokens": batch})
        schedules, values = _varied(there, best, peaks, steps)
        judged = there.judge(schedules)
        ok = there.allowed(judged) & there.safe(judged)
        if ok.any():
            score = np.where(ok, judged.score(task.caution), np.inf)
            row = int(np.argmin(score))
            rows["loss"][place], rows["score"][place] = judged.loss[row], score[row]
            rows["lower"][place], rows["upper"][place] = judged.prediction.lower[row], judged.prediction.upper[row]
            if best.shape is not None:  # else it has no other rates
                tuned[place] = replace(there.runs([member(best.shape, values, row)]), run_id=(str(place),))
        if progress:
            progress("batch")
    lowest = int(np.nanargmin(rows["score"]))
    flat = flat_range(np.array(batches), rows["loss"], rows["lower"], rows["upper"], lowest)
    with told_otherwise():
        together = task.law.predict(RunTable.concat(list(tuned.values())))
    least, most = where_lowest(together, np.arange(len(tuned)), np.array(batches)[list(tuned)])
    return replace(flat, least=least, most=most)


def _shapes(
    task: Task, params: float, tokens: float, progress: Callable[[str], None] | None
) -> tuple[str, Schedule, Gain] | None:
    """Return what a law that knows shapes says of WSD against cosine, at the nearest sizes that it has seen."""
    law = load_law(SHAPES_LAW)
    discrepancy = getattr(task.law, "discrepancy", None)
    law = law if discrepancy is None else law.on_other_corpus(discrepancy)
    sizes = (("params", params), ("tokens", tokens))
    inside: dict[str, Any] = {name: float(np.clip(value, *law.domain[name])) for name, value in sizes}
    try:
        found = optimize_schedule(
            law, **inside, knots=0, max_risk=task.max_risk, caution=task.caution, progress=progress
        )
    except RiskError:  # what is accepted of the own law may be less than this one ever promises
        return None
    gain = next((g for g in found.gains if g.family == "cosine"), None)
    return None if gain is None else (law.name, found.schedule, gain)


def _published(
    task: Task, best: Best, loss: float, params: float, tokens: float, fixed_batch: bool, runs: RunTable | None
) -> tuple[Published, ...]:
    """Return other laws' advice and what it would cost by the own law."""
    out = []
    for law, note in published_laws(runs):
        peak, batch = law.recommend(params, tokens, loss)
        cost, risk = _cost(task, best, loss, peak, np.nan if fixed_batch else batch)
        out.append(Published(law.name, law.source, peak, batch, cost, risk, note))
    return tuple(out)


def _cost(task: Task, best: Best, loss: float, peak: float, batch: float) -> tuple[float, float]:
    """Return the expected loss at another peak and batch over the own, minus 1, and the risk; NaN if not known."""
    untold = (float("nan"), float("nan"))
    several = _knows_batches(task.law)
    if not (np.isfinite(peak) or (several and np.isfinite(batch))):
        return untold
    batch = batch if several and np.isfinite(batch) else float(task.columns["batch_tokens"])
    peak = peak if np.isfinite(peak) else best.schedule.peak
    if not (task.low / FAR <= peak <= task.high * FAR) or best.shape is None:
        return untold
    low, high = task.law.domain.get("batch_tokens", (0.0, 0.0))
    if several and not low / FAR <= batch <= high * FAR:
        return untold
    there = replace(
        task, steps=_steps(task.columns["tokens"], batch), columns={**task.columns, "batch_tokens": batch},
        low=min(task.low, peak), high=max(task.high, peak),
    )  # fmt: skip
    if there.steps < FEWEST:
        return untold
    _, values = _varied(there, best, np.array([peak]), np.array([float(there.steps)]))
    judged = there.judge([member(best.shape, values, 0)])
    return float(judged.loss[0] / loss - 1.0), float(judged.risk[0])
