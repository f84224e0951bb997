"""Connections and customers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction

from accounts.models import Merchant
from invoices.models import Connection, Customer
from invoices.states import MODES_WE_CALL, ConnectionMode
from providers import registry
from providers.base import CustomerFacts
from providers.guide import Guide, Kind, settings_read
from recovery_site.common.crypto import encrypt_json
from recovery_site.common.db import fit, for_no_key_update
from recovery_site.common.errors import InvalidInput, NotFound


@transaction.atomic
def connection_create(*, merchant: Merchant, provider: str, config: Mapping[str, Any], name: str = "") -> Connection:
    """Create a connection from `{"mode", "take_over"}` and the settings of the provider's guide.

    `mode` is one of the guide's modes (default: its first); `take_over` is "at_once", "never" or a number of the
    biller's retries to wait for; `max_per_second` is the account's rate limit (none given: no limit of ours). Raises
    InvalidInput.
    """
    guide = registry.guide(provider)
    if not isinstance(config, Mapping):
        raise InvalidInput("The connection's config must be a JSON object.")
    values = dict(config)
    mode = _mode(guide, values.pop("mode", None) or guide.modes[0])
    take_over = _take_over(values.pop("take_over", "at_once"))
    rate = _rate(values.pop("max_per_second", None))
    settings_read(guide, values, complete=mode in MODES_WE_CALL)
    values = {key: value for key, value in values.items() if value not in (None, "")}
    base_url = str(values.get("base_url", ""))
    name = name or provider
    if Connection.objects.filter(merchant=merchant, provider=provider, name=name).exists():
        name = f"{name} {Connection.objects.filter(merchant=merchant, provider=provider).count() + 1}"
    connection = Connection(
        merchant=merchant,
        provider=provider,
        name=name,
        mode=mode,
        base_url=base_url,
        settings={
            **{key: value for key, value in values.items() if key != "base_url" and not _is_secret(guide, key)},
            **rate,
        },
        secrets_encrypted=encrypt_json({key: value for key, value in values.items() if _is_secret(guide, key)}),
        take_over_after=take_over,
    )
    if mode in MODES_WE_CALL:
        # Builds the client once, so that a config it cannot work with is refused here and not at the first charge.
        registry.client(provider, values)
    connection.save()
    return connection


def _mode(guide: Guide, mode: object) -> str:
    if not isinstance(mode, str) or mode not in ConnectionMode.values:
        raise InvalidInput(f"mode must be one of {', '.join(ConnectionMode.values)}, not {mode!r}.")
    # Where others can charge while this service watches, it can also tell them when.
    if mode not in guide.modes and not (mode == ConnectionMode.SCHEDULE and ConnectionMode.OBSERVE in guide.modes):
        raise InvalidInput(f"{guide.title} cannot be used in mode {mode}; use {' or '.join(guide.modes)}.")
    return mode


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
    Customer.objects.bulk_create(
        [
            Customer(
                merchant_id=connection.merchant_id,
                connection=connection,
                connector_customer_id=facts.id,
                first_seen_at=now,
            )
        ],
        ignore_conflicts=True,
    )
    return Customer.objects.values_list("pk", flat=True).get(connection=connection, connector_customer_id=facts.id)


def customer_lock(pk: int) -> Customer:
    """The first lock of every money operation."""
    customer = for_no_key_update(Customer.objects.filter(pk=pk)).first()
    if customer is None:
        raise NotFound("This customer does not exist.")
    return customer


def customer_describe(customer: Customer, facts: CustomerFacts) -> None:
    """Take over what the provider says about a locked customer; empty facts erase nothing."""
    changed = []
    for field in ("email", "name", "country", "timezone", "locale"):
        value = fit(Customer, field, getattr(facts, field))
        if value and value != getattr(customer, field):
            setattr(customer, field, value)
            changed.append(field)
    if changed:
        customer.save(update_fields=changed)


def connection_require(*, merchant: Merchant, public_id: str) -> Connection:
    """A merchant's connection by public id; NotFound also for another merchant's."""
    connection = Connection.objects.filter(merchant=merchant, public_id=public_id).first()
    if connection is None:
        raise NotFound(f"This merchant has no connection {public_id}; `connection create` prints its id.")
    return connection
