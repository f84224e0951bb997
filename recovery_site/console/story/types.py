"""One invoice as a person reads it: frozen values, nothing lazy, nothing that queries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from recovery_site.common.money import format_money


@dataclass(frozen=True, slots=True)
class Money:
    """Minor units and their ISO 4217 code; `str()` is for people."""

    minor: int
    currency: str

    def __str__(self) -> str:
        return format_money(self.minor, self.currency)

    def __bool__(self) -> bool:
        return self.minor != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceFacts:
    pk: int
    public_id: str
    title: str
    number: str
    provider_invoice_id: str
    description: str
    status: str
    status_label: str
    amount: Money
    due: Money
    paid: Money
    refunded: Money
    credited: Money
    subscription_id: str
    plan: str
    interval: str
    issued_at: datetime
    due_at: datetime | None
    settled_at: datetime | None
    cancel_reason: str
    provider_attempt_count: int
    last_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerFacts:
    pk: int
    public_id: str
    label: str
    name: str
    email: str
    connector_customer_id: str
    country: str
    timezone: str
    first_seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFacts:
    """`obstacle`: why nothing can be charged through it, in words; empty if it can."""

    public_id: str
    name: str
    provider: str
    mode: str
    mode_label: str
    obstacle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFacts:
    public_id: str
    status: str
    status_label: str
    segment: str
    policy_version: int
    category: str
    category_title: str
    category_words: str
    code: str
    opened_at: datetime
    closed_at: datetime | None
    close_reason: str
    paused_by: str
    automatic_barred: bool
    exhausted_at: datetime | None
    amount: Money
    recovered: Money
    recovered_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    public_id: str
    status: str
    status_label: str
    due_at: datetime
    token: str
    token_label: str
    trigger: str
    why: str
    band: int
    requested_by: str
    last_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStepFacts:
    """`why` is one sentence; `notes` are the circumstances that the stored decision cannot know."""

    step: str
    label: str
    tone: str
    at: datetime | None
    at_text: str
    distance: str
    why: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFacts:
    public_id: str
    transaction: str
    kind: str
    number: int
    status: str
    status_label: str
    origin: str
    origin_label: str
    trigger: str
    trigger_label: str
    amount: Money
    captured: Money | None
    card: str
    token: str
    raw_code: str
    network_code: str
    advice_code: str
    message: str
    category: str
    category_title: str
    category_words: str
    explanation: str
    provider_id: str
    network_reference: str
    gateway_reference: str
    attempted_at: datetime
    finished_at: datetime | None
    expected_by: datetime | None
    returned_at: datetime | None
    counts: bool
    why: str
    decision: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFacts:
    """One network rule for one card now. `releases_at`: when the next counted attempt leaves the window."""

    name: str
    words: str
    used: int
    limit: int
    remaining: int
    releases_at: datetime | None
    binding: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """A stored payment method. `remaining` None: no rule limits it. `allowed_at`: earliest charge the rules permit."""

    pk: int
    public_id: str
    label: str
    kind: str
    network: str
    expiry: str
    bin: str
    issuer: str
    status: str
    status_label: str
    usable: bool
    obstacle: str
    is_default: bool
    remaining: int | None
    allowed_at: datetime
    blocked: bool
    binding: str
    last_success_at: datetime | None
    last_attempt_at: datetime | None
    rules: tuple[RuleFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionFacts:
    public_id: str
    kind: str
    status: str
    status_label: str
    amount: Money
    captured: Money | None
    refund_of: str
    duplicate_of: str
    reason: str
    failure: str
    created_by: str
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundableFacts:
    """A paid charge of which `left` can still be given back through the provider."""

    public_id: str
    card: str
    left: Money
    paid_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeFacts:
    public_id: str
    provider_id: str
    kind_label: str
    status: str
    status_label: str
    amount: Money
    reason_code: str
    attempt: str
    opened_at: datetime
    respond_by: datetime | None
    closed_at: datetime | None
    applied_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewFacts:
    pk: int
    public_id: str
    kind: str
    kind_label: str
    subject_id: str
    facts: tuple[tuple[str, str], ...]
    choices: tuple[str, ...]
    owner: str
    opened_at: datetime
    resolved_at: datetime | None
    resolution: str
    resolved_by: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteFacts:
    """What a member of staff wrote down."""

    public_id: str
    author: str
    text: str
    written_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One event in plain words. `detail` adds what the sentence left out, `who` who caused it."""

    seq: int
    kind: str
    text: str
    detail: str
    tone: str
    who: str
    cause: str
    occurred_at: datetime
    minor: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceStory:
    """Everything about one invoice at `now`. `actions` are the names of the moves that are legal."""

    now: datetime
    merchant: str
    merchant_public_id: str
    invoice: InvoiceFacts
    customer: CustomerFacts
    connection: ConnectionFacts
    case: CaseFacts | None
    earlier_cases: tuple[CaseFacts, ...]
    job: JobFacts | None
    next_step: NextStepFacts
    transactions: tuple[TransactionFacts, ...]
    attempts: tuple[AttemptFacts, ...]
    tokens: tuple[TokenFacts, ...]
    disputes: tuple[DisputeFacts, ...]
    reviews: tuple[ReviewFacts, ...]
    timeline: tuple[TimelineEntry, ...]
    notes: tuple[NoteFacts, ...] = ()
    refundable: tuple[RefundableFacts, ...] = ()
    actions: frozenset[str] = field(default_factory=frozenset)

    @property
    def refunds(self) -> tuple[TransactionFacts, ...]:
        return tuple(row for row in self.transactions if row.kind == "REFUND")

    @property
    def open_reviews(self) -> tuple[ReviewFacts, ...]:
        return tuple(row for row in self.reviews if row.resolved_at is None)
