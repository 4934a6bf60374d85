"""Bases: sixteen named columns with their constants, kept in a register so that others can be added and compared."""

from __future__ import annotations

import os
import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from types import MappingProxyType

import numpy as np

from optlaws._content import Content
from optlaws.dynamics import Dynamics, States, final_states
from optlaws.dynamics.model import FloatArray
from optlaws.errors import InputError, nearest
from optlaws.features import columns as c
from optlaws.features.columns import GROUPS, Column, thousand_tau
from optlaws.runs import RunTable

WIDTH = 16
COORDINATES = (
    "size",
    "tokens",
    "peak",
    "batch",
    "intrinsic_time",
    "slow_variance",
    "fast_variance",
    "slowest_variance",
)
"""The coordinates of the residual field, each over its length scale; v_0 .. v_5 are the variance states, slowest first.

ln n, ln d, ln peak rate, ln b, ln intrinsic time, ln(v_3 + .01), ln(v_5 + .1), ln(v_1 + .01): `slow_variance` is of
the fourth curvature, `slowest_variance` of the second. The names stay, as law files have their scales by them.
"""


def _plain(what: str, values: Mapping[str, float]) -> Mapping[str, float]:
    """Return constants as a read-only mapping of plain finite numbers, so that a law file can hold them."""
    for name, value in values.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not np.isfinite(float(value)):
            raise InputError(
                f"{what} {name} must be a finite number, got {value!r}; the default basis' is a place to start"
            )
    return MappingProxyType({k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()})


@dataclass(frozen=True, eq=False)
class Basis(Content):
    """Sixteen columns, their constants, and the coordinates in which residuals are smooth.

    Attributes
    ----------
    id : str
        Name in the register and in law files.
    columns : tuple of Column
        Exactly 16; the first is the constant.
    dynamics : Dynamics
        Constants of the states.
    exponents : mapping
        Constants of the columns, by the names used in their formulas.
    scales : mapping
        Length scales of the residual field, one for each of `COORDINATES`, in units of a natural logarithm.
    note : str
        One sentence: what it is for.

    Raises
    ------
    InputError
        The columns are not 16 different ones with the constant first, one is of another group, has a prior that is not
        above 0 or a centre that is not finite, or an exponent or length scale is not a finite number.
    """

    id: str
    columns: tuple[Column, ...]
    dynamics: Dynamics = field(default_factory=Dynamics)
    exponents: Mapping[str, float] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse what is not sixteen different columns with the constant first, or constants that are no numbers."""
        names = [column.name for column in self.columns]
        if len(names) != WIDTH or len(set(names)) != WIDTH or names[0] != "constant":
            raise InputError(
                f"columns must be {WIDTH} different ones beginning with 'constant', got {len(names)}"
                f" ({', '.join(names)}); take one of optlaws.features.columns for each free place"
            )
        for column in self.columns:
            if column.group not in GROUPS:
                raise InputError(
                    f"group of column {column.name!r} must be one of {', '.join(GROUPS)}, got {column.group!r};"
                    " choose one of them"
                )
            if not (column.prior is None or column.prior > 0) or not np.isfinite(column.centre):
                raise InputError(
                    f"prior of column {column.name!r} must be above 0, or None, and its centre finite, got"
                    f" {column.prior!r} and {column.centre!r}; None leaves the coefficient free"
                )
        object.__setattr__(self, "exponents", _plain("exponent", self.exponents))
        object.__setattr__(self, "scales", _plain("length scale", self.scales))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def prior(self) -> FloatArray:
        """Scales of the priors on the coefficients, relative to the loss, inf = free; shape (16,)."""
        return np.array([np.inf if column.prior is None else column.prior for column in self.columns])

    @property
    def centre(self) -> FloatArray:
        """Centres of the priors on the coefficients, relative to the loss; shape (16,)."""
        return np.array([column.centre for column in self.columns])

    @property
    def damage(self) -> tuple[int, ...]:
        """Places of the columns whose share of the loss widens the noise: variance, peak and escape, by their names."""
        return tuple(j for j, name in enumerate(self.names) if name.startswith(("variance", "peak", "escape")))

    @property
    def peaks(self) -> tuple[int, ...]:
        """Places of the columns of damage that the highest rate left, through loss spikes, by their names."""
        return tuple(j for j, name in enumerate(self.names) if name.startswith("peak"))

    def with_constants(
        self, dynamics: Mapping[str, float] | None = None, exponents: Mapping[str, float] | None = None
    ) -> Basis:
        """Return the basis with other constants.

        Raises
        ------
        InputError
            A name is not known, a constant is out of its range, or the number of modes is not the basis' own.
        """
        for name in exponents or {}:
            if name not in self.exponents:
                raise InputError(
                    f"basis {self.id!r} has no exponent {name!r}{nearest(name, self.exponents)};"
                    f" known: {', '.join(self.exponents)}"
                )
        changed = Dynamics.from_dict({**self.dynamics.to_dict(), **(dynamics or {})})
        if changed.modes != self.dynamics.modes:  # its columns name the curvatures by their places among the modes
            raise InputError(
                f"modes must be {self.dynamics.modes} for basis {self.id!r}, got {changed.modes};"
                " register another basis with columns for them"
            )
        return replace(self, dynamics=changed, exponents={**self.exponents, **(exponents or {})})

    def evaluate(self, states: States, *, use_batch: bool = True) -> FloatArray:
        """Return the columns at m points, shape (m, 16), dimensionless.

        Without batches (`use_batch` False) data are steps, and the columns of data, which would be steps once more,
        are 0.

        Raises
        ------
        InputError
            The basis was made without an exponent that a column needs, or a column names a curvature that states lack.
        """
        out = np.empty((len(states), WIDTH))
        for j, column in enumerate(self.columns):
            if column.of_data and not use_batch:
                out[:, j] = 0.0
                continue
            try:
                out[:, j] = column.evaluate(states, self.exponents)
            except KeyError as error:
                raise InputError(
                    f"exponents of basis {self.id!r} must hold {error} for column {column.name!r}, got none;"
                    " take those of a registered basis"
                ) from None
            except IndexError:
                raise InputError(
                    f"column {column.name!r} of basis {self.id!r} must name one of the {states.variance.shape[1]}"
                    " curvatures of the states, counted from 0, got a higher one; raise modes of its dynamics"
                ) from None
        return out

    def _check_scales(self) -> None:
        absent = [name for name in COORDINATES if name not in self.scales]
        if absent:
            raise InputError(
                f"scales of basis {self.id!r} must hold {', '.join(COORDINATES)} for a fit, got none for {absent[0]!r};"
                " take those of a registered basis"
            )

    def peak_scale(self, peak: FloatArray, gaps: float) -> float:
        """Return the field's length scale of ln peak rate for runs of these peak rates (any shape, above 0).

        It is that of `scales`, or `gaps` times the mean gap between the different ln peak, if that is more.

        Raises
        ------
        InputError
            The basis was made without length scales.
        """
        self._check_scales()
        rates = np.unique(np.log(peak).round(3))
        gap = float(np.diff(rates).mean()) if len(rates) > 1 else 0.0
        return max(self.scales["peak"], gaps * gap)

    def coordinates(self, states: States, peak: FloatArray, peak_scale: float) -> FloatArray:
        """Return the coordinates of the residual field, shape (m, 8), in length scales, in the order of `COORDINATES`.

        Parameters
        ----------
        states : States
            m points.
        peak : ndarray of shape (m,)
            Highest learning rate of each point's schedule, above 0, not scaled.
        peak_scale : float
            Length scale of ln peak, above 0.

        Raises
        ------
        InputError
            The basis was made without length scales.
        """
        self._check_scales()
        k, v = self.scales, states.variance
        slow, fast = min(3, v.shape[1] - 1), v.shape[1] - 1
        return np.column_stack(
            [
                np.log(states.n) / k["size"],
                np.log(states.d) / k["tokens"],
                np.log(peak) / peak_scale,
                np.log(states.b) / k["batch"],
                np.log(thousand_tau(states)) / k["intrinsic_time"],
                np.log(v[:, slow] + 0.01) / k["slow_variance"],
                np.log(v[:, fast] + 0.1) / k["fast_variance"],
                np.log(v[:, min(1, fast)] + 0.01) / k["slowest_variance"],
            ]
        )


FILES = "OPTLAWS_BASES"
_REGISTER: dict[str, Basis] = {}
_READ: set[str] = set()


def register_basis(basis: Basis) -> Basis:
    """Add a basis to the register, so that `--basis ID` and law files find it; its id must be new.

    Raises
    ------
    InputError
        A basis of that id is registered.
    """
    if basis.id in _REGISTER:
        raise InputError(f"basis id must be new, got {basis.id!r}, which is registered; choose another id")
    _REGISTER[basis.id] = basis
    return basis


def _of_files() -> None:
    """Run the files that the environment variable OPTLAWS_BASES names, each once, so that they register their bases.

    Raises
    ------
    InputError
        There is no such file, or it fails.
    """
    for path in filter(None, os.environ.get(FILES, "").split(os.pathsep)):
        if path in _READ:
            continue
        _READ.add(path)  # before it runs: what it looks up may come here again
        try:
            runpy.run_path(path)
        except Exception as error:
            _READ.discard(path)
            raise InputError(
                f"{FILES} must name Python files that register bases, got {path!r}, which fails with"
                f" {type(error).__name__}: {error}; correct the file or unset the variable"
            ) from error


def get_basis(basis: str | Basis | None = None) -> Basis:
    """Return a registered basis by id (None: the default), or the basis given.

    The environment variable OPTLAWS_BASES may name files of Python, separated as in PATH, that register further ones.

    Raises
    ------
    InputError
        There is none of that id.
    """
    if isinstance(basis, Basis):
        return basis
    name = DEFAULT_BASIS if basis is None else basis
    if not isinstance(name, str) or name not in _REGISTER:
        _of_files()
    if not isinstance(name, str) or name not in _REGISTER:
        raise InputError(
            f"basis must be one of {', '.join(_REGISTER)}, got {name!r}{nearest(str(name), _REGISTER)}; one of your own"
            f" is found where {FILES} names the Python file that registers it"
        )
    return _REGISTER[name]


def basis_ids() -> list[str]:
    """Return the ids of the registered bases, the default first."""
    _of_files()
    return sorted(_REGISTER, key=lambda name: (name != DEFAULT_BASIS, name))


def stated(runs: RunTable) -> dict[str, bool]:
    """Return whether runs state sizes and batches, as `drive` and `final_states` ask; else reference values count."""
    return {
        "use_params": bool(np.isfinite(runs.params).any() or np.isfinite(runs.active_params).any()),
        "use_batch": bool(np.isfinite(runs.batch_tokens).any()),
    }


def feature_table(runs: RunTable, basis: str | Basis | None = None) -> FloatArray:
    """Return the sixteen columns of each run, shape (n, 16), dimensionless.

    A size that no run states counts as the reference, `basis.dynamics.params_ref`. Where no run states a batch, data
    are counted in steps and no batch counts as above the critical one: these are not the columns of runs at the
    reference batch.

    Raises
    ------
    InputError
        There is no such basis, or some runs state a size or batch and others do not.

    Examples
    --------
    >>> feature_table(RunTable.build("cosine:peak=1e-3,steps=25000,warmup=300", params=8.5e7)).shape
    (1, 16)
    """
    chosen = get_basis(basis)
    return chosen.evaluate(final_states(runs, chosen.dynamics, **stated(runs)))


DEFAULT_BASIS = "sde16"
_FIELD_SCALES = {
    "size": 1.84,
    "tokens": 2.5,
    "peak": 0.75,
    "batch": 3.0,
    "intrinsic_time": 3.7,
    "slow_variance": 3.0,
    "fast_variance": 0.67,
    "slowest_variance": 4.5,
}

_VARIANCES = tuple(c.variance(mode, prior) for mode, prior in enumerate((8.0, 1.6, 0.85, 1.2, 2.1, 3.2)))
_EXPONENTS = {"aN": 0.13, "aT": 0.36, "aD": 0.3, "lc": 0.35, "r": 1.05, "gv": 0.02, "nv": 0.5, "t0": 0.15, "pn": 0.25}
_COMMON = (
    c.constant(0.35, 0.1),
    c.size(0.5, 0.15),
    c.bias(0.055, 0.025),
    c.transient(0.011),
    c.inverse_norm(0.005),
    *_VARIANCES,
    c.variance_size(3, 1.4),
    c.escape_probability(0.013),
    c.peak_time(1.5),
)

_DYNAMICS = Dynamics(kappa=0.25, relaxation=1.3, fastest=4.5, critical_batch=2.5)

register_basis(
    Basis(
        id=DEFAULT_BASIS,
        dynamics=_DYNAMICS,
        columns=(*_COMMON, c.tokens(0.02), c.peak_fourth(0.005)),
        exponents=_EXPONENTS,
        scales=_FIELD_SCALES,
        note="bias over a spectrum that ends at the model's size, priors in physical units",
    )
)
register_basis(
    replace(
        get_basis().with_constants({"kappa": 1e-12, "size_exponent": 1e-12, "relaxation": 1.0}, {"gv": 0.0}),
        id="sde16-plain",
        note="plain SGD on weights without a norm: no weight norm, and no growth of the felt rate with size",
    )
)
register_basis(
    Basis(
        id="sde16-batch",
        dynamics=_DYNAMICS,
        columns=(*_COMMON, c.peak_tokens(0.04), c.batch_noise(0.015)),
        exponents=_EXPONENTS,
        scales=_FIELD_SCALES,
        note="peak damage repaired by tokens and a large-batch term in place of finite data and second-order escape",
    )
)
