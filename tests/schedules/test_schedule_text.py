from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from optlaws.errors import ScheduleError
from optlaws.schedules import DECAYS, FAMILIES, Schedule, ScheduleBatch, chain, from_array, parse, piecewise, wsd
from optlaws.schedules.families import describe

RATES = st.floats(1e-9, 1e3, allow_nan=False)
SHARES = st.floats(0.0, 1.0)


def draw(data: st.DataObject, kind: str) -> Schedule:
    """Draw one schedule of a family; lengths are picked so that the phases fit."""
    steps = data.draw(st.integers(8, 10**7), "steps")
    peak = data.draw(RATES, "peak")
    below = st.floats(1e-3, 1.0).map(lambda x: x * peak)
    warmup = data.draw(st.integers(0, steps // 4), "warmup")
    keys: dict[str, Any] = {"peak": peak, "steps": steps}
    names = FAMILIES[kind].by_name
    if "warmup" in names:
        keys |= {"warmup": warmup, "warmup_start": data.draw(below)}
        keys["warmup_shape"] = data.draw(st.sampled_from(["linear", "cosine"]))
    if "final" in names and kind != "inverse_sqrt":
        keys["final"] = data.draw(below)
    if "decay" in names:
        keys |= {
            "decay": data.draw(st.integers(0, steps // 2).filter(lambda n: n != 1)),
            "shape": data.draw(st.sampled_from(sorted(DECAYS))),
        }
        if DECAYS[keys["shape"]].free_power:
            keys["power"] = data.draw(st.floats(0.1, 5.0))
        if kind == "inverse_sqrt":
            keys |= {"timescale": data.draw(st.integers(1, steps)), "final": peak * 1e-6}
            del keys["decay"], keys["final"], keys["shape"]
            keys.pop("power", None)
    for name, strategy in {
        "every": st.integers(steps // 50 + 1, steps),
        "period": st.integers(steps // 50 + 2, steps + 2),
        "switch": st.integers(warmup, steps - 1),
        "second": RATES,
        "low": below,
        "shrink": SHARES,
        "factor": SHARES,
        "mult": st.floats(1.0, 3.0),
        "pct": st.floats(0.2, 0.8),
        "div": st.floats(1.0, 100.0),
        "anneal": st.sampled_from(["cosine", "linear"]),
    }.items():
        if name in names:
            keys[name] = data.draw(strategy, name)
    if kind == "cosine" and steps > 100:
        keys["cycles"] = data.draw(st.integers(1, 9))
    if kind == "polynomial":
        keys["power"] = data.draw(st.floats(0.1, 5.0))
    if kind == "multistep":
        stones = sorted(data.draw(st.lists(st.integers(warmup, steps - 1), min_size=1, max_size=4)))
        keys |= {"milestones": stones, "factors": [data.draw(SHARES) for _ in stones]}
    if kind == "piecewise":
        more = sorted(data.draw(st.lists(st.integers(1, steps), max_size=5, unique=True)))
        keys = {"steps": steps, "points": [(k, data.draw(RATES)) for k in (0, *more)]}
    if kind == "array":
        keys = {"values": data.draw(st.lists(RATES, min_size=1, max_size=20))}
    return Schedule(kind, **keys)


def complaint(spec: Any) -> str | None:
    """Return the error's text, None if the schedule is fine; anything but a ScheduleError gets through."""
    try:
        parse(spec)
    except ScheduleError as error:
        return str(error)
    return None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_texts_round_trip(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(FAMILIES)), min_size=1, max_size=3))
    parts = [draw(data, kind) for kind in kinds]
    s = parts[0] if len(parts) == 1 else chain(*parts)
    for twin in (
        parse(s.short()),
        parse(s.to_json()),
        parse(s.to_dict()),
        pickle.loads(pickle.dumps(s)),
        copy.deepcopy(s),
    ):
        assert twin == s
        assert hash(twin) == hash(s)
        assert twin.phases == s.phases
    ends = np.unique([(a, b - 1) for a, b in zip(s.breakpoints, s.breakpoints[1:], strict=False)])
    rates = s.lr(ends)
    assert np.all(np.isfinite(rates))
    assert np.all(rates >= 0)
    assert rates.max() <= s.peak


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=60)
    | st.from_regex(r"(wsd|cosine|step):(peak|steps|decay)=[0-9e.\-]{1,6}(,[a-z]{3,6}=[0-9e.]{0,5}){0,4}")
)
def test_any_text_is_a_schedule_or_a_schedule_error(text: str) -> None:
    message = complaint(text)
    assert message is None or "must be" in message
    assert "\n" not in (message or "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=2),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_json_is_a_schedule_or_a_schedule_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([*FAMILIES, "chain"]))
    if kind == "chain":
        spec: dict[str, Any] = {"parts": data.draw(JSON)}
    else:
        spec = json.loads(draw(data, kind).to_json())
        spec[data.draw(st.sampled_from(sorted(spec)))] = data.draw(JSON)
    spec.setdefault("kind", kind)
    message = complaint(spec)
    assert message is None or "must be" in message


BAD = {
    "cosin:peak=1,steps=10": "did you mean 'cosine'",
    "wsd:peek=1,steps=10": "did you mean 'peak'",
    "wsd:peak=1": "steps of wsd must be given",
    "wsd": "kind:key=value",
    "": "kind:key=value",
    "wsd:peak": "key=value",
    "wsd:peak=1,peak=2,steps=10": "given once",
    "wsd:peak=-1,steps=10": "rate above 0.* got -1.0",
    "wsd:peak=nan,steps=10": "rate above 0.* got nan",
    "wsd:peak=inf,steps=10": "rate above 0.* got inf",
    "wsd:peak=fast,steps=10": "peak must be a number, got 'fast'",
    "wsd:peak=1,steps=0": "steps must be a whole number",
    "wsd:peak=1,steps=10.5": "steps must be a whole number",
    "wsd:peak=1,steps=10,decay=1.5": "decay must be a whole number",
    "wsd:peak=1,steps=10,decay=-0.2": "decay must be a whole number",
    "wsd:peak=1,steps=100,warmup=90,decay=0.2": "decay must be at most steps minus warmup, got 20",
    "wsd:peak=1,steps=100,warmup=1,decay=1": "decay must be at most steps minus warmup, got 100",
    "wsd:peak=1,steps=100,final=2": "final must be a rate of at most peak",
    "wsd:peak=1,steps=100,warmup=2,warmup_start=2": "warmup_start must be at most peak",
    "wsd:peak=1,steps=100,shape=linea": "did you mean 'linear'",
    "wsd:peak=1,steps=100,shape=exponential": "final must be a rate above 0",
    "wsd:peak=1,steps=100,power=3": "power must be left out for shape=linear",
    "wsd:peak=1,steps=100,decay=linear": "decay must be a number",
    "exponential:peak=1,steps=10,final=0": "final must be a finite rate above 0",
    "step:peak=1,steps=100000,every=1": "number of phases",
    "multistep:peak=1,steps=100,milestones=0.8": "factors must be a list of 1",
    "multistep:peak=1,steps=100,milestones=90/80,factors=0.3/0.1": "milestones must be steps in rising order",
    "two_stage:peak=1,steps=100,switch=100,second=0.1": "switch must be a step",
    "two_stage:peak=1,steps=100,warmup=50,switch=20,second=0.1": "switch must be a step",
    "cosine:peak=1,steps=4,cycles=9": "cycles must be few enough",
    "cosine:peak=1,steps=100,cycles=1.5": "cycles must be one whole number",
    "one_cycle:peak=1,steps=100,pct=0.005": "pct must be between",
    "piecewise:steps=10,points=1:1/5:2": "first step is 0",
    "piecewise:steps=10,points=0:1/5:2/3:1": "rising steps",
    "piecewise:steps=10,points=0:1/5:2/5:1/5:3": "rising steps",
    "piecewise:steps=10,points=0:0/10:0": "rate above 0 somewhere",
    "piecewise:steps=10,points=0:1/20:1/30:1": "pairs inside the run",
    "piecewise:steps=10,points=0/1": "pairs of a step and a rate",
    "piecewise:points=0:1": "steps of piecewise must be given",
    "piecewise:points=0:1/10:1/5:1": "rising steps",
    "wsd:peak=1,steps=20x": "steps must be a number, got '20x'; write it like 300, 1e5 or 20K",
    "wsd:peak=1,steps=20%": "steps must be a number, got '20%'",
    "wsd:peak=1,steps=0.0005K": "steps must be a whole number of steps, got '0.0005K'",
    "wsd:peak=1,steps=2T": "steps must be a whole number of steps, 1 to 1,000,000,000,000",
    "wsd:peak=1,steps=1e300T": "steps must be a number",
    "wsd:peak=1k,steps=10": "peak must be a number, got '1k'",
    "wsd:peak=1,steps=10,warmup=101%": "warmup must be a percentage from 0 to 100 %, got '101%'; write it like 5%",
    "wsd:peak=1,steps=10,warmup=-1%": "warmup must be a percentage",
    "wsd:peak=1,steps=10,decay=0.0005K": "decay must be a whole number of steps, got '0.0005K'",
    "two_stage:peak=1,steps=100,switch=100%,second=0.1": "switch must be a step",
    '{"kind": "wsd", "peak_lr": 1, "total_steps": 10, "decay_steps": "20%"}': "decay_steps must be a number, got '20%'",
    '{"kind": "wsd", "peak_lr": 1, "total_steps": 10, "decay": "120%"}': "decay must be a percentage",
    "array:values=1/-1": "finite rates",
    "array:values=0/0": "one above 0",
    "array:values=a/b": "flat list",
    "chain:parts=1": "list of at least one schedule",
    "{": "valid JSON",
    '{"kind": "wsd"': "valid JSON",
    '{"peak_lr": 1}': "kind must be given",
    '{"kind": "wsd", "peak_lr": 1, "total_steps": 10, "decay_steps": 0.2}': "write decay instead of decay_steps",
    '{"kind": "wsd", "peak_lr": 1, "total_steps": 10, "decay": "liner"}': "did you mean 'linear'",
    '{"kind": "wsd", "peak_lr": true, "total_steps": 10}': "peak must be a number, got True",
    '{"kind": "wsd", "peak_lr": 1, "peak": 1, "total_steps": 10}': "given once",
    '{"kind": "wsd", "peak_lr": 1, "total_step": 10}': "did you mean 'total_steps'",
    '{"kind": "array", "total_steps": 3, "values": [1, 2]}': "total_steps must be the number of values",
    '{"kind": "array", "values": [[1, 2]]}': "flat list",
    '{"kind": "chain", "parts": []}': "at least one schedule",
    "[1, 2]": "kind must be one of",
    '{"kind": "cosine", "peak_lr": 1, "peak_lr": 2, "total_steps": 9}': "key 'peak_lr' occurs twice",
    "cosine:peak=1,total_steps=10": "did you mean 'steps'",
    "cosine:peak_lr=1,steps=10": "did you mean 'peak'",
}


@pytest.mark.parametrize(("text", "message"), BAD.items())
def test_bad_schedules_are_named_errors(text: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message) as caught:
        parse(text)
    assert "got" in str(caught.value)


def test_other_bad_input() -> None:
    for bad in (None, 3, ["cosine"]):
        with pytest.raises(ScheduleError, match="short form, JSON text or a dict"):
            parse(bad)  # type: ignore[arg-type]
    for steps in ([], [5, 6]):
        with pytest.raises(ScheduleError, match="steps of a schedule must be one number"):
            parse({"kind": "piecewise", "points": [[0, 1.0], [3, 0.5]], "total_steps": steps})
    with pytest.raises(ScheduleError, match=r"use ScheduleBatch\.grid"):
        wsd(np.array([1.0, 2.0]), 100)  # type: ignore[arg-type]
    with pytest.raises(ScheduleError, match="valid JSON"):
        parse('{"a":' * 100_000)
    with pytest.raises(ScheduleError, match="did you mean 'peak'"):
        wsd(1.0, 10)["peek"]
    with pytest.raises(ScheduleError, match="write JSON"):
        from_array(np.ones(65)).short()
    with pytest.raises(AttributeError, match="frozen"):
        wsd(1.0, 10).kind = "cosine"
    with pytest.raises(AttributeError, match="frozen"):
        del wsd(1.0, 10).kind
    with pytest.raises(ScheduleError, match="kind must be one of"):
        describe("cosin")


def test_forms() -> None:
    assert wsd(1e-3, 25000, warmup=300).short() == "wsd:peak=0.001,steps=25000,warmup=300,decay=0.2"
    assert (
        str(parse("inverse_sqrt:peak=1e-3,steps=1e5,warmup=0.01")) == "inverse_sqrt:peak=0.001,steps=100000,warmup=1000"
    )
    one = wsd(1e-3, 30, decay=0.0333)
    assert one["decay"] == 1
    assert parse(one.short()) == one
    assert parse(one.to_json()) == one
    yaml_like = {"kind": "wsd", "peak": "1e-3", "steps": 1000, "decay": 0.1, "shape": "1-sqrt"}
    assert parse(yaml_like) == wsd(1e-3, 1000, 0.1, "sqrt")
    two = parse("constant:peak=1e-3,steps=10 then cosine:peak=1e-3,steps=5")
    assert [p.kind for p in two["parts"]] == ["constant", "cosine"]
    assert chain(two, two)["parts"] == two["parts"] * 2
    assert "100 steps" in str(from_array(np.ones(100)))
    assert parse(two) is two
    assert "peak (peak_lr) required" in describe("wsd")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("cosine:peak=1e-3,steps=20k", "cosine:peak=0.001,steps=20000"),
        ("cosine:peak=1e-3,steps=1M,warmup=2K", "cosine:peak=0.001,steps=1000000,warmup=2000"),
        ("wsd:peak=1,steps=64Ki,decay=1Ki", "wsd:peak=1.0,steps=65536,decay=1024"),
        ("wsd:peak=1,steps=20000,warmup=1%,decay=20%", "wsd:peak=1.0,steps=20000,warmup=200,decay=0.2"),
        ("wsd:peak=1,steps=1000,warmup=0%,decay=100 %", "wsd:peak=1.0,steps=1000,decay=1.0"),
        ("constant:peak=1,steps=1000,warmup=100%", "constant:peak=1.0,steps=1000,warmup=1000"),
        ("constant:peak=1,steps=1000,warmup=0.1%", "constant:peak=1.0,steps=1000,warmup=1"),
        ("multistep:peak=1,steps=1k,milestones=80%/0.9", "multistep:peak=1.0,steps=1000"),
        ("piecewise:steps=1K,points=0:0/0.5K:1", "piecewise:steps=1000,points=0:0.0/500:1.0"),
        ("piecewise:points=0:0/300:0.001/25000:0", "piecewise:steps=25000,points=0:0.0/300:0.001/25000:0.0"),
        ("piecewise:points=0:1/7:1/7:0.5", "piecewise:steps=7,points=0:1.0/7:1.0/7:0.5"),
    ],
)
def test_counts_and_percentages(text: str, plain: str) -> None:
    s = parse(text)
    assert s == parse(plain)
    assert s.short() == plain
    assert parse(s.to_json()) == s


@pytest.mark.parametrize("steps", [50, 1000, 12345])
def test_a_percentage_is_the_fraction_of_the_same_digits(steps: int) -> None:
    spec = f"constant:peak=1,steps={steps},warmup="
    for percent in range(1, 100):
        assert parse(f"{spec}{percent}%") == parse(f"{spec}0.{percent:02d}")
        assert parse(f"{spec}0.{percent:02d}%") == parse(f"{spec}0.00{percent:02d}")


def test_counts_in_json_and_grids() -> None:
    same = wsd(1.0, 20000, 0.2, warmup=1000)
    assert parse({"kind": "wsd", "peak": 1, "steps": "20k", "warmup": "5%", "decay": "20%"}) == same
    assert parse({"kind": "wsd", "peak_lr": 1, "total_steps": "20K", "warmup_steps": "1K", "decay_steps": "4k"}) == same
    assert parse({"kind": "wsd", "peak": 1, "steps": "20k", "warmup": "1K", "decay": "1-sqrt"})["shape"] == "sqrt"
    grid = ScheduleBatch.grid("wsd", peak=1.0, steps=np.array([20000, 1000]), warmup="5%", decay="20%")
    assert grid.warmup_steps.tolist() == [1000, 50]


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ("cosine:peak=3e-3,steps=1000,final={}", "final"),
        ("wsd:final={},peak=3e-3,steps=1000", "final"),
        ("inverse_sqrt:peak=3e-3,steps=1000,warmup=100,decay=0.2,final={}", "final"),
        ("two_stage:peak=3e-3,steps=1000,switch=0.5,second={}", "second"),
        ("cyclic:peak=3e-3,steps=1000,period=100,low={}", "low"),
        ("constant:peak=3e-3,steps=1000,warmup=100,warmup_start={}", "warmup_start"),
    ],
)
def test_rates_may_be_shares_of_the_peak_and_are_kept_as_rates(spec: str, key: str) -> None:
    for text in ("10%", "10 %", "0.1*peak", " .1 * peak ", "1e-1*PEAK"):
        schedule = parse(spec.format(text))
        rate = 3e-4 if "%" in text else 0.1 * 3e-3  # which is not 3e-4 to the last digit
        assert schedule[key] == rate
        assert schedule == parse(spec.format(repr(rate))) == parse(str(schedule)) == parse(schedule.to_json())
        assert f"{key}={rate!r}" in schedule.short()


def test_shares_of_the_peak_above_it_in_grids_and_in_json() -> None:
    assert parse("two_stage:peak=1e-3,steps=10,switch=5,second=1.5*peak")["second"] == 1.5 * 1e-3
    assert parse({"kind": "linear", "peak_lr": 2e-3, "total_steps": 10, "final_lr": "50%"})["final"] == 1e-3
    peaks = np.array([1e-3, 4e-3])
    grid = ScheduleBatch.grid("linear", peak=peaks, steps=11, final="50%")
    assert [float(grid[[row]].groups[0].phases(0)[-1].stop) for row in (0, 1)] == (0.5 * peaks).tolist()
    joint = parse("constant:peak=1e-3,steps=5 then linear:peak=4e-3,steps=5,final=0.5*peak")
    assert joint["parts"][1]["final"] == 2e-3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cosine:peak=1e-3,steps=10,final=150%", "final must be a number, or a share of the peak from 0 to 100 %, got"),
        ("cosine:peak=1e-3,steps=10,final=peak*2", "'peak.2'; write final=10% or final=0.1.peak$"),
        ("cosine:peak=1e-3,steps=10,final=1.5*peak", "final must be a rate of at most peak, got 0.0015"),
        ("cosine:peak=1e-3,steps=10,final=-0.1*peak", "final must be a finite rate of at least 0"),
        ("cosine:peak=1e-3,steps=10,final=0.1", "final must be .* got 0.1; final is an absolute rate; write final=10%"),
        ("exponential:peak=1e-3,steps=10,final=0%", "final must be a finite rate above 0"),
        ("cosine:peak=10%,steps=10", "peak must be an absolute learning rate, got '10%'; write the rate itself"),
        ("piecewise:points=0:10%/9:0", "rate of points must be an absolute learning rate, got '10%'"),
    ],
)
def test_shares_of_the_peak_that_are_none(spec: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        parse(spec)


def test_points_end_the_run_they_are_given_for() -> None:
    points = [(0, 0.0), (300, 1e-3), (25000, 0.0)]
    assert piecewise(points) == piecewise(points, 25000)
    assert parse({"kind": "piecewise", "points": points}).total_steps == 25000
    assert piecewise(points, 30000).total_steps == 30000
    assert chain(piecewise(points[:2]), wsd(1e-3, 10)).total_steps == 310


def test_equality_and_hash_by_value() -> None:
    for name, s in examples(100).items():
        twin = examples(100)[name]
        assert s == twin, name
        assert hash(s) == hash(twin), name
    assert len(set(examples(100).values())) == len(examples(100))
    assert wsd(1.0, 10) != "wsd"


def test_a_chain_of_one_part_is_that_part() -> None:
    part = wsd(1e-3, 100, warmup=5)
    assert chain(part) == part == parse({"kind": "chain", "parts": [part.to_dict()]}) == parse(chain(part).short())
    assert hash(chain(part)) == hash(part)
    assert chain(chain(part), part) == chain(part, part)


def test_a_long_array_is_named_by_its_length_and_peak():
    rates = np.linspace(0, 0.0009999906239066651, 200_000)
    assert str(from_array(rates)) == "array of 200000 steps, peak 0.001"
    assert str(from_array(1.2345678 * rates)) == "array of 200000 steps, peak 0.001235"
