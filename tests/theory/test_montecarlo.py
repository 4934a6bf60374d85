"""Monte-Carlo checks hold at small sizes, notice wrong predictions, and their parts equal naive twins."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2
from theory.montecarlo import CHECKS, Check, Row, adam, escape, heavy_tails, quadratic, table, weak_order, weight_norm
from theory.montecarlo import __main__ as command
from theory.montecarlo.link import bare_dynamics, states_at
from theory.montecarlo.network import WEIGHTS, loss_and_gradient, make_task, of_norm, sample, train

from optlaws.schedules import constant, wsd

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "quadratic": lambda: quadratic.quadratic_rows(3000),
    "weak-order": lambda: weak_order.weak_order_rows(12_000),
    "adam": lambda: adam.adam_rows(250),
    "weight-norm": lambda: weight_norm.weight_norm_rows(10, names=("WSD",), rates=(weight_norm.PEAK,)),
    "escape": lambda: escape.escape_rows(3000),
    "heavy-tails": lambda: heavy_tails.heavy_tail_rows(16_000),
}


@pytest.fixture(scope="module")
def rows_of():
    """Return the rows of a check, computed once."""
    kept = {}

    def get(name):
        if name not in kept:
            kept[name] = SMALL[name]()
        return kept[name]

    return get


def test_every_check_has_a_small_twin_here():
    assert [check.name for check in CHECKS] == list(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_simulation_agrees_with_the_prediction(rows_of, name):
    rows = rows_of(name)
    assert not [row.what for row in rows if not row.passed], "\n" + table(rows)
    assert all(row.error > 0 for row in rows)


def test_every_bound_can_fail(rows_of):
    """A bound of 1 on a probability says nothing."""
    bounds = [row for name in SMALL for row in rows_of(name) if row.rule == "bound"]
    assert len([row for row in bounds if "from a well" in row.what]) == 8
    for row in bounds:
        assert row.predicted < 0.9
        assert not replace(row, simulated=1.0).passed


def test_stated_failures_are_there(rows_of):
    failing = {name: [row.what for row in rows_of(name) if row.rule == "differs"] for name in SMALL}
    assert any("linear rule" in what for what in failing["adam"])
    assert any("constant kappa" in what for what in failing["weight-norm"])
    assert any("hot" in what for what in failing["escape"])
    assert {"t, nu = 2.5", "t, nu = 3"} == {what.partition(":")[0] for what in failing["heavy-tails"]}


def test_a_wrong_variance_is_noticed(monkeypatch):
    def hotter(*args, **options):
        states = states_at(*args, **options)
        return replace(states, variance=1.2 * states.variance)

    monkeypatch.setattr(quadratic, "states_at", hotter)
    failed = [row for row in quadratic.quadratic_rows(3000) if not row.passed]
    assert len(failed) >= 12
    assert all("variance" in row.what for row in failed)


def test_a_wrong_intrinsic_time_is_noticed(monkeypatch):
    def slower(*args, **options):
        states = states_at(*args, **options)
        return replace(states, tau=0.9 * states.tau)

    monkeypatch.setattr(quadratic, "states_at", slower)
    failed = [row for row in quadratic.quadratic_rows(3000) if not row.passed]
    assert len(failed) >= 12
    assert all("mean" in row.what for row in failed)


@pytest.mark.parametrize(
    ("rule", "simulated", "passed"),
    [
        ("3 se", 1.29, True),
        ("3 se", 1.31, False),
        ("order", 1.79, True),
        ("order", 0.19, False),
        ("bound", -5.0, True),
        ("bound", 1.81, False),
        ("differs", 1.79, False),
        ("differs", 1.81, True),
        ("order", np.nan, False),
    ],
)
def test_rules(rule, simulated, passed):
    assert Row("x", 1.0, simulated, 0.1, rule, 0.5).passed is passed


def test_table_shows_each_number():
    text = table([Row("what", 1.25, 1.5, 0.125, "order", 0.0625), Row("other", 1.0, 9.0, 0.1)])
    assert "1.25" in text
    assert "0.12" in text
    assert text.splitlines()[1].endswith("ok")
    assert text.splitlines()[2].endswith("FAILED")


def test_command_exits_with_1_only_where_a_comparison_fails(monkeypatch, capsys):
    good, bad = Row("good", 1.0, 1.0, 0.1), Row("bad", 1.0, 2.0, 0.1)
    monkeypatch.setattr(command, "CHECKS", (Check("a", "holds", lambda: [good]), Check("b", "fails", lambda: [bad])))
    assert command.main(["a"]) == 0
    assert command.main([]) == 1
    shown = capsys.readouterr()
    assert "holds" in shown.out
    assert "FAILED: bad" in shown.err


def test_command_names_the_checks_it_knows():
    done = subprocess.run(
        [sys.executable, "-m", "theory.montecarlo", "quadratics"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert "got 'quadratics'; did you mean 'quadratic'?" in done.stderr


def test_sgd_is_a_loop_over_the_steps():
    schedule, curvatures = wsd(0.3, 7, decay=0.4), np.array([0.5, 2.0])
    found = quadratic.sgd(schedule, curvatures, 1.5, 0.2, 3, np.random.default_rng(0), [2, 7])
    rng, x = np.random.default_rng(0), np.full((3, 2), 1.5)
    for k in range(7):
        noise = rng.standard_normal((3, 2))
        x = x - schedule.lr(k) * (curvatures * x - 0.2 * noise)
        if k == 1:
            assert found[0] == pytest.approx(x, rel=1e-12)
    assert found[1] == pytest.approx(x, rel=1e-12)


def test_adam_is_the_published_one():
    setting = adam.Setting(constant(2e-3, 5), batch=4.0, weight_decay=0.3)
    found = adam.adam(setting, 2, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    x, m, v = np.tile(adam.start(), (2, 1)), 0.0, 0.0
    for k in range(1, 6):
        g = adam.CURVATURES * x + rng.standard_normal(x.shape) / 2.0
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - 2e-3 * 0.3 * x - 2e-3 * (m / (1 - 0.9**k)) / np.sqrt(v / (1 - 0.999**k))
    assert found == pytest.approx(x, rel=1e-8)


def test_gradient_of_the_network():
    rng = np.random.default_rng(2)
    task, w = make_task(rng), rng.standard_normal((2, WEIGHTS))
    x, t = sample(task, 2, 3, rng)
    loss, gradient = loss_and_gradient(task, w, x, t)
    for i in (0, 57, 200, WEIGHTS - 1):
        up, down = w.copy(), w.copy()
        up[:, i] += 1e-5
        down[:, i] -= 1e-5
        slope = (loss_and_gradient(task, up, x, t)[0] - loss_and_gradient(task, down, x, t)[0]) / 2e-5
        assert gradient[:, i] == pytest.approx(slope, rel=1e-5, abs=1e-8)
    assert (w * gradient).sum(axis=1) == pytest.approx(0.0, abs=1e-12)  # scale invariance
    assert loss_and_gradient(task, of_norm(w, 3.0), x, t)[0] == pytest.approx(loss, rel=1e-12)


def test_training_without_noise_in_the_order_of_operations():
    rng = np.random.default_rng(3)
    task, w = make_task(rng), rng.standard_normal((2, WEIGHTS))
    done = train(task, constant(0.01, 3), w, np.random.default_rng(4), weight_decay=0.5, at=[1, 3], plain=True)
    rng, x = np.random.default_rng(4), w
    for _ in range(3):
        g = loss_and_gradient(task, x, *sample(task, 2, 4, rng))[1]
        x = (1.0 - 0.005) * x - 0.01 * g
    assert done.weights == pytest.approx(x, rel=1e-12)
    assert done.square[1] == pytest.approx((x**2).sum(axis=1), rel=1e-12)


@pytest.mark.parametrize("dimensions", [1, 2, 5, 40])
@pytest.mark.parametrize("radius", [0.05, 0.5, 1.0, 3.0])
def test_bounds_hold_for_gaussians(dimensions, radius):
    inside = float(chi2.cdf(radius**2, dimensions))
    assert inside <= escape.laplace_bound(dimensions, radius) <= escape.bound(dimensions, radius)
    if dimensions == 1:
        assert inside <= escape.bound(1.0, radius, escape.ONE)


def test_square_root_rule_leaves_the_states_of_optlaws_alone():
    dynamics = bare_dynamics(1e-3, [0.01, 0.1])
    one = states_at(constant(1e-3, 400), dynamics, batch=1.0, optimizer="adam")
    four = states_at(constant(2e-3, 100), dynamics, batch=4.0, optimizer="adam")
    assert four.tau == pytest.approx(one.tau, rel=1e-9)
    assert four.variance == pytest.approx(one.variance, rel=1e-9)
