"""Built-in data sets: the runs and curves of the package's own sweeps, by name."""

from __future__ import annotations

from importlib.resources import as_file, files

from optlaws.errors import InputError, nearest
from optlaws.runs import CurveTable, RunTable, read_curves, read_runs


def sweep_names() -> list[str]:
    """Return the names of the built-in sweeps.

    >>> sweep_names()[0]
    'cpu_sweep'
    """
    folders = (entry for entry in files("optlaws").joinpath("data").iterdir() if entry.is_dir())
    return sorted(folder.name for folder in folders if folder.joinpath("runs.csv").is_file())


def load_sweep(name: str) -> tuple[RunTable, CurveTable]:
    """Return the runs of a built-in sweep and the validation losses along them.

    Parameters
    ----------
    name : str
        One of `sweep_names()`. What was trained stands in `benchmarks/NAME.yaml`, and what a law makes of it in
        `docs/validation_NAME.md`; of `cpu_sweep_optimizers`, which has no law of its own, in `docs/optimizers.md`.

    Returns
    -------
    RunTable
        n runs, those that diverged included.
    CurveTable
        At most 20 readings of each.

    Raises
    ------
    InputError
        There is no such sweep.

    Examples
    --------
    >>> runs, curves = load_sweep("cpu_sweep_rich")
    >>> len(runs), sorted(set(runs.status))
    (280, ['completed', 'diverged'])
    """
    known = sweep_names()
    if name not in known:
        raise InputError(f"sweep must be one of {', '.join(known)}, got {name!r}{nearest(str(name), known)}")
    with as_file(files("optlaws").joinpath("data", name)) as folder:
        return read_runs(folder / "runs.csv", need_loss=True), read_curves(folder / "curves.csv")
