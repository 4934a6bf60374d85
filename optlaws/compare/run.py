"""Fit every law in every fold."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from optlaws.baselines import baseline_names
from optlaws.baselines.base import Progress, column
from optlaws.baselines.optimal_rate import nearest_run
from optlaws.compare.contenders import OURS, REFERENCES, SECONDS, Contender, OutOfTimeError
from optlaws.compare.figures import DRAWS, Answers, Comparison, first_of, result_of
from optlaws.compare.splits import SPLITS, Labels, blocks_of, made_folds
from optlaws.errors import ExtrapolationWarning, FitError, InputError, OptlawsError, RankDeficiencyWarning, nearest
from optlaws.features import get_basis
from optlaws.runs import CurveTable, RunTable, check_runs
from optlaws.validation import SMALLEST_POOL, Split, competing, configurations, finished

NO_POOL = f"only advises rates or batches, and no {SMALLEST_POOL} runs held out together have one size and budget"

INTERRUPTED = "interrupted"


def compare_laws(
    runs: RunTable,
    curves: CurveTable | None = None,
    *,
    laws: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    seconds: float = SECONDS,
    intervals: bool = False,
    progress: Progress | None = None,
    partial: bool = False,
    bases: Sequence[str] = (),
) -> Comparison:
    """Fit our law and rival laws to parts of the same runs and say how well each predicts the rest.

    Parameters
    ----------
    runs : RunTable
        Runs; those that did not complete, or have no loss, are left out.
    curves : CurveTable, optional
        Losses along some of them. Laws that read curves are fitted on those of the training runs, brought to the level
        of the final losses, and on the final losses of training runs without one; what is predicted are final losses
        all the same.
    laws : sequence of str, optional
        Rivals, see `optlaws.baselines.baseline_names`; default: all. Ours and two lines to compare with (`MeanLoss`,
        `NearestRun`) are always there.
    splits : sequence of str, optional
        Of "horizon", "size", "family", "peak"; default: all that the runs allow.
    seconds : float
        A law whose fits take longer than this altogether is stopped; what it has predicted by then is kept. Above 0.
    intervals : bool
        Give rivals that predict losses the 90 % intervals of `optlaws.law.baseline.fit_baseline`, which leaves groups
        of the training runs out to find them: several times slower.
    progress : callable, optional
        Called with words at every step of a fit, which law and fold of how many among them; it changes nothing.
    partial : bool
        On KeyboardInterrupt (Ctrl-C) return what is finished, if ours is among it; the others have "interrupted" for
        their reason. Without it, or before ours has an answer, the interrupt is raised.
    bases : sequence of str
        Ids of bases (`optlaws.basis_ids`): our law with each stands among the rivals, under the basis' id.

    Returns
    -------
    Comparison
        Laws that cannot be fitted stand in it with the reason.

    Raises
    ------
    InputError
        No run or curve table, no such law, split or basis, or a limit of time that is none.
    TableError
        The table holds a `ScheduleBatch`.
    FitError
        The runs allow no split, or no law could be fitted in any.
    """
    check_runs(runs)
    if not isinstance(curves, CurveTable | None):
        raise InputError(f"curves must be a CurveTable, got {type(curves).__name__}; read one with read_curves")
    names = _chosen("laws", laws, [OURS, *baseline_names()], [OURS])
    wanted = _chosen("splits", splits, list(SPLITS), [])
    if not isinstance(seconds, Real) or not seconds > 0:
        raise InputError(f"seconds must be above 0, got {seconds!r:.40}; give the time that a law's fits may take")
    done = runs.select(finished(runs))
    made, no_split = made_folds(done, wanted)
    if not made:
        reasons = "; ".join(f"{name}: {why}" for name, why in no_split.items())
        raise FitError(f"runs must allow at least one split, got {len(done)} completed runs ({reasons}); add runs")
    pool = np.unique(competing(done), return_inverse=True)[1]
    others = [Contender(get_basis(one).id, seconds, intervals, progress, one) for one in dict.fromkeys(bases)]
    rivals, lines = ([Contender(n, seconds, intervals, progress) for n in some] for some in (names, REFERENCES))
    contenders = [*rivals[:1], *others, *rivals[1:], *lines]
    not_compared = {law.name: why for law in contenders if (why := law.unfit(done))}
    contenders = [law for law in contenders if law.name not in not_compared]
    tried = np.unique(configurations(done), return_inverse=True)[1]
    answers: dict[str, dict[str, Answers]] = {law.name: {} for law in contenders}
    interrupted, total = False, sum(map(len, made.values()))
    for place, law in enumerate(contenders, start=1):
        law.place, law.folds = f"law {place} of {len(contenders)}", total
        for name, folds in made.items():
            mine = answers[law.name][name] = Answers(*np.full((3, len(done)), np.nan))
            if interrupted and law.group != "reference":
                mine.reasons.append(INTERRUPTED)
                continue
            try:
                _answer(mine, law, done, folds, pool, tried, curves)
            except KeyboardInterrupt:
                if not partial:
                    raise
                interrupted = True
                mine.reasons.append(INTERRUPTED)
    for law in contenders:
        given = answers[law.name].values()
        if not any(a.advised or np.isfinite(a.loss).any() for a in given):
            not_compared[law.name] = first_of([why for a in given for why in a.reasons]) or NO_POOL
    kept = [law for law in contenders if law.name not in not_compared]
    if interrupted and OURS in not_compared:
        raise KeyboardInterrupt
    if all(law.group == "reference" for law in kept):
        raise FitError(f"at least one law must be fitted, got none ({OURS}: {not_compared[OURS]}); add runs")
    found = [
        result_of(n, folds, kept, {k: a[n] for k, a in answers.items()}, done, pool, tried) for n, folds in made.items()
    ]
    with_curve = 0 if curves is None else len(set(curves.run_id) & set(done.run_id))
    warned = {law.name: first_of(law.warned) for law in contenders if law.warned}
    left_out = len(runs) - len(done)
    return Comparison(len(done), left_out, with_curve, tuple(found), no_split, not_compared, warned, interrupted)


def _chosen(what: str, given: Sequence[str] | None, known: list[str], always: list[str]) -> list[str]:
    """Return the names that were asked for, in the usual order; all without a choice."""
    if given is None:
        return known
    names = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else []
    if not names:
        raise InputError(f"{what} must be a list of at least one of {', '.join(known)}, got {given!r}; name some")
    for name in names:
        if name not in known:
            raise InputError(
                f"{what} must be some of {', '.join(known)}, got {name!r}{nearest(str(name), known)};"
                f" leave {what} out for all"
            )
    return [name for name in known if name in names or name in always]


def _answer(
    out: Answers,
    law: Contender,
    runs: RunTable,
    folds: Sequence[Split],
    pool: Labels,
    tried: Labels,
    curves: CurveTable | None,
) -> None:
    """Fit a law in every fold of a split and gather its answers."""
    block = blocks_of(folds, pool)
    for split in folds:
        law.fold += 1
        rows, before = np.flatnonzero(split.test), law.spent
        train, test = runs.select(split.train), runs.select(split.test)
        fitted = False
        for part, places in law.by_size(train, test):
            if not len(part):
                out.reasons.append("holds for one size, and the held-out sizes are not among those fitted")
                continue
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    warnings.simplefilter("ignore", ExtrapolationWarning)
                    warnings.simplefilter("ignore", RankDeficiencyWarning)
                    found = law.fit(part, curves)
                    if law.predicts:
                        _keep(out, found.predict(test.select(places)), rows[places])
                    else:
                        out.advised |= _advised(found, runs, rows, block, tried)
                fitted = True
            except OutOfTimeError:
                out.reasons.append(f"stopped: its fits took more than {law.limit:g} s")
                continue
            except (OptlawsError, ArithmeticError, ValueError) as bad:
                why = " ".join(str(bad).split()).removeprefix(f"law {law.name!r} ")
                known = isinstance(bad, OptlawsError) and why
                out.reasons.append(why if known else f"its fit fails ({type(bad).__name__})")
                continue
            finally:
                law.warned.extend(" ".join(str(one.message).split()) for one in caught)
        if fitted:
            out.seconds.append(law.spent - before)


def _keep(out: Answers, predicted: Any, rows: Labels) -> None:
    """Store predictions of runs, with their ends where the law has intervals; those that are no losses are dropped."""
    whole = hasattr(predicted, "loss")
    loss = np.asarray(predicted.loss if whole else predicted, dtype=np.float64)
    good = np.isfinite(loss) & (loss > 0)
    if not good.all():
        out.reasons.append(f"predicts no loss for {int((~good).sum())} of {len(loss)} runs ({loss[~good][0]:g} nats)")
    out.loss[rows[good]] = loss[good]
    if whole:
        out.lower[rows[good]], out.upper[rows[good]] = predicted.lower[good], predicted.upper[good]


def _advised(law: Any, runs: RunTable, rows: Labels, block: Labels, tried: Labels) -> dict[int, float]:
    """Return, by block, how far the candidate nearest to the advice lies above the lowest, in %.

    Laws in the loss are told the block's lowest. What the advice leaves open, or cannot tell apart, is drawn.
    """
    out, random = {}, np.random.default_rng(0)
    for value in np.unique(block[rows]):
        here = np.flatnonzero(block == value)
        if len(here) < SMALLEST_POOL:
            continue
        index, label = np.unique(tried[here], return_index=True, return_inverse=True)[1:]
        y = np.bincount(label, weights=runs.final_loss[here]) / np.bincount(label)
        cell = runs.select(here[index])
        advice = law.recommend(float(cell.size[0]), float(cell.tokens[0]), float(y.min()))
        picked = []
        for _ in range(DRAWS):
            order = random.permutation(len(y))
            rate, batch = column(cell, "peak_lr")[order], cell.batch_tokens[order]
            picked.append(y[order][nearest_run(rate, batch, advice, random.random(len(y)))])
        out[int(value)] = float(100 * (np.mean(picked) / y.min() - 1))
    return out
