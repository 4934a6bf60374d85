from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def folder() -> Iterator[None]:
    """The benchmarks can be imported."""
    before = sys.path[:]
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path[:] = before
