"""A grid of M and seeds for the tiny run, without SFT.

gmma sweep tests/tiny_grid.py --one-program
"""

from dataclasses import replace

from tiny_digits import experiment

from gmma.sweep.arms import Sweep, arm, chain, with_seeds


def sweep(several: bool = False) -> Sweep:
    """Three cells that learn nothing; `several` updates a rollout, held to a reference."""
    base = experiment()
    base = replace(
        base,
        tree=replace(base.tree, thoughts=3),
        sft=replace(base.sft, steps=0),
        rl=replace(base.rl, steps=4, microbatches=2),
        rewards=replace(base.rewards, workers=0),
        evaluation=replace(base.evaluation, every_steps=2),
        samples_every_steps=0,
    )
    if several:
        objective = replace(base.objective, num_iterations=2, beta=0.1, importance_cap=2.0)
        small = replace(base.rl.optimizer, learning_rate=1e-5)  # Adam divides small sums, which
        # are rounded, by their size: what they err by grows with the rate and the updates
        twice = replace(base.rl, batch_prompts=4, rollout_prompts=8, optimizer=small)
        base = replace(base, objective=objective, rl=twice)
    arms = chain(with_seeds(arm("A1", tree__answers=1), 1), arm("A3", tree__answers=3))
    pairs = (("A3", "A1"),)
    return Sweep(name="tiny_grid", base=base, arms=arms, seeds=(0, 1), comparisons=pairs)
