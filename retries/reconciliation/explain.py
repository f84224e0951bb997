"""`reconcile --dry-run`: what a tick would do to each row and why. Nothing is written and no provider is asked."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db import transaction

from invoices.models import Attempt, Connection
from invoices.selectors.parties import asking_obstacle, attempt_account
from invoices.states import AttemptStatus, TransactionKind
from retries.models import Case
from retries.reconciliation.rows import (
    attempts_open,
    attempts_resting,
    cases_over,
    cases_repaired,
    cases_unreported,
    cases_without_step,
    invoices_homeless,
    leases_over,
    questions_waiting,
    slots_without_owner,
)
from retries.reconciliation.scan import connections_to_scan
from retries.reconciliation.sweep import case_replan
from retries.refunding.resolve import refund_orphans

Line = dict[str, Any]


def reconcile_explain(*, now: datetime, limit: int = 1_000) -> list[Line]:
    """One line per row, phase by phase, at most `limit` of each kind: `phase`, `row`, `would`, `why`.

    New steps of cases are found by taking them and taking them back.
    """
    lines = []
    for kind in (TransactionKind.CHARGE, TransactionKind.REFUND):
        lines += [_lease(attempt) for attempt in leases_over(kind)[:limit]]
        due = attempts_open(kind, AttemptStatus.UNKNOWN, AttemptStatus.AWAITING).filter(next_check_at__lte=now)
        resting = set(attempts_resting(due, now).values_list("pk", flat=True)[:limit])
        looked = due.select_related("connection", "gateway").order_by("next_check_at")[:limit]
        lines += [_look(attempt, rests=attempt.pk in resting) for attempt in looked]
    for attempt_pk in refund_orphans(now).values_list("public_id", flat=True)[:limit]:
        why = "the refund was never sent, and nothing will send it"
        lines.append({"phase": "refunds", "row": attempt_pk, "would": "fail the refund", "why": why})
    lines += list(_steps(now, limit))
    for job in slots_without_owner()[:limit]:
        why = "its customer's slot is free and invoices wait"
        lines.append({"phase": "slots", "row": job.public_id, "would": "give the slot away", "why": why})
    names = Connection.objects.in_bulk(list(connections_to_scan()))
    for account in names.values():
        why = f"its payments were compared up to {account.scanned_until or 'never'}"
        lines.append({"phase": "scan", "row": account.public_id, "would": "list the provider's payments", "why": why})
    for item in questions_waiting(now)[:limit]:
        why = f"{item.get_kind_display()}: open since {item.opened_at:%Y-%m-%d %H:%M}"
        lines.append({"phase": "staff", "row": item.public_id, "would": "remind staff", "why": why})
    return lines


def _phase(attempt: Attempt) -> str:
    return "charges" if attempt.kind == TransactionKind.CHARGE else "refunds"


def _lease(attempt: Attempt) -> Line:
    why = f"its worker gave no result before its lease ended at {attempt.lease_until}"
    return {"phase": _phase(attempt), "row": attempt.public_id, "would": "count it as UNKNOWN", "why": why}


def _look(attempt: Attempt, *, rests: bool) -> Line:
    account = attempt_account(attempt)
    if rests:
        would, why = "nothing", f"{account} is switched off or paused"
    elif obstacle := asking_obstacle(account):
        would, why = "ask staff after a day", f"{account} cannot be asked: {obstacle}"
    else:
        by = "its id" if attempt.provider_id else "our reference"
        would = f"ask {account.provider} by {by}"
        why = f"it is {attempt.get_status_display().lower()} and was due for a look at {attempt.next_check_at}"
    return {"phase": _phase(attempt), "row": attempt.public_id, "would": would, "why": why}


def _steps(now: datetime, limit: int) -> Iterator[Line]:
    kinds = (
        (cases_without_step(), "no row carries its next step"),
        (cases_over(now), "its time to wait is over"),
        (cases_unreported(now), "the merchant has not reported the charge that was due"),
        (cases_repaired(), "its connection works again"),
    )
    for rows, why in kinds:
        for pk in rows.order_by("pk").values_list("pk", flat=True)[:limit]:
            yield {"phase": "steps", **_replanned(pk, now), "why": why}
    for invoice in invoices_homeless()[:limit]:
        why = "it is open and nothing is planned for it"
        yield {"phase": "steps", "row": invoice.public_id, "would": "ask staff", "why": why}


def _replanned(case_pk: int, now: datetime) -> Line:
    with transaction.atomic():
        case_replan(case_pk, now)
        case = Case.objects.get(pk=case_pk)
        transaction.set_rollback(True)
    at = f" at {case.next_step_at:%Y-%m-%d %H:%M}" if case.next_step_at else ""
    return {"row": case.public_id, "would": f"plan: {case.get_next_step_display().lower()}{at}. {case.why}"}
