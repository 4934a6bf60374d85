"""Runs of one size and token count are one cell, though tokens be rounded by the step."""

import numpy as np

from optlaws.baselines.optimal_rate import cells


def test_tokens_of_whole_steps_are_one_count():
    """Intended 1B and 2B tokens at batches of 100K to 700K: no step count gives them exactly."""
    batch = np.array([1e5, 2e5, 3e5, 7e5])
    tokens = np.concatenate([np.round(d / batch) * batch for d in (1e9, 2e9)])
    assert len(np.unique(tokens)) > 2
    found = cells(np.full(8, 1e8), tokens)
    assert [group.tolist() for group in found] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_others_stay_apart_smallest_first():
    size = np.array([2e8, 1e8, 1e8, 2e8])
    assert [g.tolist() for g in cells(size, np.array([1e9, 1.02e9, 1e9, 1e9]))] == [[2], [1], [0, 3]]
    assert [g.tolist() for g in cells(np.array([5.0]), np.array([7.0]))] == [[0]]
