"""The first days on a slice: models, records and images in a bucket, preempted twice, installed
again. Nothing is lost, and nothing is fetched twice on a host that still has it.
"""

import io
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import bucket as stand_in_bucket
import numpy as np
import pytest
from bucket import fetched
from emulator import open_emulator
from PIL import Image
from stand_in_cloud import Cloud

ROOT = Path(__file__).parents[2]
PLACES = {
    "--model.directory": "gs://my-bucket/models/small",
    "--task.train-path": "gs://my-bucket/data/train.jsonl",
    "--task.test-path": "gs://my-bucket/data/test.jsonl",
    "--task.images": "gs://my-bucket/data/images",
}


def lay_out(tmp_path, experiment):
    """A cloud whose project is the real code, and an experiment of one's own elsewhere."""
    cloud = Cloud(tmp_path / "cloud")
    cloud.lay_out()
    shutil.rmtree(cloud.project / "gmma")
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gmma", cloud.project / "gmma", ignore=skip)
    own = tmp_path / "mine/reach.py"
    own.parent.mkdir()
    own.write_text(experiment)
    return cloud, own


def fields():
    return ["--", *(word for pair in PLACES.items() for word in pair)]


def program(path, text):
    path.write_text(f"#!/usr/bin/env bash\n{text}")
    path.chmod(0o755)


def home(cloud, worker=0):
    return cloud.folder / "workers" / str(worker)


def said(cloud, done):
    """What a verb said, and what the trainer did."""
    log = home(cloud) / "gmma-run/train.log"
    return done.stderr + (log.read_text() if log.exists() else "no log")


def test_two_preemptions_and_an_installation_lose_nothing_and_fetch_nothing_twice(tmp_path):
    """The stand-in trains; before, as the real one does, gmma's own code on each worker copies."""
    cloud, own = lay_out(tmp_path, "def experiment(): ...\n")
    objects = {f"models/small/{name}": name for name in ("config.json", "model.safetensors")}
    objects |= {f"data/{name}.jsonl": name for name in ("train", "test")}
    objects |= {f"data/images/{n}.png": f"picture {n}" for n in range(3)}
    lab = cloud.folder / "bucket"
    for key, text in objects.items():
        path = lab / "my-bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    copy = "import bucket, sys; from gmma.remote.copies import bring; [*map(bring, sys.argv[1:])]"
    program(
        cloud.folder / "before",
        f'places=(); for word in "$@"; do [[ $word != gs://*/models/* && $word != gs://*/data/* ]] '
        f'|| places+=("$word"); done\nexport {stand_in_bucket.FOLDER}="$STAND_IN/bucket"\n'
        f'PYTHONPATH="$HOME/gmma:{ROOT}/tests" {sys.executable} -c "{copy}" "${{places[@]}}"\n',
    )
    cloud.scenario |= {"WORKERS": "2", "STATES": "ACTIVE"}
    cloud.lives = ["preempted", "vanished", "interrupted", "finished", "finished"]
    done = cloud.run("run", str(own), *fields())
    assert done.returncode == 0, done.stderr
    assert cloud.changes == ["create", "delete", "create", "delete", "create"]
    hosts = 3 * 2  # three slices of two, the last of which came to life twice
    assert Counter(fetched(lab)) == {f"my-bucket/{key}": hosts for key in objects}

    kept = home(cloud) / "gmma/data/digits/records"
    kept.parent.mkdir(parents=True)
    kept.write_text("a dataset that was built there")
    (cloud.project / "gmma/theory.py").write_text("# a change of code\n")
    assert cloud.run("install").returncode == 0
    assert (home(cloud) / "gmma/gmma/theory.py").read_text() == "# a change of code\n"
    (lab / "my-bucket/data/train.jsonl").write_text("more of it")  # and of the records
    done = cloud.run("run", str(own), *fields())
    assert done.returncode == 0, done.stderr
    assert kept.read_text() == "a dataset that was built there"
    assert Counter(fetched(lab)) == {
        f"my-bucket/{key}": hosts + 2 * (key == "data/train.jsonl") for key in objects
    }
    assert len(cloud.trainer_starts(1)) == 5
    run = lab / "my-bucket/runs/reach/checkpoints"
    assert sorted(path.name for path in run.iterdir()) == ["10", "30"]
    copies = {path.read_text() for path in (home(cloud) / ".cache/gmma/objects").rglob("*/*")}
    assert copies == {*objects.values(), "more of it"}


# ---- the same with the real trainer ------------------------------------------------------------

EXPERIMENT = """
from pathlib import Path

from gmma.config import (
    CheckpointConfig, EvalConfig, ExperimentConfig, PhaseConfig, RewardConfig, TreeConfig,
)
from gmma.families.pretrained import PretrainedConfig
from gmma.rewards.terms import RewardTerm
from gmma.tasks.mathematics import MathConfig


def experiment():
    return ExperimentConfig(
        name="reach",
        task=MathConfig(held_out=2),
        model=PretrainedConfig(directory=Path("models/small"), dtype="float32"),
        tree=TreeConfig(
            thoughts=2, answers=2, prompt_tokens=200, thought_tokens=24, answer_tokens=40
        ),
        rewards=RewardConfig(terms=(RewardTerm("lengths_of_ours:shortness"),), workers=0),
        sft=PhaseConfig(steps=2, batch_prompts=2),
        rl=PhaseConfig(steps=6, batch_prompts=2),
        evaluation=EvalConfig(examples=2, batch_prompts=2, samples=1, bootstrap=20),
        checkpoint=CheckpointConfig(every_steps=1),
    )
"""
REWARD = """
def shortness(completions, **_):
    return [1 / (1 + len(completion)) for completion in completions]
"""


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def real_objects(tmp_path):
    """A tiny random Qwen2.5-VL, problems with a picture each, and those pictures."""
    from tests.porting.directories import write_directory

    model = write_directory("qwen2_5_vl", tmp_path / "model")
    files = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    objects = {f"models/small/{name}": content for name, content in files.items()}
    for split, numbers in (("train", range(12)), ("test", range(12, 16))):
        rows = [
            {"question": f"{n} + 1?", "answer": f"So. #### {n + 1}", "image": f"{n}.png"}
            for n in numbers
        ]
        objects[f"data/{split}.jsonl"] = "\n".join(map(json.dumps, rows)).encode()
        objects |= {f"data/images/{n}.png": picture(n) for n in numbers}
    return objects


@pytest.mark.slow
@pytest.mark.bucket
def test_a_real_run_survives_them_too(tmp_path):
    """Model, records, images and the run in an emulated Cloud Storage, through gcsfs, TensorStore
    and Orbax; a reward of one's own beside the experiment.
    """
    import gcsfs

    cloud, own = lay_out(tmp_path, EXPERIMENT)
    own.with_name("lengths_of_ours.py").write_text(REWARD)
    objects = real_objects(tmp_path)
    cloud.lives = ["trained_until_2", "trained_until_5", "trained", "trained"]
    cloud.scenario["STATES"] = "ACTIVE"
    with open_emulator("my-bucket") as (address, downloads):
        store = gcsfs.GCSFileSystem()
        for key, content in objects.items():
            store.pipe_file(f"my-bucket/{key}", content)
        cloud.scenario["EMULATOR"] = address
        environment = {
            "STORAGE_EMULATOR_HOST": address,
            "TENSORSTORE_GCS_HTTP_URL": address,
            "PYTHONPATH": "$HOME/gmma",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": ROOT / ".jax_cache",
        }
        settings = " ".join(f'{name}="{value}"' for name, value in environment.items())
        program(  # one process is the whole slice: there is no TPU VM to ask for others
            cloud.folder / "trainer",
            'words=(); for word in "$@"; do [[ $word == --hosts.join || $word == slice ]] || '
            f'words+=("$word"); done\n{settings} exec {sys.executable} -W ignore -m gmma '
            '"${words[@]}"\n',
        )
        done = cloud.run("run", str(own), *fields(), limit=3600)
        assert done.returncode == 0, said(cloud, done)
        assert cloud.changes == ["create", "delete", "create", "delete", "create"]
        sources = dict.fromkeys(objects, 3)
        assert {key: n for key, n in Counter(downloads).items() if key in sources} == sources

        run = "my-bucket/runs/reach"
        lines = store.cat_file(f"{run}/metrics.jsonl").decode().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(8))
        asked = json.loads(store.cat_file(f"{run}/config.json"))
        assert asked["model"]["directory"] == PLACES["--model.directory"]
        assert asked["task"]["images"] == PLACES["--task.images"]
        assert store.exists(f"{run}/evaluation/after_rl.json")

        assert cloud.run("install").returncode == 0
        datasets = sorted((home(cloud) / "gmma/data").iterdir())
        assert datasets  # built before the code was installed again
        done = cloud.run("run", str(own), *fields(), limit=3600)
        assert done.returncode == 0, said(cloud, done)
        assert sorted((home(cloud) / "gmma/data").iterdir()) == datasets
        assert {key: n for key, n in Counter(downloads).items() if key in sources} == sources
