"""The headline protocol of Opt-Laws (arXiv 2409.04777), carried out on public runs.

**These are other runs.** The paper's runs and exact basis are not public; its protocol (fit on some configurations,
choose among others) is carried out here with this package's law on the runs of arXiv 2501.18965 and 2405.18392, so
that published and ours differ in data, sizes and candidates. They stand beside each other for orientation, without
tolerance, but for the direction of one effect.

Top-2: over all pools of equal size and steps of the splits of `benchmarks/accuracy.py`. Best family: each schedule
family left out in turn; a pool counts when it holds that family and another one, and is won when the family of the
lowest predicted loss has the lowest loss. Error: the largest of the splits' mean errors. Warm-up: what the built-in law
says of it, which rests on its equations, and what the warm-ups tried by the Marin project made of real runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from optlaws.errors import OptlawsError
from optlaws.law import fit_law, load_law
from optlaws.runs import RunTable, read_runs
from optlaws.schedules import parse
from optlaws.validation import cross_validate, leave_one_family_out, same_horizon
from paper_repro.core import Missing, Row, benchmark, expected, need, new_axes

STEPS = (5_000, 10_000, 20_000, 50_000, 100_000, 200_000)
WARM = (300, 2_000)
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


def warm_up_effect(pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return what the longer of two warm-ups adds to the predicted loss, in % of it, for each of `STEPS`."""
    law = load_law("llama-slimpajama")
    specs = [
        f"cosine:peak=1e-3,steps={t},warmup={w},final=1e-4" for t, pair in zip(STEPS, pairs, strict=True) for w in pair
    ]
    runs = RunTable.build([parse(spec) for spec in specs], params=85e6, batch_tokens=51_200.0, weight_decay=0.1)
    loss = law.expected_loss(runs).reshape(len(STEPS), 2)
    return np.asarray(100 * (loss[:, 1] / loss[:, 0] - 1))


def warm_up_measured(runs: RunTable) -> dict[float, float]:
    """Return by tokens D by how much the losses of runs that differ in the warm-up alone spread, in % of the lowest.

    Runs of one D are compared where they have the settings of its base run and each of the warm-ups `SWEPT`.
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
            each = [float(loss.min()) for loss in losses.values()]
            out[float(runs.tokens[i])] = 100 * (max(each) / min(each) - 1)
    return dict(sorted(out.items()))


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
    last: list[Row | Missing] = []
    for cell, pairs in (
        ("importance of warm-up falls with data", [WARM] * len(STEPS)),
        ("the same for warm-ups in proportion to the run", [(t // 100, t // 10) for t in STEPS]),
    ):
        effect = warm_up_effect(pairs)
        text = ", ".join(f"{value:+.3f} % at {steps:,}" for value, steps in zip(effect, STEPS, strict=True))
        slope = float(np.polyfit(np.log(STEPS), np.log(np.abs(effect)), 1)[0])
        note = f"slope of ln |effect| in ln data {slope:+.2f}; by steps of 51,200 tokens: {text}"
        if len(set(np.sign(effect))) > 1:
            note += "; the effect changes its sign, near which its size says little"
        last.append(book.row("headline", cell, float(slope < 0), note))
    try:
        marin = read_runs(need(data, "marin_runs.csv", "runs of other warm-ups; their effect is not measured"))
        spread = warm_up_measured(public.completed(marin))
        falls = all(b < a for a, b in pairwise(spread.values())) if len(spread) > 2 else None
        text = ", ".join(f"{value:.2f} % at {tokens / 1e9:.1f}B" for tokens, value in spread.items())
        note = (
            "largest over lowest loss of warm-ups of 1,000, 2,000 and 4,000 steps (500 diverged at most lengths and is"
            f" left out), by tokens: {text}"
        )
        last.append(book.row("headline", "the same, measured", None if falls is None else float(falls), note))
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
        axes.semilogx(STEPS, warm_up_effect([WARM] * len(STEPS)), "o-")
        axes.axhline(0, color="0.5", lw=0.8)
        axes.set(
            xlabel="steps of 51,200 tokens", ylabel="added to the loss, %",
            title="Warm-up of 2,000 steps instead of 300",
        )  # fmt: skip
        figure.savefig(figures / "opt_laws.png", dpi=120)
    return [*rows, *last]
