"""The Stripe client's charges, through the real SDK and real sockets, against a server like Stripe's."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from providers.base import (
    CardFacts,
    ChargeRequest,
    ChargeResult,
    DeclineFacts,
    Outcome,
    ProviderUncertain,
)
from tests.contract.stripe_wire import (
    CREATED,
    KEY,
    Answer,
    StripeWire,
    charge,
    declined_intent,
    error,
    intent,
)

CREATED_AT = datetime.fromtimestamp(CREATED, UTC)
CARD = CardFacts(
    fingerprint="fp01",
    network="visa",
    last4="0341",
    exp_month=4,
    exp_year=2028,
    funding="debit",
    country="NL",
)
REQUEST = ChargeRequest(
    amount_minor=4900,
    currency="EUR",
    token="pm_1",
    customer="cus_1",
    reference="att_01",
    idempotency_key="key-01",
    metadata={"invoice": "inv_01", "transaction": "txn_01"},
    description="Team, January",
)
CREATE = "POST /v1/payment_intents"


@pytest.fixture
def wire() -> Iterator[StripeWire]:
    with StripeWire() as server:
        yield server


def test_a_charge_is_sent_as_one_confirmed_payment_without_the_payer(wire: StripeWire) -> None:
    wire.script(CREATE, Answer(200, intent(), {"Request-Id": "req_1"}))
    wire.client(emulator=False).charge(REQUEST)
    (seen,) = wire.seen
    assert f"{seen.method} {seen.path}" == CREATE
    assert seen.params == {
        "amount": "4900",
        "currency": "eur",
        "customer": "cus_1",
        "payment_method": "pm_1",
        "confirm": "true",
        "off_session": "true",
        "description": "Team, January",
        "metadata[attempt]": "att_01",
        "metadata[invoice]": "inv_01",
        "metadata[transaction]": "txn_01",
        "expand[0]": "latest_charge",
        # Without these Stripe asks where to send the payer.
        "automatic_payment_methods[enabled]": "true",
        "automatic_payment_methods[allow_redirects]": "never",
    }
    assert seen.headers["idempotency-key"] == "key-01"
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["stripe-version"]


def test_nothing_is_told_about_this_machine(wire: StripeWire) -> None:
    wire.script(CREATE, Answer(200, intent(), {"Request-Id": "req_1"}))
    client = wire.client()
    client.charge(REQUEST)
    client.charge(REQUEST)
    for seen in wire.seen:
        assert "x-stripe-client-telemetry" not in seen.headers
        assert "telemetry_id" not in seen.headers["x-stripe-client-user-agent"]
        assert "platform" not in seen.headers["x-stripe-client-user-agent"]


def test_an_imitation_of_stripe_gets_only_what_every_imitation_knows(wire: StripeWire) -> None:
    wire.script(CREATE, Answer(200, intent()))
    wire.client().charge(replace(REQUEST, customer=""))
    assert wire.seen[0].params.keys() == {
        "amount",
        "currency",
        "payment_method",
        "confirm",
        "off_session",
        "metadata[attempt]",
        "metadata[invoice]",
        "metadata[transaction]",
        "expand[0]",
    }


def test_a_success(wire: StripeWire) -> None:
    wire.script(CREATE, Answer(200, intent(), {"Request-Id": "req_1"}))
    assert wire.client().charge(REQUEST) == ChargeResult(
        outcome=Outcome.SUCCEEDED,
        provider_id="ch_1",
        payment_id="pi_1",
        amount_minor=4900,
        currency="EUR",
        token="pm_1",
        reference="att_01",
        card=CARD,
        created_at=CREATED_AT,
        raw={
            "object": "payment_intent",
            "id": "pi_1",
            "status": "succeeded",
            "livemode": False,
            "http_status": 200,
            "request_id": "req_1",
        },
    )


def test_a_replayed_answer_is_marked(wire: StripeWire) -> None:
    wire.script(CREATE, Answer(200, intent(), {"Idempotent-Replayed": "true"}))
    assert wire.client().charge(REQUEST).raw["replayed"] is True


def test_a_part_that_was_received_is_told_as_such(wire: StripeWire) -> None:
    wire.script(CREATE, Answer(200, intent(amount_received=3000)))
    assert wire.client().charge(REQUEST).amount_minor == 3000


@pytest.mark.parametrize(
    ("currency", "minor", "sent"),
    [("ISK", 5, 500), ("UGX", 1000, 100_000), ("JPY", 500, 500), ("MGA", 500, 5)],
)
def test_amounts_are_sent_and_read_in_stripes_units(wire: StripeWire, currency: str, minor: int, sent: int) -> None:
    wire.script(CREATE, Answer(200, intent(currency=currency.lower(), amount=sent, amount_received=sent)))
    result = wire.client().charge(replace(REQUEST, amount_minor=minor, currency=currency))
    assert wire.seen[0].params["amount"] == str(sent)
    assert (result.amount_minor, result.currency) == (minor, currency)


def test_an_amount_that_stripe_cannot_charge_is_not_sent(wire: StripeWire) -> None:
    result = wire.client().charge(replace(REQUEST, amount_minor=5124, currency="KWD"))
    assert result == ChargeResult(outcome=Outcome.ERRORED, error_code="invalid_charge_amount")
    assert wire.seen == []


# --- declines -------------------------------------------------------------------------------------


def test_a_decline_with_everything_stripe_knows(wire: StripeWire) -> None:
    failure = declined_intent()["last_payment_error"]
    body = {"error": {**failure, "payment_intent": declined_intent()}}
    wire.script(CREATE, Answer(402, body, {"Request-Id": "req_2"}))
    assert wire.client().charge(REQUEST) == ChargeResult(
        outcome=Outcome.DECLINED,
        provider_id="ch_1",
        payment_id="pi_1",
        amount_minor=4900,
        currency="EUR",
        token="pm_1",
        reference="att_01",
        decline=DeclineFacts(
            raw_code="do_not_honor",
            network_code="05",
            advice_code="02",
            provider_advice="try_again_later",
            message="Your card was declined.",
        ),
        card=CardFacts(network="visa"),
        created_at=CREATED_AT - timedelta(seconds=1),
        raw={
            "http_status": 402,
            "request_id": "req_2",
            "type": "card_error",
            "code": "card_declined",
            "decline_code": "do_not_honor",
        },
    )


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"code": "expired_card", "charge": "ch_1"}, "expired_card"),
        ({"code": "card_declined", "decline_code": "lost_card"}, "lost_card"),
        ({"code": "card_declined"}, "card_declined"),
        (
            {"code": "authentication_required", "decline_code": "authentication_required"},
            "authentication_required",
        ),
        ({}, ""),
    ],
)
def test_the_code_of_a_decline(wire: StripeWire, parts: dict[str, str], code: str) -> None:
    wire.script(CREATE, Answer(402, error("card_error", **parts)))
    result = wire.client().charge(REQUEST)
    assert result.outcome is Outcome.DECLINED
    assert result.decline is not None
    assert result.decline.raw_code == code
    assert result.provider_id == parts.get("charge", "")


def test_a_decline_told_in_a_successful_answer(wire: StripeWire) -> None:
    wire.script(CREATE, Answer(200, declined_intent()))
    result = wire.client().charge(REQUEST)
    assert (result.outcome, result.provider_id, result.token) == (Outcome.DECLINED, "ch_1", "pm_1")
    assert result.decline is not None
    assert result.decline.raw_code == "do_not_honor"


def test_a_charge_that_stripe_blocked_never_reached_the_network(wire: StripeWire) -> None:
    blocked = charge(
        status="failed",
        failure_code="card_declined",
        outcome={"type": "blocked", "reason": "highest_risk_level", "network_status": "not_sent_to_network"},
    )
    wire.script(CREATE, Answer(200, declined_intent(latest_charge=blocked)))
    result = wire.client().charge(REQUEST)
    assert result.decline is not None
    assert result.decline.sent_to_network is False


# --- the payer is wanted --------------------------------------------------------------------------


def test_a_payment_that_wants_the_payer_is_cancelled_and_declined(wire: StripeWire) -> None:
    waiting = intent(status="requires_action", amount_received=0, latest_charge=None)
    wire.script(CREATE, Answer(200, waiting))
    wire.script("POST /v1/payment_intents/pi_1/cancel", Answer(200, {**waiting, "status": "canceled"}))
    result = wire.client().charge(REQUEST)
    assert (result.outcome, result.provider_id, result.payment_id) == (Outcome.DECLINED, "", "pi_1")
    assert result.decline is not None
    assert result.decline.raw_code == "authentication_required"
    assert wire.lines() == [CREATE, "POST /v1/payment_intents/pi_1/cancel"]
    assert wire.seen[1].headers["idempotency-key"] == "key-01-cancel"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, error("api_error")),
        Answer(how="reset"),
        Answer(200, intent(status="requires_action")),
        Answer(400, error("invalid_request_error", code="payment_intent_unexpected_state")),
    ],
)
def test_a_payment_that_wants_the_payer_and_cannot_be_cancelled_is_uncertain(wire: StripeWire, answer: Answer) -> None:
    wire.script(CREATE, Answer(200, intent(status="requires_action", latest_charge=None)))
    wire.script("POST /v1/payment_intents/pi_1/cancel", answer)
    with pytest.raises(ProviderUncertain, match="did not cancel"):
        wire.client().charge(REQUEST)


# --- under way ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stripe_type", "expected_by"),
    [
        # From Thursday 2026-01-01: weekdays only.
        ("us_bank_account", datetime(2026, 1, 8, 9, tzinfo=UTC)),
        ("sepa_debit", datetime(2026, 1, 21, 9, tzinfo=UTC)),
        ("bacs_debit", datetime(2026, 1, 12, 9, tzinfo=UTC)),
        ("card", datetime(2026, 1, 6, 9, tzinfo=UTC)),
        ("pay_by_pigeon", datetime(2026, 1, 21, 9, tzinfo=UTC)),
    ],
)
def test_a_debit_under_way_is_awaited_until_its_rail_has_decided(
    wire: StripeWire, stripe_type: str, expected_by: datetime
) -> None:
    pending = charge(status="pending", payment_method_details={"type": stripe_type, stripe_type: {}})
    wire.script(CREATE, Answer(200, intent(status="processing", amount_received=0, latest_charge=pending)))
    result = wire.client().charge(REQUEST)
    assert (result.outcome, result.expected_by, result.amount_minor) == (Outcome.AWAITING, expected_by, 4900)
    assert result.provider_id == "ch_1"


# --- refused requests: nothing was tried ----------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code", "retry_after"),
    [
        (Answer(429, error("invalid_request_error"), {"Retry-After": "17"}), "rate_limit_exceeded", 17),
        (Answer(429, error("invalid_request_error", code="rate_limit")), "rate_limit_exceeded", None),
        (Answer(400, error("invalid_request_error", code="rate_limit")), "rate_limit_exceeded", None),
        (Answer(429, error("x"), {"Retry-After": "soon"}), "rate_limit_exceeded", None),
        (Answer(429, error("x"), {"Retry-After": "99999999"}), "rate_limit_exceeded", 86_400),
        (Answer(429, error("invalid_request_error", code="lock_timeout")), "lock_timeout", None),
        (Answer(401, error("invalid_request_error")), "authentication_failed", None),
        (Answer(403, error("invalid_request_error", code="not_permitted")), "authentication_failed", None),
        (Answer(400, error("invalid_request_error", code="parameter_missing")), "parameter_missing", None),
        (Answer(400, error("invalid_request_error")), "invalid_request_error", None),
        (Answer(404, error("invalid_request_error", code="resource_missing")), "resource_missing", None),
    ],
)
def test_a_refused_request_surely_did_not_happen(
    wire: StripeWire, answer: Answer, code: str, retry_after: int | None
) -> None:
    wire.script(CREATE, answer)
    result = wire.client().charge(REQUEST)
    assert (result.outcome, result.error_code) == (Outcome.ERRORED, code)
    assert result.retry_after == (None if retry_after is None else timedelta(seconds=retry_after))
    assert result.raw["http_status"] == answer.status
    assert KEY not in repr(result)
    assert len(wire.seen) == 1


# --- answers that say nothing definite ------------------------------------------------------------

UNCLEAR: dict[str, Answer] = {
    "500": Answer(500, error("api_error")),
    "503": Answer(503, error("api_error")),
    "502 with a page": Answer(502, b"<html>Bad Gateway</html>"),
    "200 with a page": Answer(200, b"<html>Welcome</html>"),
    "200 and empty": Answer(200, b""),
    "200 with a list": Answer(200, []),
    "200 with text": Answer(200, "ok"),
    "200 without a status": Answer(200, intent(status=None)),
    "200 with an unknown status": Answer(200, intent(status="requires_confirmation")),
    "200 waiting for a method without a failure": Answer(
        200, intent(status="requires_payment_method", latest_charge=None)
    ),
    "200 with a negative amount": Answer(200, intent(amount=-1)),
    "200 with a wrong currency": Answer(200, intent(currency="zzz")),
    "200 without an id": Answer(200, intent(id=None)),
    "200 with bytes that are no text": Answer(200, b"\xff\xfe"),
    "302 elsewhere": Answer(302, b"", {"Location": "https://elsewhere.example/"}),
    "307 elsewhere": Answer(307, b"", {"Location": "/v1/payment_intents/other"}),
    "404 with a page": Answer(404, b"<html>Not here</html>"),
    "408": Answer(408, error("api_error")),
    "409 for the same key": Answer(409, error("invalid_request_error", code="idempotency_key_in_use")),
    "400 for a reused key": Answer(400, error("idempotency_error")),
    "400 with an error of another shape": Answer(400, {"error": "invalid_request"}),
    "400 with a list for an error": Answer(400, {"error": []}),
    "402 with an error that cannot be": Answer(402, error("card_error", charge=17)),
    "500 that is no JSON object": Answer(500, b"null"),
}


@pytest.mark.parametrize("answer", UNCLEAR.values(), ids=UNCLEAR.keys())
def test_an_answer_that_says_nothing_definite_is_uncertain_and_never_repeated(wire: StripeWire, answer: Answer) -> None:
    wire.script(CREATE, answer)
    with pytest.raises(ProviderUncertain) as caught:
        wire.client().charge(REQUEST)
    assert KEY not in repr(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert wire.lines() == [CREATE]
