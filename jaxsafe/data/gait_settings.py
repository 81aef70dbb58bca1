# SPDX-License-Identifier: Apache-2.0
"""How the walkers of `gaits` are searched for by `gait_search`, robot by robot."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mirror:
    """How a robot's other half is the first one, mirrored.

    Attributes:
      swap: indices of the mirrored observations, `[O]`; once more gives the same again.
      flip: which of them change their signs.
      half: the actions of the first half; the others are the rest, in order.
      turned: which of the first half change their signs in the other, by place in `half`.
      together: whether both halves move at once, as in a bound; else half a turn apart.
    """

    swap: tuple[int, ...]
    half: tuple[int, ...]
    flip: tuple[int, ...] = ()
    turned: tuple[int, ...] = ()
    together: bool = False

    @property
    def rest(self) -> tuple[int, ...]:
        """The actions of the other half."""
        return tuple(i for i in range(2 * len(self.half)) if i not in self.half)


# Walker2d: the right leg's, then the left one's.
_WALKER = Mirror((0, 1, 5, 6, 7, 2, 3, 4, 8, 9, 10, 14, 15, 16, 11, 12, 13), half=(0, 1, 2))
# Ant, by the plane through its path: legs 1 to 4 stand counter-clockwise from the front left; a leg
# has a hip, which turns the other way on the other side, and an ankle. Actions begin with leg 4.
_ANT = Mirror(
    swap=(
        *(0, 1, 2, 3, 4, 11, 12, 9, 10, 7, 8, 5, 6),  # height, quaternion, joints of legs 1 to 4
        *(13, 14, 15, 16, 17, 18, 25, 26, 23, 24, 21, 22, 19, 20),  # their velocities
    ),
    flip=(2, 4, 5, 7, 9, 11, 14, 16, 18, 19, 21, 23, 25),
    half=(0, 1, 4, 5),  # legs 4 and 2, a diagonal
    turned=(0, 2),
    together=True,
)


@dataclasses.dataclass(frozen=True)
class Search:
    """How one robot's gait is searched for.

    Attributes:
      targets: forward speeds of the slow and the fast policy, in m/s.
      iterations: updates for each of them.
      horizon: control steps of an episode in each of the two searches.
      frequency: of the clock at the start, in Hz.
      directions: random ones in an update; two episodes each.
      top: of them, the best, which make the update.
      step: size of an update.
      noise: standard deviation of the directions.
      alive: reward per step for not having fallen, as a share of the target.
      order: which search comes first, 0 the slow one or 1 the fast one; the other starts from it.
      clock: factor on the clock and on 1 while searching, so that their weights grow faster.
      mirror: of a robot whose other half is assumed to be the first one, mirrored.
    """

    targets: tuple[float, float]
    iterations: tuple[int, int]
    horizon: tuple[int, int]
    frequency: float
    directions: int = 16
    top: int = 8
    step: float = 0.02
    noise: float = 0.03
    alive: float = 0.2
    order: tuple[int, int] = (0, 1)
    clock: float = 1.0
    mirror: Mirror | None = None


SEARCHES = {
    "HalfCheetah": Search((1.8, 5.0), (40, 60), (100, 100), 2.0),
    "Hopper": Search((0.5, 1.8), (20, 40), (300, 300), 2.0, order=(1, 0)),
    "Walker2d": Search(
        (1.2, 3.5), (20, 60), (300, 300), 2.5, order=(1, 0), clock=3.0, mirror=_WALKER
    ),
    "Ant": Search(
        (1.2, 4.5),
        (20, 150),
        (200, 200),
        2.0,
        directions=20,
        top=10,
        noise=0.025,
        alive=0.1,
        order=(1, 0),
        clock=3.0,
        mirror=_ANT,
    ),
}
