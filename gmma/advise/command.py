"""`gmma advise RUN_DIR`: which K and M a second is best spent on, before a sweep is paid for.

A run's policy, or a pilot's, samples many answers to many thoughts once. Trees of every K and M are
cut out of them and credited by the run's own rule; gradients are measured and steps timed with the
run's own programs, or planned for a slice. `docs/variance.md` has the theory and what it assumes.
"""

import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from gmma.advise.advice import label_of, predict
from gmma.advise.against import hold_against, print_agreement, read_sweep
from gmma.advise.prediction import Rule, Scores, Shape, TreeCredit, credit_trees
from gmma.advise.probe import measure_scores, open_probe, time_step
from gmma.advise.seconds import StepSeconds, plan_seconds, probe_shapes
from gmma.advise.tables import print_advice, print_figures
from gmma.commands import load_run, override, placed, use_compilation_cache
from gmma.config import ExperimentConfig, RLConfig, config_to_json, with_launch
from gmma.errors import UserError
from gmma.files import RunPath, check_output, write_whole
from gmma.hardware.sharding import check_batch
from gmma.intervals import Interval, mean_interval
from gmma.options.arguments import AdviseArguments
from gmma.plan.tpu_compiler import open_slice
from gmma.records.checkpoint import find_step
from gmma.records.console import say
from gmma.records.diagnostics import thought_noise
from gmma.records.metrics import RECORDS, read_records
from gmma.run.assembly import Parts, assemble, run_scorer
from gmma.run.feed import read_examples
from gmma.run.preflight import check_settings
from gmma.run.programs import check_packing, credit
from gmma.run.reward_pool import RewardPool, sample_pool
from gmma.run.state import load_params
from gmma.types import Example, Params


def advise_command(given: AdviseArguments) -> None:
    """Print the variances, the table and the best few; every figure to RUN_DIR/advice.json."""
    run = load_run(given.run_dir)
    config = placed(run, given.launch)
    check_advisable(config)
    step = find_step(given.run_dir, given.step)
    output = given.output or given.run_dir / "advice.json"
    check_output("output", output)
    if given.topology is not None:
        open_slice(given.topology)
    swept = None if given.sweep is None else read_sweep(given.sweep, config_to_json(config))
    own, grid = grid_of(config, given, () if swept is None else swept.curves)
    use_compilation_cache(config)
    parts = assemble(config)
    check_batch(parts.mesh, "rl.batch_prompts", config.rl.batch_prompts, config.rl.microbatches)
    check_packing(config.packing, parts.policy)
    params = load_params(parts, given.run_dir, step)
    examples = read_examples(parts, given.split, given.examples)
    sampled = {"thoughts": max(k for k, _ in grid), "answers": given.pool, "seed": given.seed}
    say(f"sampling {given.pool} answers to {sampled['thoughts']} thoughts a prompt")
    pool = sample_pool(parts, params, examples, **sampled)
    rule = partial(credit, objective=config.objective)
    found = credit_grid(pool, grid, rule, config.rewards.min_scored)
    shapes = probe_shapes(grid, own)
    timed = shapes if given.topology is None else ()
    scores, spent = probe_steps(parts, params, examples, pool, timed, given.repeats)
    if given.topology is not None:
        spent = planned(run, given, given.topology, shapes)
    spent = with_scoring(spent, config.rl, pool)
    table = predict(found, own, scores, spent, config.rl)
    figures = {
        **{"run": str(given.run_dir), "checkpoint": step, "own": label_of(own)},
        **{"split": given.split, "prompts": len(examples), "pool": sampled},
        **pool_figures(pool),
        "gradients": gradient_figures(scores),
        "topology": given.topology,
        "tried_seconds": {label_of(shape): asdict(tried) for shape, tried in spent.items()},
        "recorded": recorded_figures(given.run_dir),
        "trees": [asdict(tree) for tree in table],
    }
    print_figures(figures)
    print_advice(table, label_of(own), given.topology)
    if swept is not None:
        agreement = hold_against(swept, table, planned=given.topology is not None)
        print_agreement(agreement, given.sweep)
        figures["sweep"] = asdict(agreement)
    write_whole(output, json.dumps(figures, indent=1))
    print(f"every figure: {output}")


def planned(
    run: ExperimentConfig, given: AdviseArguments, topology: str, shapes: Sequence[Shape]
) -> dict[Shape, StepSeconds]:
    """Plan steps of some shapes for a slice, on the run's mesh or the one that is given."""
    mesh = override(run.launch.mesh, **vars(given.launch.mesh))
    say(f"planning {', '.join(map(label_of, shapes))} for {topology}")
    return plan_seconds(with_launch(run, mesh=mesh), topology, shapes)


def check_advisable(config: ExperimentConfig) -> None:
    """Raise UserError for a run whose steps of RL could learn nothing, or have no M to choose."""
    if config.objective.algorithm == "grpo":
        raise UserError(
            f"{config.name} has objective.algorithm = grpo: one advantage for a thought and its "
            "only answer, so there is no M to choose; give a run with algorithm = grpo_ma"
        )
    if not config.objective.thought_weight and not config.objective.answer_weight:
        raise UserError(
            "objective.thought_weight and objective.answer_weight are both 0: no step gains "
            "anything; give one of them a weight"
        )
    trained = replace(config.rl, steps=max(config.rl.steps, 1))
    unranked = replace(config.checkpoint, best_metric="reward")  # what ranks does not matter here
    check_settings(replace(config, rl=trained, checkpoint=unranked))


def shape_of(config: ExperimentConfig) -> Shape:
    """Return K and M."""
    return (config.tree.thoughts, config.tree.answers)


def grid_of(
    config: ExperimentConfig, given: AdviseArguments, swept: Collection[Shape] = ()
) -> tuple[Shape, list[Shape]]:
    """Return the run's own shape and every shape that is compared, own and swept among them.

    UserError for a pool that is no larger than a tree.
    """
    own = shape_of(config)
    grid = sorted({(k, m) for k in given.thoughts for m in given.answers} | {own, *swept})
    most = max(answers for _, answers in grid)
    if given.pool <= most:
        raise UserError(
            f"pool = {given.pool} answers to a thought, and trees with {most}: those left over "
            f"tell what a thought is worth; give --pool {2 * most}"
        )
    return own, grid


def credit_grid(
    pool: RewardPool, grid: Sequence[Shape], rule: Rule, min_scored: int
) -> dict[Shape, TreeCredit]:
    """Credit the trees of every shape. UserError where no answer of the pool counts."""
    if not pool.counted.any():
        raise UserError(
            f"none of the {pool.counted.size} answers of {len(pool.counted)} prompts counts: none "
            "could be scored, or no thought closed (tree.unfinished = drop)"
        )
    rewards = jnp.asarray(np.where(pool.counted, pool.rewards, 0), jnp.float32)
    counted = jnp.asarray(pool.counted)
    return {
        (k, m): credit_trees(
            rewards, counted, thoughts=k, answers=m, rule=rule, min_scored=min_scored
        )
        for k, m in grid
    }


def probe_steps(
    parts: Parts,
    params: Params,
    examples: Sequence[Example],
    pool: RewardPool,
    shapes: Sequence[Shape],
    repeats: int,
) -> tuple[Scores, dict[Shape, StepSeconds]]:
    """Measure the gradients of the run's own trees, and time steps of some shapes."""
    own = shape_of(parts.config)
    probe = open_probe(parts, params, examples, own)
    say(f"measuring gradients of {label_of(own)}")
    with run_scorer(parts.config) as scorer:
        tokens = (pool.thought_tokens, pool.answer_tokens)
        scores, params = measure_scores(probe, params, scorer, tokens)
    spent = {}
    for shape in shapes:
        say(f"timing steps of {label_of(shape)}")
        if shape != shape_of(probe.parts.config):
            del probe  # with the reference that it may hold
            probe = open_probe(parts, params, examples, shape)
        spent[shape], params = time_step(probe, params, repeats)
    return scores, spent


def with_scoring(
    spent: Mapping[Shape, StepSeconds], rl: RLConfig, pool: RewardPool
) -> dict[Shape, StepSeconds]:
    """Add what scoring its answers takes to each rollout, as the pool's took it."""
    return {
        (k, m): replace(own, rollout=own.rollout + rl.grown_prompts * k * m * pool.scoring_seconds)
        for (k, m), own in spent.items()
    }


def pool_figures(pool: RewardPool) -> dict[str, Any]:
    """Return the mean reward and its variances, with intervals over prompts, and what counts."""
    rewards = np.where(pool.counted, pool.rewards, np.nan)
    held = np.ma.masked_invalid(rewards)
    found: dict[str, Float[np.ndarray, "B"]] = {
        "reward": held.mean(axis=(1, 2)),
        "between_thoughts": thought_noise(rewards)["reward_variance/between_thoughts_corrected"],
        "within_thoughts": np.ma.masked_invalid(held.var(axis=2, ddof=1)).mean(axis=1),
    }
    return {
        "answers_that_count": float(pool.counted.mean()),
        "tokens": {"thought": pool.thought_tokens, "answer": pool.answer_tokens},
        "scoring_seconds_per_answer": pool.scoring_seconds,
        **{name: interval_of(np.ma.filled(values, np.nan)) for name, values in found.items()},
    }


def interval_of(values: Float[np.ndarray, "B"]) -> Interval | None:
    """Return the mean of what is known, with its interval; None where nothing is."""
    known: Bool[np.ndarray, "B"] = np.isfinite(values)
    return mean_interval(values[known]) if known.any() else None


def gradient_figures(scores: Scores) -> dict[str, Any]:
    """Return the measured powers of scores and of a prompt's own gradient."""
    segments = {"thought": scores.thought, "answer": scores.answer}
    powers = {f"{name}_score_power": own.power.tolist() for name, own in segments.items()}
    divisors = {f"{name}_divisor": own.divisor for name, own in segments.items()}
    return {**powers, **divisors, "prompts_times_power": scores.whole.tolist()}


def recorded_figures(run_dir: RunPath) -> dict[str, float]:
    """Return what the run's own steps of RL recorded: median seconds, and signal over noise."""
    if not (run_dir / RECORDS).is_file():
        return {}
    records = [r for r in read_records(run_dir / RECORDS) if r["phase"] == "rl"]
    warm = [r["step_time"] for r in records if not r.get("compilations")]
    found = {"step_seconds": statistics.median(warm)} if warm else {}
    names = ("gradient/signal_power", "gradient/noise_power")
    powers = [[r[name] for r in records if name in r] for name in names]
    if all(powers) and np.mean(powers[1]) > 0:
        found["signal_to_noise"] = float(np.mean(powers[0]) / np.mean(powers[1]))
    return found
