"""Schedules beside the rates that a log holds: what contradicts them, and how long a run may have been."""

import numpy as np
import pytest

from optlaws.runs import read_logs
from optlaws.schedules import parse

T = 4000
SPECS = [
    "cosine:peak=1e-3,steps=4000,warmup=120",
    "linear:peak=1e-3,steps=4000,warmup=200,final=1e-4",
    "wsd:peak=1e-3,steps=4000,warmup=120,decay=800",
    "wsd:peak=3e-4,steps=4000,decay=800,shape=sqrt",
    "constant:peak=1e-3,steps=4000,warmup=50",
]


def logged(tmp_path, spec, every=10, first=0, late=0, form="{!r}"):
    """The log of a run that names at step k the rate of update k - late."""
    rates = parse(spec).array()
    steps = range(first, T, every)
    lines = [f"{k},{3 + 1 / (k + 1):.4f},{form.format(float(rates[max(k - late, 0)]))}" for k in steps]
    (tmp_path / "log.csv").write_text("\n".join(["step,loss,lr", *lines]) + "\n")
    return read_logs([tmp_path / "log.csv"])[0]


@pytest.mark.parametrize("form", ["{!r}", "{:.4f}", "{:.2e}", "{:.6g}"])
@pytest.mark.parametrize("late", [0, 1, -1])
@pytest.mark.parametrize("spec", SPECS)
def test_rates_rounded_or_one_step_off_contradict_nothing(tmp_path, spec, late, form):
    run = logged(tmp_path, spec, first=10, late=late, form=form)
    off, worst = run.overruled_rate(parse(spec))
    assert off < 0.01
    assert worst is None


def test_what_contradicts_is_named(tmp_path):
    run = logged(tmp_path, SPECS[1])
    off, (step, rate, planned) = run.overruled_rate(parse("cosine:peak=5e-4,steps=4000,warmup=200"))
    assert off > 0.3
    assert (step, rate, planned) == (200, 1e-3, 5e-4)
    off, worst = run.overruled_rate(parse("linear:peak=1e-3,steps=4000,warmup=150,final=1e-4"))
    assert off < 0.02  # the warm-up alone
    assert worst[0] == 150
    off, worst = run.overruled_rate(parse("linear:peak=1e-3,steps=8000,warmup=200"))
    assert off > 0.02
    assert worst[0] > 3000


def test_a_constant_rate_is_not_taken_for_a_rounded_one(tmp_path):
    off, worst = logged(tmp_path, "constant:peak=1e-3,steps=4000").overruled_rate(
        parse("constant:peak=8e-4,steps=4000")
    )
    assert off == pytest.approx(0.2)
    assert worst is not None


def test_where_no_rate_is_logged_nothing_contradicts(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss\n1,3\n2,3\n")
    assert read_logs([tmp_path / "log.csv"])[0].overruled_rate(parse(SPECS[0])) == (0.0, None)


@pytest.mark.parametrize("every", [10, 50, 100])
@pytest.mark.parametrize("spec", [SPECS[0], SPECS[2], "linear:peak=1e-3,steps=4000,warmup=200"])
def test_a_run_may_end_one_logging_interval_after_its_last_reading(tmp_path, spec, every):
    """Rates every 100 steps from step 0 on: the last is at 3,900 of 4,000."""
    run = logged(tmp_path, spec, every)
    assert run.steps == T - every
    assert run.schedule() == parse(spec)
    assert run.reaches(T)
    assert run.final_loss(T)[1] == "curve"
    assert not np.isnan(run.final_loss(T)[0])
    assert not run.reaches(T + 2 * every + 40)
