"""A law on another corpus: what is added to its uncertainty, what stays, and the commands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from optlaws import RunTable, fit_law, load_law, rank, read_runs
from optlaws.errors import InputError
from optlaws.law.discrepancy import OTHER_CORPUS, Discrepancy

ROOT = Path(__file__).resolve().parents[1]
RATES = tuple(f"{kind}:peak={peak},steps=50000,warmup=300" for kind in ("cosine", "wsd") for peak in (2e-4, 1e-3, 2e-3))


@pytest.fixture(scope="module")
def law():
    return load_law("llama-slimpajama")


@pytest.fixture(scope="module")
def runs():
    return RunTable.build([*RATES, RATES[0]], params=85e6, batch_tokens=51200, weight_decay=0.1)


def kernel(a, b):
    """Matern 3/2 of two points, written out."""
    r = np.sqrt(3 * sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    return (1 + r) * np.exp(-r)


def cli(*args):
    command = [sys.executable, "-m", "optlaws", *args]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


class TestCovariance:
    def test_losses_domain_and_noise_stay(self, law, runs):
        here, there = law.predict(runs), law.on_other_corpus().predict(runs)
        for name in ("loss", "noise", "in_domain", "reasons"):
            assert np.array_equal(getattr(here, name), getattr(there, name))

    def test_naive_twin(self, law, runs):
        here, there = law.predict(runs), law.on_other_corpus(Discrepancy(0.1, 0.02, 0.03)).predict(runs)
        z = there._view.coordinates
        n = len(runs)
        extra = np.empty((n, n))
        for i in range(n):
            for j in range(n):
                fields = 0.02**2 * kernel(z[i], z[j]) + 0.03**2 * kernel(z[i][:4], z[j][:4])
                extra[i, j] = here.loss[i] * here.loss[j] * (0.1**2 + fields)
        every = np.arange(n)
        assert there.covariance(every) == pytest.approx(here.covariance(every) + extra, rel=1e-9)
        assert there.covariance_with(2) == pytest.approx(there.covariance(every)[:, 2], rel=1e-9)
        assert (there.sd / there.loss) ** 2 == pytest.approx(
            (here.sd / here.loss) ** 2 + 0.1**2 + 0.02**2 + 0.03**2, rel=1e-9
        )
        assert np.linalg.eigvalsh(there.covariance(every)).min() > -1e-9

    def test_interval_is_that_of_the_standard_deviation(self, law, runs):
        p = law.on_other_corpus().predict(runs)
        assert np.log(p.upper / p.lower) == pytest.approx(2 * 1.6448536 * p.sd / p.loss, rel=1e-6)

    def test_only_the_first_four_coordinates_are_the_setting(self, law):
        # size, data, peak rate, batch: runs that share these differ by the schedule alone
        shapes = RunTable.build(
            ["cosine:peak=1e-3,steps=50000,warmup=300", "constant:peak=1e-3,steps=50000,warmup=300"], params=85e6,
            batch_tokens=51200,
        )  # fmt: skip
        only = Discrepancy(0.0, 0.0, 1.0)
        here, there = law.predict(shapes), law.on_other_corpus(only).predict(shapes)
        scale = np.outer(here.loss, here.loss)
        assert (there.covariance([0, 1]) - here.covariance([0, 1])) / scale == pytest.approx(np.ones((2, 2)), abs=1e-6)


class TestRanking:
    def test_a_level_alone_changes_no_odds(self, law, runs):
        here, there = rank(runs, law), rank(runs, law.on_other_corpus(Discrepancy(0.3, 0.0, 0.0)))
        assert there.p_best == pytest.approx(here.p_best, abs=0.01)
        assert there.difference_upper == pytest.approx(here.difference_upper, rel=1e-6)
        assert (there.upper - there.lower > 5 * (here.upper - here.lower)).all()
        assert (here.other_corpus, there.other_corpus) == (False, True)

    def test_differences_widen_with_distance(self, law):
        peaks = (1e-3, 1.1e-3, 5e-4, 2e-4)
        far = RunTable.build([f"linear:peak={p},steps=50000,warmup=300" for p in peaks], params=85e6)
        here, there = law.predict(far), law.on_other_corpus().predict(far)
        added = [
            there.covariance([0, i]) - here.covariance([0, i]) for i in (1, 2, 3)
        ]  # of the difference to the first
        extra = [c[0, 0] + c[1, 1] - 2 * c[0, 1] for c in added]
        assert 0 < extra[0] < extra[1] < extra[2]

    def test_two_equal_candidates_stay_equal(self, law, runs):
        r = rank(runs.select([0, 6]), law)
        s = rank(runs.select([0, 6]), law.on_other_corpus())
        assert s.difference_upper == pytest.approx(r.difference_upper, rel=1e-6)


class TestBadInput:
    @pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "wide", None])
    def test_no_standard_deviation(self, value):
        with pytest.raises(InputError, match=r"setting must be a finite number from 0, got .*; 0 leaves it out"):
            Discrepancy(0.1, 0.1, value)

    def test_no_discrepancy(self, law):
        with pytest.raises(InputError, match=r"discrepancy must be a Discrepancy, got 0\.1"):
            law.on_other_corpus(0.1)


class TestLawFile:
    def test_not_part_of_it(self, law, tmp_path):
        law.save(tmp_path / "a.json")
        law.on_other_corpus().save(tmp_path / "b.json")
        assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
        assert load_law(tmp_path / "b.json").discrepancy is None

    def test_the_short_text_says_it(self, law):
        assert repr(law.on_other_corpus()).startswith("<Law 'llama-slimpajama' on another corpus, basis ")
        assert "another" not in repr(law)

    def test_a_fitted_law_has_it_too(self):
        mine = fit_law(read_runs(ROOT / "examples" / "my_runs.csv"))
        assert mine.discrepancy is None
        assert mine.on_other_corpus().discrepancy == OTHER_CORPUS


class TestCommands:
    def test_rank_says_what_is_left_of_the_odds(self):
        told = cli("rank", *RATES[:2], "--params", "85M")
        assert (told.returncode, told.stderr) == (0, "")
        assert re.search(
            r"^Note: on another corpus .*, 1 has a P\(best\) of \d+ % \(--other-corpus\)\.$", told.stdout, re.M
        )
        asked = cli("rank", *RATES[:2], "--params", "85M", "--other-corpus")
        assert "Note" not in asked.stdout
        assert asked.stdout.startswith("Law llama-slimpajama on another corpus,")

    def test_json(self):
        documents = {}
        for options in ((), ("--other-corpus",)):
            result = cli("rank", *RATES[:2], "--params", "85M", "--format", "json", *options)
            assert result.stderr == ""
            documents[options] = json.loads(result.stdout)
        here, there = documents[()], documents[("--other-corpus",)]
        elsewhere = [one["p_best_other_corpus"] for one in here["candidates"]]
        assert elsewhere == pytest.approx([one["p_best"] for one in there["candidates"]], abs=1e-12)
        assert there["candidates"][0]["p_best_other_corpus"] is None
        assert (here["other_corpus"], there["other_corpus"]) == (False, True)
        assert there["law"] == "llama-slimpajama"
        assert there["candidates"][0]["p_best"] < here["candidates"][0]["p_best"]

    def test_page_and_csv(self, tmp_path):
        out = tmp_path / "page.html"
        table = cli("rank", *RATES[:2], "--params", "85M", "--format", "csv", "--html", str(out)).stdout
        assert table.splitlines()[0].split(",")[-2:] == ["reasons", "p_best_other_corpus"]
        assert "Note: on another corpus or kind of network" in out.read_text(encoding="utf-8")

    def test_own_laws_say_nothing(self, law, tmp_path):
        law.save(tmp_path / "own.json")
        assert "another" not in cli("rank", *RATES[:2], "--params", "85M", "--law", str(tmp_path / "own.json")).stdout

    def test_plans_of_a_built_in_law_say_so_too(self):
        found = cli("optimize", "--params", "85M", "--tokens", "256M", "--knots", "0").stdout
        assert re.search(r"^Note: on another corpus .* has a P\(best\) of \d+ % \(--other-corpus\)\.$", found, re.M)
        found = cli("recommend", "--params", "500M", "--tokens", "20B").stdout
        assert "\nNote: another corpus or kind of network may have another best rate" in found

    def test_predict(self, tmp_path):
        widths = []
        for options in ((), ("--other-corpus",)):
            out = tmp_path / f"out{len(options)}.csv"
            runs = ROOT / "examples" / "my_runs.csv"
            assert cli("predict", "llama-slimpajama", str(runs), "-o", str(out), *options).returncode == 0
            table = read_runs(out)
            widths.append(np.array(table.extra["upper"], dtype=float) - np.array(table.extra["lower"], dtype=float))
        assert (widths[1] > 0.3).all()
        assert (widths[0] < widths[1]).all()

    def test_a_rival_law_has_none(self, tmp_path):
        out = tmp_path / "chinchilla.json"
        assert (
            cli(
                "fit", str(ROOT / "examples" / "my_runs.csv"), "--law", "chinchilla", "-o", str(out)
            ).returncode
            == 0
        )  # fmt: skip
        result = cli("rank", *RATES[:2], "--params", "85M", "--law", str(out), "--other-corpus")
        assert result.returncode == 2
        assert "--other-corpus needs a law of this package's basis, got 'chinchilla', a rival law" in result.stderr


class TestLawTaken:
    """Without --law the first built-in law is taken, unless only another has seen such runs."""

    LARGE = ("--params", "300M", "--tokens", "6B", "--batch-tokens", "262144")

    def test_the_one_that_has_seen_such_runs(self):
        found = cli("rank", "cosine:peak=6e-4,warmup=500", "cosine:peak=1.2e-3,warmup=500", *self.LARGE)
        assert found.returncode == 0
        assert found.stdout.startswith("Law steplaw-dense, 300M parameters")
        assert (
            "law 'steplaw-dense' is taken, which has seen such runs; 'llama-slimpajama' has seen none; --law"
            in found.stderr
        )

    def test_json_names_it(self):
        found = cli("rank", "cosine:peak=6e-4,warmup=500", *self.LARGE, "--format", "json")
        assert (found.returncode, json.loads(found.stdout)["law"]) == (0, "steplaw-dense")
        assert found.stderr.startswith("optlaws: note: law 'steplaw-dense' is taken")

    def test_the_first_where_it_has_seen_some_or_none_has(self):
        for sizes in (("--params", "85M"), ("--params", "70B", "--tokens", "2T", "--batch-tokens", "4M")):
            found = cli("rank", *RATES[:2] if sizes[1] == "85M" else ("cosine:peak=1e-4,warmup=500",), *sizes)
            assert found.stdout.startswith("Law llama-slimpajama")
            assert "is taken" not in found.stderr

    def test_the_one_that_is_asked_for(self):
        some = ("cosine:peak=6e-4,warmup=500", "wsd:peak=1.2e-3,warmup=500,decay=0.2")
        found = cli("rank", *some, *self.LARGE, "--law", "llama-slimpajama")
        assert found.stdout.startswith("Law llama-slimpajama")
        assert "by this law's account, which has seen no such run" in found.stdout.splitlines()[-1].lower()

    def test_no_name_is_no_law(self):
        found = cli("rank", *RATES[:2], "--params", "85M", "--law", "")
        assert (found.returncode, found.stdout) == (2, "")
        assert "law must be a law file or one of" in found.stderr
