"""From a case's story to its messages: planned when it opens, asked again after failures, dropped when it closes."""

from datetime import datetime

from django.db.models import F

from invoices.models import Event
from invoices.outbox import Consumer
from notifications.models import Message
from notifications.selectors import segment_policy
from notifications.states import MessageStatus
from retries.models import Case
from retries.states import CaseStatus

MESSAGES = "messages"
_OPENED, _CLOSED = "case.opened", "case.closed"
# What can make a message due that waited for something to happen.
_NEWS = frozenset(
    {"attempt.decline", "attempt.decline_named", "attempt.error", "invoice.fail", "invoice.reverse", "staff.resume"}
)


def planning_wanted(kind: str) -> bool:
    """True for events after which a case's messages may have to be planned, asked again or dropped."""
    return kind in _NEWS or kind in (_OPENED, _CLOSED)


def messages_follow(event: Event) -> None:
    """Keep the planned messages in step with an event of their invoice; doing it again changes nothing."""
    if event.kind == _OPENED:
        case = Case.objects.select_related("policy_version").filter(public_id=event.subject_id).first()
        if case is not None and case.status == CaseStatus.OPEN:
            _plan(case)
    elif event.kind == _CLOSED:
        _drop(event.subject_id, event.data.get("reason", ""))
    else:
        waiting = Message.objects.filter(invoice_id=event.invoice_id, status=MessageStatus.PLANNED, due_at=None)
        waiting.update(due_at=F("planned_for"))


CONSUMER = Consumer(name=MESSAGES, wants=planning_wanted, handle=messages_follow)


def _plan(case: Case) -> None:
    """One row per step of the policy that the case is pinned to."""
    steps = segment_policy(case).messages
    Message.objects.bulk_create(
        [
            Message(
                merchant_id=case.merchant_id,
                customer_id=case.customer_id,
                invoice_id=case.invoice_id,
                case=case,
                step=number,
                audience=step.audience.value,
                template=step.template,
                segment=case.segment,
                planned_for=case.opened_at + step.after,
                due_at=case.opened_at + step.after,
            )
            for number, step in enumerate(steps)
        ],
        ignore_conflicts=True,
    )


def _drop(case_id: str, reason: str) -> None:
    """What was planned for a closed case is not needed any more."""
    why = "Paid before it was due." if reason == "paid" else "The case was closed before it was due."
    planned = Message.objects.filter(case__public_id=case_id, status=MessageStatus.PLANNED)
    planned.update(status=MessageStatus.CANCELED, why=why, due_at=None)


def messages_due(now: datetime, limit: int) -> list[int]:
    """Primary keys of planned messages to look at, those first whose time came first."""
    due = Message.objects.filter(status=MessageStatus.PLANNED, due_at__lte=now)
    return list(due.order_by("due_at", "pk").values_list("pk", flat=True)[:limit])
