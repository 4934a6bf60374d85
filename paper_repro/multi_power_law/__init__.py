"""Multi-Power Law (arXiv 2503.12811): metric table and parameters."""
