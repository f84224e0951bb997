"""Works out what each recovery is put down to, when a case closes and again on demand."""

from datetime import datetime

from invoices.models import Attempt, Event
from invoices.outbox import Consumer
from invoices.states import AttemptStatus, Origin, TransactionKind
from notifications.attribution import RULE, Attribution, Kind, Payment, Touch, attribute
from notifications.models import CaseAttribution, Message
from retries.models import Case
from retries.states import CaseStatus

ATTRIBUTION = "attribution"
_TOUCHES = {"message.sent": Kind.SENT, "message.clicked": Kind.CLICKED}


def closing_wanted(kind: str) -> bool:
    return kind == "case.closed"


def closing_follow(event: Event) -> None:
    """Attribute the case that this event closed as recovered; doing it again changes nothing."""
    if event.to_state != CaseStatus.RECOVERED:
        return
    case = Case.objects.filter(public_id=event.subject_id, status=CaseStatus.RECOVERED).first()
    if case is not None:
        case_attribute(case)


CONSUMER = Consumer(name=ATTRIBUTION, wants=closing_wanted, handle=closing_follow)


def case_attribute(case: Case) -> Attribution:
    """Work out a recovered case's source from its invoice's history, and keep it."""
    assert case.closed_at is not None
    found = attribute(payment_of(case), touches_of(case, case.closed_at))
    message = Message.objects.filter(public_id=found.message).first() if found.message else None
    CaseAttribution.objects.update_or_create(
        case=case,
        defaults={
            "merchant_id": case.merchant_id,
            "source": found.source.value,
            "message": message,
            "why": found.why,
            "rule": RULE,
            "amount_minor": case.recovered_minor,
            "currency": case.currency,
            "recovered_at": case.closed_at,
        },
    )
    return found


def payment_of(case: Case) -> Payment:
    """The attempt that paid the case, or that none is known."""
    assert case.closed_at is not None
    paid = Attempt.objects.filter(
        invoice_id=case.invoice_id, kind=TransactionKind.CHARGE, status=AttemptStatus.SUCCEEDED
    )
    attempt = paid.filter(attempted_at__gte=case.opened_at).order_by("-attempted_at", "-pk").first()
    if attempt is None:
        return Payment(at=case.closed_at, ours=False)
    return Payment(at=attempt.attempted_at, ours=attempt.origin == Origin.OURS, trigger=attempt.trigger)


def touches_of(case: Case, until: datetime) -> list[Touch]:
    """Every touch of the case's life, from the invoice's chain."""
    events = Event.objects.filter(invoice_id=case.invoice_id, kind__in=_TOUCHES, occurred_at__lte=until)
    rows = events.order_by("seq").values_list("kind", "occurred_at", "data")
    return [Touch(_TOUCHES[kind], at, str(data.get("message", ""))) for kind, at, data in rows]


def cases_attribute(*, merchant_pk: int | None = None) -> dict[str, int]:
    """Work out every recovery again, by the rule of today; how many there are and how many changed."""
    cases = Case.objects.filter(status=CaseStatus.RECOVERED)
    if merchant_pk is not None:
        cases = cases.filter(merchant_id=merchant_pk)
    counts = {"cases": 0, "changed": 0}
    for case in cases.order_by("pk").iterator(chunk_size=500):
        before = CaseAttribution.objects.filter(case=case).values_list("source", "message__public_id", "rule").first()
        found = case_attribute(case)
        counts["cases"] += 1
        counts["changed"] += before != (found.source.value, found.message or None, RULE)
    return counts
