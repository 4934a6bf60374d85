"""Every derivation is checked step by step; the index, the table of contradictions and the page are made of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sympy as sp
from scipy.integrate import quad
from scipy.stats import chi2
from theory import __main__ as command
from theory import contradictions, index, page, symbols
from theory.derivations import DERIVATIONS, anti_concentration, loss_drop, quadratic_modes, spectrum_average
from theory.derivations import weight_norm as norms
from theory.oracle.columns import registered
from theory.result import HEURISTIC, PROVED, Proof, ProofError, Result, vanishes
from theory.theorems import THEOREMS

from optlaws.dynamics import States
from optlaws.features import basis_ids, columns, get_basis

x = sp.Symbol("x", positive=True)


@pytest.mark.parametrize("make", [*THEOREMS, *DERIVATIONS], ids=lambda make: make.__module__.split(".")[-1])
def test_every_step_holds(make) -> None:  # type: ignore[no-untyped-def]
    result = make()
    assert isinstance(result, Result)
    assert result.steps
    assert (index.FOLDER / result.module).is_file()
    for step in result.steps:
        assert step.relation in ("=", ">=")
        assert step.text.count("$") % 2 == 0
    texts = (result.statement, result.remark, *result.assumptions)
    assert all(text.count("$") % 2 == 0 for text in texts)


def test_results_are_named_once_and_feed_what_exists() -> None:
    found = index.results()
    names = [r.name for r in found]
    assert len(set(names)) == len(names)
    assert names[:4] == ["theorem_1", "theorem_2", "theorem_3", "theorem_4"]
    known = {"variance", "risk criterion", *registered(), *States.__dataclass_fields__}
    for result in found:
        assert set(result.feeds) <= known, result.name


def test_every_column_rests_on_a_result() -> None:
    found = index.results()
    for name, column in registered().items():
        assert index.fed_by(column, found), f"no derivation feeds {name}"
        assert index.standing(column, found) in (PROVED, index.PARTLY, HEURISTIC)
    for name in ("peak_time", "tokens", "inverse_norm", "transient"):
        if name in registered():
            assert index.standing(registered()[name], found) == HEURISTIC


def test_what_is_assumed_is_not_called_proved() -> None:
    """Factors that theory does not have are in the printed formula, and a column with one is proved in part at most."""
    found, base = index.results(), get_basis()
    verdicts = {c.name: c.verdict(base) for c in contradictions.CONSTANTS}
    rows = {row[0].strip("`"): row for row in index.column_rows(found)}
    for name, factor in (("relaxation", "(u / u_max)^(s - 1)"), ("gv", "(tau/1000)^-gv"), ("pn", "n^-pn")):
        assert verdicts[name] == contradictions.CONTRADICTED
        held = [column for column in registered().values() if factor in column.formula]
        assert held
        for column in held:
            assert factor in column.assumed
            assert index.standing(column, found) != PROVED
    for mode in range(base.dynamics.modes):
        row = rows[f"variance_{mode}"]
        assert row[2:] == (f"`{registered()[f'variance_{mode}'].formula}`", row[3], index.PARTLY, row[5])
        assert f"2 l_{mode} tau' (u / u_max)^(s - 1) (Theta - v_{mode})" in row[2]
    for name, column in registered().items():
        assert bool(column.assumed) == (name != "constant"), f"what no derivation gives of {name}"
        assert ("n^cN" in column.assumed) == (name not in ("constant", "size", "transient", "tokens", "batch_noise"))
        assert ("x / R for SGD" in column.assumed) == ("tau" in column.formula)
    assert rows["constant"][4:] == (PROVED, "")
    assert rows["bias"][4] == rows["size"][4] == index.PARTLY
    assert verdicts["aN"] == contradictions.CONTRADICTED
    assert "r aT" in rows["size"][5]


# the checks themselves: a wrong step is refused


def test_a_wrong_step_is_refused() -> None:
    p = Proof()
    with pytest.raises(ProofError, match=r"step fails: sum; the sides differ by 1"):
        p.equal("sum", x + 1, x)
    with pytest.raises(ProofError, match=r"step fails: matrix; "):
        p.equal("matrix", sp.Matrix([x]), sp.Matrix([2 * x]))
    with pytest.raises(ProofError, match=r"step fails: gap; the certificate differs by x"):
        p.at_least("gap", 2 * x, sp.Integer(0), x)
    with pytest.raises(ProofError, match=r"step fails: sign; the certificate .* is not known to be at least 0"):
        p.at_least("sign", x, sp.Integer(1), x - 1)
    with pytest.raises(ProofError, match=r"step fails: far; the limit is 0, not 1"):
        p.limit("far", 1 / x, x, sp.oo, sp.Integer(1))
    with pytest.raises(ProofError, match=r"step fails: near; the expansions differ"):
        p.series("near", sp.exp(x), x, 2, 1 + 2 * x)
    assert p.steps == []
    assert not vanishes(sp.Integral(sp.exp(-x), (x, 0, 1)))


def test_a_result_needs_steps_and_a_known_standing() -> None:
    good = THEOREMS[0]()
    with pytest.raises(ProofError, match="theorem_1 must have steps, assumptions and expressions"):
        replace(good, steps=())
    with pytest.raises(ProofError, match="standing of theorem_1 must be one of proved, scaling argument, got 'sure'"):
        replace(good, standing="sure")


# the proved expressions in numbers, against what shares nothing with the proof


def test_bound_holds_for_gaussians_of_any_dimension() -> None:
    simple, sharp = anti_concentration.bound()
    r, trace = anti_concentration.R, anti_concentration.TRACE
    for dim in (1, 2, 5, 50):
        for ratio in (1.5, 10.0, 1e3):
            stay = chi2.cdf(dim / ratio, dim)  # equal variances ratio / dim, r = 1
            for bound in (simple, sharp):
                assert stay <= float(bound.subs({r: 1, trace: ratio}))
    rng = np.random.default_rng(0)
    scales, offset = np.array([3.0, 1.0, 0.1]), np.array([1.0, -2.0, 0.5])
    points = rng.standard_normal((100_000, 3)) * scales + offset
    stay = float(np.mean((points**2).sum(axis=1) <= 1.0))
    assert 0 < stay <= float(simple.subs({r: 1, trace: float((scales**2).sum())}))


def test_bias_is_the_sum_over_modes() -> None:
    a, alpha, modes, time = 0.4, 1.3, 3000, 40.0
    k = np.arange(1, modes + 1)
    total = float(np.sum(k ** (-1 - a * alpha) * np.exp(-2 * k**-alpha * time)))
    names = {"a": a, "alpha": alpha, "N": modes, "c": 1.0, "lambda": 1.0, "tau": time}
    expr = spectrum_average.bias()
    value = float(expr.subs({s: names[s.name] for s in expr.free_symbols}))
    assert value == pytest.approx(total, rel=2e-3)


@pytest.mark.parametrize("z", [5.0, 10.0, 30.0])
def test_a_model_out_of_modes_is_off_by_half_a_mode(z: float) -> None:
    """Once 2 lam tau N^-alpha = z is large the integral falls short of the sum by alpha z / 2N, as is said there."""
    a, alpha, modes = 0.36, 1.5, 2000
    time = z * modes**alpha / 2
    k = np.arange(1, modes + 1)
    total = float(np.sum(k ** (-1 - a * alpha) * np.exp(-2 * k**-alpha * time)))
    names = {"a": a, "alpha": alpha, "N": modes, "c": 1.0, "lambda": 1.0, "tau": time}
    expr = spectrum_average.bias()
    value = float(expr.subs({s: names[s.name] for s in expr.free_symbols}))
    assert 1 - value / total == pytest.approx(alpha * z / (2 * modes), rel=0.12)


def falling(s: sp.Expr) -> sp.Expr:
    return 1 - s / 3


def test_variance_as_loss_drops_is_the_convolution() -> None:
    """A linear decay of the temperature from 1 to 0 over intrinsic time 3, by quadrature."""
    lam, end = 0.7, 3.0
    convolution = quad(lambda s: 2 * lam * (1 - s / end) * np.exp(-2 * lam * (end - s)), 0, end)[0]
    expr = (
        loss_drop.by_parts().replace(symbols.clock, lambda s: s).replace(sp.Function("Theta", positive=True), falling)
    )
    value = expr.subs({symbols.t: 3, symbols.lam: sp.Rational(7, 10)}).doit()
    assert float(value) == pytest.approx(convolution, rel=1e-12)


def test_norm_at_constant_rate_is_the_sum_over_steps() -> None:
    square, balance = norms.at_constant_rate()
    numbers = {"omega": 0.1, "kappa": 0.35, "eta_ref": 0.015, "s_N": 1.0, "eta_0": 1e-3, "t": 20_000, "Q_0": 1.0}
    q = 1.0
    for _ in range(20_000):
        q = (1 - 0.1 * 1e-3) ** 2 * q + 0.35 * (1e-3 / 0.015) ** 2
    assert float(square.subs({s: numbers[s.name] for s in square.free_symbols})) == pytest.approx(q, rel=2e-4)
    assert sp.simplify(balance.diff(sp.Symbol("eta_0", positive=True), 2)) == 0  # R^2 ~ eta


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.95])
def test_momentum_leaves_the_growth_of_the_norm(beta: float) -> None:
    """Weights moved by averaged white noise, noise by noise: a step is short, and R^2 grows by eta^2 all the same."""
    eta, steps = 0.1, 600
    reached = np.zeros(steps)  # what each noise has moved the weights by
    square = along = 0.0
    for k in range(steps):
        step = np.zeros(steps)
        step[: k + 1] = (1 - beta) * beta ** np.arange(k, -1, -1.0)
        square, along, before = float(step @ step), float(reached @ step), float(reached @ reached)
        reached = reached - eta * step
    length, product = (expr.subs(sp.Symbol("beta", positive=True), beta) for expr in norms.with_momentum())
    assert square == pytest.approx(float(length), rel=1e-9)
    assert along / eta == pytest.approx(float(product), rel=1e-9, abs=1e-12)
    assert float(reached @ reached) - before == pytest.approx(eta**2, rel=1e-9)


def test_the_escape_column_is_no_bound() -> None:
    """It has the bound's shape, but in one dimension far fewer have left at small C."""
    states = SimpleNamespace(escape=np.array([0.1]))
    column = registered()["escape_probability"].evaluate(states, {})  # type: ignore[arg-type]
    assert column[0] == pytest.approx(0.0465, abs=1e-4)
    assert chi2.sf(1 / 0.1, 1) == pytest.approx(0.0016, abs=1e-4)
    assert "no bound" in str(columns._escape.__doc__)


def test_closed_form_of_a_power_against_quadrature() -> None:
    expr = quadratic_modes.kummer()
    numbers = {"a": 1.4, "z": 2.5, "c": -0.8}
    value = float(expr.subs({s: numbers[s.name] for s in expr.free_symbols}))
    assert value == pytest.approx(quad(lambda w: w**0.4 * np.exp(0.8 * w), 0, 2.5)[0], rel=1e-8)


# contradictions, index, page


@pytest.mark.parametrize("basis", basis_ids())
def test_every_exponent_stands_in_the_table_of_contradictions(basis: str) -> None:
    chosen = get_basis(basis)
    assert contradictions.unexplained(chosen) == []
    verdicts = {contradictions.AGREES, contradictions.CONTRADICTED, contradictions.BETWEEN, contradictions.FREE}
    names = {r.name for r in index.results()}
    used = [constant for constant in contradictions.CONSTANTS if constant.used(chosen)]
    for constant, row in zip(used, contradictions.rows(chosen), strict=True):
        assert constant.verdict(chosen) in verdicts
        assert constant.result in names
        assert f"{constant.fitted(chosen):.3g}" == row[4]


def test_verdicts_follow_the_values() -> None:
    base = get_basis()
    e = base.exponents
    size = next(c for c in contradictions.CONSTANTS if c.name == "aN")
    assert size.verdict(base.with_constants(exponents={"aN": e["r"] * e["aT"]})) == contradictions.AGREES
    assert size.verdict(base.with_constants(exponents={"aN": 2 * e["r"] * e["aT"]})) == contradictions.CONTRADICTED
    heat = next(c for c in contradictions.CONSTANTS if c.name == "temperature_exponent")
    assert heat.verdict(base.with_constants({"temperature_exponent": 1.0})) == contradictions.AGREES


@pytest.mark.parametrize(("expected", "found"), [(1 / 3, 0.3), (1.0, 0.9), (1.0, 1.1), (3.0, 2.7), (0.7, 0.77)])
def test_a_tenth_is_no_agreement_whichever_way_it_is_rounded(expected: float, found: float) -> None:
    base = get_basis()
    chosen = replace(next(c for c in contradictions.CONSTANTS if c.name == "aN"), value=lambda basis: expected)
    assert chosen.verdict(base.with_constants(exponents={"aN": found})) == contradictions.CONTRADICTED
    nearer = expected + 0.999 * (found - expected)
    assert chosen.verdict(base.with_constants(exponents={"aN": nearer})) == contradictions.AGREES


def test_where_theory_has_zero_only_zero_agrees() -> None:
    ageing = next(c for c in contradictions.CONSTANTS if c.name == "gv")
    for value, verdict in ((0.0, contradictions.AGREES), (1e-6, contradictions.CONTRADICTED)):
        assert ageing.verdict(get_basis().with_constants(exponents={"gv": value})) == verdict


def test_committed_index_is_the_generated_one(capsys: pytest.CaptureFixture[str]) -> None:
    written = (index.FOLDER / "README.md").read_text(encoding="utf-8")
    assert written == index.markdown(), "run python -m theory"
    assert command.main(["--check"]) == 0
    assert "as written" in capsys.readouterr().out


def test_index_reports_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "FOLDER", tmp_path)
    assert command.main(["--check"]) == 1
    assert command.main([]) == 0
    assert command.main(["--check"]) == 0
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", line.replace("\\|", "")))


def test_page_has_every_result_and_picture(tmp_path: Path) -> None:
    (tmp_path / "some_figure.png").write_bytes(b"\x89PNG")
    text = page.html(tmp_path)
    for result in index.results():
        assert f'id="{result.name}"' in text
    assert "some figure" in text
    assert text.count("<img") == 5
    assert text.count("<math") == text.count("</math>") > 400
    assert "$" not in re.sub(r"<[^>]*>", "", text)
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", text)  # needs nothing from elsewhere
