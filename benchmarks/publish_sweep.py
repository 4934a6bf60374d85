"""Make a finished sweep a data set of the package: python benchmarks/publish_sweep.py DIR NAME [--max-params N] ...

Writes optlaws/data/NAME/: runs.csv (without columns that hold nothing, but for the commit), curves.csv (validation
losses only, to five decimals) and law.json, fitted on the small and short runs; and docs/validation_NAME.md with its
figures, made from what was written. With --tables only the two tables.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np

from optlaws import plotting
from optlaws.commands.folders import measured
from optlaws.commands.shared import write_text
from optlaws.commands.validate import put_to_the_test
from optlaws.commands.validation_report import curves_figure, losses_figure, report
from optlaws.runs import CurveTable, RunTable, parse_quantity, read_curves, read_runs, write_curves, write_runs

ROOT = Path(__file__).resolve().parents[1]
READINGS = 20  # kept of each curve
COMMIT = "commit"


def without_empty(runs: RunTable) -> RunTable:
    """Return a table without the columns that are empty in every run; that of the commit stays, empty or not."""
    cells = {name: runs.column(name).astype(str) for name in runs.columns}
    columns = tuple(name for name, text in cells.items() if name == COMMIT or not np.isin(text, ("", "nan")).all())
    return replace(
        runs, columns=columns, extra={name: cells for name, cells in runs.extra.items() if name in columns}
    )  # fmt: skip


def thinned(curves: CurveTable, most: int) -> CurveTable:
    """Return at most so many readings of each run, evenly spread, the last among them."""
    keep = []
    for rows in curves.runs().values():
        keep.append(rows[np.unique(np.linspace(len(rows) - 1, 0, min(most, len(rows))).round().astype(int))])
    rows = np.sort(np.concatenate(keep))
    return CurveTable(np.asarray(curves.run_id)[rows].tolist(), curves.step[rows], curves.loss[rows])


def written_by(source: Path, name: str, max_params: float | None, max_steps: float | None) -> str:
    """Return the sentences on the command that makes a page, and on the one that makes its verdict anew."""
    limits = "".join(
        f" {option} {limit:.12g}"
        for option, limit in (("--max-params", max_params), ("--max-steps", max_steps))
        if limit is not None
    )
    folder = source.name if source.is_absolute() else source.as_posix()
    return (
        f"Written by `python benchmarks/publish_sweep.py {folder} {name}{limits} --note NOTE`; NOTE is what is said"
        f" below of choices. `optlaws validate {name}{limits}` makes the same verdict from the tables kept here."
    )


def commits(runs: RunTable) -> str:
    """Return a sentence where the commit of no run was recorded, or nothing."""
    known = COMMIT in runs.columns and any(runs.column(COMMIT).astype(str) != "")
    return "" if known else " The commit that these runs were trained at was not recorded."


def keep_tables(source: Path, data: Path) -> None:
    """Write the tables of a finished sweep as those of a data set of the package."""
    data.mkdir(parents=True, exist_ok=True)
    write_runs(data / "runs.csv", without_empty(read_runs(source / "runs.csv", need_loss=True)))
    thin = thinned(measured(read_curves(source / "curves.csv")), READINGS)
    write_curves(data / "curves.csv", CurveTable(thin.run_id, thin.step, thin.loss.round(5)))


def publish(source: Path, name: str, max_params: float | None, max_steps: float | None, note: str) -> str:
    """Write data set, law, report and figures; return the report."""
    data, docs = ROOT / "optlaws" / "data" / name, ROOT / "docs"
    keep_tables(source, data)
    runs, curves = read_runs(data / "runs.csv", need_loss=True), read_curves(data / "curves.csv")
    verdict = put_to_the_test(
        runs, curves, max_params=max_params, max_steps=max_steps, name=f"{name.replace('_', '-')}-half"
    )  # fmt: skip
    verdict.law.save(data / "law.json")
    if verdict.law.info.get("units"):
        usual = put_to_the_test(runs, None, max_params=max_params, max_steps=max_steps, own_units=False).scores
        note += (
            f" In the usual units the law fitted on the same runs has a mean error of {usual['error']:.2f} % and a"
            f" Spearman of {usual['pool_spearman']:.3f} within pools."
        )
    figures = {"validation.png": f"validation_{name}.png", "validation_curves.png": f"validation_{name}_curves.png"}
    plotting.save_figure(losses_figure(verdict), docs / figures["validation.png"], dpi=110)
    plotting.save_figure(curves_figure(verdict), docs / figures["validation_curves.png"], dpi=110)
    text = report(verdict)
    for old, new in figures.items():
        text = text.replace(f"({old})", f"({new})")
    devices = ", ".join(sorted(set(runs.extra.get("device", ("unknown",)))))
    hours = sum(float(cell) for cell in runs.extra.get("seconds", ()) if cell) / 3600
    text = text.replace(
        "# Validation\n",
        f"# Validation on the built-in sweep `{name}`\n\n{written_by(source, name, max_params, max_steps)} The sweep is"
        f" `benchmarks/{name}.yaml`: {len(runs)} runs on {devices}, {int((~verdict.diverged).sum())} completed and "
        f"{int(verdict.diverged.sum())} diverged; its tables and the law fitted on the small half lie in "
        f"`optlaws/data/{name}`.{commits(runs)} {note}\n",
        1,
    )
    write_text(docs / f"validation_{name}.md", text)
    print(f"{hours:.2f} hours of updates (stacks counted once a run), {platform.machine()}")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="DIR")
    parser.add_argument("name", metavar="NAME")
    for option in ("--max-params", "--max-steps"):
        parser.add_argument(option, type=lambda text: parse_quantity(text, "limit"))
    parser.add_argument(
        "--note", default="Nothing was chosen by the held-out runs.", help="What was chosen, and by what."
    )
    parser.add_argument("--tables", action="store_true", help="Only the tables: no law, no verdict.")
    given = parser.parse_args()
    if given.tables:
        keep_tables(given.source, ROOT / "optlaws" / "data" / given.name)
        return
    print(publish(given.source, given.name, given.max_params, given.max_steps, given.note))


if __name__ == "__main__":
    main()
