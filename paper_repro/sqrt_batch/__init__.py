"""The square-root batch rule."""
