"""Speed of the training harness: python benchmarks/harness.py [--part PART ...] [--toy] [-o FILE].

Parts: large (a 124M model against a plain loop in the manner of nanoGPT, on a GPU), stacked (16 models of 3M parameters
as one program against one after the other, on a GPU), cpu (small stacks on the CPU against one after the other, on two
threads and in two processes), start (a whole process that trains one update). Without --part those that this machine
allows are run. Contenders take turns, and the best of each one's repeats counts, as a shared machine only slows them
down. --toy takes tiny models: a test of the script, its figures mean nothing. Results are printed after each part, as a
table and as a line of JSON, so that a call that is killed has said what it found. -o writes a page; until all parts are
done it is FILE.part. The last line is JSON, of all parts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `optlaws train` does; read when torch is loaded

import numpy as np

try:
    import torch
    from torch import Tensor, nn
except ImportError:
    sys.exit("benchmarks/harness.py needs torch, got an environment without it; pip install 'optlaws[train]'")

from optlaws.harness import TrainConfig, count_parameters, read_config, train, train_stacked
from optlaws.harness.machine import Machine, versions
from optlaws.runs import atomic_write

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("large", "stacked", "cpu", "start")
HOW = ("best ways to use two cores", "CPU time")
TARGETS = {
    "124M, MFU": 0.45,
    "124M, tokens/s over plain loop": 1.0,
    "16 x 3M stacked over in turn, GPU": 5.0,
    **{f"{size}: stacked over in turn, {how}": 1.0 for size in ("0.03M", "0.1M", "0.2M", "0.8M") for how in HOW},
    "one update from nothing, seconds": 10.0,
}
Results = dict[str, dict[str, Any]]


class PlainBlock(nn.Module):  # type: ignore[misc]  # torch is not followed
    """A layer of GPT-2: LayerNorm, fused attention, GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.qkv(self.ln1(x)).chunk(3, dim=-1))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        return x + self.down(nn.functional.gelu(self.up(self.ln2(x))))


class PlainModel(nn.Module):  # type: ignore[misc]  # torch is not followed
    """GPT-2 with learnt positions and a tied output."""

    def __init__(self, vocab: int, width: int, depth: int, heads: int, seq_len: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(seq_len, width)
        self.blocks = nn.ModuleList(PlainBlock(width, heads) for _ in range(depth))
        self.ln, self.head = nn.LayerNorm(width, bias=False), nn.Linear(width, vocab, bias=False)
        self.tokens.weight = self.head.weight
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return nn.functional.cross_entropy(self.head(self.ln(x)).flatten(0, 1), targets.flatten())


def plain_loop(config: TrainConfig, vocab: int, stream: np.ndarray, steps: int) -> float:
    """Return tokens a second of a plain loop: compiled model, fused AdamW, random windows of a memory-mapped stream."""
    machine = Machine.of(config)
    shape: Any = config.model
    with machine.set_up(None):
        model = PlainModel(vocab, shape.width, shape.depth, shape.heads, config.seq_len).to(machine.device)
        run = torch.compile(model) if config.compile else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), fused=True)
        random = np.random.default_rng(0)
        began, timed = 0.0, 0
        for step in range(steps):
            if step == steps // 3:
                machine.wait()
                began = time.perf_counter()
            timed += step >= steps // 3
            starts = random.integers(0, len(stream) - config.seq_len - 1, config.batch)
            rows = np.stack([stream[i : i + config.seq_len + 1].astype(np.int64) for i in starts])
            batch = torch.as_tensor(rows)
            if machine.device.type == "cuda":
                batch = batch.pin_memory().to(machine.device, non_blocking=True)
            with machine.autocast():
                loss = run(batch[:, :-1], batch[:, 1:])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        machine.wait()
    return timed * config.batch_tokens / (time.perf_counter() - began)


def large_run(toy: bool, folder: str, steps: int, **model: Any) -> tuple[TrainConfig, int, np.ndarray]:
    """Return a run of a 124M model on random tokens in a folder, the vocabulary, and the tokens."""
    width, depth, vocab, seq_len, batch = (64, 2, 512, 64, 8) if toy else (768, 12, 50304, 1024, 32)
    path = Path(folder) / "tokens.bin"
    if not path.exists():
        made = np.random.default_rng(0).integers(0, vocab, 200 * batch * seq_len // 10, dtype=np.uint16)
        made.tofile(path)
    config = read_config(
        {
            "name": "large",
            "model": {"depth": depth, "width": width, "heads": width // 64, "hidden": width * 8 // 3, **model},
            "data": {"kind": "tokens", "train": str(path), "vocab": vocab, "val_fraction": 0.1},
            "seq_len": seq_len,
            "batch": batch,
            "schedule": f"constant:peak=3e-4,steps={steps}",
            "eval": {"sequences": batch},
            "optimizer": {"weight_decay": 0.1},
            "compile": not toy,
        }
    )
    return config, vocab, np.memmap(path, dtype=np.uint16, mode="r")


def large(toy: bool, repeat: int) -> Results:
    """Compare a 124M model with the plain loop."""
    steps = 12 if toy else 96
    with tempfile.TemporaryDirectory() as folder:
        config, vocab, stream = large_run(toy, folder, steps)
        plain, rates = [], []
        for _ in range(repeat):
            plain.append(plain_loop(config, vocab, stream, steps))
            rates.append(float(train(config).runs.extra["tokens_per_second"][0] or "nan"))
    counts = count_parameters(config.model, vocab, config.seq_len)
    peak = Machine.of(config).peak_flops
    return {
        "124M, parameters": fact(counts.total),
        "124M, tokens/s": fact(max(rates), rates),
        "124M, tokens/s of the plain loop": fact(max(plain), plain),
        "124M, MFU": fact(max(rates) * counts.flops / peak if peak else None),
        "124M, tokens/s over plain loop": fact(max(rates) / max(plain)),
    }


def family(count: int, width: int, depth: int, vocab: int, seq_len: int, batch: int, steps: int, **more: Any) -> Any:
    """Return runs that differ in their peak rates."""
    return [
        read_config(
            {
                "name": f"r{i}",
                "model": {"depth": depth, "width": width},
                "data": {"vocab": vocab},
                "seq_len": seq_len,
                "batch": batch,
                "schedule": f"wsd:peak={1e-4 * 1.3**i:.6g},steps={steps},warmup={max(1, steps // 10)}",
                "eval": {"sequences": batch},
                "optimizer": {"weight_decay": 0.1},
                **more,
            }
        )
        for i in range(count)
    ]


def rate_of(records: list[Any]) -> float:
    """Return tokens a second of training alone, by the records of a stack or of runs one after the other.

    Without set-up, data of the first updates, compiling and evaluations, which whole calls have over and over. The
    rate in the records of a stack is that of all its runs together.
    """
    rates = [float(record.runs.extra["tokens_per_second"][0] or "nan") for record in records]
    if records[0].runs.extra["stacked"][0]:
        return rates[0]
    tokens = [float(record.runs.tokens[0]) for record in records]
    return sum(tokens) / sum(count / rate for count, rate in zip(tokens, rates, strict=True))


def compare(runs: list[TrainConfig], at_once: int | None, repeat: int, title: str) -> Results:
    """Time a stack against one of its runs after the other; the differences of the losses are part of the result."""
    tokens = sum(run.steps * run.batch_tokens for run in runs)
    whole: dict[str, list[float]] = {"stacked": [], "in turn": []}
    alone: dict[str, list[float]] = {"stacked": [], "in turn": []}
    train(runs[0])
    train_stacked(runs, at_once=at_once)  # what is done once, such as compiling, is not measured
    for _ in range(repeat):
        began = time.perf_counter()
        together = train_stacked(runs, at_once=at_once)
        whole["stacked"].append(tokens / (time.perf_counter() - began))
        alone["stacked"].append(rate_of(together))
        began = time.perf_counter()
        records = [train(run) for run in runs]
        whole["in turn"].append(tokens / (time.perf_counter() - began))
        alone["in turn"].append(rate_of(records))
    apart = [float(np.abs(a.curve.loss - b.curve.loss).max()) for a, b in zip(together, records, strict=True)]
    return {
        f"{title}, parameters each": fact(together[0].runs.params[0]),
        **{f"{title}, tokens/s {way}": fact(max(rates), rates) for way, rates in alone.items()},
        **{f"{title}, tokens/s {way}, whole calls": fact(max(rates), rates) for way, rates in whole.items()},
        f"{title}, largest difference of a loss": fact(max(apart)),
    }


def stacked(toy: bool, repeat: int) -> Results:
    """Compare 16 models of 3M parameters on a GPU."""
    shape = (4, 32, 2, 64, 16, 4, 6) if toy else (16, 256, 4, 512, 256, 16, 160)
    found: Results = {}
    for compiled in (False,) if toy else (False, True):
        way = "compiled" if compiled else "eager"
        found |= compare(family(*shape, compile=compiled), None, repeat, f"16 x 3M, {way}")
    for what in ("", ", whole calls"):
        best = {
            way: max(row["value"] for name, row in found.items() if name.endswith(f"tokens/s {way}{what}"))
            for way in ("stacked", "in turn")
        }
        found[f"16 x 3M stacked over in turn, GPU{what}"] = fact(best["stacked"] / best["in turn"])
    return found


CPU_SHAPES = {  # runs, width, depth, vocabulary, tokens a sequence, sequences a batch, updates
    "0.03M": (8, 32, 3, 64, 32, 16, 50),
    "0.1M": (8, 64, 2, 64, 32, 16, 30),
    "0.2M": (8, 96, 2, 256, 64, 8, 20),
    "0.8M": (4, 128, 4, 512, 64, 8, 10),
}
CORES = 2


def _train_here(texts: list[str], stack: bool, threads: int) -> tuple[float, list[list[float]]]:
    """Train runs in this process, stacked or in turn; return the CPU time that it took, and the losses."""
    runs = [read_config(json.loads(text)).with_(threads=threads) for text in texts]
    began = time.process_time()
    records = train_stacked(runs) if stack else [train(run) for run in runs]
    return time.process_time() - began, [record.curve.loss.tolist() for record in records]


def cpu(toy: bool, repeat: int) -> Results:
    """Compare small stacks with one run after the other: two threads each, in two processes of one, by CPU time."""
    found: Results = {}
    with ProcessPoolExecutor(CORES, mp_context=multiprocessing.get_context("spawn")) as pool:
        for title, shape in CPU_SHAPES.items():
            runs = family(*((4, 16, 1, 32, 8, 4, 10) if toy else shape), device="cpu")
            texts = [json.dumps(run.to_dict()) for run in runs]
            tokens = sum(run.steps * run.batch_tokens for run in runs)
            wall: dict[str, list[float]] = {}
            work: dict[str, list[float]] = {"stacked": [], "in turn": []}
            losses: dict[str, list[list[float]]] = {}
            for i in range(repeat + 1):  # the first time is a warm-up
                for way in work:
                    times = [time.perf_counter()]
                    _train_here(texts, way == "stacked", CORES)
                    times.append(time.perf_counter())
                    parts = [pool.submit(_train_here, texts[k::CORES], way == "stacked", 1) for k in range(CORES)]
                    for part in parts:
                        part.result()
                    times.append(time.perf_counter())
                    spent, losses[way] = pool.submit(_train_here, texts, way == "stacked", 1).result()
                    if i:
                        work[way].append(tokens / spent)
                        for name, seconds in zip(("two threads", "two processes"), np.diff(times), strict=True):
                            wall.setdefault(f"{way}, {name}", []).append(tokens / float(seconds))
            apart = float(np.abs(np.subtract(losses["stacked"], losses["in turn"])).max())
            found[f"{title}: parameters each, {len(runs)} runs"] = fact(
                count_parameters(runs[0].model, 0, runs[0].seq_len).params
            )
            found |= {f"{title}: tokens/s {way}": fact(max(row), row) for way, row in wall.items()}
            found |= {f"{title}: tokens a CPU second {way}": fact(max(row), row) for way, row in work.items()}
            found[f"{title}: largest difference of a loss"] = fact(apart)
            best = {way: max(max(row) for name, row in wall.items() if name.startswith(way)) for way in work}
            ratios = best["stacked"] / best["in turn"], max(work["stacked"]) / max(work["in turn"])
            found |= {f"{title}: stacked over in turn, {how}": fact(r) for how, r in zip(HOW, ratios, strict=True)}
    return found


def start(toy: bool, repeat: int) -> Results:
    """Time whole processes that train one update on the CPU."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.json"
        run = family(1, 64, 2, 256, 64, 8, 1, device="cpu")[0]
        path.write_text(json.dumps(run.to_dict()), encoding="utf-8")
        for i in range(repeat + 1):
            command = [sys.executable, "-m", "optlaws", "train", str(path), "--out", f"{folder}/{i}"]
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
            seconds.append(time.perf_counter() - began)
    return {"one update from nothing, seconds": fact(min(seconds[1:]), seconds[1:])}


def fact(value: float | None, values: list[float] | None = None) -> dict[str, Any]:
    """Return a result with its range."""
    return {"value": value, "low": min(values), "high": max(values)} if values else {"value": value}


def verdict(name: str, row: dict[str, Any]) -> str:
    """Return the target and whether it was reached."""
    if name not in TARGETS or row["value"] is None:
        return ""
    seconds = "seconds" in name
    reached = row["value"] <= TARGETS[name] if seconds else row["value"] >= TARGETS[name]
    return f"{'at most' if seconds else 'at least'} {TARGETS[name]:g} {'reached' if reached else '**missed**'}"


def table(results: Results, toy: bool, whole: bool = True) -> str:
    """Return the results as Markdown, with what is not known here if they are the whole."""
    lines = ["| what | best (range) | target |", "| --- | --- | --- |"]
    for name, row in results.items():
        value = "unknown" if row["value"] is None else f"{row['value']:.4g}"
        spread = f" ({row['low']:.4g} to {row['high']:.4g})" if "low" in row else ""
        lines.append(f"| {name} | {value}{spread} | {'' if toy else verdict(name, row)} |")
    if whole and not torch.cuda.is_available():
        command = "no CUDA device here: to be run with `python benchmarks/harness.py` on one"
        names = [name for name in TARGETS if name not in results and ("124M" in name or "GPU" in name)]
        lines += [f"| {name} | {command} | at least {TARGETS[name]:g} |" for name in names]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    note = f"{device}, {os.cpu_count()} CPU cores{load}, {versions()}."
    return "\n".join([*lines, "", note + (" **Toy sizes: these figures mean nothing.**" if toy else "")]) + "\n"


PAGE = """# Speed of the training harness

Written by `python benchmarks/harness.py -o docs/harness.md`. Stacked means that runs train as one batched program, in
turn that they train one after the other; either of them on two threads, or shared out to two processes of one thread.
Contenders take turns and the best of the repeats counts. Whole calls are timed, set-up and the last evaluation
included; on a GPU, where runs are short, beside them training alone, by the runs' own records.
On a machine that others use the clock says little; the time that one thread computes says more ("CPU time").
As in `optlaws train` and `optlaws sweep`, threads that wait sleep (OMP_WAIT_POLICY=PASSIVE): spinning ones hold up
everybody else. "One update from nothing" is a whole process, from command to run record.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="part to run; may be given again")
    parser.add_argument("--toy", action="store_true", help="tiny models: a test of the script")
    parser.add_argument("--repeat", type=int, default=3, help="repeats of each contender (3)")
    parser.add_argument("-o", "--output", type=Path, help="page to write")
    given = parser.parse_args()
    if given.output and given.output.exists() and (given.part or given.toy):
        parser.error(
            f"-o must name a new file with --part or --toy, got {str(given.output)!r}, which may be a whole page"
        )
    possible = PARTS if torch.cuda.is_available() or given.toy else ("cpu", "start")
    work: dict[str, Callable[[bool, int], Results]] = {"large": large, "stacked": stacked, "cpu": cpu, "start": start}
    results: Results = {}
    so_far = given.output.with_name(f"{given.output.name}.part") if given.output else None
    for part in given.part or possible:
        found = work[part](given.toy, given.repeat)
        results |= found
        print(f"{table(found, given.toy, whole=False)}\n{json.dumps({'part': part, **found})}", flush=True)
        if so_far:
            with atomic_write(so_far) as stream:
                stream.write(PAGE + table(results, given.toy))
    if so_far:
        os.replace(so_far, given.output)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
