"""What training costs."""

FLOPS = 6.0
"""FLOPs per parameter and token, C = 6 N D: two forward and four backward (arXiv 2001.08361, sec. 2.1)."""
