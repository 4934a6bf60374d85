"""No tensor is on the wrong device: everything is computed on a device that is not there."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

ROOT = Path(__file__).resolve().parents[2]
CHANGES = {
    "plain": {},
    "grouped": {"model": {"heads": 4, "kv_heads": 2, "qk_norm": True, "tied": False}},
    "mlp": {"model": {"kind": "mlp", "width": 16}},
    "quadratic": {
        "model": {"kind": "quadratic"},
        "data": {"kind": "noise"},
        "seq_len": 1,
        "optimizer": {"name": "sgd"},
    },
    "muon": {"optimizer": {"name": "muon"}},
    "lion": {"optimizer": {"name": "lion"}},
}

# torch's fake tensors know what each operation returns and on which device, and refuse operands of two devices. The
# device "gpu" is one for which torch has no programs; registering it cannot be undone, hence a process of its own.
SCRIPT = """
import sys
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
_setup_privateuseone_for_python_backend("gpu")
from optlaws.harness.engine import SingleEngine, StackEngine
from optlaws.harness.machine import Machine
from optlaws.harness.sources import open_source
from test_harness_device import CHANGES
from tiny_runs import tiny

def on_device(make):  # tensors made of numbers are no fake ones at first; the numbers do not matter here
    def made(values, device=None, **kinds):
        tensor = make(values, **kinds)
        return tensor if device is None else torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    return made

torch.as_tensor = on_device(torch.as_tensor)
machine = Machine(torch.device("gpu", 0), torch.float32, "not there", None)

def use(engine, source, runs, step):
    losses = engine.gradients(source, step)
    norms, rates = engine.update(step)
    assert len(losses) == len(norms) == len(rates) == runs
    assert {losses.device, norms.device} == {machine.device}

def check(change, stacked):
    one = tiny(name="one", micro_batch=2, **change)
    configs = [one, tiny("cosine:peak=1e-3,steps=30", name="two", micro_batch=2, seed=1, **change)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        source = open_source(one, [0, 1] if stacked else [0], machine.device)
        made = StackEngine(configs, source.vocab, machine) if stacked else SingleEngine(one, source.vocab, machine)
        for step in range(2):
            use(made, source, 1 + stacked, step)
        assert {part.device for part in source.validation(0, 2)} == {machine.device}
        with torch.no_grad():
            assert made._evaluated(*source.validation(0, 2))[0].device == machine.device
        if stacked:
            made.keep([1])
            source.keep([1])
            use(made, source, 1, 2)
        made.load(made.state())

for name in sys.argv[1:]:
    for stacked in (False, True):
        check(CHANGES[name], stacked)
        print(name, stacked)
"""


def test_every_operation_has_its_operands_on_the_device():
    from torch.utils import backend_registration

    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip(f"torch {torch.__version__} cannot make up a device")
    names = [name for name in CHANGES if name != "lion" or importlib.util.find_spec("pytorch_optimizer")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names],
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.split("\n")) == 2 * len(names) + 1


def test_where_no_repository_travels_the_environment_says_the_commit(tmp_path, monkeypatch):
    from tiny_runs import tiny

    from optlaws.errors import InputError
    from optlaws.harness import train
    from optlaws.harness.machine import commit

    head = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr("optlaws.harness.machine.__file__", str(tmp_path / "a" / "b" / "machine.py"))
    try:
        for given in (head, f"{head}-dirty", ""):
            commit.cache_clear()
            monkeypatch.setenv("OPTLAWS_COMMIT", given)
            assert train(tiny("constant:peak=1e-3,steps=1")).runs.extra["commit"] == (given,)
        commit.cache_clear()
        monkeypatch.setenv("OPTLAWS_COMMIT", "main")
        with pytest.raises(InputError, match=r"OPTLAWS_COMMIT must be 7 to 64 hexadecimal digits, .* got 'main'; take"):
            train(tiny("constant:peak=1e-3,steps=1"), tmp_path / "run")
        assert list((tmp_path / "run").iterdir()) == []  # said before anything is written
        (tmp_path / ".git").mkdir()  # a repository that says nothing
        monkeypatch.setenv("OPTLAWS_COMMIT", head)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert commit() == head
    finally:
        commit.cache_clear()


@pytest.mark.gpu
def test_a_warning_fails_no_test_on_a_gpu(request):
    assert [marker.args for marker in request.node.iter_markers("filterwarnings")] == [("default",)]
