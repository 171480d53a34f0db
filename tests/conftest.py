"""Strict JAX for every test: eight emulated devices, no silent promotion, shapes checked.

Everything here must happen before JAX is imported.
"""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("GMMA_REAL_DATA", str(ROOT.parent / "shared" / "data"))
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # an unpacked archive tests itself

from jaxtyping import install_import_hook  # noqa: E402

# Shapes are checked where arrays are; a wrapper a call would make readers of text 20 times slower.
ARRAYS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "gmma").rglob("*.py"))
    if path != ROOT / "gmma/__init__.py" and "from jaxtyping" in path.read_text(encoding="utf-8")
]
install_import_hook(ARRAYS, "strict_types.checked")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

hypothesis.settings.register_profile(
    "gmma",
    deadline=None,  # a first example compiles
    derandomize=True,  # the same examples on every machine, so that a red test stays red
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("gmma")


@pytest.fixture(scope="module")
def compiled_in_a_hurry():
    """Also with JAX's own promotion: optax raises a float to an integer power."""
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.numpy_dtype_promotion("standard"):
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def real_path():
    """The path of a file of real records, or a skip that says which one is absent."""

    def find(name):
        path = Path(os.environ["GMMA_REAL_DATA"]) / name
        if not path.exists():
            pytest.skip(f"no real data at {path}; point GMMA_REAL_DATA at it")
        return path

    return find


@pytest.fixture(scope="session")
def read_real(real_path):
    """The content of a file of real records."""

    def read(name):
        path = real_path(name)
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines()]
        return json.loads(text)

    return read


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Let go of compiled programs before they are too many for a process.

    Each maps some fifteen pieces of memory, a large one hundreds. Linux gives a process 65,530
    (`vm.max_map_count`), and XLA aborts at the next. Behind a file that is early; within one, where
    its fixtures' programs are compiled again, late.
    """
    result = yield
    maps, last = Path("/proc/self/maps"), nextitem is None or nextitem.path != item.path
    most = 16_000 if last else 40_000
    if maps.exists() and maps.read_bytes().count(b"\n") > most:
        jax.clear_caches()
    return result


def pytest_collection_modifyitems(items):
    """Leave out tests of minutes unless asked for, and parity without what it compares with."""
    left_out = {}
    if os.environ.get("GMMA_SLOW") != "1":
        left_out["slow"] = "takes minutes; set GMMA_SLOW=1"
    missing = [name for name in ("torch", "transformers", "peft") if find_spec(name) is None]
    if missing:
        left_out["parity"] = f"not installed: {', '.join(missing)}"
    missing = [name for name in ("gcsfs", "gcp_storage_emulator") if find_spec(name) is None]
    if missing:
        left_out["bucket"] = f"not installed: {', '.join(missing)}"
    for item in items:
        # No keywords: those hold the names of the folders too, such as that of the checkout.
        for mark in left_out.keys() & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.skip(reason=left_out[mark]))
