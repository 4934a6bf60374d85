"""Run, curve and candidate tables: what was trained, what it reached, and what may be trained next.

`RunTable` holds one training run a row, `CurveTable` one logged loss a row. Both are read from and written to CSV,
JSON lines and Parquet (by the file's suffix; "-" is standard input or output). `read_candidates` turns what a user
types or keeps in YAML, JSON or CSV files into a `RunTable` without losses, `read_logs` what trackers and trainers
logged of past runs into curves, losses and schedules.
"""

from optlaws.runs._called import candidate_names
from optlaws.runs._candidates import Candidates, gather_candidates, read_candidates
from optlaws.runs._checks import STATUSES, check_fitted, check_losses
from optlaws.runs._curves import CurveTable, read_curves, write_curves
from optlaws.runs._files import atomic_write, check_folder, check_target
from optlaws.runs._imports import read_logs
from optlaws.runs._log_files import log_file
from optlaws.runs._logged import LoggedRun
from optlaws.runs._mapping import parse_columns
from optlaws.runs._read import read_runs
from optlaws.runs._recognise import RECOGNISED
from optlaws.runs._table import NUMBER_COLUMNS, RUN_COLUMNS, RunTable, check_runs
from optlaws.runs._write import check_table_name, write_columns, write_runs
from optlaws.schedules.quantity import format_quantity, parse_quantity

__all__ = [
    "NUMBER_COLUMNS",
    "RECOGNISED",
    "RUN_COLUMNS",
    "STATUSES",
    "Candidates",
    "CurveTable",
    "LoggedRun",
    "RunTable",
    "atomic_write",
    "candidate_names",
    "check_fitted",
    "check_folder",
    "check_losses",
    "check_runs",
    "check_table_name",
    "check_target",
    "format_quantity",
    "gather_candidates",
    "log_file",
    "parse_columns",
    "parse_quantity",
    "read_candidates",
    "read_curves",
    "read_logs",
    "read_runs",
    "write_columns",
    "write_curves",
    "write_runs",
]
