"""The constants of the dynamics: units, couplings and time-scales, in one frozen value that a law file stores.

Everything is dimensionless: a rate is measured in `lr_ref`, a size N in `params_ref`, a batch B in `batch_ref` and a
number of steps in `steps_ref`. The equations and their symbols stand in `optlaws.dynamics.symbols`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from optlaws.errors import InputError, nearest
from optlaws.runs._optimizers import ADAMS, PLAIN_OPTIMIZERS, USUAL_OPTIMIZER, plain_name, usually_decays

FloatArray = npt.NDArray[np.float64]

ADAPTIVE, PLAIN = "adaptive", "plain"
"""The two regimes: steps normalised by the gradient's noise (Adam and its kin), and plain SGD."""

USUAL_DECAY = 0.1
"""Weight decay (1/rate) taken where a run does not say, unless it is one of plain SGD or Adam, which then have none."""


def _positive(value: object) -> bool:
    """Return whether a value is a finite number above 0."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0.0 < float(value) < np.inf


def regime(optimizer: str | None) -> str:
    """Return the regime of an optimizer's name; a run that does not say counts as AdamW.

    >>> regime("AdamW"), regime("sgd"), regime(None)
    ('adaptive', 'plain', 'adaptive')
    """
    return PLAIN if optimizer is not None and plain_name(optimizer) in PLAIN_OPTIMIZERS else ADAPTIVE


def family(optimizer: str | None) -> str:
    """Return the name under which an optimizer counts, in lower case: Adam and AdamW, however made, are one.

    >>> family("AdamW"), family("adam"), family("adamw_torch_fused"), family(None), family("Nesterov"), family("Muon")
    ('adamw', 'adamw', 'adamw', 'adamw', 'sgd', 'muon')
    """
    plain = plain_name(optimizer)
    if plain in ADAMS or plain.startswith(USUAL_OPTIMIZER):
        return USUAL_OPTIMIZER
    return "sgd" if plain in PLAIN_OPTIMIZERS else (optimizer or USUAL_OPTIMIZER).strip().lower()


def default_weight_decay(optimizer: str | None) -> float:
    """Return the weight decay (1/rate) assumed for an optimizer whose run does not state one."""
    return USUAL_DECAY if usually_decays(optimizer) else 0.0


@dataclass(frozen=True)
class Dynamics:
    """Constants of the stochastic dynamics of one basis.

    Attributes
    ----------
    kappa : float
        Growth of the squared weight norm per step and squared scaled rate (1/step).
    temperature_exponent : float
        q in Theta ~ u^q. The SDEs give 1, that of SGD and that of Adam where noise dominates; a value below 1 is read
        off runs and used for adaptive optimizers only.
    size_exponent : float
        cN in x ~ eta n^cN: a wider network feels the same rate more.
    relaxation : float
        s in the pace tau' (u / u_max)^(s - 1) of the variances, u_max the highest felt rate so far. The SDE gives 1;
        above it, noise settles more slowly at a rate that has been lowered than at the same rate held throughout.
    critical_batch, critical_growth : float
        bc = critical_batch * d^critical_growth, the batch (in `batch_ref`) above which noise no longer limits the
        drift; d = tokens so far in batch_ref * steps_ref.
    slowest, fastest, modes : float, float, int
        Curvatures l of the variance states: `modes` values, log-spaced (1 / intrinsic time).
    escape_rate : float
        Negative curvature rho of the escape state (1 / intrinsic time).
    lr_ref, params_ref, batch_ref, steps_ref : float
        Units: learning rate, parameters, tokens per step, steps.

    All are finite and above 0; `modes` is whole, and `fastest` above `slowest` where there are several.

    Raises
    ------
    InputError
        A constant is out of its range.
    """

    kappa: float = 0.35
    temperature_exponent: float = 0.8
    size_exponent: float = 0.3
    relaxation: float = 1.0
    critical_batch: float = 5.0
    critical_growth: float = 0.3
    slowest: float = 2e-4
    fastest: float = 3.0
    modes: int = 6
    escape_rate: float = 1e-3
    lr_ref: float = 1.5e-2
    params_ref: float = 1e8
    batch_ref: float = 524288.0
    steps_ref: float = 1e4

    def __post_init__(self) -> None:
        """Refuse constants that the equations cannot use."""
        for field in fields(self):
            value = getattr(self, field.name)
            kind = "whole" if field.name == "modes" else "finite"
            if not _positive(value) or (kind == "whole" and value != int(value)):
                raise InputError(
                    f"{field.name} must be a {kind} number above 0, got {value!r}; leave it out for the default"
                )
        if self.fastest <= self.slowest and self.modes > 1:
            raise InputError(
                f"fastest must be above slowest = {self.slowest:g}, got {self.fastest:g}; give a larger curvature"
            )

    @property
    def curvatures(self) -> FloatArray:
        """Curvatures l of the variance states, shape (modes,), ascending, per unit of intrinsic time."""
        return np.geomspace(self.slowest, self.fastest, int(self.modes))

    def rate_scale(self, n: FloatArray) -> FloatArray:
        """Return the factor of rates eta in the scaled rate x = n^cN eta / lr_ref, (m,), for sizes n (params_ref)."""
        return np.asarray(n**self.size_exponent / self.lr_ref)

    def to_dict(self) -> dict[str, float]:
        """Return the constants as plain numbers, those of NumPy's types too."""
        return {name: value.item() if isinstance(value, np.generic) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Dynamics:
        """Return the dynamics of `to_dict`; constants that are not given keep their defaults.

        Raises
        ------
        InputError
            A name is not known, or a constant out of its range.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(f"dynamics has no constant {name!r}{nearest(name, known)}; known: {', '.join(known)}")
        return cls(**values)
