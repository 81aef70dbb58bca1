"""The published numbers beside ours: of methods that there are, normalised as ours are."""

import numpy as np
import pytest

from jaxsafe.image_to_semantics import evaluate, plans, published

# Normalised returns worked out by hand from the paper's means, in the order of `WORLDS`.
EXPECTED = {
    ("0", "unpaired"): (0.205, 0.076, -0.071, -1.079),
    ("10", "paired"): (0.634, 0.202, -0.046, -1.240),
    ("10", "augmented"): (0.932, 0.496, 0.460, 0.154),
    ("10", "active"): (0.957, 0.632, 0.456, 0.169),
    ("many", "paired"): (0.875, 0.496, 0.104, -1.170),
    ("many", "augmented"): (1.001, 0.748, 0.532, 0.298),
    ("many", "active"): (0.989, 0.895, 0.554, 0.368),
}


def test_published_returns_are_normalised():
    plain = [row for row in published.published() if not row.errors]
    assert {(row.annotations, row.method) for row in plain} == set(EXPECTED)
    for row in plain:
        got = [row.cells[world.name].normalised for world in published.WORLDS]
        np.testing.assert_allclose(got, EXPECTED[row.annotations, row.method], atol=1e-3)
    assert set(published.METHODS) < set(plans.METHODS)


def test_published_returns_are_normalised_as_ours_are():
    world = published.WORLDS[2]
    (row,) = (r for r in published.published() if (r.annotations, r.method) == ("10", "active"))
    ours = evaluate.normalised_return(580.21, world.source, world.behaviour)
    assert row.cells[world.name].normalised == pytest.approx(float(ours), rel=1e-6)


def test_rows_with_errors_are_of_the_worlds_that_report_them():
    rows = [row for row in published.published() if row.errors]
    assert len(rows) == 9 and {row.method for row in rows} == {"paired", "augmented"}
    for row in rows:
        assert row.cells["Shooting"].text and "HalfCheetah, low performance" not in row.cells
        last = float(row.errors.split()[-1])
        reported = {name for name, cell in row.cells.items() if cell.text}
        assert (reported == {"Shooting"}) == (last == 0.3 or row.errors == "transitions, 0.1")
