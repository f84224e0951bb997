"""Reads of the retry engine."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.db.models import Count, Q, Sum

from invoices.models import Attempt, Customer, Invoice
from invoices.states import INVOICE_PAID, Origin, TransactionKind, Trigger
from providers.decline_tables import decline_tables
from retries.categories import Actor, Category, RetryClass, Scope
from retries.classification import Classification, ClassificationInput, classify, newest_overrides
from retries.classification.types import Overrides
from retries.decisions import Failure
from retries.models import Case, DeclineOverride, PolicyVersion
from retries.policy import Policy, parse_policy
from retries.segments import SegmentFacts


def policy_of(version: PolicyVersion) -> Policy:
    """The parsed document of a version; the same document is parsed once. Raises PolicyError."""
    return _parsed(json.dumps(version.document, sort_keys=True), settings.RETRY_MAX_ATTEMPTS)


@lru_cache(maxsize=256)
def _parsed(document: str, default_max_attempts: int) -> Policy:
    return parse_policy(json.loads(document), default_max_attempts=default_max_attempts)


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
    """How much of the policy's allowance the case has used up."""
    counts = Attempt.objects.filter(
        invoice_id=case.invoice_id,
        kind=TransactionKind.CHARGE,
        origin=Origin.OURS,
        trigger=Trigger.AUTOMATIC,
        attempted_at__gte=case.opened_at,
    ).aggregate(of_kind=Count("id", filter=Q(decision__kind=failure_kind(failure))), automatic=Count("id"))
    return Usage(**counts)


def trigger_usage(case: Case, trigger: Trigger) -> int:
    """Attempts of ours with this trigger in the case."""
    return Attempt.objects.filter(
        invoice_id=case.invoice_id,
        kind=TransactionKind.CHARGE,
        origin=Origin.OURS,
        trigger=trigger,
        attempted_at__gte=case.opened_at,
    ).count()


def customer_zone(customer: Customer) -> ZoneInfo:
    """The customer's time zone, else UTC."""
    try:
        return ZoneInfo(customer.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def decline_overrides(merchant_id: int, provider: str, code: str) -> Overrides:
    """The merchant's own reading of this code in force, if there is one."""
    return newest_overrides(DeclineOverride.objects.filter(merchant_id=merchant_id, provider=provider, code=code))


def segment_facts(customer: Customer, invoice: Invoice, now: datetime) -> SegmentFacts:
    """What segment rules may look at, in one query. Lifetime value is in the invoice's currency."""
    history = Invoice.objects.filter(customer=customer).aggregate(
        paid=Sum("paid_minor", filter=Q(status__in=INVOICE_PAID, currency=invoice.currency)),
        settled=Count("id", filter=Q(status__in=INVOICE_PAID)),
        total=Count("id"),
    )
    return SegmentFacts(
        amount_minor=invoice.due_minor,
        lifetime_value_minor=history["paid"] or 0,
        tenure_days=max(0, (now - customer.first_seen_at).days),
        currency=invoice.currency,
        country=customer.country or None,
        settled_invoices=history["settled"],
        invoices=history["total"],
    )
