# SPDX-License-Identifier: Apache-2.0
"""Errors name the value and the fix."""

import pytest

from jaxsafe.core import checks
from jaxsafe.core.checks import UserError


def test_did_you_mean_offers_only_what_is_near():
    assert checks.did_you_mean("gama", ["gamma", "tau"]) == " Did you mean 'gamma'?"
    assert checks.did_you_mean("zzz", ["gamma", "tau"]) == ""


def test_check_choice():
    checks.check_choice("mode", "train", ["train", "eval"])
    message = r"^mode='trian' is unknown\. Did you mean 'train'\? Choose one of: train, eval\.$"
    with pytest.raises(UserError, match=message):
        checks.check_choice("mode", "trian", iter(["train", "eval"]))


@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_the_ends_of_a_range_belong_to_it(value):
    checks.check_range("x", value, 0, 1)


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (1.5, 0, 1, r"\[0, 1\]"),
        (-1, 0, None, r"\[0, inf\]"),
        (2, None, 1, r"\[-inf, 1\]"),
        (float("nan"), 0, 1, r"\[0, 1\]"),
    ],
)
def test_check_range_refuses(value, low, high, text):
    with pytest.raises(UserError, match=rf"^x={value} is out of range: give a value in {text}\.$"):
        checks.check_range("x", value, low, high)


def test_check_memory_names_size_and_fix(monkeypatch):
    monkeypatch.setattr(checks, "host_memory_bytes", lambda: 8 * 2**30)
    checks.check_memory("--replay=10", 4 * 2**30, "Lower it.")
    with pytest.raises(UserError, match=r"--replay=10 needs 5 GiB; .* 8\.0 GiB .* Lower it\."):
        checks.check_memory("--replay=10", 5 * 2**30, "Lower it.")


def test_host_memory_is_plausible():
    assert 2**26 < checks.host_memory_bytes() < 2**50
