"""Rare orders of events, answers and sweeps, each of which once broke a promise."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.db.models import F

from invoices.models import Attempt, Connection, Customer, Invoice, ReviewItem, Transaction
from invoices.selectors.parties import connection_client
from invoices.services.billing import invoice_create
from invoices.services.parties import customer_lock
from providers.base import (
    ChargeResult,
    CustomerFacts,
    DeclineFacts,
    DisputeFacts,
    DisputeStatus,
    EventKind,
    InvoiceFacts,
    Outcome,
    PaymentFacts,
    ProviderUncertain,
    RefundFacts,
    RefundStatus,
)
from retries.engine.claim import jobs_claim
from retries.handler import EventWaits
from retries.reconciliation import reconcile, resolution, scan
from retries.refunding import refund_request
from retries.refunding.send import PreparedRefund, refund_answer, refund_prepare
from retries.services.manual import charge_first
from tests.console.world import NOW, World, method
from tests.support.sandbox import Sandbox, sandbox_running
from tests.support.shop import Shop
from tests.support.stripe import BASIL

pytestmark = pytest.mark.django_db(transaction=True)
ANN = CustomerFacts(id="cus_ann")
LEASE = timedelta(minutes=5)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A provider of the test's own: the reverse scan reads everything that its server has ever charged."""
    with sandbox_running(tmp_path) as running:
        yield running


@pytest.fixture
def shop(new_shop: Callable[..., Shop]) -> Shop:
    return new_shop(timeout_seconds=0.4)


def test_an_attempt_is_not_called_absent_while_it_is_being_sent_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sweeps at once, half a key's life after the sending: one has looked it up, then the other, whose tick began a
    second earlier, sends it again, and that answer is lost."""
    bill = shop.failed_bill()
    shop.sandbox.script(bill.token, "timeout_before", "timeout_after_charge", "ok")
    assert shop.retry(bill).unknown == 1
    shop.expire_leases()
    attempt = shop.attempt(bill)
    late = attempt.attempted_at + connection_client(attempt.connection).traits.key_ttl / 2
    shop.wait_until(late)
    look_up, sent = resolution._look_up, []

    def overtaken(client: Any, looked_at: Attempt) -> Any:
        found = look_up(client, looked_at)
        if not sent:
            sent.append(resolution.Resolved.RESENT)
            assert resolution.attempt_resolve_unknown(attempt.pk, now=late - timedelta(seconds=1)) == sent[0]
        return found

    monkeypatch.setattr(resolution, "_look_up", overtaken)
    resolution.attempt_resolve_unknown(attempt.pk, now=late)
    monkeypatch.undo()
    shop.wait(days=2)
    shop.drain()
    shop.expire_leases()
    shop.reconcile()
    assert shop.charged(bill) == 2500


def returned(world: World) -> Invoice:
    """Paid, and ten minutes later the bank took the money back."""
    invoice = world.fail()
    world.wait(minutes=1)
    invoice = world.pay(invoice, charge="ch_paid")
    world.wait(minutes=10)
    facts = DisputeFacts(
        id="dp_1",
        amount_minor=4_990,
        currency="USD",
        status=DisputeStatus.LOST,
        charge_id="ch_paid",
        reason_code="R01",
        is_return=True,
    )
    world.dispute("ch_paid", facts)
    assert world.again(invoice).due_minor == 4_990
    return world.again(invoice)


@pytest.mark.parametrize("kind", [EventKind.INVOICE_PAID, EventKind.INVOICE_UPDATED])
def test_a_second_payment_soon_after_one_that_was_returned_is_not_charged_again(kind: EventKind) -> None:
    world = World(at=NOW)
    invoice = returned(world)
    world.wait(minutes=20)
    facts = InvoiceFacts(id=invoice.provider_invoice_id or "", amount_minor=4_990, currency="USD", status="paid")
    world.tell(kind, customer=ANN, invoice=facts)
    assert world.send() == [], "the biller has just said that it is paid"


def test_the_paid_status_of_a_disputed_payment_is_no_new_payment(shop: Shop) -> None:
    """Stripe's invoice stays `paid` after its payment was lost; any later change of it tells that status again."""
    bill = shop.failed_bill(version=BASIL)
    paid = bill.attempt(shop.wait(hours=1))
    shop.tell(*paid.succeeded())
    shop.tell(paid.dispute("lost", shop.wait(days=2)))
    assert shop.invoice(bill).due_minor == 2500
    shop.tell(bill.updated(shop.wait(days=1), status="paid", paid=2500, number="N-new"))
    assert (shop.invoice(bill).paid_minor, shop.invoice(bill).due_minor) == (0, 2500)


def test_an_invoice_that_changes_its_currency_is_not_paid_by_what_came_in_the_old_one() -> None:
    world = World(at=NOW)
    invoice = world.pay(world.fail(amount=5_000), amount=3_000)
    world.wait(hours=2)
    facts = InvoiceFacts(id=invoice.provider_invoice_id or "", amount_minor=3_000, currency="EUR")
    world.tell(EventKind.INVOICE_UPDATED, customer=ANN, invoice=facts)
    invoice = world.again(invoice)
    assert (invoice.status, invoice.paid_minor, invoice.due_minor) == ("PROCESSING", 0, 3_000)


def test_a_late_success_is_not_booked_on_a_charge_in_another_currency() -> None:
    world = World(at=NOW)
    invoice = world.pay(world.fail(amount=5_000, charge="ch_1"), amount=3_000, charge="ch_2")
    world.wait(hours=2)
    facts = InvoiceFacts(id=invoice.provider_invoice_id or "", amount_minor=8_000, currency="EUR")
    world.tell(EventKind.INVOICE_UPDATED, customer=ANN, invoice=facts)
    world.wait(hours=2)
    world.pay(invoice, amount=5_000, currency="USD", charge="ch_1")
    assert not Attempt.objects.exclude(currency=F("transaction__currency")).exists()
    assert world.again(invoice).paid_minor == 0, "no EUR came in"


def test_a_stop_that_names_no_code_reaches_the_card_that_is_told_later() -> None:
    world = World(at=NOW)
    facts: dict[str, Any] = {"charge_id": "ch_1", "amount_minor": 4_990, "currency": "USD", "invoice_id": "in_1"}
    stop = DeclineFacts(network_code="79", advice_code="03")
    world.tell(EventKind.PAYMENT_FAILED, customer=ANN, payment=PaymentFacts(**facts, decline=stop))
    card = method("tok_mc", network="mastercard")
    world.tell(EventKind.PAYMENT_FAILED, customer=ANN, payment=PaymentFacts(**facts, decline=stop, method=card))
    world.fail(token="tok_mc", network="mastercard", code="insufficient_funds")
    world.wait(days=2)
    assert world.send() == [], "Mastercard said never to try this card again"


def first_charge(world: World) -> Invoice:
    """An invoice that was opened and is to be charged for the first time, as by POST /payments/process."""
    world.tell(EventKind.METHOD_UPDATED, customer=ANN, method=method("tok_ok"))
    with transaction.atomic():
        customer = customer_lock(Customer.objects.get().pk)
        facts = InvoiceFacts(id="in_first", amount_minor=4_990, currency="USD", issued_at=world.at)
        invoice = invoice_create(customer=customer, facts=facts, provider_invoice_id="in_first", stamp=world.stamp())
    charge_first(invoice_pk=invoice.pk, stamp=world.stamp())
    return invoice


def test_a_first_charge_goes_with_the_amount_that_is_due_by_then() -> None:
    world = World(at=NOW)
    first_charge(world)
    facts = InvoiceFacts(id="in_first", amount_minor=3_990, currency="USD")
    world.tell(EventKind.INVOICE_UPDATED, customer=ANN, invoice=facts)
    world.send()
    world.wait(minutes=5)
    reconcile(now=world.at, drain=True)
    world.send()
    assert list(Attempt.objects.values_list("status", "amount_minor")) == [("SENDING", 3_990)]


def test_a_first_charge_that_is_refused_does_not_vanish() -> None:
    world = World(at=NOW)
    invoice = first_charge(world)
    world.fail(code="stolen_card")
    world.send()
    reconcile(now=world.at, drain=True)
    assert invoice.cases.exists() or ReviewItem.objects.filter(invoice=invoice).exists(), (
        "its job is DONE, its invoice INIT for good"
    )


@pytest.mark.parametrize("lost", [False, True])
def test_a_refund_that_is_told_without_our_reference_while_it_is_sent_is_one_refund(lost: bool) -> None:
    """Recurly's and Paddle's refunds name no reference of ours; the answer to ours may be late or lost."""
    world = World(at=NOW)
    invoice = world.pay(world.fail(), charge="ch_paid")
    refund_request(invoice_pk=invoice.pk, amount_minor=1_000, reason="asked", stamp=world.stamp("user:ann"))
    (claim,) = jobs_claim(now=world.at, lease=LEASE, limit=10)
    prepared = refund_prepare(claim, now=world.at, lease=LEASE, timeout=timedelta(seconds=5))
    assert isinstance(prepared, PreparedRefund)
    told = RefundFacts(
        id="re_1", amount_minor=1_000, currency="USD", status=RefundStatus.SUCCEEDED, charge_id="ch_paid"
    )
    if lost:
        refund_answer(prepared.attempt_pk, ProviderUncertain("no answer"), now=world.at, cause="job")
    with suppress(EventWaits):
        world.refund(told)
    answer = ChargeResult(outcome=Outcome.SUCCEEDED, provider_id="re_1", reference=prepared.request.reference)
    refund_answer(prepared.attempt_pk, answer, now=world.at, cause="job")
    world.refund(told)
    assert list(Transaction.objects.filter(kind="REFUND").values_list("status", "amount_minor")) == [("DONE", 1_000)]
    assert world.again(invoice).status == "SETTLED"


def test_a_payment_dated_in_the_future_does_not_end_the_reverse_scan(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = ChargeResult(
        outcome=Outcome.SUCCEEDED,
        provider_id="ch_ahead",
        customer="cus_ahead",
        amount_minor=100,
        currency="USD",
        created_at=shop.at + timedelta(days=400),
    )
    Connection.objects.filter(pk=shop.connection.pk).update(scanned_until=shop.at - timedelta(days=1))
    client = connection_client(shop.connection)
    monkeypatch.setattr(type(client), "charges_list", lambda self, after: iter([ahead]))
    scan.connection_scan(shop.connection.pk, now=shop.at)
    until = Connection.objects.get(pk=shop.connection.pk).scanned_until
    assert until is not None
    assert until <= shop.at
