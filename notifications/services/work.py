"""One planned message after the other: decided under the locks, committed as being sent, sent, and written down.

The order of the charge protocol, for mails: nothing leaves without a committed row that says so, nothing is open while
the mail system is spoken to, and what nobody can know afterwards is never sent again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db import transaction

from invoices.models import Customer, Invoice
from invoices.services.ledger import Stamp, alert, invoice_lock, record_event
from invoices.services.parties import customer_lock
from notifications.deciding import Verb, Verdict, decide_reader, decide_step
from notifications.links import link_url, unsubscribe_url
from notifications.models import Message, MessageSettings
from notifications.rendering import with_links
from notifications.renewals import next_renewal
from notifications.selectors import (
    case_facts,
    latest_failure,
    reader_of,
    segment_policy,
    settings_of,
)
from notifications.services.links import link_issue
from notifications.services.mailing import Mail, Passage, Postman, Result
from notifications.services.notes import note_still_true
from notifications.services.planning import messages_due
from notifications.services.suppressions import address_lock, address_suppress
from notifications.services.writing import Matter, sender_name, template_for, write
from notifications.states import LinkPurpose, MessageStatus, SuppressionReason
from recovery_site.common.compiled import Compiled, Param
from recovery_site.common.db import DatabaseClock, for_no_key_update
from recovery_site.common.errors import NotFound
from retries.models import Case
from retries.policy import Audience
from retries.selectors import case_failure, policy_of
from retries.services.cases import policy_version_current
from retries.timing import QuietHours

log = structlog.get_logger()
BATCH = 50
# Longer than one mail takes; a row that is being sent for longer has lost its worker.
LEASE = timedelta(minutes=5)
BACK_OFF = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 30, 120, 360))
_POISON_PAUSE = timedelta(hours=1)
_ACTOR = "system:messages"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that is committed as being sent."""

    pk: int
    mail: Mail


def messages_drain(*, now: datetime, limit: int = 500, keep_going: Callable[[], bool] = lambda: True) -> dict[str, int]:
    """Look at every message due at `now`, oldest first, and send those that may go; counts per result.

    A row whose preparation raises is pushed an hour ahead, with the error kept.
    """
    counts: dict[str, int] = {}
    seen: set[int] = set()
    _lost(counts, now)
    with Postman() as postman:
        while len(seen) < limit and keep_going():
            batch = [pk for pk in messages_due(now, BATCH + len(seen)) if pk not in seen][:BATCH]
            if not batch:
                break
            for pk in batch:
                seen.add(pk)
                result = _guarded(pk, postman, now)
                counts[result] = counts.get(result, 0) + 1
    return counts


def _guarded(pk: int, postman: Postman, now: datetime) -> str:
    try:
        return message_work(pk, postman, now=now)
    except Exception as error:  # the sweep loop: one row must not stop the others
        log.exception("message_failed", message=pk)
        planned = Message.objects.filter(pk=pk, status=MessageStatus.PLANNED)
        planned.update(due_at=now + _POISON_PAUSE, last_error=f"{type(error).__name__}"[:500])
        return "errors"


def message_work(pk: int, postman: Postman, *, now: datetime) -> str:
    """Decide one message and send it if it may go; the name of what came of it. Writes `message.wanted` and
    `message.sent` into the invoice's chain."""
    decided = _decide(pk, now)
    if isinstance(decided, str):
        return decided
    return message_answer(decided.pk, postman.hand_over(decided.mail), now=now)


# --- deciding -----------------------------------------------------------------------------------------------------


_KEYS = Compiled(lambda: Message.objects.filter(pk=Param("pk")).values_list("customer_id", "invoice_id"))
_LOCKED = Compiled(lambda: for_no_key_update(Message.objects.filter(pk=Param("pk"))).select_related("link", "merchant"))
_CASE = Compiled(lambda: Case.objects.filter(pk=Param("pk")).select_related("policy_version"))


def _decide(pk: int, now: datetime) -> Outgoing | str:
    """Under the locks: the verdict carried out, or the message committed as SENDING."""
    (keys,) = _KEYS.all(pk=pk)
    with transaction.atomic(durable=True):
        customer, invoice = customer_lock(keys[0]), invoice_lock(keys[1])
        (message,) = _LOCKED.all(pk=pk)
        customer.merchant = message.merchant
        if message.status != MessageStatus.PLANNED or message.due_at is None or message.due_at > now:
            return "skipped"
        settings = settings_of(message.merchant_id)
        address = customer.email.strip().lower()
        address_lock(message.merchant_id, address)
        verdict = _verdict(message, customer, invoice, settings, now)
        if verdict.verb is Verb.WAIT:
            message.due_at, message.why = verdict.at, verdict.why
            message.save(update_fields=["due_at", "why"])
            return "waiting"
        if verdict.verb in (Verb.CANCEL, Verb.SUPPRESS):
            _end(message, verdict)
            return "canceled" if verdict.verb is Verb.CANCEL else "suppressed"
        stamp = Stamp(_ACTOR, f"message:{message.public_id}", now)
        if message.audience == Audience.STAFF:
            return _tell_staff(message, invoice, verdict, stamp)
        return _commit(message, customer, invoice, settings, verdict, stamp)


def _verdict(
    message: Message, customer: Customer, invoice: Invoice, settings: MessageSettings, now: datetime
) -> Verdict:
    if message.case_id is None:
        if note_still_true(message, settings, now) is None:
            return Verdict(Verb.CANCEL, "Not needed any more: the payment method was renewed, or the plan has ended.")
        reader = reader_of(customer, settings, _note_quiet(invoice), now=now, besides=message.pk)
        return decide_reader(reader, now)
    # Read only now: it may have changed until its invoice was locked.
    (case,) = _CASE.all(pk=message.case_id)
    message.case = case
    policy = segment_policy(case)
    assert message.step is not None
    quiet = policy.quiet.hours if policy.quiet is not None and policy.quiet.messages else None
    reader = reader_of(customer, settings, quiet, now=now, besides=message.pk)
    return decide_step(policy.messages[message.step], case_facts(case, invoice), reader, now)


def _note_quiet(invoice: Invoice) -> QuietHours | None:
    """Quiet hours for a note without a case: those of the merchant's policy of today."""
    quiet = policy_of(policy_version_current(invoice.merchant_id)).default.quiet
    return quiet.hours if quiet is not None and quiet.messages else None


def _end(message: Message, verdict: Verdict) -> None:
    getattr(message, "cancel" if verdict.verb is Verb.CANCEL else "suppress")()
    message.why, message.due_at = verdict.why, None
    message.save(update_fields=["status", "why", "due_at"])


def _tell_staff(message: Message, invoice: Invoice, verdict: Verdict, stamp: Stamp) -> str:
    case = message.case
    assert case is not None
    hours = int((stamp.now - case.opened_at).total_seconds() // 3600)
    name = message.template.removeprefix("staff_")
    text = f"Still unpaid {hours} hours after its first failure, in segment {case.segment.replace('_', ' ')}."
    alert(invoice, name, text, stamp)
    message.hand_over()
    message.why, message.due_at, message.wanted_at = verdict.why, None, stamp.now
    message.save(update_fields=["status", "why", "due_at", "wanted_at"])
    return "alerted"


def _commit(
    message: Message,
    customer: Customer,
    invoice: Invoice,
    settings: MessageSettings,
    verdict: Verdict,
    stamp: Stamp,
) -> Outgoing | str:
    """The message as it will be read, its link, its event; then it counts as being sent, or as the merchant's."""
    case = message.case
    failure = latest_failure(invoice) if case else None
    if message.link is None:
        purpose = LinkPurpose.PAY if case else LinkPurpose.CARD
        message.link = link_issue(invoice=invoice, issued_by=_ACTOR, now=stamp.now, purpose=purpose)
    message.attempt = failure
    message.category = case.category if case else ""
    message.due_at, message.why = None, verdict.why
    mine = verdict.verb is Verb.SEND
    if mine:
        matter = Matter(
            customer=customer,
            invoice=invoice,
            case=case,
            attempt=failure,
            token_pk=case_failure(case).token_pk if case else None,
            renewal_at=next_renewal(invoice.issued_at, invoice.interval, stamp.now),
        )
        try:
            template = template_for(message, customer, settings)
        except NotFound as error:
            _end(message, Verdict(Verb.CANCEL, error.message[:300]))
            return "canceled"
        written = write(template, matter, settings, now=stamp.now, until=message.link.expires_at)
        message.subject, message.text, message.html = written.subject, written.text, written.html
        message.locale, message.source = written.locale, written.source
        message.address, message.sent_at = customer.email.strip().lower(), stamp.now
        message.lease_until = DatabaseClock() + LEASE
        message.send()
    else:
        message.hand_over()
    if message.wanted_at is None:
        message.wanted_at = stamp.now
        _record(message, invoice, "message.wanted", stamp, sender=settings.sender)
    message.save()
    if not mine:
        return "handed_over"
    return Outgoing(message.pk, mail_of(message, customer, settings))


def _record(message: Message, invoice: Invoice, kind: str, stamp: Stamp, **more: str) -> None:
    data = {
        "message": message.public_id,
        "template": message.template,
        "segment": message.segment,
        "category": message.category,
        "locale": message.locale,
        "case": message.case.public_id if message.case else None,
        "attempt": message.attempt.public_id if message.attempt else None,
        **more,
    }
    record_event(
        invoice=invoice,
        kind=kind,
        stamp=stamp,
        subject_type="message",
        subject_id=message.public_id,
        data={name: value for name, value in data.items() if value},
    )


def mail_of(message: Message, customer: Customer, settings: MessageSettings) -> Mail:
    """The mail with its secrets in it."""
    assert message.link is not None
    links = {"link": link_url(message.link.public_id), "unsubscribe": unsubscribe_url(message.public_id)}
    return Mail(
        id=message.public_id,
        to=message.address,
        subject=message.subject,
        text=with_links(message.text, **links),
        html=with_links(message.html, **links),
        sender_name=sender_name(customer, settings),
        reply_to=settings.reply_to,
        unsubscribe_url=links["unsubscribe"],
    )


# --- writing down what came of it ---------------------------------------------------------------------------------


def message_answer(pk: int, result: Result, *, now: datetime) -> str:
    """One transaction: the result of one hand-over. Returns the name under which it is counted."""
    with transaction.atomic():
        invoice = invoice_lock(Message.objects.values_list("invoice_id", flat=True).get(pk=pk))
        message = for_no_key_update(Message.objects.filter(pk=pk)).select_related("case", "attempt").get()
        if message.status != MessageStatus.SENDING:
            return "skipped"
        message.tries, message.lease_until, message.last_error = message.tries + 1, None, result.error
        stamp = Stamp(_ACTOR, f"message:{message.public_id}", now)
        counted = _ENDS[result.passage](message, invoice, stamp)
        message.save()
    return counted


def _sent(message: Message, invoice: Invoice, stamp: Stamp) -> str:
    message.succeed()
    _record(message, invoice, "message.sent", stamp)
    return "sent"


def _unsent(message: Message, invoice: Invoice, stamp: Stamp) -> str:
    message.sent_at = None
    if message.tries > len(BACK_OFF):
        return _refused(message, invoice, stamp)
    message.retry_later()
    message.due_at = stamp.now + BACK_OFF[message.tries - 1]
    message.why = "The mail system could not be reached; it is tried again."
    return "retried"


def _refused(message: Message, invoice: Invoice, stamp: Stamp) -> str:
    message.sent_at = None
    message.fail()
    message.why = "The mail system did not take it."
    log.error("message_given_up", message=message.public_id, tries=message.tries)
    return "failed"


def _no_such_address(message: Message, invoice: Invoice, stamp: Stamp) -> str:
    bounce_note(message, invoice, stamp, why="The mail system knows no such address.")
    return "bounced"


def _unknown(message: Message, invoice: Invoice, stamp: Stamp) -> str:
    message.lose_track()
    message.why = "Nobody knows whether the mail system took it; it is not sent again."
    _record(message, invoice, "message.sent", stamp, confirmed="no")
    return "unconfirmed"


_ENDS: dict[Passage, Callable[[Message, Invoice, Stamp], str]] = {
    Passage.SENT: _sent,
    Passage.UNSENT: _unsent,
    Passage.REFUSED: _refused,
    Passage.NO_SUCH_ADDRESS: _no_such_address,
    Passage.UNKNOWN: _unknown,
}


def bounce_note(message: Message, invoice: Invoice, stamp: Stamp, *, why: str) -> None:
    """The address does not exist: the message bounced, and nothing is sent there any more. The caller saves."""
    message.bounce()
    message.bounced_at, message.why = stamp.now, why
    _record(message, invoice, "message.bounced", stamp)
    address_suppress(
        merchant_pk=message.merchant_id,
        address=message.address,
        reason=SuppressionReason.BOUNCE,
        now=stamp.now,
        message=message,
    )


def _lost(counts: dict[str, int], now: datetime) -> None:
    """Messages whose worker died while it sent them."""
    lost = Message.objects.filter(status=MessageStatus.SENDING, lease_until__lt=DatabaseClock())
    for pk in lost.values_list("pk", flat=True)[:BATCH]:
        result = message_answer(pk, Result(Passage.UNKNOWN, "The worker died while it was sending."), now=now)
        counts[result] = counts.get(result, 0) + 1
