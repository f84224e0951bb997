"""Ports for the servers that tests start in processes of their own."""

from random import SystemRandom

from recovery_site.embedded.ports import is_free

# Below the embedded services' ports, and below those that the system hands out to outgoing connections: a port
# that the system itself names as free may be taken by any test's next connection before the server binds it.
_FIRST, _LAST = 10_000, 19_999


def free_port(*, run: int = 1) -> int:
    """The first of `run` successive loopback ports on which nothing listens."""
    while True:
        first = SystemRandom().randint(_FIRST, _LAST - run)
        if all(is_free(port) for port in range(first, first + run)):
            return first
