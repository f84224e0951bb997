"""Reads of the retry engine."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.db.models import CharField, Exists, Func, OuterRef, Q, QuerySet
from django.db.models.functions import Upper

from invoices.models import Attempt, Connection, Customer, Invoice
from invoices.states import INVOICE_PAID, AttemptStatus, Origin, TransactionKind, Trigger
from providers.decline_tables import decline_tables
from recovery_site.common.compiled import Compiled, Param, Question
from retries.categories import TECHNICAL, Actor, Category, RetryClass, Scope
from retries.classification import Classification, ClassificationInput, classify, newest_overrides
from retries.classification.types import Overrides
from retries.decisions import Failure
from retries.models import Case, DeclineOverride, Outage, PolicyVersion, ProviderGate
from retries.policy import Policy, parse_policy
from retries.segments import SegmentFacts


def policy_of(version: PolicyVersion) -> Policy:
    """The parsed document of a version, which never changes and is read once. Raises PolicyError."""
    return _parsed(_Stored(version.pk, version.created_at, version), settings.RETRY_MAX_ATTEMPTS)


@dataclass(frozen=True, slots=True)
class _Stored:
    """Two of the same version are equal."""

    pk: int
    created_at: datetime
    version: PolicyVersion = field(compare=False)


@lru_cache(maxsize=256)
def _parsed(stored: _Stored, default_max_attempts: int) -> Policy:
    return parse_policy(stored.version.document, default_max_attempts=default_max_attempts)


def case_policy(case: Case) -> Policy:
    """The policy the case was opened under."""
    return policy_of(case.policy_version)


def case_failure(case: Case) -> Failure:
    """The failure that rules the case's plan."""
    kept = case.failure
    return Failure(
        at=datetime.fromisoformat(kept["at"]) if kept else case.opened_at,
        token_pk=kept.get("token"),
        verdict=verdict_from_json(kept.get("verdict", {})),
    )


def verdict_to_json(verdict: Classification) -> dict[str, Any]:
    """For `Case.failure`; `verdict_from_json` reads it back."""
    values = asdict(verdict)
    values["wait"] = verdict.wait.total_seconds() if verdict.wait is not None else None
    return values


def verdict_from_json(values: Mapping[str, Any]) -> Classification:
    """A stored verdict; an empty one means that no failure was classified yet."""
    if not values:
        return classify(ClassificationInput(provider="generic"), decline_tables("generic"))
    wait = values["wait"]
    return Classification(
        **{
            **values,
            "category": Category(values["category"]),
            "retry_class": RetryClass(values["retry_class"]),
            "scope": Scope(values["scope"]),
            "actor": Actor(values["actor"]),
            "wait": timedelta(seconds=wait) if wait is not None else None,
        }
    )


def failure_kind(failure: Failure) -> str:
    """What retries are counted under: the category, or that nothing is known."""
    return failure.verdict.category.value if failure.verdict.known else "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Usage:
    """Automatic retries of ours in a case: those after failures of one kind, and all."""

    of_kind: int
    automatic: int


def case_usage(case: Case, failure: Failure) -> Usage:
    """How much of the policy's allowance the case has used up.

    A try that provably never happened uses up the tries of a technical failure alone, and none if the provider was
    down: an outage must not end a case.
    """
    kind = failure_kind(failure)
    tries = _own_charges(case, Trigger.AUTOMATIC)
    sent = [decision for status, decision in tries if status != AttemptStatus.ERRORED]
    if failure.verdict.category in TECHNICAL:
        of_kind = sum(decision.get("kind") == kind for _, decision in tries)
    else:
        of_kind = sum(decision.get("stands_for", decision.get("kind")) == kind for decision in sent)
    return Usage(of_kind=of_kind, automatic=len(sent))


def retry_stands_for(case: Case, failure: Failure) -> str:
    """The kind of failure that the next retry answers: its own, or that of the retry which never happened before it."""
    if failure.verdict.category in TECHNICAL:
        last = Attempt.objects.filter(
            invoice_id=case.invoice_id,
            kind=TransactionKind.CHARGE,
            origin=Origin.OURS,
            attempted_at__gte=case.opened_at,
        ).order_by("-id")[:1]
        for attempt in last:
            if attempt.status == AttemptStatus.ERRORED and attempt.trigger == Trigger.AUTOMATIC:
                return str(attempt.decision.get("stands_for") or attempt.decision.get("kind", ""))
    return failure_kind(failure)


def trigger_usage(case: Case, trigger: Trigger) -> int:
    """Attempts of ours with this trigger in the case; those that never happened are given back."""
    return sum(status != AttemptStatus.ERRORED for status, _ in _own_charges(case, trigger))


def _own_charges(case: Case, trigger: Trigger) -> list[tuple[str, dict[str, Any]]]:
    """Status and decision of the case's charges with this trigger: of ours, and of those that a merchant made itself on
    our word (connection mode schedule). None that never happened because the provider was down."""
    return _OWN_CHARGES.all(invoice=case.invoice_id, trigger=trigger.value, opened=case.opened_at)


def _own_charges_query() -> QuerySet[Attempt, tuple[str, dict[str, Any]]]:
    outages = Outage.objects.filter(
        Q(ended_at=None) | Q(ended_at__gte=OuterRef("attempted_at")),
        connection=OuterRef("connection"),
        began_at__lte=OuterRef("attempted_at"),
    )
    return Attempt.objects.filter(
        Q(~Q(status=AttemptStatus.ERRORED) | ~Exists(outages)),
        Q(origin=Origin.OURS) | Q(origin=Origin.OUTSIDE, decision__has_key="job"),
        invoice=Param("invoice"),
        kind=TransactionKind.CHARGE,
        trigger=Param("trigger"),
        attempted_at__gte=Param("opened"),
    ).values_list("status", "decision")


_OWN_CHARGES = Compiled(_own_charges_query)


def customer_zone(customer: Customer) -> ZoneInfo:
    """The customer's time zone, else UTC."""
    try:
        return ZoneInfo(customer.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def decline_overrides(merchant_id: int, provider: str, code: str) -> Overrides:
    """The merchant's own reading of this code in force, if there is one."""
    return newest_overrides(_OVERRIDES.all(merchant=merchant_id, provider=provider, code=code.strip()))


_OVERRIDES = Compiled(
    lambda: (
        DeclineOverride.objects.alias(capitals=Upper("code"))
        .filter(merchant=Param("merchant"), provider=Param("provider"))
        .filter(capitals=Func(Param("code"), function="UPPER", output_field=CharField()))
    )
)


def segment_facts(customer: Customer, invoice: Invoice, now: datetime) -> SegmentFacts:
    """What segment rules may look at, in one query. Lifetime value is in the invoice's currency; of the failure that
    is being looked at nothing counts yet."""
    (history,) = _HISTORY.rows(
        {
            "customer": customer.pk,
            "invoice": invoice.pk,
            "currency": invoice.currency,
            "paid": [status.value for status in INVOICE_PAID],
        }
    )
    lifetime, settled, total, failed, recovered = history
    return SegmentFacts(
        amount_minor=invoice.due_minor,
        lifetime_value_minor=int(lifetime),
        tenure_days=max(0, (now - customer.first_seen_at).days),
        currency=invoice.currency,
        country=customer.country or None,
        settled_invoices=settled,
        invoices=total,
        failed_cases=failed,
        recovered_cases=recovered,
    )


_HISTORY = Question("""
SELECT history.*, past.* FROM (
    SELECT COALESCE(sum(paid_minor) FILTER (WHERE status = ANY(%(paid)s) AND currency = %(currency)s), 0) AS lifetime,
        count(*) FILTER (WHERE status = ANY(%(paid)s)) AS settled, count(*) AS invoices
    FROM invoices_invoice WHERE customer_id = %(customer)s
) history, (
    SELECT count(*) FILTER (WHERE status <> 'OPEN' OR invoice_id <> %(invoice)s) AS failed,
        count(*) FILTER (WHERE status = 'RECOVERED') AS recovered
    FROM retries_case WHERE customer_id = %(customer)s
) past
""")


def calls_per_second(account: Connection) -> float | None:
    """The connection's rate limit (`max_per_second` of its config), None for none."""
    rate = account.settings.get("max_per_second")
    return float(rate) if isinstance(rate, int | float) and not isinstance(rate, bool) and rate > 0 else None


def gate_bar(gate: ProviderGate, now: datetime) -> tuple[datetime, str] | None:
    """Until when the provider is left alone, and why; None if it may be called."""
    if gate.shut_until is not None and gate.shut_until > now:
        return gate.shut_until, "the provider is not working right now"
    if gate.asked_until is not None and gate.asked_until > now:
        return gate.asked_until, "the provider has had enough requests for now"
    return None


def provider_bar(account: Connection, now: datetime) -> tuple[datetime, str] | None:
    """As `gate_bar`, for a connection read with its gate."""
    gate: ProviderGate | None = getattr(account, "gate", None)
    return gate_bar(gate, now) if gate is not None else None
