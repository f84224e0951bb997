"""What PostgreSQL says about customers, in the form Redis holds it."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from invoices.models import Attempt, Invoice
from invoices.states import AttemptStatus, TransactionKind
from recovery_site.common.compiled import AnyOf, Compiled, Param
from recovery_site.common.db import prepared_cursor
from tokens.budgets import AttemptMark
from tokens.mirror.keys import CustomerKeys, customer_keys
from tokens.mirror.packing import MAX_INVOICES, History, NotPackable, PackedToken, pack_history, pack_nothing
from tokens.models import Card, Token
from tokens.selectors import (
    card_expires_at,
    card_horizon,
    mark_declined,
    mark_rows,
    networks_by_invoice,
    tie_order,
    token_obstacle,
)
from tokens.states import TokenStatus

GroupedCard = tuple[int, UUID]
_TOKENS = Compiled(
    lambda: Token.objects.filter(AnyOf("customer_id", Param("customers"))).select_related("card").order_by("pk")
)
_IN_GROUPS = Compiled(
    lambda: Card.objects.filter(AnyOf("budget_group", Param("groups"))).values_list("pk", "budget_group")
)
# Questions about yesterday are answered too.
_SLACK = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class CustomerImage:
    """The values of a customer's keys but the slot. `statuses`: JSON by public token id."""

    customer_pk: int
    keys: CustomerKeys
    version: int
    statuses: Mapping[str, str]
    budget: bytes


def customer_images(customer_pks: Sequence[int], *, now: datetime) -> list[CustomerImage]:
    """Read customers, without locks and with the same few queries whatever their number; those that exist.

    The versions are taken first: whoever has a higher one has read what this one has read, or newer. `now` only
    bounds how far back history is read, should the newest attempt be dated in the future.
    """
    named = _names(customer_pks)
    tokens: dict[int, list[Token]] = {pk: [] for pk, *_ in named}
    for token in _TOKENS.all(customers=list(tokens)):
        tokens[token.customer_id].append(token)
    cards: dict[UUID, list[int]] = defaultdict(list)
    for pk, group in _IN_GROUPS.all(groups=list({one.card.budget_group for each in tokens.values() for one in each})):
        cards[group].append(pk)
    newest = _newest(cards)
    since = min(newest.values(), default=now)
    columns = ("token_id", "raw_code", "category")
    rows = mark_rows(list(newest), _reach(since, now), more=columns) if newest else []
    by_card: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        by_card[row[0]].append(row)
    images = []
    for pk, version, connection_id, customer_id in named:
        groups = {token.card.budget_group for token in tokens[pk]}
        own = [(card, group) for group in groups for card in cards[group]]
        image = _image(pk, version, tokens[pk], own, newest, by_card, now)
        images.append(CustomerImage(pk, customer_keys(connection_id, customer_id), version, *image))
    return images


def _image(
    customer_pk: int,
    version: int,
    tokens: Sequence[Token],
    cards: Sequence[GroupedCard],
    newest: Mapping[int, datetime],
    by_card: Mapping[int, Sequence[Any]],
    now: datetime,
) -> tuple[Mapping[str, str], bytes]:
    """The statuses and the packed budget of one customer, whose groups' cards these are."""
    instants = [newest[pk] for pk, _ in cards if pk in newest]
    since = _reach(max(instants), now) if instants else None
    rows = [row for pk, _ in cards for row in by_card.get(pk, ()) if since is not None and row[1] > since]
    rows.sort(key=lambda row: row[1])
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
    return _statuses(tokens, rows, version), budget


def _names(customer_pks: Sequence[int]) -> list[tuple[int, int, str, str]]:
    with prepared_cursor() as cursor:
        cursor.execute(
            "SELECT customer.id, nextval('tokens_mirror_version'), connection.public_id, customer.connector_customer_id"
            " FROM invoices_customer customer JOIN invoices_connection connection"
            " ON connection.id = customer.connection_id WHERE customer.id = ANY(%s)",
            [list(customer_pks)],
        )
        rows: list[tuple[int, int, str, str]] = cursor.fetchall()
    return rows


# Of all marks that `mark_rows` would find.
_NEWEST = """
SELECT card, newest FROM unnest(%(cards)s::bigint[]) card, LATERAL (SELECT GREATEST(
    (SELECT max(attempted_at) FROM invoices_attempt WHERE card_id = card AND kind = 'CHARGE' AND counts),
    (SELECT max(attempt.attempted_at) FROM invoices_attempt attempt
     JOIN tokens_token token ON token.customer_id = attempt.customer_id
     WHERE token.card_id = card AND attempt.card_id IS NULL AND attempt.kind = 'CHARGE' AND attempt.counts),
    (SELECT max(at) FROM tokens_importedmark WHERE card_id = card)
) AS newest) found WHERE newest IS NOT NULL
"""


def _newest(cards: Mapping[UUID, Sequence[int]]) -> dict[int, datetime]:
    """The instant of each card's newest mark; cards without any are missing."""
    with prepared_cursor() as cursor:
        cursor.execute(_NEWEST, {"cards": [pk for group in cards.values() for pk in group]})
        return dict(cursor.fetchall())


def _reach(newest: datetime, now: datetime) -> datetime:
    """From when on marks are read: far enough for questions about any instant after the newest mark's eve."""
    return min(newest, now) - card_horizon() - _SLACK


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


def _marks(cards: Sequence[GroupedCard], rows: Sequence[Any]) -> dict[str, list[AttemptMark]]:
    groups = {pk: str(group) for pk, group in cards}
    marks: dict[str, list[AttemptMark]] = {group: [] for group in groups.values()}
    for card_id, at, amount_minor, currency, status, returned_at, count, *_ in rows:
        mark = AttemptMark(at, amount_minor, currency, mark_declined(status, returned_at))
        marks[groups[card_id]].extend([mark] * count)
    return marks


def _owed(customer_pk: int, tokens: Sequence[Token]) -> dict[str, Any]:
    """Marks of the customer's newest invoices, where one of the tokens belongs to a network that counts by invoice."""
    if not any(token.card.network in networks_by_invoice() for token in tokens):
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
