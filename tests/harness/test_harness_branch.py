"""A run that begins at a checkpoint of another one is, bit for bit, the run from the start."""

import hashlib
import json
import math
import shutil

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from tiny_runs import tiny

from optlaws.errors import InputError
from optlaws.harness import read_record, train, train_stacked
from optlaws.harness.checkpoint import list_checkpoints
from optlaws.runs import read_runs

TRUNK = "wsd:peak=3e-3,steps=24,warmup=4,decay=0.25"  # constant from update 4 to 18
CONSTANT = "constant:peak=3e-3,steps=24,warmup=4"
EVERY = {"every": 5, "keep": None}
QUADRATIC = {"model": {"kind": "quadratic", "dimension": 8}, "data": {"kind": "noise"}, "seq_len": 1}
# Facts of the place and the time, and of where the run began.
OWN = ("tokens_per_second", "seconds", "mfu", "branched_from")


def trunk_in(folder, schedule=TRUNK, **changes):
    """Train a trunk that keeps its checkpoints; return its folder."""
    train(tiny(schedule, name="trunk", **{"eval": {"every": 7}, "checkpoint": EVERY, **changes}), folder)
    return folder


def numbers_of(record):
    runs = record.runs
    extra = {name: cells for name, cells in runs.extra.items() if name not in OWN}
    names = ("val_loss", "lr", "grad_norm")
    curve = record.curve.step.tolist(), record.curve.loss.tolist(), [record.curve.extra[name] for name in names]
    loss = None if math.isnan(record.final_loss) else record.final_loss
    return record.run_id, record.status, loss, runs.schedule_cells(), extra, curve


def files_of(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    return trunk_in(tmp_path_factory.mktemp("trunk"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"micro_batch": 2, "log_every": 3},
        {"optimizer": {"name": "muon"}},
        {"optimizer": {"name": "sgd"}},
        {"optimizer": {"name": "adafactor"}},
        {"model": {"experts": 4, "hidden": 8}, "micro_batch": 2},
        QUADRATIC,
    ],
    ids=lambda changes: str(changes)[:50],
)
def test_branches_are_the_runs_from_the_start(changes, tmp_path):
    trunk = trunk_in(tmp_path / "trunk", CONSTANT, **changes)
    before = files_of(trunk)
    decays = {10: "wsd:peak=3e-3,steps=14,warmup=4,decay=4", 24: "wsd:peak=3e-3,steps=35,warmup=4,decay=11"}
    for step, schedule in decays.items():
        config = tiny(schedule, eval={"every": 7}, **changes)
        record = train(config, tmp_path / f"at{step}", branch=trunk)
        assert numbers_of(record) == numbers_of(train(config))
        assert numbers_of(read_record(tmp_path / f"at{step}")) == numbers_of(record)
        assert record.runs.extra["branched_from"] == (f"trunk@{step}",)
        assert record.config_digest == config.digest()
    assert files_of(trunk) == before


@pytest.mark.parametrize(
    ("schedule", "step"),
    [
        ("wsd:peak=3e-3,steps=40,warmup=4,decay=20", 15),  # the trunk decays from update 18 on
        ("wsd:peak=3e-3,steps=16,warmup=4,decay=4", 10),
        ("constant:peak=3e-3,steps=11,warmup=4", 10),
        (TRUNK, 20),
    ],
)
def test_the_newest_checkpoint_with_the_same_rates_is_taken(schedule, step, trunk):
    assert train(tiny(schedule), branch=trunk).runs.extra["branched_from"] == (f"trunk@{step}",)


def test_a_named_checkpoint_and_an_interrupted_trunk(trunk, tmp_path):
    config = tiny("wsd:peak=3e-3,steps=20,warmup=4,decay=6", eval={"every": 7})
    whole = train(config)
    record = train(config, branch=trunk / "checkpoints" / "step-000000005.pt")
    assert record.runs.extra["branched_from"] == ("trunk@5",)
    assert numbers_of(record) == numbers_of(whole)
    asked = iter(range(100))
    train(tiny(CONSTANT, name="cut", eval={"every": 7}), tmp_path, stop=lambda: next(asked) == 11)
    record = train(config.with_(micro_batch=4), branch=tmp_path)
    assert record.runs.extra["branched_from"] == ("cut@11",)
    assert record.curve.loss.tolist() == whole.curve.loss.tolist()
    assert "branched_from" in whole.runs.extra
    assert whole.runs.extra["branched_from"] == ("",)


def test_a_branch_can_be_a_trunk(trunk, tmp_path):
    longer = tiny("constant:peak=3e-3,steps=30,warmup=4", name="longer", eval={"every": 7}, checkpoint=EVERY)
    train(longer, tmp_path, branch=trunk)
    config = tiny("wsd:peak=3e-3,steps=34,warmup=4,decay=8", eval={"every": 7})
    record = train(config, branch=tmp_path)
    assert record.runs.extra["branched_from"] == ("longer@25",)
    assert numbers_of(record) == numbers_of(train(config))


def test_an_interrupted_branch_goes_on_without_its_trunk(trunk, tmp_path):
    shutil.copytree(trunk, tmp_path / "trunk")
    config = tiny("wsd:peak=3e-3,steps=30,warmup=4,decay=12", eval={"every": 7})
    whole, out = train(config), tmp_path / "out"
    for stop in (0, 3):  # before the first update of its own, and after some
        asked = iter(range(100))
        half = train(config, out, branch=tmp_path / "trunk", stop=lambda: next(asked) == stop)  # noqa: B023
        assert (half.status, half.steps_done) == ("interrupted", 15 + stop)
        assert half.curve.loss.tolist() == whole.curve.loss[: 15 + stop].tolist()
    shutil.rmtree(tmp_path / "trunk")
    record = train(config, out, branch=tmp_path / "trunk")
    assert numbers_of(record) == numbers_of(whole)
    assert read_runs(out / "run.csv").extra["branched_from"] == ("trunk@15",)
    assert train(config, out, branch=tmp_path / "trunk").final_loss == whole.final_loss  # it is over
    with pytest.raises(InputError, match="which is not there"):
        train(config, out, branch=tmp_path / "trunk", restart=True)
    assert read_record(out).status == "completed"
    assert train(config, out, branch=trunk, restart=True).final_loss == whole.final_loss
    with pytest.raises(InputError, match=r"holds the run .* with other settings"):
        train(config.with_(seed=1), out, branch=trunk)


def test_losses_are_judged_by_the_length_of_the_new_run(tmp_path):
    strict = {"factor": 1.0001, "window": 0.0, "patience": 0.5}  # in trouble soon, diverged after half the run
    changes = {"divergence": strict, "eval": {"every": 7}, "checkpoint": EVERY, "log_every": 2}
    at_peak = "constant:peak={},steps={},warmup=4"
    diverged = {}
    for steps in (200, 24, 400):
        config = tiny(at_peak.format(1.0, steps), name=f"run-{steps}", **changes)
        record = train(config) if steps != 200 else train(config, tmp_path)
        if steps != 200:
            again = train(config, branch=tmp_path)
            assert numbers_of(again) == numbers_of(record)
        diverged[steps] = record.status, record.steps_done
    assert diverged[24][1] < diverged[200][1] <= 200
    assert diverged[24][0] == "diverged"


@pytest.mark.parametrize(
    ("schedule", "changes", "message"),
    [
        (
            CONSTANT,
            {"model": {"width": 32}},
            "branch: model.width must be the trunk's, 16, got 32; change it, or train",
        ),
        (CONSTANT, {"seed": 1}, "branch: seed must be the trunk's, 0, got 1"),
        (CONSTANT, {"data_seed": 1}, "branch: data_seed must be the trunk's, 0, got 1"),
        (CONSTANT, {"optimizer": {"weight_decay": 0.2}}, "optimizer.weight_decay must be the trunk's, 0.1, got 0.2"),
        (CONSTANT, {"optimizer": {"name": "sgd"}}, "optimizer.name must be the trunk's, 'adamw', got 'sgd'"),
        (CONSTANT, {"seq_len": 16}, "seq_len must be the trunk's, 8, got 16"),
        (CONSTANT, {"log_every": 2}, "log_every must be the trunk's, 1, got 2"),
        (CONSTANT, {"divergence": {"factor": None}}, "divergence.factor must be the trunk's, 1.2, got None"),
        (CONSTANT, {"dtype": "bfloat16"}, "dtype must be the trunk's, 'auto', got 'bfloat16'"),
        ("constant:peak=2e-3,steps=24,warmup=4", {}, "got 0.0005 instead of 0.00075 at step 1; name an earlier"),
        (
            "constant:peak=3e-3,steps=4,warmup=4 then constant:peak=1e-3,steps=9",
            {},
            r"up to the checkpoint .*step-000000005\.pt, got 0\.001 instead of 0\.003 at step 4; name .*keep: null",
        ),
        ("constant:peak=3e-3,steps=5,warmup=4", {}, r"fewer updates than the 5 of this run, got 5 in .*keep: null"),
    ],
)
def test_what_differs_before_the_branch_is_told(schedule, changes, message, trunk, tmp_path):
    with pytest.raises(InputError, match=message):
        train(tiny(schedule, **changes), tmp_path / "out", branch=trunk)
    assert list((tmp_path / "out").iterdir()) == []


def test_places_that_are_no_trunk(trunk, tmp_path):
    config = tiny(CONSTANT)
    for place in (tmp_path / "none", tmp_path, trunk / "run.csv", trunk / "checkpoints"):
        with pytest.raises(InputError, match="branch must be the folder of a run of optlaws train or a file"):
            train(config, branch=place)
    train(tiny(TRUNK), tmp_path / "over")
    with pytest.raises(InputError, match=r"must hold a checkpoint, got none; .*checkpoint: {every: ..., keep: null}"):
        train(config, branch=tmp_path / "over")
    with pytest.raises(InputError, match="out must be another folder than that of the run to branch from"):
        train(config, trunk, branch=trunk / "checkpoints" / "step-000000005.pt", restart=True)
    other = tmp_path / "other"
    shutil.copytree(trunk, other)
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "seed": 3}))
    with pytest.raises(InputError, match=r"must be a checkpoint of the run whose config\.json lies in"):
        train(config.with_(seed=3), branch=other)
    for path in list_checkpoints(other / "checkpoints"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="not a whole checkpoint"):
        train(config.with_(seed=3), branch=other)


def test_runs_of_a_stack_are_no_trunk(tmp_path):
    runs = [tiny(CONSTANT, name=name, seed=seed, checkpoint=EVERY) for seed, name in enumerate("ab")]
    asked = iter(range(100))
    train_stacked(runs, tmp_path, stop=lambda: next(asked) == 8)
    (stack,) = tmp_path.glob("stack-*")
    for place in (stack, list_checkpoints(stack)[-1]):
        with pytest.raises(InputError, match="trained as a stack, whose checkpoints hold all of them; name a run"):
            train(runs[0], branch=place)
    with pytest.raises(InputError, match="must hold a checkpoint, got none"):
        train(runs[0], branch=tmp_path / "a")
    (tmp_path / "a" / "checkpoints").mkdir()
    shutil.copy(list_checkpoints(stack)[-1], tmp_path / "a" / "checkpoints")
    with pytest.raises(InputError, match="got one of another run, of a stack or of another update"):
        train(runs[0], branch=tmp_path / "a")


def test_checkpoints_without_every_loss(trunk, tmp_path):
    """As earlier versions wrote them: the curve tells the losses, if it has all."""
    config = tiny("wsd:peak=3e-3,steps=20,warmup=4,decay=6", eval={"every": 7})
    whole = train(config)
    for log_every in (1, 4):
        old = trunk_in(tmp_path / str(log_every), log_every=log_every)
        for path in list_checkpoints(old / "checkpoints"):
            content = torch.load(path, weights_only=True)
            del content["members"][0]["every_loss"]
            torch.save(content, path)
        if log_every == 1:
            assert numbers_of(train(config, branch=old)) == numbers_of(whole)
        else:
            with pytest.raises(InputError, match="must hold the loss of each of its 15 updates, got not every loss"):
                train(config.with_(log_every=4), branch=old)
