"""Bias and variance of one quadratic mode under a schedule, with closed forms for the phases that have one."""

from __future__ import annotations

from functools import cache

import sympy as sp

from theory.result import Proof, Result
from theory.symbols import clock, eta0, lam, q, s, sigma, t, theta

A, M = sp.symbols("a m", real=True)  # a linear phase's rate a + m t
START, DECAY = sp.symbols("u_0 k", positive=True)  # an exponential phase's rate u_0 exp(-k t)
V0 = sp.Symbol("v_0", nonnegative=True)
RATE = sp.Symbol("p", real=True)  # 2 lam or -2 rho: one closed form for variance and escape


def mode_equation(proof: Proof | None = None) -> sp.Expr:
    """Return v of y' = -2 lam eta y + sigma^2 eta^2, the mean square of dX = -lam eta X dt + eta sigma dW."""
    p = proof or Proof()
    x, y0 = sp.Symbol("x", real=True), sp.Symbol("y_0", positive=True)
    rate = sp.diff(clock(t), t)
    ito = -lam * rate * x * sp.diff(x**2, x) + rate**2 * sigma**2 / 2 * sp.diff(x**2, x, 2)
    p.equal(
        "Ito's formula for $X^2$ of $dX = -\\lambda\\eta X\\,dt + \\eta\\sigma\\,dW$ gives the drift",
        ito,
        -2 * lam * rate * x**2 + sigma**2 * rate**2,
        shown=r"\mathcal{L}\,x^2",
    )
    source = sp.Integral(sp.diff(clock(s), s) ** 2 * sp.exp(2 * lam * clock(s)), (s, 0, t))
    y = sp.exp(-2 * lam * clock(t)) * (y0 + sigma**2 * source)
    p.equal(
        "whose mean is solved by bias plus variance",
        sp.diff(y, t) + 2 * lam * rate * y,
        sigma**2 * rate**2,
        shown="y' + 2\\lambda\\tau'y",
    )
    v = sp.exp(-2 * lam * clock(t)) * sp.Integral(
        2 * lam * sp.diff(clock(s), s) ** 2 * sp.exp(2 * lam * clock(s)), (s, 0, t)
    )
    p.equal(
        "The excess loss $\\tfrac\\lambda2 y$ has the variance part $\\tfrac{\\sigma^2}4 v_\\lambda$",
        lam / 2 * (y - y0 * sp.exp(-2 * lam * clock(t))),
        sigma**2 / 4 * v,
        shown=r"\tfrac{\lambda}{2}\left(y - y_0e^{-2\lambda\tau}\right)",
    )
    p.equal(
        "where $v_\\lambda' = 2\\lambda\\tau'(\\Theta - v_\\lambda)$ with $\\Theta = \\eta$: the state of the code at"
        " $s = q = 1$",
        sp.diff(v, t),
        2 * lam * rate * (rate - v),
        shown=r"v_\lambda'",
    )
    return v


def kummer(proof: Proof | None = None) -> sp.Expr:
    """Return int_0^z w^(a - 1) e^(-c w) dw = z^a / a 1F1(a; a + 1; -c z), checked coefficient by coefficient."""
    p = proof or Proof()
    a, z, c = sp.Symbol("a", positive=True), sp.Symbol("z", positive=True), sp.Symbol("c", real=True)
    k = sp.Symbol("j", integer=True, nonnegative=True)
    p.equal(
        "Coefficient of $(-cz)^j/j!$ in ${}_1F_1(a; a+1; -cz)$",
        sp.gamma(a + k) / sp.gamma(a) * sp.gamma(a + 1) / sp.gamma(a + 1 + k),
        a / (a + k),
    )
    term = (-c) ** k / sp.factorial(k) * z ** (a + k) / (a + k)
    p.equal(
        "so the derivative of a term of $\\tfrac{z^a}{a}\\,{}_1F_1$ is the term of $z^{a-1}e^{-cz}$",
        sp.diff(term, z),
        z ** (a - 1) * (-c * z) ** k / sp.factorial(k),
    )
    return z**a / a * sp.hyper([a], [a + 1], -c * z)


def constant_phase(proof: Proof | None = None) -> sp.Expr:
    """Return v at time t of a phase of constant felt rate."""
    p = proof or Proof()
    v = theta + (V0 - theta) * sp.exp(-2 * lam * eta0 * t)
    p.equal("Constant rate", sp.diff(v, t), 2 * lam * eta0 * (theta - v), shown="v'")
    p.equal("which begins at", v.subs(t, 0), V0, shown="v(0)")
    return v


def linear_phase(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return (tau, integrand over w = u^2) of a phase u = a + m t: int u^q exp(p (tau_s - tau_t)) dtau."""
    p = proof or Proof()
    u, w = sp.symbols("u w", positive=True)
    line = A + M * t
    elapsed = (line**2 - A**2) / (2 * M)
    p.equal("Linear phase $u = a + mt$: intrinsic time", sp.Integral(line, (t, 0, t)), elapsed)
    integrand = w ** (q / 2) * sp.exp(-RATE * (u**2 - w) / (2 * M)) / (2 * M)
    integral = sp.Integral(integrand, (w, A**2, u**2))
    p.equal(
        "With $w = u(s)^2$, $d\\tau = dw/2m$, the integral $I = \\int u^q e^{-p(\\tau_t - \\tau_s)}d\\tau_s$ solves the"
        " equation of the variance; $d/dt = m\\,d/du$",
        M * sp.diff(integral, u) + RATE * u * integral,
        u ** (q + 1),
        shown="I' + p\\,\\tau'I",
    )
    return elapsed, integrand


def exponential_phase(proof: Proof | None = None) -> tuple[sp.Expr, sp.Expr]:
    """Return (tau, integrand over w = u) of a phase u = u0 exp(-k t): int u^q exp(p (tau_s - tau_t)) dtau."""
    p = proof or Proof()
    u, w = sp.symbols("u w", positive=True)
    fall = START * sp.exp(-DECAY * t)
    elapsed = (START - fall) / DECAY
    p.equal("Exponential phase $u = u_0e^{-kt}$: intrinsic time", sp.Integral(fall, (t, 0, t)), elapsed)
    integrand = w**q * sp.exp(-RATE * (w - u) / DECAY) / DECAY
    integral = sp.Integral(integrand, (w, u, START))
    p.equal(
        "With $w = u(s)$, $d\\tau = -dw/k$, the integral $I = \\int u^q e^{-p(\\tau_t - \\tau_s)}d\\tau_s$ solves the"
        " equation of the variance; $d/dt = -ku\\,d/du$",
        -DECAY * u * sp.diff(integral, u) + RATE * u * integral,
        u ** (q + 1),
        shown="I' + p\\,\\tau'I",
    )
    return elapsed, integrand


@cache
def result() -> Result:
    """Return the checked result."""
    p = Proof()
    v, kummer_form, flat = mode_equation(p), kummer(p), constant_phase(p)
    (linear_time, linear), (exponential_time, exponential) = linear_phase(p), exponential_phase(p)
    return Result(
        "quadratic_modes",
        "Bias and variance of a quadratic mode",
        "On a mode of curvature $\\lambda$ the expected excess loss is"
        " $\\tfrac\\lambda2y_0e^{-2\\lambda\\tau} + \\tfrac{\\sigma^2}4v_\\lambda$ with $\\tau' = \\eta$ and"
        " $$v_\\lambda = \\int_0^T2\\lambda\\,\\eta(s)^2e^{-2\\lambda S(s,T)}ds,\\qquad"
        " v_\\lambda' = 2\\lambda\\tau'(\\Theta - v_\\lambda).$$ Constant, linear and exponential phases have closed"
        " forms"
        " (exponential, and Kummer's ${}_1F_1$ of half-integer or general order for $\\Theta = u^q$); a cosine phase"
        " is a"
        " quadrature.",
        (
            "The loss is $\\tfrac12\\lambda X^2$ and the noise is additive, of variance $\\sigma^2$, on each mode.",
            "SGD has $\\Theta = \\eta$, that is $q = 1$. The closed forms hold for any $q \\ge 0$, of which the code"
            " uses a"
            " fitted one.",
            "The pace is $\\tau'$, that is $s = 1$: the code's factor $(u/u_{max})^{s-1}$ does not follow from here.",
        ),
        {
            "variance": v,
            "kummer": kummer_form,
            "constant": flat,
            "linear_time": linear_time,
            "linear": linear,
            "exponential_time": exponential_time,
            "exponential": exponential,
        },
        tuple(p.steps),
        ("variance", "tau", "bias", "escape"),
        "derivations/quadratic_modes.py",
    )
