"""The headline protocol of Opt-Laws (arXiv 2409.04777), carried out on public runs.

**These are other runs.** The paper's runs and exact basis are not public; its protocol (fit on some configurations,
choose among others) is carried out here with this package's law on the runs of arXiv 2501.18965 and 2405.18392, so
that published and ours differ in data, sizes and candidates. They stand beside each other for orientation, without
tolerance, but for the direction of one effect.

Top-2: over all pools of equal size and steps of the splits of `benchmarks/accuracy.py`. Best family: each schedule
family left out in turn; a pool counts when it holds that family and another one, and is won when the family of the
lowest predicted loss has the lowest loss. Error: the largest of the splits' mean errors.

Warm-up: what a longer warm-up does to the loss, in % of it, counts as falling with data if in every configuration it is
smaller (whatever its sign) with the most data than with the least, and the median rank correlation of its size with
data is below 0. The configurations of the built-in law are three kinds of schedules, four peak rates and three sizes
among its runs', at lengths within theirs; it has seen no other warm-up than 300 steps, so that its answer is that of
its equations. Those of the Marin project's runs are pairs of the warm-ups that it tried, and a fall counts if it is
larger than the losses' last printed decimal can hide; runs with other seeds, which would tell the noise, there are
none.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from optlaws.errors import ExtrapolationWarning, OptlawsError
from optlaws.law import fit_law, load_law
from optlaws.runs import RunTable, read_runs
from optlaws.schedules import parse
from optlaws.validation import cross_validate, leave_one_family_out, same_horizon
from paper_repro.core import Expected, Missing, Row, benchmark, expected, need, new_axes

STEPS = (5_000, 10_000, 20_000, 40_000, 60_000)  # those of the built-in law's runs: 3,000 to 62,500
BATCH = 51_200
WARM = (300, 2_000)
KINDS = ("cosine:{common},final={end!r}", "wsd:{common},decay=0.2", "constant:{common}")
PEAKS, SIZES = (2e-4, 5e-4, 1e-3, 2e-3), (2e7, 8.5e7, 1.6e8)
ROUNDED = 0.0005  # half a unit of the last decimal of Marin's losses
SMALL = 0.2  # %, of the loss
LIMIT = 1.645  # standard errors of a 90 % limit
SWEPT = (1_000, 2_000, 4_000)  # warm-ups of Marin's 130M runs that ended well at every length
QUICK = ("horizon > 25k", "cosine from WSD", "WSD from cosine")


def families_won(runs: RunTable) -> dict[str, tuple[int, int]]:
    """Return, by the family left out, pools won and pools."""
    kind, pool = np.array([s.kind for s in runs.schedule_tuple()]), same_horizon(runs)
    out = {}
    for split in leave_one_family_out(runs):
        law, family = fit_law(runs.select(split.train)), kind[np.argmax(split.test)]
        won = total = 0
        for label in np.unique(pool[split.test]):
            rows = np.flatnonzero(pool == label)
            if len(set(kind[rows])) < 2:
                continue
            predicted = law.predict(runs.select(rows)).loss
            won += int(kind[rows[np.argmin(predicted)]] == kind[rows[np.argmin(runs.final_loss[rows])]])
            total += 1
        out[str(family)] = (won, total)
    return out


@dataclass(frozen=True)
class Fall:
    """Whether the sizes of effects fall with data, by configuration: arrays of shape (m,)."""

    drop: np.ndarray  # size with the least data less that with the most, %
    margin: np.ndarray  # what a drop must exceed, %
    rank: np.ndarray  # Spearman's rank correlation of the size with data

    @classmethod
    def of(cls, effect: np.ndarray, data: Sequence[float], unsure: np.ndarray | None = None) -> Fall:
        """Judge effects of shape (m, k), k amounts of data ascending; `unsure` (m, k): by how much each may be off."""
        size = np.abs(effect)
        off = np.zeros_like(size) if unsure is None else unsure
        rank = np.array([spearmanr(row, data).statistic for row in size])
        return cls(size[:, 0] - size[:, -1], off[:, 0] + off[:, -1], rank)

    @property
    def smaller(self) -> np.ndarray:
        """Whether each configuration's effect is smaller with the most data than with the least."""
        return self.drop > self.margin

    @property
    def larger(self) -> np.ndarray:
        """Whether each configuration's effect is larger with the most data than with the least."""
        return self.drop < -self.margin

    @property
    def shown(self) -> bool:
        """Whether effects fall with data, by the rule of this module."""
        return bool(self.smaller.all() and np.median(self.rank) < 0)

    def text(self) -> str:
        """Return the judgement in words."""
        return (
            f"smaller with the most data than with the least in {self.smaller.sum()} of {len(self.drop)}, Spearman of"
            f" its size with data {self.rank.min():+.2f} to {self.rank.max():+.2f}, median {np.median(self.rank):+.2f}"
        )


def warm_up_effects(pairs: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return what the longer of two warm-ups adds to the predicted loss, and its standard error, in % of it.

    Each of shape (m, k): configurations, lengths `STEPS` with their pair of warm-ups.
    """
    law = load_law("llama-slimpajama")
    specs, sizes = [], []
    for kind, peak, size in product(KINDS, PEAKS, SIZES):
        for steps, pair in zip(STEPS, pairs, strict=True):
            for warm in pair:
                specs.append(kind.format(common=f"peak={peak!r},steps={steps},warmup={warm}", end=0.1 * peak))
                sizes.append(size)
    runs = RunTable.build([parse(s) for s in specs], params=sizes, batch_tokens=float(BATCH), weight_decay=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)  # the warm-ups are not those of the law's runs
        loss, shared = law.expected_loss(runs), law.predict(runs).covariance(slice(None))
    short, long = np.arange(0, len(loss), 2), np.arange(1, len(loss), 2)
    spread = np.sqrt(shared[short, short] + shared[long, long] - 2 * shared[short, long])
    effect, error = 100 * (loss[long] / loss[short] - 1), 100 * spread / loss[short]
    return effect.reshape(-1, len(STEPS)), error.reshape(-1, len(STEPS))


def warm_up_row(book: Expected, cell: str, pairs: Sequence[tuple[int, int]]) -> Row:
    """Return what the built-in law says of the warm-up's effect as data grow."""
    effect, error = warm_up_effects(pairs)
    fall = Fall.of(effect, STEPS)
    beyond = ", ".join(str(count) for count in (np.abs(effect) > LIMIT * error).sum(axis=0))
    middle = ", ".join(
        f"{value:.3f} % at {steps:,}" for value, steps in zip(np.median(np.abs(effect), axis=0), STEPS, strict=True)
    )
    note = (
        f"{len(effect)} configurations: {fall.text()}; median size by steps of {BATCH:,} tokens: {middle}; larger than"
        f" the law's own 90 % limit in {beyond} of them"
    )
    return book.row("headline", cell, float(fall.shown), note)


def warm_up_measured(runs: RunTable) -> dict[float, tuple[float, ...]]:
    """Return by tokens D the losses of runs that differ in the warm-up alone, one for each of `SWEPT`.

    Runs of one D are compared where they have the settings of its base run and each of the warm-ups; of repeats the
    lowest loss counts.
    """
    batch = runs.batch()
    warm, peak = np.asarray(batch.warmup_steps, dtype=float), np.asarray(batch.peak)
    settings = np.stack(
        [runs.params, runs.tokens, runs.batch_tokens, peak, runs.beta1, runs.beta2, runs.weight_decay]
        + [np.array([float(cell or "nan") for cell in runs.extra[name]]) for name in ("grad_clip", "eps")],
        axis=1,
    )
    out = {}
    for i in np.flatnonzero([name.endswith("-base") for name in runs.run_id]):
        same = np.isclose(settings, settings[i], rtol=1e-9, equal_nan=True).all(axis=1)
        losses = {w: runs.final_loss[same & (warm == w)] for w in SWEPT}
        if all(len(loss) for loss in losses.values()):
            out[float(runs.tokens[i])] = tuple(float(loss.min()) for loss in losses.values())
    return dict(sorted(out.items()))


def measured_row(book: Expected, losses: dict[float, tuple[float, ...]]) -> Row:
    """Return the row of real runs' warm-ups; a mismatch is explained if only the shorter two leave it open."""
    cell, data = "the same, measured", list(losses)
    if len(data) < 3:
        return book.row("headline", cell, None, "fewer than three lengths with all the warm-ups")
    values = np.array(list(losses.values())).T  # (warm-ups, lengths)
    pairs = list(combinations(range(len(SWEPT)), 2))
    effect = np.array([100 * (values[j] / values[i] - 1) for i, j in pairs])
    unsure = np.array([200 * ROUNDED / values[i] for i, _ in pairs])
    fall = Fall.of(effect, data, unsure)
    told = []
    for (i, j), row in zip(pairs, effect, strict=True):
        each = ", ".join(f"{value:+.3f} % at {d / 1e9:.1f}B" for value, d in zip(row, data, strict=True))
        told.append(f"{SWEPT[j]:,} instead of {SWEPT[i]:,} steps: {each}")
    note = (
        f"{len(pairs)} pairs of warm-ups (500 steps diverged at most lengths and are left out): {fall.text()};"
        f" {'; '.join(told)}; roundings of two losses may move an effect by {unsure.max():.2f} %"
    )
    longest = np.array([j == len(SWEPT) - 1 for _, j in pairs])
    left_open = not (fall.smaller | fall.larger)[~longest].any() and np.abs(effect[~longest]).max() < SMALL
    holds = bool(fall.smaller[longest].all() and left_open)
    return book.row("headline", cell, float(fall.shown), note, holds=holds)


def divergence_f1(quick: bool) -> tuple[float | None, str]:
    """Return the F1 of the package's divergence criterion with one N left out, or None and why not."""
    if quick:
        return None, "left out of the quick part"
    try:
        scores = benchmark("divergence_scores")
        runs = scores.steplaw()
        found = scores.score(runs, scores.risk_predictor).scores()
        ceiling = scores.neighbour_ceiling()["f1"]
    except (ImportError, AttributeError):
        return None, "not built yet"
    note = f"{len(runs)} dense runs, threshold chosen inside; AUC {found['auc']:.3f};"
    note += f" a run's neighbours on the grid tell its label with {ceiling:.3f}"
    return float(found["f1"]), note


def reproduce(data: Path, quick: bool, figures: Path | None) -> list[Row | Missing]:
    """Return the rows; quick takes three of the splits and leaves the families out."""
    public, book = benchmark("public"), expected("opt_laws")
    rows: list[Row | Missing] = []
    last: list[Row | Missing] = [
        warm_up_row(book, "importance of warm-up falls with data", [WARM] * len(STEPS)),
        warm_up_row(book, "the same for warm-ups in proportion to the run", [(t // 100, t // 10) for t in STEPS]),
    ]
    try:
        marin = read_runs(need(data, "marin_runs.csv", "runs of other warm-ups; their effect is not measured"))
        last.append(measured_row(book, warm_up_measured(public.completed(marin))))
    except Missing as gap:
        last.append(gap)
    try:
        need(data, "schaipp_runs.csv", "the schedules of several families; Top-2, family and error rows need them")
    except Missing as gap:
        return [*last, gap]
    runs = public.completed(public.load("schaipp"))
    splits = public.schaipp_splits(runs)
    chosen = [(name, *splits[name]) for name in (QUICK if quick else splits)]
    scores = cross_validate(runs, chosen, fit_law)
    del scores["all"]
    hits, pools = (sum(row[key] for row in scores.values()) for key in ("hits", "pools"))
    rate = 100 * hits / pools if pools else None
    where = f"{len(scores)} splits" + (" (quick: of nine)" if quick else "")
    rows.append(
        book.row("headline", "Top-2 hit rate on held-out configurations", rate, f"{hits} of {pools} pools, {where}")
    )
    if not quick:
        won = families_won(runs)
        right = sum(2 * w > t for w, t in won.values())
        text = ", ".join(f"{family} {w} of {t} pools" for family, (w, t) in won.items())
        note = f"{right} of {len(won)} families left out with most pools won: {text}"
        rows.append(book.row("headline", "best family, out of family", 100 * right / len(won), note))
    try:
        f1, why = divergence_f1(quick)
    except (OptlawsError, OSError, SystemExit) as bad:  # the grid is not there
        f1, why = None, f"not computed: {bad}"
    rows.append(book.row("headline", "divergence F1", f1, why))
    worst = max(scores, key=lambda name: float(scores[name]["error"]))
    under = sum(row["error"] < 0.5 for row in scores.values())
    note = f"largest mean error: {worst}; under 0.5 % in {under} of {len(scores)} splits"
    rows.append(book.row("headline", "relative loss error", scores[worst]["error"], note))
    if figures:
        figure, axes = new_axes()
        effect, _ = warm_up_effects([WARM] * len(STEPS))
        axes.semilogx(STEPS, effect.T, color="0.8", lw=0.8)
        axes.semilogx(STEPS, np.median(effect, axis=0), "o-")
        axes.axhline(0, color="0.5", lw=0.8)
        axes.set(
            xlabel=f"steps of {BATCH:,} tokens", ylabel="added to the loss, %",
            title="Warm-up of 2,000 steps instead of 300",
        )  # fmt: skip
        axes.set_xticks(STEPS, [f"{steps:,}" for steps in STEPS])
        axes.minorticks_off()
        figure.savefig(figures / "opt_laws.png", dpi=120)
    return [*rows, *last]
