"""The derivation of the criterion is the oracle of the code."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from theory.stability import BETA, KAPPA, PEAK, RATE, STEP, WARM, WD, C, result

from optlaws.dynamics import Dynamics
from optlaws.risk import Prior, quantities
from optlaws.risk.criterion import WIDTH_POWER, log_critical
from optlaws.risk.quantities import WIDTH
from optlaws.runs import RunTable
from optlaws.schedules import parse


def felt(spec, decay):
    run = RunTable.build([parse(spec)], params=1e8, batch_tokens=524288.0, beta1=0.9, weight_decay=decay)
    return quantities(run, Dynamics())


def test_the_top_of_a_warm_up():
    c, peak, warm = Dynamics(), 2e-2, 1000
    values = {PEAK: peak / c.lr_ref, KAPPA: c.kappa, WARM: warm}
    growth = c.kappa * values[PEAK] ** 2 * warm / 3
    q = felt(f"constant:peak={peak},steps=5000,warmup={warm}", 0.0)
    proved = result().expressions
    assert q.felt[0] == pytest.approx(float(proved["top"].subs(values)), rel=4e-3)
    assert q.at[0] == pytest.approx(warm * float(proved["share"].subs(C, growth)), rel=0.05)


@pytest.mark.parametrize(("peak", "warm"), [(3e-4, 2000), (1e-3, 500), (1e-3, 3000)])
def test_a_gentle_warm_up_is_highest_at_its_end(peak, warm):
    c = Dynamics()
    values = {PEAK: peak / c.lr_ref, KAPPA: c.kappa, WARM: warm}
    growth = c.kappa * values[PEAK] ** 2 * warm / 3
    assert growth < 2
    proved = result().expressions
    low, q, high = (felt(f"constant:peak={peak * f},steps=20000,warmup={warm}", 0.0) for f in (0.99, 1.0, 1.01))
    assert q.felt[0] == pytest.approx(float(proved["end"].subs(values)), rel=4e-3)
    assert q.at[0] == pytest.approx(warm, rel=0.02)
    power = np.log(high.felt[0] / low.felt[0]) / np.log(1.01 / 0.99)
    assert power == pytest.approx(float(proved["end_power"].subs(values)), rel=0.02)
    assert power == pytest.approx(-float(proved["width_gentle"].subs(values)), rel=0.02)


def test_powers_meet_where_the_top_leaves_the_warm_up():
    """At c = 2 both closed forms agree in value and power; below, the width's power is between -1 and -1/3."""
    c, peak = Dynamics(), 1e-3 / Dynamics().lr_ref
    values = {PEAK: peak, KAPPA: c.kappa, WARM: 6 / (c.kappa * peak**2)}
    proved = result().expressions
    assert float(proved["end"].subs(values)) == pytest.approx(float(proved["top"].subs(values)))
    assert float(proved["width_gentle"].subs(values)) == pytest.approx(WIDTH_POWER)
    assert float(proved["width_gentle"].subs({**values, WARM: 0})) == -1.0
    assert values[WARM] == pytest.approx(3860, rel=1e-3)


def test_where_a_long_run_settles():
    """After a warm-up so long that it overshoots nothing, u is that of the balance of growth and decay."""
    c = Dynamics()
    q = felt("constant:peak=1e-3,steps=300000,warmup=100000", 0.3)
    value = result().expressions["settled"].subs({WD: 0.3, RATE: 1e-3, KAPPA: c.kappa})
    assert q.felt[0] == pytest.approx(float(value), rel=0.01)


def test_edges():
    proved = result().expressions
    beta = 0.9
    edge = float(proved["momentum_edge"].subs(BETA, beta))
    for factor, grows in ((0.99, False), (1.01, True)):
        roots = np.roots([1.0, -(1 + beta - (1 - beta) * edge * factor), beta])
        assert (np.abs(roots).max() > 1) == grows
    noise, b = (s for s in sorted(proved["noisy_edge"].free_symbols, key=str, reverse=True))
    value = float(proved["noisy_edge"].subs({noise: 0.5, b: 1.0}))
    assert (1 - value) ** 2 + value**2 * 0.5 == pytest.approx(1.0)
    assert STEP not in proved["noisy_edge"].free_symbols


def test_the_prior_of_the_size():
    """Its mean lies midway between N ~ width^2 and N ~ width^3."""
    from optlaws.risk import PARAMETERS

    k, power = sorted(result().expressions["size"].free_symbols, key=str, reverse=True)
    ends = [float(result().expressions["size"].subs({k: width, power: Dynamics().size_exponent})) for width in (2, 3)]
    assert Prior().mean[PARAMETERS.index("size")] == pytest.approx(np.mean(ends), abs=2e-3)
    assert isinstance(result().expressions["excursion"], sp.Expr)


def test_the_power_of_the_width():
    assert float(result().expressions["width"]) == pytest.approx(WIDTH_POWER)
    run = RunTable.build(
        [parse("cosine:peak=1e-2,steps=8000,warmup=1000")] * 2, params=1e8, batch_tokens=524288.0, beta1=0.9,
        extra={WIDTH: ("800", "400")},
    )  # fmt: skip
    usual, narrow = np.exp(log_critical(quantities(run, Dynamics()), np.array(Prior().mean))[0])
    assert narrow / usual == pytest.approx(2 ** (1 / 3))
