"""Copies of runs under new names are no repeats."""

from dataclasses import replace
from pathlib import Path

import pytest

from optlaws.errors import OptlawsWarning
from optlaws.law import fit_law
from optlaws.law.outliers import copies
from optlaws.runs import RunTable, read_runs

RUNS = read_runs(Path(__file__).resolve().parents[2] / "examples" / "my_runs.csv")


def test_copies_are_named():
    again = replace(RUNS, run_id=tuple(f"{name}-again" for name in RUNS.run_id))
    both = RunTable.concat([RUNS, again])
    assert copies(both) == list(zip(RUNS.run_id, again.run_id, strict=True))
    with pytest.warns(OptlawsWarning, match=r"36 runs are copies of another under a new name.*first '.*-again' of '"):
        fit_law(both)
    exact = replace(RUNS, final_loss=RUNS.final_loss + 1.2345e-9)  # digits enough for one to be no chance
    third = replace(exact.select([3]), run_id=("third",))
    with pytest.warns(OptlawsWarning, match=f"1 run is a copy of another.*'third' of '{RUNS.run_id[3]}'"):
        fit_law(RunTable.concat([exact, third]))
    assert copies(RunTable.concat([RUNS, again.select([3])])) == []  # five digits may be equal by chance


def test_repeats_are_not():
    again = replace(
        RUNS, run_id=tuple(f"{name}-again" for name in RUNS.run_id), final_loss=RUNS.final_loss * (1 + 1e-9)
    )
    assert copies(RunTable.concat([RUNS, again])) == []
    assert copies(RUNS) == []
