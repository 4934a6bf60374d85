"""Features of a schedule: bases of sixteen named columns over the states of the dynamics."""

from optlaws.features.basis import (
    COORDINATES,
    DEFAULT_BASIS,
    WIDTH,
    Basis,
    basis_ids,
    feature_table,
    get_basis,
    register_basis,
    stated,
)
from optlaws.features.columns import GROUPS, Column

__all__ = [
    "COORDINATES",
    "DEFAULT_BASIS",
    "GROUPS",
    "WIDTH",
    "Basis",
    "Column",
    "basis_ids",
    "feature_table",
    "get_basis",
    "register_basis",
    "stated",
]
