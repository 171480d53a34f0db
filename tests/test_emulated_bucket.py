"""Copies by gcsfs itself, from an emulated Cloud Storage."""

from collections import Counter

import pytest
from emulator import open_emulator

from gmma.errors import UserError
from gmma.remote.copies import bring, look

pytestmark = pytest.mark.bucket
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 4000, "deep/er/x": b"[]"}


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    monkeypatch.setenv("GMMA_CACHE", str(tmp_path / "cache"))
    with open_emulator("lab") as (_, downloads):
        for name, content in FILES.items():
            put(f"models/small/{name}", content)
        yield downloads


def put(key, content):
    import gcsfs

    gcsfs.GCSFileSystem().pipe_file(f"lab/{key}", content)


def bring_anew(place):
    look.cache_clear()
    return bring(place)


def files_of(copy):
    return {str(p.relative_to(copy)): p.read_bytes() for p in copy.rglob("*") if p.is_file()}


def test_gcsfs_brings_each_generation_of_an_object_once(downloads):
    copy = bring_anew("gs://lab/models/small")
    assert files_of(copy) == FILES
    kinds = {kind for file in look("gs://lab/models/small").files for kind in file.sums}
    assert kinds == {"md5", "crc32c"}  # both were compared
    assert bring_anew("gs://lab/models/small") == copy
    assert set(Counter(downloads).values()) == {1}
    put("models/small/config.json", b"[]")  # as large as before
    newer = bring_anew("gs://lab/models/small")
    assert files_of(newer) == FILES | {"config.json": b"[]"}
    assert Counter(downloads) == Counter(
        {f"models/small/{name}": 1 + (name == "config.json") for name in FILES}
    )
    assert bring_anew("gs://lab/models/small/config.json").read_bytes() == b"[]"
    assert sum(Counter(downloads).values()) == 4


def test_what_is_not_there_is_one_message(downloads):
    for place in ("gs://lab/models/typo", "gs://other/models"):
        with pytest.raises(UserError, match=place):
            bring_anew(place)
    put("models/smaller/x", b"1")  # whose name begins alike
    assert "smaller" not in str(sorted(files_of(bring_anew("gs://lab/models/small"))))
