"""The pure heart: facts and `now` in, one next step with its reason out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.decline_tables import decline_tables
from retries.categories import Actor, Category, RetryClass, Scope
from retries.classification import Classification, ClassificationInput, classify
from retries.decisions import Allowance, Failure, Plan, Situation, decide, retry_instant, standing_plan
from retries.planning import NoRetry, RetryPlan
from retries.states import NextStep
from tokens.selectors import TokenOption

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HORIZON, GRACE = NOW + 21 * DAY, NOW + 28 * DAY


def verdict(code: str = "insufficient_funds", **changes: object) -> Classification:
    found = classify(ClassificationInput(provider="generic", raw_code=code), decline_tables("generic"))
    return replace(found, **changes)  # type: ignore[arg-type]


def failure(code: str = "insufficient_funds", **changes: object) -> Failure:
    return Failure(at=NOW, token_pk=1, verdict=verdict(code, **changes))


def allowance(at: datetime | None = NOW + DAY, reason: str = "Retry 1 of 2 after insufficient funds.") -> Allowance:
    obstacle = None if at is not None else NoRetry.ATTEMPTS_SPENT
    return Allowance(retry=RetryPlan(at, 1, reason, obstacle), horizon_at=HORIZON, grace_until=GRACE)


def situation(**known: object) -> Situation:
    plain: dict[str, object] = {
        "now": NOW,
        "paused_by": "",
        "in_flight": None,
        "in_flight_until": None,
        "observe_only": False,
        "provider_keeps": False,
        "provider_retry_at": None,
        "connection_paused": "",
        "automatic_barred": False,
        "not_before": None,
    }
    return Situation(**{**plain, **known})  # type: ignore[arg-type]


def option(pk: int = 1, **known: object) -> TokenOption:
    plain: dict[str, object] = {
        "pk": pk,
        "public_id": f"tok_{pk}",
        "card_pk": pk,
        "label": "Visa •••• 4242",
        "network": "visa",
        "usable": True,
        "obstacle": "",
        "allowed_at": NOW + DAY,
        "limit_text": "",
        "remaining": 14,
        "is_default": False,
        "last_success_at": None,
        "last_attempt_at": NOW,
    }
    return TokenOption(**{**plain, **known})  # type: ignore[arg-type]


def decided(
    facts: Situation | None = None,
    failed: Failure | None = None,
    granted: Allowance | None = None,
    options: list[TokenOption] | None = None,
) -> Plan:
    facts, failed, granted = facts or situation(), failed or failure(), granted or allowance()
    chosen = [option()] if options is None else options
    return decide(facts, failed, granted, retry_instant(facts, failed, granted), chosen)


# --- when ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "failed", "granted", "instant"),
    [
        (situation(), failure(), allowance(), NOW + DAY),
        (situation(now=NOW + 3 * DAY), failure(), allowance(), NOW + 3 * DAY),
        (situation(not_before=NOW + 2 * DAY), failure(), allowance(), NOW + 2 * DAY),
        (situation(not_before=NOW), failure(), allowance(), NOW + DAY),
        (situation(), failure(), allowance(None), None),
        (situation(), failure("card_declined"), allowance(None), NOW),
        (situation(now=NOW + HOUR), failure("card_declined"), allowance(None), NOW + HOUR),
    ],
)
def test_the_instant_is_the_policys_but_never_past_or_too_early(
    facts: Situation, failed: Failure, granted: Allowance, instant: datetime | None
) -> None:
    assert retry_instant(facts, failed, granted) == instant


# --- steps that do not depend on the failure ----------------------------------------------------------------------


@pytest.mark.parametrize("step", [NextStep.SENDING, NextStep.AWAITING, NextStep.RESOLVING])
def test_an_open_charge_is_the_next_step_whatever_else_is_true(step: NextStep) -> None:
    facts = situation(in_flight=step, in_flight_until=NOW + HOUR, paused_by="user:ann", observe_only=True)
    assert (decided(facts).step, decided(facts).at) == (step, NOW + HOUR)


def test_a_pause_holds_until_it_is_taken_back() -> None:
    plan = decided(situation(paused_by="user:ann", provider_keeps=True))
    assert (plan.step, plan.at, plan.why) == (NextStep.PAUSED, None, "Paused by user:ann.")
    assert standing_plan(situation()) is None


# --- steps that follow from the failure ---------------------------------------------------------------------------


def test_a_soft_decline_is_booked_with_the_best_token() -> None:
    plan = decided(options=[option(3), option(4)])
    assert (plan.step, plan.at, plan.token_pk) == (NextStep.BOOKED, NOW + DAY, 3)
    assert (plan.exhausted, plan.lost, plan.review) == (False, False, "")


def test_a_network_limit_moves_the_booking_and_says_so() -> None:
    plan = decided(options=[option(allowed_at=NOW + 5 * DAY, limit_text="mastercard: 10 per 24 hours and card")])
    assert (plan.step, plan.at) == (NextStep.BOOKED, NOW + 5 * DAY)
    assert "10 per 24 hours" in plan.why


@pytest.mark.parametrize(("allowed_at", "step"), [(HORIZON, NextStep.BOOKED), (HORIZON + HOUR, NextStep.CUSTOMER)])
def test_a_limit_past_the_horizon_leaves_it_to_the_customer(allowed_at: datetime, step: NextStep) -> None:
    assert decided(options=[option(allowed_at=allowed_at)]).step == step


def test_unusable_tokens_are_passed_over() -> None:
    dead = option(1, usable=False, obstacle="was declined for good (lost_card)")
    assert decided(options=[option(2), dead]).token_pk == 2
    plan = decided(options=[dead])
    assert (plan.step, plan.at, plan.exhausted) == (NextStep.CUSTOMER, GRACE, True)
    assert "was declined for good (lost_card) and there is no other one" in plan.why


def test_no_token_is_not_the_same_as_dead_tokens() -> None:
    plan = decided(options=[])
    assert (plan.step, plan.why) == (
        NextStep.CUSTOMER,
        "Waits for the customer: no payment method of this customer is known.",
    )


def test_fraud_ends_the_case_and_asks_nobody_to_pay() -> None:
    plan = decided(failed=failure(category=Category.FRAUD_FLAGGED))
    assert (plan.step, plan.lost, plan.final, plan.review) == (NextStep.NONE, True, False, "fraud")


def test_a_possible_duplicate_is_looked_at_by_a_person() -> None:
    plan = decided(failed=failure("duplicate_transaction"))
    assert (plan.step, plan.review, plan.lost) == (NextStep.STAFF, "no_plan", False)


@pytest.mark.parametrize("facts", [{"observe_only": True}, {"provider_keeps": True}])
def test_where_the_provider_collects_its_own_next_try_is_the_step(facts: dict[str, bool]) -> None:
    waiting = decided(situation(**facts, provider_retry_at=NOW + 3 * DAY))
    assert (waiting.step, waiting.at) == (NextStep.PROVIDER, NOW + 3 * DAY)
    over = decided(situation(**facts, provider_retry_at=NOW))
    assert (over.step, over.at) == (NextStep.CUSTOMER, GRACE)


def test_a_broken_connection_waits_for_its_repair() -> None:
    plan = decided(situation(connection_paused="the key was refused"))
    assert (plan.step, plan.review) == (NextStep.PAUSED, "configuration")
    assert "the key was refused" in plan.why


@pytest.mark.parametrize(
    ("scope", "paused", "step"),
    [
        (Scope.INVOICE, "", NextStep.PAUSED),
        (Scope.TOKEN, "", NextStep.PAUSED),
        (Scope.CONNECTION, "the key was refused", NextStep.PAUSED),
        (Scope.CONNECTION, "", NextStep.BOOKED),
    ],
)
def test_a_configuration_error_waits_where_it_reaches(scope: Scope, paused: str, step: NextStep) -> None:
    failed = failure(
        category=Category.CONFIG_ERROR,
        retry_class=RetryClass.AFTER_ENGINEERING_FIX,
        scope=scope,
        actor=Actor.ENGINEERING,
    )
    held = option(usable=False, held=True, obstacle="waits for a repair") if scope is Scope.TOKEN else option()
    instant = retry_instant(situation(connection_paused=paused), failed, allowance(None))
    plan = decide(situation(connection_paused=paused), failed, allowance(None), instant, [held])
    assert plan.step == step
    assert plan.token_pk == (None if step is NextStep.PAUSED and scope is not Scope.TOKEN else 1)


def test_a_token_that_our_set_up_cannot_charge_leaves_the_turn_to_another_one() -> None:
    failed = failure(category=Category.CONFIG_ERROR, scope=Scope.TOKEN, retry_class=RetryClass.AFTER_ENGINEERING_FIX)
    held = option(usable=False, held=True, obstacle="waits for a repair")
    plan = decide(situation(), failed, allowance(None), NOW, [option(2), held])
    assert (plan.step, plan.token_pk) == (NextStep.BOOKED, 2)
    assert "our set-up at the provider cannot charge the other payment method" in plan.why


def test_a_provider_that_is_down_moves_the_retry_and_says_why() -> None:
    down = situation(provider_bar=(NOW + 2 * DAY, "the provider is not working right now"))
    instant = retry_instant(down, failure(), allowance())
    assert instant == NOW + 2 * DAY
    plan = decide(down, failure(), allowance(), instant, [option(allowed_at=instant)])
    assert (plan.step, plan.at) == (NextStep.BOOKED, NOW + 2 * DAY)
    assert plan.why == "Waits because the provider is not working right now, then tries the Visa •••• 4242."
    soon = situation(provider_bar=(NOW + timedelta(minutes=1), "the provider is not working right now"))
    assert retry_instant(soon, failure(), allowance()) == NOW + DAY


def test_after_a_lost_dispute_only_the_customer_pays() -> None:
    plan = decided(situation(automatic_barred=True))
    assert (plan.step, plan.at) == (NextStep.CUSTOMER, GRACE)


def test_when_the_policy_is_spent_the_customer_is_asked_until_the_grace_ends() -> None:
    spent = allowance(None, "All 2 retries after insufficient funds are spent.")
    assert (decided(granted=spent).step, decided(granted=spent).exhausted) == (NextStep.CUSTOMER, True)
    over = decided(situation(now=GRACE), granted=spent)
    assert (over.step, over.lost, over.final) == (NextStep.NONE, True, True)
    assert over.why == "Given up at the deadline: all 2 retries after insufficient funds are spent."


# --- always -------------------------------------------------------------------------------------------------------

instants = st.timedeltas(min_value=-40 * DAY, max_value=40 * DAY).map(lambda gap: NOW + gap)
situations = st.builds(
    situation,
    now=instants,
    paused_by=st.sampled_from(["", "user:ann", "configuration"]),
    in_flight=st.sampled_from([None, None, NextStep.SENDING, NextStep.AWAITING, NextStep.RESOLVING]),
    in_flight_until=st.none() | instants,
    observe_only=st.booleans(),
    provider_keeps=st.booleans(),
    provider_retry_at=st.none() | instants,
    connection_paused=st.sampled_from(["", "broken"]),
    automatic_barred=st.booleans(),
    not_before=st.none() | instants,
)
codes = [*sorted(decline_tables("stripe").provider), "nobody_knows_this", ""]
failures = st.builds(
    lambda code, at: Failure(
        at=at,
        token_pk=1,
        verdict=classify(ClassificationInput(provider="stripe", raw_code=code), decline_tables("stripe")),
    ),
    st.sampled_from(codes),
    instants,
)
tokens = st.lists(
    st.builds(
        option,
        pk=st.integers(1, 9),
        usable=st.booleans(),
        obstacle=st.just("was removed at the provider"),
        allowed_at=instants,
    ),
    max_size=4,
).map(lambda found: sorted(found, key=lambda one: (not one.usable, one.allowed_at, one.pk)))


@given(situations, failures, st.none() | instants, tokens)
def test_there_is_always_exactly_one_real_next_step_with_a_reason(
    facts: Situation, failed: Failure, at: datetime | None, options: list[TokenOption]
) -> None:
    granted = allowance(at)
    instant = retry_instant(facts, failed, granted)
    if instant is not None:  # as the caller does: options are ranked for the instant
        options = [replace(one, allowed_at=max(one.allowed_at, instant)) for one in options]
    plan = decide(facts, failed, granted, instant, options)
    assert plan.why
    assert (plan.step is NextStep.NONE) == plan.lost
    if plan.step is NextStep.BOOKED:
        assert plan.at is not None
        assert plan.at >= facts.now
        assert plan.at <= granted.horizon_at
        assert plan.token_pk in [one.pk for one in options if one.usable]
        barred = facts.paused_by or facts.in_flight or facts.observe_only or facts.provider_keeps
        assert (bool(barred), facts.automatic_barred, facts.connection_paused) == (False, False, "")
        assert failed.verdict.category is not Category.FRAUD_FLAGGED
    if plan.step in (NextStep.CUSTOMER, NextStep.PROVIDER):
        assert plan.at is not None
        assert plan.at > facts.now
    if plan.step is NextStep.STAFF:
        assert plan.review
