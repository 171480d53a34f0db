"""The launch is apart from the experiment: a saved run repeats, resumes and evaluates anywhere.

`old_runs/config.json` is what the version before wrote, which saved both as one.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_digits import experiment
from tiny_run import (
    assert_same_arrays,
    open_tiny,
    records,
    saved_arrays,
    train_tiny,
)

from gmma.commands import load_run
from gmma.config import (
    ExperimentConfig,
    HostsConfig,
    LaunchConfig,
    MeshConfig,
    config_from_json,
    config_to_json,
    job_to_json,
    launch_to_json,
    with_launch,
)
from gmma.errors import UserError
from gmma.records.resuming import check_start, hold_run

OLD = Path(__file__).with_name("old_runs") / "config.json"
ELSEWHERE = LaunchConfig(
    hosts=HostsConfig(join="slice"),
    mesh=MeshConfig(data=2, fsdp=4),
    data_dir=Path("there"),
    runs_dir=Path("runs_there"),
)


def launched(launch: LaunchConfig) -> ExperimentConfig:
    return replace(experiment(), launch=launch)


def hold(config: ExperimentConfig, run_dir: Path) -> None:
    """Write what each start of a run writes."""
    with hold_run(run_dir, config_to_json(config), launch_to_json(config.launch), "hash"):
        pass


def test_a_saved_config_holds_no_launch():
    values = config_to_json(launched(ELSEWHERE))
    assert values == config_to_json(experiment())
    assert not values.keys() & {"launch", "hosts", "mesh", "data_dir", "runs_dir"}
    assert config_from_json(values, OLD) == experiment()
    assert config_from_json(json.loads(json.dumps(job_to_json(launched(ELSEWHERE)))), OLD) == (
        launched(ELSEWHERE)
    )


def test_a_run_is_resumed_on_any_launch_and_keeps_the_newest(tmp_path):
    run_dir = tmp_path / "moved/tiny"
    hold(experiment(), run_dir)
    check_start(run_dir, True, config_to_json(launched(ELSEWHERE)))
    hold(launched(ELSEWHERE), run_dir)
    assert json.loads((run_dir / "launch.json").read_text()) == launch_to_json(ELSEWHERE)
    with pytest.raises(UserError, match="seed was 0, is 1"):
        check_start(run_dir, True, config_to_json(replace(experiment(), seed=1)))


@pytest.mark.parametrize("name", ["tiny", "a/b"])
def test_who_reads_a_run_finds_its_files_where_they_lie(tmp_path, monkeypatch, name):
    """Mesh and data as the run had them last; its hosts are not those of who reads it."""
    hold(replace(launched(ELSEWHERE), name=name), tmp_path / "moved" / name)
    found = load_run(tmp_path / "moved" / name)
    here = replace(ELSEWHERE, hosts=HostsConfig(), runs_dir=tmp_path / "moved")
    assert found == replace(experiment(), name=name, launch=here)
    assert found.run_dir == tmp_path / "moved" / name
    monkeypatch.chdir(tmp_path / "moved" / name)
    assert load_run(Path()) == found


def test_a_launch_that_cannot_be_read_is_one_message(tmp_path):
    hold(experiment(), tmp_path)
    for values, message in [
        ({"mesh": {"fsdp": "two"}}, r"launch\.json holds no config of this version: mesh\.fsdp"),
        ({"pods": 2}, r"it has no field pods; use the version of gmma that wrote it, or correct"),
    ]:
        (tmp_path / "launch.json").write_text(json.dumps(values))
        with pytest.raises(UserError, match=message):
            load_run(tmp_path)


def test_an_old_config_is_read_and_its_values_are_the_launch(tmp_path):
    old = config_from_json(json.loads(OLD.read_text()), OLD)
    launch = LaunchConfig(
        hosts=HostsConfig(heartbeat_seconds=20),
        mesh=MeshConfig(data=1, fsdp=-1),
        data_dir=Path("old_data"),
        runs_dir=Path("elsewhere"),
    )
    workers = replace(experiment().rewards, workers=0)
    assert old == replace(experiment(), name="old", rewards=workers, launch=launch)
    shutil.copy(OLD, tmp_path)
    check_start(tmp_path, True, config_to_json(with_launch(old, mesh=MeshConfig(tensor=2))))
    with pytest.raises(UserError, match=r"config\.json holds no config .* no field gpus"):
        config_from_json(json.loads(OLD.read_text()) | {"gpus": 8}, OLD)


def test_a_run_of_the_version_before_is_evaluated_and_resumed(tmp_path_factory):
    """Its last checkpoint is taken away, so that it goes on; no launch.json is there at first."""
    with open_tiny(tmp_path_factory) as (directory, start):
        whole, old = directory / "runs/whole", directory / "moved/old"
        shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(whole, old)
        shutil.copy(OLD, old)
        (old / "launch.json").unlink()
        assert start("eval", "moved/old", "--output", "old.json").wait() == 0
        assert (directory / "old_data").is_dir()
        again = json.loads((directory / "old.json").read_text())
        after_rl = json.loads((whole / "evaluation/after_rl.json").read_text())
        assert again["values"] == after_rl["values"]

        shutil.rmtree(old / "checkpoints/14")
        (old / "evaluation/after_rl.json").unlink()
        assert train_tiny(start, "old", "--resume", "--runs-dir", "moved").wait() == 0
        assert records(old) == records(whole)
        assert_same_arrays(saved_arrays(old, 14), saved_arrays(whole, 14))
        assert (old / "config.json").read_text() == OLD.read_text()
        newest = replace(LaunchConfig(), runs_dir=Path("moved"))
        assert json.loads((old / "launch.json").read_text()) == launch_to_json(newest)
