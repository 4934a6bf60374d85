"""Find the folders, run them, print published / ours / difference, write Markdown, CSV and figures."""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from optlaws.errors import InputError, OptlawsError, nearest, told_otherwise
from optlaws.runs import atomic_write
from paper_repro.core import HERE, Missing, Row
from paper_repro.sources import fetch, other_copies

ROOT = HERE.parent
HEAD = ("table", "cell", "published", "ours", "difference", "tolerance", "ok", "note")
OK, EXPLAINED = "ok", "explained"


@dataclass
class Result:
    """What one folder gave."""

    name: str
    rows: list[Row] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def wrong(self) -> list[Row]:
        """The rows outside their tolerance without a reason that was checked."""
        return [row for row in self.rows if row.ok is False and not row.explained]

    @property
    def explained(self) -> list[Row]:
        """The rows outside their tolerance for a reason that was checked."""
        return [row for row in self.rows if row.explained]


def folders() -> list[str]:
    """Return the names of all reproductions."""
    return sorted(path.parent.name for path in HERE.glob("*/reproduce.py"))


def data_folder(given: str | None) -> Path:
    """Return the data folder: as given, OPTLAWS_DATA, or ../shared/data beside the checkout."""
    return Path(given or os.environ.get("OPTLAWS_DATA") or ROOT.parent / "shared" / "data")


def run_one(name: str, data: Path, quick: bool, figures: Path | None) -> Result:
    """Run one reproduction; data that it misses are in the result, not an error."""
    result, start = Result(name), time.perf_counter()
    reproduce = import_module(f"paper_repro.{name}.reproduce").reproduce
    before = os.environ.get("OPTLAWS_DATA")
    os.environ["OPTLAWS_DATA"] = str(data)  # the benchmarks' readers look there
    try:
        for entry in reproduce(data, quick, figures):
            (result.missing if isinstance(entry, Missing) else result.rows).append(entry)
    except Missing as gap:
        result.missing.append(gap)
    finally:
        if before is None:
            del os.environ["OPTLAWS_DATA"]
        else:
            os.environ["OPTLAWS_DATA"] = before
    result.others = other_copies(name, data)
    result.seconds = time.perf_counter() - start
    return result


def number(value: float | None) -> str:
    """Return a number for people.

    >>> number(2085.43), number(0.00012), number(None), number(600000.0)
    ('2085.43', '0.00012', '', '600000')
    """
    return "" if value is None else f"{value:.6g}"


def cells(row: Row) -> list[str]:
    """Return a row of the report."""
    ok = EXPLAINED if row.explained else {True: OK, False: "MISMATCH", None: ""}[row.ok]
    note = f"{row.note}; why it differs: {row.reason}" if row.explained else row.note
    return [
        row.table, row.cell, number(row.published), number(row.ours), number(row.difference), number(row.tolerance), ok,
        note,
    ]  # fmt: skip


def text_report(result: Result) -> str:
    """Return the report of one folder for a terminal."""
    body = [HEAD, *(cells(row) for row in result.rows)]
    widths = [max(len(line[j]) for line in body) for j in range(len(HEAD) - 1)]
    lines = [f"== {result.name} ({result.seconds:.1f} s)"]
    for line in body if result.rows else []:
        shown = [
            text.ljust(w) if j < 2 else text.rjust(w) for j, (text, w) in enumerate(zip(line, widths, strict=False))
        ]
        lines.append(("  ".join(shown) + "  " + line[-1]).rstrip())
    lines += [f"data not found: {gap.name}: {gap.what}" for gap in result.missing]
    lines += result.others
    return "\n".join(lines)


def written_by(name: str, quick: bool) -> str:
    """Return the line of a report that says how it was made."""
    return f"Written by `python -m paper_repro {name}{' --quick' if quick else ''}`."


def poorer(result: Result, out: Path, quick: bool = False) -> bool:
    """Return whether the report there is better: whole where this one is quick, or with more values in a table.

    Values are looked at where data are missing or parts were left out. They are counted, not compared by name, so that
    a report whose cells have new names can be written again.
    """
    path = out / f"{result.name}.csv"
    if not (result.missing or quick) or not path.is_file():
        return False
    page = path.with_suffix(".md")
    if quick and page.is_file() and written_by(result.name, False) in page.read_text(encoding="utf-8"):
        return True
    with path.open(encoding="utf-8", newline="") as stream:
        there = Counter(line["table"] for line in csv.DictReader(stream) if line["ours"])
    return bool(there - Counter(row.table for row in result.rows if row.ours is not None))


def write_reports(results: Sequence[Result], out: Path, quick: bool = False, drawn_in: Path | None = None) -> list[str]:
    """Write NAME.md and NAME.csv of each folder, and README.md over all CSV files there are.

    A report, with its figures, is not replaced by one that lacks values for want of data or of time (`quick`); return
    the names of those kept. Figures are moved from the folder `drawn_in`.
    """
    out.mkdir(parents=True, exist_ok=True)
    kept = [result.name for result in results if poorer(result, out, quick)]
    for result in results:
        if result.name in kept:
            continue
        for path in sorted(drawn_in.glob(f"{result.name}*.png")) if drawn_in else []:
            path.replace(out / "figures" / path.name)
        with atomic_write(out / f"{result.name}.csv") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(HEAD)
            writer.writerows(cells(row) for row in result.rows)
        about = (import_module(f"paper_repro.{result.name}.reproduce").__doc__ or "").strip()
        lines = [f"# {result.name}", "", about, "", written_by(result.name, quick), ""]
        lines += ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
        lines += ["| " + " | ".join(text.replace("|", "/") for text in cells(row)) + " |" for row in result.rows]
        lines += [""] + [f"Data not found: {gap.name}: {gap.what}\n" for gap in result.missing]
        lines += [f"{line[0].upper()}{line[1:]}\n" for line in result.others]
        drawn = sorted(path.name for path in (out / "figures").glob(f"{result.name}*.png"))
        lines += [f"![{name.removesuffix('.png')}](figures/{name})" for name in drawn]
        with atomic_write(out / f"{result.name}.md") as stream:
            stream.write("\n".join(lines).rstrip() + "\n")
    lines = ["# Published tables, computed again", "", "Written by `python -m paper_repro`.", ""]
    lines += ["*Explained*: outside the tolerance, for a reason that the report states and the script checks.", ""]
    head = ("source", "values with a tolerance", "within it", "explained", "for information")
    lines += [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for path in sorted(out.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as stream:
            marks = [line["ok"] for line in csv.DictReader(stream)]
        counts = (len(marks) - marks.count(""), marks.count(OK), marks.count(EXPLAINED), marks.count(""))
        lines.append(f"| [{path.stem}]({path.stem}.md) | {' | '.join(map(str, counts))} |")
    with atomic_write(out / "README.md") as stream:
        stream.write("\n".join(lines) + "\n")
    return kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code.

    0: done, mismatches explained; 1: a value outside its tolerance without a reason that holds, or a file that could
    not be fetched; 2: bad input.
    """
    parser = argparse.ArgumentParser(prog="python -m paper_repro", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="folders to run; all if left out")
    parser.add_argument(
        "--quick", action="store_true", help="the part that takes less than a minute; writes to --out only"
    )
    parser.add_argument("--out", metavar="DIR", help="where Markdown and CSV go (docs/paper_repro), figures below it")
    parser.add_argument("--data", metavar="DIR", help="folder of the public tables (OPTLAWS_DATA, ../shared/data)")
    parser.add_argument("--fetch", action="store_true", help="get missing public files first, then run")
    options = parser.parse_args(arguments)
    known = folders()
    for name in options.names:
        if name not in known:
            hint = nearest(name, known)
            print(f"paper_repro: NAME must be one of {', '.join(known)}, got {name!r}{hint}")
            return 2
    names, data = options.names or known, data_folder(options.data)
    if options.data and not options.fetch and not data.is_dir():
        print(f"paper_repro: --data must name a folder, got {options.data!r}; leave it out to run without data")
        return 2
    out = Path(options.out) if options.out else None if options.quick else ROOT / "docs" / "paper_repro"
    figures = out / "figures" if out else None
    if figures:
        try:
            figures.mkdir(parents=True, exist_ok=True)
        except OSError as bad:
            print(f"paper_repro: --out must be a folder that can be written, got {str(out)!r} ({bad.strerror})")
            return 2
    failed = False
    if options.fetch:
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as bad:
            print(f"paper_repro: --data must be a folder that can be written, got {str(data)!r} ({bad.strerror})")
            return 2
        try:
            gaps = fetch(names, data)
        except InputError as bad:
            print(f"paper_repro: {bad}")
            return 2
        print("\n".join(gaps) or "every file is there")
        failed = bool(gaps)
    results: list[Result] = []
    with TemporaryDirectory(prefix=".drawn-", dir=figures) if figures else nullcontext() as place:
        drawn_in = Path(place) if place else None
        for name in names:
            try:
                with told_otherwise():
                    results.append(run_one(name, data, options.quick, drawn_in))
            except OptlawsError as bad:
                print(f"paper_repro: {name}: {bad}")
                return 2
            print(text_report(results[-1]), flush=True)
        kept = write_reports(results, out, options.quick, drawn_in) if out else []
    wrong, explained = (
        [f"{result.name}: {row.table}, {row.cell}" for result in results for row in getattr(result, kind)]
        for kind in ("wrong", "explained")
    )
    checked = sum(row.ok is not None for result in results for row in result.rows)
    gaps = [f"{result.name} ({gap.name})" for result in results for gap in result.missing]
    told = f"{len(explained)} explained" + (f" ({'; '.join(explained)})" if explained else "")
    told += f", {len(wrong)} outside it" + (f": {'; '.join(wrong)}" if wrong else "")
    print(f"-- {checked} values with a tolerance, {told}")
    print(f"-- data not found: {', '.join(gaps) or 'none'}")
    if gaps:
        print("-- --fetch gets public files over the network, --data DIR names a folder that has them")
    others = sorted({line.split(": ", 1)[1].split()[0] for result in results for line in result.others})
    if others:
        print(f"-- other copies of data than the expected figures were made with: {', '.join(others)}")
    if kept:
        print(f"-- reports with more values kept as they were in {out}: {', '.join(kept)}")
    return 1 if wrong or failed else 0
