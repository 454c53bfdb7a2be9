"""How long to wait before something is tried again."""

from collections.abc import Callable

MOST_DOUBLINGS = 20
"""More would only make large numbers: each wait has a longest one."""


def growing(first: float, longest: float, tried_again: int, jitter: Callable[[], float]) -> float:
    """The wait before the next try, in the unit of `first` and `longest`.

    It is `first` after the first try, and doubles with each further one up to `longest`. `jitter` gives 0 to
    1 and takes away up to a half, so that what failed together is not tried together.
    """
    return min(first * 2.0 ** min(tried_again, MOST_DOUBLINGS), longest) * (0.5 + jitter() / 2)
