"""The built-in laws on other people's runs: python benchmarks/transfer.py [--write].

Neither law was fitted to any run of these sources, but the constants of the basis and the centres of its
priors were chosen with all of them in view. Another corpus, tokenizer and network give another level; what a ranking
needs is the order. For every source: the order within pools of runs that compete (one size; one length or token
budget), the loss that is given away by taking the run predicted lowest, how far the level is off, and the error that
remains when each size's own level is taken out, in hindsight, from its runs here. The Multi-Power-Law runs do not
state their batch, so several are assumed. The last columns are the share of runs that the law itself holds to be in its
domain (where it is 0, `rank` marks every line), and for these how far the level is off and how many of them lie in
their 90 % intervals: the domain is one of sizes, lengths, batches and schedules, and cannot know another corpus.
Nothing in the laws was chosen by these figures. --write puts them into docs/transfer.md, a summary into ranking.md.
"""

from __future__ import annotations

import argparse
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accuracy import splice, table
from odds import Pool, summary
from public import completed, load, write_page
from scipy.stats import spearmanr

from optlaws import Law, RunTable, load_law, rank
from optlaws._normal import NORMAL_90
from optlaws.law.discrepancy import OTHER_CORPUS, Discrepancy
from optlaws.validation import SMALLEST_POOL, configurations, same_budget, same_horizon, scores

ROOT = Path(__file__).resolve().parents[1]
NOMINAL = 0.9
SHAPES = np.arange(0.0025, 0.0501, 0.0025)
RATIO = 2.0  # of the field over size, data, rate and batch to the one over all coordinates
ONE = 1  # which of `BATCHES` stands for the Multi-Power-Law runs where every source counts once
BATCHES = (51_200, 131_072, 524_288, 2_097_152)
HEAD = [
    "runs", "number", "order within pools", "pools", "best among two predicted lowest", "regret %, mean (largest)",
    "order over all", "level off %", "error % without the level", "in domain %", "of these: level off %", "cover %",
]  # fmt: skip

OTHER_HEAD = [
    "law", "runs of", "differences", "cover %, as on its own corpus", "shape from the other sources",
    "cover % with it", "width %", "width % with it", "level off %", "half-width of the level's interval %",
]  # fmt: skip

ODDS_HEAD = [
    "law", "runs of", "pools", "candidates (median)", "in the 90 % set (median)", "best in the set",
    "chance given to the best, %", "one in all, %",
]  # fmt: skip


def without_level(loss: np.ndarray, guess: np.ndarray, size: np.ndarray) -> tuple[float, float]:
    """Return the mean offset and the mean absolute error once each size's own offset is taken out, %."""
    apart = np.log(guess / loss)
    own = np.array([apart[size == n].mean() for n in size])
    return 100 * float(apart.mean()), 100 * float(np.abs(apart - own).mean())


def row(name: str, law: Law, runs: RunTable, budget: bool) -> list[str]:
    """Return the figures of one law on one source."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        p = law.predict(runs)
    pool = same_budget(runs) if budget else same_horizon(runs)
    s = scores(runs.final_loss, p.loss, p.lower, p.upper, pool, candidate=configurations(runs))
    level, rest = without_level(runs.final_loss, p.loss, runs.size)
    known = np.asarray(p.in_domain, dtype=bool)
    inside = ((p.lower <= runs.final_loss) & (runs.final_loss <= p.upper))[known]
    trusted = ["-", "-"]
    if known.any():
        trusted = [f"{100 * np.log(p.loss / runs.final_loss)[known].mean():+.1f}", f"{100 * inside.mean():.0f}"]
    return [
        name,
        str(len(runs)),
        f"{s['pool_spearman']:.2f}",
        str(s["pools"]),
        f"{s['hits']} of {s['pools']}",
        f"{s['regret']:.2f} ({s['worst_regret']:.2f})",
        f"{spearmanr(p.loss, runs.final_loss).statistic:.2f}",
        f"{level:+.1f}",
        f"{rest:.2f}",
        f"{100 * known.mean():.0f}",
        *trusted,
    ]


@dataclass(frozen=True)
class Differences:
    """Differences between the run predicted lowest in each pool and the others of it, m in all, in ln loss.

    `error` is true minus predicted, `variance` the law's own, noise of both runs included; `unlike` what a discrepancy
    of shape 1 and setting `RATIO` adds to it; `level` the mean of ln(predicted / true); `pools` are the runs.
    """

    error: np.ndarray
    variance: np.ndarray
    unlike: np.ndarray
    level: float
    pools: tuple[RunTable, ...]

    @classmethod
    def of(cls, law: Law, runs: RunTable, budget: bool) -> Differences:
        """Return the differences of one law on one source."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            own, other = law.predict(runs), law.on_other_corpus(Discrepancy(0.0, 1.0, RATIO)).predict(runs)
        apart, noise = np.log(runs.final_loss / own.loss), own.noise / own.loss
        pool = same_budget(runs) if budget else same_horizon(runs)
        parts, pools = [], []
        for label in np.unique(pool):
            rows = np.flatnonzero(pool == label)
            if len(rows) < SMALLEST_POOL:
                continue
            pools.append(runs.select(rows))
            scale = np.outer(own.loss[rows], own.loss[rows])
            c, wide = own.covariance(rows) / scale, other.covariance(rows) / scale
            b = int(own.loss[rows].argmin())
            others = np.arange(len(rows)) != b
            expected, unlike = (np.diag(m) + m[b, b] - 2 * m[b] for m in (c, wide - c))
            variance = expected + noise[rows] ** 2 + noise[rows[b]] ** 2
            parts.append([each[others] for each in (apart[rows] - apart[rows[b]], variance, unlike)])
        error, variance, unlike = (np.concatenate(each) for each in zip(*parts, strict=True))
        return cls(error, variance, unlike, -float(apart.mean()), tuple(pools))

    def cover(self, shape: float) -> float:
        """Return the share of differences in their 90 % intervals."""
        return float((np.abs(self.error) < NORMAL_90 * self.sd(shape)).mean())

    def sd(self, shape: float) -> np.ndarray:
        """Return the standard deviations with fields of `shape` and `RATIO` times it."""
        return np.asarray(np.sqrt(self.variance + shape**2 * self.unlike))


def chosen(others: list[list[Differences]]) -> Discrepancy:
    """Return the discrepancy under which the mean cover over sources is nearest to 90 %, their levels' rms."""
    covers = [np.mean([np.mean([d.cover(s) for d in each]) for each in others]) for s in SHAPES]
    level = np.sqrt(np.mean([np.mean([d.level**2 for d in each]) for each in others]))
    shape = float(SHAPES[int(np.abs(np.array(covers) - NOMINAL).argmin())])
    return Discrepancy(float(level), shape, RATIO * shape)


def odds(law: Law, mine: list[Differences]) -> list[Pool]:
    """Return P(best) in every pool of a source, and which run was best."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [(rank(p, law).p_best, int(np.argmin(p.final_loss))) for each in mine for p in each.pools]


def other_corpus(found: dict[tuple[str, str], list[Differences]]) -> tuple[str, str]:
    """Return the part on `Law.on_other_corpus`, each source with what the others ask for, and ranking.md's lines."""
    rows, covers, chances = [], [], []
    every: tuple[list[Pool], list[Pool]] = ([], [])
    for (law, source), mine in found.items():
        # what a source is judged by is never what its discrepancy was chosen on, for neither law
        rest = chosen([each for (_, other), each in found.items() if other != source])
        cover = [float(np.mean([d.cover(s) for d in mine])) for s in (0.0, rest.shape)]
        width = [200 * NORMAL_90 * float(np.mean([np.median(d.sd(s)) for d in mine])) for s in (0.0, rest.shape)]
        far = 100 * np.sqrt(np.mean([d.level**2 for d in mine]))
        covers.append(cover)
        rows.append(
            [
                law,
                source,
                str(len(mine[0].error)),
                f"{100 * cover[0]:.0f}",
                f"{rest.shape:.3f}",
                f"{100 * cover[1]:.0f}",
            ]
            + [f"{each:.1f}" for each in (*width, far)]
            + [f"{100 * NORMAL_90 * rest.level:.0f}"]
        )
        for words, counted, all_pools in zip(("its own", "another"), (None, rest), every, strict=True):
            known = load_law(law) if counted is None else load_law(law).on_other_corpus(counted)
            pools = odds(known, [mine[ONE] if len(mine) > 1 else mine[0]])
            all_pools += pools
            chances.append([law, *summary(f"{source}, counted as {words}", pools)])
    chances += [["", *summary(f"all, counted as {w}", p)] for w, p in zip(("its own", "another"), every, strict=True)]
    worst = f"{100 * min(cover[1] for cover in covers):.0f}"
    mean = [f"{100 * each:.0f}" for each in np.mean(covers, axis=0)]
    rows.append(["", "mean", "", mean[0], "", mean[1], "", "", "", ""])
    best, sources = chosen(list(found.values())), len({source for _, source in found})
    about = f"""
        Differences between the run predicted lowest in each pool and the others of it, and how many lie in their 90 %
        intervals. A law's own intervals hold for its own corpus. `--other-corpus` (`Law.on_other_corpus`) adds a level,
        a field over all coordinates of the law's own field (shape) and one of {RATIO:g} times its standard deviation
        over size, data, peak rate and batch alone. For every source the shape is the one under which the mean cover
        over the *other* sources is nearest to 90 %, and the level is the root mean square of theirs. From all {sources}
        sources they are {best.shape:.4g} and {best.level:.2f}; the package has {OTHER_CORPUS.shape:g} and
        {OTHER_CORPUS.level:g}. The form, the ratio of {RATIO:g} too, was chosen by hand with all sources in view: among
        schedules of one peak rate and batch errors ask for a shape of .01 to .03, among rates and batches for more. One
        field over size, data, rate and batch alone, and shifts of the scales of rate and batch, had worse interval
        scores; a single field over all coordinates had a slightly better one, but is nearly twice as wide among
        schedules of one rate, which people compare most, and was not taken for that."""
    others = [row for row in chances[:-2] if row[1].endswith("another")]
    fewest = min(others, key=lambda row: int(row[5].split(" of ")[0]) / int(row[5].split(" of ")[1]))
    short = f"""
        On public runs of another corpus, tokenizer or kind of network, a law's own 90 % intervals of differences
        covered {mean[0]} %, those of `--other-corpus` {mean[1]} %, in the worst of {len(covers)} pairs of law and
        source {worst} %; their widths were set with the other sources, their form with all in view. The candidates that
        together have 90 % of P(best) held the best run in {chances[-2][5]} pools without the option and in
        {chances[-1][5]} with it, fewest {fewest[5]} ({fewest[0]} on runs of {fewest[1].split(",")[0]}): still too sure
        ([transfer.md](transfer.md), `python benchmarks/transfer.py --write`)."""
    part = f"## Differences on another corpus\n\n{' '.join(about.split())}\n\n{table(OTHER_HEAD, rows)}"
    text = f"""
        With the same discrepancies, P(best) in the pools: how many candidates must be kept for the best to be among
        them with a probability of 90 % by the law's own account (its 90 % set), how often it was, and the chance that
        the law gave to the run that was best (geometric mean), as in [odds.md](odds.md). The Multi-Power-Law runs count
        once, with {BATCHES[ONE] / 1000:.4g}K tokens a step assumed. The two Step Law sources are one laboratory's."""
    part += f"\n\n## P(best) on another corpus\n\n{' '.join(text.split())}\n\n{table(ODDS_HEAD, chances)}"
    return part, " ".join(short.split())


def with_batch(runs: RunTable, batch: float) -> RunTable:
    """Return runs that do not state their batch with one assumed, and AdamW's usual weight decay."""
    return RunTable.build(
        runs.schedule_tuple(),
        run_id=runs.run_id,
        params=runs.params,
        batch_tokens=batch,
        optimizer="adamw",
        weight_decay=0.1,
        final_loss=runs.final_loss,
    )


def page() -> tuple[str, str]:
    """Return the page, and docs/ranking.md's lines on other corpora."""
    step, marin, nqs, schaipp, mpl = (completed(load(name)) for name in ("steplaw", "marin", "nqs", "schaipp", "mpl"))
    kinds = np.array(step.source)
    dense, experts = step.select(kinds == "steplaw-dense"), step.select(kinds != "steplaw-dense")
    parts = []
    found: dict[tuple[str, str], list[Differences]] = {}
    for name in ("llama-slimpajama", "steplaw-dense"):
        law = load_law(name)
        sources = [
            *(
                (f"Multi-Power Law, {b / 1000:.4g}K tokens a step assumed", with_batch(mpl, float(b)), False)
                for b in BATCHES
            ),
            ("Marin", marin, True),
            ("noisy quadratic", nqs, True),
            ("Step Law (mixture-of-experts)", experts, True),
            ("Step Law (dense)", dense, True) if name == "llama-slimpajama" else ("schaipp", schaipp, False),
        ]
        rows = [row(label, law, runs, budget) for label, runs, budget in sources]
        for label, runs, budget in sources:  # the assumed batches of one source count as one
            found.setdefault((name, label.split(", ")[0]), []).append(Differences.of(law, runs, budget))
        parts.append(f"## {name}\n\n{table(HEAD, rows)}")
    about = " ".join(str(__doc__).split("\n\n", 1)[1].split())
    part, short = other_corpus(found)
    head = f"# Built-in laws on other runs\n\nWritten by `python benchmarks/transfer.py --write`. {about}"
    return "\n\n".join([head, *parts, part]) + "\n", short


def main() -> None:
    """Print the page; with --write also into docs/transfer.md and docs/ranking.md."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help="write docs/transfer.md and docs/ranking.md")
    write = parser.parse_args().write
    text, short = page()
    print(text)
    if write:
        write_page(ROOT / "docs" / "transfer.md", text)
        splice(ROOT / "docs" / "ranking.md", "transfer", "\n".join(textwrap.wrap(short, 118)))


if __name__ == "__main__":
    main()
