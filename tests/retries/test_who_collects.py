"""Two engines never work one invoice: who collects a billing system's invoices, and what the system is asked first."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from invoices.models import Connection
from invoices.services.parties import connection_create
from providers.base import EventKind
from recovery_site.common.errors import InvalidInput
from tests.contract.wire import chargebee, recurly, stripe
from tests.contract.wire.chargebee import Chargebee
from tests.contract.wire.hyperswitch import Hyperswitch
from tests.contract.wire.recurly import Recurly
from tests.contract.wire.stripe import Stripe
from tests.support.biller import BillerShop

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def chargebee_running() -> Iterator[Chargebee]:
    with Chargebee() as server:
        assert isinstance(server, Chargebee)
        yield server


@pytest.fixture
def biller(chargebee_running: Chargebee) -> Chargebee:
    chargebee_running.reset()
    return chargebee_running


def test_chargebee_collects_its_invoice_when_told_to(biller: Chargebee) -> None:
    shop = BillerShop(biller, chargebee.INVOICE)
    shop.failed()
    assert shop.retry().succeeded == 1
    invoice, attempt = shop.invoice(), shop.ours()
    assert (invoice.status, shop.case().status, biller.moved()) == ("SETTLED", "RECOVERED", 1)
    assert (attempt.collected, attempt.gateway_id, attempt.provider_id) == (True, None, next(iter(biller.payments)))
    assert invoice.collection_stopped == "dunning_status=stopped, status=payment_due"
    paths = [seen.path for seen in biller.seen]
    assert paths.index("/invoices/in_1/stop_dunning") < paths.index("/invoices/in_1/collect_payment")
    assert shop.deliver().done >= 1
    assert shop.notes() == [], "what the biller collected itself, it knows"


def test_one_declined_collection_is_one_attempt_however_it_is_told(biller: Chargebee) -> None:
    shop = BillerShop(biller, chargebee.INVOICE)
    shop.failed()
    biller.steps = ["decline"]
    assert shop.retry().declined == 1
    attempt = shop.ours()
    assert (attempt.raw_code, attempt.network_code) == ("insufficient_funds", "51")
    shop.failed(attempt.provider_id or "")
    assert [one.origin for one in shop.attempts()] == ["PROVIDER", "OURS"]


def test_a_decline_without_an_id_is_named_by_its_webhook(biller: Chargebee) -> None:
    """The reason could not be read after the refusal; the webhook brings it, and it is no second attempt."""
    shop = BillerShop(biller, chargebee.INVOICE)
    shop.failed()
    biller.steps, biller.shows_payments = ["decline"], False
    shop.retry()
    assert (shop.ours().status, shop.ours().provider_id) == ("DECLINED", None)
    shop.failed("txn_of_the_webhook")
    assert [(one.origin, one.provider_id) for one in shop.attempts()[1:]] == [("OURS", "txn_of_the_webhook")]


def test_what_our_own_request_caused_is_known_by_its_key(biller: Chargebee) -> None:
    """The biller's view of a collection names neither its payment nor, by hand, a new try of its own plan."""
    for known, origins in ((False, ["PROVIDER", "OURS", "PROVIDER"]), (True, ["PROVIDER", "OURS"])):
        biller.reset()
        shop = BillerShop(biller, chargebee.INVOICE)
        shop.failed()
        biller.steps, biller.shows_payments = ["decline"], False
        shop.retry()
        told = shop.payment(EventKind.INVOICE_FAILED, "", attempt_count=7)
        key = shop.ours().idempotency_key or ""
        shop.at += timedelta(hours=5)
        later = replace(told, payment=None, occurred_at=shop.at, idempotency_key=key if known else "of somebody else")
        shop.tell(later)
        assert [one.origin for one in shop.attempts()] == origins
        paid = replace(later, kind=EventKind.INVOICE_PAID)
        shop.tell(paid)
        assert shop.ours().status == ("SUCCEEDED" if known else "DECLINED")
        assert (shop.invoice().status, shop.invoice().paid_minor) == ("SETTLED", 4900)


def test_a_collection_whose_answer_got_lost_is_found_at_its_invoice(biller: Chargebee) -> None:
    shop = BillerShop(biller, chargebee.INVOICE)
    shop.failed()
    biller.steps = ["500_after"]
    assert shop.retry().unknown == 1
    assert shop.reconcile(minutes=40).charges["adopted"] == 1
    assert (shop.invoice().status, biller.moved(), len(biller.writes())) == ("SETTLED", 1, 1)


def test_a_lost_collection_that_is_not_there_is_asked_of_staff_never_repeated(biller: Chargebee) -> None:
    """Chargebee remembers a key for half an hour; after that nothing may be sent again."""
    shop = BillerShop(biller, chargebee.INVOICE)
    shop.failed()
    biller.steps = ["500_before"]
    assert shop.retry().unknown == 1
    assert shop.reconcile(minutes=40).charges["staff"] == 1
    assert (len(biller.writes()), shop.reviews()) == (1, ["unknown_attempt"])


def test_the_road_of_an_attempt_outlives_a_change_of_mode(biller: Chargebee) -> None:
    shop = BillerShop(biller, chargebee.INVOICE)
    shop.failed()
    biller.steps = ["500_after"]
    shop.retry()
    Connection.objects.filter(pk=shop.connection.pk).update(mode="charge")
    assert shop.reconcile(minutes=40).charges["adopted"] == 1
    assert shop.invoice().status == "SETTLED"


def test_a_biller_that_does_not_stop_is_left_alone_and_staff_hear_of_it(biller: Chargebee) -> None:
    shop = BillerShop(biller, chargebee.INVOICE)
    shop.failed()
    biller.stops = False
    assert shop.retry().refused == 1
    assert (biller.moved(), shop.invoice().collection_stopped) == (0, "")
    assert (shop.case().next_step, shop.reviews()) == ("staff", ["no_plan"])
    assert "still collects this invoice itself" in shop.case().why


def test_recurly_cannot_be_stopped_unless_its_retries_are_switched_off() -> None:
    with Recurly() as wire:
        assert isinstance(wire, Recurly)
        wire.collection_method = "automatic"
        shop = BillerShop(wire, recurly.INVOICE, config={"automatic_retries": "on"})
        shop.failed()
        assert shop.retry().refused == 1
        assert (wire.writes(), shop.case().next_step) == ([], "staff")
        off = BillerShop(wire, recurly.INVOICE)
        off.failed()
        assert off.retry().succeeded == 1
        assert off.invoice().collection_stopped.endswith("automatic_retries=off by the connection's settings")


def test_stripe_billing_collects_through_its_invoice_and_stops_first() -> None:
    with Stripe() as wire:
        assert isinstance(wire, Stripe)
        shop = BillerShop(wire, stripe.INVOICE)
        shop.failed("ch_theirs")
        shop.retry()
        assert [seen.path for seen in wire.seen if seen.method == "POST"] == [
            "/v1/invoices/in_1",
            "/v1/invoices/in_1/pay",
        ]
        assert wire.advances is False
        assert shop.invoice().collection_stopped.startswith("auto_advance=false")


def test_the_biller_is_waited_for_as_many_retries_as_agreed(biller: Chargebee) -> None:
    shop = BillerShop(biller, chargebee.INVOICE, config={"take_over": 2})
    for attempt_count in (1, 2):
        shop.failed(attempt_count=attempt_count, retry_in=timedelta(days=1))
        assert (shop.case().next_step, biller.seen) == ("provider", [])
        shop.at += timedelta(hours=3)
    shop.failed(attempt_count=3, retry_in=timedelta(days=1))
    assert shop.case().next_step == "booked"
    assert shop.retry().succeeded == 1
    assert biller.dunning == "stopped"


def test_a_biller_whose_own_retries_have_ended_is_taken_over_before(biller: Chargebee) -> None:
    shop = BillerShop(biller, chargebee.INVOICE, config={"take_over": 5})
    shop.failed(attempt_count=1)
    assert shop.case().next_step == "booked"


def test_never_is_never(biller: Chargebee) -> None:
    shop = BillerShop(biller, chargebee.INVOICE, config={"take_over": "never"})
    shop.failed(attempt_count=9, retry_in=timedelta(days=1))
    assert (shop.case().next_step, biller.seen) == ("provider", [])


def test_a_payment_that_the_biller_has_booked_meanwhile_stops_ours(biller: Chargebee) -> None:
    shop = BillerShop(biller, chargebee.INVOICE)
    shop.failed()
    shop.at += timedelta(minutes=5)
    shop.tell(shop.payment(EventKind.PAYMENT_SUCCEEDED, "txn_their_own"))
    assert (shop.invoice().status, biller.writes()) == ("SETTLED", [])


# --- through a gateway ----------------------------------------------------------------------------------------------


def test_a_gateway_charges_for_the_biller_and_the_biller_is_told(biller: Chargebee) -> None:
    with Hyperswitch() as gateway:
        biller.sources["pm_1"] = "cus_there/pm_there"
        shop = BillerShop(biller, chargebee.INVOICE, gateway=gateway)
        shop.failed()
        assert shop.retry().succeeded == 1
        attempt = shop.ours()
        (sent,) = gateway.writes()
        assert (sent.json["customer_id"], sent.json["recurring_details"]["data"]) == ("cus_there", "pm_there")
        assert (attempt.gateway_id, attempt.collected, biller.writes()) == (shop.account.pk, False, [])  # type: ignore[union-attr]
        assert biller.dunning == "stopped"
        assert shop.deliver().done >= 1
        (note,) = shop.notes()
        (written,) = biller.payments.values()
        assert (note.status, note.record_id, written.noted) == ("WRITTEN", written.id, True)
        assert (written.amount, written.reference) == (4900, attempt.public_id)
        # Both accounts tell of the same money by webhook: neither is a second payment.
        echo = shop.tell(shop.payment(EventKind.PAYMENT_SUCCEEDED, written.id, reference=attempt.public_id))
        assert (echo.effect, "repeats what this service has told it" in echo.reason) == (False, True)
        theirs = shop.payment(EventKind.PAYMENT_SUCCEEDED, attempt.provider_id or "", reference=attempt.public_id)
        shop.tell(theirs, shop.account)
        assert (shop.invoice().paid_minor, len(shop.attempts()), shop.reviews()) == (4900, 2, [])


def test_what_the_gateway_tells_of_payments_that_are_not_ours_is_the_billers_to_tell(biller: Chargebee) -> None:
    with Hyperswitch() as gateway:
        shop = BillerShop(biller, chargebee.INVOICE, gateway=gateway)
        told = shop.tell(shop.payment(EventKind.PAYMENT_FAILED, "pay_of_chargebee"), shop.account)
        assert (told.effect, "for a billing system only" in told.reason) == (False, True)


def test_a_method_that_the_gateway_does_not_know_is_not_charged(biller: Chargebee) -> None:
    with Hyperswitch() as gateway:
        shop = BillerShop(biller, chargebee.INVOICE, gateway=gateway)
        shop.failed()
        shop.retry()
        assert (gateway.writes(), gateway.moved()) == ([], 0)


def test_a_lost_answer_of_the_gateway_is_looked_up_at_the_gateway(biller: Chargebee) -> None:
    with Hyperswitch() as gateway:
        biller.sources["pm_1"] = "cus_there/pm_there"
        shop = BillerShop(biller, chargebee.INVOICE, gateway=gateway)
        shop.failed()
        gateway.steps = ["500_after"]
        assert shop.retry().unknown == 1
        assert shop.reconcile(minutes=40).charges["adopted"] == 1
        assert (shop.invoice().status, gateway.moved()) == ("SETTLED", 1)


def test_a_gateway_that_makes_no_sense_is_refused_in_one_sentence(biller: Chargebee) -> None:
    with Hyperswitch() as gateway:
        shop = BillerShop(biller, chargebee.INVOICE)
        charging = shop.connect(gateway, mode="charge")
        watching = shop.connect(biller, mode="observe")
        config = {**biller.config, "base_url": biller.url}
        for gateway_id, mode, message in (
            ("", "charge", "use mode collect, or name the gateway"),
            ("con_nobody", "charge", "has no connection 'con_nobody'"),
            (charging.public_id, "charge", "must be in mode observe"),
            (charging.public_id, "collect", "goes with mode charge only"),
            (watching.public_id, "charge", "charges only invoices of its own"),
        ):
            with pytest.raises(InvalidInput, match=message):
                connection_create(
                    merchant=shop.merchant,
                    provider="chargebee",
                    config={**config, "mode": mode, "gateway": gateway_id},
                )
