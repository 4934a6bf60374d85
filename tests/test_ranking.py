"""Ranking: joint differences, probabilities of being best, advice."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from fake_law import FixedLaw

from optlaws import load_law
from optlaws import ranking as ranking_module
from optlaws.errors import InputError, LawError, RiskError
from optlaws.ranking import Z, rank
from optlaws.runs import RunTable
from optlaws.schedules import ScheduleBatch, parse


def runs(n, kinds=("cosine",), **columns):
    texts = {"cosine": "cosine:peak={},steps=1000", "wsd": "wsd:peak={},steps=1000,decay=0.2"}
    schedules = [parse(texts[kinds[i % len(kinds)]].format(1e-3 + 1e-6 * i)) for i in range(n)]
    return RunTable.build(schedules, **{"run_id": [str(i + 1) for i in range(n)], **columns})


def many(n):
    return RunTable.build(ScheduleBatch.grid("cosine", peak=np.linspace(1e-4, 1e-3, n), steps=1000))


def brute_force(loss, factors, draws=400_000, seed=5):
    """P(best) by drawing the shared factors themselves, with no covariance and no shortcut."""
    rng = np.random.default_rng(seed)
    wins = np.zeros(len(loss))
    for _ in range(10):
        sample = loss + rng.standard_normal((draws // 10, factors.shape[1])) @ factors.T
        wins += np.bincount(sample.argmin(axis=1), minlength=len(loss))
    return wins / draws


@pytest.mark.parametrize("fast", [True, False])
def test_differences_use_the_joint_covariance(fast):
    rng = np.random.default_rng(0)
    loss = np.array([3.02, 3.0, 3.05])
    shared = np.full((3, 1), 0.1)  # an error that all share: it must not enter any difference
    own = 0.01 * rng.standard_normal((3, 3))
    ranking = rank(runs(3), FixedLaw(loss, np.hstack([shared, own]), noise=0.002, fast=fast))
    assert ranking.order.tolist() == [1, 0, 2]
    assert ranking.best == 1
    np.testing.assert_allclose(ranking.difference, loss - 3.0)
    relative = np.hstack([shared, own]) / loss[:, None]
    for i in (0, 2):
        half = Z * np.sqrt(((relative[i] - relative[1]) ** 2).sum() + (0.002 / loss[i]) ** 2 + (0.002 / 3.0) ** 2)
        ends = [3.0 * np.expm1(np.log(loss[i] / 3.0) + side * half) for side in (-1, 1)]
        assert ranking.difference_lower[i] == pytest.approx(ends[0], abs=2e-3 * half * 3)
        assert ranking.difference_upper[i] == pytest.approx(ends[1], abs=2e-3 * half * 3)
    assert ranking.difference_lower[1] == ranking.difference_upper[1] == 0.0
    assert (ranking.upper - ranking.loss > 0.1).all()


def test_blocks_of_the_covariance_give_the_same_as_a_column():
    rng = np.random.default_rng(1)
    loss, factors = 3 + 0.01 * rng.random(600), 0.01 * rng.standard_normal((600, 4))
    column, blocks = (rank(many(600), FixedLaw(loss, factors, fast=fast)) for fast in (True, False))
    np.testing.assert_allclose(column.difference_upper, blocks.difference_upper, rtol=1e-10)
    np.testing.assert_array_equal(column.p_best, blocks.p_best)


@pytest.mark.parametrize("n", [2, 3, 12, 60])
def test_p_best_matches_brute_force(n):
    rng = np.random.default_rng(n)
    loss = 3 + 0.02 * rng.random(n)
    factors = np.hstack(
        [np.full((n, 1), 0.05), 0.01 * rng.standard_normal((n, 3)), np.diag(0.004 + 0.01 * rng.random(n))]
    )
    p = rank(runs(n), FixedLaw(loss, factors)).p_best
    assert abs(p.sum() - 1) < 1e-12
    np.testing.assert_allclose(p, brute_force(loss, factors), atol=0.012)


def test_p_best_of_two_has_a_closed_form():
    factors = np.array([[0.1, 0.01, 0.0], [0.1, 0.0, 0.02]])
    p = rank(runs(2), FixedLaw([3.0, 3.01], factors)).p_best
    assert abs(p[0] - NormalDist().cdf(0.01 / np.hypot(0.01, 0.02))) < 0.003


@pytest.mark.parametrize("danger", [0.02, 0.2, 0.44, 0.5, 0.73, 1.0])
def test_where_the_front_runner_diverges_the_next_one_is_best(danger):
    """Far apart in loss: the second is best when the first diverges, the third when both do."""

    class Dangerous(FixedLaw):
        risk = property(lambda self: self)

        def probability(self, table, defaults=None):
            return np.array([danger, 0.3, 0.0])[: len(table)]

    p = rank(runs(3), Dangerous([3.0, 3.1, 3.2], 1e-3 * np.eye(3))).p_best
    np.testing.assert_allclose(p, [1 - danger, danger * 0.7, danger * 0.3], atol=0.005)
    assert p.sum() == pytest.approx(1.0)


def test_one_candidate():
    ranking = rank(runs(1), FixedLaw([3.0], [[0.01]]))
    assert ranking.p_best.tolist() == [1.0]
    assert ranking.order.tolist() == [0]
    assert ranking.advice == "Only one candidate: nothing to compare it with."


class Risky(FixedLaw):
    """The n-th candidate, by its run id, has the n-th risk."""

    @property
    def risk(self):
        return self

    def probability(self, table, defaults=None):
        return np.array([(np.nan, 1e-9, 0.2, 0.4)[int(name) - 1] for name in table.run_id])


def test_what_is_left_out_is_said():
    factors = np.zeros((2, 1))
    ranking = rank(runs(4), Risky([3.0, 3.1], factors), max_risk=0.25)
    assert ranking.names == ("2", "3")
    assert "; 2 left out: divergence risk above 25 % or not known" in ranking.advice
    assert "diverge with" not in ranking.advice
    assert "diverges with" not in ranking.advice
    alone = rank(runs(4), Risky([3.0], factors[:1]), max_risk=0.1).advice
    assert alone.startswith("Only one candidate is left: nothing to compare it with; 3 left out")
    assert "left out" not in rank(runs(4).select([1, 2]), Risky([3.0, 3.1], factors), max_risk=0.25).advice


def test_an_unknown_risk_is_not_called_safe():
    factors = np.eye(2) * 1e-6
    text = rank(runs(4).select([3, 0]), Risky([3.0, 3.1], factors)).advice
    assert "the best other one is 2, of unknown risk, for 0.100" in text
    text = rank(runs(4).select([3, 1]), Risky([3.0, 3.1], factors)).advice
    assert "the best safe one is 2, for 0.100" in text
    text = rank(runs(4).select([3, 0]), Risky([3.0, 3.0], factors)).advice
    assert "prefer 2: its divergence risk is not known to be above the accepted 5 %" in text


def test_a_refused_risk_is_told_as_a_probability():
    """A candidate of 20 % is not called likely to diverge."""
    text = rank(runs(4).select([2, 1]), Risky([3.0, 3.1], np.eye(2) * 1e-6)).advice
    assert text.startswith(
        "Do not run 1 as planned: it has the lowest predicted loss, but diverges with a probability of 20 % by this"
        " law's account, above the accepted 5 %; the best safe one is 2, for 0.100"
    )
    assert "likely" not in text
    text = rank(runs(4).select([2, 3, 1]), Risky([3.0, 3.0, 3.1], np.eye(3) * 1e-6)).advice
    assert (
        "1 and 2 as planned: they have the lowest predicted losses, but diverge with a probability of 20 % to 40 %"
        in (text)
    )


def test_a_risk_beyond_what_a_model_can_say_is_not_told_in_figures():
    law = Risky([3.0], np.zeros((1, 1)))
    with pytest.raises(RiskError, match=r"above 0, the lowest below 1e-06 \(2\); accept a risk like 0.01"):
        rank(runs(4), law, max_risk=0.0)
    with pytest.raises(RiskError, match=r"above 0.1, the lowest 0.2 \(3\); `optlaws risk` names"):
        rank(runs(4).select([2, 3]), law, max_risk=0.1)


def test_among_very_many_the_accepted_risk_is_the_one_given(monkeypatch):
    monkeypatch.setattr(ranking_module, "JOINT", 2)

    class Many(Risky):
        def expected_loss(self, table):
            return np.array([3.0 + int(name) / 10 for name in table.run_id])

    ranking = rank(runs(4), Many([3.2, 3.3], np.zeros((2, 1))), max_risk=0.5)
    assert ranking.max_risk == 0.5
    assert "diverges with" not in ranking.advice
    assert "1 left out" in ranking.advice


def test_equal_candidates_share():
    ranking = rank(runs(3), FixedLaw([3.0, 3.0, 3.0], np.full((3, 1), 0.01)))
    assert ranking.order.tolist() == [0, 1, 2]
    np.testing.assert_allclose(
        ranking.p_best, 1 / 3, atol=0.004
    )  # each run has its own noise: four errors of the draws
    assert ranking.p_best.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(ranking.difference, 0.0)
    assert "cannot be told apart" in ranking.advice


def test_no_uncertainty_at_all():
    ranking = rank(runs(3), FixedLaw([3.0, 3.1, 3.0], np.zeros((3, 1)), noise=0.0))
    np.testing.assert_allclose(ranking.p_best, [0.5, 0.0, 0.5])
    assert np.isfinite(ranking.difference_upper).all()


def test_the_same_question_has_the_same_answer():
    rng = np.random.default_rng(2)
    law = FixedLaw(3 + 0.01 * rng.random(20), 0.01 * rng.standard_normal((20, 5)))
    np.testing.assert_array_equal(rank(runs(20), law).p_best, rank(runs(20), law).p_best)


def test_ten_thousand():
    rng = np.random.default_rng(3)
    ranking = rank(many(10_000), FixedLaw(3 + 0.02 * rng.random(10_000), 0.01 * rng.standard_normal((10_000, 6))))
    assert abs(ranking.p_best.sum() - 1) < 1e-12
    assert (ranking.p_best > 0).sum() <= 256


def test_among_very_many_only_the_lowest_have_intervals():
    n = ranking_module.JOINT + 100
    rng = np.random.default_rng(6)
    loss, factors = 3 + 0.02 * rng.random(n), 0.01 * rng.standard_normal((n, 3))
    ranking, blocks = (rank(many(n), FixedLaw(loss, factors, fast=fast)) for fast in (True, False))
    known = ranking.order[: ranking_module.JOINT]
    assert np.isnan(ranking.difference_lower).sum() == 100
    assert np.isfinite(ranking.difference_lower[known]).all()
    i = known[-1]
    sd = np.sqrt(((factors[i] - factors[ranking.best]) ** 2).sum() + 2e-6)
    assert ranking.difference_upper[i] - ranking.difference[i] == pytest.approx(Z * sd, rel=0.03)
    np.testing.assert_allclose(ranking.p_best, blocks.p_best)
    assert np.isfinite(ranking.p_best).all()


@pytest.mark.slow
def test_a_million():
    rng = np.random.default_rng(4)
    n = 1_000_000
    ranking = rank(many(n), FixedLaw(3 + 0.02 * rng.random(n), 0.01 * rng.standard_normal((n, 4))))
    assert len(ranking) == n
    assert len(ranking.advice) < 300


def advise(loss, spread=0.001, kinds=("cosine",), out=(), **columns):
    loss = np.asarray(loss)
    factors = np.hstack([np.full((len(loss), 1), 0.02), spread * np.eye(len(loss))])
    return rank(runs(len(loss), kinds, **columns), FixedLaw(loss, factors, out=tuple(out))).advice


def test_advice_when_it_is_clear():
    text = advise([3.034, 3.0, 3.2])
    assert (
        text == "Choose 1: its predicted loss is 0.0340 below the next, 90 % interval 0.0307 .. 0.0373, P(best) > 99 %."
    )


def test_advice_when_it_is_not():
    text = advise([3.0, 3.002], spread=0.003, kinds=("cosine", "wsd"))
    assert text.startswith("1 and 2 cannot be told apart (difference 0.0020, 90 % interval -0.0")
    assert text.endswith("; prefer 2: it can be extended without a restart.")
    text = advise([3.0, 3.002], spread=0.003, kinds=("wsd", "cosine"))
    assert text.endswith("prefer 1: it has the lowest predicted loss and can be extended without a restart.")
    assert advise([3.0, 3.002], spread=0.003).endswith("prefer 1: it has the lowest predicted loss.")


def test_advice_counts_the_compute_of_active_parameters():
    """A mixture of 1B parameters, 100M of them active, costs a fifth of a dense model of 500M."""
    text = advise([3.0, 3.002], spread=0.003, params=[5e8, 1e9], active_params=[np.nan, 1e8], tokens=1e9)
    assert text.endswith("prefer 2: it needs 80 % less compute.")


def test_advice_prefers_what_costs_less():
    text = advise([3.0, 3.002, 3.3], spread=0.003, params=1e8, tokens=[2e9, 1e9, 1e9])
    assert text.endswith("prefer 2: it needs 50 % less compute.")
    kinds, tokens = ("cosine", "cosine", "wsd"), [2e9, 1e9, 1e9]
    text = advise([3.0, 3.001, 3.002], spread=0.003, kinds=kinds, params=1e8, tokens=tokens)
    assert "prefer 3: it needs 50 % less compute, and it can be extended without a restart" in text
    assert text.endswith(", for 0.0020 more predicted loss.")
    text = advise([3.0, 3.002, 3.003], spread=0.003, kinds=kinds, params=1e8, tokens=tokens)  # 3 is too unlikely to win
    assert "prefer 2: it needs 50 % less compute" in text
    assert text.endswith("; 3 could be extended without a restart, for 0.0010 more.")


def test_advice_names_what_lies_outside():
    text = advise([3.0, 3.1, 3.2], out=[2])
    assert text.endswith(
        "(careful: 3 lies outside the law's domain: peak rate 0.1 is above 0.002, the highest in training)."
    )
    text = advise([3.0, 3.002], spread=0.003, out=[0])
    assert "prefer 2: it lies inside the law's domain" in text


def test_advice_stays_short_for_many():
    text = advise(3 + 1e-5 * np.arange(50), spread=0.003)
    assert text.startswith("1 to 50 cannot be told apart")
    assert len(text) < 200


def test_an_absurd_candidate_does_not_win_by_its_uncertainty():
    ranking = rank(runs(3), FixedLaw([3.0, 3.1, 60.0], [[0.03, 0.0], [0.03, 0.003], [0.0, 18.0]]))
    assert ranking.p_best[2] < 1e-6
    assert ranking.difference_lower[2] > 0.0
    assert ranking.advice.startswith("Choose 1: ")


def test_bad_questions():
    with pytest.raises(InputError, match="at least one run"):
        rank(runs(2).select([]), FixedLaw([], np.empty((0, 1))))
    with pytest.raises(InputError, match="names must have one entry a candidate \\(2\\)"):
        rank(runs(2), FixedLaw([3, 3], [[0.1], [0.1]]), names=["a"])
    with pytest.raises(LawError, match="no finite loss above 0 for candidate '2'"):
        rank(runs(2), FixedLaw([3, np.nan], [[0.1], [0.1]]))


def test_p_best_counts_the_noise_of_the_runs():
    """Two candidates that share all of their error: only their noise decides between them."""
    noise = 0.002
    p = rank(runs(2), FixedLaw([3.0, 3.003], np.full((2, 1), 0.01), noise=noise)).p_best
    assert abs(p[0] - NormalDist().cdf(0.003 / (noise * np.sqrt(2)))) < 0.004


def test_of_very_many_the_lowest_get_intervals_and_the_rest_say_why(monkeypatch):
    monkeypatch.setattr(ranking_module, "JOINT", 5)
    few = FixedLaw(np.linspace(3.0, 3.3, 40)[::-1], np.full((40, 1), 0.01))

    class Many(FixedLaw):
        def expected_loss(self, table):
            return np.asarray(self.loss)

        def predict(self, table):
            keep = [int(name) - 1 for name in table.run_id]
            return FixedLaw(np.asarray(self.loss)[keep], self.factors[keep]).predict(table)

    many = rank(runs(40), Many(few.loss, few.factors))
    monkeypatch.setattr(ranking_module, "JOINT", 16384)
    whole = rank(runs(40), few)
    assert many.order.tolist() == whole.order.tolist()
    head, rest = whole.order[:5], whole.order[5:]
    np.testing.assert_allclose(many.lower[head], whole.lower[head])
    np.testing.assert_allclose(many.difference, whole.difference)
    assert np.isnan(many.lower[rest]).all()
    assert (many.p_best[rest] == 0).all()
    assert not many.in_domain[rest].any()
    assert all("not looked at" in many.reasons[i] for i in rest.tolist())
    assert many.advice == rank(runs(40).select(head), Many(few.loss, few.factors)).advice


@pytest.mark.parametrize("max_risk", ["0.5", -0.1, 1.5, float("nan"), True])
def test_an_accepted_risk_that_is_no_probability(max_risk):
    with pytest.raises(InputError, match="max_risk must be a probability from 0 to 1, got"):
        rank(runs(4), Risky([3.0], np.zeros((1, 1))), max_risk=max_risk)


def test_among_more_than_enter_the_draws_the_likeliest_share_p_best(monkeypatch):
    monkeypatch.setattr(ranking_module, "TOP", 8)
    ranking = rank(runs(12), FixedLaw(np.full(12, 3.0), np.zeros((12, 1))))
    assert (ranking.p_best > 0).sum() == 8
    assert ranking.p_best.sum() == pytest.approx(1.0)


class Risks:
    """A risk model that says what it is told."""

    def __init__(self, values):
        self.values = np.asarray(values, dtype=float)

    def probability(self, table, defaults=None):
        return self.values[[int(name) - 1 for name in table.run_id]]


class RiskyLaw(FixedLaw):
    """A fixed law with a risk model; it answers for the runs that it is asked about."""

    def __init__(self, loss, risk, spread=0.003):
        super().__init__(loss, np.hstack([np.full((len(loss), 1), 0.02), spread * np.eye(len(loss))]))
        object.__setattr__(self, "risk", Risks(risk))

    def predict(self, table):
        rows = [int(name) - 1 for name in table.run_id]
        part = FixedLaw(np.asarray(self.loss)[rows], np.asarray(self.factors)[rows])
        return part.predict(table)


def test_a_run_that_diverges_cannot_be_best():
    """P(best) against drawing losses and survival in full."""
    loss, risk, spread = np.array([3.0, 3.002, 3.004, 3.2]), np.array([0.97, 0.3, 0.0, np.nan]), 0.003
    ranking = rank(runs(4), RiskyLaw(loss, risk, spread))
    rng = np.random.default_rng(7)
    draws = 400_000
    sample = loss + np.hypot(spread, 0.001) * rng.standard_normal((draws, 4))
    sample[rng.random((draws, 4)) < np.nan_to_num(risk)] = np.inf
    np.testing.assert_allclose(ranking.p_best, np.bincount(sample.argmin(axis=1), minlength=4) / draws, atol=0.005)
    assert ranking.p_best[0] < 0.03
    assert ranking.p_best.sum() == pytest.approx(1.0)
    doomed = rank(runs(2), RiskyLaw([3.0, 3.001], [0.9, 0.8]))
    assert doomed.p_best.sum() == pytest.approx(1 - 0.9 * 0.8, abs=0.01)
    assert rank(runs(1), RiskyLaw([3.0], [0.25])).p_best.tolist() == [0.75]


def test_far_behind_one_that_surely_diverges_there_is_still_a_best():
    ranking = rank(runs(3), RiskyLaw([2.0, 3.0, 3.1], [1.0, 0.0, 0.0]))
    assert ranking.p_best[0] == 0.0
    assert ranking.p_best[1] > 0.99


def test_who_is_preferred_and_who_was_left_out():
    law = RiskyLaw([3.0, 3.1, 3.2], [0.5, 0.01, 0.2])
    ranking = rank(runs(3), law)
    assert ranking.advice.startswith("Do not run 1 as planned")
    assert ranking.preferred == 1
    safe = rank(runs(3), law, max_risk=0.05)
    assert (safe.names, safe.preferred) == (("2",), 0)
    assert safe.left_out == (("1", 0.5), ("3", 0.2))
    assert rank(runs(2), RiskyLaw([3.0, 3.1], [0.5, 0.6])).preferred is None
    assert rank(runs(2), FixedLaw([3.1, 3.0], 0.001 * np.eye(2))).preferred == 1


def test_an_unlikely_extendable_one_is_an_option_and_not_the_choice():
    text = advise([3.0, 3.006], spread=0.003, kinds=("cosine", "wsd"))
    assert "prefer 1: it has the lowest predicted loss; 2 could be extended without a restart, for 0.0060 more." in text


def test_reasons_that_all_share():
    """What is said of several candidates outside the domain is true of each of them."""

    class Apart(FixedLaw):
        def predict(self, table):
            p = super().predict(table)
            p.reasons[:] = [
                "params 1B above 170M; peak_lr 0.003 above 0.002",
                "params 1B above 170M",
                "params 1B above 170M",
            ]
            return p

    text = rank(runs(3), Apart([3.0, 3.1, 3.2], 0.001 * np.eye(3), out=(0, 1, 2))).advice
    assert text.endswith("(careful: all lie outside the law's domain: params 1B above 170M).")


def test_a_law_by_its_name():
    some = runs(2, ("cosine", "wsd"), params=1e8, batch_tokens=1e5)
    for law in ("llama-slimpajama", Path("steplaw-dense")):
        assert np.array_equal(rank(some, law).loss, rank(some, load_law(str(law))).loss)
    with pytest.raises(LawError, match=r"one of .*, got 'llama-slimpyjama'.*llama-slimpajama"):
        rank(some, "llama-slimpyjama")


def test_a_wide_law_keeps_more_candidates():
    """On another corpus thousands may be best: none of those that have a chance gets 0 for want of room."""
    peaks = np.linspace(3e-4, 2e-3, 600)
    many_rates = RunTable.build(ScheduleBatch.grid("cosine", peak=peaks, steps=20000, warmup=300), params=85e6)
    p = rank(many_rates, load_law("llama-slimpajama").on_other_corpus()).p_best
    assert p.sum() == pytest.approx(1.0, abs=0.05)  # those that diverge win nowhere
    assert (p > 0).mean() > 0.9
    assert p.max() < 0.12  # the ends of the range have most
