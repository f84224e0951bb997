"""Collected Stripe payloads, read in place beside the checkout: delivered signed, none of them ends as an error."""

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from invoices.models import Dispute
from tests.support.sizes import LONG, MARKS
from tests.webhooks.conftest import NewDoor
from tests.webhooks.door import Body, Door, encoded, faults, ledger, rows, tokens
from tests.webhooks.renewal import OLD, Renewal
from webhooks.models import InboxEvent
from webhooks.states import InboxStatus

SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples" / "stripe"
# The others are answers of the API, not webhooks.
FILES = sorted(path for path in SAMPLES.glob("*.json") if not path.name.startswith("api."))
NOW = datetime(2026, 2, 1, tzinfo=UTC)
SHUFFLES = 25 if LONG else 2

pytestmark = [
    pytest.mark.django_db,
    *MARKS,
    pytest.mark.skipif(not FILES, reason="the collected Stripe payloads are not beside this checkout"),
]


@dataclass(frozen=True, slots=True)
class Ignored:
    """Understood, and nothing to do, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Waits:
    """For its payment, or for the two that it joins."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the ledger has after it: at most one invoice with at most one attempt, one case and one job; one token.

    `attempt` is (charge, payment intent, code, category), `case` (status, next step), `job` the token booked, `token`
    (id, status, last four, expiry year).
    """

    invoice: str | None = None
    status: str = ""
    amount: tuple[int, str] | None = None
    attempt: tuple[str | None, str, str, str] | None = None
    case: tuple[str, str] | None = None
    job: str = ""
    token: tuple[str, str, str, int] | None = None


NO_CUSTOMER = Ignored("The payment names no customer, so nobody could be asked or charged again.")
INVOICES_TELL = Ignored("Its invoices send events of their own.")
DISPUTE_WAITS = Waits("The disputed payment is not known yet.")
REFUND_WAITS = Waits("The refunded payment is not known yet.")
ZEROS = "000000000000000000000000"


def declined(number: str, minor: int, code: str, category: str, step: str, last4: str, **more: Any) -> Books:
    """One of the synthetic declines: a payment of its own, told by one event."""
    gone = category in ("HARD_DECLINE", "FRAUD_FLAGGED")
    token = f"pm_Syn{number}"
    return Books(
        **{
            "status": "PROCESSING" if step == "booked" else "PROCESS_FAILED",
            "amount": (minor, "USD"),
            "attempt": (f"ch_Syn{number}", f"pi_Syn{number}", code, category),
            "case": ("OPEN", step),
            "job": token if step == "booked" else "",
            "token": (token, "declined" if gone else "live", last4, 2027),
            **more,
        }
    )


def failed(invoice: str, amount: int, attempt: tuple[str | None, str, str, str]) -> Books:
    """A failed invoice without a payment method: only its customer can help."""
    return Books(
        invoice=invoice, status="PROCESS_FAILED", amount=(amount, "USD"), attempt=attempt, case=("OPEN", "customer")
    )


EXPECTED: dict[str, Ignored | Waits | Books] = {
    "charge.dispute.closed-4": DISPUTE_WAITS,
    "charge.dispute.created-2": DISPUTE_WAITS,
    "charge.dispute.created-3": DISPUTE_WAITS,
    "charge.dispute.created.basil": DISPUTE_WAITS,
    "charge.dispute.funds_reinstated": DISPUTE_WAITS,
    "charge.dispute.funds_withdrawn": DISPUTE_WAITS,
    "charge.dispute.updated": DISPUTE_WAITS,
    "charge.failed-2": NO_CUSTOMER,
    "charge.failed.blocked_radar": declined(
        "0103", 12900, "fraudulent", "FRAUD_FLAGGED", "none", "0019", case=("LOST", "none")
    ),
    "charge.failed.insufficient_funds": declined(
        "0101", 4900, "insufficient_funds", "INSUFFICIENT_FUNDS", "booked", "9995"
    ),
    "charge.failed.stolen_card": declined(
        "0102", 12900, "stolen_card", "HARD_DECLINE", "customer", "9979", amount=(12900, "EUR")
    ),
    "charge.refund.updated-4": REFUND_WAITS,
    "charge.refund.updated-5": REFUND_WAITS,
    "charge.refunded": REFUND_WAITS,
    "checkout.session.completed": Ignored("The payment behind the checkout sends events of its own."),
    "customer.source.deleted": Ignored("This ledger does not know the payment method."),
    "customer.source.updated": Books(token=(f"card_{ZEROS}", "live", "4242", 2023)),
    "customer.subscription.created": INVOICES_TELL,
    "customer.subscription.deleted-2": Ignored("This ledger knows no open invoice of the subscription."),
    "customer.subscription.updated": INVOICES_TELL,
    "customer.updated": Ignored("The customer's default payment method did not change."),
    "event_signature_fixture": Ignored("A customer without a failed payment needs nothing."),
    "invoice.finalized-2": Ignored("Nothing has failed on this invoice yet."),
    "invoice.marked_uncollectible.basil": Books(invoice="in_Syn0003", status="CANCELED", amount=(4900, "USD")),
    "invoice.paid-2": Books(invoice="in_1MhUT5E0b6fckueSfPlY05Fw", status="SETTLED", amount=(0, "USD")),
    "invoice.payment_action_required.basil": failed(
        "in_Syn0002", 4900, (None, "", "authentication_required", "AUTHENTICATION_REQUIRED")
    ),
    "invoice.payment_action_required": failed(
        f"in_{ZEROS}", 2000, (f"ch_{ZEROS}", f"pi_{ZEROS}", "authentication_required", "AUTHENTICATION_REQUIRED")
    ),
    "invoice.payment_failed.basil_final_attempt": failed("in_Syn0001", 4900, (None, "", "", "SOFT_DECLINE")),
    "invoice.payment_failed.basil_first_attempt": failed("in_Syn0001", 4900, (None, "", "", "SOFT_DECLINE")),
    "invoice.payment_failed": failed(f"in_{ZEROS}", 2000, (f"ch_{ZEROS}", f"pi_{ZEROS}", "", "SOFT_DECLINE")),
    "invoice.upcoming": Ignored("A preview of an invoice that does not exist yet."),
    "invoice.updated": Ignored("A draft invoice is not owed yet; invoice.finalized will tell."),
    "invoice_payment.paid": Waits("Neither the invoice nor the payment is known yet."),
    "mandate.updated": Ignored("The mandate can still be used."),
    "payment_intent.canceled": Ignored(
        "Cancelled on purpose: no money moves. A payment of ours that still waits is settled by reconciliation."
    ),
    "payment_intent.created": Ignored("Nothing was tried yet."),
    "payment_intent.payment_failed-5": NO_CUSTOMER,
    "payment_intent.payment_failed.authentication_required": declined(
        "0006", 4906, "authentication_required", "AUTHENTICATION_REQUIRED", "customer", "3184"
    ),
    "payment_intent.payment_failed.do_not_honor": declined(
        "0004", 4904, "do_not_honor", "SOFT_DECLINE", "booked", "0002"
    ),
    "payment_intent.payment_failed.insufficient_funds": declined(
        "0001", 4901, "insufficient_funds", "INSUFFICIENT_FUNDS", "booked", "9995"
    ),
    "payment_intent.payment_failed.lost_card": declined("0003", 4903, "lost_card", "HARD_DECLINE", "customer", "9987"),
    "payment_intent.payment_failed.processing_error": declined(
        "0007", 4907, "processing_error", "NETWORK_ERROR", "booked", "0119"
    ),
    "payment_intent.payment_failed.revocation_of_authorization": declined(
        "0005", 4905, "revocation_of_authorization", "HARD_DECLINE", "customer", "0341"
    ),
    "payment_intent.succeeded": NO_CUSTOMER,
    "payment_method.attached-2": Books(token=("pm_1MhUT1E0b6fckueSV6KgiBFn", "live", "4242", 2023)),
    "payment_method.automatically_updated": Books(token=("pm_Syn0101", "live", "4444", 2030)),
    "payment_method.automatically_updated.expiry_only": Books(token=("pm_Syn0102", "live", "9979", 2031)),
    "radar.early_fraud_warning.created": Ignored(
        "A warning moves no money and names no amount; a dispute may follow and is handled then."
    ),
    "refund.failed": REFUND_WAITS,
    "setup_intent.setup_failed": Ignored("Storing a payment method failed; no payment was tried."),
    "setup_intent.succeeded-4": Ignored("payment_method.attached tells of the new payment method."),
}
# Samples made by hand share ids that mean nothing (evt_000...), so several in one inbox need ids of their own.
WAITING = sorted(name for name, end in EXPECTED.items() if isinstance(end, Waits))


def sample(name: str) -> Body:
    event: Body = json.loads((SAMPLES / f"{name}.json").read_bytes())
    return event | {"id": f"evt_of_{name}"}


def due_now() -> None:
    InboxEvent.objects.filter(status=InboxStatus.RECEIVED).update(due_at=datetime(2020, 1, 1, tzinfo=UTC))


def test_every_file_has_an_expectation() -> None:
    assert {path.stem for path in FILES} == EXPECTED.keys()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_sample_is_accepted_and_ends_as_stated(door: Door, name: str) -> None:
    body, expected = (SAMPLES / f"{name}.json").read_bytes(), EXPECTED[name]
    assert door.post(body).json() == {"received": True, "new": 1}
    counts = door.drain(NOW)
    ((_, status, reason),) = door.inbox()
    if isinstance(expected, Books):
        assert (status, reason) == ("PROCESSED", "")
        assert books(door) == expected
    else:
        assert (status, reason) == ("IGNORED" if isinstance(expected, Ignored) else "RECEIVED", expected.reason)
        assert (ledger(door.merchant), tokens(door.merchant)) == ([], [])
    assert counts.failed == 0
    assert faults(door.merchant) == []

    before = rows()
    assert door.post(body).json() == {"received": True, "new": 0}
    due_now()
    door.drain(NOW)
    assert (rows(), door.inbox()[0][1:]) == (before, (status, reason)), "told twice, known once"


def books(door: Door) -> Books:
    """The ledger in the words of the table."""
    invoices, known = ledger(door.merchant), tokens(door.merchant)
    found: dict[str, Any] = {}
    if known:
        ((token, state, _, last4, year),) = known
        found["token"] = (token, state, last4, year)
    if invoices:
        (one,) = invoices
        found |= {"invoice": one["invoice"], "status": one["status"], "amount": one["amount"]}
        if one["attempts"]:
            ((kind, state, charge, intent, amount, code, category, token),) = one["attempts"]
            assert (kind, state, amount) == ("CHARGE", "DECLINED", one["amount"][0])
            assert token == (found["token"][0] if known else None)
            found["attempt"] = (charge, intent, code, category)
        if one["cases"]:
            found["case"] = (one["cases"][-1][0], one["cases"][-1][10])
        if one["jobs"]:
            ((state, token, trigger),) = one["jobs"]
            assert (state, trigger) == ("SCHEDULED", "automatic")
            found["job"] = token
    return Books(**found)


@pytest.mark.parametrize("name", [name for name in WAITING if name != "invoice_payment.paid"])
def test_what_waits_goes_on_when_its_payment_comes(door: Door, name: str) -> None:
    told = sample(name)
    about = told["data"]["object"]
    charge = about["id"] if told["type"] == "charge.refunded" else about["charge"]
    charge = charge["id"] if isinstance(charge, dict) else charge
    money = {
        "id": charge,
        "currency": about["currency"],
        "invoice": None,
        "payment_intent": about.get("payment_intent"),
    }
    amount = max(about["amount"], about.get("amount_refunded") or 0)
    payment = Renewal(OLD).charge_succeeded()
    payment["data"]["object"] |= money | {"amount": amount, "amount_captured": amount}
    door.deliver(told, payment)
    assert door.drain(NOW).as_dict() == {"processed": 2, "failed": 0, "ignored": 0}
    (invoice,) = ledger(door.merchant)
    if ".dispute." in told["type"]:
        (dispute,) = Dispute.objects.filter(merchant=door.merchant)
        assert dispute.status == ("WON" if about["status"] == "won" else "OPEN")
        assert (invoice["status"], invoice["disputes"]) == (
            "SETTLED",
            [(dispute.provider_id, "DISPUTE", dispute.status)],
        )
    else:
        ((_, state, refund, *_),) = [attempt for attempt in invoice["attempts"] if attempt[0] == "REFUND"]
        succeeded = about["status"] == "succeeded"
        assert state == ("SUCCEEDED" if succeeded else "DECLINED")
        assert refund.startswith("re_")
        assert invoice["refunded"] == (about["amount_refunded"] if succeeded else 0)
    assert faults(door.merchant) == []


@pytest.mark.parametrize("seed", range(SHUFFLES))
def test_all_of_them_in_any_order_into_one_ledger_break_nothing(door: Door, seed: int) -> None:
    names = sorted(EXPECTED)
    random.Random(seed).shuffle(names)
    for name in names:
        assert door.post(encoded(sample(name))).status_code == 200
    assert door.drain(NOW).failed == 0
    due_now()
    assert door.drain(NOW).failed == 0
    assert not InboxEvent.objects.filter(attempts__gt=0).exists()
    waiting = InboxEvent.objects.filter(status=InboxStatus.RECEIVED)
    waits = {name: end.reason for name, end in EXPECTED.items() if isinstance(end, Waits)}
    for event in waiting:
        assert event.reason == waits[event.provider_event_id.removeprefix("evt_of_")]
    assert faults(door.merchant) == []

    before = (rows(), door.inbox(), ledger(door.merchant))
    for name in names:
        assert door.post(encoded(sample(name))).json() == {"received": True, "new": 0}
    due_now()
    door.drain(NOW)
    assert (rows(), door.inbox(), ledger(door.merchant)) == before, "all told again, nothing new"


TOGETHER = {
    "a trial begins": ["payment_method.attached-2", "invoice.finalized-2", "invoice.paid-2"],
    "two tries of one invoice": [
        "invoice.payment_failed.basil_first_attempt",
        "invoice.payment_failed.basil_final_attempt",
        "invoice_payment.paid",
    ],
}


@pytest.mark.parametrize("story", TOGETHER)
def test_samples_that_belong_together_end_alike_in_every_order(new_door: NewDoor, story: str) -> None:
    expected = None
    for names in permutations(TOGETHER[story]):
        door = new_door()
        for name in names:
            door.deliver(sample(name))
            door.drain(NOW)
        due_now()
        door.drain(NOW)
        found = (ledger(door.merchant), tokens(door.merchant))
        expected = expected or found
        assert found == expected, names
        assert faults(door.merchant) == []
