"""Where the domain of a law ends: a little beyond its runs in each quantity, in combinations, and in shape."""

from dataclasses import replace

import numpy as np
import pytest
from made_runs import plan, with_losses

from optlaws.law import fit_law
from optlaws.law.domain import far_out
from optlaws.law.joint import NAMES, Joint
from optlaws.runs import RunTable
from optlaws.schedules import parse

TEXT = "cosine:peak={peak},steps={steps},warmup={warmup},final=1e-4"
USUAL = {
    "peak": 1e-3, "steps": 6000, "warmup": 300, "params": 3e7, "batch_tokens": 51200.0, "weight_decay": 0.1,
    "beta1": 0.9, "beta2": 0.95,
}  # fmt: skip


@pytest.fixture(scope="module")
def law():
    """Of peaks 3e-4 to 2e-3, 3000 to 12000 steps, 20M to 60M, warm-up 300; any combination of them is as good."""
    runs = with_losses(plan(), noise=0.0005)
    runs = replace(runs, beta1=np.full(len(runs), 0.9), beta2=np.full(len(runs), 0.95))
    return replace(fit_law(runs), joint=None)


def one(**columns):
    given = USUAL | columns
    spec = TEXT.format(**{name: given.pop(name) for name in ("peak", "steps", "warmup")})
    return RunTable.build([parse(spec)], **given)


def reasons(law, runs):
    return law.predict(runs).reasons[0]


@pytest.mark.parametrize(
    ("column", "name", "inside", "outside"),
    [
        ("peak", "peak_lr", (2e-3, 2.08e-3, 2.9e-4), (2.2e-3, 2.7e-4)),
        ("steps", "steps", (12000, 12480, 2880), (13200, 2700)),
        ("params", "params", (6e7, 6.24e7, 1.92e7), (6.6e7, 1.8e7)),
        ("batch_tokens", "batch_tokens", (51200.0, 53200.0, 49200.0), (56400.0, 46000.0)),
        ("weight_decay", "weight_decay", (0.1, 0.104, 0.096), (0.11, 0.09)),
        ("warmup", "warmup_steps", (300, 800, 110), (1000, 90)),  # by its order of magnitude
        ("beta1", "beta1", (0.9, 0.93, 0.86), (0.94, 0.84)),  # 10 steps of memory; 14 and 7, 17 and 6
        ("beta2", "beta2", (0.95, 0.98, 0.86), (0.985, 0.8)),  # 20 steps; 50 and 7, 67 and 5
    ],
)
def test_the_domain_reaches_a_little_beyond_the_runs(law, column, name, inside, outside):
    """4 % beyond them is inside, 10 % is outside; warm-ups and betas, which matter less, may differ by more."""
    for value in inside:
        said = reasons(law, one(**{column: value})).split("; ")
        assert not any(text.startswith(f"{name} ") for text in said)
    for value in outside:
        p = law.predict(one(**{column: value}))
        assert not p.in_domain[0]
        word = "above" if value > inside[0] else "below"
        assert any(text.startswith(f"{name} ") and f" {word} " in text for text in p.reasons[0].split("; "))


def test_a_combination_is_new_a_little_beyond_the_outermost_run():
    """From the middle outwards: a run 5 % further out than any is taken for one of them, one 20 % further is not."""
    rng = np.random.default_rng(3)
    logs = rng.normal(size=(40, 4)) @ rng.normal(size=(4, 4))
    found = Joint.of(dict(zip(NAMES, np.exp(logs).T, strict=True)))
    gap = logs - logs.mean(axis=0)
    outermost = gap[np.argmax(((gap @ found.precision) * gap).sum(axis=1))]
    for times, unlike in ((1.0, False), (1.05, False), (1.2, True)):
        at = np.exp(logs.mean(axis=0) + times * outermost)[:, None]
        said = found.reasons(dict(zip(NAMES, at, strict=True)), np.ones(1, dtype=bool))
        assert bool(said) is unlike


@pytest.fixture(scope="module")
def cosines(law):
    """A law of cosines alone."""
    runs = with_losses(plan(), noise=0.0005)
    return fit_law(runs.select(np.array([s.kind == "cosine" for s in runs.schedule_tuple()])))


@pytest.mark.parametrize(
    ("text", "unlike"),
    [
        ("constant:peak=1e-3,steps=6000,warmup=300", True),
        ("wsd:peak=1e-3,steps=6000,warmup=300,decay=0.02", True),
        ("two_stage:peak=1e-3,steps=6000,switch=0.05,second=1e-5,warmup=300", True),
        ("cosine:peak=6e-4,steps=5000,warmup=300,final=6e-5", False),
        ("linear:peak=1e-3,steps=6000,warmup=300", False),
        ("wsd:peak=1e-3,steps=6000,warmup=300,decay=0.5", False),
        ("wsd:peak=1e-3,steps=6000,warmup=300,decay=0.2", False),
    ],
)
def test_a_law_of_cosines_knows_what_is_unlike_them(cosines, text, unlike):
    """Rates that hardly fall, or are gone at once, are; those that fall over a fifth of a run or more are not."""
    runs = RunTable.build([parse(text)], params=3e7, batch_tokens=51200.0, weight_decay=0.1)
    assert ("schedule unlike those in training" in reasons(cosines, runs)) is unlike


def test_candidates_equally_far_out_share_what_is_not_known_there(law):
    """A memory of 50 steps under a law of 10: each loss is uncertain, their difference as sure as at 10."""
    pairs = []
    for beta1 in (0.98, 0.9):
        p = law.predict(RunTable.concat([one(peak=6e-4, beta1=beta1), replace(one(beta1=beta1), run_id=("2",))]))
        c = p.covariance([0, 1])
        np.testing.assert_allclose(np.diag(c), p.sd**2 - p.noise**2, rtol=1e-6)
        c /= np.outer(p.loss, p.loss)
        pairs.append((c[0, 0], c[0, 1], c[0, 0] + c[1, 1] - 2.0 * c[0, 1]))
    (far, far_shared, far_apart), (near, near_shared, near_apart) = pairs
    assert far - near > 0.05**2
    assert far_shared - near_shared == pytest.approx(far - near, rel=1e-9)
    assert far_apart == pytest.approx(near_apart, rel=1e-6)


SIDES = [
    ("params", 16.0, 1), ("params", 16.0, -1), ("batch_tokens", 16.0, 1), ("batch_tokens", 16.0, -1),
    ("peak_lr", 16.0, 1), ("peak_lr", 16.0, -1), ("steps", 16.0, 1), ("steps", 1.05, -1), ("density", 1.05, 1),
    ("density", 1.05, -1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "free", "side"), SIDES)
def test_uncertainty_grows_evenly_with_the_distance(name, free, side):
    """In ln of the quantity: nothing up to a factor that the law is trusted for, twice as much twice as far beyond."""
    low, high = 2.0, 8.0
    end = high if side > 0 else low
    at = np.array([np.sqrt(low * high), *(end * (free * np.exp(far)) ** side for far in (-1e-9, 0.5, 1.0, 2.0))])
    rows = far_out({name: at}, {name: (low, high)})
    sd = np.sqrt((rows**2).sum(axis=1))
    np.testing.assert_allclose(sd[:2], 0.0, atol=1e-12)
    np.testing.assert_allclose(sd[2:] / sd[3], [0.5, 1.0, 2.0], rtol=1e-9)
    assert 0.001 < sd[3] < 0.1  # of the loss, for a factor of e


@pytest.mark.parametrize(("name", "value"), [("warmup_steps", 3000.0), ("weight_decay", 0.5), ("warmup_steps", 0.0)])
def test_other_warm_ups_and_decays_are_less_certain(name, value):
    inside, far, farther = 300.0 if name == "warmup_steps" else 0.1, value, value * 2.0
    rows = far_out({name: np.array([inside, far, farther])}, {name: (inside, inside)})
    sd = np.sqrt((rows**2).sum(axis=1))
    assert sd[0] == 0.0
    assert sd[1] > 0.001
    assert sd[2] > sd[1] or value == 0.0


def test_what_lies_far_out_is_said_once(law):
    """A size ten times the largest makes any schedule and any combination new: the size is the reason."""
    far = one(params=6e8)
    assert reasons(law, far) == "params 600M above 60M, the highest in training"
    both = replace(law, joint=Joint(("params", "steps"), np.log([3e7, 6000.0]), np.eye(2), 0.8))
    assert reasons(both, far) == reasons(law, far)
    odd = one(params=5.8e7, steps=3100)  # inside of both ranges
    assert reasons(law, odd) == ""
    assert reasons(both, odd) == "params 58M with steps 3.1K: no run in training had such a combination"
