"""`optlaws optimize` and `optlaws recommend`: outputs, exit codes, bad input."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusal import refused

from optlaws import parse
from optlaws.runs import RunTable, write_runs

ROOT = Path(__file__).resolve().parents[2]
SIZES = ["--params", "85M", "--tokens", "2.56B", "--steps", "50000"]
RUN = ["--params", "268M", "--tokens", "20B"]


def process(*args, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "optlaws", *map(str, args)], capture_output=True, text=True, cwd=cwd, timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip


class TestOptimize:
    def test_writes_a_schedule_that_the_other_commands_read(self, tmp_path):
        done = process("optimize", *SIZES, "--plot", "plan.png", "-o", "plan.json", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines[0].startswith("Law llama-slimpajama, 85M parameters, 2.56B tokens, 51.2K tokens a step; assumed:")
        assert sum(line.startswith("*  ") for line in lines) == 1
        assert any(line.startswith("* against the best cosine: -0.0") for line in lines)
        assert "Wrote plan.json" in done.stdout
        assert (tmp_path / "plan.png").stat().st_size > 10_000
        schedule = parse((tmp_path / "plan.json").read_text())
        assert schedule.total_steps == 50000
        printed = process("schedule", "plan.json", cwd=tmp_path)
        assert printed.stdout.count("\n") == 50001
        args = ["rank", "plan.json", "cosine:peak=1e-3,steps=50000,warmup=300", *SIZES[:4], "--format", "json"]
        ranked = json.loads(process(*args, cwd=tmp_path).stdout)
        assert ranked["candidates"][0]["schedule"] == schedule.to_dict()

    def test_json(self, run):
        code, out, _ = run("optimize", *SIZES, "--knots", 0, "--format", "json")
        assert code == 0
        found = json.loads(out)
        assert found["family"] == found["schedule"]["kind"] == "wsd"
        assert found["steps"] == found["schedule"]["total_steps"] == 50000
        assert found["lower"] < found["predicted_loss"] < found["upper"]
        assert {gain["over"] for gain in found["gains"]} == {"cosine"}
        assert found["assumed"] == {"weight_decay": 0.1}
        chosen = [one for one in found["families"] if one["chosen"]]
        assert [one["schedule"] for one in chosen] == [found["schedule"]]
        assert chosen[0]["predicted_loss"] == found["predicted_loss"]

    def test_csv_is_a_ranking(self, run):
        code, out, _ = run("optimize", *SIZES, "--knots", 0, "--format", "csv")
        assert code == 0
        rows = list(csv.DictReader(io.StringIO(out)))
        assert [row["rank"] for row in rows] == [str(i + 1) for i in range(len(rows))]
        assert float(rows[0]["predicted_loss"]) < float(rows[-1]["predicted_loss"])
        assert [row["name"] for row in rows if row["chosen"] == "true"] == ["wsd"]
        assert {row["chosen"] for row in rows} == {"true", "false"}

    def test_on_another_corpus(self, tmp_path):
        """What is said of it without the option, in text, JSON and CSV, and what the option makes of the plan."""
        here, plain, there, text = (
            process("optimize", *SIZES, "--knots", 0, *more, cwd=tmp_path)
            for more in (
                ["--format", "json"],
                [],
                ["--format", "json", "--other-corpus"],
                ["--other-corpus"],
            )
        )
        assert [done.returncode for done in (here, plain, there, text)] == [0] * 4
        families, others = (json.loads(done.stdout)["families"] for done in (here, there))
        assert sum(one["p_best_other_corpus"] for one in families) == pytest.approx(1.0, abs=1e-3)
        assert all(one["p_best_other_corpus"] is None for one in others)
        assert max(one["p_best"] for one in others) < max(one["p_best"] for one in families)
        assert others[0]["upper"] - others[0]["lower"] > 10 * (families[0]["upper"] - families[0]["lower"])
        best = families[0]
        said = f"Note: on another corpus or kind of network than the law's, {best['name']} has a P(best) of "
        assert f"{said}{100 * best['p_best_other_corpus']:.0f} % (--other-corpus)." in plain.stdout
        assert text.stdout.startswith("Law llama-slimpajama on another corpus, 85M parameters")
        assert "Note: on another corpus" not in text.stdout

    def test_no_risk_is_accepted(self, run):
        code, out, err = run("optimize", *SIZES, "--max-risk", 0)
        assert (code, out) == (3, "")
        assert "above 0, the lowest below 1e-06 (" in err
        assert "accept a risk like 0.01" in err

    def test_schedule_to_standard_output(self, run):
        code, out, err = run("optimize", *SIZES, "--knots", 0, "-o", "-")
        assert code == 0
        assert parse(out).total_steps == 50000
        assert err.startswith("Law llama-slimpajama")

    def test_nothing_is_safe(self, run):
        code, out, err = run(
            "optimize", "--params", "85M", "--steps", "20000", "--min-peak", "0.06", "--max-peak", "0.08",
            "--outside-domain", "--knots", "0", "--warmup", "1",
        )  # fmt: skip
        assert (code, out) == (3, "")
        assert "every candidate has a divergence risk above 0.05" in err

    @pytest.mark.parametrize(
        ("args", "word"),
        [
            (["--params", "85M"], "steps, or tokens"),
            ([*SIZES, "--knots", "many"], "knots"),
            ([*SIZES, "--knots", "99"], "knots must be a whole number from 0 to 64"),
            ([*SIZES, "--max-peak", "-1"], "--max-peak must be a finite number above 0"),
            ([*SIZES, "--max-risk", "7"], "--max-risk must be a probability"),
            ([*SIZES, "--law", "nolaw"], "law must be a law file or one of"),
            ([*SIZES, "--plot", "plan.txt"], "a figure's suffix must be one of"),
            ([*SIZES, "--plot", "x.png", "-o", "x.png"], "every output must have its own place"),
            ([*SIZES, "--batch-tokens", "7"], "tokens must be steps * batch_tokens"),
            ([*SIZES, "--unknown", "7"], "--unknown"),
            ([*SIZES, "--rising", "--knots", "0"], "knots must be above 0 where the free schedule may rise"),
            ([*SIZES, "--caution", "nan"], "caution must be from 0 to 10 standard deviations, got nan"),
            (["--tokens", "230K"], "tokens must be about a whole number of updates"),
            ([*SIZES, "-o", "no/such/folder/x.json"], "no/such/folder"),
        ],
    )
    def test_bad_input(self, run, args, word):
        refused(run("optimize", *args), word)


class TestRecommend:
    def test_table_and_figure(self, tmp_path):
        done = process("recommend", *RUN, "--plot", "advice.png", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Law steplaw-dense, 268M parameters, 20B tokens")
        for word in ("peak rate", "batch, tokens", "warm-up, steps", "step_law", "arXiv 2503.04715", "cost < 0.1 %"):
            assert word in done.stdout
        assert done.stdout.splitlines()[-1].startswith("Run cosine with peak rate 0.00")
        assert (
            "Note: cosine is recommended, and not wsd of lowest predicted loss: the law was fitted to few"
            in done.stdout
        )
        assert (tmp_path / "advice.png").stat().st_size > 10_000

    def test_json(self, run):
        code, out, _ = run("recommend", *RUN, "--batch-tokens", "512K", "--format", "json")
        assert code == 0
        found = json.loads(out)
        assert found["batch_tokens"] == 512000
        assert found["batch_range"] is None
        assert found["peak_range"]["low"] < found["peak_lr"] < found["peak_range"]["high"]
        assert parse(found["schedule"]).peak == found["peak_lr"]
        assert all(law["source"] for law in found["published"])
        where = found["peak_range"]
        assert where["lowest_from"] <= found["peak_lr"] <= where["lowest_to"]
        assert (where["lowest_from_open"], where["lowest_to_open"]) == (False, False)
        assert found["shapes"]["lower"] < found["shapes"]["gain"] < found["shapes"]["upper"]
        assert found["shapes"]["of_single_runs"] is True

    def test_on_another_corpus(self, tmp_path):
        ask = ("recommend", *RUN, "--batch-tokens", "512K", "--format", "json")
        plain, other = (process(*ask, *more, cwd=tmp_path) for more in ((), ("--other-corpus",)))
        assert (other.returncode, other.stderr) == (0, "")
        here, there = (json.loads(done.stdout) for done in (plain, other))
        assert (here["other_corpus"], there["other_corpus"]) == (False, True)
        assert here["law"] == there["law"]
        assert there["peak_lr"] == pytest.approx(here["peak_lr"], rel=0.02)  # what is less sure counts by --caution
        plain = [
            json.loads(process(*ask, "--caution", "0", *more, cwd=tmp_path).stdout)
            for more in ((), ("--other-corpus",))
        ]
        assert plain[0]["peak_lr"] == plain[1]["peak_lr"]
        assert there["upper"] / there["lower"] > 1.3 > 1.1 > here["upper"] / here["lower"]
        ranges = [one["peak_range"] for one in (here, there)]
        assert ranges[1]["lowest_to"] / ranges[1]["lowest_from"] > 2 * ranges[0]["lowest_to"] / ranges[0]["lowest_from"]
        widths = [
            max(one["difference_upper"] - one["difference_lower"] for one in found["families"])
            for found in (here, there)
        ]
        assert widths[1] > widths[0]

    def test_on_another_corpus_in_words(self, run):
        ask = ("recommend", *RUN, "--batch-tokens", "512K")
        assert "best rate; --other-corpus says how sure that leaves this, own runs tell (--from)." in run(*ask)[1]
        out = run(*ask, "--other-corpus")[1]
        assert out.startswith("Law steplaw-dense on another corpus, 268M parameters")
        assert "--other-corpus" not in out
        assert run(*ask, "--other-corpus", "--law", "steplaw-dense")[1] == out

    def test_absurd_advice_is_named_and_not_shown(self, run):
        code, out, _ = run("recommend", *RUN, "--batch-tokens", "16K")
        assert code == 0
        table = [line.split()[:4] for line in out.splitlines() if line.startswith(("micro", "openai", "minicpm"))]
        assert table == [["openai_rate", "0.000532", "far", "off"]]
        line = next(line for line in out.splitlines() if line.startswith("Left out, being more than 100 times off"))
        assert "the peak rate of microsoft_rate, 7.68e-11 (as printed; its units are ambiguous)" in line
        # The batches follow from the predicted loss.
        assert re.search(r": the batch of openai_rate, 2\.[45]\d?M; ", line)
        assert re.search(r"; the batch of minicpm_batch, 3\.[89]\d?M\.$", line)

    def test_csv(self, run):
        code, out, _ = run("recommend", *RUN, "--batch-tokens", "512K", "--format", "csv")
        assert code == 0
        rows = {row["law"]: row for row in csv.DictReader(io.StringIO(out))}
        assert float(rows["steplaw-dense"]["relative_cost"]) == 0
        assert all(0 <= float(rows[name]["divergence_risk"]) <= 1 for name in ("steplaw-dense", "step_law"))
        assert rows["microsoft_rate"]["batch_tokens"] == ""
        assert float(rows["microsoft_rate"]["peak_lr"]) < 1e-10  # kept where numbers are asked for

    def test_own_runs(self, run):
        runs = ROOT / "examples" / "my_runs.csv"
        code, out, _ = run("recommend", "--params", "85M", "--tokens", "1B", "--from", runs)
        assert code == 0
        assert out.startswith("Law own, ")
        assert "mup" in out
        assert "fitted to the runs given" in out

    def test_few_runs_of_two_families_lead_to_one_of_them(self, run, tmp_path):
        """The lowest prediction may be of a family that no run had, ahead by a fraction of its interval."""
        specs = ("cosine:peak=5e-4,steps=10000", "wsd:peak=1e-3,steps=10000", "cosine:peak=2e-3,steps=20000")
        specs += ("wsd:peak=1e-3,steps=20000", "cosine:peak=1e-3,steps=10000")
        rows = zip(specs, ("30M", "30M", "30M", "110M", "110M"), (3.4216, 3.3335, 3.2240, 2.9942, 3.1794), strict=True)
        text = "".join(f'r{i},{n},51200,"{spec},warmup=300",{y}\n' for i, (spec, n, y) in enumerate(rows))
        (tmp_path / "five.csv").write_text(f"run_id,params,batch_tokens,schedule,final_loss\n{text}")
        code, out, _ = run("recommend", "--params", "60M", "--tokens", "500M", "--from", tmp_path / "five.csv")
        assert code == 0
        lowest = out.split("family, its best")[1].splitlines()[2].split("  ")[0]
        assert lowest not in ("cosine", "wsd")  # else this shows nothing
        chosen = out.splitlines()[-1].split()[1]
        assert chosen in ("cosine", "wsd")
        assert f"Note: {chosen} is recommended, and not {lowest} of lowest predicted loss" in out

    def test_a_published_law(self, run):
        code, out, _ = run("recommend", *RUN, "--law", "step_law")
        assert code == 0
        assert "peak rate  0.002547" in out
        code, out, _ = run("recommend", *RUN, "--law", "step_law", "--format", "json")
        assert json.loads(out)["peak_lr"] == pytest.approx(0.002546884)
        code, out, _ = run("recommend", *RUN, "--law", "minicpm_batch", "--format", "csv")
        assert code == 0

    def test_a_fitted_law_says_how_sure_it_is(self, run, tmp_path):
        """The band of 300 bootstrap samples, from runs and from a law file of the same runs."""
        rng = np.random.default_rng(0)
        n, d = (np.repeat(v.ravel(), 4) for v in np.meshgrid([1e8, 2e8, 4e8], [4e9, 2e10, 1e11]))
        peak, batch = (1.79 * n**-0.713 * d**0.307, 0.58 * d**0.571) * np.exp(0.2 * rng.standard_normal((2, len(n))))
        steps = np.round(d / batch)
        specs = [parse(f"constant:peak={p!r},steps={int(s)}") for p, s in zip(peak.tolist(), steps, strict=True)]
        runs, law = tmp_path / "runs.csv", tmp_path / "own.json"
        write_runs(runs, RunTable.build(specs, params=n, tokens=d, batch_tokens=d / steps, final_loss=3.0))
        assert run("fit", runs, "--law", "step_law", "-o", law)[0] == 0
        sources = (["--law", "step_law", "--from", runs], ["--law", law])
        found = []
        for source in sources:
            code, out, err = run("recommend", *RUN, *source)
            assert (code, err) == (0, "")
            assert "5 and 95 % points over fits to 300 bootstrap samples" in out
            assert "nothing is said" not in out
            found.append(json.loads(run("recommend", *RUN, *source, "--format", "json")[1]))
            row = next(csv.DictReader(io.StringIO(run("recommend", *RUN, *source, "--format", "csv")[1])))
            for name in ("peak_lr", "batch_tokens"):
                low, middle, high = (found[-1][name + end] for end in ("_low", "", "_high"))
                assert 0.7 * middle < low < middle < high < 1.4 * middle
                assert [float(row[name + end]) for end in ("_low", "_high")] == pytest.approx([low, high], rel=1e-6)
                assert f"{low:.4g} .. {high:.4g}" in out or name == "batch_tokens"
        for name in ("peak_lr_low", "peak_lr_high", "batch_tokens_low", "batch_tokens_high"):
            assert found[0][name] == pytest.approx(found[1][name], rel=1e-4)

    def test_printed_constants_do_not(self, run):
        assert "so nothing is said of how sure that is" in run("recommend", *RUN, "--law", "step_law")[1]
        out = run("recommend", *RUN, "--law", "step_law", "--format", "json")[1]
        assert json.loads(out)["peak_lr_low"] is None
        assert json.loads(out)["band_draws"] == 0

    @pytest.mark.parametrize(
        ("args", "word"),
        [
            (["--params", "85M"], "--tokens must be given"),
            (["--tokens", "85M"], "--params must be given"),
            (["--params", "x", "--tokens", "1B"], "--params must be a finite number above 0"),
            ([*RUN, "--law", "chinchilla"], "law must advise peak rates or batches"),
            ([*RUN, "--law", "step_law", "--plot", "x.png"], "--plot needs a law of the loss"),
            ([*RUN, "--law", "step_law", "--max-risk", "0.1"], "--max-risk needs a law of the loss, got 'step_law'"),
            ([*RUN, "--law", "step_law", "--other-corpus"], "--other-corpus needs a law of the loss, got 'step_law'"),
            ([*RUN, "--law", "step_law", "--warmup", "9"], "--warmup needs a law of the loss"),
            ([*RUN, "--law", "step_law", "--batch-tokens", "1M"], "--batch-tokens needs a law of the loss"),
            ([*RUN, "--law", "step_law", "--optimizer", "sgd"], "--optimizer needs a law of the loss"),
            ([*RUN, "--law", "meituan_rate"], "has no printed constants"),
            ([*RUN, "--law", "llama-slimpajama", "--from", str(ROOT / "examples" / "my_runs.csv")], "--law must be"),
            ([*RUN, "--from", "absent.csv"], "absent.csv"),
            ([*RUN, "--from", ""], "--from must be a run table, got ''"),
            ([*RUN, "--law", "nolaw"], "law must be a law file or one of"),
        ],
    )
    def test_bad_input(self, run, args, word):
        refused(run("recommend", *args), word)


def test_the_way_out_is_an_option_that_exists(run):
    refused(run("recommend", "--params", "1M", "--tokens", "10M"), "`optlaws optimize --outside-domain`")


def test_narrow_axes_have_labels():
    from types import SimpleNamespace

    from optlaws.commands.recommend_figure import panel
    from optlaws.plotting import new_axes
    from optlaws.recommend import FlatRange

    ax = new_axes()
    rates = np.geomspace(2.2e-3, 4.6e-3, 20)
    loss = np.full(20, 3.0)
    flat = FlatRange(3e-3, 2.3e-3, 4.5e-3, False, False, rates, loss, loss - 0.1, loss + 0.1)
    panel(ax, SimpleNamespace(published=()), flat, "peak_lr")
    low, high = ax.get_xlim()
    shown = [ax.xaxis.get_major_formatter()(tick) for tick in ax.get_xticks() if low <= tick <= high]
    assert shown == ["0.003", "0.004"]


def test_a_wide_interval_does_not_squeeze_the_curve():
    from types import SimpleNamespace

    from optlaws.commands.recommend_figure import panel
    from optlaws.plotting import new_axes
    from optlaws.recommend import FlatRange

    rates = np.geomspace(1e-4, 1e-2, 40)
    loss = 3.0 + 0.02 * np.log(rates / 1e-3) ** 2
    for width, beyond in ((0.02, False), (1.0, True)):
        flat = FlatRange(1e-3, 8e-4, 1.2e-3, False, False, rates, loss, loss - width, loss + width)
        panel(ax := new_axes(), SimpleNamespace(published=()), flat, "peak_lr")
        low, high = ax.get_ylim()
        assert (min(loss.max(), high) - loss.min()) / (high - low) > 0.3
        assert ("reaches beyond the axis" in ax.get_ylabel()) == beyond


def test_every_published_law_of_the_table_is_in_the_figure():
    from types import SimpleNamespace

    from optlaws.commands.recommend_figure import panel
    from optlaws.plotting import new_axes
    from optlaws.recommend import FlatRange

    rates = np.geomspace(1e-4, 1e-2, 40)
    loss = 3.0 + 0.1 * np.log(rates / 1e-3) ** 2
    flat = FlatRange(1e-3, 8e-4, 1.2e-3, False, False, rates, loss, loss - 0.1, loss + 0.1)
    advised = {"far": 2e-5, "near": 1.1e-3, "next": 9e-4, "batch": np.nan, "high": 0.05, "higher": 0.09}
    advised |= {"absurd": 1e-10, "absurder": 0.2}  # more than a factor 100 off: no arrow
    published = [SimpleNamespace(name=name, peak_lr=rate) for name, rate in advised.items()]
    ax = new_axes()
    panel(ax, SimpleNamespace(published=published), flat, "peak_lr")
    assert sorted(text.get_text() for text in ax.texts) == [
        "high 0.05 →",
        "higher 0.09 →",
        "near",
        "next",
        "← far 2e-05",
    ]
    dashed = [float(line.get_xdata()[0]) for line in ax.lines if line.get_linestyle() == "--"]
    assert sorted(dashed) == [9e-4, 1.1e-3]
    assert max(line.get_linewidth() for line in ax.lines) < 3  # no bar where it is not known where the best lies
    panel(ax := new_axes(), SimpleNamespace(published=published), replace(flat, least=6e-4, most=2e-3), "peak_lr")
    bars = [line.get_xdata().tolist() for line in ax.lines if line.get_linewidth() > 3]
    assert bars == [[6e-4, 2e-3]]
    offsets = {text.get_text(): text.xyann[1] for text in ax.texts}
    assert offsets["high 0.05 →"] != offsets["higher 0.09 →"]


@pytest.mark.parametrize(("least", "most", "ends"), [(1.3e-4, 1e-3, ["← 0.00013"]), (6e-4, 9e-3, ["0.009 →"])])
def test_where_the_best_may_lie_beyond_the_axis_is_written_at_its_end(least, most, ends):
    from types import SimpleNamespace

    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from optlaws.commands.recommend_figure import panel
    from optlaws.plotting import new_axes
    from optlaws.recommend import FlatRange

    rates = np.geomspace(1e-4, 1e-2, 40)
    loss = 3.0 + 0.1 * np.log(rates / 1e-3) ** 2
    flat = FlatRange(1e-3, 8e-4, 1.2e-3, False, False, rates, loss, loss - 0.1, loss + 0.1, least, most)
    for published in ((), (SimpleNamespace(name="far", peak_lr=2e-5), SimpleNamespace(name="high", peak_lr=0.05))):
        panel(ax := new_axes(), SimpleNamespace(published=published), flat, "peak_lr")
        left, right = ax.get_xlim()
        assert [text.get_text() for text in ax.texts if text.get_text()[:1] in "←0"][-1:] == ends
        assert (least < left) != (most > right)
        FigureCanvasAgg(ax.figure)
        ax.figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in ax.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    panel(ax := new_axes(), SimpleNamespace(published=()), replace(flat, least=9e-4, most=1.1e-3), "peak_lr")
    assert len(ax.texts) == 0
