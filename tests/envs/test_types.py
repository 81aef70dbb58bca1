# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from jaxsafe.envs.mujoco_tasks import make
from jaxsafe.envs.types import Leaf


def test_leaf_slices_take_whole_axes_for_none():
    array = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(array[Leaf("x", (None, 0)).slices], [0, 2, 4])
    assert array[Leaf("x", (2, 1)).slices] == 5
    assert hash(Leaf("x", (None, 0))) == hash(Leaf("x", (None, 0)))


def test_tasks_hash_by_identity_and_are_frozen():
    a, b = make("InvertedPendulum-v5"), make("InvertedPendulum-v5")
    assert len({a, a, b}) == 2
    with pytest.raises(AttributeError):
        a.name = "other"
