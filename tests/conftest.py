from __future__ import annotations

import os
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """On a slow machine a command would say how far it is, after 15 seconds, where tests look for other lines."""
    os.environ["OPTLAWS_PROGRESS"] = "off"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a GPU a warning is no failure: compilers and drivers, whose warnings nobody here has seen, warn of speed."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the public training-run data: OPTLAWS_DATA, or ../shared/data beside the repository."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("OPTLAWS_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"public run data not found in {folder}: set OPTLAWS_DATA to its folder")
    return folder
