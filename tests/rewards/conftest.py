"""Where the real records lie, and which tests take minutes."""

import json
import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes; runs with GMMA_SLOW=1")


def pytest_collection_modifyitems(items):
    if os.environ.get("GMMA_SLOW") == "1":
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="takes minutes; set GMMA_SLOW=1"))


@pytest.fixture(scope="session")
def read_real():
    """The records of a real file, or a skip that says which one is absent."""

    def read(name):
        path = Path(os.environ.get("GMMA_REAL_DATA", _ROOT / "../shared/data")) / name
        if not path.exists():
            pytest.skip(f"no real data at {path}; point GMMA_REAL_DATA at it")
        text = path.read_text(encoding="utf-8")
        return (
            [json.loads(line) for line in text.splitlines()]
            if path.suffix == ".jsonl"
            else (json.loads(text))
        )

    return read
