"""The convex bound (arXiv 2501.18965): shape agreement and learning-rate transfer."""
