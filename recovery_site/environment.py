"""The one reader of environment variables: every wrong value becomes one sentence that says what to set."""

import re
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

import environ
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

from recovery_site.common.clock import ClockAnchor
from recovery_site.common.durations import parse_duration

_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
_REDIS_SCHEMES: Final = frozenset({"redis", "rediss"})
_WEB_SCHEMES: Final = frozenset({"http", "https"})
_HOST: Final = re.compile(r"\*|\.?[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]", re.ASCII | re.IGNORECASE)


class Env(environ.Env):
    """django-environ's parsers behind strict accessors.

    Differences that matter for secrets and for people: an empty variable counts as not set, a value that
    starts with `$` is taken as it is (django-environ would look up another variable), booleans must be spelt
    out, and no message repeats a value that may hold a password.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def text(self, name: str, default: str = "") -> str:
        """The stripped value, or `default` when the variable is absent or blank."""
        value = str(self.ENVIRON.get(name, "")).strip()
        return value or default

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise ImproperlyConfigured(f"{name} is {value!r}: set it to one of {', '.join(choices)}.")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.text(name, str(default)).lower()
        if value not in _TRUE | _FALSE:
            raise ImproperlyConfigured(f"{name} is {value!r}: set it to true or false.")
        return value in _TRUE

    def integer(self, name: str, default: int, *, minimum: int, maximum: int) -> int:
        value = self.text(name, str(default))
        if not re.fullmatch(r"-?[0-9]{1,12}", value, re.ASCII) or not minimum <= int(value) <= maximum:
            raise ImproperlyConfigured(f"{name} is {value!r}: set it to a whole number from {minimum} to {maximum}.")
        return int(value)

    def number(self, name: str, default: float, *, minimum: float, maximum: float) -> float:
        value = self.text(name, str(default))
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value, re.ASCII) or not minimum <= float(value) <= maximum:
            raise ImproperlyConfigured(f"{name} is {value!r}: set it to a number from {minimum} to {maximum}.")
        return float(value)

    def duration(self, name: str, default: str) -> timedelta:
        """A duration such as 30s, 5m, 1h; a bare integer is milliseconds, but only in RETRY_* variables."""
        try:
            return parse_duration(self.text(name, default), name=name, bare_milliseconds=name.startswith("RETRY_"))
        except ValueError as error:
            raise ImproperlyConfigured(str(error)) from None

    def clock_anchor(self, name: str) -> ClockAnchor | None:
        """`REAL/VIRTUAL`, two ISO 8601 times with zone: the instant at which the demo clock was set."""
        value = self.text(name)
        if not value:
            return None
        try:
            real, virtual = (datetime.fromisoformat(part.strip()) for part in value.split("/"))
            if real.tzinfo is None or virtual.tzinfo is None:
                raise ValueError("a time without zone")
            return ClockAnchor(real=real.astimezone(UTC), virtual=virtual.astimezone(UTC))
        except ValueError:
            raise ImproperlyConfigured(
                f"{name} is {value!r}: set it to two times like 2026-01-31T12:00:00Z/2026-01-01T00:00:00Z,"
                " the real one and the demo clock's, or unset it."
            ) from None

    def items(self, name: str) -> list[str]:
        """A comma list without blanks; empty when the variable is absent."""
        return [item.strip() for item in self.text(name).split(",") if item.strip()]

    def hosts(self, name: str, default: list[str]) -> list[str]:
        hosts = self.items(name) or default
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise ImproperlyConfigured(
                    f"{name} contains {host!r}: list bare host names separated by commas,"
                    " such as pay.example.com, without scheme, port or path."
                )
        return hosts

    def networks(self, name: str, default: list[str]) -> list[IPv4Network | IPv6Network]:
        """A comma list of IP networks or single addresses."""
        try:
            return [ip_network(item) for item in self.items(name) or default]
        except ValueError:
            raise ImproperlyConfigured(
                f"{name} is {self.text(name)!r}: list networks separated by commas, such as 10.1.0.0/16, 127.0.0.1."
            ) from None

    def fernet_keys(self, name: str, default: list[str]) -> list[str]:
        """Comma list of Fernet keys; the position of a bad key is named, never its text."""
        keys = self.items(name) or default
        for position, key in enumerate(keys, start=1):
            try:
                Fernet(key)
            except ValueError:
                raise ImproperlyConfigured(
                    f"{name}: key {position} is no Fernet key (32 bytes in url-safe base64)."
                    " .env.example shows the command that makes one."
                ) from None
        return keys

    def postgres(self, name: str, url: str) -> dict[str, Any]:
        """A Django database dictionary from a PostgreSQL URL."""
        try:
            config: dict[str, Any] = environ.Env.db_url_config(url)
        except ValueError:
            config = {}
        if not config.get("NAME") or config.get("ENGINE") != "django.db.backends.postgresql":
            raise ImproperlyConfigured(
                f"{name} is no PostgreSQL address: set it to postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
                " (percent-encode special characters in the password)."
            )
        return config

    def redis(self, name: str, url: str) -> str:
        """A checked Redis URL, always naming its database number."""
        try:
            parts = urlsplit(url)
            valid = parts.scheme in _REDIS_SCHEMES and parts.hostname and parts.port != 0
        except ValueError:
            valid = False
        if not valid or not re.fullmatch(r"/?[0-9]*", parts.path, re.ASCII):
            raise ImproperlyConfigured(
                f"{name} is no Redis address: set it to redis://:PASSWORD@HOST:PORT/0 (rediss:// for TLS)."
            )
        return parts._replace(path=f"/{parts.path.strip('/') or '0'}").geturl()

    def web_address(self, name: str, default: str, *, https_only: bool) -> str:
        """A public base address without a trailing slash."""
        value = self.text(name, default).rstrip("/")
        allowed = {"https"} if https_only else _WEB_SCHEMES
        try:
            parts = urlsplit(value)
            valid = (
                parts.scheme in allowed
                and bool(parts.hostname)
                and parts.port != 0
                and not (parts.path or parts.query or parts.fragment or parts.username)
            )
        except ValueError:
            valid = False
        if not valid:
            scheme = "https" if https_only else "http or https"
            raise ImproperlyConfigured(
                f"{name} is {value!r}: set it to the {scheme} address people reach this service at,"
                " such as https://recovery.example.com, without a path."
            )
        return value

    def mail(self, name: str, default: str) -> dict[str, Any]:
        """Django's EMAIL_* settings from a mail URL."""
        try:
            config: dict[str, Any] = environ.Env.email_url_config(self.text(name, default))
        except (ImproperlyConfigured, ValueError):
            config = {}
        backend = config.get("EMAIL_BACKEND", "")
        if not backend or (backend.endswith("smtp.EmailBackend") and not config.get("EMAIL_HOST")):
            raise ImproperlyConfigured(
                f"{name} is no mail address: set it to smtp+tls://USER:PASSWORD@HOST:587"
                " (or smtp+ssl://USER:PASSWORD@HOST:465)."
            )
        known = {key: value for key, value in config.items() if key.startswith("EMAIL_") and value}
        default_port = 465 if known.get("EMAIL_USE_SSL") else 587 if known.get("EMAIL_USE_TLS") else 25
        return {"EMAIL_PORT": default_port, **known}

    def demand(self, names: tuple[str, ...]) -> None:
        """Stop the start unless every one of `names` is set; all missing ones are told at once."""
        missing = [name for name in names if not self.text(name)]
        if missing:
            raise ImproperlyConfigured(
                f"ENVIRONMENT=production needs {', '.join(missing)}: set"
                f" {'it' if len(missing) == 1 else 'them'} in the environment; .env.example explains each."
            )
