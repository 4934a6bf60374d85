"""Risk of laws whose runs are not like the public ones: other optimizers in other units, and other critical rates."""

from pathlib import Path

import numpy as np
import pytest

from optlaws.law import fit_law, with_risk
from optlaws.risk import run_labels
from optlaws.runs import RunTable, read_runs
from optlaws.sweeps import load_sweep

RUNS = Path(__file__).resolve().parents[2] / "examples" / "my_runs.csv"


def at_times(runs, times, optimizer):
    """The same runs by an optimizer whose rates are so many times higher; the decay of every step stays."""
    return RunTable.build(
        [schedule.scaled(times) for schedule in runs.schedule_tuple()], params=runs.params, tokens=runs.tokens,
        batch_tokens=runs.batch_tokens, optimizer=optimizer, weight_decay=0.1 / times, status=runs.status,
        final_loss=runs.final_loss,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("times", "optimizer"), [(1, "adamw"), (20, "muon"), (100, "sgd"), (0.1, "lion"), (10, "adamw")]
)
def test_runs_that_all_ended_are_not_called_dangerous_for_their_unit_of_the_rate(times, optimizer):
    runs = at_times(read_runs(RUNS), times, optimizer)
    risk = with_risk(fit_law(runs), runs).risks(runs)
    assert risk.sum() < 1.5  # none of the 36 diverged
    assert risk.max() < 0.2
    higher = at_times(runs, 20, optimizer)
    assert (with_risk(fit_law(runs), runs).risks(higher) > 0.5).all()  # and rates that nobody tried are not safe


@pytest.mark.parametrize("name", ["cpu_sweep_rich", "cpu_sweep_seeds"])
def test_tiny_networks_have_a_critical_rate_of_their_own(name):
    """Theirs lies far above those of the public runs; their own outcomes say so."""
    runs, _ = load_sweep(name)
    law = with_risk(fit_law(runs, own_units=True), runs)
    risk, bad = law.risks(runs), run_labels(runs) > 0
    assert law.risk.mean[-1] > 0.3
    assert abs(risk.sum() - bad.sum()) < 0.35 * bad.sum()
    assert np.mean(risk[bad] > 0.05) > 0.9
    assert np.mean(risk[~bad] > 0.05) < 0.1
