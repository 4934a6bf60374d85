"""The training harness: real runs, from a configuration to a row of the run table.

This is the only part of the package that uses torch (extra `train`); it knows nothing of laws. It meets the rest in the
run record: a row of a run table and a curve. Each name below is imported when it is first used, so that what needs no
torch, such as configurations, can be had without it.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Threads that wait for one another would spin: on a machine that others use, tens of times slower than to sleep. Read
# when torch is loaded; worker processes inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "Counts": "models",
    "Entropy": "synthetic",
    "Progress": "loop",
    "RunRecord": "record",
    "TrainConfig": "config",
    "count_parameters": "models",
    "entropy": "synthetic",
    "read_config": "config",
    "read_record": "record",
    "train": "training",
    "train_stacked": "training",
}

__all__ = [
    "Counts",
    "Entropy",
    "Progress",
    "RunRecord",
    "TrainConfig",
    "count_parameters",
    "entropy",
    "read_config",
    "read_record",
    "train",
    "train_stacked",
]

if TYPE_CHECKING:
    from optlaws.harness.config import TrainConfig, read_config
    from optlaws.harness.loop import Progress
    from optlaws.harness.models import Counts, count_parameters
    from optlaws.harness.record import RunRecord, read_record
    from optlaws.harness.synthetic import Entropy, entropy
    from optlaws.harness.training import train, train_stacked


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'optlaws.harness' has no attribute {name!r}")
    value = getattr(import_module(f"optlaws.harness.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
