"""Adam and AdamW on a noisy quadratic with many modes against the SDE of the noise-dominated regime.

    dX = -eta h B^1/2 s^-1 X dt + eta dW        Malladi et al., arXiv 2205.10287, definition 4.2, v at its noise level

so intrinsic time grows with eta sqrt(B), the temperature is eta / sqrt(B), and (eta, B, T) -> (2 eta, 4 B, T / 4)
changes nothing (the square-root rule; 1 - beta grows with B). Decoupled weight decay adds eta wd to every mode's rate,
which is curvature: l + wd lr_ref b^-1/2.

With a = eta h B^1/2 / s the share of a mode that a step removes, left out are terms of relative order a / (1 - beta1)
(momentum and the finite step), 1 - beta2 (the normaliser's fluctuation: E v^-1/2 is larger by 3/8 var(v) / E^2 v, and v
contains the gradient that it divides) and a_0 = (h x B^1/2 / s)^2 (signal in the normaliser). Their sum is allowed.
Where the batch is so large that the gradient exceeds its noise the regime ends: a row shows that failure, for which
`optlaws.dynamics` has the critical batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optlaws.schedules import Schedule, constant, cosine, wsd
from theory.montecarlo.link import bare_dynamics, states_at
from theory.montecarlo.rows import FloatArray, Row, mean_row

MODES, STEPS, PEAK, NOISE = 24, 2400, 2e-3, 1.0
CURVATURES = np.geomspace(0.1, 5.0, MODES)
SIGNAL = 0.1  # start of each mode as gradient over noise, where that keeps it within REACH
REACH = 0.05
EPSILON = 1e-12
BANDS = {"slow modes": slice(0, 8), "middle modes": slice(8, 16), "fast modes": slice(16, 24)}


@dataclass(frozen=True)
class Setting:
    """One run of Adam: schedule, batch (tokens), betas, decoupled weight decay (1 / rate)."""

    schedule: Schedule
    batch: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0

    @property
    def fastest(self) -> float:
        """Relative order of momentum's delay for the fastest mode."""
        return float(self.schedule.peak * CURVATURES[-1] * np.sqrt(self.batch) / NOISE / (1.0 - self.beta1))

    def left_out(self, modes: slice = slice(None)) -> float:
        """Return the sum of the relative orders that the SDE leaves out, mean over modes."""
        a = float(self.schedule.peak * CURVATURES[modes].mean() * np.sqrt(self.batch) / NOISE)
        return a / (1.0 - self.beta1) + 1.0 - self.beta2 + SIGNAL**2 * self.batch


def settings() -> dict[str, Setting]:
    """Return the runs that are compared."""
    return {
        "constant, B = 1": Setting(constant(PEAK, STEPS)),
        "cosine, B = 1": Setting(cosine(PEAK, STEPS)),
        "WSD, B = 1": Setting(wsd(PEAK, STEPS, decay=0.2)),
        "WSD, B = 4, rate x 2, T / 4": Setting(wsd(2 * PEAK, STEPS // 4, decay=0.2), 4.0, 0.6, 0.996),
        "AdamW, WSD, wd = 0.5": Setting(wsd(PEAK, STEPS, decay=0.2), weight_decay=0.5),
    }


def start() -> FloatArray:
    """Return where the modes start, shape (MODES,)."""
    return np.asarray(np.minimum(SIGNAL * NOISE / CURVATURES, REACH))


def adam(setting: Setting, trajectories: int, rng: np.random.Generator) -> FloatArray:
    """Return x after Adam(W) as published, bias corrections included, shape (trajectories, MODES)."""
    s = setting
    x = np.tile(start(), (trajectories, 1))
    m, v = np.zeros_like(x), np.zeros_like(x)
    gradient, work = np.empty_like(x), np.empty_like(x)
    for k, rate in enumerate(s.schedule.array(), start=1):
        rng.standard_normal(out=gradient)
        gradient *= NOISE / np.sqrt(s.batch)
        gradient += CURVATURES * x
        m += (1.0 - s.beta1) * (gradient - m)
        np.square(gradient, out=gradient)
        v += (1.0 - s.beta2) * (gradient - v)
        np.sqrt(v, out=work)
        work /= np.sqrt(1.0 - s.beta2**k)
        work += EPSILON
        np.divide(m, work, out=work)
        x *= 1.0 - rate * s.weight_decay
        x -= (rate / (1.0 - s.beta1**k)) * work
    return x


def predicted(setting: Setting) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of the modes as `optlaws` has them, each (MODES,)."""
    s = setting
    shift = s.weight_decay * PEAK / np.sqrt(s.batch)
    mean, variance = np.empty(MODES), np.empty(MODES)
    for j, curvature in enumerate(CURVATURES * PEAK / NOISE + shift):
        states = states_at(s.schedule, bare_dynamics(PEAK, [curvature]), batch=s.batch, optimizer="adam")
        mean[j] = start()[j] * np.exp(-curvature * states.tau[0])
        variance[j] = PEAK**2 * states.variance[0, 0] / (2.0 * curvature)
    return mean, variance


def loss_of(x: FloatArray) -> FloatArray:
    """Return the loss of each trajectory, sum of h x^2 / 2 over the modes."""
    return np.asarray(0.5 * (x**2 @ CURVATURES))


def adam_rows(trajectories: int = 1000, seed: int = 3) -> list[Row]:
    """Return mean and variance of three bands of modes and the loss, for each setting, and the rule that fails."""
    rng, rows, loss = np.random.default_rng(seed), [], {}
    for name, setting in settings().items():
        mean, variance = predicted(setting)
        x = adam(setting, trajectories, rng)
        slow = BANDS["slow modes"]
        ratio = (x[:, slow] / start()[slow]).mean(axis=1)
        kept = float((mean[slow] / start()[slow]).mean())
        rows.append(
            mean_row(f"{name}: what is left of the start, slow modes", kept, ratio, "order", setting.left_out(slow))
        )
        spread = (x - x.mean(axis=0)) ** 2 * trajectories / (trajectories - 1)
        for band, modes in BANDS.items():
            share = (spread[:, modes] / variance[modes]).mean(axis=1)
            rows.append(mean_row(f"{name}: variance / predicted, {band}", 1.0, share, "order", setting.left_out(modes)))
        each = loss[name] = loss_of(x)
        total = 0.5 * float(CURVATURES @ (mean**2 + variance))
        rows.append(mean_row(f"{name}: loss x 1000", total, each, "order", setting.left_out() * total, 1000.0))
    base, cut = "WSD, B = 1", "WSD, B = 4, rate x 2, T / 4"
    wrong = Setting(wsd(4 * PEAK, STEPS // 4, decay=0.2), 4.0, 0.6, 0.996)
    others = {
        "square-root rule": ("order", loss[cut]),
        "linear rule": ("differs", loss_of(adam(wrong, trajectories, rng))),
    }
    one = 1000.0 * loss[base]
    order = (settings()[base].left_out() + settings()[cut].left_out()) * float(one.mean())
    for what, (rule, each) in others.items():
        four = 1000.0 * each
        se = float(np.hypot(one.std(), four.std()) / np.sqrt(trajectories))
        what = f"{what}: loss x 1000 at B = 4 against B = 1"
        rows.append(Row(what, float(one.mean()), float(four.mean()), se, rule, order))
    loud, fast = Setting(constant(PEAK / 20.0, 200), 256.0), BANDS["fast modes"]  # gradients 1.6 times their noise
    kept = float((predicted(loud)[0][fast] / start()[fast]).mean())
    ratio = (adam(loud, trajectories, rng)[:, fast] / start()[fast]).mean(axis=1)
    what = "signal above noise, B = 256: what is left of the start, fast modes"
    rows.append(mean_row(what, kept, ratio, "differs", loud.fastest * kept))
    return rows
