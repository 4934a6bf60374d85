"""Rival laws, one small file each, behind one `fit` / `predict` / `recommend` (see `optlaws.baselines.base`)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from optlaws.errors import LawError, nearest

REGISTRY: dict[str, str] = {
    "multi_power": "optlaws.baselines.multi_power:MultiPowerLaw",
    "annealing": "optlaws.baselines.annealing:AnnealingLaw",
    "functional": "optlaws.baselines.functional:FunctionalLaw",
    "convex_bound": "optlaws.baselines.convex_bound:ConvexBound",
    "forward_momentum": "optlaws.baselines.forward_momentum:ForwardMomentumLaw",
    "noisy_quadratic": "optlaws.baselines.noisy_quadratic:NoisyQuadraticSystem",
    "chinchilla": "optlaws.baselines.chinchilla:Chinchilla",
    "chinchilla_envelope": "optlaws.baselines.chinchilla_envelope:ChinchillaEnvelope",
    "chinchilla_isoflop": "optlaws.baselines.chinchilla_isoflop:ChinchillaIsoFlop",
    "isoflop": "optlaws.baselines.isoflop:IsoFlop",
    "kaplan": "optlaws.baselines.kaplan:Kaplan",
    "data_constrained": "optlaws.baselines.data_constrained:DataConstrained",
    "critical_batch": "optlaws.baselines.critical_batch:CriticalBatch",
    "openai_rate": "optlaws.baselines.openai_rate:OpenAIRate",
    "microsoft_rate": "optlaws.baselines.microsoft_rate:MicrosoftRate",
    "deepseek_rate": "optlaws.baselines.deepseek_rate:DeepSeekRate",
    "porian_rate": "optlaws.baselines.porian_rate:PorianRate",
    "minicpm_batch": "optlaws.baselines.minicpm_batch:MiniCPMBatch",
    "meituan_rate": "optlaws.baselines.meituan_rate:MeiTuanRate",
    "step_law": "optlaws.baselines.step_law:StepLaw",
    "step_law_valley": "optlaws.baselines.step_law_valley:StepLawValley",
    "mup": "optlaws.baselines.mup:MuP",
    "quadratic": "optlaws.baselines.polynomial:Quadratic",
    "cubic_ridge": "optlaws.baselines.polynomial:CubicRidge",
}
"""Name of a law -> "module:Class"; a law's module is imported when it is asked for."""


def baseline_names() -> list[str]:
    """Return the names of all rival laws."""
    return list(REGISTRY)


def get_baseline(name: str) -> Any:
    """Return the class of a rival law.

    Raises
    ------
    LawError
        There is none of that name.
    """
    if not isinstance(name, str) or name not in REGISTRY:
        known = baseline_names()
        raise LawError(f"law must be one of {', '.join(known)}, got {name!r:.40}{nearest(str(name), known)}")
    module, _, attribute = REGISTRY[name].partition(":")
    return getattr(import_module(module), attribute)
