"""What billing systems speak beyond charges: their invoices, who collects them, and payments made elsewhere."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from providers.base import ChargeResult, InvoiceFacts, ProviderClient
from recovery_site.common.errors import RecoveryError


class CollectionStays(RecoveryError):
    """The biller will not stop collecting this invoice itself: then nobody else may charge it."""

    code = "collection_stays"
    http_status = 409


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSought:
    """What is known of a payment that a biller was told to make and whose answer got lost."""

    invoice_id: str
    amount_minor: int
    currency: str
    token: str
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentNote:
    """A payment of a biller's invoice that was made elsewhere. `reference` is our transaction's public id.

    `settles`: nothing more is due on the invoice. `paid_with` names the gateway, `payment_id` its id of the payment.
    """

    invoice_id: str
    amount_minor: int
    currency: str
    reference: str
    paid_at: datetime
    paid_with: str
    payment_id: str
    settles: bool
    idempotency_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundNote:
    """A refund of such a payment that was made elsewhere. `record_id` is the biller's id of the payment's note."""

    invoice_id: str
    amount_minor: int
    currency: str
    reference: str
    refunded_at: datetime
    refunded_with: str
    refund_id: str
    record_id: str
    reason: str
    idempotency_key: str


class NoteOutcome(StrEnum):
    WRITTEN = "written"
    KNOWN = "known"  # it stands in the biller's books already
    LATER = "later"  # this biller can only be told once the whole invoice is paid
    REFUSED = "refused"  # the biller will not have it: a person has to look


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteResult:
    """`record_id` is the biller's id of what it has written; `why` is a sentence for people."""

    outcome: NoteOutcome
    record_id: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class GatewayMethod:
    """What the gateway underneath a biller calls a payment method and its payer (empty where it needs none)."""

    token: str
    customer: str


@runtime_checkable
class KnowsEnds(Protocol):
    """A client that can be asked whether something really is over, for providers whose word for it nothing proves."""

    def method_gone(self, token: str) -> bool:
        """True if the payment method was deleted. Raises ProviderUnavailable."""

    def subscription_over(self, subscription_id: str) -> bool:
        """True if the subscription has ended, or ends without being renewed. Raises ProviderUnavailable."""


class BillerClient(ProviderClient, Protocol):
    """A client whose provider owns the invoices (`traits.bills`)."""

    def invoice_get(self, invoice_id: str) -> InvoiceFacts | None:
        """The biller's invoice as it is now. Raises ProviderUnavailable."""

    def stop_collection(self, invoice_id: str) -> str:
        """Switch off the biller's own retries of this invoice; returns the biller's answer for the record.

        Raises CollectionStays if it will not, ProviderUnavailable if it cannot be asked.
        """

    def invoice_of_payment(self, payment_id: str) -> str:
        """The invoice a payment belongs to, or an empty string. Raises ProviderUnavailable."""

    def method_at_gateway(self, customer: str, token: str) -> GatewayMethod | None:
        """What the gateway calls the biller's payment method, None if the biller does not know. Raises
        ProviderUnavailable."""

    def collection_find(self, sought: CollectionSought) -> ChargeResult | None:
        """The payment that the biller made when it was told to collect. None proves nothing. Raises
        ProviderUnavailable."""

    def payment_note(self, note: PaymentNote) -> NoteResult:
        """Write a payment into the biller's books, once: read first, then written under the key.

        Only with `traits.records`. Raises ProviderUnavailable or ProviderUncertain: then the same note comes again.
        """

    def refund_note(self, note: RefundNote) -> NoteResult:
        """Write a refund into the biller's books, once; as for payments."""
