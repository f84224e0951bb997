"""Whether this process should begin no new work: shared by a cluster's processes, readable from anywhere below.

A worker process cannot be told by a signal without interrupting the charge it is sending, so the cluster's main process
makes one shared byte before it forks and sets it when it is asked to stop.
"""

from multiprocessing.sharedctypes import RawValue

# Lock-free on purpose: a process killed while it holds a lock would block all others for good.
_requested = RawValue("b", 0)


def stop_request() -> None:
    """Ask every process that was forked from this one, and this one, to begin no new work."""
    _requested.value = 1


def stop_requested() -> bool:
    return bool(_requested.value)
