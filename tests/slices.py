"""Devices of TPU slices that are not there, where libtpu is installed."""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import jax
import pytest
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache

from gmma.plan.tpu_compiler import NO_TPU_HERE

ABSENT = importlib.util.find_spec("libtpu") is None


def needs_libtpu(test: Any) -> Any:
    """Marks a test that compiles for TPU slices."""
    return pytest.mark.tpu(pytest.mark.skipif(ABSENT, reason="needs libtpu (gmma[tpu])")(test))


@contextlib.contextmanager
def devices_of(topology: str) -> Iterator[list[Any]]:
    """The devices; what is compiled for them meanwhile is not cached: it cannot be read back."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in NO_TPU_HERE.items():
            patch.setenv(name, value)
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()
        try:
            found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
            yield list(found.devices)
        finally:
            jax.config.update("jax_enable_compilation_cache", True)
            compilation_cache.reset_cache()
