"""optlaws risk, and the risk in rank, predict, fit and law files."""

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusal import refused

from optlaws import load_law, parse, rank
from optlaws.errors import InputError, RiskError
from optlaws.law import Law
from optlaws.runs import RunTable

ROOT = Path(__file__).resolve().parents[2]
SAFE = "cosine:peak=1e-3,steps=50000,warmup=300"
RISKY = "wsd:peak=8e-3,steps=50000,warmup=100,decay=0.2"
NAME = "llama-slimpajama"
SIZES = ["--params", "85M", "--batch-tokens", "51200"]


@pytest.fixture(scope="module")
def law():
    return load_law(NAME)


def table(*specs, **columns):
    return RunTable.build([parse(s) for s in specs], params=85e6, batch_tokens=51200.0, weight_decay=0.1, **columns)


class TestRisk:
    def test_table(self, run):
        code, out, err = run("risk", NAME, SAFE, RISKY, *SIZES)
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0] == "Law llama-slimpajama, 85M parameters, 51.2K tokens a step, accepted risk 5 %"
        rows = [line for line in lines if "steps=50000" in line]
        assert "< 1 %" in rows[0]
        assert "> 99 %" in rows[1]
        assert "short warm-up" in rows[1]
        assert "lower the peak rate to 0.00" in rows[1]
        assert "1 of 2 at or below 5 %." in out

    def test_json_says_why_and_what_to_change(self, run):
        code, out, _ = run("risk", NAME, SAFE, RISKY, *SIZES, "--format", "json", "--max-risk", "10%")
        assert code == 0
        document = json.loads(out)
        assert document["accepted"] == 0.1
        safe, risky = document["candidates"]
        assert safe["safe"]
        assert not risky["safe"]
        assert risky["criterion"] > risky["threshold"] == 1
        assert risky["criterion"] == pytest.approx(risky["felt_rate"] / risky["critical_rate"])
        assert safe["changes"] == []
        assert risky["change"] == risky["changes"][0]["lever"] == "peak_lr"
        assert parse(risky["schedule"]).peak == 8e-3
        lower = risky["change_to"]
        again = json.loads(run("risk", NAME, RISKY.replace("8e-3", repr(lower)), *SIZES, "--format", "json")[1])
        assert again["candidates"][0]["divergence_risk"] == pytest.approx(0.1, abs=1e-3)

    def test_csv(self, run):
        code, out, _ = run("risk", NAME, SAFE, RISKY, *SIZES, "--format", "csv")
        rows = list(csv.DictReader(io.StringIO(out)))
        assert code == 0
        assert rows[0]["schedule"].startswith("cosine:peak=0.001")
        assert [row["safe"] for row in rows] == ["true", "false"]
        assert rows[0]["change_to"] == ""
        assert float(rows[1]["divergence_risk"]) > 0.9

    def test_a_run_table(self, run, tmp_path):
        (tmp_path / "runs.csv").write_text(
            "run_id,schedule,params,batch_tokens,beta1,status,final_loss\n"
            f'one,"{RISKY}",85M,51200,0.9,diverged,\n'
            f'two,"{SAFE}",85M,51200,0.98,completed,3.1\n'
        )
        code, out, _ = run("risk", NAME, "runs.csv", "--format", "json")
        assert code == 0
        one, two = json.loads(out)["candidates"]
        assert (one["name"], two["name"], two["beta1"]) == ("one", "two", 0.98)
        assert one["divergence_risk"] > 0.9 > two["divergence_risk"]

    @pytest.mark.parametrize("over", ["warmup", "batch"])
    def test_map(self, run, tmp_path, over):
        code, _, _ = run("risk", NAME, RISKY, *SIZES, "--plot", "map.png", "--over", over)
        assert code == 0
        assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"

    def test_exit_code_3_when_all_are_above(self, run):
        code, out, err = run("risk", NAME, RISKY, *SIZES, "--max-risk", "0.05")
        assert code == 3
        assert "0 of 1 at or below 5 %." in out
        assert err.startswith("optlaws: every candidate has a divergence risk above 0.05, the lowest ")
        assert run("risk", NAME, RISKY, SAFE, *SIZES, "--max-risk", "0.05")[0] == 0
        assert run("risk", NAME, RISKY, *SIZES)[0] == 0  # no gate was asked for

    def test_minus_zero_is_zero(self, run):
        code, out, err = run("risk", NAME, SAFE, *SIZES, "--max-risk", "-0")
        assert code == 3
        assert "accepted risk 0 %" in out
        assert "above 0, the lowest" in err

    def test_the_width_of_the_network(self, run, tmp_path):
        edge = "cosine:peak=8e-3,steps=50000,warmup=2000"
        (tmp_path / "c.csv").write_text(f'schedule,width\n"{edge}",400\n"{edge}",\n"{edge}",900\n')
        code, out, _ = run("risk", NAME, "c.csv", *SIZES, "--format", "json")
        assert code == 0
        found = json.loads(out)["candidates"]
        assert [one["width"] for one in found] == [400, None, 900]
        narrow, unsaid, wide = (one["divergence_risk"] for one in found)
        assert narrow < unsaid < wide
        given = json.loads(run("risk", NAME, "c.csv", *SIZES, "--width", "400", "--format", "json")[1])["candidates"]
        assert [one["divergence_risk"] for one in given] == [narrow, narrow, wide]
        (tmp_path / "c.csv").write_text(f'schedule,width\n"{edge}",wide\n')
        refused(run("risk", NAME, "c.csv", *SIZES), "c.csv, line 2: width must be a finite number above 0, got 'wide'")

    @pytest.mark.parametrize("name", ["c.yaml", "c.json", "c.txt", "shared.yaml"])
    def test_documents_know_the_width_as_tables_do(self, run, tmp_path, name):
        edge = "cosine:peak=8e-3,steps=50000,warmup=2000"
        entries = [{"name": "a", "schedule": edge, "width": 900}, {"name": "b", "schedule": edge, "width": "1.8K"}]
        document = entries
        if name == "shared.yaml":
            entries[0].pop("width")
            document = {"width": 900, "candidates": entries}
        lines = map(json.dumps, entries)
        (tmp_path / name).write_text("\n".join(lines) if name.endswith(".txt") else json.dumps(document))
        (tmp_path / "c.csv").write_text(f'name,schedule,width\na,"{edge}",900\nb,"{edge}",1.8K\n')
        for command in (["risk", NAME], ["rank"]):
            table, found = (run(*command, file, *SIZES, "--format", "csv") for file in ("c.csv", name))
            assert table[0] == 0
            assert found == table
        (tmp_path / name).write_text((tmp_path / name).read_text().replace("1.8K", "wide"))
        refused(run("rank", name), name, "width must be a finite number above 0, got 'wide'")

    def test_plain_sgd_is_not_known(self, run, tmp_path):
        (tmp_path / "c.csv").write_text(f'schedule,params,batch_tokens,optimizer\n"{SAFE}",85M,51200,sgd\n')
        code, out, err = run("risk", NAME, "c.csv", "--max-risk", "0.5")
        assert code == 3
        assert "unknown" in out
        assert "no candidate has a known divergence risk" in err

    def test_as_a_process(self):
        done = subprocess.run(
            [sys.executable, "-m", "optlaws", "risk", "steplaw-dense", "cosine:peak=2e-2,steps=8000,warmup=2000",
             "--params", "400M", "--batch-tokens", "1M", "--max-risk", "5%"],
            capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=240,
            check=False,
        )  # fmt: skip
        assert done.returncode == 3
        assert "lower the peak rate to" in done.stdout
        assert done.stderr.count("\n") == 1


class TestBadInput:
    def test_refusals(self, run):
        refused(run("risk", NAME), "CANDIDATES")
        refused(run("risk", "nothing.json", SAFE), "law must be a law file or one of")
        refused(run("risk", NAME, SAFE, "--max-risk", "1.5"), "--max-risk must be a probability from 0 to 1, got '1.5'")
        refused(run("risk", NAME, SAFE, "--max-risk", "high"), "write it like 0.05 or 5%")
        refused(run("risk", NAME, SAFE, "--max-risk", "nan"), "got 'nan'")
        refused(run("risk", NAME, SAFE, "--plot", "map.txt"), "suffix")
        refused(run("risk", NAME, SAFE, "--over", "loss"), "--over")
        refused(run("risk", NAME, "cosine:peak=-1,steps=10"), "peak must be")
        refused(run("risk", NAME, SAFE, "--plot", "a.png", "-o", "a.png"), "every output must have its own place")
        refused(run("rank", SAFE, "--max-risk", "-1"), "--max-risk must be")

    def test_a_law_without_a_risk_model(self, run, law, tmp_path):
        replace(law, risk=None).save(tmp_path / "old.json")
        assert "risk" not in json.loads((tmp_path / "old.json").read_text())
        old = Law.load(tmp_path / "old.json")
        assert old.risk is None
        refused(run("risk", "old.json", SAFE), "must have a risk model", "fit it again")
        refused(run("rank", SAFE, "--law", "old.json", "--max-risk", "0.1"), "max_risk needs a law with a risk model")
        code, out, _ = run("rank", SAFE, RISKY, "--law", "old.json", *SIZES)
        assert code == 0
        assert " risk " not in out.splitlines()[2]
        assert rank(table(SAFE, RISKY), old).risk is None

    def test_a_damaged_risk_entry(self, run, law, tmp_path):
        law.save(tmp_path / "bad.json")
        document = json.loads((tmp_path / "bad.json").read_text())
        document["risk"]["scatter"] = "wide"
        (tmp_path / "bad.json").write_text(json.dumps(document))
        refused(run("rank", SAFE, "--law", "bad.json"), "bad.json", "the entry 'risk' is damaged")


class TestRank:
    def test_a_risky_schedule_is_never_recommended_silently(self, law):
        runs = table("cosine:peak=2.5e-3,steps=50000,warmup=100", SAFE)
        ranking = rank(runs, law)
        assert ranking.risk[0] > 0.05 > ranking.risk[1]
        first = int(ranking.order[0])
        sentence = ranking.advice
        assert "divergence risk above 5 %:" in sentence
        if ranking.risk[first] > 0.05:
            assert "Do not run 1" in sentence or "prefer 2" in sentence

    @pytest.mark.parametrize("losses", [(3.0, 3.1), (3.0, 3.0001)])
    def test_advice_names_the_best_safe_one(self, losses):
        """With losses told, a clear best and one that cannot be told apart."""
        from fake_law import FixedLaw

        class Model:
            def probability(self, runs, defaults=None):
                return np.array([0.4, 0.01])

        class WithRisk(FixedLaw):
            risk = Model()

        ranking = rank(table(RISKY, SAFE), WithRisk(list(losses), [[0.0], [0.0]], noise=0.001))
        assert ranking.order.tolist() == [0, 1]
        assert "divergence risk above 5 %: 1 (40 %)" in ranking.advice
        if losses[1] > 3.05:
            expected = (
                "Do not run 1 as planned: it has the lowest predicted loss, but diverges with a probability of 40 %"
                " by this law's account, above the accepted 5 %; the best safe"
            )
            assert ranking.advice.startswith(f"{expected} one is 2, for 0.100")
        else:
            assert "prefer 2: its divergence risk is at most the accepted 5 %" in ranking.advice

    def test_no_safe_candidate(self):
        from fake_law import FixedLaw

        class Model:
            def probability(self, runs, defaults=None):
                return np.full(len(runs), 0.4)

        class WithRisk(FixedLaw):
            risk = Model()

        advice = rank(table(RISKY, SAFE), WithRisk([3.0, 3.1], [[0.0], [0.0]])).advice
        assert "and no candidate is safe" in advice
        assert "1 (40 %), 2 (40 %)" in advice
        alone = rank(table(RISKY), WithRisk([3.0], [[0.0]])).advice
        assert alone.startswith("Only one candidate")
        assert "divergence risk above 5 %: 1 (40 %)" in alone

    def test_max_risk_leaves_candidates_out(self, law, run):
        runs = table(RISKY, SAFE)
        ranking = rank(runs, law, max_risk=0.05)
        assert len(ranking) == 1
        assert ranking.names == (str(parse(SAFE)),)
        assert ranking.max_risk == 0.05
        code, out, _ = run("rank", RISKY, SAFE, *SIZES, "--max-risk", "5%", "--format", "json", "--curves")
        candidates = json.loads(out)["candidates"]
        assert code == 0
        assert [c["short"] for c in candidates] == [str(parse(SAFE))]
        assert candidates[0]["divergence_risk"] < 0.05
        assert candidates[0]["curve"]["step"][-1] == 50000

    def test_exit_code_3(self, law, run):
        code, out, err = run("rank", RISKY, *SIZES, "--max-risk", "0.05")
        assert (code, out) == (3, "")
        assert "every candidate has a divergence risk above 0.05" in err
        code, out, _ = run("rank", RISKY, *SIZES, "--max-risk", "0.05", "--format", "json")
        document = json.loads(out)
        assert (code, document["candidates"], document["preferred"]) == (3, [], None)
        assert document["left_out"][0]["name"] == str(parse(RISKY))
        assert document["left_out"][0]["divergence_risk"] > 0.05
        assert document["advice"] in err
        with pytest.raises(RiskError, match="smallest safe change"):
            rank(table(RISKY), law, max_risk=0.05)
        with pytest.raises(InputError, match="max_risk must be a probability from 0 to 1, got 2"):
            rank(table(RISKY), law, max_risk=2)

    def test_a_refusal_leaves_no_earlier_ranking_in_its_file(self, run, tmp_path):
        asked = ("rank", RISKY, "--law", NAME, *SIZES, "--max-risk", "0.01")
        assert run("rank", SAFE, "--law", NAME, *SIZES, "--format", "csv", "-o", "out.csv")[0] == 0
        header, row = (tmp_path / "out.csv").read_text().splitlines()
        assert run(*asked, "--format", "csv", "-o", "out.csv")[0] == 3
        assert (tmp_path / "out.csv").read_text() == f"{header}\n"
        (tmp_path / "out.txt").write_text(row)
        code, out, err = run(*asked, "-o", "out.txt")
        assert (code, out) == (3, "")
        said = (tmp_path / "out.txt").read_text()
        assert said.startswith("No ranking: ")
        assert said.removeprefix("No ranking: ").removesuffix(".\n") in err

    def test_column_and_records(self, run):
        _, out, _ = run("rank", RISKY, SAFE, *SIZES)
        assert out.splitlines()[2].split()[-3:] == ["risk", "in", "domain"]
        _, out, _ = run("rank", RISKY, SAFE, *SIZES, "--format", "csv")
        risks = [float(row["divergence_risk"]) for row in csv.DictReader(io.StringIO(out))]
        assert max(risks) > 0.9
        assert min(risks) < 0.01


class TestElsewhere:
    def test_predict_fills_divergence_risk(self, run, tmp_path):
        (tmp_path / "runs.csv").write_text(
            f'run_id,schedule,params,batch_tokens\nrisky,"{RISKY}",85M,51200\nsafe,"{SAFE}",85M,51200\n'.replace(
                "85M", "85e6"
            )
        )
        for extra in ([], ["--curves"]):
            assert run("predict", NAME, "runs.csv", *extra, "-o", "out.csv")[0] == 0
            with open(tmp_path / "out.csv", newline="") as stream:
                found = {row["run_id"]: float(row["divergence_risk"]) for row in csv.DictReader(stream)}
            assert found["risky"] > 0.9
            assert found["safe"] < 0.01

    def test_fit_adds_a_risk_model(self, run, tmp_path):
        assert run("fit", ROOT / "examples" / "my_runs.csv", "-o", "mine.json")[0] == 0
        mine = Law.load(tmp_path / "mine.json")
        assert mine.risk is not None
        assert mine.risk.info["n_runs"] == 36
        assert run("risk", "mine.json", SAFE, *SIZES)[0] == 0

    def test_law_files_keep_the_risk(self, law, tmp_path):
        law.save(tmp_path / "law.json")
        again = Law.load(tmp_path / "law.json")
        assert again.risk.to_dict() == law.risk.to_dict()
        runs = table(SAFE, RISKY)
        assert np.array_equal(again.risk.probability(runs), law.risk.probability(runs))

    def test_built_in_models_hold_no_runs(self, law):
        """Ten numbers, their covariance, ranges, medians, and where they come from."""
        data = load_law("steplaw-dense").risk.to_dict()
        assert len(data["mean"]) == 8
        assert len(data["covariance_upper_triangle"]) == 36
        assert len(json.dumps(data)) < 4000
        assert data["mean"][:7] == law.risk.to_dict()["mean"][:7]

    def test_more_candidates_than_have_intervals(self, law):
        from optlaws import ScheduleBatch
        from optlaws.ranking import JOINT

        n = JOINT + 50
        batch = ScheduleBatch.grid("cosine", peak=np.geomspace(1e-3, 8e-2, n), steps=50000, warmup=300)
        runs = RunTable.build(batch, params=85e6, batch_tokens=51200.0, weight_decay=0.1)
        ranking = rank(runs, law)
        assert np.isnan(ranking.risk).sum() == 50
        assert len(rank(runs, law, max_risk=1e-9)) < n / 4
