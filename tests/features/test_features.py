"""The sixteen columns: what they say of themselves, checked against what they compute."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gamma

from optlaws.dynamics import Dynamics, States, curve_states, drive, final_states
from optlaws.errors import InputError
from optlaws.features import (
    COORDINATES,
    DEFAULT_BASIS,
    GROUPS,
    WIDTH,
    Basis,
    Column,
    basis_ids,
    columns,
    feature_table,
    get_basis,
    register_basis,
)
from optlaws.runs import RunTable
from optlaws.schedules import Schedule, ScheduleBatch, constant, cosine, cyclic, from_array, inverse_sqrt, linear, wsd

Array = np.ndarray[Any, np.dtype[np.float64]]
BASIS = get_basis()
BATCH = get_basis("sde16-batch")
SPARE = columns.peak_tokens(0.04)
EVERY = (*BASIS.columns, *BATCH.columns[-2:])
STEPS = 2000


def scaled(factor: float) -> list[Schedule]:
    """Return schedules of several families, all rates multiplied by `factor`."""
    peak = 2e-3 * factor
    return [
        constant(peak, STEPS),
        constant(peak, STEPS, warmup=100),
        linear(peak, STEPS, warmup=100),
        cosine(peak, STEPS, peak / 10, warmup=50),
        wsd(peak, STEPS, 0.2, "sqrt", warmup=100),
        inverse_sqrt(peak, STEPS, warmup=100),
        cyclic(peak, STEPS, period=0.25, low=peak / 20),
        from_array(factor * cosine(2e-3, STEPS).array()),
    ]


def table(schedules: list[Schedule], **more: Any) -> RunTable:
    known = {"params": np.geomspace(1e7, 1e9, len(schedules)), "batch_tokens": np.geomspace(1e5, 4e6, len(schedules))}
    return RunTable.build(schedules, **{**known, **more})


@pytest.fixture(name="states")
def _states() -> States:
    return final_states(table(scaled(1.0)), BASIS.dynamics)


@pytest.fixture
def _own_register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the register as it was."""
    monkeypatch.setattr("optlaws.features.basis._REGISTER", {DEFAULT_BASIS: BASIS})


def with_spare(**more: Any) -> Basis:
    """Return another basis, whose last column is the spare one."""
    changes: dict[str, Any] = {"id": "other", "columns": (*BASIS.columns[:-1], SPARE)}
    return replace(BASIS, **{**changes, **more})


# what the columns say of themselves


def test_sixteen_columns_the_constant_first() -> None:
    assert WIDTH == 16
    assert len(BASIS.columns) == len(set(BASIS.names)) == WIDTH
    assert BASIS.names == tuple(column.name for column in BASIS.columns)
    assert BASIS.names[0] == "constant"
    assert BASIS.id == DEFAULT_BASIS
    assert BASIS.note
    assert {column.group for column in BASIS.columns} == set(GROUPS) == {"convergence", "escape", "mixed"}


@pytest.mark.parametrize("column", EVERY, ids=lambda column: column.name)
def test_every_column_says_what_it_is(column: Column) -> None:
    assert column.group in GROUPS
    for text in (column.name, column.formula, column.unit, column.rescaling, column.derivation):
        assert text.strip() == text
        assert text
        assert "\n" not in text
    assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name)
    assert column.prior is None or (np.isfinite(column.prior) and column.prior > 0)


def test_exponents_of_the_formulas_are_constants_of_the_basis() -> None:
    used = {name for c in BASIS.columns for name in re.findall(r"\b(aN|aT|aD|lc|r|gv|nv|t0|pn)\b", c.formula)}
    assert used == set(BASIS.exponents)


def test_priors_are_infinite_where_a_coefficient_is_free() -> None:
    free = replace(BASIS, columns=(replace(BASIS.columns[0], prior=None), *BASIS.columns[1:]))
    assert free.prior.shape == (WIDTH,)
    for column, prior in zip(free.columns, free.prior, strict=True):
        assert prior == (np.inf if column.prior is None else column.prior)
    assert free.prior[0] == np.inf


def test_levels_have_a_centre_and_damage_has_none() -> None:
    centre = dict(zip(BASIS.names, BASIS.centre, strict=True))
    assert {name for name, value in centre.items() if value > 0} == {"constant", "size", "bias"}
    assert min(BASIS.centre) == 0.0
    assert (BASIS.prior[BASIS.centre > 0] < BASIS.centre[BASIS.centre > 0]).all()


# values


def formulas(e: Mapping[str, float]) -> dict[str, Callable[[States], Array]]:
    """Return the columns written down a second time."""

    def bias(s: States) -> Array:
        """Mean of exp(-2 l tau) over the spectrum l^(aT - 1), from the last mode up, by quadrature."""
        out = []
        for tau, n in zip(s.tau / 1000, s.n, strict=True):
            last = e["lc"] * n ** -e["r"]
            value = quad(
                lambda y, tau=tau: np.exp(e["aT"] * y - np.exp(y) * tau), np.log(last), np.log(last + 60 / tau)
            )[0]
            out.append(value / gamma(e["aT"]))
        return np.array(out)

    def variance(mode: int) -> Callable[[States], Array]:
        return lambda s: s.variance[:, mode] / (s.tau / 1000) ** e["gv"]

    sized = int(next(c.formula for c in BASIS.columns if c.name == "variance_size")[2])  # "v_3 tau^-gv n^nv"
    return {
        "constant": lambda s: np.ones(len(s.tau)),
        "size": lambda s: 1 / s.n ** e["aN"],
        "bias": bias,
        "transient": lambda s: 1 / s.t,
        "inverse_norm": lambda s: 1 / s.radius,
        **{f"variance_{mode}": variance(mode) for mode in range(BASIS.dynamics.modes)},
        "variance_size": lambda s: variance(sized)(s) * s.n ** e["nv"],
        "escape_probability": lambda s: 1 - 1 / np.sqrt(1 + s.escape),
        "peak_time": lambda s: s.peak**2 * s.n ** -e["pn"] / (s.t + np.sqrt(s.t * e["t0"])),
        "peak_tokens": lambda s: s.peak**2 / s.d,
        "peak_fourth": lambda s: s.peak**2 * s.peak**2 / np.sqrt(s.t),
        "batch_noise": lambda s: np.sqrt(s.b / s.t),
        "tokens": lambda s: 1 / s.d ** e["aD"],
    }


@pytest.mark.parametrize("basis", [BASIS, BATCH, with_spare()], ids=lambda basis: basis.id)
def test_columns_are_their_formulas(basis: Basis, states: States) -> None:
    values, expected = basis.evaluate(states), formulas(basis.exponents)
    assert values.shape == (len(states), WIDTH)
    assert values.dtype == np.float64
    for name, column in zip(basis.names, values.T, strict=True):
        np.testing.assert_allclose(column, expected[name](states), rtol=1e-6, err_msg=name)


def test_bias_without_a_cut_off_is_a_power_and_with_one_dies_out(states: States) -> None:
    j = BASIS.names.index("bias")
    tau = states.tau / columns.TAU_UNIT
    power = BASIS.with_constants(exponents={"lc": 0.0}).evaluate(states)[:, j]
    np.testing.assert_allclose(power, tau ** -BASIS.exponents["aT"], rtol=1e-12)
    cut = BASIS.with_constants(exponents={"lc": 50.0, "r": 0.0}).evaluate(replace(states, tau=states.tau * 100))[:, j]
    assert np.all(cut < 1e-6 * power)


def test_columns_are_finite_and_not_negative_on_every_kind_of_run() -> None:
    for optimizer in ("adamw", "adam", "sgd"):
        for peak in (1e-8, 1.0, 500.0):
            values = feature_table(table(scaled(peak), optimizer=optimizer))
            assert np.all(np.isfinite(values))
            assert np.all(values >= -1e-12)  # rounding
    assert np.all(np.isfinite(feature_table(table([constant(1e-3, 1), from_array([1e-3, 0.0]), wsd(1e-3, 10**6)]))))


def test_columns_along_a_curve_end_at_those_of_the_run() -> None:
    runs = table(scaled(1.0)[4:5])
    steps = [np.array([1.0, 100.0, 1700.0, STEPS])]
    curve = BASIS.evaluate(curve_states(runs.schedule_tuple(), steps, drive(runs, BASIS.dynamics), BASIS.dynamics))
    assert curve.shape == (4, WIDTH)
    np.testing.assert_allclose(curve[-1], feature_table(runs)[0], rtol=1e-2)
    bias = curve[:, BASIS.names.index("bias")]
    assert np.all(np.diff(bias) < 0)


# change of unit of intrinsic time


def exponent(text: str, names: Mapping[str, float]) -> float:
    """Return the value of `Column.rescaling`, such as "q - gv" or "q + 1 (small C)"."""
    operators: dict[type, Callable[..., float]] = {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.USub: operator.neg,
    }

    def value(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.Name(id=name):
                return names[name]
            case ast.UnaryOp(op=op, operand=operand):
                return operators[type(op)](value(operand))
            case ast.BinOp(left=left, op=op, right=right):
                return operators[type(op)](value(left), value(right))
        raise AssertionError(ast.dump(node))

    return value(ast.parse(re.sub(r"\(.*\)", "", text).strip(), mode="eval").body)


@pytest.mark.parametrize(("optimizer", "s"), [("adam", 2.0), ("adam", 0.3), ("sgd", 2.0)])
def test_rescaling_exponents(optimizer: str, s: float) -> None:
    d = replace(BASIS.dynamics, kappa=1e-300)
    changed = {"slowest": d.slowest / s, "fastest": d.fastest / s, "escape_rate": d.escape_rate / s}
    names = {**BASIS.exponents, "q": 1.0 if optimizer == "sgd" else d.temperature_exponent}
    run = {"optimizer": optimizer, "weight_decay": 0.0}
    for basis in (BASIS, BATCH, with_spare()):
        before = replace(basis, dynamics=d)
        after = before.with_constants(dynamics=changed, exponents={"lc": basis.exponents["lc"] / s})
        for size, rtol, limit in ((1.0, 1e-9, False), (1e-4, 1e-4, True)):  # small rates: escape far below 1
            values = feature_table(table(scaled(size), **run), before)
            rescaled = feature_table(table(scaled(size * s), **run), after)
            for column, x, y in zip(basis.columns, values.T, rescaled.T, strict=True):
                if ("small C" in column.rescaling) == limit:
                    expected = x * s ** exponent(column.rescaling, names)
                    np.testing.assert_allclose(y, expected, rtol=rtol, err_msg=column.name)


# tables


def test_feature_table_is_the_basis_on_the_final_states(states: States) -> None:
    runs = table(scaled(1.0))
    for basis in (None, DEFAULT_BASIS, BASIS):
        np.testing.assert_allclose(feature_table(runs, basis), BASIS.evaluate(states), rtol=1e-12)
    assert feature_table(runs.select([])).shape == (0, WIDTH)


def test_feature_table_without_sizes_and_batches() -> None:
    schedules = scaled(1.0)
    bare = RunTable.build(schedules)
    states = final_states(bare, BASIS.dynamics, use_params=False, use_batch=False)
    values = feature_table(bare)
    np.testing.assert_array_equal(values, BASIS.evaluate(states))
    np.testing.assert_array_equal(values[:, BASIS.names.index("size")], 1.0)
    assert np.all(np.isfinite(values))
    sized = feature_table(RunTable.build(schedules, params=1e7))
    assert np.all(sized[:, BASIS.names.index("size")] > 1.0)
    active = feature_table(RunTable.build(schedules, active_params=1e7))
    np.testing.assert_array_equal(active, sized)


@pytest.mark.parametrize("column", ["params", "batch_tokens"])
def test_feature_table_with_some_sizes_or_batches_only(column: str) -> None:
    runs = RunTable.build(scaled(1.0)[:2], run_id=["a", "b"], **{column: [1e7, None]})
    with pytest.raises(InputError, match=rf"{column} must be a number above 0 .* run 'b' has none \(1 of 2 runs\)"):
        feature_table(runs)


def test_feature_table_of_a_grid() -> None:
    peaks = np.geomspace(1e-4, 1e-2, 5)
    grid = RunTable.build(ScheduleBatch.grid("wsd", peak=peaks, steps=STEPS, decay=0.2), params=1e8)
    singles = RunTable.build([wsd(peak, STEPS, 0.2) for peak in peaks.tolist()], params=1e8)
    np.testing.assert_allclose(feature_table(grid), feature_table(singles), rtol=1e-12)


# coordinates of the residual field


def test_coordinates(states: States) -> None:
    assert set(BASIS.scales) == set(COORDINATES)
    assert len(COORDINATES) == 8
    peak = np.array([s.peak for s in scaled(1.0)])
    found = BASIS.coordinates(states, peak, 1.5)
    assert found.shape == (len(states), len(COORDINATES))
    assert np.all(np.isfinite(found))
    scales = BASIS.scales
    np.testing.assert_allclose(found[:, 0] * scales["size"], np.log(states.n), atol=1e-12)
    np.testing.assert_allclose(found[:, 1] * scales["tokens"], np.log(states.d), rtol=1e-12)
    np.testing.assert_allclose(found[:, 2] * 1.5, np.log(peak), rtol=1e-12)
    np.testing.assert_allclose(found[:, 3] * scales["batch"], np.log(states.b), atol=1e-12)
    np.testing.assert_allclose(
        found[:, 4] * scales["intrinsic_time"], np.log(states.tau / columns.TAU_UNIT), rtol=1e-12
    )
    higher = replace(states, variance=2 * states.variance)
    moved = BASIS.coordinates(higher, peak, 1.5) - found
    assert np.all(moved[:, 5:] > 0)
    np.testing.assert_array_equal(moved[:, :5], 0.0)


def test_coordinates_are_finite_at_the_ends_of_the_range() -> None:
    for optimizer in ("adamw", "sgd"):
        runs = table(
            [constant(1e-12, 1), constant(10.0, 10**6), linear(1e-3, 100), from_array([1e-3, 0.0])], optimizer=optimizer
        )
        states = final_states(runs, BASIS.dynamics)
        assert np.all(np.isfinite(BASIS.coordinates(states, np.asarray(runs.batch().peak), 0.75)))


# the register and the constants


@pytest.mark.usefixtures("_own_register")
def test_register() -> None:
    assert basis_ids() == [DEFAULT_BASIS]
    other = register_basis(with_spare())
    assert register_basis(with_spare(id="abc")).id == "abc"
    assert basis_ids() == [DEFAULT_BASIS, "abc", "other"]
    assert get_basis("other") is other
    assert get_basis(other) is other
    assert get_basis() is get_basis(None) is get_basis(DEFAULT_BASIS) is BASIS
    runs = table(scaled(1.0))
    values = feature_table(runs, "other")
    np.testing.assert_array_equal(values[:, :-1], feature_table(runs)[:, :-1])
    states = final_states(runs, BASIS.dynamics)
    np.testing.assert_allclose(values[:, -1], states.peak**2 / states.d, rtol=1e-12)
    with pytest.raises(InputError, match=r"basis id must be new, got 'other', which is registered; choose another id"):
        register_basis(with_spare())
    with pytest.raises(
        InputError, match=rf"basis must be one of {DEFAULT_BASIS}, other, abc, got 'othr'; did you mean 'other'"
    ):
        get_basis("othr")


def test_unknown_basis() -> None:
    with pytest.raises(InputError, match=rf"basis must be one of .*, got 'sde_16'; did you mean '{DEFAULT_BASIS}'\?"):
        get_basis("sde_16")
    with pytest.raises(InputError, match=r"got 'zzz'"):
        feature_table(table(scaled(1.0)), "zzz")


def test_with_constants_round_trip() -> None:
    d = {"kappa": 2 * BASIS.dynamics.kappa, "slowest": 1e-3}
    e = {"aT": 0.5 * BASIS.exponents["aT"]}
    changed = BASIS.with_constants(dynamics=d, exponents=e)
    assert changed != BASIS
    assert (changed.id, changed.columns) == (BASIS.id, BASIS.columns)
    assert changed.dynamics == replace(BASIS.dynamics, **d)
    assert dict(changed.exponents) == {**BASIS.exponents, **e}
    assert changed.with_constants(BASIS.dynamics.to_dict(), BASIS.exponents) == BASIS
    assert BASIS.with_constants() == BASIS
    assert BASIS.with_constants(changed.dynamics.to_dict(), dict(changed.exponents)) == changed
    runs = table(scaled(1.0))
    assert not np.allclose(feature_table(runs, changed), feature_table(runs))
    np.testing.assert_array_equal(
        feature_table(runs, changed.with_constants(BASIS.dynamics.to_dict(), BASIS.exponents)), feature_table(runs)
    )


def test_unknown_constants_are_named() -> None:
    with pytest.raises(
        InputError, match=rf"basis '{DEFAULT_BASIS}' has no exponent 'aM'; did you mean 'a[NTD]'\?; known: aN, "
    ):
        BASIS.with_constants(exponents={"aM": 0.1})
    with pytest.raises(InputError, match=r"dynamics has no constant 'kappas'; did you mean 'kappa'\?"):
        BASIS.with_constants(dynamics={"kappas": 0.1})
    with pytest.raises(InputError, match=r"kappa must be a finite number above 0, got -1"):
        BASIS.with_constants(dynamics={"kappa": -1.0})


def test_a_basis_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        BASIS.exponents["aT"] = 1.0  # type: ignore[index]
    with pytest.raises(TypeError):
        BASIS.scales["size"] = 1.0  # type: ignore[index]
    with pytest.raises(AttributeError):
        BASIS.id = "other"  # type: ignore[misc]
    given = {"aT": 0.3, **dict(BASIS.exponents)}
    basis = replace(BASIS, exponents=given)
    given["aT"] = 9.0
    assert basis.exponents["aT"] == BASIS.exponents["aT"]


@pytest.mark.parametrize(
    ("chosen", "count"),
    [(BASIS.columns[:-1], 15), ((*BASIS.columns, SPARE), 17), (BASIS.columns[1:] + BASIS.columns[:1], 16), ((), 0)],
    ids=["15", "17", "constant last", "none"],
)
def test_a_basis_of_other_columns_is_refused(chosen: tuple[Column, ...], count: int) -> None:
    with pytest.raises(
        InputError, match=rf"columns must be 16 different ones beginning with 'constant', got {count} \("
    ):
        Basis("bad", chosen)


def test_a_basis_with_a_column_twice_or_of_no_group_is_refused() -> None:
    with pytest.raises(InputError, match=r"columns must be 16 different ones beginning with 'constant', got 16 \("):
        Basis("bad", (*BASIS.columns[:-1], BASIS.columns[1]))
    stray = replace(SPARE, group="other")
    with pytest.raises(
        InputError, match=r"group of column 'peak_tokens' must be one of convergence, escape, mixed, got 'other'"
    ):
        with_spare(columns=(*BASIS.columns[:-1], stray))


def test_a_basis_of_its_own_needs_only_columns() -> None:
    plain = Basis("mine", BASIS.columns)
    assert plain.dynamics == Dynamics()
    assert dict(plain.exponents) == dict(plain.scales) == {}


def test_a_basis_without_constants_says_which_it_needs(states: States) -> None:
    plain = Basis("mine", BASIS.columns)
    with pytest.raises(InputError, match=r"exponents of basis 'mine' must hold 'aN' for column 'size', got none"):
        plain.evaluate(states)
    with pytest.raises(InputError, match=r"scales of basis 'mine' must hold size, .* for a fit, got none for 'size'"):
        plain.peak_scale(np.array([1e-3]), 2.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.3", None, True])
def test_constants_that_are_no_finite_numbers_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match="exponent aN must be a finite number, got"):
        BASIS.with_constants(exponents={"aN": value})
    with pytest.raises(InputError, match="length scale peak must be a finite number, got"):
        replace(BASIS, scales={**BASIS.scales, "peak": value})


@pytest.mark.parametrize("modes", [3, 8])
def test_another_number_of_modes_is_another_basis(modes: int) -> None:
    with pytest.raises(InputError, match=f"modes must be 6 for basis 'sde16', got {modes}; register another basis"):
        BASIS.with_constants({"modes": modes})


def test_the_scale_of_the_peak_rate_grows_with_the_gaps_between_rates() -> None:
    usual = BASIS.scales["peak"]
    assert BASIS.peak_scale(np.array([1e-3]), 2.2) == usual
    assert BASIS.peak_scale(np.array([1e-3, 1.01e-3, 1e-3]), 2.2) == usual
    assert BASIS.peak_scale(np.array([1e-3, 4e-3, 16e-3, 4e-3]), 2.0) == pytest.approx(2.0 * np.log(4.0), abs=1e-3)
