"""Rollups: what the dashboards read instead of the ledger. Every row can be computed again from it at any time."""

from functools import partial

from django.db import models

from accounts.models import Merchant
from analytics.charts import percent
from analytics.spikes.detect import Dimension, Subject
from analytics.spikes.words import share_words
from invoices.models import Connection
from recovery_site.common.db import TransactionIdField
from recovery_site.common.ids import public_id


class RollupPosition(models.Model):
    """The one row of the follower: every event up to here, in (xid, id) order, has been taken into account."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    xid = TransactionIdField()
    event_id = models.BigIntegerField(default=0)
    advanced_at = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="rollup_position_single_row")]

    def __str__(self) -> str:
        return f"event {self.event_id}"


class RollupZone(models.Model):
    """A merchant whose rollups are whole, and the time zone in which their days were cut."""

    merchant = models.OneToOneField(Merchant, on_delete=models.CASCADE, primary_key=True, related_name="+")
    timezone = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"{self.merchant_id} in {self.timezone}"


class _Rollup(models.Model):
    """One local day of one connection. No single-column indexes: every read names merchant, facet and day."""

    merchant = models.ForeignKey(Merchant, on_delete=models.CASCADE, related_name="+", db_index=False)
    day = models.DateField()
    connection = models.ForeignKey(Connection, on_delete=models.CASCADE, related_name="+", db_index=False)

    class Meta:
        abstract = True


class AttemptRollup(_Rollup):
    """Charge attempts by the day they were made; `facet` says what `key` is (analytics/rollups/sql.py)."""

    facet = models.CharField(max_length=10)
    key = models.CharField(max_length=100)
    category = models.CharField(max_length=30)
    attempts = models.PositiveIntegerField()
    succeeded = models.PositiveIntegerField()
    declined = models.PositiveIntegerField()
    errored = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "facet", "day", "connection", "key", "category"], name="attempt_rollup_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.facet} {self.key}"


class CaseRollup(_Rollup):
    """Cases by the day they opened, as they stand."""

    facet = models.CharField(max_length=10)
    key = models.CharField(max_length=100)
    category = models.CharField(max_length=30)
    currency = models.CharField(max_length=3)
    status = models.CharField(max_length=12)
    cases = models.PositiveIntegerField()
    amount_minor = models.BigIntegerField()
    recovered_minor = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "facet", "day", "connection", "key", "category", "currency", "status"],
                name="case_rollup_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.facet} {self.key} {self.status}"


class HourRollup(_Rollup):
    """Charge attempts that have an answer, or should have had one, by the hour: what spikes are found with.

    `facet` is all, country or code; `again` is false for the invoice's first attempt.
    """

    hour = models.DateTimeField()
    facet = models.CharField(max_length=10)
    key = models.CharField(max_length=100)
    again = models.BooleanField()
    attempts = models.PositiveIntegerField()
    failed = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "facet", "day", "connection", "hour", "key", "again"], name="hour_rollup_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.hour} {self.facet} {self.key}"


class RecoveryRollup(_Rollup):
    """Recovered cases by the day they closed: gross, and what has gone back to the payer since."""

    currency = models.CharField(max_length=3)
    source = models.CharField(max_length=20)
    number = models.PositiveSmallIntegerField(help_text="Of the successful attempt; 0 if it is not known here.")
    cases = models.PositiveIntegerField()
    gross_minor = models.BigIntegerField()
    back_minor = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "day", "connection", "currency", "source", "number"], name="recovery_rollup_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.currency} {self.source}"


class _Fact(models.Model):
    """What a row of the ledger was last counted as. `id` and `invoice_id` are the ledger's, which deletes no rows: no
    foreign keys, since there are as many facts as attempts and they are written whenever one changes."""

    id = models.BigIntegerField(primary_key=True)
    invoice_id = models.BigIntegerField()
    merchant = models.ForeignKey(Merchant, on_delete=models.CASCADE, related_name="+", db_index=False)
    day = models.DateField()
    connection = models.ForeignKey(Connection, on_delete=models.CASCADE, related_name="+", db_index=False)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.day} {self.pk}"


class AttemptFact(_Fact):
    """A charge attempt as AttemptRollup and HourRollup count it."""

    hour = models.DateTimeField()
    code = models.CharField(max_length=100)
    network = models.CharField(max_length=20)
    country = models.CharField(max_length=2)
    number = models.PositiveSmallIntegerField()
    sender = models.CharField(max_length=21)
    category = models.CharField(max_length=30)
    status = models.CharField(max_length=10)

    class Meta:
        indexes = [models.Index(fields=["merchant", "invoice_id"], name="attempt_fact_by_invoice")]


class CaseFact(_Fact):
    """A case as CaseRollup counts it; `hours` from opening to recovery, null if it has not come."""

    segment = models.CharField(max_length=40)
    policy = models.PositiveIntegerField()
    code = models.CharField(max_length=100)
    network = models.CharField(max_length=20)
    country = models.CharField(max_length=2)
    hours = models.PositiveSmallIntegerField(null=True)
    source = models.CharField(max_length=20)
    category = models.CharField(max_length=30)
    currency = models.CharField(max_length=3)
    status = models.CharField(max_length=12)
    amount_minor = models.BigIntegerField()
    recovered_minor = models.BigIntegerField()

    class Meta:
        indexes = [models.Index(fields=["merchant", "invoice_id"], name="case_fact_by_invoice")]


class RecoveryFact(_Fact):
    """A recovered case as RecoveryRollup counts it; `id` is the case's."""

    currency = models.CharField(max_length=3)
    source = models.CharField(max_length=20)
    number = models.PositiveSmallIntegerField()
    gross_minor = models.BigIntegerField()
    back_minor = models.BigIntegerField()

    class Meta:
        indexes = [models.Index(fields=["merchant", "invoice_id"], name="recovery_fact_by_invoice")]


class Incident(models.Model):
    """A connection, card country or decline code that fails more than usual: one alert, whatever else it shows in.

    `expected` is how many of `attempts` would have failed as usual; `also` the other subjects in which it is seen, as
    [dimension, key]. A `lasting` one ended because it became the new normal.
    """

    merchant = models.ForeignKey(Merchant, on_delete=models.CASCADE, related_name="+", db_index=False)
    public_id = models.CharField(max_length=40, unique=True, default=partial(public_id, "inc"), editable=False)
    dimension = models.CharField(max_length=10, choices=[(one.value, one.value) for one in Dimension])
    key = models.CharField(max_length=100)
    name = models.CharField(max_length=120)
    also = models.JSONField(default=list)
    started_at = models.DateTimeField()
    found_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    lasting = models.BooleanField(default=False)
    attempts = models.PositiveIntegerField()
    failed = models.PositiveIntegerField()
    expected = models.FloatField()
    cause = models.CharField(max_length=500)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["merchant", "dimension", "key"],
                condition=models.Q(ended_at__isnull=True),
                name="incident_one_open_per_subject",
            )
        ]
        indexes = [models.Index(fields=["merchant", "-id"], name="incident_by_merchant")]

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> Subject:
        return Subject(Dimension(self.dimension), self.key)

    @property
    def also_subjects(self) -> list[Subject]:
        return [Subject(Dimension(dimension), key) for dimension, key in self.also]

    @property
    def subjects(self) -> list[Subject]:
        return [self.subject, *self.also_subjects]

    @property
    def additional(self) -> int:
        """Failed attempts beyond the usual ones, rounded."""
        return max(0, round(self.failed - self.expected))

    @property
    def share_text(self) -> str:
        return percent(self.failed, self.attempts)

    @property
    def usual_text(self) -> str:
        return share_words(self.expected, self.attempts)
