"""What theory says and data contradicts: every constant of the code beside what the derivations give for it.

Fitted values are read from `optlaws.features` and `optlaws.dynamics`; only the theory's side is written here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from optlaws.features import Basis, get_basis

AGREES, CONTRADICTED, BETWEEN, FREE = "agrees", "contradicted", "in the range", "not fixed by theory"
WITHIN = 0.1
"""Distance in parts of the theory's value below which a fitted value counts as agreeing; a tenth itself does not."""
ROUNDING = 1e-9
"""What binary fractions may add to or take from that distance: a tie is a tie, whichever way it is rounded."""
WEIGHT_STD = 0.02
"""Usual standard deviation of a transformer's weights at the start, for the theory's value of kappa."""


@dataclass(frozen=True)
class Constant:
    """A constant of the code and what the theory says of it.

    Attributes
    ----------
    name : str
        Key in the basis' exponents or in the dynamics.
    symbol : str
        LaTeX.
    enters : str
        Where, with LaTeX between dollar signs.
    theory : str
        What the theory says, in words.
    value : callable or None
        Theory's value from the basis; a pair is a range; None: the theory leaves it free.
    result : str
        Name of the result that says so.
    consequence : str
        What follows from the difference, or from the freedom.
    """

    name: str
    symbol: str
    enters: str
    theory: str
    value: Callable[[Basis], float | tuple[float, float]] | None
    result: str
    consequence: str

    def used(self, basis: Basis) -> bool:
        """Return whether the basis has this constant."""
        return self.name in basis.exponents or hasattr(basis.dynamics, self.name)

    def fitted(self, basis: Basis) -> float:
        """Return the value that the code uses."""
        if self.name in basis.exponents:
            return float(basis.exponents[self.name])
        return float(getattr(basis.dynamics, self.name))

    def verdict(self, basis: Basis) -> str:
        """Return whether the fitted value agrees with the theory's."""
        if self.value is None:
            return FREE
        expected, found = self.value(basis), self.fitted(basis)
        if isinstance(expected, tuple):
            return BETWEEN if expected[0] <= found <= expected[1] else CONTRADICTED
        return AGREES if abs(found - expected) <= (WITHIN - ROUNDING) * abs(expected) else CONTRADICTED

    def expected(self, basis: Basis) -> str:
        """Return the theory's value as text."""
        if self.value is None:
            return "-"
        value = self.value(basis)
        return f"{value[0]:.3g} to {value[1]:.3g}" if isinstance(value, tuple) else f"{value:.3g}"


CONSTANTS = (
    Constant(
        "aN",
        "a_N",
        "`size`, $n^{-a_N}$",
        "tail of the same spectrum as the bias: $a_N = r\\,a_T$",
        lambda basis: basis.exponents["r"] * basis.exponents["aT"],
        "spectrum_average",
        "Size helps less than the modes it adds would. Either other capacity limits act, or size and data are"
        " confounded"
        " in small runs; extrapolation in size rests on data alone and gets a wide interval.",
    ),
    Constant(
        "aT",
        "a_T",
        "`bias`, $\\tau^{-a_T}$",
        "exponent of the spectrum's initial loss; any value above 0",
        None,
        "spectrum_average",
        "One number stands for the data's spectrum; it need not carry over to other data.",
    ),
    Constant(
        "aD",
        "a_D",
        "`tokens`, $d^{-a_D}$",
        "$a_T$ in one pass over a power-law spectrum, 1 for a finite dimension",
        lambda basis: (basis.exponents["aT"], 1.0),
        "finite_runs",
        "Slower than any of the two estimates: the column does not measure estimation error alone.",
    ),
    Constant(
        "temperature_exponent",
        "q",
        "temperature, $\\Theta = u^qh$",
        "1, for SGD and for Adam",
        lambda basis: 1.0,
        "adam_sde",
        "Noise grows more slowly with the rate than in the SDE (curvature that falls as the rate grows would do it)."
        " Adam"
        " runs use the fitted value; the code keeps 1 for SGD.",
    ),
    Constant(
        "relaxation",
        "s",
        "pace of the variances, $\\tau'(u/u_{max})^{s-1}$",
        "1: noise relaxes in intrinsic time at any rate",
        lambda basis: 1.0,
        "quadratic_modes",
        "Noise settles more slowly after the rate was lowered than at that rate held throughout (curvature that grows"
        " as the rate falls would do the opposite); held-out curves and families err less with it, and training curves"
        " alone do not tell it from a smaller $q$.",
    ),
    Constant(
        "size_exponent",
        "c_N",
        "scaled rate, $x = (\\eta/\\eta_{ref})\\,n^{c_N}$",
        "absent from the derivations; a coordinate-wise step moves a layer's output in proportion to its width, and"
        " width"
        " is $n^{1/3}$ at constant shape (scaling argument)",
        lambda basis: 1 / 3,
        "weight_norm",
        "A tenth below the argument's value, which is where agreement ends. Only a calibration over sizes can tell it"
        " from a change of the best rate for other reasons.",
    ),
    Constant(
        "gv",
        "g_v",
        "`variance_*`, $v_l\\,\\tau^{-g_v}$",
        "0: variance does not age",
        lambda basis: 0.0,
        "quadratic_modes",
        "A small ageing: the noise or the curvature shrinks as the loss falls.",
    ),
    Constant(
        "nv",
        "n_v",
        "`variance_size`, $n^{n_v}$",
        "0 (the spectrum lengthens) to 1 (it stretches)",
        lambda basis: (0.0, 1.0),
        "sharpness",
        "Theory does not choose; the middle is a convention.",
    ),
    Constant(
        "r",
        "r",
        "`bias`, cut-off $l_cn^{-r}$",
        "decay $\\alpha$ of the curvatures, $\\lambda_k \\propto k^{-\\alpha}$",
        None,
        "spectrum_average",
        "Chosen near 1, together with `l_c`, by the error of held-out sizes.",
    ),
    Constant(
        "lc",
        "l_c",
        "`bias`, cut-off $l_cn^{-r}$",
        "$2\\lambda N_0^{-\\alpha}$ per thousand of intrinsic time: a unit",
        None,
        "spectrum_average",
        "Says at which intrinsic time a model of the reference size has used up its modes.",
    ),
    Constant(
        "t0",
        "t_0",
        "`peak_time`",
        "mixing time, a scaling argument",
        None,
        "peak_damage",
        "Between the two limits of the repair the column is an interpolation.",
    ),
    Constant(
        "pn",
        "p_n",
        "`peak_time`, $n^{-p_n}$",
        "0: the damage depends on the size through $x$ only (scaling argument)",
        lambda basis: 0.0,
        "peak_damage",
        "Larger models are hurt less by a high rate than the growth of $x$ with the size would have it; fitted,"
        " without a derivation.",
    ),
    Constant(
        "critical_growth",
        "g_D",
        "critical batch, $b_c = B_c\\,d^{g_D}$",
        "1/2: $b_c = \\sigma^2/G^2$ with $G^2$ on the bound of Theorem 1 at the best constant rate (scaling argument)",
        lambda basis: 0.5,
        "finite_runs",
        "Gradients shrink more slowly than the bound would let them; large batches pay less late in training than"
        " the bound"
        " says. The column `batch_noise` keeps the theory's 1/2.",
    ),
    Constant(
        "critical_batch",
        "B_c",
        "critical batch, $b_c = B_c\\,d^{g_D}$",
        "$\\sigma^2/G^2$ at the reference tokens: measurable, not predicted",
        None,
        "adam_sde",
        "Belongs to the data and the loss; a law fitted elsewhere may need another.",
    ),
    Constant(
        "kappa",
        "\\kappa",
        "weight norm, $(R^2)' = -2\\omega\\eta R^2 + \\kappa x^2$",
        f"$(\\eta_{{ref}}/w)^2$ for a growth of $\\eta^2$ a coordinate and step and weights of size $w$; here $w ="
        f" {WEIGHT_STD}$",
        lambda basis: (basis.dynamics.lr_ref / WEIGHT_STD) ** 2,
        "weight_norm",
        "Not the steps' doing: with momentum they are smaller than one a coordinate, but $R^2$ grows by $\\eta^2$ a"
        " coordinate and step whatever $\\beta_1$, and faster under Adam's own normaliser (simulated: 1.13 times). One"
        " norm stands for all layers, whose $w$ differ ($w = .03$ would give the fitted value); the order of magnitude"
        " is that of the theory.",
    ),
    Constant(
        "escape_rate",
        "\\rho",
        "escape, $C' = 2\\rho\\tau'C + \\Theta\\tau'$",
        "negative curvature of an unknown saddle",
        None,
        "fokker_planck",
        "A unit of the escape column together with the radius $r$, which is not known either.",
    ),
)

STRUCTURE = (
    (
        "constant of the escape bound",
        "$\\sqrt e$ (`anti_concentration`)",
        "1",
        "The column is the bound's shape, 0 without noise; it is not a probability that theory guarantees.",
    ),
    (
        "sign of the second order in the peak",
        "$-\\tfrac38C^2$ (`peak_damage`)",
        "coefficient kept at least 0",
        "`peak_fourth` stands for instability near the largest stable rate, which the linearised theory does not have.",
    ),
    (
        "felt rate of SGD on normalised layers",
        "$x/R^2$ (`weight_norm`)",
        "$x/R$",
        "One formula for both optimizers; public runs are of Adam, so data cannot tell.",
    ),
    (
        "scale of a loss drop, $\\eta_k^{-\\gamma}S_k$ in the Multi-Power Law",
        "$\\gamma = 0$ (`loss_drop`)",
        "0",
        "The code follows theory: intrinsic time has the norm and the batch in place of $\\gamma$.",
    ),
)
"""What is of another form than the theory's: (what, theory, code, consequence)."""


def rows(basis: Basis | None = None) -> list[tuple[str, str, str, str, str, str, str]]:
    """Return the table: symbol, where it enters, theory, its value, the fitted value, verdict, consequence."""
    chosen = basis or get_basis()
    return [
        (
            f"${c.symbol}$ (`{c.name}`)",
            c.enters,
            f"{c.theory} (`{c.result}`)",
            c.expected(chosen),
            f"{c.fitted(chosen):.3g}",
            c.verdict(chosen),
            c.consequence,
        )
        for c in CONSTANTS
        if c.used(chosen)
    ]


def unexplained(basis: Basis | None = None) -> list[str]:
    """Return exponents of the basis that the table does not have, which should be none."""
    chosen = basis or get_basis()
    return [name for name in chosen.exponents if name not in {c.name for c in CONSTANTS}]
