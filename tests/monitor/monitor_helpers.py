"""Laws, runs and synthetic curves for the tests of the monitor."""

from __future__ import annotations

import numpy as np

from optlaws import load_law, parse
from optlaws.monitor import Monitor
from optlaws.monitor.path import EFFECTS, Path

TOTAL = 20_000
WSD = f"wsd:peak=1e-3,steps={TOTAL},warmup=300,decay=0.2"


def new_monitor(spec=WSD, **options):
    return Monitor(load_law("llama-slimpajama"), parse(spec), params=85e6, batch_tokens=51_200, **options)


def expected_curve(monitor, steps):
    """The law's own curve at the steps."""
    return np.exp(np.array([monitor.path.log_loss_at(s) for s in steps]))


def feed(monitor, steps, loss, grad=None):
    for k, (s, y) in enumerate(zip(steps, loss, strict=True)):
        status = monitor.update(s, y, None if grad is None else grad[k])
    return status


def plain_path(sd=0.01, points=50, total=1000.0):
    """A path with a power-law curve and made-up effects, 0 at the end."""
    steps = np.geomspace(1.0, total, points)
    u = steps / total
    columns = np.column_stack([u**-0.4, u**-0.8 / 5, 1 - u, (1 - u) ** 2, np.cos(3 * u)])
    assert columns.shape[1] == len(EFFECTS)
    return Path(
        steps=steps,
        log_loss=np.log(2.0 + u**-0.3),
        effects=columns - columns[-1],
        log_final=float(np.log(3.0)),
        sd=sd,
        noise=sd / 4,
        start=20.0,
    )
