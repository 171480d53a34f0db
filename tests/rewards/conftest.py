"""Which tests take minutes."""

import os

import pytest


def pytest_collection_modifyitems(items):
    if os.environ.get("GMMA_SLOW") == "1":
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="takes minutes; set GMMA_SLOW=1"))
