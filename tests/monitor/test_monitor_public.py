"""The monitor on public runs: targets of the re-forecast with families left out, and no false alarm."""

import numpy as np
import pytest

from optlaws import fit_law, read_curves, read_runs
from optlaws.monitor import Monitor, learn_prior, paths, reforecast

TARGETS = {0.25: 0.25, 0.5: 0.12}


@pytest.fixture(scope="module")
def schaipp(data_dir):
    runs, curves = read_runs(data_dir / "schaipp_runs.csv"), read_curves(data_dir / "schaipp_curves.csv")
    return runs, curves, np.array([s.kind for s in runs.schedule_tuple()])


@pytest.fixture(scope="module")
def families(schaipp):
    """Law and prior by the family that they were fitted without."""
    runs, curves, kind = schaipp
    found = {}
    for family in np.unique(kind):
        part = runs.select(kind != family)
        law = fit_law(part)
        found[family] = law, learn_prior(law, part, curves)
    return found


def test_targets_of_the_reforecast_with_families_left_out(schaipp, families):
    runs, curves, kind = schaipp
    where = curves.runs()
    for cut, target in TARGETS.items():
        errors, before = [], []
        for family, (law, prior) in families.items():
            rows = np.flatnonzero(kind == family)
            for i, path in zip(rows, paths(law, runs.select(rows)), strict=True):
                index = where[runs.run_id[i]]
                index = index[curves.step[index] <= cut * path.total]
                if (curves.step[index] >= path.start).sum() < 3 or curves.step[index][-1] < 0.8 * cut * path.total:
                    continue
                f = reforecast(path, prior, curves.step[index], np.log(curves.loss[index]))
                errors.append(100 * abs(f.loss / runs.final_loss[i] - 1))
                before.append(100 * abs(f.prior_loss / runs.final_loss[i] - 1))
        assert len(errors) > 90
        assert np.mean(errors) <= target
        assert np.mean(errors) <= np.mean(before)


def test_no_alarm_on_any_completed_run(schaipp, families):
    runs, curves, kind = schaipp
    for name, rows in curves.runs().items():
        i = runs.run_id.index(name)
        law, prior = families[kind[i]]
        monitor = Monitor(law, runs.select([i]), prior=prior)
        for step, loss in zip(curves.step[rows], curves.loss[rows], strict=True):
            monitor.update(step, loss)
        assert not [alarm for alarm in monitor.history if alarm.kind == "divergence"], name


def test_no_divergence_alarm_on_the_multi_power_law_curves(data_dir):
    runs, curves = read_runs(data_dir / "mpl_runs.csv"), read_curves(data_dir / "mpl_curves.csv")
    law = fit_law(runs)
    for name, rows in curves.runs().items():
        monitor = Monitor(law, runs.select([runs.run_id.index(name)]))
        for step, loss in zip(curves.step[rows], curves.loss[rows], strict=True):
            monitor.update(step, loss)
        assert not [alarm for alarm in monitor.history if alarm.kind == "divergence"], name
