"""What published advice would cost and which batches are looked at, against a law whose losses are known."""

import numpy as np
import pytest
from quadratic_law import BATCH, PEAK, QuadraticLaw

from optlaws import recommend_settings
from optlaws.baselines import get_baseline
from optlaws.optimize.families import tidy
from optlaws.recommend import BATCHES, FAR, FEWEST, _batches, flat_range

DOMAIN = {
    "peak_lr": (1e-4, 2e-3), "warmup_steps": (100.0, 100.0), "batch_tokens": (4e4, 6e6), "mean_rate": (0.4, 1.0)
}  # fmt: skip
A, B = 0.02, 0.01
PARAMS, TOKENS = 1e8, 1e10


def log_loss(peak, batch):
    """That of `QuadraticLaw` up to a constant; the best peak goes with the root of the batch."""
    return A * np.log(peak / (PEAK * (batch / BATCH) ** 0.5)) ** 2 + B * np.log(batch / BATCH) ** 2


@pytest.mark.parametrize(("fixed", "peaks"), [(None, (1e-4, 2e-3)), (2e5, (1e-4, 2e-3)), (2e5, (1.2e-3, 6e-3))])
def test_the_cost_of_other_advice_is_the_loss_there(fixed, peaks):
    """What it leaves open, and a batch that is settled, is the recommendation's; NaN four times beyond the domain."""
    domain = DOMAIN | {"peak_lr": peaks}
    law = QuadraticLaw(a=A, b=B, m=0.0, scaling=0.5, domain=domain)
    found = recommend_settings(law, params=PARAMS, tokens=TOKENS, batch_tokens=fixed)
    peak, batch = found.schedule.peak, found.task.columns["batch_tokens"]
    told = {}
    for other in found.published:
        advised = get_baseline(other.name).published().recommend(PARAMS, TOKENS, found.loss)
        there = np.array(advised, dtype=float)
        assert (other.peak_lr, other.batch_tokens) == pytest.approx(tuple(there), nan_ok=True)
        if fixed is not None:
            there[1] = np.nan
        ends = np.array([peaks, domain["batch_tokens"]])
        far = (there < ends[:, 0] / FAR) | (there > ends[:, 1] * FAR)  # not what is left open
        if far.any() or np.isnan(there).all():
            assert np.isnan(other.cost)
            continue
        there = np.where(np.isfinite(there), there, [peak, batch])
        expected = np.expm1(log_loss(*there) - log_loss(peak, batch))
        assert other.cost == pytest.approx(expected, abs=2e-5 + 1e-4 * abs(expected))  # rates of four figures
        told[other.name] = there
    assert len(told) >= 4
    rates = [there[0] for there in told.values()]
    assert max(rates) > 1.05 * peaks[1] or min(rates) < 0.95 * peaks[0]  # beyond the domain, and judged
    assert ("minicpm_batch" in told) is (fixed is None)


def test_batches_are_those_of_runs_as_long_as_the_laws():
    """Evenly spread in ln over the domain; those whose runs would be longer or shorter than any are left out."""
    law = QuadraticLaw(domain=DOMAIN | {"steps": (5e3, 5e4)})
    every = tidy(np.geomspace(4e4, 6e6, BATCHES), 4)
    steps = 1e10 / every
    inside = every[(steps >= 5e3 / 1.05) & (steps <= 5e4 * 1.05)]
    assert 2 < len(inside) < BATCHES
    assert _batches(law, 1e10, None) == pytest.approx(inside.tolist())
    assert _batches(law, 1e10, 123.0) == [123.0]


def test_where_no_batch_makes_such_runs_all_are_looked_at_that_leave_steps_enough():
    law = QuadraticLaw(domain=DOMAIN | {"steps": (5e3, 5e4)})
    every = tidy(np.geomspace(4e4, 6e6, BATCHES), 4)
    assert _batches(law, 1e13, None) == pytest.approx(every.tolist())
    short = _batches(law, 1e7, None)
    assert short == pytest.approx(every[1e7 / every >= FEWEST].tolist())
    assert 2 < len(short) < BATCHES


def test_flat_ranges_end_between_two_values_where_the_loss_is_one_in_a_thousand_higher():
    """By straight lines of the loss in ln of the value: a third of the way from 1 to 8 is 2."""
    values, loss = np.array([1 / 64, 1.0, 8.0]), 2.0 * np.array([1.002, 1.0, 1.003])
    found = flat_range(values, loss, loss, loss)
    assert (found.low, found.best, found.high) == pytest.approx((1 / 8, 1.0, 2.0), rel=1e-9)
    assert not found.low_open
    assert not found.high_open
