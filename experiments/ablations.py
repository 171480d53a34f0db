"""The paper's ablations on the default job: trees, objectives, and what else the samples could buy.

gmma sweep experiments/ablations.py --workers 2

RL of 60 steps from each seed's SFT, a validation every 20; four arms also for the default job's
250. Every number is our choice. The paper varies K and M ([R]); its other settings are not known to
us. `docs/results.md` has what came out.
"""

from dataclasses import replace

from digits import experiment

from gmma.config import CheckpointConfig
from gmma.sweep.arms import Sweep, arm, chain, product, trees, with_seeds

GRPO = "GRPO, 16 samples"
SFT = "SFT, as many tokens"
WHOLE = "for 250 steps"


def sweep() -> Sweep:
    """Trees with 3 or 5 seeds; T4A4 under other objectives with 3; the whole job with 3."""
    base = experiment()
    base = replace(
        base,
        rl=replace(base.rl, steps=60),
        evaluation=replace(base.evaluation, every_steps=20),
        checkpoint=CheckpointConfig(every_steps=100, keep_last=1),
        samples_every_steps=50,
    )
    grpo = arm(GRPO, tree__thoughts=16, tree__answers=1, objective__algorithm="grpo")
    # A step of T4A4 samples about eight times the tokens of 32 demonstrations.
    imitation = arm(
        SFT,
        rl__steps=0,
        sft__steps=8 * base.rl.steps,
        sft__batch_prompts=base.rl.batch_prompts,
        sft__optimizer=base.rl.optimizer,  # the start's own rate would first undo what it learnt
        evaluation__every_steps=120,
    )
    objectives = chain(
        arm("loss dr_grpo", objective__loss_type="dr_grpo"),
        arm("loss dapo", objective__loss_type="dapo"),
        arm("loss bnpo", objective__loss_type="bnpo"),
        arm("no std", objective__scale_rewards="none"),
        arm("baseline within the thought", objective__answer_baseline="thought"),
        arm("β = 0.05", objective__beta=0.05),
        arm("unfinished thoughts dropped", tree__unfinished="drop"),
        arm("2 updates", objective__num_iterations=2),
        arm("2 updates, clip-higher", objective__num_iterations=2, objective__epsilon_high=0.28),
    )
    main = with_seeds(chain(trees("T4A4", "T4A1", "T16A1"), grpo, imitation), 5)
    whole = product(
        chain(trees("T4A4", "T4A1", "T16A1"), grpo),
        arm(WHOLE, rl__steps=250, evaluation__every_steps=50),
    )
    others = trees("T4A2", "T4A6", "T4A8", "T8A2", "T8A4", "T16A4")
    rivals = ("T4A1", "T16A1", GRPO, SFT)
    return Sweep(
        name="ablations",
        base=base,
        arms=chain(main, others, objectives, whole),
        comparisons=(
            *(("T4A4", rival) for rival in rivals),
            *((part.label, "T4A4") for part in chain(others, objectives)),
            ("2 updates, clip-higher", "2 updates"),
            *((whole[0].label, rival.label) for rival in whole[1:]),
        ),
    )
