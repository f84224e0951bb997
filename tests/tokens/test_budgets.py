"""Budgets against a slow, obvious oracle, and at the instants where mistakes hide."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokens.budgets import AttemptMark, budget, earliest_allowed
from tokens.rules import FAR_FUTURE, Counts, Key, Rule, WindowKind, load_rules

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)
DAILY = timedelta(hours=24)


def rule(
    limit=2,
    window=DAILY,
    key=Key.CARD,
    counts=Counts.DECLINES,
    valid_from=None,
    valid_to=None,
    network="mastercard",
    name="rule",
):
    kind = WindowKind.CALENDAR_MONTH if window is None else WindowKind.ROLLING
    return Rule(network, name, kind, window, limit, key, counts, valid_from, valid_to, "test")


def mark(at, amount_minor=1000, currency="EUR", declined=True, network="mastercard"):
    return AttemptMark(at, amount_minor, currency, declined, network)


# --- the oracle: counts every attempt anew at every candidate instant -----------------------------


def _in_window(rule, at, instant):
    if at > instant:
        return True  # a clock ahead of ours: it counts
    if rule.window is None:
        at, instant = at.astimezone(UTC), instant.astimezone(UTC)
        return (at.year, at.month) == (instant.year, instant.month)
    return instant - at < rule.window


def _counts(rule, mark, amount_minor, currency):
    if rule.counts is Counts.DECLINES and not mark.declined:
        return False
    return rule.key is not Key.CARD_AMOUNT or (mark.amount_minor, mark.currency) == (amount_minor, currency)


def _used(rule, marks, invoice_marks, instant, amount_minor, currency):
    pool = invoice_marks if rule.key is Key.INVOICE else marks
    return sum(1 for mark in pool if _counts(rule, mark, amount_minor, currency) and _in_window(rule, mark.at, instant))


def _holds(rule, instant):
    after_start = rule.valid_from is None or instant >= rule.valid_from
    return after_start and (rule.valid_to is None or instant < rule.valid_to)


def _allowed(rules, marks, invoice_marks, instant, amount_minor, currency):
    return all(
        _used(rule, marks, invoice_marks, instant, amount_minor, currency) < rule.limit
        for rule in rules
        if _holds(rule, instant)
    )


def _oracle(rules, marks, invoice_marks, not_before, amount_minor, currency):
    """The earliest allowed of all instants at which anything can change."""
    candidates = {not_before}
    for one in rules:
        candidates |= {edge for edge in (one.valid_from, one.valid_to) if edge is not None}
        for mark in (*marks, *invoice_marks):
            if one.window is not None:
                candidates.add(mark.at + one.window)
            else:
                at = mark.at.astimezone(UTC)
                year, month = divmod(at.year * 12 + at.month, 12)
                candidates.add(datetime(year, month + 1, 1, tzinfo=UTC))
    for instant in sorted(candidates):
        if instant >= not_before and _allowed(rules, marks, invoice_marks, instant, amount_minor, currency):
            return instant
    raise AssertionError("The oracle found no instant.")


# Coarse times make ties, windows that just touch and attempts at the very instant asked about likely.
instants = st.builds(
    lambda hours, microseconds: NOW + timedelta(hours=hours, microseconds=microseconds),
    st.integers(-24 * 70, 24 * 40),
    st.sampled_from([0, 0, 0, -1, 1]),
)
marks_lists = st.lists(
    st.builds(
        mark,
        instants,
        amount_minor=st.sampled_from([1000, 2000]),
        currency=st.sampled_from(["EUR", "USD"]),
        declined=st.booleans(),
    ),
    max_size=25,
)
windows = st.sampled_from([timedelta(hours=1), DAILY, 3 * DAY, 30 * DAY, None])


@st.composite
def rules_lists(draw):
    rules = []
    for _ in range(draw(st.integers(1, 4))):
        edges = sorted(draw(st.lists(instants, min_size=2, max_size=2, unique=True)))
        valid_from, valid_to = draw(
            st.sampled_from([(None, None), (edges[0], None), (None, edges[1]), (edges[0], edges[1])])
        )
        rules.append(
            rule(
                limit=draw(st.integers(1, 5)),
                window=draw(windows),
                key=draw(st.sampled_from(list(Key))),
                counts=draw(st.sampled_from(list(Counts))),
                valid_from=valid_from,
                valid_to=valid_to,
            )
        )
    return rules


@given(rules_lists(), marks_lists, marks_lists, instants)
@settings(max_examples=300, deadline=None)
def test_the_earliest_instant_is_the_oracles(rules, marks, invoice_marks, not_before):
    expected = _oracle(rules, marks, invoice_marks, not_before, 1000, "EUR")
    assert earliest_allowed(marks, rules, not_before, 1000, "EUR", invoice_marks) == expected
    answer = budget(marks, rules, not_before, 1000, "EUR", invoice_marks)
    assert answer.next_allowed_at == expected


@given(rules_lists(), marks_lists, marks_lists, instants)
@settings(max_examples=300, deadline=None)
def test_used_and_remaining_of_every_rule_are_the_oracles(rules, marks, invoice_marks, now):
    answer = budget(marks, rules, now, 1000, "EUR", invoice_marks)
    in_force = [one for one in rules if _holds(one, now)]
    assert [state.rule for state in answer.per_rule] == in_force
    for state in answer.per_rule:
        used = _used(state.rule, marks, invoice_marks, now, 1000, "EUR")
        assert (state.used, state.remaining) == (used, max(0, state.rule.limit - used))
        assert state.allowed_at == _oracle(
            [rule(state.rule.limit, state.rule.window, state.rule.key, state.rule.counts)],
            marks,
            invoice_marks,
            now,
            1000,
            "EUR",
        )
        if used:
            released = _used(state.rule, marks, invoice_marks, state.releases_at, 1000, "EUR")
            before = _used(state.rule, marks, invoice_marks, state.releases_at - INSTANT, 1000, "EUR")
            assert state.releases_at > now
            assert released < before == used
        else:
            assert state.releases_at is None
    lowest = min((state.remaining for state in answer.per_rule), default=None)
    assert answer.remaining == lowest


@given(rules_lists(), marks_lists, instants, st.randoms())
@settings(max_examples=100, deadline=None)
def test_the_order_of_attempts_does_not_matter(rules, marks, now, random):
    shuffled = list(marks)
    random.shuffle(shuffled)
    assert budget(shuffled, rules, now, 1000, "EUR", marks) == budget(marks, rules, now, 1000, "EUR", shuffled)


@given(rules_lists(), marks_lists, instants)
@settings(max_examples=200, deadline=None)
def test_the_binding_rule_is_one_that_blocks_or_has_the_fewest_left(rules, marks, now):
    answer = budget(marks, rules, now, 1000, "EUR")
    if answer.next_allowed_at > now:
        just_before = answer.next_allowed_at - INSTANT
        binding = answer.binding_rule
        assert binding is not None
        assert not _allowed([binding], marks, [], just_before, 1000, "EUR")
    elif answer.per_rule:
        fewest = [state.rule for state in answer.per_rule if state.remaining == answer.remaining]
        assert answer.binding_rule in fewest
    else:
        assert answer.binding_rule is None


@given(marks_lists, instants, st.integers(1, 60), windows)
@settings(max_examples=150, deadline=None)
def test_taking_every_allowed_instant_never_breaks_the_rule(marks, start, tries, window):
    """Greedy use of the budget: at no instant does any window hold more attempts than the limit, except those
    that were too many to begin with."""
    one = rule(limit=3, window=window)
    taken = [mark for mark in marks if mark.at <= start]
    at = start
    for _ in range(min(tries, 12)):
        at = earliest_allowed(taken, [one], at, 1000, "EUR")
        used = _used(one, taken, [], at, 1000, "EUR")
        assert used < one.limit
        taken.append(mark(at))


# --- exact examples -------------------------------------------------------------------------------


@pytest.mark.parametrize(("made", "remaining"), [(1, 1), (2, 0), (3, 0)])
def test_one_below_at_and_above_the_limit(made, remaining):
    marks = [mark(NOW - timedelta(hours=hours)) for hours in range(1, made + 1)]
    answer = budget(marks, [rule(limit=2)], NOW, 1000, "EUR")
    assert answer.remaining == remaining
    assert answer.per_rule[0].used == made
    # Above the limit one release is not enough: the newest but one has to leave.
    expected = NOW if made < 2 else NOW - timedelta(hours=2) + DAILY
    assert answer.next_allowed_at == expected


def test_an_attempt_leaves_its_window_exactly_one_window_later():
    made = datetime(2026, 3, 9, 12, tzinfo=UTC)
    limit_one = [rule(limit=1)]
    released = made + DAILY
    assert earliest_allowed([mark(made)], limit_one, released - INSTANT, 1000, "EUR") == released
    assert earliest_allowed([mark(made)], limit_one, released, 1000, "EUR") == released
    assert budget([mark(made)], limit_one, released - INSTANT, 1000, "EUR").remaining == 0
    assert budget([mark(made)], limit_one, released, 1000, "EUR").remaining == 1


def test_the_last_hour_and_second_of_a_day_are_no_exception():
    """Counting by calendar day and waiting whole hours would open the limit at 23:00 and forget it at
    midnight."""
    marks = [mark(datetime(2026, 3, 10, 9, minute, tzinfo=UTC)) for minute in range(10)]
    daily = [one for one in load_rules().for_network("mastercard") if one.name == "max_retries_per_day"]
    released = datetime(2026, 3, 11, 9, 0, tzinfo=UTC)
    for clock in ("23:00:00", "23:30:00", "23:59:59"):
        late = datetime.fromisoformat(f"2026-03-10T{clock}+00:00")
        answer = budget(marks, daily, late, 1000, "EUR")
        assert (answer.remaining, answer.next_allowed_at) == (0, released)
    after_midnight = datetime(2026, 3, 11, tzinfo=UTC)
    assert budget(marks, daily, after_midnight, 1000, "EUR").remaining == 0


def test_a_rolling_day_is_24_hours_across_a_change_of_the_clock():
    berlin = ZoneInfo("Europe/Berlin")
    made = datetime(2026, 3, 28, 12, tzinfo=berlin)  # the night after it, 02:00 becomes 03:00
    expected = datetime(2026, 3, 29, 13, tzinfo=berlin)
    assert earliest_allowed([mark(made)], [rule(limit=1)], made, 1000, "EUR") == expected
    assert expected.astimezone(UTC) - made.astimezone(UTC) == DAILY


def test_thirty_days_are_720_hours_over_a_leap_day():
    made = datetime(2028, 2, 10, 8, 30, tzinfo=UTC)
    monthly = rule(limit=1, window=30 * DAY)
    expected = datetime(2028, 3, 11, 8, 30, tzinfo=UTC)
    assert earliest_allowed([mark(made)], [monthly], made, 1000, "EUR") == expected
    assert earliest_allowed([mark(made.replace(year=2027))], [monthly], made.replace(year=2027), 1000, "EUR") == (
        datetime(2027, 3, 12, 8, 30, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    ("made", "released"),
    [
        ("2026-12-31T23:59:59.999999+00:00", "2027-01-01T00:00:00+00:00"),
        ("2026-11-15T06:00:00+00:00", "2026-12-01T00:00:00+00:00"),
        ("2028-02-29T00:00:00+00:00", "2028-03-01T00:00:00+00:00"),
        ("2026-03-01T00:00:00+00:00", "2026-04-01T00:00:00+00:00"),
        # Still February in UTC, whatever the merchant's wall clock says.
        ("2026-03-01T00:30:00+01:00", "2026-03-01T00:00:00+00:00"),
    ],
)
def test_a_calendar_month_ends_at_the_first_instant_of_the_next_in_utc(made, released):
    made, released = datetime.fromisoformat(made), datetime.fromisoformat(released)
    assert earliest_allowed([mark(made)], [rule(limit=1, window=None)], made, 1000, "EUR") == released


def test_attempts_dated_in_the_future_count():
    ahead = [mark(NOW + timedelta(minutes=3)), mark(NOW + timedelta(minutes=5))]
    answer = budget(ahead, [rule(limit=2)], NOW, 1000, "EUR")
    assert answer.remaining == 0
    assert answer.next_allowed_at == NOW + timedelta(minutes=3) + DAILY


def test_a_clock_that_claims_the_end_of_time_blocks_without_crashing():
    absurd = [mark(datetime(9999, 12, 31, 23, 59, tzinfo=UTC))]
    for window in (30 * DAY, None):
        answer = budget(absurd, [rule(limit=1, window=window)], NOW, 1000, "EUR")
        assert (answer.remaining, answer.next_allowed_at) == (0, FAR_FUTURE)


def test_a_success_in_between_neither_counts_nor_erases():
    marks = [mark(NOW - timedelta(hours=3)), mark(NOW - timedelta(hours=2), declined=False), mark(NOW)]
    declines = budget(marks, [rule(limit=2)], NOW, 1000, "EUR")
    assert (declines.per_rule[0].used, declines.remaining) == (2, 0)
    everything = budget(marks, [rule(limit=3, counts=Counts.ALL)], NOW, 1000, "EUR")
    assert (everything.per_rule[0].used, everything.remaining) == (3, 0)


def test_a_rule_that_starts_later_is_obeyed_from_its_day_on():
    change = datetime(2026, 3, 11, tzinfo=UTC)
    old = rule(limit=5, valid_to=change)
    new = rule(limit=2, window=7 * DAY, valid_from=change)
    marks = [mark(NOW - timedelta(hours=hours)) for hours in (1, 2, 3)]
    assert budget(marks, [old, new], NOW, 1000, "EUR").remaining == 2
    assert earliest_allowed(marks, [old, new], change - INSTANT, 1000, "EUR") == change - INSTANT
    assert earliest_allowed(marks, [old, new], change, 1000, "EUR") == NOW - timedelta(hours=2) + 7 * DAY


def test_a_rule_that_ends_releases_what_it_held():
    change = datetime(2026, 3, 11, tzinfo=UTC)
    strict = rule(limit=1, window=30 * DAY, valid_to=change)
    loose = rule(limit=20, window=30 * DAY, valid_from=change)
    answer = budget([mark(NOW)], [strict, loose], NOW, 1000, "EUR")
    assert (answer.next_allowed_at, answer.binding_rule) == (change, strict)


def test_card_amount_tells_amounts_and_currencies_apart():
    one = [rule(limit=1, key=Key.CARD_AMOUNT)]
    assert budget([mark(NOW, 999)], one, NOW, 1000, "EUR").remaining == 1
    assert budget([mark(NOW, 1000, "USD")], one, NOW, 1000, "EUR").remaining == 1
    assert budget([mark(NOW, 1000, "eur")], one, NOW, 1000, "EUR").remaining == 0


def test_invoice_rules_count_the_invoices_entries_of_that_network_and_of_none():
    ach = load_rules().for_network("ach")
    entries = [mark(NOW - 9 * DAY, network="ach"), mark(NOW - 5 * DAY, network="ACH_Debit")]
    card_try = mark(NOW - 6 * DAY, network="visa")
    assert budget([], ach, NOW, 1000, "USD", [*entries, card_try]).remaining == 1
    third = budget([], ach, NOW, 1000, "USD", [*entries, card_try, mark(NOW - 1 * DAY, network="")])
    assert (third.remaining, third.next_allowed_at) == (0, NOW - 9 * DAY + 180 * DAY)
    assert budget(entries, ach, NOW, 1000, "USD").remaining == 3  # card marks are not the invoice's


def test_the_strictest_of_several_rules_decides():
    rules = load_rules().for_network("mastercard")
    eight_hours = [mark(NOW - timedelta(hours=8 * number)) for number in range(35)]
    answer = budget(eight_hours, rules, NOW, 1000, "EUR")
    assert {state.rule.name: (state.used, state.remaining) for state in answer.per_rule} == {
        "max_retries_per_day": (3, 7),
        "max_retry_count_for_thirty_day": (35, 0),
    }
    assert answer.remaining == 0
    assert answer.next_allowed_at == NOW - timedelta(hours=8 * 34) + 30 * DAY
    assert answer.binding_rule is not None
    assert answer.binding_rule.name == "max_retry_count_for_thirty_day"


def test_without_attempts_everything_is_allowed_now():
    answer = budget([], load_rules().for_network("visa"), NOW, 1000, "EUR")
    assert (answer.remaining, answer.next_allowed_at) == (15, NOW)
    assert [state.releases_at for state in answer.per_rule] == [None]


def test_without_rules_nothing_is_known_and_nothing_blocks():
    answer = budget([mark(NOW)], [], NOW, 1000, "EUR")
    assert answer == type(answer)(None, NOW, None, ())


def test_ten_thousand_attempts_are_counted_exactly():
    marks = [mark(NOW - timedelta(minutes=number)) for number in range(10_000)]
    answer = budget(marks, [rule(limit=100, window=DAILY)], NOW, 1000, "EUR")
    assert answer.per_rule[0].used == 1440
    assert answer.next_allowed_at == NOW - timedelta(minutes=99) + DAILY


def test_times_of_any_zone_are_the_same_instants():
    tokyo = timezone(timedelta(hours=9))
    assert budget([mark(NOW.astimezone(tokyo))], [rule(limit=1)], NOW, 1000, "EUR") == budget(
        [mark(NOW)], [rule(limit=1)], NOW, 1000, "EUR"
    )


@pytest.mark.parametrize("naive", ["now", "mark"])
def test_a_time_without_a_zone_is_refused(naive):
    bare = datetime(2026, 3, 10, 12)  # noqa: DTZ001 - the point of the test
    now, at = (bare, NOW) if naive == "now" else (NOW, bare)
    with pytest.raises(ValueError, match="no time zone; pass an aware UTC datetime"):
        budget([mark(at)], [rule()], now, 1000, "EUR")


@given(st.integers(0, 60 * 60 * 24 * 400), st.sampled_from([timedelta(hours=24), 30 * DAY, None]))
@example(0, None)
@settings(max_examples=200, deadline=None)
def test_attempts_never_leave_in_another_order_than_they_were_made(seconds, window):
    """`bisect` in budgets relies on it."""
    one = rule(window=window)
    start = datetime(2027, 12, 1, tzinfo=UTC)
    at = start + timedelta(seconds=seconds)
    assert at < one.leaves_at(at) <= one.leaves_at(at + timedelta(seconds=1))
