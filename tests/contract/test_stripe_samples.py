"""Collected Stripe payloads, read in place where they lie beside the checkout, never kept in this repository.

Each is understood, or left alone for the reason stated here.
"""

import json
from pathlib import Path

import pytest

from providers.base import EventKind, Ignored, InboundRequest, PaymentEvent
from providers.stripe.dialect import StripeDialect
from providers.stripe.reading import Node
from providers.stripe.results import refusal_result

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples" / "stripe"

INVOICES_TELL = "Its invoices send events of their own."

# File name without .json -> the kind it becomes, or the reason for which it is ignored.
EXPECTED: dict[str, EventKind | str] = {
    "charge.dispute.closed-4": EventKind.DISPUTE_UPDATED,
    "charge.dispute.created-2": EventKind.DISPUTE_UPDATED,
    "charge.dispute.created-3": EventKind.DISPUTE_UPDATED,
    "charge.dispute.created.basil": EventKind.DISPUTE_UPDATED,
    "charge.dispute.funds_reinstated": EventKind.DISPUTE_UPDATED,
    "charge.dispute.funds_withdrawn": EventKind.DISPUTE_UPDATED,
    "charge.dispute.updated": EventKind.DISPUTE_UPDATED,
    "charge.failed-2": EventKind.PAYMENT_FAILED,
    "charge.failed.blocked_radar": EventKind.PAYMENT_FAILED,
    "charge.failed.insufficient_funds": EventKind.PAYMENT_FAILED,
    "charge.failed.stolen_card": EventKind.PAYMENT_FAILED,
    "charge.refund.updated-4": EventKind.REFUND_UPDATED,
    "charge.refund.updated-5": EventKind.REFUND_UPDATED,
    "charge.refunded": EventKind.REFUND_UPDATED,
    "checkout.session.completed": "The payment behind the checkout sends events of its own.",
    "customer.source.deleted": EventKind.METHOD_REMOVED,
    "customer.source.updated": EventKind.METHOD_UPDATED,
    "customer.subscription.created": INVOICES_TELL,
    "customer.subscription.deleted-2": EventKind.SUBSCRIPTION_ENDED,
    "customer.subscription.updated": INVOICES_TELL,
    "customer.updated": "The customer's default payment method did not change.",
    "event_signature_fixture": "A customer without a failed payment needs nothing.",
    "invoice.finalized-2": EventKind.INVOICE_UPDATED,
    "invoice.marked_uncollectible.basil": EventKind.INVOICE_UNCOLLECTIBLE,
    "invoice.paid-2": EventKind.INVOICE_PAID,
    "invoice.payment_action_required": EventKind.INVOICE_FAILED,
    "invoice.payment_action_required.basil": EventKind.INVOICE_FAILED,
    "invoice.payment_failed": EventKind.INVOICE_FAILED,
    "invoice.payment_failed.basil_final_attempt": EventKind.INVOICE_FAILED,
    "invoice.payment_failed.basil_first_attempt": EventKind.INVOICE_FAILED,
    "invoice.upcoming": "A preview of an invoice that does not exist yet.",
    "invoice.updated": "A draft invoice is not owed yet; invoice.finalized will tell.",
    "invoice_payment.paid": EventKind.PAYMENT_LINKED,
    "mandate.updated": "The mandate can still be used.",
    "payment_intent.canceled": (
        "Cancelled on purpose: no money moves. A payment of ours that still waits is settled by reconciliation."
    ),
    "payment_intent.created": "Nothing was tried yet.",
    "payment_intent.payment_failed-5": EventKind.PAYMENT_FAILED,
    "payment_intent.payment_failed.authentication_required": EventKind.PAYMENT_FAILED,
    "payment_intent.payment_failed.do_not_honor": EventKind.PAYMENT_FAILED,
    "payment_intent.payment_failed.insufficient_funds": EventKind.PAYMENT_FAILED,
    "payment_intent.payment_failed.lost_card": EventKind.PAYMENT_FAILED,
    "payment_intent.payment_failed.processing_error": EventKind.PAYMENT_FAILED,
    "payment_intent.payment_failed.revocation_of_authorization": EventKind.PAYMENT_FAILED,
    "payment_intent.succeeded": EventKind.PAYMENT_SUCCEEDED,
    "payment_method.attached-2": EventKind.METHOD_UPDATED,
    "payment_method.automatically_updated": EventKind.METHOD_UPDATED,
    "payment_method.automatically_updated.expiry_only": EventKind.METHOD_UPDATED,
    "radar.early_fraud_warning.created": (
        "A warning moves no money and names no amount; a dispute may follow and is handled then."
    ),
    "refund.failed": EventKind.REFUND_UPDATED,
    "setup_intent.setup_failed": "Storing a payment method failed; no payment was tried.",
    "setup_intent.succeeded-4": "payment_method.attached tells of the new payment method.",
}
# Decline code by file name, of the payloads that carry one; "" where Stripe sent none.
CODES = {
    "charge.failed-2": "",
    "charge.failed.blocked_radar": "fraudulent",
    "charge.failed.insufficient_funds": "insufficient_funds",
    "charge.failed.stolen_card": "stolen_card",
    "payment_intent.payment_failed-5": "generic_decline",
    "payment_intent.payment_failed.authentication_required": "authentication_required",
    "payment_intent.payment_failed.do_not_honor": "do_not_honor",
    "payment_intent.payment_failed.insufficient_funds": "insufficient_funds",
    "payment_intent.payment_failed.lost_card": "lost_card",
    "payment_intent.payment_failed.processing_error": "processing_error",
    "payment_intent.payment_failed.revocation_of_authorization": "revocation_of_authorization",
}
# Error bodies of the API, which are no webhooks: the code that a client would report.
API_ERRORS = {
    "api.charge.error_call_issuer": "call_issuer",
    "api.charge.error_pickup_card": "pickup_card",
    "api.payment_intent.error_invalid_amount": "invalid_amount",
    "api.payment_intent.error_expired_card": "expired_card",
    "api.payment_intent.error_lost_card": "lost_card",
    "api.payment_intent.error_revocation_of_all_authorizations": "revocation_of_all_authorizations",
}

FOUND = sorted(
    path.name.removesuffix(".json") for path in SAMPLES.glob("*.json") if not path.name.endswith(".headers.json")
)

pytestmark = pytest.mark.skipif(not FOUND, reason="the collected Stripe payloads are not beside this checkout")


def _parsed(name: str) -> PaymentEvent | Ignored:
    dialect = StripeDialect()
    (item,) = dialect.split(InboundRequest((SAMPLES / f"{name}.json").read_bytes(), {}))
    return dialect.parse(item)


def test_every_file_has_an_expectation() -> None:
    assert set(FOUND) == EXPECTED.keys() | API_ERRORS.keys()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_it_becomes_what_is_expected(name: str) -> None:
    meaning = _parsed(name)
    assert (meaning.reason if isinstance(meaning, Ignored) else meaning.kind) == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(CODES))
def test_it_carries_the_decline_code(name: str) -> None:
    meaning = _parsed(name)
    assert isinstance(meaning, PaymentEvent)
    assert meaning.payment is not None
    assert meaning.payment.decline is not None
    assert meaning.payment.decline.raw_code == CODES[name]


@pytest.mark.parametrize("name", sorted(API_ERRORS))
def test_the_client_reads_error_bodies_the_same_way(name: str) -> None:
    body = json.loads((SAMPLES / f"{name}.json").read_bytes())["error"]
    result = refusal_result(Node(body, "error"), {})
    assert result.decline is not None
    assert result.decline.raw_code == API_ERRORS[name]
