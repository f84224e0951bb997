"""After the story: were the promises kept? Held against the sandbox's own ledger, which knows nothing of ours."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import requests

from accounts.models import Merchant
from invoices.models import Attempt, Connection, Event, Invoice, ReviewItem, Transaction
from recovery_site.console.verification import verify
from retries.models import RetryJob
from tests.support.books import assert_promises
from tests.support.sandbox import Sandbox
from webhooks.models import InboxEvent

# Questions that such a story may end in. All others would mean that a machine did not do its work.
EXPECTED = frozenset({"unknown_attempt", "refund_stuck", "overdue_settlement", "paid_after_cancel"})


@dataclass(frozen=True, slots=True)
class Stand:
    """The one merchant of the story, its provider, and what time it is there."""

    merchant: Merchant
    connection: Connection
    sandbox: Sandbox
    at: datetime


def problems_of(stand: Stand) -> list[str]:
    """Every breach in words; empty if all is well."""
    checks: tuple[Callable[[Stand], Iterator[str]], ...] = (
        _charged_beyond,
        _refunds,
        _promises,
        _verification,
        _too_early,
        _questions,
        _left_over,
    )
    return [problem[:400] for check in checks for problem in check(stand)]


def _charged_beyond(stand: Stand) -> Iterator[str]:
    """By customer and amount, which name one invoice: the sandbox took each amount at most once."""
    taken = Counter(
        (charge["customer"], charge["amount"]) for charge in stand.sandbox.charges() if charge["status"] == "succeeded"
    )
    ours = {
        (invoice.customer.connector_customer_id, invoice.amount_minor): invoice
        for invoice in Invoice.objects.select_related("customer")
    }
    for (customer, amount), times in taken.items():
        invoice = ours.get((customer, amount))
        if invoice is None:
            yield f"{amount} was taken from {customer}, who owes nothing like it"
        elif times > 1:
            yield f"{invoice} was charged {times} times"
        elif invoice.paid_minor != amount:
            yield f"{invoice} was charged {amount}, this ledger says {invoice.paid_minor}"
    for place, invoice in ours.items():
        if invoice.paid_minor and place not in taken:
            yield f"{invoice} counts as paid, but nothing was taken"


def _refunds(stand: Stand) -> Iterator[str]:
    """Both ledgers agree about what went back, refund by refund."""
    rows = requests.get(f"{stand.sandbox.url}/ledger", timeout=30).json()["refunds"]
    theirs = {row["reference"]: row for row in rows if row["status"] != "failed"}
    calls = Attempt.objects.filter(kind="REFUND", status__in=("SUCCEEDED", "AWAITING", "UNKNOWN", "SENDING"))
    ours = dict(calls.values_list("public_id", "amount_minor"))
    for reference, row in theirs.items():
        if ours.get(reference) != row["amount"]:
            yield f"refund {reference} over {row['amount']} went back, this ledger says {ours.get(reference)}"
    for reference in ours.keys() - theirs.keys():
        yield f"refund {reference} counts as {calls.get(public_id=reference).status}, but the sandbox never got it"
    for refund in Transaction.objects.filter(kind="REFUND", status__in=("INIT", "PROCESSING", "RETRYING")):
        if not RetryJob.objects.filter(transaction=refund, status="SCHEDULED").exists():
            yield f"refund {refund} is {refund.status} and nothing goes on with it"


def _promises(stand: Stand) -> Iterator[str]:
    try:
        assert_promises(stand)  # type: ignore[arg-type]
    except AssertionError as broken:
        yield str(broken)


def _verification(stand: Stand) -> Iterator[str]:
    for problem in verify().problems:
        yield f"verify_ledger: {problem.problem}: {problem.detail}"


def _too_early(stand: Stand) -> Iterator[str]:
    """Nothing left before the time that its plan named."""
    booked: dict[int, str] = {}
    for event in Event.objects.filter(kind__in=("case.planned", "attempt.sending")).order_by("invoice_id", "seq"):
        if event.kind == "case.planned":
            booked[event.invoice_id] = event.data["at"] if event.data["step"] == "booked" else ""
        elif event.data.get("kind") == "CHARGE":
            planned = booked.get(event.invoice_id, "")
            if planned and event.occurred_at < datetime.fromisoformat(planned):
                yield f"attempt {event.subject_id} left at {event.occurred_at}, booked for {planned}"


def _questions(stand: Stand) -> Iterator[str]:
    for item in ReviewItem.objects.exclude(kind__in=EXPECTED):
        yield f"a person was asked ({item.kind}): {item.facts}"


def _left_over(stand: Stand) -> Iterator[str]:
    """Nothing hangs in between: no call without an end, no event without an answer."""
    open_calls = Attempt.objects.filter(origin="OURS", status__in=("SENDING", "UNKNOWN"))
    asked = ReviewItem.objects.filter(resolved_at=None).values("subject_id")
    for attempt in open_calls.exclude(public_id__in=asked):
        yield f"{attempt} is still {attempt.status} ({attempt.message})"
    for item in InboxEvent.objects.exclude(status__in=("PROCESSED", "IGNORED")):
        yield f"inbox event {item.event_type} is {item.status}: {item.reason}"
