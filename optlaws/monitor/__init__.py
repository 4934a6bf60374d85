"""In flight: a monitor re-forecasts the final loss from the curve so far and raises alarms.

`Monitor(law, run).update(step, loss)` is all that a training loop needs; `optlaws.integrations` has callbacks for plain
loops, Hugging Face Trainer and Lightning. `learn_prior` learns from finished curves how curves depart from a law, and
`with_prior` puts that into the law's file.
"""

from optlaws.monitor.alarms import DIVERGENCE, OFF_TRACK, Alarm, Thresholds
from optlaws.monitor.core import Monitor, Status
from optlaws.monitor.forecast import CurvePrior, Forecast, reforecast
from optlaws.monitor.learning import learn_prior, with_prior
from optlaws.monitor.path import Path, paths

__all__ = [
    "DIVERGENCE",
    "OFF_TRACK",
    "Alarm",
    "CurvePrior",
    "Forecast",
    "Monitor",
    "Path",
    "Status",
    "Thresholds",
    "learn_prior",
    "paths",
    "reforecast",
    "with_prior",
]
