"""The laws that read a schedule: against per-step twins, closed forms, and losses made by themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from made import curves_of
from made import of_schedules as table
from scipy.integrate import quad
from scipy.special import zeta

from optlaws.baselines import get_baseline
from optlaws.baselines._readings import asked, changes, gather
from optlaws.baselines.annealing import AnnealingLaw
from optlaws.baselines.base import CurveLaw, LossLaw
from optlaws.baselines.convex_bound import ConvexBound, best_factor, bound_terms
from optlaws.baselines.forward_momentum import ForwardMomentumLaw
from optlaws.baselines.functional import FunctionalLaw
from optlaws.baselines.multi_power import MultiPowerLaw, loss_drop, optimise_rates
from optlaws.baselines.noisy_quadratic import RATE, NoisyQuadraticSystem, _Modes
from optlaws.errors import FitError, InputError, LawError
from optlaws.runs import CurveTable, RunTable, read_curves, read_runs
from optlaws.schedules import Schedule, parse

SMALL = [
    "cosine:peak=3e-4,steps=60,warmup=10,final=3e-5",
    "wsd:peak=1e-3,steps=50,warmup=7,decay=0.3",
    "two_stage:peak=3e-4,steps=40,warmup=6,switch=20,second=9e-5",
    "cyclic:peak=1e-3,steps=60,period=20,low=2e-4",
    "constant:peak=5e-4,steps=30",
    "array:values=1e-3/1e-3/2e-3/5e-4/0/0/1e-4/1e-4",
]
LAWS = {
    "multi_power": MultiPowerLaw(3.04, 0.525, 0.508, 364.0, 2.07, 0.583, 0.641),
    "annealing": AnnealingLaw(3.1, 0.5, 0.5, 0.4),
    "functional": FunctionalLaw(2.9, 2.0, 0.45, 300.0, 2.2, 60.0),
    "convex_bound": ConvexBound(2.95, 0.9, 4.0),
    "forward_momentum": ForwardMomentumLaw(2.1, 0.4, 0.5, 90.0, 0.26, 0.02),
}
NQS = NoisyQuadraticSystem(1.1131253732848405, 0.584242820729791, 3.3926855412266743, 0.8853327469240055,
                           0.35449737765209993, 128 * 8.410028810517371, 2.5829307382669966)  # fmt: skip


# --- twins: every one reads like its formula, update by update -------------------------------------------------------


def naive_multi_power(law, rates, n):
    seen = sum(rates[:n])
    drop = 0.0
    for k in range(1, n):
        x = np.inf if rates[k] == 0 else rates[k] ** -law.gamma * sum(rates[k:n])
        if rates[k] == 0 and sum(rates[k:n]) == 0:
            x = 0.0
        drop += (rates[k - 1] - rates[k]) * (1 - (1 + law.C * x) ** -law.beta)
    return law.L0 + law.A * seen**-law.alpha - law.B * drop


def naive_annealing(law, rates, n, warmup):
    second = 0.0
    for i in range(warmup + 1, n):
        for k in range(warmup + 1, i + 1):
            second += (rates[k - 1] - rates[k]) * law.lam ** (i - k)
    return law.L0 + law.A * sum(rates[:n]) ** -law.alpha - law.C * second


def naive_functional(law, rates, n):
    edges = law.C * np.concatenate([[0.0], np.cumsum(rates[:n])])
    t, power = edges[-1], 2 - 1 / law.beta
    noise = sum(rates[j] * quad(lambda z: (1 + t - z) ** -power, edges[j], edges[j + 1])[0] for j in range(n))
    return law.L0 + law.A * (1 + t) ** -law.s + law.B * noise


def naive_bound(law, rates, n):
    g = [rate for rate in rates[:n] if rate > 0]
    total = sum(g)
    value = law.D**2 / (2 * total) + law.G**2 * sum(x * x for x in g) / (2 * total)
    for k in range(len(g) - 1):
        value += 0.5 * g[k] / sum(g[k + 1 :]) * law.G**2 * sum(x * x for x in g[k:]) / sum(g[k:])
    return law.L0 + value


def naive_forward_momentum(law, rates, n, warmup, size):
    m = v = total = 0.0
    for i in range(n):
        d = rates[i - 1] - rates[i] if i > warmup else 0.0
        m, v = 0.9 * m + 0.1 * d, 0.999 * v + 0.001 * d * d
        corrected = v / (1 - 0.999 ** (i + 1)) * 1e5
        total += m / (1 - 0.9 ** (i + 1)) / (np.sqrt(corrected + 1e-8) + 1e-8)
    return law.L0 + law.A * sum(rates[:n]) ** -law.a + law.B * size**-law.b - law.C * total


def naive(law, schedule, n, size=1e8):
    rates, warmup = schedule.array().tolist(), schedule.warmup_steps
    if isinstance(law, MultiPowerLaw):
        return naive_multi_power(law, rates, n)
    if isinstance(law, AnnealingLaw):
        return naive_annealing(law, rates, n, warmup)
    if isinstance(law, FunctionalLaw):
        return naive_functional(law, rates, n)
    if isinstance(law, ConvexBound):
        return naive_bound(law, rates, n)
    return naive_forward_momentum(law, rates, n, warmup, size)


@pytest.mark.parametrize("spec", SMALL)
@pytest.mark.parametrize("name", LAWS)
def test_a_curve_equals_its_twin(name, spec):
    law, runs = LAWS[name], table([spec])
    schedule = runs.schedules[0]
    steps = np.unique([2, schedule.total_steps // 2, schedule.total_steps - 1, schedule.total_steps])
    expected = [naive(law, schedule, int(n)) for n in steps]
    np.testing.assert_allclose(law.predict_curve(runs, steps.astype(float)), expected, rtol=1e-9)
    np.testing.assert_allclose(law.predict(runs), expected[-1:], rtol=1e-9)


def naive_modes(law, size, steps, batch, stairs):
    n = np.arange(1, size + 1, dtype=float)
    curved, signal = law.Q * n**-law.q, law.P * n**-law.p
    noise = law.R * n**-law.r / batch
    bias, variance, shrink, rate, grown = np.ones_like(n), np.zeros_like(n), np.ones_like(n), RATE, 0.0
    stair = max(steps // 100, min(1000, steps // 10)) if steps > 10 else 1
    for k in range(steps):
        if stairs and k % stair == 0:
            rate = min(rate, RATE * (1 - max(grown, 0.0) / (0.02**2 * size + max(grown, 0.0))))
        a = 1 - rate * curved
        variance = variance * a**2 + rate**2 * curved * noise / 2
        bias, shrink = bias * a**2, shrink * np.abs(a)
        grown = np.sum(((1 - 2 * shrink) * signal + 2 * (0.5 * signal * bias + variance)) / curved)
    return law.e + 0.5 * law.P * zeta(law.p, size + 1) + np.sum(0.5 * signal * bias + variance)


@pytest.mark.parametrize(("size", "steps", "batch"), [(65, 7, 512.0), (2_000, 130, 4_096.0), (30_000, 45, 1e5)])
def test_noisy_quadratic_equals_its_twin(size, steps, batch):
    runs = table([f"constant:peak=1e-3,steps={steps}"], params=float(size), batch_tokens=batch)
    law = NoisyQuadraticSystem(1.3, 0.7, 2.0, 0.8, 0.4, 900.0, 0.9)
    np.testing.assert_allclose(
        law.predict_constant(runs), naive_modes(law, size, steps, batch, stairs=False), rtol=2e-5
    )
    np.testing.assert_allclose(law.predict(runs), naive_modes(law, size, steps, batch, stairs=True), rtol=2e-5)


@pytest.mark.parametrize("form", ["loss", "falling"])
def test_noisy_quadratic_slopes_equal_differences(form):
    modes = _Modes(np.array([1e6, 3e8, 2e9]), np.array([500.0, 4e4, 3.0]), np.array([2e4, 1e6, 5e4]))
    losses = getattr(modes, form)
    theta = np.array([1.2, 0.6, 3.0, 0.7, 0.4, 900.0, 1.1])
    slopes = losses(theta, True)[1]
    for i, width in enumerate(1e-6 * theta):
        above, below = theta.copy(), theta.copy()
        above[i] += width
        below[i] -= width
        expected = (losses(above, False)[0] - losses(below, False)[0]) / (2 * width)
        np.testing.assert_allclose(slopes[:, i], expected, rtol=1e-5, atol=1e-12)


def test_merged_changes_converge_to_the_exact_sum():
    law = LAWS["multi_power"]
    run = asked(table(["cosine:peak=3e-4,steps=6000,warmup=500,final=3e-5"]), np.arange(600.0, 6001.0, 300.0))
    exact = law.B * loss_drop(changes(run), law.C, law.beta, law.gamma)
    errors = []
    for most in (750, 1500, 3000):
        merged = changes(run, most)
        np.testing.assert_allclose(merged.gap.sum(), run.rates[0] - run.rates[-1], rtol=1e-12)
        errors.append(np.abs(law.B * loss_drop(merged, law.C, law.beta, law.gamma) - exact).max())
    assert errors[1] < 2e-6
    assert errors[0] > 3 * errors[1] > 9 * errors[2]  # second order: 4 each time


# --- closed forms and invariants -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*LAWS, "noisy_quadratic"])
def test_registry_and_interface(name):
    law = LAWS.get(name, NQS)
    assert get_baseline(name) is type(law)
    assert isinstance(law, LossLaw)
    assert isinstance(law, CurveLaw) == (name != "noisy_quadratic")
    assert "arXiv" in law.source
    assert type(law)(**law.parameters()) == law


def test_bound_of_a_constant_rate_is_harmonic():
    for count in (1, 10, 1000):
        distance, gradient = bound_terms(np.full(count, 0.5))
        harmonic = np.sum(1 / np.arange(1.0, count))
        np.testing.assert_allclose([distance, gradient], [1 / count, 0.25 * (1 + harmonic)], rtol=1e-12)


def test_bound_scales_with_the_rate_and_has_its_minimum_at_the_best_factor():
    rates = parse("wsd:peak=1,steps=900,decay=0.2").array()
    a, b = bound_terms(rates)
    np.testing.assert_allclose(bound_terms(3 * rates), (a / 3, 3 * b), rtol=1e-12)
    factor, least = best_factor(rates, D=2.0, G=0.5)

    def value(f):
        terms = bound_terms(f * rates)
        return 4.0 * terms[0] + 0.25 * terms[1]

    np.testing.assert_allclose(value(factor), least, rtol=1e-12)
    assert min(value(1.01 * factor), value(0.99 * factor)) > least
    np.testing.assert_allclose(best_factor(7 * rates)[0], best_factor(rates)[0] / 7, rtol=1e-12)


@pytest.mark.parametrize("steps", [100, 1000, 4000])
def test_bound_of_wsd_is_below_its_theorem(steps):
    """Theorem 9 of arXiv 2501.18965, with the decay's first step T0 (D = G = 1, best rate)."""
    start = steps - steps // 5
    both, left = steps + start, steps - start
    harmonic = np.cumsum(1 / np.arange(1.0, 2 * steps + 1))
    inner = (
        2 / 3 + (steps + 2 * start) / (3 * both) + harmonic[both - 3] - harmonic[left]
        - left * (start - 1) / (3 * (left + 2) * both) + 1 / left**2 + harmonic[left - 2] / (left + 1)
    )  # fmt: skip
    theorem = np.sqrt(4 * inner / both)
    ours = best_factor(parse(f"wsd:peak=1,steps={steps},decay=0.2").array())[1]
    assert 0.8 * theorem < ours < theorem


def test_noise_of_a_constant_rate_saturates():
    law = LAWS["functional"]
    runs = table(["constant:peak=1e-3,steps=5000"])
    steps = np.array([10.0, 500.0, 5000.0])
    time, w = law.C * 1e-3 * steps, 1 - 1 / law.beta
    expected = law.L0 + law.A * (1 + time) ** -law.s + law.B * 1e-3 * (1 - (1 + time) ** -w) / w
    np.testing.assert_allclose(law.predict_curve(runs, steps), expected, rtol=1e-12)


def test_a_constant_rate_has_no_decay_terms():
    runs = table(["constant:peak=1e-3,steps=2000"])
    seen = 2.0
    law = LAWS["multi_power"]
    np.testing.assert_allclose(law.predict(runs), law.L0 + law.A * seen**-law.alpha, rtol=1e-12)
    law = LAWS["annealing"]
    np.testing.assert_allclose(law.predict(runs), law.L0 + law.A * seen**-law.alpha, rtol=1e-12)
    law = LAWS["forward_momentum"]
    np.testing.assert_allclose(law.predict(runs), law.L0 + law.A * seen**-law.a + law.B * 1e8**-law.b, rtol=1e-12)


def test_a_rate_once_a_step_is_the_same_schedule():
    spec = "wsd:peak=1e-3,steps=400,warmup=40,decay=0.2"
    schedule = parse(spec)
    listed = RunTable.build([Schedule("array", values=schedule.array())], params=1e8)
    for law in LAWS.values():
        np.testing.assert_allclose(law.predict(listed), law.predict(table([spec])), rtol=1e-12)


def test_noisy_quadratic_is_monotone_in_size_and_batch_and_reproduces_published_predictions():
    """(N, B in sequences of 128, K) -> loss of the authors' demo with the authors' parameters."""
    published = [
        (64e6, 9134, 135_200, 2.3178), (2048e6, 2011, 19_007, 2.0274), (256e6, 245, 1_242, 3.2160),
        (10e6, 384, 320_000, 2.7793), (10e6, 98_304, 78, 5.0591),
    ]  # fmt: skip
    for size, batch, steps, loss in published:
        runs = table([f"constant:peak=1e-3,steps={steps}"], params=size, batch_tokens=128.0 * batch)
        np.testing.assert_allclose(NQS.predict(runs), loss, atol=6e-5)
    sizes = table(["constant:peak=1e-3,steps=3000"] * 4, params=[1e6, 1e7, 1e8, 1e9], batch_tokens=1e9)
    assert (np.diff(NQS.predict_constant(sizes)) < 0).all()
    batches = table(["constant:peak=1e-3,steps=3000"] * 4, params=1e8, batch_tokens=[1e2, 1e3, 1e4, 1e5])
    assert (np.diff(NQS.predict_constant(batches)) < 0).all()


# --- fits ------------------------------------------------------------------------------------------------------------


TRAIN = [
    "cosine:peak=3e-4,steps=2400,warmup=216,final=3e-5",
    "constant:peak=3e-4,steps=2400,warmup=216",
    "two_stage:peak=3e-4,steps=1600,warmup=216,switch=800,second=9e-5",
]
TEST = ["wsd:peak=3e-4,steps=2400,warmup=216,decay=0.2,final=3e-5", "cosine:peak=3e-4,steps=4000,warmup=216"]


@pytest.mark.parametrize("name", LAWS)
def test_a_law_finds_itself_in_its_curves(name):
    law, runs = LAWS[name], table(TRAIN)
    fit = type(law).fit_minimum if name == "multi_power" else type(law).fit
    found = fit(runs, curves_of(law, runs))
    np.testing.assert_allclose(found.predict(table(TEST)), law.predict(table(TEST)), rtol=2e-4)
    if name in ("annealing", "convex_bound", "functional"):
        np.testing.assert_allclose(list(found.parameters().values()), list(law.parameters().values()), rtol=0.03)


def test_a_law_finds_itself_in_final_losses():
    rng = np.random.default_rng(0)
    specs = [
        f"wsd:peak={p:.3e},steps={t},warmup=50,decay={d:.2f}"
        for p, t, d in zip(
            rng.choice([3e-4, 1e-3, 2e-3], 40),
            rng.choice([500, 2000, 6000], 40),
            rng.uniform(0.1, 0.9, 40),
            strict=True,
        )
    ]
    size = np.resize([3e7, 8e7, 2e8], 40)
    for name in ("forward_momentum", "convex_bound", "annealing"):
        law = LAWS[name]
        runs = table(specs, params=size)
        made = table(specs, params=size, final_loss=law.predict(runs))
        found = type(law).fit(made)
        np.testing.assert_allclose(found.predict(runs), law.predict(runs), rtol=1e-4)
        np.testing.assert_allclose(list(found.parameters().values()), list(law.parameters().values()), rtol=0.03)


def test_multi_power_slopes_equal_differences():
    law = LAWS["multi_power"]
    rates = parse("cosine:peak=3e-4,steps=80,warmup=10,warmup_start=1e-5,final=3e-5").array()
    loss, slope = law.gradient(rates)
    runs = RunTable.build([parse({"kind": "array", "total_steps": 80, "values": rates.tolist()})])
    np.testing.assert_allclose(loss, law.predict(runs)[0], rtol=1e-12)
    for k in (0, 1, 17, 78, 79):
        above, below = rates.copy(), rates.copy()
        above[k] += 1e-10
        below[k] -= 1e-10
        np.testing.assert_allclose(slope[k], (law.gradient(above)[0] - law.gradient(below)[0]) / 2e-10, rtol=1e-4)


def test_optimised_rates_fall_and_beat_usual_schedules():
    law = LAWS["multi_power"]
    rates = optimise_rates(law, steps=3000, warmup=200, peak=3e-4, iterations=400, rate=2e-8)
    assert (np.diff(rates[200:]) <= 0).all()
    assert rates.max() <= 3e-4
    assert rates.min() >= 1e-10
    others = table([f"{kind},steps=3000,warmup=200" for kind in ("constant:peak=3e-4", "cosine:peak=3e-4,final=3e-5")])
    assert law.gradient(rates)[0] < law.predict(others).min()


@pytest.mark.parametrize(("s", "easy"), [(1.2, True), (0.2, False)])
def test_functional_law_advises_a_schedule(s, easy):
    law = FunctionalLaw(2.5, 4.0, s, 400.0, 1.6, 100.0)
    assert law.easy == easy
    best = law.best_schedule(steps=8000, peak=1e-3, warmup=100)
    if easy:
        assert best.short() == "polynomial:peak=0.001,steps=8000,warmup=100,power=2.2"
        return
    assert best.kind == "wsd"
    shares = [f"wsd:peak=1e-3,steps=8000,warmup=100,decay={d},shape=power,power=2.2" for d in (0.02, 0.3, 0.9)]
    assert law.predict(RunTable.build([best]))[0] < law.predict(table(shares)).min()


def test_best_peak_falls_like_the_root_of_the_length():
    law = LAWS["convex_bound"]
    peaks = law.best_peak([parse(f"linear:peak=1e-3,steps={t}") for t in (2000, 8000, 32000)])
    np.testing.assert_allclose(peaks[:-1] / peaks[1:], 2.0, rtol=0.01)
    decays = law.best_peak([parse(f"wsd:peak=1e-3,steps=8000,decay={d}") for d in (0.1, 0.4, 0.9)])
    assert (np.diff(decays) > 0).all()


# --- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input_is_one_sentence():
    runs = table(SMALL[:2])
    law = LAWS["annealing"]
    with pytest.raises(InputError, match="runs must be one run for a curve, got 2; select one row"):
        law.predict_curve(runs, np.array([1.0]))
    with pytest.raises(InputError, match=r"steps must be whole numbers from 1 to 60, got 61; drop steps"):
        law.predict_curve(runs.select([0]), np.array([1.0, 61.0]))
    with pytest.raises(FitError, match=r"law 'annealing' needs at least 4 completed runs .* got 0 of 2; add runs"):
        AnnealingLaw.fit(runs)
    with pytest.raises(LawError, match=r"params must be a finite number above 0 for law 'forward_momentum', got nan"):
        LAWS["forward_momentum"].predict(table(SMALL[:1], params=None))
    with pytest.raises(LawError, match=r"batch_tokens must be a finite number above 0 for law 'noisy_quadratic'"):
        NQS.predict(runs)
    with pytest.raises(LawError, match=r"Q of law 'noisy_quadratic' must be above 0 and below 1, got 1.2; lower it"):
        NoisyQuadraticSystem(1.1, 0.6, 3.0, 1.2, 0.3, 1.0, 1.0)
    with pytest.raises(LawError, match=r"p of law 'noisy_quadratic' must be above 1, got 0.9; raise it"):
        NoisyQuadraticSystem(0.9, 0.6, 3.0, 0.2, 0.3, 1.0, 1.0)
    late = CurveTable(("1",) * 8, np.arange(10.0, 90.0, 10.0), np.full(8, 3.0))
    with pytest.raises(FitError, match="curve of run '1' must end at step 60, the run's last, got step 80"):
        gather(AnnealingLaw, runs, late, 4)
    with pytest.raises(FitError, match="law 'multi_power' needs at least 7 losses of completed runs, got 0; add runs"):
        MultiPowerLaw.fit(runs, CurveTable(("x",), np.array([20.0]), np.array([3.0])))
    with pytest.raises(InputError, match="warmup must be from 1 to steps - 2 = 8, got 9; change one of them"):
        optimise_rates(LAWS["multi_power"], steps=10, warmup=9)
    with pytest.raises(InputError, match=r"floor must be above 0 and below the peak 1e-10, got 1e-10; lower it"):
        optimise_rates(LAWS["multi_power"], steps=10, warmup=2, peak=1e-10)
    with pytest.raises(InputError, match="peak must be a finite number above 0, got -1; 1e-3 is usual"):
        LAWS["functional"].best_schedule(steps=10, peak=-1)
    with pytest.raises(InputError, match="steps must be at least 2, the first with a rate above 0, got 1"):
        LAWS["convex_bound"].predict_curve(runs.select([0]), np.array([1.0]))
    rising = table([f"constant:peak=1e-3,steps={t}" for t in (100, 200, 400)], final_loss=[3.0, 3.0, 3.0])
    with pytest.raises(FitError, match=r"[DG] of law 'convex_bound' must come out above 0, got 0"):
        ConvexBound.fit(rising)


def test_diverged_runs_and_warm_up_readings_are_left_out():
    runs = table(SMALL[:2], final_loss=[3.0, 9.0], status=["completed", "diverged"])
    step = np.array([5.0, 20.0, 40.0, 60.0])
    curve = CurveTable(("1",) * 4 + ("2",) * 2, np.concatenate([step, [20.0, 40.0]]), np.full(6, 3.0))
    found = gather(AnnealingLaw, runs, curve, 1)
    assert [r.steps.tolist() for r in found] == [[20, 40, 60]]


# --- public runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "published"),
    [
        ("25M", (3.0405, 0.52469, 0.50787, 363.79, 2.0656, 0.58279, 0.64142)),
        ("100M", (2.6514, 0.60115, 0.45296, 437.95, 2.1325, 0.59786, 0.65524)),
        ("400M", (2.3747, 0.65421, 0.42879, 523.42, 2.0246, 0.59350, 0.63472)),
    ],
)
def test_multi_power_converges_to_its_published_parameters(data_dir, size, published):
    runs, curves = read_runs(data_dir / "mpl_runs.csv"), read_curves(data_dir / "mpl_curves.csv")
    names = [f"{size}-{shape}" for shape in ("cosine_24000", "constant_24000", "wsdcon_9")]
    train = runs.select([i for i, name in enumerate(runs.run_id) if name in names])
    # the authors' reading of step k has seen the rate of update k
    law = MultiPowerLaw.fit(train, CurveTable(curves.run_id, curves.step + 1, curves.loss))
    np.testing.assert_allclose(list(law.parameters().values()), published, rtol=1e-3)


def test_noisy_quadratic_fit_is_no_worse_than_the_published_one(data_dir):
    runs = read_runs(data_dir / "nqs_runs.csv")
    runs = runs.select(runs.column("filtered") != "True")

    def cost(losses):
        return 0.5 * np.sum((np.log(losses) - np.log(runs.final_loss)) ** 2)

    np.testing.assert_allclose(cost(NQS.predict_constant(runs)), 0.022080, atol=5e-7)  # the authors' log
    assert cost(NoisyQuadraticSystem.fit_constant(runs, starts=12).predict_constant(runs)) < 0.02208
    assert cost(NoisyQuadraticSystem.fit(runs, starts=12).predict(runs)) < 0.016  # the authors' demo: 0.0388


def noisy_grid():
    """Runs of four sizes and three batches, some hundred to some ten thousand steps."""
    size, batch, steps = (
        x.ravel() for x in np.meshgrid([1e6, 8e6, 6e7, 5e8], [4e3, 6e4, 1e6], [150.0, 3e3, 25e3], indexing="ij")
    )
    return table([f"constant:peak=1e-3,steps={int(k)}" for k in steps], params=size, batch_tokens=batch)


@pytest.mark.parametrize("law", [NQS, NoisyQuadraticSystem(1.2, 0.7, 3.0, 0.8, 1.0, 500.0, 1.2)])
def test_noisy_quadratic_finds_itself_and_predicts_what_it_fits(law):
    runs = noisy_grid()
    made = dataclasses.replace(runs, final_loss=law.predict(runs))
    assert np.abs(law.predict_constant(runs) / law.predict(runs) - 1).max() > 0.02  # two functions
    found = NoisyQuadraticSystem.fit(made, starts=12)
    np.testing.assert_allclose(found.predict(runs), law.predict(runs), rtol=1e-3)
    held = table(["constant:peak=1e-3,steps=60000"] * 2, params=[2e6, 1e9], batch_tokens=[2e4, 3e5])
    np.testing.assert_allclose(found.predict(held), law.predict(held), rtol=3e-3)


def test_noisy_quadratic_comes_near_its_own_runs_where_they_tell_little():
    runs = read_runs(Path(__file__).parents[2] / "examples" / "my_runs.csv")  # two sizes, two lengths
    law = NoisyQuadraticSystem.fit(runs, starts=12)
    assert np.abs(law.predict(runs) / runs.final_loss - 1).max() < 0.03
    assert law.doubts(runs) == ["its 7 constants stand on 4 different (params, steps, batch_tokens)"]
    assert law.doubts(noisy_grid()) == []


def test_noisy_quadratic_takes_equal_runs_together():
    runs = noisy_grid()
    loss = NQS.predict(runs) * np.exp(0.01 * np.sin(7 * np.arange(36)))
    twice = np.r_[np.arange(36), np.arange(36)[::-1]]
    apart = np.exp(0.02 * np.r_[np.ones(36), -np.ones(36)])  # about the same mean of the log loss
    many = dataclasses.replace(runs.select(twice), final_loss=loss[twice] * apart)
    laws = [NoisyQuadraticSystem.fit(each, starts=4) for each in (dataclasses.replace(runs, final_loss=loss), many)]
    np.testing.assert_allclose(laws[0].predict(runs), laws[1].predict(runs), rtol=1e-6)
    np.testing.assert_allclose(laws[0].predict(runs.select(twice)), laws[0].predict(runs)[twice], rtol=1e-12)
