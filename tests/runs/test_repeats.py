"""Which runs are repeats of one configuration."""

import tracemalloc

import numpy as np

from optlaws.baselines.base import in_order
from optlaws.runs import RunTable
from optlaws.runs._repeats import configurations
from optlaws.schedules import cosine, from_array


def test_one_logged_schedule_does_not_make_all_runs_as_large():
    """Texts of one NumPy array take the room of the longest: 300 runs beside one of 20,000 rates took 1.6 GB."""
    rng = np.random.default_rng(0)
    schedules = [cosine(1e-3 + 1e-6 * k, 1000 + k) for k in range(200)] + [from_array(rng.uniform(1e-4, 1e-3, 5000))]
    runs = RunTable.build(schedules, params=1e8, batch_tokens=5e4, final_loss=3.0, status="completed")
    for work in (configurations, in_order):
        tracemalloc.start()
        work(runs)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20e6


def test_repeats_share_a_label():
    runs = RunTable.build(
        [cosine(1e-3, 1000), cosine(2e-3, 1000), cosine(1e-3, 1000)],
        params=1e8,
        batch_tokens=5e4,
        run_id=["a", "b", "c"],
    )
    assert np.unique(configurations(runs), return_inverse=True)[1].tolist() == [0, 1, 0]
