"""Built-in laws: files of this package, fitted on public runs that they do not carry."""

from __future__ import annotations

import math
import os
import warnings
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from optlaws.errors import InputError, LawError, OptlawsWarning, nearest
from optlaws.law.model import Law
from optlaws.runs import check_runs
from optlaws.runs._optimizers import USUAL_OPTIMIZER

if TYPE_CHECKING:
    from optlaws.law.baseline import BaselineFit
    from optlaws.risk import RiskModel
    from optlaws.runs import RunTable


def builtin_names() -> list[str]:
    """Return the names of the built-in laws."""
    return sorted(
        entry.name.removesuffix(".json") for entry in files("optlaws.laws").iterdir() if entry.name.endswith(".json")
    )


OWN_SCATTER_SD = 0.5
"""Prior sd of ln of the scatter of a user's own runs about the criterion: it may be far from that of the public runs,
where the boundary is blurred or a warm-up does not act as theirs do. At .125 made-up runs with a boundary five times as
blurred diverged 16 to 22 % of the time where 2.5 % was said (150 of them known); now 1 to 7 %.
"""

FEWEST_ABOVE = 8  # completed runs before their rates are doubted
FAR_ABOVE = (
    2.0  # times the public critical rate, felt by half of the runs; of no source of ours did they feel 0.9 times
)

WIDER = {1.0: 0.9, 4.0: 0.07, 16.0: 0.03}
"""How many times further apart a source's critical rate may lie than those of the public runs, and prior odds."""


def _is_file(name: str) -> bool:
    return name == "-" or os.path.exists(name)


def load_law(law: str | os.PathLike[str]) -> Law:
    """Return a built-in law by name, or the law in a file; "-" is standard input.

    Raises
    ------
    LawError
        There is neither, or it is neither a name nor a path.
    """
    name = os.fspath(law) if isinstance(law, str | os.PathLike) else law
    known = builtin_names()
    if not isinstance(name, str):
        raise LawError(
            f"law must be a law file or one of {', '.join(known)}, got {law!r:.60}; give the name or the path as text"
        )
    if name in known:
        with files("optlaws.laws").joinpath(f"{name}.json").open(encoding="utf-8") as stream:
            from optlaws.law.store import law_from_text

            return law_from_text(stream.read(), name)
    if not _is_file(name):
        from optlaws.baselines import baseline_names

        way_out = f"{nearest(name, known)}; `optlaws laws` lists these, `optlaws fit` makes a file"
        if name in baseline_names():
            way_out = f", a rival law; `optlaws fit RUNS --law {name} -o FILE` makes a file of it from your runs"
        raise LawError(f"law must be a law file or one of {', '.join(known)}, got {name!r}{way_out}")
    return Law.load(name)


def load_any_law(law: str | os.PathLike[str]) -> Law | BaselineFit:
    """Return a built-in law by name, or the law in a file ("-": standard input), which may also be a fitted rival law.

    Raises
    ------
    LawError
        There is neither.
    """
    if not isinstance(law, (str, os.PathLike)):
        return load_law(law)  # which says what is wrong
    name = os.fspath(law)
    if name in builtin_names() or not _is_file(name):
        return load_law(law)
    from optlaws.law.store import read_any

    return read_any(law)


def public_risk() -> RiskModel:
    """Return the risk model of the public runs for a source that is not among them."""
    from dataclasses import replace

    law = load_law("steplaw-dense")
    if law.risk is None:
        raise LawError("law 'steplaw-dense' must have a risk model, got none; install the package again")
    model = law.risk
    mean, covariance = model.mean.copy(), model.covariance.copy()
    mean[-1], covariance[-1], covariance[:, -1] = 0.0, 0.0, 0.0
    covariance[-1, -1] = model.source_sd**2
    return replace(model, mean=mean, covariance=covariance)


def with_risk(law: Law, runs: RunTable) -> Law:
    """Return a law with the risk model of the public runs, moved by what became of the law's own runs.

    `fit_law` looks at completed runs and attaches none; `optlaws fit` calls both.

    Parameters
    ----------
    law : Law
        Fitted to `runs`.
    runs : RunTable
        All runs, diverged ones included; they count as one source. Those that say something have an outcome (a status
        or a final loss), params, batch_tokens, and Adam, AdamW or an optimizer that the law has seen. Where there is
        none, the model is that of the public runs alone.

    Returns
    -------
    Law
        With `risk`; all else is as before.

    Raises
    ------
    InputError
        `law` is no law of dynamics (rival laws take no risk model), `runs` is no run table, or a width is no number
        above 0.
    TableError
        The table holds a `ScheduleBatch`.

    Warns
    -----
    OptlawsWarning
        Half of the completed runs felt far higher rates than those at which half of the public runs diverged.

    Notes
    -----
    How far a source's critical rate may lie from those of the public ones is as among these, unless the runs say
    otherwise: of `WIDER` times as far the one of highest evidence is taken, and of another optimizer than AdamW, whose
    rates are converted by the units alone, the first is left out.

    Examples
    --------
    >>> from optlaws import fit_law, rank, read_runs, with_risk
    >>> runs = read_runs("examples/my_runs.csv")
    >>> law = with_risk(fit_law(runs), runs)
    >>> bool(rank(runs, law, max_risk=0.05).risk.max() <= 0.05)
    True
    """
    if not isinstance(law, Law):
        raise InputError(f"law must be a Law, got {type(law).__name__}; fit one with fit_law")
    check_runs(runs)
    from dataclasses import replace

    from optlaws.risk import fit_risk, run_labels, usable
    from optlaws.risk.criterion import Prior

    if law.optimizers is not None:
        runs = law.as_usual(runs.select(~law.optimizers.unseen(runs)))
    kept = usable(runs)
    if not kept.any():
        none = {"n_runs": 0, "n_diverged": 0, "from": "public runs alone"}
        return replace(law, risk=replace(public_risk(), info=none))
    own = replace(runs, source=("own",) * len(runs))
    done = kept & np.array([status == "completed" for status in runs.status], dtype=bool)
    if done.any():
        felt = public_risk().predict(own.select(done)).criterion
        felt = felt[np.isfinite(felt)]
        middle = float(np.median(felt)) if len(felt) >= FEWEST_ABOVE else 0.0
        if middle > FAR_ABOVE:
            warnings.warn(
                OptlawsWarning(
                    f"half of the completed runs felt {middle:.2g} or more times the rate at which half of the public"
                    " runs diverged: are these peak rates, batches and sizes in the right unit (rates as numbers like"
                    " 1e-3, no per cent; tokens per step; parameters)? correct the table if not"
                ),
                stacklevel=2,
            )
    labels = run_labels(runs)[kept]
    about = {"n_runs": int(kept.sum()), "n_diverged": int(labels.sum()), "from": "public runs, moved by the law's own"}
    start, usual = public_risk(), Prior(scatter_sd=2.0 * OWN_SCATTER_SD)  # `fit_risk` halves it after a fitted model
    fits = [
        (fit_risk(own, start=start, prior=replace(usual, source_sd=usual.source_sd * times)), math.log(odds))
        for times, odds in WIDER.items()
        if times > 1 or law.own_optimizer == USUAL_OPTIMIZER
    ]
    best = max(fits, key=lambda fit: fit[0].evidence + fit[1])[0]
    return replace(law, risk=best.model("own", **about))
