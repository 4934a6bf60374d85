"""Step Law (arXiv 2503.04715): how far each optimal-rate law's advice lies above the lowest loss, and fitted exponents.

A law's advice is carried to the nearest run of the grid in ln rate and ln batch, for every dense (N, D); the figure is
the mean over them of loss / lowest - 1, in per mille. A law that says nothing of the batch (or of the rate) is given
the best one: it looks better than it is. Which (N, D) the printed table averages over is not known here, and its test
grid of 1.07B parameters on 100B tokens is absent: the tolerance of a competitor is twice the standard error of a mean
over the pairs here, and one outside it is explained where single pairs lie on both sides of the printed mean. The notes
have the range over the pairs, and how many of all sets of pairs have a mean that rounds to the printed value.
DeepSeek's, Porian's and Microsoft's (with a coefficient fitted here) are means of hardly any set. OpenAI's is the mean
of none, whether its batch is read as 2e8 L^-4.7619 (its own paper) or as 2e18 (the table); where its rate alone counts
and the batch is the best at that rate, it is that of a few. OpenAI's law, at least, was judged on other pairs or by
another rule than here, and of the laws only the order is compared. Exponents are fitted as in the authors' tool: least
squares in logarithms on the runs within 0.25 % of the lowest loss of their (N, D), with 1,000 bootstrap samples of
those runs. The tolerance of an exponent is half the width of the 95 % band of these samples. Near-best runs of one
(N, D) lie about one optimum, though, and are not independent; a band that draws whole (N, D) stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from optlaws.baselines.base import Advice
from optlaws.baselines.deepseek_rate import DeepSeekRate
from optlaws.baselines.meituan_rate import MeiTuanRate
from optlaws.baselines.microsoft_rate import MicrosoftRate
from optlaws.baselines.minicpm_batch import MiniCPMBatch
from optlaws.baselines.openai_rate import OpenAIRate
from optlaws.baselines.optimal_rate import NearBest, RateLaw, cells, near_best, regress, regret
from optlaws.baselines.porian_rate import PorianRate
from optlaws.baselines.step_law import StepLaw
from optlaws.errors import FitError
from optlaws.runs import RunTable, read_runs
from paper_repro.core import Expected, Missing, Row, expected, need, new_axes

EXPONENTS = (("rate: exponent of N", -1.0, "p"), ("rate: exponent of D", 1.0, "q"), ("batch: exponent of D", 1.0, "s"))
FITTED = "eq. 1, fitted exponents"
BAND = (0.025, 0.975)
TRIES = 10  # rounds of samples of (N, D), of which some do not tell the constants
THRESHOLDS = (0.0005, 0.001, 0.005, 0.01)
ALONE, BOTH_OF_OPENAI = "OpenAI, rate alone", ("OpenAI", "OpenAI, batch 2e18 L^-4.7619")
MOST_PAIRS = 18  # of which all sets are gone through


@dataclass(frozen=True)
class RateAlone:
    """A law of which only the rate is taken."""

    law: RateLaw

    def recommend(self, params: float, tokens: float, loss: float = float("nan")) -> Advice:
        """Return the law's advice without its batch."""
        return Advice(self.law.recommend(params, tokens, loss).peak_lr, float("nan"))


def means_of_sets(values: np.ndarray, printed: float, digits: int = 2) -> int:
    """Return of how many of the 2^n - 1 sets of n values the mean rounds to a printed one."""
    chosen = (np.arange(1, 2 ** len(values))[:, None] >> np.arange(len(values))) & 1
    means = chosen @ values / chosen.sum(axis=1)
    return int((np.abs(means - printed) <= 0.5 * 10.0**-digits).sum())


def about_pairs(values: np.ndarray, printed: float | None) -> str:
    """Return the range over the pairs of N and D, and whether a mean over some of them can be the printed value."""
    text = f"{len(values)} pairs of N and D, {values.min():.2f} to {values.max():.2f}"
    if printed is None or len(values) > MOST_PAIRS:
        return text
    count = means_of_sets(values, printed)
    return f"{text}; sets of pairs whose mean rounds to {printed}: {count} of {2 ** len(values) - 1:,}"


def pairs_allow(printed: float, values: np.ndarray, alone: np.ndarray | None) -> bool:
    """Return whether pairs lie on both sides of a printed mean; with `alone`, those by the rate alone do, no others."""
    if alone is None:
        return bool(values.min() <= printed <= values.max())
    return bool(printed < values.min()) and pairs_allow(printed, alone, None)


def exponents(best: NearBest) -> list[float]:
    """Return the exponents in the order of `EXPONENTS`, by least squares through near-best runs.

    Raises
    ------
    FitError
        The runs do not tell them.
    """
    _, of_n, of_d = regress(StepLaw, best.rate, [best.n, best.d])
    return [float(of_n), float(of_d), float(regress(StepLaw, best.batch, [best.d])[1])]


def band_of_pairs(runs: RunTable, draws: int) -> np.ndarray:
    """Return the ends of the 95 % bands of the exponents when whole (N, D) are drawn, shape (2, 3); seeded."""
    best, rng = near_best(StepLaw, runs), np.random.default_rng(0)
    groups, found = cells(np.exp(best.n), np.exp(best.d)), []
    for picked in rng.integers(0, len(groups), size=(TRIES * draws, len(groups))):
        rows = np.concatenate([groups[k] for k in picked])
        try:
            found.append(exponents(NearBest(*(values[rows] for values in best))))
        except FitError:  # too few different (N, D) among them
            continue
        if len(found) == draws:
            break
    return np.quantile(found, BAND, axis=0)


def fitted(runs: RunTable, book: Expected, draws: int) -> list[Row]:
    """Return the rows of the exponents; one outside its tolerance counts as explained where whole (N, D) allow it."""
    mine, samples = StepLaw.fit(runs), StepLaw.band(runs, draws=draws)
    other = [StepLaw.fit(runs, within=within) for within in THRESHOLDS]
    rows = []
    for (cell, sign, name), wide in zip(EXPONENTS, band_of_pairs(runs, draws).T, strict=True):
        low, high = np.quantile([sign * getattr(law, name) for law in samples], BAND)
        ends = [sign * getattr(law, name) for law in other]
        note = f"95 % bootstrap band {low:.3f} to {high:.3f}, {wide[0]:.3f} to {wide[1]:.3f} if whole (N, D) are drawn;"
        note += f" {min(ends):.3f} to {max(ends):.3f} where 0.05 to 1 % counts as near-best"
        printed = book.cells[FITTED, cell]["published"]
        if not low <= printed <= high:
            note += "; the published value lies outside the band of these runs"
        held = bool(wide[0] <= printed <= wide[1])
        rows.append(book.row(FITTED, cell, sign * getattr(mine, name), note, holds=held))
    return rows


def reproduce(data: Path, quick: bool, figures: Path | None) -> list[Row | Missing]:
    """Return the rows; quick draws 200 bootstrap samples instead of 1,000."""
    table = read_runs(
        need(data, "steplaw_runs.csv", "the grid of rates and batches; without it nothing here can be computed")
    )
    runs = table.select([source == "steplaw-dense" for source in table.source])
    openai = OpenAIRate.published()
    laws: dict[str, RateLaw] = {
        "Step Law": StepLaw.published(),
        BOTH_OF_OPENAI[0]: openai,
        BOTH_OF_OPENAI[1]: replace(openai, b_0=2e18),
        ALONE: RateAlone(openai),
        "Microsoft": MicrosoftRate.scaled(runs),
        "DeepSeek": DeepSeekRate.published(),
        "Porian et al.": PorianRate.published(),
        "MiniCPM": MiniCPMBatch.published(),
        "MeiTuan": MeiTuanRate.fit(runs),
    }
    book, rows = expected("step_law"), []
    above = {name: 1e3 * regret(law, runs, StepLaw) for name, law in laws.items()}
    table_1 = "table 1, relative error"
    for name, values in above.items():
        printed = book.cells[table_1, name]["published"]
        held = printed is not None and pairs_allow(printed, values, above[ALONE] if name in BOTH_OF_OPENAI else None)
        rows.append(book.row(table_1, name, float(values.mean()), about_pairs(values, printed), holds=held))
    both = ("Step Law", "OpenAI", "DeepSeek", "Porian et al.")
    best = min(both, key=lambda name: float(above[name].mean()))
    rows.append(book.row("table 1, order", "Step Law is nearest the optimum", float(best == "Step Law")))
    rows += fitted(runs, book, 200 if quick else 1000)
    if figures:
        figure, axes = new_axes()
        order = sorted((name for name in above if ", " not in name), key=lambda name: float(above[name].mean()))
        axes.boxplot([above[name] for name in order], orientation="horizontal", tick_labels=order)
        axes.set(
            xscale="log", xlabel="loss above the lowest of the grid, per mille", title="Advice of optimal-rate laws"
        )
        figure.savefig(figures / "step_law.png", dpi=120)
    sizes = sorted({f"{n / 1e6:.0f}M" for n in runs.params}, key=lambda text: float(text[:-1]))
    what = f"part of the public grid is absent: {len(runs)} dense rows are here, of {', '.join(sizes)} parameters"
    return [*rows, Missing("steplaw_runs.csv", what)]
