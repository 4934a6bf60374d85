"""The configuration of one training run: model, data, optimizer, schedule and how it is run. Loads no torch.

A configuration is a YAML or JSON file, a mapping, or a `TrainConfig`; it round-trips through `TrainConfig.to_dict`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from optlaws.errors import InputError, nearest
from optlaws.harness._fields import flag, plain, read_section, setting, text, unknown, whole, word, wrong
from optlaws.harness.sections import (
    DATA,
    MODELS,
    MOST_SEED,
    SECTIONS,
    CheckpointConfig,
    CorpusData,
    DivergenceConfig,
    EvalConfig,
    HubData,
    MLPConfig,
    NoiseData,
    OptimizerConfig,
    QuadraticConfig,
    SyntheticData,
    TokenData,
    TransformerConfig,
)
from optlaws.runs._files import read_text
from optlaws.runs._yaml import load_yaml
from optlaws.schedules import Schedule, parse

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")
MAX_NAME = 120


_LENGTHS = ("steps", "tokens")
NOT_THE_RUN = ("name", "device", "compile", "threads", "parallel", "checkpoint", "log_every")
"""Settings that change nothing about what is learnt; two runs that differ in these alone are the same run."""
MAY_DIFFER = ("schedule", "optimizer.weight_decay", "seed", "data_seed")
"""What may differ among the runs of a stack, beside their names."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that one training run needs to know.

    Attributes
    ----------
    model, data, optimizer, eval, checkpoint, divergence
        The sections above.
    schedule
        One rate for each of the T updates.

    The others say themselves what they are; `optlaws train --keys` prints them.

    Raises
    ------
    InputError
        Settings do not go together: data and model, micro_batch and batch, a name that is none, or a rate too high for
        adafactor. The ranges of single settings are checked by `read_config`.
    """

    model: TransformerConfig | MLPConfig | QuadraticConfig
    data: SyntheticData | CorpusData | TokenData | HubData | NoiseData
    schedule: Schedule
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    divergence: DivergenceConfig = field(default_factory=DivergenceConfig)
    name: str | None = setting(text(optional=True), None, "the run's run_id and folder; null: made from the settings")
    seq_len: int = setting(whole(1), 128, "tokens a sequence; 1, also by default, for a quadratic model")
    batch: int = setting(whole(1), 16, "sequences an update")
    micro_batch: int | None = setting(
        whole(1, optional=True), None, "sequences at once, a divisor of batch, gradients added up; null: all"
    )
    seed: int = setting(whole(0, MOST_SEED), 0, "seed of the first parameters")
    data_seed: int | None = setting(
        whole(0, MOST_SEED, optional=True), None, "seed of the order of the data; null: that of the parameters"
    )
    log_every: int = setting(whole(1), 1, "updates from one row of the curve to the next")
    device: str = setting(text(), "auto", "cpu, cuda or cuda:N; auto: CUDA where there is one")
    dtype: str = setting(
        word("auto", "float32", "bfloat16"),
        "auto",
        "numbers of the model; auto: bfloat16 for a run that begins on CUDA, else float32",
    )
    compile: bool = setting(flag, False, "whether to use torch.compile")
    threads: int | None = setting(whole(1, 1024, optional=True), None, "threads of the CPU; null: as torch chooses")
    parallel: str = setting(
        word("ddp", "fsdp"),
        "ddp",
        "under torchrun: the whole model in each process, or parameters, gradients and optimizer shared out",
    )

    def __post_init__(self) -> None:
        """Check what several settings say together."""
        noise = isinstance(self.data, NoiseData)
        if isinstance(self.model, QuadraticConfig) != noise:
            rule = "noise for a quadratic model, and a kind of text for the others"
            raise wrong("data.kind", rule, self.data.kind, "change data or model")
        if noise and self.seq_len != 1:
            raise wrong("seq_len", "1 for a quadratic model, whose samples count as tokens", self.seq_len)
        if self.micro_batch is not None and self.batch % self.micro_batch:
            rule = f"a divisor of batch, {self.batch}"
            raise wrong("micro_batch", rule, self.micro_batch, "change one of them")
        if self.name is not None and (not _NAME.fullmatch(self.name) or len(self.name) > MAX_NAME):
            rule = f"at most {MAX_NAME} letters, digits and . _ = + -, the first a letter or digit"
            raise wrong("name", rule, self.name, "choose another one; it names a folder and a row of a table")
        if self.optimizer.name == "adafactor":  # torch's lowers higher rates without a word (arXiv 1804.04235, table 2)
            rates = self.schedule.array()
            above = np.flatnonzero(rates > np.arange(1, len(rates) + 1) ** -0.5)
            if len(above):
                k = int(above[0])
                rule = f"at most 1 / sqrt(update) with adafactor, {(k + 1) ** -0.5:.3g} at update {k + 1}"
                got = float(f"{rates[k]:.3g}")
                raise wrong("the rate of schedule", rule, got, "lower it or take another optimizer")

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.name or f"run-{self.digest()[:12]}"

    @property
    def steps(self) -> int:
        """Updates T."""
        return self.schedule.total_steps

    @property
    def batch_tokens(self) -> int:
        """Tokens an update."""
        return self.batch * self.seq_len

    @property
    def order(self) -> int:
        """Seed of the order of the data."""
        return self.seed if self.data_seed is None else self.data_seed

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON knows it, defaults filled in; `read_config` reads it back."""
        out: dict[str, Any] = {"name": self.name, "model": plain(self.model), "data": plain(self.data)}
        out["schedule"] = self.schedule.to_dict()
        out |= {name: plain(getattr(self, name)) for name in SECTIONS}
        return out | {name: getattr(self, name) for name in _SINGLE if name != "name"}

    def digest(self, *without: str) -> str:
        """Return the sha256 of all settings that change what is learnt, 64 hexadecimal digits.

        Settings count as they are written: with `dtype: auto` a run has one digest on every device, though it is
        trained in bfloat16 on one and in float32 on another, and differs by as much as by rounding (its record says in
        which, `dtype`). Write the format out where runs of different devices are to be compared closely.

        Parameters
        ----------
        *without
            Further settings to leave out, such as "schedule" or "optimizer.weight_decay".

        Raises
        ------
        KeyError
            There is no such setting.
        """
        content = {key: value for key, value in self.to_dict().items() if key not in NOT_THE_RUN}
        content["data_seed"] = self.order
        for name in without:
            section, _, key = name.partition(".")
            if key:
                content[section].pop(key)
            else:
                content.pop(section)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def any_micro_batch(self) -> bool:
        """Whether the size of micro-batches changes nothing but rounding."""
        model = self.model
        balanced = isinstance(model, TransformerConfig) and model.experts and model.balance
        return not balanced and not isinstance(model, QuadraticConfig)

    def goes_on_from(self, digest: str) -> bool:
        """Return whether a digest is that of this run, cut into micro-batches of any size.

        Their size is in the digest, but it changes nothing but rounding, unless experts are balanced in each of them or
        each has noise of its own.
        """
        if digest == self.digest():
            return True
        if not self.any_micro_batch:
            return False
        low = [size for size in range(1, math.isqrt(self.batch) + 1) if self.batch % size == 0]
        sizes = {None, *low, *(self.batch // size for size in low)}
        return any(digest == self.with_(micro_batch=size).digest() for size in sizes)

    def with_(self, **changes: Any) -> TrainConfig:
        """Return the configuration with some attributes replaced, checked together as in the class."""
        return replace(self, **changes)


_SINGLE: dict[str, Any] = {f.name: f.metadata["check"] for f in fields(TrainConfig) if "check" in f.metadata}
KEYS = ("name", "model", "data", "schedule", *_LENGTHS, *SECTIONS, *[key for key in _SINGLE if key != "name"])


def stack_digest(runs: Sequence[TrainConfig]) -> str:
    """Return the sha256 of a stack: of its runs and their order, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps([(run.run_id, run.digest()) for run in runs]).encode()).hexdigest()


def stack_folder(runs: Sequence[TrainConfig]) -> str:
    """Return the name of the folder in which a stack keeps its checkpoints."""
    return f"stack-{stack_digest(runs)[:12]}"


def read_config(source: TrainConfig | Mapping[str, Any] | str | os.PathLike[str]) -> TrainConfig:
    """Read a configuration from a YAML or JSON file ("-" is standard input), or from a mapping.

    Parameters
    ----------
    source
        The file, the mapping, or a `TrainConfig`, which is returned as it is.

    Raises
    ------
    InputError
        If the file cannot be read, or a setting is unknown, missing, out of range or at odds with another.
    """
    if isinstance(source, TrainConfig):
        return source
    if not isinstance(source, Mapping):
        content, where = read_text(source)
        source = load_yaml(content, where)  # JSON is YAML
        if not isinstance(source, Mapping):
            raise wrong(where, "a mapping of setting to value", source, "begin with 'model:'")
    for key in source:
        if key not in KEYS:
            raise unknown("configuration", key, KEYS)
    if source.get("schedule") in (None, ""):
        raise InputError("schedule must be given, got nothing; add schedule: cosine:peak=1e-3,warmup=100")
    model = _by_kind(MODELS, source.get("model", {}), "model", "transformer")
    usual = "noise" if isinstance(model, QuadraticConfig) else "synthetic"
    values: dict[str, Any] = {"model": model, "data": _by_kind(DATA, source.get("data", {}), "data", usual)}
    for name, cls in SECTIONS.items():
        given = source.get(name, {})
        if name == "optimizer" and isinstance(given, str):
            given = {"name": given}
        values[name] = read_section(cls, given, name)
    values |= {name: check(name, source[name]) for name, check in _SINGLE.items() if name in source}
    if isinstance(values["model"], QuadraticConfig):
        values.setdefault("seq_len", 1)
    draft = TrainConfig(schedule=parse("constant:peak=1,steps=1"), **values)
    return draft.with_(schedule=_schedule(source, draft.batch_tokens))


def _by_kind(kinds: Mapping[str, Any], given: Any, where: str, default: str) -> Any:
    if not isinstance(given, Mapping):
        raise wrong(where, "a mapping of setting to value", given)
    kind = given.get("kind", default)
    if not isinstance(kind, str) or kind not in kinds:
        hint = nearest(str(kind), kinds)
        raise wrong(f"{where}.kind", f"one of {', '.join(kinds)}", kind, f"choose one of them{hint}")
    return read_section(kinds[kind], given, where)


def _schedule(source: Mapping[str, Any], batch_tokens: int) -> Schedule:
    """Return the schedule; its length may come from `steps` or `tokens` beside it."""
    spec = source["schedule"]
    wanted = [name for name in _LENGTHS if source.get(name) is not None]
    if len(wanted) == 2:
        raise InputError("steps and tokens must not both be given, as one follows from the other; drop one of them")
    steps = None
    if wanted:
        count = whole(1)(wanted[0], source[wanted[0]])
        steps = count if wanted[0] == "steps" else max(1, round(count / batch_tokens))
        if isinstance(spec, str) and not spec.lstrip().startswith("{") and not re.search(r"\bsteps\s*=", spec):
            if " then " in spec:
                raise InputError(
                    "steps must stand in every part of a chained schedule, got none; write steps=... there"
                )
            spec = f"{spec}{',' if ':' in spec else ':'}steps={steps}"
        elif isinstance(spec, Mapping) and not {"steps", "total_steps", "parts", "values"} & set(spec):
            spec = {**spec, "steps": steps}
    schedule = parse(spec)
    if steps is not None and schedule.total_steps != steps:
        raise InputError(
            f"{wanted[0]} must fit the schedule, which has {schedule.total_steps} steps of {batch_tokens} tokens, got "
            f"{source[wanted[0]]!r}; leave one of them out"
        )
    return schedule
