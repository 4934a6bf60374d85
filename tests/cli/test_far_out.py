"""What commands say of runs far from those of a law."""

from pathlib import Path

import numpy as np

from optlaws import load_law
from optlaws.report import rank_table

ROOT = Path(__file__).resolve().parents[2]
FAR = ["cosine:peak=1e-3,warmup=1000,steps=40000", "--params", "1B", "--tokens", "20B", "--batch-tokens", "500K"]
LARGER = "1B is 5.9 times the largest size of the law's runs: losses are weak there, and intervals may be too narrow."


def test_the_last_line_of_a_ranking(run):
    assert run("rank", *FAR, "--law", "llama-slimpajama")[1].splitlines()[-1] == LARGER
    near = run("rank", "cosine:peak=1e-3,warmup=300", "--params", "85M", "--tokens", "1B")[1]
    assert "the largest size" not in near


def test_in_the_page(run, tmp_path):
    run("rank", *FAR, "--law", "llama-slimpajama", "--html", tmp_path / "page.html")
    assert "1B is 5.9 times the largest size of the law&#x27;s runs" in (tmp_path / "page.html").read_text()


def test_predict_and_recommend_and_optimize(run, tmp_path):
    spec = '"cosine:peak=1e-3,warmup=300,steps=40000"'
    (tmp_path / "runs.csv").write_text(f"run_id,params,batch_tokens,schedule\na,1B,51200,{spec}\n")
    ask = ("predict", "llama-slimpajama", tmp_path / "runs.csv", "-o")
    assert run(*ask, tmp_path / "out.csv")[1].splitlines()[-1] == LARGER
    _, out, err = run(*ask, "-")
    assert LARGER in err
    assert LARGER not in out
    sizes = ("--params", "1B", "--tokens", "2B", "--law", "llama-slimpajama")
    assert run("recommend", *sizes)[1].splitlines()[-1] == LARGER
    assert LARGER in run("optimize", *sizes, "--knots", 0)[1]


def test_the_nearer_law_is_named_where_none_has_seen_such_runs(run):
    _, out, err = run("rank", *FAR)
    assert out.startswith("Law llama-slimpajama")
    assert (
        "no built-in law has seen such runs; 'steplaw-dense' is nearer (out of its domain: params by 1.9 times)" in err
    )
    assert "batch_tokens by 9.8 times" in err
    assert err.endswith("--law steplaw-dense\n")
    assert "nearer" not in run("rank", *FAR, "--law", "steplaw-dense")[2]
    near = (
        "rank",
        "wsd:peak=1e-3,warmup=300,decay=0.2",
        "--params",
        "85M",
        "--tokens",
        "4B",
        "--batch-tokens",
        "51200",
    )
    assert "nearer" not in run(*near)[2]  # the default is the nearest


def test_a_risk_outside_its_domain_says_so_beside_the_number(run):
    ask = ("--params", "85M", "--tokens", "1B", "--batch-tokens", "51200")
    _, out, _ = run("risk", "llama-slimpajama", "cosine:peak=1e-3,warmup=300", "cosine:peak=0.9,warmup=300", *ask)
    rows = [line for line in out.splitlines() if line.startswith("cosine")]
    assert [("% (careful)" in row, row.rstrip().endswith("yes")) for row in rows] == [(False, True), (True, False)]


def test_the_divergence_in_the_odds(run, monkeypatch):
    law = load_law("llama-slimpajama")
    monkeypatch.setattr(type(law), "risks", lambda self, runs: np.full(len(runs), 0.03), raising=False)
    out = run("optimize", "--params", "85M", "--tokens", "1B", "--knots", 0)[1]
    line = next(line for line in out.splitlines() if line.startswith("* against the best"))
    assert line.endswith("% (3 % diverge)")


def test_no_last_line_is_no_line():
    from optlaws import RunTable, rank

    ranking = rank(RunTable.build(["cosine:peak=1e-3,steps=50000,warmup=300"], params=85e6), "llama-slimpajama")
    assert rank_table(ranking) + "more\n" == rank_table(ranking, last="more")
