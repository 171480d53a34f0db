"""Serial seconds of programs whose instructions can be added up by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmma.models.layers import taken_scope
from gmma.plan.chips import CHIPS
from gmma.plan.hlo import HloProgram
from gmma.plan.serial import SMALL_SECONDS, serial_estimate

# A chip on which a FLOP and a byte take a second, and a byte to a neighbour ten.
SLOW = replace(CHIPS["v5e"], peak_flops=1.0, hbm_bytes=1.0, ici_bytes=0.1)
PRODUCT = "dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
HEAD = """HloModule m
%half (p: f32[4,4]) -> f32[4,4] {
  %p = f32[4,4]{1,0} parameter(0)
  ROOT %h = f32[4,4]{1,0} negate(%p), metadata={op_name="jit(f)/taken_3_of_8/cond/branch_0_fun/neg"}
}
%whole (p: f32[4,4]) -> f32[4,4] {
  %a = f32[4,4]{1,0} parameter(0)
  ROOT %h = f32[4,4]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
%body (p: f32[4,4]) -> f32[4,4] {
  %a = f32[4,4]{1,0} parameter(0)
  ROOT %h = f32[4,4]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
%condition (p: f32[4,4]) -> pred[] {
  %p = f32[4,4]{1,0} parameter(0)
  ROOT %c = pred[] constant(true)
}
ENTRY %main (a: f32[4,4], s: s32[]) -> f32[4,4] {
  %a = f32[4,4]{1,0} parameter(0)
  %s = s32[] parameter(1)
"""
READ = 3 * 16 * 4  # bytes of a product: two operands and the result


def estimate(*lines, chip=SLOW, devices_per_chip=1):
    """Of a program of these lines; the last is its root."""
    body = "".join(f"  {line}\n" for line in lines)
    return serial_estimate(HloProgram(HEAD + body + "}\n"), chip, devices_per_chip)


def test_an_instruction_takes_its_roofline():
    """128 FLOPs and 192 bytes: the larger; on a chip of two devices each has half."""
    line = f"ROOT %d = f32[4,4]{{1,0}} {PRODUCT}"
    assert estimate(line).seconds == READ
    assert estimate(line, chip=replace(SLOW, hbm_bytes=2.0)).seconds == 2 * 4**3
    assert estimate(line, devices_per_chip=2).seconds == 2 * READ
    assert estimate(line).small_ops == 0


def test_a_small_instruction_is_charged_and_a_number_is_free():
    found = estimate(
        "%n = s32[] add(%s, %s)",
        "%t = f32[4,4]{1,0} tanh(%a)",
        "ROOT %b = f32[16]{0} bitcast(%t)",
        chip=CHIPS["v5e"],
    )
    assert (found.small_ops, found.large, found.waiting) == (1, 0, 0)
    assert found.seconds == SMALL_SECONDS


def test_a_loop_counts_as_often_as_it_runs():
    loop = (
        "ROOT %w = f32[4,4]{1,0} while(%a), condition=%condition, body=%body, "
        'backend_config={"known_trip_count":{"n":"7"}}'
    )
    assert estimate(loop).seconds == 7 * READ


def test_a_branch_counts_as_often_as_the_program_says():
    """Three of eight times the product, else the negation of sixteen numbers; the scope stands in a
    branch or at the conditional, which may have lost it."""
    line = "ROOT %w = f32[4,4]{1,0} conditional(%s, %a, %a), branch_computations={%half, %whole}"
    expected = 3 / 8 * READ + 5 / 8 * 2 * 16 * 4
    assert estimate(line).seconds == pytest.approx(expected)
    unknown = HEAD.replace("taken_3_of_8", "elsewhere") + f"  {line}\n}}\n"
    assert serial_estimate(HloProgram(unknown), SLOW).seconds == READ
    flops = HloProgram(HEAD + f"  {line}\n}}\n").cost.flops
    assert flops == 3 / 8 * 2 * 4**3


def test_a_collective_waits_unless_something_runs_beside_it():
    groups = "replica_groups={{0,1}}, dimensions={0}"
    alone = f"ROOT %g = f32[8,4]{{1,0}} all-gather(%a), {groups}"
    assert estimate(alone).waiting == 10 * 16 * 4
    beside = (
        f"%g = (f32[4,4]{{1,0}}, f32[8,4]{{1,0}}) all-gather-start(%a), {groups}",
        "ROOT %d = f32[8,4]{1,0} all-gather-done(%g)",
    )
    assert estimate(*beside).seconds == 0


def test_a_copy_beside_others_takes_the_memory_s_time_alone():
    """Its source is among its results again, and not written; of a slice the slice counts."""
    copied = (
        "%c = (f32[4,4]{1,0:S(1)}, f32[4,4]{1,0}, u32[]{:S(2)}) copy-start(%a)",
        "ROOT %d = f32[4,4]{1,0:S(1)} copy-done(%c)",
    )
    found = estimate(*copied)
    assert (found.small_ops, found.seconds) == (0, 16 * 4)
    sliced = (
        "%c = (f32[1,4]{1,0:S(1)}, f32[4,4]{1,0}, u32[]{:S(2)}) slice-start(%a), slice={[0:1]}",
        "ROOT %d = f32[1,4]{1,0:S(1)} slice-done(%c)",
    )
    assert estimate(*sliced).seconds == 4 * 4


def test_what_ends_a_collective_or_makes_room_moves_nothing():
    made = 'ROOT %b = f32[64,64]{1,0} custom-call(), custom_call_target="AllocateBuffer"'
    assert estimate(made).seconds == 0
    ended = "ROOT %async-collective-done.3 = f32[4,4]{1,0} fusion(%a), kind=kCustom, calls=%half"
    assert estimate(ended).seconds == 0


def test_a_share_is_that_of_the_nearest_conditional():
    """One without a scope of its own, within a branch that has one, takes the dearest."""
    near = "jit(f)/taken_1_of_4/cond/branch_1_fun/taken_3_of_8/cond/branch_0_fun/neg"
    far = "jit(f)/taken_1_of_4/cond/branch_1_fun/cond/branch_0_fun/neg"
    line = "ROOT %w = f32[4,4]{1,0} conditional(%s, %a, %a), branch_computations={%half, %whole}"
    for label, share in ((near, 3 / 8), (far, 1.0)):
        text = HEAD.replace("jit(f)/taken_3_of_8/cond/branch_0_fun/neg", label) + f"  {line}\n}}\n"
        assert HloProgram(text).cost.flops == share * 2 * 4**3


def test_jax_s_own_conditional_says_how_often_it_is_taken():
    """Forward and backward, as the tower of Qwen2.5-VL has it, in a program for the CPU."""

    def layer(x, full):
        with taken_scope(1, 4):
            x = jax.lax.cond(full, lambda x: jnp.tanh(x @ x), jnp.tanh, x)
        return x, None

    def loss(x):
        return jax.lax.scan(layer, x, jnp.asarray([False, False, False, True]))[0].sum()

    x = np.ones((64, 64), np.float32)
    text = jax.jit(jax.grad(loss)).lower(x).compile().as_text()
    product = 2 * 64**3
    # Of four turns one: a product forward, two backward.
    assert HloProgram(text).cost.flops == pytest.approx(3 * product)
