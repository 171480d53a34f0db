"""Own records from the command line: shown, trained two steps of each phase, evaluated."""

import json

import jax
import pytest
from vqa_files import rows, write_pictures

from gmma.cli import main

EXPERIMENT = """
from dataclasses import replace

from gmma.rewards.terms import RewardTerm
from gmma.tasks.vqa import VqaConfig, VqaFiles
from tiny_digits import experiment as digits


def experiment():
    files = VqaFiles(train="mine.json", validation="mine.json", test="mine.json")
    base = digits()
    return replace(
        base,
        name="mine",
        task=VqaConfig(kind="choice", records=files, system="Be brief.", too_long="leave_out"),
        model=replace(base.model, images=2),
        tree=replace(base.tree, prompt_tokens=128, thought_tokens=64, answer_tokens=16),
        rewards=replace(base.rewards, terms=(RewardTerm("vqa"),), workers=0),
        sft=replace(base.sft, steps=2),
        rl=replace(base.rl, steps=2),
    )
"""


@pytest.mark.usefixtures("as_users_have_jax")
def test_two_steps_of_each_phase(tmp_path, monkeypatch, capsys):
    write_pictures(tmp_path)
    listed = [
        {
            "question": "Is <image> like <image>?",
            "images": ["0.png", f"{n % 2}.png"],
            "choices": ["yes", "no"],
            "answer": n % 2,
        }
        for n in range(12)
    ]
    listed.append(listed[0] | {"question": "Is <image> really like <image>? " + "Is it? " * 99})
    rows(*listed)(tmp_path)
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    main(["data", "mine.py"])
    assert "Is <image> like <image>?\nA. yes\nB. no\n" in capsys.readouterr().out
    main(["train", "mine.py"])
    assert "1 of 13 prompts of split train are left out" in capsys.readouterr().err
    lines = (tmp_path / "runs/mine/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["phase"] for line in lines] == ["sft", "sft", "rl", "rl"]
    assert "rewards/vqa/mean" in json.loads(lines[-1])
    main(["eval", "runs/mine"])
    assert "greedy/score" in capsys.readouterr().out


@pytest.fixture
def as_users_have_jax():
    """JAX's own defaults, and programs compiled in a hurry."""
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
    jax.config.update("jax_disable_most_optimizations", False)
