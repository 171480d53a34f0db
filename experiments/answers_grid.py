"""Answers per thought times seeds as one compiled program, on a small cut of the default job.

gmma sweep experiments/answers_grid.py --one-program
gmma sweep experiments/answers_grid.py --compare          both ways, timed; docs/results.md

A network of two layers of 32 that is hardly taught: what is looked at is the machinery. The table
of M on the job that learns is `ablations.py`.
"""

from dataclasses import replace

from digits import experiment

from gmma.sweep.arms import Sweep, trees


def sweep() -> Sweep:
    """Four values of M and four seeds."""
    base = experiment()
    small = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "head_size": 16, "mlp": 64}
    base = replace(
        base,
        model=replace(base.model, **small, stem_steps=20),
        sft=replace(base.sft, steps=20, batch_prompts=32, microbatches=1),
        rl=replace(base.rl, steps=30, batch_prompts=8, microbatches=1),
        evaluation=replace(base.evaluation, examples=64, every_steps=10),
    )
    arms = trees("T4A1", "T4A2", "T4A4", "T4A8")
    return Sweep(name="answers_grid", base=base, arms=arms, seeds=(0, 1, 2, 3))
