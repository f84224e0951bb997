"""No process outlives the one that started it: a worker that nobody supervises could not be stopped."""

import ctypes
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with_parent(number: int = signal.SIGTERM) -> Callable[[], None]:
    """A function for the child's side of a fork: the kernel sends signal `number` when the parent is gone.

    Linux only; elsewhere it does nothing, and a killed parent leaves its children to be found by their process group.
    """
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork: afterwards as little as possible
    return lambda: prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
