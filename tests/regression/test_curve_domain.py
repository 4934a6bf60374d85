"""Where a law speaks of a curve, and where it does not."""

import numpy as np

from optlaws.law import load_law
from optlaws.runs import RunTable
from optlaws.schedules import parse


def test_the_first_steps_of_a_curve_are_not_in_the_domain():
    law = load_law("llama-slimpajama")
    runs = RunTable.build(
        [parse("wsd:peak=1e-3,steps=6000,warmup=300"), parse("constant:peak=1e-3,steps=6000")],
        params=85e6, batch_tokens=51200.0, weight_decay=0.1,
    )  # fmt: skip
    p = law.predict_curve(runs, np.array([1.0, 119.0, 120.0, 299.0, 300.0, 6000.0]))
    said = [reason.startswith("step before") for reason in p.reasons]
    assert said == [True] * 4 + [False] * 2 + [True] * 2 + [False] * 4
    assert not p.in_domain[said].any()
    assert p.in_domain[5] == law.predict(runs).in_domain[0]
    assert p.reasons[0] == "step before 300, where this law's curve begins"
    assert p.reasons[7] == "step before 120, where this law's curve begins"
    assert p.reasons[11] == law.predict(runs).reasons[1]
