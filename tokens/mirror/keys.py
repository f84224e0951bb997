"""Names of a customer's three keys. They share a hash tag, so one customer lives on one slot of a Redis Cluster.

`customer:{<connection>:<customer>}:status|tokens|budget`. The provider chooses the customer's id, so it may hold
anything: what could end the hash tag or a part of the key is percent-encoded, and a long id is replaced by its hash.
"""

import hashlib
from dataclasses import dataclass
from urllib.parse import quote

_LONGEST_PART = 120
# Everything else is encoded, braces, colons, percent signs and white space among it.
_SAFE = "-_.~@+=/,!$*()"


@dataclass(frozen=True, slots=True)
class CustomerKeys:
    """`status`: who holds the slot. `tokens`: for people. `budget`: what the script reads."""

    status: str
    tokens: str
    budget: str


def customer_keys(connection: str, customer: str) -> CustomerKeys:
    """The keys of a customer (the provider's id) at a connection (our public id); no two customers share one."""
    root = f"customer:{{{key_part(connection)}:{key_part(customer)}}}"
    return CustomerKeys(f"{root}:status", f"{root}:tokens", f"{root}:budget")


def key_part(text: str) -> str:
    """`text` as ASCII without braces, colons or white space; `#` and a SHA-256 where that would be long.

    No encoded text begins with `#`, so a hash is never mistaken for an id.
    """
    encoded = quote(text, safe=_SAFE, errors="surrogatepass")
    if len(encoded) <= _LONGEST_PART:
        return encoded
    return "#" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
