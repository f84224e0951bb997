"""The locks of every money operation, always in one order: customer, cards, invoice, transaction, job."""

from collections.abc import Sequence
from dataclasses import dataclass

from invoices.models import Customer, Invoice
from invoices.services.ledger import invoice_lock
from invoices.services.parties import customer_lock
from recovery_site.common.compiled import Compiled, Param
from retries.models import Case
from retries.states import CaseStatus
from tokens.models import Card
from tokens.services import cards_lock


@dataclass(slots=True)
class Scope:
    """Locked rows of one customer and one invoice. The instances are the truth until the transaction ends."""

    customer: Customer
    cards: list[Card]
    invoice: Invoice

    def card(self, pk: int | None) -> Card | None:
        return next((card for card in self.cards if card.pk == pk), None)


def scope_lock(*, customer_pk: int, invoice_pk: int, also_cards: Sequence[int] = ()) -> Scope:
    """Lock customer, cards and invoice, in this order. Raises NotFound."""
    customer = customer_lock(customer_pk)
    cards = cards_lock(customer, also=also_cards)
    return Scope(customer=customer, cards=cards, invoice=invoice_lock(invoice_pk))


_OPEN_CASE = Compiled(
    lambda: (
        Case.objects.filter(invoice=Param("invoice"), status=CaseStatus.OPEN)
        .select_related("policy_version")
        .defer("policy_version__document")[:1]
    )
)


def open_case(invoice: Invoice) -> Case | None:
    """The invoice's open case; covered by the invoice's lock."""
    return _OPEN_CASE.first(invoice=invoice.pk)
