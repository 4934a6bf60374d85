"""What the names of optimizers in a run table say."""

from __future__ import annotations

PLAIN_OPTIMIZERS = frozenset({"sgd", "momentum", "nesterov", "sgdm"})
ADAMS = ("adam", "fusedadam", "cpuadam", "adam8bit")
USUAL_OPTIMIZER = "adamw"
"""What a run counts as that does not say."""


def plain_name(optimizer: str | None) -> str:
    """Return a name in lower case and without dashes; a run that does not say counts as AdamW."""
    return (optimizer or USUAL_OPTIMIZER).strip().lower().replace("_", "").replace("-", "")


def usually_decays(optimizer: str | None) -> bool:
    """Return whether runs of an optimizer usually have decoupled weight decay: all but plain SGD's and plain Adam's.

    >>> usually_decays(None), usually_decays("Muon"), usually_decays("adam"), usually_decays("sgd")
    (True, True, False, False)
    """
    plain = plain_name(optimizer)
    return plain not in PLAIN_OPTIMIZERS and plain not in ADAMS
