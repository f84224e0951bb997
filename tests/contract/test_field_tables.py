"""Fields of the providers' formats that few payloads carry: each is read where it is sent, in any of its shapes."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from providers.base import DeclineFacts, EventKind, MethodFacts, Outcome, PaymentEvent, RefundStatus
from providers.braintree.results import outcome_of
from tests.contract import stripe_fixtures
from tests.contract.dialect_fixtures import FIXTURES, changed, load, told
from tests.support.signing import delivery

CLOVER = "2025-10-29.clover"
DUE = datetime(2026, 1, 20, 12, tzinfo=UTC)
EPOCH = int(DUE.timestamp())
CARD = {"brand": "visa", "last4": "4242", "exp_month": 8, "exp_year": 2029, "fingerprint": "fp_1"}


def found(event: object, path: str) -> object:
    """What stands at a dotted path of facts; numbers are places in a list."""
    for name in path.split("."):
        event = event[int(name)] if name.isdigit() else getattr(event, name)  # type: ignore[index]
    return event


def stripe(name: str, event_type: str = "", envelope: Mapping[str, object] | None = None, **values: object) -> Any:
    """A Stripe fixture as another event type, with values of its object and its envelope replaced."""
    body = stripe_fixtures.load(name if "/" in name else f"{CLOVER}/{name}.json")
    body["data"]["object"] |= values
    meaning = stripe_fixtures.read(body | ({"type": event_type} if event_type else {}) | (envelope or {}))
    assert isinstance(meaning, PaymentEvent), meaning
    return meaning


PAID_WITH = {"id": "pm_of_payer", "object": "payment_method", "type": "card", "card": CARD}
FAILED_INTENT = stripe_fixtures.load(f"{CLOVER}/payment_intent.payment_failed.json")["data"]["object"]
FAILED_CHARGE = stripe_fixtures.load(f"{CLOVER}/charge.failed.json")["data"]["object"]
DETAILS = FAILED_CHARGE["payment_method_details"]["card"]
EXPIRING = "2019-12-03/customer.source.updated.json"
SOURCES = {"object": "list", "data": [{"id": "card_9", "object": "card", **CARD, "brand": "American Express"}]}


def described(**values: object) -> dict[str, object]:
    return {"payment_method_details": {"type": "card", "card": {**DETAILS, **values}}}


STRIPE: dict[str, tuple[PaymentEvent, str, object]] = {
    "key of the request": (
        stripe("charge.failed", envelope={"request": {"id": "req_1", "idempotency_key": "k" * 255}}),
        "idempotency_key",
        "k" * 255,
    ),
    "request of an old version": (stripe("charge.failed", envelope={"request": "req_1"}), "idempotency_key", ""),
    "no request": (stripe("charge.failed", envelope={"request": None}), "idempotency_key", ""),
    "account": (stripe("charge.failed", envelope={"account": "acct_1"}), "account", "acct_1"),
    "bin": (stripe("charge.failed", **described(iin="424242")), "payment.method.card.bin", "424242"),
    "issuer": (stripe("charge.failed", **described(issuer="ING")), "payment.method.card.issuer", "ING"),
    "brand by display": (
        stripe("charge.failed", **described(brand=None, display_brand="american_express")),
        "payment.method.card.network",
        "amex",
    ),
    "brand by networks": (
        stripe(
            "charge.failed",
            **described(brand="unknown", network=None, networks={"available": ["cartes_bancaires"], "preferred": None}),
        ),
        "payment.method.card.network",
        "cartes_bancaires",
    ),
    "network's id in an expanded charge": (
        stripe("payment_intent.payment_failed", latest_charge=FAILED_CHARGE),
        "payment.network_reference",
        "MCC000001",
    ),
    "network's codes in an expanded charge": (
        stripe(
            "payment_intent.payment_failed",
            latest_charge=FAILED_CHARGE,
            last_payment_error={"code": "card_declined", "decline_code": "insufficient_funds", "charge": "ch_1"},
        ),
        "payment.decline",
        DeclineFacts(
            raw_code="insufficient_funds", network_code="51", advice_code="24", provider_advice="try_again_later"
        ),
    ),
    "blocked, without a network status": (
        stripe("charge.failed", outcome={"type": "blocked", "reason": "highest_risk_level"}),
        "payment.decline",
        DeclineFacts(raw_code="fraudulent", message="Your card has insufficient funds.", sent_to_network=False),
    ),
    "blocked after the network had said yes": (
        stripe("charge.failed", outcome={"type": "blocked", "network_status": "reversed_after_approval"}),
        "payment.decline.sent_to_network",
        True,
    ),
    "a date that cannot be": (
        stripe("charge.failed", **described(exp_month=13)),
        "payment.method.card.exp_month",
        None,
    ),
    "a year of two digits": (stripe("charge.failed", **described(exp_year=29)), "payment.method.card.exp_year", 2029),
    "codes as numbers": (
        stripe("charge.failed", outcome={"network_decline_code": 51, "network_advice_code": 3, "reason": "x"}),
        "payment.decline.network_code",
        "51",
    ),
    "total instead of the amount due": (
        stripe("invoice.payment_failed", amount_due=None, total=5100, amount_remaining=None),
        "invoice.amount_minor",
        5100,
    ),
    "evidence due": (
        stripe("charge.dispute.created", evidence_details={"due_by": EPOCH}),
        "dispute.respond_by",
        DUE,
    ),
    "refund.failed without a status": (stripe("refund.failed", status=None), "refunds.0.status", RefundStatus.FAILED),
    "refund whose money came back": (
        stripe("refund.updated", status="succeeded", failure_balance_transaction="txn_1"),
        "refunds.0.status",
        RefundStatus.FAILED,
    ),
    "invoice with its payment expanded": (
        stripe("invoice.payment_failed", payment_intent=FAILED_INTENT, charge=None),
        "payment.decline.network_code",
        "51",
    ),
    "invoice with its payments expanded": (
        stripe("invoice.payment_failed", payments={"data": [{"payment": {"payment_intent": FAILED_INTENT}}]}),
        "payment.invoice_id",
        "in_renewal_2",
    ),
    "invoice with its charge expanded": (
        stripe("invoice.payment_failed", charge=FAILED_CHARGE),
        "payment.decline.raw_code",
        "insufficient_funds",
    ),
    "invoice with its method expanded": (
        stripe("invoice.payment_failed", default_payment_method=PAID_WITH),
        "method.card.last4",
        "4242",
    ),
    "invoice of a payer with a default": (
        stripe(
            "invoice.payment_failed",
            default_payment_method=None,
            customer={"id": "cus_1", "invoice_settings": {"default_payment_method": PAID_WITH}},
        ),
        "invoice.token",
        "pm_of_payer",
    ),
    "invoice that can only be debited": (
        stripe("invoice.payment_failed", payment_settings={"payment_method_types": ["sepa_debit"]}),
        "method",
        MethodFacts(token="pm_northwind_1", kind="sepa"),
    ),
    "a card that expires": (stripe(EXPIRING, "customer.source.expiring"), "kind", EventKind.METHOD_UPDATED),
    "the date of a card that expires": (
        stripe(EXPIRING, "customer.source.expiring"),
        "method.card.exp_year",
        2027,
    ),
    "a default source in the list of sources": (
        stripe(
            "customer.updated",
            envelope={
                "data": {
                    "object": {"id": "cus_1", "object": "customer", "default_source": "card_9", "sources": SOURCES},
                    "previous_attributes": {"default_source": "card_8"},
                }
            },
        ),
        "method.card.network",
        "amex",
    ),
}


@pytest.mark.parametrize("case", STRIPE)
def test_stripe(case: str) -> None:
    event, path, expected = STRIPE[case]
    assert found(event, path) == expected


def hyperswitch(**values: object) -> PaymentEvent:
    body = load("hyperswitch", "payment_failed")
    body["content"]["object"] |= {"attempts": None, **values}
    return told("hyperswitch", body)


def hyperswitch_other(event_type: str, thing: Mapping[str, object]) -> PaymentEvent:
    body = load("hyperswitch", "payment_failed")
    return told("hyperswitch", {**body, "event_type": event_type, "content": {"object": dict(thing)}})


def adyen(**values: object) -> PaymentEvent:
    (item, *_) = load("adyen", "batch")["notificationItems"]
    return told(
        "adyen",
        {"notificationItems": [changed(item, **{f"NotificationRequestItem__{k}": v for k, v in values.items()})]},
    )


def adyen_dispute(**extra: str) -> PaymentEvent:
    dispute = load("adyen", "batch")["notificationItems"][2]
    dispute["NotificationRequestItem"]["additionalData"] |= extra
    return told("adyen", {"notificationItems": [dispute]})


def braintree(*changes: tuple[str, str]) -> PaymentEvent:
    text = (FIXTURES / "braintree" / "subscription_charged_unsuccessfully.xml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return told("braintree", delivery("braintree", text.encode()).body)


def braintree_with(element: str) -> PaymentEvent:
    return braintree(("<status>processor_declined", f"{element}<status>processor_declined"))


def chargebee(event_type: str = "payment_failed", **values: object) -> PaymentEvent:
    return told("chargebee", changed(load("chargebee", "payment_failed"), event_type=event_type, **values))


DISPUTE = {"dispute_id": "dp_1", "payment_id": "pay_1", "amount": "900", "currency": "EUR"}
MANDATE = {"mandate_id": "man_1", "payment_method_id": "pm_northwind", "status": "revoked"}
HYPERSWITCH_CARD = {"card": {"last4": "4444", "card_isin": "520424", "card_issuer": "ING", "card_network": None}}
BRAINTREE_DISPUTE = (
    b"<notification><kind>dispute_opened</kind><timestamp>2026-01-01T09:00:01Z</timestamp><subject><dispute><id>d1</id>"
    b"<amount>49.00</amount><currency-iso-code>EUR</currency-iso-code><reply-by-date>2026-01-20</reply-by-date>"
    b"<transaction><id>bt_1</id></transaction></dispute></subject></notification>"
)
OTHERS: dict[str, tuple[PaymentEvent, str, object]] = {
    "hyperswitch: bin": (hyperswitch(payment_method_data=HYPERSWITCH_CARD), "payment.method.card.bin", "520424"),
    "hyperswitch: issuer": (hyperswitch(payment_method_data=HYPERSWITCH_CARD), "payment.method.card.issuer", "ING"),
    "hyperswitch: issuer's words": (
        hyperswitch(error_message=None, issuer_error_message="Funds"),
        "payment.decline.message",
        "Funds",
    ),
    "hyperswitch: net amount": (hyperswitch(amount=None, net_amount=4800), "payment.amount_minor", 4800),
    "hyperswitch: payer beside the payment": (
        hyperswitch(customer=None, email="lena@example.com"),
        "customer.email",
        "lena@example.com",
    ),
    "hyperswitch: payer's country": (
        hyperswitch(billing={"address": {"country": "DE"}}),
        "customer.country",
        "DE",
    ),
    "hyperswitch: evidence due": (
        hyperswitch_other("dispute_opened", {**DISPUTE, "challenge_required_by": "2026-01-20T12:00:00.000Z"}),
        "dispute.respond_by",
        DUE,
    ),
    "hyperswitch: failed refund": (
        hyperswitch_other(
            "refund_failed", {"refund_id": "r", "amount": 900, "currency": "EUR", "issuer_error_code": "05"}
        ),
        "refunds.0.failure_reason",
        "05",
    ),
    "hyperswitch: revoked mandate": (
        hyperswitch_other("mandate_revoked", MANDATE),
        "method.token",
        "pm_northwind",
    ),
    "adyen: issuer's bin": (adyen(additionalData__issuerBin="52042400"), "payment.method.card.bin", "52042400"),
    "adyen: network's id": (
        adyen(additionalData__networkTxReference="MCC1"),
        "payment.network_reference",
        "MCC1",
    ),
    "adyen: closed account": (
        adyen(additionalData__realtimeAccountUpdaterStatus="CloseAccount"),
        "payment.decline.provider_advice",
        "CloseAccount",
    ),
    "adyen: new card": (
        adyen(additionalData__realtimeAccountUpdaterStatus="CardChanged"),
        "payment.method.updated",
        True,
    ),
    "adyen: answer of the last try": (
        adyen(
            additionalData={
                "retry.attempt1.rawResponse": "05 : Do not honor",
                "retry.attempt2.rawResponse": "14 : Invalid card",
            }
        ),
        "payment.decline.network_code",
        "14",
    ),
    "adyen: evidence due": (
        adyen_dispute(defensePeriodEndsAt="2026-01-20T13:00:00+01:00"),
        "dispute.respond_by",
        DUE,
    ),
    "braintree: type of the decline": (
        braintree_with("<processor-response-type>hard_declined</processor-response-type>"),
        "payment.decline.provider_advice",
        "hard_declined",
    ),
    "braintree: network's id": (
        braintree_with("<network-transaction-id>020426</network-transaction-id>"),
        "payment.network_reference",
        "020426",
    ),
    "braintree: issuer": (
        braintree(("<last-4>", "<issuing-bank>ING</issuing-bank><last-4>")),
        "payment.method.card.issuer",
        "ING",
    ),
    "braintree: what a retry repeats": (
        braintree_with("<retried-transaction-id>bt_northwind_1</retried-transaction-id>"),
        "payment.payment_id",
        "bt_northwind_1",
    ),
    "braintree: evidence due": (
        told("braintree", delivery("braintree", BRAINTREE_DISPUTE).body),
        "dispute.respond_by",
        datetime(2026, 1, 20, tzinfo=UTC),
    ),
    "chargebee: a gateway that took no connection": (
        chargebee(
            content__transaction__status="timeout",
            content__transaction__error_code=None,
            content__transaction__error_detail=None,
            content__transaction__error_text=None,
        ),
        "payment.decline",
        DeclineFacts(raw_code="timeout", gateway="stripe", sent_to_network=False),
    ),
    "chargebee: details that are no text": (
        chargebee(content__card=None, content__transaction__payment_method_details={"card": {"last4": "1881"}}),
        "payment.method.card.last4",
        "1881",
    ),
    "chargebee: tries before the listed ones": (
        chargebee(content__invoice__linked_payments=None),
        "invoice.attempt_count",
        2,
    ),
    "chargebee: a card that expires": (
        chargebee("card_expiry_reminder", content__card__payment_source_id="pm_northwind_1"),
        "kind",
        EventKind.METHOD_UPDATED,
    ),
    "chargebee: a payment source that expires": (
        told("chargebee", load("chargebee", "payment_source_updated") | {"event_type": "payment_source_expiring"}),
        "method.card.exp_year",
        2030,
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_others(case: str) -> None:
    event, path, expected = OTHERS[case]
    assert found(event, path) == expected


@pytest.mark.parametrize(
    ("status", "instrument", "outcome"),
    [
        ("submitted_for_settlement", "credit_card", Outcome.SUCCEEDED),
        ("submitted_for_settlement", "us_bank_account", Outcome.AWAITING),
        ("settled", "us_bank_account", Outcome.SUCCEEDED),
        ("authorized", "credit_card", Outcome.AWAITING),
        ("settlement_failed", "credit_card", Outcome.DECLINED),
        ("voided", "credit_card", Outcome.ERRORED),
        ("unheard_of", "", None),
    ],
)
def test_braintree_webhooks_and_answers_read_a_status_alike(status: str, instrument: str, outcome: object) -> None:
    assert outcome_of(status, instrument) is outcome
