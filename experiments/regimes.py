"""The paper's ablations where it argues: thoughts many times as long as answers, and a rare reward.

    gmma sweep experiments/regimes.py --job crowded
    gmma sweep experiments/regimes.py --job sums

Crowded scenes (`digits.py`): answers to one thought differ more than thoughts do. Sums (`math.py`):
an answer says what its thought came to. Trees, every credit rule on T4A4, and on sums a high rate
without clipping, so that gradients may spike. Every number is our choice. `docs/results.md` has
what came out.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gmma.config import CheckpointConfig, ExperimentConfig
from gmma.run.experiments import load_experiment
from gmma.sweep.arms import Sweep, arm, chain, product, trees, with_seeds

Job = Annotated[
    Literal["crowded", "sums"],
    tyro.conf.arg(help="crowded: scenes of six to nine digits. sums: numbers added step by step"),
]
JOBS = {  # the file, its parameters, steps of RL, what is rewarded
    "crowded": ("digits.py", {"scene": "crowded"}, 36, "sampled/acc_0.7"),
    "sums": ("math.py", {"problems": "sums"}, 60, "sampled/accuracy"),
}
GRPO = "GRPO, 16 samples"
STEEP = "rate × 10, no clipping"


def sweep(job: Job = "crowded") -> Sweep:
    """Trees with 3 or 5 seeds, credit rules with 3, and on sums the main arms under a high rate."""
    base = short(job)
    grpo = arm(GRPO, tree__thoughts=16, tree__answers=1, objective__algorithm="grpo")
    rivals = chain(trees("T4A1", "T16A1"), grpo)
    main = with_seeds(chain(trees("T4A4"), rivals), 5)
    others = trees("T4A2", "T4A8", "T2A8", "T8A2")
    rules = ("leaf", "td", "loo", "treerl", "treepo")
    credit = chain(*(arm(f"credit {rule}", objective__credit=rule) for rule in rules))
    high = replace(
        base.rl.optimizer,
        learning_rate=10 * base.rl.optimizer.learning_rate,
        max_grad_norm=0.0,
    )
    steep = product(chain(trees("T4A4"), rivals), arm(STEEP, rl__optimizer=high))
    spiky = steep if job == "sums" else ()  # the cheaper job: twelve runs of the longest steps
    return Sweep(
        name=f"regime_{job}",
        base=base,
        metric=JOBS[job][-1],
        arms=chain(main, others, credit, spiky),
        comparisons=(
            *(("T4A4", rival.label) for rival in rivals),
            *((part.label, "T4A4") for part in chain(others, credit)),
            *((spiky[0].label, rival.label) for rival in spiky[1:]),
        ),
    )


def short(job: Job) -> ExperimentConfig:
    """Return a job of some steps with a validation at every quarter of them."""
    file, values, steps, _ = JOBS[job]
    base = load_experiment(Path(__file__).parent / file, **values)
    return replace(
        base,
        rl=replace(base.rl, steps=steps),
        evaluation=replace(base.evaluation, examples=256, every_steps=steps // 4),
        checkpoint=CheckpointConfig(every_steps=100, keep_last=1),
        samples_every_steps=50,
    )
