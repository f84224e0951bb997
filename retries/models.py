"""Cases, retry jobs and the policies they follow."""

from functools import partial

import pgtrigger
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django_fsm import FSMField, FSMModelMixin, transition

from accounts.models import Merchant
from invoices.models import Attempt, Connection, Customer, Invoice, Transaction
from invoices.states import TransactionKind, Trigger
from recovery_site.common.ids import public_id
from recovery_site.common.states import move_arguments, state_triggers
from retries.states import (
    CASE_MOVES,
    JOB_MOVES,
    JOB_OPEN,
    JOB_SLOT,
    MOVING,
    BulkAction,
    BulkStatus,
    CaseStatus,
    JobStatus,
    NextStep,
    TokenRule,
)
from tokens.models import Token

_case = move_arguments(CASE_MOVES)
_job = move_arguments(JOB_MOVES)


class PolicyVersion(models.Model):
    """One immutable version of a merchant's policy document; the highest version is in force for new cases."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    version = models.PositiveIntegerField()
    document = models.JSONField()
    note = models.CharField(max_length=200, blank=True, default="")
    created_by = models.CharField(max_length=100, default="system")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["merchant", "version"], name="policy_version_once")]

    def __str__(self) -> str:
        return f"{self.merchant} v{self.version}"


class DeclineOverride(models.Model):
    """A merchant's own reading of one decline code; the newest version per code is in force.

    A version without a category takes the override back: the shipped table counts again.
    """

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    provider = models.CharField(max_length=40)
    code = models.CharField(max_length=100)
    version = models.PositiveIntegerField()
    category = models.CharField(max_length=30, blank=True, default="")
    note = models.CharField(max_length=200, blank=True, default="")
    created_by = models.CharField(max_length=100)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["merchant", "provider", "code", "version"], name="decline_override_once")
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.code}: {self.category or 'as shipped'}"


class Case(FSMModelMixin, models.Model):
    """One invoice's failure episode. `next_step` and `why` are what a person reads first."""

    merchant = models.ForeignKey(
        Merchant, on_delete=models.PROTECT, db_constraint=False, related_name="+", db_index=False
    )
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, db_constraint=False, related_name="+")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, db_constraint=False, related_name="+")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, db_constraint=False, related_name="cases")
    policy_version = models.ForeignKey(PolicyVersion, on_delete=models.PROTECT, db_constraint=False, related_name="+")
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "cas"), editable=False)
    status = FSMField(max_length=12, choices=CaseStatus.choices, default=CaseStatus.OPEN, protected=True)
    segment = models.CharField(max_length=40, default="standard")
    # The failure that rules the plan now: its category, and when and how it was told.
    category = models.CharField(max_length=30, blank=True, default="")
    code = models.CharField(max_length=100, blank=True, default="")
    first_category = models.CharField(max_length=30, blank=True, default="")
    first_code = models.CharField(max_length=100, blank=True, default="")
    # The ruling failure with what classification made of it (retries.decisions.Failure as JSON).
    failure = models.JSONField(default=dict, blank=True)
    # No automatic charge before this instant: the invoice of this payment may still be named by another event.
    hold_until = models.DateTimeField(null=True, blank=True)
    amount_minor = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    next_step = models.CharField(max_length=10, choices=NextStep.choices, default=NextStep.STAFF)
    next_step_at = models.DateTimeField(null=True, blank=True)
    why = models.CharField(max_length=500, blank=True, default="")
    exhausted_at = models.DateTimeField(null=True, blank=True)
    # A lost dispute or a return that may not be re-presented: no automatic charge any more (DESIGN section 5).
    automatic_barred = models.BooleanField(default=False)
    paused_by = models.CharField(max_length=100, blank=True, default="")
    opened_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)
    close_reason = models.CharField(max_length=60, blank=True, default="")
    recovered_minor = models.BigIntegerField(default=0)
    recovered_by = models.CharField(max_length=20, blank=True, default="")
    # What the invoice of an open case owes, kept by the database alone (case_due below, migration 0011): adding it up
    # over all open cases then reads one index and no invoice.
    due_minor = models.BigIntegerField(db_default=0, editable=False)
    due_currency = models.CharField(max_length=3, db_default="", editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            # A case of the past is opened with its end known already, maybe beside the one that is open now.
            models.UniqueConstraint(
                fields=["invoice"],
                condition=Q(status=CaseStatus.OPEN, closed_at=None),
                name="case_one_open_per_invoice",
            ),
            models.CheckConstraint(
                condition=~Q(status=CaseStatus.OPEN) | ~Q(next_step=NextStep.NONE),
                name="case_open_has_next_step",
            ),
        ]
        indexes = [
            models.Index(fields=["merchant", "opened_at"], name="case_by_opened"),
            models.Index(fields=["merchant", "created_at", "id"], name="case_by_created"),
            models.Index(fields=["merchant", "closed_at"], name="case_by_closed"),
            models.Index(fields=["merchant", "category", "-id"], name="case_by_category"),
            models.Index(fields=["merchant", "segment", "-id"], name="case_by_segment"),
            models.Index(
                fields=["next_step", "next_step_at"],
                name="case_due_step",
                condition=Q(status=CaseStatus.OPEN),
            ),
            # The work queues: whose step it is, what waits for a repair, what is late. The first one also holds all
            # that is added up over the open cases.
            models.Index(
                fields=["merchant", "next_step", "id"],
                include=["first_category", "due_currency", "due_minor", "opened_at"],
                name="case_by_step",
                condition=Q(status=CaseStatus.OPEN),
            ),
            models.Index(
                fields=["merchant", "id"],
                name="case_by_repair",
                condition=Q(status=CaseStatus.OPEN, next_step=NextStep.PAUSED, paused_by="configuration"),
            ),
            models.Index(
                fields=["merchant", "next_step_at"],
                name="case_moving",
                condition=Q(status=CaseStatus.OPEN, next_step__in=MOVING),
            ),
        ]
        triggers = [
            *state_triggers("case", CASE_MOVES, CaseStatus.OPEN),
            pgtrigger.Trigger(
                name="case_due",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                func="SELECT GREATEST(0, amount_minor - paid_minor - credited_minor), currency"
                " INTO NEW.due_minor, NEW.due_currency FROM invoices_invoice WHERE id = NEW.invoice_id; RETURN NEW;",
            ),
        ]

    def __str__(self) -> str:
        return self.public_id

    @transition(field=status, **_case["recover"])
    def recover(self) -> None: ...

    @transition(field=status, **_case["lose"])
    def lose(self) -> None: ...

    @transition(field=status, **_case["cancel"])
    def cancel(self) -> None: ...

    @transition(field=status, **_case["write_off"])
    def write_off(self) -> None: ...


class RetryJob(FSMModelMixin, models.Model):
    """The schedule of a transaction's next attempt. The rows are the queue; leases are on the database clock."""

    merchant = models.ForeignKey(
        Merchant, on_delete=models.PROTECT, db_constraint=False, related_name="+", db_index=False
    )
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, db_constraint=False, related_name="+")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, db_constraint=False, related_name="+")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, db_constraint=False, related_name="jobs")
    transaction = models.ForeignKey(Transaction, on_delete=models.PROTECT, db_constraint=False, related_name="jobs")
    case = models.ForeignKey(
        Case, on_delete=models.PROTECT, db_constraint=False, null=True, blank=True, related_name="jobs"
    )
    token = models.ForeignKey(
        Token, on_delete=models.PROTECT, db_constraint=False, null=True, blank=True, related_name="+"
    )
    attempt = models.ForeignKey(
        Attempt,
        on_delete=models.PROTECT,
        db_constraint=False,
        null=True,
        blank=True,
        related_name="jobs",
        help_text="Set by step 2.",
    )
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "job"), editable=False)
    kind = models.CharField(max_length=6, choices=TransactionKind.choices, default=TransactionKind.CHARGE)
    status = FSMField(max_length=12, choices=JobStatus.choices, default=JobStatus.QUEUED, protected=True)
    trigger = models.CharField(max_length=12, choices=Trigger.choices, default=Trigger.AUTOMATIC)
    due_at = models.DateTimeField()
    band = models.PositiveSmallIntegerField(default=5)
    expected_value_minor = models.BigIntegerField(default=0)
    why = models.CharField(max_length=500, blank=True, default="")
    decision = models.JSONField(default=dict, blank=True)
    requested_by = models.CharField(max_length=100, default="system")
    claim_token = models.UUIDField(null=True, blank=True, default=None)
    lease_until = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=500, blank=True, default="")
    # How often in a row its preparation raised; staff are asked before it would go on for ever.
    failures = models.PositiveSmallIntegerField(default=0, db_default=0)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["customer"],
                condition=Q(kind=TransactionKind.CHARGE, status__in=JOB_SLOT),
                name="job_slot_one_per_customer",
            ),
            models.UniqueConstraint(
                fields=["transaction"], condition=Q(status__in=JOB_OPEN), name="job_one_open_per_transaction"
            ),
            models.CheckConstraint(condition=Q(band__lte=9), name="job_band_0_to_9"),
        ]
        indexes = [
            # One lane per connection: one that may not be charged now is passed over without reading its jobs.
            models.Index(
                fields=["merchant", "connection", "band", "due_at"],
                name="job_due",
                condition=Q(status=JobStatus.SCHEDULED),
            ),
            models.Index(fields=["lease_until"], name="job_running", condition=Q(status=JobStatus.RUNNING)),
            models.Index(fields=["merchant", "-id"], name="job_by_merchant"),
            models.Index(fields=["merchant", "created_at", "id"], name="job_by_created"),
            models.Index(fields=["customer", "id"], name="job_waiting", condition=Q(status=JobStatus.QUEUED)),
        ]
        triggers = state_triggers("job", JOB_MOVES, (JobStatus.QUEUED, JobStatus.SCHEDULED))

    def __str__(self) -> str:
        return self.public_id

    @transition(field=status, **_job["schedule"])
    def schedule(self) -> None: ...

    @transition(field=status, **_job["queue"])
    def queue(self) -> None: ...

    @transition(field=status, **_job["run"])
    def run(self) -> None: ...

    @transition(field=status, **_job["finish"])
    def finish(self) -> None: ...

    @transition(field=status, **_job["exhaust"])
    def exhaust(self) -> None: ...

    @transition(field=status, **_job["need_review"])
    def need_review(self) -> None: ...

    @transition(field=status, **_job["pause"])
    def pause(self) -> None: ...

    @transition(field=status, **_job["cancel"])
    def cancel(self) -> None: ...


class ProviderGate(models.Model):
    """Whether a connection's provider may be called now: its rate limit, its Retry-After, its circuit breaker.

    Made with the first trouble or the first limited call; a connection without a row is open. `next_free_at` lives on
    the database clock, because a rate is a fact of real time; what decides when a retry is due is on the service's.
    """

    connection = models.OneToOneField(Connection, on_delete=models.CASCADE, primary_key=True, related_name="gate")
    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    next_free_at = models.DateTimeField(null=True, blank=True)
    # The provider said "not before" (429, Retry-After).
    asked_until = models.DateTimeField(null=True, blank=True)
    # Consecutive calls that failed for the provider's own reasons, weighed by how sure that is.
    strain = models.PositiveSmallIntegerField(default=0)
    strained_since = models.DateTimeField(null=True, blank=True)
    # The breaker: closed to calls until then, after which one call at a time tries it.
    shut_until = models.DateTimeField(null=True, blank=True)
    shut_times = models.PositiveSmallIntegerField(default=0)
    last_error = models.CharField(max_length=200, blank=True, default="")

    def __str__(self) -> str:
        return f"gate of {self.connection}"


class Outage(models.Model):
    """A time in which a connection's provider did not work. Tries that provably failed in it use up no policy."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    connection = models.ForeignKey(Connection, on_delete=models.PROTECT, related_name="outages")
    began_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    error = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["connection"], condition=Q(ended_at__isnull=True), name="outage_one_open_per_connection"
            )
        ]
        indexes = [models.Index(fields=["connection", "began_at"], name="outage_by_connection")]

    def __str__(self) -> str:
        return f"{self.connection} from {self.began_at:%Y-%m-%d %H:%M}"


class BulkRun(models.Model):
    """One decision of a person about many invoices of a merchant; its items are worked one by one, each on its own."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "blk"), editable=False)
    action = models.CharField(max_length=10, choices=BulkAction.choices)
    token_rule = models.CharField(max_length=10, choices=TokenRule.choices, default=TokenRule.BEST)
    due_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=180)
    actor = models.CharField(max_length=100)
    total = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)
    stopped_by = models.CharField(max_length=100, blank=True, default="")

    class Meta:
        indexes = [
            models.Index(fields=["created_at"], name="bulk_run_open", condition=Q(finished_at__isnull=True)),
        ]

    def __str__(self) -> str:
        return f"{self.get_action_display()} of {self.total} invoices"


class BulkItem(models.Model):
    """One invoice of a bulk run and what became of it."""

    merchant = models.ForeignKey(Merchant, on_delete=models.PROTECT, related_name="+")
    run = models.ForeignKey(BulkRun, on_delete=models.CASCADE, related_name="items")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="+")
    status = models.CharField(max_length=8, choices=BulkStatus.choices, default=BulkStatus.WAITING)
    message = models.CharField(max_length=500, blank=True, default="")
    worked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "invoice"], name="bulk_item_once")]
        indexes = [
            models.Index(fields=["run", "id"], name="bulk_item_waiting", condition=Q(status=BulkStatus.WAITING)),
        ]

    def __str__(self) -> str:
        return f"{self.invoice}: {self.get_status_display()}"


class Beat(models.Model):
    """A worker's sign of life, per sweep."""

    name = models.CharField(max_length=60, primary_key=True)
    at = models.DateTimeField()
    data = models.JSONField(default=dict)

    def __str__(self) -> str:
        return self.name
