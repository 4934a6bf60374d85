"""A transformer that reads like its formulas: one sequence, one head, one position at a time, in float64."""

import math

import torch


def norm(x, gain):
    return gain * x / math.sqrt(float((x * x).mean()) + 1e-6)


def turn(x, position, base):
    """Rotate pairs (x_i, x_(i + n/2)) as complex numbers."""
    n = len(x)
    out = x.clone()
    for i in range(n // 2):
        angle = position * base ** (-2 * i / n)
        pair = complex(float(x[i]), float(x[i + n // 2])) * complex(math.cos(angle), math.sin(angle))
        out[i], out[i + n // 2] = pair.real, pair.imag
    return out


def swiglu(x, up, down):
    both = up @ x
    half = len(both) // 2
    gate = both[:half]
    return down @ (gate / (1 + torch.exp(-gate)) * both[half:])


def experts(config, x, w, place):
    chance = torch.softmax(w[f"{place}.router"] @ x, 0)
    best = sorted(range(config.experts), key=lambda e: -float(chance[e]))[: config.experts_per_token]
    total = sum(chance[e] for e in best)
    out = sum(chance[e] / total * swiglu(x, w[f"{place}.up"][e], w[f"{place}.down"][e]) for e in best)
    return out, chance, best


def loss(config, values, tokens, targets):
    """Return the mean loss over sequences (B, T), and the mean balancing loss over layers."""
    w = {name: value.detach().double() for name, value in values.items()}
    n, heads, kv_heads = config.head_width, config.heads, config.kv_heads
    mup = config.parametrisation == "mup"
    scale = math.sqrt(config.base_width / (config.base_heads or heads)) / n if mup else 1 / math.sqrt(n)
    losses, routed = [], [[] for _ in range(config.depth)]
    for sequence, wanted in zip(tokens.tolist(), targets.tolist(), strict=True):
        stream = [w["embedding"][t] for t in sequence]
        for layer in range(config.depth):
            place = f"blocks.{layer}"
            queries, keys, values_ = [], [], []
            for position, x in enumerate(stream):
                mixed = w[f"{place}.qkv"] @ norm(x, w[f"{place}.attention_gain"])
                q = mixed[: heads * n].view(heads, n)
                k = mixed[heads * n : (heads + kv_heads) * n].view(kv_heads, n)
                if config.qk_norm:
                    q = torch.stack([norm(row, w[f"{place}.q_gain"]) for row in q])
                    k = torch.stack([norm(row, w[f"{place}.k_gain"]) for row in k])
                queries.append([turn(row, position, config.rope_base) for row in q])
                keys.append([turn(row, position, config.rope_base) for row in k])
                values_.append(mixed[(heads + kv_heads) * n :].view(kv_heads, n))
            after = []
            for position, x in enumerate(stream):
                parts = []
                for head in range(heads):
                    shared = head // (heads // kv_heads)
                    q = queries[position][head]
                    scores = torch.stack([scale * (q @ keys[p][shared]) for p in range(position + 1)])
                    weights = torch.softmax(scores, 0)
                    parts.append(sum(weights[p] * values_[p][shared] for p in range(position + 1)))
                x = x + w[f"{place}.out"] @ torch.cat(parts)
                y = norm(x, w[f"{place}.mlp_gain"])
                if config.experts:
                    z, chance, best = experts(config, y, w, place)
                    routed[layer].append((chance, best))
                else:
                    z = swiglu(y, w[f"{place}.up"], w[f"{place}.down"])
                after.append(x + z)
            stream = after
        head = w["embedding"] if config.tied else w["head"]
        for x, target in zip(stream, wanted, strict=True):
            y = norm(x, w["final_gain"]) * (config.base_width / config.width if mup else 1.0)
            losses.append(-torch.log_softmax(head @ y, 0)[target])
    balance = 0.0
    for entries in routed if config.experts else []:
        share = torch.zeros(config.experts, dtype=torch.float64)
        for _, best in entries:
            for e in best:
                share[e] += 1 / (len(entries) * config.experts_per_token)
        mean = torch.stack([chance for chance, _ in entries]).mean(0)
        balance += config.experts * float((share * mean).sum()) / config.depth
    return float(torch.stack(losses).mean()), balance
