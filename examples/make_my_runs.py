"""Write my_runs.csv: SYNTHETIC runs, nobody trained them. Their losses are a built-in law's with made-up noise.

experiments.csv has the same runs as many people keep theirs: other headers, millions and billions, batches in
sequences, and schedules in columns of their own.

python examples/make_my_runs.py
"""

import csv
from itertools import product
from pathlib import Path

import numpy as np

from optlaws import RunTable, load_law, parse

BATCH, DECAY, NOISE = 51_200, 0.1, 0.0007
SEQ_LEN, WARMUP = 1024, 300
COLUMNS = (
    *("run_id", "source", "params", "batch_tokens", "optimizer", "weight_decay"),
    *("schedule", "status", "final_loss", "family"),
)
HEADERS = (
    *("Run name", "Non-emb params (M)", "Tokens (B)", "LR", "Schedule", "Warmup steps", "Decay", "Batch (seqs)"),
    *("seq len", "Optim", "WD", "eval loss", "state"),
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
    with path.with_name("experiments.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(HEADERS)
        for i, (params, steps, peak, family) in enumerate(cases):
            run = [f"synthetic-{i + 1:02d}", params // 1_000_000, f"{steps * BATCH / 1e9:.3f}", peak, family.title()]
            run += [WARMUP, 0.2 if family == "wsd" else "", BATCH // SEQ_LEN, SEQ_LEN, "AdamW", DECAY]
            table.writerow([*run, f"{loss[i]:.4f}", "finished"])


if __name__ == "__main__":
    main(Path(__file__).with_name("my_runs.csv"))
