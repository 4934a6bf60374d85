"""Risk of laws whose runs are not like the public ones: other optimizers in other units, and other critical rates."""

from pathlib import Path

import numpy as np
import pytest

from optlaws.law import fit_law, with_risk
from optlaws.risk import run_labels
from optlaws.runs import RunTable, read_runs
from optlaws.sweeps import load_sweep

RUNS = Path(__file__).resolve().parents[2] / "examples" / "my_runs.csv"


def at_times(runs, times, optimizer):
    """The same runs by an optimizer whose rates are so many times higher; the decay of every step stays."""
    return RunTable.build(
        [schedule.scaled(times) for schedule in runs.schedule_tuple()], params=runs.params, tokens=runs.tokens,
        batch_tokens=runs.batch_tokens, optimizer=optimizer, weight_decay=0.1 / times, status=runs.status,
        final_loss=runs.final_loss,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("times", "optimizer"), [(1, "adamw"), (20, "muon"), (100, "sgd"), (0.1, "lion"), (10, "adamw")]
)
def test_runs_that_all_ended_are_not_called_dangerous_for_their_unit_of_the_rate(times, optimizer):
    runs = at_times(read_runs(RUNS), times, optimizer)
    risk = with_risk(fit_law(runs), runs).risks(runs)
    assert risk.sum() < 1.5  # none of the 36 diverged
    assert risk.max() < 0.2
    higher = at_times(runs, 20, optimizer)
    assert (with_risk(fit_law(runs), runs).risks(higher) > 0.5).all()  # and rates that nobody tried are not safe


@pytest.mark.parametrize("name", ["cpu_sweep_rich", "cpu_sweep_seeds"])
def test_tiny_networks_have_a_critical_rate_of_their_own(name):
    """Theirs lies far above those of the public runs; their own outcomes say so."""
    runs, _ = load_sweep(name)
    law = with_risk(fit_law(runs, own_units=True), runs)
    risk, bad = law.risks(runs), run_labels(runs) > 0
    assert law.risk.mean[-1] > 0.3
    assert abs(risk.sum() - bad.sum()) < 0.35 * bad.sum()
    assert np.mean(risk[bad] > 0.05) > 0.9
    assert np.mean(risk[~bad] > 0.05) < 0.1


def test_a_blurred_boundary_of_ones_own_runs_is_learnt():
    """P(diverge) = 1 / (1 + (critical / rate)^(1/.3)), five times as blurred as among the public runs; 150 runs."""

    def draw(count, rng):
        peaks, sizes = (
            np.exp(rng.uniform(np.log(5e-4), np.log(1.6e-2), count)),
            rng.choice([2e7, 4e7, 8e7, 1.6e8], count),
        )
        batches, steps = rng.choice([65536, 131072, 262144], count), rng.choice([5000, 10000, 20000, 40000], count)
        kinds = rng.choice(["cosine", "linear", "wsd"], count)
        specs = [f"{k}:peak={p},steps={s},warmup=300" for k, p, s in zip(kinds, peaks, steps, strict=True)]
        chance = 1 / (1 + (6e-3 / peaks * (8e7 / sizes) ** 0.3) ** (1 / 0.3))
        return specs, {"params": sizes, "batch_tokens": batches, "optimizer": "adamw", "weight_decay": 0.1}, chance

    said, true = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        specs, sizes, chance = draw(150, rng)
        bad = rng.random(150) < chance
        loss = np.where(bad, np.nan, 3.0 * (sizes["params"] / 8e7) ** -0.05 * (1 + 0.001 * rng.standard_normal(150)))
        runs = RunTable.build(
            specs, **sizes, status=["diverged" if one else "completed" for one in bad], final_loss=loss
        )
        specs, sizes, chance = draw(200, rng)
        said += with_risk(fit_law(runs), runs).risks(RunTable.build(specs, **sizes)).tolist()
        true += chance.tolist()
    said, true = np.array(said), np.array(true)
    for low, high in ((0.01, 0.1), (0.1, 0.4), (0.4, 0.8), (0.8, 1.0)):
        among = (said >= low) & (said < high)
        assert among.sum() > 40
        assert abs(said[among].mean() - true[among].mean()) < 0.1
