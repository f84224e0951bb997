"""The gate in front of each provider: rate limit, Retry-After and circuit breaker, shared by all workers.

Everything stands in one row per connection and every change is one statement under that row's lock, so that any number
of workers together keep a limit exactly. The row is the last lock anybody takes, and none is held during a call.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection as database
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Greatest

from invoices.models import Connection
from providers.base import ChargeResult, Outcome, ProviderUncertain
from recovery_site.common.db import for_no_key_update
from retries.breaker import BREATHER, Health, Trouble, after_probe_began, after_trouble
from retries.models import Outage, ProviderGate
from retries.selectors import calls_per_second, gate_bar

log = structlog.get_logger()
# Error names of the clients that say something about the provider and not about the charge.
_NO_CONNECTION, _TOO_MANY = "network_error", "rate_limit_exceeded"


@dataclass(frozen=True, slots=True)
class Passage:
    """One call may be made now. `probe`: it is the one that tries a provider which was down; `strained`: calls before
    it failed, so that an answer is news."""

    connection_pk: int
    probe: bool = False
    strained: bool = False


@dataclass(frozen=True, slots=True)
class Barred:
    """No call now; `until` is the earliest instant worth another look. `brief`: only the rate limit is in the way."""

    until: datetime
    why: str
    brief: bool = False


def gate_enter(account: Connection, *, now: datetime) -> Passage | Barred:
    """Ask for one call through a connection read with its gate.

    A passage has used up a call of the rate limit, and a probe keeps others out for a while.
    """
    gate: ProviderGate | None = getattr(account, "gate", None)
    if gate is not None and (bar := gate_bar(gate, now)) is not None:
        return Barred(*bar)
    probe = gate is not None and gate.shut_times > 0
    if probe:
        begun = after_probe_began(_health(gate), now).shut_until if gate is not None else None
        mine = ProviderGate.objects.filter(pk=account.pk, shut_times__gt=0, shut_until__lte=now)
        if not mine.update(shut_until=begun):
            return Barred(begun or now, "the provider is being tried by another call")
    rate = calls_per_second(account)
    if rate is not None and (wait := _take_call(account, rate)) is not None:
        return Barred(now + wait, "the connection's rate limit", brief=True)
    return Passage(account.pk, probe, strained=gate is not None and gate.strain > 0)


def gate_is_clear(account: Connection, now: datetime) -> bool:
    """Whether a connection read with its gate has nothing that counts its calls or watches its answers: no rate limit,
    no wait, and no trouble since its last good answer."""
    gate: ProviderGate | None = getattr(account, "gate", None)
    quiet = gate is None or (gate.strain == 0 and gate.shut_times == 0 and gate_bar(gate, now) is None)
    return quiet and calls_per_second(account) is None


# The bucket holds one second's worth of calls and at least one; `next_free_at` is when it would be full again. The
# clock is read before the row's lock is waited for, which can only refuse a call that might have been granted.
_TAKE = """
UPDATE retries_providergate gate
SET next_free_at = greatest(coalesce(gate.next_free_at, clock.at), clock.at) + %(step)s
FROM (SELECT clock_timestamp() AS at) clock
WHERE gate.connection_id = %(connection)s AND coalesce(gate.next_free_at, clock.at) <= clock.at + %(room)s
"""
_WAIT = """
SELECT greatest(next_free_at - clock_timestamp() - %(room)s, interval '0') FROM retries_providergate
WHERE connection_id = %(connection)s
"""


def _take_call(account: Connection, rate: float) -> timedelta | None:
    """Use up one call; None if there was one, else how long until the next."""
    values: dict[str, Any] = {
        "connection": account.pk,
        "step": timedelta(seconds=1 / rate),
        "room": timedelta(seconds=(max(1.0, rate) - 1) / rate),
    }
    with database.cursor() as cursor:
        cursor.execute(_TAKE, values)
        if cursor.rowcount:
            return None
        _ensure(account.pk, account.merchant_id)
        cursor.execute(_TAKE, values)
        if cursor.rowcount:
            return None
        cursor.execute(_WAIT, values)
        (wait,) = cursor.fetchone()
    return wait or timedelta()


def _ensure(connection_pk: int, merchant_pk: int) -> None:
    row = ProviderGate(connection_id=connection_pk, merchant_id=merchant_pk)
    ProviderGate.objects.bulk_create([row], ignore_conflicts=True)


def gate_leave(passage: Passage, *, now: datetime) -> None:
    """The call was not made after all: another one may try the provider."""
    if passage.probe:
        ProviderGate.objects.filter(pk=passage.connection_pk, shut_times__gt=0).update(shut_until=now)


def gate_note(passage: Passage, answer: ChargeResult | ProviderUncertain, *, now: datetime) -> None:
    """What a call says about its provider; writes nothing where nothing was and nothing is wrong."""
    if isinstance(answer, ProviderUncertain):
        _trouble(passage, Trouble.NO_ANSWER, answer.message, now)
    elif answer.outcome is Outcome.ERRORED and answer.error_code == _NO_CONNECTION:
        _trouble(passage, Trouble.NO_CONNECTION, "no connection", now)
    elif answer.outcome is Outcome.ERRORED and answer.error_code == _TOO_MANY:
        _asked_to_wait(passage.connection_pk, answer.retry_after or BREATHER, now)
        _answered(passage, now)
    elif not (answer.outcome is Outcome.ERRORED and answer.error_code == "unsent"):
        _answered(passage, now)


def gate_no_connection(passage: Passage, error: str, *, now: datetime) -> None:
    """A provider could not even be asked about an invoice."""
    _trouble(passage, Trouble.NO_CONNECTION, error, now)


def gate_answered(passage: Passage, *, now: datetime) -> None:
    """A provider that was only asked about an invoice gave an answer."""
    _answered(passage, now)


def _asked_to_wait(connection_pk: int, wait: timedelta, now: datetime) -> None:
    merchant_pk = Connection.objects.values_list("merchant_id", flat=True).get(pk=connection_pk)
    _ensure(connection_pk, merchant_pk)
    until = Greatest(Coalesce(F("asked_until"), now + wait), now + wait)
    ProviderGate.objects.filter(pk=connection_pk).update(asked_until=until)
    log.warning("provider_asks_to_wait", connection=connection_pk, seconds=wait.total_seconds())


def _health(gate: ProviderGate) -> Health:
    return Health(gate.strain, gate.strained_since, gate.shut_until, gate.shut_times)


def _trouble(passage: Passage, trouble: Trouble, error: str, now: datetime) -> None:
    merchant_pk = Connection.objects.values_list("merchant_id", flat=True).get(pk=passage.connection_pk)
    _ensure(passage.connection_pk, merchant_pk)
    with transaction.atomic():
        gate = for_no_key_update(ProviderGate.objects.filter(pk=passage.connection_pk)).get()
        before = _health(gate)
        after = after_trouble(before, trouble, now, probe=passage.probe)
        gate.strain, gate.strained_since = after.strain, after.strained_since
        gate.shut_until, gate.shut_times = after.shut_until, after.shut_times
        gate.last_error = error[:200]
        gate.save(update_fields=["strain", "strained_since", "shut_until", "shut_times", "last_error"])
        if after.on_trial and not before.on_trial:
            Outage.objects.get_or_create(
                connection_id=passage.connection_pk,
                ended_at=None,
                defaults={"merchant_id": merchant_pk, "began_at": after.strained_since or now, "error": error[:200]},
            )
    if after.shut_times > before.shut_times:
        log.warning("provider_down", connection=passage.connection_pk, times=after.shut_times, error=error[:200])


def _answered(passage: Passage, now: datetime) -> None:
    """The provider works, after calls that failed."""
    if not passage.strained:
        return
    strained = ProviderGate.objects.filter(pk=passage.connection_pk, strain__gt=0)
    healed = {"strain": 0, "strained_since": None, "shut_until": None, "shut_times": 0, "last_error": ""}
    if not strained.update(**healed):
        return
    if Outage.objects.filter(connection_id=passage.connection_pk, ended_at=None).update(ended_at=now):
        log.warning("provider_back", connection=passage.connection_pk)
