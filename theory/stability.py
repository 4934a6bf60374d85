"""Divergence: the highest felt rate of a warm-up, the edges of stability, and the escape of the covariance beyond them.

`optlaws.risk` holds the highest felt rate u = x / R against a critical one; this is where both come from, and where
theory stops.
"""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import HEURISTIC, Proof, Result
from theory.symbols import b, s

PEAK, WARM, KAPPA, WD, RATE, REF, SIZE = sp.symbols("x_p W kappa omega eta eta_ref s_N", positive=True)
C = sp.Symbol("c", positive=True)  # kappa x_p^2 W / 3
BETA = sp.Symbol("beta", positive=True)
STEP = sp.Symbol("q", positive=True)  # rate times curvature of the fastest mode
NOISE = sp.Symbol("s_b", positive=True)  # batch below which multiplicative noise matters


def warm_up(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """Return u at the share s of a linear warm-up, the share at which it is highest, and its highest value, c >= 2."""
    p = proof or Proof()
    y = sp.Symbol("y", positive=True)
    square = 1 + KAPPA * sp.integrate((PEAK * y / WARM) ** 2, (y, 0, s * WARM))
    p.equal(
        "Norm over a linear warm-up, weight decay left out, $x = x_ps$ at the share $s = t/W$, $c = \\kappa x_p^2W/3$",
        square,
        (1 + C * s**3).subs(C, KAPPA * PEAK**2 * WARM / 3),
        shown=r"R^2 = 1 + \kappa\int x^2",
    )
    felt = PEAK * s / sp.sqrt(1 + C * s**3)
    at = (2 / C) ** sp.Rational(1, 3)
    p.equal(
        "The felt rate $u = x/R$ is stationary at $s^* = (2/c)^{1/3}$, inside the warm-up if $c > 2$",
        sp.simplify(sp.diff(felt, s).subs(s, at)),
        sp.Integer(0),
        shown=r"u'(s^*)",
    )
    top = PEAK * at / sp.sqrt(3)
    p.equal("with the value", felt.subs(s, at), top, shown=r"u(s^*)")
    cubed = p.equal(
        "which depends on the slope of the warm-up alone",
        sp.simplify((top**3).subs(C, KAPPA * PEAK**2 * WARM / 3)),
        2 * PEAK / (sp.sqrt(3) * KAPPA * WARM),
        shown=r"u(s^*)^3",
    )
    logarithm = sp.Symbol("z", real=True)
    bend = sp.diff(sp.log(felt.subs(s, at * sp.exp(logarithm))), logarithm, 2).subs(logarithm, 0)
    p.equal("Curvature of $\\log u$ in $\\log s$ at the top", sp.simplify(bend), sp.Integer(-1))
    return felt, at, sp.root(cubed, 3)


def gentle(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return the highest u of a warm-up with c < 2, that at its end, and its power of the peak rate, 1 / (1 + c)."""
    p = proof or Proof()
    square = 1 + KAPPA * PEAK**2 * WARM / 3
    end = PEAK / sp.sqrt(square)
    at_end = sp.simplify(sp.diff(PEAK * s / sp.sqrt(1 + C * s**3), s).subs(s, 1))
    slack = sp.Symbol("z", nonnegative=True)  # c = 2 - z
    p.at_least(
        "With $c = 2 - z$, $z \\ge 0$, $u$ still rises at the end of the warm-up, where it is highest: $(1 +"
        " c)^{3/2}u'/x_p$ there",
        sp.simplify(at_end * (1 + C) ** sp.Rational(3, 2) / PEAK).subs(C, 2 - slack),
        sp.Integer(0),
        slack / 2,
    )
    power = p.equal(
        "It then grows with the peak rate, at a given length, as the power",
        sp.simplify(PEAK * sp.diff(sp.log(end), PEAK)),
        1 / square,
        shown=r"x_p\,\partial_{x_p}\log u(1) = \tfrac{1}{1+c}",
    )
    p.equal("from 1 without a warm-up to the cube root's at $c = 2$", (1 / (1 + C)).subs(C, 2), sp.Rational(1, 3))
    return end, power


def after(proof: Proof | None = None) -> sp.Expr:
    """Return the felt rate to which a constant rate settles: sqrt(2 wd eta / kappa), whatever the size."""
    p = proof or Proof()
    x = RATE * SIZE / REF
    balance = KAPPA * x**2 / (2 * WD * RATE)
    return p.equal(
        "After the warm-up the norm settles where growth and decay balance, and $u$ at",
        x / sp.sqrt(balance),
        sp.sqrt(2 * WD * RATE / KAPPA),
        shown=r"u_\infty = x / R_\infty",
    )


def momentum_edge(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return the edge of a mode under averaged gradients with memory beta, and how fast it grows beyond the edge."""
    p = proof or Proof()
    z = sp.Symbol("z")
    polynomial = z**2 - (1 + BETA - (1 - BETA) * STEP) * z + BETA
    edge = 2 * (1 + BETA) / (1 - BETA)
    p.equal(
        "A mode under $m \\leftarrow \\beta m + (1-\\beta)g$, $w \\leftarrow w - \\eta m$, $q = \\eta\\lambda$, turns"
        " unstable through $z = -1$ at $q_c = 2(1+\\beta)/(1-\\beta)$",
        sp.simplify(polynomial.subs({z: -1, STEP: edge})),
        sp.Integer(0),
        shown=r"z^2 - (1+\beta-(1-\beta)q)z + \beta\;\big|_{z=-1}",
    )
    slope = -sp.diff(polynomial, STEP) / sp.diff(polynomial, z)
    growth = p.equal(
        "and beyond it grows a step by",
        sp.simplify((-slope * STEP).subs({z: -1, STEP: edge})),
        edge,
        shown=r"\frac{d\log|z|}{d\log q}\Big|_{q_c}",
    )
    return edge, growth


def noisy_edge(proof: Proof | None = None) -> sp.Expr:
    """Return the edge of a mode's covariance under gradient noise in proportion to its excursion: 2 / (1 + s / b)."""
    p = proof or Proof()
    factor = (1 - STEP) ** 2 + STEP**2 * NOISE / b
    edge = 2 / (1 + NOISE / b)
    p.equal(
        "Curvature that differs from sample to sample multiplies a mode's covariance each step by"
        " $(1-q)^2 + q^2s/b$; it escapes beyond $q_c = 2/(1 + s/b)$",
        sp.simplify(factor.subs(STEP, edge)),
        sp.Integer(1),
        shown=r"(1-q_c)^2 + q_c^2\,s/b",
    )
    p.limit("for large batches the deterministic edge", edge, b, sp.oo, sp.Integer(2))
    return edge


def excursion(proof: Proof | None = None) -> sp.Expr:
    """Return the integral of ln u / u_c over ln s of a warm-up whose top is delta above the edge."""
    p = proof or Proof()
    delta, z = sp.symbols("delta z", positive=True)
    area = 2 * sp.integrate(delta - z**2 / 2, (z, 0, sp.sqrt(2 * delta)))
    return p.equal(
        "A top that is $\\delta = \\log u^*/u_c$ above the edge stays beyond it for $\\log s$ within $\\sqrt{2\\delta}$"
        " and the logarithm of the covariance gains, in units of $2s^*W$ times the growth a step,",
        area,
        4 * sp.sqrt(2) / 3 * delta ** sp.Rational(3, 2),
        shown=r"\int\left(\delta - \tfrac12\log^2 s/s^*\right)_+ d\log s",
    )


def size(proof: Proof | None = None) -> sp.Expr:
    """Return the exponent of N in u_c if the critical peak rate falls as one over the width and N grows as width^k."""
    p = proof or Proof()
    k, power, n = sp.symbols("k c_N n", positive=True)
    critical = n ** (-1 / k)
    felt = (critical * n**power) ** sp.Rational(1, 3)
    return p.equal(
        "Critical peak rate $\\propto 1/\\text{width}$, $N \\propto \\text{width}^k$, $x = \\eta n^{c_N}$, and $u^*$ as"
        " the cube root of $x_p$ ($c \\ge 2$)",
        sp.simplify(n * sp.diff(felt, n) / felt),
        (power - 1 / k) / 3,
        shown=r"\frac{d\log u_c}{d\log n}",
    )


def width(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return the exponents of the width in u_c at equal N, critical peak rate as one over it: c >= 2, and any less."""
    p = proof or Proof()
    wide, power, n = sp.symbols("w c_N n", positive=True)
    felt = (n**power / wide) ** sp.Rational(1, 3)
    end = gentle()[0]
    other = p.equal(
        "With a gentler warm-up, $c < 2$, the width counts for more, up to one over it",
        sp.simplify(wide * sp.diff(sp.log(end.subs(PEAK, PEAK / wide)), wide)).subs(wide, 1),
        -1 / (1 + KAPPA * PEAK**2 * WARM / 3),
        shown=r"\frac{\partial\log u_c}{\partial\log w} = -\tfrac{1}{1+c}",
    )
    strong = p.equal(
        "The same at equal $N$, for a network that is wider or narrower than is usual for its size, $c \\ge 2$",
        sp.simplify(wide * sp.diff(felt, wide) / felt),
        -sp.Rational(1, 3),
        shown=r"\frac{\partial\log u_c}{\partial\log w}",
    )
    return strong, other


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    felt, at, top = warm_up(p)
    end, power = gentle(p)
    settled = after(p)
    edge, growth = momentum_edge(p)
    noisy = noisy_edge(p)
    gain = excursion(p)
    exponent = size(p)
    narrow, narrower = width(p)
    return Result(
        "stability",
        "Stability of the fastest mode during and after the warm-up",
        "The felt rate $u = x/R$ has a highest value. With $c = \\kappa x_p^2W/3$ that of a linear warm-up is $u^* ="
        " (2x_p / (\\sqrt3\\,\\kappa W))^{1/3}$ if $c \\ge 2$: the slope of the warm-up alone. If $c < 2$ (a low or a"
        " short one: at $\\kappa = .35$, $n = 1$ fewer than 3,860 steps to a rate of .001, or 43,000 to .0003) it is"
        " that at its end, $x_p(1 + c)^{-1/2}$. The run's highest is this one where it is above"
        " $\\sqrt{2\\omega\\eta/\\kappa}$, to which a constant rate settles. A mode of curvature $\\lambda$ is stable"
        " while $\\eta\\lambda < 2$, with multiplicative noise while $\\eta\\lambda < 2/(1+s/b)$; beyond the edge its"
        " covariance grows exponentially. As the growth a step is large and a warm-up long, an excursion of a per cent"
        " is enough: the threshold is sharp, $u^* > u_c$.",
        (
            "Weight decay is left out over the warm-up.",
            "The powers of $u_c$ in size and width are those of $c \\ge 2$, the case of every public run that diverged"
            " (docs/divergence.md). In general the width's is between $-1$ and $-1/3$. The code, which integrates $u$"
            " itself, needs neither condition for $u$.",
            "The curvature that matters is the same function of size and batch in all runs; the fastest mode is at its"
            " full curvature before the top of $u$ is reached.",
            "Gradient noise of the fastest mode is proportional to the excursion.",
        ),
        {
            "felt": felt,
            "share": at,
            "top": top,
            "end": end,
            "end_power": power,
            "settled": settled,
            "momentum_edge": edge,
            "momentum_growth": growth,
            "noisy_edge": noisy,
            "excursion": gain,
            "size": exponent,
            "width": narrow,
            "width_gentle": narrower,
        },
        tuple(p.steps),
        ("risk criterion",),
        "stability.py",
        HEURISTIC,
        "How beta1 enters is not settled: the linear edge rises with it, and so does the growth beyond the edge, while"
        " runs with a longer memory diverge earlier. That runs recover (a threshold that rises with the steps at a high"
        " rate), and that noise needs time to tell, is read off runs and not derived.",
    )
