"""Optimizers of torch and of pytorch_optimizer under one schedule.

A `RatedOptimizer` steps the parameters of one model, or of R models at once, each with a rate of its own. The rate that
it is given is the rate that the update uses, to the last bit; factors on it exist only under muP.
"""

from __future__ import annotations

import inspect
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from io import BytesIO
from typing import Any

import torch
from torch import Tensor, nn

from optlaws.errors import InputError, nearest
from optlaws.harness.checkpoint import pack, unpack
from optlaws.harness.sections import OptimizerConfig

TORCH = ("sgd", "adam", "adamw", "adafactor", "muon")
ELEMENTWISE = frozenset({"sgd", "adam", "adamw", "lion", "adabelief", "nadam", "radam", "adan", "ademamix", "signsgd"})
"""Optimizers that treat every number alike, so that the parameters of a model may be given to them as one vector."""

FUSED = frozenset({"adam", "adamw", "sgd"})
"""Optimizers of which torch has a version that is one program on the device."""

ON_SHARDS = ELEMENTWISE | {"muon"}
"""Optimizers that may be given pieces of parameters; Muon puts each matrix together for its update."""

LIBRARY = (
    "adabelief", "adan", "ademamix", "adopt", "lamb", "lion", "nadam", "radam", "shampoo", "signsgd", "soap",
    "stableadamw", "tiger",
)  # fmt: skip
"""Optimizers of the library that the tests train with; others of it may be named too."""

BETAS: dict[str, tuple[float, float | None]] = {
    "sgd": (0.9, None),
    "adam": (0.9, 0.95),
    "adamw": (0.9, 0.95),
    "muon": (0.95, None),
    "lion": (0.9, 0.99),
    "soap": (0.95, 0.95),
}
"""Averaging factors unless given: (beta1, beta2); optimizers that are not listed keep those of their authors."""


@dataclass(frozen=True)
class Slot:
    """A tensor to be updated, of one member of a stack (0 for a single model).

    Attributes
    ----------
    tensor
        The parameter; its `.grad` holds the gradient.
    member
        Whose it is: which rate it takes.
    factor
        Factor on the rate.
    decays
        Whether weight decay acts on it.
    matrix
        Whether it is a hidden matrix, or one of each expert (E, rows, columns), which Muon orthogonalises one by one.
    """

    tensor: nn.Parameter
    member: int = 0
    factor: float = 1.0
    decays: bool = True
    matrix: bool = False


@dataclass(frozen=True)
class _Rated:
    """One parameter group of a torch optimizer and where its rate comes from."""

    group: dict[str, Any]
    member: int
    factor: float
    decay: float  # applied here; 0 where the optimizer does it or nothing decays


class RatedOptimizer:
    """An optimizer whose learning rate is set before every update."""

    def __init__(
        self,
        config: OptimizerConfig,
        slots: Sequence[Slot],
        decays: Sequence[float] | None = None,
        *,
        sharded: bool = False,
    ) -> None:
        """Make the optimizer.

        Parameters
        ----------
        config
            Name and settings.
        slots
            What to update.
        decays
            Weight decay of each member; that of the configuration unless given.
        sharded
            Whether the tensors are pieces of parameters (distributed tensors).

        Raises
        ------
        InputError
            If the optimizer is not known, its library is missing, it does not take a setting, or Muon were to put
            pieces of experts together.
        """
        self.config = config
        self._experts: list[tuple[nn.Parameter, nn.Parameter, int]] = []  # one expert's matrix, all of them, which one
        self._decays = [config.weight_decay] if decays is None else list(decays)
        self._rates = [0.0] * len(self._decays)
        self._sharded = sharded
        muon = config.name == "muon"
        main = [slot for slot in slots if slot.matrix] if muon else list(slots)
        rest = [slot for slot in slots if not slot.matrix] if muon else []
        if muon:
            main = [one for slot in main for one in self._single_matrices(slot)]
        self._parts: list[torch.optim.Optimizer] = []
        self._rated: list[_Rated] = []
        if main:
            self._add(config, main)
        if rest:  # what Muon does not treat is AdamW's, at the same rate
            self._add(OptimizerConfig("adamw", weight_decay=config.weight_decay), rest)

    def _single_matrices(self, slot: Slot) -> list[Slot]:
        """Return a slot of a matrix as it is, and one slot an expert of those of experts (E, rows, columns)."""
        if slot.tensor.ndim == 2:
            return [slot]
        if self._sharded:
            raise InputError("parallel: must be ddp for muon on experts, got fsdp; change it or the optimizer")
        ones = [nn.Parameter(matrix) for matrix in slot.tensor.detach()]
        self._experts += [(one, slot.tensor, place) for place, one in enumerate(ones)]
        return [replace(slot, tensor=one) for one in ones]

    def _bind_experts(self) -> None:
        """Let the matrices of experts be views of their parameter and its gradient, which may have moved."""
        for one, owner, place in self._experts:
            one.data = owner.data[place]
            one.grad = None if owner.grad is None else owner.grad[place]

    def _add(self, config: OptimizerConfig, slots: Sequence[Slot]) -> None:
        kinds: dict[tuple[int, float, bool], list[nn.Parameter]] = {}
        for slot in slots:
            kinds.setdefault((slot.member, slot.factor, slot.decays), []).append(slot.tensor)
        groups = [{"params": tensors} for tensors in kinds.values()]
        fused = config.name in FUSED and not (config.name == "sgd" and self._sharded)
        part = make_optimizer(config, groups, slots[0].tensor.device, fused=fused)
        native = config.name == "adamw"  # fused with the update; the same product as below
        for (member, factor, decays), group in zip(kinds, part.param_groups, strict=True):
            decay = self._decays[member] if decays else 0.0
            if native:
                group["weight_decay"] = decay
            self._rated.append(_Rated(group, member, factor, 0.0 if native else decay))
        self._parts.append(part)

    def set_rates(self, rates: Sequence[float]) -> None:
        """Set the rate of each member for the next update."""
        self._rates = list(rates)
        for rated in self._rated:
            rated.group["lr"] = rates[rated.member] * rated.factor if rated.factor != 1.0 else rates[rated.member]

    def applied(self, member: int = 0) -> float:
        """Return the rate that the next update uses, read from the optimizer where a group has it without a factor."""
        for rated in self._rated:
            if rated.member == member and rated.factor == 1.0:
                return float(rated.group["lr"])
        return self._rates[member]

    def step(self) -> None:
        """Decay the weights and make one update."""
        self._bind_experts()
        with torch.no_grad():
            for rated in self._rated:
                if rated.decay and rated.group["lr"]:
                    torch._foreach_mul_(rated.group["params"], 1.0 - rated.group["lr"] * rated.decay)
        for part in self._parts:
            part.step()

    def drop(self, kept: Sequence[int]) -> None:
        """Forget all members but those kept, and number these from 0."""
        new = {old: place for place, old in enumerate(kept)}
        self._decays = [self._decays[old] for old in kept]
        self._rates = [self._rates[old] for old in kept]
        gone = [rated for rated in self._rated if rated.member not in new]
        for part in self._parts:
            for rated in gone:
                for tensor in rated.group["params"]:
                    part.state.pop(tensor, None)
            dropped = {id(rated.group) for rated in gone}
            part.param_groups[:] = [group for group in part.param_groups if id(group) not in dropped]
        self._rated = [
            _Rated(rated.group, new[rated.member], rated.factor, rated.decay)
            for rated in self._rated
            if rated.member in new
        ]
        left = {id(tensor) for rated in self._rated for tensor in rated.group["params"]}
        self._experts = [entry for entry in self._experts if id(entry[0]) in left]

    def state(self) -> list[dict[str, Any]]:
        """Return the state as tensors and plain values, to be kept in a checkpoint."""
        return [part.state_dict() for part in self._parts]

    def load(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Take up a state again."""
        for part, state in zip(self._parts, states, strict=True):
            owners = dict(enumerate(tensor for group in part.param_groups for tensor in group["params"]))
            pieces = {
                place: {key: piece_like(value, owners[place]) for key, value in entries.items()}
                for place, entries in state["state"].items()
            }
            part.load_state_dict({**state, "state": pieces})
        self._rated = [
            _Rated(group, rated.member, rated.factor, rated.decay)
            for group, rated in zip(
                (group for part in self._parts for group in part.param_groups), self._rated, strict=True
            )
        ]


def check_optimizer(config: OptimizerConfig) -> None:
    """Raise an `InputError` unless the optimizer can train tensors of a model's shapes and be taken up again.

    It must be known, its library there, its settings those that it takes, and its state what a checkpoint can hold.
    """
    with torch.random.fork_rng(devices=[]):
        slots, others = _trial_slots(), _trial_slots()
        optimizer = RatedOptimizer(config, slots)
        try:  # most optimizers look at the kinds of their settings, and at shapes, only here
            for _ in range(2):
                _trial_step(optimizer, slots)
        except Exception as bad:  # those of the library raise errors of many kinds: some need the model, or a closure
            raise InputError(
                f"optimizer {config.name}: cannot step ({_reason(bad)}); correct optimizer.settings, or choose another"
            ) from None
        try:
            stream = BytesIO()
            pack(optimizer.state(), stream)
            stream.seek(0)
            again = RatedOptimizer(config, others)
            again.load(unpack(stream))
            _trial_step(again, others)
        except Exception as bad:
            refused = isinstance(bad, pickle.UnpicklingError)
            reason = "it holds more than tensors and plain values" if refused else _reason(bad)
            raise InputError(
                f"optimizer {config.name}: a checkpoint of its state cannot be read back ({reason}); choose another"
            ) from None


def _trial_slots() -> list[Slot]:
    """Return tensors of the kinds that models have: an embedding, matrices of all proportions, a gain."""
    shapes = (12, 8), (8, 8), (16, 8), (8, 16), (8,)
    waves = [torch.arange(1.0, 1 + math.prod(shape)).sin().view(shape) for shape in shapes]
    return [Slot(nn.Parameter(wave), matrix=i > 0 and wave.ndim == 2) for i, wave in enumerate(waves)]


def _trial_step(optimizer: RatedOptimizer, slots: Sequence[Slot]) -> None:
    for slot in slots:
        slot.tensor.grad = slot.tensor.detach().cos()
    optimizer.set_rates([1e-3])
    optimizer.step()


def _reason(bad: Exception) -> str:
    """Return the first line of what another library says."""
    return f"{(str(bad).splitlines() or [type(bad).__name__])[0]:.160}"


def betas_of(config: OptimizerConfig) -> tuple[float | None, float | None]:
    """Return beta1 and beta2 as used; None where the optimizer has none or keeps its authors'."""
    beta1, beta2 = BETAS.get(config.name, (None, None))
    return (
        beta1 if config.beta1 is None else config.beta1,
        beta2 if config.beta2 is None else config.beta2,
    )


def make_optimizer(
    config: OptimizerConfig, groups: list[dict[str, Any]], device: torch.device, *, fused: bool = False
) -> torch.optim.Optimizer:
    """Return the optimizer at rate 0 over parameter groups, without any weight decay of its own.

    Raises
    ------
    InputError
        As for `RatedOptimizer`.
    """
    beta1, beta2 = betas_of(config)
    cls, given = _class_of(config)
    takes = inspect.signature(cls).parameters
    if config.name in ("sgd", "muon"):
        given["momentum"] = beta1
    elif "betas" in takes and (beta1 is not None or beta2 is not None):
        usual = takes["betas"].default
        given["betas"] = (
            usual[0] if beta1 is None else beta1,
            usual[1] if beta2 is None else beta2,
            *usual[2:],
        )
    elif config.beta1 is not None or config.beta2 is not None:
        raise InputError(f"optimizer.beta1 and beta2 must be left out for {config.name}, which has none; drop them")
    if config.name in ("sgd", "muon") and config.beta2 is not None:
        raise InputError(f"optimizer.beta2 must be left out for {config.name}, which has one momentum, beta1; drop it")
    if config.eps is not None:
        if "eps" not in takes or config.name == "adafactor":
            raise InputError(f"optimizer.eps must be left out for {config.name}, which has none; drop it")
        given["eps"] = config.eps
    if fused and device.type in ("cpu", "cuda"):
        given["fused"] = True
    extra = dict(config.settings)
    for key in extra:
        if key not in takes or key in ("params", "lr", "weight_decay", "betas", "momentum"):
            hint = nearest(key, takes)
            raise InputError(f"optimizer.settings: {config.name} takes no {key!r}; drop it or correct it{hint}")
    usual_rate = takes["lr"].default if "lr" in takes else inspect.Parameter.empty
    rate = usual_rate if isinstance(usual_rate, float) else 1e-3  # some divide by it when they are made
    try:
        made = cls(groups, lr=rate, **{"weight_decay": 0.0, **given, **extra})
    except Exception as bad:  # as in `check_optimizer`
        raise InputError(
            f"optimizer {config.name}: cannot be made ({_reason(bad)}); correct optimizer.settings, or choose another"
        ) from None
    for group in made.param_groups:
        group["lr"] = 0.0
    return made


def _class_of(config: OptimizerConfig) -> tuple[Any, dict[str, Any]]:
    """Return the class of an optimizer and the settings that this package always gives it."""
    name = config.name
    if name in TORCH:
        found = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "adafactor": "Adafactor", "muon": "Muon"}[name]
        cls = getattr(torch.optim, found, None)
        if cls is None:
            raise InputError(f"optimizer {name} needs a newer torch than {torch.__version__}; choose another one")
        return cls, {"adjust_lr_fn": "match_rms_adamw"} if name == "muon" else {}
    try:
        library = import_module("pytorch_optimizer")
    except ImportError:
        hint = nearest(name, (*TORCH, *LIBRARY))
        raise InputError(
            f"optimizer must be one of {', '.join(TORCH)} unless the library pytorch_optimizer is installed, got "
            f"{name!r}; choose one of them or install it (pip install pytorch_optimizer){hint}"
        ) from None
    known = library.get_supported_optimizers()
    if name not in known:
        hint = nearest(name, (*TORCH, *known))
        raise InputError(
            f"optimizer must be one of {', '.join(TORCH)}, or of the library pytorch_optimizer ({', '.join(LIBRARY)} "
            f"and others), got {name!r}; choose one of them{hint}"
        )
    return library.load_optimizer(name), {}


def whole(value: Any, keep: bool) -> Any:
    """Return a state with the pieces of its tensors put together, on the CPU; all processes must ask for it at once.

    One tensor after the other is put together, on the device. A process that does not `keep` it drops it there, and has
    None in its place: the state as a whole lies in the memory of those alone that want it.
    """
    if isinstance(value, Mapping):
        return {key: whole(entry, keep) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(entry, keep) for entry in value)
    if not hasattr(value, "full_tensor"):
        return value
    found = value.full_tensor()
    return found.cpu() if keep else None


def piece_like(value: Any, owner: Any) -> Any:
    """Return this process's piece of a whole tensor that belongs to a parameter, cut as the parameter is."""
    if not (hasattr(owner, "full_tensor") and isinstance(value, Tensor) and value.shape == owner.shape):
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh, cut = owner.device_mesh, owner.placements
    return distribute_tensor(value.to(owner.device), mesh, cut, src_data_rank=None)  # every process has read it all


def clip_gradients(tensors: Sequence[Tensor], largest: float | None) -> Tensor:
    """Return the norm, (), of all gradients, of any shapes, and scale them to at most `largest`; None: leave them."""
    grads = [tensor.grad for tensor in tensors if tensor.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    if hasattr(norm, "full_tensor"):  # pieces of gradients: the norm of all of them
        norm = norm.full_tensor()
    if largest is not None:
        torch.nn.utils.clip_grads_with_norm_(tensors, largest, norm)
    return norm
