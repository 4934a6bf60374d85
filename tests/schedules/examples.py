"""One list of all schedules, for every invariant."""

from __future__ import annotations

import numpy as np

from optlaws.schedules import (
    DECAYS,
    Schedule,
    chain,
    constant,
    continue_from,
    cosine,
    cyclic,
    exponential,
    from_array,
    inverse_sqrt,
    linear,
    multistep,
    one_cycle,
    piecewise,
    polynomial,
    step,
    two_stage,
    warm_restarts,
    wsd,
)


def examples(steps: int, peak: float = 2e-3) -> dict[str, Schedule]:
    """Return schedules of every family over `steps` steps (at least 20)."""
    w, low = max(steps // 20, 1), peak / 50
    warm = {"warmup": w, "warmup_start": low}
    curved = {"warmup": w + 1, "warmup_shape": "cosine"}
    out = {
        "constant": constant(peak, steps),
        "constant-warm": constant(peak, steps, **warm),
        "ramp": constant(peak, steps, warmup=2 * steps),
        "linear": linear(peak, steps, low, **warm),
        "cosine": cosine(peak, steps),
        "cosine-floor": cosine(peak, steps, low, **curved),
        "cosine-cycles": cosine(peak, steps, low, cycles=3, **warm),
        "inverse-sqrt": inverse_sqrt(peak, steps, **warm),
        "inverse-sqrt-cooldown": inverse_sqrt(peak, steps, decay=0.2, timescale=2 * w, warmup=w),
        "polynomial": polynomial(peak, steps, 3.0, low, **warm),
        "exponential": exponential(peak, steps, low, **warm),
        "step": step(peak, steps, every=0.3, factor=0.5, **warm),
        "multistep": multistep(peak, steps, **warm),
        "two-stage": two_stage(peak, steps, switch=0.5, second=low, **warm),
        "two-stage-up": two_stage(low, steps, switch=0.5, second=peak, **curved),
        "cyclic": cyclic(peak, steps, period=0.4, low=low, shrink=0.5),
        "one-cycle": one_cycle(peak, steps),
        "one-cycle-linear": one_cycle(peak, steps, pct=0.437, anneal="linear"),
        "restarts": warm_restarts(peak, steps, period=0.2, mult=1.5, shrink=0.7, final=low, **warm),
        "piecewise": piecewise([(0, 0.0), (w, peak), (steps // 2, peak), (steps // 2, low), (steps, 0.0)], steps),
        "piecewise-ramp": piecewise([(0, 0.0), (steps, peak)], steps),
        "array": from_array(cosine(peak, steps, **warm).array()),
        "chain": chain(constant(peak, steps - 10), linear(peak, 10)),
        "continued": continue_from(wsd(peak, steps - steps // 2), steps // 2, peak / 2, warmup=w, decay=0.3),
        "chain-array": chain(constant(peak, steps - 10), from_array(np.linspace(peak, 0.0, 10))),
    }
    for name in DECAYS:
        out[f"wsd-{name}"] = wsd(peak, steps, 0.3, name, low, **warm)
    return out
