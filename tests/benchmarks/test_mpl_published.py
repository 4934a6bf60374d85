"""The Multi-Power Law's published procedure against the package's own form of it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import mpl_published  # noqa: E402

from optlaws.baselines._readings import Readings, huber_cost  # noqa: E402
from optlaws.baselines.multi_power import MultiPowerLaw, _Features  # noqa: E402
from optlaws.runs import RunTable  # noqa: E402
from optlaws.schedules import parse  # noqa: E402

SPECS = (
    "cosine:peak=3e-4,steps=400,warmup=40,final=3e-5",
    "constant:peak=3e-4,steps=400,warmup=40",
    "wsd:peak=3e-4,steps=400,warmup=40,decay=0.3,final=3e-5",
)
LAW = MultiPowerLaw(3.0, 0.5, 0.5, 360.0, 2.0, 0.6, 0.6)
START = np.array([2.9, 0.6, 0.45, 300.0, 1.0, 0.5, 0.5])


@pytest.fixture(scope="module")
def readings():
    out = []
    for spec in SPECS:
        steps = np.arange(40, 401, 12)
        loss = LAW.predict_curve(RunTable.build(parse(spec)), steps.astype(float))
        out.append(Readings(parse(spec).array(), steps, loss, 1e8, 40))
    return out


def test_the_first_stage_finds_the_least_cost_of_its_law(readings):
    x = mpl_published.first_stage(readings)

    def cost(x):
        total = 0.0
        for run in readings:
            at = run.steps - 1
            value = x[0] + x[1] * np.cumsum(run.rates)[at] ** -x[2] - x[3] * (3e-4 - run.rates[at])
            total += huber_cost(np.log(run.loss) - np.log(value))
        return total

    assert (x >= 0).all()
    rng = np.random.default_rng(0)
    assert all(cost(x) <= cost(x * (1 + 0.02 * rng.standard_normal(4))) for _ in range(20))


def test_the_second_stage_ends_by_the_authors_rule():
    costs = iter([3.0, 2.0, 1.0, *[1.0] * 300])
    # steps 0 .. 2 improve; the stop needs more than 20 steps and 20 in a row without a lower cost
    assert len(mpl_published.second_stage(lambda: next(costs), None)) == 23
    assert len(mpl_published.second_stage(lambda: -1.0 * next(iter([1.0])), 7)) == 7
    falling = iter(np.linspace(1.0, 0.0, 500))
    assert len(mpl_published.second_stage(lambda: float(next(falling)), None)) == mpl_published.STEPS


def test_a_step_has_the_cost_and_the_slopes_of_the_package(readings):
    torch = pytest.importorskip("torch")
    step = mpl_published.torch_step(torch, readings, START)
    features = _Features(readings, 1.0, 1.0, 10_000)
    each = features.huber_slopes(np.concatenate([run.loss for run in readings]))
    cost, slope = each(START)
    assert step() == pytest.approx(cost, rel=1e-9)
    # the first step of AdamW: against the sign of each slope, after the decay
    rate = np.array([5e-2, 5e-2, 5e-3, 5e-2, 5e-2, 5e-3, 5e-3])
    after = START * (1 - 0.01 * rate) - rate * slope / (np.abs(slope) + 1e-8)
    assert step() == pytest.approx(each(after)[0], rel=1e-6)


def test_without_torch_it_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(sys, "argv", ["mpl_published.py"])
    with pytest.raises(SystemExit) as ended:
        mpl_published.main()
    assert ended.value.code == 2
    assert "torch cannot be imported; install it (CPU)" in capsys.readouterr().err


def test_help_says_what_is_timed():
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "mpl_published.py"), "--help"],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert "135 starts" in done.stdout
