"""Jobs of a sweep over a Ray cluster. Ray is loaded only here, and only when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from optlaws.errors import InputError

if TYPE_CHECKING:
    from optlaws.harness.sweep import Job

RETRIES = 3  # times that Ray starts a job again whose machine was lost; what it had finished is not done again


def over_ray(jobs: Sequence[Job], folder: str) -> Iterator[list[str]]:
    """Run jobs as Ray tasks, as many at once as the cluster has devices; yield the runs that each has trained.

    A cluster that runs already is joined (RAY_ADDRESS, or one on this machine), else Ray starts one here. A job asks
    for one GPU where its runs want one and the cluster has any, else for one CPU.

    Raises
    ------
    InputError
        If Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "ray must be installed for --ray, got none; install the extra cluster (pip install 'optlaws[cluster]')"
        )
    if not jobs:
        return
    ray: Any = importlib.import_module("ray")
    own = not ray.is_initialized()
    if own:
        ray.init(log_to_driver=False)
    try:
        from optlaws.harness.sweep import run_job

        gpus = bool(ray.cluster_resources().get("GPU"))
        waiting = []
        for job in jobs:
            wants = gpus and job[0].device != "cpu"
            task = ray.remote(run_job).options(num_cpus=1, num_gpus=1 if wants else 0, max_retries=RETRIES)
            waiting.append(task.remote(job, folder, None if wants else 1))
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            for reference in done:
                yield ray.get(reference)
    finally:
        if own:
            ray.shutdown()
