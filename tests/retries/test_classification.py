"""What each kind of failure means, and who outranks whom."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.decline_tables import (
    NETWORK_TABLES,
    decline_table,
    decline_tables,
    network_table,
    providers_with_tables,
)
from retries.categories import STOPPING, Actor, Category, RetryClass, Scope
from retries.classification import (
    ClassificationInput,
    TransportError,
    classify,
    newest_overrides,
)
from tokens.networks import NETWORKS


def verdict(provider, raw_code="", overrides=(), **known):
    failure = ClassificationInput(provider=provider, raw_code=raw_code, **known)
    return classify(failure, decline_tables(provider), newest_overrides(overrides))


@dataclass
class StoredOverride:
    """As the database keeps it: a category, no class."""

    provider: str
    code: str
    version: int
    category: str


# --- the API's own codes and the umbrella ---------------------------------------------------------


@pytest.mark.parametrize("provider", ["generic", "sandbox", "simulator"])
@pytest.mark.parametrize(
    ("code", "category", "retry_class", "may_retry"),
    [
        ("card_declined", Category.HARD_DECLINE, RetryClass.NEVER, False),
        ("network_error", Category.NETWORK_ERROR, RetryClass.IMMEDIATE, True),
        ("insufficient_funds", Category.INSUFFICIENT_FUNDS, RetryClass.LATER, True),
        ("processing_error", Category.PROCESSING_ERROR, RetryClass.LATER, True),
        ("authentication_failed", Category.AUTHENTICATION_REQUIRED, RetryClass.LATER, True),
        ("rate_limit_exceeded", Category.RATE_LIMITED, RetryClass.LATER, True),
        ("service_unavailable", Category.SERVICE_UNAVAILABLE, RetryClass.LATER, True),
    ],
)
def test_the_apis_own_codes(provider, code, category, retry_class, may_retry):
    answer = verdict(provider, code)
    assert (answer.category, answer.retry_class, answer.machine_may_retry) == (
        category,
        retry_class,
        may_retry,
    )
    assert (answer.known, answer.code_listed, answer.stop, answer.look_up) == (True, True, False, False)


@pytest.mark.parametrize(
    ("provider", "code"),
    [
        ("stripe", "card_declined"),
        ("stripe", "generic_decline"),
        ("adyen", "Refused"),
        ("adyen", "2"),
        ("braintree", "2046"),
        ("paddle", "declined"),
        ("recurly", "declined"),
        ("chargebee", "payment_processing_failed"),
    ],
)
def test_a_real_providers_umbrella_stays_soft(provider, code):
    answer = verdict(provider, code)
    assert (answer.category, answer.retry_class, answer.scope) == (
        Category.SOFT_DECLINE,
        RetryClass.LATER,
        Scope.TOKEN,
    )
    assert answer.machine_may_retry


def test_an_unknown_code_is_soft_and_says_that_it_is_unknown():
    answer = verdict("stripe", "brand_new_code")
    assert (answer.category, answer.retry_class, answer.known, answer.code_listed) == (
        Category.SOFT_DECLINE,
        RetryClass.LATER,
        False,
        False,
    )
    assert answer.explanation == (
        "The code 'brand_new_code' is in none of our tables, so it is treated as a soft decline "
        "(default for unknown codes)."
    )


@pytest.mark.parametrize(("present", "words"), [(True, "a message but no"), (False, "neither a code nor a message")])
def test_a_failure_without_a_code_is_soft_and_unknown(present, words):
    answer = verdict("stripe", message_present=present)
    assert (answer.category, answer.known, answer.code_listed) == (Category.SOFT_DECLINE, False, True)
    assert words in answer.explanation


@pytest.mark.parametrize("code", ["Insufficient_Funds", " insufficient_funds ", "INSUFFICIENT_FUNDS"])
def test_case_and_blanks_of_a_code_do_not_matter(code):
    assert verdict("stripe", code).category is Category.INSUFFICIENT_FUNDS


@pytest.mark.parametrize(
    ("provider", "code"),
    [
        ("generic", "duplicate_transaction"),
        ("stripe", "duplicate_transaction"),
        ("braintree", "2016"),
        ("paypal", "5200"),
        ("authorize_net", "11"),
        ("recurly", "duplicate_transaction"),
        ("checkout_com", "20094"),
    ],
)
def test_a_duplicate_is_looked_up_and_never_a_decline(provider, code):
    overrides = [StoredOverride(provider, code, 1, "SOFT_DECLINE")]
    for answer in (
        verdict(provider, code),
        verdict(provider, code, overrides, network="visa", network_code="51"),
    ):
        assert (answer.category, answer.look_up) == (Category.PROCESSING_ERROR, True)
        assert answer.explanation.startswith("The payment may already have gone through")
    stopped = verdict(provider, code, network="mastercard", advice_code="03")
    assert (stopped.category, stopped.look_up, stopped.stop) == (Category.PROCESSING_ERROR, True, True)
    assert not stopped.machine_may_retry


# --- Stripe's shapes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw_code", "fallback_code", "category", "known"),
    [
        ("", "expired_card", Category.HARD_DECLINE, True),
        ("lost_card", "lost_card", Category.HARD_DECLINE, True),
        ("insufficient_funds", "card_declined", Category.INSUFFICIENT_FUNDS, True),
        ("authentication_not_handled", "authentication_required", Category.AUTHENTICATION_REQUIRED, True),
        ("", "card_declined", Category.SOFT_DECLINE, True),
        ("brand_new_code", "card_declined", Category.SOFT_DECLINE, False),
        ("brand_new_code", "expired_card", Category.HARD_DECLINE, True),
    ],
)
def test_the_decline_code_speaks_and_the_wider_code_stands_in_for_it(raw_code, fallback_code, category, known):
    answer = verdict("stripe", raw_code, fallback_code=fallback_code)
    assert (answer.category, answer.known) == (category, known)


def test_stripes_advice_not_to_try_again_stops_the_card():
    answer = verdict("stripe", "insufficient_funds", provider_advice="do_not_try_again")
    assert (answer.category, answer.retry_class, answer.stop, answer.revivable) == (
        Category.HARD_DECLINE,
        RetryClass.NEVER,
        True,
        True,
    )
    assert answer.source == "stripe table, Stripe advice codes"


@pytest.mark.parametrize("code", ["insufficient_funds", "do_not_honor", "authentication_required", "brand_new_code"])
def test_stripes_advice_to_confirm_the_card_asks_the_customer(code):
    answer = verdict("stripe", code, provider_advice="confirm_card_data")
    assert (answer.category, answer.retry_class, answer.actor) == (
        Category.HARD_DECLINE,
        RetryClass.AFTER_CUSTOMER_ACTION,
        Actor.CUSTOMER,
    )


@pytest.mark.parametrize(
    ("code", "category", "retry_class"),
    [
        ("insufficient_funds", Category.INSUFFICIENT_FUNDS, RetryClass.LATER),
        ("transaction_not_allowed", Category.SOFT_DECLINE, RetryClass.LATER),
        ("do_not_honor", Category.SOFT_DECLINE, RetryClass.LATER),
        ("brand_new_code", Category.SOFT_DECLINE, RetryClass.LATER),
        ("authentication_required", Category.AUTHENTICATION_REQUIRED, RetryClass.LATER),
        # Never softened:
        ("lost_card", Category.HARD_DECLINE, RetryClass.NEVER),
        ("fraudulent", Category.FRAUD_FLAGGED, RetryClass.NEVER),
        ("api_key_expired", Category.CONFIG_ERROR, RetryClass.AFTER_ENGINEERING_FIX),
    ],
)
def test_stripes_advice_to_try_later_softens_only_what_may_be_softened(code, category, retry_class):
    answer = verdict("stripe", code, provider_advice="try_again_later")
    assert (answer.category, answer.retry_class) == (category, retry_class)


def test_provider_advice_in_the_field_of_the_networks_advice_is_understood():
    assert verdict("sandbox", "do_not_honor", advice_code="do_not_try_again").stop
    assert verdict("checkout_com", "20051", provider_advice="03").stop


def test_what_was_not_sent_to_the_network_does_not_count():
    assert verdict("stripe", "generic_decline").reached_network
    assert not verdict("stripe", "generic_decline", sent_to_network=False).reached_network
    assert not verdict("braintree", "gateway_rejected:cvv").reached_network
    assert not verdict("adyen", "validation 101 Invalid card number").reached_network


def test_authentication_is_retried_plainly_only_if_the_provider_says_so():
    asked = verdict("stripe", "authentication_required")
    assert (asked.retry_class, asked.actor, asked.machine_may_retry) == (
        RetryClass.AFTER_CUSTOMER_ACTION,
        Actor.CUSTOMER,
        False,
    )
    told = verdict("stripe", "authentication_required", provider_says_retry=True)
    assert (told.category, told.retry_class, told.machine_may_retry) == (
        Category.AUTHENTICATION_REQUIRED,
        RetryClass.LATER,
        True,
    )
    forbidden = verdict("generic", "authentication_failed", provider_says_retry=False)
    assert (forbidden.retry_class, forbidden.actor) == (RetryClass.AFTER_CUSTOMER_ACTION, Actor.CUSTOMER)


def test_a_provider_that_forbids_a_retry_is_believed():
    funds = verdict("stripe", "insufficient_funds", provider_says_retry=False)
    assert (funds.retry_class, funds.machine_may_retry) == (RetryClass.AFTER_CUSTOMER_ACTION, False)
    outage = verdict("generic", "service_unavailable", provider_says_retry=False)
    assert (outage.retry_class, outage.actor) == (RetryClass.NEVER, Actor.STAFF)
    hard = verdict("generic", "card_declined", provider_says_retry=True)
    assert hard.retry_class is RetryClass.NEVER


# --- transport ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "category", "retry_class", "scope", "look_up", "reached"),
    [
        ("unsent", Category.NETWORK_ERROR, RetryClass.IMMEDIATE, Scope.CONNECTION, False, False),
        ("timeout", Category.NETWORK_ERROR, RetryClass.NEVER, Scope.INVOICE, True, True),
        ("connection_lost", Category.NETWORK_ERROR, RetryClass.NEVER, Scope.INVOICE, True, True),
        ("server_error", Category.SERVICE_UNAVAILABLE, RetryClass.NEVER, Scope.INVOICE, True, True),
        ("malformed_reply", Category.PROCESSING_ERROR, RetryClass.NEVER, Scope.INVOICE, True, True),
        ("rate_limited", Category.RATE_LIMITED, RetryClass.LATER, Scope.CONNECTION, False, False),
        (
            "unauthorized",
            Category.CONFIG_ERROR,
            RetryClass.AFTER_ENGINEERING_FIX,
            Scope.CONNECTION,
            False,
            False,
        ),
        (
            "request_refused",
            Category.CONFIG_ERROR,
            RetryClass.AFTER_ENGINEERING_FIX,
            Scope.INVOICE,
            False,
            False,
        ),
    ],
)
def test_failures_without_an_answer(error, category, retry_class, scope, look_up, reached):
    answer = verdict("stripe", "insufficient_funds", transport_error=TransportError(error))
    assert (answer.category, answer.retry_class, answer.scope) == (category, retry_class, scope)
    assert (answer.look_up, answer.reached_network, answer.payer_text_key) == (
        look_up,
        reached,
        "temporary_problem",
    )


def test_every_transport_error_has_an_answer():
    assert {verdict("generic", transport_error=error).source for error in TransportError} == {
        f"transport error {error}" for error in TransportError
    }


# --- what people read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "key"),
    [
        ("insufficient_funds", "insufficient_funds"),
        ("expired_card", "card_expired"),
        ("incorrect_number", "card_not_usable"),
        ("lost_card", "card_not_usable"),
        ("stolen_card", "card_not_usable"),
        ("do_not_honor", "declined"),
        ("fraudulent", "declined"),
        ("merchant_blacklist", "declined"),
        ("authentication_required", "authentication_needed"),
        ("processing_error", "temporary_problem"),
        ("rate_limit", "temporary_problem"),
        ("api_key_expired", "temporary_problem"),
    ],
)
def test_the_payer_reads_a_cause_but_never_a_suspicion(code, key):
    assert verdict("stripe", code).payer_text_key == key


def test_staff_read_one_sentence_with_the_source():
    assert verdict("stripe", "insufficient_funds").explanation == (
        "There was not enough money on the account, so it may be tried again later "
        "(stripe table, Stripe decline codes; code insufficient_funds)."
    )
    assert verdict("stripe", "do_not_honor", network="visa", network_code="14").explanation == (
        "The card or account was refused for good, so it is not tried again on this token "
        "(Visa Core Rules table 7-2, category 1: the issuer will never approve; code do_not_honor)."
    )


codes = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["card_declined", "insufficient_funds", "51", "R1", "03", "duplicate_transaction", "lost_card"]),
)
failures = st.builds(
    ClassificationInput,
    provider=st.just("stripe"),
    raw_code=codes,
    fallback_code=codes,
    network=st.sampled_from([*NETWORKS, "", "???"]),
    network_code=codes,
    advice_code=st.one_of(codes, st.sampled_from(["02", "24", "01", "do_not_try_again"])),
    provider_advice=st.one_of(codes, st.sampled_from(["try_again_later", "confirm_card_data"])),
    transport_error=st.one_of(st.none(), st.sampled_from(TransportError)),
    message_present=st.booleans(),
    sent_to_network=st.booleans(),
    provider_says_retry=st.sampled_from([None, True, False]),
)


@given(failures, st.sampled_from(Category))
@settings(max_examples=400, deadline=None)
def test_whatever_comes_the_answer_is_complete_and_consistent(failure, category):
    overrides = newest_overrides([StoredOverride("stripe", failure.raw_code, 1, category.value)])
    tables = decline_tables("stripe")
    for answer in (classify(failure, tables), classify(failure, tables, overrides)):
        assert answer.explanation.endswith(".")
        assert answer.source
        assert not (answer.machine_may_retry and (answer.stop or answer.category in STOPPING))
        assert answer.revivable or answer.stop
        if answer.stop and not answer.look_up:
            assert answer.retry_class is RetryClass.NEVER
            assert answer.category in (Category.HARD_DECLINE, Category.FRAUD_FLAGGED)
        if not answer.known:
            assert answer.category is Category.SOFT_DECLINE
        if answer.category is Category.FRAUD_FLAGGED:
            assert answer.payer_text_key == "declined"


@given(failures)
@settings(max_examples=200, deadline=None)
def test_a_stop_never_gets_lost_when_more_is_told(failure):
    bare = classify(replace(failure, transport_error=None), decline_tables("stripe"))
    told = classify(
        replace(failure, transport_error=None, provider_advice="do_not_try_again"), decline_tables("stripe")
    )
    assert told.stop
    assert told.revivable is bare.revivable


def test_every_code_of_every_provider_is_classified_by_its_row():
    """Without network codes the table speaks, except that a stop is a stop."""
    checked = 0
    for provider in providers_with_tables():
        for row in decline_table(provider).values():
            answer = verdict(provider, row.code)
            assert (answer.category, answer.look_up, answer.known) == (row.category, row.look_up, True), row
            assert answer.retry_class is row.retry or row.stop, row
            checked += 1
    assert checked > 1000


def test_every_network_row_is_reachable_by_its_network():
    reach = {
        "visa": "visa",
        "mastercard_mac": "mastercard",
        "iso8583": "amex",
        "ach": "ach",
        "sepa": "sepa",
        "bacs": "bacs",
    }
    assert set(reach) == set(NETWORK_TABLES)
    for table, network in reach.items():
        for code, row in network_table(table).items():
            if table == "mastercard_mac":
                known = {"network_code": code.removeprefix("DE39-")} if "-" in code else {"advice_code": code}
            else:
                known = {"network_code": code}
            answer = verdict("stripe", "", network=network, **known)
            silent = table == "mastercard_mac" and code in ("05", "43")
            assert silent or answer.known, (table, code)
            assert silent or answer.stop or answer.category is row.category, (table, code)
