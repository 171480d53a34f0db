"""The laws of the tree as functions of a policy, and the random trees they are tried on.

A family's tests make a `Subject` and call the `check_…` functions; a law fails by an assertion.
The flat side of every comparison is written here on its own: K·M plain sequences, cut out of the
tree by loops over (b, i, j), and textbook objectives in NumPy with their derivatives by hand.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.flatten_util import ravel_pytree

from gmma.config import ObjectiveConfig
from gmma.families.tiny.network import TinyConfig, tiny_policy
from gmma.models.policy import Policy
from gmma.objective import policy_loss, token_logprobs, token_weights
from gmma.rollout import grow_tree
from gmma.run.programs import deal_batch
from gmma.sampling import SamplingConfig
from gmma.tree.layout import prompt_only
from gmma.tree.pack import pack_tree
from gmma.tree.stops import TreeStops, tree_stops
from gmma.types import (
    Advantages,
    PackedTree,
    Params,
    PromptBatch,
    PyTree,
    TreeInputs,
    TreeRollout,
    TreeShape,
)

BATCH = 2
TEMPERATURE = 0.7
OBJECTIVE = ObjectiveConfig(beta=0.1, epsilon=0.2, epsilon_high=0.3)

# Programs of these sizes run for microseconds and compile for seconds: ask XLA for no effort.
FAST_COMPILE: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
if jax.__version_info__ < (0, 12):  # a newer XLA has the newer compiler of fusions alone
    FAST_COMPILE["xla_cpu_use_fusion_emitters"] = False


def compiled(function: Callable[..., Any]) -> Any:
    """`jax.jit` for test programs."""
    return jax.jit(function, compiler_options=FAST_COMPILE)


def examples(count: int) -> hypothesis.settings:
    """So many examples; a failing one is small as it is, and shrinking it would take minutes."""
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    return hypothesis.settings(max_examples=count, phases=phases)


# What is tested


def no_images(rng: np.random.Generator, batch: int) -> None:
    """Prompts of text alone."""


@dataclass(frozen=True, eq=False)  # compared by identity, so that programs can be cached by it
class Subject:
    """A policy under test with its parameters."""

    policy: Policy
    params: Params
    image_prefix: tuple[int, ...] = ()  # the placeholder tokens that every prompt begins with
    draw_images: Callable[[np.random.Generator, int], PyTree] = no_images  # for so many prompts
    dtype: type = np.float32  # of activations, and so of log-probs
    ragged: bool = False  # the trainer computes in ragged rows


# A vocabulary whose pieces spell the tags in many ways, and both at once; b"": control tokens.
PIECES = (
    *(b"", b"", b"", b"<", b"/", b"t", b"a", b">", b"</", b"t>", b"a>", b"/t>", b"</t", b"</t>"),
    *(b"</a>", b"x</t>y", b"</a>x", b"</t></", b"x", b"y", b"</t></a>", b"t></a", b"/a", b"xyz"),
)
PAD, IMAGE, END = range(3)
THOUGHT_TAG, ANSWER_TAG = "</t>", "</a>"
CLOSING = (8, 9)  # "</" "t>"


def stops_of(closing: tuple[int, ...]) -> TreeStops:
    """The tags over `PIECES`; an empty `closing` is the policy `drop`."""
    return tree_stops(
        thought=THOUGHT_TAG,
        answer=ANSWER_TAG,
        closing=closing,
        token_bytes=PIECES,
        end_tokens=[END],
    )


@functools.cache
def tiny_subject(dtype: str = "float32") -> Subject:
    """The tiny family with one image of four tokens before the text of every prompt."""
    config = TinyConfig(
        layers=2,
        width=16,
        heads=4,
        kv_heads=2,
        head_size=4,
        mlp=24,
        image_pixels=4,
        patch_pixels=2,
    )
    policy = tiny_policy(config, vocab_size=len(PIECES), image_token=IMAGE)
    params = compiled(policy.init)(jax.random.key(0))
    if dtype != "float32":
        policy = tiny_policy(
            replace(config, dtype=dtype), vocab_size=len(PIECES), image_token=IMAGE
        )
        params = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), params)

    def draw_images(rng: np.random.Generator, batch: int) -> np.ndarray:
        return rng.uniform(size=(batch, 1, 4, 4, 3)).astype(dtype)

    return Subject(
        policy, params, (IMAGE,) * config.image_tokens, draw_images, np.dtype(dtype).type
    )


# Random trees

THOUGHT_FIELDS = ("thoughts", "thought_lengths", "thought_sampled", "thought_logprobs", "closed")
ANSWER_FIELDS = ("answers", "answer_lengths", "answer_logprobs", "finished")


class Tree(NamedTuple):
    """What `pack_tree` takes; NumPy arrays, garbage in every unused slot."""

    prompts: PromptBatch
    rollout: TreeRollout
    advantages: Advantages


def shape_of(tree: Tree) -> TreeShape:
    """The static shape of a tree."""
    _, thoughts, answers, answer = tree.rollout.answers.shape
    prompt, thought = tree.prompts.tokens.shape[1], tree.rollout.thoughts.shape[2]
    return TreeShape(prompt, thought, answer, thoughts=thoughts, answers=answers)


def text_tokens(subject: Subject, rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Any tokens but the image's."""
    words = np.setdiff1d(np.arange(subject.policy.vocab_size), subject.image_prefix)
    return rng.choice(words, size=size).astype(np.int32)


def random_prompts(
    subject: Subject, rng: np.random.Generator, lengths: np.ndarray, slots: int
) -> PromptBatch:
    """Images first, then text, then garbage."""
    batch, prefix = len(lengths), subject.image_prefix
    tokens = text_tokens(subject, rng, (batch, slots))
    tokens[:, : len(prefix)] = prefix
    return PromptBatch(tokens=tokens, lengths=lengths, images=subject.draw_images(rng, batch))


def counts(nodes: tuple[int, ...], least: int, most: int) -> st.SearchStrategy[np.ndarray]:
    """An integer in [least, most] per node."""
    return hnp.arrays(np.int32, nodes, elements=st.integers(least, most))


@st.composite
def prompt_batches(
    draw: st.DrawFn, subject: Subject, slots: int, batch: int = BATCH
) -> PromptBatch:
    """Random prompts of random lengths."""
    lengths = draw(counts((batch,), len(subject.image_prefix) + 1, slots))
    return random_prompts(subject, draw(generators()), lengths, slots)


@st.composite
def generators(draw: st.DrawFn) -> np.random.Generator:
    """A NumPy generator for what need not shrink: tokens, pixels, log-probs."""
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


@st.composite
def trees(draw: st.DrawFn, subject: Subject, shape: TreeShape, batch: int = BATCH) -> Tree:
    """A tree of `shape` with random lengths, tokens, log-probs and advantages."""
    nodes = (batch, shape.thoughts)
    leaves = (*nodes, shape.answers)
    thought_lengths = draw(counts(nodes, 1, shape.thought))
    forced = np.minimum(draw(counts(nodes, 0, 2)), thought_lengths - 1)
    closed = draw(hnp.arrays(bool, nodes)) & (forced == 0)
    answer_lengths = draw(counts(leaves, 1, shape.answer))
    finished = draw(hnp.arrays(bool, leaves))
    prompts = draw(prompt_batches(subject, shape.prompt, batch))
    rng = draw(generators())

    def floats(*size: int) -> np.ndarray:
        return rng.normal(size=size).astype(subject.dtype)

    rollout = TreeRollout(
        thoughts=text_tokens(subject, rng, (*nodes, shape.thought)),
        thought_lengths=thought_lengths,
        thought_sampled=thought_lengths - forced,
        thought_logprobs=floats(*nodes, shape.thought),
        closed=closed,
        answers=text_tokens(subject, rng, (*leaves, shape.answer)),
        answer_lengths=answer_lengths,
        answer_logprobs=floats(*leaves, shape.answer),
        finished=finished,
    )
    return Tree(prompts, rollout, Advantages(thought=floats(*nodes), answer=floats(*leaves)))


def stacked(first: PyTree, second: PyTree) -> PyTree:
    """The rows of two batches as those of one."""
    return jax.tree.map(lambda *rows: np.concatenate(rows), first, second)


def minibatches_of(whole: Tree) -> tuple[Tree, Tree]:
    """A batch of trees dealt into two, where what an update then gets is each one packed alone, bit
    for bit: what holds of a batch then holds of a minibatch."""
    first, second = (jax.tree.map(lambda rows, at=at: rows[at::2], whole) for at in range(2))
    for own, dealt in zip((first, second), packer(2)(whole), strict=True):
        jax.tree.map(np.testing.assert_array_equal, (dealt,), packer(1)(own))
    return first, second


@functools.cache
def packer(minibatches: int) -> Callable[[Tree], tuple[Any, ...]]:
    """tree → its packed minibatches."""
    return compiled(lambda tree: deal_batch(pack_tree(*tree), minibatches))


# The packed side


class Evaluation(NamedTuple):
    """What an update sees of a packed tree."""

    loss: Any
    logprobs: Any  # [B S]
    gradient: Any


@functools.cache
def ragged(subject: Subject) -> Subject:
    """The subject with a trainer that computes in ragged rows."""
    return replace(subject, ragged=True)


def laid_out(subject: Subject, packed: PackedTree) -> PackedTree:
    """The packed tree, in ragged rows where the subject's trainer computes in them."""
    return replace(packed, row_slots=packed.inputs.shape.packed if subject.ragged else None)


@functools.cache
def evaluator(subject: Subject, config: ObjectiveConfig = OBJECTIVE) -> Callable[..., Evaluation]:
    """(params, tree, old, reference) → `Evaluation`, by gmma's own pack, weights and loss."""

    def evaluate(params: Params, tree: Tree, old: Any, reference: Any) -> Evaluation:
        packed = laid_out(subject, pack_tree(*tree))
        packed = replace(packed, old_logprobs=old, reference_logprobs=reference)
        weights = token_weights(packed.trained, packed.inputs.shape, config)

        def loss(params: Params) -> tuple[Any, Any]:
            value, terms = policy_loss(
                subject.policy, params, packed, weights, config, temperature=TEMPERATURE
            )
            return value, terms.logprobs

        (value, logprobs), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return Evaluation(value, logprobs, gradient)

    return compiled(evaluate)


def evaluate(
    subject: Subject,
    tree: Tree,
    old: Any = None,
    reference: Any = None,
    config: ObjectiveConfig = OBJECTIVE,
) -> Evaluation:
    """`evaluator`, called; the results in NumPy."""
    found = evaluator(subject, config)(subject.params, tree, old, reference)
    return jax.tree.map(np.asarray, found)


# The flat side


class FlatRows(NamedTuple):
    """K·M separate sequences per prompt, left-aligned, each a prompt, a thought and an answer."""

    tokens: np.ndarray  # int[R N]
    lengths: np.ndarray  # int[R]
    path: np.ndarray  # int[R 3]: the b, i, j that a row was cut out for
    slot: np.ndarray  # int[R N]: the packed slot a token stands in; −1 past the row's end
    segment: (
        np.ndarray
    )  # int[R N]: what is trained there, 1 of the thought, 2 of the answer, else 0


FLAT_ROWS, FLAT_SLOTS = 16, 16  # at least; so that small shapes share one compilation


def slots_of_path(tree: Tree, b: int, i: int, j: int) -> Iterator[tuple[int, int, int]]:
    """(token, packed slot, segment) of every token from the root to the end of answer j."""
    shape, rollout = shape_of(tree), tree.rollout
    for t in range(tree.prompts.lengths[b]):
        yield tree.prompts.tokens[b, t], t, 0
    start = shape.prompt + i * shape.thought
    for t in range(rollout.thought_lengths[b, i]):
        yield rollout.thoughts[b, i, t], start + t, int(t < rollout.thought_sampled[b, i])
    start = shape.prompt + shape.thoughts * shape.thought + (i * shape.answers + j) * shape.answer
    for t in range(rollout.answer_lengths[b, i, j]):
        yield rollout.answers[b, i, j, t], start + t, 2


def flat_rows(tree: Tree) -> FlatRows:
    """Cut a batch of trees into plain sequences; the rows beyond them stay empty."""
    nodes = list(np.ndindex(tree.rollout.answer_lengths.shape))
    shape = shape_of(tree)
    rows = max(FLAT_ROWS, len(nodes))
    size = (rows, max(FLAT_SLOTS, shape.prompt + shape.thought + shape.answer))
    tokens, segment = np.zeros(size, np.int32), np.zeros(size, np.int32)
    slot = np.full(size, -1)
    path, lengths = np.zeros((rows, 3), int), np.zeros(rows, np.int32)
    for r, node in enumerate(nodes):
        cut = np.array(list(slots_of_path(tree, *node)))
        path[r], lengths[r] = node, len(cut)
        tokens[r, : len(cut)], slot[r, : len(cut)], segment[r, : len(cut)] = cut.T
    return FlatRows(tokens, lengths, path, slot, segment)


@functools.cache
def flat_program(policy: Policy) -> Callable[..., tuple[Any, Any]]:
    """(params, inputs, cotangent) → log-probs of plain sequences, and their pull-back."""

    def run(params: Params, inputs: TreeInputs, cotangent: Any) -> tuple[Any, Any]:
        def logprobs(params: Params) -> Any:
            logits = policy.unembed(params, policy.forward(params, inputs))
            ahead = jax.nn.log_softmax(logits[:, :-1] / TEMPERATURE)
            found = jnp.take_along_axis(ahead, inputs.tokens[:, 1:, None], axis=2)[..., 0]
            return jnp.pad(found, ((0, 0), (1, 0)))

        values, pull_back = jax.vjp(logprobs, params)
        return values, pull_back(cotangent)[0]

    return compiled(run)


def run_flat(
    subject: Subject, tree: Tree, rows: FlatRows, cotangent: np.ndarray | None = None
) -> tuple[np.ndarray, PyTree]:
    """Log-probs [R N] of the sequences, and the gradient of Σ cotangent · log-prob."""
    slots = rows.tokens.shape[1]
    place = np.broadcast_to(np.arange(slots, dtype=np.int32), rows.tokens.shape)

    def as_computed(x: np.ndarray) -> np.ndarray:
        return x.astype(subject.dtype) if np.issubdtype(x.dtype, np.floating) else x

    inputs = TreeInputs(
        tokens=rows.tokens,
        positions=place,
        valid=place < rows.lengths[:, None],
        images=jax.tree.map(lambda x: as_computed(x[rows.path[:, 0]]), tree.prompts.images),
        shape=prompt_only(slots),
    )
    cotangent = np.zeros(place.shape) if cotangent is None else cotangent
    with jax.enable_x64(subject.dtype is np.float64):
        run = flat_program(subject.policy)
        found = run(subject.params, inputs, cotangent.astype(subject.dtype))
        return jax.tree.map(np.asarray, found)


def to_packed(tree: Tree, rows: FlatRows, values: np.ndarray) -> np.ndarray:
    """Values of flat tokens at their packed slots, 0 elsewhere."""
    packed = np.zeros((len(tree.prompts.lengths), shape_of(tree).packed), values.dtype)
    held = rows.slot >= 0
    packed[np.broadcast_to(rows.path[:, :1], held.shape)[held], rows.slot[held]] = values[held]
    return packed


def to_flat(rows: FlatRows, packed: np.ndarray) -> np.ndarray:
    """The inverse of `to_packed`."""
    return np.where(rows.slot >= 0, packed[rows.path[:, :1], rows.slot], 0)


# Textbook objectives


def flat_weights(tree: Tree, rows: FlatRows) -> np.ndarray:
    """1/K·1/|th| for thoughts and 1/(KM)·1/|ans| for answers, of B prompts; a thought stands in M
    rows and so counts 1/M in each."""
    b, i, j = rows.path.T
    leaves = tree.rollout.answer_lengths.size  # B·K·M
    thought = 1 / (leaves * tree.rollout.thought_sampled[b, i, None])
    answer = 1 / (leaves * tree.rollout.answer_lengths[b, i, j, None])
    return np.select([rows.segment == 1, rows.segment == 2], [thought, answer], 0.0)


def flat_advantages(tree: Tree, rows: FlatRows) -> np.ndarray:
    """The advantage of the thought or answer that a token belongs to."""
    b, i, j = rows.path.T
    credit = [tree.advantages.thought[b, i, None], tree.advantages.answer[b, i, j, None]]
    return np.select([rows.segment == 1, rows.segment == 2], credit, 0.0).astype(float)


def clipped_objective(
    logprobs: np.ndarray,
    old: np.ndarray,
    reference: np.ndarray,
    advantages: np.ndarray,
    config: ObjectiveConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """min(r·A, clip(r)·A) − β·k3 per token, and its derivative by the log-prob."""
    ratio = np.exp(logprobs - old)
    free = ratio * advantages
    clipped = np.clip(ratio, 1 - config.epsilon, 1 + config.upper_epsilon) * advantages
    ahead = reference - logprobs
    value = np.minimum(free, clipped) - config.beta * (np.exp(ahead) - ahead - 1)
    slope = np.where(free <= clipped, free, 0) - config.beta * (1 - np.exp(ahead))
    return value, slope


# The laws


def assert_close(actual: Any, expected: Any, bound: float, name: str = "") -> None:
    """|Δ| ≤ bound · max(1, |expected|), entry by entry."""
    np.testing.assert_allclose(actual, expected, rtol=bound, atol=bound, err_msg=name)


def assert_gradients_close(actual: PyTree, expected: PyTree, bound: float) -> None:
    """‖Δ‖ ≤ bound · ‖expected‖, module by module: a layer's weight and bias are one vector.

    A softmax does not feel a bias that all its keys share, so the gradient of such a bias is zero
    in exact arithmetic and nothing but rounding in ours: alone it has no relative error.
    """
    found, wanted = (flatten_dict(tree) for tree in (actual, expected))
    for module, paths in groupby(sorted(wanted), key=lambda path: path[:-1]):
        ours, theirs = zip(*((found[p].ravel(), wanted[p].ravel()) for p in paths), strict=True)
        norm = np.linalg.norm(np.concatenate(theirs))
        error = np.linalg.norm(np.concatenate(ours) - np.concatenate(theirs))
        assert error <= bound * norm, f"{'/'.join(module)}: {error:.3g} of {norm:.3g}"


def assert_gradient_close_as_a_whole(actual: PyTree, expected: PyTree, bound: float) -> None:
    """‖Δ‖ ≤ bound · ‖expected‖, all parameters being one vector.

    What float32 can judge of a network with many small norms: their few weights get sums over all
    tokens that all but cancel, here as in the flat sequences.
    """
    found, wanted = (ravel_pytree(tree)[0] for tree in (actual, expected))
    error, norm = np.linalg.norm(found - wanted), np.linalg.norm(wanted)
    assert error <= bound * norm, f"{error:.3g} of {norm:.3g}"


def check_packed_equals_flat(
    subject: Subject,
    tree: Tree,
    rng: np.random.Generator,
    bound: float,
    assert_close_gradients: Callable[[PyTree, PyTree, float], None] = assert_gradients_close,
    exact: Subject | None = None,
) -> None:
    """L1: log-probs, loss and gradients of the packed tree are those of K·M separate sequences.

    `exact`, the same network in float64, computes the sequences, so that the error is the tree's
    alone and not two roundings.
    """
    rows = flat_rows(tree)
    sequences = exact or subject
    flat, _ = run_flat(sequences, tree, rows)

    def near_policy() -> np.ndarray:
        return (flat + rng.normal(scale=0.2, size=flat.shape)).astype(subject.dtype)

    old, reference = (to_packed(tree, rows, near_policy()) for _ in range(2))
    values, slopes = clipped_objective(
        flat.astype(float),
        to_flat(rows, old),
        to_flat(rows, reference),
        flat_advantages(tree, rows),
        OBJECTIVE,
    )
    weights = flat_weights(tree, rows)
    _, gradient = run_flat(sequences, tree, rows, -weights * slopes)
    packed = evaluate(subject, tree, old, reference)
    behind_prompt = rows.slot >= shape_of(tree).prompt
    assert_close(to_flat(rows, packed.logprobs)[behind_prompt], flat[behind_prompt], bound)
    loss, scale = -np.sum(weights * values), np.sum(weights * np.abs(values))
    assert abs(packed.loss - loss) <= bound * scale
    assert_close_gradients(packed.gradient, gradient, bound)


@dataclass(frozen=True)
class Growth:
    """How a tree is grown: its shape, the sampling, and what closes an unfinished thought."""

    shape: TreeShape
    sampling: SamplingConfig
    closing: tuple[int, ...] = CLOSING


@functools.cache
def grower(policy: Policy, growth: Growth) -> Callable[..., TreeRollout]:
    """(params, prompts, seed) → rollout."""
    stops = stops_of(growth.closing)

    def grow(params: Params, prompts: PromptBatch, seed: Any) -> TreeRollout:
        return grow_tree(
            policy,
            params,
            prompts,
            jax.random.key(seed),
            shape=growth.shape,
            sampling=growth.sampling,
            stops=stops,
        )

    return compiled(grow)


def grow(subject: Subject, growth: Growth, prompts: PromptBatch, seed: int) -> TreeRollout:
    """`grower`, called; the results in NumPy."""
    rollout = grower(subject.policy, growth)(subject.params, prompts, np.uint32(seed))
    return jax.tree.map(np.asarray, rollout)


def no_credit(rollout: TreeRollout) -> Advantages:
    """Zeros, where only log-probs are looked at."""
    return Advantages(
        thought=np.zeros(rollout.closed.shape, rollout.thought_logprobs.dtype),
        answer=np.zeros(rollout.finished.shape, rollout.thought_logprobs.dtype),
    )


@functools.cache
def scorer(subject: Subject, temperature: float) -> Callable[..., tuple[Any, Any]]:
    """(params, prompts, rollout) → the trainer's log-probs, and the packed tree."""

    def score(params: Params, prompts: PromptBatch, rollout: TreeRollout) -> tuple[Any, Any]:
        packed = laid_out(subject, pack_tree(prompts, rollout, no_credit(rollout)))
        found, _ = token_logprobs(subject.policy, params, packed, temperature=temperature)
        return found, packed

    return compiled(score)


def check_decode_equals_packed(
    subject: Subject,
    growth: Growth,
    prompts: PromptBatch,
    rollout: TreeRollout,
    bound: float = 1e-4,
) -> None:
    """L2: the log-probs that the sampler recorded are the trainer's."""
    score = scorer(subject, growth.sampling.temperature)
    logprobs, packed = score(subject.params, prompts, rollout)
    gap = np.abs(np.asarray(logprobs) - np.asarray(packed.sampler_logprobs))
    assert gap[np.asarray(packed.trained)].max() <= bound


def check_isolation(subject: Subject, tree: Tree, other: Tree, i: int, j: int | None) -> None:
    """L3: with thought i (or its answer j) and what hangs on it taken from another rollout, the
    log-probs outside that subtree stay what they were: bit for bit, or in ragged rows, where a
    node of another length moves those behind it, but for the order of sums."""
    leaf = (slice(None), i) if j is None else (slice(None), i, j)
    swapped = {}
    for name in ANSWER_FIELDS if j is not None else ANSWER_FIELDS + THOUGHT_FIELDS:
        swapped[name] = getattr(tree.rollout, name).copy()
        swapped[name][leaf] = getattr(other.rollout, name)[leaf]
    changed = tree._replace(rollout=replace(tree.rollout, **swapped))

    thoughts = np.ones(tree.rollout.thoughts.shape, bool)
    answers = np.ones(tree.rollout.answers.shape, bool)
    thoughts[:, i], answers[leaf] = j is not None, False
    outside = joined(np.ones(tree.prompts.tokens.shape, bool), thoughts, answers)
    kept = outside & used_slots(tree)
    before, after = (evaluate(subject, t, *zeros(subject, t)) for t in (tree, changed))
    bound = 1e-5 if subject.ragged else 0
    assert_close(after.logprobs[kept], before.logprobs[kept], bound)


def joined(*levels: np.ndarray) -> np.ndarray:
    """Prompt, thoughts and answers in packed order."""
    return np.concatenate([level.reshape(len(level), -1) for level in levels], axis=1)


def zeros(subject: Subject, tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """Old and reference log-probs where they do not matter: the program is the same."""
    empty = np.zeros((len(tree.prompts.lengths), shape_of(tree).packed), subject.dtype)
    return empty, empty


def used_slots(tree: Tree) -> np.ndarray:
    """bool[B S]: the slots that hold a token."""
    rows = flat_rows(tree)
    return to_packed(tree, rows, np.ones(rows.slot.shape, bool))


def with_garbage(subject: Subject, tree: Tree, rng: np.random.Generator) -> Tree:
    """Other tokens, image placeholders among them, and NaN log-probs in every unused slot."""

    def refill(array: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        unused = np.arange(array.shape[-1]) >= lengths[..., None]
        noise = rng.integers(subject.policy.vocab_size, size=array.shape)
        garbage = np.nan if array.dtype.kind == "f" else noise
        return np.where(unused, garbage, array).astype(array.dtype)

    prompts, r = tree.prompts, tree.rollout
    rollout = replace(
        r,
        thoughts=refill(r.thoughts, r.thought_lengths),
        thought_logprobs=refill(r.thought_logprobs, r.thought_lengths),
        answers=refill(r.answers, r.answer_lengths),
        answer_logprobs=refill(r.answer_logprobs, r.answer_lengths),
    )
    tokens = refill(prompts.tokens, prompts.lengths)
    return Tree(replace(prompts, tokens=tokens), rollout, tree.advantages)


def check_padding(subject: Subject, tree: Tree, rng: np.random.Generator) -> None:
    """L4: garbage in unused slots changes neither log-probs nor loss nor gradients."""
    used = used_slots(tree)
    before = evaluate(subject, tree, *zeros(subject, tree))
    noise = [np.where(used, z, np.nan).astype(subject.dtype) for z in zeros(subject, tree)]
    after = evaluate(subject, with_garbage(subject, tree, rng), *noise)
    np.testing.assert_array_equal(before.logprobs[used], after.logprobs[used])
    jax.tree.map(
        np.testing.assert_array_equal, (before.loss, before.gradient), (after.loss, after.gradient)
    )


def permuted(tree: Tree, thoughts: np.ndarray, answers: np.ndarray) -> Tree:
    """The same tree with thought `thoughts[i]` at i and of it answer `answers[i, j]` at j."""
    leaf = (slice(None), thoughts[:, None], answers)
    taken = {name: getattr(tree.rollout, name)[:, thoughts] for name in THOUGHT_FIELDS}
    taken |= {name: getattr(tree.rollout, name)[leaf] for name in ANSWER_FIELDS}
    credit = Advantages(
        thought=tree.advantages.thought[:, thoughts], answer=tree.advantages.answer[leaf]
    )
    return Tree(tree.prompts, TreeRollout(**taken), credit)


def check_symmetry(
    subject: Subject, tree: Tree, thoughts: np.ndarray, answers: np.ndarray, bound: float = 1e-5
) -> None:
    """L6: permuting thoughts, and answers within thoughts, permutes the log-probs and leaves the
    loss and its gradient."""
    shape, moved = shape_of(tree), permuted(tree, thoughts, answers)
    before, after = (evaluate(subject, t, *zeros(subject, t)) for t in (tree, moved))
    nodes = (shape.thoughts, shape.answers, shape.answer)
    prompt, thought, answer = np.split(np.arange(shape.packed), [shape.prompt, shape.answers_start])
    origin = joined(
        prompt[None],
        thought.reshape(nodes[0], -1)[None, thoughts],
        answer.reshape(nodes)[None, thoughts[:, None], answers],
    )[0]
    used = used_slots(moved)
    assert_close(after.logprobs[used], before.logprobs[:, origin][used], bound)
    assert_close(after.loss, before.loss, bound)
    assert_gradients_close(after.gradient, before.gradient, bound)
