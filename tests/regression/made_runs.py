"""Runs whose losses come from a law that is known: the package's own columns with coefficients set by hand."""

import numpy as np

from optlaws.dynamics import curve_states, drive, final_states
from optlaws.features import feature_table, get_basis
from optlaws.regression.kernel import matern32
from optlaws.runs import CurveTable, RunTable
from optlaws.schedules import constant, cosine, wsd

TRUTH = {
    "constant": 1.7,
    "size": 0.35,
    "bias": 0.9,
    "transient": 0.02,
    "variance_2": 0.5,
    "variance_4": 0.6,
    "peak_time": 0.3,
}


def coefficients():
    names = get_basis().names
    c = np.zeros(len(names))
    for name, value in TRUTH.items():
        c[names.index(name)] = value
    return c


def plan(peaks=(3e-4, 1e-3, 2e-3), steps=(3000, 6000, 12000), params=(2e7, 6e7), warmup=300, **columns):
    """Cosine, WSD and constant schedules for every peak, length and size; no losses."""
    schedules, sizes = [], []
    for size in params:
        for length in steps:
            for peak in peaks:
                warm = {"warmup": warmup}
                schedules += [
                    cosine(peak, length, final=0.1 * peak, **warm),
                    wsd(peak, length, decay=0.2, **warm),
                    constant(peak, length, **warm),
                ]
                sizes += [size] * 3
    given = {"params": sizes, "batch_tokens": 51200.0, "optimizer": "adamw", "weight_decay": 0.1, "status": "completed"}
    return RunTable.build(schedules, **(given | columns))


def expected(runs):
    return feature_table(runs) @ coefficients()


def smooth_field(runs, rng, sd=0.006, peak_scale=None):
    """A draw of a Gaussian process of relative residuals, shape (n,).

    It is the one that laws assume where `peak_scale` is the length in ln peak rate that they take for their runs, and
    rougher along the rate by default, as if they had rates at every scale.
    """
    basis = get_basis()
    peak = np.asarray(runs.batch().peak)
    z = basis.coordinates(final_states(runs, basis.dynamics), peak, peak_scale or basis.scales["peak"])
    return sd * np.linalg.cholesky(matern32(z, z) + 1e-9 * np.eye(len(z))) @ rng.normal(size=len(z))


def with_losses(runs, noise=0.0, seed=0, field=False, peak_scale=None):
    """The same runs with losses of the known law, relative noise added, and a `smooth_field` if wanted."""
    rng = np.random.default_rng(seed)
    loss = expected(runs) * (1 + noise * rng.normal(size=len(runs)))
    if field:
        loss /= 1 - smooth_field(runs, rng, peak_scale=peak_scale)
    return RunTable.build(
        runs.schedules,
        run_id=runs.run_id,
        params=runs.params,
        batch_tokens=runs.batch_tokens,
        optimizer=runs.optimizer,
        weight_decay=runs.weight_decay,
        status=runs.status,
        final_loss=loss,
    )


def curve_losses(runs, steps):
    """Losses of the known law after the given numbers of updates, one row a run."""
    basis = get_basis()
    states = curve_states(runs.schedule_tuple(), steps, drive(runs, basis.dynamics), basis.dynamics)
    return np.split(basis.evaluate(states) @ coefficients(), np.cumsum([len(at) for at in steps])[:-1])


def curves_of(runs, every=200, noise=0.0, seed=0):
    """Curves of the known law, a reading every so many steps."""
    rng = np.random.default_rng(seed)
    steps = [np.arange(every, total + 1, every, dtype=float) for total in runs.steps]
    names = [name for name, at in zip(runs.run_id, steps, strict=True) for _ in at]
    loss = np.concatenate(curve_losses(runs, steps))
    return CurveTable(tuple(names), np.concatenate(steps), loss * (1 + noise * rng.normal(size=len(loss))))
