"""Two arms of the tiny run from one SFT, validated as they go.

gmma sweep tests/tiny_sweep.py --workers 2
"""

from dataclasses import replace

from tiny_digits import experiment

from gmma.sweep.arms import Sweep, trees


def sweep() -> Sweep:
    """Seconds a run, most of them start and compilation."""
    base = experiment()
    base = replace(
        base,
        evaluation=replace(base.evaluation, every_steps=3),
        rewards=replace(base.rewards, workers=0),
    )
    arms, pair = trees("T2A2", "T2A1"), (("T2A2", "T2A1"),)
    return Sweep(name="tiny_sweep", base=base, arms=arms, seeds=(0,), comparisons=pair)
