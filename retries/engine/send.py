"""Steps 3 and 4: the call with no transaction open, and its result in one transaction."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

import structlog
from django.db import transaction

from invoices.models import Attempt
from invoices.selectors.parties import connection_client
from invoices.services.attempts import another_id
from invoices.services.ledger import Stamp
from invoices.services.reviews import review_open
from invoices.states import ATTEMPT_FINISHED, AttemptStatus, Origin, ReviewKind
from providers.base import ChargeResult, DeclineFacts, Outcome, ProviderUncertain
from recovery_site.common.compiled import Compiled, Param, Question
from recovery_site.common.db import for_no_key_update
from recovery_site.common.in_step import in_step
from retries.engine.prepare import Prepared
from retries.locking import Scope, scope_lock
from retries.services import outcomes

log = structlog.get_logger()
# What came of a call: what the provider said, or that nobody knows.
Answer = ChargeResult | ProviderUncertain
# Without a date from the client: how long a pending charge may take before it is looked at.
_AWAIT = timedelta(days=5)


# The last look, in one round trip: between step 2 and the call somebody may have switched charging off, paid, or
# cancelled, and this worker may have slept past its time.
_MAY_SEND = Question("""
SELECT clock_timestamp() <= %(send_by)s AND merchant.charging_enabled
    AND (attempt.kind = 'REFUND' OR invoice.status = 'PROCESSING')
    AND NOT EXISTS (SELECT 1 FROM accounts_globalswitch WHERE NOT charging_enabled)
    AND NOT EXISTS (
        SELECT 1 FROM retries_providergate gate
        WHERE gate.connection_id = coalesce(attempt.gateway_id, attempt.connection_id)
            AND greatest(gate.shut_until, gate.asked_until) > %(gate_at)s::timestamptz)
FROM invoices_attempt attempt
JOIN invoices_invoice invoice ON invoice.id = attempt.invoice_id
JOIN accounts_merchant merchant ON merchant.id = attempt.merchant_id
WHERE attempt.id = %(attempt)s
""")


def may_send(attempt_pk: int, *, send_by: datetime, gate_at: datetime | None = None) -> bool:
    """Whether the committed attempt may go out at this very moment; no lock is taken, the call follows at once.

    `gate_at`: at which instant its account's gate must be open as well; None if that was just asked.
    """
    ((answer,),) = _MAY_SEND.rows({"send_by": send_by, "attempt": attempt_pk, "gate_at": gate_at})
    return bool(answer)


def charge_send(prepared: Prepared, *, gate_at: datetime | None = None) -> Answer:
    """Call the provider once. Nothing is sent past `send_by`, while charging is switched off, for an invoice that is no
    longer collected, or (`gate_at`) through a gate that has shut meanwhile: that is a definite, unsent ERRORED."""
    if not may_send(prepared.attempt_pk, send_by=prepared.send_by, gate_at=gate_at):
        return ChargeResult(outcome=Outcome.ERRORED, error_code="unsent")
    client = connection_client(prepared.connection)
    try:
        return client.charge(prepared.request)
    except ProviderUncertain as error:
        return error


def differences(attempt: Attempt, answer: ChargeResult) -> str:
    """What in an answer contradicts the attempt, in words; an answer that differs is never adopted.

    Less money than was asked for is a partial capture. Charges that others made may carry references of their own.
    """
    if answer.outcome is Outcome.ERRORED:
        return ""
    found = []
    if attempt.origin == Origin.OURS and answer.reference and answer.reference != attempt.public_id:
        found.append("another reference")
    if other := _other_amount(attempt, answer):
        found.append(other)
    if answer.currency and answer.currency != attempt.currency:
        found.append(f"currency {answer.currency} instead of {attempt.currency}")
    if another_id(attempt, answer):
        found.append("another payment's id")
    return ", ".join(found)


def _other_amount(attempt: Attempt, answer: ChargeResult) -> str:
    amount = answer.amount_minor
    partial = answer.outcome is Outcome.SUCCEEDED and amount is not None and 0 < amount < attempt.amount_minor
    if amount is None or amount == attempt.amount_minor or partial:
        return ""
    return f"amount {amount} instead of {attempt.amount_minor}"


_OWNERS = Compiled(
    lambda: Attempt.objects.filter(pk=Param("pk")).values_list("customer_id", "invoice_id", "connection__provider")
)
# With its charge, which nobody changes without the locks that are held by then.
_ATTEMPT = Compiled(lambda: for_no_key_update(Attempt.objects.filter(pk=Param("pk")).select_related("transaction")))


def charge_record(attempt_pk: int, answer: Answer, *, now: datetime) -> AttemptStatus:
    """Step 4: the answer's effect in one transaction. A result that an event brought first makes this a no-op.

    Returns the attempt's status afterwards.
    """
    with transaction.atomic():
        return _record(attempt_pk, answer, now)


def charges_record(answers: Sequence[tuple[int, Answer, datetime]]) -> list[AttemptStatus | None]:
    """As `charge_record` for many (attempt, answer, now) in one transaction; None for each that has to be recorded
    alone."""
    done = in_step([partial(_record, *one) for one in answers])
    return [one.result if one else None for one in done]


def _record(attempt_pk: int, answer: Answer, now: datetime) -> AttemptStatus:
    ((customer_pk, invoice_pk, provider),) = _OWNERS.all(pk=attempt_pk)
    scope = scope_lock(customer_pk=customer_pk, invoice_pk=invoice_pk)
    (attempt,) = _ATTEMPT.all(pk=attempt_pk)
    stamp = Stamp(actor="system:engine", cause=f"attempt:{attempt.public_id}", now=now)
    if isinstance(answer, ChargeResult) and (wrong := differences(attempt, answer)):
        message = f"The provider's answer does not fit our request: {wrong}."
        answer = ProviderUncertain(message, raw=dict(answer.raw))
    if isinstance(answer, ProviderUncertain):
        if attempt.status == AttemptStatus.SENDING:
            outcomes.charge_is_unknown(scope, attempt, why=answer.message, stamp=stamp, raw=answer.data)
    elif answer.outcome is not Outcome.ERRORED or attempt.resends == 0:
        # Beside a resend of the same key, "ours was never sent" proves nothing about the other one.
        answer_apply(scope, attempt, answer, provider, stamp)
    return AttemptStatus(attempt.status)


def answer_apply(scope: Scope, attempt: Attempt, answer: ChargeResult, provider: str, stamp: Stamp) -> None:
    """A definite answer about our attempt, from a reply or a look-up; finished ones only learn a late success."""
    columns = {"provider_id": answer.provider_id or attempt.provider_id} if answer.provider_id else {}
    if answer.payment_id:
        columns["provider_payment_id"] = answer.payment_id
    if answer.gateway_reference:
        columns["gateway_reference"] = answer.gateway_reference[:200]
    open_now = attempt.status in (AttemptStatus.SENDING, AttemptStatus.UNKNOWN, AttemptStatus.AWAITING)
    if answer.outcome is Outcome.SUCCEEDED:
        if attempt.status != AttemptStatus.SUCCEEDED:
            captured = answer.amount_minor if answer.amount_minor is not None else attempt.amount_minor
            outcomes.charge_has_succeeded(scope, attempt, captured_minor=captured, provider=columns, stamp=stamp)
    elif not open_now:
        return
    elif answer.outcome is Outcome.DECLINED:
        outcomes.charge_was_declined(
            scope,
            attempt,
            decline=answer.decline or DeclineFacts(),
            provider_name=provider,
            provider=columns,
            failed_at=stamp.now,
            stamp=stamp,
        )
    elif answer.outcome is Outcome.AWAITING:
        if attempt.status != AttemptStatus.AWAITING:
            outcomes.charge_is_awaited(
                scope,
                attempt,
                expected_by=answer.expected_by or stamp.now + _AWAIT,
                provider=columns,
                stamp=stamp,
            )
    elif answer.outcome is Outcome.ERRORED:
        outcomes.charge_did_not_happen(
            scope,
            attempt,
            code=answer.error_code or "request_refused",
            provider_name=provider,
            retry_after=answer.retry_after,
            failed_at=stamp.now,
            stamp=stamp,
        )


def mismatch_review(scope: Scope, attempt: Attempt, found: str, answer: ChargeResult, stamp: Stamp) -> None:
    """A look-up answered with something that is not our charge: people must look, the attempt stays as it is.

    Where nothing but the amount of a successful charge differs, they may also say that this amount was charged.
    """
    choices, told = ["charged", "not_charged"], {}
    amount = answer.amount_minor
    if answer.outcome is Outcome.SUCCEEDED and amount is not None and amount > 0:
        told = {"provider_amount_minor": amount, "provider_currency": answer.currency or attempt.currency}
        if found == _other_amount(attempt, answer):
            choices.insert(0, "charged_as_told")
    review_open(
        invoice=scope.invoice,
        kind=ReviewKind.MISMATCH,
        subject_type="attempt",
        subject_id=attempt.public_id,
        facts={"difference": found, "provider_id": answer.provider_id, **told, "raw": dict(answer.raw)},
        choices=["noted"] if attempt.status in ATTEMPT_FINISHED else choices,
        stamp=stamp,
    )
