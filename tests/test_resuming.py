"""How a run starts, what it refuses, and what it may have otherwise when it is resumed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_digits import experiment
from tiny_run import tree_of

from gmma.config import (
    HostsConfig,
    LaunchConfig,
    MeshConfig,
    OptimizerConfig,
    config_to_json,
    launch_to_json,
    same_rates,
    with_launch,
)
from gmma.errors import UserError
from gmma.families.pretrained import PretrainedConfig
from gmma.files import write_whole
from gmma.options.resuming import END, NO_NUMBER, marked_fields
from gmma.records.resuming import check_start, hold_run, newest_progress, save_config
from gmma.run.origin import from_origin
from gmma.update import learning_rate

CONFIG = config_to_json(replace(experiment(), name="a"))


def start(run_dir, resume=False, **changed):
    """`check_start`, which must write nothing."""
    before = tree_of(run_dir)
    try:
        return check_start(run_dir, resume, CONFIG | changed)
    finally:
        assert tree_of(run_dir) == before


@pytest.fixture
def started(tmp_path):
    run_dir = tmp_path / "run"
    save_config(run_dir, CONFIG)
    return run_dir


def test_a_new_run_starts_with_resume_or_without(tmp_path):
    for resume in (False, True):
        start(tmp_path / "new", resume)
    (tmp_path / "killed").mkdir()
    write_whole(tmp_path / "killed/config.json.partial", "{")  # killed as it wrote its config
    start(tmp_path / "killed")


def test_a_run_is_gone_on_with_only_if_asked(started):
    start(started, resume=True)
    with pytest.raises(UserError, match="already holds a run; give --resume"):
        start(started)


def test_files_of_a_run_without_a_config_are_not_written_over(tmp_path):
    (tmp_path / "checkpoints/5").mkdir(parents=True)
    for resume in (False, True):
        with pytest.raises(UserError, match=r"has checkpoints but no config\.json"):
            start(tmp_path, resume)


def test_another_config_is_refused_by_the_fields_that_differ(started):
    rl = CONFIG["rl"] | {"batch_prompts": 16}
    with pytest.raises(UserError, match=r"rl\.batch_prompts was 8, is 16; seed was 0, is 1") as e:
        start(started, resume=True, seed=1, rl=rl)
    assert "steps" not in str(e.value)


def test_what_changes_no_result_may_change_and_is_told(started):
    stop = CONFIG["stop"] | {"unscored_steps": 9}
    found = start(started, resume=True, rewards=CONFIG["rewards"] | {"workers": 4}, stop=stop)
    assert found.words() == (
        "rewards.workers was 1, is 4; stop.unscored_steps was 5, is 9: no number depends on it, "
        "beyond rounding"
    )
    assert start(started, resume=True).words() == ""


def test_another_launch_is_told(started):
    old, new = LaunchConfig(), LaunchConfig(mesh=MeshConfig(data=2), runs_dir=Path("there"))
    with hold_run(started, CONFIG, launch_to_json(old), "hash"):
        pass
    found = check_start(started, True, CONFIG, launch_to_json(new))
    assert found.others == ["mesh.data was -1, is 2", "runs_dir was runs, is there"]
    hosts = HostsConfig(join="given", coordinator="localhost:1", count=1, index=0)
    found = check_start(started, True, CONFIG, launch_to_json(LaunchConfig(hosts=hosts)))
    assert found.others == ["hosts.count was None, is 1", "hosts.join was alone, is given"]


def test_what_changes_no_number_is_said_beside_the_field():
    """Of every part of a config; what is below a marked field is meant too."""
    ported = PretrainedConfig(directory=Path("models/x"))
    free = {*marked_fields(experiment(), NO_NUMBER)}
    free |= {*marked_fields(replace(experiment(), model=ported), NO_NUMBER)}
    assert free == {
        *(
            "name",
            "checkpoint",
            "stop",
            "samples_every_steps",
            "rollout_params",
            "rollout_tensor",
            "logprob_chunk_slots",
            "packing",
            "row_lengths",
        ),
        *("evaluation/every_steps", "evaluation/bootstrap", "rewards/workers"),
        *("rewards/alike_steps", "model/attention", "model/remat", "model/image_buckets"),
    }
    assert {*marked_fields(experiment(), END)} == {"sft/steps", "rl/steps"}


def behind(origin, **changed):
    """An experiment that begins with another's parameters; 5 steps of SFT, 9 of RL."""
    return replace(experiment(), init_from=origin, **changed)


def test_the_sft_of_an_origin_is_not_repeated_unasked(started, tmp_path):
    config = with_launch(behind(started), runs_dir=tmp_path / "runs")
    found, words = from_origin(config, repeat_sft=False)
    assert found == replace(config, sft=replace(config.sft, steps=0))
    assert "its SFT is not repeated: 5 steps of this experiment's are left out;" in words
    same, words = from_origin(config, repeat_sft=True)
    assert same == config
    assert "SFT is repeated from its parameters, 5 steps" in words
    alone = replace(config, rl=replace(config.rl, steps=0))
    assert from_origin(alone, repeat_sft=False)[0] == alone
    for wrong in (replace(found, init_from=started), replace(config, init_from=None)):
        assert from_origin(wrong, repeat_sft=False) == (wrong, "")
        with pytest.raises(UserError, match=r"--repeat-sft with init_from = .* and sft.steps = "):
            from_origin(wrong, repeat_sft=True)


def test_an_import_had_no_sft(tmp_path):
    write_whole(tmp_path / "imported/import.json", "{}")
    config = with_launch(behind(tmp_path / "imported"), runs_dir=tmp_path / "runs")
    found, words = from_origin(config, repeat_sft=False)
    assert found == config
    assert "an import, which had no SFT: 5 steps of it come first" in words


@pytest.mark.parametrize("steps", [0, 5])
def test_a_run_that_has_begun_has_decided_about_its_sft(started, tmp_path, steps):
    """Also one of an earlier version, which repeated it."""
    config = with_launch(behind(started), runs_dir=tmp_path / "runs")
    begun = replace(config, sft=replace(config.sft, steps=steps))
    save_config(config.run_dir, config_to_json(begun))
    shutil.rmtree(started)
    assert from_origin(config, repeat_sft=False)[0] == begun
    check_start(config.run_dir, True, config_to_json(begun))


def reach(run_dir, phase, done):
    """A checkpoint behind so many steps of a phase, as far as its progress goes."""
    place = run_dir / "checkpoints" / str(done + (5 if phase == "rl" else 0))
    write_whole(place / "progress/metadata", json.dumps({"phase": phase, "phase_step": done}))
    write_whole(place / "commit_success.txt", "whole")


def with_steps(phase, steps, **optimizer):
    own = CONFIG[phase]
    return {phase: own | {"steps": steps, "optimizer": own["optimizer"] | optimizer}}


MOVED = [  # where the run is, its optimiser, and which number of steps is refused with which words
    (None, {}, "sft", 50, None),
    (None, {"schedule": "cosine"}, "rl", 90, None),
    (("sft", 3), {"schedule": "cosine"}, "rl", 90, None),
    (("sft", 3), {"schedule": "cosine"}, "sft", 9, "other learning rates. Leave it at 5"),
    (("sft", 3), {"schedule": "cosine", "warmup_steps": 2}, "sft", 9, None),
    (("sft", 5), {}, "sft", 9, None),
    (("sft", 3), {}, "sft", 2, "sft.steps was 5, is 2: 3 steps of .* are done; give 3 or more"),
    (("rl", 1), {}, "sft", 9, "sft.steps was 5, is 9: the SFT of .* is over, 1 steps of RL"),
    (("rl", 9), {}, "rl", 90, None),
    (("rl", 9), {"warmup_steps": 9}, "rl", 90, None),
    (("rl", 9), {"warmup_steps": 20}, "rl", 90, "warmup_steps = 20 the 9 steps that are done"),
    (("rl", 9), {"schedule": "linear"}, "rl", 90, "schedule = linear .*--init-from"),
    (("rl", 4), {}, "rl", 4, None),
    (("rl", 4), {}, "rl", 3, "4 steps of .* are done"),
    (("rl", 4), {}, "rl", 0, "4 steps of .* are done"),
]


@pytest.mark.parametrize(("place", "optimizer", "phase", "steps", "message"), MOVED)
def test_a_phase_may_end_elsewhere_if_its_steps_stay_what_they_are(
    started, place, optimizer, phase, steps, message
):
    begun = CONFIG | with_steps(phase, CONFIG[phase]["steps"], **optimizer)
    (started / "config.json").write_text(json.dumps(begun))
    if place:
        reach(started, *place)
    given = with_steps(phase, steps, **optimizer)
    if message is None:
        words = f"{phase}.steps was {CONFIG[phase]['steps']}, is {steps}"
        assert start(started, resume=True, **given).ends == [words]
    else:
        with pytest.raises(UserError, match=message):
            start(started, resume=True, **given)


def test_a_warm_up_counts_updates_of_which_a_step_may_have_several(started):
    """One of 20 updates is over in 9 steps of four, and so in any longer phase."""
    rl = with_steps("rl", 9, warmup_steps=20)["rl"] | {"rollout_prompts": 16}
    twice = {"objective": CONFIG["objective"] | {"num_iterations": 2}}
    (started / "config.json").write_text(json.dumps(CONFIG | twice | {"rl": rl}))
    reach(started, "rl", 9)
    given = twice | {"rl": rl | {"steps": 90}}
    assert start(started, resume=True, **given).ends == ["rl.steps was 9, is 90"]


COUNTS = jnp.arange(12.0)  # of updates; of one shape, which compiles once


@settings(max_examples=100)
@given(st.sampled_from(["constant", "linear", "cosine"]), *[st.integers(0, 12)] * 4)
def test_rates_are_the_same_where_the_schedule_says_so(schedule, warmup, old, new, done):
    """Against optax, update by update."""
    config = OptimizerConfig(schedule=schedule, warmup_steps=warmup)
    done = min(done, old, new)
    rates = [np.broadcast_to(learning_rate(config, n)(COUNTS), 12)[:done] for n in (old, new)]
    assert same_rates(config, old, new, done) == np.allclose(*rates, rtol=1e-6, atol=0)


def test_an_evaluation_at_an_end_that_was_moved_is_set_aside(started):
    made = started / "evaluation/after_rl.json"
    write_whole(made, "{}")
    longer = CONFIG | with_steps("rl", 90)
    save_config(started, longer)
    assert [path.name for path in made.parent.iterdir()] == ["after_rl_of_9_steps.json"]
    assert json.loads((started / "config.json").read_text()) == longer
    save_config(started, longer)


def test_a_damaged_progress_is_not_the_newest(started):
    reach(started, "rl", 3)
    reach(started, "rl", 4)
    write_whole(started / "checkpoints/9/progress/metadata", "{")
    assert newest_progress(started) == ("rl", 3)


def test_a_field_that_the_run_s_version_had_not_has_its_default(started):
    objective = dict(CONFIG["objective"])
    del objective["delta"]
    (started / "config.json").write_text(json.dumps(CONFIG | {"objective": objective}))
    start(started, resume=True)
    with pytest.raises(UserError, match=r"objective\.delta was None, is 4\.0"):
        start(started, resume=True, objective=CONFIG["objective"] | {"delta": 4.0})
