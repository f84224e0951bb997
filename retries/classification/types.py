"""What goes into classification and what comes out of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from retries.categories import STOPPING, Actor, Category, RetryClass, Scope
from tokens.networks import UNKNOWN


class TransportError(StrEnum):
    """How a call failed when the provider gave no answer about the payment itself."""

    UNSENT = "unsent"  # provably never sent: connection refused, DNS, TLS, or our own deadline
    TIMEOUT = "timeout"
    CONNECTION_LOST = "connection_lost"
    SERVER_ERROR = "server_error"  # HTTP 5xx
    MALFORMED_REPLY = "malformed_reply"
    RATE_LIMITED = "rate_limited"  # HTTP 429
    UNAUTHORIZED = "unauthorized"  # HTTP 401 or 403
    REQUEST_REFUSED = "request_refused"  # any other HTTP 4xx about the request, not the card


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationInput:
    """One failure as told.

    `raw_code` is the provider's decline code, `fallback_code` the wider one beside it (Stripe's `code` next
    to `decline_code`), `network_code` the response code, `advice_code` the network's advice (MAC),
    `provider_advice` the provider's own (Stripe's `advice_code`). `provider_says_retry` is what the provider
    itself said about a plain retry, None if nothing. `sent_to_network` is False where the provider says that
    it was not (Stripe's `network_status = not_sent_to_network`).
    """

    provider: str
    raw_code: str = ""
    fallback_code: str = ""
    network: str = UNKNOWN
    network_code: str = ""
    advice_code: str = ""
    provider_advice: str = ""
    transport_error: TransportError | None = None
    message_present: bool = False
    sent_to_network: bool = True
    provider_says_retry: bool | None = None

    @property
    def code(self) -> str:
        """The most precise code there is, empty if none."""
        return self.raw_code.strip() or self.fallback_code.strip()


class OverrideRow(Protocol):
    """How an override is stored: a merchant's reading of one provider code, in versions."""

    @property
    def provider(self) -> str: ...

    @property
    def code(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def category(self) -> str: ...


@dataclass(frozen=True, slots=True)
class DeclineOverride:
    """An override in force. Without a class of its own it retries as the category usually does."""

    provider: str
    code: str
    version: int
    category: Category
    retry_class: RetryClass
    scope: Scope
    actor: Actor


OverrideKey = tuple[str, str]
Overrides = Mapping[OverrideKey, DeclineOverride]

_USUAL: Mapping[Category, tuple[RetryClass, Scope, Actor]] = {
    Category.HARD_DECLINE: (RetryClass.NEVER, Scope.TOKEN, Actor.CUSTOMER),
    Category.INSUFFICIENT_FUNDS: (RetryClass.LATER, Scope.TOKEN, Actor.MACHINE),
    Category.SOFT_DECLINE: (RetryClass.LATER, Scope.TOKEN, Actor.MACHINE),
    Category.AUTHENTICATION_REQUIRED: (RetryClass.AFTER_CUSTOMER_ACTION, Scope.TOKEN, Actor.CUSTOMER),
    Category.NETWORK_ERROR: (RetryClass.IMMEDIATE, Scope.CONNECTION, Actor.MACHINE),
    Category.PROCESSING_ERROR: (RetryClass.LATER, Scope.INVOICE, Actor.MACHINE),
    Category.SERVICE_UNAVAILABLE: (RetryClass.LATER, Scope.CONNECTION, Actor.MACHINE),
    Category.RATE_LIMITED: (RetryClass.LATER, Scope.CONNECTION, Actor.MACHINE),
    Category.CONFIG_ERROR: (RetryClass.AFTER_ENGINEERING_FIX, Scope.INVOICE, Actor.ENGINEERING),
    Category.FRAUD_FLAGGED: (RetryClass.NEVER, Scope.INVOICE, Actor.STAFF),
}


def override_key(provider: str, code: str) -> OverrideKey:
    """Overrides with the same key are versions of one; codes differ in more than case and blanks."""
    return provider, code.strip().casefold()


def newest_overrides(rows: Iterable[OverrideRow]) -> dict[OverrideKey, DeclineOverride]:
    """The override in force, the highest version, for each provider and code; none where that version has no
    category, which takes the override back. Raises ValueError for a category that does not exist."""
    newest: dict[OverrideKey, DeclineOverride] = {}
    versions: dict[OverrideKey, int] = {}
    for row in rows:
        key = override_key(row.provider, row.code)
        if key in versions and versions[key] >= row.version:
            continue
        versions[key] = row.version
        if isinstance(row, DeclineOverride):
            newest[key] = row
        elif not row.category:
            newest.pop(key, None)
        else:
            category = Category(row.category)
            newest[key] = DeclineOverride(row.provider, row.code, row.version, category, *_USUAL[category])
    return newest


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer. Beyond category and class:

    `look_up`: the payment may have gone through, so its outcome is found out before anything else happens.
    `stop`: the network forbids this card; `revivable`: a new expiry date or updated card lifts that. `wait`:
    the least time between the answer and the next try, None if nobody asked for one. `reached_network`: False
    if it provably did not, so that no rule counts it. `known`: False if nothing but a default decided;
    `code_listed`: False if the provider's code is in no table, whatever else decided, so that the report of
    unknown codes shows it. `source` names what decided, `explanation` is one sentence for staff,
    `payer_text_key` chooses the payer's text and never gives away a suspicion of fraud.
    """

    category: Category
    retry_class: RetryClass
    scope: Scope
    actor: Actor
    source: str
    explanation: str
    payer_text_key: str
    known: bool
    code_listed: bool = True
    look_up: bool = False
    stop: bool = False
    revivable: bool = True
    wait: timedelta | None = None
    reached_network: bool = True

    @property
    def machine_may_retry(self) -> bool:
        """True if a policy may book the same token again without a person doing anything first."""
        return (
            not self.stop
            and self.category not in STOPPING
            and self.retry_class in (RetryClass.LATER, RetryClass.IMMEDIATE)
        )
