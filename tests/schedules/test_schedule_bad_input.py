"""Factors, pieces and rates that are none are refused in one sentence."""

import numpy as np
import pytest

from optlaws.errors import ScheduleError
from optlaws.schedules import ScheduleBatch, as_lambda, cells, wsd

SCHEDULE = wsd(1e-3, 100, warmup=10)


@pytest.mark.parametrize("factor", [0, -1.0, np.nan, np.inf, [1.0, 2.0]])
def test_a_schedule_is_scaled_by_one_factor_above_zero(factor):
    with pytest.raises(ScheduleError, match="factor must be one finite number above 0, got"):
        SCHEDULE.scaled(factor)


@pytest.mark.parametrize("chunk", [0, -1])
def test_pieces_hold_at_least_one_schedule(chunk):
    batch = ScheduleBatch.grid("constant", peak=np.array([1.0, 2.0]), steps=10)
    with pytest.raises(ScheduleError, match="chunk must be at least 1 schedule, got"):
        list(cells(batch, chunk=chunk))


def test_the_optimizers_rate_may_be_any_real_number():
    assert as_lambda(SCHEDULE, np.float32(1e-3))(50) == pytest.approx(1.0, rel=1e-6)
    with pytest.raises(ScheduleError, match="base_lr must be a finite rate above 0"):
        as_lambda(SCHEDULE, np.float32("nan"))
