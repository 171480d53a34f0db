"""Teach the tiny family's patch stem to see, before it is asked to speak.

Ported backbones come with a trained vision tower. A stem that starts at random drowns the first
hundreds of SFT steps (`experiments/LOG.md`), so it first learns, with linear heads that are thrown
away, to tell what a patch of the task shows and where.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from gmma.families.tiny.network import Stem, TinyConfig
from gmma.tasks.task import Patches
from gmma.types import Params

BATCH_PATCHES = 512
LEARNING_RATE = 3e-3


def teach_stem(
    params: Params,
    config: TinyConfig,
    draw: Callable[[np.random.Generator, int, int], Patches],
    seed: int,
) -> Params:
    """Train the stem of the parameters for `config.stem_steps` steps.

    `draw` takes a generator, a count and the side of a patch in pixels.
    """
    rng = np.random.default_rng(seed)
    first = draw(rng, BATCH_PATCHES, config.patch_pixels)
    heads = [jnp.zeros((config.width, count)) for count in first.classes]
    learner = {"stem": params["params"]["stem"], "heads": heads}
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, config.stem_steps))
    opt_state = optimizer.init(learner)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(
        learner: Params, opt_state: optax.OptState, pixels: Array, labels: Array
    ) -> tuple[Params, optax.OptState]:
        gradient = jax.grad(patch_loss)(learner, config, pixels, labels)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(learner, updates), opt_state

    learner = jax.tree.map(jnp.array, learner)  # copies: the step donates what it is given
    for _ in range(config.stem_steps):
        patches = draw(rng, BATCH_PATCHES, config.patch_pixels)
        learner, opt_state = step(
            learner, opt_state, *jax.device_put((patches.pixels, patches.labels))
        )
    return {**params, "params": {**params["params"], "stem": learner["stem"]}}


def patch_loss(
    learner: Params,
    config: TinyConfig,
    pixels: UInt8[Array, "N p p C"],
    labels: Int[Array, "N targets"],
) -> Float[Array, ""]:
    """Sum the mean cross-entropy over targets; a label of −1 does not count."""
    flat = pixels.reshape(len(pixels), -1).astype(jnp.float32) / 255
    features = Stem(config).apply({"params": learner["stem"]}, flat)
    pairs = zip(learner["heads"], labels.T, strict=True)
    return jnp.stack([target_loss(features @ head, label) for head, label in pairs]).sum()


def target_loss(logits: Float[Array, "N classes"], label: Int[Array, "N"]) -> Float[Array, ""]:
    """Return the mean cross-entropy over the batch of the rows that have this target."""
    held = label >= 0
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(label, 0))
    return jnp.where(held, loss, 0).mean()
