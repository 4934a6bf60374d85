"""Callbacks that feed a monitor from training loops; no framework is imported until its callback is made."""

from optlaws.integrations.live import LiveLog
from optlaws.integrations.loop import TrainingMonitor

__all__ = ["LiveLog", "TrainingMonitor"]
