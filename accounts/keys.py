"""API keys as text: made once, shown once, kept only as a hash. Pure but for the randomness."""

import hashlib
import secrets
from dataclasses import dataclass, field

_MARK = "rk"
_PREFIX_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PREFIX_LENGTH = 10


@dataclass(frozen=True, slots=True)
class PlainKey:
    """`text` is `rk_<prefix>_<secret>` with 256 random bits in the secret; only `prefix` may be shown or logged."""

    prefix: str
    text: str = field(repr=False)


def key_generate() -> PlainKey:
    prefix = "".join(secrets.choice(_PREFIX_ALPHABET) for _ in range(_PREFIX_LENGTH))
    return PlainKey(prefix, f"{_MARK}_{prefix}_{secrets.token_hex(32)}")


def key_prefix(text: str) -> str:
    """The prefix of something that looks like one of our keys, or an empty text."""
    mark, _, rest = text.partition("_")
    prefix, _, secret = rest.partition("_")
    return prefix if mark == _MARK and prefix and secret and len(prefix) <= 16 else ""


def key_hash(text: str) -> str:
    """SHA-256 (hex) of the whole key: 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(text.encode()).hexdigest()
