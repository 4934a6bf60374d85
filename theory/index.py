"""The index `theory/README.md`, written from the results so that it cannot drift from them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from optlaws.features import Column, get_basis
from theory import contradictions
from theory.derivations import DERIVATIONS
from theory.oracle.columns import registered
from theory.result import HEURISTIC, PROVED, Result
from theory.theorems import THEOREMS

FOLDER = Path(__file__).resolve().parent
HEADER = """# Theory

<!-- written by `python -m theory`; do not edit -->

From the update rules of SGD and Adam to every column that `optlaws` uses. Each result below is derived in a module
that returns the sympy expression it proves and checks its steps when it runs; a step that fails raises an error.

```sh
python -m theory                  # write this file
python -m theory --build DIR      # write DIR/theory.html: all derivations in mathematical notation, with figures
python -m pytest tests/theory     # check every step, the oracle and the simulations
```

*Proved* means: follows from the stated assumptions. Every step that is algebra or calculus is checked; theorems of the
textbooks between them (Ito's formula, Markov's inequality, limits under an integral) are named and used. That training
satisfies the assumptions is another matter. *Scaling argument* means: the algebra is checked, but the claim about
training is not derived.
"""
ORACLE = """`theory/oracle/` holds the states and columns once more, from the derivations: closed forms over constant,
linear and exponential phases (exponentials, incomplete gamma and Kummer functions), quadratures split at the kinks for
cosine phases and for all equations together. `tests/theory/test_oracle.py` compares them with the code, one test a
column and kind of phase (each kind with and without a warm-up), at random seeded constants and runs of AdamW, Adam and
SGD:

- Constant felt rate far below the critical batch, where the cells of the code are exact: the columns equal the
  continuous closed forms to 1e-10.
- Any phase: the columns equal the exact solution of the same cells (40 digits) to 1e-10. One departure of the code
  is part of that comparison and bounded in a test of its own: `TINY` in (1 - exp(-z)) / z, which moves a variance by
  less than 1e-8 of the temperature.
- The cells themselves are not the continuous equations. At the resolution with which laws are fitted the states are
  within 3 % of them on runs with a warm-up and within 1 % on those without (half of the runs drawn: less than 0.3 %).
  The runs are constant, linear, cosine and exponential, with decays to 0 among them, of 2,000 to 30,000 steps at peak
  rates from 3e-4 to 3e-3, with sizes and batches of 1/20 to 20 times the reference's. At the corners of these ranges
  every family of schedules, decays to 0, tens of restarts and single rates included, is within 3 % with a warm-up and
  2 % without of its own limit of many cells (`tests/dynamics/test_dynamics_cells.py`).
- Longer runs are coarser. Of runs of a million steps half are within 1.1 %, and norm, intrinsic time and the four
  slower variances of all within 4 %. What is left of the two fastest variances where the rate has fallen to 0 is
  little, and off by up to 10 and 30 %.
- Far below the critical batch the order is measured (2.0), and the limit is the continuous solution to 2e-5.
"""
SIMULATED = """What they leave out: none has a finite critical batch, *s* or *q* other than 1. Of the 23 rows of
`weight-norm` with the rule "order" 16 hold only thanks to their allowance, and its allowances are sizes read off the
same network: they bound what the equation misses there and do not derive it.
"""
PICTURES = "docs/theory"
DRAWN = {
    f"python -m theory.montecarlo --plot {PICTURES}": {
        "sgd-moments": "SGD on a noisy quadratic mode under four schedules: the rate, and the mean and variance of the"
        " coordinate. Lines: the SDE. Points: simulations, with one standard error.",
        "weak-order": "Weak error of the SDE against the relative step: of first order, with a quadratic and a quartic"
        " loss.",
        "adam-modes": "The variance of each mode at the end of runs of Adam and AdamW. Lines: the noise-dominated SDE."
        " Points: simulations.",
        "weight-norm": "The squared weight norm of a small scale-invariant network. Left, AdamW with one normaliser a"
        " layer in place of its own: the equation of the code with as many units of growth as weights, a little above"
        " what is simulated late in a run at the full rate. AdamW as it is, not shown, ends above that equation: its"
        " squared norm grows 1.131 ± 0.006 times as fast, and settles at 8.65 for 7.17 at the rate of the picture"
        " (rows of `weight-norm`). Right, plain SGD without decay: the equation with constant growth fails, and one"
        " for the fourth power of the norm is near.",
        "escape": "The probability of staying near a saddle or in a well against the covariance that the code computes,"
        " beside the bounds; in one dimension the first is nearly reached.",
        "heavy-tails": "Where Gaussian noise fails: Student-t gradients of the same variance, over the Gaussian"
        " prediction.",
    },
    f"python -m theory.world --plot {PICTURES}": {
        "world-loss": "The model world, in which every exponent is known: the final loss above the irreducible by steps"
        " and size.",
        "world-recovery": "What is found of several worlds: errors of the exponents, and of the loss at 1,000 times the"
        " compute. Where noise grows with the model without end, the exponent of time is missed.",
        "world-growth": "How the error grows with the distance from the runs. With the exponents of the world, known or"
        " found, it stays below the laws' intervals, which are wider than noise alone would make them (on paper). With"
        " the constants of the default basis, which are those of another world, laws err more.",
    },
}
"""Command: the pictures that it draws, each with its caption."""


def results() -> tuple[Result, ...]:
    """Return all results, theorems first; every step is checked on the way."""
    return tuple(make() for make in (*THEOREMS, *DERIVATIONS))


def fed_by(column: Column, among: Iterable[Result]) -> list[Result]:
    """Return the results on which a column rests."""
    names = {column.name}
    if column.name.startswith("variance_") and column.name.removeprefix("variance_").isdigit():
        names.add("variance")
    return [result for result in among if names & set(result.feeds)]


PARTLY = "proved in part"
STANDING = (
    "All columns of the registered bases; those of `{basis}` are the default. Formulas and assumptions are those that"
    " the code states (`optlaws features` prints them, with every symbol). *Proved* is said of a column's form; its"
    f" constants are fitted (next table). *{PARTLY.capitalize()}*: all but what stands under *assumed*, to which no"
    " derivation leads."
)


def standing(column: Column, among: Iterable[Result]) -> str:
    """Return whether a column is proved, proved but for what it assumes, or rests on a scaling argument somewhere."""
    found = fed_by(column, among)
    if not found or any(result.standing == HEURISTIC for result in found):
        return HEURISTIC
    return PARTLY if column.assumed else PROVED


def column_rows(among: Sequence[Result]) -> list[tuple[str, str, str, str, str, str]]:
    """Return the table of all registered columns; its head is `COLUMN_HEAD`."""
    return [
        (
            f"`{name}`",
            column.group,
            f"`{column.formula}`",
            ", ".join(f"`{r.name}`" for r in fed_by(column, among)),
            standing(column, among),
            column.assumed,
        )
        for name, column in registered().items()
    ]


COLUMN_HEAD = ("column", "group", "formula", "rests on", "standing", "assumed")


def _cell(text: str) -> str:
    """Return text in which no bar ends a cell of a Markdown table."""
    parts = re.split(r"(\$.+?\$)", text)
    return "".join(p.replace("|", "\\vert ") if p.startswith("$") else p.replace("|", "\\|") for p in parts)


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    escaped = ([_cell(cell) for cell in row] for row in body)
    lines = [head, ["---"] * len(head), *escaped]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _modules(folder: str) -> list[tuple[str, str]]:
    """Return (file, first line of its docstring) of the modules of a folder beside this one."""
    rows = []
    for path in sorted((FOLDER / folder).glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if path.name not in ("__init__.py", "__main__.py") and text:
            rows.append((f"[{folder}/{path.name}]({folder}/{path.name})", text.splitlines()[0]))
    return rows


def markdown() -> str:
    """Return the text of ``theory/README.md``."""
    found = results()
    rows = [
        (
            f"{r.title} (`{r.name}`)",
            "; ".join(a.rstrip(".") for a in r.assumptions),
            f"[{r.module}]({r.module})",
            ", ".join(f"`{f}`" for f in r.feeds),
            r.standing,
        )
        for r in found
    ]
    parts = [
        HEADER,
        "## Results",
        table(("result", "assumptions", "file", "feeds", "standing"), rows),
        "## Columns",
        STANDING.format(basis=get_basis().id),
        table(COLUMN_HEAD, column_rows(found)),
        "## What theory says and data contradicts",
        "Constants of the default basis. Values are read from the code. *Agrees*: less than 10 % off theory's value.",
        table(
            ("constant", "enters", "theory", "theory's value", "fitted", "verdict", "consequence"),
            contradictions.rows(),
        ),
        table(("form", "theory", "code", "consequence"), contradictions.STRUCTURE),
        "## The oracle",
        ORACLE.rstrip(),
    ]
    simulated = _modules("montecarlo") + _modules("world")
    if simulated:
        parts += ["## Simulations", table(("file", "what it checks"), simulated), SIMULATED]
        for command, pictures in DRAWN.items():
            parts.append(f"Drawn by `{command}`:")
            for name, caption in pictures.items():
                parts.append(f"![{name.replace('-', ' ')}](../{PICTURES}/{name}.png)\n\n{caption}")
    return "\n\n".join(part.rstrip() for part in parts) + "\n"
