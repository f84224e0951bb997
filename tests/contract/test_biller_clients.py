"""The second contract, for billing systems: their invoices, their own collection, and payments made elsewhere."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from providers.base import ProviderUnavailable, ProviderUncertain
from providers.billing import BillerClient, CollectionStays, KnowsEnds, NoteOutcome, PaymentNote, RefundNote
from tests.contract.wire import chargebee, recurly, stripe
from tests.contract.wire.server import Imitation

Biller = stripe.Stripe | chargebee.Chargebee | recurly.Recurly
BILLERS = [
    (stripe.Stripe, stripe.INVOICE),
    (chargebee.Chargebee, chargebee.INVOICE),
    (recurly.Recurly, recurly.INVOICE),
]
PAID_AT = datetime(2026, 3, 1, 9, tzinfo=UTC)


@pytest.fixture(scope="module", params=BILLERS, ids=[one[0].provider for one in BILLERS])
def running(request: pytest.FixtureRequest) -> Iterator[tuple[Imitation, str]]:
    imitation, invoice = request.param
    with imitation() as server:
        yield server, invoice


@pytest.fixture
def wire(running: tuple[Imitation, str]) -> Imitation:
    running[0].reset()
    return running[0]


@pytest.fixture
def invoice(running: tuple[Imitation, str]) -> str:
    return running[1]


def biller(wire: Imitation, **more: Any) -> BillerClient:
    return cast(BillerClient, wire.client(**more))


def payment_note(invoice: str, key: str = "note-1", **changes: Any) -> PaymentNote:
    note = PaymentNote(
        invoice_id=invoice,
        amount_minor=4900,
        currency="EUR",
        reference="att_01",
        paid_at=PAID_AT,
        paid_with="Adyen",
        payment_id="psp_1",
        settles=True,
        idempotency_key=key,
    )
    return replace(note, **changes)


def refund_note(invoice: str, record_id: str, key: str = "note-2") -> RefundNote:
    return RefundNote(
        invoice_id=invoice,
        amount_minor=900,
        currency="EUR",
        reference="att_02",
        refunded_at=PAID_AT,
        refunded_with="Adyen",
        refund_id="psp_2",
        record_id=record_id,
        reason="",
        idempotency_key=key,
    )


def test_an_end_that_nothing_proves_can_be_asked_about() -> None:
    for imitation, name, states in (
        (chargebee.Chargebee, "sub_1", {"active": False, "non_renewing": False, "cancelled": True}),
        (recurly.Recurly, "uuid-sub_1", {"active": False, "paused": False, "canceled": True, "expired": True}),
    ):
        with imitation() as wire:
            assert isinstance(wire, chargebee.Chargebee | recurly.Recurly)
            client = biller(wire)
            assert isinstance(client, KnowsEnds)
            assert client.subscription_over("sub_1"), "what is not there is over"
            for state, over in states.items():
                wire.subscriptions = {name: state}
                assert client.subscription_over("sub_1") is over, state


def test_a_payment_method_is_gone_once_chargebee_says_so() -> None:
    with chargebee.Chargebee() as wire:
        assert isinstance(wire, chargebee.Chargebee)
        client = biller(wire)
        assert isinstance(client, KnowsEnds)
        assert client.method_gone("pm_1"), "forgotten"
        wire.sources = {"pm_1": "cus_1/pm_1"}
        assert not client.method_gone("pm_1")
        wire.deleted = {"pm_1"}
        assert client.method_gone("pm_1")


def test_an_invoice_is_read_fresh(wire: Imitation, invoice: str) -> None:
    facts = biller(wire).invoice_get(invoice)
    assert facts is not None
    assert (facts.id, facts.amount_minor, facts.paid_minor, facts.currency) == (invoice, 4900, 0, "EUR")
    assert facts.status in ("open", "")
    assert biller(wire).invoice_get("in_nobodys_at_all") is None


def test_its_own_collection_is_stopped_or_it_says_that_it_is_not(wire: Imitation, invoice: str) -> None:
    client = biller(wire)
    answer = client.stop_collection(invoice)
    assert (
        answer
        == {
            "stripe": "auto_advance=false, status=open, next_payment_attempt=none",
            "chargebee": "dunning_status=stopped, status=payment_due",
            "recurly": "collection_method=manual: Recurly collects nothing itself",
        }[wire.provider]
    )
    assert client.stop_collection(invoice) == answer


def test_a_biller_that_will_not_stop_is_believed() -> None:
    with chargebee.Chargebee() as wire:
        assert isinstance(wire, chargebee.Chargebee)
        wire.stops = False
        with pytest.raises(CollectionStays, match="still collects"):
            biller(wire).stop_collection(chargebee.INVOICE)
    with recurly.Recurly() as wire:
        assert isinstance(wire, recurly.Recurly)
        wire.collection_method = "automatic"
        with pytest.raises(CollectionStays, match="cannot stop that"):
            biller(wire, automatic_retries="on").stop_collection(recurly.INVOICE)
        said = biller(wire).stop_collection(recurly.INVOICE)
        assert said == "collection_method=automatic, automatic_retries=off by the connection's settings"


def test_a_payment_is_written_down_once_whatever_the_key(wire: Imitation, invoice: str) -> None:
    client = biller(wire)
    first = client.payment_note(payment_note(invoice))
    assert (first.outcome, bool(first.record_id)) == (NoteOutcome.WRITTEN, True)
    written = len(wire.seen)
    again = client.payment_note(payment_note(invoice, key="another key"))
    assert (again.outcome, again.record_id) == (NoteOutcome.KNOWN, first.record_id)
    assert [seen.method for seen in wire.seen[written:]] == ["GET"], "read before writing, and then not written"


@pytest.mark.parametrize("step", ["500_before", "500_after"])
def test_a_note_whose_answer_got_lost_is_written_once(wire: Imitation, invoice: str, step: str) -> None:
    client = biller(wire)
    wire.steps = [step]
    with pytest.raises(ProviderUncertain):
        client.payment_note(payment_note(invoice))
    assert client.payment_note(payment_note(invoice)).outcome in (
        NoteOutcome.WRITTEN,
        NoteOutcome.KNOWN,
    )
    assert wire.moved() <= 1
    assert client.payment_note(payment_note(invoice)).outcome is NoteOutcome.KNOWN


def test_a_refund_is_written_down_once(wire: Imitation, invoice: str) -> None:
    client = biller(wire)
    paid = client.payment_note(payment_note(invoice)).record_id
    first = client.refund_note(refund_note(invoice, paid))
    assert (first.outcome, bool(first.record_id)) == (NoteOutcome.WRITTEN, True)
    again = client.refund_note(refund_note(invoice, paid, key="another key"))
    assert again.outcome is NoteOutcome.KNOWN


def test_what_the_biller_will_not_have_is_refused_with_its_reason(wire: Imitation, invoice: str) -> None:
    client = biller(wire)
    unknown = client.payment_note(payment_note("in_nobodys_at_all"))
    assert unknown.outcome is NoteOutcome.REFUSED
    assert wire.provider.capitalize() in unknown.why
    for name, value in (("invoice_status", "void"), ("state", "failed")):
        if hasattr(wire, name):
            setattr(wire, name, value)
    closed = client.payment_note(payment_note(invoice))
    assert (closed.outcome, wire.moved()) == (NoteOutcome.REFUSED, 0)


def test_stripe_is_told_once_the_whole_invoice_is_paid() -> None:
    with stripe.Stripe() as wire:
        part = biller(wire).payment_note(payment_note(stripe.INVOICE, settles=False))
        assert part.outcome is NoteOutcome.LATER
        assert [seen.method for seen in wire.seen] == ["GET"]


def test_recurly_takes_notes_for_manual_invoices_only() -> None:
    with recurly.Recurly() as wire:
        assert isinstance(wire, recurly.Recurly)
        wire.collection_method = "automatic"
        refused = biller(wire).payment_note(payment_note(recurly.INVOICE))
        assert (refused.outcome, wire.moved()) == (NoteOutcome.REFUSED, 0)
        assert "manual invoices only" in refused.why


def test_trouble_while_reading_is_no_refusal(wire: Imitation, invoice: str) -> None:
    client = biller(wire)
    wire.reads_fail = True
    for note in (lambda: client.payment_note(payment_note(invoice)), lambda: client.invoice_get(invoice)):
        with pytest.raises(ProviderUnavailable):
            note()
