"""Made-up runs whose outcome follows the criterion exactly, for the tests of the risk model."""

from __future__ import annotations

import numpy as np

from optlaws.dynamics import Dynamics
from optlaws.risk import Prior, quantities
from optlaws.risk.criterion import log_critical
from optlaws.runs import RunTable
from optlaws.schedules import cosine

TRUE = np.array([-2.0, -0.05, 0.08, np.log(0.3), np.log(0.03), np.log(3.0), 0.15])
SCATTER = 0.05


def grid(sources=("a",), seed=0, offsets=(0.0,), theta=TRUE, scatter=SCATTER, beta1=(0.9, 0.95)):
    """Rows over size, tokens, batch and beta1; the threshold of each row is drawn once."""
    rng = np.random.default_rng(seed)
    schedules, columns = [], {name: [] for name in ("source", "params", "batch_tokens", "beta1")}
    luck = []
    for source, offset in zip(sources, offsets, strict=True):
        for n in (5e7, 2e8, 6e8):
            for steps in (4000, 20000, 150000):
                for batch in (65536, 524288, 2097152):
                    for beta in beta1:
                        z = offset + scatter * rng.standard_normal()
                        for peak in np.geomspace(2e-3, 6e-2, 12):
                            schedules.append(cosine(peak=float(peak), steps=steps, warmup=1000))
                            luck.append(z)
                            for name, value in zip(columns, (source, n, batch, beta), strict=True):
                                columns[name].append(value)
    runs = RunTable.build(schedules, optimizer="adamw", weight_decay=0.1, **columns)
    q = quantities(runs, Dynamics())
    above = np.log(q.felt) - log_critical(q, theta)[0] - np.array(luck)
    status = ["diverged" if x > 0 else "completed" for x in above]
    return RunTable.build(schedules, optimizer="adamw", weight_decay=0.1, status=status, final_loss=3.0, **columns)


PRIOR = Prior()
