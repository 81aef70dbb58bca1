"""Rows of a benchmark, a line per setting."""

from benchmarks.kernels import Kernel
from benchmarks.side_by_side import side_by_side

ROWS = [
    {"cores": 1, "batch": 2, "by": "jaxsafe", "rate": 6.0, "ms": 1.0},
    {"cores": 1, "batch": 2, "by": "peer", "rate": 3.0, "ms": 2.0},
    {"cores": 2, "batch": 2, "by": "jaxsafe", "rate": 8.0, "ms": 0.5},
    {"cores": 2, "batch": 2, "by": "jaxsafe, 2 devices", "rate": 9.0, "ms": 0.4},
    {"cores": 2, "batch": 2, "by": "peer", "rate": 4.5, "ms": 1.5},
]
KERNEL = Kernel("per s", "batch", "by")


def test_a_setting_is_a_line_and_a_side_a_column():
    ratios = [("jaxsafe", "peer"), ("jaxsafe, 2 devices", "peer")]
    first, second = side_by_side(ROWS, KERNEL, ("cores", "batch"), ratios=ratios)
    columns = ["cores", "batch", "jaxsafe", "jaxsafe, 2 devices", "peer"]
    columns += ["jaxsafe / peer", "jaxsafe, 2 devices / peer"]
    assert list(first) == list(second) == columns
    assert list(first.values()) == [1, 2, 6.0, "", 3.0, "2", ""]
    assert list(second.values()) == [2, 2, 8.0, 9.0, 4.5, "1.78", "2"]


def test_another_column_than_the_rate_leaves_ratios_of_rates():
    ratios = [("jaxsafe", "peer")]
    (first, _) = side_by_side(ROWS, KERNEL, ("cores",), value="ms", ratios=ratios)
    assert (first["jaxsafe"], first["peer"], first["jaxsafe / peer"]) == (1.0, 2.0, "2")
