"""Felt rate and steps at a high rate, against a loop over every step and closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optlaws.dynamics import Dynamics
from optlaws.errors import InputError
from optlaws.risk import quantities
from optlaws.risk.quantities import USUAL_WIDTH, WIDTH
from optlaws.runs import RunTable
from optlaws.schedules import ScheduleBatch, parse

SCHEDULES = (
    "cosine:peak=1e-2,steps=8000,warmup=2000",
    "cosine:peak=1e-2,steps=8000,warmup=50",
    "wsd:peak=3e-2,steps=20000,warmup=1500,decay=0.3,shape=sqrt",
    "constant:peak=2e-3,steps=3000",
    "linear:peak=4e-3,steps=5000,warmup=4900",
    "two_stage:peak=1e-3,steps=6000,warmup=200,switch=3000,second=8e-3",
    "piecewise:steps=1200,points=0:0/1200:5e-3",
    "one_cycle:peak=8e-3,steps=4000",
    "cyclic:peak=5e-3,low=1e-3,steps=4000,period=1000",
)


def table(specs, **columns):
    given = {"params": 3e8, "batch_tokens": 524288.0, "beta1": 0.9, "weight_decay": 0.1, **columns}
    return RunTable.build([parse(spec) for spec in specs], **given)


def naive(schedule, n, decay, c, parts=16):
    """The norm equation by Euler steps of 1 / parts of an update; the rate is linear between updates."""
    scale = n**c.size_exponent / c.lr_ref
    square, best, high = 1.0, 0.0, 0
    rates = np.asarray(schedule.lr(np.arange(schedule.total_steps)))
    # the rate of update k holds over [k, k + 1]; the continuous schedule passes through it in the middle
    edge = np.concatenate([[2 * rates[0] - rates[1]], rates, [2 * rates[-1] - rates[-2]]])
    for k in range(len(rates)):
        for j in range(parts):
            u = (j + 0.5) / parts
            a, b = (0.5 * (edge[k] + edge[k + 1]), rates[k]) if u < 0.5 else (rates[k], 0.5 * (rates[k] + edge[k + 2]))
            rate = a + (b - a) * (2 * u - (u >= 0.5))
            best = max(best, rate * scale / np.sqrt(square))
            square += (-2 * decay * rate * square + c.kappa * (rate * scale) ** 2) / parts
        high += rates[k] >= 0.5 * rates.max()
    return best, high


@pytest.mark.parametrize("spec", SCHEDULES)
def test_against_a_loop_over_every_step(spec):
    c = Dynamics()
    runs = table([spec])
    q = quantities(runs, c)
    felt, high = naive(runs.schedule_tuple()[0], runs.size[0] / c.params_ref, 0.1, c)
    assert q.felt[0] == pytest.approx(felt, rel=0.01)
    assert q.high[0] * c.steps_ref == pytest.approx(high, rel=0.03, abs=2)


@pytest.mark.parametrize(("peak", "warmup"), [(1e-2, 2000), (3e-2, 300), (1e-3, 100), (2e-3, 3000)])
def test_closed_form_without_decay(peak, warmup):
    c = Dynamics()
    q = quantities(table([f"constant:peak={peak},steps=40000,warmup={warmup}"], weight_decay=0.0), c)
    x = peak / c.lr_ref * 3.0**c.size_exponent
    growth = c.kappa * x**2 * warmup / 3
    top = x * 2 ** (1 / 3) / 3**0.5 * growth ** (-1 / 3) if growth >= 2 else x / np.sqrt(1 + growth)
    place = warmup * min((2 / growth) ** (1 / 3), 1.0)
    assert q.felt[0] == pytest.approx(top, rel=4e-3)
    assert q.at[0] == pytest.approx(place, rel=0.05, abs=1)


def test_wherever_the_maximum_lies_between_the_cells_it_is_found():
    """Warm-ups of one slope feel one highest rate at one step; cell ends alone miss it by 14 % of the step."""
    c, factors = Dynamics(), np.linspace(1.0, 3.0, 41).tolist()
    specs = [f"constant:peak={1e-2 * k!r},steps=40000,warmup={round(2000 * k)}" for k in factors]
    q = quantities(table(specs, weight_decay=0.0), c)
    x = 1e-2 * np.array(factors) / c.lr_ref * 3.0**c.size_exponent
    warmup = np.rint(2000 * np.array(factors))
    growth = c.kappa * x**2 * warmup / 3
    assert growth.min() > 2
    top = x * 2 ** (1 / 3) / 3**0.5 * growth ** (-1 / 3)
    assert (q.felt >= top * (1 - 1e-4)).all()
    assert q.felt == pytest.approx(top, rel=7e-3)
    assert q.at == pytest.approx(warmup * (2 / growth) ** (1 / 3), rel=0.042)


def test_runs_beside_a_run_do_not_change_it():
    """Cells are cut for all runs of a pass, whose rates need not rise in the same ones."""
    specs = [f"linear:peak=1e-2,steps=8000,warmup={warm}" for warm in (0, 400, 1000, 3000)]
    together = quantities(table(specs), Dynamics())
    for i, spec in enumerate(specs):
        alone = quantities(table([spec]), Dynamics())
        assert together.felt[i] == pytest.approx(alone.felt[0], rel=2e-3)
        assert together.high[i] == pytest.approx(alone.high[0], rel=1e-9)
    peaks = ScheduleBatch.grid("linear", peak=1e-2, steps=8000, warmup=np.array([0.0, 400.0, 1000.0, 3000.0]))
    batch = RunTable.build(peaks, params=3e8, batch_tokens=524288.0, beta1=0.9, weight_decay=0.1)
    assert quantities(batch, Dynamics()).felt == pytest.approx(together.felt, rel=1e-9)


def test_without_a_warm_up_the_first_step_is_felt_most():
    c = Dynamics()
    q = quantities(table(["constant:peak=2e-3,steps=3000"]), c)
    assert q.felt[0] == pytest.approx(2e-3 / c.lr_ref * 3.0**c.size_exponent)
    assert q.at[0] == 0


def test_invariants():
    c = Dynamics()
    runs = table(SCHEDULES)
    q = quantities(runs, c)
    higher = quantities(replace(runs, params=runs.params * 2), c)
    assert (higher.felt > q.felt).all()  # a larger network feels the same rates more
    assert (quantities(replace(runs, weight_decay=runs.weight_decay * 3), c).felt >= q.felt - 1e-12).all()
    assert np.array_equal(quantities(replace(runs, batch_tokens=runs.batch_tokens * 2), c).felt, q.felt)
    assert ((q.at >= 0) & (q.at <= runs.steps)).all()


def test_a_grid_gives_what_single_schedules_give():
    peaks = np.geomspace(1e-3, 2e-2, 5)
    batch = ScheduleBatch.grid("wsd", peak=peaks, steps=9000, warmup=700, decay=0.2)
    many = RunTable.build(batch, params=3e8, batch_tokens=524288.0, beta1=0.9, weight_decay=0.1)
    one = table([f"wsd:peak={float(p)!r},steps=9000,warmup=700,decay=0.2" for p in peaks])
    for name in ("felt", "at", "high"):
        got, expected = (getattr(quantities(runs, Dynamics()), name) for runs in (many, one))
        assert got == pytest.approx(expected, rel=1e-12)


def test_threads_change_nothing():
    runs = table(SCHEDULES * 3)
    assert np.array_equal(quantities(runs, Dynamics(), threads=1).felt, quantities(runs, Dynamics(), threads=2).felt)


def test_the_width_counts_relative_to_what_is_usual():
    c = Dynamics()
    specs = ["cosine:peak=1e-2,steps=8000,warmup=2000"] * 4
    runs = table(specs, params=[c.params_ref, 8 * c.params_ref, c.params_ref, c.params_ref])
    wide = replace(runs, extra={WIDTH: (str(USUAL_WIDTH), str(USUAL_WIDTH), " ", "200")})
    assert quantities(wide, c).width == pytest.approx([1.0, 0.5, 1.0, 200 / USUAL_WIDTH])
    assert np.array_equal(quantities(runs, c).width, np.ones(4))


@pytest.mark.parametrize("text", ["0", "-768", "nan", "inf", "wide"])
def test_a_width_that_is_none(text):
    runs = table(["cosine:peak=1e-2,steps=8000,warmup=2000"])
    with pytest.raises(InputError, match=r"width of run .* must be a number above 0 \(d_model\), got"):
        quantities(replace(runs, extra={WIDTH: (text,)}), Dynamics())
