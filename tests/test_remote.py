"""Copies of what lies in a bucket or on the Hub: whole, once a machine, never another version."""

import base64
import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import bucket as stand_in
import pytest
from bucket import fetched, open_bucket
from PIL import Image

from gmma import cli
from gmma.config import config_from_json, config_to_json
from gmma.errors import UserError
from gmma.files import PARTIAL, locked
from gmma.remote import bucket as remote_bucket
from gmma.remote.bucket import hasher
from gmma.remote.copies import bring, cache_home, here, look, place_of, places_in, with_paths
from gmma.remote.hub import parse_hub
from gmma.remote.listing import Listing, RemoteFile, check_names
from gmma.run.experiments import load_experiment
from gmma.run.sources import source_facts, with_copies
from gmma.tasks import find_task

ROOT = Path(__file__).parents[1]
MODEL = "gs://lab/models/small"
FILES = {"config.json": b"{}", "model.safetensors": b"\0" * 5000, "deep/er/tokenizer.json": b"[]"}


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The folder behind gs://lab, with a model in it; this machine's copies are in tmp_path."""
    monkeypatch.setenv("GMMA_CACHE", str(tmp_path / "cache"))
    folder = open_bucket(tmp_path / "bucket")
    for name, content in FILES.items():
        put(folder, f"models/small/{name}", content)
    look.cache_clear()
    yield folder
    look.cache_clear()


def put(folder, key, content):
    path = folder / "lab" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def bring_anew(place):
    """As a process that begins."""
    look.cache_clear()
    return bring(place)


def files_of(copy):
    return {str(p.relative_to(copy)): p.read_bytes() for p in copy.rglob("*") if p.is_file()}


def test_a_folder_is_copied_once_and_what_changes_alone_is_fetched_again(lab):
    copy = bring_anew(MODEL)
    assert copy.name == "small"
    assert files_of(copy) == FILES
    assert bring_anew(MODEL) == copy
    assert Counter(fetched(lab)) == Counter(f"lab/models/small/{name}" for name in FILES)
    put(lab, "models/small/config.json", b"{1}")
    newer = bring_anew(MODEL)
    assert newer != copy
    assert files_of(newer) == FILES | {"config.json": b"{1}"}
    assert files_of(copy) == FILES  # a run that reads it goes on
    assert fetched(lab)[len(FILES) :] == ["lab/models/small/config.json"]
    assert not list(cache_home().rglob(f"*{PARTIAL}"))


def test_a_process_sees_one_version_and_the_same_size_is_not_the_same_content(lab):
    copy = bring_anew(MODEL)
    put(lab, "models/small/config.json", b"[]")
    assert bring(MODEL) == copy
    assert files_of(bring_anew(MODEL))["config.json"] == b"[]"


def test_a_file_is_copied_alone_and_one_that_is_in_a_copied_folder_not_again(lab):
    put(lab, "data/train.jsonl", b'{"a": 1}\n')
    put(lab, "data/train.jsonl.bak", b"x")
    copy = bring_anew("gs://lab/data/train.jsonl")
    assert (copy.name, copy.read_bytes()) == ("train.jsonl", b'{"a": 1}\n')
    assert list(copy.parent.iterdir()) == [copy]
    assert files_of(bring_anew("gs://lab/data")) == {
        "train.jsonl": b'{"a": 1}\n', "train.jsonl.bak": b"x"
    }  # fmt: skip
    assert fetched(lab) == ["lab/data/train.jsonl", "lab/data/train.jsonl.bak"]


def test_a_copy_that_was_interrupted_is_none_and_what_came_whole_is_kept(lab, monkeypatch):
    """An error in the middle, then a kill in the middle: files that nobody had renamed yet."""
    whole = stand_in.Bucket.get_file

    def breaks(self, rpath, lpath, **_):
        Path(lpath).write_bytes(b"half")
        if rpath.endswith("safetensors"):
            raise ConnectionResetError("the network is gone")
        whole(self, rpath, lpath)

    monkeypatch.setattr(remote_bucket, "AT_A_TIME", 1)
    monkeypatch.setattr(stand_in.Bucket, "get_file", breaks)
    with pytest.raises(UserError, match=r"small: model.safetensors cannot .*the network is gone"):
        bring_anew(MODEL)
    assert not (cache_home() / "trees").exists()
    monkeypatch.setattr(stand_in.Bucket, "get_file", whole)
    known = look(MODEL)
    large = next(file for file in known.files if file.name == "model.safetensors")
    place = remote_bucket.object_path(large, cache_home())
    place.with_name(place.name + PARTIAL).write_bytes(b"half")
    growing = cache_home() / "trees" / (known.digest + PARTIAL) / "small"
    growing.mkdir(parents=True)
    (growing / "config.json").write_bytes(b"half")
    before = fetched(lab)
    assert files_of(bring_anew(MODEL)) == FILES
    assert fetched(lab)[len(before) :] == ["lab/models/small/model.safetensors"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-1], "4999 bytes of 5000"),
        (lambda data: data[:-1] + b"x", "another md5"),
    ],
)
def test_an_object_that_comes_damaged_is_refused(lab, monkeypatch, damage, words):
    def get_file(self, rpath, lpath, **_):
        data = (self.root / rpath).read_bytes()
        Path(lpath).write_bytes(damage(data) if rpath.endswith("safetensors") else data)

    monkeypatch.setattr(stand_in.Bucket, "get_file", get_file)
    with pytest.raises(UserError, match=words):
        bring_anew(MODEL)
    kept = [path for path in (cache_home() / "objects").rglob("*") if path.is_file()]
    assert len(kept) == 2  # the others, which are whole
    assert not (cache_home() / "trees").exists()


def test_two_processes_of_a_machine_do_not_fetch_twice(lab):
    """Both list, then wait for the lock that this process holds."""
    script = (
        "import bucket, sys; from gmma.remote.copies import bring, look\n"
        f"look({MODEL!r}); print('listed', flush=True); print(bring({MODEL!r}))"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", stand_in.FOLDER: str(lab)}
    start = [sys.executable, "-c", script]
    with locked(cache_home() / "lock", wait=True):
        both = [
            subprocess.Popen(start, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)
        ]
        assert [process.stdout.readline() for process in both] == ["listed\n"] * 2
        assert fetched(lab) == []
    found = {process.communicate(timeout=300)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert files_of(Path(found.pop())) == FILES
    assert not found
    assert len(fetched(lab)) == len(FILES)


def test_what_cannot_be_copied_is_one_message(lab, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="there is nothing at gs://lab/nothing"):
        look("gs://lab/nothing")

    def refused(self, path, **_):
        raise PermissionError("storage.objects.list denied")

    with monkeypatch.context() as patch:
        patch.setattr(stand_in.Bucket, "find", refused)
        with pytest.raises(UserError, match=r"gs://lab/x cannot be read .*objects.list denied"):
            look("gs://lab/x")
    with monkeypatch.context() as patch:
        patch.setattr(remote_bucket, "SPARE_BYTES", 1 << 62)
        with pytest.raises(UserError, match=r"are free there; make room, or set GMMA_CACHE"):
            bring(MODEL)
    for name in ("../x", "a//b", "a/./b", "a\nb"):
        with pytest.raises(UserError, match="which is no name for a file on disk"):
            check_names("gs://b", (RemoteFile(name=name, path=name, size=1, version="1"),))


def test_the_cache_lies_outside_the_code_and_an_experiment_that_reads_nothing_makes_none(
    monkeypatch, tmp_path
):
    monkeypatch.delenv("GMMA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_home() == tmp_path / "gmma"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_home() == Path("/home/me/.cache/gmma")
    tiny = load_experiment(ROOT / "experiments/digits.py")
    assert with_copies(tiny) is tiny
    assert source_facts(tiny) == {}
    assert here(Path("models/x")) == Path("models/x")


# What comes with gcsfs is there in the tests of an emulated bucket.
@pytest.mark.parametrize("kind", ["md5", pytest.param("crc32c", marks=pytest.mark.bucket)])
def test_sums_are_those_of_cloud_storage(kind):
    """Those of the nine digits with which catalogues of CRCs check; of CRC-32C it is e3069283."""
    digest = hasher(kind)()
    digest.update(b"")
    digest.update(b"123456789")
    known = {"md5": "JfnnlDI7RTiF9RgfG2JNCw==", "crc32c": "4waSgw=="}
    assert base64.b64encode(digest.digest()).decode() == known[kind]


# ---- configs ------------------------------------------------------------------------------------


def own_config(**changes):
    config = load_experiment(ROOT / "experiments/math.py", backbone="qwen3_vl_2b", trained="lora")
    task = replace(config.task, train_path=Path("gs://lab/data/train.jsonl"), **changes)
    return replace(config, task=task, model=replace(config.model, directory=Path(MODEL)))


def test_paths_that_lead_elsewhere_are_found_saved_as_they_are_and_replaced_by_copies(lab):
    config = own_config(test_path=None)
    asked = {"task.train_path": "gs://lab/data/train.jsonl", "model.directory": MODEL}
    assert dict(places_in(config)) == asked
    saved = json.loads(json.dumps(config_to_json(config)))
    assert (saved["task"]["train_path"], saved["model"]["directory"]) == tuple(asked.values())
    assert dict(places_in(config_from_json(saved, Path("config.json")))) == asked
    put(lab, "data/train.jsonl", b"{}")
    read = with_copies(config)
    assert dict(places_in(read)) == {}
    assert read.task.train_path.read_bytes() == b"{}"
    assert files_of(read.model.directory) == FILES
    assert config_to_json(with_paths(read, {})) == config_to_json(read)
    assert source_facts(config) == {
        f"content of {place}": look(place).digest for place in asked.values()
    }
    before = source_facts(config)
    put(lab, "data/train.jsonl", b"[]")
    look.cache_clear()
    changed = source_facts(config)
    assert [name for name in before if before[name] != changed[name]] == [
        "content of gs://lab/data/train.jsonl"
    ]


def picture(shade):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def test_records_and_pictures_of_a_bucket_become_a_dataset_and_new_ones_another(lab, tmp_path):
    """The directory of a dataset is a function of the copies, pictures included."""
    rows = [
        {"question": f"{n} + 1?", "answer": f"#### {n + 1}", "image": "deep/a.png"}
        for n in range(8)
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    config = own_config(test_path=None, held_out=2, images=Path("gs://lab/data/images"))
    task, contents = find_task("math"), []
    for answer, shade in (("#### 8", 0), ("#### 9", 0), ("#### 9", 255), ("#### 9", 255)):
        put(lab, "data/train.jsonl", text.replace("#### 8", answer).encode())
        put(lab, "data/images/deep/a.png", picture(shade))
        look.cache_clear()
        read = with_copies(config).task
        task.build(read, tmp_path / "data")
        contents.append(task.content(read, tmp_path / "data"))
    assert len(set(contents[:3])) == 3
    assert contents[3] == contents[2]  # what a run compares is the content, not its generation
    example = task.source(read, tmp_path / "data", "train")[0]
    assert example.images[0][0, 0].tolist() == [255, 0, 0]


def test_fetch_names_looks_and_copies(lab, tmp_path, capsys):
    put(lab, "data/train.jsonl", b"{}")
    lines = [str(ROOT / "experiments/math.py"), "--backbone", "qwen3_vl_2b", "--trained", "lora",
             "--task.train-path", "gs://lab/data/train.jsonl", "--task.test-path", "None",
             "--model.directory", MODEL]  # fmt: skip
    cli.command_fetch([*lines, "--places", "--init-from", "gs://lab/runs/other"])
    asked = ["gs://lab/data/train.jsonl", MODEL, "gs://lab/runs/other"]
    assert capsys.readouterr().out.splitlines() == asked
    assert not lab.with_suffix(".log").exists()  # nobody was asked
    cli.command_fetch([*lines, "--check"])
    assert f"model.directory = {MODEL}: 3 files" in capsys.readouterr().out
    assert fetched(lab) == []
    cli.command_fetch(lines)
    assert f"here as {cache_home()}" in capsys.readouterr().out
    assert len(fetched(lab)) == 4
    wrong = [*lines[:-1], "gs://lab/models/typo", "--task.train-path", "gs://lab/data/typo.jsonl"]
    look.cache_clear()
    with pytest.raises(UserError, match=r"(?s)2 problems:.*data/typo.jsonl.*models/typo"):
        cli.command_fetch([*wrong, "--check"])


# ---- the Hub ------------------------------------------------------------------------------------


def test_places_of_the_hub():
    assert parse_hub("hf://google/gemma-3-4b-it").repository == "google/gemma-3-4b-it"
    at = parse_hub("hf://datasets/openai/gsm8k@v1/main/train.parquet")
    assert (at.repository, at.kind, at.revision) == ("openai/gsm8k", "dataset", "v1")
    assert at.path == "main/train.parquet"
    for wrong in ("hf://gemma", "hf://", "hf://a/b@"):
        with pytest.raises(UserError, match="hf://OWNER/NAME"):
            parse_hub(wrong)
    assert place_of(Path("hf://a/b@main")) == "hf://a/b@main"
    assert Listing(place="x", name="x", is_file=False, files=()).bytes == 0


class Hub(http.server.BaseHTTPRequestHandler):
    """The few answers of the Hub that its library asks for to copy a model."""

    commit = "0123456789abcdef0123456789abcdef01234567"
    files: ClassVar = {
        "config.json": b"{}", "model.safetensors": b"\1" * 999, "pytorch_model.bin": b"no"
    }  # fmt: skip
    asked: ClassVar[list]

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path, name = self.path.partition("?")[0], self.path.rpartition("/")[2]
        if body:
            self.asked.append(path)
        if path == f"/api/models/me/small/tree/{self.commit}":
            tree = [
                {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for n, c in self.files.items()
            ]
            self.send(json.dumps(tree).encode(), "application/json", body)
        elif path.startswith("/api/models/me/small"):
            siblings = [
                {"rfilename": n, "size": len(c), "blobId": hashlib.sha1(c).hexdigest()}
                for n, c in self.files.items()
            ]
            told = {"id": "me/small", "sha": self.commit, "siblings": siblings}
            self.send(json.dumps(told).encode(), "application/json", body)
        elif path.startswith(f"/me/small/resolve/{self.commit}/") and name in self.files:
            self.send(self.files[name], "application/octet-stream", body)
        else:
            self.send_error(404)

    def send(self, content, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def test_a_model_of_the_hub_is_copied_once_without_what_gmma_does_not_read(tmp_path):
    """In processes of their own: the library reads the Hub's address when it is imported."""
    handler = type("Handler", (Hub,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("localhost", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    script = "from gmma.remote.copies import bring; print(bring('hf://me/small'), end='')"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GMMA_CACHE": str(tmp_path),
        "HF_ENDPOINT": f"http://localhost:{server.server_port}",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(Path(done.stdout))
    server.shutdown()
    server.server_close()
    assert found[0] == found[1]
    assert found[0].is_relative_to(tmp_path)
    read = {"config.json", "model.safetensors"}
    assert {path.name: path.read_bytes() for path in found[0].iterdir()} == {
        name: Hub.files[name] for name in read
    }
    resolved = [path for path in handler.asked if "/resolve/" in path]
    assert sorted(path.rpartition("/")[2] for path in resolved) == sorted(read)
