"""Jobs of a sweep over a Ray cluster. Ray is loaded only here, and only when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optlaws.errors import InputError

if TYPE_CHECKING:
    from optlaws.harness.sweep import Job

RETRIES = 3  # times that Ray starts a job again whose machine was lost; what it had finished is not done again
LOOK = 0.5  # seconds from one question whether somebody says stop to the next


def over_ray(jobs: Sequence[Job], folder: str) -> Iterator[list[str]]:
    """Run jobs as Ray tasks, as many at once as the cluster has devices; yield the runs that each has trained.

    A cluster that runs already is joined (RAY_ADDRESS, or one on this machine), else Ray starts one here. A job asks
    for one GPU where its runs want one and the cluster has any, else for one CPU. SIGTERM and Ctrl-C stop all jobs,
    with checkpoints.

    Parameters
    ----------
    jobs
        What to train.
    folder
        The sweep's folder under a name that every machine of the cluster knows it by.

    Raises
    ------
    InputError
        If Ray is not installed, or a job cannot be done.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "ray must be installed for --ray, got none; install the extra cluster"
            " (pip install -e '.[cluster]' in the checkout)"
        )
    if not jobs:
        return
    from optlaws.harness.loop import interruptible
    from optlaws.harness.sweep import STOP_FILE

    ray: Any = importlib.import_module("ray")
    flag = Path(folder) / STOP_FILE
    flag.unlink(missing_ok=True)
    waiting: list[Any] = []
    own = not ray.is_initialized()
    if own:
        ray.init(log_to_driver=False, logging_level="ERROR")
    try:
        with interruptible() as interrupted:
            gpus = bool(ray.cluster_resources().get("GPU"))
            for job in jobs:
                wants = gpus and job[0].device != "cpu"
                task = ray.remote(ray_job).options(num_cpus=1, num_gpus=1 if wants else 0, max_retries=RETRIES)
                waiting.append(task.remote(job, folder, None if wants else 1))
            while waiting:
                done, waiting = ray.wait(waiting, num_returns=1, timeout=LOOK)
                for reference in done:
                    yield _result(ray, reference)
                if interrupted():
                    flag.touch()  # jobs at work leave a checkpoint, those that wait end as soon as they begin
    finally:
        for reference in waiting:  # if this is left early
            ray.cancel(reference, force=True)
        if own:
            ray.shutdown()
        flag.unlink(missing_ok=True)


def ray_job(job: Job, folder: str, threads: int | None) -> list[str]:
    """Run a job in a process of the cluster until it is done or the sweep says stop; return the runs now finished.

    Raises
    ------
    InputError
        As for `run_job`.
    """
    from optlaws.harness.lock import at_work
    from optlaws.harness.sweep import run_job, stop_file

    stop = stop_file(Path(folder))
    with at_work(Path(folder)):
        return [] if stop() else run_job(job, folder, threads, stop)


def _result(ray: Any, reference: Any) -> list[str]:
    """Return what a job returned; an error of the user's making is raised as it was there."""
    try:
        found: list[str] = ray.get(reference)
    except ray.exceptions.RayTaskError as bad:
        if isinstance(bad.cause, InputError):
            raise bad.cause from None
        raise
    return found
