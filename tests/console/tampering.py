"""Changing a ledger behind the services' back, to see whether `verify_ledger` notices."""

import pgtrigger
from django.db import connection

from invoices.chain import Link, link_hash
from invoices.models import Event, Invoice
from recovery_site.console.verification import verify


def tamper(sql: str, *parameters: object) -> None:
    """Change rows behind the triggers' back, as somebody with the database's password could."""
    with pgtrigger.ignore(), connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        assert cursor.rowcount != 0, "the tampering changed nothing, so the test would prove nothing"


def rehash(invoice: Invoice) -> None:
    """Write the chain anew after an event was changed: what remains is what only the replay can find."""
    previous = ""
    for event in Event.objects.filter(invoice=invoice).order_by("seq"):
        link = Link(
            invoice=invoice.public_id,
            seq=event.seq,
            subject_type=event.subject_type,
            subject_id=event.subject_id,
            kind=event.kind,
            from_state=event.from_state,
            to_state=event.to_state,
            actor=event.actor,
            cause=event.cause,
            data=event.data,
            occurred_at=event.occurred_at,
        )
        previous = link_hash(previous, link)
        tamper("UPDATE invoices_event SET hash = %s WHERE id = %s", previous, event.pk)
    tamper("UPDATE invoices_invoice SET last_hash = %s WHERE id = %s", previous, invoice.pk)


def found() -> set[str]:
    return {problem.problem for problem in verify().problems}
