from __future__ import annotations

import csv
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from examples import examples

from optlaws.errors import ScheduleError
from optlaws.schedules import (
    Schedule,
    ScheduleBatch,
    as_lambda,
    as_optax,
    chain,
    constant,
    continue_from,
    cosine,
    cyclic,
    from_array,
    inverse_sqrt,
    multistep,
    one_cycle,
    parse,
    piecewise,
    polynomial,
    step,
    two_stage,
    warm_restarts,
    wsd,
)


def test_wsd_golden_values_and_sum() -> None:
    # The same WSD sums to 849.505, 850.500, 850.505 and 851.000 in four public codes. Under this package's convention
    # (warm-up k / W from 0, decay 1 - (k - (T - D)) / D from the peak) it sums to 49.5 + 700 + 100.5 = 850.
    s = wsd(1.0, 1000, decay=200, warmup=100)
    joints = {0: 0.0, 99: 0.99, 100: 1.0, 799: 1.0, 800: 1.0, 801: 0.995, 999: 0.005}
    assert {k: s.lr(k) for k in joints} == pytest.approx(joints, rel=1e-14)
    assert s.array().sum() == pytest.approx(850.0, rel=1e-14)
    assert s.breakpoints == (0, 100, 800, 1000)
    assert (s.peak, s.warmup_steps, s.total_steps) == (1.0, 100, 1000)


@pytest.mark.parametrize(
    ("shape", "half", "power"),
    [
        ("linear", 0.55, None),
        ("sqrt", 1 - 0.9 * 0.5**0.5, None),
        ("1-sqrt", 1 - 0.9 * 0.5**0.5, None),
        ("sqrt_left", 0.1 + 0.9 * 0.5**0.5, None),
        ("cosine", 0.55, None),
        ("exponential", 0.1**0.5, None),
        ("reciprocal", 1 / (0.5 / 1 + 0.5 / 0.1), None),
        ("power", 0.1 + 0.9 * 0.5**3, 3.0),
        ("root", 1 - 0.9 * 0.5**3, 3.0),
    ],
)
def test_decay_shapes(shape: str, half: float, power: float | None) -> None:
    more = {} if power is None else {"power": power}
    s = wsd(1.0, 100, decay=40, shape=shape, final=0.1, **more)
    assert s.lr([59, 60, 80]) == pytest.approx([1.0, 1.0, half], rel=1e-14)


def test_cosine_golden_values() -> None:
    s = cosine(1.0, 1000, final=0.1, warmup=100, warmup_start=0.2)
    at = lambda k: 0.1 + 0.9 * (1 + math.cos(math.pi * (k - 100) / 900)) / 2  # noqa: E731
    expected = {0: 0.2, 50: 0.6, 99: 0.2 + 0.8 * 0.99, 100: 1.0, 550: 0.55, 999: at(999)}
    assert {k: s.lr(k) for k in expected} == pytest.approx(expected, rel=1e-14)
    warm = cosine(1.0, 1000, warmup=100, warmup_shape="cosine")
    assert warm.lr([0, 33, 99, 100]) == pytest.approx([0.0, 0.25, 1.0, 1.0], abs=1e-14)


def test_cycles_descend_climb_and_descend() -> None:
    s = cosine(1.0, 90, final=0.1, cycles=2)
    assert s.breakpoints == (0, 30, 60, 90)
    assert s.lr([0, 30, 60]) == pytest.approx([1.0, 0.1, 1.0])


def test_inverse_sqrt() -> None:
    s = inverse_sqrt(1.0, 1000, warmup=100)
    assert s.lr([50, 100, 400]) == pytest.approx([0.5, 1.0, 0.5])
    cooled = inverse_sqrt(1.0, 1000, decay=100, warmup=100)
    assert cooled.lr([400, 900, 950]) == pytest.approx([0.5, 1 / 3, 1 / 6])


def test_step_families() -> None:
    assert step(1.0, 10, every=4, factor=0.5).array().tolist() == [1.0] * 4 + [0.5] * 4 + [0.25] * 2
    s = multistep(1.0, 1000, warmup=10)
    assert s.breakpoints == (0, 10, 800, 900, 1000)
    assert s.lr([799, 800, 899, 900]).tolist() == [1.0, 0.316, 0.316, 0.1]
    assert two_stage(1.0, 10, switch=5, second=0.3).array().tolist() == [1.0] * 5 + [0.3] * 5
    assert polynomial(1.0, 10, power=2.0).lr(5) == pytest.approx(0.25)


def test_cyclic() -> None:
    s = cyclic(1.0, 12, period=8, shrink=0.5)
    assert s.array().tolist() == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0, 0.125, 0.25, 0.375]


def slow_one_cycle(
    k: int, T: int, peak: float, pct: float, anneal: str, div: float = 25.0, final: float = 1e4
) -> float:
    """Read torch.optim.lr_scheduler.OneCycleLR's documentation aloud: steps 0, pct T - 1 and T - 1 are the joints."""
    e = pct * T - 1
    a, b, u = (peak / div, peak, k / e) if k <= e else (peak, peak / div / final, (k - e) / (T - 1 - e))
    return b + (a - b) / 2 * (1 + math.cos(math.pi * u)) if anneal == "cosine" else a + (b - a) * u


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize(("steps", "pct"), [(100, 0.3), (97, 0.3), (50, 0.05), (11, 0.9)])
def test_one_cycle_is_torchs(anneal: str, steps: int, pct: float) -> None:
    s = one_cycle(0.1, steps, pct=pct, anneal=anneal)
    slow = [slow_one_cycle(k, steps, 0.1, pct, anneal) for k in range(steps)]
    np.testing.assert_allclose(s.array(), slow, rtol=1e-12, atol=1e-15)


def test_restarts_are_counted_in_every_family() -> None:
    schedules = examples(200)
    counts = dict(zip(schedules, ScheduleBatch.from_schedules(list(schedules.values())).restarts, strict=True))
    again = {"cosine-cycles": 2, "cyclic": 2, "restarts": 2, "continued": 1}
    assert {name: count for name, count in counts.items() if count} == again


@pytest.mark.parametrize(("rise", "count"), [(0.008, 0), (0.012, 1), (0.05, 1), (0.5, 1)])
def test_a_restart_of_single_rates_rises_by_more_than_a_hundredth(rise: float, count: int) -> None:
    """Of the highest rate, after a fall by as much: smaller ones are taken for rounding or noise."""
    rates = np.concatenate([np.linspace(1.0, 0.4, 50), 0.4 + np.linspace(0.0, rise, 20), np.linspace(0.4, 0.0, 30)])
    assert ScheduleBatch.from_schedules([from_array(rates)]).restarts.tolist() == [count]
    assert ScheduleBatch.from_schedules([from_array(7e-4 * rates)]).restarts.tolist() == [count]
    turned = np.concatenate([np.linspace(0.0, 0.5, 50), 0.5 - np.linspace(0.0, rise, 20), np.linspace(0.5, 1.0, 30)])
    assert ScheduleBatch.from_schedules([from_array(turned)]).restarts.tolist() == [count]


def test_many_small_rises_are_no_restart_and_one_large_one_among_them_is() -> None:
    wiggle = np.where(np.arange(400) % 2, 1.0, 0.996)
    down = wiggle * np.linspace(1.0, 0.2, 400)
    assert ScheduleBatch.from_schedules([from_array(down)]).restarts.tolist() == [0]
    both = np.concatenate([down, down])
    assert ScheduleBatch.from_schedules([from_array(both)]).restarts.tolist() == [1]


def test_warm_restarts() -> None:
    s = warm_restarts(1.0, 700, period=100, mult=2.0)
    assert s.breakpoints == (0, 100, 300, 700)
    assert s.lr([0, 50, 100, 200, 300, 500]) == pytest.approx([1, 0.5, 1, 0.5, 1, 0.5])
    cut = warm_restarts(1.0, 150, period=100, shrink=0.5, final=0.1)
    assert cut.lr([100, 149]) == pytest.approx([0.55, 0.1 + 0.45 * (1 + math.cos(math.pi * 0.49)) / 2])


def test_piecewise_holds_jumps_and_is_cut() -> None:
    s = piecewise([(0, 0.0), (4, 1.0), (4, 0.5), (6, 0.5), (20, 0.0)], 10)
    assert s.array() == pytest.approx([0, 0.25, 0.5, 0.75, 0.5, 0.5, *(0.5 * (1 - i / 14) for i in range(4))])
    assert piecewise([(0, 1.0)], 3).array().tolist() == [1.0] * 3


def test_warm_up_longer_than_the_run_is_a_ramp() -> None:
    s = parse({"kind": "cosine", "peak_lr": 1.0, "total_steps": 50, "warmup_steps": 100, "final_lr": 0.0})
    assert s.array() == pytest.approx(np.arange(50) / 100)
    assert (s.warmup_steps, s.peak, s.breakpoints) == (50, 0.49, (0, 50))
    assert not s.extendable


def test_continuation_starts_at_the_last_rate_and_keeps_the_first_run() -> None:
    first = wsd(1.0, 100, decay=0.2, final=0.1)
    s = continue_from(first, 50, 0.5, warmup=10, decay=0.2)
    np.testing.assert_array_equal(s.array()[:100], first.array())
    assert s.lr(100) == first.lr(99)
    assert s.lr(110) == 0.5
    assert chain(s, constant(1.0, 5)).total_steps == 155


@pytest.mark.parametrize(
    ("schedule", "extendable"),
    [
        (constant(1.0, 100, warmup=10), True),
        (wsd(1.0, 100, warmup=10), True),
        (wsd(1.0, 100, decay=90, warmup=10), False),
        (inverse_sqrt(1.0, 100, decay=0.2), True),
        (cosine(1.0, 100), False),
        (one_cycle(1.0, 100), False),
        (from_array(np.ones(5)), False),
        (chain(cosine(1.0, 10), wsd(1.0, 100)), True),
        (wsd(1.0, 1000, decay=980, warmup=10), True),  # 1 % of the run at the peak
        (wsd(1.0, 1000, decay=981, warmup=10), False),  # a little less: no more than a turning point
        (wsd(1.0, 100, decay=88, warmup=10), True),
        (wsd(1.0, 100, decay=89, warmup=10), False),  # a single step is no stretch
        (piecewise([(0, 1.0), (50, 0.0)], 100), False),  # at a rate of 0 nothing goes on
    ],
)
def test_extendable(schedule: Schedule, extendable: bool) -> None:
    assert schedule.extendable is extendable


@pytest.mark.parametrize("steps", [40, 1003])
def test_invariants(steps: int) -> None:
    for name, s in examples(steps).items():
        rates = s.array()
        assert rates.shape == (steps,), name
        assert np.all(np.isfinite(rates)), name
        assert np.all(rates >= 0), name
        assert rates.max() == pytest.approx(s.peak, rel=1e-12), name
        np.testing.assert_array_equal(s.lr(np.arange(steps)), rates, err_msg=name)
        assert [s.lr(k) for k in (0, steps // 2, steps - 1)] == rates[[0, steps // 2, steps - 1]].tolist(), name
        ends = s.breakpoints
        assert ends[0] == 0, name
        assert ends[-1] == steps, name
        assert all(a < b for a, b in pairwise(ends)), name
        w = s.warmup_steps
        assert np.all(np.diff(rates[:w]) >= 0), name
        assert {s: 1}[parse(s.to_json())] == 1, name


def test_scaling_the_peak_scales_every_rate() -> None:
    for (name, a), b in zip(examples(200).items(), examples(200, peak=3 * 2e-3).values(), strict=True):
        np.testing.assert_allclose(b.array(), 3 * a.array(), rtol=1e-12, err_msg=name)


def test_splitting_a_phase_changes_nothing() -> None:
    whole = chain(constant(1.0, 100), cosine(1.0, 50))
    parts = chain(constant(1.0, 30), constant(1.0, 70), cosine(1.0, 50))
    np.testing.assert_array_equal(whole.array(), parts.array())


def test_lr_outside_the_run() -> None:
    s = constant(1.0, 10)
    for k in (-1, 10, 2.5, "3", np.array([0, 10])):
        with pytest.raises(ScheduleError, match="step must be a whole number from 0 to 9"):
            s.lr(k)
    assert s.lr(np.float64(3.0)) == 1.0
    assert s.lr(np.zeros((2, 3), dtype=int)).shape == (2, 3)


def test_adapters() -> None:
    s = wsd(1e-3, 100, warmup=10, decay=20)
    factor, optax = as_lambda(s, base_lr=1e-2), as_optax(s, np)
    assert [factor(k) * 1e-2 for k in range(101)] == pytest.approx([*s.array(), s.lr(99)])
    assert optax(np.array([0, 50, 200])).tolist() == s.lr([0, 50, 99]).tolist()
    with pytest.raises(ScheduleError, match="base_lr"):
        as_lambda(s, base_lr=0.0)
    with pytest.raises(ScheduleError, match="step"):
        factor(101)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("source", ["mpl", "schaipp", "steplaw", "marin", "nqs"])
def test_published_schedules_are_read_and_written_exactly(data_dir: Path, source: str) -> None:
    rows = _rows(data_dir / f"{source}_runs.csv")
    assert rows
    for text in {r["schedule"] for r in rows}:
        s = parse(text)
        assert s.to_dict() == json.loads(text)
        assert parse(s.short()) == s


@pytest.mark.parametrize("source", ["mpl", "schaipp"])
def test_every_logged_rate_is_reproduced(data_dir: Path, source: str) -> None:
    schedules = {r["run_id"]: parse(r["schedule"]) for r in _rows(data_dir / f"{source}_runs.csv")}
    logged: dict[str, list[tuple[int, float]]] = {}
    rows = _rows(data_dir / f"{source}_curves.csv")
    if "lr" not in rows[0]:
        pytest.skip(f"{source}_curves.csv has no lr column in this copy of the data")
    for r in rows:
        if r["lr"]:
            logged.setdefault(r["run_id"], []).append((int(r["step"]), float(r["lr"])))
    for run, pairs in logged.items():
        steps, rates = np.array(pairs).T
        np.testing.assert_allclose(schedules[run].lr(steps), rates, rtol=1e-12, atol=1e-18, err_msg=run)


@pytest.mark.parametrize(
    "spec",
    [
        *examples(1000).values(),
        parse("exponential:peak=0.1,steps=999,warmup=7,final=1e-7"),
        parse("polynomial:peak=0.1,steps=997,power=3.7"),
        parse("wsd:peak=3.3e-4,steps=991,decay=0.5,shape=root,power=3.7"),
        parse("inverse_sqrt:peak=1e-3,steps=1000,timescale=37,decay=0.3,shape=exponential,final=1e-9"),
    ],
    ids=str,
)
def test_one_rate_is_the_arrays_bit_for_bit(spec: Schedule) -> None:
    rates = spec.array()
    steps = range(0, spec.total_steps, max(spec.total_steps // 500, 1))
    assert [spec.lr(k) for k in steps] == [rates[k] for k in steps]
    assert spec.lr(np.array(steps)).tolist() == [rates[k] for k in steps]


def test_no_steps_have_no_rates_and_wrong_types_are_named() -> None:
    s = wsd(1e-3, 100)
    assert s.lr([]).shape == (0,)
    assert s.lr(np.empty((2, 0), dtype=int)).shape == (2, 0)
    with pytest.raises(ScheduleError, match=r"parameter must be one of .*, got 0"):
        s[0]  # type: ignore[index]
    with pytest.raises(ScheduleError, match="factor must be a number, got 'twice'"):
        s.scaled("twice")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", examples(100))
def test_a_scaled_schedule_keeps_its_family_and_has_every_rate_multiplied(name: str) -> None:
    schedule = examples(100)[name]
    other = schedule.scaled(0.37)
    assert other.kind == schedule.kind
    np.testing.assert_allclose(other.array(), 0.37 * schedule.array(), rtol=1e-14, atol=0)
    assert parse(other.to_json()) == other


def test_a_scaled_batch_is_the_batch_of_the_scaled_schedules() -> None:
    schedules = list(examples(100).values())
    factor = np.geomspace(0.1, 10.0, len(schedules))
    batch = ScheduleBatch.from_schedules(schedules).scaled(factor)
    each = ScheduleBatch.from_schedules([s.scaled(f) for s, f in zip(schedules, factor, strict=True)])
    np.testing.assert_allclose(batch.peak, each.peak, rtol=1e-14)
    for index in range(len(schedules)):
        one = batch[index : index + 1].groups[0]
        rates = np.concatenate([p.rate(np.arange(p.begin, p.end)) for p in one.phases(0)])
        np.testing.assert_allclose(rates, schedules[index].array() * factor[index], rtol=1e-13)
    np.testing.assert_allclose(batch.scaled(2.0).peak, 2.0 * batch.peak, rtol=1e-14)
    with pytest.raises(ScheduleError, match=r"factor must be one number or \d+ of them, got"):
        batch.scaled([1.0, 2.0])
    with pytest.raises(ScheduleError, match=r"factor must be finite and above 0, got 0"):
        batch.scaled(0.0)


@pytest.mark.parametrize(
    "spec",
    [
        "warm_restarts:peak=1e-3,steps=20000,warmup=300,period=200",
        "cosine:peak=1e-3,steps=20000,warmup=300,cycles=3",
        "cyclic:peak=1e-3,steps=5000,period=1000,low=1e-4",
        "cosine:peak=1e-3,steps=2000,warmup=300",
        "wsd:peak=1e-3,steps=2000",
    ],
)
def test_single_rates_restart_as_often_as_the_schedule(spec):
    schedule = parse(spec)
    pair = ScheduleBatch.from_schedules([schedule, from_array(schedule.array())])
    assert pair.restarts[0] == pair.restarts[1]
    noisy = schedule.array() * (1 + 1e-3 * np.random.default_rng(0).standard_normal(schedule.total_steps))
    assert ScheduleBatch.from_schedules([from_array(noisy)]).restarts[0] == pair.restarts[0]


def test_a_warm_up_of_single_rates_may_stand_still():
    rates = parse("cosine:peak=1e-3,steps=20000,warmup=2000").array()
    assert from_array(rates).warmup_steps == 2000
    assert from_array(np.concatenate([rates[:1], rates[:-1]])).warmup_steps == 2001  # the first one twice
    assert from_array(np.repeat(rates[::8], 8)).warmup_steps == 2000  # one for several micro-batches
    rounded = from_array(np.array([float(f"{rate:.1e}") for rate in rates]))
    assert 1900 <= rounded.warmup_steps <= 2000
    assert chain(from_array(rates[:1000]), from_array(rates[1000:])).warmup_steps == 2000
    again = parse("cosine:peak=5e-4,steps=100,warmup=50")  # begins at 0: a second warm-up, not the first one's end
    assert chain(from_array(rates[:1000]), again).warmup_steps == 999
    assert chain(from_array(rates[:1000]), from_array(again.array())).warmup_steps == 999
    steps_up = np.repeat([1e-4, 1e-3], 5000)  # no warm-up but two stages
    assert from_array(steps_up).warmup_steps == 0
    assert from_array(np.full(100, 1e-3)).warmup_steps == 0
    assert from_array(np.linspace(1e-3, 0, 100)).warmup_steps == 0
