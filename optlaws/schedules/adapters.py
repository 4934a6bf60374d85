"""Schedules inside training frameworks, without importing any of them."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

from optlaws.schedules.keys import complain
from optlaws.schedules.schedule import Schedule


def as_lambda(schedule: Schedule, base_lr: float | None = None) -> Callable[[int], float]:
    """Return the factor for ``torch.optim.lr_scheduler.LambdaLR``: lr(k) / base_lr.

    LambdaLR asks for step T after the last update; it gets the factor of step T-1, which no update uses.

    Parameters
    ----------
    schedule : Schedule
        The schedule.
    base_lr : float, optional
        The `lr` given to the optimizer, above 0; the schedule's peak unless given.

    Raises
    ------
    ScheduleError
        `base_lr` is not above 0, or a step after T is asked for.

    Examples
    --------
    >>> from optlaws.schedules import wsd
    >>> factor = as_lambda(wsd(1e-3, 100, warmup=10, decay=20))
    >>> factor(5), factor(50), factor(90)
    (0.5, 1.0, 0.5)
    """
    base = schedule.peak if base_lr is None else base_lr
    if not (isinstance(base, Real) and 0 < base < float("inf")):
        raise complain("base_lr", "a finite rate above 0", base, "give the optimizer's lr")
    last = schedule.total_steps - 1

    def factor(k: int) -> float:
        return float(schedule.lr(last if k == last + 1 else int(k))) / float(base)

    return factor


def as_optax(schedule: Schedule, xp: Any) -> Callable[[Any], Any]:
    """Return an optax schedule (step -> rate) that works under jit: a look-up in the array of all rates.

    Parameters
    ----------
    schedule : Schedule
        The schedule; its T rates are held in memory.
    xp : module
        ``jax.numpy`` (or ``numpy``).

    Returns
    -------
    callable
        Steps beyond T-1 get the last rate, since code under jit cannot raise.
    """
    rates = xp.asarray(schedule.array())
    return lambda step: rates[xp.clip(step, 0, schedule.total_steps - 1)]
