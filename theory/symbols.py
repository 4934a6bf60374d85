"""Symbols shared by the derivations; `optlaws.dynamics.symbols` has their meaning in the code."""

from __future__ import annotations

import sympy as sp

t, s, T, h = sp.symbols("t s T h", positive=True)
eta0, lam, rho, sigma, mu, smooth = sp.symbols("eta_0 lambda rho sigma mu L", positive=True)
tau, theta, q = sp.symbols("tau Theta q", positive=True)
B, b, bc, n, d = sp.symbols("B b b_c n d", positive=True)
Function = sp.Function
eta = sp.Function("eta", positive=True)
clock = sp.Function("tau", real=True)
"""Intrinsic time as a function of the step; its derivative is the (felt) rate."""
