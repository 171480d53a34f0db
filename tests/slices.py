"""Devices of TPU slices that are not there, where libtpu is installed."""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
from jax.experimental import topologies

from gmma.plan.judge import ProgramPlan
from gmma.plan.lengths import FULL_TREES
from gmma.plan.serial import Serial
from gmma.plan.tpu_compiler import NO_TPU_HERE, nothing_cached

ABSENT = importlib.util.find_spec("libtpu") is None


def needs_libtpu(test: Any) -> Any:
    """Marks a test that compiles for TPU slices."""
    return pytest.mark.tpu(pytest.mark.skipif(ABSENT, reason="needs libtpu (gmma[tpu])")(test))


def made_up_plan(program: str, seconds: float, *, fits: bool = True) -> ProgramPlan:
    """A plan of which only the time, and whether it fits, says anything."""
    return ProgramPlan(
        program=program, compile_seconds=0, argument_bytes=0, output_bytes=0, temporary_bytes=0,
        resident_bytes=0, waiting_bytes=0,
        need_bytes=0, usable_bytes=1, fits_alone=fits, fits=fits, flops=0, hbm_traffic_bytes=0,
        sent_bytes={}, bound_seconds={"HBM": seconds, "ICI": 0.0}, serial=Serial(large=seconds),
        of_peak=0.5, mfu=0.25, tokens_per_second=1, uncounted_kernels=0, rows=2, tokens=1,
        bytes_per_token=0,
        nodes=0, node_bytes=0, buffers=(), advice=None, expected=FULL_TREES,
    )  # fmt: skip


@contextlib.contextmanager
def devices_of(topology: str) -> Iterator[list[Any]]:
    """The devices; what is compiled for them meanwhile is not cached: it cannot be read back."""
    with pytest.MonkeyPatch.context() as patch, nothing_cached():
        for name, value in NO_TPU_HERE.items():
            patch.setenv(name, value)
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
        yield list(found.devices)
