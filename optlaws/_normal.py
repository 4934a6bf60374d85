"""Numbers of the normal distribution, and of the quantiles of residuals, that several layers use."""

NORMAL_90 = 1.6448536269514722
"""Half-width of a 90 % interval in standard deviations: the quantile of 0.95."""

MOST_COVERED = 0.99
"""Share of residuals that intervals are made to cover at most: the widest of many residuals decides nothing."""


def share_to_cover(count: int) -> float:
    """Return the share of left-out residuals that 90 % intervals must cover to hold a new one with 90 %.

    Of n >= 1 residuals of runs that may be exchanged with a new one, 0.9 (n + 1) / n, as conformal intervals ask for
    (Vovk et al., Algorithmic Learning in a Random World, 2005); `MOST_COVERED` at most. `count` is the number of runs,
    where each of them gave several residuals, which err together.

    >>> [round(share_to_cover(count), 3) for count in (4, 12, 30, 1000)]
    [0.99, 0.975, 0.93, 0.901]
    """
    return min(0.9 * (count + 1) / count, MOST_COVERED)
