"""Optimizers: the rate that is asked for is the rate that is used, and decay is decoupled."""

import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from tiny_runs import tiny

from optlaws.errors import InputError
from optlaws.harness import train
from optlaws.harness.optim import BETAS, ELEMENTWISE, LIBRARY, TORCH, RatedOptimizer, Slot, betas_of, check_optimizer
from optlaws.harness.sections import OptimizerConfig
from optlaws.schedules import parse


def library_there():
    try:
        import pytorch_optimizer  # noqa: F401
    except ImportError:
        return False
    return True


NAMES = [*TORCH, *(name for name in LIBRARY if library_there())]


def slots_of(seed=0):
    source = torch.Generator().manual_seed(seed)
    matrix, gain, table = (
        torch.nn.Parameter(torch.randn(*shape, generator=source) * 0.3) for shape in ((8, 6), (6,), (10, 6))
    )
    return [Slot(matrix, matrix=True), Slot(gain, decays=False), Slot(table)]


def loss_of(slots):
    matrix, gain, table = (slot.tensor for slot in slots)
    return (matrix * gain - 1).square().mean() + (table - 0.5).square().mean()


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_learns_and_uses_the_schedules_rates(name):
    schedule = parse("wsd:peak=1e-2,steps=40,warmup=7,decay=0.3,shape=sqrt")
    slots = slots_of()
    optimizer = RatedOptimizer(OptimizerConfig(name, weight_decay=0.01), slots)
    first = loss_of(slots).item()
    for step in range(schedule.total_steps):
        rate = schedule.lr(step)
        optimizer.set_rates([rate])
        assert optimizer.applied() == rate  # to the last bit
        for part in optimizer._parts:
            assert all(group["lr"] == rate for group in part.param_groups)
        for slot in slots:
            slot.tensor.grad = None
        loss_of(slots).backward()
        optimizer.step()
    assert loss_of(slots).item() < first


@pytest.mark.parametrize("name", NAMES)
def test_decay_is_decoupled(name):
    """With no gradient, an update multiplies what decays by 1 - rate decay and leaves the rest alone."""
    slots = slots_of()
    before = [slot.tensor.detach().clone() for slot in slots]
    optimizer = RatedOptimizer(OptimizerConfig(name, weight_decay=0.5), slots)
    for slot in slots:
        slot.tensor.grad = torch.zeros_like(slot.tensor)
    optimizer.set_rates([0.1])
    optimizer.step()
    for slot, old in zip(slots, before, strict=True):
        assert torch.allclose(slot.tensor, old * (0.95 if slot.decays else 1.0), atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(NAMES) & ELEMENTWISE))
def test_elementwise_optimizers_do_not_care_about_shapes(name):
    slots = slots_of()
    whole = torch.nn.Parameter(torch.cat([slot.tensor.detach().flatten() for slot in slots]))
    one = RatedOptimizer(OptimizerConfig(name), slots)
    other = RatedOptimizer(OptimizerConfig(name), [Slot(whole)])
    source = torch.Generator().manual_seed(2)
    for _ in range(5):
        grads = [torch.randn(slot.tensor.shape, generator=source) for slot in slots]
        for slot, grad in zip(slots, grads, strict=True):
            slot.tensor.grad = grad
        whole.grad = torch.cat([grad.flatten() for grad in grads])
        for optimizer in (one, other):
            optimizer.set_rates([1e-2])
            optimizer.step()
    assert torch.allclose(torch.cat([slot.tensor.flatten() for slot in slots]), whole, rtol=1e-6, atol=1e-7)


def test_adamw_by_hand():
    start, grads = 0.7, [0.3, -0.1, 0.2]
    tensor = torch.nn.Parameter(torch.tensor([start]))
    optimizer = RatedOptimizer(OptimizerConfig("adamw", weight_decay=0.1, beta1=0.8, beta2=0.9), [Slot(tensor)])
    x, m, v = start, 0.0, 0.0
    for k, g in enumerate(grads, start=1):
        rate = 0.01 * k
        tensor.grad = torch.tensor([g])
        optimizer.set_rates([rate])
        optimizer.step()
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        x = x * (1 - rate * 0.1) - rate * (m / (1 - 0.8**k)) / (math.sqrt(v / (1 - 0.9**k)) + 1e-8)
        assert tensor.item() == pytest.approx(x, abs=1e-6)


def test_members_have_rates_and_decays_of_their_own():
    tensors = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    slots = [Slot(tensor, member) for member, tensor in enumerate(tensors)]
    optimizer = RatedOptimizer(OptimizerConfig("sgd", beta1=0.0), slots, [0.0, 0.5, 0.0])
    for _ in range(2):
        for tensor in tensors:
            tensor.grad = torch.ones(2)
        optimizer.set_rates([0.1, 0.1, 0.3])
        optimizer.step()
    assert tensors[0].tolist() == pytest.approx([0.8, 0.8])
    assert tensors[1].tolist() == pytest.approx([(1 * 0.95 - 0.1) * 0.95 - 0.1] * 2)
    assert tensors[2].tolist() == pytest.approx([0.4, 0.4])
    optimizer.drop([2, 0])
    optimizer.set_rates([1.0, 0.0])
    optimizer.step()
    assert tensors[0].tolist() == pytest.approx([0.8, 0.8])
    assert tensors[1].tolist() == pytest.approx([(1 * 0.95 - 0.1) * 0.95 - 0.1] * 2)
    assert tensors[2].tolist() == pytest.approx([-0.6, -0.6])


def test_muon_treats_matrices_and_adamw_the_rest():
    optimizer = RatedOptimizer(OptimizerConfig("muon"), slots_of())
    assert [type(part).__name__ for part in optimizer._parts] == ["Muon", "AdamW"]


def test_muon_treats_every_experts_matrix_like_one_of_its_own():
    source = torch.Generator().manual_seed(1)
    whole = torch.nn.Parameter(torch.randn(3, 4, 6, generator=source))
    alone = [torch.nn.Parameter(matrix.clone()) for matrix in whole.detach()]
    config = OptimizerConfig("muon", weight_decay=0.1)
    pair = [RatedOptimizer(config, [Slot(t, matrix=True) for t in tensors]) for tensors in ([whole], alone)]
    assert [type(part).__name__ for part in pair[0]._parts] == ["Muon"]
    for step in range(4):
        if step == 2:  # as a resumed run
            state = pair[0].state()
            pair[0] = RatedOptimizer(config, [Slot(whole, matrix=True)])
            pair[0].load(state)
        whole.grad = torch.randn(3, 4, 6, generator=source)
        for tensor, grad in zip(alone, whole.grad, strict=True):
            tensor.grad = grad.clone()
        for optimizer in pair:
            optimizer.set_rates([0.1])
            optimizer.step()
        assert torch.allclose(whole, torch.stack(list(alone)), atol=1e-6)
    with pytest.raises(InputError, match="parallel: must be ddp for muon on experts"):
        RatedOptimizer(config, [Slot(whole, matrix=True)], sharded=True)


def test_optimizers_that_divide_by_their_rate_when_made_are_at_hand():
    pytest.importorskip("pytorch_optimizer", reason="pytorch_optimizer is not installed: its optimizers are not there")
    check_optimizer(OptimizerConfig("mars"))


@pytest.mark.parametrize("name", ["lomo", "adahessian", "bsam"])
def test_optimizers_that_need_more_than_gradients_are_refused_in_one_sentence(name):
    pytest.importorskip("pytorch_optimizer", reason="pytorch_optimizer is not installed: its optimizers are not there")
    with pytest.raises(InputError, match=f"optimizer {name}: cannot (be made|step) .*or choose another"):
        check_optimizer(OptimizerConfig(name))


UNREADABLE = (
    "emofact", "emolynx", "emonavi", "madgrad", "magma", "spam",
    "adashift", "conda", "scalableshampoo", "scion", "scionlight",
)  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_optimizers_whose_checkpoints_cannot_be_read_back_are_refused_at_the_start(name, tmp_path):
    pytest.importorskip("pytorch_optimizer", reason="pytorch_optimizer is not installed: its optimizers are not there")
    with pytest.raises(InputError, match=f"^optimizer {name}: a checkpoint of its state cannot be read back") as bad:
        train(tiny(optimizer={"name": name}), tmp_path)
    assert "\n" not in str(bad.value)
    assert "\x1b" not in str(bad.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["lorarite", "spectralsphere"])
def test_optimizers_that_cannot_step_a_models_shapes_are_refused_at_the_start(name):
    pytest.importorskip("pytorch_optimizer", reason="pytorch_optimizer is not installed: its optimizers are not there")
    with pytest.raises(InputError, match=f"^optimizer {name}: cannot step .*; correct optimizer.settings, or choose"):
        check_optimizer(OptimizerConfig(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_trial_leaves_all_others_and_the_random_numbers_alone(name):
    before = torch.get_rng_state()
    check_optimizer(OptimizerConfig(name, weight_decay=0.1))
    assert torch.equal(torch.get_rng_state(), before)


def test_betas():
    assert betas_of(OptimizerConfig("adamw")) == BETAS["adamw"]
    assert betas_of(OptimizerConfig("adamw", beta2=0.999)) == (0.9, 0.999)
    assert betas_of(OptimizerConfig("adafactor")) == (None, None)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (OptimizerConfig("adamz"), "optimizer must be one of sgd, adam"),
        (OptimizerConfig("sgd", beta2=0.9), "optimizer.beta2 must be left out for sgd"),
        (OptimizerConfig("muon", beta2=0.3), "optimizer.beta2 must be left out for muon, which has one momentum"),
        (OptimizerConfig("sgd", eps=1e-8), "optimizer.eps must be left out for sgd"),
        (OptimizerConfig("adafactor", beta1=0.9), "beta1 and beta2 must be left out for adafactor"),
        (OptimizerConfig("adamw", settings=(("amsgrid", True),)), "did you mean 'amsgrad'"),
        (OptimizerConfig("adamw", settings=(("lr", 1.0),)), "adamw takes no 'lr'"),
        (OptimizerConfig("adamw", settings=(("eps", -1.0),)), "optimizer adamw: cannot be made"),
        (OptimizerConfig("adamw", settings=(("amsgrad", "yes"),)), "optimizer adamw: cannot step"),
    ],
)
def test_bad_optimizers(config, match):
    with pytest.raises(InputError, match=match):
        check_optimizer(config)
