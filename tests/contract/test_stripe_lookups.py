"""The Stripe client's reads, refunds and invoices, through the real SDK and real sockets."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from providers.base import (
    ChargeResult,
    DeclineFacts,
    Outcome,
    ProviderUnavailable,
    ProviderUncertain,
    RefundRequest,
)
from providers.stripe.client import StripeClient
from recovery_site.common.errors import InvalidInput
from tests.contract.stripe_wire import (
    CREATED,
    Answer,
    StripeWire,
    charge,
    declined_intent,
    error,
    intent,
    page,
)

CREATED_AT = datetime.fromtimestamp(CREATED, UTC)
MISSING = Answer(404, error("invalid_request_error", code="resource_missing"))
BROKEN = Answer(500, error("api_error"))
SEARCH = "GET /v1/payment_intents/search"
REFUND = RefundRequest(
    charge_id="ch_1",
    amount_minor=1900,
    currency="EUR",
    reference="att_02",
    idempotency_key="key-02",
    reason="duplicate",
)


@pytest.fixture
def wire() -> Iterator[StripeWire]:
    with StripeWire() as server:
        yield server


def refund(**changes: object) -> dict[str, Any]:
    return {
        "id": "re_1",
        "object": "refund",
        "amount": 1900,
        "charge": "ch_1",
        "created": CREATED,
        "currency": "eur",
        "metadata": {"attempt": "att_02"},
        "payment_intent": "pi_1",
        "status": "succeeded",
        **changes,
    }


# --- reading charges ----------------------------------------------------------------------------


def test_a_payment_intent_is_read_with_its_charge(wire: StripeWire) -> None:
    wire.script("GET /v1/payment_intents/pi_1", Answer(200, intent()))
    result = wire.client().charge_get("pi_1")
    assert result is not None
    assert (result.outcome, result.provider_id, result.reference) == (Outcome.SUCCEEDED, "ch_1", "att_01")
    assert wire.seen[0].params == {"expand[0]": "latest_charge"}


@pytest.mark.parametrize(
    ("changes", "outcome", "code"),
    [
        ({}, Outcome.SUCCEEDED, None),
        ({"status": "failed", "failure_code": "expired_card"}, Outcome.DECLINED, "expired_card"),
        ({"status": "pending"}, Outcome.AWAITING, None),
        ({"captured": False, "amount_captured": 0}, Outcome.AWAITING, None),
    ],
)
def test_a_charge_is_read_as_it_is(
    wire: StripeWire, changes: dict[str, object], outcome: Outcome, code: str | None
) -> None:
    wire.script("GET /v1/charges/ch_1", Answer(200, charge(**changes)))
    result = wire.client().charge_get("ch_1")
    assert result is not None
    assert (result.outcome, result.provider_id, result.payment_id) == (outcome, "ch_1", "pi_1")
    assert (result.amount_minor, result.currency, result.token) == (4900, "EUR", "pm_1")
    assert (result.decline.raw_code if result.decline else None) == code
    assert (result.expected_by is not None) == (outcome is Outcome.AWAITING)


def test_a_partly_captured_charge_moved_only_that_part(wire: StripeWire) -> None:
    wire.script("GET /v1/charges/ch_1", Answer(200, charge(amount_captured=3000)))
    result = wire.client().charge_get("ch_1")
    assert result is not None
    assert result.amount_minor == 3000


@pytest.mark.parametrize("provider_id", ["pi_1", "ch_1"])
def test_what_stripe_does_not_know_is_none(wire: StripeWire, provider_id: str) -> None:
    assert wire.client().charge_get(provider_id) is None


def test_reading_an_intent_that_wants_the_payer_changes_nothing(wire: StripeWire) -> None:
    wire.script("GET /v1/payment_intents/pi_1", Answer(200, intent(status="requires_action", latest_charge=None)))
    result = wire.client().charge_get("pi_1")
    assert result is not None
    assert result.outcome is Outcome.DECLINED
    assert len(wire.seen) == 1


@pytest.mark.parametrize(
    ("cancelled", "outcome", "code"),
    [
        (intent(status="canceled", latest_charge=None), Outcome.ERRORED, "payment_intent_canceled"),
        (declined_intent(status="canceled"), Outcome.DECLINED, "do_not_honor"),
    ],
)
def test_a_cancelled_intent(wire: StripeWire, cancelled: object, outcome: Outcome, code: str) -> None:
    wire.script("GET /v1/payment_intents/pi_1", Answer(200, cancelled))
    result = wire.client().charge_get("pi_1")
    assert result is not None
    assert result.outcome is outcome
    assert code == (result.decline.raw_code if result.decline else result.error_code)


@pytest.mark.parametrize("provider_id", ["", "../v1/customers", "ch_1?x", "ch 1", "ch_1:500"])
def test_an_id_that_stripe_cannot_have_is_not_asked_for(wire: StripeWire, provider_id: str) -> None:
    with pytest.raises(InvalidInput, match="no id"):
        wire.client().charge_get(provider_id)
    assert wire.seen == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.charge_get("pi_1"),
        lambda client: client.charge_get("ch_1"),
        lambda client: client.charge_find("att_01"),
        lambda client: list(client.charges_list(CREATED_AT)),
        lambda client: client.refund_get("re_1"),
        lambda client: client.refund_find("att_02"),
        lambda client: client.invoice_get("in_1"),
        lambda client: client.stop_collection("in_1"),
        lambda client: client.invoice_of_payment("pi_1"),
    ],
)
@pytest.mark.parametrize(
    "answer",
    [
        BROKEN,
        Answer(401, error("invalid_request_error")),
        Answer(429, error("rate_limit"), {"Retry-After": "3"}),
        Answer(200, b"<html>"),
        Answer(200, {"object": "list", "data": "nothing"}),
    ],
    ids=["500", "401", "429", "page", "nonsense"],
)
def test_a_read_without_a_usable_answer_is_unavailable(
    wire: StripeWire, ask: Callable[[StripeClient], object], answer: Answer
) -> None:
    for path in (
        "GET /v1/payment_intents/pi_1",
        "GET /v1/charges/ch_1",
        SEARCH,
        "GET /v1/charges",
        "GET /v1/refunds/re_1",
        "GET /v1/refunds",
        "GET /v1/invoices/in_1",
        "POST /v1/invoices/in_1",
        "GET /v1/invoice_payments",
    ):
        wire.script(path, answer)
    with pytest.raises(ProviderUnavailable):
        ask(wire.client())


# --- by our reference ---------------------------------------------------------------------------


def test_the_search_asks_for_our_reference(wire: StripeWire) -> None:
    wire.script(SEARCH, Answer(200, page(intent())))
    result = wire.client().charge_find("att_01")
    assert result is not None
    assert (result.outcome, result.provider_id, result.payment_id) == (Outcome.SUCCEEDED, "ch_1", "pi_1")
    assert wire.seen[0].params == {
        "query": "metadata['attempt']:'att_01'",
        "limit": "10",
        "expand[0]": "data.latest_charge",
    }


def test_a_reference_cannot_break_out_of_the_query(wire: StripeWire) -> None:
    wire.script(SEARCH, Answer(200, page()))
    assert wire.client().charge_find("a' OR status:'succeeded\\") is None
    assert wire.seen[0].params["query"] == "metadata['attempt']:'a\\' OR status:\\'succeeded\\\\'"


def test_only_exactly_our_reference_counts(wire: StripeWire) -> None:
    wire.script(SEARCH, Answer(200, page(intent(metadata={"attempt": "att_011"}), intent(metadata={}))))
    assert wire.client().charge_find("att_01") is None


def test_of_several_the_one_that_took_money_counts(wire: StripeWire) -> None:
    undecided = intent(id="pi_3", status="requires_confirmation")
    wire.script(SEARCH, Answer(200, page(declined_intent(id="pi_2"), undecided, intent())))
    result = wire.client().charge_find("att_01")
    assert result is not None
    assert (result.outcome, result.payment_id) == (Outcome.SUCCEEDED, "pi_1")


def test_an_undecided_one_is_no_answer_yet(wire: StripeWire) -> None:
    wire.script(SEARCH, Answer(200, page(declined_intent(), intent(status="requires_confirmation"))))
    with pytest.raises(ProviderUnavailable, match="undecided"):
        wire.client().charge_find("att_01")


def test_a_search_that_is_not_offered_proves_nothing(wire: StripeWire) -> None:
    wire.script(SEARCH, MISSING)
    with pytest.raises(ProviderUnavailable):
        wire.client().charge_find("att_01")


# --- the list of charges ------------------------------------------------------------------------


def test_charges_are_listed_over_all_pages(wire: StripeWire) -> None:
    wire.script(
        "GET /v1/charges",
        Answer(200, page(charge(id="ch_3"), charge(id="ch_2"), has_more=True)),
        Answer(200, page(charge(id="ch_1", metadata={}))),
    )
    found = list(wire.client().charges_list(CREATED_AT))
    assert [(result.provider_id, result.reference) for result in found] == [
        ("ch_3", "att_01"),
        ("ch_2", "att_01"),
        ("ch_1", ""),
    ]
    assert [seen.params for seen in wire.seen] == [
        {"created[gt]": str(CREATED - 1), "limit": "100"},
        {"created[gt]": str(CREATED - 1), "limit": "100", "starting_after": "ch_2"},
    ]


def test_one_unreadable_charge_hides_no_other(wire: StripeWire) -> None:
    wire.script("GET /v1/charges", Answer(200, page(charge(id="ch_2", amount=-1), charge(id="ch_1"))))
    charges = iter(wire.client().charges_list(CREATED_AT))
    assert next(charges).provider_id == "ch_1"
    with pytest.raises(ProviderUnavailable, match=r"data\[0\]\.amount"):
        next(charges)


# --- refunds ------------------------------------------------------------------------------------


def test_a_refund_is_sent_with_our_reference(wire: StripeWire) -> None:
    wire.script("POST /v1/refunds", Answer(200, refund(), {"Request-Id": "req_3"}))
    result = wire.client(emulator=False).refund(REFUND)
    assert wire.seen[0].params == {
        "charge": "ch_1",
        "amount": "1900",
        "reason": "duplicate",
        "metadata[attempt]": "att_02",
    }
    assert wire.seen[0].headers["idempotency-key"] == "key-02"
    assert result == ChargeResult(
        outcome=Outcome.SUCCEEDED,
        provider_id="re_1",
        payment_id="pi_1",
        amount_minor=1900,
        currency="EUR",
        reference="att_02",
        created_at=CREATED_AT,
        raw={
            "object": "refund",
            "id": "re_1",
            "status": "succeeded",
            "http_status": 200,
            "request_id": "req_3",
        },
    )


def test_a_payment_intent_can_be_refunded_too(wire: StripeWire) -> None:
    wire.script("POST /v1/refunds", Answer(200, refund()))
    request = RefundRequest(
        charge_id="pi_1",
        amount_minor=5,
        currency="ISK",
        reference="att_02",
        idempotency_key="k",
        reason="goodwill",
    )
    wire.client().refund(request)
    assert wire.seen[0].params == {"payment_intent": "pi_1", "amount": "500", "metadata[attempt]": "att_02"}


@pytest.mark.parametrize("status", ["pending", "requires_action"])
def test_a_refund_under_way_is_awaited(wire: StripeWire, status: str) -> None:
    wire.script("POST /v1/refunds", Answer(200, refund(status=status)))
    result = wire.client().refund(REFUND)
    assert (result.outcome, result.expected_by) == (Outcome.AWAITING, CREATED_AT + timedelta(days=14))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"status": "failed", "failure_reason": "lost_or_stolen_card"}, "lost_or_stolen_card"),
        ({"status": "canceled"}, "canceled"),
    ],
)
def test_a_refund_that_failed(wire: StripeWire, changes: dict[str, str], code: str) -> None:
    wire.script("GET /v1/refunds/re_1", Answer(200, refund(**changes)))
    result = wire.client().refund_get("re_1")
    assert result is not None
    assert (result.outcome, result.decline) == (Outcome.DECLINED, DeclineFacts(raw_code=code))


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        (
            Answer(400, error("x", code="charge_already_refunded")),
            Outcome.ERRORED,
            "charge_already_refunded",
        ),
        (Answer(402, error("card_error", code="charge_disputed")), Outcome.DECLINED, "charge_disputed"),
    ],
)
def test_a_refused_refund(wire: StripeWire, answer: Answer, outcome: Outcome, code: str) -> None:
    wire.script("POST /v1/refunds", answer)
    result = wire.client().refund(REFUND)
    assert (result.outcome, result.decline.raw_code if result.decline else result.error_code) == (
        outcome,
        code,
    )


@pytest.mark.parametrize("answer", [BROKEN, Answer(how="reset"), Answer(200, refund(created=None, status="pending"))])
def test_a_refund_without_a_definite_answer_is_uncertain(wire: StripeWire, answer: Answer) -> None:
    wire.script("POST /v1/refunds", answer)
    with pytest.raises(ProviderUncertain, match="refund"):
        wire.client().refund(REFUND)


def test_a_refund_is_found_by_our_reference_in_the_list(wire: StripeWire) -> None:
    wire.script(
        "GET /v1/refunds",
        Answer(200, page(refund(id="re_9", metadata={}), refund(id="re_8", metadata=[]), has_more=True)),
        Answer(200, page(refund(id="re_7"))),
    )
    found = wire.client().refund_find("att_02")
    assert found is not None
    assert (found.provider_id, found.outcome) == ("re_7", Outcome.SUCCEEDED)


def test_the_search_for_a_refund_ends_after_ten_pages(wire: StripeWire) -> None:
    wire.script("GET /v1/refunds", Answer(200, page(refund(metadata={}), has_more=True)))
    assert wire.client().refund_find("att_02") is None
    assert len(wire.seen) == 10
