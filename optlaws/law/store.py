"""Law files: one JSON document of plain numbers, versioned; the same digits come back on another machine."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any, TypeVar

import numpy as np

from optlaws._entries import number, numbers, part, ranges, whole
from optlaws.dynamics import Dynamics
from optlaws.errors import LawError, OptlawsError
from optlaws.features import COORDINATES, get_basis
from optlaws.law.baseline import KIND, BaselineFit
from optlaws.law.doubts import UNSEEN
from optlaws.law.joint import Joint
from optlaws.law.model import Law
from optlaws.law.optimizers import Optimizers
from optlaws.regression.settings import LARGEST, SMALLEST
from optlaws.regression.trend_field import Posterior, Settings
from optlaws.risk.model import RiskModel
from optlaws.runs import atomic_write

FORMAT = "optlaws-law"
VERSION = 1
PREDICTING = frozenset({"field_sd", "size_sd", "source_sd", "noise_growth"})  # the other settings serve a fit only
AGAIN = "fit it again with `optlaws fit`"
STEEPEST = 100.0  # the largest exponent: above it powers run out of range
FALLING = frozenset({"aN", "aT", "aD"})  # powers of size, intrinsic time and tokens, in which the loss falls
RIVAL_KEYS = ("name", "law", "parameters", "residuals", "domain", "info")
T = TypeVar("T")
KEYS = (
    "format",
    "version",
    "name",
    "basis",
    "columns",
    "dynamics",
    "exponents",
    "scales",
    "settings",
    "posterior",
    "use_params",
    "use_batch",
    "peak_scale",
    "has_curves",
    "domain",
    "defaults",
    "info",
)


def law_to_dict(law: Law) -> dict[str, Any]:
    """Return the law as plain numbers, lists and texts."""
    p = law.posterior
    rows, columns = np.triu_indices(len(p.root))
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": law.name,
        "info": dict(law.info),
        "domain": {key: list(value) for key, value in law.domain.items()},
        "defaults": dict(law.defaults),
        "basis": law.basis.id,
        "columns": list(law.basis.names),
        "dynamics": law.basis.dynamics.to_dict(),
        "exponents": dict(law.basis.exponents),
        "scales": dict(law.basis.scales),
        "settings": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(p.settings).items()},
        "use_params": law.use_params,
        "use_batch": law.use_batch,
        "peak_scale": law.peak_scale,
        "has_curves": law.has_curves,
        "posterior": {
            "coefficients": p.coefficients.tolist(),
            "noise": p.noise,
            "growth": p.growth,
            "spike": p.spike,
            "spread": p.spread,
            "damage_columns": list(p.damage_columns),
            "peak_columns": list(p.peak_columns),
            "sizes": p.sizes.tolist(),
            "mean": p.mean.tolist(),
            "inducing": p.inducing.tolist(),
            "root_size": len(p.root),
            "root_upper_triangle": p.root[rows, columns].tolist(),
        },
        **({"optimizers": law.optimizers.to_dict()} if law.optimizers is not None else {}),
        **({"joint": law.joint.to_dict()} if law.joint is not None else {}),
        **({"risk": law.risk.to_dict()} if law.risk is not None else {}),
    }


def write_law(law: Law, path: str | os.PathLike[str]) -> None:
    """Write a law file."""
    write_document(law_to_dict(law), path)


def write_document(document: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the content of a law file, whole or not at all.

    Raises
    ------
    LawError
        An entry is neither text nor a finite plain number, nor made of these.
    """
    try:
        with atomic_write(path) as stream:
            json.dump(document, stream, allow_nan=False, indent=None, separators=(",", ":"))
            stream.write("\n")
    except (TypeError, ValueError) as error:
        if isinstance(error, OptlawsError):
            raise
        raise LawError(
            f"law {document.get('name')!r} must hold texts, finite plain numbers, lists and objects only to be written,"
            f" got another value ({error}); correct `info` or what else holds it"
        ) from None


def read_law(path: str | os.PathLike[str]) -> Law:
    """Read a law file.

    Raises
    ------
    LawError
        The file cannot be read, is no law, is truncated, or is of another version.
    """
    name = os.fspath(path)
    return law_from_text(read_text(path), name)


def read_any(path: str | os.PathLike[str]) -> Law | BaselineFit:
    """Read a law file, of a law of this package's basis or of a rival law.

    Raises
    ------
    LawError
        As `read_law`, or the file names a rival law that is not known here.
    """
    text, name = read_text(path), os.fspath(path)
    data = parse(text, name)
    if data.get("kind") != KIND:
        return _checked(data, name)
    missing = [key for key in RIVAL_KEYS if key not in data]
    if missing:
        raise LawError(f"law file {name!r} must have the entry {missing[0]!r}, got none; {AGAIN}")
    return _guarded(lambda: BaselineFit.from_dict({**data, "info": _info(data["info"])}), name)


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a law file.

    Raises
    ------
    LawError
        It cannot be read.
    """
    name = os.fspath(path)
    try:
        if name == "-":
            return sys.stdin.read()
        with open(path, encoding="utf-8-sig") as stream:
            return stream.read()
    except UnicodeDecodeError:
        raise LawError(f"law file {name!r} cannot be read (not UTF-8 text); name a file of `optlaws fit`") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise LawError(f"law file {name!r} cannot be read ({reason}); check the path and its permissions") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"numbers must be finite, got {name}")


def law_from_text(text: str, where: str) -> Law:
    """Return the law in a JSON text; `where` names it in messages."""
    return _checked(parse(text, where), where)


def parse(text: str, where: str) -> dict[str, Any]:
    """Return the document in a law file's text, its format and version checked."""
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise LawError(
            f"law file {where!r} is not complete JSON (line {error.lineno}, column {error.colno}):"
            f" it is truncated or no law; {AGAIN}"
        ) from None
    except (ValueError, RecursionError) as error:  # not finite, of thousands of digits, or nested too deep
        raise LawError(f"law file {where!r} has a damaged entry ({error}); {AGAIN}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise LawError(
            f'law file {where!r} must be a JSON object with "format": "{FORMAT}", got another document; {AGAIN}'
        )
    if data.get("version") != VERSION or isinstance(data["version"], bool):
        raise LawError(
            f"law file {where!r} must be of version {VERSION}, got {data.get('version')!r:.40};"
            f" {AGAIN}, or use the release that wrote it"
        )
    return data


def _checked(data: dict[str, Any], where: str) -> Law:
    """Return the law of this package's basis in a document."""
    if data.get("kind") == KIND:
        raise LawError(
            f"law file {where!r} must hold a law of this package's basis here, got the rival law"
            f" {data.get('law')!r:.40}; rival laws serve rank, predict and laws"
        )
    missing = [key for key in KEYS if key not in data]
    if missing:
        raise LawError(f"law file {where!r} must have the entry {missing[0]!r}, got none; {AGAIN}")
    return _guarded(lambda: _build(data), where)


def _guarded(build: Callable[[], T], where: str) -> T:
    """Return what `build` makes, with what goes wrong in one sentence that names the file."""
    try:
        return build()
    except OptlawsError as error:
        raise LawError(f"law file {where!r}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, OverflowError, MemoryError) as error:
        raise LawError(f"law file {where!r} has a damaged entry ({type(error).__name__}: {error}); {AGAIN}") from None


def _info(info: Any) -> dict[str, Any]:
    """Return the entry `info` of a law file, its parts that are listed checked."""
    errors, sources = info.get("leave_group_out", {}), info.get("sources", [])
    if not isinstance(errors, dict) or not all(isinstance(split, dict) for split in errors.values()):
        raise TypeError("info.leave_group_out must be an object of objects")
    if not isinstance(info.get("left_out_groups", {}), dict):
        raise TypeError("info.left_out_groups must be an object")
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise TypeError("info.sources must be a list of texts")
    if not isinstance(info.get("doubts", []), list) or not all(isinstance(x, str) for x in info.get("doubts", [])):
        raise TypeError("info.doubts must be a list of texts")
    if not isinstance(info.get("outliers", []), list) or not all(isinstance(x, dict) for x in info.get("outliers", [])):
        raise TypeError("info.outliers must be a list of objects")
    for run in info.get("outliers", []):
        if not isinstance(run.get("run_id"), str):
            raise TypeError("info.outliers must name runs")
        for key in ("loss", "predicted"):
            number(run.get(key), f"info.outliers.{key}")
    seen = info.get("schedules")
    if seen is not None:
        kinds = seen.get("kinds") if isinstance(seen, dict) else None
        if not isinstance(kinds, dict):
            raise TypeError("info.schedules must be an object with kinds and warmup_steps")
        for name, value in {**kinds, "warmup_steps": seen.get("warmup_steps")}.items():
            if number(value, f"info.schedules.{name}") < 0:
                raise ValueError(f"info.schedules.{name} must be at least 0")
    unseen = info.get("unseen", {})
    if not isinstance(unseen, dict) or not set(unseen) <= set(UNSEEN):
        raise TypeError(f"info.unseen must be an object with {' and '.join(UNSEEN)} at most")
    for name, values in unseen.items():
        if (numbers(values, 3) <= 0).any():
            raise ValueError(f"info.unseen.{name} must be three numbers above 0")
    return dict(info)


def _build(data: dict[str, Any]) -> Law:
    if not isinstance(data["basis"], str):
        raise TypeError(f"basis must be text, got {data['basis']!r:.40}")
    basis = get_basis(data["basis"])
    if list(basis.names) != list(data["columns"]):
        raise LawError(
            f"columns of basis {basis.id!r} must be {', '.join(basis.names)}, got {', '.join(data['columns']):.200};"
            " use the release that wrote it"
        )
    absent = sorted(set(basis.exponents) - set(data["exponents"]))
    if absent:
        raise LawError(
            f"exponents must be those of basis {basis.id!r}, which now has {absent[0]!r} too, got a law fitted before;"
            f" {AGAIN}"
        )
    for key, value in data["exponents"].items():
        number(value, f"exponents must be finite numbers: {key}")
        rule = "above 0" if key in FALLING else "0 or more"
        if value > STEEPEST:
            rule = f"at most {STEEPEST:g}"
        if not 0 <= value <= STEEPEST or (value == 0 and key in FALLING):
            raise LawError(f"exponent {key} of basis {basis.id!r} must be {rule}, got {value:g}; {AGAIN}")
    basis = basis.with_constants(Dynamics.from_dict(data["dynamics"]).to_dict(), data["exponents"])
    p = data["posterior"]
    size = whole(p["root_size"], "posterior.root_size")
    root = np.zeros((size, size))
    triangle, many = "root_upper_triangle", size * (size + 1) // 2
    root[np.triu_indices(size)] = numbers(p[triangle], many, name=f"posterior.{triangle}")
    known = {field.name for field in fields(Settings)}
    given: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in data["settings"].items() if k in known
    }
    usual = asdict(Settings())
    for key, value in given.items():
        if isinstance(value, tuple) != isinstance(usual[key], tuple):
            raise TypeError(f"settings.{key} must be a {'list' if isinstance(usual[key], tuple) else 'number'}")
    settings = Settings(**given)
    width = len(data["columns"])
    for key in ("damage_columns", "peak_columns"):
        places = p.get(key, [])
        good = type(places) is list and all(type(j) is int and 0 <= j < width for j in places)
        if not good or len(set(places)) < len(places):
            raise ValueError(f"{key} must be a list of places of columns, each once, 0 to {width - 1}")
    if ("spike" in p) != ("peak_columns" in p):
        raise ValueError("posterior must hold spike and peak_columns, or neither")
    inducing = numbers(p["inducing"], len(p["inducing"]), -1, name="posterior.inducing", most=LARGEST)
    sizes = numbers(p["sizes"], -1, name="posterior.sizes", most=LARGEST)
    posterior = Posterior(
        coefficients=numbers(p["coefficients"], width, name="posterior.coefficients"),
        inducing=inducing,
        sizes=sizes,
        mean=numbers(p["mean"], len(inducing) + len(sizes) + 1, name="posterior.mean", most=LARGEST),
        root=root,
        noise=number(p["noise"], "noise", SMALLEST, LARGEST),
        growth=number(p.get("growth", settings.noise_growth), "growth", SMALLEST, LARGEST),  # before, of the settings
        spike=number(p.get("spike", 0.0), "spike", 0.0, 1.0),  # before, none
        spread=number(p["spread"], "spread", SMALLEST, LARGEST),
        settings=settings,
        damage_columns=tuple(p["damage_columns"]),
        peak_columns=tuple(p.get("peak_columns", ())),
    )
    if not (posterior.coefficients >= 0).all() or not posterior.coefficients.any():
        raise ValueError("coefficients must be at least 0, one of them above")
    if len(posterior.mean) + len(posterior.active) != size:
        raise ValueError("posterior.root_size does not fit the other entries")
    peak_scale = number(data["peak_scale"], "peak_scale", SMALLEST, LARGEST)
    if not isinstance(data["name"], str):
        raise TypeError(f"name must be text, got {data['name']!r:.40}")
    defaults = {key: number(value, f"defaults.{key}") for key, value in data["defaults"].items()}
    if not all(value > 0 or (key == "weight_decay" and value == 0) for key, value in defaults.items()):
        raise ValueError("defaults must be numbers above 0, weight_decay 0 or more")
    for key in ("use_params", "use_batch", "has_curves"):
        if not isinstance(data[key], bool):
            raise TypeError(f"{key} must be true or false, got {data[key]!r:.40}")
    lost = (set(data["settings"]) - known) | (PREDICTING - set(data["settings"]))
    lost |= set(Dynamics().to_dict()) ^ set(data["dynamics"])
    if dict(basis.scales) != {str(key): float(value) for key, value in data["scales"].items()}:
        raise LawError(f"scales must be those of basis {basis.id!r}, got others; use the release that wrote it")
    if posterior.inducing.shape[1] != len(COORDINATES):
        raise ValueError(f"inducing points must have {len(COORDINATES)} coordinates, got {posterior.inducing.shape[1]}")
    if not (np.diag(root) > 0).all():
        raise ValueError("the diagonal of root must be above 0")
    if lost:
        raise ValueError(f"settings and dynamics must hold this version's constants, {min(lost)!r} is missing or new")
    return Law(
        data["name"],
        basis,
        posterior,
        data["use_params"],
        data["use_batch"],
        peak_scale,
        data["has_curves"],
        ranges(data["domain"]),
        defaults,
        _info(data["info"]),
        part(data, "risk", RiskModel.from_dict),
        optimizers=part(data, "optimizers", Optimizers.from_dict),
        joint=part(data, "joint", Joint.from_dict),
    )
