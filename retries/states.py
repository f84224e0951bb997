"""States of cases and retry jobs, and the names of every next step (DESIGN sections 1 and 5)."""

from django.db import models

from recovery_site.common.states import Move


class CaseStatus(models.TextChoices):
    OPEN = "OPEN", "Open"
    RECOVERED = "RECOVERED", "Recovered"
    LOST = "LOST", "Lost"
    CANCELED = "CANCELED", "Canceled"
    WRITTEN_OFF = "WRITTEN_OFF", "Written off"


class NextStep(models.TextChoices):
    """Promise 3: an open invoice has exactly one of these."""

    BOOKED = "booked", "Retry booked"
    QUEUED = "queued", "Queued behind another invoice"
    SENDING = "sending", "Sending"
    AWAITING = "awaiting", "Awaiting settlement"
    RESOLVING = "resolving", "Resolving an unknown result"
    PROVIDER = "provider", "The provider retries by itself"
    PAUSED = "paused", "Paused"
    CUSTOMER = "customer", "Waiting for the customer"
    STAFF = "staff", "In the staff queue"
    NONE = "none", "Nothing left to do"


# Steps that a machine takes at a time of its own.
MOVING = (NextStep.BOOKED, NextStep.SENDING, NextStep.AWAITING, NextStep.RESOLVING)


class JobStatus(models.TextChoices):
    QUEUED = "QUEUED", "Queued"
    SCHEDULED = "SCHEDULED", "Scheduled"
    RUNNING = "RUNNING", "Running"
    DONE = "DONE", "Done"
    EXHAUSTED = "EXHAUSTED", "Exhausted"
    PAUSED = "PAUSED", "Paused"
    NEEDS_REVIEW = "NEEDS_REVIEW", "Needs review"
    CANCELED = "CANCELED", "Canceled"


class BulkAction(models.TextChoices):
    """What a person may do to many invoices at once."""

    RETRY = "retry", "Retry"
    PAUSE = "pause", "Pause"
    RESUME = "resume", "Resume"
    CANCEL = "cancel", "Cancel"


class BulkStatus(models.TextChoices):
    WAITING = "WAITING", "Waiting"
    DONE = "DONE", "Done"
    REFUSED = "REFUSED", "Refused"
    SKIPPED = "SKIPPED", "Not worked"


class TokenRule(models.TextChoices):
    """Which payment method a bulk retry uses, for each customer anew."""

    BEST = "best", "The best one"
    OTHER = "other", "Another one than last time"


JOB_OPEN = (
    JobStatus.QUEUED,
    JobStatus.SCHEDULED,
    JobStatus.RUNNING,
    JobStatus.PAUSED,
    JobStatus.NEEDS_REVIEW,
)
# Jobs that hold their customer's slot.
JOB_SLOT = (JobStatus.SCHEDULED, JobStatus.RUNNING)

CASE_MOVES = (
    Move(
        "recover",
        (CaseStatus.OPEN, CaseStatus.LOST, CaseStatus.CANCELED, CaseStatus.WRITTEN_OFF),
        CaseStatus.RECOVERED,
    ),
    Move("lose", (CaseStatus.OPEN,), CaseStatus.LOST),
    Move("cancel", (CaseStatus.OPEN,), CaseStatus.CANCELED),
    Move("write_off", (CaseStatus.OPEN,), CaseStatus.WRITTEN_OFF),
)

JOB_MOVES = (
    Move(
        "schedule",
        (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.NEEDS_REVIEW),
        JobStatus.SCHEDULED,
    ),
    Move(
        "queue",
        (JobStatus.SCHEDULED, JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.NEEDS_REVIEW),
        JobStatus.QUEUED,
    ),
    Move("run", (JobStatus.SCHEDULED,), JobStatus.RUNNING),
    Move("finish", (JobStatus.RUNNING, JobStatus.NEEDS_REVIEW), JobStatus.DONE),
    Move("exhaust", (JobStatus.RUNNING, JobStatus.NEEDS_REVIEW), JobStatus.EXHAUSTED),
    Move("need_review", (JobStatus.RUNNING,), JobStatus.NEEDS_REVIEW),
    Move("pause", (JobStatus.QUEUED, JobStatus.SCHEDULED), JobStatus.PAUSED),
    Move("cancel", JOB_OPEN, JobStatus.CANCELED),
)
