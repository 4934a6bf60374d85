"""The training harness: real runs, from a configuration to a row of the run table.

This is the only part of the package that uses torch (extra `train`); it knows nothing of laws. It meets the rest in the
run record: a row of a run table and a curve.
"""

from optlaws.harness.config import TrainConfig, read_config
from optlaws.harness.loop import Progress
from optlaws.harness.models import Counts, count_parameters
from optlaws.harness.record import RunRecord, read_record
from optlaws.harness.synthetic import Entropy, entropy
from optlaws.harness.training import train, train_stacked

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
