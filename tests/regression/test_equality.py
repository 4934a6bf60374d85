"""Laws and what they hold are equal by content, and not changed by accident."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from optlaws._content import Content
from optlaws._ranges import SLACK, outside
from optlaws.features import basis_ids, get_basis
from optlaws.law import load_law
from optlaws.law.baseline import fit_baseline
from optlaws.monitor.forecast import CurvePrior
from optlaws.runs import RunTable, read_runs

PARTS = {
    "law": lambda law: law,
    "on another corpus": lambda law: law.on_other_corpus(),
    "posterior": lambda law: law.posterior,
    "joint": lambda law: law.joint,
    "risk": lambda law: law.risk,
    "curve prior": lambda law: CurvePrior.default(law.has_curves),
}


COPIES = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "oldest pickle": lambda value: pickle.loads(pickle.dumps(value, protocol=0)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my_runs.csv"


@pytest.fixture(scope="module")
def two():
    return load_law("steplaw-dense"), load_law("steplaw-dense")


@pytest.mark.parametrize("name", PARTS)
def test_what_was_read_twice_is_equal(two, name):
    a, b = map(PARTS[name], two)
    assert a is not b
    assert a == b
    assert hash(a) == hash(b)
    assert len({a, b}) == 1
    assert a != "something else"


def test_one_number_makes_a_difference(two):
    law = two[0]
    p = law.posterior
    mean = p.mean.copy()
    mean[0] = np.nextafter(mean[0], np.inf)
    moved = replace(law, posterior=replace(p, mean=mean))
    assert moved != law
    assert moved.posterior != p
    for other in (
        replace(law, name="other"),
        replace(law, domain={**law.domain, "steps": (1.0, 2.0)}),
        replace(law, info={**law.info, "n_runs": -1}),
        replace(law, risk=None),
        replace(law, risk=replace(law.risk, scatter=0.5)),
        replace(law, joint=replace(law.joint, limit=1.0)),
        law.on_other_corpus(),
    ):
        assert other != law
    assert replace(moved, posterior=p) == law
    shorter = replace(p, sizes=p.sizes[:1], mean=p.mean[: len(p.inducing) + 2])
    assert shorter != p


def test_a_law_read_again_is_equal(two, tmp_path):
    two[0].save(tmp_path / "law.json")
    assert load_law(tmp_path / "law.json") == two[0]


def arrays(value):
    for key in value.__dataclass_fields__:
        found = getattr(value, key)
        if isinstance(found, np.ndarray):
            yield found
        elif isinstance(found, Content):
            yield from arrays(found)


def test_arrays_of_a_law_are_read_only(two):
    law = two[0]
    found = list(arrays(law))
    assert len(found) >= 8
    for array in (*found, law.posterior.whitening, law.posterior.inverse_root, law.posterior.field_weights):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


def test_the_array_that_was_passed_stays_the_callers():
    mean, covariance = np.zeros(6), np.eye(6)
    prior = CurvePrior(mean, covariance, 0.01)
    mean[0] = 1.0
    assert not prior.mean.flags.writeable
    assert mean.flags.writeable


def test_predictions_are_equal_to_themselves_alone(two):
    runs = RunTable.build(["cosine:peak=1e-3,steps=50000"] * 2, params=2.5e8, batch_tokens=524288)
    one, other = (law.predict(runs) for law in two)
    assert one == one
    assert (one == other) is False
    assert len({one, other}) == 2


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", PARTS)
def test_copies_are_equal_and_read_only(two, name, way):
    value = PARTS[name](two[0])
    again = COPIES[way](value)
    assert again is not value
    assert again == value
    assert hash(again) == hash(value)
    for array in arrays(again):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", basis_ids())
def test_copies_of_bases(name, way):
    basis = get_basis(name)
    again = COPIES[way](basis)
    assert (again, hash(again)) == (basis, hash(basis))
    assert again != replace(basis, note="another")
    for constants in (again.exponents, again.scales):
        with pytest.raises(TypeError, match="does not support item assignment"):
            constants["aN"] = 1.0
    assert basis.with_constants(exponents={"aN": 0.2}) != basis


def test_what_belongs_to_a_copy_is_its_own(two):
    law = two[0]
    before = copy.deepcopy(law)
    before.info["n_runs"] = -1
    assert law.info["n_runs"] != -1
    assert before != law


def test_predictions_and_rival_laws_can_be_copied(two):
    runs = RunTable.build(["cosine:peak=1e-3,steps=50000"] * 2, params=2.5e8, batch_tokens=524288)
    prediction = two[0].predict(runs)
    table = read_runs(EXAMPLE)
    rival = fit_baseline("chinchilla", table)
    for way in COPIES.values():
        again = way(prediction)
        np.testing.assert_array_equal(again.loss, prediction.loss)
        np.testing.assert_array_equal(again.covariance([0, 1]), prediction.covariance([0, 1]))
        np.testing.assert_array_equal(way(rival).predict(table).loss, rival.predict(table).loss)


def test_a_law_predicts_in_a_process_of_its_own():
    law = load_law("llama-slimpajama")
    shapes = ("cosine:peak=1e-3,steps=50000,warmup=300", "wsd:peak=5e-4,steps=50000,warmup=300,decay=0.2")
    runs = RunTable.build(shapes, params=85e6, batch_tokens=51_200)
    here = law.predict(runs)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        again, there = pool.submit(pickle.loads, pickle.dumps(law)), pool.submit(law.predict, runs).result(timeout=240)
        assert again.result(timeout=240) == law
    for name in ("loss", "lower", "upper"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-12)
    np.testing.assert_array_equal(there.in_domain, here.in_domain)


def test_nan_is_nan(two):
    law = two[0]
    known = {**law.info, "odd": float("nan"), "deep": {"list": [1.0, float("nan")]}}
    a, b = (replace(law, info=copy.deepcopy(known)) for _ in range(2))
    assert a == b
    assert a == a
    assert a != replace(law, info={**known, "odd": 0.0})
    lost = replace(law.risk, scatter=float("nan"))
    assert (lost, hash(lost)) == (replace(lost, scatter=float("nan")), hash(lost))
    assert lost != law.risk


def test_tuples_are_lists_in_a_file(two, tmp_path):
    law = replace(two[0], info={**two[0].info, "pair": (1.0, "b", (2, 3))})
    law.save(tmp_path / "law.json")
    again = load_law(str(tmp_path / "law.json"))
    assert again.info["pair"] == [1.0, "b", [2, 3]]
    assert (again, hash(again)) == (law, hash(law))
    assert again != replace(law, info={**law.info, "pair": (1.0, "b", (2, 4))})
    assert again != replace(law, info={**law.info, "pair": (1.0, "b")})


def test_outside():
    values = np.array([0.0, 1.0 / SLACK - 1e-6, 1.0 / SLACK, 1.0, 2.0 * SLACK, 2.0 * SLACK + 1e-6, np.nan, np.inf])
    assert outside(values, 1.0, 2.0).tolist() == [0, 1, 5, 7]
    assert outside(values, 1.0, 2.0, 3.0).tolist() == [0, 7]
    assert outside([3.0, 5.0], np.array([4.0, 1.0]), np.array([6.0, 4.0]), 1.0).tolist() == [0, 1]
