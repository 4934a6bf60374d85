"""Numbers of the normal distribution that several layers use."""

NORMAL_90 = 1.6448536269514722
"""Half-width of a 90 % interval in standard deviations: the quantile of 0.95."""
