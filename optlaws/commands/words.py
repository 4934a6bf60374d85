"""Words for what laws call by short names: the quantities of a domain, and the columns of a basis."""

from __future__ import annotations

from collections.abc import Iterable

QUANTITIES = {
    "peak_lr": "highest learning rate",
    "steps": "updates in all",
    "warmup_steps": "updates of the warm-up",
    "restarts": "times that the rate rises after a fall",
    "mean_rate": "mean rate over the run, as a share of the peak",
    "end_rate": "last rate, as a share of the peak",
    "params": "parameters without embeddings",
    "density": "share of the parameters that a token meets (1: dense, below: mixture of experts)",
    "batch_tokens": "tokens of an update",
    "tokens": "training tokens",
    "weight_decay": "weight decay",
    "beta1": "memory of the optimizer's momentum",
    "beta2": "memory of the optimizer's squared gradients",
    "plain_sgd": "1 for plain SGD, 0 for AdamW and the like",
}
"""By the name of a quantity in a law's domain."""

UNCOMMON = ("restarts", "mean_rate", "end_rate", "density", "plain_sgd")
"""Those whose names do not say what they are."""

EFFECTS = {
    "size": "model size",
    "bias": "the length of training",
    "transient": "the length of training",
    "inverse_norm": "the growth of the weights",
    "variance_size": "model size on the noise of updates",
    "escape_probability": "high rates",
    "peak_time": "the peak rate",
    "tokens": "the number of tokens",
    "peak_fourth": "the peak rate",
}
"""What changes a column of the basis, by its name; columns variance_0 .. variance_5 belong together."""

NOISE = "how the rate falls"


def quantities_text() -> str:
    """Return a line of words for each of the quantities whose names do not say what they are."""
    width = max(map(len, UNCOMMON))
    return "\n".join(f"{name:<{width}}  {QUANTITIES[name]}" for name in UNCOMMON)


def unknown_effects(columns: Iterable[str]) -> str:
    """Return sentences on the effects that runs do not tell since columns of the basis do not vary by themselves.

    Parameters
    ----------
    columns
        Names of such columns, at least one.
    """
    names = list(columns)
    words = list(dict.fromkeys(EFFECTS.get(name, NOISE if name.startswith("variance_") else name) for name in names))
    listed = " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    them = "it does" if len(words) == 1 else "they do"
    it = "it" if len(words) == 1 else "them"
    return (
        f"The effect of {listed} alone is not known from these runs (of the law's columns, {', '.join(names)}): in them"
        f" {them} not vary, or only together with something else. For runs that vary {it} otherwise predictions rest on"
        f" the law's priors; a few runs that vary {it} alone would tell."
    )
