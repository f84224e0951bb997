"""From a classified failure to the instant of the next try, line by line as documented."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.decline_tables import decline_tables
from retries.classification import ClassificationInput, TransportError, classify
from retries.planning import CaseProgress, NoRetry, plan_retry, preview
from retries.policy import PRESETS, parse_policy, preset_document

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FAILED_AT = datetime(2026, 3, 10, 12, tzinfo=UTC)


def preset(name):
    return parse_policy(preset_document(name))


def changed(path, value):
    """The standard document with one field replaced."""
    document = preset_document("standard")
    target = document
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    return document


def verdict(code, provider="generic", **known):
    return classify(ClassificationInput(provider=provider, raw_code=code, **known), decline_tables(provider))


def at(hours=0, minutes=0):
    return FAILED_AT + timedelta(hours=hours, minutes=minutes)


@pytest.mark.parametrize(
    ("code", "instants", "end"),
    [
        ("card_declined", [], NoRetry.REFUSED_FOR_GOOD),
        ("insufficient_funds", [at(24), at(48)], NoRetry.ATTEMPTS_SPENT),
        ("network_error", [at(), at(), at()], NoRetry.ATTEMPTS_SPENT),
        ("processing_error", [at(0, 1), at(0, 6), at(0, 36)], NoRetry.ATTEMPTS_SPENT),
        ("service_unavailable", [at(0, 1), at(0, 6), at(0, 36)], NoRetry.ATTEMPTS_SPENT),
        ("rate_limit_exceeded", [at(0, 30), at(1, 30), at(3, 30)], NoRetry.ATTEMPTS_SPENT),
        ("authentication_failed", [at(0, 5), at(0, 10)], NoRetry.ATTEMPTS_SPENT),
        ("brand_new_code", [at(0, 5), at(0, 10)], NoRetry.ATTEMPTS_SPENT),
        ("duplicate_transaction", [], NoRetry.LOOK_UP),
    ],
)
def test_the_preview_shows_every_try_and_why_they_end(code, instants, end):
    plans = preview(preset("standard"), "standard", verdict(code), FAILED_AT, UTC, "seed")
    assert [plan.at for plan in plans[:-1]] == instants
    assert (plans[-1].at, plans[-1].obstacle) == (None, end)


def test_a_soft_decline_is_retried_after_three_hours_then_further_apart():
    plans = preview(preset("standard"), "standard", verdict("do_not_honor", "sandbox"), FAILED_AT, UTC, "seed")
    assert [plan.at for plan in plans] == [at(3), at(27), at(99), None]
    assert plans[0].reason == "Retry 1 of 3 after soft decline."
    assert plans[-1].reason == "All 3 retries after soft decline are spent."


@pytest.mark.parametrize(
    ("failure", "obstacle"),
    [
        (verdict("expired_card", "stripe"), NoRetry.REFUSED_FOR_GOOD),
        (
            verdict("insufficient_funds", "stripe", provider_advice="do_not_try_again"),
            NoRetry.REFUSED_FOR_GOOD,
        ),
        (verdict("authentication_required", "stripe"), NoRetry.NEEDS_CUSTOMER),
        (verdict("refer_to_customer", "stripe"), NoRetry.NEEDS_CUSTOMER),
        (verdict("api_key_expired", "stripe"), NoRetry.NEEDS_ENGINEERING),
        (verdict("fraudulent", "stripe"), NoRetry.NEEDS_STAFF),
        (verdict("", transport_error=TransportError.TIMEOUT), NoRetry.LOOK_UP),
        (verdict("46", "adyen"), NoRetry.NEEDS_STAFF),
    ],
)
def test_what_no_machine_retries(failure, obstacle):
    (plan,) = preview(preset("standard"), "standard", failure, FAILED_AT, UTC, "seed")
    assert (plan.at, plan.obstacle, plan.reason) == (None, obstacle, failure.explanation)


def progress(retries=0, automatic=0, opened_at=FAILED_AT, failed_at=FAILED_AT):
    return CaseProgress(
        opened_at=opened_at,
        failed_at=failed_at,
        retries_of_kind=retries,
        automatic_retries=automatic,
        seed="s",
    )


def test_a_longer_wait_of_network_or_provider_wins_over_the_policy():
    policy = preset("standard")
    mac_30 = verdict("insufficient_funds", network="mastercard", advice_code="30")
    plan = plan_retry(policy, "standard", mac_30, progress(), UTC)
    assert plan.at == FAILED_AT + 10 * DAY
    assert plan.reason == "Retry 1 of 2 after insufficient funds and the wait that was asked for."
    busy = verdict("rate_limit_exceeded")
    assert plan_retry(policy, "standard", busy, progress(), UTC, 2 * HOUR).at == at(2)
    assert plan_retry(policy, "standard", busy, progress(), UTC, 10 * MINUTE).at == at(0, 30)


def test_nothing_is_planned_past_the_horizon():
    policy = preset("standard")
    opened = FAILED_AT - 20 * DAY
    last = plan_retry(policy, "standard", verdict("insufficient_funds"), progress(opened_at=opened), UTC)
    assert last.at == opened + 21 * DAY
    late = progress(opened_at=opened - timedelta(microseconds=1))
    plan = plan_retry(policy, "standard", verdict("insufficient_funds"), late, UTC)
    assert (plan.at, plan.obstacle) == (None, NoRetry.PAST_HORIZON)


def test_the_budget_for_automatic_tries_ends_them_whatever_their_kind():
    policy = preset("standard")
    assert plan_retry(policy, "standard", verdict("network_error"), progress(automatic=7), UTC).at == FAILED_AT
    plan = plan_retry(policy, "standard", verdict("network_error"), progress(automatic=8), UTC)
    assert (plan.at, plan.obstacle) == (None, NoRetry.BUDGET_SPENT)
    document = changed(["budgets", "automatic"], 0)
    assert plan_retry(parse_policy(document), "standard", verdict("network_error"), progress(), UTC).at is None


def test_a_category_that_a_policy_never_retries():
    policy = parse_policy(changed(["categories", "SOFT_DECLINE"], {"strategy": "never"}))
    plan = plan_retry(policy, "standard", verdict("do_not_honor", "sandbox"), progress(), UTC)
    assert (plan.at, plan.obstacle) == (None, NoRetry.NOT_IN_POLICY)


def test_quiet_hours_move_retries_only_where_the_policy_says_so():
    evening = progress(failed_at=FAILED_AT.replace(hour=19))
    soft = verdict("do_not_honor", "sandbox")
    assert plan_retry(preset("standard"), "standard", soft, evening, UTC).at == FAILED_AT.replace(hour=22)
    strict = parse_policy(changed(["quiet_hours", "applies_to"], ["retries"]))
    moved = plan_retry(strict, "standard", soft, evening, UTC)
    assert moved.at == FAILED_AT.replace(day=11, hour=8)


@given(st.sampled_from(PRESETS), st.sampled_from(["standard", "high_value", "low_value"]), st.text(max_size=20))
@settings(max_examples=60, deadline=None)
def test_a_preview_always_ends_within_the_limits(name, segment, code):
    policy = preset(name)
    plans = preview(policy, segment, verdict(code), FAILED_AT, UTC, "seed")
    instants = [plan.at for plan in plans[:-1]]
    assert plans[-1].obstacle is not None
    assert instants == sorted(instants)
    assert all(FAILED_AT <= instant <= FAILED_AT + policy.for_segment(segment).horizon for instant in instants)
    assert len(instants) <= 12
