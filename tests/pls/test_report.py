# SPDX-License-Identifier: Apache-2.0
"""A film of a search, on a grid that is not square."""

import logging

import numpy as np

from jaxsafe.pls import report


def test_a_film_is_made_and_nothing_is_told_of_how(tmp_path, caplog):
    r, g = np.meshgrid(np.arange(4.0), np.arange(3.0), indexing="ij")
    z = np.stack([r, g], -1).reshape(-1, 2)
    with caplog.at_level(logging.INFO):
        path = report.film(
            tmp_path / "film.gif", "a search", z, z.sum(1), 2.5, z[:, 0] < [[1], [2]], [0, 4]
        )
    assert path.read_bytes().startswith(b"GIF89a") and caplog.records == []
