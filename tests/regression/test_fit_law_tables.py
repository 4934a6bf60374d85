"""What is no run or curve table is said in one sentence by a fit."""

import pytest
from made_runs import plan

from optlaws.errors import InputError
from optlaws.law import fit_law


@pytest.mark.parametrize("table", ["runs.csv", None, {"steps": [1]}])
def test_what_is_no_run_table(table):
    with pytest.raises(InputError, match=r"runs must be a RunTable, got (str|NoneType|dict)"):
        fit_law(table)


def test_what_is_no_curve_table():
    with pytest.raises(InputError, match="curves must be a CurveTable, got str; read one with read_curves"):
        fit_law(plan(), "curves.csv")
