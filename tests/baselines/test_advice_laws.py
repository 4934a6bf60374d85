"""Laws that advise a rate, a batch or an allocation: printed formulas, recovery, the nearest run of a grid."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from made import grid, table

from optlaws.baselines import get_baseline
from optlaws.baselines.advice import rival_advice
from optlaws.baselines.allocation import budgets
from optlaws.baselines.base import Advice
from optlaws.baselines.chinchilla import Chinchilla
from optlaws.baselines.chinchilla_envelope import ChinchillaEnvelope
from optlaws.baselines.chinchilla_isoflop import ChinchillaIsoFlop
from optlaws.baselines.deepseek_rate import DeepSeekRate
from optlaws.baselines.isoflop import IsoFlop
from optlaws.baselines.microsoft_rate import MicrosoftRate
from optlaws.baselines.minicpm_batch import MiniCPMBatch
from optlaws.baselines.mup import MuP, multipliers
from optlaws.baselines.openai_rate import OpenAIRate
from optlaws.baselines.optimal_rate import nearest_run, regret
from optlaws.baselines.porian_rate import PorianRate
from optlaws.baselines.step_law import StepLaw
from optlaws.errors import FitError, InputError
from optlaws.runs import CurveTable

N, D, L = 4e8, 2e10, 2.4
PRINTED = [
    (OpenAIRate, 3.239e-3 - 1.395e-4 * np.log(N), 2e8 * L**-4.7619),
    (MicrosoftRate, 1.3192e-5 * N**-0.23 * D**-0.32, np.nan),
    (DeepSeekRate, 0.3188 * (6 * N * D) ** -0.125, 0.292 * (6 * N * D) ** 0.3271),
    (PorianRate, 3.7 * N**-0.36, 0.7576 * N**0.703),
    (MiniCPMBatch, np.nan, 1.21e9 * L**-6.24),
    (StepLaw, 1.79 * N**-0.713 * D**0.307, 0.58 * D**0.571),
]


@pytest.mark.parametrize(("kind", "rate", "batch"), PRINTED, ids=lambda value: getattr(value, "name", ""))
def test_printed_constants(kind, rate, batch):
    advice = kind.published().recommend(N, D, L)
    assert advice == pytest.approx((rate, batch), rel=1e-12, nan_ok=True)


def near_optimum(law, losses):
    """Return runs at a law's own advice for each (N, D), and worse ones about it."""
    n, d = grid((1e8, 2e8, 4e8, 8e8), (4e9, 2e10, 1e11))
    rows = []
    for k, (a, b) in enumerate(zip(n, d, strict=True)):
        rate, batch = law.recommend(a, b, losses[k])
        rate, batch = (rate if np.isfinite(rate) else 1e-3), (batch if np.isfinite(batch) else 5e5)
        rows += [(a, b, rate, batch, losses[k]), (a, b, rate * 3, batch / 2, 1.05 * losses[k])]
    n, d, peak, batch, loss = np.array(rows).T
    return table(n, d, batch=batch, peak=peak, loss=loss)


@pytest.mark.parametrize(
    "kind", [kind for kind, _, _ in PRINTED] + [get_baseline("meituan_rate")], ids=lambda k: k.name
)
def test_fit_gives_back_the_constants(kind):
    n, d = grid((1e8, 2e8, 4e8, 8e8), (4e9, 2e10, 1e11))
    losses = Chinchilla.refit().loss(n, d)
    law = kind.published() if hasattr(kind, "published") else kind(2e-3, 0.3, 1e9, 5.0)
    if kind is MicrosoftRate:
        law = MicrosoftRate(300.0, law.p, law.q)
    found = kind.fit(near_optimum(law, losses))
    for name, value in law.parameters().items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-3), name
    assert regret(found, near_optimum(law, losses), StepLaw).max() == 0.0


def test_microsoft_scaled_keeps_the_exponents():
    n, d = grid((1e8, 2e8, 4e8), (4e9, 2e10))
    law = MicrosoftRate(30.0, 0.23, 0.32)
    runs = table(n, d, peak=[law.recommend(a, b).peak_lr for a, b in zip(n, d, strict=True)], loss=3.0)
    assert MicrosoftRate.scaled(runs).r == pytest.approx(30.0)


def test_step_law_band_covers_the_fit():
    rng = np.random.default_rng(0)
    n, d = (np.repeat(v, 5) for v in grid())
    law = StepLaw.published()
    pairs = np.array([law.recommend(a, b) for a, b in zip(n, d, strict=True)]) * np.exp(
        0.2 * rng.standard_normal((125, 2))
    )
    runs = table(n, d, peak=pairs[:, 0], batch=pairs[:, 1], loss=3.0)
    found, band = StepLaw.fit(runs), StepLaw.band(runs, draws=300, seed=0)
    low, high = np.quantile([one.p for one in band], [0.005, 0.995])
    assert low < law.p < high
    assert low < found.p < high
    assert [one.p for one in StepLaw.band(runs, draws=5, seed=1)] == [
        one.p for one in StepLaw.band(runs, draws=5, seed=1)
    ]


def scattered(law, seed, each=5, sd=0.2):
    """Return runs of equal loss about a law's advice, rates and batches with a scatter in logarithms."""
    rng = np.random.default_rng(seed)
    n, d = (np.repeat(v, each) for v in grid())
    pairs = np.array([law.recommend(a, b) for a, b in zip(n, d, strict=True)])
    pairs = pairs * np.exp(sd * rng.standard_normal(pairs.shape))
    return table(n, d, peak=pairs[:, 0], batch=pairs[:, 1], loss=3.0)


def test_the_band_of_the_advice_contains_the_truth():
    """Nine times in ten, within four standard errors, and the constants come back."""
    law = StepLaw.published()
    truth, inside, found = law.recommend(N, D), [], []
    for seed in range(60):
        runs = scattered(law, seed, each=3)
        advice = rival_advice("step_law", N, D, runs, seed=seed)
        inside.append(advice.peak_lr_low < truth.peak_lr < advice.peak_lr_high)
        inside.append(advice.batch_tokens_low < truth.batch_tokens < advice.batch_tokens_high)
        assert advice.peak_lr_low < advice.peak_lr < advice.peak_lr_high
        found.append(list(StepLaw.fit(runs).parameters().values()))
    assert np.mean(inside) == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 120))
    error = np.std(found, axis=0) / np.sqrt(60)
    powers = [1, 2, 4]
    assert (np.abs(np.mean(found, axis=0) - [1.79, 0.713, 0.307, 0.58, 0.571])[powers] < 4 * error[powers]).all()


def test_bands_are_seeded_and_only_of_fits():
    runs = scattered(StepLaw.published(), 0)
    one, two = (rival_advice("step_law", N, D, runs, seed=3) for _ in range(2))
    assert one == two
    assert one.band_draws == 300
    assert rival_advice("step_law", N, D, runs, seed=4).peak_lr_low != one.peak_lr_low
    printed = rival_advice("step_law", N, D)
    assert np.isnan([printed.peak_lr_low, printed.peak_lr_high, printed.batch_tokens_low]).all()
    assert printed.band_draws == rival_advice("deepseek_rate", N, D, runs).band_draws == 0


def few(each):
    """Return runs at three (N, D) that determine the law, with a scatter."""
    law = StepLaw.published()
    n, d = np.repeat([1e8, 2e8, 4e8], each), np.repeat([1e10, 4e9, 2e10], each)
    pairs = np.array([law.recommend(a, b) for a, b in zip(n, d, strict=True)])
    pairs = pairs * np.exp(0.1 * np.random.default_rng(0).standard_normal(pairs.shape))
    return table(n, d, peak=pairs[:, 0], batch=pairs[:, 1], loss=3.0)


def test_samples_that_do_not_tell_the_law_are_drawn_again():
    """A quarter of the samples of two runs at each of three (N, D) lacks one of them."""
    band = StepLaw.band(few(2), draws=100, seed=0)
    assert len(band) == 100
    assert np.isfinite([list(one.parameters().values()) for one in band]).all()
    assert band == StepLaw.band(few(2), draws=100, seed=0)


def test_a_law_through_its_few_runs_is_not_called_sure():
    with pytest.raises(FitError, match="has a band from 6 near-best runs on, got 3"):
        StepLaw.band(few(1))
    advice = rival_advice("step_law", N, D, few(1))
    assert advice.band_draws == 0
    assert np.isnan(advice.peak_lr_low)


def test_too_few_cells_are_an_error():
    runs = table([1e8, 1e8], [1e9, 2e9], loss=3.0)
    with pytest.raises(FitError, match="needs at least 3 completed runs"):
        StepLaw.fit(runs)
    with pytest.raises(FitError, match="3 or more pairs of N and D, got 1"):
        StepLaw.fit(table([1e8] * 4, [1e9] * 4, peak=[1e-3, 2e-3, 3e-3, 4e-3], loss=3.0))
    with pytest.raises(FitError, match="cannot be told from these runs"):
        StepLaw.fit(table([1e8] * 4, [1e9, 2e9, 4e9, 8e9], loss=3.0))
    with pytest.raises(FitError, match="cannot be told from these runs"):
        StepLaw.band(table([1e8] * 4, [1e9, 2e9, 4e9, 8e9], loss=3.0))
    with pytest.raises(InputError, match="must be above 0"):
        StepLaw.published().recommend(-1.0, 1e9)


def test_nearest_run_and_open_advice():
    rate, batch = np.array([1e-3, 1e-3, 4e-3, 4e-3]), np.array([1e5, 4e5, 1e5, 4e5])
    loss = np.array([2.2, 2.1, 2.3, 2.0])
    assert nearest_run(rate, batch, Advice(1.2e-3, 3e5)) == 1
    assert nearest_run(rate, batch, Advice(3.9e-3, np.nan), loss) == 3
    assert nearest_run(rate, batch, Advice(np.nan, 1.1e5), loss) == 0
    with pytest.raises(InputError, match="advice must name a peak rate or a batch"):
        nearest_run(rate, batch, Advice(np.nan, np.nan), loss)


def test_mup_transfers_the_smallest_models_rate():
    runs = table([1e7, 1e7, 4e7], 1e9, peak=[1e-3, 4e-3, 1e-3], loss=[3.1, 3.0, 2.8])
    law = MuP.fit(runs)
    assert law.recommend(1e7, 1e9).peak_lr == 4e-3
    assert law.recommend(4e7, 1e9).peak_lr == pytest.approx(2e-3)
    assert multipliers(4.0, "hidden") == (0.25, 0.5, 1.0)
    assert multipliers(4.0, "output") == (1.0, 1.0, 0.25)
    with pytest.raises(InputError, match="kind must be one of input, hidden, output"):
        multipliers(2.0, "middle")


def profiles():
    """Return N, C and losses of Chinchilla's law on five budgets, its optimum among the sizes."""
    law = Chinchilla.refit()
    c = np.repeat(np.geomspace(1e19, 1e22, 5), 41)
    best = np.array([law.allocate(each)[0] for each in c])
    n = best * np.tile(np.geomspace(0.25, 4, 41), 5)
    return law, n, c, law.loss(n, c / (6 * n))


def test_allocations_agree_with_the_law_behind_them():
    law, n, c, loss = profiles()
    for found in (IsoFlop.fit_points(n, c, loss), IsoFlop.fit_points(n, c, loss, scale="linear")):
        assert found.a == pytest.approx(law.exponents[0], abs=1e-6)
        assert found.allocate(1e23) == pytest.approx(law.allocate(1e23), rel=1e-5)
    parabola = ChinchillaIsoFlop.fit_points(n, c, loss)
    assert parabola.a == pytest.approx(law.exponents[0], abs=0.01)
    assert np.prod(parabola.allocate(1e21)) == pytest.approx(1e21 / 6)
    with pytest.raises(InputError, match="scale must be 'log' or 'linear'"):
        IsoFlop.fit_points(n, c, loss, scale="square")
    with pytest.raises(FitError, match="2 or more budgets with 3 sizes"):
        ChinchillaIsoFlop.fit_points(n[:41], c[:41], loss[:41])
    with pytest.raises(FitError, match="optima at 2 or more compute budgets"):
        IsoFlop.fit_points(n[:41], c[:41], loss[:41])


def test_budgets_puts_nearly_equal_ones_together():
    groups = budgets(np.array([1e20, 1.01e20, 5e20, 1e19]))
    assert [g.tolist() for g in groups] == [[3], [0, 1], [2]]


def test_the_envelope_of_curves_finds_the_exponent():
    law = Chinchilla.refit()
    sizes = np.geomspace(3e7, 3e9, 25)
    runs = table(sizes, 2e11, batch=1e6, loss=None)
    steps = np.unique(np.geomspace(50, 2e5, 200).astype(int)).astype(float)
    names = [name for name in runs.run_id for _ in steps]
    loss = np.concatenate([law.loss(n, steps * 1e6) for n in sizes])
    curves = CurveTable(tuple(names), np.tile(steps, len(sizes)), loss)
    found = ChinchillaEnvelope.fit(runs, curves)
    assert found.a == pytest.approx(law.exponents[0], abs=0.03)
    gone = np.array([name == runs.run_id[3] for name in names])  # a run that broke down has no readings to use
    broken = ChinchillaEnvelope.fit(runs, CurveTable(tuple(names), curves.step, np.where(gone, np.nan, loss)))
    assert broken.a == pytest.approx(law.exponents[0], abs=0.03)
    final = ChinchillaEnvelope.fit_points(sizes, 6 * sizes * 2e11, law.loss(sizes, 2e11))
    assert final.a == pytest.approx(1.0, abs=1e-6)  # one horizon: more compute is more parameters


def test_a_rate_that_falls_below_zero_is_no_advice():
    """The published line in ln N crosses 0 near 12B parameters."""
    law = OpenAIRate.published()
    assert law.recommend(1e10, 1e12).peak_lr > 0
    assert np.isnan(law.recommend(7e10, 1e12).peak_lr)
    assert np.isfinite(law.recommend(7e10, 1e12, 2.0).batch_tokens)
