from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the public training-run data: OPTLAWS_DATA, or ../shared/data beside the repository."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("OPTLAWS_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"public run data not found in {folder}: set OPTLAWS_DATA to its folder")
    return folder
