"""Trees of given mean lengths, as `gmma plan --mean-lengths` supposes them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from slices import needs_libtpu
from tiny_run import TINY

from gmma import commands
from gmma.cli import command_plan
from gmma.config import LaunchConfig, MeshConfig
from gmma.errors import UserError
from gmma.models.splash import block_size
from gmma.plan.command import plan_slice
from gmma.plan.hlo import HloProgram
from gmma.plan.lengths import (
    FULL_TREES,
    LengthModel,
    draw_lengths,
    expect,
    expect_rollout,
    expect_update,
    length_model,
    visited_blocks,
)
from gmma.plan.tables import expected_words
from gmma.rollout import ANSWERS, THOUGHTS
from gmma.run.experiments import load_experiment
from gmma.tree.rows import row_choices
from gmma.types import TreeShape

SHAPE = TreeShape(prompt=1024, thought=512, answer=128, thoughts=4, answers=4)
LENGTHS = LengthModel(thought=200, answer=40)


def test_lengths_have_their_means_and_stay_within_their_slots() -> None:
    thoughts, answers = draw_lengths(SHAPE, 32, LengthModel(thought=100, answer=20, spread=0.3))
    assert thoughts.shape[1:] == (32, 4)
    assert answers.shape[1:] == (32, 4, 4)
    assert thoughts.mean() == pytest.approx(100, rel=0.01)
    assert answers.mean() == pytest.approx(20, rel=0.01)
    assert np.log(thoughts).std() == pytest.approx(0.3, rel=0.02)
    thoughts, answers = draw_lengths(SHAPE, 32, LengthModel(thought=600, answer=1, spread=1.5))
    assert (thoughts.max(), answers.min()) == (512, 1)


def test_without_a_spread_every_figure_follows_from_the_means() -> None:
    even = LengthModel(thought=200, answer=40, spread=0.0)
    rollout = expect_rollout(SHAPE, 32, even)
    assert rollout.turns == {THOUGHTS: 200, ANSWERS: 40}
    assert rollout.useful == 1.0  # what is computed ends with the longest
    assert rollout.filled == (4 * 200 + 16 * 40) / (4 * 512 + 16 * 128)
    tokens = 1024 + 4 * 200 + 16 * 40
    update = expect_update(SHAPE, 32, even, (2304, 2560, 2944))
    assert (update.row_slots, update.row_mean) == (2560, 2560)
    assert update.useful == tokens / 2560
    static = expect_update(SHAPE, 32, even, ())
    assert (static.row_slots, static.row_blocks, static.useful) == (None, None, tokens / 5120)


def test_loops_end_with_the_longest_of_all_rows_and_rows_hold_the_longest_tree() -> None:
    few, many = (expect_rollout(SHAPE, prompts, LENGTHS).turns for prompts in (1, 32))
    assert 200 < few[THOUGHTS] < many[THOUGHTS] <= 512
    assert 40 < few[ANSWERS] < many[ANSWERS] <= 128
    choices = row_choices(SHAPE.packed, 16)
    found = expect_update(SHAPE, 32, LENGTHS, choices)
    assert found.row_slots in choices
    assert found.row_mean is not None
    assert 2464 < found.row_mean <= (found.row_slots or 0)
    fewer = expect_update(SHAPE, 8, LENGTHS, choices).row_mean
    assert fewer is not None
    assert fewer < found.row_mean
    assert found.useful == pytest.approx(2464 / (found.row_slots or 0), rel=0.03)


def test_a_longest_tree_that_no_row_holds_keeps_the_packed_slots() -> None:
    full = LengthModel(thought=1e6, answer=1e6)
    found = expect_update(SHAPE, 32, full, row_choices(SHAPE.packed, 6))
    assert (found.row_slots, found.useful) == (None, 1.0)


def test_blocks_are_those_that_hold_a_pair_on_one_path() -> None:
    """Counted pair by pair. A slot behind the last token reads the first, as in the kernel."""
    shape = TreeShape(prompt=130, thought=300, answer=100, thoughts=2, answers=2)
    thoughts, answers = np.array([200, 90]), np.array([[20, 70], [100, 5]])
    slots, side = 768, block_size(768)
    nodes = [0] * 130 + [1] * 200 + [2] * 90
    for leaf, length in enumerate([20, 70, 100, 5]):
        nodes += [3 + leaf] * length
    parents = {0: {0}, 1: {0, 1}, 2: {0, 2}}
    parents |= {3 + leaf: {0, 1 + leaf // 2, 3 + leaf} for leaf in range(4)}
    seen = {(query // side, 0) for query in range(len(nodes), slots)}
    for query, own in enumerate(nodes):
        for key, other in enumerate(nodes[: query + 1]):
            if other in parents[own]:
                seen.add((query // side, key // side))
    assert visited_blocks(shape, thoughts, answers, slots) == len(seen)


def test_full_trees_are_planned_where_no_lengths_are_given() -> None:
    config = load_experiment(TINY)
    assert expect(config, "rollout", None) is FULL_TREES
    assert length_model(None, None) is None
    assert expected_words(FULL_TREES) == "100% of the slots hold a token"


def test_each_program_has_the_trees_of_its_own() -> None:
    """SFT has chains, a rollout the prompts of all its minibatches; static rows are no rows."""
    config = load_experiment(TINY)
    tree = config.tree.shape
    model = LengthModel(thought=tree.thought / 2, answer=tree.answer / 2)
    ragged = replace(config, packing="ragged", row_lengths=8)
    assert set(expect(ragged, "rollout", model).turns) == {THOUGHTS, ANSWERS}
    chain = replace(tree, thoughts=1, answers=1)
    for name, shape in (("update", tree), ("scoring", tree), ("sft", chain)):
        assert expect(config, name, model).row_slots is None
        found = expect(ragged, name, model)
        assert found.row_slots in (*row_choices(shape.packed, 8), None)
        assert not found.turns


@pytest.mark.parametrize(
    ("means", "spread"), [((0, 40), 0.5), ((200, -1), 0.5), ((200, 40), -1), ((200, 40), 9)]
)
def test_lengths_that_are_none_are_refused(means: Any, spread: float) -> None:
    with pytest.raises(
        UserError, match=r"length\w*(: \w+)? = -?\d+; it must be (1 or more|0 to 3)"
    ):
        length_model(means, spread)


def test_a_spread_alone_changes_nothing_and_is_refused() -> None:
    with pytest.raises(UserError, match="length_spread without mean_lengths"):
        length_model(None, 0.5)


def test_lengths_are_given_on_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}
    monkeypatch.setattr(commands, "plan_experiment", lambda *_, **given: found.update(given))
    line = [str(TINY), "--topology", "v5e:2x4"]
    command_plan(line)
    assert found["lengths"] is None
    command_plan([*line, "--mean-lengths", "200", "40", "--length-spread", "0.3"])
    assert found["lengths"] == LengthModel(thought=200, answer=40, spread=0.3)
    for words in (["--mean-lengths", "nan", "5"], ["--price", "nan"]):
        with pytest.raises(UserError, match=rf"^{words[0].lstrip('-').replace('-', '_')}\.0 = nan"):
            command_plan([*line, *words])


LOOP = """ENTRY %main (p: f32[8]) -> f32[8] {
  %p = (s32[], f32[8]{0}) parameter(0)
  ROOT %w = (s32[], f32[8]{0}) while(%p), condition=%cond, body=%body, \
metadata={op_name="jit(grow)/sample_thoughts/slots_0_to_512/while"}
}

%body (b: f32[8]) -> f32[8] {
  %b = (s32[], f32[8]{0}) parameter(0)
  %n = s32[] get-tuple-element(%b), index=0
  %x = f32[8]{0} get-tuple-element(%b), index=1
  %y = f32[8]{0} negate(%x)
  ROOT %t = (s32[], f32[8]{0}) tuple(%n, %y)
}

%cond (c: f32[8]) -> pred[] {
  %c = (s32[], f32[8]{0}) parameter(0)
  %m = s32[] get-tuple-element(%c), index=0
  %limit = s32[] constant(512)
  ROOT %less = pred[] compare(%m, %limit), direction=LT
}
"""


def test_a_loop_takes_as_many_turns_as_is_told_of_its_level() -> None:
    full = HloProgram(LOOP).cost.bytes
    assert full > 0
    assert HloProgram(LOOP, {THOUGHTS: 128.5}).cost.bytes == full * 128.5 / 512
    assert HloProgram(LOOP, {ANSWERS: 128.5}).cost.bytes == full
    late = LOOP.replace("slots_0_to_512", "slots_128_to_512")
    for turns, own in ((128.5, 0.5), (64, 0), (512, 384)):
        assert HloProgram(late, {THOUGHTS: turns}).cost.bytes == full * own / 512
    known = LOOP.replace("body=%body,", 'body=%body, "known_trip_count":{"n":"512"},')
    assert HloProgram(known, {THOUGHTS: 128.5}).cost.bytes == full


@needs_libtpu
def test_an_update_in_rows_is_smaller_and_its_kernels_count(tmp_path: Any) -> None:
    """Compiled for a slice; splash attention counts by the blocks that it visits."""
    config = load_experiment(TINY)
    tree = replace(config.tree, prompt_tokens=256, thought_tokens=256, answer_tokens=64)
    config = replace(
        config,
        tree=tree,
        packing="ragged",
        model=replace(config.model, dtype="bfloat16"),
        launch=LaunchConfig(mesh=MeshConfig(), data_dir=tmp_path),
    )
    lengths = LengthModel(thought=60, answer=10, spread=0.1)
    (short,) = plan_slice(config, "v5e:2x2", ["update"], until_memory=True, lengths=lengths)
    (full,) = plan_slice(
        replace(config, packing="static"), "v5e:2x2", ["update"], until_memory=True
    )
    assert short.need_bytes == full.need_bytes  # the program has a branch of static rows
    slots = short.expected.row_slots
    assert slots is not None
    assert short.tokens * tree.shape.packed == full.tokens * slots
    assert short.tokens < full.tokens
    assert short.uncounted_kernels == full.uncounted_kernels == 0
    assert short.flops < full.flops
    assert short.serial.large < full.serial.large
