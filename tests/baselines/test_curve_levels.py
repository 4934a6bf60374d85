"""Laws that read curves are given every loss: curves at the level of the final losses, final losses beside curves."""

import numpy as np
import pytest
from made import curves_of
from made import of_schedules as table

from optlaws.baselines._readings import gather, level_of
from optlaws.baselines.annealing import AnnealingLaw
from optlaws.baselines.convex_bound import ConvexBound
from optlaws.baselines.functional import FunctionalLaw
from optlaws.runs import CurveTable

LAWS = {
    "annealing": AnnealingLaw(3.1, 0.5, 0.5, 0.4),
    "functional": FunctionalLaw(2.9, 2.0, 0.45, 300.0, 2.2, 60.0),
    "convex_bound": ConvexBound(2.95, 0.9, 4.0),
}
TRAIN = ["cosine:peak=3e-4,steps=2400,warmup=216,final=3e-5", "constant:peak=3e-4,steps=2400,warmup=216"]
TEST = ["wsd:peak=3e-4,steps=2400,warmup=216,decay=0.2,final=3e-5", "cosine:peak=3e-4,steps=4000,warmup=216"]


MIXED = [
    f"wsd:peak={p:g},steps={t},warmup=50,decay={d:g}" for p in (3e-4, 1e-3) for t in (600, 1500) for d in (0.2, 0.6)
]


@pytest.mark.parametrize("name", ["annealing", "convex_bound", "functional"])
@pytest.mark.parametrize("kept", [8, 3])
def test_curves_of_another_level_and_final_losses_make_one_law(name, kept):
    """Curves of another evaluation, of all runs or of some: what is found are the final losses."""
    law, plain = LAWS[name], table(MIXED)
    runs = table(MIXED, final_loss=law.predict(plain))
    some = plain.select(np.arange(8) % 3 == 0) if kept == 3 else plain
    exact = curves_of(law, some)
    curves = CurveTable(exact.run_id, exact.step, 1.02 * exact.loss)
    assert level_of(runs, curves) == pytest.approx(1 / 1.02, rel=1e-12)
    found = type(law).fit(runs, curves)
    np.testing.assert_allclose(found.predict(table(TEST)), law.predict(table(TEST)), rtol=1e-3)


def test_final_losses_count_where_runs_have_no_curve():
    """A rise that only runs without a curve show is found, and no run speaks for all by the length of its curve."""
    law, plain = LAWS["annealing"], table(MIXED)
    runs = table(MIXED, final_loss=law.predict(plain))
    one = plain.select([0])
    long = curves_of(law, one, every=1)
    found = gather(AnnealingLaw, runs, long, 4)
    assert [len(readings.loss) for readings in found] == [16] * 8
    assert found[0].steps[-1] == one.steps[0]
    for readings in found[1:]:
        assert (readings.steps == len(readings.rates)).all()
        assert len(set(readings.loss.tolist())) == 1
    fitted = AnnealingLaw.fit(runs, long)
    np.testing.assert_allclose(fitted.predict(plain), law.predict(plain), rtol=1e-3)


def test_curves_without_final_losses_keep_their_level():
    law, runs = LAWS["annealing"], table(TRAIN)
    curves = curves_of(law, runs)
    assert level_of(runs, curves) == 1.0
    cut = CurveTable(curves.run_id, curves.step, curves.loss).select(curves.step < 1000)
    assert level_of(table(TRAIN, final_loss=[3.0] * 2), cut) == 1.0  # none reaches the end of its run
    assert sum(len(r.loss) for r in gather(AnnealingLaw, runs, curves, 4)) == len(curves.loss)
