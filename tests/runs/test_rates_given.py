"""Schedules given as their rates, one a step: in `parse`, `RunTable.build` and data frames."""

import numpy as np
import pytest

from optlaws import parse
from optlaws.errors import ScheduleError, TableError
from optlaws.runs import RunTable, read_runs, write_runs
from optlaws.schedules import from_array

RATES = (3e-4, 1e-3, 7e-4, 1e-4)


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_rates(kind, tmp_path):
    wanted = from_array(np.array(RATES))
    assert parse(kind(RATES)) == wanted
    built = RunTable.build([kind(RATES), "cosine:peak=1e-3,steps=10"])
    framed = RunTable.from_frame({"run_id": ["1", "2"], "schedule": [kind(RATES), "cosine:peak=1e-3,steps=10"]})
    assert built.schedules == framed.schedules == (wanted, parse("cosine:peak=1e-3,steps=10"))
    assert RunTable.build(kind(RATES)).schedules == (wanted,)
    write_runs(tmp_path / "runs.csv", framed)
    assert read_runs(tmp_path / "runs.csv").schedules == framed.schedules


def test_rates_of_a_family_are_that_family_as_in_files():
    schedule = parse("cosine:peak=1e-3,steps=500,warmup=50")
    assert RunTable.build([schedule.array()]).schedules == (schedule,)
    assert RunTable.build(np.stack([schedule.array()] * 2)).schedules == (schedule,) * 2


@pytest.mark.parametrize("bad", [[], [[1e-3, 1e-3]], np.zeros((2, 2)), [True, False], ["a"], np.array([]), 1e-3])
def test_no_rates(bad):
    with pytest.raises(ScheduleError, match="a short form, JSON text or a dict, or a list of rates"):
        parse(bad)


@pytest.mark.parametrize("rates", [[1e-3, -1e-3], [1e-3, np.nan], np.array([np.inf, 1.0])])
def test_rates_out_of_range(rates):
    with pytest.raises(TableError, match="run 2: values must be finite rates"):
        RunTable.build(["cosine:peak=1e-3,steps=10", rates])
    with pytest.raises(TableError, match="data frame, row 1: values must be finite rates"):
        RunTable.from_frame({"run_id": ["a"], "schedule": [rates]})
