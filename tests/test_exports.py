"""The names that `gmma` itself exports, for notebooks."""

import subprocess
import sys
from importlib import import_module

import pytest

import gmma


def test_importing_the_package_imports_no_jax():
    code = (
        "import gmma, sys; assert 'TASKS' in dir(gmma) and 'jax' not in sys.modules;"
        "gmma.multi_answer; assert 'jax' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_name_is_that_of_its_module():
    assert set(gmma.__all__) == set(gmma._HOMES)
    for name, module in gmma._HOMES.items():
        assert getattr(gmma, name) is getattr(import_module(module), name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'multi_answers'"):
        _ = gmma.multi_answers
