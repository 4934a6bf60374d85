"""The changes that make a run safe do so when the changed run is built; drivers; the map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_risk import grid

from optlaws import load_law
from optlaws.errors import InputError
from optlaws.risk import DRIVERS, drivers, fit_risk, risk_map, safe_changes
from optlaws.risk.changes import pieces
from optlaws.runs import RunTable
from optlaws.schedules import parse

ACCEPTED = 0.05


@pytest.fixture(scope="module")
def model():
    return fit_risk(grid(sources=("a", "b"), offsets=(0.0, 0.0), seed=2)).model("a")


def table(specs, **columns):
    given = {"params": 3e8, "batch_tokens": 524288.0, "beta1": 0.9, "weight_decay": 0.1, **columns}
    return RunTable.build([parse(spec) for spec in specs], **given)


RISKY = (
    "cosine:peak=3e-2,steps=20000,warmup=800",
    "wsd:peak=2e-2,steps=30000,warmup=500,decay=0.2",
    "constant:peak=8e-3,steps=5000",
)


def changed(spec, change, steps, tokens):
    """The changed run, written anew."""
    kind, _, rest = spec.partition(":")
    items = dict(item.split("=") for item in rest.split(","))
    columns = {}
    if change.lever == "peak_lr":
        items["peak"] = repr(change.after)
    elif change.lever == "warmup_steps":
        items["warmup"] = str(int(change.after))
    elif change.lever == "batch_tokens":
        columns["batch_tokens"] = change.after
        items["steps"] = str(round(tokens / change.after))
    else:
        columns["beta1"] = change.after
    return table([f"{kind}:" + ",".join(f"{k}={v}" for k, v in items.items())], **columns)


@pytest.mark.parametrize("beta1", [0.9, 0.97])
def test_the_changed_runs_are_safe(model, beta1):
    runs = table(RISKY, beta1=beta1)
    found = safe_changes(runs, model, ACCEPTED)
    levers = {change.lever for changes in found for change in changes}
    assert {"peak_lr", "warmup_steps"} <= levers
    for spec, run, changes in zip(RISKY, range(len(RISKY)), found, strict=True):
        assert changes
        assert [c.size for c in changes] == sorted(c.size for c in changes)
        for change in changes:
            again = changed(spec, change, runs.steps[run], runs.tokens[run])
            if change.lever != "beta1":
                again = replace(again, beta1=np.array([beta1]))
            # the shape of what follows the warm-up and whole steps leave a little
            assert model.probability(again)[0] == pytest.approx(ACCEPTED, abs=0.015), change


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10])
def test_a_short_warm_up_is_lengthened_as_a_long_one(model, steps):
    """What half a step is of so few is no part of the longer warm-up."""
    spec = f"cosine:peak=8e-3,steps=20000,warmup={steps}"
    run = table([spec])
    change = next(c for c in safe_changes(run, model, ACCEPTED)[0] if c.lever == "warmup_steps")
    again = changed(spec, change, 20000, run.tokens[0])
    assert model.probability(again)[0] == pytest.approx(ACCEPTED, abs=0.03)


def test_a_batch_whose_run_is_shorter_than_its_warm_up_is_no_way_out(model):
    run = table(["cosine:peak=1.2e-2,steps=3000,warmup=1500"])
    chart = risk_map(run, model, "batch_tokens", points=9)
    fits = chart.other <= 2.001 * 524288.0
    assert (np.isnan(chart.probability).all(axis=1) == ~fits).all()
    assert np.isfinite(chart.probability[fits]).all()
    for change in safe_changes(run, model, ACCEPTED)[0]:
        assert change.lever != "batch_tokens" or change.after <= 2.001 * 524288.0


def test_plain_sgd_has_no_driver_and_no_map(model):
    runs = table(["cosine:peak=8e-3,steps=20000,warmup=10"] * 2, optimizer=["sgd", "adamw"])
    names, shares = drivers(runs, model)
    assert names == ["", "warmup_steps"]
    assert np.isnan(shares[0]).all()
    assert np.isfinite(shares[1]).all()
    assert np.isnan(risk_map(runs.select([0]), model, "warmup_steps", points=5).probability).all()


def test_they_are_the_smallest(model):
    runs = table(RISKY[:1])
    change = next(c for c in safe_changes(runs, model, ACCEPTED)[0] if c.lever == "peak_lr")
    almost = changed(RISKY[0], replace(change, after=change.after * 1.03), 20000, runs.tokens[0])
    assert model.probability(almost)[0] > ACCEPTED


def test_safe_runs_need_none(model):
    assert safe_changes(table(["cosine:peak=1e-3,steps=20000,warmup=800"]), model, ACCEPTED) == [[]]


def test_a_lever_that_does_not_reach(model):
    """A warm-up is not made longer than half the run."""
    found = safe_changes(table(["cosine:peak=3e-2,steps=400,warmup=390"]), model, ACCEPTED)[0]
    assert "warmup_steps" not in {change.lever for change in found}


def test_many_at_once_are_each_alone(model):
    runs = table(RISKY)
    together = safe_changes(runs, model, ACCEPTED)
    for i in range(len(RISKY)):
        alone = safe_changes(runs.select([i]), model, ACCEPTED)[0]
        assert [(c.lever, c.before) for c in alone] == [(c.lever, c.before) for c in together[i]]
        assert [c.after for c in alone] == pytest.approx([c.after for c in together[i]], rel=1e-6)


@pytest.mark.parametrize(
    ("spec", "columns", "cause"),
    [
        ("cosine:peak=8e-2,steps=30000,warmup=1000", {}, "peak_lr"),
        ("cosine:peak=8e-3,steps=30000,warmup=20", {}, "warmup_steps"),
        ("cosine:peak=3e-3,steps=30000,warmup=1", {}, "warmup_steps"),
        ("cosine:peak=3e-3,steps=30000", {}, "warmup_steps"),
        ("cosine:peak=8e-3,steps=30000,warmup=1000", {"beta1": 0.998}, "beta1"),
        ("cosine:peak=8e-3,steps=200000,warmup=1000", {"batch_tokens": 2000.0}, "batch_tokens"),
    ],
)
def test_drivers(model, spec, columns, cause):
    names, shares = drivers(table([spec], **columns), model)
    assert names == [cause]
    assert shares.shape == (1, len(DRIVERS))


def test_a_driver_is_what_the_criterion_gains(model):
    """Shares of quantities that enter ln criterion apart from u add up to what changing them all gives."""
    run = table(["cosine:peak=8e-3,steps=20000,warmup=1000"], beta1=0.95)
    usual = replace(run, beta1=np.array([0.9]))
    gap = np.log(model.predict(run).criterion / model.predict(usual).criterion)[0]
    assert drivers(run, model)[1][0, list(DRIVERS).index("beta1")] == pytest.approx(gap)


@pytest.mark.parametrize("width", ["400", "1600", "6400"])
def test_a_wide_network_is_a_driver_and_a_narrow_one_is_none(model, width):
    """What the size with its width adds to ln criterion differs by all that the width adds, and in its sense."""
    run = table(["cosine:peak=8e-3,steps=20000,warmup=1000"])
    own = replace(run, extra={"width": (width,)})
    gap = np.log(model.predict(own).criterion / model.predict(run).criterion)[0]
    assert gap * np.log(float(width) / 1150.0) > 0  # about 1150 is usual for 300M
    shares = [drivers(one, model)[1][0] for one in (own, run)]
    place = list(DRIVERS).index("params")
    assert shares[0][place] - shares[1][place] == pytest.approx(gap)
    np.testing.assert_allclose(np.delete(shares[0] - shares[1], place), 0.0, atol=1e-12)


@pytest.mark.parametrize("over", ["warmup_steps", "batch_tokens"])
def test_the_map_agrees_with_runs(model, over):
    run = table(["wsd:peak=1.2e-2,steps=20000,warmup=800,decay=0.2"])
    chart = risk_map(run, model, over, points=9, reach=4.0)
    assert chart.probability.shape == (9, 9)
    assert chart.probability[4, 4] == pytest.approx(model.probability(run)[0], abs=1e-9)
    for row, column in ((1, 6), (7, 2), (0, 0)):
        peak, other = float(chart.peak[column]), float(chart.other[row])
        if over == "warmup_steps":
            spec, batch = f"wsd:peak={peak!r},steps=20000,warmup={round(other)},decay=0.2", 524288.0
        else:
            steps = round(20000 * 524288 / other)
            spec, batch = f"wsd:peak={peak!r},steps={steps},warmup=800,decay=0.2", other
        assert chart.probability[row, column] == pytest.approx(
            model.probability(table([spec], batch_tokens=batch))[0], abs=0.02
        )


def test_the_map_of_a_run_without_a_warm_up(model):
    chart = risk_map(table(["constant:peak=8e-3,steps=5000"]), model, "warmup_steps", points=11)
    assert chart.other[0] == 1.0
    assert chart.other[-1] == 2500.0
    middle = chart.probability[:, 5]
    assert (np.diff(middle) <= 1e-9).all()
    direct = table([f"constant:peak=8e-3,steps=5000,warmup={round(chart.other[8])}"])
    assert middle[8] == pytest.approx(model.probability(direct)[0], abs=0.02)


def test_pieces_hold_every_run_once(model):
    runs = table(RISKY * 3)
    index = np.concatenate([piece.index for piece in pieces(runs, model)])
    assert sorted(index.tolist()) == list(range(len(runs)))


@pytest.mark.parametrize("columns", [{"beta1": None}, {"beta1": None, "batch_tokens": None, "params": None}])
def test_empty_cells_are_filled_as_the_model_fills_them(model, columns):
    runs, defaults = table(RISKY, **columns), {"params": 3e8, "batch_tokens": 524288.0}
    whole = table(RISKY)
    assert safe_changes(runs, model, ACCEPTED, defaults) == safe_changes(whole, model, ACCEPTED)
    assert all(safe_changes(runs, model, ACCEPTED, defaults))
    names, shares = drivers(runs, model, defaults)
    assert names == drivers(whole, model)[0]
    np.testing.assert_array_equal(shares, drivers(whole, model)[1])
    for over in ("warmup_steps", "batch_tokens"):
        charts = [risk_map(one.select([0]), model, over, 5, defaults=defaults).probability for one in (runs, whole)]
        np.testing.assert_array_equal(*charts)
        assert np.isfinite(charts[0][2, 2])


def test_without_defaults_the_usual_sizes_of_the_model_stand_in(model):
    runs = table(RISKY, params=None)
    there = table(RISKY, params=model.typical["params"])
    assert safe_changes(runs, model, ACCEPTED) == safe_changes(there, model, ACCEPTED)


@pytest.mark.parametrize(
    "ask", [safe_changes, drivers, lambda *given, **named: risk_map(*given, "batch_tokens", **named)]
)
def test_a_default_that_is_no_number(model, ask):
    run = table(RISKY[:1], params=None)
    for bad in (None, float("nan"), "85M"):
        with pytest.raises(
            InputError, match="params of run '1' must be known for its divergence risk, got an empty cell"
        ):
            ask(run, model, defaults={"params": bad})
    with pytest.raises(InputError, match="runs must be a RunTable"):
        ask(RISKY, model)


def test_the_law_says_the_same_as_its_model_with_its_defaults():
    law = load_law("llama-slimpajama")
    runs = RunTable.build("cosine:peak=2.2e-3,steps=50000,warmup=300")
    assert law.risk.predict(runs, law.defaults).probability.tolist() == law.risks(runs).tolist()
