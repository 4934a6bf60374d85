"""How wide a monitor's forecasts are made: by the rank of conformal prediction, and for every kind of group."""

import numpy as np
import pytest
from monitor_helpers import plain_path

from optlaws.monitor import CurvePrior
from optlaws.monitor.learning import CUTS, Example, _calibrate

PRIOR = CurvePrior(np.zeros(6), np.diag(np.array([1e-4, *[0.02] * 5]) ** 2), 5e-4)


def examples(ends, kind=0):
    """Curves that follow their law to the last reading, and end where they are told."""
    path = plain_path()
    steps = np.linspace(path.start, 0.9 * path.total, 80)
    return [Example(path, steps, path.at(steps)[0], float(end), kind) for end in ends]


def needed(some):
    """By how much the intervals of each forecast must be stretched to hold the end, in order."""
    out = []
    for one in some:
        for cut in CUTS:
            f = one.forecast(PRIOR, cut)
            end = np.exp(one.path.log_final + one.end)
            edge = f.upper if end > f.loss else f.lower
            out.append(np.log(end / f.loss) / np.log(edge / f.loss))
    return np.sort(out)


@pytest.mark.parametrize("count", [5, 8, 11, 25])
def test_one_more_forecast_is_held_with_90_per_cent(count):
    """Of m forecasts as many as 90 % of m + 1 must lie inside: 90 % of m would be too few for a new one."""
    some = examples(np.random.default_rng(count).uniform(0.02, 0.05, count) * (-1.0) ** np.arange(count))
    ratios = needed(some)
    assert 1.0 < ratios[0] < ratios[-1] < 10.0
    rank = 0.9 * (len(ratios) + 1)
    found = _calibrate(PRIOR, some)
    least, most = (ratios[min(int(at), len(ratios)) - 1] for at in (np.floor(rank), np.ceil(rank)))
    assert least * (1 - 1e-9) <= found <= most * (1 + 1e-9)
    assert (ratios <= found * (1 + 1e-9)).mean() >= 0.9


def test_few_forecasts_take_the_farthest():
    some = examples([0.025, -0.03, 0.035, 0.02])
    assert _calibrate(PRIOR, some) == pytest.approx(needed(some)[-1], rel=1e-9)


def test_each_kind_of_group_is_covered_on_its_own():
    """Few sizes that are far off count in full beside many families that are not."""
    near, far = examples(np.linspace(0.014, 0.018, 30)), examples(np.linspace(0.04, 0.045, 4), kind=1)
    assert _calibrate(PRIOR, near + far) == pytest.approx(_calibrate(PRIOR, far), rel=1e-12)
    assert _calibrate(PRIOR, near + far) > 2 * _calibrate(PRIOR, near)


def test_forecasts_that_are_too_wide_are_left_as_they_are():
    assert _calibrate(PRIOR, examples(np.linspace(-0.001, 0.001, 12))) == 1.0
