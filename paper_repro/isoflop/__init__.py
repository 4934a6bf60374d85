"""IsoFLOP profiles."""
