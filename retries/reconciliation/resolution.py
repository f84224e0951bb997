"""Resolution of attempts whose result nobody knows (DESIGN section 6): look up, adopt, resend under the same key, or
ask staff. UNKNOWN is never FAILED, and a new key may follow only after the old one is surely dead."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from django.conf import settings
from django.db import transaction

from invoices.models import Attempt
from invoices.selectors.attempts import ON_ITS_WAY, lease_over
from invoices.selectors.parties import asking_obstacle, attempt_account, charging_obstacle, connection_client
from invoices.services.ledger import Stamp, record_event
from invoices.services.reviews import review_open
from invoices.states import INVOICE_OPEN, AttemptStatus, Origin, ReviewKind, TransactionKind
from providers.base import (
    ChargeResult,
    ClientTraits,
    Lookup,
    Outcome,
    ProviderClient,
    ProviderUnavailable,
    ProviderUncertain,
)
from providers.billing import BillerClient, CollectionSought
from recovery_site.common.clock import database_now
from recovery_site.common.db import for_no_key_update
from recovery_site.common.raw import raw_answer
from retries.engine.drain import PROVIDER_TIMEOUT
from retries.engine.prepare import Prepared, call_takes, charge_request, charging_switched_off
from retries.engine.send import answer_apply, charge_send, differences, mismatch_review
from retries.locking import Scope, open_case, scope_lock
from retries.reconcile_log import attempt_line
from retries.reconciliation.rows import STAFF_AFTER
from retries.services import outcomes
from retries.services.cases import case_set_step
from retries.states import NextStep
from tokens.models import Card
from tokens.selectors import token_options

ABSENT_AFTER = timedelta(minutes=10)
_CHECK_AGAIN = timedelta(minutes=30)


class Resolved(StrEnum):
    """What became of one attempt; the names are the counts of the `reconcile` command."""

    ADOPTED = "adopted"
    ABSENT = "absent"
    RESENT = "resent"
    STAFF = "staff"
    WAITING = "waiting"
    SKIPPED = "skipped"


def lease_expire(attempt_pk: int, *, now: datetime) -> bool:
    """A SENDING charge whose worker's lease ran out is UNKNOWN: its worker died, or its reply was lost."""
    with _locked(attempt_pk) as (scope, attempt):
        if attempt.status != AttemptStatus.SENDING or not lease_over(attempt):
            return False
        stamp = Stamp(actor="system:reconcile", cause="lease ran out", now=now)
        outcomes.charge_is_unknown(scope, attempt, why="The worker that sent it gave no result.", stamp=stamp)
    attempt_line("lease_expired", attempt, now)
    return True


def attempt_resolve_unknown(attempt_pk: int, *, now: datetime, unreadable: Counter[int] | None = None) -> Resolved:
    """One look at an UNKNOWN attempt. A provider that cannot be read, or a connection that is switched off or lacks its
    key, leaves the row as it is (after a day: staff).

    `unreadable` counts the connections whose provider did not answer.
    """
    attempt = Attempt.objects.select_related("connection__gateway", "gateway", "invoice", "token").get(pk=attempt_pk)
    account = attempt_account(attempt)
    if obstacle := asking_obstacle(account):
        if _age(attempt, now) <= STAFF_AFTER:
            return Resolved.SKIPPED
        # Switched on again, it is looked at in that very tick.
        again = now if charging_obstacle(account) else now + STAFF_AFTER
        return _to_staff(attempt_pk, now, f"The provider cannot be asked: {obstacle}", again=again)
    client = connection_client(account)
    try:
        found = _look_up(client, attempt)
    except ProviderUnavailable as error:
        _unanswered(attempt, error, now, unreadable)
        if _age(attempt, now) > STAFF_AFTER:
            return _to_staff(attempt_pk, now, error.message, raw=error.data)
        return Resolved.WAITING
    if found is not None:
        return _adopt(attempt_pk, found, now)
    return _absent(attempt, client.traits, now)


def _unanswered(attempt: Attempt, error: ProviderUnavailable, now: datetime, unreadable: Counter[int] | None) -> None:
    attempt_line("unreadable", attempt, now, reason=error.message)
    if unreadable is not None:
        unreadable[attempt.connection_id] += 1


def _look_up(client: ProviderClient, attempt: Attempt) -> ChargeResult | None:
    if attempt.provider_id:
        return client.charge_get(attempt.provider_id) if client.traits.reads else None
    if attempt.collected:
        return _look_up_collected(cast(BillerClient, client), attempt)
    if client.traits.lookup is Lookup.NONE:
        return None
    return client.charge_find(attempt.public_id)


def _look_up_collected(biller: BillerClient, attempt: Attempt) -> ChargeResult | None:
    """A payment that the biller made carries no reference of ours: it is looked for at its invoice."""
    sought = CollectionSought(
        invoice_id=attempt.invoice.provider_invoice_id or "",
        amount_minor=attempt.amount_minor,
        currency=attempt.currency,
        token=attempt.token.provider_token if attempt.token is not None else "",
        sent_at=attempt.attempted_at,
    )
    return biller.collection_find(sought)


def _adopt(attempt_pk: int, found: ChargeResult, now: datetime) -> Resolved:
    """Take the provider's record over, unless it contradicts what was sent.

    A success counts also where the attempt was given up meanwhile: money that moved is never passed over.
    """
    with _locked(attempt_pk) as (scope, attempt):
        given_up = attempt.status in (AttemptStatus.DECLINED, AttemptStatus.ERRORED)
        if not (given_up and found.outcome is Outcome.SUCCEEDED) and attempt.status not in (
            AttemptStatus.UNKNOWN,
            AttemptStatus.AWAITING,
        ):
            return Resolved.WAITING
        stamp = Stamp(actor="system:reconcile", cause="looked up at the provider", now=now)
        if wrong := _contradiction(attempt, found):
            mismatch_review(scope, attempt, wrong, found, stamp)
            attempt_line("to_staff", attempt, now, reason=wrong)
            if not given_up:
                _to_queue(scope, f"the provider's answer differs from what was sent ({wrong})", stamp)
                _check_at(attempt, now + STAFF_AFTER)
            return Resolved.STAFF
        if found.outcome is Outcome.AWAITING and attempt.status == AttemptStatus.AWAITING:
            return _still_awaiting(scope, attempt, stamp)
        answer_apply(scope, attempt, found, attempt.connection.provider, stamp)
    attempt_line("adopted", attempt, now)
    return Resolved.ADOPTED


def _contradiction(attempt: Attempt, found: ChargeResult) -> str:
    wrong = differences(attempt, found)
    if not wrong and found.token and found.token != (_sent_with(attempt) or found.token):
        return "another token"
    return wrong


def _sent_with(attempt: Attempt) -> str:
    """The token as the account that was charged calls it, empty if the attempt had none."""
    if attempt.token is None:
        return ""
    return attempt.token.provider_token if attempt.gateway_id is None else attempt.token.gateway_token


def _absent(attempt: Attempt, traits: ClientTraits, now: datetime) -> Resolved:
    """The provider does not show it. What that proves depends on the client."""
    if attempt.status != AttemptStatus.UNKNOWN or not lease_over(attempt) or _age(attempt, now) < ABSENT_AFTER:
        return Resolved.WAITING
    if _age(attempt, now) < traits.key_ttl / 2:
        return _resend(attempt.pk, now)
    if traits.lookup is Lookup.AUTHORITATIVE and not attempt.collected:
        return _surely_absent(attempt.pk, now)
    return _to_staff(attempt.pk, now, "The provider cannot say for sure whether the charge exists.")


def _surely_absent(attempt_pk: int, now: datetime) -> Resolved:
    with _locked(attempt_pk) as (scope, attempt):
        # Asked again under the lock: another sweep may be sending it a second time since it was looked up.
        if attempt.status != AttemptStatus.UNKNOWN or not lease_over(attempt):
            return Resolved.WAITING
        stamp = Stamp(actor="system:reconcile", cause="the provider never received it", now=now)
        outcomes.charge_did_not_happen(
            scope,
            attempt,
            code="network_error",
            provider_name=attempt.connection.provider,
            retry_after=None,
            failed_at=now,
            stamp=stamp,
        )
    attempt_line("absent", attempt, now)
    return Resolved.ABSENT


def _resend(attempt_pk: int, now: datetime) -> Resolved:
    """The same attempt under the same key: through step 2's checks, the lease renewed, then sent with nothing open."""
    stamp = Stamp(actor="system:reconcile", cause="resend under the same key", now=now)
    with _locked(attempt_pk, durable=True) as (scope, attempt):
        if attempt.status != AttemptStatus.UNKNOWN or not lease_over(attempt):
            return Resolved.WAITING
        obstacle = _resend_obstacle(scope, attempt, now)
        if obstacle:
            _check_at(attempt, now + _CHECK_AGAIN)
            attempt_line("resend_refused", attempt, now, reason=obstacle)
            return Resolved.WAITING
        lease = settings.RETRY_LOCK_TIMEOUT
        attempt.lease_until = database_now() + lease
        attempt.resends += 1
        attempt.next_check_at = now + _CHECK_AGAIN
        attempt.save(update_fields=["lease_until", "resends", "next_check_at"])
        record_event(
            invoice=scope.invoice,
            kind="attempt.resent",
            stamp=stamp,
            subject_type="attempt",
            subject_id=attempt.public_id,
            data={"resends": attempt.resends},
        )
        account = attempt_account(attempt)
        prepared = Prepared(
            attempt_pk=attempt.pk,
            connection=account,
            request=charge_request(attempt, scope),
            send_by=attempt.lease_until - max(min(PROVIDER_TIMEOUT, lease / 2), call_takes(account, lease)),
        )
    answer = charge_send(prepared)
    if isinstance(answer, ProviderUncertain):
        attempt_line("resent", attempt, now, reason=answer.message)
    # An unsent resend says nothing about the first sending, so it must not end the attempt.
    elif answer.outcome is not Outcome.ERRORED:
        _adopt(attempt_pk, answer, now)
    return Resolved.RESENT


def _resend_obstacle(scope: Scope, attempt: Attempt, now: datetime) -> str:
    """Step 2's questions for an attempt that is already written down; its own mark does not count against it."""
    invoice = scope.invoice
    if invoice.status not in INVOICE_OPEN or (attempt.amount_minor, attempt.currency) != (
        invoice.due_minor,
        invoice.currency,
    ):
        return "the amount is no longer due"
    if charging_switched_off(attempt.merchant_id):
        return "charging is switched off"
    if "told_paid" in attempt.decision:
        return "the billing system says that the invoice is paid"
    others = Attempt.objects.filter(ON_ITS_WAY, kind=TransactionKind.CHARGE).exclude(pk=attempt.pk)
    if others.filter(customer=scope.customer, origin=Origin.OURS).exists():
        return "another charge of this customer is being sent"
    group = Card.objects.filter(tokens=attempt.token_id).values("budget_group")
    if others.filter(card__budget_group__in=group).exists():
        return "another charge of this card is being sent"
    options = token_options(
        customer=scope.customer,
        cards=scope.cards,
        invoice_pk=invoice.pk,
        amount_minor=attempt.amount_minor,
        currency=attempt.currency,
        not_before=now,
        besides=attempt.pk,
    )
    option = next((option for option in options if option.pk == attempt.token_id), None)
    if option is None or not option.usable:
        return "the payment method may no longer be charged"
    return "a network limit is in the way" if option.allowed_at > now else ""


def attempt_resolve_awaiting(attempt_pk: int, *, now: datetime, unreadable: Counter[int] | None = None) -> Resolved:
    """A settlement that is due: read it; still pending is extended once by its own period, then asked of staff."""
    attempt = Attempt.objects.select_related("connection__gateway", "gateway", "invoice", "token").get(pk=attempt_pk)
    account = attempt_account(attempt)
    patient = attempt.expected_by is None or now - attempt.expected_by <= STAFF_AFTER
    found = None  # silent for a day: the row takes its course as if the provider had nothing new to say
    if asking_obstacle(account):
        if patient:
            return Resolved.SKIPPED
    else:
        try:
            found = _look_up(connection_client(account), attempt)
        except ProviderUnavailable as error:
            _unanswered(attempt, error, now, unreadable)
            if patient:
                return Resolved.WAITING
    if found is not None:
        return _adopt(attempt_pk, found, now)
    with _locked(attempt_pk) as (scope, attempt):
        if attempt.status != AttemptStatus.AWAITING:
            return Resolved.WAITING
        stamp = Stamp(actor="system:reconcile", cause="settlement is due", now=now)
        return _still_awaiting(scope, attempt, stamp)


def _still_awaiting(scope: Scope, attempt: Attempt, stamp: Stamp) -> Resolved:
    due = attempt.expected_by or stamp.now
    if not attempt.extended:
        attempt.extended, attempt.expected_by = True, due + (due - attempt.attempted_at)
        attempt.next_check_at = attempt.expected_by
        attempt.save(update_fields=["extended", "expected_by", "next_check_at"])
        outcomes.awaiting_extended(scope, attempt, stamp)
        return Resolved.WAITING
    _ask(
        scope,
        attempt,
        ReviewKind.OVERDUE_SETTLEMENT,
        "The bank has not settled it in twice the usual time.",
        stamp,
    )
    _check_at(attempt, stamp.now + STAFF_AFTER)
    return Resolved.STAFF


def _to_staff(
    attempt_pk: int, now: datetime, why: str, *, raw: Mapping[str, Any] | None = None, again: datetime | None = None
) -> Resolved:
    with _locked(attempt_pk) as (scope, attempt):
        if attempt.status != AttemptStatus.UNKNOWN:
            return Resolved.WAITING
        stamp = Stamp(actor="system:reconcile", cause="unknown for too long", now=now)
        _ask(scope, attempt, ReviewKind.UNKNOWN_ATTEMPT, why, stamp, raw)
        _check_at(attempt, again or now + STAFF_AFTER)
    return Resolved.STAFF


def _ask(
    scope: Scope,
    attempt: Attempt,
    kind: ReviewKind,
    why: str,
    stamp: Stamp,
    raw: Mapping[str, Any] | None = None,
) -> None:
    kept = raw_answer(raw) if raw else attempt.decision.get("raw_answer")
    review_open(
        invoice=scope.invoice,
        kind=kind,
        subject_type="attempt",
        subject_id=attempt.public_id,
        facts={
            "why": why,
            "amount_minor": attempt.amount_minor,
            "currency": attempt.currency,
            "sent_at": attempt.attempted_at.isoformat(),
            "reference": attempt.public_id,
            "provider_id": attempt.provider_id or "",
            **({"raw": kept} if kept else {}),
        },
        choices=["charged", "not_charged"],
        stamp=stamp,
    )
    _to_queue(scope, why, stamp)
    attempt_line("to_staff", attempt, stamp.now, reason=why)


def _to_queue(scope: Scope, why: str, stamp: Stamp) -> None:
    case = open_case(scope.invoice)
    if case is not None:
        case_set_step(case, scope.invoice, NextStep.STAFF, None, f"A person has to find out: {why}", stamp)


@contextmanager
def _locked(attempt_pk: int, *, durable: bool = False) -> Iterator[tuple[Scope, Attempt]]:
    """One transaction with all locks around a scope and its attempt."""
    customer_pk, invoice_pk = Attempt.objects.values_list("customer_id", "invoice_id").get(pk=attempt_pk)
    with transaction.atomic(durable=durable):
        scope = scope_lock(customer_pk=customer_pk, invoice_pk=invoice_pk)
        rows = Attempt.objects.filter(pk=attempt_pk).select_related(
            "connection", "gateway", "token", "transaction", "card"
        )
        yield scope, for_no_key_update(rows).get()


def _age(attempt: Attempt, now: datetime) -> timedelta:
    return now - attempt.attempted_at


def _check_at(attempt: Attempt, at: datetime) -> None:
    attempt.next_check_at = at
    attempt.save(update_fields=["next_check_at"])
