"""`gmma plan` beside a count by hand: products and bytes of an update and of a decode step.

Published widths, few layers, adapters, one chip's part of v5e:2x2; the tiny family at such widths,
trained in full. By hand is: from the sizes in config.json and the shape of the tree alone, by the
formulas that are written out here.

    a product of n rows, I → O       2 n I O, forward; as much for the gradient of its input
    weights that are trained         as much once more, for their own gradient
    its adapter of rank r            2 n r (I + O), three times: forward, inputs, its own gradients
    splash attention                 2 · 9 · heads · blocks · side² · size, forward and backward
    decoding                         4 heads · size a slot that a row reads, those of its stage
    a layer with states              products of its chunks (`delta_by_hand`); a decode step reads a
                                     state twice, writes it once, and multiplies no matrices

Bytes of an update are those of short trees in more layers, with `remat = "full"`: activations stay
in a core's own memory, and what moves is weights (`bytes_by_hand`).
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slices import needs_libtpu

import gmma
from gmma.config import ExperimentConfig, LaunchConfig, MeshConfig, TreeConfig
from gmma.families.tiny.network import TinyConfig
from gmma.hardware.sharding import make_mesh
from gmma.models.decoder import DecoderConfig
from gmma.options.networks import Remat
from gmma.plan.hlo import Cost, HloProgram
from gmma.plan.programs import plan_parts, plan_programs
from gmma.plan.tpu_compiler import compile_program, open_slice, read_dump
from gmma.rollout import THOUGHTS
from gmma.run.assembly import Parts
from gmma.run.experiments import load_experiment
from gmma.run.programs import parts_params
from gmma.tasks.sums import SumsConfig
from gmma.tree.mask import attention_mask
from gmma.types import TreeShape

PRESETS = Path(gmma.__file__).parent / "presets"
EXPERIMENT = Path(gmma.__file__).parents[1] / "experiments/trajectory.py"
RANK, CHIPS, PROMPTS = 16, 4, 8
LAYERS = {"qwen3_5_2b": 4}  # three with states, then one with keys; 3 of the others
MANY = 8  # layers whose weights do not fit a core's own memory
SHORT = {"gemma3_4b": 320, "qwen3_vl_4b": 128, "qwen3_5_2b": 128}  # prompts with an image; else 64
BACKBONES = {
    "gemma3_4b": "gemma-3-4b-it",
    "qwen2_5_vl_3b": "Qwen2.5-VL-3B-Instruct",
    "qwen3_vl_4b": "Qwen3-VL-4B-Instruct",
    "qwen3_5_2b": "Qwen3.5-2B",
}
# Text of the same frame; sizes of SmolLM2 1.7B, Qwen2.5 1.5B and Qwen3 1.7B
TEXTS: dict[str, dict[str, Any]] = {
    "llama": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048,
        "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 32,
        "vocab_size": 49152, "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "max_position_embeddings": 8192, "rope_theta": 130000,
        "attention_bias": False, "mlp_bias": False,
    },
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 1536,
        "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2,
        "vocab_size": 151936, "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
        "hidden_act": "silu", "max_position_embeddings": 32768, "rope_theta": 1e6,
        "use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 28,
    },
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 2048,
        "intermediate_size": 6144, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
        "hidden_act": "silu", "max_position_embeddings": 40960, "rope_theta": 1e6,
        "attention_bias": False, "use_sliding_window": False, "sliding_window": None,
        "max_window_layers": 28,
    },
}  # fmt: skip


TINY = "tiny"
WIDE = TinyConfig(  # so wide that the weights of a layer do not stay in a core's own memory
    width=4096,
    heads=32,
    kv_heads=8,
    head_size=128,
    mlp=14336,
    images=0,
    dtype="bfloat16",
    remat="none",
)
SMALL = SumsConfig(train_problems=64, validation_problems=8, test_problems=8)


def planned_job(family: str, folder: Path, layers: int) -> ExperimentConfig:
    """T4A4 on a model of a few layers; a chip computes a row at a time and keeps everything."""
    if family == TINY:
        config = load_experiment(EXPERIMENT.with_name("math.py"), problems="sums")
        model = replace(WIDE, layers=layers)
        return framed(replace(config, task=SMALL, model=model), data_dir=folder)
    if family in BACKBONES:
        values = json.loads((PRESETS / BACKBONES[family] / "config.json").read_text())
        text = values.get("text_config", values)
        text["num_hidden_layers"] = layers
        if text.get("layer_types"):
            text["layer_types"] = text["layer_types"][:layers]
        config = load_experiment(EXPERIMENT, backbone=family, trained="lora")
        bucket = {"gemma3_4b": 1, "qwen2_5_vl_3b": 16}.get(family, 256)
    else:
        values = {**TEXTS[family], "num_hidden_layers": layers}
        config = load_experiment(EXPERIMENT, backbone="qwen3_vl_4b", trained="lora")
        bucket = 0
    (folder / "config.json").write_text(json.dumps(values))
    model = replace(config.model, directory=folder, image_buckets=(bucket,), thinking=None)
    return framed(replace(config, model=replace(model, remat="none")))


def framed(config: ExperimentConfig, **launch: Any) -> ExperimentConfig:
    """The job at the sizes of a tree and of a batch that all families have here."""
    tree = TreeConfig(
        thoughts=4, answers=4, prompt_tokens=512, thought_tokens=256, answer_tokens=64
    )
    return replace(
        config,
        tree=tree,
        rl=replace(config.rl, batch_prompts=PROMPTS, rollout_prompts=None, microbatches=2),
        sft=replace(config.sft, batch_prompts=PROMPTS, microbatches=2),
        launch=LaunchConfig(mesh=MeshConfig(data=1, fsdp=-1), **launch),
        logprob_chunk_slots=None,
    )


def shortened(config: ExperimentConfig, prompt: int, remat: Remat) -> ExperimentConfig:
    """T2A2 with few tokens, and weights whole on each chip."""
    tree = TreeConfig(
        thoughts=2, answers=2, prompt_tokens=prompt, thought_tokens=4, answer_tokens=2
    )
    return replace(
        config,
        tree=tree,
        model=replace(config.model, remat=remat),
        launch=replace(config.launch, mesh=MeshConfig(data=-1, fsdp=1)),
    )


class Counted(NamedTuple):
    """One program as the plan counts it."""

    program: HloProgram
    sizes: DecoderConfig
    rows: int  # of a chip, all microbatches
    shape: TreeShape


def counted(family: str, name: str, folder: Path, *, short: Remat | None = None) -> Counted:
    """A program of the job, compiled for one slice."""
    config = planned_job(family, folder, MANY if short else LAYERS.get(family, 3))
    config = shortened(config, SHORT.get(family, 64), short) if short else config
    on = open_slice("v5e:2x2")
    parts = plan_parts(config, make_mesh(config.launch.mesh, list(on.devices)))
    planned = next(p for p in plan_programs(parts) if p.name == name)
    dump = folder / name
    dump.mkdir()
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
        fits = compile_program(planned.jitted, planned.arguments, dump)
    found = read_dump(dump, fits_alone=fits, seconds=1.0).program
    if name == "rollout":  # a loop that ends earlier is one that was named
        (text,) = dump.glob("*.after_optimizations.txt")
        half = HloProgram(text.read_text(), {THOUGHTS: config.tree.thought_tokens / 2})
        whole, shorter = (one.loops_named((THOUGHTS,)).flops for one in (found, half))
        assert 0.4 * whole < shorter <= whole / 2  # its first stage, which reads fewer slots
    sizes = sizes_of(parts) if family == TINY else parts.policy.config
    return Counted(found, sizes, PROMPTS // CHIPS, config.tree.shape)


def sizes_of(parts: Parts) -> DecoderConfig:
    """Of the tiny family; its vocabulary is that of the tokenizer."""
    vocabulary = parts_params(parts)["params"]["head"]["kernel"].shape[-1]
    sizes = ("layers", "width", "heads", "kv_heads", "head_size", "mlp", "dtype")
    own = {name: getattr(parts.config.model, name) for name in sizes}
    return DecoderConfig(vocab_size=vocabulary, **own)


class Products(NamedTuple):
    """Inputs and outputs of products with weights."""

    adapted: list[tuple[int, int]]
    plain: list[tuple[int, int]]  # without an adapter

    def forward(self, rows: float) -> float:
        """Of so many rows, adapters included."""
        both = sum(2.0 * rows * i * o for i, o in (*self.adapted, *self.plain))
        return both + sum(2.0 * rows * RANK * (i + o) for i, o in self.adapted)

    def backward(self, rows: float, *, whole: bool = False) -> float:
        """Gradients of inputs, and of adapters; or of the weights, `whole`."""
        if whole:
            return 2 * self.forward(rows)
        both = sum(2.0 * rows * i * o for i, o in (*self.adapted, *self.plain))
        return both + sum(4.0 * rows * RANK * (i + o) for i, o in self.adapted)

    @property
    def weights(self) -> float:
        """How many there are, without adapters."""
        return sum(float(i * o) for i, o in (*self.adapted, *self.plain))

    @property
    def trained(self) -> float:
        """How many numbers the adapters have."""
        return sum(float(RANK * (i + o)) for i, o in self.adapted)

    @property
    def bytes(self) -> float:
        """Of the weights and their adapters, in bfloat16."""
        both = sum(2.0 * i * o for i, o in (*self.adapted, *self.plain))
        return both + sum(2.0 * RANK * (i + o) for i, o in self.adapted)


def with_keys(c: DecoderConfig, *, whole: bool = False) -> Products:
    """Of a layer with keys; without adapters where it is trained as a `whole`."""
    query, keys = c.heads * c.head_size, c.kv_heads * c.head_size
    gated = 2 * query if c.out_gate else query
    attention = [(c.width, gated), (c.width, keys), (c.width, keys), (query, c.width)]
    every = [*attention, (c.width, c.mlp), (c.width, c.mlp), (c.mlp, c.width)]
    return Products([], every) if whole else Products(every, [])


def with_states(c: DecoderConfig) -> Products:
    """Of a layer with states."""
    assert c.delta is not None
    d = c.delta
    values = d.heads * d.group * d.value_size
    own = [(c.width, d.heads * d.channels), (c.width, values), (values, c.width)]
    mlp = [(c.width, c.mlp), (c.width, c.mlp), (c.mlp, c.width)]
    return Products([*own, *mlp], [(c.width, d.heads * d.group)] * 2)


def layers_by_kind(c: DecoderConfig) -> tuple[int, int]:
    """How many layers have keys, and how many states."""
    states = 0 if c.delta is None else sum(c.delta.layers)
    return c.layers - states, states


def delta_by_hand(c: DecoderConfig, shape: TreeShape) -> float:
    """Products of the chunks of one layer with states and one row, forward and backward.

    In chunks of i = 64 tokens, N heads of keys of H numbers, G of values of V to each: i² products
    of keys with keys and queries, the inverse of an i × i matrix, its products with values and
    keys, what is read of the memory and of the chunk, and what is written. Each has two gradients.
    """
    assert c.delta is not None
    d, i = c.delta, 64
    heads, both = d.heads, d.heads * d.group
    chunks = shape.prompt // i + shape.thoughts * (shape.thought // i)
    chunks += shape.thoughts * shape.answers * (shape.answer // i)
    square = heads * 4.0 * i * i * d.key_size
    square += both * 2.0 * i * i * (2 * d.value_size + d.key_size)
    memory = both * 6.0 * i * d.key_size * d.value_size
    inverse = both * 4.0 * i**3 * (np.log2(i) - 1) + both * 4.0 * i**3
    return chunks * (3 * (square + memory) + float(inverse))


def splash_by_hand(c: DecoderConfig, shape: TreeShape, *, images: bool) -> float:
    """Products of one layer and row, in blocks of 512 that hold a pair on one path."""
    side = 512
    slots = -(-shape.packed // side) * side
    seen = np.zeros((slots, slots), bool)
    seen[: shape.packed, : shape.packed] = np.asarray(attention_mask(shape))
    if images:
        seen[: shape.prompt, : shape.prompt] = True  # an image's tokens see what is later in it
    seen[shape.packed :, 0] = True
    count = slots // side
    blocks = seen.reshape(count, side, count, side).any((1, 3)).sum()
    return 2.0 * (2 + 3 + 4) * c.heads * float(blocks) * side**2 * c.head_size


ALL = [*BACKBONES, *TEXTS, TINY]
ADAM = 7 * 4.0  # bytes: parameter, both moments and gradient read, the first three written
NORM = 4.0  # of the whole gradient
ADD = 3 * 4.0  # a microbatch's gradient, to the sum of those before


def bytes_by_hand(c: DecoderConfig, microbatches: int, *, whole: bool = False) -> float:
    """Of an update in so many microbatches, weights in bfloat16, what is trained in float32.

    A layer's weights are read in the forward pass, in the one that is computed again, and for the
    gradient of its input. The last product of an MLP is not needed again where no norm is behind
    it. A loop within a loop copies its weights, forward and backward. An adapter is read as often
    as its layer.

    Weights that are trained are cast before. A layer's gradient comes from other chips in bfloat16
    and goes to its place in the stack, which is zero before.
    """
    keyed, stated = layers_by_kind(c)
    of_keys, of_states = with_keys(c, whole=whole), with_states(c) if stated else Products([], [])
    weights = keyed * of_keys.weights + stated * of_states.weights
    again = weights - (0 if c.out_norms else c.layers * c.mlp * c.width)
    moved = microbatches * 2.0 * (2 * weights + again + 2 * c.vocab_size * c.width)
    moved += microbatches * 2 * 2 * 2.0 * stated * of_states.weights
    adapters = keyed * of_keys.trained + stated * of_states.trained
    moved += adapters * (ADAM + NORM + microbatches * (3 * 4 + ADD))
    if whole:
        to_place = 2.0 + 2.0 + 4.0 + 4.0  # from other chips, read, zero, written
        moved += weights * (4.0 + 2.0 + ADAM + NORM + microbatches * (to_place + ADD))
    return moved


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("family", ALL)
def test_an_update_has_the_products_that_are_counted_by_hand(family: str, tmp_path: Path) -> None:
    found, c, rows, shape = counted(family, "update", tmp_path)
    slots, generated = shape.packed, shape.packed - shape.prompt
    keyed, stated = layers_by_kind(c)
    splash = splash_by_hand(c, shape, images=family == "gemma3_4b")
    whole = family == TINY
    products = with_keys(c, whole=whole)
    row = keyed * (products.forward(slots) + products.backward(slots, whole=whole) + splash)
    if stated:
        of_states = with_states(c).forward(slots) + with_states(c).backward(slots)
        row += stated * (of_states + delta_by_hand(c, shape))
    row += (3 if whole else 2) * 2.0 * generated * c.width * c.vocab_size
    assert found.cost.uncounted == 0
    assert found.cost.flops == pytest.approx(rows * row, rel=0.02)


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("family", ALL)
def test_an_update_moves_the_bytes_that_are_counted_by_hand(family: str, tmp_path: Path) -> None:
    found, c, _, _ = counted(family, "update", tmp_path, short="full")
    moved = bytes_by_hand(c, microbatches=2, whole=family == TINY)
    assert found.cost.bytes == pytest.approx(moved, rel=0.05)


@pytest.mark.slow
@needs_libtpu
def test_an_update_that_keeps_what_it_computes_copies_no_weights(tmp_path: Path) -> None:
    """Kept, a layer's weights as they are computed with would be a second stack of them all."""
    found, c, _, _ = counted("qwen2", "update", tmp_path, short="none")
    assert found.cost.bytes < bytes_by_hand(c, microbatches=2)


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("family", ALL)
def test_a_decode_step_is_what_is_counted_by_hand(family: str, tmp_path: Path) -> None:
    """Of thoughts: each weight read once, and the keys and values of the prompt, empty or not.

    Of their own, half of the slots in the first of two stages, and all in the second.
    """
    found, c, trees, shape = counted(family, "rollout", tmp_path)
    step: Cost = found.loops_named((THOUGHTS,)).times(1 / shape.thought)
    own_slots = shape.thought * 3 // 4
    rows, slots = trees * shape.thoughts, shape.prompt + own_slots + 1
    keyed, stated = layers_by_kind(c)
    own = with_keys(c, whole=family == TINY)
    products = keyed * (own.forward(rows) + 4.0 * rows * c.heads * c.head_size * slots)
    held = trees * (shape.prompt + shape.thoughts * own_slots)
    moved = keyed * (own.bytes + 2 * 2.0 * held * c.kv_heads * c.head_size)
    if stated:
        assert c.delta is not None
        products += stated * with_states(c).forward(rows)
        memory, _ = c.delta.state_numbers  # of all layers, in float32
        moved += stated * with_states(c).bytes + 3 * 4.0 * rows * memory
    products += 2.0 * rows * c.width * c.vocab_size
    moved += 2.0 * c.width * c.vocab_size
    assert step.flops == pytest.approx(products, rel=0.02)
    assert step.bytes == pytest.approx(moved, rel=0.05)
    assert jnp.dtype(c.dtype).itemsize == 2
