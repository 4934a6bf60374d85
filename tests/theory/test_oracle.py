"""The code against the derivations: every column on every kind of phase.

The code solves the equations on cells of a schedule. Where cells are exact (constant felt rate) it is compared with the
continuous closed forms to 1e-10. Elsewhere (a) it is compared to 1e-10 with the exact solution of the same cells in
40-digit arithmetic, and (b) its distance from the continuous equations is measured: size, order, and limit.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from theory.oracle import cells, columns, phases, quadrature
from theory.oracle.draws import WARMED, Draw, balanced_draw, draw, long_draw, to_zero

from optlaws.dynamics import final_states, solve
from optlaws.features import DEFAULT_BASIS, Column, basis_ids, feature_table, get_basis
from optlaws.schedules import constant, cosine, two_stage, wsd

COLUMNS = columns.registered()
SEEDS = (0, 1, 2)  # one of each optimizer
INTEGRATED = [name for name in COLUMNS if columns.formula(name, COLUMNS[name].formula).free_symbols & {
    columns.tau, *(columns.STATE[k] for k in ("radius", "escape")), *(columns.mode(i) for i in range(20))
}]  # fmt: skip


def basis_of(name: str) -> str:
    """Return the first registered basis that has the column."""
    return next(basis for basis in basis_ids() if name in get_basis(basis).names)


def drawn_column(case: Draw, name: str) -> Column:
    return case.basis.columns[case.basis.names.index(name)]


def from_code(case: Draw, name: str) -> float:
    return float(feature_table(case.table, case.basis)[0, case.basis.names.index(name)])


@cache
def case_of(kind: str, basis: str, seed: int) -> Draw:
    return draw(kind, basis, seed)


@cache
def cell_states(kind: str, basis: str, seed: int, as_coded: bool = True) -> dict[str, Any]:
    case = case_of(kind, basis, seed)
    return cells.solution(
        case.cells(), case.n, case.b, case.weight_decay, case.plain, case.basis.dynamics, as_coded=as_coded
    )


def test_every_registered_column_has_a_closed_form() -> None:
    assert set(get_basis(DEFAULT_BASIS).names) <= set(COLUMNS)
    for name, column in COLUMNS.items():
        assert columns.formula(name, column.formula) is not None
    with pytest.raises(KeyError, match="no closed form for the column 'other'; add it"):
        columns.formula("other", "x")


@pytest.mark.parametrize("kind", WARMED)
@pytest.mark.parametrize("name", COLUMNS)
def test_column_is_the_oracle_on_the_same_cells(name: str, kind: str) -> None:
    basis = basis_of(name)
    for seed in SEEDS:
        case = case_of(kind, basis, seed)
        with mp.workdps(cells.DIGITS):
            expected = columns.value(drawn_column(case, name), cell_states(kind, basis, seed), case.basis.exponents)
        assert from_code(case, name) == pytest.approx(float(expected), rel=1e-10), (seed, case.optimizer)


@pytest.mark.parametrize("name", COLUMNS)
def test_column_at_constant_felt_rate_is_its_closed_form(name: str) -> None:
    for seed in SEEDS:
        case = balanced_draw(basis_of(name), seed)
        c = case.basis.dynamics
        with mp.workdps(30):
            b, size = mp.mpf(case.b), mp.mpf(case.n)
            scale = size ** mp.mpf(c.size_exponent) / mp.mpf(c.lr_ref)
            q = mp.mpf(1) if case.plain else mp.mpf(c.temperature_exponent)
            pace, heat = (mp.mpf(1), 1 / b) if case.plain else (mp.sqrt(b), 1 / mp.sqrt(b))
            states = phases.held_norm(case.schedule, scale, q, c.curvatures.tolist(), c.escape_rate, pace, heat)
            t = mp.mpf(case.schedule.total_steps) / mp.mpf(c.steps_ref)
            states |= {"n": size, "b": b, "t": t, "d": t * b, "radius": mp.mpf(1), "peak": case.schedule.peak * scale}
            expected = columns.value(drawn_column(case, name), states, case.basis.exponents)
        assert from_code(case, name) == pytest.approx(float(expected), rel=1e-10), seed


@pytest.mark.parametrize("kind", WARMED)
def test_closed_forms_agree_with_the_quadrature(kind: str) -> None:
    """Two roads to the continuous equations: Kummer's functions in many digits, and panels in double precision."""
    seeds, digits = (SEEDS[1:], 16) if "cosine" in kind else (SEEDS, 30)  # a cosine is a slow quadrature
    for seed in seeds:
        case = draw(kind, DEFAULT_BASIS, seed)
        held = case.basis.with_constants({"kappa": 1e-300, "critical_batch": 1e15, "relaxation": 1.0}).dynamics
        with mp.workdps(digits):
            b, scale = mp.mpf(case.b), mp.mpf(case.n) ** mp.mpf(held.size_exponent) / mp.mpf(held.lr_ref)
            q = mp.mpf(1) if case.plain else mp.mpf(held.temperature_exponent)
            pace, heat = (mp.mpf(1), 1 / b) if case.plain else (mp.sqrt(b), 1 / mp.sqrt(b))
            expected = phases.held_norm(case.schedule, scale, q, held.curvatures.tolist(), held.escape_rate, pace, heat)
            norm = phases.norm(case.schedule, scale, case.weight_decay, case.basis.dynamics.kappa)
        found = quadrature.solution(case.schedule, case.n, case.b, 0.0, case.plain, held)
        for state, value in expected.items():
            assert found[state] == pytest.approx(float(value), rel=1e-11), (state, seed)
        full = quadrature.solution(case.schedule, case.n, case.b, case.weight_decay, case.plain, case.basis.dynamics)
        assert full["radius"] == pytest.approx(float(norm), rel=1e-12)


@cache
def refined(kind: str, basis: str, seed: int) -> tuple[dict[str, float], dict[float, Any]]:
    """Return the continuous solution of a long draw, and the code's columns at several resolutions."""
    case = long_draw(kind, basis, seed)
    d = case.basis.dynamics
    exact = quadrature.solution(case.schedule, case.n, case.b, case.weight_decay, case.plain, d)
    found = {r: case.basis.evaluate(final_states(case.table, d, resolution=r))[0] for r in (1.0, 16.0, 32.0, 64.0)}
    return exact, found


@pytest.mark.parametrize("kind", WARMED)
@pytest.mark.parametrize("name", COLUMNS)
def test_error_of_the_cells_against_the_continuous_equations(name: str, kind: str) -> None:
    basis = basis_of(name)
    for seed in SEEDS:
        case = long_draw(kind, basis, seed)
        states, found = refined(kind, basis, seed)
        exact = float(columns.value(drawn_column(case, name), states, case.basis.exponents))
        at = case.basis.names.index(name)
        coarse, early, middle, fine = (float(found[r][at] / exact - 1) for r in found)
        if name not in INTEGRATED:
            assert abs(coarse) < 1e-12
            continue
        assert abs(coarse) < 0.05
        assert abs(4 * fine - middle) / 3 < 2e-5  # the limit of second-order convergence is the continuous solution
        if abs(middle) > 1e-5:
            # over two halvings: where in its cell the felt rate is highest changes from one to the next
            assert np.log2(early / fine) / 2 == pytest.approx(2.0, abs=0.2)


def test_error_of_the_cells_on_ordinary_runs() -> None:
    """What a reader may expect at the resolution that laws are fitted with, critical batch and norm included.

    Of decays to 0, too, where the temperature has an infinite slope.
    """
    errors: dict[bool, list[float]] = {False: [], True: []}
    for kind in WARMED:
        drawn = [draw(kind, DEFAULT_BASIS, seed) for seed in range(6)]
        if kind.endswith(("linear", "cosine")):
            drawn += [to_zero(case) for case in drawn]
        for case in drawn:
            d = case.basis.dynamics
            exact = quadrature.solution(case.schedule, case.n, case.b, case.weight_decay, case.plain, d)
            found = final_states(case.table, d)
            pairs = [(getattr(found, name)[0], exact[name]) for name in ("tau", "radius", "escape")]
            pairs += [(v, exact[f"v_{i}"]) for i, v in enumerate(found.variance[0])]
            errors["warmup" in kind].append(max(abs(x / y - 1) for x, y in pairs))
    assert max(errors[True]) < 3e-2
    assert max(errors[False]) < 1e-2
    assert np.median([*errors[False], *errors[True]]) < 3e-3


@pytest.mark.parametrize("kind", WARMED)
def test_departures_of_the_code_from_the_exact_cell_solution_are_bounded(kind: str) -> None:
    """`TINY` moves a variance by ten times itself at most."""
    for seed in SEEDS:
        exact = cell_states(kind, DEFAULT_BASIS, seed, False)
        coded = cell_states(kind, DEFAULT_BASIS, seed, True)
        case = case_of(kind, DEFAULT_BASIS, seed)
        heat = 2 * max(float(exact[f"v_{i}"]) for i in range(case.basis.dynamics.modes)) + float(exact["peak"])
        for i in range(case.basis.dynamics.modes):
            state = f"v_{i}"
            off = abs(float(coded[state] - exact[state]))
            assert off < 10 * solve.TINY * heat, (state, seed)


def test_phases_after_one_another_are_exact_too() -> None:
    # two constant phases and a norm that stays 1: a jump of the temperature
    case = balanced_draw(DEFAULT_BASIS, 0)
    d = case.basis.with_constants({"kappa": 1e-300, "relaxation": 1.0}).dynamics
    s = two_stage(2e-3, 5000, switch=0.3, second=3e-4)
    expected = phases.held_norm(
        s, mp.mpf(1) / mp.mpf(d.lr_ref), mp.mpf(1), d.curvatures.tolist(), d.escape_rate, mp.mpf(1), mp.mpf(1)
    )
    run = Draw(case.basis.with_constants({"kappa": 1e-300, "relaxation": 1.0}), s, 1.0, 1.0, 0.0, "sgd")
    states = final_states(run.table, d)
    assert states.tau[0] == pytest.approx(float(expected["tau"]), rel=1e-10)
    assert states.escape[0] == pytest.approx(float(expected["escape"]), rel=1e-10)
    for i, v in enumerate(states.variance[0]):
        assert v == pytest.approx(float(expected[f"v_{i}"]), rel=1e-10)


def test_oracle_refuses_what_it_does_not_know() -> None:
    d = get_basis(DEFAULT_BASIS).dynamics
    with pytest.raises(ValueError, match="shape must be constant, linear, cosine or exponential, got 'root'"):
        quadrature.solution(wsd(1e-3, 100, 0.2, "sqrt"), 1.0, 1.0, 0.1, False, d)
    with pytest.raises(ValueError, match="kind must be one of constant, linear, cosine, exponential, got 'root'"):
        phases.norm(wsd(1e-3, 100, 0.2, "sqrt"), mp.mpf(1), 0.1, 1.0)


def test_sums_of_the_pieces_are_the_sums_over_the_steps() -> None:
    for s in (constant(1e-3, 1000), cosine(1e-3, 1000, 1e-4, warmup=100)):
        total = sum(float(span * piece.sum(piece.high)) for piece, span in phases.pieces(s))
        assert total == pytest.approx(float(s.array().sum()), rel=2e-5)  # O(1/T^2)
