"""Fit the risk model on the public runs and put it into the built-in laws: python benchmarks/build_risk.py.

One fit to all sources; each law gets the shared numbers and the offset of its own source. Nothing else in the law files
changes. The model is ten numbers and a covariance: no run is stored in any form.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from divergence_runs import load_wide

from optlaws.law.store import write_document
from optlaws.risk import RiskFit, fit_risk, run_labels, usable
from optlaws.runs import RunTable

SOURCES = ("steplaw", "marin", "schaipp", "nqs")  # the tables that say sizes and batches
LAWS = {"steplaw-dense": "steplaw-dense", "llama-slimpajama": "schaipp"}  # law: its source, by its beginning


def public_runs() -> RunTable:
    """Return all public runs by which the risk model is fitted."""
    runs = RunTable.concat([load_wide(name) for name in SOURCES])
    return runs.select(usable(runs))


def build() -> tuple[RiskFit, RunTable]:
    """Fit the risk model on all public runs."""
    runs = public_runs()
    return fit_risk(runs), runs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--laws", type=Path, default=Path(__file__).resolve().parents[1] / "optlaws" / "laws")
    folder = parser.parse_args().laws
    fit, table = build()
    labels = run_labels(table)
    for law, start in LAWS.items():
        source = next(name for name in fit.sources if name.startswith(start))
        model = fit.model(
            source,
            n_runs=len(table),
            n_diverged=int(labels.sum()),
            rows=fit.rows,
            sources=sorted(set(table.source)),
            own_source=source,
            digest=table.digest(),
            rebuild="python benchmarks/build_risk.py",
        )
        path = folder / f"{law}.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        write_document({**document, "risk": model.to_dict()}, path)
        print(f"{law}: offset of {source} {model.mean[-1]:+.3f}, scatter {model.scatter:.4f}, {fit.rows} rows")
