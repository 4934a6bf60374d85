"""The Multi-Power Law's metric table and parameters (arXiv 2503.12811), by its authors' procedure.

Fitted on three curves of a size, tested on the six others, every logged point. The authors' reading of step k has seen
the rate of update k, so that k + 1 updates are done. Their parameters are where 200 steps of AdamW end, far from the
least Huber loss: both are computed, and set side by side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optlaws.baselines._readings import huber_cost
from optlaws.baselines.multi_power import MultiPowerLaw
from optlaws.runs import CurveTable, RunTable, read_curves, read_runs
from paper_repro.core import Missing, Row, expected, need, new_axes

Floats = NDArray[np.float64]
FITTED = ("cosine_24000", "constant_24000", "wsdcon_9")
TESTED = ("constant_72000", "cosine_72000", "wsd_20000_24000", "wsdld_20000_24000", "wsdcon_3", "wsdcon_18")
METRICS = ("R2", "MAE", "RMSE", "PredE", "WorstE")
PUBLISHED = {
    "25M": MultiPowerLaw(3.0405, 0.52469, 0.50787, 363.79, 2.0656, 0.58279, 0.64142),
    "100M": MultiPowerLaw(2.6514, 0.60115, 0.45296, 437.95, 2.1325, 0.59786, 0.65524),
    "400M": MultiPowerLaw(2.3747, 0.65421, 0.42879, 523.42, 2.0246, 0.59350, 0.63472),
}
Curve = tuple[RunTable, Floats, Floats]


def metrics(law: MultiPowerLaw, curve: Curve) -> Floats:
    """Return R2, MAE, RMSE, PredE, WorstE and the error of the last reading of one curve."""
    run, steps, loss = curve
    error = np.abs(law.predict_curve(run, steps) - loss)
    r2 = 1.0 - np.sum(error**2) / np.sum((loss - loss.mean()) ** 2)
    share = error / loss
    return np.array([r2, error.mean(), np.sqrt(np.mean(error**2)), share.mean(), share.max(), error[-1]])


def objective(law: MultiPowerLaw, curves: list[Curve]) -> float:
    """Return the sum of Huber losses of the log loss over curves."""
    return sum(huber_cost(np.log(law.predict_curve(run, steps) / loss)) for run, steps, loss in curves)


def reproduce(data: Path, quick: bool, figures: Path | None = None) -> list[Row | Missing]:
    """Return the rows; sizes whose curves are not all there give the rows of those that are."""
    book = expected("multi_power_law")
    runs = read_runs(need(data, "mpl_runs.csv", "the runs; without them nothing here can be computed"))
    table = read_curves(need(data, "mpl_curves.csv", "the curves; without them nothing here can be computed"))
    where = table.runs()
    shifted = CurveTable(table.run_id, table.step + 1.0, table.loss)
    out: list[Row | Missing] = []
    shown: dict[str, tuple[MultiPowerLaw, dict[str, Curve]]] = {}
    for size, published in PUBLISHED.items():
        rows = {n.removeprefix(f"{size}-"): i for i, n in enumerate(runs.run_id) if n.startswith(f"{size}-")}
        curves = {
            shape: (runs.select([i]), shifted.step[where[runs.run_id[i]]], table.loss[where[runs.run_id[i]]])
            for shape, i in rows.items()
            if runs.run_id[i] in where
        }
        lost = [shape for shape in (*FITTED, *TESTED) if shape not in curves]
        if set(lost) & set(FITTED):
            out.append(Missing("mpl_curves.csv", f"{size}: {', '.join(lost)}; the law cannot be fitted there"))
            continue
        train = runs.select([rows[shape] for shape in FITTED])
        law = MultiPowerLaw.fit(train, shifted)
        for name, value in law.parameters().items():
            out.append(book.row("parameters, refitted here", f"{size} {name}", value))
        tests = {shape: curves[shape] for shape in TESTED if shape in curves}
        laws = {"refitted here": law, "published parameters": published}
        if not quick:
            laws["least Huber loss"] = MultiPowerLaw.fit_minimum(train, shifted)
        scores = {label: {k: metrics(each, curve) for k, curve in tests.items()} for label, each in laws.items()}
        if lost:
            out.append(
                Missing("mpl_curves.csv", f"{size}: test curves {', '.join(lost)}; its metrics are over all six")
            )
        else:
            for label in list(laws)[:2]:
                mean = np.mean(list(scores[label].values()), axis=0)
                for name, value in zip(METRICS, mean, strict=False):
                    out.append(book.row(f"metrics, {label}", f"{size} {name}", float(value)))
                note = "[nats/token] mean over the test curves; not in the published table"
                out.append(Row(f"metrics, {label}", f"{size} last reading MAE", None, float(mean[5]), None, note))
        for shape, (_, steps, _) in tests.items():
            note = f"one curve, {len(steps)} readings; the published value is a mean over six"
            value = float(scores["refitted here"][shape][3])
            out.append(Row("PredE by curve", f"{size} {shape}", None, value, None, note))
        if not quick:
            out += _minimum(size, [curves[shape] for shape in FITTED], laws, scores)
        shown[size] = law, tests
    if figures:
        _figure(shown, figures / "multi_power_law.png")
    return out


def _minimum(
    size: str, fitted: list[Curve], laws: dict[str, MultiPowerLaw], scores: dict[str, dict[str, Floats]]
) -> list[Row | Missing]:
    """Return what the least Huber loss would have given."""
    out: list[Row | Missing] = []
    for label, law in laws.items():
        text = ", ".join(f"{name} {value:.4g}" for name, value in law.parameters().items())
        cell = f"{size} Huber loss on the three curves, {label}"
        out.append(Row("the minimum and where the procedure stops", cell, None, objective(law, fitted), None, text))
    for label, found in scores.items():
        if found:
            cell = f"{size} PredE on the test curves, {label}"
            value = float(np.mean([score[3] for score in found.values()]))
            out.append(
                Row("the minimum and where the procedure stops", cell, None, value, None, "mean over test curves")
            )
    return out


def _figure(shown: dict[str, tuple[MultiPowerLaw, dict[str, Curve]]], path: Path) -> None:
    sizes = [size for size, (_, tests) in shown.items() if tests]
    if not sizes:
        return
    figure, axes = new_axes(len(sizes))
    for ax, size in zip(np.atleast_1d(axes), sizes, strict=True):
        law, tests = shown[size]
        for shape, (run, steps, loss) in tests.items():
            ax.plot(steps, 100 * (law.predict_curve(run, steps) / loss - 1), lw=0.8, label=shape)
        ax.axhline(0, color="0.5", lw=0.8)
        ax.set(xlabel="step", ylabel="predicted / measured - 1, %", title=f"Multi-Power Law, {size}")
    np.atleast_1d(axes)[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)
