"""What a person has to know and enter to connect an account, as data: the command, the form and the docs share it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from recovery_site.common.errors import InvalidInput

MAX_TEXT = 1000


class Kind(StrEnum):
    TEXT = "text"
    SECRET = "secret"  # noqa: S105  (a kind of field)
    URL = "url"
    SECONDS = "seconds"
    DAYS = "days"
    FLAG = "flag"
    CHOICE = "choice"
    CONNECTION = "connection"  # the id of another connection of the same merchant


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One field of a connection's config. `help` completes "It needs NAME: ..." in one clause."""

    name: str
    label: str
    help: str
    kind: Kind = Kind.TEXT
    required: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()
    least: float = 0.0
    most: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """`modes` in the order of preference; `events` are those to enable at the provider.

    `where` says where webhooks are set up there, `signed_with` what their secret is; empty without webhooks.
    """

    title: str
    modes: tuple[str, ...]
    settings: tuple[Setting, ...] = ()
    events: tuple[str, ...] = ()
    where: str = ""
    signed_with: str = ""

    def setting(self, name: str) -> Setting | None:
        return next((setting for setting in self.settings if setting.name == name), None)


def timeout(default: float, most: float) -> Setting:
    """The setting that every provider has: how long one call may take."""
    return Setting(
        name="timeout_seconds",
        label="Time-out in seconds",
        help="all that one call may take",
        kind=Kind.SECONDS,
        default=default,
        least=0.1,
        most=most,
    )


def api_key(help_: str, label: str = "API key") -> Setting:
    """The secret without which nothing can be charged."""
    return Setting(name="api_key", label=label, help=help_, kind=Kind.SECRET, required=True)


def another_address(example: str) -> Setting:
    """The setting of providers whose address is known."""
    return Setting(
        name="base_url",
        label="Another address",
        help=f"only for a proxy or an imitation, such as {example}",
        kind=Kind.URL,
    )


def charge_through() -> Setting:
    """The setting of billing systems that charge nothing without an invoice of theirs."""
    return Setting(
        name="gateway",
        label="Charge through",
        help="for mode charge the id of this merchant's gateway connection, con_...",
        kind=Kind.CONNECTION,
    )


def settings_read(guide: Guide, config: Mapping[str, Any], *, complete: bool = True) -> dict[str, Any]:
    """The values of a config with defaults filled in; empty texts count as not given.

    `complete`: fields that charging needs have to be there. Raises InvalidInput with one sentence that names every
    field that is missing or unknown, or the first that is wrong; values are never repeated.
    """
    known = {setting.name for setting in guide.settings}
    unknown = sorted(str(name) for name in config if name not in known)
    if unknown:
        names = ", ".join(repr(name[:40]) for name in unknown)
        raise InvalidInput(f"{guide.title} connections have no setting {names}; they know {_known(guide)}.")
    values = {setting.name: _value(guide, setting, config.get(setting.name)) for setting in guide.settings}
    missing = [setting for setting in guide.settings if complete and setting.required and values[setting.name] is None]
    if missing:
        wanted = "; ".join(f"{setting.name} ({setting.help})" for setting in missing)
        raise InvalidInput(f"The {guide.title} connection needs {wanted}.")
    return {
        setting.name: setting.default if values[setting.name] is None else values[setting.name]
        for setting in guide.settings
    }


def _known(guide: Guide) -> str:
    return ", ".join(("mode", "take_over", "max_per_second", *(setting.name for setting in guide.settings)))


def _value(guide: Guide, setting: Setting, given: object) -> Any:
    if given is None or given == "":
        return None
    wrong = _WRONG[setting.kind](setting, given)
    if wrong:
        raise InvalidInput(f"{setting.name} of the {guide.title} connection {wrong}.")
    return given.strip() if isinstance(given, str) else given


def _wrong_text(setting: Setting, given: object) -> str:
    if not isinstance(given, str) or not given.strip() or len(given) > MAX_TEXT or not given.strip().isprintable():
        return f"must be text of one line: {setting.help}"
    return ""


def _wrong_secret(setting: Setting, given: object) -> str:
    if _wrong_text(setting, given) or not isinstance(given, str) or not given.strip().isascii():
        return f"cannot be used: {setting.help}"
    return ""


def _wrong_url(setting: Setting, given: object) -> str:
    try:
        parts = urlsplit(given.strip() if isinstance(given, str) else "")
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        usable = usable and not (parts.query or parts.fragment) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    return "" if usable else f"is no address of an API: {setting.help}"


def _wrong_number(setting: Setting, given: object) -> str:
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not setting.least <= given <= setting.most:  # type: ignore[operator]
        return f"must be a number from {setting.least:g} to {setting.most:g}"
    return ""


def _wrong_flag(_setting: Setting, given: object) -> str:
    return "" if isinstance(given, bool) else "must be true or false"


def _wrong_choice(setting: Setting, given: object) -> str:
    return "" if given in setting.choices else f"must be one of {', '.join(setting.choices)}"


_WRONG = {
    Kind.TEXT: _wrong_text,
    Kind.SECRET: _wrong_secret,
    Kind.URL: _wrong_url,
    Kind.SECONDS: _wrong_number,
    Kind.DAYS: _wrong_number,
    Kind.FLAG: _wrong_flag,
    Kind.CHOICE: _wrong_choice,
    Kind.CONNECTION: _wrong_text,
}
