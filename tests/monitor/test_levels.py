"""A run on another corpus than the law's: high from its first steps on, and no alarm of divergence."""

import numpy as np
import pytest

from optlaws.law import load_law
from optlaws.monitor import DIVERGENCE, Monitor
from optlaws.runs import RunTable
from optlaws.schedules import parse


@pytest.mark.parametrize("level", [1.25, 1.4])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_level_that_is_another_corpus_is_no_divergence(level, seed):
    law = load_law("steplaw-dense")
    run = RunTable.build([parse("cosine:peak=2e-3,steps=20000,warmup=2000")], params=268e6, batch_tokens=400_000.0)
    steps = np.unique(np.linspace(100, 20000, 200).round())
    noise = 0.01 * np.random.default_rng(seed).standard_normal(len(steps))
    losses = level * law.predict_curve(run, steps).loss * np.exp(noise)
    monitor = Monitor(law, run)
    for step, loss in zip(steps, losses, strict=True):
        monitor.update(step, loss)
    assert not any(alarm.kind == DIVERGENCE for alarm in monitor.history)


def test_a_run_that_learns_nothing_is_one():
    law = load_law("steplaw-dense")
    run = RunTable.build([parse("cosine:peak=2e-3,steps=20000,warmup=2000")], params=268e6, batch_tokens=400_000.0)
    steps = np.unique(np.linspace(100, 20000, 200).round())
    losses = np.maximum(law.predict_curve(run, steps).loss, 4.0) * np.exp(
        0.001 * np.random.default_rng(0).standard_normal(len(steps))
    )
    monitor = Monitor(law, run)
    for step, loss in zip(steps, losses, strict=True):
        monitor.update(step, loss)
    assert any(alarm.kind == DIVERGENCE for alarm in monitor.history)
