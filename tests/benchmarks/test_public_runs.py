"""What the default fit reaches on the public runs, groups left out: bounds a little above the measured figures."""

import sys
from pathlib import Path

import numpy as np
import pytest

from optlaws.errors import OptlawsWarning

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def public(data_dir):
    """The module of the splits, reading the tables where the tests found them."""
    before = sys.path[:]
    sys.path.insert(0, str(BENCHMARKS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPTLAWS_DATA", str(data_dir))
        import public

        yield public
    sys.path[:] = before


def need(public, name, count):
    """Skip where the table is not the one on which the bounds were measured."""
    found = len(public.load(name))
    if found != count:
        pytest.skip(f"bounds were measured on {count} runs of {name}, found {found}")


@pytest.fixture(scope="module")
def schaipp(public):
    need(public, "schaipp", 181)
    return public.schaipp_rows()


SPLITS = (
    "horizon > 25k",
    "cosine from WSD",
    "WSD from cosine",
    *(f"peak {rate} left out" for rate in ("0.0001", "0.0005", "0.001", "0.002")),
    "sizes > 60M",
    "sizes > 100M",
)
MISSED: dict[str, float] = {}  # targets that are not reached, with a figure a little above the measured one


@pytest.mark.parametrize("split", SPLITS)
def test_left_out_schedules_horizons_and_sizes(schaipp, split):
    from accuracy import TARGETS

    assert set(TARGETS) == set(SPLITS)
    assert schaipp[split]["error"] <= MISSED.get(split, TARGETS[split])
    assert schaipp[split]["spearman"] >= 0.97


def test_constant_rates_by_a_law_of_annealed_runs(schaipp):
    """No target was set for them: the law has seen no run that ends at its peak, and its intervals say so."""
    row = schaipp["constant from both"]
    assert row["error"] < 0.75
    assert row["cover"] >= 0.86
    assert row["spearman"] >= 0.97


def test_splits_leave_out_whole_groups(public):
    """No family, horizon, size or rate that is judged is in the training part of its split."""
    runs = public.completed(public.load("schaipp"))
    kind = np.array([s.kind for s in runs.schedule_tuple()])
    peak, n, steps = np.asarray(runs.batch().peak).round(9), public.sizes(runs), runs.steps
    for name, (train, test) in public.schaipp_splits(runs).items():
        assert train.any()
        assert test.any()
        left_out = {"hor": steps, "cos": kind, "con": kind, "WSD": kind, "pea": peak, "siz": n}[name[:3]]
        assert not set(left_out[train]) & set(left_out[test]), name
        if name.startswith(("horizon", "sizes")):
            assert left_out[train].max() < left_out[test].min()


def test_fits_of_curves_are_handed_no_held_out_reading(public):
    class Stop(Exception):  # noqa: N818
        pass

    seen = []

    def fit(train, curves):
        seen.append((set(train.run_id), set(curves.run_id)))
        raise Stop

    with pytest.raises(Stop):
        public.mpl_rows(fit)
    runs, curves = seen[0]
    assert runs == curves == {f"25M-{shape}" for shape in public.FITTED}


def test_left_out_pools_and_intervals(schaipp):
    rows = list(schaipp.values())
    assert sum(row["hits"] for row in rows) >= 26
    assert sum(row["pools"] for row in rows) == 27
    runs = np.array([row["runs"] for row in rows])
    cover = np.array([row["cover"] for row in rows])
    assert 0.86 <= (runs * cover).sum() / runs.sum() <= 0.96


@pytest.mark.slow
def test_left_out_sizes_of_the_step_law_grid(public):
    need(public, "steplaw", 2146)
    row = public.steplaw_rows("steplaw-dense", "params")
    assert row["error"] <= 0.35
    assert row["regret"] <= 0.055
    assert 0.86 <= row["cover"] <= 0.97


def test_whole_curves_beat_the_multi_power_law(public):
    need(public, "mpl", 21)
    rows = public.mpl_rows()
    assert rows["25M"]["pred_e"] <= 0.00065  # Multi-Power Law 0.00110
    assert rows["100M"]["pred_e"] <= 0.00055  # 0.00142
    assert rows["25M"]["final"] <= 0.0036  # 0.0050
    assert rows["100M"]["final"] <= 0.0040  # 0.0089


def test_the_built_in_law_carries_no_run(public):
    """Its field lies at points of a design: no training run is among them."""
    from optlaws.dynamics import final_states
    from optlaws.law import load_law

    law = load_law("llama-slimpajama")
    runs = public.completed(public.load("schaipp"))
    full, _ = law.complete(runs)
    view = law.view(final_states(full, law.basis.dynamics), np.asarray(full.batch().peak), curve=False)
    apart = np.linalg.norm(view.coordinates[:, None] - law.posterior.inducing[None], axis=2)
    assert apart.min() > 1e-3
    error = 100 * np.abs(law.predict(runs).loss / runs.final_loss - 1)
    assert error.mean() < 0.06


def test_tiny_batches_and_few_steps(public):
    with pytest.warns(OptlawsWarning, match="scatter by 1 % or more"):
        rows = public.nqs_rows()
    assert max(row["rmsle"] for row in rows.values()) <= 3.5
