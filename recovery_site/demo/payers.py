"""The merchants' customers, as far as messages reach them: some open the link, some mend what is wrong, few object.

What a customer does follows from their id and the message alone, so that the same history is lived each time.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b

import structlog
from django.db import connections

from notifications.hosted.state import View, payer_find
from notifications.links import link_token
from notifications.models import Message
from notifications.reports import Report, Told
from notifications.services.payers import page_opened, payer_chooses_card, payer_confirms, payer_pays
from notifications.services.reports import report_apply
from notifications.services.suppressions import address_suppress
from notifications.states import MESSAGE_OUT, SuppressionReason
from providers.payer import TrialCard
from recovery_site.common import clock
from recovery_site.common.errors import RecoveryError

log = structlog.get_logger()
# Shares of the messages that arrive.
OPENS, MENDS, OBJECTS, BOUNCES = 0.38, 0.55, 0.02, 0.02
# Nobody answers a message after so long.
PATIENCE = timedelta(days=4)
_POLL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Reaction:
    """What one customer does about one message, and when."""

    at: datetime
    message_pk: int
    mends: bool
    objects: bool
    bounces: bool
    serial: str


def reaction_of(message: Message) -> Reaction | None:
    """The reaction to a message that was sent; None if there is none. Needs its customer."""
    if message.sent_at is None:
        return None
    name = f"{message.customer.connector_customer_id} {message.template} {message.step}"
    opens, mends, wait = (_share(f"{name} {what}") for what in ("opens", "mends", "wait"))
    bounces = _share(f"{message.customer.connector_customer_id} bounces") < BOUNCES
    if opens >= OPENS and not bounces:
        return None
    after = timedelta(minutes=1) if bounces else timedelta(minutes=20) + wait**2 * timedelta(hours=40)
    return Reaction(
        at=message.sent_at + after,
        message_pk=message.pk,
        mends=mends < MENDS,
        objects=mends >= 1 - OBJECTS,
        bounces=bounces,
        serial=_digest(name).hex()[:10],
    )


def react(reaction: Reaction, *, now: datetime) -> None:
    """The customer does it, by the services behind their page. What is refused is shown to them, and that is all."""
    message = Message.objects.select_related("link").get(pk=reaction.message_pk)
    if reaction.bounces:
        report_apply(report=Report(Told.BOUNCED, message.public_id, "5.1.1"), now=now)
        return
    payer = payer_find(link_token(message.link.public_id), now) if message.link else View.INVALID
    if isinstance(payer, View):
        return
    page_opened(link=payer.link, now=now)
    if reaction.objects:
        address_suppress(
            merchant_pk=message.merchant_id,
            address=message.address,
            reason=SuppressionReason.OPT_OUT,
            now=now,
            message=message,
        )
    if not reaction.mends or payer.view not in (View.PAYABLE, View.CARD):
        return
    try:
        if payer.must_confirm and payer.token is not None:
            payer_confirms(link=payer.link, token=payer.token, now=now)
        elif payer.may_pay and payer.view is View.PAYABLE and int(reaction.serial[0], 16) < 6:
            payer_pays(link=payer.link, now=now)
        else:
            payer_chooses_card(link=payer.link, card=TrialCard.OK, now=now, serial=reaction.serial)
    except RecoveryError as refused:
        log.info("demo_payer_refused", message=message.public_id, reason=refused.message)


class Payers:
    """The customers of one merchant whose ids fit a pattern. Each reacts to a message at most once.

    `since`: reactions before it have been lived, also those that left no trace, such as a look at a dead link.
    """

    def __init__(self, merchant_pk: int, since: datetime, ids: str = "") -> None:
        self._merchant_pk, self._since, self._ids = merchant_pk, since, ids
        self._done: set[int] = set()
        self._waiting: list[Reaction] = []

    @property
    def next_at(self) -> datetime | None:
        return self._waiting[0].at if self._waiting else None

    def look(self, *, now: datetime) -> None:
        """Find out whom messages have reached meanwhile."""
        messages = Message.objects.filter(
            merchant_id=self._merchant_pk,
            status__in=MESSAGE_OUT,
            sent_at__gt=now - PATIENCE,
            clicked_at=None,
            bounced_at=None,
            customer__connector_customer_id__regex=self._ids,
        ).exclude(pk__in=self._done)
        found = (reaction_of(message) for message in messages.select_related("customer"))
        self._waiting = sorted(
            (one for one in found if one and one.at >= self._since), key=lambda one: (one.at, one.message_pk)
        )

    def act(self, *, now: datetime) -> int:
        """Let everybody react whose time has come; returns how many did."""
        due = [one for one in self._waiting if one.at <= now]
        self._waiting = self._waiting[len(due) :]
        for reaction in due:
            self._done.add(reaction.message_pk)
            react(reaction, now=now)
        return len(due)


class LivePayers(threading.Thread):
    """Lets customers react when the demo's clock comes to it, until it is told to stop."""

    def __init__(self, merchant_pks: Sequence[int]) -> None:
        super().__init__(name="payers", daemon=True)
        self._payers = [Payers(merchant_pk, clock.now()) for merchant_pk in merchant_pks]
        self._stopped = threading.Event()

    def run(self) -> None:
        try:
            while not self._stopped.wait(_POLL_SECONDS):
                now = clock.now()
                for payers in self._payers:
                    payers.look(now=now)
                    payers.act(now=now)
        finally:
            connections.close_all()

    def stop(self) -> None:
        """Returns when the reaction that is under way is over."""
        self._stopped.set()
        if self.is_alive():
            self.join(10)


def _share(text: str) -> float:
    """Evenly spread over 0..1, the same in every process."""
    return int.from_bytes(_digest(text)) / 2**64


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=8).digest()
