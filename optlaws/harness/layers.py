"""Layers that work for one model and for a stack of R models alike.

One model has activations x (B, T, d) and parameters of their plain shapes; a stack has (R, B, T, d), and every
parameter has R in front. A layer tells the two apart by its parameters, so each formula is written once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

EPS = 1e-6


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return x weight^T: x ([R,] ..., n), weight ([R,] m, n), result ([R,] ..., m)."""
    if weight.ndim == 2:
        return F.linear(x, weight)
    return torch.bmm(x.flatten(1, -2), weight.mT).unflatten(1, x.shape[1:-1])


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    """Return gain x / sqrt(mean(x^2) + 1e-6) over the last axis: x ([R,] ..., n), gain ([R,] n), result like x."""
    stack = gain.shape[:-1]
    ones = (1,) * (x.ndim - gain.ndim)
    return F.rms_norm(x, x.shape[-1:], eps=EPS) * gain.view(*stack, *ones, gain.shape[-1]).to(x.dtype)


def embed(tokens: Tensor, table: Tensor) -> Tensor:
    """Return the rows of table ([R,] V, n) picked by tokens ([R,] B, T); a stack may share tokens (B, T)."""
    if table.ndim == 2:
        return F.embedding(tokens, table)
    count, vocab, _ = table.shape
    offsets = vocab * torch.arange(count, device=tokens.device).view(count, 1, 1)
    return F.embedding(tokens + offsets, table.flatten(0, 1))


def rotary_table(length: int, channels: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cos and sin of position times frequency, (length, channels / 2) each; frequency_i = base^(-2i/channels).

    Rotary positions of RoFormer, arXiv 2104.09864, eq. 15, with the two halves of a head's channels as the pairs.
    """
    frequency = base ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return angle.cos().float().to(device), angle.sin().float().to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (x_i, x_(i+n/2)) by its position's angle: x (..., T, heads, n), cos and sin (T, n/2)."""
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = cos[: x.shape[-3], None], sin[: x.shape[-3], None]
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1).to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Return causal attention: q (..., T, heads, n), k and v (..., T, kv_heads, n), result (..., T, heads n).

    Each key-value head serves heads / kv_heads query heads in a row (grouped-query attention, arXiv 2305.13245).
    """
    shape, repeats = q.shape, q.shape[-2] // k.shape[-2]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, dim=-2), v.repeat_interleave(repeats, dim=-2)
    q, k, v = (y.reshape(-1, *shape[-3:]).transpose(1, 2) for y in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    return out.transpose(1, 2).reshape(*shape[:-2], shape[-2] * shape[-1])


def swiglu(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Return down (silu(a) b), [a, b] = up x (arXiv 2002.05202): x ([R,] ..., n), up ([R,] 2h, n), down ([R,] n, h)."""
    gate, value = linear(x, up).chunk(2, dim=-1)
    return linear(F.silu(gate) * value, down)


def mixture(x: Tensor, router: Tensor, up: Tensor, down: Tensor, chosen: int) -> tuple[Tensor, Tensor]:
    """Return a sparse mixture of SwiGLU experts and its load-balancing loss.

    Every token goes to the `chosen` experts with the highest router probability p_e, and their outputs are added with
    weights p_e over the sum of the chosen ones. No token is dropped. The balancing loss is E sum_e f_e P_e with f_e
    the share of choices that fell on expert e and P_e the mean of p_e (arXiv 2101.03961, eq. 4); 1 when balanced.

    Parameters
    ----------
    x
        ([R,] B, T, n).
    router, up, down
        ([R,] E, n), ([R,] E, 2h, n), ([R,] E, n, h).

    Returns
    -------
    tuple
        Output like x, and the balancing loss ([R]).
    """
    stacked = router.ndim == 3
    groups, experts = (router.shape[0] if stacked else 1), router.shape[-2]
    flat = x.reshape(groups, -1, x.shape[-1])
    count = flat.shape[1]
    chance = linear(flat, router if stacked else router[None]).float().softmax(dim=-1)
    weight, expert = chance.topk(chosen, dim=-1)
    weight = weight / weight.sum(dim=-1, keepdim=True)

    # Copies of the tokens are sorted by expert and laid out in one padded batch with a row block for each expert.
    label = (expert + experts * torch.arange(groups, device=x.device).view(-1, 1, 1)).reshape(-1)
    order = torch.argsort(label, stable=True)
    load = F.one_hot(label, groups * experts).sum(dim=0)
    capacity = int(load.max())
    start = torch.cumsum(load, 0) - load
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=x.device)
    slot = label * capacity + rank - start[label]
    copies = flat.unsqueeze(2).expand(-1, -1, chosen, -1).reshape(-1, x.shape[-1])
    laid = copies.new_zeros(groups * experts * capacity, x.shape[-1]).index_copy(0, slot, copies)
    out = swiglu(laid.view(groups * experts, capacity, -1), up.flatten(0, -3), down.flatten(0, -3))
    parts = out.flatten(0, 1)[slot].view(groups, count, chosen, -1)
    mixed = (parts * weight.unsqueeze(-1).to(parts.dtype)).sum(dim=2)

    share = load.view(groups, experts).float() / (count * chosen)
    balance = experts * (share * chance.mean(dim=1)).sum(dim=-1)
    return mixed.view(x.shape).to(x.dtype), balance if stacked else balance[0]


def token_loss(logits: Tensor, targets: Tensor, stacked: bool) -> Tensor:
    """Return the mean cross-entropy in nats per token, () or (R,): logits ([R,] B, T, V), targets ([R,] B, T)."""
    if not stacked:
        return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten())
    targets = targets.expand(logits.shape[:-1])
    each = F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), reduction="none")
    return each.view(len(logits), -1).mean(dim=1)
