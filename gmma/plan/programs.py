"""The programs of an experiment in shapes: no weights, no data, no devices.

rollout   K thoughts and M answers for every prompt of a batch
scoring   log-probs of the rollout under the old policy or the reference
update    one optimiser step of RL
sft       one optimiser step of imitation
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gmma.config import ExperimentConfig, MeshConfig, updates_per_step, with_launch
from gmma.errors import UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.families.tiny.network import TinyConfig, empty_images
from gmma.hardware.sharding import BATCH, REPLICATED, batch_shards, check_batch, decode_layout
from gmma.images.processor import no_image_processor
from gmma.models.policy import Policy
from gmma.models.rounded import SCALES, lighter
from gmma.options.networks import RolloutWeights
from gmma.plan.tpu_compiler import local_bytes
from gmma.porting.pretrained import describe_pretrained
from gmma.run.assembly import Parts, assemble
from gmma.run.backbone import is_trained, pretrained_policy
from gmma.run.programs import (
    keeps_features,
    make_baselines,
    make_pack,
    make_rl_trainer,
    make_rollout,
    make_see,
    make_sft_trainer,
    needs_reference,
)
from gmma.tasks import find_task
from gmma.text.tokenizer import Tokenizer
from gmma.tree.stops import tree_stops
from gmma.types import Advantages, PackedTree, Params, PromptBatch, PyTree, TreeRollout, TreeShape
from gmma.update import join_params


@dataclass(frozen=True, kw_only=True)
class ProgramFacts:
    """Properties of a program that are known before it is compiled, per device."""

    name: str
    resident_bytes: int  # of the run, beside the program's arguments
    rows: int  # prompts at a time
    tokens: int  # that are sampled, or packed slots that are computed
    waiting_bytes: int = 0  # of what is resident, minibatches that wait for their update
    copy_bytes: int = 0  # of the parameters that a rollout gathers
    nodes: int = 0  # that a device's rollout holds a state of at a time, in layers without keys
    node_bytes: int = 0  # of one such state


@dataclass(frozen=True, kw_only=True)
class Planned(ProgramFacts):
    """One program before it is compiled."""

    jitted: Callable[..., Any]
    arguments: Sequence[Any]  # abstract, with shardings


def plan_parts(config: ExperimentConfig, mesh: Mesh) -> Parts:
    """Assemble the parts of a run's programs on a mesh of devices that are not there.

    Of a pretrained directory only config.json is read, and the vocabulary is made up: it changes
    the entries of a table and no shape. The tiny family's comes with the task's dataset.
    """
    for name, phase in (("sft", config.sft), ("rl", config.rl)):
        if phase.steps:
            check_batch(mesh, f"{name}.batch_prompts", phase.batch_prompts, phase.microbatches)
    model = config.model
    if not isinstance(model, PretrainedConfig):
        return replace(assemble(with_launch(config, mesh=MeshConfig())), config=config, mesh=mesh)
    described = describe_pretrained(
        model.directory,
        model.dtype,
        remat=model.remat,
        attention=model.attention,
        architecture=model.architecture,
        thinking=model.thinking,
        words=config.prompt,
    )
    policy = pretrained_policy(described, model, partial(is_trained, model))
    words, tags = made_up_tokenizer(policy.vocab_size), config.prompt.tags

    def start(mesh: Mesh) -> Params:
        raise UserError("a plan has no weights to start from")

    return Parts(
        config=config,
        task=find_task(config.task.name),
        policy=policy,
        tokenizer=words,
        template=described.template,
        processor=no_image_processor(),
        trained=partial(is_trained, model),
        start=start,
        adapted=model.lora is not None,
        stops=tree_stops(
            thought=tags.think[1],
            answer=tags.answer[1],
            closing=words.encode(tags.think[1]) if config.tree.unfinished == "close" else [],
            token_bytes=words.token_bytes,
            end_tokens=words.stop_tokens,
        ),
        mesh=mesh,
    )


def made_up_tokenizer(vocab_size: int) -> Tokenizer:
    """Return a token per byte; the rest of the vocabulary adds nothing to a text."""
    letters = tuple(bytes([i]) for i in range(256))
    return Tokenizer(
        encode=lambda text: list(text.encode()),
        decode=lambda ids: bytes(i for i in ids if i < 256).decode(errors="replace"),
        token_bytes=(*letters, *(b"" for _ in range(vocab_size - 256))),
        vocab_size=vocab_size,
        pad=0,
        bos=None,
        stop_tokens=(0,),
        image_token=None,
    )


def empty_batch(config: ExperimentConfig, policy: Policy, batch: int) -> PyTree:
    """Make empty images of a batch in the largest bucket of the config."""
    model = config.model
    if isinstance(model, TinyConfig):
        return empty_images(model, batch) if model.images else None
    family = describe_pretrained(
        model.directory, model.dtype, architecture=model.architecture, thinking=model.thinking
    ).family
    sizes, slots = policy.config, config.tree.prompt_tokens
    bucket = max(model.image_buckets) if model.image_buckets else family.full_bucket(sizes, slots)
    if not bucket:
        return None
    return jax.tree.map(jnp.asarray, family.empty_images(sizes, batch, bucket))


def prompt_shapes(parts: Parts, batch: int) -> PromptBatch:
    """Return the shapes of so many prompts with their images."""

    def prompts() -> PromptBatch:
        return PromptBatch(
            tokens=jnp.zeros((batch, parts.config.tree.prompt_tokens), jnp.int32),
            lengths=jnp.zeros(batch, jnp.int32),
            images=empty_batch(parts.config, parts.policy, batch),
        )

    return jax.eval_shape(prompts)


def rollout_shapes(shape: TreeShape, batch: int) -> tuple[TreeRollout, Advantages]:
    """Return the shapes of so many grown trees and of their credit."""
    nodes, leaves = (batch, shape.thoughts), (batch, shape.thoughts, shape.answers)

    def grown() -> tuple[TreeRollout, Advantages]:
        rollout = TreeRollout(
            thoughts=jnp.zeros((*nodes, shape.thought), jnp.int32),
            thought_lengths=jnp.zeros(nodes, jnp.int32),
            thought_sampled=jnp.zeros(nodes, jnp.int32),
            thought_logprobs=jnp.zeros((*nodes, shape.thought)),
            closed=jnp.zeros(nodes, bool),
            answers=jnp.zeros((*leaves, shape.answer), jnp.int32),
            answer_lengths=jnp.zeros(leaves, jnp.int32),
            answer_logprobs=jnp.zeros((*leaves, shape.answer)),
            finished=jnp.zeros(leaves, bool),
        )
        return rollout, Advantages(thought=jnp.zeros(nodes), answer=jnp.zeros(leaves))

    return jax.eval_shape(grown)


def place_shapes(tree: PyTree, mesh: Mesh, spec: PartitionSpec = BATCH) -> PyTree:
    """Give shapes the places of a batch."""
    where = NamedSharding(mesh, spec)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree
    )


def seen_shapes(parts: Parts, params: Params, batch: int) -> PromptBatch:
    """Return the shapes of so many prompts as a step of RL reads them."""
    return jax.eval_shape(make_see(parts), params, prompt_shapes(parts, batch))


def make_planned_rollout(parts: Parts) -> Callable[..., Any]:
    """Make a rollout as it is planned: with a program before it that sees the images, as one."""
    see = make_see(parts)
    grow = make_rollout(parts)

    def look_and_grow(params: Params, prompts: PromptBatch, number: Any) -> Any:
        seen = see(params, prompts)
        return grow(params, seen, number), seen.images

    return jax.jit(look_and_grow) if keeps_features(parts) else grow


def packed_shapes(
    parts: Parts,
    shape: TreeShape,
    prompts: PromptBatch,
    row_slots: int | None = None,
) -> PackedTree:
    """Return the shapes of packed prompts, in place; computed in rows of so many slots."""
    pack = make_pack(parts)

    def packed(*trees: Any) -> PackedTree:
        return replace(pack(*trees), row_slots=row_slots)

    batch = prompts.tokens.shape[0]
    found = jax.eval_shape(packed, prompts, *rollout_shapes(shape, batch))
    return place_shapes(found, parts.mesh)


def kept_bytes(parts: Parts, params: Params) -> int:
    """Return what dynamic sampling keeps on a device while a further rollout grows: its trees."""
    rl = parts.config.rl
    if not rl.dynamic_sampling or rl.max_rollouts == 1:
        return 0
    rollout, _ = rollout_shapes(parts.config.tree.shape, rl.trained_prompts)
    kept = (seen_shapes(parts, params, rl.trained_prompts), rollout)
    return local_bytes(place_shapes(kept, parts.mesh))


def plan_programs(parts: Parts, row_slots: int | None = None) -> Iterator[Planned]:
    """Yield the four programs of an experiment, those of packed trees in rows of so many slots.

    None: in all slots of the packed layout.
    """
    config, mesh = parts.config, parts.mesh
    shards = batch_shards(mesh)
    rl, sft, shape = make_rl_trainer(parts), make_sft_trainer(parts), config.tree.shape
    params = join_params(rl.abstract.params, rl.abstract.frozen)
    grown, batch = config.rl.grown_prompts, config.rl.batch_prompts
    held = local_bytes(rl.abstract.opt_state)
    reference = params if needs_reference(parts) else None
    reference_bytes = local_bytes(params) if needs_reference(parts) else 0
    layout = decode_layout(config.rollout_params, config.rollout_tensor, mesh, grown)
    trees = NamedSharding(layout.mesh, layout.prompts).shard_shape((grown,))[0]
    tensor = layout.mesh.shape["tensor"] if config.rollout_params == "sharded" else 1
    number = jax.ShapeDtypeStruct((), jnp.uint32, sharding=NamedSharding(mesh, REPLICATED))
    yield Planned(
        name="rollout",
        jitted=make_planned_rollout(parts),
        arguments=(params, place_shapes(prompt_shapes(parts, grown), mesh), number),
        resident_bytes=held + reference_bytes + kept_bytes(parts, params),
        rows=trees,
        tokens=trees * (shape.packed - shape.prompt),
        copy_bytes=copy_bytes(params, parts.policy.config.dtype, config.rollout_weights),
        nodes=trees * shape.thoughts * shape.answers,
        node_bytes=node_bytes(parts.policy.config, tensor),
    )
    packed = packed_shapes(parts, shape, seen_shapes(parts, params, batch), row_slots)
    others = config.rl.step_minibatches - 1  # minibatches that wait on the devices
    scores = updates_per_step(config) > 1 or config.objective.beta > 0
    scoring = make_baselines(parts if scores else scoring_parts(parts))
    yield Planned(
        name="scoring",
        jitted=scoring,
        arguments=(rl.abstract, reference, packed),
        # Of the state, only the parameters are read.
        resident_bytes=held + others * local_bytes(packed),
        waiting_bytes=others * local_bytes(packed),
        rows=batch // shards,
        tokens=batch // shards * (row_slots or shape.packed),
    )
    if scores:
        packed = place_shapes(jax.eval_shape(scoring, rl.abstract, reference, packed), mesh)
    yield Planned(
        name="update",
        jitted=rl.update,
        arguments=(rl.abstract, packed),
        resident_bytes=reference_bytes + others * local_bytes(packed),
        waiting_bytes=others * local_bytes(packed),
        rows=batch // shards // config.rl.microbatches,
        tokens=batch // shards * (row_slots or shape.packed),
    )
    chain = replace(shape, thoughts=1, answers=1)
    shown = prompt_shapes(parts, config.sft.batch_prompts)
    yield Planned(
        name="sft",
        jitted=sft.update,
        arguments=(sft.abstract, packed_shapes(parts, chain, shown, row_slots)),
        resident_bytes=0,
        rows=config.sft.batch_prompts // shards // config.sft.microbatches,
        tokens=config.sft.batch_prompts // shards * (row_slots or chain.packed),
    )


def copy_bytes(params: Params, dtype: str, weights: RolloutWeights) -> int:
    """Return a whole copy of the parameters as a rollout reads them."""
    held = jax.eval_shape(partial(lighter, weights=weights), params)
    scales = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(held.pop(SCALES, {})))
    whole = jnp.dtype(dtype).itemsize
    widths = {jnp.dtype(jnp.int8): 1}
    return scales + sum(prod(x.shape) * widths.get(x.dtype, whole) for x in jax.tree.leaves(held))


def node_bytes(config: Any, tensor: int = 1) -> int:
    """Return the bytes of a node's state on a device, 0 in families whose layers all have keys.

    Heads are cut over `tensor` devices where it divides them.
    """
    delta = getattr(config, "delta", None)
    if delta is None:
        return 0
    memory, tail = delta.state_numbers
    whole = 4 * memory + jnp.dtype(config.dtype).itemsize * tail
    return whole if delta.heads % tensor else whole // tensor


def scoring_parts(parts: Parts) -> Parts:
    """Return the experiment as if it made two updates on a rollout: with old log-probs to score."""
    objective = replace(parts.config.objective, num_iterations=2)
    return replace(parts, config=replace(parts.config, objective=objective))
