"""What every provider speaks to the rest of the house: events in, requests out, results back.

No models here: credentials come in as values, facts go out as frozen dataclasses. Amounts are integer minor units,
currencies upper-case ISO 4217, times aware UTC.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from recovery_site.common.errors import RecoveryError


class EventKind(StrEnum):
    """What a provider told us, in the field's words (webhook_formats section 5)."""

    PAYMENT_FAILED = "payment_failed"
    PAYMENT_SUCCEEDED = "payment_succeeded"
    PAYMENT_PENDING = "payment_pending"
    PAYMENT_LINKED = "payment_linked"  # names the invoice a payment belongs to, nothing else
    INVOICE_FAILED = "invoice_failed"  # the biller's view of a failed collection, mostly without a decline code
    INVOICE_PAID = "invoice_paid"
    INVOICE_UPDATED = "invoice_updated"
    INVOICE_VOIDED = "invoice_voided"
    INVOICE_UNCOLLECTIBLE = "invoice_uncollectible"
    SUBSCRIPTION_ENDED = "subscription_ended"
    REFUND_UPDATED = "refund_updated"
    DISPUTE_UPDATED = "dispute_updated"
    METHOD_UPDATED = "method_updated"
    METHOD_REMOVED = "method_removed"


class Proof(StrEnum):
    """How far a delivered body can be believed."""

    SIGNED = "signed"  # nobody but the provider can have written any of it
    PARTLY = "partly"  # the signature leaves out a part, and no password vouches for that part
    SENDER = "sender"  # the sender knew the endpoint's password; nothing binds the body to the provider


class RefundStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class DisputeStatus(StrEnum):
    OPEN = "open"
    WON = "won"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerFacts:
    id: str
    email: str = ""
    name: str = ""
    country: str = ""
    timezone: str = ""
    locale: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """`fingerprint` is the provider's id of the underlying card; never a number.

    `bin`: the first six to eight digits, which name the issuer and no card; `issuer`: the bank in the provider's words.
    """

    fingerprint: str = ""
    network: str = ""
    last4: str = ""
    exp_month: int | None = None
    exp_year: int | None = None
    funding: str = ""
    country: str = ""
    bin: str = ""
    issuer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodFacts:
    """A payment processor token; `kind` is card, ach, sepa, bacs or another rail's name, empty if untold."""

    token: str
    kind: str = "card"
    card: CardFacts | None = None
    is_default: bool = False
    # The network replaced or re-dated the card behind this token (account updater); `previous` is the card before.
    updated: bool = False
    previous: CardFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclineFacts:
    """Why it failed, verbatim. Codes are identifiers; the message is outside text, scrubbed before storage."""

    raw_code: str = ""
    network_code: str = ""
    advice_code: str = ""  # the network's (Mastercard MAC)
    provider_advice: str = ""  # the provider's own (Stripe: do_not_try_again, try_again_later, confirm_card_data)
    message: str = ""
    sent_to_network: bool = True
    # The gateway whose words the code is in, where a biller or a switch passes them on.
    gateway: str = ""
    # False where neither signature nor password vouches for the codes: nothing lasting may rest on them.
    trusted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceFacts:
    """The biller's view of an invoice. `amount_minor` is the total owed, `paid_minor` what the biller has booked.

    `amount_told`: False where the event names the invoice and not what is owed. `told_at`: the biller's own version
    time of the invoice, where it has a finer one than its events.
    """

    id: str
    amount_minor: int
    currency: str
    paid_minor: int = 0
    number: str = ""
    description: str = ""
    subscription_id: str = ""
    plan: str = ""
    interval: str = ""
    status: str = ""
    attempt_count: int | None = None
    next_retry_at: datetime | None = None
    payment_id: str = ""
    charge_id: str = ""
    token: str = ""
    due_at: datetime | None = None
    issued_at: datetime | None = None
    amount_told: bool = True
    told_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentFacts:
    """One try to move money. `charge_id` names the try, `payment_id` what groups several (a payment intent).

    `network_reference` is the card network's own id of the try; `gateway_reference` that of the gateway behind a biller
    or a switch.
    """

    charge_id: str = ""
    payment_id: str = ""
    amount_minor: int
    currency: str
    captured_minor: int | None = None
    invoice_id: str = ""
    reference: str = ""  # our attempt's public id, if we sent it
    method: MethodFacts | None = None
    decline: DeclineFacts | None = None
    occurred_at: datetime | None = None
    # False where the format cannot name an invoice even if there is one (Stripe from basil on).
    names_invoice: bool = True
    # The provider had reported success, or would have: the money did not come after all (late failure, expired
    # authorisation), so a payment that counts as successful is taken back like a bank return.
    undone: bool = False
    network_reference: str = ""
    gateway_reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundFacts:
    id: str
    amount_minor: int
    currency: str
    status: RefundStatus
    charge_id: str = ""
    payment_id: str = ""
    invoice_id: str = ""  # where the charge is not named: its invoice's newest payment is meant
    reference: str = ""
    reason: str = ""
    failure_reason: str = ""
    # The provider told only that the charge's refunded total grew: `id` is made up from charge and total, and
    # the same money may come again, or have come before, under the refund's real id.
    derived: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeFacts:
    """A card dispute, or with `is_return` a bank return (ACH R-code, SEPA reversal)."""

    id: str
    amount_minor: int
    currency: str
    status: DisputeStatus
    charge_id: str = ""
    payment_id: str = ""
    invoice_id: str = ""  # as in RefundFacts
    reason_code: str = ""
    is_return: bool = False
    respond_by: datetime | None = None  # evidence that comes later counts no more


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentEvent:
    """The one road: a webhook, a poll, an import and an API report all become this.

    `idempotency_key`: of the request that caused the event, ours if we sent it. `account`: whose event it is, where one
    endpoint hears of several accounts of the provider's.
    """

    kind: EventKind
    provider: str
    event_id: str
    event_type: str
    occurred_at: datetime
    customer: CustomerFacts | None = None
    invoice: InvoiceFacts | None = None
    payment: PaymentFacts | None = None
    refunds: tuple[RefundFacts, ...] = ()
    dispute: DisputeFacts | None = None
    method: MethodFacts | None = None
    subscription_id: str = ""
    source: str = "webhook"
    # False where nothing binds the body to the provider: it is confirmed before anything irreversible.
    trusted: bool = True
    idempotency_key: str = ""
    account: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thin:
    """An event that names things and tells nothing of them: the first one that is named is read through the API."""

    provider: str
    event_id: str
    event_type: str
    occurred_at: datetime
    charge_id: str = ""
    refund_id: str = ""
    invoice_id: str = ""
    customer: CustomerFacts | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """An item that is understood and needs nothing from us; `reason` is shown to people."""

    reason: str


@dataclass(frozen=True, slots=True)
class InboundRequest:
    """An inbound webhook before any parsing. Header names are lower case."""

    body: bytes
    headers: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InboundItem:
    """One item of a webhook body. `order_key`: items that share it are processed in order."""

    event_id: str
    event_type: str
    order_key: str
    payload: Mapping[str, Any]
    proof: Proof = Proof.SIGNED
    received_at: datetime | None = None  # for formats whose bodies carry no time

    def told(self, provider: str, kind: EventKind, occurred_at: datetime, **known: Any) -> PaymentEvent:
        """This item as an event of the house; `known` are fields of PaymentEvent."""
        return PaymentEvent(
            kind=kind,
            provider=provider,
            event_id=self.event_id,
            event_type=self.event_type,
            occurred_at=occurred_at,
            **known,
        )


Meaning = PaymentEvent | Thin | Ignored


class SignatureInvalid(RecoveryError):
    code = "signature_invalid"
    http_status = 400


class BodyMalformed(RecoveryError):
    code = "body_malformed"
    http_status = 400


class Dialect(Protocol):
    """A provider's webhook language."""

    def secret_check(self, secret: str) -> None:
        """Raise InvalidInput, saying what to give, unless `secret` is what this provider's endpoints need."""

    def verify(self, request: InboundRequest, secrets: Sequence[str], *, now: float, tolerance_seconds: int) -> Proof:
        """Raise SignatureInvalid unless one of `secrets` signed exactly these bytes, recently. `now` is a Unix time."""

    def split(self, request: InboundRequest) -> Sequence[InboundItem]:
        """The items of a verified body; raises BodyMalformed."""

    def parse(self, item: InboundItem) -> Meaning:
        """Meaning of one item. Raises BodyMalformed, or InvalidInput for an impossible field (a negative amount)."""


@runtime_checkable
class AnswersChallenge(Protocol):
    """A dialect whose provider first asks by GET whether an endpoint is ours (Braintree)."""

    def challenge_answer(self, request: InboundRequest, secrets: Sequence[str]) -> str:
        """The plain text that proves it. Raises SignatureInvalid for what is no challenge."""


class Lookup(StrEnum):
    """How far a look-up by our reference can be trusted to say `absent`."""

    AUTHORITATIVE = "authoritative"
    EVENTUAL = "eventual"
    NONE = "none"


class Settles(StrEnum):
    NOW = "now"
    LATER = "later"


class Outcome(StrEnum):
    """A provider's definite answer. Not knowing is not an outcome: it is `ProviderUncertain`."""

    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    AWAITING = "awaiting"
    ERRORED = "errored"  # surely did not happen


# The same in the words of events.
PAYMENT_KINDS: Mapping[Outcome, EventKind] = {
    Outcome.SUCCEEDED: EventKind.PAYMENT_SUCCEEDED,
    Outcome.DECLINED: EventKind.PAYMENT_FAILED,
    Outcome.ERRORED: EventKind.PAYMENT_FAILED,
    Outcome.AWAITING: EventKind.PAYMENT_PENDING,
}
# The statuses in which an invoice is closed, by the event that tells of it; any other is only news.
INVOICE_KINDS: Mapping[str, EventKind] = {
    "paid": EventKind.INVOICE_PAID,
    "void": EventKind.INVOICE_VOIDED,
    "uncollectible": EventKind.INVOICE_UNCOLLECTIBLE,
}
REFUND_STATUSES: Mapping[Outcome, RefundStatus] = {
    Outcome.SUCCEEDED: RefundStatus.SUCCEEDED,
    Outcome.DECLINED: RefundStatus.FAILED,
    Outcome.ERRORED: RefundStatus.FAILED,
    Outcome.AWAITING: RefundStatus.PENDING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeRequest:
    """`reference` is the attempt's public id; `idempotency_key` makes it one charge however often it is sent.

    `collect_invoice` (mode collect) is the biller's invoice through which its own provider collects.
    """

    amount_minor: int
    currency: str
    token: str
    customer: str
    reference: str
    idempotency_key: str
    metadata: Mapping[str, str]
    description: str = ""
    kind: str = "card"  # the token's rail, as MethodFacts.kind
    collect_invoice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeResult:
    """What the provider says about one charge. `error_code` (ERRORED only) is a transport or request error name.

    Facts that the provider echoes (amount, currency, token, reference) are compared before anything is adopted;
    empty or None means "not told".
    """

    outcome: Outcome
    provider_id: str = ""
    payment_id: str = ""
    amount_minor: int | None = None
    currency: str = ""
    token: str = ""
    customer: str = ""
    reference: str = ""
    decline: DeclineFacts | None = None
    card: CardFacts | None = None
    error_code: str = ""
    retry_after: timedelta | None = None
    expected_by: datetime | None = None
    created_at: datetime | None = None
    gateway_reference: str = ""  # as in PaymentFacts
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundRequest:
    charge_id: str
    amount_minor: int
    currency: str
    reference: str
    idempotency_key: str
    reason: str = ""
    payment_id: str = ""  # what groups several charges, where the provider has such a thing


class ProviderUncertain(RecoveryError):
    """Nobody knows whether money moved: time-out after sending, 5xx, an answer that makes no sense."""

    code = "provider_uncertain"
    http_status = 502
    retryable = True


class ProviderUnavailable(RecoveryError):
    """A read could not be answered now; nothing changed."""

    code = "provider_unavailable"
    http_status = 503
    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTraits:
    """What a client promises (DESIGN section 6), as its provider documents it.

    `key_ttl` zero: the provider knows no idempotency keys. `refund_lookup`: where refunds are found otherwise than
    charges.
    """

    key_ttl: timedelta
    lookup: Lookup
    settles: Settles
    timeout_seconds: float
    refund_lookup: Lookup | None = None
    reads: bool = True  # one charge or refund can be read by the provider's id
    lists: bool = True  # recent charges can be listed
    charges: bool = True  # a stored token can be charged directly
    bills: bool = False  # the provider owns invoices and may retry them itself: a BillerClient
    collects: bool = False  # told to, it collects its own invoices
    records: bool = False  # payments and refunds made elsewhere can be written into its books
    payer_is_method: bool = False  # the payer's id stands for its one payment method, which answers do not name

    @property
    def refunds_found(self) -> Lookup:
        return self.lookup if self.refund_lookup is None else self.refund_lookup

    def method_of(self, result: ChargeResult) -> MethodFacts | None:
        """The payment method that an answer of this client's names."""
        token = result.token or (result.customer if self.payer_is_method else "")
        return MethodFacts(token=token, card=result.card) if token else None


class ProviderClient(Protocol):
    """A provider's API for one connection. Declines are values; ProviderUncertain means we do not know."""

    @property
    def traits(self) -> ClientTraits: ...

    def check(self) -> str:
        """Prove the credentials by a read that changes nothing; whose account it is, in words.

        Raises ProviderUnavailable, whose message says what to do.
        """

    def charge(self, request: ChargeRequest) -> ChargeResult:
        """Send one charge. Provably unsent and refused requests are Outcome.ERRORED; raises ProviderUncertain."""

    def charge_get(self, provider_id: str) -> ChargeResult | None:
        """Read one charge; None if the provider does not know it. Only with `traits.reads`. Raises
        ProviderUnavailable."""

    def charge_find(self, reference: str) -> ChargeResult | None:
        """Look up by our reference; what None proves depends on `traits.lookup`. Raises ProviderUnavailable."""

    def charges_list(self, created_after: datetime) -> Iterable[ChargeResult]:
        """Charges the provider knows since then (reverse scan). Only with `traits.lists`. Raises
        ProviderUnavailable."""

    def refund(self, request: RefundRequest) -> ChargeResult:
        """Send one refund; outcomes as for charges."""

    def refund_get(self, provider_id: str) -> ChargeResult | None: ...

    def refund_find(self, reference: str) -> ChargeResult | None: ...
