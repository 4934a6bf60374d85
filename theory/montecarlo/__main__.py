"""Print the Monte-Carlo checks: python -m theory.montecarlo [NAME ...] [--plot FOLDER]; exit code 1 if one fails."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from optlaws.errors import nearest
from theory.montecarlo import CHECKS, RULES, Row, table


def summary(rows: list[Row]) -> str:
    """Return how many comparisons hold, by rule, and how many of them need their allowance."""
    parts = []
    for rule in RULES:
        of_rule = [row for row in rows if row.rule == rule]
        held = [row for row in of_rule if row.passed]
        needed = sum(not replace(row, allowance=0.0).passed for row in held)
        more = f" ({needed} thanks to the allowance)" if rule in ("order", "bound") else ""
        parts.append(f"{rule}: {len(held)} of {len(of_rule)} hold{more}")
    return "; ".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Run the checks named (default: all) and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m theory.montecarlo", description=__doc__)
    names = [check.name for check in CHECKS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(names)}; default: all")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="also draw the figures there")
    given = parser.parse_args(arguments)
    for name in given.names:
        if name not in names:
            parser.error(f"NAME must be one of {', '.join(names)}, got {name!r}{nearest(name, names)}")
    rows: list[Row] = []
    for check in CHECKS:
        if given.names and check.name not in given.names:
            continue
        found = check.run()
        rows += found
        print(f"{check.name}: {check.claim}\n\n{table(found)}\n", flush=True)
    print("rules: " + "; ".join(f"{rule}: {meaning}" for rule, meaning in RULES.items()))
    print(summary(rows))
    if given.plot is not None:
        from theory.montecarlo.figures import draw_all

        for path in draw_all(given.plot):
            print(f"wrote {path}")
    failed = [row.what for row in rows if not row.passed]
    for what in failed:
        print(f"FAILED: {what}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
