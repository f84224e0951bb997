"""Which addresses a webhook may be sent to. Anybody who may enter a URL could otherwise reach what only this machine
can: metadata services, databases, the admin of a router (server-side request forgery).

A name is resolved once per try, every address it has is checked, and the request goes to a checked address: there is no
second look-up that a changed DNS record could win. Redirects are not followed (sending.py).
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
    """The address is one that webhooks are not sent to."""

    code = "target_refused"


class TargetUnknown(RecoveryError):
    """The name has no address now."""

    code = "target_unknown"
    retryable = True


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL points to; `host` as it stands in the certificate, `path` with its query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def host_header(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _PORTS[self.scheme] else f"{name}:{self.port}"


def target_of(url: str) -> Target:
    """The parts of a webhook URL. Raises InvalidInput for one that could not be meant: another scheme, a password in
    it, a fragment, blanks."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput("This is no web address; write it like https://example.com/webhooks.") from error
    if len(url) > _MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput(f"A webhook address has at most {_MAX_URL} printable ASCII characters and no blanks.")
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        raise InvalidInput("A webhook address starts with https:// and a host, like https://example.com/webhooks.")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidInput("A webhook address has no user, password or fragment; the signature says who sends.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], path)


def url_check(url: str) -> Target:
    """What can be told of a URL without DNS, when it is entered. Raises InvalidInput, TargetRefused."""
    target = target_of(url)
    try:
        literal = ipaddress.ip_address(target.host)
    except ValueError:
        return target
    _check(target, [literal])
    return target


def resolve(target: Target) -> list[Address]:
    """Every address of the target, all of them allowed. Raises TargetRefused, TargetUnknown."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TargetUnknown(f"{target.host} has no address: check its DNS record.") from error
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    _check(target, addresses)
    return list(dict.fromkeys(addresses))


def _check(target: Target, addresses: Iterable[Address]) -> None:
    """One forbidden address is enough: which one a connection would take is not ours to decide."""
    allowed: list[Network] = settings.WEBHOOK_OUT_PRIVATE_TARGETS
    for address in addresses:
        listed = any(address in network for network in allowed)
        if not listed and not is_public(address):
            raise TargetRefused(
                f"{target.host} is {address}, which is not a public address: use a public one, or have the operator"
                " allow its network in WEBHOOK_OUT_PRIVATE_TARGETS."
            )
        if not listed and target.scheme == "http" and settings.PRODUCTION:
            raise TargetRefused("Webhooks leave this service encrypted: use an https address.")


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
