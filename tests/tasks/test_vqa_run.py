"""Own records by the commands: shown, trained two steps of each phase, evaluated."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from vqa_files import LONG, RUN, STRIP

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".jax_cache"
# What a network sees of a picture of 60 x 40: its size, and the tokens of it. Qwen's cells here are
# 8 pixels wide: round(60 / 8) of them beside round(40 / 8).
SEEN = {"tiny": ((48, 48), 16), "qwen2_5_vl": ((64, 40), 40)}
SIDE_BY_SIDE = re.compile("(<image>)+")
EVERY = [(network, tuple(RUN)) for network in SEEN]
CASES = [
    ("tiny", ("swift", "choice_of_texts", "refcoco_unit", "forty")),
    *[pytest.param(case, marks=pytest.mark.slow) for case in EVERY],
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{len(case[1])}")
def told(request, tmp_path_factory):
    """The network, and what `run_layouts.py` notes of each layout."""
    network, names = request.param
    folder = tmp_path_factory.mktemp(network)
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    environment |= {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        "JAX_COMPILATION_CACHE_DIR": str(CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", HERE / "run_layouts.py", folder, network, *names],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = (folder / f"{network}.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [line["name"] for line in found] == list(names)
    return network, found


def in_frame(case, network):
    """The answer of a case as the network is asked it."""
    if case.fields.get("kind") not in ("box", "boxes", "points"):
        return case.answer
    width, height = SEEN[network][0]
    scaled = np.reshape(case.answer, (-1, 2)) * [width / 60, height / 40]
    return scaled.reshape(np.shape(case.answer))


def test_every_layout_is_shown_as_its_record_says(told):
    """To training and to evaluation: question, images where they stand, answer in the frame."""
    network, found = told
    size, tokens = SEEN[network]
    for line in found:
        case = RUN[line["name"]]
        assert case.question in line["data_says"]
        assert line["train"]
        assert line["eval"]
        marks = "" if "<image>" in case.question else "<image>" * bool(case.images)
        for shown in [*line["train"], *line["eval"]]:
            assert shown["question"].startswith(case.question)
            assert marks + shown["question"] in SIDE_BY_SIDE.sub("<image>", shown["prompt"])
            assert shown["system"] == case.system
            assert case.system in shown["prompt"]
            assert shown["images"] == list(case.images)
            assert shown["image_tokens"] == tokens * len(case.images)
            assert shown["image_size"] == (list(size) if case.images else None)
            assert shown["thought"] == case.thought
            assert shown["choices"] == list(case.choices)
            if isinstance(case.answer, str) or isinstance(case.answer[0], str):
                assert shown["answer"] == case.answer
            else:
                np.testing.assert_allclose(shown["answer"], in_frame(case, network), atol=1e-9)


def test_every_layout_is_trained_and_evaluated(told):
    _, found = told
    for line in found:
        assert [step["phase"] for step in line["steps"]] == ["sft", "sft", "rl", "rl"]
        assert "rewards/vqa/mean" in line["steps"][-1]
        assert np.isfinite([step["loss"] for step in line["steps"]]).all()
        assert {"greedy/score", "sampled/score"} <= line["evaluation"]["summary"].keys()
        assert line["tree"]["question"].startswith(RUN[line["name"]].question)


def test_records_that_do_not_fit_are_counted_and_left_out(told):
    """The tiny network scales every picture to one size, so it can take the strip."""
    network, found = told
    (line,) = [line for line in found if line["name"] == "forty"]
    named = [f"the prompt of record {LONG} has"]
    if network == "qwen2_5_vl":
        named.append(f"record {STRIP}: an image of 1000 × 4 pixels")
    for command in ("data", "train"):
        words = " ".join(line[f"{command}_says"].split())
        assert f"{len(named)} of 40 prompts of " in words
        assert all(name in words for name in named)
    assert "leaves them out (task.too_long)" in " ".join(line["data_says"].split())
    assert "are left out (task.too_long)" in " ".join(line["train_says"].split())
    assert not any("Who? Who?" in shown["question"] for shown in line["train"] + line["eval"])
