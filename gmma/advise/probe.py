"""Take steps of some shapes with a run's own programs: seconds, and how large gradients are.

Parameters move by no more than 1e-30 here, so that steps of any credit can follow each other.
Functions that take parameters give them back: the ones that they were given are donated.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from gmma.advise.prediction import Scores, SegmentScores, Shape
from gmma.advise.seconds import StepSeconds, with_tree
from gmma.config import updates_per_step
from gmma.errors import UserError
from gmma.hardware.hosts import fetch_rows
from gmma.hardware.sharding import put_batch, put_whole
from gmma.records.metrics import compute
from gmma.rewards.service import Scorer
from gmma.run.assembly import Parts, score_batch
from gmma.run.feed import read_prompts
from gmma.run.programs import (
    GrownTrees,
    Programs,
    Trainer,
    make_programs,
    make_rl_trainer,
    needs_reference,
)
from gmma.run.state import whole_params
from gmma.types import Advantages, Example, PackedTree, Params, TrainState

NO_RATE = 1e-30  # of learning
ROLLOUTS, SIGNS = 4, 4  # that gradients are measured on; draws of random credit for each


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The programs of one shape, and the prompts that they are given."""

    parts: Parts
    programs: Programs
    trainer: Trainer
    examples: Sequence[Example]
    reference: Params | None


def open_probe(parts: Parts, params: Params, examples: Sequence[Example], shape: Shape) -> Probe:
    """Make the programs of a run with trees of K × M; nothing is compiled yet."""
    config = with_tree(parts.config, shape)
    optimizer = replace(config.rl.optimizer, learning_rate=NO_RATE)
    config = replace(config, rl=replace(config.rl, optimizer=optimizer))
    still = replace(parts, config=config)
    return Probe(
        parts=still,
        programs=make_programs(still),
        trainer=make_rl_trainer(still),
        examples=[examples[at % len(examples)] for at in range(config.rl.grown_prompts)],
        reference=jax.tree.map(lambda x: x.copy(), params) if needs_reference(still) else None,
    )


def grow_trees(probe: Probe, state: TrainState, number: int) -> GrownTrees:
    """Grow the trees of a rollout; their rewards are 0."""
    mesh, config = probe.parts.mesh, probe.parts.config
    prompts = put_batch(read_prompts(probe.parts, probe.examples), mesh)
    params, numbered = whole_params(state), put_whole(np.uint32(number), mesh)
    prompts = probe.programs.see(params, prompts)
    rollout = probe.programs.grow(params, prompts, numbered)
    leaves = (config.rl.grown_prompts, config.tree.thoughts, config.tree.answers)
    rewards, counted = put_batch((np.zeros(leaves, np.float32), np.ones(leaves, bool)), mesh)
    trees = GrownTrees(prompts=prompts, rollout=rollout, rewards=rewards, counted=counted)
    return jax.block_until_ready(trees)


def trained_trees(probe: Probe, trees: GrownTrees) -> GrownTrees:
    """Return as many trees as a step trains on; dynamic sampling leaves others out."""
    rl = probe.parts.config.rl
    if rl.trained_prompts == rl.grown_prompts:
        return trees
    first = put_whole(np.arange(rl.trained_prompts, dtype=np.int32), probe.parts.mesh)
    return probe.programs.place(None, trees, first)


def pack_trees(probe: Probe, trees: GrownTrees, credit: Advantages) -> PackedTree:
    """Return the first minibatch of some trees."""
    packed = probe.programs.pack(trees.prompts, trees.rollout, credit)
    return probe.programs.deal(packed)[0]


def random_credit(probe: Probe, rng: np.random.Generator, *segments: str) -> Advantages:
    """Draw credit of ±1 for the nodes of some segments; 0 for the others."""
    tree, batch = probe.parts.config.tree, probe.parts.config.rl.trained_prompts
    sizes = {"thought": (tree.thoughts,), "answer": (tree.thoughts, tree.answers)}
    drawn = {
        name: rng.choice((-1.0, 1.0), (batch, *size)).astype(np.float32) * (name in segments)
        for name, size in sizes.items()
    }
    placed: Advantages = put_batch(Advantages(**drawn), probe.parts.mesh)
    return placed


def time_step(probe: Probe, params: Params, repeats: int) -> tuple[StepSeconds, Params]:
    """Return a step's seconds without scoring, from medians of its parts; and the parameters.

    UserError where the devices have not the memory.
    """
    config, label = probe.parts.config, probe.parts.config.tree.shape.label
    spent: dict[str, list[float]] = {"rollout": [], "pack": [], "baselines": [], "update": []}
    state, rng = probe.trainer.start(params), np.random.default_rng(0)
    try:
        for number in range(repeats + 1):  # the first compiles
            marks = [time.perf_counter()]
            trees = trained_trees(probe, grow_trees(probe, state, number))
            marks.append(time.perf_counter())
            credit = random_credit(probe, rng, "thought", "answer")
            packed = jax.block_until_ready(pack_trees(probe, trees, credit))
            marks.append(time.perf_counter())
            packed = jax.block_until_ready(probe.programs.baselines(state, probe.reference, packed))
            marks.append(time.perf_counter())
            state, metrics = probe.trainer.update(state, packed)
            jax.block_until_ready((state, metrics))
            marks.append(time.perf_counter())
            for values, seconds in zip(spent.values(), np.diff(marks), strict=True):
                values += [float(seconds)] if number else []
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"a step of {label} does not fit the memory of the devices; give smaller --thoughts or "
            "--answers"
        ) from error
    medians = {name: statistics.median(values) for name, values in spent.items()}
    rest = medians["pack"] + config.rl.step_minibatches * medians["baselines"]
    rest += updates_per_step(config) * medians["update"]
    return StepSeconds(rollout=medians["rollout"], rest=rest), whole_params(state)


def measure_scores(
    probe: Probe, params: Params, scorer: Scorer, tokens: tuple[float, float]
) -> tuple[Scores, Params]:
    """Measure gradients of random credit, of thoughts and of answers, and of the run's own.

        E|1/n Σ_i ε_i s_i|² = E|s|²/n      ε_i = ±1 independent, n nodes of a minibatch

    What a gradient has without credit (of a KL, of the entropy) is taken off. `tokens` are those of
    a thought and of an answer on average. The parameters come back, too.
    """
    config = probe.parts.config
    objective, tree = config.objective, config.tree
    state, rng = probe.trainer.start(params), np.random.default_rng(1)
    thought, answer, whole = [], [], []

    def power(trees: GrownTrees, credit: Advantages) -> float:
        nonlocal state
        packed = probe.programs.baselines(state, probe.reference, pack_trees(probe, trees, credit))
        state, metrics = probe.trainer.update(state, packed)
        return float(compute(metrics)["grad_norm"] ** 2)

    for number in range(ROLLOUTS):
        grown = grow_trees(probe, state, number)
        trees = trained_trees(probe, grown)
        plain = objective.beta == 0 and objective.entropy_coef == 0
        rest = 0.0 if plain else power(trees, random_credit(probe, rng))
        for _ in range(SIGNS):
            thought.append(power(trees, random_credit(probe, rng, "thought")) - rest)
            answer.append(power(trees, random_credit(probe, rng, "answer")) - rest)
        whole.append(power(trees, own_credit(probe, scorer, grown)) - rest)
    batch, slots = config.rl.batch_prompts, (tree.thought_tokens, tree.answer_tokens)
    divisors = slots if objective.loss_type == "dr_grpo" else tokens

    def powers(values: Sequence[float], nodes: int) -> np.ndarray:
        return np.maximum(np.asarray(values), 0) * nodes

    scores = Scores(
        thought=SegmentScores(
            power=powers(thought, batch * tree.thoughts),
            weight=objective.thought_weight,
            divisor=divisors[0],
        ),
        answer=SegmentScores(
            power=powers(answer, batch * tree.thoughts * tree.answers),
            weight=objective.answer_weight,
            divisor=divisors[1],
        ),
        whole=powers(whole, batch),
    )
    return scores, whole_params(state)


def own_credit(probe: Probe, scorer: Scorer, grown: GrownTrees) -> Advantages:
    """Score a rollout, and return the credit of the trees that a step would train on."""
    parts = probe.parts
    held = fetch_rows(grown.rollout, parts.mesh)
    scored = score_batch(parts, scorer, probe.examples, held, parts.config.rl.steps)
    rewards, counted = put_batch((scored.scores.rewards, scored.counted), parts.mesh)
    trees = trained_trees(probe, replace(grown, rewards=rewards, counted=counted))
    return probe.programs.credit(trees.rewards, trees.counted)
