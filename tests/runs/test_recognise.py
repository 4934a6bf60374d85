"""The standard families are found again in rates that were logged now and then."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optlaws.runs import RECOGNISED, read_logs
from optlaws.runs._recognise import recognise
from optlaws.schedules import parse

T = 20_000
SPECS = [
    "constant:peak=3e-4,steps=20000",
    "constant:peak=1e-3,steps=20000,warmup=500",
    "linear:peak=1e-3,steps=20000",
    "linear:peak=1e-3,steps=20000,warmup=500",
    "linear:peak=1e-3,steps=20000,warmup=500,final=1e-4",
    "cosine:peak=1e-3,steps=20000",
    "cosine:peak=6e-4,steps=20000,warmup=500,final=6e-5",
    "cosine:peak=1e-3,steps=20000,warmup=60,final=1e-5",
    "cosine:peak=2e-3,steps=20000,warmup=501",
    "wsd:peak=1e-3,steps=20000,warmup=500,decay=0.2",
    "wsd:peak=1e-3,steps=20000,warmup=500,decay=3333,final=1e-4",
    "wsd:peak=1e-3,steps=20000,warmup=500,warmup_start=1e-5,decay=0.1",
    "wsd:peak=1e-3,steps=20000,warmup=777,decay=3333,shape=sqrt",
    "wsd:peak=1e-3,steps=20000,decay=4321,shape=sqrt,final=2e-5",
]
EVERY = (1, 50, 100, 137)
FIRST = {"counted from 1": 0, "the update before": 1, "counted from 0": 1}


def logged(spec, every, how):
    """Steps and rates as they are logged: at k the rate of update k, of update k - 1, or at k - 1 that of k - 1."""
    schedule = parse(spec)
    after = schedule.phases[-1].rate(np.array([float(T)]))[0]
    rates = np.append(schedule.array(), after)
    done = np.arange(every, T + 1, every)
    step = done - 1 if how == "counted from 0" else done
    return step.astype(float), rates[done - FIRST[how]]


@pytest.mark.parametrize("how", FIRST)
@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("spec", SPECS)
def test_exact_whatever_the_distance_of_the_readings(spec, every, how):
    step, rate = logged(spec, every, how)
    assert recognise(step, rate, T) == parse(spec)
    assert recognise(step, rate.astype(np.float32).astype(float), T) == parse(spec)


@pytest.mark.parametrize("every", EVERY[1:])
@pytest.mark.parametrize("spec", [spec for spec in SPECS if "final" not in spec and "constant" not in spec])
def test_the_length_may_follow_from_the_decay(spec, every):
    step = np.arange(0, T, every)
    rate = parse(spec).lr(step)
    last = int(step[-1])
    assert recognise(step.astype(float), rate, last, last + every) == parse(spec)
    shorter = recognise(step.astype(float), rate, last)
    assert shorter is None or shorter.total_steps == last


def test_a_warm_up_that_counts_from_1_has_a_first_rate():
    k = np.arange(0, T, 100)
    rate = 1e-3 * np.minimum(1.0, (k + 1) / 500)
    found = recognise(k.astype(float), rate, T)
    assert (found["warmup"], found["warmup_start"]) == (499, pytest.approx(2e-6, rel=1e-6))
    assert found.lr(k) == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        "cosine:peak=1e-3,steps=20000,warmup=500,cycles=2",
        "wsd:peak=1e-3,steps=20000,warmup=500,shape=cosine",
        "wsd:peak=1e-3,steps=20000,warmup=500,warmup_shape=cosine",
        "inverse_sqrt:peak=1e-3,steps=20000,warmup=500",
        "multistep:peak=1e-3,steps=20000,warmup=500",
        "cosine:peak=1e-3,steps=30000,warmup=500",
    ],
)
def test_others_stay_what_was_logged(spec):
    step = np.arange(0, T, 50)
    assert recognise(step.astype(float), parse(spec).lr(step), T) is None


def test_rounded_rates_are_no_family():
    step, rate = logged(SPECS[6], 100, "counted from 1")
    assert recognise(step, np.round(rate, 6), T) is None
    one = rate.copy()
    one[70] *= 1 + 3e-6
    assert recognise(step, one, T) is None


def rounded(rate, digits, of="digits"):
    """Rates as a log writes them: with so many significant digits, or places."""
    if of == "digits":
        return np.array([float(f"{value:.{digits - 1}e}") for value in rate])
    return np.round(rate, digits - math.floor(math.log10(rate.max())))


ROUNDED = {
    "constant": "constant:peak={peak},steps=20000,warmup={warmup}",
    "linear": "linear:peak={peak},steps=20000,warmup={warmup}",
    "linear to a rest": "linear:peak={peak},steps=20000,warmup={warmup},final=10%",
    "cosine": "cosine:peak={peak},steps=20000,warmup={warmup}",
    "cosine to a rest": "cosine:peak={peak},steps=20000,warmup={warmup},final=10%",
    "wsd": "wsd:peak={peak},steps=20000,warmup={warmup},decay=3975",
    "wsd to a rest": "wsd:peak={peak},steps=20000,warmup={warmup},decay=2417,final=1%",
    "sqrt": "wsd:peak={peak},steps=20000,warmup={warmup},decay=4000,shape=sqrt",
}


@pytest.mark.parametrize("family", ROUNDED)
@settings(max_examples=12, deadline=None)
@given(
    digits=st.integers(4, 17),
    of=st.sampled_from(["digits", "places"]),
    every=st.sampled_from([7, 10, 50, 64, 100, 137]),
    peak=st.sampled_from(["3e-4", "1e-3", "6.1e-4", "0.02"]),
    warmup=st.sampled_from([0, 300, 1000]),
    late=st.integers(0, 1),
)
def test_rounded_rates_are_recognised(family, digits, of, every, peak, warmup, late):
    schedule = parse(ROUNDED[family].format(peak=peak, warmup=warmup))
    step = np.arange(0, T, every)
    rate = rounded(schedule.lr(step), digits, of)
    found = recognise(step + float(late), rate, T)
    assert found is not None
    assert found.kind == schedule.kind
    half = 0.5 * 10.0 ** (np.floor(np.log10(np.where(rate > 0, rate, rate.max()))) - digits + 1)
    half = half if of == "digits" else np.full(len(rate), half.max() if digits < 16 else 0.0)
    at = step if np.abs(found.lr(step) - rate).max() < 0.01 * rate.max() else step + late
    assert (np.abs(found.lr(at[at < T]) - rate[at < T]) <= np.maximum(2e-6 * rate.max(), 1.01 * half)[at < T]).all()


def test_rounded_rates_give_the_schedule_itself():
    for every in (10, 50, 137):
        for text in ROUNDED.values():
            schedule = parse(text.format(peak="6e-4", warmup=700))
            step = np.arange(0, T, every)
            assert recognise(step.astype(float), rounded(schedule.lr(step), 6), T) == schedule


@pytest.mark.parametrize("digits", [4, 5, 6])
@pytest.mark.parametrize("off", [1.1, 2.0, 30.0])
def test_a_rate_further_off_than_its_digits_is_none_of_the_family(digits, off):
    step = np.arange(0, T, 50)
    rate = rounded(parse("cosine:peak=7e-4,steps=20000,warmup=500").lr(step), digits)
    rate[150] = float(f"{rate[150] + off * 10.0 ** (math.floor(math.log10(rate[150])) - digits + 1):.{digits - 1}e}")
    assert recognise(step.astype(float), rate, T) is None


@pytest.mark.parametrize("digits", [4, 6, 8])
@pytest.mark.parametrize("more", ["cosine:peak=7e-4,cycles=2", "wsd:peak=7e-4,shape=cosine", "inverse_sqrt:peak=7e-4"])
def test_other_families_are_none_of_ours_with_few_digits_either(more, digits):
    step = np.arange(0, T, 50)
    rate = rounded(parse(f"{more},steps=20000,warmup=500").lr(step), digits)
    assert recognise(step.astype(float), rate, T) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1e-4, 2e-4, 3e-4, 1e-3]), min_size=3, max_size=30), st.integers(1, 7))
def test_what_is_found_has_the_rates(rates, every):
    step, rate = np.arange(len(rates)) * every + 1.0, np.array(rates)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = recognise(step, rate, int(step[-1]) + 1)
    if found is not None:
        assert found.kind in RECOGNISED
        off = [np.abs(np.asarray(found.lr((step - late).astype(int))) - rate).max() for late in (0, 1)]
        assert min(off) <= 1.01e-6 * max(rates)


@pytest.mark.parametrize(("every", "shift"), [(50, 0), (100, 0), (137, 0), (100, -1)])
def test_from_a_log(tmp_path, every, shift):
    """W&B's history logs the count of updates done, Lightning's the update itself, with the same rates."""
    lr = parse(SPECS[9]).array()
    done = range(every, T + 1, every)
    lines = [f"{k + shift},3.0,{float(lr[k - 1])!r}" for k in done]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["step,loss,lr", *lines, *([f"{T + shift},3.0,"] if T % every else [])]) + "\n")
    run = read_logs([path])[0]
    if run.steps == T:
        assert run.schedule() == parse(SPECS[9])
    assert run.schedule()["warmup"] == 500
