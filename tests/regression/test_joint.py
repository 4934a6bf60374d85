"""Combinations of quantities that no run had: named where runs went together, and nowhere else."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_runs import plan, with_losses

from optlaws.errors import LawError, OptlawsWarning
from optlaws.law import Law, fit_law, load_law
from optlaws.law.joint import NAMES, SLACK, Joint
from optlaws.runs import RunTable

SIZES = np.geomspace(1e7, 1.6e8, 5)


def ridge():
    """Longer runs of larger models alone, lengths of one size a fifth apart."""
    tables = []
    for k, size in enumerate(SIZES):
        steps = tuple(int(3000 * size / 1e7 * factor) for factor in (0.9, 1.1))
        one = plan(params=(size,), steps=steps)
        tables.append(replace(one, run_id=tuple(f"{k}-{name}" for name in one.run_id)))
    return with_losses(RunTable.concat(tables), noise=0.0005)


@pytest.fixture(scope="module")
def law():
    return fit_law(ridge())


def test_a_small_model_trained_for_long_is_unlike_runs_of_which_the_large_are_long(law):
    odd = plan(params=(1.2e7,), steps=(40000,), peaks=(1e-3,))
    p = law.predict(odd)
    assert law.domain["params"][0] < 1.2e7 < law.domain["params"][1]
    assert law.domain["steps"][0] < 40000 < law.domain["steps"][1]
    assert not p.in_domain.any()
    assert p.reasons[0] == "params 12M with steps 40K: no run in training had such a combination"
    near = plan(params=(2.5e7,), steps=(8000,), peaks=(6e-4,))
    assert law.predict(near).in_domain.all()


def test_of_runs_of_all_combinations_none_is():
    every = with_losses(plan(peaks=(3e-4, 1e-3, 3e-3), steps=(3000, 9000, 27000), params=(2e7, 6e7)), noise=0.0005)
    law = fit_law(every)
    inside = plan(peaks=(3e-4, 5e-4, 3e-3), steps=(3000, 5000, 27000), params=(2e7, 4e7, 6e7))
    assert law.predict(inside).in_domain.all()
    assert not law.joint.reasons({name: np.ones(1) for name in NAMES[:2]}, np.ones(1, dtype=bool))  # a quantity lacks


def test_distances_are_mahalanobis_and_do_not_depend_on_units():
    rng = np.random.default_rng(0)
    logs = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4))
    values = dict(zip(NAMES, np.exp(logs).T, strict=True))
    found = Joint.of(values)
    gap = logs - logs.mean(axis=0)
    cov = gap.T @ gap / 50 + 0.15**2 * np.eye(4)
    direct = np.array([g @ np.linalg.solve(cov, g) for g in gap])
    np.testing.assert_allclose(found.shares(values).sum(axis=1), direct, rtol=1e-9)
    assert found.limit == pytest.approx(SLACK * direct.max(), rel=1e-9)
    assert not found.reasons(values, np.ones(50, dtype=bool))
    other = {name: 1000.0 * v for name, v in values.items()}
    np.testing.assert_allclose(Joint.of(other).shares(other), found.shares(values), atol=1e-8)


def test_few_runs_have_none():
    few = with_losses(plan(peaks=(1e-3,), steps=(3000, 6000), params=(2e7,)), noise=0.0005)
    with pytest.warns(OptlawsWarning, match="6 runs for 16 columns"):
        assert fit_law(few).joint is None


def test_law_files_keep_it(law, tmp_path):
    law.save(tmp_path / "law.json")
    odd = plan(params=(1.2e7,), steps=(40000,), peaks=(1e-3,))
    assert Law.load(tmp_path / "law.json").predict(odd).reasons == law.predict(odd).reasons
    data = json.loads((tmp_path / "law.json").read_text())
    for damage in ({"limit": -1.0}, {"names": ["depth"]}, {"mean": [0.0]}, {"precision": [[1.0, "x"]]}, {"names": 3}):
        (tmp_path / "bad.json").write_text(json.dumps({**data, "joint": {**data["joint"], **damage}}))
        with pytest.raises(LawError):
            Law.load(tmp_path / "bad.json")
    del data["joint"]
    (tmp_path / "old.json").write_text(json.dumps(data))
    assert Law.load(tmp_path / "old.json").joint is None


def test_built_in_laws_know_theirs():
    assert load_law("steplaw-dense").joint.names == NAMES


def test_repeats_do_not_tell_a_shape():
    """Eleven different combinations are too few, however often each was run; twelve are enough."""
    rng = np.random.default_rng(0)
    for count in (11, 12):
        logs = np.repeat(rng.normal(size=(count, 2)), 5, axis=0)
        found = Joint.of({"params": np.exp(logs[:, 0]), "steps": np.exp(logs[:, 1])})
        assert (found is not None) is (count == 12)


def test_a_quantity_that_is_nothing_in_some_run_is_not_looked_at():
    """Of a peak rate of 0 there is no logarithm; the other quantities still tell."""
    rng = np.random.default_rng(1)
    values = {name: np.exp(rng.normal(size=20)) for name in NAMES}
    values["peak_lr"][3] = 0.0
    found = Joint.of(values)
    assert found.names == ("params", "steps", "batch_tokens")
    assert np.isfinite(found.limit)
    assert Joint.of({"peak_lr": np.zeros(20)}) is None


def test_reasons_are_of_those_that_are_asked_about():
    rng = np.random.default_rng(2)
    found = Joint.of({"params": np.exp(rng.normal(size=20)), "steps": np.exp(rng.normal(size=20))})
    far = {"params": np.array([1e9, 1.0, 1e9]), "steps": np.array([1e9, 1.0, 1e9])}
    assert set(found.reasons(far, np.array([True, True, False]))) == {0}
