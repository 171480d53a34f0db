"""Assemble the parts of a run from its config: task, backbone, stops, mesh."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from jax.sharding import Mesh

from gmma.config import ExperimentConfig
from gmma.families.tiny.network import TinyConfig
from gmma.hardware.sharding import make_mesh
from gmma.rewards import REWARDS
from gmma.rewards.service import Scorer, open_scorer
from gmma.rewards.terms import RewardTerm
from gmma.run.backbone import Backbone, make_backbone
from gmma.run.sources import with_copies
from gmma.scoring import ScoredRollout, score_trees
from gmma.tasks import find_task
from gmma.tasks.task import Task, ask
from gmma.text.prompt import check_slots, check_tags
from gmma.tree.stops import TreeStops, tree_stops
from gmma.types import Example, TreeRollout


@dataclass(frozen=True, kw_only=True)
class HostParts(Backbone):
    """The parts that read records and need no device: the backbone, and what it works on."""

    config: ExperimentConfig
    task: Task
    # Training rows that fit, of each phase, once they were looked for (`gmma/run/lengths.py`)
    kept: dict[str, Sequence[int]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )


@dataclass(frozen=True, kw_only=True)
class Parts(HostParts):
    """The parts that every command needs of an experiment."""

    stops: TreeStops
    mesh: Mesh


def in_frame(parts: HostParts, example: Example) -> Example:
    """Return an example as it is asked: in the family's coordinates, with its task's words."""
    asked = ask(parts.task, parts.config.task, example, parts.processor.frame)
    return replace(asked, tags=parts.template.tags.all)


def reward_terms(config: ExperimentConfig) -> tuple[RewardTerm, ...]:
    """Return the reward's terms, their options completed by the task's own config."""
    task = find_task(config.task.name)
    return tuple(
        replace(term, options=(*task.term_options(config.task, term), *term.options))
        for term in config.rewards.terms
    )


def own_terms(config: ExperimentConfig) -> tuple[RewardTerm, ...]:
    """Return those terms of the reward that are the user's own functions."""
    return tuple(term for term in reward_terms(config) if term.name not in REWARDS)


def run_scorer(config: ExperimentConfig) -> AbstractContextManager[Scorer]:
    """Start the scoring service with the terms and limits of a run."""
    limits = config.rewards
    return open_scorer(
        reward_terms(config),
        workers=limits.workers,
        timeout_seconds=limits.timeout_seconds,
        step_seconds=limits.step_seconds,
        memory_gigabytes=limits.memory_gigabytes,
    )


def score_batch(
    parts: Parts, scorer: Scorer, examples: Sequence[Example], rollout: TreeRollout, step: int
) -> ScoredRollout:
    """Score a fetched rollout of a run; the one call of training, sampling, variance and grid.

    So many steps of RL are done.
    """
    config = parts.config
    return score_trees(
        scorer,
        examples,
        rollout,
        parts.tokenizer,
        mesh=parts.mesh,
        drop_unclosed=config.tree.unfinished == "drop",
        min_scored=config.rewards.min_scored,
        step=step,
        steps=config.rl.steps,
        tags=parts.template.tags,
    )


def assemble(config: ExperimentConfig) -> Parts:
    """Build the dataset where it is missing, and every part from its section of the config."""
    host = assemble_host(config)
    tokenizer = host.tokenizer
    tags = host.template.tags
    closing = tokenizer.encode(tags.think[1]) if config.tree.unfinished == "close" else []
    return Parts(
        stops=tree_stops(
            thought=tags.think[1],
            answer=tags.answer[1],
            closing=closing,
            token_bytes=tokenizer.token_bytes,
            end_tokens=tokenizer.stop_tokens,
        ),
        mesh=make_mesh(config.launch.mesh),
        **{name: value for name, value in vars(host).items() if name != "kept"},
    )


def assemble_host(config: ExperimentConfig) -> HostParts:
    """Build the dataset where it is missing, and the parts that need no device.

    In the parts' config, paths that lead elsewhere are those of their copies.
    """
    config = with_copies(config)
    task = find_task(config.task.name)
    task.build(config.task, config.launch.data_dir)
    backbone = make_backbone(config, task)
    tags = backbone.template.tags
    check_tags(backbone.tokenizer, f"the tokenizer of {config.name}", tags)
    if not isinstance(config.model, TinyConfig):  # a task's own vocabulary spells its forms alone
        slots = config.tree.thought_tokens, config.tree.answer_tokens
        check_slots(backbone.tokenizer, *slots, tags)
    return HostParts(config=config, task=task, **vars(backbone))
