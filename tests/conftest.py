"""Strict JAX for every test: eight emulated devices, no silent promotion, shapes checked.

Everything here must happen before JAX is imported.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("GMMA_REAL_DATA", str(ROOT.parent / "shared" / "data"))
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # an unpacked archive tests itself

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("gmma", "strict_types.checked")

import hypothesis  # noqa: E402
import jax  # noqa: E402

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
