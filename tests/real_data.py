# SPDX-License-Identifier: Apache-2.0
"""Real data beside the checkout, read in place and never part of it; absent, the test skips."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "shared" / "data"


def file(name: str) -> Path:
    """Returns the path of `name` under the shared data folder, or skips the test that asks."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"the data file {name} is not here")
    return path
