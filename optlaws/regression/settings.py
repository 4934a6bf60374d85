"""Constants of the regression of trend and field."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, cast

from optlaws.errors import InputError

SMALLEST, LARGEST = 1e-12, 1e12  # of a constant of the fit: beyond them sums run out of range


def _in_range(value: Any) -> bool:
    """Return whether a value is a number that a constant may have."""
    return isinstance(value, Real) and not isinstance(value, bool) and SMALLEST <= cast(float, value) <= LARGEST


@dataclass(frozen=True)
class Settings:
    """Constants of the fit, 1e-12 .. 1e12; the runs decide within the three grids alone.

    Attributes
    ----------
    trend_sd, field_sd : float
        Prior sd of the field (relative to the loss) while the trend is found, and afterwards.
    curve_field_sd : float
        Replaces both of them where curves are fitted: what a curve leaves is its own.
    size_sd : float
        Prior sd of the offset of one model size.
    sparse_size_sd : float
        The same where any run's network is sparse: a mixture of experts has more dials than its active parameters. Set
        after laws of two of Step Law's three sizes had missed the third by 1 to 5 %.
    source_sd : float
        Prior sd of the offset between final losses and curves (another evaluation set).
    noise_grid : tuple of float
        Relative run-to-run sds among which the evidence chooses while the trend is found; afterwards it takes the mean.
    noise_typical, noise_range : float
        Median of the prior of the noise, and sd of its logarithm: a few runs do not show that they are free of noise.
    noise_growth : float
        Noise sd is multiplied by sqrt(1 + (damage / noise_growth)^2); damage = share of the loss in variance and
        escape. This holds while the trend is found, and is the median of the prior of what the runs then say.
    growth_grid : tuple of float
        Multiples of `noise_growth` over which the evidence of trend and field takes the mean.
    spike_grid, spike_typical : tuple of float, float
        Shares of the loss that one loss spike may leave, over which it takes the mean as well, and the median of their
        prior; see `optlaws.regression.run_noise`.
    growth_range, run_noise_range, spike_range : float
        Sds of the logarithms of the growth, of the noise and of the spikes, in the priors of that. The second is wider
        than `noise_range`, which is for what the trend misses: the noise of public runs is from 0.03 to 1 %.
    robust : float
        Residuals beyond this many sds of the scatter about the trend lose weight (soft L1).
    rounds : int
        Rounds of reweighting.
    most_inducing : int
        Largest number of inducing points.
    spreads, curve_spreads : (float, float)
        Range of the calibrated factor of the sds of expected losses; the second where curves are fitted, since a few
        curves that share their calibrated time-scales say too little about it (its lower end was chosen on two sizes
        of the Multi-Power-Law runs).
    peak_gaps : float
        The field's length scale in ln peak rate is at least this many mean gaps between the rates of the runs.

    Raises
    ------
    InputError
        A constant is out of its range, `rounds` or `most_inducing` is no whole number, or a range is not two ascending
        numbers.
    """

    trend_sd: float = 0.004
    field_sd: float = 0.0075
    curve_field_sd: float = 0.0005
    size_sd: float = 0.0021
    sparse_size_sd: float = 0.02
    source_sd: float = 0.02
    noise_grid: tuple[float, ...] = (0.0003, 0.0004, 0.0007, 0.0012, 0.002, 0.0035, 0.006, 0.01)
    noise_typical: float = 0.001
    noise_range: float = 0.35
    noise_growth: float = 0.1
    growth_grid: tuple[float, ...] = (2.0, 1.0, 0.5, 0.25, 0.125)
    growth_range: float = 0.7
    spike_grid: tuple[float, ...] = (0.00001, 0.00004, 0.00016, 0.00064, 0.00256, 0.01)
    spike_typical: float = 0.001
    run_noise_range: float = 0.7
    spike_range: float = 1.5
    robust: float = 4.0
    rounds: int = 3
    most_inducing: int = 400
    spreads: tuple[float, float] = (0.4, 4.0)
    curve_spreads: tuple[float, float] = (3.0, 6.0)
    peak_gaps: float = 2.2

    def __post_init__(self) -> None:
        """Refuse constants that a fit cannot use."""
        for name, usual in ((each.name, each.default) for each in fields(self)):
            value, least = getattr(self, name), SMALLEST
            if isinstance(usual, tuple):
                numbers = tuple(value) if isinstance(value, (tuple, list)) else ()
                good = bool(numbers) and all(map(_in_range, numbers))
                rule = "one or more numbers"
                if not name.endswith("_grid"):
                    rule, good = (
                        "two numbers, the lower one first,",
                        good and len(numbers) == 2 and min(numbers) == value[0],
                    )
                object.__setattr__(self, name, numbers)
            else:
                good, rule = _in_range(value), "a number"
                if isinstance(usual, int):
                    rule, least, good = "a whole number", 1, good and isinstance(value, Integral)
            if not good:
                raise InputError(
                    f"{name} must be {rule} from {least:g} to {LARGEST:g}, got {value!r}; {usual!r} is the default"
                )

    @classmethod
    def checked(cls, settings: Any) -> Settings:
        """Return constants as they are given, the defaults for None.

        Raises
        ------
        InputError
            They are something else.
        """
        if settings is not None and not isinstance(settings, Settings):
            raise InputError(
                f"settings must be a Settings of optlaws.regression.settings, got {settings!r:.60};"
                " write Settings(size_sd=0.01), say, or leave it out"
            )
        return settings or cls()

    def of_sizes(self, sparse: bool) -> Settings:
        """Return the constants for dense networks, or for sparse ones, in `size_sd`."""
        return replace(self, size_sd=max(self.size_sd, self.sparse_size_sd)) if sparse else self
