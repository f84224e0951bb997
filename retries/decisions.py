"""What happens next to one invoice, and why: the pure heart of the engine.

Facts and `now` in, a `Plan` out; no model, clock or I/O. The caller gathers facts under the locks of DESIGN section 6,
so an answer holds for as long as its transaction does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from retries.categories import Category, Scope
from retries.classification import Classification
from retries.planning import RetryPlan
from retries.states import NextStep
from tokens.selectors import TokenOption

# A queued invoice takes the slot over if it could go this much sooner than the one that holds it (DESIGN section 7).
SWAP_ADVANTAGE = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The failure that rules the plan: when, with which token, and what it means."""

    at: datetime
    token_pk: int | None
    verdict: Classification


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What the policy grants after this failure (`retry`), and its limits in time."""

    retry: RetryPlan
    horizon_at: datetime
    grace_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything else that decides."""

    now: datetime
    paused_by: str
    in_flight: NextStep | None  # SENDING, AWAITING or RESOLVING while one of our charges is open
    in_flight_until: datetime | None
    observe_only: bool
    provider_keeps: bool  # the biller retries by itself and we do not take over
    provider_retry_at: datetime | None
    connection_paused: str
    automatic_barred: bool
    not_before: datetime | None  # payment whose invoice is not named yet, Retry-After, a staff member's wish
    # The provider is down or has asked to wait: until when, and why in words.
    provider_bar: tuple[datetime, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`step` is one of promise 3's next steps; `why` is the sentence people read. For BOOKED, `at` and `token_pk` say
    when and with what (for PAUSED `token_pk` is what waits for a repair); `exhausted` ends the machine's tries
    (`limits_exhausted`: the networks' limits do); `lost` closes the case, at its deadline (`final`) with the policy's
    final action; `review` is the kind of question put to staff."""

    step: NextStep
    at: datetime | None = None
    token_pk: int | None = None
    why: str = ""
    exhausted: bool = False
    limits_exhausted: bool = False
    lost: bool = False
    final: bool = False
    review: str = ""


def standing_plan(situation: Situation) -> Plan | None:
    """A next step that does not depend on the failure at all, or None."""
    if situation.in_flight is not None:
        why = {
            NextStep.SENDING: "A charge is being sent right now.",
            NextStep.AWAITING: "The bank has not settled the last charge yet.",
            NextStep.RESOLVING: "Nobody knows yet whether the last charge went through; it is being looked up.",
        }[situation.in_flight]
        return Plan(step=situation.in_flight, at=situation.in_flight_until, why=why)
    if situation.paused_by:
        return Plan(step=NextStep.PAUSED, why=f"Paused by {situation.paused_by}.")
    return None


def retry_instant(situation: Situation, failure: Failure, allowance: Allowance) -> datetime | None:
    """The earliest instant of the next automatic try as the policy wants it, or None if it wants none.

    A hard decline says nothing about the customer's other tokens: they may be tried at once.
    """
    earliest = allowance.retry.at
    other_token = failure.verdict.category is Category.HARD_DECLINE or _token_held(failure)
    if other_token or _repaired(situation, failure):
        earliest = failure.at
    if earliest is None:
        return None
    barred = situation.provider_bar[0] if situation.provider_bar else earliest
    return max(earliest, situation.not_before or earliest, barred, situation.now)


def _needs_repair(failure: Failure) -> bool:
    """Only a person can tell when a configuration error of one invoice is repaired."""
    own = failure.verdict.scope is Scope.INVOICE or (failure.verdict.scope is Scope.TOKEN and failure.token_pk is None)
    return failure.verdict.category is Category.CONFIG_ERROR and own


def _token_held(failure: Failure) -> bool:
    """Our set-up cannot charge that token: it waits for the repair, and another one may be tried meanwhile."""
    verdict = failure.verdict
    return verdict.category is Category.CONFIG_ERROR and verdict.scope is Scope.TOKEN and failure.token_pk is not None


def _repaired(situation: Situation, failure: Failure) -> bool:
    """The whole connection was the trouble, and it is no longer paused: all that waited for it go on."""
    return failure.verdict.category is Category.CONFIG_ERROR and not situation.connection_paused


def decide(
    situation: Situation,
    failure: Failure,
    allowance: Allowance,
    instant: datetime | None,
    options: Sequence[TokenOption],
) -> Plan:
    """The next step. `options` are ranked for `instant` (or for `now` if there is none), best first."""
    if (standing := standing_plan(situation)) is not None:
        return standing
    verdict = failure.verdict
    if verdict.category is Category.FRAUD_FLAGGED:
        return Plan(
            step=NextStep.NONE,
            lost=True,
            exhausted=True,
            why=f"Given up: {verdict.explanation}",
            review="fraud",
        )
    if verdict.look_up:
        return Plan(
            step=NextStep.STAFF,
            why="The provider calls this a duplicate of an earlier charge; a person has to check that it was not paid.",
            review="no_plan",
        )
    if situation.observe_only or situation.provider_keeps:
        return _leave_to_provider(situation, allowance)
    if situation.connection_paused or _needs_repair(failure):
        return _wait_for_repair(situation.connection_paused or verdict.explanation)
    if situation.automatic_barred:
        return _ask(
            situation,
            allowance,
            "the last payment was returned or disputed, so no automatic charge is allowed",
        )
    if instant is None:
        return _ask(situation, allowance, _refusal(failure, allowance))
    return _choose(situation, failure, allowance, options)


def _choose(situation: Situation, failure: Failure, allowance: Allowance, options: Sequence[TokenOption]) -> Plan:
    usable = [option for option in options if option.usable]
    if not options and situation.not_before is not None and situation.not_before > situation.now:
        return Plan(
            step=NextStep.PROVIDER,
            at=situation.not_before,
            why="Waits for the provider's report of the payment itself, which names the reason and the payment method.",
        )
    if not options:
        return _ask(situation, allowance, "no payment method of this customer is known")
    if not usable and (held := next((option for option in options if option.held), None)) is not None:
        return _wait_for_repair(f"the {held.label} {held.obstacle}.", held.pk)
    if not usable:
        return _ask(situation, allowance, f"the {options[0].label} {options[0].obstacle} and there is no other one")
    best = usable[0]
    if best.allowed_at > allowance.horizon_at:
        limit = f" ({best.limit_text})" if best.limit_text else ""
        asked = _ask(situation, allowance, f"the network's limit{limit} leaves no room before the deadline")
        return replace(asked, limits_exhausted=bool(best.limit_text))
    bar = situation.provider_bar
    if bar is not None and best.allowed_at == bar[0]:
        why = f"Waits because {bar[1]}, then tries the {best.label}."
    elif best.limit_text:
        why = f"Retries the {best.label}; waits because of {best.limit_text}."
    elif failure.verdict.category is Category.HARD_DECLINE:
        why = f"Tries the {best.label}, because the other payment method was refused for good."
    elif _token_held(failure):
        why = f"Tries the {best.label}, because our set-up at the provider cannot charge the other payment method."
    else:
        why = f"{allowance.retry.reason} With the {best.label}: {failure.verdict.explanation}"
    return Plan(step=NextStep.BOOKED, at=best.allowed_at, token_pk=best.pk, why=why)


def _wait_for_repair(reason: str, token_pk: int | None = None) -> Plan:
    why = f"Waits until the configuration is repaired: {reason}"
    return Plan(step=NextStep.PAUSED, token_pk=token_pk, why=why, review="configuration")


def _leave_to_provider(situation: Situation, allowance: Allowance) -> Plan:
    if situation.provider_retry_at is not None and situation.provider_retry_at > situation.now:
        return Plan(
            step=NextStep.PROVIDER,
            at=situation.provider_retry_at,
            why="The provider retries this payment by itself.",
        )
    return _ask(situation, allowance, "the provider has announced no further try and this service only observes")


def _refusal(failure: Failure, allowance: Allowance) -> str:
    if failure.verdict.category is Category.AUTHENTICATION_REQUIRED:
        return "the bank wants the customer to confirm the payment"
    reason = allowance.retry.reason.rstrip(".")
    return reason[:1].lower() + reason[1:]


def _ask(situation: Situation, allowance: Allowance, reason: str) -> Plan:
    if situation.now >= allowance.grace_until:
        return Plan(
            step=NextStep.NONE,
            lost=True,
            final=True,
            exhausted=True,
            why=f"Given up at the deadline: {reason}.",
        )
    return Plan(
        step=NextStep.CUSTOMER,
        at=allowance.grace_until,
        exhausted=True,
        why=f"Waits for the customer: {reason}.",
    )
