"""A made sweep: runs and curves by a built-in law."""

import dataclasses
import warnings

import numpy as np

from optlaws.law import load_law
from optlaws.law.builtin import public_risk
from optlaws.runs import CurveTable, RunTable
from optlaws.schedules import parse

PEAKS = (2e-4, 5e-4, 1e-3, 2e-3)
SHAPES = ("cosine:peak={},steps={},warmup=300", "wsd:peak={},steps={},warmup=300,decay=0.2")
NOISE = 5e-4


def sweep_tables():
    """Return a made sweep: losses of a built-in law with noise, divergence by the public risk model, curves too."""
    law = load_law("llama-slimpajama")
    cases = [
        (shape.format(peak, steps), n, 0)
        for n in (25e6, 50e6, 100e6)
        for steps in (2000, 4000, 8000)
        for peak in PEAKS
        for shape in SHAPES
    ]
    cases += [(SHAPES[0].format(5e-4, 2000), 25e6, seed) for seed in (1, 2)]
    cases += [(f"constant:peak=2,steps={steps},warmup=0", 25e6, 0) for steps in (2000, 8000)]
    runs = RunTable.build(
        [parse(text) for text, _, _ in cases],
        params=[n for _, n, _ in cases],
        batch_tokens=51_200,
        optimizer="adamw",
        beta1=0.9,
        beta2=0.95,
        weight_decay=0.1,
        extra={"seed": [str(seed) for _, _, seed in cases]},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = law.predict(runs).loss * np.exp(np.random.default_rng(0).normal(0, NOISE, len(runs)))
        hot = public_risk().probability(runs) > 0.5
        steps = np.array([250.0, 500.0, 1000.0, 1500.0, 2000.0])
        readings = [law.predict_curve(runs.select([i]), steps).loss for i in range(len(runs))]
    assert hot[-2:].all()
    assert not hot[:-2].any()
    loss[hot] = 9.0
    status = tuple("diverged" if bad else "completed" for bad in hot)
    runs = dataclasses.replace(runs, final_loss=loss, status=status)
    names = tuple(np.repeat(runs.run_id, len(steps)).tolist())
    wrong = np.full(len(names), 99.0)  # the training losses; the validation losses beside them are to be taken
    curves = CurveTable(
        names, np.tile(steps, len(runs)), wrong, {"val_loss": tuple(map(str, np.concatenate(readings).tolist()))}
    )
    return runs, curves
