"""Who outranks whom: the network's stop, the merchant, advice, the network's code, the provider's code."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from providers.decline_tables import decline_tables
from retries.categories import Actor, Category, RetryClass, Scope
from retries.classification import ClassificationInput, DeclineOverride, classify, newest_overrides


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


# --- networks overrule ----------------------------------------------------------------------------


@pytest.mark.parametrize("network_code", ["04", "07", "12", "14", "15", "41", "43", "46", "57", "R0", "R1", "R3"])
def test_visa_category_1_stops_the_card_whatever_the_provider_says(network_code):
    answer = verdict("stripe", "insufficient_funds", network="visa", network_code=network_code)
    assert (answer.stop, answer.retry_class, answer.machine_may_retry) == (True, RetryClass.NEVER, False)
    assert answer.category is (Category.FRAUD_FLAGGED if network_code == "07" else Category.HARD_DECLINE)
    assert answer.revivable is not network_code.startswith("R")
    assert "Visa Core Rules" in answer.source


@pytest.mark.parametrize("advice", ["03", "21", "3", "21 : Payment Cancellation"])
def test_mastercards_stop_is_never_lifted_not_even_by_the_merchant(advice):
    overrides = [StoredOverride("stripe", "insufficient_funds", 9, "SOFT_DECLINE")]
    answer = verdict("stripe", "insufficient_funds", overrides, network="mastercard", advice_code=advice)
    assert (answer.category, answer.stop, answer.revivable, answer.actor) == (
        Category.HARD_DECLINE,
        True,
        False,
        Actor.CUSTOMER,
    )


@pytest.mark.parametrize(
    ("advice", "hours"),
    [("24", 1), ("25", 24), ("26", 48), ("27", 96), ("28", 144), ("29", 192), ("30", 240)],
)
def test_mastercards_waits_mean_low_funds_and_a_delay(advice, hours):
    answer = verdict("stripe", "do_not_honor", network="mastercard", network_code="51", advice_code=advice)
    assert (answer.category, answer.wait) == (Category.INSUFFICIENT_FUNDS, timedelta(hours=hours))
    assert f"at the earliest {hours} hours" in answer.explanation
    assert answer.machine_may_retry


def test_mac_02_waits_72_hours_and_keeps_what_is_known_of_the_cause():
    funds = verdict("stripe", "insufficient_funds", network="mastercard", advice_code="02")
    assert (funds.category, funds.wait) == (Category.INSUFFICIENT_FUNDS, timedelta(hours=72))
    unknown = verdict("stripe", "brand_new_code", network="mastercard", advice_code="02")
    assert (unknown.category, unknown.wait, unknown.known, unknown.code_listed) == (
        Category.SOFT_DECLINE,
        timedelta(hours=72),
        True,
        False,
    )


@pytest.mark.parametrize(
    ("advice", "category", "retry_class", "actor"),
    [
        ("01", Category.HARD_DECLINE, RetryClass.AFTER_CUSTOMER_ACTION, Actor.CUSTOMER),
        ("04", Category.CONFIG_ERROR, RetryClass.AFTER_ENGINEERING_FIX, Actor.ENGINEERING),
        ("22", Category.CONFIG_ERROR, RetryClass.AFTER_ENGINEERING_FIX, Actor.ENGINEERING),
        ("40", Category.HARD_DECLINE, RetryClass.AFTER_CUSTOMER_ACTION, Actor.CUSTOMER),
        ("41", Category.HARD_DECLINE, RetryClass.AFTER_CUSTOMER_ACTION, Actor.CUSTOMER),
        ("42", Category.FRAUD_FLAGGED, RetryClass.NEVER, Actor.STAFF),
        # These say nothing about a retry.
        ("05", Category.INSUFFICIENT_FUNDS, RetryClass.LATER, Actor.MACHINE),
        ("43", Category.INSUFFICIENT_FUNDS, RetryClass.LATER, Actor.MACHINE),
        ("77", Category.INSUFFICIENT_FUNDS, RetryClass.LATER, Actor.MACHINE),
    ],
)
def test_other_advice_of_mastercard(advice, category, retry_class, actor):
    answer = verdict("stripe", "insufficient_funds", network="mastercard", advice_code=advice)
    assert (answer.category, answer.retry_class, answer.actor) == (category, retry_class, actor)


@pytest.mark.parametrize("advice", ["05", "43"])
def test_advice_that_is_not_about_a_retry_softens_nothing(advice):
    answer = verdict("stripe", "expired_card", network="mastercard", advice_code=advice)
    assert (answer.category, answer.retry_class) == (Category.HARD_DECLINE, RetryClass.AFTER_CUSTOMER_ACTION)


@pytest.mark.parametrize("code", ["api_key_expired", "fraudulent"])
def test_advice_about_card_data_cures_neither_our_mistakes_nor_suspicion(code):
    assert verdict("stripe", code, provider_advice="confirm_card_data") == verdict("stripe", code)


def test_advice_codes_are_mastercards_alone():
    answer = verdict("stripe", "insufficient_funds", network="visa", advice_code="03")
    assert (answer.category, answer.stop) == (Category.INSUFFICIENT_FUNDS, False)
    assert verdict("stripe", "insufficient_funds", network="unknown", advice_code="03").stop


@pytest.mark.parametrize(
    ("provider", "code", "network", "network_code", "category"),
    [
        ("stripe", "generic_decline", "visa", "51", Category.INSUFFICIENT_FUNDS),
        ("stripe", "generic_decline", "visa", "54", Category.HARD_DECLINE),
        ("stripe", "do_not_honor", "visa", "1A", Category.AUTHENTICATION_REQUIRED),
        ("stripe", "do_not_honor", "mastercard", "79", Category.HARD_DECLINE),
        ("stripe", "do_not_honor", "mastercard", "82", Category.SOFT_DECLINE),
        ("stripe", "do_not_honor", "mastercard", "83", Category.FRAUD_FLAGGED),
        ("stripe", "do_not_honor", "amex", "51 : Insufficient funds", Category.INSUFFICIENT_FUNDS),
        ("stripe", "brand_new_code", "visa", "51", Category.INSUFFICIENT_FUNDS),
        ("stripe", "", "ach", "R01", Category.INSUFFICIENT_FUNDS),
        ("stripe", "", "ach", "R10", Category.HARD_DECLINE),
        ("stripe", "", "sepa", "AM04", Category.INSUFFICIENT_FUNDS),
        ("gocardless", "", "bacs", "ARUDD-0", Category.INSUFFICIENT_FUNDS),
        # A generic refusal of the network tells less than the provider's code.
        ("stripe", "insufficient_funds", "visa", "05", Category.INSUFFICIENT_FUNDS),
        ("stripe", "expired_card", "visa", "05", Category.HARD_DECLINE),
        ("stripe", "fraudulent", "visa", "05", Category.FRAUD_FLAGGED),
        # Nothing softens a never.
        ("stripe", "stolen_card", "mastercard", "51", Category.HARD_DECLINE),
        ("generic", "card_declined", "mastercard", "51", Category.HARD_DECLINE),
        ("stripe", "fraudulent", "mastercard", "51", Category.FRAUD_FLAGGED),
    ],
)
def test_the_networks_code_overrules_unless_it_says_less(provider, code, network, network_code, category):
    assert verdict(provider, code, network=network, network_code=network_code).category is category


@pytest.mark.parametrize(
    ("code", "revivable"),
    [
        ("lost_card", True),
        ("stolen_card", True),
        ("pickup_card", True),
        ("do_not_try_again", True),
        ("revocation_of_authorization", False),
        ("revocation_of_all_authorizations", False),
        ("stop_payment_order", False),
    ],
)
@pytest.mark.parametrize("provider", ["stripe", "sandbox"])
def test_the_networks_stop_in_the_providers_words(provider, code, revivable):
    overrides = [StoredOverride(provider, code, 1, "SOFT_DECLINE")]
    answer = verdict(provider, code, overrides)
    assert (answer.category, answer.stop, answer.revivable) == (Category.HARD_DECLINE, True, revivable)


def test_a_wait_that_the_provider_names_is_kept():
    assert verdict("stripe", "card_decline_rate_limit_exceeded").wait == timedelta(hours=24)
    assert verdict("authorize_net", "57").wait == timedelta(minutes=5)
    longer = verdict("checkout_com", "20051", network="mastercard", advice_code="30", provider_advice="02")
    assert longer.wait == timedelta(days=10)


# --- merchant overrides ---------------------------------------------------------------------------


def test_an_override_replaces_the_table_and_ordinary_advice():
    overrides = [StoredOverride("stripe", "Do_Not_Honor", 1, "INSUFFICIENT_FUNDS")]
    answer = verdict("stripe", "do_not_honor", overrides, provider_advice="confirm_card_data")
    assert (answer.category, answer.retry_class, answer.source) == (
        Category.INSUFFICIENT_FUNDS,
        RetryClass.LATER,
        "merchant override version 1",
    )
    assert verdict("adyen", "2", overrides).category is Category.SOFT_DECLINE


def test_an_override_is_a_persons_word_that_no_hint_adjusts():
    overrides = [StoredOverride("stripe", "do_not_honor", 1, "INSUFFICIENT_FUNDS")]
    answer = verdict("stripe", "do_not_honor", overrides, provider_says_retry=False)
    assert (answer.retry_class, answer.machine_may_retry) == (RetryClass.LATER, True)


def test_an_override_cannot_even_rename_a_stop():
    overrides = [StoredOverride("stripe", "do_not_honor", 1, "FRAUD_FLAGGED")]
    answer = verdict("stripe", "do_not_honor", overrides, network="visa", network_code="14")
    assert (answer.category, answer.stop) == (Category.HARD_DECLINE, True)


def test_the_highest_version_of_an_override_counts_in_any_order():
    versions = [
        StoredOverride("generic", "card_declined", 2, "SOFT_DECLINE"),
        StoredOverride("generic", "card_declined", 3, "RATE_LIMITED"),
        StoredOverride("generic", "card_declined", 1, "HARD_DECLINE"),
    ]
    for overrides in (versions, versions[::-1]):
        answer = verdict("generic", "card_declined", overrides)
        assert (answer.category, answer.source) == (Category.RATE_LIMITED, "merchant override version 3")


def test_an_override_makes_an_unknown_code_known_but_not_listed():
    answer = verdict("stripe", "brand_new_code", [StoredOverride("stripe", "brand_new_code", 1, "HARD_DECLINE")])
    assert (answer.category, answer.retry_class, answer.known, answer.code_listed) == (
        Category.HARD_DECLINE,
        RetryClass.NEVER,
        True,
        False,
    )


def test_an_override_may_bring_its_own_class_and_scope():
    own = DeclineOverride(
        "stripe",
        "currency_not_supported",
        1,
        Category.CONFIG_ERROR,
        RetryClass.AFTER_ENGINEERING_FIX,
        Scope.CONNECTION,
        Actor.ENGINEERING,
    )
    answer = verdict("stripe", "currency_not_supported", [own], provider_says_retry=True)
    assert (answer.category, answer.scope, answer.actor) == (
        Category.CONFIG_ERROR,
        Scope.CONNECTION,
        Actor.ENGINEERING,
    )


def test_an_override_of_a_category_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="MEDIUM_DECLINE"):
        newest_overrides([StoredOverride("stripe", "x", 1, "MEDIUM_DECLINE")])
