"""Finds an invoice by any id somebody may hold in their hands: ours, the provider's, or the number on the invoice."""

from collections.abc import Callable, Sequence

from django.db.models import Q, QuerySet

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
            f"Nothing is known under {reference!r}; give an invoice, transaction, attempt, payment, charge or refund id."
        )
    if len(pks) > 1:
        names = Invoice.objects.filter(pk__in=pks).order_by("pk").values_list("public_id", flat=True)
        raise Conflict(f"{reference!r} fits several invoices; use one of these ids: {', '.join(names)}.")
    return Invoice.objects.select_related("merchant", "connection", "customer").get(pk=pks[0])


def _by_public_id(reference: str, merchants: QuerySet[Merchant]) -> list[int]:
    prefix = reference.partition("_")[0]
    if prefix not in _PUBLIC:
        return []
    query = _PUBLIC[prefix](reference).filter(merchant__in=merchants)
    return [pk for pk in query[:2] if pk is not None]


_PUBLIC: dict[str, Callable[[str], QuerySet[int]]] = {
    "inv": lambda text: Invoice.objects.filter(public_id=text).values_list("pk", flat=True),
    "txn": lambda text: Transaction.objects.filter(public_id=text).values_list("invoice_id", flat=True),
    "att": lambda text: Attempt.objects.filter(public_id=text).values_list("invoice_id", flat=True),
    "recovery-att": lambda text: Attempt.objects.filter(idempotency_key=text).values_list("invoice_id", flat=True),
    "dsp": lambda text: Dispute.objects.filter(public_id=text).values_list("invoice_id", flat=True),
    "rev": lambda text: ReviewItem.objects.filter(public_id=text).values_list("invoice_id", flat=True),
    "cas": lambda text: Case.objects.filter(public_id=text).values_list("invoice_id", flat=True),
    "job": lambda text: RetryJob.objects.filter(public_id=text).values_list("invoice_id", flat=True),
}


def _by_provider_id(reference: str, merchants: QuerySet[Merchant]) -> list[int]:
    """The unique indexes of these columns begin with the connection, so the connections are named too."""
    connections = Connection.objects.filter(merchant__in=merchants).values("pk")
    kinds = TransactionKind.values
    queries: Sequence[QuerySet[int]] = (
        Invoice.objects.filter(connection__in=connections, provider_invoice_id=reference).values_list("pk", flat=True),
        ProviderPayment.objects.filter(connection__in=connections, provider_payment_id=reference).values_list(
            "invoice_id", flat=True
        ),
        Attempt.objects.filter(connection__in=connections, kind__in=kinds, provider_id=reference).values_list(
            "invoice_id", flat=True
        ),
        Attempt.objects.filter(connection__in=connections, provider_payment_id=reference).values_list(
            "invoice_id", flat=True
        ),
        Dispute.objects.filter(connection__in=connections, provider_id=reference).values_list("invoice_id", flat=True),
    )
    found = queries[0].union(*queries[1:])
    return sorted(found[:_MANY])


def _by_number(reference: str, merchants: QuerySet[Merchant]) -> list[int]:
    query = Invoice.objects.filter(Q(number=reference), merchant__in=merchants)
    return list(query.order_by("pk").values_list("pk", flat=True)[:_MANY])
