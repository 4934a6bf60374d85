"""The synthetic language: its numbers, its probabilities, its entropy."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from optlaws.harness import entropy
from optlaws.harness.sections import SyntheticData
from optlaws.harness.synthetic import Language, Sampler, counts_of, mix

CPU = torch.device("cpu")
SMALL = SyntheticData(vocab=24, branching=4, language=3)


def twin_mix(values):
    with np.errstate(over="ignore"):
        z = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def test_hash_is_splitmix64():
    values = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 1000)
    assert np.array_equal(mix(torch.as_tensor(values)).numpy().astype(np.uint64), twin_mix(values))
    assert mix(torch.tensor([0])).item() == 0xE220A8397B1DCDAF - 2**64  # the published first output of seed 0


def test_counts_keep_their_sum_and_their_proportions():
    weights = 1 / np.arange(1.0, 1001.0)
    counts = counts_of(weights, 18)
    assert counts.sum() == 2**18
    assert counts.min() >= 1
    assert np.abs(counts / 2**18 - weights / weights.sum()).max() < 0.005


def sequences(data, seed, first, count, length=20):
    numbers = torch.arange(first, first + count)
    return Sampler(Language.of(data), CPU).sequences(torch.full((count,), seed), numbers, length)


def test_any_sequence_can_be_made_again():
    whole = sequences(SMALL, 7, 0, 50)
    assert torch.equal(whole[30:40], sequences(SMALL, 7, 30, 10))
    assert torch.equal(whole[:, :11], sequences(SMALL, 7, 0, 50, length=10))
    assert not torch.equal(whole, sequences(SMALL, 8, 0, 50))
    assert not torch.equal(whole, sequences(SyntheticData(vocab=24, branching=4, language=4), 7, 0, 50))
    assert (whole[:, 0] == 0).all()
    assert 0 <= whole.min() <= whole.max() < 24


def test_a_large_language_number_is_no_trouble():
    assert sequences(SyntheticData(language=2**62), 0, 0, 2).shape == (2, 21)


def test_frequencies_follow_the_probabilities():
    made = sequences(SMALL, 0, 0, 4000, length=30).numpy()
    contexts = np.stack([made[:, 1:-1].ravel(), made[:, :-2].ravel()], axis=1)
    after = made[:, 2:].ravel()
    pairs, where, counts = np.unique(contexts, axis=0, return_inverse=True, return_counts=True)
    p = Language.of(SMALL).probabilities(pairs)
    assert np.allclose(p.sum(1), 1, atol=1e-12)
    for row in np.argsort(-counts)[:20]:
        seen = np.bincount(after[where.ravel() == row], minlength=24)
        n = counts[row]
        expected = n * p[row]
        chi2 = float(((seen - expected) ** 2 / np.maximum(expected, 1e-9))[expected > 1].sum())
        assert chi2 < 24 + 6 * np.sqrt(2 * 24)
        assert (seen[p[row] == 0] == 0).all()


@pytest.mark.parametrize(
    "data",
    [SMALL, SyntheticData(vocab=24, branching=4, weights=(0.5, 0.5)), SyntheticData(vocab=24, weights=(1.0, 0.0))],
)
def test_entropy_is_the_mean_surprise_of_the_language(data):
    length = 20
    floor = entropy(data, length)
    made = sequences(data, 1, 0, 10_000, length).numpy()
    before = np.concatenate([np.zeros((len(made), 1), dtype=np.int64), made[:, :-2]], axis=1)
    contexts = np.stack([made[:, :-1].ravel(), before.ravel()], axis=1)
    p = Language.of(data).probabilities(contexts)[np.arange(len(contexts)), made[:, 1:].ravel()]
    surprise = -np.log(p)
    error = surprise.std() / np.sqrt(len(surprise)) * 2  # neighbours in a sequence are not independent
    assert floor.error < 1e-3
    assert abs(surprise.mean() - floor.nats) < 4 * error + 3 * floor.error


@pytest.mark.parametrize("weights", [(0.1, 0.3, 0.6), (0.0, 1.0), (0.5, 0.0, 0.5), (1.0, 0.0)])
def test_entropies_equal_those_of_the_dense_probabilities(weights):
    data = SyntheticData(vocab=24, branching=6, weights=weights)
    pairs = np.stack(np.meshgrid(np.arange(24), np.arange(24)), axis=-1).reshape(-1, 2)
    p = Language.of(data).probabilities(pairs)
    expected = -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1)
    assert np.allclose(Language.of(data).entropies(pairs), expected, atol=1e-12)


def test_without_context_the_entropy_is_zipfs():
    data = SyntheticData(vocab=50, weights=(1.0, 0.0))
    z = counts_of(1 / np.arange(1.0, 51.0), 18) / 2**18
    assert entropy(data, 16).nats == pytest.approx(-(z * np.log(z)).sum(), abs=1e-12)


@pytest.mark.gpu
def test_the_same_language_on_a_gpu(cuda):
    numbers = torch.arange(20)
    made = Sampler(Language.of(SMALL), torch.device(cuda)).sequences(torch.zeros_like(numbers), numbers, 30)
    assert torch.equal(made.cpu(), sequences(SMALL, 0, 0, 20, 30))
