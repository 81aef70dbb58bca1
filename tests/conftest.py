# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: reused keys are errors, and missing devices are named.

Devices and the compilation cache are the environment's choice (`XLA_FLAGS`, `JAX_PLATFORMS`,
`JAX_COMPILATION_CACHE_DIR`; the Makefile sets them), so nothing here touches a device early.
"""

import gc

import jax
import pytest

jax.config.update("jax_debug_key_reuse", True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test whose devices are absent."""
    if item.get_closest_marker("device8") and jax.device_count() < 8:
        pytest.skip(
            f"needs 8 devices, found {jax.device_count()}: "
            "set XLA_FLAGS=--xla_force_host_platform_device_count=8"
        )
    if item.get_closest_marker("gpu") and jax.default_backend() != "gpu":
        pytest.skip(f"needs a GPU, JAX runs on {jax.default_backend()}")


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Drops a file's compiled programs at its end; kept, those of all files take many gigabytes."""
    yield
    jax.clear_caches()
    gc.collect()
