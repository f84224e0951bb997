"""Public ids: a short prefix, then 26 characters whose order is the order of creation."""

import secrets
import time

# Crockford's base 32 in lower case: no i, l, o, u, so that an id can be read out on the telephone.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def public_id(prefix: str) -> str:
    """`prefix_` + 48 bits of milliseconds + 80 random bits, e.g. `inv_01k9zq...`."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    characters = [_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5)]
    return f"{prefix}_{''.join(characters)}"
