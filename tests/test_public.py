"""The public surface is pinned."""

import importlib.util

import pytest

import optlaws

NAMES = {
    "CurveTable",
    "Law",
    "RunTable",
    "Schedule",
    "ScheduleBatch",
    "__version__",
    "basis_ids",
    "compare_laws",
    "design_runs",
    "errors",
    "feature_table",
    "fit_law",
    "get_basis",
    "load_law",
    "load_sweep",
    "optimize_schedule",
    "parse",
    "rank",
    "read_curves",
    "read_runs",
    "recommend_settings",
    "register_basis",
    "standard_pool",
    "sweep_names",
    "with_risk",
}


def test_names():
    assert set(optlaws.__all__) == NAMES
    assert set(dir(optlaws)) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_there(name):
    if name in ("Law", "load_law", "fit_law") and importlib.util.find_spec("optlaws.law") is None:
        pytest.skip("optlaws.law is not there yet")
    assert getattr(optlaws, name) is not None


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        optlaws.nothing  # noqa: B018
