"""A training loop with a monitor, in NumPy so that it runs anywhere: python examples/monitor_loop.py

The model is a toy (a noisy quadratic whose losses follow the law's curve); what matters are lines (1) to (5).
At 60 % of the run its rate is made twenty times too high, the loss blows up, and the monitor stops the loop.
"""

from __future__ import annotations

import json
import logging

import numpy as np

from optlaws import load_law, parse
from optlaws.integrations import TrainingMonitor
from optlaws.integrations.loop import describe
from optlaws.monitor import Monitor

TOTAL = 20_000


def main() -> None:
    """Train, and watch."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    schedule = parse(f"wsd:peak=1e-3,steps={TOTAL},warmup=300,decay=0.2")
    law = load_law("llama-slimpajama")  # load_law(...).on_other_corpus() for data that are not the law's
    monitor = Monitor(law, schedule, params=85e6, batch_tokens=51_200)  # (1) what the law expects of this run
    watch = TrainingMonitor(monitor, stop_on=("divergence",))  # (2) warnings go to logging

    rng = np.random.default_rng(0)
    expected = monitor.path.log_loss_at  # stands for the training data
    weight = 0.1
    for step in range(1, TOTAL + 1):
        rate = float(schedule.lr(step - 1)) * (20.0 if step > 0.6 * TOTAL else 1.0)
        gradient = 150.0 * weight + 0.05 * rng.standard_normal()
        weight = float(np.clip(weight - rate * gradient, -1e3, 1e3))
        loss = np.exp(expected(step) + 0.02 * rng.standard_normal()) + np.log1p(150.0 * weight**2 / 2)
        if step % 20 == 0 and watch.step(step, loss, abs(gradient)):  # (3) a float, once a log interval
            break
        if step == TOTAL // 2:
            checkpoint = json.dumps(watch.state_dict())  # (4) goes into the checkpoint
    print(f"stopped at step {step} of {TOTAL}")

    watch.load_state_dict(json.loads(checkpoint))  # (5) resumed from the checkpoint, with its alarms undone
    print(f"back at {describe(watch.monitor.status)}")


if __name__ == "__main__":
    main()
