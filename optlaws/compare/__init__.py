"""Our law beside the laws of others on a user's own runs, with the same groups of runs held out for all.

Every law is fitted by its own procedure, with its defaults, on the training runs of every fold and on nothing else.
Laws that read a schedule but no size hold for one size each, and are fitted to each size by itself.

Splits
------
horizon, size : fitted on runs of at most the middle one of the different lengths (in steps) or sizes; the others held
    out. One fold.
family, peak : each kind of schedule, each peak rate left out in turn; of more than `BANDS` rates neighbours together.

What is told apart
------------------
A law's error beside ours is the mean over runs of the difference of the two |predicted / loss - 1|: what is hard about
a run for both drops out. Runs of one pool (equal size and budget, held out together) share much of what is left, and so
do runs of one fold, whose laws are the same fits. The standard error is therefore that of a mean of groups
(`paired_difference`), with pools and with folds as groups; the interval is Student's with one degree of freedom fewer
than groups, 90 %, and the wider of the two is taken. A difference counts only if its interval leaves out zero, and that
ours is behind the best of K rivals counts only at the level of K of them (Bonferroni), as any could have been the best.
What all pools of a single fold share cannot be seen in it, and equal laws that were fitted to different runs differ by
more than such an interval now and then: `verdict` says of these splits that it was one fit of each.
"""

from __future__ import annotations

from optlaws.compare.contenders import OURS, REFERENCES, SECONDS, MeanLoss, NearestRun, one_size
from optlaws.compare.figures import Comparison, Difference, Row, SplitResult, paired_difference
from optlaws.compare.run import compare_laws
from optlaws.compare.splits import BANDS, SPLITS
from optlaws.compare.verdict import verdict

__all__ = [
    "BANDS",
    "OURS",
    "REFERENCES",
    "SECONDS",
    "SPLITS",
    "Comparison",
    "Difference",
    "MeanLoss",
    "NearestRun",
    "Row",
    "SplitResult",
    "compare_laws",
    "one_size",
    "paired_difference",
    "verdict",
]
