"""The published numbers beside ours: of scenarios and methods that there are, as they were read."""

from jaxsafe.envs.scenarios import SCENARIOS
from jaxsafe.m2td3 import published
from jaxsafe.m2td3.config import METHODS


def test_published_numbers_are_of_the_papers_scenarios():
    found = published.published()
    assert set(found) < set(SCENARIOS) and len(found) == 11
    assert set(published.METHODS) < set(METHODS)
    assert found["InvertedPendulum-2"]["m2td3"] == (356, 132, 613)
    assert found["Hopper-3"]["dr_td3"] == (210, 35, 1500)
    for cells in found.values():
        assert cells["rarl"].average is None


def test_published_numbers_carry_what_is_told_of_them():
    """Where M2TD3's worst case or DR's average is not the better one, by the source's own text."""
    found = published.published()
    worse = {k for k, v in found.items() if v["m2td3"].worst <= v["dr_td3"].worst}
    assert worse == {"HalfCheetah-3", "HumanoidStandup-2"}
    better = {k for k, v in found.items() if (v["m2td3"].average or 0) > (v["dr_td3"].average or 0)}
    assert better == {"Hopper-2", "HumanoidStandup-3", "Walker2d-2"}
    for cells in found.values():
        for cell in cells.values():
            assert cell.average is None or cell.worst < cell.average
