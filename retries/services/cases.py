"""Failure episodes: opened at the first failure, carrying what rules the plan, closed with a reason."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max

from invoices.models import Attempt, Invoice
from invoices.services.ledger import Stamp, alert, record_event
from invoices.states import AttemptStatus, InvoiceStatus, Origin
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.errors import Conflict
from recovery_site.common.rows import row_insert, row_save
from retries.classification import Classification
from retries.locking import Scope, open_case
from retries.models import Case, PolicyVersion
from retries.policy import parse_policy, preset_document
from retries.segments import segment_of
from retries.selectors import case_policy, policy_of, segment_facts, verdict_to_json
from retries.states import CaseStatus, NextStep


def case_ensure(scope: Scope, *, opened_at: datetime, stamp: Stamp) -> Case:
    """The invoice's open case, opened now if there is none: segment and policy version are pinned at opening.

    Writes `case.opened`, and an alert where the segment wants one at the first failure.
    """
    return open_case(scope.invoice) or case_begin(scope, opened_at=opened_at, stamp=stamp)


def case_begin(scope: Scope, *, opened_at: datetime, stamp: Stamp) -> Case:
    """As `case_ensure`, for an invoice that is known to have no open case."""
    case = _open(scope, opened_at=opened_at, amount_minor=scope.invoice.due_minor, stamp=stamp)
    if case_policy(case).alerts_at_first_failure(case.segment):
        segment = case.segment.replace("_", " ")
        alert(scope.invoice, "first_failure", f"First failure of a customer in segment {segment}.", stamp)
    return case


def _open(
    scope: Scope, *, opened_at: datetime, amount_minor: int, stamp: Stamp, closed_at: datetime | None = None
) -> Case:
    invoice = scope.invoice
    version = policy_version_current(invoice.merchant_id)
    policy = policy_of(version)
    segment = segment_of(policy.segments, segment_facts(scope.customer, invoice, stamp.now))
    case = Case(
        merchant_id=invoice.merchant_id,
        connection_id=invoice.connection_id,
        customer_id=invoice.customer_id,
        invoice=invoice,
        policy_version=version,
        segment=segment,
        amount_minor=amount_minor,
        currency=invoice.currency,
        opened_at=opened_at,
        closed_at=closed_at,
        next_step=NextStep.STAFF,
        why="Has just failed; the next step is being decided.",
    )
    row_insert(case)
    record_event(
        invoice=invoice,
        kind="case.opened",
        stamp=stamp,
        subject_type="case",
        subject_id=case.public_id,
        to_state=case.status,
        data={"segment": segment, "policy_version": version.version, "amount_minor": case.amount_minor},
    )
    return case


def paid_after(invoice: Invoice, failed: Attempt) -> Attempt | None:
    """The first payment that came after a failed try, by the provider's own times."""
    paid = Attempt.objects.filter(
        invoice=invoice, kind=failed.kind, status=AttemptStatus.SUCCEEDED, attempted_at__gt=failed.attempted_at
    )
    return paid.order_by("attempted_at", "id").first()


def case_past(
    scope: Scope, verdict: Classification, *, attempt: Attempt, failed_at: datetime, code: str, stamp: Stamp
) -> None:
    """Note a failure that is told only after its invoice was closed with the case of its time; where there is none, one
    is opened and closed at once.

    So the order in which a provider tells a failure and its end makes no difference to what is counted. A decline that
    came after the payment opens nothing and changes nothing.
    """
    invoice = scope.invoice
    paid = paid_after(invoice, attempt)
    case = _case_then(invoice, attempt)
    if invoice.status == InvoiceStatus.CANCELED:
        end, reason = "write_off" if invoice.cancel_reason == "written_off" else "cancel", invoice.cancel_reason
    elif paid is not None:
        end, reason = "recover", "paid"
    elif case is None or case.status != CaseStatus.LOST:
        return
    if case is not None:
        case_note_failure(case, verdict, attempt=attempt, at=failed_at, code=code)
        return
    owed = invoice.amount_minor - invoice.credited_minor
    case = _open(scope, opened_at=failed_at, amount_minor=owed, stamp=stamp, closed_at=stamp.now)
    case_note_failure(case, verdict, attempt=attempt, at=failed_at, code=code)
    case_close(scope, case, end, reason=reason, stamp=stamp, attempt=paid)


def _case_then(invoice: Invoice, failed: Attempt) -> Case | None:
    """The case that a failed try belongs to: before the first payment the one that failures opened, later the last."""
    cases = list(Case.objects.filter(invoice=invoice).order_by("-opened_at", "-id"))
    if not Attempt.objects.filter(
        invoice=invoice, kind=failed.kind, status=AttemptStatus.SUCCEEDED, attempted_at__lt=failed.attempted_at
    ).exists():
        cases = [case for case in reversed(cases) if not _of_money_taken_back(case)]
    return cases[0] if cases else None


def _of_money_taken_back(case: Case) -> bool:
    """True for a case that a lost dispute or a bank return opened, not a failed try."""
    first = case.failure.get("first")
    return first is not None and first["attempt"] is None


_NEWEST_POLICY = Compiled(
    lambda: PolicyVersion.objects.filter(merchant=Param("merchant")).defer("document").order_by("-version")[:1]
)


def policy_version_current(merchant_id: int) -> PolicyVersion:
    """The merchant's newest policy; a merchant without one gets the shipped preset as version 1."""
    newest = _NEWEST_POLICY.first(merchant=merchant_id)
    if newest is not None:
        return newest
    version, _ = PolicyVersion.objects.get_or_create(
        merchant_id=merchant_id,
        version=1,
        defaults={"document": preset_document("standard"), "note": "Shipped preset: standard"},
    )
    return version


def policy_version_create(
    *, merchant_id: int, document: dict[str, object], note: str, created_by: str, based_on: int | None = None
) -> PolicyVersion:
    """Store a new version for cases opened from now on; running cases keep theirs.

    `based_on`: the version that was edited. Raises PolicyError, Conflict if somebody has saved another one meanwhile.
    """
    newest = PolicyVersion.objects.filter(merchant_id=merchant_id).aggregate(version=Max("version"))["version"] or 0
    parse_policy(document, default_max_attempts=settings.RETRY_MAX_ATTEMPTS)
    meanwhile = Conflict("Somebody saved another version meanwhile: compare with it, and start from there.")
    if based_on is not None and based_on != newest:
        raise meanwhile
    try:
        with transaction.atomic():
            return PolicyVersion.objects.create(
                merchant_id=merchant_id,
                version=newest + 1,
                document=document,
                note=note[:200],
                created_by=created_by[:100],
            )
    except IntegrityError as error:
        raise meanwhile from error


def case_note_failure(case: Case, verdict: Classification, *, attempt: Attempt, at: datetime, code: str) -> None:
    """Keep the failure that rules the plan from now on: the last one, by the provider's own time.

    An earlier try that is told late does not overrule it, but may turn out to be the first one of the case. A payment
    that was taken back (`attempt` has succeeded) rules like a failed try, and what was before it belongs to the past.
    """
    failed = None if attempt.status == AttemptStatus.SUCCEEDED else attempt.pk
    kept, known = case.failure.get("at"), "attempt" in case.failure
    same = known and case.failure["attempt"] == failed
    first = case.failure.get("first")
    if first is None and not case.first_category:
        first = {"at": at.isoformat(), "attempt": failed}
    is_first = first is not None and first["attempt"] is not None and datetime.fromisoformat(first["at"]) > at
    if is_first:
        first = {"at": at.isoformat(), "attempt": failed}
    if first is not None and first["attempt"] == failed:
        case.first_category, case.first_code = verdict.category.value, code[:100]
    told_late = kept is not None and datetime.fromisoformat(kept) > at
    if told_late and not same and (known or case.code):
        case.failure = {**case.failure, "first": first}
    else:
        case.failure = {
            "at": at.isoformat(),
            "token": attempt.token_id,
            "verdict": verdict_to_json(verdict),
            "attempt": failed,
            "first": first,
        }
        case.category, case.code = verdict.category.value, code[:100]
    row_save(case, "failure", "category", "code", "first_category", "first_code")


def case_set_step(
    case: Case,
    invoice: Invoice,
    step: NextStep,
    at: datetime | None,
    why: str,
    stamp: Stamp,
    *,
    tokens: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the case's next step and reason; an event only if something changed. `tokens`: those considered in vain."""
    if (case.next_step, case.next_step_at, case.why) == (step, at, why[:500]):
        return
    case.next_step, case.next_step_at, case.why = step, at, why[:500]
    record_event(
        invoice=invoice,
        kind="case.planned",
        stamp=stamp,
        subject_type="case",
        subject_id=case.public_id,
        data={
            "step": step.value,
            "at": at.isoformat() if at else None,
            "why": case.why,
            **({"considered": list(tokens)} if tokens else {}),
        },
        saves=(case, ["next_step", "next_step_at", "why"]),
    )


def case_close(
    scope: Scope,
    case: Case,
    move: str,
    *,
    reason: str,
    stamp: Stamp,
    attempt: Attempt | None = None,
    credited_minor: int = 0,
) -> None:
    """End an open case by `move` (recover, lose, cancel, write_off); writes `case.closed`.

    `credited_minor` of a recovered case was paid in another currency, so it is no recovered money of this one.
    """
    before = case.status
    getattr(case, move)()
    case.closed_at, case.close_reason = stamp.now, reason[:60]
    case.next_step, case.next_step_at, case.why = NextStep.NONE, None, reason[:500]
    case.paused_by = ""
    fields = ["status", "closed_at", "close_reason", "next_step", "next_step_at", "why", "paused_by"]
    if move == "recover":
        case.recovered_minor = max(0, case.amount_minor - credited_minor)
        case.recovered_by = _recovered_by(attempt)
        fields += ["recovered_minor", "recovered_by"]
    record_event(
        invoice=scope.invoice,
        kind="case.closed",
        stamp=stamp,
        subject_type="case",
        subject_id=case.public_id,
        from_state=before,
        to_state=case.status,
        data={"reason": reason, "recovered_by": case.recovered_by, "amount_minor": case.amount_minor},
        saves=(case, fields),
    )


def _recovered_by(attempt: Attempt | None) -> str:
    """retry, card_update, staff or customer for tries of ours or on our word; else provider or outside."""
    if attempt is None:
        return "outside"
    if attempt.origin != Origin.OURS and "job" not in attempt.decision:
        return attempt.origin.lower()
    return "retry" if attempt.trigger == "automatic" else attempt.trigger


def latest_case(invoice: Invoice) -> Case | None:
    return _LATEST.first(invoice=invoice.pk)


_LATEST = Compiled(lambda: Case.objects.filter(invoice=Param("invoice")).order_by("-opened_at", "-id")[:1])
