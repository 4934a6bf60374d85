"""The public surface is pinned."""

import ast
import importlib.util
from pathlib import Path

import pytest

import optlaws

NAMES = {
    "CurveTable",
    "Law",
    "Monitor",
    "Prediction",
    "Ranking",
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
    "load_any_law",
    "load_law",
    "load_sweep",
    "optimize_schedule",
    "parse",
    "rank",
    "read_candidates",
    "read_curves",
    "read_runs",
    "recommend_settings",
    "register_basis",
    "standard_pool",
    "sweep_names",
    "with_risk",
    "write_runs",
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


def test_a_type_checker_sees_the_names_and_no_others():
    """A `__getattr__` that it saw would make any misspelled name one of ours."""
    tree = ast.parse(Path(optlaws.__file__).read_text(encoding="utf-8"))
    assert not [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__getattr__"]
    seen = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    assert {alias.name for node in seen.body for alias in node.names} == NAMES - {"__version__"}
