"""`gmma bench`: layouts hold the same samples, memory is counted once, every figure is written."""

import json
from math import prod
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from gmma.bench import command
from gmma.bench.command import MODELS, BenchModel, bench, layouts, rows_of
from gmma.bench.programs import Program, Timing, ratio, time_programs
from gmma.families.tiny.network import TinyConfig, tiny_policy
from gmma.options.arguments import BenchArguments
from gmma.tree import TreeShape


def test_layouts_hold_the_same_answers() -> None:
    """Slots a batch: every token once, thoughts M times, everything K·M times."""
    shape = TreeShape(10, 5, 3, thoughts=4, answers=2)
    slots = {
        name: layout.packed * rows_of(name, shape, 6) for name, layout in layouts(shape).items()
    }
    assert slots == {
        "tree": 6 * (10 + 4 * 5 + 8 * 3),
        "prompt-shared": 6 * (10 + 8 * 5 + 8 * 3),
        "flat": 6 * 8 * (10 + 5 + 3),
    }
    leaves = {
        name: layout.thoughts * layout.answers * rows_of(name, shape, 6)
        for name, layout in layouts(shape).items()
    }
    assert set(leaves.values()) == {48}


def test_ratios_are_taken_round_by_round() -> None:
    slow = Timing(seconds=(2.0, 20.0, 4.0), peak_bytes=0, temporary_bytes=0)
    fast = Timing(seconds=(1.0, 10.0, 1.0), peak_bytes=0, temporary_bytes=0)
    assert ratio(slow, fast) == 2.0
    assert slow.median == 4.0


def test_what_is_held_is_donated_and_counted_once() -> None:
    held = jnp.zeros(1000)
    program = Program(lambda held, add: (held + add, held.sum()), (jnp.ones(1000),))
    timings, after = time_programs({"one": program, "two": program}, held, repeats=3)
    assert after[0] == 2 * (3 + 1)
    assert held.is_deleted()
    assert {len(timing.seconds) for timing in timings.values()} == {3}
    assert 8000 <= timings["one"].peak_bytes < 16000 - 2000


def test_large_models_are_as_large_as_they_say() -> None:
    """No layer is made: sizes from shapes."""
    for name, (least, most) in {"0.5b": (0.5e9, 0.7e9), "3b": (2e9, 4e9)}.items():
        model = MODELS[name]
        policy = tiny_policy(model.config, vocab_size=model.vocab_size, image_token=0)
        params = jax.eval_shape(policy.init, jax.random.key(0))
        assert least < sum(prod(leaf.shape) for leaf in jax.tree.leaves(params)) < most


def no_clock(programs: dict[str, Program], held: Any, repeats: int) -> tuple[Any, Any]:
    """`time_programs` that traces every program, checks that it gives back what it holds, and runs
    none."""
    for program in programs.values():
        kept, _ = jax.eval_shape(program.function, held, *program.arguments)
        shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (kept, held))
        assert shapes[0] == shapes[1]
    timing = Timing(seconds=(0.5,) * repeats, peak_bytes=2**20, temporary_bytes=2**10)
    return dict.fromkeys(programs, timing), held


def test_every_figure_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TinyConfig(layers=1, width=8, heads=2, kv_heads=1, head_size=4, mlp=8, images=0)
    small = BenchModel(config=config, vocab_size=16, sizes=((6, 3, 2), (2, 2, 4)), chunk_slots=4)
    monkeypatch.setitem(command.MODELS, "tiny", small)
    monkeypatch.setattr(command, "time_programs", no_clock)
    output = tmp_path / "bench.json"
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
        bench(BenchArguments(batch_prompts=1, answers=2, repeats=1, cases=1, output=output))
    record = json.loads(output.read_text())
    [case] = record["cases"]
    assert case["shape"] == {"prompt": 6, "thought": 3, "answer": 2, "thoughts": 4, "answers": 2}
    for program in ("rollout", "update"):
        assert list(case["programs"][program]) == ["tree", "prompt-shared", "flat"]
        for timing in case["programs"][program].values():
            assert timing == {
                "seconds": [0.5],
                "peak_bytes": 2**20,
                "temporary_bytes": 2**10,
                "median": 0.5,
            }
    assert list(case["packings"]["rollout"]) == ["either"]
    assert list(case["packings"]["update"]) == ["static", "ragged"]
    assert case["row_slots"] == 16  # of 34
    assert list(record["steps"]) == ["T4A2", "T4A1", "T8A1"]
    shown = capsys.readouterr().out
    assert "6/3/2 T4A2 update flat" in shown
    assert "6/3/2 T4A2 update ragged" in shown
    assert "T8A1" in shown
