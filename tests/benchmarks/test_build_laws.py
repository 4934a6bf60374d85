"""What a built-in law keeps of its left-out errors."""

from __future__ import annotations

import numpy as np
import pytest

from optlaws.validation import HeldOut

pytestmark = pytest.mark.usefixtures("folder")


def held(lengths: int, runs: int, turned: bool) -> HeldOut:
    """Return runs in pools of one length each, the predicted order of each pool right or turned round."""
    loss = np.concatenate([3.0 - k + 0.01 * np.arange(runs) for k in range(lengths)])
    predicted = np.concatenate([3.0 - k + 0.01 * np.arange(runs)[:: -1 if turned else 1] for k in range(lengths)])
    pool = np.repeat(np.arange(lengths), runs)
    ends = (predicted - 0.1, predicted + 0.1)
    return HeldOut([loss], [predicted], [ends[0]], [ends[1]], [pool], [np.arange(len(loss))])


def test_ranks_within_pools_are_kept_beside_those_over_all() -> None:
    from build_laws import summary

    right, wrong = summary(held(3, 5, False)), summary(held(3, 5, True))
    assert (right["spearman"], right["pool_spearman"]) == (1.0, 1.0)
    assert wrong["spearman"] > 0.7  # over lengths of so different losses nearly any order within them looks right
    assert wrong["pool_spearman"] == -1.0
    keys = ["mean_error_pct", "spearman", "pool_spearman", "coverage", "width_pct", "n_runs"]
    assert list(wrong) == keys


def test_pools_too_small_to_rank_are_kept_as_unknown() -> None:
    from build_laws import summary

    assert summary(held(2, 3, False))["pool_spearman"] is None


def test_every_built_in_law_tells_the_two_apart() -> None:
    from optlaws.law import builtin_names, load_law

    for name in builtin_names():
        for split, errors in load_law(name).info["leave_group_out"].items():
            assert {"spearman", "pool_spearman"} <= errors.keys(), (name, split)
