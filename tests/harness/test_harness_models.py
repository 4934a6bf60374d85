"""The models against a twin written from the formulas, and their counts against their tensors."""

import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

import naive_transformer
from tiny_runs import tiny

from optlaws.errors import InputError
from optlaws.harness import count_parameters, read_config
from optlaws.harness._fields import plain
from optlaws.harness.engine import _factor
from optlaws.harness.layers import mixture
from optlaws.harness.models import build_model, first_values, parameter_table, rate_factor
from optlaws.harness.sections import MLPConfig, QuadraticConfig, TransformerConfig

VOCAB, LENGTH = 11, 6
SHAPES = {
    "multi-head": {},
    "grouped-query": {"heads": 4, "kv_heads": 2},
    "multi-query, normed": {"heads": 4, "kv_heads": 1, "qk_norm": True},
    "untied": {"tied": False},
    "experts": {"experts": 4, "experts_per_token": 2, "hidden": 8},
    "mup": {"parametrisation": "mup", "base_width": 8},
}


def config_of(**changes):
    return TransformerConfig(**{"depth": 2, "width": 16, "heads": 2, **changes})


def model_of(config, seed=0, seq_len=LENGTH):
    values = {
        name: torch.nn.Parameter(value * (8 if "embedding" in name else 1))
        for name, value in first_values(config, VOCAB, seed).items()
    }
    return build_model(config, values, seq_len), values


def batch_of(count=3, length=LENGTH):
    source = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, VOCAB, (count, length + 1), generator=source)
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_equals_the_twin(shape):
    config = config_of(**SHAPES[shape])
    model, values = model_of(config)
    loss, extra = model(*batch_of())
    expected, balance = naive_transformer.loss(config, values, *batch_of())
    assert loss.item() == pytest.approx(expected, abs=2e-6)
    assert extra.item() == pytest.approx(config.balance * balance, abs=1e-7)
    assert math.log(VOCAB) * 0.5 < expected < math.log(VOCAB) * 2


@pytest.mark.parametrize("shape", SHAPES)
def test_counts_equal_the_tensors(shape):
    config = config_of(**SHAPES[shape])
    model, values = model_of(config)
    counts = count_parameters(config, VOCAB, LENGTH)
    outside = sum(v.numel() for name, v in values.items() if name in ("embedding", "head"))
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert counts.params == counts.total - outside
    assert counts == count_parameters(config, VOCAB, LENGTH)
    assert count_parameters(config).params == counts.params
    if not config.experts:
        assert counts.active_params == counts.params
    else:
        unused = 2 * 3 * 16 * 8 * (config.experts - config.experts_per_token)
        assert counts.active_params == counts.params - unused
    assert counts.flops == 6 * (counts.active_params + VOCAB * 16) + 12 * 2 * 16 * LENGTH


@pytest.mark.parametrize("config", [MLPConfig(depth=2, width=6, context=3), QuadraticConfig(dimension=7)])
def test_counts_of_the_small_models(config):
    model, values = model_of(config)
    counts = count_parameters(config, VOCAB)
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert counts.params == counts.total - (values["embedding"].numel() if "embedding" in values else 0)


def test_known_sizes():
    small = TransformerConfig(depth=12, width=768, heads=12, hidden=2048)
    assert count_parameters(small).params == 12 * (4 * 768**2 + 3 * 768 * 2048 + 2 * 768) + 768
    assert count_parameters(small, 50304).total == count_parameters(small).params + 50304 * 768


def test_mixture_drops_no_token_and_balances():
    source = torch.Generator().manual_seed(1)
    x = torch.randn(2, 5, 4, generator=source)
    up, down = torch.randn(3, 12, 4, generator=source), torch.randn(3, 4, 6, generator=source)
    router = torch.zeros(3, 4)
    router[1] = 100 * x[0, 0]  # very uneven: most tokens agree
    out, balance = mixture(x, router, up, down, 1)
    for b in range(2):
        for t in range(5):
            best = int((router @ x[b, t]).argmax())
            expected = naive_transformer.swiglu(x[b, t].double(), up[best].double(), down[best].double())
            assert torch.allclose(out[b, t].double(), expected, atol=1e-5)
    assert balance > 1
    assert mixture(x, torch.zeros(3, 4), up, down, 3)[1].item() == pytest.approx(1.0)


def test_mup_at_its_base_width_is_the_standard_parametrisation():
    plain, scaled = config_of(), config_of(parametrisation="mup", base_width=16)
    assert model_of(plain)[0](*batch_of())[0] == model_of(scaled)[0](*batch_of())[0]
    assert {rate_factor(scaled, p, False) for p in parameter_table(scaled, VOCAB).values()} == {1.0}


def test_mup_scales_attention_by_the_width_of_a_head():
    """Heads that keep their width keep their factor; heads that widen with the model take 1/n instead of 1/sqrt(n)."""
    for width in (64, 128, 512):  # heads of 64 channels at every width, as they are unless given
        grown = TransformerConfig(width=width, parametrisation="mup", base_width=128)
        assert grown.attention_scale == pytest.approx(1 / 8)
    for width in (16, 32, 64):  # two heads at every width
        wider = TransformerConfig(width=width, heads=2, parametrisation="mup", base_width=16)
        assert wider.attention_scale == pytest.approx(math.sqrt(8) / (width / 2))
    both = TransformerConfig(width=64, heads=4, parametrisation="mup", base_width=16, base_heads=2)
    assert both.attention_scale == pytest.approx(math.sqrt(8) / 16)
    for config in (grown, wider, both):
        whole = tiny(model={**plain(config)})
        assert read_config(whole.to_dict()) == whole
    assert "base_heads" not in plain(TransformerConfig())


def test_mup_treats_sign_descent_as_adam_like():
    for name, factor in (("sgd", 1.0), ("signsgd", 0.25), ("adamw", 0.25)):
        config = tiny(
            model={"width": 32, "parametrisation": "mup", "base_width": 8, "heads": 2}, optimizer={"name": name}
        )
        assert _factor(config, parameter_table(config.model, VOCAB)["blocks.0.qkv"]) == factor


def test_mup_rates():
    config = config_of(width=32, parametrisation="mup", base_width=8)
    table = parameter_table(config, VOCAB)
    assert {name: rate_factor(config, p, False) for name, p in table.items() if "blocks.0" in name} == {
        "blocks.0.attention_gain": 1.0,
        "blocks.0.qkv": 0.25,
        "blocks.0.out": 0.25,
        "blocks.0.mlp_gain": 1.0,
        "blocks.0.up": 0.25,
        "blocks.0.down": 0.25,
    }
    assert rate_factor(config, table["embedding"], False) == 1.0
    assert rate_factor(config, table["embedding"], True) == 4.0
    assert rate_factor(config, table["blocks.0.qkv"], True) == 1.0


def test_mup_keeps_the_size_of_one_update_on_the_outputs():
    """One Adam-like step of a given rate moves the logits by about the same at any width; without muP it grows."""
    moves = {}
    for way in ("standard", "mup"):
        for width in (16, 128):
            config = TransformerConfig(depth=2, width=width, heads=2, parametrisation=way, base_width=16)
            model, values = model_of(config)
            before, _ = model(*batch_of(8))
            table = parameter_table(config, VOCAB)
            grads = torch.autograd.grad(before, list(values.values()))
            with torch.no_grad():
                for (name, value), grad in zip(values.items(), grads, strict=True):
                    value -= 1e-3 * rate_factor(config, table[name], False) * grad.sign()
            moves[way, width] = (before - model(*batch_of(8))[0]).item()
    assert moves["standard", 128] / moves["standard", 16] > 3
    assert 0.3 < moves["mup", 128] / moves["mup", 16] < 2


def test_mlp_sees_exactly_its_context():
    config = MLPConfig(depth=1, width=8, context=2)
    model, values = model_of(config)
    tokens = torch.tensor([[1, 2, 3, 4]])
    targets = torch.tensor([[5, 5, 5, 5]])
    w = {name: value.detach().double() for name, value in values.items()}
    losses = []
    for t in range(4):
        last, before = w["embedding"][tokens[0, t]], w["embedding"][tokens[0, t - 1]] if t else torch.zeros(8)
        hidden = torch.nn.functional.gelu(w["layers.0"] @ torch.cat([last, before]).double() / 0.02)
        logits = w["embedding"] @ naive_transformer.norm(hidden, w["final_gain"])
        losses.append(-torch.log_softmax(logits, 0)[5])
    assert model(tokens, targets)[0].item() == pytest.approx(float(torch.stack(losses).mean()), abs=1e-6)


def test_first_values():
    config = config_of(width=64, depth=3)
    values, again, other = (first_values(config, 500, seed) for seed in (1, 1, 2))
    assert all(torch.equal(values[name], again[name]) for name in values)
    assert not torch.equal(values["embedding"], other["embedding"])
    assert values["embedding"].std().item() == pytest.approx(0.02, rel=0.02)
    assert values["blocks.0.qkv"].std().item() == pytest.approx(1 / 8, rel=0.03)
    assert values["blocks.0.out"].std().item() == pytest.approx(1 / 8 / math.sqrt(6), rel=0.03)
    assert (values["final_gain"] == 1).all()


def test_head_width_is_what_the_configuration_says():
    assert tiny(model={"width": 32, "heads": 4}).model.head_width == 8


def stream_of(model, tokens):
    """Return the types of the numbers in the residual stream around each layer, and of both losses."""
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, args, out: seen.extend([args[0].dtype, out[0].dtype]))
    losses = model(tokens, tokens)
    return set(seen), {loss.dtype for loss in losses}


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("changes", [{}, {"experts": 4, "hidden": 8}, {"residual_dtype": "float32"}])
def test_the_residual_stream_has_the_numbers_of_the_products(changes, stacked):
    config = config_of(**changes)
    values = {
        name: torch.nn.Parameter(torch.ones(((2,) if stacked else ()) + one.shape))
        for name, one in parameter_table(config, VOCAB).items()
    }
    tokens = torch.zeros((2, LENGTH), dtype=torch.int64)
    wanted = torch.float32 if "residual_dtype" in changes else torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert stream_of(build_model(config, values, LENGTH, torch.bfloat16), tokens) == ({wanted}, {torch.float32})
    assert stream_of(build_model(config, values, LENGTH, torch.float32), tokens) == ({torch.float32}, {torch.float32})


def test_an_unset_type_of_the_residual_stream_is_in_no_digest():
    assert "residual_dtype" not in plain(TransformerConfig())
    assert tiny(model={"residual_dtype": None}).digest() == tiny().digest()
    assert tiny(model={"residual_dtype": "float32"}).digest() != tiny().digest()
    with pytest.raises(InputError, match=r"model.residual_dtype must be float32, or null, got 'float16'; choose one"):
        tiny(model={"residual_dtype": "float16"})
