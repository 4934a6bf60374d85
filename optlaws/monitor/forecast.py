"""Re-forecast of the final loss from a partial curve: the law as prior, the readings as data.

Model, for a reading at step s with y(s) = ln loss - ln (loss that the law expects there):

    y(s) = e - c + psi(s) . w + misfit + noise

    e    ln (final loss / predicted final loss); e ~ N(0, (m sd)^2), sd the law's own for this run; on another corpus
         its level, too, is the curve's to tell
    c    ln (final loss / last reading) beyond what the law expects: another evaluation set
    w    weights of the effects psi, which vanish at the end of the run (`optlaws.monitor.path`)
    (c, w) ~ N(mean, covariance), learnt from finished curves (`optlaws.monitor.learning`); w is less certain where the
         law is: its sds are multiplied by sd over the law's usual sd, where that is above 1
    m    how many times the law's interval is too narrow for this run, 1 with probability 0.9: other data, another code

Given m all is Gaussian, and the posterior of e that of a Bayesian linear regression; the evidence of the readings
weighs the values of m. So a run that departs from its law is followed, and one that does not keeps the law's precision.
Readings close together in ln s share the law's misfit; old ones count less than late ones, by (s / now)^2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from optlaws._content import Content
from optlaws._entries import number, numbers, whole
from optlaws.dynamics.model import FloatArray
from optlaws.errors import InputError, LawError, nearest
from optlaws.law import Law
from optlaws.monitor.path import EFFECTS, Path

INDEPENDENT = 10.0  # readings per e-fold of the step that count as independent: closer ones share the law's misfit
FORGETTING = 2.0  # a reading at step s counts (s / now)^2 as much as one now: the law's shape is a local matter
SCALES = np.array([1.0, 3.0, 10.0, 30.0, 100.0])
SCALE_ODDS = np.array([0.9, 0.07, 0.02, 0.007, 0.003])
MOST_SHAPE = 3.0  # other data move the level by up to m sds, the shape of the curve by no more than this many
FREE_LEVEL = 10.0  # sd of ln loss: the level is not known at all
MOST_UNSURE = 10.0  # largest factor for a run of which the law is less sure than of its own
FIRST_NOISE = 0.01  # relative sd of a reading before there are enough of them to tell
NOISE_READINGS = 64  # latest differences from which it is estimated
FEWEST_DIFFERENCES = 4
OUTLIER = 4.0  # readings beyond this many noise sds of their neighbours lose weight
NEIGHBOURS = 7
INTERVAL = 0.9
INFO_KEY = "monitor"  # where a law file keeps its prior
DEFAULT_EFFECT_SD = (0.1, 0.1, 0.1, 0.1, 0.1)
DEFAULT_OFFSET_SD = 0.02  # as `Settings.source_sd`; a law fitted to curves knows the offset
KNOWN_OFFSET_SD = 0.002
DEFAULT_MISFIT = 0.0015
LEAST = 1e-12  # of a misfit or a spread in a law file


@dataclass(frozen=True, eq=False)
class CurvePrior(Content):
    """How curves depart from a law whose final loss is right.

    Attributes
    ----------
    mean : (6,) of the offset c and the weights of `EFFECTS`.
    covariance : (6, 6)
    misfit : relative sd of an independent reading about the model.
    spread : factor of the forecast's sd with which 90 % intervals cover 90 % of left-out training runs.
    curves : number of curves that it was learnt from; 0 = default.
    law_sd : median relative sd that the law gave the final losses of those curves; 0 = not known.
    level : relative sd of a factor on all losses of the run that the curve alone tells; 0 = the law knows the level.

    Covariances are those of relative losses; `misfit` and `spread` are above 0.
    """

    mean: FloatArray
    covariance: FloatArray
    misfit: float
    spread: float = 1.0
    curves: int = 0
    law_sd: float = 0.0
    level: float = 0.0

    def shape_scale(self, sd: float) -> float:
        """Return how many times less certain than usual the shape of a curve is, for the law's relative sd of a run."""
        return min(max(sd / self.law_sd, 1.0), MOST_UNSURE) if self.law_sd > 0 else 1.0

    def shape_covariance(self, scale: float) -> FloatArray:
        """Return the covariance (6, 6) with the sds of the effects, not of the offset, multiplied by a scale > 0."""
        factor = np.full(len(self.mean), scale)
        factor[0] = 1.0  # the offset belongs to the evaluation sets, not to the run
        return np.asarray(self.covariance * factor[:, None] * factor[None])

    @classmethod
    def default(cls, has_curves: bool) -> CurvePrior:
        """Return a wide prior for a law from whose training runs no curves are at hand.

        With `has_curves` the law was fitted to curves and knows the offset; without, losses along the run may lie on
        another evaluation set, so that they tell the shape and the last reading, and little of the final loss.
        """
        sd = np.array([KNOWN_OFFSET_SD if has_curves else DEFAULT_OFFSET_SD, *DEFAULT_EFFECT_SD])
        return cls(np.zeros(len(sd)), np.diag(sd**2), DEFAULT_MISFIT)

    @classmethod
    def elsewhere(cls) -> CurvePrior:
        """Return the prior for a law of another corpus (`Law.on_other_corpus`): nothing learnt on the law's runs holds.

        The final loss is then what the curve itself shows at its end, its level is what the curve says it is (losses
        twice as high give a forecast twice as high), and its shape is `MOST_SHAPE` times less certain than by default.
        """
        prior = cls.default(True)
        return replace(prior, covariance=prior.shape_covariance(MOST_SHAPE), level=FREE_LEVEL)

    @classmethod
    def of(cls, law: Law) -> CurvePrior:
        """Return the prior that a law file carries, else the default; `elsewhere` for a law on another corpus.

        Raises
        ------
        LawError
            The file's prior is damaged or was written for other effects.
        """
        if law.discrepancy is not None:
            return cls.elsewhere()
        found = law.info.get(INFO_KEY)
        return cls.default(law.has_curves) if found is None else cls.from_dict(found)

    def to_dict(self) -> dict[str, Any]:
        """Return the prior as plain numbers."""
        values = {**asdict(self), "mean": self.mean.tolist(), "covariance": self.covariance.tolist()}
        return {"effects": list(EFFECTS), **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CurvePrior:
        """Return the prior of `to_dict`.

        Raises
        ------
        LawError
            It was written for other effects, or something is missing or no number.
        """
        if list(values.get("effects", ())) != list(EFFECTS):
            raise LawError(
                f"effects of a monitor's prior must be {', '.join(EFFECTS)}, got {values.get('effects')!r};"
                " learn it again with this version"
            )
        known = ("mean", "covariance", "misfit", "spread", "curves", "law_sd")
        for name in known:
            if name not in values:
                raise LawError(f"a monitor's prior must have {name!r}, got {', '.join(values)}{nearest(name, values)}")
        size = len(EFFECTS) + 1
        try:
            return cls(
                numbers(values["mean"], size, name="mean"),
                numbers(values["covariance"], size, size, name="covariance"),
                number(values["misfit"], "misfit", LEAST),
                number(values["spread"], "spread", LEAST),
                whole(values["curves"], "curves"),
                number(values["law_sd"], "law_sd", 0.0),
                number(values.get("level", 0.0), "level", 0.0),  # files of earlier versions have none
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise LawError(f"a monitor's prior must hold numbers, got others ({error}); learn it again") from None


@dataclass(frozen=True)
class Forecast:
    """Final loss as seen from a step of the run; losses in nats per token, 90 % intervals for this run.

    Attributes
    ----------
    step, fraction : updates done, and their share of the run.
    loss, lower, upper : final loss, as the law's runs state theirs.
    last_reading, last_lower, last_upper : what the curve itself will show at the end (the same, up to the offset
        between the evaluation sets, which the prior knows or does not).
    prior_loss, prior_lower, prior_upper : the law's answer before the run.
    law_scale : how many times wider than stated the law's interval seems to be for this run; 1 = as stated.
    readings : different steps whose readings are used: those before `path.start` are not, and a `Monitor` hands over
        blocks of readings, so that it is fewer than `Status.readings`, the readings taken in.
    """

    step: float
    fraction: float
    loss: float
    lower: float
    upper: float
    last_reading: float
    last_lower: float
    last_upper: float
    prior_loss: float
    prior_lower: float
    prior_upper: float
    law_scale: float
    readings: int

    def to_dict(self) -> dict[str, float]:
        """Return the forecast as plain numbers."""
        return asdict(self)


def independent_share(steps: FloatArray) -> FloatArray:
    """Return what each of m readings adds in independent ones, (m,), 0 .. 1; steps above 0, each above the last."""
    gaps = np.diff(np.log(steps), prepend=-np.inf)
    return np.asarray(np.minimum(gaps * INDEPENDENT, 1.0))


def reading_noise(residuals: FloatArray) -> float:
    """Return the relative sd of a reading, from the median absolute difference of neighbours in residuals (m,)."""
    differences = np.diff(residuals[-NOISE_READINGS - 1 :])
    if len(differences) < FEWEST_DIFFERENCES:
        return FIRST_NOISE
    return 1.4826 / math.sqrt(2.0) * float(np.median(np.abs(differences)))


def outlier_weights(residuals: FloatArray, noise: float) -> FloatArray:
    """Return weights (m,), 1 near the median of the latest `NEIGHBOURS` readings and less beyond `OUTLIER` sds."""
    m = len(residuals)
    if m < 3:
        return np.ones(m)
    padded = np.concatenate([np.full(NEIGHBOURS - 1, np.nan), residuals])
    windows = np.lib.stride_tricks.sliding_window_view(padded, NEIGHBOURS)
    level = np.nanmedian(windows, axis=1)
    z = np.abs(residuals - level) / (OUTLIER * max(noise, 1e-6))
    return np.asarray(1.0 / np.maximum(z, 1.0) ** 2)


def posterior(
    design: FloatArray, y: FloatArray, weight: FloatArray, covariance: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return means (k, p), covariances (k, p, p) and log evidences (k,) of y = design x + noise for k priors N(0, C).

    `design` (m, p), `y` (m,), `weight` (m,) = 1 / noise variance, `covariance` (k, p, p). The evidence lacks a term
    that all priors share.
    """
    gram = design.T @ (weight[:, None] * design)
    b = design.T @ (weight * y)
    inner = np.eye(len(b)) + covariance @ gram
    spread = np.linalg.solve(inner, covariance)
    spread = 0.5 * (spread + spread.transpose(0, 2, 1))
    mean = spread @ b
    return mean, spread, 0.5 * (mean @ b - np.linalg.slogdet(inner)[1])


def reforecast(path: Path, prior: CurvePrior, steps: FloatArray, log_loss: FloatArray) -> Forecast:
    """Return the forecast from the readings so far.

    Parameters
    ----------
    path : Path
        What the law expects.
    prior : CurvePrior
    steps, log_loss : ndarray of shape (m,)
        Readings so far, ln of losses in nats per token, steps ascending; those before `path.start` are not used.
        Several of one step count as one, their mean: another look at the same parameters is no further reading.

    Raises
    ------
    InputError
        The two differ in length, a number is not finite, or the steps do not ascend.
    """
    if np.shape(steps) != np.shape(log_loss) or np.ndim(steps) != 1:
        raise InputError(
            f"steps and log_loss must be two lists of equal length, got shapes {np.shape(steps)} and"
            f" {np.shape(log_loss)}; give one loss a step"
        )
    odd = np.flatnonzero(~(np.isfinite(steps) & np.isfinite(log_loss)))
    back = np.flatnonzero(np.diff(steps) < 0)
    if len(odd) or len(back):
        row = int(odd[0] if len(odd) else back[0] + 1)
        raise InputError(
            "steps and log_loss must be finite, steps ascending, got"
            f" step {steps[row]:g} with ln loss {log_loss[row]:g} at place {row}; leave such readings out"
        )
    if (np.diff(steps) == 0).any():
        steps, place, count = np.unique(steps, return_inverse=True, return_counts=True)
        log_loss = np.bincount(place, weights=log_loss) / count
    return _answer(path, prior, steps, *_solve(path, prior, steps, log_loss))


def _solve(
    path: Path, prior: CurvePrior, steps: FloatArray, log_loss: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, int]:
    """Return means and covariances of (e, c, w) under each scale, their probabilities, and the readings used."""
    size = len(prior.mean) + 1
    start = np.concatenate([[0.0], prior.mean])
    covariance = np.zeros((len(SCALES), size, size))
    covariance[:, 0, 0] = (SCALES * path.sd) ** 2
    unsure = prior.shape_scale(path.sd)
    for k, scale in enumerate(SCALES):
        covariance[k, 1:, 1:] = prior.shape_covariance(unsure * min(float(scale), MOST_SHAPE))
    used = steps >= path.start
    steps, log_loss = steps[used], log_loss[used]
    if not len(steps):
        return np.tile(start, (len(SCALES), 1)), covariance, SCALE_ODDS, 0
    covariance[:, 0, 0] += prior.level**2
    expected, effects = path.at(steps)
    y = log_loss - expected
    noise = reading_noise(y)
    weight = outlier_weights(y, noise) / (prior.misfit**2 / independent_share(steps) + noise**2)
    weight *= (steps / steps[-1]) ** FORGETTING
    design = np.column_stack([np.ones(len(y)), -np.ones(len(y)), effects])
    mean, spread, evidence = posterior(design, y - design @ start, weight, covariance)
    odds = SCALE_ODDS * np.exp(evidence - evidence.max())
    return mean + start, spread, odds / odds.sum(), len(steps)


def _answer(
    path: Path, prior: CurvePrior, steps: FloatArray, mean: FloatArray, spread: FloatArray, odds: FloatArray, used: int
) -> Forecast:
    """Return the forecast that the posterior of (e, c, w) makes."""
    last_log = float(path.log_loss[-1])
    e, c = mean[:, 0], mean[:, 1]
    sd_e = (prior.spread if used else 1.0) * np.sqrt(spread[:, 0, 0])
    sd_last = prior.spread * np.sqrt(spread[:, 0, 0] + spread[:, 1, 1] - 2 * spread[:, 0, 1] + prior.misfit**2)
    final = [path.log_final + v for v in mixture(e, sd_e, odds)]
    last = [last_log + v for v in mixture(e - c, sd_last, odds)]
    before = [path.log_final + v for v in mixture(np.zeros(len(SCALES)), SCALES * path.sd, SCALE_ODDS)]
    step = float(steps[-1]) if len(steps) else 0.0
    loss, lower, upper, end, end_lower, end_upper, first, first_lower, first_upper = (
        math.exp(v) for v in (*final, *last, *before)
    )
    return Forecast(
        step=step, fraction=step / path.total, loss=loss, lower=lower, upper=upper,
        last_reading=end, last_lower=end_lower, last_upper=end_upper,
        prior_loss=first, prior_lower=first_lower, prior_upper=first_upper,
        law_scale=float(np.exp(odds @ np.log(SCALES))), readings=used,
    )  # fmt: skip


def mixture(mean: FloatArray, sd: FloatArray, odds: FloatArray) -> tuple[float, float, float]:
    """Return mean and the ends of the central 90 % interval of a mixture of k normal distributions, arguments (k,)."""
    centre = float(odds @ mean)
    parts = [(float(p), float(a), max(float(b), 1e-12)) for p, a, b in zip(odds, mean, sd, strict=True) if p > 1e-6]

    def below(x: float) -> float:
        return sum(p * 0.5 * math.erfc((a - x) / (b * math.sqrt(2.0))) for p, a, b in parts)

    ends = []
    for level in ((1 - INTERVAL) / 2, (1 + INTERVAL) / 2):
        low = min(a - 6 * b for _, a, b in parts)
        high = max(a + 6 * b for _, a, b in parts)
        for _ in range(48):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if below(middle) < level else (low, middle)
        ends.append(0.5 * (low + high))
    return centre, ends[0], ends[1]


def check_prior(prior: CurvePrior) -> None:
    """Refuse a prior that cannot be used.

    Raises
    ------
    InputError
        A number is not finite, `misfit` or `spread` is not above 0, or the arrays have other shapes.
    """
    size = len(EFFECTS) + 1
    if np.shape(prior.mean) != (size,) or np.shape(prior.covariance) != (size, size):
        raise InputError(
            f"mean and covariance of a monitor's prior must have shapes ({size},) and ({size}, {size}), got"
            f" {np.shape(prior.mean)} and {np.shape(prior.covariance)}; learn it again"
        )
    numbers = [*prior.mean, *np.ravel(prior.covariance), prior.misfit, prior.spread, prior.law_sd, prior.level]
    if not (np.isfinite(numbers).all() and prior.misfit > 0 and prior.spread > 0 and prior.level >= 0):
        raise InputError(
            "a monitor's prior must hold finite numbers, misfit and spread above 0, level from 0; learn it again"
        )


__all__ = ["CurvePrior", "Forecast", "check_prior", "independent_share", "mixture", "posterior", "reforecast"]
