"""Which rows each phase of reconciliation is about: the same for the sweep and for `--dry-run`."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet

from invoices.models import Attempt, Event, Invoice, ReviewItem
from invoices.states import ATTEMPT_OPEN, AttemptStatus, ConnectionMode, InvoiceStatus, ReviewKind, TransactionKind
from recovery_site.common.db import DatabaseClock
from retries.categories import Category, Scope
from retries.models import Case, RetryJob
from retries.states import JOB_SLOT, CaseStatus, JobStatus, NextStep
from tokens.models import Token
from tokens.states import TokenStatus

# A merchant that charges by itself has this long to say what came of a charge that was due.
UNREPORTED_AFTER = timedelta(days=1)


# An attempt that nobody could be asked about for this long is a question for staff.
STAFF_AFTER = timedelta(hours=24)
_SHUT = (Q(gateway=None) & (Q(connection__enabled=False) | ~Q(connection__paused_reason=""))) | (
    Q(gateway__isnull=False) & (Q(gateway__enabled=False) | ~Q(gateway__paused_reason=""))
)
_ASKED = ReviewItem.objects.filter(invoice=OuterRef("invoice"), subject_id=OuterRef("public_id"), resolved_at=None)


def leases_over(kind: TransactionKind) -> QuerySet[Attempt]:
    """Attempts whose worker gave no result while its lease ran."""
    return Attempt.objects.filter(kind=kind, status=AttemptStatus.SENDING, lease_until__lt=DatabaseClock())


def attempts_open(kind: TransactionKind, *statuses: AttemptStatus) -> QuerySet[Attempt]:
    """Attempts that the provider has to be asked about."""
    return Attempt.objects.filter(kind=kind, status__in=statuses)


def attempts_resting(rows: QuerySet[Attempt], now: datetime) -> QuerySet[Attempt]:
    """Those of them whose account cannot be asked, as it is switched off or paused, and that need nobody yet: for a day
    they wait for it, then staff are asked once, and their answer or the account is waited for."""
    return rows.filter(_SHUT).filter(Q(_silent(now)) & Q(Exists(_ASKED)) | ~_silent(now))


def _silent(now: datetime) -> Q:
    since = now - STAFF_AFTER
    return Q(status=AttemptStatus.UNKNOWN, attempted_at__lt=since) | Q(
        status=AttemptStatus.AWAITING, expected_by__lt=since
    )


def cases_without_step() -> QuerySet[Case]:
    """Open cases that claim a step which no row carries."""
    jobs = RetryJob.objects.filter(case=OuterRef("pk"))
    flights = Attempt.objects.filter(invoice=OuterRef("invoice"), kind=TransactionKind.CHARGE)
    questions = ReviewItem.objects.filter(invoice=OuterRef("invoice"), resolved_at__isnull=True)
    return Case.objects.filter(status=CaseStatus.OPEN).filter(
        Q(next_step=NextStep.BOOKED) & ~Exists(jobs.filter(status__in=JOB_SLOT))
        | Q(next_step=NextStep.QUEUED) & ~Exists(jobs.filter(status=JobStatus.QUEUED))
        | Q(next_step=NextStep.SENDING) & ~Exists(flights.filter(status=AttemptStatus.SENDING))
        | Q(next_step=NextStep.AWAITING) & ~Exists(flights.filter(status=AttemptStatus.AWAITING))
        | Q(next_step=NextStep.RESOLVING) & ~Exists(flights.filter(status=AttemptStatus.UNKNOWN))
        | Q(next_step=NextStep.PAUSED, paused_by="")
        | Q(next_step=NextStep.STAFF) & ~Exists(questions)
    )


def cases_over(now: datetime) -> QuerySet[Case]:
    """Open cases that have waited for the customer or the provider until now."""
    waiting = (NextStep.CUSTOMER, NextStep.PROVIDER)
    return Case.objects.filter(status=CaseStatus.OPEN, next_step__in=waiting, next_step_at__lte=now)


def cases_unreported(now: datetime) -> QuerySet[Case]:
    """The merchant was told when to charge and has not said what came of it: told again until the policy's horizon."""
    return Case.objects.filter(
        status=CaseStatus.OPEN,
        next_step=NextStep.BOOKED,
        next_step_at__lte=now - UNREPORTED_AFTER,
        connection__mode=ConnectionMode.SCHEDULE,
    )


def cases_repaired() -> QuerySet[Case]:
    """Cases that waited for a connection which works again.

    Only a person can tell when a mistake in one invoice or token is repaired.
    """
    own_mistake = Q(category=Category.CONFIG_ERROR) & ~Q(failure__verdict__scope=Scope.CONNECTION)
    held = Token.objects.filter(customer=OuterRef("customer"), status=TokenStatus.HELD)
    return Case.objects.filter(
        status=CaseStatus.OPEN,
        next_step=NextStep.PAUSED,
        paused_by="configuration",
        connection__enabled=True,
        connection__paused_reason="",
    ).exclude(own_mistake | Q(Exists(held)))


def invoices_homeless() -> QuerySet[Invoice]:
    """Open invoices without case, open charge or question."""
    return Invoice.objects.filter(
        ~Exists(Case.objects.filter(invoice=OuterRef("pk"), status=CaseStatus.OPEN)),
        ~Exists(Attempt.objects.filter(invoice=OuterRef("pk"), kind="CHARGE", status__in=ATTEMPT_OPEN)),
        ~Exists(ReviewItem.objects.filter(invoice=OuterRef("pk"), kind=ReviewKind.NO_PLAN, resolved_at=None)),
        status=InvoiceStatus.PROCESSING,
    )


def slots_without_owner() -> QuerySet[RetryJob]:
    """Queued jobs of customers whose slot nobody holds."""
    holders = RetryJob.objects.filter(customer=OuterRef("customer"), kind=TransactionKind.CHARGE, status__in=JOB_SLOT)
    return RetryJob.objects.filter(~Exists(holders), kind=TransactionKind.CHARGE, status=JobStatus.QUEUED)


def questions_waiting(now: datetime) -> QuerySet[ReviewItem]:
    """Questions that nobody has answered for too long, and that nobody was reminded of."""
    reminded = Event.objects.filter(
        invoice=OuterRef("invoice"), kind="alert.staff_waits", subject_id=OuterRef("public_id")
    )
    return ReviewItem.objects.filter(
        ~Exists(reminded),
        resolved_at=None,
        invoice__isnull=False,
        opened_at__lte=now - settings.STAFF_QUEUE_ALERT_AFTER,
    )
