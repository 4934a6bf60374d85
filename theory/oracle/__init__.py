"""An oracle for `optlaws`: the same quantities from the derivations, in closed form or by exact quadrature.

- `columns`: every column of every registered basis as a sympy expression of the states, evaluated in mpmath.
- `phases`: closed forms of the states over constant, linear, cosine and exponential phases (norm held, or norm alone).
- `quadrature`: all states of the continuous equations together, by spectral quadrature split at the kinks.
- `cells`: the problem that the code solves on its cells, solved exactly in mpmath.

The code integrates cells of a schedule, not the schedule: its error against the continuous equations is of second
order in the cell width (`theory/derivations/cell_solutions.py`) and far above 1e-10. So what is compared to 1e-10 is
the code against the exact solution on the same cells, and against the continuous closed forms where the cells are
exact (constant felt rate); the error of the cells against the continuous equations is measured: size, order, limit.
"""
