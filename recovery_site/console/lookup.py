"""Finds an invoice by any id somebody may hold: ours, the provider's, or the number on the invoice."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import QuerySet

from accounts.models import Merchant
from invoices.models import Attempt, Connection, Dispute, Invoice, ProviderPayment, ReviewItem, Transaction
from invoices.states import TransactionKind
from recovery_site.common.errors import Conflict, NotFound
from retries.models import Case, RetryJob

_LONGEST = 200
# More than this many hits are "many"; nobody reads a longer list of candidates.
_MANY = 20


def invoice_pks_find(reference: str, merchants: QuerySet[Merchant]) -> list[int]:
    """Primary keys of the invoices that `reference` may mean, at most 20, among `merchants`; empty if there is none.

    Our public ids come first, then the provider's ids (invoice, payment, charge, refund, dispute), then the number.
    Every step is an index look-up but the last, which is tried only when nothing else fits.
    """
    reference = reference.strip()
    if not reference or len(reference) > _LONGEST or "\x00" in reference:
        return []
    for step in (_by_public_id, _by_provider_id, _by_number):
        found = step(reference, merchants)
        if found:
            return found
    return []


def invoice_find(reference: str, merchants: QuerySet[Merchant]) -> Invoice:
    """The one invoice that `reference` means. Raises NotFound, or Conflict that names the candidates."""
    pks = invoice_pks_find(reference, merchants)
    if not pks:
        raise NotFound(
            f"Nothing is known under {reference!r};"
            " give an invoice, transaction, attempt, payment, charge or refund id."
        )
    if len(pks) > 1:
        names = Invoice.objects.filter(pk__in=pks).order_by("pk").values_list("public_id", flat=True)
        raise Conflict(f"{reference!r} fits several invoices; use one of these ids: {', '.join(names)}.")
    return Invoice.objects.select_related("merchant", "connection__gate", "customer").get(pk=pks[0])


def _by_public_id(reference: str, merchants: QuerySet[Merchant]) -> list[int]:
    kind = _PUBLIC.get(reference.partition("_")[0])
    if kind is None:
        return []
    model, field, invoice = kind
    rows = model.objects.filter(merchant__in=merchants, **{field: reference}).values_list(invoice, flat=True)
    return [pk for pk in rows[:2] if pk is not None]


_PUBLIC: Mapping[str, tuple[Any, str, str]] = {
    "inv": (Invoice, "public_id", "pk"),
    "txn": (Transaction, "public_id", "invoice_id"),
    "att": (Attempt, "public_id", "invoice_id"),
    "recovery-att": (Attempt, "idempotency_key", "invoice_id"),
    "dsp": (Dispute, "public_id", "invoice_id"),
    "rev": (ReviewItem, "public_id", "invoice_id"),
    "cas": (Case, "public_id", "invoice_id"),
    "job": (RetryJob, "public_id", "invoice_id"),
}


def _by_provider_id(reference: str, merchants: QuerySet[Merchant]) -> list[int]:
    """The unique indexes of these columns begin with the connection, so the connections are named too."""
    connections = Connection.objects.filter(merchant__in=merchants).values("pk")
    found: set[int] = set()
    for model, field, invoice in _PROVIDER:
        rows = model.objects.filter(connection__in=connections, **{field: reference})
        if field == "provider_id" and model is Attempt:
            rows = rows.filter(kind__in=TransactionKind.values)
        found.update(rows.values_list(invoice, flat=True)[:_MANY])
    return sorted(found)[:_MANY]


_PROVIDER: Sequence[tuple[Any, str, str]] = (
    (Invoice, "provider_invoice_id", "pk"),
    (ProviderPayment, "provider_payment_id", "invoice_id"),
    (Attempt, "provider_id", "invoice_id"),
    (Attempt, "provider_payment_id", "invoice_id"),
    (Dispute, "provider_id", "invoice_id"),
)


def _by_number(reference: str, merchants: QuerySet[Merchant]) -> list[int]:
    query = Invoice.objects.filter(number=reference, merchant__in=merchants)
    return list(query.order_by("pk").values_list("pk", flat=True)[:_MANY])
