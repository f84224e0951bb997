"""Events in plain sentences: one function per kind, and a readable answer for kinds nobody has thought of yet. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from invoices.states import NoteStatus, ReviewKind, Trigger
from recovery_site.common.money import format_money
from recovery_site.console.words import category_title, moment_text, plain
from retries.states import CaseStatus, NextStep

_ACTORS = {
    "engine": "Recovery engine",
    "handler": "Provider's report",
    "webhook": "Provider's report",
    "resolution": "Resolution",
    "reconcile": "Reconciliation",
    "system": "Recovery engine",
    "messages": "Messages",
    "customer": "The customer",
    "mail": "Mail system",
}


@dataclass(frozen=True, slots=True)
class AttemptName:
    """What a sentence says instead of an attempt's id."""

    number: int
    kind: str
    card: str

    def __str__(self) -> str:
        return f"{'Refund attempt' if self.kind == 'REFUND' else 'Attempt'} {self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The told part of an event; `currency` is the invoice's, for amounts that come without one."""

    kind: str
    subject_id: str
    from_state: str
    to_state: str
    cause: str
    data: Mapping[str, Any]
    occurred_at: datetime
    currency: str
    attempts: Mapping[str, AttemptName] = field(default_factory=dict)
    refunds: frozenset[str] = frozenset()
    people: Mapping[str, str] = field(default_factory=dict)

    def text(self, key: str) -> str:
        value = self.data.get(key)
        return "" if value is None else str(value)

    def money(self, key: str) -> str:
        """An amount of the event's data for people, or "an unknown amount" where the data lacks it."""
        value = self.data.get(key)
        if not isinstance(value, int):
            return "an unknown amount"
        return format_money(value, self.text("currency") or self.currency)

    def moment(self, key: str) -> str:
        try:
            return moment_text(datetime.fromisoformat(self.text(key)), self.occurred_at)
        except ValueError:
            return ""

    @property
    def movement(self) -> str:
        """A transaction is a charge unless it is known as a refund."""
        return "refund" if self.subject_id in self.refunds else "charge"

    @property
    def attempt(self) -> str:
        return str(self.attempts[self.subject_id]) if self.subject_id in self.attempts else "An attempt"

    @property
    def card(self) -> str:
        return self.attempts[self.subject_id].card if self.subject_id in self.attempts else ""


@dataclass(frozen=True, slots=True)
class Line:
    """`minor` lines are book-keeping that a reader may skip. `tone` is one of the design's tones."""

    text: str
    detail: str = ""
    tone: str = "neutral"
    minor: bool = False


def sentence(told: Told) -> Line:
    """What happened, in words. Never raises: data that is missing or odd only makes the sentence poorer."""
    if told.kind in _KINDS:
        return _KINDS[told.kind](told)
    subject, _, what = told.kind.partition(".")
    if subject == "alert":
        # An alert about a question repeats what the question's own line says.
        repeated = what in ReviewKind.values
        return Line(told.text("text") or f"Alert: {plain(what)}.", tone="warning", minor=repeated)
    moved = f" ({told.from_state or 'new'} to {told.to_state})" if told.to_state else ""
    return Line(
        f"{plain(subject).capitalize()}: {plain(what) or 'changed'}{moved}.", detail=_facts(told.data), minor=True
    )


def actor_name(actor: str, people: Mapping[str, str]) -> str:
    """`user:7` as the person's name, `system:engine` as "Recovery engine", other actors readably."""
    if actor in people:
        return people[actor]
    kind, _, name = actor.partition(":")
    if kind == "user":
        return "A former member of staff"
    if kind == "api":
        return f"API key {name}" if name else "API"
    if kind in ("provider", "webhook"):
        return f"{name.capitalize()}'s report" if name else "Provider's report"
    return _ACTORS.get(name or kind, plain(name or kind).capitalize())


def cause_text(cause: str) -> str:
    """The reason a person gave; machine causes (`job:12`, `attempt:att_...`) say nothing to a reader."""
    head, _, rest = cause.partition(": ")
    return rest if head == "staff" else ""


def _facts(data: Mapping[str, Any]) -> str:
    return ", ".join(f"{plain(key)}: {value}" for key, value in data.items() if value not in (None, "", [], {}))[:300]


def _says(text: str, *, tone: str = "neutral", minor: bool = False) -> Callable[[Told], Line]:
    return lambda told: Line(text, tone=tone, minor=minor)


def _invoice_created(told: Told) -> Line:
    return Line(f"The invoice over {told.money('amount_minor')} arrived.")


def _invoice_fail(told: Told) -> Line:
    return Line("Collecting failed: no automatic try is left or allowed.", detail=told.text("why"), tone="danger")


def _invoice_amount_changed(told: Told) -> Line:
    before, after = (_amount(told.data.get(key)) for key in ("from", "to"))
    return Line(f"The amount changed from {before} to {after}.", tone="warning")


def _amount(pair: object) -> str:
    match pair:
        case [int(minor), str(currency)]:
            return format_money(minor, currency)
    return "an unknown amount"


def _invoice_named(told: Told) -> Line:
    return Line(f"The provider's name for this invoice is {told.text('provider_invoice_id')}.", minor=True)


_CANCELED = {
    "written_off": "The invoice was written off; nothing more is collected.",
    "superseded": "Another invoice took this one's place.",
    "subscription_ended": "The subscription ended, so the invoice was canceled.",
}


def _invoice_cancel(told: Told) -> Line:
    text = _CANCELED.get(told.text("reason"), "The invoice was canceled; nothing more is collected.")
    return Line(text, tone="warning")


def _invoice_settle_again(told: Told) -> Line:
    return Line("The invoice counts as settled again.", detail=told.text("reason"), tone="violet")


def _transaction_created(told: Told) -> Line:
    what = "refund" if told.text("kind") == "REFUND" else "charge"
    return Line(f"A {what} of {told.money('amount_minor')} was prepared.", minor=True)


def _transaction_succeed(told: Told) -> Line:
    if told.movement == "refund":
        return Line(f"{told.money('captured_minor')} was given back.", tone="violet")
    return Line(f"{told.money('captured_minor')} was booked.", tone="success", minor=True)


def _transaction_credit(told: Told) -> Line:
    received = _amount(told.data.get("received"))
    return Line(f"{received} pays {told.money('settles_minor')} of the debt, staff decided.", tone="success")


def _transaction(text: str, *, minor: bool = True) -> Callable[[Told], Line]:
    return lambda told: Line(text.format(told.movement), minor=minor)


_TRIGGERS = {
    Trigger.AUTOMATIC: "automatic retry",
    Trigger.CARD_UPDATE: "after a card update",
    Trigger.STAFF: "asked for by staff",
    Trigger.CUSTOMER: "by the customer",
}


def _attempt_sending(told: Told) -> Line:
    on = f" on {told.card}" if told.card else ""
    why = _TRIGGERS.get(told.text("trigger"), "")  # type: ignore[call-overload]
    verb = "refunding" if told.text("kind") == "REFUND" else "charging"
    return Line(f"{told.attempt}: {verb} {told.money('amount_minor')}{on}.", detail=why, tone="info")


def _attempt_succeed(told: Told) -> Line:
    on = f" on {told.card}" if told.card else ""
    return Line(f"{told.attempt} succeeded: {told.money('captured_minor')}{on}.", tone="success")


def _attempt_late_success(told: Told) -> Line:
    text = f"{told.attempt}, which counted as failed, succeeded after all: {told.money('captured_minor')}."
    return Line(text, tone="success")


def _code(told: Told) -> str:
    code = told.text("raw_code")
    return f" ({code})" if code else ""


def _attempt_decline(told: Told) -> Line:
    on = f" on {told.card}" if told.card else ""
    return Line(f"{told.attempt}{on} was declined: {_reason(told)}{_code(told)}.", tone="danger")


def _reason(told: Told) -> str:
    title = category_title(told.text("category"))
    return title[0].lower() + title[1:]


def _attempt_error(told: Told) -> Line:
    return Line(f"{told.attempt} did not happen: {_reason(told)}{_code(told)}. Nothing was charged.", tone="warning")


def _attempt_wait(told: Told) -> Line:
    until = told.moment("expected_by")
    return Line(f"{told.attempt} awaits settlement by the bank{f' until {until}' if until else ''}.", tone="info")


def _attempt_lose_track(told: Told) -> Line:
    text = f"Nobody knows yet whether {told.attempt[0].lower()}{told.attempt[1:]} was charged; it is being looked up."
    return Line(text, detail=told.text("why"), tone="warning")


def _attempt_decline_named(told: Told) -> Line:
    return Line(
        f"The provider told why {told.attempt.lower()} was declined: {_reason(told)}{_code(told)}.", tone="danger"
    )


def _attempt_resent(told: Told) -> Line:
    return Line(
        f"{told.attempt} was sent once more under its old key, so that it can never be charged twice.", tone="info"
    )


def _attempt_told_paid(told: Told) -> Line:
    name = f"{told.attempt[0].lower()}{told.attempt[1:]}"
    return Line(f"The billing system says that the invoice is paid; {name}, whose result nobody knows, may be it.")


def _invoice_superseded(told: Told) -> Line:
    return Line("The provider's name of this invoice went to the one that has the payments.", detail=told.text("by"))


def _collection_stopped(told: Told) -> Line:
    return Line("The billing system's own retries were switched off.", detail=told.text("answer"))


def _review(told: Told) -> str:
    kind = told.text("kind")
    label = ReviewKind(kind).label if kind in ReviewKind.values else plain(kind)
    return str(label)


def _review_opened(told: Told) -> Line:
    return Line(f"A question went to the staff queue: {_review(told)}.", tone="warning")


def _review_resolved(told: Told) -> Line:
    answer = told.text("resolution")
    if answer == "answered_by_events":
        return Line(f"The question answered itself: {_review(told)}.", tone="info")
    return Line(f"The question “{_review(told)}” was answered: {plain(answer)}.", tone="info")


def _case_opened(told: Told) -> Line:
    return Line(
        f"Recovery began: {told.money('amount_minor')} at risk.",
        detail=f"Segment {plain(told.text('segment'))}, policy version {told.text('policy_version')}",
        tone="warning",
    )


_ENDS = {
    CaseStatus.RECOVERED: ("The money was recovered", "success"),
    CaseStatus.LOST: ("Recovery was given up", "danger"),
    CaseStatus.CANCELED: ("Recovery ended because the invoice was canceled", "warning"),
    CaseStatus.WRITTEN_OFF: ("Recovery ended: the invoice was written off", "warning"),
}


def _case_closed(told: Told) -> Line:
    text, tone = _ENDS.get(told.to_state, ("Recovery ended", "neutral"))  # type: ignore[call-overload]
    by = told.text("recovered_by")
    if told.to_state == CaseStatus.RECOVERED and by:
        text += {"retry": " by a retry", "outside": " outside this service"}.get(by, f" by {plain(by)}")
    reason = told.text("reason")
    return Line(f"{text}.", detail="" if reason in ("", "paid") else reason, tone=tone)


def _final_action(told: Told) -> Line:
    return Line(
        "The merchant's own systems were told to decide what becomes of this invoice.",
        detail=f"{told.money('amount_minor')} is still due.",
        tone="warning",
    )


def _case_planned(told: Told) -> Line:
    step = told.text("step")
    label = NextStep(step).label if step in NextStep.values else plain(step)
    if step in (NextStep.SENDING, NextStep.AWAITING, NextStep.RESOLVING):
        # The attempt's own line says it better, and a sending's time is a lease on the database clock.
        return Line(f"Next step: {label}.", minor=True)
    at = told.moment("at")
    return Line(f"Next step: {label}{f', {at}' if at else ''}.", detail=told.text("why"), tone="accent")


def _dispute_opened(told: Told) -> Line:
    what = "The bank returned the payment" if told.text("kind") == "RETURN" else "The payment was disputed"
    return Line(f"{what}: {told.money('amount_minor')}.", detail=told.text("reason"), tone="danger")


def _staff(text: str, tone: str = "accent") -> Callable[[Told], Line]:
    return lambda told: Line(text, detail=told.text("reason") or told.text("note"), tone=tone)


def _staff_assign(told: Told) -> Line:
    who = told.text("to")
    return Line(f"Assigned to {actor_name(who, told.people)}." if who else "Assigned to nobody any more.")


def _staff_resolve(told: Told) -> Line:
    was = "was charged" if told.text("answer") == "charged" else "was not charged"
    return Line(f"{told.attempt} {was}, says staff.", detail=told.text("note"), tone="accent")


_MESSAGES = {
    "wanted": ("A message to the customer was due", "info"),
    "sent": ("A message left for the customer", "info"),
    "clicked": ("The customer opened the link of a message", "accent"),
    "bounced": ("A message came back; its address gets no more mail", "warning"),
    "complained": ("The customer's mail service marked a message as spam; its address gets no more mail", "warning"),
}


def _message(told: Told) -> Line:
    text, tone = _MESSAGES[told.kind.partition(".")[2]]
    template = plain(told.text("template"))
    if told.text("sender") == "merchant":
        text = "A message was due; the merchant's own system was told"
    if told.text("confirmed") == "no":
        text = "A message may have left for the customer"
    return Line(f"{text}: {template}." if template else f"{text}.", tone=tone, minor=told.kind == "message.wanted")


_NOTES = {
    NoteStatus.WRITTEN: ("The billing system wrote our {} into its books.", "success"),
    NoteStatus.REFUSED: ("The billing system will not write our {} into its books.", "danger"),
    NoteStatus.FAILED: ("Telling the billing system of our {} was given up.", "danger"),
}


def _note_closed(told: Told) -> Line:
    text, tone = _NOTES.get(told.to_state, ("The billing system was told of our {}.", "neutral"))  # type: ignore[call-overload]
    record = told.text("record_id")
    detail = f"Its own id: {record}" if record else told.text("why")
    return Line(text.format(told.text("of") or "payment"), detail=detail, tone=tone)


def _note_retried(told: Told) -> Line:
    return Line(f"Telling the billing system of our {told.text('of') or 'payment'} begins anew.", tone="accent")


_KINDS: Mapping[str, Callable[[Told], Line]] = {
    "invoice.created": _invoice_created,
    "invoice.start": _says("Collecting began.", minor=True),
    "invoice.settle": _says("The invoice is settled.", tone="success"),
    "invoice.fail": _invoice_fail,
    "invoice.resume": _says("Collecting was resumed."),
    "invoice.begin_refund": _says("A refund was begun.", tone="violet"),
    "invoice.finish_refund": _says("The refund is complete.", tone="violet"),
    "invoice.settle_again": _invoice_settle_again,
    "invoice.reverse": _says("The payment was taken back; the amount is owed again.", tone="danger"),
    "invoice.cancel": _invoice_cancel,
    "invoice.amount_changed": _invoice_amount_changed,
    "invoice.named": _invoice_named,
    "transaction.created": _transaction_created,
    "transaction.submit": _transaction("The {} was handed over for sending."),
    "transaction.succeed": _transaction_succeed,
    "transaction.retry_later": _transaction("The {} waits for its next try."),
    "transaction.fail": _transaction("The {} ended without success."),
    "transaction.refund_reversed": _says("The refund was taken back after it had succeeded.", tone="danger"),
    "transaction.credit": _transaction_credit,
    "transaction.cancel": _transaction("The {} was withdrawn."),
    "attempt.sending": _attempt_sending,
    "attempt.succeed": _attempt_succeed,
    "attempt.late_success": _attempt_late_success,
    "attempt.decline": _attempt_decline,
    "attempt.error": _attempt_error,
    "attempt.wait": _attempt_wait,
    "attempt.lose_track": _attempt_lose_track,
    "attempt.decline_named": _attempt_decline_named,
    "attempt.resent": _attempt_resent,
    "attempt.told_paid": _attempt_told_paid,
    "attempt.method_learned": _says("The provider told which payment method was charged.", minor=True),
    "attempt.left": _says("This attempt went to the invoice that took this one's place.", minor=True),
    "attempt.came": _says("An attempt came from the invoice whose place this one took.", minor=True),
    "attempt.counted": _says("The network counts this attempt after all.", minor=True),
    "invoice.collection_stopped": _collection_stopped,
    "invoice.superseded": _invoice_superseded,
    "dispute.opened": _dispute_opened,
    "dispute.win": _says("The dispute was won; the money stays.", tone="success"),
    "dispute.lose": _says("The dispute was lost.", tone="danger"),
    "note.closed": _note_closed,
    "note.retried": _note_retried,
    "review.opened": _review_opened,
    "review.resolved": _review_resolved,
    "case.opened": _case_opened,
    "case.closed": _case_closed,
    "case.final_action": _final_action,
    "case.planned": _case_planned,
    # The note itself stands beside the timeline.
    "staff.note": lambda told: Line("A note was written.", minor=True),
    "staff.assign": _staff_assign,
    "staff.retry": _staff("A retry was asked for."),
    "staff.pause": _staff("Automatic retries were paused.", "warning"),
    "staff.resume": _staff("Automatic retries were resumed."),
    "staff.cancel": _staff("Canceling was asked for.", "warning"),
    "staff.cancel_retry": _staff("Retries were canceled; the invoice stays owed.", "warning"),
    "staff.resolve": _staff_resolve,
    **{f"message.{name}": _message for name in _MESSAGES},
    "page.pay": _says("The customer asked on their page to pay now.", tone="accent"),
    "page.method_updated": _says("The customer gave another payment method on their page.", tone="accent"),
    "page.confirmed": _says("The customer confirmed the payment at the bank.", tone="accent"),
    "customer.pay": _says("A charge was booked by the customer's own wish.", minor=True),
    "staff.unlock": _staff("The customer's slot was taken from this invoice by hand.", "warning"),
}
KNOWN_KINDS = frozenset(_KINDS)
