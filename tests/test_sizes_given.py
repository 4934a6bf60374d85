"""Sizes as people write them, laws by name, and one value where several may stand, in the planning functions."""

import numpy as np
import pytest

from optlaws import (
    RunTable,
    design_runs,
    load_law,
    optimize_schedule,
    recommend_settings,
    standard_pool,
)
from optlaws.errors import InputError, LawError
from optlaws.monitor import Monitor
from optlaws.optimize import make_task

LAW = "llama-slimpajama"
TARGETS = RunTable.build("cosine:peak=3e-4,warmup=2000", params=1e9, tokens=20e9, batch_tokens=500e3)


def test_sizes_of_a_task_may_be_texts():
    law = load_law(LAW)
    task = make_task(law, params=85e6, tokens=2.56e9, steps=50_000, weight_decay=0.1)
    for params in ("85M", np.array(85e6), np.float32(85e6)):
        same = make_task(LAW, params=params, tokens="2.56B", steps="50K", weight_decay="0.1")
        assert (same.columns, same.steps, same.law) == (task.columns, task.steps, law)


def test_optimize_takes_texts_names_and_one_warmup():
    wanted = optimize_schedule(load_law(LAW), params=85e6, steps=10_000, knots=0, warmup=[300])
    found = optimize_schedule(LAW, params="85M", steps="10K", knots=0, warmup=300)
    assert (found.schedule, found.loss) == (wanted.schedule, wanted.loss)


def test_recommend_takes_texts_names_and_one_warmup():
    wanted = recommend_settings(load_law(LAW), params=85e6, tokens=2.56e9, warmup=[300])
    found = recommend_settings(LAW, params="85M", tokens="2.56B", warmup=300)
    assert (found.schedule, found.loss, found.peak.best) == (wanted.schedule, wanted.loss, wanted.peak.best)


@pytest.mark.parametrize("sizes", [np.array([1e8, 5e7]), ["100M", "50M"], [5e7, 1e8]])
def test_sizes_of_a_pool(sizes):
    assert standard_pool(TARGETS, sizes).digest() == standard_pool(TARGETS, [1e8, 5e7]).digest()
    assert set(standard_pool(TARGETS, "50M").params) == {5e7}


def test_a_budget_and_a_length_of_sequences_may_be_texts():
    pool = standard_pool(TARGETS, "50M", seq_len="1Ki")
    assert pool.digest() == standard_pool(TARGETS, 5e7, seq_len=1024).digest()
    found, wanted = (design_runs(TARGETS, pool, 2, budget=budget).picked.tolist() for budget in ("1000000T", 1e18))
    assert found == wanted


@pytest.mark.parametrize("bad", [[85e6], {}, "many", True, "", float("nan"), -1])
def test_sizes_that_are_none(bad):
    for ask in (
        lambda: optimize_schedule(LAW, params=bad, steps=1000),
        lambda: optimize_schedule(LAW, params=85e6, tokens=bad),
        lambda: recommend_settings(params=bad, tokens=1e9),
        lambda: recommend_settings(params=85e6, tokens=bad),
        lambda: standard_pool(TARGETS, [bad]),
        lambda: design_runs(TARGETS, TARGETS, 1, budget=bad),
    ):
        with pytest.raises(InputError, match=r"(params|tokens|sizes|budget) must be"):
            ask()


def test_other_input_that_is_none():
    with pytest.raises(InputError, match="tokens must be a finite number above 0, got None"):
        recommend_settings(params=85e6, tokens=None)
    with pytest.raises(InputError, match="warmup must be"):
        optimize_schedule(LAW, params=85e6, steps=1000, warmup="long")
    with pytest.raises(LawError, match="llama-slimpajama"):
        optimize_schedule("llama-slimpyjama", params=85e6, steps=1000)


def test_a_reading_that_is_no_number():
    monitor = Monitor(LAW, "cosine:peak=1e-3,steps=5000,warmup=300", params="85M")
    for step, loss, name in ((100, None, "loss"), (None, 3.0, "step"), (100, "low", "loss"), (100, [1, 2], "loss")):
        with pytest.raises(InputError, match=f"{name} must be a number, got"):
            monitor.update(step, loss)
    assert monitor.update(np.array(100), np.float32(3.5)).step == 100
