"""The only way anything is written into an invoice's history: a legal move and its event, in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, partial
from typing import Any

from django.db import DatabaseError, transaction
from django.db.models import Model
from django_fsm import TransitionNotAllowed
from psycopg.types.json import Jsonb

from invoices import outbox
from invoices.chain import Link, link_hash
from invoices.models import Attempt, Dispute, Event, Invoice, Transaction
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.db import for_no_key_update, plain, prepared_cursor
from recovery_site.common.errors import Conflict, LockMissing, NotFound
from recovery_site.common.in_step import ask, at_end, end_now
from recovery_site.common.rows import arrays, columns, row_save, stored, turned, unnested, updating

Subject = Invoice | Transaction | Attempt | Dispute
# A row and the fields of it that are to be written.
Saves = tuple[Model, Sequence[str]]
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
    end_now(("chain", pk))
    invoice = _LOCKED.first(pk=pk)
    if invoice is None:
        raise NotFound("This invoice does not exist.")
    invoice_is_ours(invoice)
    return invoice


def invoice_is_ours(invoice: Invoice) -> None:
    """Mark an instance as locked for `record_event`: that of a row this transaction has locked or inserted."""
    invoice.lock_held = _this_transaction()


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
    saves: Saves | None = None,
) -> None:
    """Append one event to the locked invoice's chain and queue it for its consumers.

    `data` is JSON without personal data. `saves`: a row and fields of it that are written with the event. Raises
    LockMissing if the invoice was not locked in this transaction.
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
    wanted = [consumer.name for consumer in outbox.consumers() if consumer.wants(kind)]
    _append(invoice, link, wanted, saves)


# Fields of an event in the order of the statement; what they hold is known to be fit for their columns.
_WRITTEN = (
    *("merchant", "invoice", "seq", "subject_type", "subject_id", "kind", "from_state", "to_state"),
    *("actor", "cause", "data", "occurred_at", "hash"),
)
_CHAIN = ("last_seq", "last_hash")
# A charge writes seven events: the event, what moved, the end of its invoice's chain and what its consumers are owed
# go in one statement. A row may be updated only once in it.
_APPEND = """
WITH {changes}event AS (
    INSERT INTO invoices_event ({columns}) {values} RETURNING id, merchant_id
), owed AS (
    INSERT INTO invoices_outboxmessage (merchant_id, event_id, consumer, attempts, last_error)
    SELECT merchant_id, event.id, consumer, 0, '' FROM event, unnest(%s::text[]) consumer
)
SELECT {counts}
"""
# What an event's statement updates: a model and names of its fields, each once.
_Changes = tuple[tuple[type[Model], tuple[str, ...]], ...]


def _append(invoice: Invoice, link: Link, consumers: Sequence[str], saves: Saves | None) -> None:
    event = [
        *(invoice.merchant_id, invoice.pk, link.seq, link.subject_type, link.subject_id, link.kind),
        *(plain(link.from_state), plain(link.to_state), link.actor, link.cause),
        *(Jsonb(link.data), link.occurred_at, invoice.last_hash),
    ]
    once = at_end(("chain", invoice.pk), partial(row_save, invoice, *_CHAIN))
    rows = _changed(invoice, saves, chain=not once)
    alike = tuple((type(row), tuple(fields)) for row, fields in rows), tuple(consumers)
    updates = [[*stored(row, fields), row.pk] for row, fields in rows]
    if not ask(("event", alike), _append_many, (alike, updates, event), writes=True):
        raise NotFound(f"What {link.kind} changes is gone.")


def _changed(invoice: Invoice, saves: Saves | None, *, chain: bool) -> list[Saves]:
    """What is updated with an event: the end of its invoice's `chain`, unless that is written once for many events, and
    one more row that moves."""
    if not chain:
        return [saves] if saves else []
    if saves is None:
        return [(invoice, _CHAIN)]
    row, fields = saves
    if isinstance(row, Invoice) and row.pk == invoice.pk:
        return [(invoice, (*fields, *_CHAIN))]
    return [(row, fields), (invoice, _CHAIN)]


def _append_many(many: Sequence[Any]) -> Sequence[bool]:
    """Append the events of different invoices that change and concern alike. False if a row of a single one is gone;
    DatabaseError if one of several is."""
    changes, consumers = many[0][0]
    parameters: list[Any] = []
    if len(many) == 1:
        _, updates, event = many[0]
        parameters = [value for values in (*updates, event) for value in values]
    else:
        for place in range(len(changes)):
            parameters += turned([updates[place] for _, updates, _ in many])
        parameters += turned([event for *_, event in many])
    with prepared_cursor() as cursor:
        cursor.execute(_append_sql(changes, len(many) > 1), [*parameters, list(consumers)])
        (changed,) = cursor.fetchone()
    complete = all(count == len(many) for count in changed)
    if not complete and len(many) > 1:
        raise DatabaseError("Rows that events change are gone.")
    return [complete] * len(many)


@cache
def _append_sql(changes: _Changes, many: bool) -> str:
    updates = [f"changed{number} AS ({_update(*one, many)}), " for number, one in enumerate(changes)]
    counted = ", ".join(f"(SELECT count(*) FROM changed{number})" for number in range(len(changes)))  # noqa: S608
    written = columns(Event, _WRITTEN)
    if many:
        values = f"SELECT {', '.join(written)} FROM {unnested(written, arrays(Event, _WRITTEN), 'told')} ORDER BY n"  # noqa: S608 - names of columns
    else:
        values = f"VALUES ({', '.join(['%s'] * len(written))})"
    return _APPEND.format(
        changes="".join(updates), columns=", ".join(written), values=values, counts=f"ARRAY[{counted}]::bigint[]"
    )


def _update(model: type[Model], fields: tuple[str, ...], many: bool) -> str:
    if many:
        return f"{updating(model, fields)} RETURNING old.id"
    text = ", ".join(f'"{column}" = %s' for column in columns(model, fields))
    return f"UPDATE {model._meta.db_table} SET {text} WHERE id = %s RETURNING id"  # noqa: S608 - names of columns


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
        saves=(subject, ["status", *fields]),
    )


def alert(
    invoice: Invoice,
    name: str,
    text: str,
    stamp: Stamp,
    data: Mapping[str, Any] | None = None,
    *,
    saves: Saves | None = None,
) -> None:
    """Tell staff: an event `alert.<name>` that the alert consumer picks up. `text` is one plain sentence."""
    record_event(invoice=invoice, kind=f"alert.{name}", stamp=stamp, data={**(data or {}), "text": text}, saves=saves)
