"""Epoch AI's refit of Chinchilla."""
