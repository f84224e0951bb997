"""Step 2: one durable transaction under all locks that ends with the intent written down, or with a new plan."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from django.db import transaction
from django.utils.functional import cached_property

from accounts.models import GlobalSwitch, Merchant
from invoices.models import Attempt, Connection, Transaction
from invoices.selectors.parties import charging_connection, charging_obstacle, connection_client
from invoices.services.attempts import AttemptPlan, attempt_start
from invoices.services.ledger import Stamp, move
from invoices.states import (
    ConnectionMode,
    InvoiceStatus,
    TransactionStatus,
    Trigger,
)
from providers.base import ChargeRequest
from recovery_site.common.compiled import Compiled, Param, Question
from recovery_site.common.in_step import in_step
from recovery_site.common.rows import row_save
from retries.engine.claim import Claim
from retries.locking import Scope, open_case, scope_lock
from retries.models import RetryJob
from retries.services.booking import job_end
from retries.services.cases import case_ensure, case_set_step
from retries.services.planning import case_plan
from retries.states import CaseStatus, JobStatus, NextStep
from tokens.models import Token
from tokens.selectors import TokenOption, token_options

# How soon to ask again after a "no" that has nothing to do with the invoice.
_HELD_FOR = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A committed SENDING attempt and the request to send for it, before `send_by` on the database clock.

    `connection` is the account to charge: a biller's gateway, or the invoice's own.
    """

    attempt_pk: int
    connection: Connection
    request: ChargeRequest
    send_by: datetime


@dataclass(frozen=True, slots=True)
class Refused:
    """Step 2 said no. `rebooked`: the same transaction has a new time; else it ended or waits for somebody."""

    reason: str
    rebooked: bool


def attempt_prepare(claim: Claim, *, now: datetime, lease: timedelta, timeout: timedelta) -> Prepared | Refused:
    """Check everything once more under the locks and commit the attempt as SENDING, or re-plan the job.

    Renews the lease. Raises only what means "we do not know": the caller pushes the job an hour ahead.
    """
    with transaction.atomic(durable=True):
        return _prepare(claim, now, lease, timeout)


def attempts_prepare(
    claims: Sequence[Claim], *, now: datetime, lease: timedelta, timeout: timedelta
) -> list[Prepared | Refused | None]:
    """As `attempt_prepare` for many in one durable transaction; None for each that has to be prepared alone."""
    done = in_step([partial(_prepare, claim, now, lease, timeout) for claim in claims], durable=True)
    return [one.result if one else None for one in done]


def _prepare(claim: Claim, now: datetime, lease: timedelta, timeout: timedelta) -> Prepared | Refused:
    stamp = Stamp(actor="system:engine", cause=f"job:{claim.job_pk}", now=now)
    check = _ask(claim, stamp)
    if isinstance(check, Refused):
        return check
    return _commit(check.scope, check.job, check.charge, check, stamp, lease, timeout)


def attempt_refuse(claim: Claim, *, now: datetime) -> Refused | None:
    """Only the questions of step 2, under the same locks: re-plans the job if something is in the way.

    None changes nothing and permits nothing: `attempt_prepare` asks again.
    """
    with transaction.atomic(durable=True):
        return attempt_refuse_within(claim, now=now)


def attempt_refuse_within(claim: Claim, *, now: datetime) -> Refused | None:
    """As `attempt_refuse`, in the caller's transaction, which may take everything back."""
    check = _ask(claim, Stamp(actor="system:engine", cause=f"job:{claim.job_pk}", now=now))
    return check if isinstance(check, Refused) else None


def attempt_postpone(claim: Claim, *, until: datetime, why: str, now: datetime) -> Refused:
    """Move a claimed charge to `until`, because its provider cannot be called; it uses up no try and keeps its trigger.

    Writes `case.planned`, so that everybody who was told of the old time hears of the new one.
    """
    with transaction.atomic(durable=True):
        scope = scope_lock(customer_pk=claim.customer_pk, invoice_pk=claim.invoice_pk)
        (job,) = _JOB.all(pk=claim.job_pk)
        if job.claim_token != claim.token or job.status != JobStatus.RUNNING or job.attempt_id is not None:
            return Refused("another worker has taken the job over", rebooked=False)
        _schedule_again(job, until)
        case = open_case(scope.invoice)
        if case is not None:
            stamp = Stamp(actor="system:engine", cause=f"job:{claim.job_pk}", now=now)
            text = f"Waits because {why}; no try is used up by that."
            case_set_step(case, scope.invoice, NextStep.BOOKED, until, text, stamp)
    return Refused(why, rebooked=True)


def _schedule_again(job: RetryJob, due_at: datetime) -> None:
    job.schedule()
    job.due_at, job.claim_token, job.lease_until = due_at, None, None
    row_save(job, "status", "due_at", "claim_token", "lease_until")


# With its transaction, locked too, and its case, which the invoice's lock covers.
_JOB = Compiled(
    lambda: (
        RetryJob.objects.filter(pk=Param("pk"))
        .select_related("transaction", "case__policy_version")
        .select_for_update(no_key=True, of=("self", "transaction"))
    )
)
_ACCOUNT = Compiled(lambda: Connection.objects.filter(pk=Param("pk")).select_related("gateway"))
_CHARGED_TOKEN = Compiled(lambda: Token.objects.filter(attempts=Param("attempt")).select_related("card"))


def _ask(claim: Claim, stamp: Stamp) -> "_Check | Refused":
    scope = scope_lock(customer_pk=claim.customer_pk, invoice_pk=claim.invoice_pk)
    (job,) = _JOB.all(pk=claim.job_pk)
    if job.claim_token != claim.token or job.status != JobStatus.RUNNING or job.attempt_id is not None:
        return Refused("another worker has taken the job over", rebooked=False)
    check = _Check(scope, job, job.transaction, stamp.now)
    return _replan(scope, job, check, stamp) if check.obstacle else check


@dataclass
class _Check:
    """The questions of step 2, in order; `obstacle` is the first "no" in words, empty if there is none."""

    scope: Scope
    job: RetryJob
    charge: Transaction
    now: datetime
    option: TokenOption | None = field(default=None, init=False)
    held: bool = field(default=False, init=False)  # nothing is wrong with the invoice: try again soon

    @cached_property
    def obstacle(self) -> str:
        invoice = self.scope.invoice
        if invoice.status not in (InvoiceStatus.INIT, InvoiceStatus.PROCESSING, InvoiceStatus.PROCESS_FAILED):
            return f"the invoice is {invoice.status}"
        if self.charge.status not in (TransactionStatus.INIT, TransactionStatus.RETRYING):
            return f"the transaction is {self.charge.status}"
        if (self.charge.amount_minor, self.charge.currency) != (invoice.due_minor, invoice.currency):
            return "the amount due has changed"
        return self._switches() or self._flights() or self._token()

    @cached_property
    def facts(self) -> "_Facts":
        return _facts(self.job)

    def _switches(self) -> str:
        if self.facts.switched_off:
            self.held = True
            return "charging is switched off"
        if self.connection.mode == ConnectionMode.OBSERVE:
            return "this connection only observes"
        if self.connection.mode == ConnectionMode.SCHEDULE:
            return "the merchant charges through this connection itself"
        return charging_obstacle(self.connection) or self._road()

    def _road(self) -> str:
        """Billing systems that collect only their own invoices cannot be asked for anything else."""
        traits = connection_client(self.account).traits
        if self.collects and not traits.collects:
            return "this provider collects no invoices"
        if not self.collects and not traits.charges:
            return "this provider charges only invoices of its own, and the invoice's name is not known"
        return ""

    @cached_property
    def account(self) -> Connection:
        return charging_connection(self.connection)

    @cached_property
    def collects(self) -> bool:
        return self.connection.mode == ConnectionMode.COLLECT and bool(self.scope.invoice.provider_invoice_id)

    @cached_property
    def connection(self) -> Connection:
        (account,) = _ACCOUNT.all(pk=self.job.connection_id)
        return account

    def _flights(self) -> str:
        if self.facts.customer_sending:
            self.held = True
            return "another charge of this customer is being sent"
        if self.facts.card_sending:
            self.held = True
            return "another charge of this card is being sent"
        if self.facts.invoice_open:
            return "the result of an earlier charge is still open"
        return ""

    def _token(self) -> str:
        options = token_options(
            customer=self.scope.customer,
            cards=self.scope.cards,
            invoice_pk=self.scope.invoice.pk,
            amount_minor=self.charge.amount_minor,
            currency=self.charge.currency,
            not_before=self.now,
        )
        self.option = next((option for option in options if option.pk == self.job.token_id), None)
        if self.option is None:
            return "no payment method was chosen"
        if not self.option.usable:
            return f"the {self.option.label} {self.option.obstacle}"
        if self.option.allowed_at > self.now:
            return f"the {self.option.label} must wait ({self.option.limit_text})"
        if self.account != self.connection and not Token.objects.filter(pk=self.option.pk).exclude(gateway_token=""):
            return f"the {self.option.label} is not known at the gateway"
        return ""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the locks do not hold in hand, read in one statement under them."""

    database_now: datetime
    switched_off: bool
    customer_sending: bool
    card_sending: bool
    invoice_open: bool


# A charge that is being sent again under its old key is as much on its way as one that is SENDING.
_FACTS = """
SELECT clock_timestamp(),
    NOT merchant.charging_enabled OR EXISTS (SELECT 1 FROM accounts_globalswitch WHERE NOT charging_enabled),
    EXISTS (SELECT 1 FROM invoices_attempt attempt
            WHERE attempt.kind = 'CHARGE' AND attempt.customer_id = %(customer)s
              AND (attempt.status = 'SENDING' OR (
                  attempt.status = 'UNKNOWN' AND attempt.resends > 0 AND attempt.lease_until > clock_timestamp()))),
    EXISTS (SELECT 1 FROM tokens_token token
            JOIN tokens_card mine ON mine.id = token.card_id
            JOIN tokens_card card ON card.budget_group = mine.budget_group
            JOIN invoices_attempt attempt ON attempt.card_id = card.id
            WHERE token.id = %(token)s AND attempt.kind = 'CHARGE'
              AND (attempt.status = 'SENDING' OR (
                  attempt.status = 'UNKNOWN' AND attempt.resends > 0 AND attempt.lease_until > clock_timestamp()))),
    EXISTS (SELECT 1 FROM invoices_attempt attempt
            WHERE attempt.kind = 'CHARGE' AND attempt.invoice_id = %(invoice)s
              AND attempt.status IN ('SENDING', 'UNKNOWN', 'AWAITING'))
FROM accounts_merchant merchant WHERE merchant.id = %(merchant)s
"""
_ASK_FACTS = Question(_FACTS)


def _facts(job: RetryJob) -> _Facts:
    values = {
        "customer": job.customer_id,
        "token": job.token_id,
        "invoice": job.invoice_id,
        "merchant": job.merchant_id,
    }
    (facts,) = _ASK_FACTS.rows(values)
    return _Facts(*facts)


def charging_switched_off(merchant_pk: int) -> bool:
    """The merchant's or the global kill switch is on."""
    return (
        Merchant.objects.filter(pk=merchant_pk, charging_enabled=False).exists()
        or GlobalSwitch.objects.filter(charging_enabled=False).exists()
    )


def _replan(scope: Scope, job: RetryJob, check: _Check, stamp: Stamp) -> Refused:
    """Every "no" leaves the job with another plan in the same transaction."""
    stamp = stamp.because(f"refused: {check.obstacle}")
    case = open_case(scope.invoice)
    if check.held:
        _schedule_again(job, stamp.now + _HELD_FOR)
        return Refused(check.obstacle, rebooked=True)
    if case is None and scope.invoice.status == InvoiceStatus.INIT and scope.invoice.due_minor > 0:
        case = case_ensure(scope, opened_at=stamp.now, stamp=stamp)
    if case is None:
        job_end(scope, stamp, done=True)
        return Refused(check.obstacle, rebooked=False)
    plan = case_plan(scope, case, stamp)
    return Refused(check.obstacle, rebooked=plan.step == NextStep.BOOKED)


def _commit(
    scope: Scope,
    job: RetryJob,
    charge: Transaction,
    check: _Check,
    stamp: Stamp,
    lease: timedelta,
    timeout: timedelta,
) -> Prepared:
    invoice, option = scope.invoice, check.option
    assert option is not None
    lease_until = check.facts.database_now + lease
    send_by = lease_until - max(timeout, call_takes(check.account, lease))
    _into_processing(scope, charge, stamp)
    attempt = attempt_start(
        invoice,
        AttemptPlan(
            transaction=charge,
            token_pk=option.pk,
            card_pk=option.card_pk,
            trigger=Trigger(job.trigger),
            gateway_pk=check.account.pk if check.account != check.connection else None,
            collected=check.collects,
            decision={**job.decision, "why": job.why, "remaining_before": option.remaining},
            lease_until=lease_until,
            send_by=send_by,
        ),
        stamp,
    )
    job.attempt, job.lease_until = attempt, lease_until
    row_save(job, "attempt", "lease_until")
    case = job.case if job.case is not None and job.case.status == CaseStatus.OPEN else open_case(invoice)
    if case is not None:
        case_set_step(case, invoice, NextStep.SENDING, lease_until, "A charge is being sent right now.", stamp)
    return Prepared(
        attempt_pk=attempt.pk,
        connection=check.account,
        request=charge_request(attempt, scope),
        send_by=send_by,
    )


def _into_processing(scope: Scope, charge: Transaction, stamp: Stamp) -> None:
    invoice = scope.invoice
    if invoice.status == InvoiceStatus.INIT:
        move(invoice, "start", invoice=invoice, stamp=stamp)
    elif invoice.status == InvoiceStatus.PROCESS_FAILED:
        move(invoice, "resume", invoice=invoice, stamp=stamp)
    move(charge, "submit", invoice=invoice, stamp=stamp)


def call_takes(account: Connection, lease: timedelta) -> timedelta:
    """How long one call to this account's provider takes at most; never more than half of a lease is given to it."""
    return min(timedelta(seconds=connection_client(account).traits.timeout_seconds), lease / 2)


def charge_request(attempt: Attempt, scope: Scope) -> ChargeRequest:
    """The request of an attempt: the same every time it is built, so that a resend under its key changes nothing."""
    (token,) = _CHARGED_TOKEN.all(attempt=attempt.pk)
    invoice = scope.invoice
    assert attempt.idempotency_key is not None
    elsewhere = attempt.gateway_id is not None
    return ChargeRequest(
        amount_minor=attempt.amount_minor,
        currency=attempt.currency,
        token=token.gateway_token if elsewhere else token.provider_token,
        customer=token.gateway_customer_id if elsewhere else scope.customer.connector_customer_id,
        reference=attempt.public_id,
        idempotency_key=attempt.idempotency_key,
        metadata={
            "attempt": attempt.public_id,
            "invoice": invoice.public_id,
            "transaction": attempt.transaction.public_id,
            "at": attempt.attempted_at.isoformat(),
        },
        kind=token.card.kind,
        collect_invoice=(invoice.provider_invoice_id or "") if attempt.collected else "",
    )
