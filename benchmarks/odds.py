"""Does P(best) come out right? python benchmarks/odds.py [--write].

Whole groups of runs are left out of a fit, as in benchmarks/accuracy.py, and `rank` ranks every pool of held-out runs that
compete (one size; one length, or one token budget): each run is a candidate, repeats of a configuration included. The
run that did end lowest is the best one. P(best) is right where of the candidates that got, say, 20 to 50 % about that
share were best. Pools of the first table overlap, for its splits do. Beside it: how many candidates must be kept for the
best to be among them with a probability of 90 % by the law's own account (its 90 % set), and how often it was; and what
chance the law gave the run that was best, geometric mean over the pools, against one over the number of candidates. The
constants of the basis were chosen with these tables in view, nothing was by these figures.
--write puts the page into docs/odds.md.
"""

# ruff: noqa: E501  (tables as they are printed)
from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import table
from public import Array, completed, load, schaipp_splits, write_page

from optlaws import RunTable, rank
from optlaws.law import fit_law
from optlaws.validation import same_budget, same_horizon, sizes

ROOT = Path(__file__).resolve().parents[1]
EDGES = (0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)
FEWEST = 4  # runs in a pool
KEPT = 0.9

Split = tuple[Array, Array]
Pool = tuple[Array, int]
"""P(best) of the runs of a pool, and which of them was best."""


def pools(runs: RunTable, splits: Iterator[Split], label: Callable[[RunTable], Any]) -> list[Pool]:
    """Return P(best) and the best run of every pool of the held-out runs of every split."""
    found = []
    for train, test in splits:
        law, held = fit_law(runs.select(train)), runs.select(test)
        names = np.asarray(label(held))
        for name in np.unique(names):
            one = held.select(names == name)
            if len(one) >= FEWEST:
                found.append((rank(one, law).p_best, int(np.argmin(one.final_loss))))
    return found


def left_out(labels: Array) -> Iterator[Split]:
    """Yield (train, test) masks, each value of a label left out in turn."""
    for value in np.unique(labels):
        yield labels != value, labels == value


def sources() -> Iterator[tuple[str, list[Pool]]]:
    """Yield the pools of every source by its name."""
    schaipp, step, marin = (completed(load(name)) for name in ("schaipp", "steplaw", "marin"))
    yield (
        "schaipp, the splits of docs/accuracy.md",
        pools(schaipp, iter(schaipp_splits(schaipp).values()), same_horizon),
    )
    kind = np.array(step.source)
    dense, experts = step.select(kind == "steplaw-dense"), step.select(kind != "steplaw-dense")
    yield "Step Law, dense, one cell left out", pools(dense, left_out(same_budget(dense)), same_budget)
    yield "Step Law, dense, one N left out", pools(dense, left_out(sizes(dense)), same_budget)
    yield "Step Law, mixture-of-experts, one cell left out", pools(experts, left_out(same_budget(experts)), same_budget)
    small = sizes(marin) < 2e8
    yield "Marin, 300M parameters from 130M", pools(marin, iter([(small, ~small)]), same_budget)


def summary(name: str, found: list[Pool]) -> list[str]:
    """Return the row of one source: pools, candidates, 90 % sets and the chance of the best."""
    kept, inside, chance, count = [], [], [], []
    for p, best in found:
        order = np.argsort(-p, kind="stable")
        size = int(np.searchsorted(np.cumsum(p[order]), KEPT - 1e-12)) + 1
        kept.append(size)
        inside.append(best in order[:size])
        chance.append(max(float(p[best]), 1e-4))
        count.append(len(p))
    given, even = (100 * float(np.exp(np.log(values).mean())) for values in (chance, 1 / np.array(count)))
    return [
        name,
        str(len(found)),
        f"{np.median(count):.0f}",
        f"{np.median(kept):.0f}",
        f"{sum(inside)} of {len(found)}",
        f"{given:.1f}",
        f"{even:.1f}",
    ]


def reliability(found: list[Pool]) -> list[list[str]]:
    """Return the rows of the table of P(best) against what came of it."""
    p = np.concatenate([values for values, _ in found])
    hit = np.concatenate([np.arange(len(values)) == best for values, best in found])
    rows = []
    for low, high in pairwise(EDGES):
        these = (p >= low) & ((p < high) | (high == 1.0))
        if these.any():
            error = 100 * np.sqrt((p[these] * (1 - p[these])).sum()) / these.sum()
            rows.append([
                f"{100 * low:g} to {100 * high:g} %", f"{these.sum():,}", f"{100 * p[these].mean():.2f}",
                f"{100 * hit[these].mean():.2f}", f"{error:.2f}",
            ])  # fmt: skip
    return rows


def page() -> str:
    """Return the page."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_source = list(sources())
    head = [
        "left out", "pools", "candidates (median)", "in the 90 % set (median)", "best in the set",
        "chance given to the best, %", "one in all, %",
    ]  # fmt: skip
    every = [pool for _, found in by_source for pool in found]
    rows = [summary(name, found) for name, found in [*by_source, ("all", every)]]
    about = " ".join(str(__doc__).split("\n\n", 1)[1].split())
    return (
        f"# Does P(best) come out right?\n\nWritten by `python benchmarks/odds.py --write`. {about}\n\n"
        f"{table(head, rows)}\n\n"
        "A chance below 0.01 % counts as 0.01 % in the means.\n\n## P(best) against what came of it\n\n"
        "All pools together. The last column is the standard error that independent candidates would have.\n\n"
        f"{table(['P(best)', 'candidates', 'mean P(best), %', 'were best, %', '± %'], reliability(every))}\n"
    )


def main() -> None:
    """Print the page; with --write also into docs/odds.md."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help="write docs/odds.md too")
    write = parser.parse_args().write
    text = page()
    print(text)
    if write:
        write_page(ROOT / "docs" / "odds.md", text)


if __name__ == "__main__":
    main()
