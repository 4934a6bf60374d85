"""The columns that a basis may be made of: each a function of the states, with its formula and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincc

from optlaws.dynamics import States, equation
from optlaws.dynamics.model import FloatArray
from optlaws.errors import InputError

Exponents = Mapping[str, float]
TAU_UNIT = 1000.0  # intrinsic time is counted in thousands in the columns
CONSTANT_UNITS = {"lc": "1 / thousand of intrinsic time", "t0": "steps_ref"}
"""Units of the constants of the columns that have one."""
_AGED = f"(tau/{TAU_UNIT:g})^-gv"
_HEAT_READ = "q below 1 in Theta"
_TAU_READ = "in tau: n^cN, bc ~ d^gD, and x / R for SGD, too (derived: x / R^2)"
_VARIANCE_READ = (
    f"(u / u_max)^(s - 1) and {_AGED}, which are 1 in the derivation, and {_HEAT_READ}: read off runs; {_TAU_READ}"
)
GROUPS = ("convergence", "escape", "mixed")


@dataclass(frozen=True)
class Column:
    """One column of a basis.

    Attributes
    ----------
    name : str
        Unique within a basis.
    group : str
        One of `GROUPS`.
    formula : str
        In the symbols of `optlaws.dynamics.symbols`; exponents by their names in the basis.
    unit : str
        All columns are dimensionless; this names the reference values that make them so.
    rescaling : str
        Exponent e: with the weight norm held at 1, the column is multiplied by s^e when all rates are multiplied by s
        and all curvatures, the escape rate and the cut-off are divided by s (the change of unit of intrinsic time).
    derivation : str
        Where it comes from.
    prior : float or None
        Scale of the prior on its coefficient, above 0, relative to the loss: a normal one about `centre`, cut off at 0;
        None = free (not penalised).
    evaluate : callable
        (states, exponents) -> ndarray of shape (m,).
    centre : float
        What the coefficient is before any run was seen, relative to the loss.
    of_data : bool
        It says more than the number of steps only where the batch is known; else a fit leaves it out.
    assumed : str
        What of the formula no derivation gives (theory/), beside the values of its constants; empty: nothing.
    """

    name: str
    group: str
    formula: str
    unit: str
    rescaling: str
    derivation: str
    prior: float | None
    evaluate: Callable[[States, Exponents], FloatArray]
    centre: float = 0.0
    of_data: bool = False
    assumed: str = ""


def _ones(s: States, e: Exponents) -> FloatArray:
    """Return 1."""
    return np.ones(len(s))


def _size(s: States, e: Exponents) -> FloatArray:
    """Return n^-aN."""
    return s.n ** -e["aN"]


def thousand_tau(s: States) -> FloatArray:
    """Return intrinsic time in thousands, above 0, shape (m,)."""
    return np.maximum(s.tau / TAU_UNIT, 1e-9)


def _bias(s: States, e: Exponents) -> FloatArray:
    """Return the bias of a power-law spectrum that ends at curvature lc n^-r."""
    tau = thousand_tau(s)
    power: FloatArray = tau ** -e["aT"]
    if e["lc"] <= 0.0:
        return power
    left: FloatArray = gammaincc(e["aT"], e["lc"] * s.n ** -e["r"] * tau)
    return power * left


def _variance(s: States, e: Exponents, mode: int) -> FloatArray:
    """Return the variance of a mode, aged."""
    return s.variance[:, mode] * thousand_tau(s) ** -e["gv"]


def _variance_size(s: States, e: Exponents, mode: int) -> FloatArray:
    """Return the variance of a mode, aged, times n^nv."""
    return _variance(s, e, mode) * s.n ** e["nv"]


def _escape(s: States, e: Exponents) -> FloatArray:
    """Return 1 - (1 + C)^-1/2: 0 without noise, 1 for a long escape.

    It has the form of 1 less the bound on staying, whose factor sqrt(e) is set to 1, and so is no bound: at small C
    (in squared radii) fewer have escaped than it says, in one dimension .0016 for .047 at C = .1.
    """
    return 1.0 - (1.0 + s.escape) ** -0.5


def _peak_time(s: States, e: Exponents) -> FloatArray:
    """Return x_max^2 n^-pn / (sqrt(t) (sqrt(t) + sqrt(t0)))."""
    root: FloatArray = np.sqrt(s.t)
    out: FloatArray = s.peak**2 * s.n ** -e["pn"] / (root * (root + np.sqrt(e["t0"])))
    return out


def _peak_tokens(s: States, e: Exponents) -> FloatArray:
    """Return x_max^2 / d."""
    return s.peak**2 / s.d


def _peak_fourth(s: States, e: Exponents) -> FloatArray:
    """Return x_max^4 / sqrt(t)."""
    return s.peak**4 / np.sqrt(s.t)


def _batch_noise(s: States, e: Exponents) -> FloatArray:
    """Return sqrt(b / t)."""
    return np.sqrt(s.b / s.t)


def _inverse_norm(s: States, e: Exponents) -> FloatArray:
    """Return 1 / R."""
    return 1.0 / s.radius


def _transient(s: States, e: Exponents) -> FloatArray:
    """Return 1 / t."""
    return 1.0 / s.t


def _tokens(s: States, e: Exponents) -> FloatArray:
    """Return d^-aD."""
    return s.d ** -e["aD"]


def _check_place(mode: int) -> None:
    if mode < 0:
        raise InputError(f"mode must be a place among the modes, 0 or more, got {mode!r}; 0 is the slowest")


@dataclass(frozen=True)
class _OfMode:
    """A function of one mode, by its place: unlike partial ones, two of the same are equal."""

    function: Callable[[States, Exponents, int], FloatArray]
    mode: int

    def __call__(self, s: States, e: Exponents) -> FloatArray:
        """Return the column, shape (m,)."""
        return self.function(s, e, self.mode)


def variance(mode: int, prior: float) -> Column:
    """Return the variance column of one curvature, by its place 0, 1, ... among the modes; `prior` above 0.

    Raises
    ------
    InputError
        `mode` is below 0.
    """
    _check_place(mode)
    return Column(
        f"variance_{mode}",
        "convergence",
        f"v_{mode} {_AGED},  {equation('v_k', mode)}",
        "Theta at u = 1, h = 1",
        "q - gv",
        "excess loss of one curvature from gradient noise: variance of the SDE on a quadratic mode",
        prior,
        _OfMode(_variance, mode),
        assumed=_VARIANCE_READ,
    )


def variance_size(mode: int, prior: float) -> Column:
    """Return the variance column of one curvature (as `variance`) that grows with the model; `prior` above 0.

    Raises
    ------
    InputError
        `mode` is below 0.
    """
    _check_place(mode)
    return Column(
        "variance_size",
        "mixed",
        f"v_{mode} {_AGED} n^nv",
        "Theta at u = 1, h = 1; params_ref",
        "q - gv",
        "number of noisy modes grows with the model: variance x size",
        prior,
        _OfMode(_variance_size, mode),
        assumed=f"{_VARIANCE_READ}; nv between the argument's two cases, 0 and 1",
    )


def constant(centre: float, prior: float) -> Column:
    """Return the constant column."""
    return Column("constant", "convergence", "1", "1", "0", "loss that no training removes", prior, _ones, centre)


def size(centre: float, prior: float) -> Column:
    """Return the column of the finite model."""
    return Column(
        "size",
        "convergence",
        "n^-aN",
        "params_ref",
        "0",
        "modes that the model does not have: tail of the spectrum",
        prior,
        _size,
        centre,
        assumed="aN of its own: derived is aN = r aT, which the fitted exponents contradict",
    )


def bias(centre: float, prior: float) -> Column:
    """Return the column of what is not yet learnt."""
    return Column(
        "bias",
        "convergence",
        f"(tau/{TAU_UNIT:g})^-aT Q(aT, lc n^-r tau/{TAU_UNIT:g})",
        "thousands of intrinsic time",
        "-aT",
        "bias exp(-2 l tau) averaged over a power-law spectrum that ends at the model's last mode",
        prior,
        _bias,
        centre,
        assumed=_TAU_READ,
    )


def escape_probability(prior: float) -> Column:
    """Return the escape-probability column."""
    return Column(
        "escape_probability",
        "escape",
        f"1 - 1 / sqrt(1 + C),  {equation('C')}",
        "Theta at u = 1, h = 1",
        "q + 1 (small C)",
        "form of the anti-concentration bound on staying near a saddle, through the covariance there",
        prior,
        _escape,
        assumed=f"{_HEAT_READ}: read off runs; {_TAU_READ}; 1 for the bound's factor sqrt(e)",
    )


def peak_time(prior: float) -> Column:
    """Return the column of damage by the peak rate, undone with time."""
    return Column(
        "peak_time",
        "escape",
        "x_max^2 n^-pn / (sqrt(t) (sqrt(t) + sqrt(t0)))",
        "lr_ref, steps_ref, params_ref",
        "2",
        "escape by the highest rate: undone as t^-1/2 while the walk spreads, as 1/t once it has mixed (t > t0)",
        prior,
        _peak_time,
        assumed="n^-pn, which is 1 in the argument: read off runs; n^cN in x; the form between the repair's limits",
    )


def peak_tokens(prior: float) -> Column:
    """Return the column of damage by the peak rate, healing with tokens."""
    return Column(
        "peak_tokens",
        "escape",
        "x_max^2 / d",
        "lr_ref, batch_ref * steps_ref",
        "2",
        "escape by the highest rate, repaired by data",
        prior,
        _peak_tokens,
        of_data=True,
        assumed="all of it: no argument leads to a repair by 1 / d; n^cN in x",
    )


def peak_fourth(prior: float) -> Column:
    """Return the column of damage of second order in the peak temperature; x grows with the model, hence mixed."""
    return Column(
        "peak_fourth",
        "mixed",
        "x_max^4 / sqrt(t),  x_max^4 ~ n^(4 cN)",
        "lr_ref, steps_ref, params_ref",
        "4",
        "escape by the highest rate, second order in its temperature: escape x size",
        prior,
        _peak_fourth,
        assumed="its sign, the opposite of the second order's, and a repair by t^-1/2 alone; n^cN in x",
    )


def batch_noise(prior: float) -> Column:
    """Return the column of large batches in few steps."""
    return Column(
        "batch_noise",
        "mixed",
        "sqrt(b / t)",
        "batch_ref, steps_ref",
        "0",
        "steps that a batch above the critical one leaves out: batch x time",
        prior,
        _batch_noise,
        of_data=True,
        assumed="its factor, the bias, left out (derived: tau^-aT b / bc, a relative change to first order); gD = 1/2",
    )


def inverse_norm(prior: float) -> Column:
    """Return the inverse-norm column."""
    return Column(
        "inverse_norm",
        "convergence",
        "1 / R",
        "norm at the start",
        "0",
        "curvature of a scale-invariant loss at weight norm R",
        prior,
        _inverse_norm,
        assumed="that the loss has such a term; n^cN in R",
    )


def transient(prior: float) -> Column:
    """Return the column of the start's fast decay."""
    return Column(
        "transient",
        "convergence",
        "1 / t",
        "steps_ref",
        "0",
        "bias of the fast modes, mean squared gradient bound O(1/T)",
        prior,
        _transient,
        assumed="steps for intrinsic time (derived: 1 / (2 L tau), L the largest curvature): the same at one rate",
    )


def tokens(prior: float) -> Column:
    """Return the column of finite data."""
    return Column(
        "tokens",
        "convergence",
        "d^-aD",
        "batch_ref * steps_ref",
        "0",
        "one-pass estimation error of finite data (Chinchilla's term)",
        prior,
        _tokens,
        of_data=True,
        assumed="that it adds to the bias, of which it is a part in one pass",
    )
