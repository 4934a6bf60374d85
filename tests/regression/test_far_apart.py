"""What candidates far outside a law's domain do not share: the order of schedules there is less sure, too."""

import numpy as np
import pytest
from made_runs import plan, with_losses
from threadpoolctl import threadpool_limits

from optlaws import load_law, rank
from optlaws.law import fit_law
from optlaws.law.domain import FAR_APART, far_apart
from optlaws.runs import RunTable


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def law():
    return fit_law(with_losses(plan(), noise=0.0005))


def two(law, batch, steps=6000, params=6e7, shapes=("cosine", "constant")):
    runs = RunTable.build(
        [f"{shape}:peak=1e-3,steps={steps},warmup=300" for shape in shapes],
        params=params, batch_tokens=batch, optimizer="adamw", weight_decay=0.1,
    )  # fmt: skip
    return runs, law.predict(runs)


def spread(prediction):
    """Standard deviation of the difference of two expected ln losses."""
    c = prediction.covariance(slice(None)) / np.outer(prediction.loss, prediction.loss)
    return float(np.sqrt(c[0, 0] + c[1, 1] - 2 * c[0, 1]))


def test_formula():
    """The sds of the quantities, one for every factor of e beyond the free one, are added in squares."""
    domain = {"batch_tokens": (5e4, 5e4), "steps": (1000.0, 8000.0), "params": (1e7, 1e8), "restarts": (0.0, 0.0)}
    inside = {"batch_tokens": 5e4, "steps": 9000.0, "params": 7e8, "restarts": 0.0}

    def sd(**changed):
        found = far_apart({name: np.array([v, inside[name]]) for name, v in (inside | changed).items()}, domain)
        return None if found is None else found.tolist()

    assert sd() is None
    batch, steps = FAR_APART["batch_tokens"][2], FAR_APART["steps"][2]
    assert sd(batch_tokens=5e5) == pytest.approx([batch * np.log(10 / 1.05), 0.0])
    assert sd(batch_tokens=5e3) == sd(batch_tokens=5e5)
    both = np.hypot(batch * np.log(10 / 1.05), steps * np.log(80 / 4))
    assert sd(batch_tokens=5e5, steps=640e3) == pytest.approx([both, 0.0])
    assert sd(restarts=1.0) == pytest.approx([FAR_APART["restarts"][2] * np.log(2 / 1.05), 0.0])
    assert sd(batch_tokens=np.nan) is None


def test_differences_widen_with_the_distance(law):
    near, *far = (spread(two(law, 51200.0 * times)[1]) for times in (1, 4, 16))
    assert near < far[0] < far[1]
    twins = two(law, 51200.0 * 16, shapes=("cosine", "cosine"))[1]
    assert spread(twins) == pytest.approx(0, abs=1e-7)  # what is alike is as far out in every way


def test_intervals_and_covariances_agree(law):
    _, p = two(law, 51200.0 * 16, steps=60000)
    np.testing.assert_allclose(np.diag(p.covariance(slice(None))), p.sd**2 - p.noise**2, rtol=1e-6)
    np.testing.assert_allclose(p.covariance_with(1), p.covariance(slice(None))[:, 1], rtol=1e-9)
    np.testing.assert_allclose(p.covariance([1, 0]), p.covariance(slice(None))[::-1, ::-1], rtol=1e-9)


def test_twin(law, monkeypatch):
    """A Matern 3/2 field over the coordinates with the sds of the runs, beside all that there is without it."""
    runs = RunTable.build(
        [f"{shape}:peak=1e-3,steps={steps},warmup=300" for shape in ("cosine", "constant") for steps in (6000, 90000)],
        params=6e7, batch_tokens=[51200.0, 51200.0, 409600.0, 51200.0], optimizer="adamw", weight_decay=0.1,
    )  # fmt: skip
    p = law.predict(runs)
    places, found = p._view.coordinates, p.covariance(slice(None)) / np.outer(p.loss, p.loss)
    monkeypatch.setattr("optlaws.law.model.far_apart", lambda values, domain: None)
    plain = law.predict(runs).covariance(slice(None)) / np.outer(p.loss, p.loss)
    sd = np.array([0.0, np.log(90000 / 12000 / 4), np.log(8 / 1.05), np.log(90000 / 12000 / 4)])
    sd *= [0, FAR_APART["steps"][2], FAR_APART["batch_tokens"][2], FAR_APART["steps"][2]]
    apart = np.sqrt(3 * np.square(places[:, None] - places[None]).sum(axis=2))
    np.testing.assert_allclose(found - plain, np.outer(sd, sd) * (1 + apart) * np.exp(-apart), atol=1e-10)
    assert (np.diag(found - plain) > 0).tolist() == [False, True, True, True]


def test_the_built_in_law_is_not_sure_of_shapes_at_ten_times_its_batch():
    """It has seen one batch; that noise matters less at a larger one is by its equations alone."""
    shapes = ["constant:peak=3e-4,steps=24000,warmup=300", "cosine:peak=3e-4,steps=24000,warmup=300,final=3e-5"]
    law = load_law("llama-slimpajama")

    def surest(batch, params=100e6):
        runs = RunTable.build(shapes, params=params, batch_tokens=batch, optimizer="adamw", weight_decay=0.1)
        return max(rank(runs, law).p_best)

    assert surest(51200.0) > 0.95
    assert surest(524288.0) < 0.8
