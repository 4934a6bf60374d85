from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from examples import examples

from optlaws.errors import ScheduleError
from optlaws.schedules import (
    Cells,
    Schedule,
    ScheduleBatch,
    cells,
    cells_at,
    cosine,
    cyclic,
    from_array,
    parse,
    warm_restarts,
    wsd,
)


def one(s: Schedule, resolution: float = 1.0) -> Cells:
    ((index, c),) = cells(ScheduleBatch.from_schedules([s]), resolution)
    assert index.tolist() == [0]
    return c


def trimmed(c: Cells, row: int) -> np.ndarray[Any, Any]:
    """Return begin, end, left, mean, right of the cells that have a width."""
    keep = c.width[row] > 0
    columns = (c.edges[row, :-1], c.edges[row, 1:], c.left[row], c.mean[row], c.right[row])
    return np.array([x[keep] for x in columns])


@pytest.mark.parametrize("steps", [20, 40])
def test_short_schedules_have_a_cell_per_step(steps: int) -> None:
    for name, s in examples(steps).items():
        c = one(s)
        total = (c.mean * c.width).sum()
        assert total == pytest.approx(s.array().sum(), rel=2e-3), name
        if name in ("cosine", "piecewise-ramp", "ramp", "array", "linear", "cosine-floor"):
            begin, end, _, mean, _ = trimmed(c, 0)
            np.testing.assert_array_equal(begin, np.arange(steps), err_msg=name)
            np.testing.assert_array_equal(end, np.arange(1, steps + 1), err_msg=name)
            np.testing.assert_allclose(mean, s.array(), rtol=1e-12, atol=1e-18, err_msg=name)


@pytest.mark.parametrize("steps", [1000, 12345])
def test_cells_cover_the_run_and_keep_the_sum(steps: int) -> None:
    for name, s in examples(steps).items():
        c = one(s)
        assert np.all(c.width >= 0), name
        assert c.edges[0, 0] == 0, name
        assert c.edges[0, -1] == steps, name
        assert set(s.breakpoints) <= set(c.edges[0].tolist()), name
        assert c.mean.shape[1] <= 160, name
        assert (c.mean * c.width).sum() == pytest.approx(s.array().sum(), rel=1e-4), name
        for x in (c.left, c.mean, c.right):
            assert np.all((x >= 0) & (x <= s.peak * (1 + 1 / steps))), name


def test_few_cells_for_the_common_families() -> None:
    assert one(cosine(1.0, 10000, warmup=300)).mean.shape == (1, 46)
    assert one(wsd(1.0, 10000, warmup=300)).mean.shape == (1, 54)


def functional(c: Cells) -> float:
    """Return int exp(-12 S(t, T) / S(0, T)) rate^2 dS, exact for a rate that is constant in each cell."""
    clock = np.concatenate([[0.0], np.cumsum((c.mean * c.width)[0])])
    decay = np.exp(-12 * (clock[-1] - clock) / clock[-1])
    return float(np.sum(np.diff(decay) * c.mean[0] ** 2) / 12)


SMOOTH = ["cosine-floor", "linear", "wsd-linear", "wsd-sqrt", "polynomial", "inverse-sqrt-cooldown", "one-cycle"]


@pytest.mark.parametrize("name", SMOOTH)
def test_convergence_is_second_order(name: str) -> None:
    s = examples(10**6, peak=1.0)[name]
    exact = functional(one(s, 64.0))
    errors = [abs(functional(one(s, r)) / exact - 1) for r in (1.0, 2.0, 4.0)]
    assert errors[0] < 1e-2
    order = np.log2(errors[0] / errors[2]) / 2
    assert order > 1.8, errors


def test_left_and_right_are_the_limits_at_the_joints() -> None:
    c = one(wsd(1.0, 10000, decay=2000, warmup=1000))
    _, end, left, _, right = trimmed(c, 0)
    i, j = np.searchsorted(end, [1000, 8000])
    assert left[0] == 0.0
    assert right[i] == pytest.approx(0.9995)
    assert left[i + 1] == 1.0
    assert right[j] == 1.0
    assert left[j + 1] == 1.0
    assert right[-1] == pytest.approx(0.5 / 2000)


def test_cells_do_not_depend_on_the_rest_of_the_batch() -> None:
    names = list(examples(1000))
    schedules = [examples(t)[n] for t in (20, 37, 1000) for n in names]
    batch = ScheduleBatch.from_schedules(schedules)
    seen = []
    for index, c in cells(batch, chunk=2):
        for row, i in enumerate(index):
            np.testing.assert_allclose(trimmed(c, row), trimmed(one(schedules[i]), 0), rtol=1e-13, atol=1e-18)
            seen.append(i)
    assert sorted(seen) == list(range(len(schedules)))
    assert batch.total_steps.tolist() == [s.total_steps for s in schedules]
    assert batch.warmup_steps.tolist() == [s.warmup_steps for s in schedules]
    assert batch.peak.tolist() == [s.peak for s in schedules]


GRIDS: dict[str, dict[str, Any]] = {
    "constant": {"warmup": [0, 10, 300, 5000]},
    "linear": {"warmup": [0, 10, 0.1, 20], "final": [0.0, 1e-5, 0.0, 1e-4]},
    "cosine": {"warmup": [0, 10, 300, 1000], "warmup_shape": "cosine"},
    "wsd": {"warmup": [0, 10, 0.1, 20], "decay": [0.2, 0.0, 50, 0.9], "shape": "sqrt"},
    "inverse_sqrt": {"warmup": [0, 10, 0.1, 20], "decay": [0.2, 0.0, 50, 0.9]},
    "polynomial": {"power": [0.5, 1.0, 2.0, 3.0]},
    "exponential": {"final": [1e-6, 1e-5, 1e-5, 1e-4]},
    "step": {"every": [100, 0.3, 17, 40], "factor": [0.1, 0.5, 1.0, 0.0]},
    "multistep": {"warmup": [0, 10, 0.1, 20]},
    "two_stage": {"switch": [0.5, 0.6, 10, 20], "second": [0.0, 1e-4, 1e-5, 2e-3]},
    "cyclic": {"period": [7, 100, 0.5, 33], "shrink": [1.0, 0.5, 0.0, 0.9]},
    "one_cycle": {"pct": [0.1, 0.3, 0.5, 0.77]},
    "warm_restarts": {"period": [30, 100, 0.5, 64], "mult": [1.0, 2.0, 1.5, 1.0]},
}


@pytest.mark.parametrize("kind", GRIDS)
def test_a_grid_is_the_same_schedules_one_by_one(kind: str) -> None:
    columns = {"peak": [1e-3, 2e-3, 5e-4, 1e-2], "steps": [1000, 200, 777, 500], **GRIDS[kind]}
    arrays = {k: np.array(v) if isinstance(v, list) else v for k, v in columns.items()}
    batch = ScheduleBatch.grid(kind, **arrays)
    singles = [Schedule(kind, **{k: v[i] if isinstance(v, list) else v for k, v in columns.items()}) for i in range(4)]
    assert len(batch) == 4
    for name in ("total_steps", "warmup_steps", "peak"):
        assert getattr(batch, name).tolist() == [getattr(s, name) for s in singles]
    for index, c in cells(batch):
        for row, i in enumerate(index):
            np.testing.assert_allclose(trimmed(c, row), trimmed(one(singles[i]), 0), rtol=1e-12, atol=1e-15)


def test_grid_broadcasts_and_checks() -> None:
    batch = ScheduleBatch.grid("wsd", peak=np.array([[1e-3], [2e-3]]), steps=np.array([100, 200, 300]), decay=0.2)
    assert len(batch) == 6
    assert batch.total_steps.tolist() == [100, 200, 300] * 2
    assert len(ScheduleBatch.grid("constant", peak=1.0, steps=10)) == 1
    empty = ScheduleBatch.grid("constant", peak=np.empty(0), steps=10)
    assert (len(empty), list(cells(empty))) == (0, [])
    assert len(ScheduleBatch.from_schedules([])) == 0
    with pytest.raises(ScheduleError, match=r"peak must be .* got -1.0"):
        ScheduleBatch.grid("wsd", peak=np.array([1.0, -1.0]), steps=10)
    with pytest.raises(ScheduleError, match=r"decay must be at most steps minus warmup, got 90.0"):
        ScheduleBatch.grid("wsd", peak=1.0, steps=100, warmup=20, decay=np.array([10, 90]))
    with pytest.raises(ScheduleError, match=r"steps must be a whole number .* got nan"):
        ScheduleBatch.grid("wsd", peak=1.0, steps=np.array([10, np.nan]))
    with pytest.raises(ScheduleError, match="arrays that broadcast"):
        ScheduleBatch.grid("constant", peak=np.ones(2), steps=np.array([5, 6, 7]))
    with pytest.raises(ScheduleError, match="use from_schedules"):
        ScheduleBatch.grid("piecewise", steps=10)
    with pytest.raises(ScheduleError, match="did you mean 'cosine'"):
        ScheduleBatch.grid("cosin", steps=10)
    with pytest.raises(ScheduleError, match="slice, mask or list"):
        empty[0]  # type: ignore[index]
    with pytest.raises(ScheduleError, match="resolution"):
        list(cells(batch, resolution=0.0))


def test_slices() -> None:
    schedules = list(examples(100).values())
    batch = ScheduleBatch.from_schedules(schedules)
    for which in (slice(3, 20, 2), np.arange(len(schedules)) % 3 == 0, [5, 1, 5]):
        part = batch[which]
        expected = [schedules[i] for i in np.arange(len(schedules))[which]]
        assert part.peak.tolist() == [s.peak for s in expected]
        for index, c in cells(part):
            for row, i in enumerate(index):
                np.testing.assert_allclose(trimmed(c, row), trimmed(one(expected[i]), 0), rtol=1e-13, atol=1e-18)


def test_cells_at_has_the_steps_as_edges() -> None:
    for name, s in examples(1000).items():
        steps = np.array([0, 1, 17, 333, 500.5, 999, 1000, 17])
        c = cells_at(s, steps)
        at = np.searchsorted(c.edges[0], steps)
        np.testing.assert_array_equal(c.edges[0, at], steps, err_msg=name)
        sums = np.concatenate([[0.0], np.cumsum((c.mean * c.width)[0])])
        exact = np.concatenate([[0.0], np.cumsum(s.array())])
        assert sums[at[[3, 5, 6]]] == pytest.approx(exact[[333, 999, 1000]], rel=1e-3), name
    with pytest.raises(ScheduleError, match="step must be from 0 to 1000, got 1001"):
        cells_at(s, [1001])


def test_a_million_steps_have_few_cells() -> None:
    rates = cosine(1e-3, 10**6, warmup=1000).array()
    s = from_array(rates)
    c = one(s)
    assert c.mean.shape[1] <= 200
    assert (c.mean * c.width).sum() == pytest.approx(rates.sum(), rel=1e-12)
    assert parse(s.to_json()) == s


def test_array_cells_find_jumps() -> None:
    s = wsd(1.0, 100_000, warmup=100, shape="sqrt")
    twin = one(from_array(s.array()))
    assert {0.0, 100_000.0} <= set(twin.edges[0].tolist())
    assert functional(twin) == pytest.approx(functional(one(s, 16.0)), rel=5e-3)
    jump = np.repeat([1.0, 0.1], [70_001, 29_999])
    assert 70_001.0 in one(from_array(jump)).edges[0]


def test_a_jump_of_an_array_is_one_edge() -> None:
    rates = np.repeat([1e-3, 1e-5], [1000, 99_000])
    edges = one(from_array(rates)).edges[0]
    assert np.all(np.diff(edges) > 0)
    assert 1000.0 in edges
    assert (edges > 1000).sum() > 40
    assert (edges < 1000).sum() > 40
    stairs = np.repeat(1e-3 * 0.9 ** np.arange(20), 1000)
    assert set(range(0, 20_000, 1000)) <= set(one(from_array(stairs)).edges[0].tolist())


@pytest.mark.parametrize("front", [0, 50_000])
def test_steps_of_no_rate_take_no_cells(front: int) -> None:
    rates = np.concatenate([np.zeros(front), np.linspace(1e-3, 0.0, 5000, endpoint=False), np.zeros(95_000)])
    c = one(from_array(rates))
    live = (c.edges[0, :-1] >= front) & (c.edges[0, 1:] <= front + 5000)
    assert live.sum() > 120
    assert (~live).sum() == (2 if front else 1)
    np.testing.assert_array_equal(c.mean[0, ~live], 0.0)


def test_an_array_has_more_cells_where_its_rates_rise_and_fall_often() -> None:
    few, many = (one(from_array(cyclic(1.0, 20_000, period=p).array())) for p in (10_000, 500))
    assert few.mean.shape[1] < 160
    assert 1500 < many.mean.shape[1] < 6000
    noise = from_array(np.random.default_rng(0).uniform(0.5, 1.0, 30_000))
    assert one(noise).mean.shape[1] < 10_000
    # arrays of different numbers of cells in one batch: the shorter ones are filled up with cells of no width
    both = [from_array(cyclic(1.0, 20_000, period=p).array()) for p in (10_000, 500)]
    ((index, c),) = cells(ScheduleBatch.from_schedules(both))
    for row, i in enumerate(index):
        np.testing.assert_array_equal(trimmed(c, row), trimmed(one(both[i]), 0))


def test_schedules_of_many_phases_have_twelve_cells_a_phase() -> None:
    for cycles in (10, 40, 80):
        c = one(warm_restarts(1.0, 80_000, period=80_000 // cycles))
        inside = np.histogram(c.edges[0, :-1], np.arange(cycles + 1) * 80_000 / cycles)[0]
        assert inside.min() >= 12
        assert inside[-1] == 40


def test_the_cells_of_a_batch_do_not_depend_on_the_steps() -> None:
    rng = np.random.default_rng(0)
    shapes = []
    for scale in (1, 10**6):
        peak = rng.uniform(1e-4, 1e-2, 20_000)
        batch = ScheduleBatch.grid("cosine", peak=peak, steps=1000 * scale, warmup=100 * scale)
        shapes.append([(len(index), c.mean.shape) for index, c in cells(batch)])
    assert sum(rows for rows, _ in shapes[0]) == 20_000
    assert shapes[0] == shapes[1]
