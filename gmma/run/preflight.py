"""Checks made before a run writes anything.

A run that fails on its first batch would leave a directory behind, and the next attempt would meet
"already holds a run".
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial

from gmma.config import ExperimentConfig, updates_per_step
from gmma.errors import UserError
from gmma.hardware.hosts import check_hosts
from gmma.hardware.sharding import check_batch, check_copies
from gmma.models.splash import padded_slots
from gmma.options.prompt import DEFAULT_TAGS, Tags
from gmma.records import checkpoint
from gmma.records.console import say, warn
from gmma.rewards.service import Scorer, check_rewards
from gmma.run.assembly import Parts
from gmma.run.feed import (
    demonstrated_rows,
    read_batches,
    read_demonstrations,
    read_prompts,
)
from gmma.run.lengths import check_lengths
from gmma.run.objective_trial import try_objective
from gmma.run.programs import check_packing, kept_params
from gmma.run.reward_trial import Trial, trial_columns, trial_lines, trial_warnings
from gmma.run.task_trial import try_task
from gmma.tasks.mixture import MixtureConfig
from gmma.types import Example

CHUNK_EXAMPLES = 256
TRIAL_ANSWERS = 8  # rewards are tried on so many records, of each task


def check_settings(config: ExperimentConfig) -> None:
    """Raise UserError for settings with which RL could learn nothing, or rank no checkpoint.

    They are no mistake elsewhere: a plan counts flat rows, an evaluation has settings of its own.
    """
    if not config.rl.steps:
        return
    try_objective(config.objective, config.tree.shape)
    if config.sampling.temperature == 0:
        raise UserError(
            "sampling.temperature = 0: all thoughts and answers to a prompt would be the same, and "
            "every advantage 0; set it above 0"
        )
    if config.tree.thoughts * config.tree.answers == 1:
        raise UserError(
            "tree.thoughts = 1 and tree.answers = 1: a single answer is compared with nothing, and "
            "every advantage would be 0; set one of them to 2 or more"
        )
    if not any(term.weight for term in config.rewards.terms):
        raise UserError(
            "every weight of rewards.terms is 0: all rewards would be the same, and every "
            "advantage 0; give one term a weight"
        )
    metric, measured = config.checkpoint.best_metric, config.evaluation.every_steps
    saved = config.checkpoint.every_steps
    if metric.startswith("eval_") and (not measured or saved % measured):
        raise UserError(
            f"checkpoint.best_metric = {metric} is measured every evaluation.every_steps = "
            f"{measured} steps (0: never), and must be where a checkpoint is, every {saved}; set "
            f"evaluation.every_steps to {saved} or a divisor of it"
        )


def unknown_metric(config: ExperimentConfig, recorded: Iterable[str]) -> str | None:
    """Say what is wrong with `checkpoint.best_metric` given RL's recorded names, or None.

    Not every step evaluates, and not every batch holds every task of a mixture.
    """
    wanted, names = config.checkpoint.best_metric, sorted(recorded)
    titles = config.task.titles if isinstance(config.task, MixtureConfig) else ()
    if wanted in names or any(part in titles for part in wanted.split("/")):
        return None
    if wanted.startswith("eval_"):
        names = [name for name in names if name.startswith("eval_")]
        if not names:
            return None
    near = get_close_matches(wanted, names, n=4, cutoff=0.4) or names
    return (
        f"checkpoint.best_metric = {wanted} is in no record, so no checkpoint could be the best; "
        f"near it: {', '.join(near)}. This step is checkpointed: go on with --resume and "
        "--checkpoint.best-metric NAME"
    )


def short_warmups(config: ExperimentConfig) -> list[str]:
    """Warn of phases that end within the warm-up of their learning rate (`learning_rate`)."""
    found = []
    each = {"sft": 1, "rl": updates_per_step(config)}
    for name, phase in (("sft", config.sft), ("rl", config.rl)):
        updates, warmup = phase.steps * each[name], phase.optimizer.warmup_steps
        if 0 < updates <= warmup:
            found.append(
                f"{name}.steps = {phase.steps} ends within {name}.optimizer.warmup_steps = "
                f"{warmup}: the learning rate rises to the last update, and reaches "
                f"{updates / (updates + 1):.0%} of its peak"
            )
    return found


def check_run(parts: Parts, scorer: Scorer) -> None:
    """Raise UserError for batches, prompts, demonstrations or rewards that cannot work.

    The length of every record is looked at, but of pictures that are drawn, or lie where TFDS
    prepared them: of these the first batch of each phase stands for the others.
    """
    check_batches(parts)
    check_attention(parts)
    if parts.config.sft.steps and parts.task.demonstrate is None:
        raise UserError(
            f"sft.steps = {parts.config.sft.steps}, but task {parts.config.task.name} has no "
            "demonstrations to imitate; set sft.steps to 0"
        )
    for line in (*short_warmups(parts.config), *check_fits_slots(parts)):
        warn(line)
    if parts.config.sft.steps:
        batch = next(read_batches(parts, "sft"))
        read_prompts(parts, batch.examples)
        read_demonstrations(parts, batch)
    batch = next(read_batches(parts, "rl"))
    try_task(parts.task, parts.config.task, batch.examples)
    read_prompts(parts, batch.examples)
    tried = tuple(trial_examples(batch.examples))
    for line in try_rewards(scorer, tried, parts.template.tags):
        say(line)
    for words in trial_warnings(parts, scorer, tried):
        warn(words)


def check_fits_slots(parts: Parts) -> list[str]:
    """Check that the prompts and demonstrations of a run fit, those that evaluation asks as well.

    Returns a line for each split of which records are left out. Seven thousand records take some
    seconds, which is less than a run that ends on the last of them.
    """
    return check_lengths(parts, demonstrated_rows(parts) if parts.config.sft.steps else ())


def check_batches(parts: Parts) -> None:
    """Check that devices get equally many rows of what will run, and each row is on one host.

    And that the family computes in the layout that the config names.
    """
    config = parts.config
    check_hosts(parts.mesh.devices)
    check_packing(config.packing, parts.policy)
    for name, phase in (("sft", config.sft), ("rl", config.rl)):
        if phase.steps:
            field = f"{name}.batch_prompts"
            check_batch(parts.mesh, field, phase.batch_prompts, phase.microbatches)
    buckets = parts.processor.buckets
    if config.rl.dynamic_sampling and len(buckets) > 1:
        raise UserError(
            f"rl.dynamic_sampling with model.image_buckets = {buckets}: trees of several rollouts "
            "stand in one batch, so their images need one size; give one bucket"
        )
    check_batch(parts.mesh, "evaluation.batch_prompts", config.evaluation.batch_prompts)
    divides = partial(check_copies, config.rollout_params, config.rollout_tensor, parts.mesh)
    divides("evaluation.batch_prompts", config.evaluation.batch_prompts)
    if config.rl.steps:
        field = "batch_prompts" if config.rl.rollout_prompts is None else "rollout_prompts"
        divides(f"rl.{field}", config.rl.grown_prompts)


def check_attention(parts: Parts) -> None:
    """Check that a TPU's kernel takes a full tree: ragged rows have it as a branch."""
    config = parts.config
    asked = config.model.attention
    on_tpu = parts.mesh.devices.flat[0].platform == "tpu"
    if asked.startswith("splash") or (asked == "auto" and on_tpu):
        nodes = {} if config.rl.steps else {"thoughts": 1, "answers": 1}
        padded_slots(replace(config.tree.shape, **nodes).packed)


def check_origin(parts: Parts) -> None:
    """Check that the first parameters come from a checkpoint of this model."""
    if parts.config.init_from is not None:
        checkpoint.find_params(parts.config.init_from, kept_params(parts))
    if parts.config.init_from is None or parts.adapted:
        parts.check_start()


def trial_examples(examples: Sequence[Example]) -> list[Example]:
    """Return the first few of a batch; in a mixture, of each of its tasks."""
    tried: list[Example] = []
    counts: Counter[str | None] = Counter()
    for example in examples:
        task = example.columns.get("task")
        counts[task] += 1
        if counts[task] <= TRIAL_ANSWERS:
            tried.append(example)
    return tried


def try_rewards(
    scorer: Scorer, examples: tuple[Example, ...], tags: Tags = DEFAULT_TAGS
) -> list[str]:
    """Score the ground truth itself, as text: a reward must read its columns, not like the answer.

    Returns what to print of a user's own rewards. Raises UserError for a reward that crashes,
    hangs, or returns the wrong length or type.
    """
    trials = [
        Trial(example=e, thought="", answer=str(e.columns.get("answer", "")), complete=True)
        for e in examples
    ]
    scored = check_rewards(
        scorer,
        [trial.answer for trial in trials],
        thoughts=[trial.thought for trial in trials],
        columns=trial_columns(trials, slots=1, tags=tags),
    )
    return trial_lines(scorer.terms, trials, scored)
