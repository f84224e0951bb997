"""Which addresses people may have something posted to. Whoever enters a URL could otherwise reach what only this
machine can: metadata services, databases, the admin of a router (server-side request forgery).

A name is resolved once per request, every address it has is checked, and the request goes to a checked address: there
is no second look-up that a changed DNS record could win. Redirects are not followed (outward.py).
"""

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings

from recovery_site.common.errors import InvalidInput, RecoveryError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_PORTS: Final = {"https": 443, "http": 80}
_MAX_URL = 500
# An IPv4 address inside an IPv6 one is reached by a translator, so it must be allowed itself.
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_NEVER: Final = tuple(
    ipaddress.ip_network(network)
    for network in ("fec0::/10", "64:ff9b:1::/48", "192.0.0.0/24", "192.88.99.0/24", "2001::/23")
)


class TargetRefused(RecoveryError):
    """The address is one that nothing is sent to."""

    code = "target_refused"


class TargetUnknown(RecoveryError):
    """The name has no address now."""

    code = "target_unknown"
    retryable = True


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL points to: `host` as it stands in the certificate, `path` with its query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def host_header(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _PORTS[self.scheme] else f"{name}:{self.port}"


def target_of(url: str) -> Target:
    """The parts of a URL that people typed in. Raises InvalidInput for one that could not be meant: another scheme, a
    password in it, a fragment, blanks."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput("This is no web address; write it like https://example.com/path.") from error
    if len(url) > _MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput(f"A web address has at most {_MAX_URL} printable ASCII characters and no blanks.")
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        raise InvalidInput("Give an https address with a host name, like https://example.com/path.")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidInput("The address must not hold a user name, a password or a fragment.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], path)


def url_check(url: str) -> Target:
    """What can be told of a URL without DNS, when it is entered. Raises InvalidInput, TargetRefused."""
    target = target_of(url)
    try:
        literal = ipaddress.ip_address(target.host)
    except ValueError:
        if not settings.PRIVATE_TARGETS and (target.scheme != "https" or "." not in target.host):
            raise InvalidInput("Give an https address with a full host name.") from None
        return target
    _check(target, [literal])
    return target


def resolve(target: Target) -> list[str]:
    """Every address of the target, all of them allowed. Raises TargetRefused, TargetUnknown."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TargetUnknown(f"{target.host} has no address: check its DNS record.") from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    _check(target, addresses)
    return [str(address) for address in dict.fromkeys(addresses)]


def _check(target: Target, addresses: Iterable[Address]) -> None:
    """One forbidden address is enough: which one a connection would take is not ours to decide. Only what the operator
    has allowed by name may be private, or be spoken to in the clear."""
    allowed: list[Network] = settings.PRIVATE_TARGETS
    for address in addresses:
        if any(address in network for network in allowed):
            continue
        if not is_public(address):
            raise TargetRefused(
                f"{target.host} leads into a private network, where nothing is sent: use a public address, or have the"
                " operator allow its network in PRIVATE_TARGETS."
            )
        if target.scheme == "http":
            raise TargetRefused("What leaves this service is encrypted: use an https address.")


def is_public(address: Address) -> bool:
    """True for addresses of the public internet, seen through every way of writing an IPv4 address in IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    if address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    return address.is_global and not any(address in network for network in _NEVER)
