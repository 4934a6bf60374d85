"""How a law of one's own gets a risk model in Python."""

from pathlib import Path

import pytest

from optlaws import fit_law, load_law, rank, read_runs, with_risk
from optlaws.errors import InputError
from optlaws.law.baseline import fit_baseline

RUNS = Path(__file__).resolve().parents[2] / "examples" / "my_runs.csv"


def test_the_way_out_of_a_law_without_a_risk_model():
    """The error names the call that attaches one, and that call is the way out; a rival law has none."""
    made = read_runs(RUNS)
    law, asked = fit_law(made), made.select([0, 1])
    with pytest.raises(InputError, match=r"law 'law' has none; law = optlaws.with_risk\(law, runs\) attaches one"):
        rank(asked, law, max_risk=0.5)
    assert len(rank(asked, with_risk(law, made), max_risk=1)) == 2
    with pytest.raises(InputError, match="law 'chinchilla' has none, as no rival law has; take a built-in law"):
        rank(asked, fit_baseline("chinchilla", made), max_risk=0.5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((None, None), "law must be a Law, got NoneType; fit one with fit_law"),
        ((load_law("llama-slimpajama"), "runs.csv"), "runs must be a RunTable, got str"),
    ],
)
def test_with_risk_of_something_else(args, message):
    with pytest.raises(InputError, match=message):
        with_risk(*args)


def test_the_level_is_known_where_the_own_runs_are():
    """The public runs' ranges say where the risk was fitted, the own ones where the source's level is known."""
    made = read_runs(RUNS)
    risk = with_risk(fit_law(made), made).risk
    for name, values in (("params", made.size), ("batch_tokens", made.batch_tokens)):
        assert risk.reach[name] == pytest.approx((values.min(), values.max()), rel=1e-12)
        assert risk.domain[name][1] > 2 * risk.reach[name][1]
    assert 0.49 * made.steps.min() < risk.reach["high_steps"][0] < risk.reach["high_steps"][1] <= made.steps.max()
    public = load_law("steplaw-dense").risk
    for name in ("params", "batch_tokens"):
        assert public.reach[name] == pytest.approx(public.domain[name])
