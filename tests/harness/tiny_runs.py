"""Configurations small enough to train in a second."""

from optlaws.harness import read_config

BASE = {
    "model": {"depth": 1, "width": 16, "heads": 2},
    "data": {"vocab": 32, "branching": 4},
    "seq_len": 8,
    "batch": 4,
    "device": "cpu",
    "optimizer": {"name": "adamw", "weight_decay": 0.1},
    "eval": {"sequences": 8},
}


def tiny(schedule="wsd:peak=3e-3,steps=24,warmup=4,decay=0.25", **changes):
    """Return a configuration; a mapping is merged into its section, anything else replaces it."""
    merged = {**BASE, "schedule": schedule}
    for key, value in changes.items():
        same = isinstance(value, dict) and value.get("kind", "") == merged.get(key, {}).get("kind", "")
        merged[key] = {**merged[key], **value} if same and isinstance(merged.get(key), dict) else value
    return read_config(merged)
