"""Choosing runs: a naive twin that conditions full covariances, budgets that hold, and what a run must be worth."""

import numpy as np
import pytest
from made_runs import plan

from optlaws.dynamics import final_states
from optlaws.features import get_basis
from optlaws.regression.design import Joint, _affordable, choose_runs, joint_prior
from optlaws.regression.settings import Settings


@pytest.fixture(scope="module")
def joint():
    runs, basis, settings = plan(batch_tokens=5e4, tokens=None), get_basis(), Settings()
    states = final_states(runs, basis.dynamics)
    peak = np.asarray(runs.batch().peak)
    return joint_prior(
        basis.evaluate(states),
        basis.coordinates(states, peak, basis.peak_scale(peak, settings.peak_gaps)),
        np.log(states.n),
        coefficients=basis.centre,
        scale=basis.prior,
        damage_columns=basis.damage,
        peak_columns=basis.peaks,
        settings=settings,
    )


def conditioned(joint, known, i):
    """The variance of point i given noisy losses of some others: by the textbook formula, all at once."""
    here = np.array([i])
    if not len(known):
        return joint.between(here, here)[0, 0]
    seen = joint.between(known, known) + np.diag(joint.noise[known])
    cross = joint.between(here, known)[0]
    return joint.between(here, here)[0, 0] - cross @ np.linalg.solve(seen, cross)


def naive(joint, pool, targets, count, known=()):
    """The greedy choice with every candidate tried in full."""
    done, chosen = list(known), []
    for _ in range(count):
        left = [i for i in pool if i not in chosen]
        sums = [np.mean([conditioned(joint, np.array([*done, i]), t) for t in targets]) for i in left]
        best = left[int(np.argmin(sums))]
        done.append(best)
        chosen.append(best)
    return chosen


def test_variances_are_those_of_the_prior(joint):
    every = np.arange(len(joint.noise))
    np.testing.assert_allclose(joint.variances(), np.diag(joint.between(every, every)), rtol=1e-12)
    assert np.linalg.eigvalsh(joint.between(every, every)).min() > -1e-9


@pytest.mark.parametrize("known", [(), (3, 20)])
def test_naive_twin(joint, known):
    n = len(joint.noise)
    targets, pool = np.arange(n - 4, n), np.array([i for i in range(n - 4) if i not in known])
    picked, variances = choose_runs(joint, pool, targets, 6, known=np.array(known, dtype=int))
    assert picked.tolist() == naive(joint, pool, targets, 6, known)
    for k in range(7):
        seen = np.array([*known, *picked[:k]], dtype=int)
        full = np.mean([conditioned(joint, seen, t) for t in targets])
        assert variances[k] == pytest.approx(full, rel=1e-6)


def test_known_runs_count_whatever_their_order_and_number(joint):
    """Half of all points known at once, one of them twice, is what the textbook formula makes of them."""
    n = len(joint.noise)
    known = np.random.default_rng(4).permutation(n - 2)[: n // 2]
    known = np.append(known, known[0])  # two runs alike: their noise differs
    pool = np.setdiff1d(np.arange(n - 2), known)
    picked, variances = choose_runs(joint, pool, np.array([n - 2, n - 1]), 2, known=known)
    again, others = choose_runs(joint, pool, np.array([n - 2, n - 1]), 2, known=known[::-1])
    assert picked.tolist() == again.tolist() == naive(joint, pool, [n - 2, n - 1], 2, known)
    for k in range(3):
        seen = np.concatenate([known, picked[:k]])
        full = np.mean([conditioned(joint, seen, t) for t in (n - 2, n - 1)])
        assert (variances[k], others[k]) == pytest.approx((full, full), rel=1e-6)


def test_every_run_narrows(joint):
    n = len(joint.noise)
    picked, variances = choose_runs(joint, np.arange(n - 2), np.arange(n - 2, n), n - 2)
    assert sorted(picked.tolist()) == list(range(n - 2))
    assert (np.diff(variances) <= 1e-15).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_budgets_hold(joint, seed, exponent):
    n = len(joint.noise)
    random = np.random.default_rng(seed)
    cost, pool, count = random.lognormal(0, 2, n), np.arange(n - 1), 7
    least = np.sort(cost[pool])[:count].sum()
    for budget in (least, 1.5 * least, 10 * least, cost.sum()):
        picked, _ = choose_runs(
            joint, pool, np.array([n - 1]), count, cost=cost, budget=budget, exponent=exponent
        )  # fmt: skip
        assert len(set(picked.tolist())) == count
        assert cost[picked].sum() <= budget * (1 + 1e-9)


def test_affordable_is_what_trying_says():
    random = np.random.default_rng(0)
    for _ in range(200):
        cost, more = random.integers(1, 9, 6).astype(float), int(random.integers(0, 6))
        budget = float(random.integers(1, 40))
        tried = [c + np.sort(np.delete(cost, i))[:more].sum() <= budget for i, c in enumerate(cost)]
        if any(tried):
            assert _affordable(cost, budget, more).tolist() == tried


def test_a_noisy_twin_is_worth_less():
    """Of two points that say the same the one with less noise is taken, and a point that says nothing is left."""
    features = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    joint = Joint(features, 100.0 * np.arange(4)[:, None], 0.01, np.array([0.5, 0.1, 0.1, 0.1]))
    picked, variances = choose_runs(joint, np.array([0, 1, 2]), np.array([3]), 2)
    assert picked.tolist() == [1, 0]
    own = 4.0 + 0.01**2
    assert variances[:2] == pytest.approx([own, own - 4.0 / (1.0 + 0.01**2 + 0.1)])


def test_damage_is_noise(joint):
    """Runs at high rates scatter more, and the model says so before a coefficient is known."""
    runs = plan(batch_tokens=5e4)
    peak = np.asarray(runs.batch().peak)
    assert joint.noise[peak == peak.max()].mean() > joint.noise[peak == peak.min()].mean()
    assert (joint.noise >= Settings().noise_typical ** 2).all()


def test_noise_is_that_of_a_law_of_the_expected_coefficients(joint):
    """Run by run and column by column; where the expected coefficient is 0, the mean of a half-normal of the prior."""
    basis, settings = get_basis(), Settings()
    runs = plan(batch_tokens=5e4, tokens=None)
    columns = basis.evaluate(final_states(runs, basis.dynamics))
    for row, told in zip(columns, joint.noise, strict=True):
        loss = sum(c * x for c, x in zip(basis.centre, row, strict=True))
        shares = {
            name: (centre if centre > 0 else np.sqrt(2 / np.pi) * prior) * x / loss
            for name, centre, prior, x in zip(basis.names, basis.centre, basis.prior, row, strict=True)
        }
        hurt = sum(share for name, share in shares.items() if name.startswith(("variance", "peak", "escape")))
        spikes = settings.spike_typical * sum(share for name, share in shares.items() if name.startswith("peak"))
        assert told == pytest.approx(1e-6 * (1.0 + (hurt / settings.noise_growth) ** 2) + spikes, rel=1e-9)


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_gain_per_price(joint, exponent):
    """Each choice takes most off the variance for its price to that power, tried one by one."""
    n = len(joint.noise)
    cost = np.random.default_rng(2).lognormal(0, 2, n)
    pool, targets, done = list(range(n - 2)), [n - 2, n - 1], []
    picked, _ = choose_runs(joint, np.array(pool), np.array(targets), 5, cost=cost, exponent=exponent)
    for chosen in picked.tolist():
        now = np.mean([conditioned(joint, np.array(done, dtype=int), t) for t in targets])
        left = [i for i in pool if i not in done]
        worth = [
            (now - np.mean([conditioned(joint, np.array([*done, i]), t) for t in targets])) / cost[i] ** exponent
            for i in left
        ]
        assert chosen == left[int(np.argmax(worth))]
        done.append(chosen)
    free, _ = choose_runs(joint, np.array(pool), np.array(targets), 5)
    assert cost[picked].sum() < 0.5 * cost[free].sum()


def test_runs_of_one_size_share_what_is_its_own():
    """Two points that the columns and the field cannot tell apart: of one size they err alike, of two not quite."""
    settings, basis = Settings(), get_basis()
    columns = np.tile(basis.centre + 0.1, (3, 1))
    joint = joint_prior(
        columns, np.zeros((3, 2)), np.log([1.0, 1.0, 2.0]), coefficients=basis.centre, scale=basis.prior,
        damage_columns=basis.damage, peak_columns=basis.peaks, settings=settings,
    )  # fmt: skip
    every = np.arange(3)
    covariance = joint.between(every, every)
    assert covariance[0, 0] == pytest.approx(covariance[0, 1], rel=1e-12)
    assert covariance[0, 1] - covariance[0, 2] == pytest.approx(settings.size_sd**2, rel=1e-6)
    picked, _ = choose_runs(joint, np.array([1, 2]), np.array([0]), 1)
    assert picked.tolist() == [1]
