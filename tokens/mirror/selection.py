"""Which token when: Redis's answer, or PostgreSQL's where Redis has none. It ranks; it permits nothing.

A charge is permitted by step 2 of the charge protocol alone, which counts in PostgreSQL under locks.
"""

import time
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import structlog
from django.conf import settings
from redis.exceptions import ResponseError

from invoices.models import Customer
from tokens.mirror import client
from tokens.mirror.keys import customer_keys
from tokens.mirror.packing import NotPackable, Question, Reply, pack_question, unpack_ranking
from tokens.mirror.slots import slot_keeper
from tokens.mirror.writing import mirror_customer
from tokens.models import Card
from tokens.rules import RuleOverride
from tokens.selectors import card_horizon, merchant_limits, token_options

log = structlog.get_logger()
LOCKED_TEXT = "Customer is already locked by another process."
_LIMITS_SECONDS = 5.0
_limits: dict[int, tuple[float, tuple[RuleOverride, ...]]] = {}


class Answer(StrEnum):
    """`dead`: there are tokens, but no machine may charge any of them."""

    RANKED = "ranked"
    LOCKED = "locked"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class RankedToken:
    """A token that may be charged from `allowed_at` on."""

    pk: int
    allowed_at: datetime


@dataclass(frozen=True, slots=True)
class Selection:
    """`tokens` best first; RANKED without any means that the customer has no payment method at all.

    `locked_by`: the transaction that holds the slot. `warm`: Redis answered.
    """

    answer: Answer
    tokens: tuple[RankedToken, ...] = ()
    locked_by: str = ""
    warm: bool = False

    @property
    def text(self) -> str:
        """For people; empty if tokens are ranked."""
        return {Answer.LOCKED: LOCKED_TEXT, Answer.DEAD: "No payment method of this customer may be charged."}.get(
            self.answer, ""
        )


def tokens_select(
    *,
    customer: Customer,
    owner: str,
    invoice_pk: int,
    amount_minor: int,
    currency: str,
    not_before: datetime,
) -> Selection:
    """Rank the customer's tokens for a charge by `owner` (a transaction's public id), one round trip when warm.

    Needs `customer.connection`. Call it with no transaction open. Where Redis holds nothing, or nothing readable, it
    is written again from PostgreSQL, whose answer this then is.
    """
    question = Question(
        owner=owner,
        not_before=not_before,
        amount_minor=amount_minor,
        currency=currency,
        invoice_pk=invoice_pk,
        visa_limit=settings.VISA_RETRY_LIMIT,
        limits=_limits_now(customer.merchant_id),
    )
    found = _ask(customer, question)
    if found is not None:
        return found
    return selection_read(
        customer=customer,
        owner=owner,
        invoice_pk=invoice_pk,
        amount_minor=amount_minor,
        currency=currency,
        not_before=not_before,
    )


def _ask(customer: Customer, question: Question) -> Selection | None:
    keys = customer_keys(customer.connection.public_id, customer.connector_customer_id)
    try:
        request = pack_question(question, card_horizon())
    except NotPackable:
        return None
    reply = client.call(client.SELECT, [keys.status, keys.budget], request)
    if reply is None:
        return None
    kind = Reply.UNREADABLE if isinstance(reply, ResponseError) else Reply(chr(reply[0]))
    match kind:
        case Reply.ALL | Reply.RANKED:
            ranked = unpack_ranking(reply, question.not_before)
            return Selection(Answer.RANKED, tuple(RankedToken(*one) for one in ranked), warm=True)
        case Reply.LOCKED:
            return Selection(Answer.LOCKED, locked_by=reply[1:].decode(), warm=True)
        case Reply.DEAD:
            return Selection(Answer.DEAD, warm=True)
        case Reply.SHORT:
            client.count("short")
        case Reply.COLD:
            client.count("cold")
            mirror_customer(customer.pk)
        case Reply.UNREADABLE:
            client.count("unreadable")
            log.warning("mirror_unreadable", key=keys.budget, customer=customer.pk)
            client.forget([keys.status, keys.budget])
            mirror_customer(customer.pk)
    return None


def _limits_now(merchant_pk: int) -> tuple[RuleOverride, ...]:
    """The merchant's own limits, a few seconds old at most: a ranking may be that old, a permission may not."""
    kept = _limits.get(merchant_pk)
    if kept is None or time.monotonic() - kept[0] > _LIMITS_SECONDS:
        kept = _limits[merchant_pk] = (time.monotonic(), merchant_limits(merchant_pk))
    return kept[1]


def selection_read(
    *,
    customer: Customer,
    owner: str,
    invoice_pk: int,
    amount_minor: int,
    currency: str,
    not_before: datetime,
) -> Selection:
    """The same from PostgreSQL, without a lock."""
    holder = slot_keeper().holder(customer.pk)
    if holder is not None and holder.owner != owner:
        return Selection(Answer.LOCKED, locked_by=holder.owner)
    groups = Card.objects.filter(tokens__customer=customer).values("budget_group")
    options = token_options(
        customer=customer,
        cards=list(Card.objects.filter(budget_group__in=groups).order_by("pk")),
        invoice_pk=invoice_pk,
        amount_minor=amount_minor,
        currency=currency,
        not_before=not_before,
    )
    usable = tuple(RankedToken(option.pk, option.allowed_at) for option in options if option.usable)
    return Selection(Answer.DEAD if options and not usable else Answer.RANKED, usable)
