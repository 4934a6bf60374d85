"""A model world with known exponents: what a fit recovers of it, and how errors grow with the distance.

`python -m theory.world` prints both tables.
"""

from optlaws.law.calibrate import Profile, profile_exponents
from theory.world.growth import Growth, error_growth, paper_sd, power_law_inflation
from theory.world.model import World
from theory.world.recover import WORLDS, Recovery, recover, target_runs, training_runs

__all__ = [
    "WORLDS",
    "Growth",
    "Profile",
    "Recovery",
    "World",
    "error_growth",
    "paper_sd",
    "power_law_inflation",
    "profile_exponents",
    "recover",
    "target_runs",
    "training_runs",
]
