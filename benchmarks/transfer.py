"""The built-in laws on other people's runs: python benchmarks/transfer.py [--write].

Neither law was fitted to any run of these sources, but the constants of the basis and the centres of its
priors were chosen with all of them in view. Another corpus, tokenizer and network give another level; what a ranking
needs is the order. For every source: the order within pools of runs that compete (one size; one length or token
budget), the loss that is given away by taking the run predicted lowest, how far the level is off, and the error that
remains when each size's own level is taken out, in hindsight, from its runs here. The Multi-Power-Law runs do not
state their batch, so several are assumed. The last columns are the share of runs that the law itself holds to be in its
domain (where it is 0, `rank` marks every line), and for these how far the level is off and how many of them lie in
their 90 % intervals: the domain is one of sizes, lengths, batches and schedules, and cannot know another corpus.
Nothing was chosen by these figures. --write puts them into docs/transfer.md.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
from accuracy import table
from public import completed, load, write_page
from scipy.stats import spearmanr

from optlaws import Law, RunTable, load_law
from optlaws.validation import configurations, same_budget, same_horizon, scores

ROOT = Path(__file__).resolve().parents[1]
BATCHES = (51_200, 131_072, 524_288, 2_097_152)
HEAD = [
    "runs", "number", "order within pools", "pools", "best among two predicted lowest", "regret %, mean (largest)",
    "order over all", "level off %", "error % without the level", "in domain %", "of these: level off %", "cover %",
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


def page() -> str:
    """Return the page."""
    step, marin, nqs, schaipp, mpl = (completed(load(name)) for name in ("steplaw", "marin", "nqs", "schaipp", "mpl"))
    kinds = np.array(step.source)
    dense, experts = step.select(kinds == "steplaw-dense"), step.select(kinds != "steplaw-dense")
    parts = []
    for name in ("llama-slimpajama", "steplaw-dense"):
        law = load_law(name)
        sources = [
            *(
                (f"Multi-Power Law, {b / 1000:.4g}K tokens a step assumed", with_batch(mpl, float(b)), False)
                for b in BATCHES
            ),
            ("Marin", marin, True),
            ("noisy quadratic", nqs, True),
            ("Step Law, mixture-of-experts", experts, True),
            ("Step Law, dense", dense, True) if name == "llama-slimpajama" else ("schaipp", schaipp, False),
        ]
        rows = [row(label, law, runs, budget) for label, runs, budget in sources]
        parts.append(f"## {name}\n\n{table(HEAD, rows)}")
    about = " ".join(str(__doc__).split("\n\n", 1)[1].split())
    return (
        "# Built-in laws on other runs\n\nWritten by `python benchmarks/transfer.py --write`. "
        + about
        + "\n\n"
        + "\n\n".join(parts)
        + "\n"
    )


def main() -> None:
    """Print the page; with --write also into docs/transfer.md."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help="write docs/transfer.md")
    write = parser.parse_args().write
    text = page()
    print(text)
    if write:
        write_page(ROOT / "docs" / "transfer.md", text)


if __name__ == "__main__":
    main()
