"""Connections and customers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction

from accounts.models import Merchant
from invoices.models import Connection, Customer
from invoices.selectors.parties import connection_client, connection_config
from invoices.states import MODES_WE_CALL, ConnectionMode
from providers import registry
from providers.base import CustomerFacts
from providers.guide import Guide, Kind, settings_read
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.crypto import encrypt_json
from recovery_site.common.db import fit, for_no_key_update
from recovery_site.common.errors import InvalidInput, NotFound
from recovery_site.common.rows import row_insert, row_save

_CHECK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Draft:
    """A config that was found good: what a connection is made of."""

    guide: Guide
    mode: str
    take_over: int | None
    rate: Mapping[str, float]
    values: Mapping[str, Any] = field(repr=False)
    gateway: Connection | None


@transaction.atomic
def connection_create(*, merchant: Merchant, provider: str, config: Mapping[str, Any], name: str = "") -> Connection:
    """Create a connection from `{"mode", "take_over"}` and the settings of the provider's guide.

    `mode` is one of the guide's modes (default: its first); `take_over` is "at_once", "never" or a number of the
    biller's retries to wait for; `gateway` is the id of the connection through which a biller's invoices are charged;
    `max_per_second` is the account's rate limit (none given: no limit of ours). Raises InvalidInput.
    """
    draft = _draft(merchant, provider, config)
    name = fit(Connection, "name", name or provider)
    if Connection.objects.filter(merchant=merchant, provider=provider, name=name).exists():
        name = f"{name} {Connection.objects.filter(merchant=merchant, provider=provider).count() + 1}"
    kept, secret = _parted(draft.guide, draft.values)
    connection = Connection(
        merchant=merchant,
        provider=provider,
        name=name,
        mode=draft.mode,
        base_url=str(kept.pop("base_url", "")),
        settings={**kept, **draft.rate},
        secrets_encrypted=encrypt_json(secret),
        take_over_after=draft.take_over,
        gateway=draft.gateway,
    )
    connection.save()
    return connection


def connection_try(*, merchant: Merchant, provider: str, config: Mapping[str, Any]) -> str:
    """Prove a config by a harmless read before it is kept: what the provider answers, in words.

    Empty if there is nothing to ask with: a connection that only watches needs no credentials. No transaction may be
    open. Raises InvalidInput, ProviderUnavailable.
    """
    draft = _draft(merchant, provider, config)
    return _asked(provider, draft.guide, draft.values)


def connection_check(connection: Connection) -> str:
    """As `connection_try`, for a connection that is there; InvalidInput if there is nothing to ask with."""
    guide = registry.guide(connection.provider)
    answer = _asked(connection.provider, guide, connection_config(connection))
    if not answer:
        raise InvalidInput(f"This connection only listens to {guide.title}: it has no credentials to test.")
    return answer


def connection_rekey(*, connection: Connection, secrets: Mapping[str, Any]) -> str:
    """Replace credentials once the provider has accepted the new ones, whose answer is returned; a pause ends with it.

    `secrets` are settings that the guide calls secret. No transaction may be open. Raises InvalidInput,
    ProviderUnavailable.
    """
    guide = registry.guide(connection.provider)
    replaceable = {setting.name for setting in guide.settings if setting.kind is Kind.SECRET}
    if not secrets or not secrets.keys() <= replaceable:
        named = ", ".join(sorted(replaceable)) or "none"
        raise InvalidInput(f"Only secrets can be replaced; those of {guide.title} connections are: {named}.")
    values = {**connection_config(connection), **secrets}
    settings_read(guide, values, complete=connection.mode in MODES_WE_CALL)
    answer = _asked(connection.provider, guide, values)
    kept = encrypt_json(_parted(guide, values)[1])
    Connection.objects.filter(pk=connection.pk).update(secrets_encrypted=kept, paused_reason="")
    return answer


def _asked(provider: str, guide: Guide, values: Mapping[str, Any]) -> str:
    """The provider's answer to a harmless question, with a short time-out, for somebody waits. Empty: nothing to ask
    with."""
    if not registry.charges(provider) or any(one.required and not values.get(one.name) for one in guide.settings):
        return ""
    hurry = {}
    if (limit := guide.setting("timeout_seconds")) is not None:
        hurry["timeout_seconds"] = min(_CHECK_SECONDS, values.get("timeout_seconds") or limit.default)
    return registry.client(provider, {**values, **hurry}).check()


def _draft(merchant: Merchant, provider: str, config: Mapping[str, Any]) -> _Draft:
    guide = registry.guide(provider)
    if not isinstance(config, Mapping):
        raise InvalidInput("The connection's config must be a JSON object.")
    values = dict(config)
    mode = _mode(guide, values.pop("mode", None) or guide.modes[0])
    take_over = _take_over(values.pop("take_over", "at_once"))
    rate = _rate(values.pop("max_per_second", None))
    settings_read(guide, values, complete=mode in MODES_WE_CALL)
    values = {key: value for key, value in values.items() if value not in (None, "")}
    gateway = _gateway(merchant, guide, str(mode), values.pop("gateway", ""))
    if mode in MODES_WE_CALL:
        # Builds the client once, so that a config it cannot work with is refused here and not at the first charge.
        traits = registry.client(provider, values).traits
        if mode == ConnectionMode.CHARGE and gateway is None and not traits.charges:
            raise InvalidInput(
                f"{guide.title} charges only invoices of its own: use mode collect, or name the gateway connection that"
                " charges for it (gateway)."
            )
    return _Draft(guide, mode, take_over, rate, values, gateway)


def _parted(guide: Guide, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What may be shown, and what is encrypted."""
    secret = {name: value for name, value in values.items() if _is_secret(guide, name)}
    return {name: value for name, value in values.items() if name not in secret}, secret


def _mode(guide: Guide, mode: object) -> str:
    if not isinstance(mode, str) or mode not in ConnectionMode.values:
        raise InvalidInput(f"mode must be one of {', '.join(ConnectionMode.values)}, not {mode!r}.")
    # Where others can charge while this service watches, it can also tell them when.
    if mode not in guide.modes and not (mode == ConnectionMode.SCHEDULE and ConnectionMode.OBSERVE in guide.modes):
        raise InvalidInput(f"{guide.title} cannot be used in mode {mode}; use {' or '.join(guide.modes)}.")
    return mode


def _gateway(merchant: Merchant, guide: Guide, mode: str, named: str) -> Connection | None:
    """The account that charges for a biller. It only watches its own payments: else one debt would have two engines."""
    if not named:
        return None
    if mode != ConnectionMode.CHARGE:
        raise InvalidInput(f"gateway of the {guide.title} connection goes with mode charge only, not with {mode}.")
    found = Connection.objects.filter(merchant=merchant, public_id=named).first()
    if found is None:
        raise InvalidInput(f"This merchant has no connection {named[:40]!r} that could be the gateway.")
    if found.mode != ConnectionMode.OBSERVE:
        raise InvalidInput(
            f"The gateway connection {found} must be in mode observe: it charges for {guide.title}, nothing of its own."
        )
    if not registry.charges(found.provider):
        raise InvalidInput(f"The connection {found} cannot be the gateway: this service cannot charge through it.")
    if not connection_client(found).traits.charges:
        raise InvalidInput(f"The connection {found} cannot be the gateway: it charges only invoices of its own.")
    return found


def _is_secret(guide: Guide, key: str) -> bool:
    setting = guide.setting(key)
    return setting is None or setting.kind is Kind.SECRET


def _take_over(value: object) -> int | None:
    if value == "never":
        return None
    if value == "at_once":
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100:
        return value
    raise InvalidInput('take_over must be "at_once", "never" or the number of provider retries to wait for.')


def _rate(value: object) -> dict[str, float]:
    """`max_per_second` as it is kept beside the provider's settings; empty if there is none."""
    if value is None:
        return {}
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.01 <= value <= 10_000:
        raise InvalidInput("max_per_second must be a number of calls from 0.01 to 10000.")
    return {"max_per_second": value}


@transaction.atomic
def connection_switch(*, connection_pk: int, enabled: bool) -> None:
    """Enable or disable a connection; disabled ones are neither charged nor polled."""
    if not Connection.objects.filter(pk=connection_pk).update(enabled=enabled, paused_reason=""):
        raise NotFound("This connection does not exist.")


def connection_pause(*, connection_pk: int, reason: str) -> None:
    """Stop charging through a connection whose configuration the provider refuses."""
    Connection.objects.filter(pk=connection_pk, paused_reason="").update(paused_reason=reason[:500])


def connection_scanned(*, connection_pk: int, until: datetime) -> None:
    """Remember how far the provider's own list of payments was compared with ours."""
    Connection.objects.filter(pk=connection_pk).update(scanned_until=until)


def customer_ensure(*, connection: Connection, facts: CustomerFacts, now: datetime) -> int:
    """Primary key of the customer, created if new. Takes no lock on an existing row."""
    if not facts.id or len(facts.id) > 200:
        raise InvalidInput("A customer id must have 1 to 200 characters.")
    known = _KNOWN.first(connection=connection.pk, name=facts.id)
    if known is not None:
        return known
    customer = Customer(
        merchant_id=connection.merchant_id,
        connection=connection,
        connector_customer_id=facts.id,
        first_seen_at=now,
    )
    if row_insert(customer, unless_there=True):
        return customer.pk
    (pk,) = _KNOWN.all(connection=connection.pk, name=facts.id)
    return pk


_KNOWN = Compiled(
    lambda: Customer.objects.filter(connection=Param("connection"), connector_customer_id=Param("name")).values_list(
        "pk", flat=True
    )
)
_LOCKED = Compiled(lambda: for_no_key_update(Customer.objects.filter(pk=Param("pk"))))


def customer_lock(pk: int) -> Customer:
    """The first lock of every money operation."""
    customer = _LOCKED.first(pk=pk)
    if customer is None:
        raise NotFound("This customer does not exist.")
    return customer


def customer_describe(customer: Customer, facts: CustomerFacts) -> None:
    """Take over what the provider says about a locked customer; empty facts erase nothing."""
    changed = []
    for column in ("email", "name", "country", "timezone", "locale"):
        value = fit(Customer, column, getattr(facts, column))
        if value and value != getattr(customer, column):
            setattr(customer, column, value)
            changed.append(column)
    if changed:
        row_save(customer, *changed)


def connection_require(*, merchant: Merchant, public_id: str) -> Connection:
    """A merchant's connection by public id; NotFound also for another merchant's."""
    connection = Connection.objects.filter(merchant=merchant, public_id=public_id).first()
    if connection is None:
        raise NotFound(f"This merchant has no connection {public_id}; `connection create` prints its id.")
    return connection
