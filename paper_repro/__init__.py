"""Published tables of the field, computed again from public data: `python -m paper_repro`."""
