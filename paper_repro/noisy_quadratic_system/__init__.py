"""The noisy quadratic system (arXiv 2605.09154): the authors' demo."""
