"""Batches in sequences and tokens in billions are refused with the number to write."""

import subprocess
import sys

import pytest

from optlaws.errors import TableError
from optlaws.runs import RunTable, read_candidates

COSINE = "cosine:peak=1e-3"


def test_a_batch_below_its_sequence_length():
    with pytest.raises(TableError, match=r"batch_tokens of run 'b' is 128, below its seq_len 2048: .* write 262144$"):
        RunTable.build([COSINE] * 2, run_id=["a", "b"], tokens=1e9, batch_tokens=[2048, 128], seq_len=2048)


@pytest.mark.parametrize(("tokens", "said"), [(3.1, "billions? write 3.1B"), (3100, "millions? write 3100M")])
def test_tokens_fewer_than_one_step(tokens, said):
    message = f"tokens of run 'a' is {tokens}, fewer than those of one step: {said}".replace("?", r"\?")
    with pytest.raises(TableError, match=message):
        RunTable.build(COSINE, run_id="a", tokens=tokens, batch_tokens=262144)
    with pytest.raises(TableError, match=message):
        RunTable.build(f"{COSINE},steps=11826", run_id="a", tokens=tokens, batch_tokens=262144)


def test_candidates_without_a_name_are_called_by_their_place():
    with pytest.raises(TableError, match=r"candidate 1: tokens is 3.1, fewer than those of one step: billions\?"):
        read_candidates([COSINE], tokens=3.1, batch_tokens=262144)


def test_one_sequence_a_step_and_one_step_are_fine():
    runs = RunTable.build(COSINE, tokens=2048, batch_tokens=2048, seq_len=2048)
    assert runs.steps.tolist() == [1.0]


def test_fit_refuses_a_table_in_sequences(tmp_path):
    path = tmp_path / "runs.csv"
    row = 'a{0},3e7,1e9,128,2048,"cosine:peak=1e-3",3.{0}\n'
    header = "run_id,params,tokens,batch_tokens,seq_len,schedule,final_loss\n"
    path.write_text(header + "".join(row.format(i) for i in "1234"))
    done = subprocess.run(
        [sys.executable, "-m", "optlaws", "fit", str(path), "-o", str(tmp_path / "law.json")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, (tmp_path / "law.json").exists()) == (2, False)
    assert "line 2: batch_tokens of run 'a1' is 128, below its seq_len 2048" in done.stderr
    assert done.stderr.endswith("write 262144\n")
