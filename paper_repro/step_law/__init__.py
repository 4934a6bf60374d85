"""Step Law."""
