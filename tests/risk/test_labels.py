"""The detector of divergence on curves, and labels from the status of runs."""

from __future__ import annotations

import numpy as np
import pytest

from optlaws.errors import InputError
from optlaws.risk import curve_outcome, curve_outcomes, labels, run_labels
from optlaws.runs import CurveTable, RunTable, read_curves
from optlaws.schedules import parse

STEP = np.arange(1, 201) * 50.0
RNG = np.random.default_rng(0)


def falling(noise=0.01):
    return 2.5 + 6.0 * (STEP / 50) ** -0.6 + noise * RNG.standard_normal(len(STEP))


def test_a_falling_curve_is_completed():
    found = curve_outcome(STEP, falling())
    assert found.status == "completed"
    assert np.isnan(found.since)
    assert found.largest < 1.05


def test_a_rise_that_stays_is_a_divergence():
    loss = falling()
    loss[120:] = 7.0
    found = curve_outcome(STEP, loss)
    assert found.status == "diverged"
    assert STEP[119] < found.since <= STEP[120 + labels.WINDOW]
    assert found.rise > 2


def test_a_spike_that_the_run_recovers_from_is_none():
    loss = falling()
    loss[100:130] += 4.0
    found = curve_outcome(STEP, loss)
    assert found.status == "completed"
    assert found.largest > 1.5
    assert found.rise < 1.05


def test_one_bad_reading_at_the_end_is_none():
    loss = falling()
    loss[-1] = 9.0
    assert curve_outcome(STEP, loss).status == "completed"


def test_a_gentle_rise_of_the_schedule_is_none():
    loss = falling()
    loss[100:] *= np.linspace(1.0, 1.0 + 0.8 * (labels.RISE - 1), 100)
    assert curve_outcome(STEP, loss).status == "completed"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(value):
    loss = falling()
    loss[77] = value
    found = curve_outcome(STEP, loss)
    assert (found.status, found.since) == ("nonfinite", STEP[77])


def test_a_rise_must_last():
    count = int(np.ceil(labels.SUSTAINED * len(STEP)))
    for extra, status in ((0, "completed"), (labels.WINDOW + 2, "diverged")):
        loss = falling()
        loss[-(count - 3 + extra) :] = 8.0
        assert curve_outcome(STEP, loss).status == status


def test_running_median_against_a_loop():
    loss = falling(0.5)
    smooth = [np.median(loss[max(0, i - labels.WINDOW + 1) : i + 1]) for i in range(len(loss))]
    ratio = np.array(smooth) / np.minimum.accumulate(smooth)
    found = curve_outcome(STEP, loss)
    assert found.largest == pytest.approx(ratio.max())
    assert found.rise == pytest.approx(ratio[-1])


@pytest.mark.parametrize(
    ("step", "loss", "message"),
    [
        ([1, 2], [3.0], "step and loss must be two lists of equal length"),
        ([], [], "at least 1"),
        ([2, 2], [3.0, 3.0], "step must ascend without repeats"),
        ([3, 2], [3.0, 3.0], "sort the readings"),
    ],
)
def test_bad_input(step, loss, message):
    with pytest.raises(InputError, match=message):
        curve_outcome(step, loss)


def test_tables_of_curves():
    bad = falling()
    bad[100:] = 9.0
    table = CurveTable(("a",) * 200 + ("b",) * 200, np.tile(STEP, 2), np.concatenate([falling(), bad]))
    assert {name: found.status for name, found in curve_outcomes(table).items()} == {"a": "completed", "b": "diverged"}


def test_labels_of_runs():
    status = ["completed", "diverged", "nonfinite", "interrupted", None, None]
    runs = RunTable.build(
        [parse("constant:peak=1e-3,steps=10")] * 6, status=status, final_loss=[3, None, None, 3, 3, None]
    )
    assert run_labels(runs).tolist()[:3] == [0, 1, 1]
    assert np.isnan(run_labels(runs)).tolist() == [False, False, False, True, False, True]


@pytest.mark.parametrize("source", ["mpl", "schaipp"])
def test_no_public_curve_is_flagged(data_dir, source):
    """All of them are completed runs."""
    outcomes = curve_outcomes(read_curves(data_dir / f"{source}_curves.csv"))
    assert outcomes
    assert {found.status for found in outcomes.values()} == {"completed"}
