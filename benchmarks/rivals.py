"""Every law on the same runs and splits, in one process: python benchmarks/rivals.py [--write].

Rows are laws, ours first, then all of `optlaws.baselines`; columns are tasks. Every law is fitted by its own `fit` with
its defaults inside each fold, and by nothing else. --write puts the tables into docs/rivals.md and the short one into
README.md. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import splice, table
from public import completed, load, load_curves, mpl_rows, schaipp_splits, write_page
from rivals_report import LONG, OURS, SHORT, ahead, alike, text_table, value

from optlaws.baselines import baseline_names, get_baseline
from optlaws.baselines.optimal_rate import nearest_run
from optlaws.compare import one_size
from optlaws.errors import OptlawsError, nearest
from optlaws.law import fit_law
from optlaws.runs import CurveTable, RunTable
from optlaws.schedules import parse
from optlaws.validation import HeldOut, same_budget, same_horizon, sizes

ROOT = Path(__file__).resolve().parents[1]
Array = np.ndarray
LARGEST = 5e8  # the Step Law runs of N = 537M lie above, those of 430M below
PRINTED, CURVES = " as printed", " with curves"
THINNED = 16  # readings of a curve that "with curves" fits
NOT_RUN = {("noisy_quadratic", "steplaw"): "half a minute a fit on 1,500 runs, 20 fits, and it reads no rate"}


@dataclass(frozen=True)
class Points:
    """Predictions without intervals, in the form that `optlaws.validation` scores."""

    loss: Array

    @property
    def lower(self) -> Array:
        """The loss itself."""
        return self.loss

    @property
    def upper(self) -> Array:
        """The loss itself."""
        return self.loss


@dataclass
class Rival:
    """A law of the registry, or ours, behind one way to fit and predict; n runs in, (n,) losses out, NaN = cannot."""

    name: str
    kind: Any = None
    curves: CurveTable | None = None
    seconds: list[float] = field(default_factory=list)

    @classmethod
    def named(cls, name: str) -> Rival:
        """Return the law of a name.

        One that ends in `PRINTED` is not fitted but has its published constants; one that ends in `CURVES` is given the
        curves of the runs that schedules are split by.
        """
        kind = None if name == OURS else get_baseline(name.removesuffix(PRINTED).removesuffix(CURVES))
        return cls(name, kind, thinned(load_curves("schaipp"), THINNED) if name.endswith(CURVES) else None)

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns that it needs; ours reads whatever there is."""
        return () if self.kind is None else tuple(self.kind.needs)

    def offers(self, method: str) -> bool:
        """Whether the law can do that."""
        return method != "recommend" if self.kind is None else hasattr(self.kind, method)

    @property
    def one_size(self) -> bool:
        """Whether the law reads schedules but no sizes, and so holds for one size each."""
        return one_size(self.kind)

    def fit(self, runs: RunTable, curves: CurveTable | None = None) -> Any:
        """Fit with defaults; sizes one by one where the law holds for one size."""
        start = time.perf_counter()
        if self.kind is None:
            law: Any = fit_law(runs, curves)
        else:
            law = self.kind.published() if self.name.endswith(PRINTED) else self.kind.fit(runs, curves)
        self.seconds.append(time.perf_counter() - start)
        return law

    def losses(self, train: RunTable, test: RunTable) -> Array:
        """Return the losses of held-out runs, fitted on the others."""
        if not self.one_size:
            law = self.fit(train, self._curves_of(train))
            return np.asarray(law.predict(test).loss if self.kind is None else law.predict(test), dtype=float)
        out = np.full(len(test), np.nan)
        for n in np.unique(sizes(test)):
            here = sizes(test) == n
            try:
                out[here] = self.fit(train.select(sizes(train) == n), self._curves_of(train)).predict(test.select(here))
            except OptlawsError:  # too few runs of this size
                continue
        return out

    def _curves_of(self, train: RunTable) -> CurveTable | None:
        """Return the curves of the training runs alone: no fit is handed a held-out reading."""
        return (
            None if self.curves is None else self.curves.select(np.isin(np.asarray(self.curves.run_id), train.run_id))
        )


def thinned(curves: CurveTable, count: int) -> CurveTable:
    """Return `count` readings of each curve at most, evenly spaced, the last one among them."""
    rows = [
        index[np.unique(np.linspace(0, len(index) - 1, count).round().astype(int))] for index in curves.runs().values()
    ]
    return curves.select(np.sort(np.concatenate(rows)))


def with_curves() -> list[str]:
    """Return the laws that are fitted to curves, too."""
    kinds = [get_baseline(name) for name in baseline_names()]
    return [f"{kind.name}{CURVES}" for kind in kinds if hasattr(kind, "predict_curve") and one_size(kind)]


@dataclass(frozen=True)
class Fixed:
    """A predictor whose answers (n,) are known, for `HeldOut`."""

    loss: Array

    def predict(self, runs: RunTable) -> Points:
        """Return them."""
        return Points(self.loss)


def score(loss: Array, test: RunTable, pool: Array, **options: Any) -> dict[str, Any] | None:
    """Return the scores of predictions that are numbers, None without at least half of them."""
    good = np.isfinite(loss) & (loss > 0)
    if 2 * good.sum() < len(loss):
        return None
    kept = HeldOut()
    kept.add(Fixed(loss[good]), test.select(good), pool[good])
    each = np.where(good, 100 * np.abs(loss / test.final_loss - 1), np.nan)
    return {**kept.row(**options), "share": float(good.mean()), "each": each.tolist()}


def curves_task(rival: Rival) -> dict[str, Any]:
    """Return the Multi-Power-Law protocol's figures of each size."""
    if not rival.offers("predict_curve") or {"tokens", "batch_tokens"} & set(rival.needs):
        return {}
    if "params" in rival.needs and not np.isfinite(sizes(load("mpl"))).all():
        return {}

    def fit(train: RunTable, curves: CurveTable) -> Any:
        law = rival.fit(train, curves)
        return law if rival.kind is None else _Curves(law)

    return {f"curves {size}": row for size, row in mpl_rows(fit).items()}


class _Curves:
    """A rival's curves in the form that `public.mpl_rows` reads."""

    def __init__(self, law: Any) -> None:
        self.law = law

    def predict_curve(self, runs: RunTable, steps: Array) -> Points:
        """Return the losses of one run."""
        return Points(np.asarray(self.law.predict_curve(runs, steps), dtype=float))


SCHAIPP = {
    "horizon": ("horizon > 25k",),
    "family": ("cosine from WSD", "WSD from cosine", "constant from both"),
    "peak rate": tuple(f"peak {rate:g} left out" for rate in (1e-4, 5e-4, 1e-3, 2e-3)),
    "size": ("sizes > 60M", "sizes > 100M"),
}


def schaipp_task(rival: Rival) -> dict[str, Any]:
    """Return the figures of the splits of schedules, horizons, rates and sizes, each group's folds together."""
    if not rival.offers("predict"):
        return {}
    runs = completed(load("schaipp"))
    splits, out = schaipp_splits(runs), {}
    for group, names in SCHAIPP.items():
        rows = []
        for name in names:
            train, test = splits[name]
            held = runs.select(test)
            rows.append(score(rival.losses(runs.select(train), held), held, same_horizon(held)))
        found = [row for row in rows if row is not None]
        if len(found) < len(rows):
            continue
        errors = [row["error"] for row in found]
        ranks = [row["pool_spearman"] for row in found if np.isfinite(row["pool_spearman"])]
        out[f"schedules {group}"] = {
            "error": float(np.mean(errors)),
            "spread": float(np.std(errors)) if len(errors) > 1 else None,
            "spearman": float(np.mean(ranks)) if ranks else None,
            "spearman_spread": float(np.std(ranks)) if len(ranks) > 1 else None,
            "hits": sum(row["hits"] for row in found) if ranks else None,
            "pools": sum(row["pools"] for row in found),
            "share": min(row["share"] for row in found),
            "folds": {"error": errors, "spearman": [row["pool_spearman"] for row in found]},
            "each": {"error": [row["each"] for row in found]},
        }
    ranks = [row["spearman"] for row in out.values() if row["spearman"] is not None]
    if len(ranks) == len(SCHAIPP):
        whole = {key: sum(row[key] for row in out.values()) for key in ("hits", "pools")}
        out["schedules all"] = {"spearman": float(np.mean(ranks)), "share": 1.0, **whole}
    return out


def folds(labels: Array) -> Iterator[tuple[Array, Array]]:
    """Yield (train, test) masks with each label left out."""
    for label in np.unique(labels):
        yield labels != label, labels == label


def advised(law: Any, test: RunTable) -> tuple[list[float], Array]:
    """Return, for each (N, D), how far the run nearest to a law's advice lies above the lowest loss, in %."""
    out, pool = [], same_budget(test)
    for label in np.unique(pool):
        rows = np.flatnonzero(pool == label)
        cell = test.select(rows)
        y = cell.final_loss
        advice = law.recommend(float(sizes(cell)[0]), float(cell.tokens[0]), float(y.min()))
        picked = nearest_run(np.asarray(cell.batch().peak), cell.batch_tokens, advice, y)
        out.append(100 * (y[picked] / y.min() - 1))
    return out, pool


def steplaw_task(rival: Rival) -> dict[str, Any]:
    """Return error and regret on the dense Step Law grid with cells and sizes left out, and N = 537M from the rest."""
    if "schedule" in rival.needs:
        return {}
    runs = completed(load("steplaw"))
    runs = runs.select([source == "steplaw-dense" for source in runs.source])
    n, out = sizes(runs), {}
    tasks: dict[str, list[tuple[Array, Array]]] = {
        "cell left out": list(folds(same_budget(runs))),
        "N left out": list(folds(n)),
        "N = 537M": [(n < LARGEST, n > LARGEST)],
    }
    for name, splits in tasks.items():
        errors, regrets, mae = [], [], []
        for train, test in splits:
            held = runs.select(test)
            if rival.offers("predict"):
                loss = rival.losses(runs.select(train), held)
                row = score(loss, held, same_budget(held), by_pool=True)
                if row is None:
                    break
                errors.append(row["error"])
                regrets.append(row["regret"])
                mae.append(float(np.abs(loss - held.final_loss).mean()))
            elif rival.offers("recommend"):
                law = rival.fit(runs.select(train))
                regrets.append(float(np.mean(advised(law, held)[0])))
        if len(regrets) < len(splits):
            continue
        constant = rival.offers("predict") and "peak_lr" not in rival.needs and rival.kind is not None
        out[f"Step Law {name}"] = {
            "error": float(np.mean(errors)) if errors else None,
            "spread": float(np.std(errors)) if len(errors) > 1 else None,
            "regret": None if constant else float(np.mean(regrets)),
            "regret_spread": None if constant or len(regrets) < 2 else float(np.std(regrets)),
            "mae": float(np.mean(mae)) if mae else None,
            "mae_spread": float(np.std(mae)) if len(mae) > 1 else None,
            "folds": {"error": errors, "regret": [] if constant else regrets, "mae": mae},
        }
    return out


def nqs_task(rival: Rival) -> dict[str, Any]:
    """Return the RMSLE on the noisy-quadratic runs, largest compute left out."""
    if not rival.offers("predict") or rival.one_size:
        return {}
    runs = completed(load("nqs"))
    compute = runs.params * runs.tokens
    ratio, out = compute.max() / compute, {}
    held = runs.select(ratio < 1.8)
    for name, train in (("1/15.6", ratio >= 15.5), ("1/4", ratio >= 3.9)):
        row = score(rival.losses(runs.select(train), held), held, np.zeros(len(held)))
        if row is not None:
            out[f"few steps from {name}"] = {key: row[key] for key in ("rmsle", "error", "worst")}
    return out


def speed_task(rival: Rival) -> dict[str, Any]:
    """Return seconds of a fit and of 1,000 predictions, on the 142 middle-sized schaipp runs and like candidates."""
    if not rival.offers("predict"):
        return {}
    runs = completed(load("schaipp"))
    runs = runs.select(sizes(runs) == 84934656)
    start = time.perf_counter()
    law = rival.fit(runs)
    out = {"fit": time.perf_counter() - start, "runs": len(runs)}
    rng, count = np.random.default_rng(0), 1000
    specs = [
        f"wsd:peak={peak:.6g},steps=50000,warmup=300,decay={decay:.4f}"
        for peak, decay in zip(rng.uniform(1e-4, 2e-3, count), rng.uniform(0.05, 0.9, count), strict=True)
    ]
    batch = RunTable.build([parse(x) for x in specs], params=84934656.0, batch_tokens=51200.0, weight_decay=0.1)
    start = time.perf_counter()
    law.predict(batch)
    out["predict"] = time.perf_counter() - start
    return {"speed": out}


TASKS: dict[str, Callable[[Rival], dict[str, Any]]] = {
    "curves": curves_task,
    "schaipp": schaipp_task,
    "steplaw": steplaw_task,
    "nqs": nqs_task,
    "speed": speed_task,
}


def run(names: list[str], tasks: list[str]) -> dict[str, dict[str, Any]]:
    """Return every law's figures by task; a law that cannot be fitted there has none, and says why."""
    out: dict[str, dict[str, Any]] = {}
    for name in names:
        out[name] = {"_why": {}}
        for task in tasks:
            rival = Rival.named(name)
            start = time.perf_counter()
            if name.endswith(CURVES) and task != "schaipp":
                continue
            if (name, task) in NOT_RUN:
                out[name]["_why"][task] = NOT_RUN[name, task]
                continue
            try:
                out[name] |= TASKS[task](rival)
            except OptlawsError as why:
                out[name]["_why"][task] = str(why)
            print(f"# {name} {task}: {time.perf_counter() - start:.1f} s", flush=True)
    return out


INTRO = (
    "Every law on the same runs, splits and process, each fitted by its own `fit` with its defaults inside every"
    " fold, written by `python benchmarks/rivals.py --write`. The best of a column is bold; ± is the standard deviation"
    " over the folds, or over the curves of a size; an error without has one fold. A law is not told apart from ours"
    " where its paired difference over the folds has a 90 % interval that holds 0. A dash: the law does not answer that"
    " question, cannot be fitted there, or was left out for its time."
)
IN_SHORT = (
    "Every law on the same runs, splits and process, each fitted by its own `fit` with its defaults inside every"
    " fold, written by `python benchmarks/rivals.py --write`. The best of a column is bold. A dash: the law does not"
    " answer that question, cannot be fitted there, or was left out for its time. More columns, standard deviations"
    " over the folds, and which laws are not told apart: [docs/rivals.md](docs/rivals.md)."
)
NOTES = (
    "All laws are given final losses, and curves only in the first table; laws that read a schedule but no size are"
    f' fitted for each size by itself. Rows that end in "{CURVES.strip()}" have the curves of the training runs as well'
    f" ({THINNED} readings of each, brought to the level of the final losses), which ours is not given there: these"
    " laws were made for curves. On curves the Multi-Power Law is fitted by its authors' procedure; on final losses,"
    " for which there is none, to the least Huber loss of the log loss. Laws that read no rate predict one loss"
    " for all schedules, and have no regret. Laws that only advise a rate or a batch are fitted on the near-best runs"
    " of the other cells; their regret is that of the grid's run nearest to the advice, the most favourable one where"
    " they leave the rate or the batch open, and laws in the loss are told the lowest loss of the held-out cell."
    " The valley about Step Law's optimum is fitted in stages, not jointly."
    " 'As printed' keeps the published constants, which its authors fitted on all cells of the public grid, the"
    " held-out ones included. The constants of our basis were chosen with these public tables in view, as were, by"
    " their authors, the forms of the rivals on their own tables. The noisy quadratic system is fitted"
    " with the falling rate that its authors' demo predicts with; fitted at a constant rate, as they do, it has 7.07 %"
    " from 1/15.6 of the compute at that rate and 8.61 at the falling one"
    " ([noisy_quadratic_system.md](paper_repro/noisy_quadratic_system.md)). Where runs do not determine a term of the"
    " quadratic or the cubic, such as the curvature in a quantity of two values, it has no part. Times are of one call."
)

TOLD_APART = (
    "The mean of the differences, fold by fold, has a 90 % interval (Student) that holds 0. Folds of one source share"
    " runs, so that this is generous to whoever is ahead; with one fold there is nothing to tell by."
)


def report(results: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """Return the long and the short report."""
    every = tuple(column for columns in LONG.values() for column in columns)
    behind = ahead(results, every)
    told = "\n".join(f"- {line}" for line in behind) or "- none"
    long = [f"# Beside every rival\n\n{INTRO}\n\n{NOTES}"]
    for title, columns in LONG.items():
        found = text_table(results, columns)
        long += [f"## {title}\n\n{found}"] if found else []
    alikes = "\n".join(f"- {line}" for line in alike(results, every)) or "- none"
    long.append(f"## Not told apart from ours\n\n{TOLD_APART}\n\n{alikes}")
    long.append(f"## Where ours is not ahead\n\n{told}\n\nWhat our residuals look like: [residuals.md](residuals.md).")
    kinds = [get_baseline(name) for name in results if name in baseline_names()]
    laws = [[f"`{kind.name}`", kind.formula.replace("|", "/"), kind.source] for kind in kinds]
    long.append("## The laws\n\n" + table(["law", "formula", "source"], laws))
    why = [f"- {n}, {task}: {text}" for n, f in results.items() for task, text in f["_why"].items()]
    long.append("## Not fitted\n\n" + ("\n".join(why) or "- none"))
    behind = ahead(results, SHORT)
    heads = [line.split(" (ours", 1)[0] for line in alike(results, SHORT)]
    losses = [c for c in SHORT if c[2] != "regret"]
    shown = {name: f for name, f in results.items() if any(value(f, c) is not None for c in losses)}
    rest = {name: f for name, f in results.items() if name not in shown}
    advisers = [name for name, f in rest.items() if any(value(f, c) is not None for c in SHORT)]
    short = f"{IN_SHORT}\n\n{text_table(shown, SHORT)}\n\n"
    short += f"Where ours is not ahead: {'; '.join(behind) or 'nowhere in this table'}."
    short += " Columns with rivals that their folds do not tell apart from ours, named there:"
    short += f" {'; '.join(heads) or 'none'}."
    short += f" Laws that advise a rate or a batch alone stand there, too: {', '.join(advisers) or 'none'}."
    return "\n\n".join(long) + "\n", short


def plain(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the figures without those of every run."""
    return {
        name: {task: {key: v for key, v in row.items() if key != "each"} for task, row in figures.items()}
        for name, figures in results.items()
    }


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/rivals.md and the README's table")
    every = [OURS, *baseline_names(), f"step_law{PRINTED}", *with_curves()]
    parser.add_argument("--laws", nargs="*", default=every, help="laws to run")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS), help="tasks to run")
    arguments = parser.parse_args()
    for name in (each for each in arguments.laws if each not in every):
        parser.error(f"--laws must name some of {', '.join(every)}, got {name!r}{nearest(name, every)}")
    if arguments.write and {*every, *TASKS} - {*arguments.laws, *arguments.tasks}:
        parser.error("--write needs all laws and all tasks, got a part of them; leave out --laws and --tasks")
    start = time.perf_counter()
    results = run(arguments.laws, arguments.tasks)
    long, short = report(results)
    print(long)
    if arguments.write:
        write_page(ROOT / "docs" / "rivals.md", long)
        splice(ROOT / "README.md", "rivals", short)
    seconds = round(time.perf_counter() - start, 1)
    print(
        json.dumps(
            {"benchmark": "rivals", "seconds": seconds, "python": platform.python_version(), "rows": plain(results)}
        )
    )


if __name__ == "__main__":
    main()
