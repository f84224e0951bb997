"""What brought a recovered case's money back: pure, so that it can be worked out again from the kept touches.

The rule (RULE names its version; docs/messages.md), the first that holds:

1. staff: our attempt that paid was asked for by staff.
2. message: within the seven days before the payment the payer opened the link of a message.
3. message: the payment followed another payment method, and a message had been sent within the seven days before.
4. card update: the payment followed another payment method, or the payer's own wish, without a message before.
5. retry: our automatic attempt paid.
6. outside: everything else, such as a bank transfer or the provider's own retry.

A message that was only sent never takes a retry's recovery: the retry would have been made anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

RULE = "2026-1"
WINDOW = timedelta(days=7)


class Source(StrEnum):
    RETRY = "retry"
    MESSAGE = "message"
    CARD_UPDATE = "card_update"
    STAFF = "staff"
    OUTSIDE = "outside"


class Kind(StrEnum):
    """A touch: something that reached the payer, or that the payer did."""

    SENT = "sent"
    CLICKED = "clicked"


@dataclass(frozen=True, slots=True)
class Touch:
    kind: Kind
    at: datetime
    message: str


@dataclass(frozen=True, slots=True)
class Payment:
    """What paid: `ours` is false for attempts of others and for debts paid without any; `trigger` is the attempt's."""

    at: datetime
    ours: bool
    trigger: str = ""


@dataclass(frozen=True, slots=True)
class Attribution:
    """`message` is the public id of the message that counts, if one does; `why` says which rule held."""

    source: Source
    why: str
    message: str = ""


def attribute(payment: Payment, touches: Sequence[Touch]) -> Attribution:
    """The source of one recovery. The order of `touches` does not matter; those after the payment count for nothing."""
    if payment.ours and payment.trigger == "staff":
        return Attribution(Source.STAFF, "Staff asked for the charge that paid.")
    near = [touch for touch in touches if payment.at - WINDOW <= touch.at <= payment.at]
    clicked, sent = _last(near, Kind.CLICKED), _last(near, Kind.SENT)
    if clicked is not None:
        return Attribution(Source.MESSAGE, "The payer had opened the link of this message.", clicked.message)
    by_payer = payment.ours and payment.trigger in ("card_update", "customer")
    if by_payer and sent is not None:
        return Attribution(Source.MESSAGE, "The payment method was renewed after this message.", sent.message)
    if by_payer:
        return Attribution(Source.CARD_UPDATE, "The payment method was renewed without a message before.")
    if payment.ours:
        return Attribution(Source.RETRY, "An automatic retry paid.")
    return Attribution(Source.OUTSIDE, "It was paid outside of what this service sends.")


def _last(touches: Sequence[Touch], kind: Kind) -> Touch | None:
    return max((touch for touch in touches if touch.kind is kind), key=lambda touch: touch.at, default=None)
