"""Costs counted in HLO, on programs whose costs can be worked out by hand."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from gmma.plan.hlo import (
    BETWEEN_SLICES,
    Cost,
    HloProgram,
    convolution_flops,
    group_size,
    parse_line,
    ring_share,
    stated_cost,
)

ROWS, WIDTH, LAYERS, STEPS = 8, 16, 7, 9
PRODUCT = 2 * ROWS * WIDTH * WIDTH  # FLOPs of one layer


def cost_of(function: Callable[..., Any], *arguments: Any) -> Cost:
    """Of a function compiled for the CPU."""
    return HloProgram(jax.jit(function).lower(*arguments).compile().as_text()).cost


def layers(x: jax.Array, weights: jax.Array) -> jax.Array:
    """A stack of layers under scan."""
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]


X, W = np.ones((ROWS, WIDTH), np.float32), np.ones((LAYERS, WIDTH, WIDTH), np.float32)


def test_a_scan_counts_as_often_as_it_runs() -> None:
    assert cost_of(layers, X, W).flops == LAYERS * PRODUCT


def test_a_backward_pass_is_two_products_a_layer_more() -> None:
    gradient = jax.grad(lambda w, x: layers(x, w).sum())
    assert cost_of(gradient, W, X).flops == 3 * LAYERS * PRODUCT


def test_what_a_gradient_computes_again_is_told_apart() -> None:
    """Not of the products whose results were kept, and twice as often where a loop turns twice."""

    def kept(policy: Any) -> Callable[..., Any]:
        def layer(x: jax.Array, weights: jax.Array) -> tuple[jax.Array, None]:
            return jnp.tanh(jnp.tanh(x @ weights) @ weights.T), None

        again = jax.checkpoint(layer, prevent_cse=False, policy=policy)
        return jax.grad(lambda w, x: jax.lax.scan(again, x, w)[0].sum())

    policies = jax.checkpoint_policies
    nothing = cost_of(kept(policies.nothing_saveable), W, X)
    # The second product of a layer is its result, of which the gradient needs the tanh alone.
    assert nothing.recomputed == nothing.flops - 6 * LAYERS * PRODUCT > 0
    everything = cost_of(kept(policies.everything_saveable), W, X)
    assert (everything.flops, everything.recomputed) == (6 * LAYERS * PRODUCT, 0)
    assert cost_of(layers, X, W).recomputed == 0
    assert nothing.times(2).recomputed == (nothing + nothing).recomputed == 2 * nothing.recomputed


def test_loops_in_a_loop_that_may_leave_early_count_as_its_bound_says() -> None:
    def decode(x: jax.Array, weights: jax.Array) -> jax.Array:
        unfinished = lambda carry: (carry[0] < STEPS) & (carry[1].sum() < 1e9)  # noqa: E731
        step = lambda carry: (carry[0] + 1, layers(carry[1], weights))  # noqa: E731
        return jax.lax.while_loop(unfinished, step, (jnp.int32(0), x))[1]

    text = jax.jit(jax.named_scope("here")(decode)).lower(X, W).compile().as_text()
    program = HloProgram(text)
    assert program.cost.flops == STEPS * LAYERS * PRODUCT
    assert program.loops_named(("here",)).flops == STEPS * LAYERS * PRODUCT
    assert program.loops_named(("there",)).flops == 0


def test_a_layer_of_a_stack_is_read_once_a_trip() -> None:
    """A fusion that slices a stack reads the slice: not L² weights over L trips."""
    one, all_of_them = (cost_of(layers, X, W[:n]).bytes for n in (1, LAYERS))
    assert all_of_them < 2 * LAYERS * one


def test_what_is_updated_in_place_moves_the_update() -> None:
    def fill(rows: jax.Array, x: jax.Array) -> jax.Array:
        put = lambda i, rows: jax.lax.dynamic_update_index_in_dim(rows, x + i, i, 0)  # noqa: E731
        return jax.lax.fori_loop(0, 1000, put, rows)

    rows = np.zeros((1000, 64), np.float32)
    cost = HloProgram(jax.jit(fill, donate_argnums=0).lower(rows, rows[0]).compile().as_text()).cost
    assert cost.bytes < 10 * rows.nbytes


def test_a_ring_sends_twice_what_it_reduces() -> None:
    mesh = Mesh(np.asarray(jax.devices()[:4]), ("x",))
    spec = PartitionSpec("x")

    def add(x: jax.Array) -> jax.Array:
        return jax.lax.psum(x, "x")

    whole = np.ones((4, 256), np.float32)
    summed = jax.shard_map(add, mesh=mesh, in_specs=spec, out_specs=PartitionSpec())
    assert cost_of(summed, whole).sent == {"all-reduce": 2 * 3 / 4 * 256 * 4}


@pytest.mark.parametrize(
    ("attributes", "devices"),
    [
        ("replica_groups=[4,2]<=[8]", 2),
        ("replica_groups={{0,1,2},{3,4,5}}", 3),
        ("replica_groups=mesh['a'=2,'b'=2,'c'=4] {'b','c'}, dimensions={0}", 8),
        ("replica_groups=mesh['a'=2,'b'=8] {'b':(2)4}", 4),
        ("source_target_pairs={{0,1},{1,0}}", 2),
    ],
)
def test_groups_are_read_in_both_spellings(attributes: str, devices: int) -> None:
    assert group_size(attributes) == devices
    assert ring_share("all-gather", devices) == devices - 1


def test_an_element_of_a_tuple_is_read_in_both_spellings() -> None:
    """XLA once wrote a line for each; since jax 0.12 the operand says `%pair#1`."""
    head = ("HloModule m", "ENTRY %main (p: f32[4,8]) -> f32[4] {", "  %p = f32[4,8] parameter(0)")
    pair = "  %pair = (f32[4]{0:T(8,128)}, /*index=1*/(f32[8,16], s32[])) custom-call(%p)"
    old = ("  %nest = (f32[8,16], s32[]) get-tuple-element(%pair), index=1",)
    old += ("  %w = f32[8,16] get-tuple-element(%nest), index=0",)
    product = "  ROOT %dot = f32[4,16] dot(%p, {}), lhs_contracting_dims={{1}}"
    gathered = "  %sum = f32[8,16] all-reduce({}), replica_groups={{{{0,1}}}}"
    by_line, in_place = (
        HloProgram(
            "\n".join((*head, pair, *lines, gathered.format(w), product.format(w), "}"))
        ).cost
        for lines, w in ((old, "%w"), ((), "%pair#1#0"))
    )
    assert in_place == by_line
    assert in_place.flops == 2 * 4 * 16 * 8
    assert in_place.sent == {"all-reduce": 8 * 16 * 4}


@pytest.mark.parametrize(
    ("kind", "slices", "times"),
    [
        ("ALL_REDUCE", "1,2", 1.0),
        ("ALL_REDUCE", "1,2,3,4", 1.5),
        ("ALL_GATHER", "1,2,3,4", 3.0),
        ("REDUCE_SCATTER", "1,2,3,4", 0.75),
        ("ONE_TO_ONE", "1,2,3,4", 1.0),
    ],
)
def test_what_goes_to_another_slice(kind: str, slices: str, times: float) -> None:
    cost = sent_to_slices(kind, slices)
    assert cost.sent == {BETWEEN_SLICES: times * 4 * 8 * 128}
    assert cost.bytes == 4 * 8 * 128  # it is read where it lies
    assert cost.uncounted == 0


def test_a_transfer_between_slices_that_nobody_knows_is_said() -> None:
    assert sent_to_slices("TO_THE_MOON", "1,2").uncounted == 1


def sent_to_slices(kind: str, slices: str) -> Cost:
    """Of one line as libtpu writes it."""
    given = parse_line("  %given = f32[8,128]{1,0} parameter(0)")
    token = parse_line("  %after-all = token[] after-all()")
    sent = parse_line(
        "  %send = (f32[8,128]{1,0}, u32[], token[]) send(%given, %after-all), channel_id=2, "
        'is_host_transfer=true, frontend_attributes={_xla_megascale_reduce_operation="SUM",'
        f'_xla_megascale_target="{{{slices}}}x{{0:7}}",_xla_megascale_transfer_type="{kind}"}}'
    )
    assert given is not None
    assert token is not None
    assert sent is not None
    program = HloProgram("ENTRY %main () -> f32[] {\n}\n")
    return program.instruction_cost(sent, {"given": given, "after-all": token, "send": sent})


def test_a_batched_product_as_a_convolution() -> None:
    """Three products of 2 × 5 by 5 × 7, as the TPU compiler spells them: a dilated window meets
    each result's own place and no other."""
    line = (
        "  %c = f32[3,2,7]{2,1,0} convolution(%a, %b), window={size=3 stride=2 pad=0_0 "
        "lhs_dilate=3}, dim_labels=0bf_0io->0bf"
    )
    left = parse_line("  %a = f32[3,2,5]{2,1,0} parameter(0)")
    kernel = parse_line("  %b = f32[3,5,7]{2,1,0} parameter(1)")
    product = parse_line(line)
    assert left
    assert kernel
    assert product
    assert convolution_flops(product, left.shapes[0], kernel.shapes[0]) == 3 * 2 * (2 * 5 * 7)


def test_a_kernel_is_taken_at_its_word() -> None:
    line = (
        '  %k = bf16[8,8]{1,0} custom-call(%a), custom_call_target="tpu_custom_call", '
        'backend_config={"custom_call_config":{"cost_estimate":{"flops":"640",'
        '"transcendentals":"3","bytes_accessed":"99"}}}'
    )
    kernel = parse_line(line)
    assert kernel
    assert stated_cost(kernel) == Cost(flops=640, bytes=99)


def test_splash_counts_the_blocks_that_its_mask_leaves() -> None:
    """In the compiler's words, a line broken by the kernel's metadata: two rows of four heads, six
    blocks of 256 by 256, heads of 128 numbers; three products for the gradient of queries."""
    text = """HloModule m
ENTRY %main (m: s8[1,3,3], q: bf16[2,4,768,128]) -> bf16[2,4,768,128] {
  %m = s8[1,3,3]{2,1,0} parameter(0)
  %q = bf16[2,4,768,128]{3,2,1,0} parameter(1)
  %k = bf16[2,2,768,128]{3,2,1,0} constant(0)
  ROOT %splash_mha_dq_segmented.1 = bf16[2,4,768,128]{3,2,1,0} custom-call(%m, %q, %k), \
custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{}"
}}, metadata={op_name="jit(f)/transpose(jvp(visits_6_blocks_of_256))/pallas_call"}
}
"""
    cost = HloProgram(text).cost
    assert cost.flops == 3 * 2 * (2 * 4) * 6 * 256**2 * 128
    assert cost.recomputed == cost.flops / 3  # the scores, which the forward pass had
    assert cost.uncounted == 0
    assert HloProgram(text.replace("visits", "sees")).cost.uncounted == 1
