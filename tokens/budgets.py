"""How many attempts a card or invoice has left under its network's rules, and when exactly the next may be.

Pure: attempts, rules and `now` in, answers out. Windows are exact and half-open: an attempt made at `t`
leaves a rolling window of length `w` at `t + w`, and the next one is allowed at that very instant. A calendar
month ends at the first instant of the next month in UTC. Attempts dated after `now` (clocks differ) count.
Which attempts exist at all (ours, the provider's own, staff and customer tries; not those that provably never
reached the network, never refunds) is the caller's business; one that is open or unresolved is passed as
declined.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tokens.networks import UNKNOWN, normalise_network
from tokens.rules import Counts, Key, Rule, require_aware


@dataclass(frozen=True, slots=True)
class AttemptMark:
    """One attempt as a network counts it. `amount_minor` in minor units of `currency`, `at` aware.

    None as amount: nobody told it (imported history), so it may have been any and counts with every one.
    """

    at: datetime
    amount_minor: int | None
    currency: str
    declined: bool
    network: str = UNKNOWN


@dataclass(frozen=True, slots=True)
class RuleState:
    """One rule now. `releases_at`: when the next counted attempt leaves its window (None if none is counted).
    `allowed_at`: from when this rule alone allows an attempt, never before `now`."""

    rule: Rule
    used: int
    limit: int
    remaining: int
    releases_at: datetime | None
    allowed_at: datetime


@dataclass(frozen=True, slots=True)
class Budget:
    """`remaining`: attempts left now under all rules (None without rules). `next_allowed_at`: the earliest
    instant, not before `now`, at which one more attempt fits. `binding_rule`: the rule that sets that
    instant, or while attempts are left the one with the fewest. `per_rule`: every rule in force now."""

    remaining: int | None
    next_allowed_at: datetime
    binding_rule: Rule | None
    per_rule: tuple[RuleState, ...]


def budget(
    marks: Iterable[AttemptMark],
    rules: Sequence[Rule],
    now: datetime,
    amount_minor: int,
    currency: str,
    invoice_marks: Iterable[AttemptMark] = (),
) -> Budget:
    """What is left for a charge of `amount_minor` `currency`.

    `marks` are the attempts of the card (of its whole budget group), `invoice_marks` those of the invoice
    over all its CHARGE transactions; in any order, quickest when sorted by time. `rules` may hold versions
    for other dates (`RuleBook.for_network`): those in force at each instant decide. Raises ValueError for a
    time without a zone.
    """
    require_aware(now, "now")
    counted = _counted(marks, invoice_marks, rules, amount_minor, currency)
    states = tuple(_state(rule, times, now) for rule, times in counted if rule.active_at(now))
    next_allowed_at, blocking = _earliest(counted, now)
    if blocking is None and states:
        blocking = min(states, key=lambda state: (state.remaining, -state.limit)).rule
    remaining = min((state.remaining for state in states), default=None)
    return Budget(remaining, next_allowed_at, blocking, states)


def earliest_allowed(
    marks: Iterable[AttemptMark],
    rules: Sequence[Rule],
    not_before: datetime,
    amount_minor: int,
    currency: str,
    invoice_marks: Iterable[AttemptMark] = (),
) -> datetime:
    """The earliest instant, not before `not_before`, at which one more attempt fits every rule in force then.

    Arguments as for `budget`; give the rules of all dates, so that one which starts later is obeyed from its
    day on.
    """
    require_aware(not_before, "not_before")
    return _earliest(_counted(marks, invoice_marks, rules, amount_minor, currency), not_before)[0]


def _counted(
    marks: Iterable[AttemptMark],
    invoice_marks: Iterable[AttemptMark],
    rules: Sequence[Rule],
    amount_minor: int,
    currency: str,
) -> list[tuple[Rule, list[datetime]]]:
    """Each rule with the times of the attempts that it counts, oldest first."""
    card, invoice = tuple(marks), tuple(invoice_marks)
    for mark in (*card, *invoice):
        require_aware(mark.at, "An attempt's time")
    wanted = currency.upper()
    same_amount = [
        mark
        for mark in card
        if mark.amount_minor is None or (mark.amount_minor == amount_minor and mark.currency.upper() == wanted)
    ]
    counted = []
    for rule in rules:
        match rule.key:
            case Key.CARD:
                pool: Sequence[AttemptMark] = card
            case Key.CARD_AMOUNT:
                pool = same_amount
            case Key.INVOICE:
                # An attempt whose network nobody told us may have been this one's, so it counts.
                pool = [mark for mark in invoice if normalise_network(mark.network) in (rule.network, UNKNOWN)]
        counted.append((rule, sorted(mark.at for mark in pool if mark.declined or rule.counts is Counts.ALL)))
    return counted


def _state(rule: Rule, times: Sequence[datetime], now: datetime) -> RuleState:
    first_inside = bisect_right(times, now, key=rule.leaves_at)
    used = len(times) - first_inside
    release = _release(rule, times)
    return RuleState(
        rule=rule,
        used=used,
        limit=rule.limit,
        remaining=max(0, rule.limit - used),
        releases_at=rule.leaves_at(times[first_inside]) if used else None,
        allowed_at=now if release is None else max(now, release),
    )


def _release(rule: Rule, times: Sequence[datetime]) -> datetime | None:
    """From when the window holds fewer than `limit` of `times`; None if there are not so many."""
    if len(times) < rule.limit:
        return None
    return rule.leaves_at(times[len(times) - rule.limit])


def _earliest(counted: Sequence[tuple[Rule, Sequence[datetime]]], not_before: datetime) -> tuple[datetime, Rule | None]:
    """The earliest allowed instant and the rule that was the last to block before it.

    A rule blocks from the start of its validity until its release or its end, whichever comes first, and
    never again after that, so every pass through the loop is done with at least one rule.
    """
    blocks = [(rule, release) for rule, times in counted if (release := _release(rule, times)) is not None]
    at, blocking = not_before, None
    moved = True
    while moved:
        moved = False
        for rule, release in blocks:
            until = release if rule.valid_to is None else min(release, rule.valid_to)
            if rule.active_at(at) and at < until:
                at, blocking, moved = until, rule, True
    return at, blocking
