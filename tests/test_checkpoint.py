"""What a checkpoint keeps, and what is refused of a damaged one; states are a few numbers."""

import gc
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from tiny_run import assert_same_arrays, by_path, tree_of

from gmma.config import CheckpointConfig
from gmma.errors import UserError
from gmma.files import read_json, write_whole
from gmma.records import checkpoint
from gmma.records.checkpoint import Progress
from gmma.records.checksums import write_checksums

KEEP_TWO = CheckpointConfig(every_steps=1, keep_last=2)


def state_at(step):
    """Parameters, an optimiser and a step, all different at every step."""
    params = {"layer": {"kernel": jnp.full((2, 3), float(step)), "bias": jnp.arange(3.0) * step}}
    return {
        "params": params,
        "frozen": {},
        "opt_state": optax.adam(0.1).init(params),
        "step": jnp.int32(step),
    }


ABSTRACT = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_at(0)
)
PARAMS = {name: ABSTRACT[name] for name in ("params", "frozen")}


def save_steps(run_dir, bests, first=1):
    """Checkpoints first, first + 1, … of one RL phase with these values of the best metric."""
    with checkpoint.open_checkpoints(run_dir, KEEP_TWO) as manager:
        for step, best in enumerate(bests, first):
            progress = Progress(phase="rl", phase_step=step, data={"next": step})
            checkpoint.save(manager, step, state_at(step), progress, best)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("saved")
    save_steps(run_dir, [None, 0.9, float("inf"), float("nan"), 0.2])
    return run_dir


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def test_the_last_two_and_the_best_stay_through_a_resume(copied):
    """Best of all is step 2; neither None nor NaN nor ∞ is ever best."""
    assert checkpoint.checkpoint_steps(copied) == [2, 4, 5]
    save_steps(copied, [0.3, 0.4], first=6)
    assert checkpoint.checkpoint_steps(copied) == [2, 6, 7]


def test_what_was_saved_comes_back(saved):
    with checkpoint.open_checkpoints(saved, KEEP_TWO) as manager:
        progress = checkpoint.restore_progress(manager, 5)
        state = checkpoint.restore_state(manager, 5, ABSTRACT)
    assert progress == Progress(phase="rl", phase_step=5, data={"next": 5})
    assert jax.tree.structure(state) == jax.tree.structure(state_at(5))
    assert_same_arrays(by_path(state), by_path(state_at(5)))


def test_parameters_alone_come_back_of_the_newest_or_a_given_step(saved):
    newest, second = (checkpoint.restore_params(saved, PARAMS, step) for step in (None, 2))
    assert newest.keys() == {"params", "frozen"}
    np.testing.assert_array_equal(newest["params"]["layer"]["kernel"], np.full((2, 3), 5.0))
    np.testing.assert_array_equal(second["params"]["layer"]["bias"], [0, 2, 4])


@pytest.mark.parametrize("victim", ["_CHECKPOINT_METADATA", "commit_success.txt", "state", "."])
def test_a_checkpoint_that_was_being_deleted_does_no_harm(copied, victim):
    """Orbax deletes an old one file by file, and a kill can come between any two."""
    path = copied / "checkpoints/4" / victim
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    (copied / "checkpoints/4").mkdir(exist_ok=True)
    with checkpoint.open_checkpoints(copied, KEEP_TWO) as manager:
        assert manager.latest_step() == 5
        assert checkpoint.restore_progress(manager, 5).phase_step == 5
        checkpoint.restore_state(manager, 5, ABSTRACT)
    save_steps(copied, [0.3], first=6)
    assert checkpoint.checkpoint_steps(copied)[-2:] == [5, 6]


def test_a_checkpoint_that_was_being_written_is_cleared_away(copied):
    unfinished = copied / "checkpoints/6.orbax-checkpoint-tmp"
    shutil.copytree(copied / "checkpoints/5", unfinished)
    (unfinished / "commit_success.txt").unlink()
    assert checkpoint.checkpoint_steps(copied) == [2, 4, 5]
    save_steps(copied, [0.3], first=6)
    assert checkpoint.checkpoint_steps(copied) == [2, 5, 6]
    assert not list((copied / "checkpoints").glob("*tmp*"))


def flip(path):
    """Other bits in the middle of the file."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = (byte ^ 0x55 for byte in content[middle : middle + 8])
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {"cut": cut, "deleted": lambda path: path.unlink(), "flipped": flip}
SEALED = "commit_success.txt"  # the checkpoint's own is written last, and nothing reads it here


def files_of(run_dir, step):
    """Files of a checkpoint by their place in it."""
    return [name for name in tree_of(run_dir / "checkpoints" / str(step)) if name != SEALED]


def restored(run_dir, step):
    with checkpoint.open_checkpoints(run_dir, KEEP_TWO) as manager:
        assert manager.latest_step() == step
        assert checkpoint.restore_progress(manager, step).phase_step == step
        return by_path(checkpoint.restore_state(manager, step, ABSTRACT))


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_befalls_the_newest_checkpoint_the_older_whole_one_is_taken(
    saved, tmp_path, damage, capsys
):
    """Every file of it; the older one is as it was, and all that was moved is kept."""
    names = files_of(saved, 5)
    assert len(names) > 15
    for name in names:
        run_dir = shutil.copytree(saved, tmp_path / "run")
        DAMAGES[damage](run_dir / "checkpoints/5" / name)
        broken = tree_of(run_dir / "checkpoints/5")
        assert checkpoint.newest_whole(run_dir) == 4, name
        assert checkpoint.checkpoint_steps(run_dir) == [2, 4]
        assert tree_of(run_dir / "damaged/5") == broken
        for step in (2, 4):
            place = f"checkpoints/{step}"
            assert tree_of(run_dir / place) == tree_of(saved / place)
        said = capsys.readouterr().out
        assert f"{run_dir / 'damaged/5'}; the run goes on from checkpoint 4" in said
        assert name in said
        shutil.rmtree(run_dir)


def test_the_older_whole_one_is_restored(copied):
    flip(next((copied / "checkpoints/5/state/d").iterdir()))
    assert checkpoint.newest_whole(copied) == 4
    assert_same_arrays(restored(copied, 4), by_path(state_at(4)))
    save_steps(copied, [0.3], first=5)
    assert_same_arrays(restored(copied, 5), by_path(state_at(5)))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_an_older_checkpoint_does_not_keep_a_run_from_the_newest(saved, copied, damage):
    for name in files_of(copied, 4):
        DAMAGES[damage](copied / "checkpoints/4" / name)
        assert checkpoint.newest_whole(copied) == 5
        with checkpoint.open_checkpoints(copied, KEEP_TWO) as manager:
            assert manager.latest_step() == 5
        shutil.rmtree(copied / "damaged", ignore_errors=True)
        shutil.rmtree(copied / "checkpoints/4", ignore_errors=True)
        shutil.copytree(saved / "checkpoints/4", copied / "checkpoints/4")
    assert_same_arrays(restored(copied, 5), by_path(state_at(5)))


def test_a_run_without_a_whole_checkpoint_is_not_begun_anew(copied):
    for step, name in ((2, "progress/metadata"), (4, "checksums.json"), (5, "state/_METADATA")):
        cut(copied / "checkpoints" / str(step) / name)
    before = tree_of(copied)
    words = r"no checkpoint .* is whole: 5: .*_METADATA has \d+ bytes, not \d+; 4: checksums.json"
    with pytest.raises(UserError, match=words):
        checkpoint.newest_whole(copied)
    assert tree_of(copied) == before


def test_a_damaged_checkpoint_moves_nothing_out_of_the_way(copied):
    for _ in range(2):
        cut(copied / "checkpoints/5/checksums.json")
        assert checkpoint.newest_whole(copied) == 4
        save_steps(copied, [0.3], first=5)
    assert [path.name for path in sorted((copied / "damaged").iterdir())] == ["5", "5_1"]


def test_parameters_of_a_damaged_checkpoint_are_refused_and_others_offered(copied):
    flip(next((copied / "checkpoints/5/state/d").iterdir()))
    for read in (checkpoint.restore_params, checkpoint.find_params):
        with pytest.raises(UserError, match=r"checkpoint 5 .* is damaged: .*; there are \[2, 4\]"):
            read(copied, PARAMS)
    with pytest.raises(UserError, match="is damaged"):
        checkpoint.restore_all_params(copied)
    assert checkpoint.restore_params(copied, PARAMS, 4)


def forget_checksums(run_dir, step):
    """A checkpoint as the version before wrote it."""
    where = run_dir / "checkpoints" / str(step)
    (where / "checksums.json").unlink()
    progress = read_json(where / "progress/metadata")
    del progress["checksums"]
    (where / "progress/metadata").write_text(json.dumps(progress))


def test_checkpoints_from_before_checksums_are_read(copied):
    for step in (4, 5):
        forget_checksums(copied, step)
    assert checkpoint.newest_whole(copied) == 5
    assert_same_arrays(restored(copied, 5), by_path(state_at(5)))
    for path in (copied / "checkpoints/5/state/d").iterdir():
        cut(path)
    assert checkpoint.newest_whole(copied) == 5  # it cannot be known
    with pytest.raises(
        UserError, match=r"checkpoints/5 cannot be read .*of checkpoints \[2, 4, 5\]"
    ):
        restored(copied, 5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_kill_between_the_files_and_their_checksums_leaves_no_checkpoint(copied, monkeypatch):
    """They are written before Orbax commits, so there is none without them."""

    def fail(path):
        assert not ocp.utils.is_checkpoint_finalized(path)
        raise OSError("the disk is full")

    monkeypatch.setattr(checkpoint, "write_checksums", fail)
    with pytest.raises(OSError, match="the disk is full"):
        save_steps(copied, [0.3], first=6)
    gc.collect()  # of Orbax's event loop, which was closed under it, here and in no later test
    assert checkpoint.checkpoint_steps(copied) == [2, 4, 5]


def test_parameters_alone_have_checksums_too(tmp_path):
    checkpoint.save_params(tmp_path, state_at(1)["params"])
    checkpoint.restore_params(tmp_path, PARAMS)
    flip(next((tmp_path / "checkpoints/0/state/d").iterdir()))
    with pytest.raises(UserError, match=r"checkpoint 0 .* is damaged"):
        checkpoint.restore_params(tmp_path, PARAMS)


def other_model():
    wider = jax.ShapeDtypeStruct((2, 4), jnp.float32)
    return {"params": {"layer": {"kernel": wider, "gate": wider}}, "frozen": {}}


def test_another_model_is_refused_by_the_names_and_shapes_that_differ(saved):
    with pytest.raises(
        UserError, match=r"kernel: \(2, 3\) in the checkpoint, \(2, 4\) wanted"
    ) as e:
        checkpoint.restore_params(saved, other_model())
    assert "layer/bias: (3,) in the checkpoint, absent wanted" in str(e.value)
    assert "layer/gate: absent in the checkpoint, (2, 4) wanted" in str(e.value)
    abstract = ABSTRACT | {"opt_state": optax.sgd(0.1).init(state_at(0)["params"])}
    with (
        checkpoint.open_checkpoints(saved, KEEP_TWO) as manager,
        pytest.raises(UserError, match=r"another model or optimiser: opt_state.*and \d more"),
    ):
        checkpoint.restore_state(manager, 5, abstract)


def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(saved, tmp_path):
    with pytest.raises(UserError, match=r"has no checkpoint 3, but 2, 4, 5; choose one"):
        checkpoint.restore_params(saved, PARAMS, 3)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        checkpoint.find_params(tmp_path, PARAMS)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    (tmp_path / "empty/checkpoints/3").mkdir(parents=True)
    with ocp.CheckpointManager(tmp_path / "other/checkpoints") as manager:
        manager.save(3, args=ocp.args.StandardSave({"weights": jnp.zeros(3)}))
    for name in ("empty", "other"):
        with pytest.raises(UserError, match="checkpoints/3 is no checkpoint of gmma"):
            checkpoint.find_params(tmp_path / name, PARAMS)


def test_a_file_is_whole_or_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "deep/values.json"
    write_whole(path, '{"step": 1}')
    with monkeypatch.context() as patch:
        patch.setattr(type(path), "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, "[1, 2]")
    assert read_json(path) == {"step": 1}
    path.write_text("[1, ")
    with pytest.raises(UserError, match=r"values\.json is not JSON"):
        read_json(path)


def test_a_checkpoint_under_another_number_is_not_taken_for_it(copied, capsys):
    """Whole as it is: its own number stands in it."""
    shutil.rmtree(copied / "checkpoints/5")
    for number in (5, 3):
        shutil.copytree(copied / "checkpoints/4", copied / "checkpoints" / str(number))
    with pytest.raises(UserError, match=r"checkpoint 5 .* is damaged: it is checkpoint 4"):
        checkpoint.restore_params(copied, PARAMS)
    assert checkpoint.newest_whole(copied) == 4
    assert checkpoint.checkpoint_steps(copied) == [2, 4]
    said = capsys.readouterr().out
    for number in (5, 3):
        assert f"checkpoint {number} of {copied} is damaged (it is checkpoint 4)" in said
    assert_same_arrays(restored(copied, 4), by_path(state_at(4)))


def test_checkpoints_from_before_they_held_their_number_are_read(copied):
    path = copied / "checkpoints/5/progress/metadata"
    progress = read_json(path)
    assert progress.pop("step") == 5
    path.write_text(json.dumps(progress))
    write_checksums(copied / "checkpoints/5")
    assert checkpoint.newest_whole(copied) == 5
    assert_same_arrays(restored(copied, 5), by_path(state_at(5)))
