"""Rollouts in 8 bits beside exact ones: what a sampler that is not the trainer costs.

    gmma sweep experiments/rollouts.py

    python experiments/prepare/tiny_directory.py qwen3_vl models/tiny-qwen3_vl
    gmma sweep experiments/rollouts.py --on-scenes models/tiny-qwen3_vl

The default job (`digits.py`), and paths to a block by a small model of a ported family
(`trajectory.py`), both at their own sizes, three seeds each. In 8 bits the objective corrects for
the sampler, up to a factor of 2 ([?], our choice). `docs/results.md` has what came out.
"""

from dataclasses import replace
from pathlib import Path

from gmma.config import CheckpointConfig
from gmma.run.experiments import load_experiment
from gmma.sweep.arms import Sweep, arm, chain


def sweep(on_scenes: Path | None = None) -> Sweep:
    """Two arms, from the same SFT and with the same prompts."""
    here = Path(__file__).parent
    if on_scenes is None:
        base = load_experiment(here / "digits.py")
    else:
        base = load_experiment(here / "trajectory.py", on_scenes=on_scenes)
    base = replace(
        base,
        evaluation=replace(base.evaluation, every_steps=base.rl.steps // 2),
        checkpoint=CheckpointConfig(every_steps=50, keep_last=1),
        samples_every_steps=base.rl.steps,
    )
    rounded = arm("8 bits", objective__importance_cap=2.0, rollout_weights="int8")
    return Sweep(
        name=f"rollouts_{'digits' if on_scenes is None else on_scenes.name}",
        base=base,
        arms=chain(arm("exact"), rounded),
        comparisons=(("8 bits", "exact"),),
    )
