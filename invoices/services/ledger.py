"""The only way anything is written into an invoice's history: a legal move and its event, in one transaction."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django_fsm import TransitionNotAllowed

from invoices import outbox
from invoices.chain import Link, link_hash
from invoices.models import Attempt, Dispute, Event, Invoice, Transaction
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.db import for_no_key_update
from recovery_site.common.errors import Conflict, LockMissing, NotFound

Subject = Invoice | Transaction | Attempt | Dispute
_SUBJECT_TYPE: Mapping[type, str] = {
    Invoice: "invoice",
    Transaction: "transaction",
    Attempt: "attempt",
    Dispute: "dispute",
}


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who writes, because of what, at which `now` (the virtual instant that events carry)."""

    actor: str
    cause: str
    now: datetime

    def because(self, cause: str) -> "Stamp":
        return replace(self, cause=cause[:200])


_LOCKED = Compiled(lambda: for_no_key_update(Invoice.objects.filter(pk=Param("pk"))))


def invoice_lock(pk: int) -> Invoice:
    """Lock one invoice (FOR NO KEY UPDATE) and mark the instance as locked for `record_event`.

    The customer and the cards must be locked before (DESIGN section 6). Raises NotFound.
    """
    invoice = _LOCKED.first(pk=pk)
    if invoice is None:
        raise NotFound("This invoice does not exist.")
    invoice.lock_held = _this_transaction()
    return invoice


def _this_transaction() -> object | None:
    """The outermost atomic block, which stands for the transaction: a lock ends with it. None outside of any."""
    blocks = transaction.get_connection().atomic_blocks
    return blocks[0] if blocks else None


def record_event(
    *,
    invoice: Invoice,
    kind: str,
    stamp: Stamp,
    subject_type: str = "invoice",
    subject_id: str = "",
    from_state: str = "",
    to_state: str = "",
    data: Mapping[str, Any] | None = None,
) -> Event:
    """Append one event to the locked invoice's chain and queue it for its consumers.

    `data` is JSON without personal data. Raises LockMissing if the invoice was not locked in this transaction.
    """
    held = getattr(invoice, "lock_held", None)
    if held is None or held is not _this_transaction():
        raise LockMissing("An event was recorded without its invoice's lock; load the invoice with invoice_lock().")
    link = Link(
        invoice=invoice.public_id,
        seq=invoice.last_seq + 1,
        subject_type=subject_type,
        subject_id=subject_id or invoice.public_id,
        kind=kind,
        from_state=from_state,
        to_state=to_state,
        actor=stamp.actor,
        cause=stamp.cause,
        data=dict(data or {}),
        occurred_at=stamp.now,
    )
    invoice.last_seq, invoice.last_hash = link.seq, link_hash(invoice.last_hash, link)
    return _append(invoice, link, [consumer.name for consumer in outbox.consumers() if consumer.wants(kind)])


# A charge writes eight events: the event, the end of its invoice's chain and what its consumers are owed go in one
# statement.
_APPEND = """
WITH chained AS (
    UPDATE invoices_invoice SET last_seq = %(seq)s, last_hash = %(hash)s WHERE id = %(invoice_id)s
), event AS (
    INSERT INTO invoices_event (merchant_id, invoice_id, seq, subject_type, subject_id, kind, from_state, to_state,
        actor, cause, data, occurred_at, hash)
    VALUES (%(merchant_id)s, %(invoice_id)s, %(seq)s, %(subject_type)s, %(subject_id)s, %(kind)s, %(from_state)s,
        %(to_state)s, %(actor)s, %(cause)s, %(data)s, %(occurred_at)s, %(hash)s)
    RETURNING id, recorded_at
), owed AS (
    INSERT INTO invoices_outboxmessage (merchant_id, event_id, consumer, attempts, last_error)
    SELECT %(merchant_id)s, event.id, consumer, 0, '' FROM event, unnest(%(consumers)s::text[]) consumer
)
SELECT id, recorded_at FROM event
"""


def _append(invoice: Invoice, link: Link, consumers: Sequence[str]) -> Event:
    values: dict[str, Any] = {
        "merchant_id": invoice.merchant_id,
        "invoice_id": invoice.pk,
        "seq": link.seq,
        "subject_type": link.subject_type,
        "subject_id": link.subject_id,
        "kind": link.kind,
        "from_state": link.from_state,
        "to_state": link.to_state,
        "actor": link.actor,
        "cause": link.cause,
        "occurred_at": link.occurred_at,
        "hash": invoice.last_hash,
    }
    with connection.cursor() as cursor:
        cursor.execute(_APPEND, {**values, "data": json.dumps(link.data), "consumers": list(consumers)})
        pk, recorded_at = cursor.fetchone()
    event = Event(id=pk, data=link.data, recorded_at=recorded_at, **values)
    event._state.adding = False
    return event


def move(
    subject: Subject,
    name: str,
    *,
    invoice: Invoice,
    stamp: Stamp,
    data: Mapping[str, Any] | None = None,
    **fields: Any,
) -> None:
    """Take a legal move of an invoice, transaction, attempt or dispute, save it with `fields`, record its event.

    Raises Conflict if the state table does not allow it; nothing is written then.
    """
    before = subject.status
    try:
        getattr(subject, name)()
    except TransitionNotAllowed as error:
        what = _SUBJECT_TYPE[type(subject)].capitalize()
        raise Conflict(f"{what} {subject.public_id} is {before}: it cannot {name.replace('_', ' ')}.") from error
    for field, value in fields.items():
        setattr(subject, field, value)
    subject.save(update_fields=["status", *fields])
    subject_type = _SUBJECT_TYPE[type(subject)]
    record_event(
        invoice=invoice,
        kind=f"{subject_type}.{name}",
        stamp=stamp,
        subject_type=subject_type,
        subject_id=subject.public_id,
        from_state=before,
        to_state=subject.status,
        data=data,
    )


def alert(invoice: Invoice, name: str, text: str, stamp: Stamp, data: Mapping[str, Any] | None = None) -> None:
    """Tell staff: an event `alert.<name>` that the alert consumer picks up. `text` is one plain sentence."""
    record_event(invoice=invoice, kind=f"alert.{name}", stamp=stamp, data={**(data or {}), "text": text})
