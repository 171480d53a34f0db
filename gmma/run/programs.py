"""The compiled programs of a run. Each is a pure function, jitted once, at one static shape."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int, UInt

from gmma.config import (
    CREDITS,
    ExperimentConfig,
    ObjectiveConfig,
    Packing,
    PhaseConfig,
    updates_per_step,
)
from gmma.errors import UserError
from gmma.hardware.sharding import (
    BATCH,
    REPLICATED,
    decode_layout,
    decode_params,
    param_shardings,
    placed_policy,
)
from gmma.models.lora import without_adapters
from gmma.models.policy import Policy
from gmma.models.rounded import lighter
from gmma.objective import imitation_loss, policy_loss, token_logprobs
from gmma.options.networks import RolloutWeights
from gmma.rollout import grow_rows, row_keys
from gmma.run.assembly import Parts
from gmma.sampling import SamplingConfig
from gmma.tree.pack import pack_tree
from gmma.tree.rows import in_shortest_rows
from gmma.types import (
    Advantages,
    Metrics,
    PackedTree,
    Params,
    PromptBatch,
    TrainState,
    TreeRollout,
    TreeShape,
    node_of,
    pytree,
)
from gmma.update import (
    Loss,
    batch_weights,
    cut_batch,
    join_params,
    make_optimizer,
    split_params,
    train_step,
)

Grow = Callable[[Params, PromptBatch, Any], TreeRollout]
See = Callable[[Params, PromptBatch], PromptBatch]
Pack = Callable[[PromptBatch, TreeRollout, Advantages], PackedTree]


@pytree
class GrownTrees:
    """A rollout with its prompts and rewards, on the devices."""

    prompts: PromptBatch
    rollout: TreeRollout
    rewards: Float[Array, "B K M"]
    counted: Bool[Array, "B K M"]


def keeps_features(parts: Parts) -> bool:
    """Return whether what the image tower makes of a prompt stays the same through a step of RL.

    It does where none of the parameters that it reads are trained.
    """
    if parts.policy.see is None:
        return False
    return not any(parts.trained(path) for path in parts.policy.seen_by(parts_params(parts)))


def make_see(parts: Parts) -> See:
    """Make (params, prompts) → the same prompts, their images seen where the tower is frozen.

    Rollout, scoring and every update of a step then read the features, and no tower runs in them.
    """
    see = placed_policy(parts.policy, parts.mesh).see
    if see is None or not keeps_features(parts):
        return lambda _params, prompts: prompts

    def seen(params: Params, prompts: PromptBatch) -> PromptBatch:
        return replace(prompts, images=see(params, prompts.images))

    program = jax.jit(seen, out_shardings=NamedSharding(parts.mesh, BATCH))
    return lambda params, prompts: prompts if prompts.images is None else program(params, prompts)


def make_grow(
    parts: Parts,
    shape: TreeShape,
    sampling: SamplingConfig,
    seed: int,
    weights: RolloutWeights = "exact",
) -> Grow:
    """Make (params, prompts, number) → rollout; the number is that of the rollout.

    Each device, or each group of devices that shares the parameters, grows the trees of its own
    prompts.

    The key of a rollout is the root key folded with its number, the key of a prompt is that folded
    with its row in the whole batch. Parameters become `weights`, are cast to the activations' type
    and then gathered, as `rollout_params` and `rollout_tensor` say.
    """
    config, policy = parts.config, parts.policy
    grow_part = partial(grow_rows, policy, shape=shape, sampling=sampling, stops=parts.stops)

    def grow(params: Params, prompts: PromptBatch, number: UInt[Array, ""]) -> TreeRollout:
        batch = prompts.tokens.shape[0]
        keys = row_keys(jax.random.fold_in(jax.random.key(seed), number), batch)
        layout = decode_layout(config.rollout_params, config.rollout_tensor, parts.mesh, batch)
        grow_shards = jax.shard_map(
            grow_part,
            mesh=layout.mesh,
            in_specs=(REPLICATED, layout.prompts, layout.prompts),
            out_specs=layout.prompts,
            axis_names=set(layout.manual),
            check_vma=False,
        )
        held = decode_params(policy, lighter(params, weights), parts.mesh, layout.mesh)
        # Said on both sides, or rows would be cut on inside as they lie before and behind.
        place = NamedSharding(layout.mesh, layout.prompts)
        here = jax.lax.with_sharding_constraint((prompts, keys), place)
        return jax.lax.with_sharding_constraint(grow_shards(held, *here), place)

    return jax.jit(grow, out_shardings=NamedSharding(parts.mesh, BATCH))


def make_rollout(parts: Parts) -> Grow:
    """Make the rollout of a run's steps; UserError where its weights cannot be rounded."""
    config = parts.config
    if config.rollout_weights == "int8" and not parts.policy.takes_scales:
        raise UserError(
            "rollout_weights = int8, but the model's family has products that know no scales; "
            "leave rollout_weights at exact"
        )
    return make_grow(parts, config.tree.shape, config.sampling, config.seed, config.rollout_weights)


def make_place(parts: Parts) -> Callable[[GrownTrees | None, GrownTrees, Array], GrownTrees]:
    """Make (held, trees, rows) → held, with tree `rows[s]` in place s where that is no −1.

    Without `held` every place takes one. The trees of all devices can go anywhere. `held` is
    donated.
    """

    def place(held: GrownTrees | None, trees: GrownTrees, rows: Int[Array, "places"]) -> GrownTrees:
        taken = jax.tree.map(lambda array: array[rows], trees)

        def chosen(old: Array, new: Array) -> Array:
            return jnp.where(rows.reshape(-1, *(1,) * (new.ndim - 1)) < 0, old, new)

        return taken if held is None else jax.tree.map(chosen, held, taken)

    return jax.jit(place, donate_argnums=0, out_shardings=NamedSharding(parts.mesh, BATCH))


def make_credit(parts: Parts, minibatches: int = 1) -> Callable[[Array, Array], Advantages]:
    """Make (rewards, counted) → advantages, as `credit`, of each minibatch alone."""
    given = partial(credit, objective=parts.config.objective)

    def of_each(rewards: Float[Array, "B K M"], counted: Bool[Array, "B K M"]) -> Advantages:
        dealt = deal_batch((rewards, counted), minibatches)
        return join_batch([given(*minibatch) for minibatch in dealt])

    program = given if minibatches == 1 else of_each
    return jax.jit(program, out_shardings=NamedSharding(parts.mesh, BATCH))


def credit(
    rewards: Float[Array, "B K M"], counted: Bool[Array, "B K M"], *, objective: ObjectiveConfig
) -> Advantages:
    """Return the configured advantages; answers that do not count get none and shift nothing.

    What a rule says of them is taken back: a user's own need not know that they are trained on.
    """
    found = ask_rule(rewards, counted, objective)
    return Advantages(
        thought=jnp.where(counted.any(axis=2), found.thought, 0),
        answer=jnp.where(counted, found.answer, 0),
    )


def ask_rule(
    rewards: Float[Array, "B K M"], counted: Bool[Array, "B K M"], objective: ObjectiveConfig
) -> Any:
    """Call the configured credit rule; a user's own may return anything."""
    return CREDITS.find(objective.credit)(
        jnp.where(counted, rewards, 0),
        mask=counted,
        scale=objective.scale_rewards,
        answer_baseline=objective.answer_baseline,
        **dict(objective.credit_options),
    )


def make_pack(parts: Parts) -> Pack:
    """Make (prompts, rollout, advantages) → packed tree, as `packing`."""
    return jax.jit(packing(parts.config), out_shardings=NamedSharding(parts.mesh, BATCH))


def check_packing(packing: Packing, policy: Policy) -> None:
    """Raise UserError where updates should compute in ragged rows and the family cannot."""
    if packing == "ragged" and not policy.takes_rows:
        raise UserError(
            "packing = ragged, but the model's family computes in the static layout alone; leave "
            "packing at static"
        )


def row_lengths(config: ExperimentConfig) -> int | None:
    """Return how many lengths of ragged rows an update has; None where rows are static."""
    return config.row_lengths if config.packing == "ragged" else None


def packing(config: ExperimentConfig) -> Pack:
    """Apply `pack_tree` with the run's policy on unfinished text."""
    return partial(
        pack_tree,
        drop_unclosed=config.tree.unfinished == "drop",
        mask_truncated=config.objective.mask_truncated_completions,
    )


def make_deal(parts: Parts, minibatches: int) -> Callable[[PackedTree], tuple[PackedTree, ...]]:
    """Make packed tree → its minibatches, an update each; whole trees, cut where they lie."""
    if minibatches == 1:
        return lambda packed: (packed,)
    deal = partial(deal_batch, parts=minibatches)
    return jax.jit(deal, out_shardings=NamedSharding(parts.mesh, BATCH))


def deal_batch(batch: Any, parts: int) -> tuple[Any, ...]:
    """Deal rows in turn: row r goes to part r mod `parts`."""
    cut = cut_batch(batch, parts)
    return tuple(jax.tree.map(lambda array, at=at: array[at], cut) for at in range(parts))


def join_batch(parts: Sequence[Any]) -> Any:
    """Undo `deal_batch`."""

    def join(*arrays: Array) -> Array:
        return jnp.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:])

    return jax.tree.map(join, *parts)


def make_baselines(parts: Parts) -> Callable[[TrainState, Params | None, PackedTree], PackedTree]:
    """Make (state, reference, packed) → packed with the log-probs that the objective compares to.

    The old policy's are needed from the second update on a rollout; on policy they are the new
    ones, also where the objective corrects for the sampler, and one forward pass is saved.
    """
    wants_old = updates_per_step(parts.config) > 1
    wants_reference = parts.config.objective.beta > 0

    policy = placed_policy(parts.policy, parts.mesh)

    def logprobs(params: Params, packed: PackedTree) -> Float[Array, "B S"]:
        found = partial(
            token_logprobs,
            policy,
            params,
            temperature=parts.config.sampling.temperature,
            chunk_slots=parts.config.logprob_chunk_slots,
        )
        return in_shortest_rows(found, packed, row_lengths(parts.config))[0]

    def baselines(state: TrainState, reference: Params | None, packed: PackedTree) -> PackedTree:
        now = join_params(state.params, state.frozen)
        if wants_old:
            packed = replace(packed, old_logprobs=logprobs(now, packed))
        if wants_reference:
            held = without_adapters(now) if parts.adapted else reference
            packed = replace(packed, reference_logprobs=logprobs(held, packed))
        return packed

    if not (wants_old or wants_reference):
        return lambda _state, _reference, packed: packed
    return jax.jit(baselines)


def needs_reference(parts: Parts) -> bool:
    """Return whether a run holds a second set of parameters.

    It does for the KL term, unless it has adapters that can be switched off.
    """
    return parts.config.objective.beta > 0 and not parts.adapted


@dataclass(frozen=True, kw_only=True)
class Programs:
    """The compiled programs that a step calls between its batch and its update."""

    see: See  # of images, what a step of RL then reads
    grow: Grow
    place: Callable[[GrownTrees | None, GrownTrees, Array], GrownTrees]  # of dynamic sampling
    credit: Callable[[Array, Array], Advantages]
    pack: Pack
    deal: Callable[[PackedTree], tuple[PackedTree, ...]]
    baselines: Callable[[TrainState, Params | None, PackedTree], PackedTree]


def make_programs(parts: Parts) -> Programs:
    """Make the programs of a run; nothing is compiled before the first call."""
    minibatches = parts.config.rl.step_minibatches
    return Programs(
        see=make_see(parts),
        grow=make_rollout(parts),
        place=make_place(parts),
        credit=make_credit(parts, minibatches),
        pack=make_pack(parts),
        deal=make_deal(parts, minibatches),
        baselines=make_baselines(parts),
    )


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """One phase of training as programs."""

    abstract: TrainState  # shapes, types and where each array lies
    # A new optimiser on these parameters. What already lies where it should is not copied: the
    # state is donated to its update, and the parameters go with it.
    start: Callable[[Params], TrainState]
    update: Callable[[TrainState, PackedTree], tuple[TrainState, Metrics]]  # the state is donated


def make_sft_trainer(parts: Parts) -> Trainer:
    """Make the trainer of imitation: mean log-likelihood over thoughts' and answers' tokens."""
    chunk = parts.config.logprob_chunk_slots
    policy = placed_policy(parts.policy, parts.mesh)
    loss = partial(imitation_loss, policy, chunk_slots=chunk)
    return _make_trainer(parts, parts.config.sft, loss, ObjectiveConfig(loss_type="dapo"), 1)


def make_rl_trainer(parts: Parts) -> Trainer:
    """Make the trainer of the configured policy objective."""
    config = parts.config
    loss = rl_loss(config, placed_policy(parts.policy, parts.mesh))
    return _make_trainer(parts, config.rl, loss, config.objective, updates_per_step(config))


def rl_loss(config: ExperimentConfig, policy: Policy) -> Loss:
    """Make `policy_loss` of the run's settings."""
    return partial(
        policy_loss,
        policy,
        config=config.objective,
        temperature=config.sampling.temperature,
        chunk_slots=config.logprob_chunk_slots,
    )


def _make_trainer(
    parts: Parts, phase: PhaseConfig, loss: Any, objective: ObjectiveConfig, updates: int
) -> Trainer:
    optimizer = make_optimizer(phase.optimizer, phase.steps * updates)
    shapes = jax.eval_shape(partial(start_state, parts, optimizer), parts_params(parts))
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_shardings(parts, optimizer, shapes),
    )
    update = partial(
        train_step,
        loss=loss,
        weights=partial(batch_weights, config=objective, microbatches=phase.microbatches),
        optimizer=optimizer,
        microbatches=phase.microbatches,
        row_lengths=row_lengths(parts.config),
    )
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    whole = NamedSharding(parts.mesh, REPLICATED)
    jitted = jax.jit(update, donate_argnums=0, out_shardings=(shardings, whole))
    init = jax.jit(optimizer.init, out_shardings=shardings.opt_state)
    zero = jax.jit(partial(jnp.zeros, (), jnp.int32), out_shardings=whole)

    def start(params: Params) -> TrainState:
        placed = shardings.params, shardings.frozen
        trained, frozen = jax.device_put(split_params(params, parts.trained), placed)
        return TrainState(params=trained, frozen=frozen, opt_state=init(trained), step=zero())

    return Trainer(abstract=abstract, start=start, update=jitted)


def start_state(
    parts: Parts, optimizer: optax.GradientTransformation, params: Params
) -> TrainState:
    """Make a phase's first state from a whole set of parameters."""
    trained, frozen = split_params(params, parts.trained)
    return TrainState(
        params=trained,
        frozen=frozen,
        opt_state=optimizer.init(trained),
        step=jnp.zeros((), jnp.int32),
    )


def parts_params(parts: Parts) -> Params:
    """Return the shapes of all parameters."""
    return jax.eval_shape(parts.policy.init, jax.random.key(0))


def kept_params(parts: Parts) -> dict[str, Params]:
    """Return shapes and places of the parameters that a checkpoint keeps.

    They are `params`, and `frozen` unless that is a base under adapters, which its directory keeps.
    """
    abstract = make_rl_trainer(parts).abstract
    kept = {"params": abstract.params, "frozen": abstract.frozen}
    return {"params": abstract.params} if parts.adapted else kept


def state_shardings(
    parts: Parts, optimizer: optax.GradientTransformation, shapes: TrainState
) -> TrainState:
    """Return the state's shardings: the optimiser's arrays lie where their parameters do."""
    everything = param_shardings(parts.policy, parts_params(parts), parts.mesh)
    trained, frozen = split_params(everything, parts.trained)
    whole = NamedSharding(parts.mesh, REPLICATED)
    opt_state = optax.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        shapes.opt_state,
        trained,
        transform_non_params=lambda _: whole,
    )
    return node_of(TrainState, params=trained, frozen=frozen, opt_state=opt_state, step=whole)
