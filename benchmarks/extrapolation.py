"""How wrong, and how sure, is a law beyond the runs that it has seen? One quantity of public runs cut off at a time.

    python benchmarks/extrapolation.py [--write]

All runs above a value of one quantity, or below one, are held out and predicted by a law of the others: half of them,
and those of the highest (lowest) value alone. `--write` writes docs/extrapolation.md.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import splice, table
from public import completed, load, load_curves, write_page

from optlaws._normal import NORMAL_90
from optlaws.errors import FitError, OptlawsWarning
from optlaws.law import fit_law
from optlaws.law.domain import density, mean_and_end_rate
from optlaws.law.refits import CALLED
from optlaws.runs import RunTable
from optlaws.sweeps import load_sweep
from optlaws.validation import competing

ROOT = Path(__file__).resolve().parents[1]
PAGE, README = ROOT / "docs" / "extrapolation.md", ROOT / "README.md"
FEWEST, SHARE, HELD = 16, 0.25, 4  # training runs, their share at the least, and held-out ones
CURVES, BEGIN, SEEDS = 60, 0.1, range(6)  # curves of a source, the share of a run from which they count, draws
BATCHES = tuple(float(2**k) for k in range(16, 23))
KEPT: dict[str, Callable[[Array], Array]] = {
    "128 Ki alone": lambda batch: batch == 131072,
    "384 Ki alone": lambda batch: batch == 393216,
    "1024 Ki alone": lambda batch: batch == 1048576,
    "up to 128 Ki": lambda batch: batch <= 131072,
    "up to 256 Ki": lambda batch: batch <= 262144,
    "from 512 Ki": lambda batch: batch >= 524288,
    "from 1024 Ki": lambda batch: batch >= 1048576,
}
SWEEPS = ("cpu_sweep_rich", "cpu_sweep_wide", "cpu_sweep_seeds")
Array = np.ndarray


def sources() -> dict[str, RunTable]:
    """Return the completed runs of every source."""
    grid = completed(load("steplaw"))
    out = {"schedules": completed(load("schaipp"))}
    for name, word in (("steplaw-dense", "Step Law, dense"), ("steplaw-moe", "Step Law, mixture-of-experts")):
        out[word] = grid.select([source == name for source in grid.source])
    out |= {"Marin": completed(load("marin")), "few steps": completed(load("nqs"))}
    return out | {name: completed(load_sweep(name)[0]) for name in SWEEPS}


def quantities(runs: RunTable) -> dict[str, Array]:
    """Return what is cut, each (n,) and above 0."""
    batch = runs.batch()
    return {
        "peak rate": np.asarray(batch.peak, dtype=float),
        "steps": np.asarray(runs.steps, dtype=float),
        "size": runs.size,
        "batch": runs.batch_tokens,
        "memory of beta1": 1.0 / (1.0 - runs.beta1),
        "memory of beta2": 1.0 / (1.0 - runs.beta2),
        "share of active parameters": density(runs),
        "rate at the end, share of the peak + .1": mean_and_end_rate(batch)[1] + 0.1,
    }


def cuts(values: Array) -> Iterator[tuple[str, Array]]:
    """Yield words and the masks (n,) of the runs that are kept."""
    levels = np.unique(np.log(values).round(2))
    if len(levels) < 2:
        return
    ends = {"highest": (levels[-1] + levels[-2]) / 2, "lowest": (levels[0] + levels[1]) / 2}
    middle = float(np.median(np.log(values)))
    for word, at in (("highest", ends["highest"]), ("upper half", middle + 0.005)):
        yield word, np.log(values) < at
    for word, at in (("lowest", ends["lowest"]), ("lower half", middle - 0.005)):
        yield word, np.log(values) > at


def row(runs: RunTable, values: Array, kept: Array) -> list[str] | None:
    """Return the cells of one cut, None where there are too few runs on either side."""
    if kept.sum() < max(FEWEST, SHARE * len(runs)) or (~kept).sum() < HELD:
        return None
    try:
        law = fit_law(runs.select(kept))
    except FitError:
        return None
    held = runs.select(~kept)
    p = law.predict(held)
    error, sd = np.log(held.final_loss / p.loss), p.sd / p.loss
    inside = np.abs(error) <= NORMAL_90 * sd
    low, high = values[kept].min(), values[kept].max()
    far = np.maximum(values[~kept] / high, low / values[~kept])
    return [
        f"{len(held)} of {len(runs)}",
        f"{np.median(far):.1f}",
        f"{100 * np.abs(error).mean():.2f}",
        f"{100 * error.mean():+.2f}",
        f"{inside.mean():.2f}",
        f"{200 * NORMAL_90 * np.median(sd):.2f}",
    ]


def rows() -> list[list[str]]:
    """Return all rows."""
    out = []
    for name, runs in sources().items():
        for quantity, values in quantities(runs).items():
            if not np.isfinite(values).all():
                continue
            seen: set[bytes] = set()
            for word, kept in cuts(values):
                cells = None if kept.tobytes() in seen else row(runs, values, kept)
                seen.add(kept.tobytes())
                if cells is not None:
                    out.append([name, quantity, word, *cells])
    return out


def apart_rows() -> list[list[str]]:
    """Return what laws of some of Step Law's batches make of differences between runs of one size, budget and batch."""
    grid = completed(load("steplaw"))
    runs = grid.select([name == "steplaw-dense" for name in grid.source])
    batch, out = runs.batch_tokens, []
    for words, kept in KEPT.items():
        law = fit_law(runs.select(kept(batch)))
        for other in BATCHES:
            if kept(np.array([other]))[0]:
                continue
            held = runs.select(batch == other)
            p, pool, covers, wrong, width = law.predict(held), competing(held), [], [], []
            for one in np.unique(pool):
                rows = np.flatnonzero(pool == one)
                i, j = np.triu_indices(len(rows), 1)
                loss, noise = p.loss[rows], p.noise[rows] / p.loss[rows]
                both = p.covariance(rows) / loss[:, None] / loss + np.diag(noise**2)
                sd = np.sqrt(both[i, i] + both[j, j] - 2 * both[i, j])
                left = np.log(held.final_loss[rows] / loss)
                covers.append(np.abs(left[i] - left[j]) <= NORMAL_90 * sd)
                wrong.append(np.abs(left[i] - left[j]))
                width.append(2 * NORMAL_90 * sd)
            cover, error, wide = (np.concatenate(each) for each in (covers, wrong, width))
            kept_batch = batch[kept(batch)]
            far = max(other / kept_batch.max(), kept_batch.min() / other)
            cells = f"{len(cover):,}", f"{100 * error.mean():.2f}", f"{cover.mean():.2f}", f"{100 * wide.mean():.2f}"
            out.append([words, f"{other / 1024:.0f} Ki", f"{far:.1f}", *cells])
    return out


def curve_rows() -> list[list[str]]:
    """Return what laws of two thirds of some curves, drawn at random, make of the points of the others."""
    out = []
    for name, source in (("Multi-Power Law", "mpl"), ("schedules", "schaipp")):
        runs, curves = load(source), load_curves(source)
        where = curves.runs()
        logged = np.array([i for i, run in enumerate(runs.run_id) if run in where])
        for seed in SEEDS:
            drawn = np.random.default_rng(seed).permutation(logged)[:CURVES]
            held, kept = np.sort(drawn[: len(drawn) // 3]), np.sort(drawn[len(drawn) // 3 :])
            law = fit_law(runs.select(kept), curves)
            errors, inside, widths = [], [], []
            for i in held:
                steps, loss = (values[where[runs.run_id[i]]] for values in (curves.step, curves.loss))
                seen = (steps >= BEGIN * runs.steps[i]) & (steps <= runs.steps[i])
                if not seen.any():
                    continue
                p = law.predict_curve(runs.select([i]), steps[seen])
                errors.append(np.abs(np.log(loss[seen] / p.loss)))
                inside.append((loss[seen] >= p.lower) & (loss[seen] <= p.upper))
                widths.append((p.upper - p.lower) / p.loss)
            error, cover, width = (np.concatenate(each) for each in (errors, inside, widths))
            told = law.info["leave_group_out"][CALLED]["coverage"]
            cells = f"{100 * error.mean():.3f}", f"{cover.mean():.2f}", f"{100 * width.mean():.2f}", f"{told:.2f}"
            out.append([name, str(seed), f"{len(errors)} of {len(drawn)}", *cells])
    return out


def summary(found: list[list[str]]) -> str:
    """Return how many of the cuts have which cover."""
    cover = np.array([float(cells[7]) for cells in found])
    ups = {
        word: cover[[cells[2] == word for cells in found]] for word in ("highest", "upper half", "lowest", "lower half")
    }
    parts = ", ".join(
        f"{word} {np.median(v):.2f} (of {len(v)} cuts {int((v < 0.8).sum())} below .8)" for word, v in ups.items()
    )
    return f"Median cover of 90 % intervals: {parts}."


def short(found: list[list[str]]) -> str:
    """Return README's sentence on the halves."""
    halves = np.array([float(cells[7]) for cells in found if cells[2].endswith("half")])
    ends = np.array([float(cells[7]) for cells in found if not cells[2].endswith("half")])
    return (
        "Beyond the runs seen 90 % intervals cover less: with half of a source's runs, those above or below one value"
        f" of a quantity, held out, {100 * np.median(halves):.0f} % in the median of {len(halves)} such parts and under"
        f" 80 % in {(halves < 0.8).sum()} of them; with the highest or the lowest value alone,"
        f" {100 * np.median(ends):.0f} % and {(ends < 0.8).sum()} of {len(ends)}"
        " (`python benchmarks/extrapolation.py --write`, [docs/extrapolation.md](docs/extrapolation.md))."
    )


def summary_of_curves(of_curves: list[list[str]]) -> str:
    """Return the mean cover of the draws of each source."""
    names = dict.fromkeys(cells[0] for cells in of_curves)
    cover = {name: np.mean([float(cells[4]) for cells in of_curves if cells[0] == name]) for name in names}
    return ", ".join(f"{name} {value:.2f}" for name, value in cover.items())


def page(found: list[list[str]], of_curves: list[list[str]], apart: list[list[str]]) -> str:
    """Return the text of the page."""
    head = [
        "source",
        "quantity",
        "held out",
        "runs",
        "factor beyond",
        "mean error %",
        "bias %",
        "90 % cover",
        "width %",
    ]
    return (
        "# Beyond the runs seen\n\nWritten by `python benchmarks/extrapolation.py --write`. All runs above a value of"
        " one quantity, or below it, are held out, and predicted by a law of the others: the half of the runs, or"
        " those of the highest (lowest) value alone. `factor beyond`: how far the held-out runs lie beyond the others,"
        " median. Where quantities go together (steps and warm-up, tokens and steps) a cut moves them all.\n\n"
        "Intervals widen with the distance in the coordinates of the dynamics, and by fixed amounts beyond some"
        " quantities (`FAR` in `optlaws/law/domain.py`). That is not enough everywhere: above the highest rate seen"
        " where runs come near divergence, and at much shorter runs, they cover too few. A candidate there is out of"
        " the domain; its interval is then no promise. The amounts for shorter runs, beta1, the share of active"
        f" parameters and the rate at the end were set with these rows in view.\n\n{summary(found)}\n\n"
        + table(head, found)
        + "\n\n## Curves left out at random\n\n"
        "Laws fitted with two thirds of a source's curves, sixty at most (Multi-Power Law: three sizes "
        "together). The points of the others, from a tenth of each run on, lie among those seen. `fit` prints the last "
        "column, from laws fitted again without each fifth of their curves (`optlaws.law.refits`); intervals are "
        "widened until these cover 90 % and a little more, since few curves say little. By the formula that is "
        "used where there are no curves they had covered 57 to 75 and 63 to 98 % in the first five of the same "
        "draws, which were in view when the refits were taken up. On average "
        f"{summary_of_curves(of_curves)}.\n\n"
        + table(
            ["source", "draw", "curves", "mean error %", "90 % cover", "width %", "cover that `fit` prints"], of_curves
        )
        + "\n\n## Differences at batches not seen\n\n"
        "Laws of some of Step Law's batches (dense runs), and differences between its runs at another batch, pair by"
        " pair of one size and token budget: these differ in the peak rate. The amount by which such intervals widen"
        " with the distance (`FAR_APART` in `optlaws/law/domain.py`) was set with these rows in view; without it they"
        " had covered 47 to 97 %. Mean cover "
        f"{np.mean([float(cells[5]) for cells in apart]):.2f}, least {min(float(cells[5]) for cells in apart):.2f}.\n\n"
        + table(["fitted at", "predicted", "factor beyond", "pairs", "mean error %", "90 % cover", "width %"], apart)
        + "\n"
    )


def main(arguments: Any = None) -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/extrapolation.md and README.md")
    write = parser.parse_args(arguments).write
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptlawsWarning)
        found = rows()
        of_curves, apart = curve_rows(), apart_rows()
    text = page(found, of_curves, apart)
    if write:
        write_page(PAGE, text)
        splice(README, "extrapolation", short(found))
    else:
        print(text)


if __name__ == "__main__":
    main()
