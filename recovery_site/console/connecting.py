"""Connecting an account: a provider's guide as a form, and how far a connection has come."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.urls import reverse

from accounts.models import Merchant
from invoices.models import Connection
from invoices.states import ConnectionMode
from providers import registry
from providers.guide import Guide, Kind, Setting
from recovery_site.common.errors import InvalidInput
from recovery_site.common.targets import resolve, url_check
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.selectors import Arrivals, connection_endpoint, endpoint_arrivals
from webhooks.services import endpoint_has_secret

# Its one setting names a file of this machine, which is nobody's to choose in a browser.
_NOT_HERE = frozenset({"simulator"})
_NUMBERS = frozenset({Kind.SECONDS, Kind.DAYS})
_MOST_RETRIES = 8
_MODES: Mapping[str, str] = {
    ConnectionMode.CHARGE: "This service charges",
    ConnectionMode.COLLECT: "The billing system collects when this service says so",
    ConnectionMode.OBSERVE: "Nothing: this service only watches",
    ConnectionMode.SCHEDULE: "The merchant's own systems, when this service says so",
}


@dataclass(frozen=True, slots=True)
class Offer:
    """A provider that can be connected in the browser."""

    name: str
    title: str
    roads: str


def offers() -> list[Offer]:
    """The providers on offer, as the registry orders them; the sandbox is no account of anybody's in production."""
    hidden = _NOT_HERE | ({"sandbox"} if settings.PRODUCTION else set())
    return [
        Offer(name, one.title, _roads(registry.guide(name)))
        for name, one in registry.PROVIDERS.items()
        if name not in hidden
    ]


def offered(name: str) -> bool:
    """Whether a provider may be connected in the browser."""
    return any(offer.name == name for offer in offers())


def _roads(guide: Guide) -> str:
    if ConnectionMode.COLLECT in guide.modes:
        return "Collects its invoices when told to"
    return "Is charged" if ConnectionMode.CHARGE in guide.modes else "Is only watched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of the form. `value` is what was typed before; secrets are never shown again."""

    name: str
    label: str
    help: str
    kind: str
    needed: bool = False
    value: str = ""
    choices: tuple[tuple[str, str], ...] = ()

    @property
    def secret(self) -> bool:
        return self.kind == Kind.SECRET


class ConnectForm:
    """The guide's settings and this house's own, as fields; what was typed, as the config of `connection_create`."""

    def __init__(self, guide: Guide, merchant: Merchant, typed: Mapping[str, str]) -> None:
        self.guide, self._merchant, self._typed = guide, merchant, typed

    @property
    def name(self) -> Field:
        text = f"shown to people; {self.guide.title.lower()} if left empty"
        return self._field(Setting(name="name", label="Name", help=text))

    @property
    def mode(self) -> Field:
        shown = [*self.guide.modes]
        if ConnectionMode.OBSERVE in shown:
            shown.append(ConnectionMode.SCHEDULE)
        choices = tuple((mode, _MODES[mode]) for mode in shown)
        return self._choice("mode", "Who takes the money", "can be chosen once only", choices)

    @property
    def fields(self) -> list[Field]:
        """What charging needs first."""
        return [self._field(setting) for setting in self.guide.settings if setting.required]

    @property
    def more(self) -> list[Field]:
        """What has a default or is seldom needed."""
        rate = Setting(
            name="max_per_second",
            label="Calls per second",
            help="the account's rate limit; no limit if left empty",
            kind=Kind.SECONDS,
        )
        optional = [self._field(setting) for setting in self.guide.settings if not setting.required]
        return [*optional, self._take_over(), self._field(rate)]

    def _take_over(self) -> Field:
        many = tuple((str(count), f"After {count} of them") for count in range(1, _MOST_RETRIES + 1))
        choices = (("at_once", "At the first failure"), *many, ("never", "Never"))
        return self._choice("take_over", "When to take over from the provider's own retries", "", choices)

    def _choice(self, name: str, label: str, text: str, choices: tuple[tuple[str, str], ...]) -> Field:
        typed = self._typed.get(name, "")
        return Field(name=name, label=label, help=text, kind=Kind.CHOICE, value=typed or choices[0][0], choices=choices)

    def _field(self, setting: Setting) -> Field:
        choices = tuple((choice, choice) for choice in setting.choices)
        if setting.kind is Kind.CONNECTION:
            choices = (("", "No other connection"), *self._gateways())
        elif setting.kind is Kind.CHOICE and setting.default is None:
            choices = (("", "Choose"), *choices)
        default = f"{setting.default:g}" if isinstance(setting.default, float) else setting.default or ""
        return Field(
            name=setting.name,
            label=setting.label,
            help=setting.help,
            kind=Kind.CHOICE if setting.kind is Kind.CONNECTION else setting.kind,
            needed=setting.required,
            value="" if setting.kind is Kind.SECRET else self._typed.get(setting.name, default),
            choices=choices,
        )

    def _gateways(self) -> list[tuple[str, str]]:
        watching = Connection.objects.filter(merchant=self._merchant, mode=ConnectionMode.OBSERVE).order_by("name")
        return [(one.public_id, str(one)) for one in watching if registry.charges(one.provider)]

    def config(self) -> dict[str, Any]:
        """Raises InvalidInput, TargetRefused or TargetUnknown for an address that this server must not ask."""
        config: dict[str, Any] = {"mode": self.mode.value, "take_over": self._given_take_over()}
        for setting in self.guide.settings:
            given = self._given(setting)
            if given not in (None, ""):
                config[setting.name] = given
            if setting.kind is Kind.URL and given and given != setting.default:
                resolve(url_check(str(given)))
        rate = _number(self._typed.get("max_per_second", "").strip())
        return config if rate is None else {**config, "max_per_second": rate}

    def _given_take_over(self) -> str | int:
        typed = self._typed.get("take_over", "at_once")
        return int(typed) if typed.isascii() and typed.isdigit() and len(typed) < 4 else typed

    def _given(self, setting: Setting) -> Any:
        if setting.kind is Kind.FLAG:
            return True if setting.name in self._typed else None
        typed = self._typed.get(setting.name, "").strip()
        return _number(typed) if setting.kind in _NUMBERS else typed


def _number(typed: str) -> Any:
    """The number that was typed, None for nothing, else the text, which the settings' own check refuses."""
    if not typed:
        return None
    try:
        return float(typed)
    except ValueError:
        return typed


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a connection has come. `sends`: its provider has webhooks; `url`: where they go, empty if nowhere yet."""

    guide: Guide
    can_check: bool
    secrets: tuple[Field, ...]
    sends: bool
    shown: tuple[tuple[str, str], ...]
    url: str
    secret: bool
    arrivals: Arrivals

    @property
    def event(self) -> InboxEvent | None:
        return self.arrivals.first or self.arrivals.newest


def standing(connection: Connection) -> Standing:
    """What is there already; nothing is made by looking at it."""
    guide, endpoint = registry.guide(connection.provider), connection_endpoint(connection)
    form = ConnectForm(guide, connection.merchant, {})
    return Standing(
        guide=guide,
        can_check=registry.charges(connection.provider),
        secrets=tuple(field for field in (*form.fields, *form.more) if field.secret),
        sends=bool(registry.provider(connection.provider).dialect),
        shown=tuple(_shown(guide, connection)),
        url=_url(endpoint) if endpoint is not None else "",
        secret=endpoint is not None and endpoint_has_secret(endpoint),
        arrivals=endpoint_arrivals(endpoint) if endpoint is not None else Arrivals(None, None),
    )


def _url(endpoint: WebhookEndpoint) -> str:
    return settings.PUBLIC_URL + reverse("webhook-receive", args=[endpoint.provider, endpoint.uuid])


def _shown(guide: Guide, connection: Connection) -> list[tuple[str, str]]:
    """The settings that are no secret, by their labels."""
    values = {**connection.settings, **({"base_url": connection.base_url} if connection.base_url else {})}
    labelled = [(one.label, str(values[one.name])) for one in guide.settings if one.name in values]
    rate = values.get("max_per_second")
    return labelled if rate is None else [*labelled, ("Calls per second", f"{rate:g}")]


def guide_of(name: str) -> Guide:
    """The guide of a provider on offer. Raises InvalidInput."""
    if not offered(name):
        raise InvalidInput("This provider cannot be connected here.")
    return registry.guide(name)
