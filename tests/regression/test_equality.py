"""Laws and what they hold are equal by content, and not changed by accident."""

from dataclasses import replace

import numpy as np
import pytest

from optlaws._content import Content
from optlaws._ranges import SLACK, outside
from optlaws.law import load_law
from optlaws.monitor.forecast import CurvePrior
from optlaws.runs import RunTable

PARTS = {
    "law": lambda law: law,
    "posterior": lambda law: law.posterior,
    "joint": lambda law: law.joint,
    "risk": lambda law: law.risk,
    "curve prior": lambda law: CurvePrior.default(law.has_curves),
}


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


def test_outside():
    values = np.array([0.0, 1.0 / SLACK - 1e-6, 1.0 / SLACK, 1.0, 2.0 * SLACK, 2.0 * SLACK + 1e-6, np.nan, np.inf])
    assert outside(values, 1.0, 2.0).tolist() == [0, 1, 5, 7]
    assert outside(values, 1.0, 2.0, 3.0).tolist() == [0, 7]
    assert outside([3.0, 5.0], np.array([4.0, 1.0]), np.array([6.0, 4.0]), 1.0).tolist() == [0, 1]
