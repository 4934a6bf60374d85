"""Write my_runs.csv: SYNTHETIC runs, nobody trained them. Their losses are a built-in law's with made-up noise.

python examples/make_my_runs.py
"""

import csv
from itertools import product
from pathlib import Path

import numpy as np

from optlaws import RunTable, load_law, parse

BATCH, DECAY, NOISE = 51_200, 0.1, 0.0007
COLUMNS = (
    *("run_id", "source", "params", "batch_tokens", "optimizer", "weight_decay"),
    *("schedule", "status", "final_loss", "family"),
)
SHAPES = {
    "cosine": "cosine:peak={peak},steps={steps},warmup=300",
    "linear": "linear:peak={peak},steps={steps},warmup=300",
    "wsd": "wsd:peak={peak},steps={steps},warmup=300,decay=0.2",
}


def main(path: Path) -> None:
    """Write 36 runs: two sizes, two lengths, three peak rates, three families."""
    cases = list(product((30_000_000, 110_000_000), (10_000, 20_000), (5e-4, 1e-3, 2e-3), SHAPES))
    specs = [SHAPES[family].format(peak=peak, steps=steps) for _, steps, peak, family in cases]
    runs = RunTable.build(
        [parse(spec) for spec in specs],
        params=[case[0] for case in cases],
        batch_tokens=BATCH,
        optimizer="adamw",
        weight_decay=DECAY,
    )
    loss = load_law("llama-slimpajama").predict(runs).loss
    loss *= 1.0 + NOISE * np.random.default_rng(2026).standard_normal(len(cases))
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(COLUMNS)
        for i, ((params, _, _, family), spec) in enumerate(zip(cases, specs, strict=True)):
            name = f"synthetic-{i + 1:02d}"
            known = [name, "synthetic", params, BATCH, "adamw", DECAY]
            table.writerow([*known, spec, "completed", f"{loss[i]:.4f}", family])


if __name__ == "__main__":
    main(Path(__file__).with_name("my_runs.csv"))
