"""`gmma train` on tiny random directories of two families, with images, full and with adapters."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from nursery import open_nursery

from gmma.porting import load_pretrained
from tests.porting.directories import write_directory

SFT_STEPS, RL_STEPS = 12, 8
EXPERIMENT = '''
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

import gmma.train
from gmma.config import (
    CheckpointConfig, EvalConfig, ExperimentConfig, ObjectiveConfig, OptimizerConfig, PhaseConfig,
    RewardConfig, RLConfig, TreeConfig,
)
from gmma.models.lora import LoraConfig
from gmma.families.pretrained import PretrainedConfig
from gmma.rewards.terms import RewardTerm
from gmma.tasks.digits import DigitsConfig

evaluate_after = gmma.train.evaluate_after


def keep(run, phase, params):
    """Leaves every parameter beside the run, the base under adapters included."""
    leaves = {{name: np.asarray(x) for name, x in flatten_dict(params, sep="/").items()}}
    np.savez(run.parts.config.run_dir / f"after_{{phase}}.npz", **leaves)
    evaluate_after(run, phase, params)


gmma.train.evaluate_after = keep


def experiment():
    return ExperimentConfig(
        name="{name}",
        task=DigitsConfig(train_scenes=32, validation_scenes=8, test_scenes=8),
        model=PretrainedConfig(
            directory=Path("{directory}"), dtype="float32", lora={lora}, freeze_vision={freeze}
        ),
        tree=TreeConfig(
            thoughts=2, answers=2, prompt_tokens=160, thought_tokens=40, answer_tokens=40
        ),
        rewards=RewardConfig(
            terms=(RewardTerm("box_iou"), RewardTerm("format", weight=0.1)), workers=0
        ),
        objective=ObjectiveConfig(beta=0.01),
        sft=PhaseConfig(
            steps={sft}, batch_prompts=4, optimizer=OptimizerConfig(learning_rate={rate})
        ),
        rl=RLConfig(steps={rl}, batch_prompts=4, microbatches=2),
        evaluation=EvalConfig(examples=4, batch_prompts=4, samples=1, bootstrap=20),
        checkpoint=CheckpointConfig(every_steps=50),
    )
'''
CASES = [  # a run of a minute each: by default each family and each kind once
    ("gemma3", "adapters"),
    ("qwen2_5_vl", "everything"),
    pytest.param(("gemma3", "everything"), marks=pytest.mark.slow),
    pytest.param(("qwen2_5_vl", "adapters"), marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def run(request, tmp_path_factory):
    """(kind, model directory, directory of the finished run)."""
    family, kind = request.param
    home = tmp_path_factory.mktemp(f"{family}_{kind}")
    model = write_directory(family, home / "model")
    text = EXPERIMENT.format(
        name=kind,
        directory=model,
        lora="LoraConfig(rank=4)" if kind == "adapters" else None,
        freeze=kind == "adapters",
        rate=2e-2 if kind == "adapters" else 5e-3,
        sft=SFT_STEPS,
        rl=RL_STEPS,
    )
    (home / "ported.py").write_text(text)
    with open_nursery(home) as start:
        code = start("train", home / "ported.py").wait()
    assert code == 0, (home / "log.txt").read_text()
    return kind, model, home / "runs" / kind


def records(run_dir: Path, phase: str) -> list[dict]:
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["phase"] == phase]


def test_imitation_lowers_the_loss(run) -> None:
    losses = [record["loss"] for record in records(run[2], "sft")]
    assert len(losses) == SFT_STEPS
    assert np.mean(losses[-3:]) < losses[0] - 0.5


def test_nothing_is_compiled_after_the_first_steps(run) -> None:
    for phase, steps in (("sft", SFT_STEPS), ("rl", RL_STEPS)):
        counts = [record["compilations"] for record in records(run[2], phase)]
        assert len(counts) == steps
        assert counts[0] > 0
        assert not any(counts[2:]), counts


def test_adapters_leave_the_base_bit_for_bit(run) -> None:
    kind, model, run_dir = run
    before = flatten_dict(load_pretrained(model).params, sep="/")
    with np.load(run_dir / "after_rl.npz") as after:
        changed = {n for n, x in before.items() if not np.array_equal(x, after[n])}
        adapters = [after[name] for name in after.files if name.startswith("lora/")]
    if kind == "adapters":
        assert not changed
        assert all(np.any(x) for x in adapters)
    else:
        assert not adapters
        assert changed == {name for name in before if not name.startswith("params/vision/head/")}


def test_a_checkpoint_keeps_no_base_under_adapters(run) -> None:
    kind, _, run_dir = run
    saved = jax.tree_util.tree_leaves_with_path(checkpoint_shapes(run_dir))
    names = {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in saved}
    assert any(
        name.startswith("params/lora/" if kind == "adapters" else "params/") for name in names
    )
    assert not (kind == "adapters" and any("frozen" in name for name in names))


def checkpoint_shapes(run_dir: Path):
    import orbax.checkpoint as ocp

    where = run_dir.absolute() / "checkpoints" / str(SFT_STEPS + RL_STEPS) / "state"
    return ocp.PyTreeCheckpointHandler().metadata(where).tree


def test_sampler_and_trainer_agree(run) -> None:
    gaps = [r["answer/sampling/sampling_logp_difference/max"] for r in records(run[2], "rl")]
    assert max(gaps) <= 1e-4
