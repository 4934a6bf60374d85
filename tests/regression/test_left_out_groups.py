"""What a law keeps of the residuals of the runs that it was fitted without, by group."""

from dataclasses import replace

import numpy as np
import pytest
from made_runs import curves_of, plan, with_losses
from threadpoolctl import threadpool_limits

from optlaws.law import fit_law
from optlaws.runs import RunTable


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def runs():
    return with_losses(plan(), noise=0.0005)


@pytest.fixture(scope="module")
def law(runs):
    return fit_law(runs)


@pytest.fixture(scope="module")
def few():
    """Nine runs of one size and length, enough for curves."""
    return plan(steps=(4000,), params=(6e7,))


class TestLeftOutGroups:
    def test_means_by_group(self, runs, law):
        """What a law file keeps of the residuals that calibrate: signed and absolute means, by partition and group."""
        kept = law.info["left_out_groups"]
        assert list(kept) == list(law.info["leave_group_out"]) == ["family", "horizon", "peak rate", "size"]
        names = {
            "family": ["constant", "cosine", "wsd"],
            "horizon": ["3000", "6000", "12000"],
            "size": ["2e+07", "6e+07"],
        }
        for name, part in kept.items():
            count = [group["n_runs"] for group in part["groups"]]
            assert sum(count) == len(runs)
            assert [group["group"] for group in part["groups"]] == names.get(name, ["0.0003", "0.001", "0.002"])
            for key, whole in (("bias_pct", part["bias_pct"]), ("error_pct", None)):
                means = np.array([group[key] for group in part["groups"]])  # of four digits each
                mean, rounding = np.average([means, np.abs(means)], axis=1, weights=count)
                expected_mean = law.info["leave_group_out"][name]["mean_error_pct"] if whole is None else whole
                assert mean == pytest.approx(expected_mean, abs=1.01 * 5e-4 * (rounding + abs(expected_mean)))
            assert all(abs(group["bias_pct"]) <= group["error_pct"] * 1.001 for group in part["groups"])
        assert set(law.info["versions"]) == {"optlaws", "numpy", "scipy", "python"}
        assert "left_out" not in law.info["fit"]

    def test_their_sign(self, runs):
        """Losses of one family raised by 2 %: without it the law predicts them too low."""
        cosine = np.array([schedule.kind == "cosine" for schedule in runs.schedule_tuple()])
        raised = replace(runs, final_loss=runs.final_loss * np.where(cosine, 1.02, 1.0))
        groups = fit_law(raised).info["left_out_groups"]["family"]["groups"]
        bias = {group["group"]: group["bias_pct"] for group in groups}
        assert bias["cosine"] > 1.0
        assert bias["wsd"] < 0 or bias["constant"] < 0

    def test_of_a_column_with_the_name_of_a_partition(self, runs):
        named = RunTable.build(
            runs.schedules, params=runs.params, batch_tokens=runs.batch_tokens, final_loss=runs.final_loss,
            status="completed", extra={"size": np.array(["big", "small"])[np.arange(len(runs)) % 2]},
        )  # fmt: skip
        groups = fit_law(named, group="size").info["left_out_groups"]["size"]["groups"]
        assert [(group["group"], group["n_runs"]) for group in groups] == [("big", 27), ("small", 27)]

    def test_a_run_with_a_curve_counts_once(self, few):
        finals = with_losses(few, noise=0.0005)
        kept = fit_law(finals, curves_of(few, noise=0.0005)).info["left_out_groups"]["family"]
        assert [group["n_runs"] for group in kept["groups"]] == [3, 3, 3]
