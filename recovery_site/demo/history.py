"""Fills the ledger with the merchants' past, as fast as it can be lived: from one thing that happens to the next.

Customers share nothing, so each day is lived by several groups of them at once, in processes of their own; between two
days reconciliation, the outbox and the merchants' people have their turn. A fill that was interrupted goes on where it
ended.
"""

import gc
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from multiprocessing import get_context
from typing import Any

from django.conf import settings
from django.db import connection, connections, transaction
from django.db.models import QuerySet

from invoices.models import Attempt, Event
from invoices.services.outbox import outbox_drain
from notifications.models import Message
from notifications.services.alert_delivery import alert_deliveries_drain
from notifications.services.mailing import Postman
from notifications.services.notes import notes_plan
from notifications.services.work import message_work
from notifications.states import MessageStatus
from providers.simulator.population import STORY, Delivery
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.errors import RecoveryError
from recovery_site.demo.cast import Cast, Player
from recovery_site.demo.delivery import CASES_PER_DAY, DAY, deliveries_of, signed
from recovery_site.demo.payers import Payers
from recovery_site.demo.staff import staff_day
from recovery_site.worker.lineage import die_with_parent
from retries.engine.drain import job_work
from retries.models import RetryJob
from retries.reconciliation import reconcile
from retries.states import JobStatus
from webhooks.models import InboxEvent
from webhooks.services import inbox_drain, inbox_receive

_EVERYTHING = 1_000_000
# Customers by the last digit of their id.
_GROUPS = ("02468ace", "13579bdf")
_LIBPQ = "PGOPTIONS"  # the driver's own variable, no setting of ours


class HistoryBroken(RecoveryError):
    """A webhook of the history could not be processed: what comes after it would make no sense."""

    code = "history_broken"


def newest_instant(cast: Cast) -> datetime:
    """The latest moment of the demo's clock that the ledger knows of; the clock never runs behind it."""
    rows = {InboxEvent: "received_at", Event: "occurred_at", Attempt: "attempted_at"}
    known = [
        model._default_manager.order_by("-pk").values_list(field, flat=True).first() for model, field in rows.items()
    ]
    return max((at for at in known if at is not None), default=cast.since)


def told_until(cast: Cast) -> datetime:
    """When the last webhook came in: what was to come after it has not been told yet."""
    newest = InboxEvent.objects.order_by("-pk").values_list("received_at", flat=True).first()
    return max(newest or cast.until, cast.since)


def history_fill(
    cast: Cast,
    *,
    processes: int,
    cases_per_day: float = CASES_PER_DAY,
    progress: Callable[[], object] = lambda: None,
) -> None:
    """Live from the last known moment to the end of the history; `progress` is called after each day.

    With one process everything happens in this one, in an order that depends on the seed alone.
    """
    resumed_at = newest_instant(cast)
    day = _start_of_day(cast, resumed_at)
    told: dict[tuple[datetime, str, str], list[Delivery]] = defaultdict(list)
    for group, delivery in _by_group(cast, day, cases_per_day):
        told[_start_of_day(cast, delivery.at), delivery.merchant, group].append(delivery)
    with _lanes(processes) as lanes:
        while day < cast.until:
            end = min(day + DAY, cast.until)
            lived = [
                lanes.submit(day_live, player, group, told[day, name, group], max(day, resumed_at), end)
                for name, player in cast.players.items()
                for group in _GROUPS
            ]
            for groups_day in lived:
                groups_day.result()
            reconcile(now=end, drain=True)
            told_of = [lanes.submit(outbox_drain, now=end, limit=_EVERYTHING) for _ in range(processes)]
            for drained in told_of:
                drained.result()
            notes_plan(now=end)
            alert_deliveries_drain(now=end, limit=_EVERYTHING)
            staff_day(cast, end)
            progress()
            day = end


def _start_of_day(cast: Cast, at: datetime) -> datetime:
    return cast.since + (at - cast.since) // DAY * DAY


def _by_group(cast: Cast, start: datetime, cases_per_day: float) -> Iterator[tuple[str, Delivery]]:
    """Each delivery from `start` on with the group of its customer.

    Refunds and disputes only name the charge, which may have been told before.
    """
    payers: dict[str, str] = {}
    known = max(cast.since, start - STORY)
    for delivery in deliveries_of(cast, start=known, end=cast.until, cases_per_day=cases_per_day):
        body = delivery.body
        subject = body.get("payment") or body.get("refund") or body.get("dispute") or {}
        charge = str(subject.get("charge_id", ""))
        if "customer" in body:
            payers[charge] = str(body["customer"]["id"])
        if delivery.at < start:
            continue
        customer = payers[charge]
        yield next(group for group in _GROUPS if customer[-1] in group), delivery


def day_live(player: Player, group: str, deliveries: Sequence[Delivery], start: datetime, end: datetime) -> None:
    """One day of a merchant's group of customers: whatever comes next, a webhook or a retry that is due, happens at its
    own time.

    What should have happened before `start` happens then: time does not go back for a day that was begun before.
    """
    ids = f"[{group}]$"
    ours: dict[str, Any] = {"merchant": player.merchant.pk, "ids": ids}
    waiting = iter(deliveries)
    delivery = next(waiting, None)
    payers = Payers(player.merchant.pk, start, ids)
    payers.look(now=start)
    with Postman() as postman:
        while True:
            times = {
                "webhook": delivery.at if delivery else None,
                "retry": _RETRY_AT.first(**ours),
                "message": _MESSAGE_AT.first(**ours),
                "payer": payers.next_at,
            }
            due = [(max(at, start), name) for name, at in times.items() if at is not None]
            at, what = min(due, key=lambda one: one[0], default=(end, ""))
            if at >= end:
                return
            if what == "webhook" and delivery is not None:
                _receive(player, delivery, at)
                delivery = next(waiting, None)
            elif what == "retry":
                for job_pk in _RETRIES_DUE.all(**ours, at=at):
                    job_work(job_pk, now=at)
            elif what == "message":
                if "sent" in [message_work(pk, postman, now=at) for pk in _MESSAGES_DUE.all(**ours, at=at)]:
                    payers.look(now=at)
            else:
                payers.act(now=at)


def _planned() -> QuerySet[Message]:
    """Messages of the group to look at when they are due."""
    return Message.objects.filter(
        merchant=Param("merchant"),
        status=MessageStatus.PLANNED,
        due_at__isnull=False,
        customer__connector_customer_id__regex=Param("ids"),
    ).order_by("due_at", "pk")


def _booked() -> QuerySet[RetryJob]:
    """Retries of the group that may be sent when they are due."""
    return RetryJob.objects.filter(
        merchant=Param("merchant"),
        status=JobStatus.SCHEDULED,
        merchant__charging_enabled=True,
        connection__enabled=True,
        connection__paused_reason="",
        customer__connector_customer_id__regex=Param("ids"),
    ).order_by("due_at", "pk")


_MESSAGE_AT = Compiled(lambda: _planned().values_list("due_at", flat=True)[:1])
_MESSAGES_DUE = Compiled(lambda: _planned().filter(due_at__lte=Param("at")).values_list("pk", flat=True))
_RETRY_AT = Compiled(lambda: _booked().values_list("due_at", flat=True)[:1])
_RETRIES_DUE = Compiled(lambda: _booked().filter(due_at__lte=Param("at")).values_list("pk", flat=True))


def _receive(player: Player, delivery: Delivery, now: datetime) -> None:
    """Receive and process one webhook at its time. In one transaction, so that no other merchant's process, whose clock
    shows another hour of the same day, can take it out of the common inbox."""
    with transaction.atomic():
        inbox_receive(
            endpoint=player.endpoint,
            request=signed(delivery, player),
            now=now,
            clock=time.time(),
            tolerance_seconds=settings.WEBHOOK_TOLERANCE_SECONDS,
        )
        counts = inbox_drain(now=now)
    if counts.failed:
        raise HistoryBroken(f"The history cannot go on: webhook {delivery.event_id} failed, the log above says why.")


@contextmanager
def _lanes(processes: int) -> Iterator[Executor]:
    """Where the days are lived: `processes` forks of this one with connections of their own, or this process.

    Nothing is lost that the next start would not fill in again, so no commit waits for the disk. A lane says the same
    few hundred statements over and over, so PostgreSQL keeps their plans: that spares it a third of its work.
    """
    kept, login = os.environ.get(_LIBPQ), connection.settings_dict
    options = login["OPTIONS"]
    os.environ[_LIBPQ] = f"{kept or ''} -c synchronous_commit=off".strip()
    connections.close_all()
    login["OPTIONS"] = {**options, "server_side_binding": True, "prepare_threshold": 3}
    try:
        if processes == 1:
            yield _Here()
        else:
            with ProcessPoolExecutor(processes, get_context("fork"), _lane_start) as pool:
                yield pool
    finally:
        connections.close_all()
        login["OPTIONS"] = options
        if kept is None:
            del os.environ[_LIBPQ]
        else:
            os.environ[_LIBPQ] = kept


def _lane_start() -> None:
    """A lane leaves Ctrl-C to its parent, which lets the day end, and does not outlive it."""
    gc.freeze()  # what was imported stays anyway, and is looked through no more
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(signal.SIGTERM)()


class _Here(Executor):
    """Runs what it is given at once."""

    def submit(self, function, /, *arguments, **named):  # type: ignore[no-untyped-def]
        done: Future[object] = Future()
        done.set_result(function(*arguments, **named))
        return done
