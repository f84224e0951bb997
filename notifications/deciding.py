"""Whether a planned message goes out now, later or never, and why: pure.

Facts and `now` in, a `Verdict` out. The caller gathers the facts under the customer's and the invoice's lock, so that
the answer holds until the message counts as being sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum

from retries.categories import Category
from retries.policy import Audience, MessageStep
from retries.states import NextStep
from retries.timing import QuietHours, next_allowed_instant

# A retry that is this near is waited for: what the machine settles by itself needs no message.
RETRY_SOON = timedelta(hours=6)
# How long to leave a message alone whose case is paused, in the staff queue or in flight.
LOOK_AGAIN = timedelta(hours=6)
# A retry is over some minutes after its time; if it is late, one looks again.
_AFTER_RETRY = timedelta(minutes=15)
_IN_FLIGHT = (NextStep.SENDING, NextStep.AWAITING, NextStep.RESOLVING)


class Verb(StrEnum):
    SEND = "send"
    WAIT = "wait"  # until `at`, or until something happens to the case
    HAND_OVER = "hand_over"
    SUPPRESS = "suppress"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`why` is one sentence for people. WAIT without `at`: an event of the case will ask again."""

    verb: Verb
    why: str
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `count` messages to one address in `window`, and `gap` between two."""

    count: int
    window: timedelta
    gap: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFacts:
    """The case as it stands. `open` is false once it is closed, whatever closed it."""

    open: bool
    due_minor: int
    category: str
    failed_retries: int
    exhausted: bool
    paused_by: str
    next_step: NextStep
    next_step_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Whom it is for. `sent`: when other messages went to this address; `suppressed`: why it must not get any."""

    address: str
    suppressed: str
    sent: Sequence[datetime]
    zone: tzinfo
    quiet: QuietHours | None
    cap: Cap
    merchant_writes: bool


def decide_step(step: MessageStep, case: CaseFacts, reader: Reader, now: datetime) -> Verdict:
    """A step of a policy, whose planned time has come."""
    if not case.open:
        return Verdict(Verb.CANCEL, "The case is closed.")
    if case.due_minor <= 0:
        return Verdict(Verb.CANCEL, "Nothing is due any more.")
    waiting = _concerns(step, case) or _patience(step, case, now)
    if waiting is not None:
        return waiting
    if step.audience is Audience.STAFF:
        return Verdict(Verb.HAND_OVER, "Staff were told by an alert.")
    return decide_reader(reader, now)


def _concerns(step: MessageStep, case: CaseFacts) -> Verdict | None:
    """None if the step is for such a failure, once enough silent retries have failed or no machine will try again."""
    if not case.category or Category(case.category) not in step.categories:
        return Verdict(Verb.WAIT, "Waits: the failure is not of a kind that this message is about.")
    if case.failed_retries < step.after_failed_retries and not case.exhausted:
        count = step.after_failed_retries
        return Verdict(Verb.WAIT, f"Waits until {count} silent {'retry has' if count == 1 else 'retries have'} failed.")
    return None


def _patience(step: MessageStep, case: CaseFacts, now: datetime) -> Verdict | None:
    """None if nothing is under way that may settle it without anybody."""
    if case.next_step in _IN_FLIGHT:
        return Verdict(Verb.WAIT, "Waits for the result of a charge.", now + LOOK_AGAIN)
    if case.paused_by or case.next_step in (NextStep.PAUSED, NextStep.STAFF):
        return Verdict(Verb.WAIT, "Waits: staff have the case in hand.", now + LOOK_AGAIN)
    at = case.next_step_at if case.next_step in (NextStep.BOOKED, NextStep.PROVIDER) else None
    if at is not None and step.audience is Audience.CUSTOMER and at - now <= RETRY_SOON:
        return Verdict(Verb.WAIT, "Waits for the retry that is due soon.", max(at, now) + _AFTER_RETRY)
    return None


def decide_reader(reader: Reader, now: datetime) -> Verdict:
    """The last questions, about the person: who writes, may we, is it night there, was it too much lately?"""
    if not reader.merchant_writes:
        if not reader.address:
            return Verdict(Verb.SUPPRESS, "The customer's mail address is not known.")
        if reader.suppressed:
            return Verdict(Verb.SUPPRESS, f"This address gets no mail: {reader.suppressed}.")
    at, why = now, ""
    if not reader.merchant_writes:
        at, why = _capped(reader, now), "Waits: the customer has heard from us often enough lately."
    loud = next_allowed_instant(at, reader.zone, reader.quiet)
    if loud > at:
        at, why = loud, "Waits for the end of the customer's quiet hours."
    if at > now:
        return Verdict(Verb.WAIT, why, at)
    if reader.merchant_writes:
        return Verdict(Verb.HAND_OVER, "The merchant's own system was told by webhook.")
    return Verdict(Verb.SEND, "")


def _capped(reader: Reader, now: datetime) -> datetime:
    """The first instant, not before `now`, at which one more message keeps within the cap."""
    cap, sent = reader.cap, sorted(reader.sent)
    at = now
    if sent:
        at = max(at, sent[-1] + cap.gap)
    if len(sent) >= cap.count:
        at = max(at, sent[-cap.count] + cap.window)
    return at
