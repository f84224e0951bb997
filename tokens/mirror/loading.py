"""What PostgreSQL says about one customer, in the form Redis holds it."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from django.db import connection
from django.db.models import Max

from invoices.models import Attempt, Invoice
from invoices.states import AttemptStatus, TransactionKind
from tokens.budgets import AttemptMark
from tokens.mirror.keys import CustomerKeys, customer_keys
from tokens.mirror.packing import MAX_INVOICES, History, NotPackable, PackedToken, pack_history, pack_nothing
from tokens.models import Card, ImportedMark, Token
from tokens.rules import Key, load_rules
from tokens.selectors import (
    card_expires_at,
    card_horizon,
    mark_declined,
    mark_rows,
    tie_order,
    token_obstacle,
)
from tokens.states import TokenStatus

# Questions about yesterday are answered too.
_SLACK = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class CustomerImage:
    """The values of a customer's keys but the slot. `statuses`: JSON by public token id."""

    keys: CustomerKeys
    version: int
    statuses: Mapping[str, str]
    budget: bytes


def customer_image(customer_pk: int, *, now: datetime) -> CustomerImage | None:
    """Read one customer, without locks; None if there is no such customer.

    The version is taken first: whoever has a higher one has read what this one has read, or newer. `now` only
    bounds how far back history is read, should the newest attempt be dated in the future.
    """
    names = _names(customer_pk)
    if names is None:
        return None
    version, connection_id, customer_id = names
    tokens = list(Token.objects.filter(customer_id=customer_pk).select_related("card").order_by("pk"))
    groups = {token.card.budget_group for token in tokens}
    cards = list(Card.objects.filter(budget_group__in=groups).only("pk", "budget_group", "network"))
    since = _since(cards, now)
    columns = ("token_id", "raw_code", "category")
    rows = list(mark_rows([card.pk for card in cards], since, more=columns)) if since else []
    history = History(
        since=since,
        tokens=_packed(tokens),
        dead_tokens=sum(1 for token in tokens if token_obstacle(token, token.card)),
        marks=_marks(cards, rows),
        **_owed(customer_pk, tokens),
    )
    try:
        budget = pack_history(history, version)
    except NotPackable:
        budget = pack_nothing(version)
    return CustomerImage(customer_keys(connection_id, customer_id), version, _statuses(tokens, rows, version), budget)


def _names(customer_pk: int) -> tuple[int, str, str] | None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nextval('tokens_mirror_version'), connection.public_id, customer.connector_customer_id"
            " FROM invoices_customer customer JOIN invoices_connection connection"
            " ON connection.id = customer.connection_id WHERE customer.id = %s",
            [customer_pk],
        )
        row: tuple[int, str, str] | None = cursor.fetchone()
    return row


def _since(cards: Sequence[Card], now: datetime) -> datetime | None:
    """From when on marks are read: far enough for questions about any instant after the newest mark's eve."""
    pks = [card.pk for card in cards]
    counting = Attempt.objects.filter(kind=TransactionKind.CHARGE, counts=True)
    newest = (
        counting.filter(card_id__in=pks).aggregate(at=Max("attempted_at"))["at"],
        counting.filter(card=None, customer__tokens__card_id__in=pks).aggregate(at=Max("attempted_at"))["at"],
        ImportedMark.objects.filter(card_id__in=pks).aggregate(at=Max("at"))["at"],
    )
    known = [at for at in newest if at is not None]
    return min(max(known), now) - card_horizon() - _SLACK if known else None


def _packed(tokens: Sequence[Token]) -> list[PackedToken]:
    """Live tokens, in the order that breaks ties."""
    live = [token for token in tokens if not token_obstacle(token, token.card)]
    live.sort(
        key=lambda token: tie_order(
            last_success_at=token.last_success_at,
            is_default=token.is_default,
            expires_at=card_expires_at(token.card),
            pk=token.pk,
        )
    )
    return [
        PackedToken(
            pk=token.pk,
            network=token.card.network,
            group=str(token.card.budget_group),
            not_before=token.card.wait_until,
            expires_at=card_expires_at(token.card),
        )
        for token in live
    ]


def _marks(cards: Sequence[Card], rows: Sequence[Any]) -> dict[str, list[AttemptMark]]:
    groups = {card.pk: str(card.budget_group) for card in cards}
    marks: dict[str, list[AttemptMark]] = {group: [] for group in groups.values()}
    for card_id, at, amount_minor, currency, status, returned_at, count, *_ in rows:
        mark = AttemptMark(at, amount_minor, currency, mark_declined(status, returned_at))
        marks[groups[card_id]].extend([mark] * count)
    return marks


@cache
def _networks_by_invoice() -> frozenset[str]:
    return frozenset(rule.network for rule in load_rules().rules if rule.key is Key.INVOICE)


def _owed(customer_pk: int, tokens: Sequence[Token]) -> dict[str, Any]:
    """Marks of the customer's newest invoices, where one of the tokens belongs to a network that counts by invoice."""
    if not any(token.card.network in _networks_by_invoice() for token in tokens):
        return {"invoice_marks": {}, "more_invoices": False}
    newest = Invoice.objects.filter(customer_id=customer_pk).order_by("-id").values_list("pk", flat=True)
    pks = list(newest[: MAX_INVOICES + 1])
    marks: dict[int, list[AttemptMark]] = {pk: [] for pk in pks[:MAX_INVOICES]}
    rows = Attempt.objects.filter(invoice_id__in=marks, kind=TransactionKind.CHARGE, counts=True)
    for invoice_pk, at, amount_minor, currency, status, returned_at, network in rows.values_list(
        "invoice_id", "attempted_at", "amount_minor", "currency", "status", "returned_at", "card__network"
    ):
        mark = AttemptMark(at, amount_minor, currency, mark_declined(status, returned_at), network or "unknown")
        marks[invoice_pk].append(mark)
    return {"invoice_marks": marks, "more_invoices": len(pks) > MAX_INVOICES}


def _statuses(tokens: Sequence[Token], rows: Sequence[Any], version: int) -> dict[str, str]:
    """DESIGN section 7's TokenStatus of every token that still exists at the provider."""
    days: dict[int, Counter[str]] = defaultdict(Counter)
    last: dict[int, tuple[str, str, str]] = {}
    for _, at, _, _, status, returned_at, count, token_id, raw_code, category in rows:
        if token_id is None:
            continue
        last[token_id] = (status, raw_code, category)
        if mark_declined(status, returned_at):
            days[token_id][at.astimezone(UTC).date().isoformat()] += count
    statuses = {}
    for token in tokens:
        if token.status == TokenStatus.REMOVED:
            continue
        status, raw_code, category = last.get(token.pk, ("", "", ""))
        failed = status == AttemptStatus.DECLINED
        statuses[token.public_id] = json.dumps(
            {
                "token_id": token.public_id,
                "error_code": token.decline_code or (raw_code if failed else ""),
                "network": token.card.network,
                "added_by_payment_id": token.added_by_payment_id,
                "retry_history": days[token.pk],
                "category": category if failed else "",
                "hard_decline": token.status == TokenStatus.DECLINED,
                "version": version,
            },
            separators=(",", ":"),
        )
    return statuses
