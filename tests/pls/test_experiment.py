# SPDX-License-Identifier: Apache-2.0
"""What cannot work is refused before anything is trained."""

import dataclasses

import pytest

from jaxsafe.core.checks import UserError
from jaxsafe.pls.experiment import PRESETS, validate_experiment
from tests.experiments import binaries

# Flags, and the whole line that refuses them.
REFUSED = [
    (
        ["--operation.draws=10"],
        r"operation\.draws=10 cannot show a frequency below search\.delta=0\.05: give at least 59",
    ),
    (
        ["--operation.draws=59", "--search.delta=0.01"],
        r"operation\.draws=59 .* search\.delta=0\.01: give at least 299",
    ),
    (
        ["--targets.seed_low=0.5", "--targets.seed_high=0.2"],
        r"targets\.seed_low=0\.5 is above targets\.seed_high=0\.2: give the least first",
    ),
    (
        ["--targets.side=49", "--targets.seed_low=0.13", "--targets.seed_high=0.14"],
        r"no point of targets\.side=49 lies in .*seed_low=0\.13.*seed_high=0\.14: widen",
    ),
    (["--operation.thresholds=5,inf"], r"operation\.thresholds holds inf: give finite values"),
    (["--targets.cost_reach=inf"], r"targets\.cost_reach holds inf: give finite values"),
    (["--preset=dsrl", "--dsrl.thresholds=inf"], r"dsrl\.thresholds holds inf: give finite"),
    (["--preset=dsrl", "--dsrl.belief.cost_sd=inf"], r"dsrl\.belief\.cost_sd holds inf"),
    (["--preset=dsrl", "--operation.draws=10"], r"operation\.draws=10 .*: give at least 29"),
    (
        ["--preset=dsrl", "--dsrl.filters.outliers=0.1"],
        r"dsrl\.filters\.threshold=none: outliers=0\.1 .* set it",
    ),
    (
        ["--preset=dsrl", "--dsrl.filters.epsilon=-0.5"],
        r"dsrl\.filters\.threshold=none: .*epsilon=-0\.5 .* set it",
    ),
    (
        ["--preset=dsrl", "--dsrl.filters.outliers=0.1", "--dsrl.filters.threshold=0.5"],
        r"dsrl\.filters\.threshold=0\.5 is out of range",
    ),
]


def test_what_would_fail_later_is_one_line_and_exit_code_2(tmp_path):
    cases = [[*given, f"--out={tmp_path / 'run'}", "--only_check_args"] for given, _ in REFUSED]
    patterns = [pattern for _, pattern in REFUSED]
    binaries.assert_refused("experiments.pls", cases, patterns, tmp_path)


def test_draws_matter_only_where_alpha_is_calibrated_with_them():
    few = dataclasses.replace(PRESETS["demo"].operation, draws=1)
    demo = dataclasses.replace(PRESETS["demo"], operation=few)
    with pytest.raises(UserError, match="draws"):
        validate_experiment(demo)
    given = dataclasses.replace(demo.search, alpha_value=3.0)
    other = dataclasses.replace(few, methods=("naive", "pls"))
    for sound in ({"search": given}, {"operation": other}):
        validate_experiment(dataclasses.replace(demo, **sound))
    validate_experiment(dataclasses.replace(PRESETS["paper"], operation=few))
    naive = dataclasses.replace(PRESETS["dsrl"].dsrl, methods=("naive",))
    validate_experiment(dataclasses.replace(PRESETS["dsrl"], dsrl=naive, operation=few))


def test_one_point_of_the_grid_is_a_seed_set():
    """12 / 48 is a quarter."""
    targets = dataclasses.replace(PRESETS["demo"].targets, side=49, seed_low=0.25, seed_high=0.25)
    validate_experiment(dataclasses.replace(PRESETS["demo"], targets=targets))
