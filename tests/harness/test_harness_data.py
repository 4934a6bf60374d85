"""Token files, the corpus, data sets, the noise of the quadratic."""

import json
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the training harness needs the extra train")

from tiny_runs import tiny

from optlaws.errors import InputError
from optlaws.harness import corpus, train
from optlaws.harness.sections import CorpusData, HubData
from optlaws.harness.sources import open_source
from optlaws.harness.tokens import Pieces, hold_out_rows, open_hub

CPU = torch.device("cpu")
STREAM = np.random.default_rng(0).integers(0, 50, 1000)


def token_config(path, **changes):
    return tiny(data={"kind": "tokens", "train": str(path), "vocab": 50, **changes})


@pytest.fixture
def raw(tmp_path):
    STREAM.astype(np.uint16).tofile(tmp_path / "train.bin")
    return tmp_path / "train.bin"


def rows(source, step, count=4):
    inputs, targets = source.train(step, 0, count)
    assert torch.equal(inputs[..., 1:], targets[..., :-1])
    return torch.cat([inputs, targets[..., -1:]], dim=-1)


def test_every_window_is_seen_once_a_pass(raw):
    source = open_source(token_config(raw), [3], CPU)
    windows = (990 - 1) // 8
    seen = torch.cat([rows(source, step) for step in range(windows // 4 * 2 + 2)])
    expected = {tuple(STREAM[8 * i : 8 * i + 9]) for i in range(windows)}
    first, second = seen[:windows].tolist(), seen[windows : 2 * windows].tolist()
    assert {tuple(row) for row in first} == {tuple(row) for row in second} == expected
    assert first != second
    again = open_source(token_config(raw), [3], CPU)
    assert torch.equal(rows(again, 17), rows(source, 17))
    assert torch.equal(again.train(17, 1, 2)[0], rows(source, 17)[1:3, :-1])
    assert not torch.equal(rows(open_source(token_config(raw), [4], CPU), 0), seen[:4])


def test_validation_is_the_end_of_the_stream_or_a_file_of_its_own(raw, tmp_path):
    inputs, _ = open_source(token_config(raw, val_fraction=0.1), [0], CPU).validation(0, 3)
    assert inputs[0].tolist() == STREAM[900:908].tolist()
    np.save(tmp_path / "val.npy", STREAM[::-1].copy())
    inputs, _ = open_source(token_config(raw, val=str(tmp_path / "val.npy")), [0], CPU).validation(1, 2)
    assert inputs[0].tolist() == STREAM[::-1][8:16].tolist()
    with pytest.raises(InputError, match=r"eval.sequences must be at most 1,"):
        open_source(token_config(raw), [0], CPU).validation(0, 2)


def test_stacked_orders(raw):
    both = open_source(token_config(raw), [0, 1], CPU)
    single = [open_source(token_config(raw), [seed], CPU) for seed in (0, 1)]
    assert torch.equal(rows(both, 5), torch.stack([rows(one, 5) for one in single]))
    both.keep([1])
    assert torch.equal(rows(both, 6), rows(single[1], 6))
    shared = open_source(token_config(raw), [1, 1], CPU)
    assert torch.equal(rows(shared, 5), rows(single[1], 5))


@pytest.mark.parametrize("kind", ["synthetic", "noise"])
def test_stacked_orders_of_made_data(kind):
    config = tiny() if kind == "synthetic" else tiny(model={"kind": "quadratic"}, data={"kind": "noise"}, seq_len=1)
    both = open_source(config, [0, 1], CPU)
    single = [open_source(config, [seed], CPU) for seed in (0, 1)]
    for step in (0, 3, 500, 3):
        expected = torch.stack([one.train(step, 0, 4)[0] for one in single])
        assert torch.equal(both.train(step, 0, 4)[0], expected)
    both.keep([1])
    assert torch.equal(both.train(3, 0, 4)[0], single[1].train(3, 0, 4)[0])
    assert torch.equal(both.validation(0, 2)[0], single[0].validation(0, 2)[0])


def test_synthetic_orders_are_made_in_one_go(monkeypatch):
    """Runs with the same order among runs with others: no sequence is made twice, and no order by itself."""
    from optlaws.harness.synthetic import Sampler

    made, own = [], Sampler.sequences

    def count(self, seeds, numbers, length):
        made.append(len(seeds))
        return own(self, seeds, numbers, length)

    seeds = [0, 5, 0, 0, 5, 2]
    single = {seed: open_source(tiny(), [seed], CPU).train(3, 1, 2)[0] for seed in seeds}
    many = open_source(tiny(), seeds, CPU)
    monkeypatch.setattr(Sampler, "sequences", count)
    assert torch.equal(many.train(3, 1, 2)[0], torch.stack([single[seed] for seed in seeds]))
    assert len(made) == 1
    assert made[0] % 3 == 0
    many.keep([0, 2, 3])
    assert torch.equal(many.train(3, 1, 2)[0], torch.stack([single[0]] * 3))
    many.train(10_000, 0, 1)
    assert made[1] * 3 == made[0]


def test_synthetic_batches_do_not_depend_on_how_they_are_cut():
    source, other = (open_source(tiny(batch=batch), [0], CPU) for batch in (4, 2))
    whole = torch.cat([source.train(step, 0, 4)[0] for step in range(3)])
    assert torch.equal(whole, torch.cat([other.train(step, 0, 2)[0] for step in range(6)]))


def test_as_many_updates_are_made_at_once_as_the_distinct_orders_have_room(monkeypatch):
    """Six runs of two orders get as many updates of tokens at once as two runs; more at once changes no loss."""
    from optlaws.harness.synthetic import Sampler

    made, own = [], Sampler.sequences
    monkeypatch.setattr(Sampler, "sequences", lambda self, *args: made.append(len(args[0])) or own(self, *args))
    room = 10 * 2 * 4 * 9  # tokens of ten updates of two orders, with the token that follows
    monkeypatch.setattr("optlaws.harness.sources.CPU_BLOCK", room)
    for seeds in ([0, 1], [0, 1, 0, 0, 1, 0]):
        open_source(tiny(), seeds, CPU).train(0, 0, 4)
    assert made == [10 * 2 * 4] * 2
    few = train(tiny(seed=1))
    monkeypatch.setattr("optlaws.harness.sources.CPU_STEPS", 512)
    monkeypatch.setattr("optlaws.harness.sources.CPU_BLOCK", 1 << 22)
    many = train(tiny(seed=1))
    assert many.curve.loss.tolist() == few.curve.loss.tolist()
    assert 512 * 4 in made


def test_noise_is_normal():
    config = tiny(model={"kind": "quadratic", "dimension": 1000}, data={"kind": "noise"}, seq_len=1)
    source = open_source(config, [0], CPU)
    draws = torch.cat([source.train(step, 0, 4)[0] for step in range(50)])
    assert abs(draws.mean().item()) < 0.01
    assert draws.var().item() == pytest.approx(0.25, rel=0.02)
    assert (draws.abs() > 0.5).double().mean().item() == pytest.approx(0.3173, abs=0.01)


def test_bad_token_files(raw, tmp_path):
    for changes, match in (
        ({"train": str(tmp_path / "none.bin")}, "data.train must be a file of token ids"),
        ({"dtype": "int64", "train": str(tmp_path / "odd.bin")}, "cannot be read as int64 tokens"),
        ({"train": str(tmp_path / "flat.npy")}, "must be one flat array of whole numbers"),
        ({"train": str(tmp_path / "short.npy")}, "seq_len must be at most the 7 tokens of the training data"),
    ):
        (tmp_path / "odd.bin").write_bytes(b"123")
        np.save(tmp_path / "flat.npy", np.ones((2, 2)))
        np.save(tmp_path / "short.npy", np.arange(8))
        with pytest.raises(InputError, match=match):
            open_source(token_config(raw, **changes), [0], CPU)
    with pytest.raises(InputError, match=r"data.vocab must be at least"):
        rows(open_source(token_config(raw, vocab=20), [0], CPU), 0)


def test_wider_tokens_than_said_are_refused(tmp_path):
    STREAM.astype(np.uint32).tofile(tmp_path / "wide.bin")
    with pytest.raises(InputError, match=r"data.dtype must be uint32 for .*wide.bin"):
        open_source(token_config(tmp_path / "wide.bin"), [0], CPU)
    source = open_source(token_config(tmp_path / "wide.bin", dtype="uint32"), [3], CPU)
    assert source.train(0, 0, 1)[0].max() < 50


def test_the_header_of_llm_c_is_no_token(raw, tmp_path):
    head = np.zeros(256, dtype=np.int32)
    head[:3] = 20240520, 1, len(STREAM)
    (tmp_path / "headed.bin").write_bytes(head.tobytes() + raw.read_bytes())
    plain, headed = (open_source(token_config(path), [3], CPU) for path in (raw, tmp_path / "headed.bin"))
    assert torch.equal(rows(plain, 5), rows(headed, 5))
    assert plain.digest == headed.digest


def test_pieces_are_one_array():
    parts = [np.arange(3), np.arange(0), np.arange(3, 10), np.arange(10, 11)]
    pieces = Pieces(parts)
    assert len(pieces) == 11
    for begin in range(12):
        for end in range(begin, 12):
            assert pieces[begin:end].tolist() == list(range(begin, min(end, 11)))


@pytest.fixture
def small_corpus(monkeypatch, tmp_path):
    monkeypatch.setattr(corpus, "ROOTS", ("click",))
    monkeypatch.setenv(corpus.CACHE, str(tmp_path / "cache"))
    return tmp_path


def corpus_config(**changes):
    return tiny(data={"kind": "corpus", "vocab": 300, "megabytes": 0.5, **changes})


@pytest.mark.parametrize("vocab", [257, 300])
def test_corpus(small_corpus, vocab):
    if vocab > 257:
        pytest.importorskip("tokenizers", reason="tokenizers is not installed: the corpus is one token a byte")
    config = corpus_config(vocab=vocab)
    source = open_source(config, [0], CPU)
    (folder,) = (small_corpus / "cache").iterdir()
    facts = json.loads((folder / "corpus.json").read_text())
    assert source.vocab == facts["vocab"] == vocab
    assert source.digest == facts["digest"]
    assert "click" in facts["packages"]
    assert facts["bytes"] <= 0.5e6
    ids = np.fromfile(folder / "train.bin", dtype=np.uint16)
    assert len(ids) == facts["train_tokens"]
    if vocab == 257:
        text = bytes(ids[ids < 256].astype(np.uint8)).decode("utf-8")
    else:
        import tokenizers

        text = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).decode(ids.tolist())
    assert "import click" in text or "import typing as t" in text
    assert (ids == (256 if vocab == 257 else 0)).sum() > 1
    mtime = (folder / "train.bin").stat().st_mtime_ns
    again = open_source(config, [0], CPU)  # read, not built
    assert (folder / "train.bin").stat().st_mtime_ns == mtime
    other = corpus.build_corpus(config.data, small_corpus / "other")
    assert other["digest"] == again.digest
    assert rows(source, 0).max() < vocab


def test_corpus_without_tokenizers_is_bytes(small_corpus, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(corpus, "import_module", missing)
    assert open_source(corpus_config(), [0], CPU).vocab == 257


def test_bad_corpora(small_corpus):
    data = CorpusData(vocab=257, megabytes=0.5, folder=str(small_corpus / "mine"))
    corpus.open_corpus(data)
    with pytest.raises(InputError, match=r"data.folder must be a folder whose corpus has vocab 257 and megabytes 0.4"):
        corpus.open_corpus(CorpusData(vocab=257, megabytes=0.4, folder=data.folder))
    with open(small_corpus / "mine" / "train.bin", "ab") as stream:
        stream.write(b"xx")
    with pytest.raises(InputError, match="are cut off"):
        corpus.open_corpus(data)
    (small_corpus / "mine" / "corpus.json").write_text("{")
    with pytest.raises(InputError, match="holds no whole corpus"):
        corpus.open_corpus(data)
    with pytest.raises(InputError, match=r"data.megabytes must be enough"):
        corpus.open_corpus(CorpusData(vocab=257, megabytes=1e-4))


def test_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    parts = np.split(STREAM, [100, 100, 350, 700])
    made = datasets.Dataset.from_dict({"input_ids": [part.tolist() for part in parts], "text": ["a"] * 5})
    datasets.disable_progress_bars()
    made.save_to_disk(str(tmp_path / "set"))
    given = {"kind": "huggingface", "path": str(tmp_path / "set"), "vocab": 50}
    source = open_source(tiny(data=given), [0], CPU)
    np.save(tmp_path / "flat.npy", STREAM[:700])
    np.save(tmp_path / "last.npy", STREAM[700:])  # the last row
    flat = open_source(token_config(tmp_path / "flat.npy", val=str(tmp_path / "last.npy")), [0], CPU)
    assert torch.equal(rows(source, 3), rows(flat, 3))
    assert torch.equal(source.validation(0, 30)[1], flat.validation(0, 30)[1])
    assert source.digest == flat.digest
    with pytest.raises(InputError, match=r"data.column must be one of input_ids, text, got 'ids'"):
        open_source(tiny(data={**given, "column": "ids"}), [0], CPU)
    with pytest.raises(InputError, match=r"data.column must be a column with lists of token ids"):
        open_source(tiny(data={**given, "column": "text"}), [0], CPU)


@pytest.mark.parametrize(
    ("lengths", "fraction"),
    [([50] * 90 + [500] * 10, 0.1), ([50] * 90 + [500] * 10, 0.001), ([9, 0, 30, 2, 0, 40, 11, 0], 0.5), ([5, 6], 0.9)],
)
def test_no_row_of_a_data_set_lies_in_both_parts(lengths, fraction):
    parts = [[row] * length for row, length in enumerate(lengths)]
    tokens = Pieces([np.array(list(chain(*parts)), dtype=np.int64)])
    held = min(max(1, round(fraction * len(parts))), len(parts) - 1)
    if held < max(1, round(fraction * len(parts))):
        with pytest.raises(InputError, match=r"data.val_split must be a split, or val_fraction so small .* 2 rows"):
            hold_out_rows(tokens, np.cumsum(lengths), fraction)
        return
    train, validation = hold_out_rows(tokens, np.cumsum(lengths), fraction)
    assert train[0 : len(train)].tolist() == list(chain(*parts[:-held]))
    assert validation[0 : len(validation)].tolist() == list(chain(*parts[-held:]))


def test_hugging_face_rows_are_held_out_whole(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    datasets.disable_progress_bars()
    chance = np.random.default_rng(1)
    parts = [[row] * int(chance.integers(0, 60)) for row in range(50)]
    made = datasets.Dataset.from_dict({"input_ids": parts})
    cut = made.select(range(3, 47))
    joined = datasets.concatenate_datasets([made.select(range(20)), made.select(range(30, 50))])
    shuffled = made.shuffle(seed=0)
    for number, one in enumerate((made, cut, joined, shuffled)):
        one.save_to_disk(str(tmp_path / str(number)))
        given = HubData(path=str(tmp_path / str(number)), val_fraction=0.2)
        streams = open_hub(given)
        rows = [list(row) for row in one["input_ids"]]
        held = round(0.2 * len(rows))
        assert streams.train[0 : len(streams.train)].tolist() == list(chain(*rows[:-held]))
        assert streams.validation[0 : len(streams.validation)].tolist() == list(chain(*rows[-held:]))


@pytest.mark.parametrize("path", ["./none", "~/none", "some/where/none"])
def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(path, monkeypatch):
    library = SimpleNamespace(load_dataset=lambda *a, **k: pytest.fail("the network was asked"))
    monkeypatch.setattr("optlaws.harness.tokens.import_module", lambda name: library)
    config = tiny(data={"kind": "huggingface", "path": path, "vocab": 50})
    with pytest.raises(InputError, match=r"data.path must be a folder that is there, or the name of a data set"):
        open_source(config, [0], CPU)


def test_hugging_face_without_the_library(monkeypatch):
    from optlaws.harness import tokens

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(tokens, "import_module", missing)
    with pytest.raises(InputError, match="needs the library datasets"):
        open_source(tiny(data={"kind": "huggingface", "path": "x"}), [0], CPU)
