"""Intervals of laws of made-up runs, and new runs of the same range."""

from functools import cache

import numpy as np
import pytest
from made_runs import plan, with_losses

from optlaws.features import get_basis
from optlaws.law import fit_law
from optlaws.regression import Settings
from optlaws.runs import RunTable


@cache
def cover_of_new_runs(peak_scale, tables=72):
    """Share of 12 new runs inside the intervals of laws of 54, (tables,): known law, field, noise of 0.1 %."""
    everything = RunTable.concat(
        [plan(), plan(peaks=(6e-4, 1.5e-3), steps=(4500,), params=(2e7, 6e7), run_id=[f"new {i}" for i in range(12)])]
    )
    inside = []
    for seed in range(tables):
        table = with_losses(everything, noise=0.001, seed=seed, field=True, peak_scale=peak_scale)
        new = table.select(np.arange(54, 66))
        law = fit_law(table.select(np.arange(54)))
        p = law.predict(new)
        assert peak_scale in (None, law.peak_scale)
        inside.append(((p.lower <= new.final_loss) & (new.final_loss <= p.upper)).mean())
    return np.array(inside)


def test_intervals_cover_new_runs_of_the_known_law():
    """Known law, the smooth field that laws assume, and noise; the 12 new runs of a table share their error."""
    basis, peak = get_basis(), np.asarray(plan().batch().peak)
    inside = cover_of_new_runs(basis.peak_scale(peak, Settings().peak_gaps))
    assert abs(inside.mean() - 0.9) < 0.06


def test_intervals_are_too_narrow_where_losses_vary_faster_along_the_rate_than_laws_assume():
    """Three rates cannot show it, and the evidence of public runs at as few is for lengths as assumed or longer."""
    inside = cover_of_new_runs(None)
    assert 0.65 < inside.mean() < 0.9


@pytest.mark.xfail(
    strict=True, reason="cover .77: laws assume smoother losses along the rate than these (docs/limits.md)"
)
def test_intervals_cover_new_runs_of_a_rougher_known_law():
    """The band that held while the trend's scatter, a third above the true noise, counted as run noise (cover .85)."""
    inside = cover_of_new_runs(None)
    error = np.std(inside) / np.sqrt(len(inside))
    assert abs(np.mean(inside) - 0.9) < max(4 * error, 0.06)
