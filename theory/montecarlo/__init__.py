"""Monte-Carlo checks of the stochastic differential equations: predicted, simulated, standard error.

Simulations are NumPy, seeded, and vectorised over trajectories. Wherever `optlaws.dynamics` has the state, its number
is the prediction. `python -m theory.montecarlo` prints every comparison and exits with 1 when one fails.
"""

from theory.montecarlo.adam import adam_rows
from theory.montecarlo.escape import escape_rows
from theory.montecarlo.heavy_tails import heavy_tail_rows
from theory.montecarlo.quadratic import quadratic_rows
from theory.montecarlo.rows import RULES, Check, Row, table
from theory.montecarlo.weak_order import weak_order_rows
from theory.montecarlo.weight_norm import weight_norm_rows

CHECKS = (
    Check("quadratic", "SGD on a convex quadratic: mean and variance of the SDE, four schedules", quadratic_rows),
    Check("weak-order", "weak order of the link between SGD and its SDE as the step shrinks", weak_order_rows),
    Check("adam", "Adam and AdamW on a quadratic of 24 modes: the noise-dominated SDE, square-root rule", adam_rows),
    Check("weight-norm", "squared weight norm of a trained scale-invariant network", weight_norm_rows),
    Check("escape", "probability of staying near a saddle and in a double well: anti-concentration", escape_rows),
    Check("heavy-tails", "Student-t gradients: where the Gaussian prediction fails, and by how much", heavy_tail_rows),
)

__all__ = ["CHECKS", "RULES", "Check", "Row", "table"]
