"""Whether a message goes out, and when: every rule, with the clock across quiet hours and changes of the clock."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifications.deciding import LOOK_AGAIN, Cap, CaseFacts, Reader, Verb, Verdict, decide_reader, decide_step
from retries.categories import Category
from retries.policy import PAYER_CATEGORIES, Audience, MessageStep
from retries.states import NextStep
from retries.timing import QuietHours

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = QuietHours(time(21), time(8))
CAP = Cap(3, timedelta(days=7), timedelta(hours=20))
STEP = MessageStep(timedelta(), "reminder", 0, Audience.CUSTOMER, PAYER_CATEGORIES)
CASE = CaseFacts(
    open=True,
    due_minor=4_900,
    category="HARD_DECLINE",
    failed_retries=0,
    exhausted=False,
    paused_by="",
    next_step=NextStep.CUSTOMER,
    next_step_at=NOW + timedelta(days=20),
)
READER = Reader(
    address="ann@example.com", suppressed="", sent=(), zone=BERLIN, quiet=NIGHT, cap=CAP, merchant_writes=False
)


def hours(number: float) -> datetime:
    return NOW + timedelta(hours=number)


def verdict(*, step: MessageStep = STEP, now: datetime = NOW, reader: Reader = READER, **case: object) -> Verdict:
    return decide_step(step, replace(CASE, **case), reader, now)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "verb", "at"),
    [
        ({}, Verb.SEND, None),
        ({"open": False}, Verb.CANCEL, None),
        ({"due_minor": 0}, Verb.CANCEL, None),
        # Not of a kind that payers are told about: an event asks again.
        ({"category": "NETWORK_ERROR"}, Verb.WAIT, None),
        ({"category": "FRAUD_FLAGGED"}, Verb.WAIT, None),
        ({"category": ""}, Verb.WAIT, None),
        # What may settle by itself is waited for.
        ({"next_step": NextStep.SENDING}, Verb.WAIT, NOW + LOOK_AGAIN),
        ({"next_step": NextStep.AWAITING}, Verb.WAIT, NOW + LOOK_AGAIN),
        ({"next_step": NextStep.RESOLVING}, Verb.WAIT, NOW + LOOK_AGAIN),
        ({"next_step": NextStep.STAFF}, Verb.WAIT, NOW + LOOK_AGAIN),
        ({"paused_by": "ann"}, Verb.WAIT, NOW + LOOK_AGAIN),
        ({"next_step": NextStep.BOOKED, "next_step_at": hours(1)}, Verb.WAIT, hours(1.25)),
        ({"next_step": NextStep.PROVIDER, "next_step_at": hours(6)}, Verb.WAIT, hours(6.25)),
        ({"next_step": NextStep.BOOKED, "next_step_at": hours(-1)}, Verb.WAIT, hours(0.25)),
        ({"next_step": NextStep.BOOKED, "next_step_at": hours(7)}, Verb.SEND, None),
        ({"next_step": NextStep.QUEUED, "next_step_at": hours(1)}, Verb.SEND, None),
    ],
)
def test_case_decides_first(case: dict[str, object], verb: Verb, at: datetime | None) -> None:
    found = verdict(**case)
    assert (found.verb, found.at) == (verb, at), found.why


@pytest.mark.parametrize(
    ("failed", "exhausted", "verb"), [(0, False, Verb.WAIT), (1, False, Verb.WAIT), (2, False, Verb.SEND)]
)
def test_silent_retries_come_first(failed: int, exhausted: bool, verb: Verb) -> None:
    step = replace(STEP, after_failed_retries=2)
    assert verdict(step=step, failed_retries=failed, exhausted=exhausted).verb is verb


def test_nobody_waits_for_silent_retries_that_will_never_come() -> None:
    assert verdict(step=replace(STEP, after_failed_retries=2), exhausted=True).verb is Verb.SEND


def test_staff_are_told_whatever_the_payer_wants() -> None:
    step = replace(STEP, audience=Audience.STAFF, categories=frozenset(Category))
    silent = replace(READER, address="", suppressed="unsubscribed")
    assert verdict(step=step, reader=silent, category="NETWORK_ERROR").verb is Verb.HAND_OVER
    near = {"next_step": NextStep.BOOKED, "next_step_at": hours(1)}
    assert verdict(step=step, reader=silent, **near).verb is Verb.HAND_OVER


@pytest.mark.parametrize(
    ("now", "at"),
    [
        ("2026-03-02T06:59:00+00:00", "2026-03-02T07:00:00+00:00"),  # 07:59 in Berlin
        ("2026-03-02T07:00:00+00:00", None),
        ("2026-03-02T19:59:59+00:00", None),
        ("2026-03-02T20:00:00+00:00", "2026-03-03T07:00:00+00:00"),
        # The night in which the clock goes forward ends an hour of UTC sooner, the one back an hour later.
        ("2026-03-28T21:30:00+00:00", "2026-03-29T06:00:00+00:00"),
        ("2026-10-24T20:30:00+00:00", "2026-10-25T07:00:00+00:00"),
        # The hour that happens twice is quiet both times.
        ("2026-10-25T00:30:00+00:00", "2026-10-25T07:00:00+00:00"),
        ("2026-10-25T01:30:00+00:00", "2026-10-25T07:00:00+00:00"),
    ],
)
def test_nobody_is_written_to_at_night(now: str, at: str | None) -> None:
    found = decide_reader(READER, datetime.fromisoformat(now))
    assert found == (
        Verdict(Verb.SEND, "")
        if at is None
        else Verdict(Verb.WAIT, "Waits for the end of the customer's quiet hours.", datetime.fromisoformat(at))
    )


def test_end_of_quiet_hours_that_the_clock_skips_is_the_moment_of_the_jump() -> None:
    quiet = QuietHours(time(22), time(2, 30))
    found = decide_reader(replace(READER, quiet=quiet), datetime(2026, 3, 29, 0, 30, tzinfo=UTC))
    assert found.at == datetime(2026, 3, 29, 1, tzinfo=UTC)  # 02:00 does not exist, 03:00 does


def test_one_address_hears_from_us_so_often_and_no_oftener() -> None:
    def ask(*sent: datetime) -> tuple[Verb, datetime | None]:
        found = decide_reader(replace(READER, sent=sent, quiet=None), NOW)
        return found.verb, found.at

    assert ask(hours(-20)) == (Verb.SEND, None)
    assert ask(hours(-19)) == (Verb.WAIT, hours(1))
    assert ask(hours(-150), hours(-100), hours(-50)) == (Verb.WAIT, hours(-150 + 7 * 24))
    assert ask(hours(-7 * 24), hours(-100), hours(-50)) == (Verb.SEND, None)
    # The end of the cap lies in the night: the morning after it.
    late = decide_reader(replace(READER, sent=(hours(-7),)), NOW)  # free again at 22:00 UTC
    assert late.at == datetime(2026, 3, 3, 7, tzinfo=UTC)


def test_address_that_must_not_be_written_to_is_left_alone() -> None:
    assert decide_reader(replace(READER, address=""), NOW).verb is Verb.SUPPRESS
    assert decide_reader(replace(READER, suppressed="unsubscribed"), NOW) == Verdict(
        Verb.SUPPRESS, "This address gets no mail: unsubscribed."
    )


def test_merchant_that_writes_itself_is_told_by_day_and_ours_stay_silent() -> None:
    own = replace(READER, merchant_writes=True, address="", suppressed="unsubscribed", sent=(hours(-1),))
    assert decide_reader(own, NOW).verb is Verb.HAND_OVER
    assert decide_reader(own, hours(13)).at == datetime(2026, 3, 3, 7, tzinfo=UTC)


@given(
    minutes=st.integers(0, 2 * 365 * 24 * 60),
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    ages=st.lists(st.integers(1, 400), max_size=6),
)
def test_whatever_is_waited_for_is_then_allowed(minutes: int, zone: str, ages: list[int]) -> None:
    """The instant a message is put off to is itself loud and within the cap: one look again is enough."""
    at = NOW + timedelta(minutes=minutes)
    sent = tuple(at - timedelta(hours=age) for age in ages)
    reader = replace(READER, zone=ZoneInfo(zone), sent=sent)
    found = decide_reader(reader, at)
    if found.verb is Verb.WAIT:
        assert found.at is not None
        assert found.at > at
        assert decide_reader(reader, found.at).verb is Verb.SEND
    else:
        assert found.verb is Verb.SEND
