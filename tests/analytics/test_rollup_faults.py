"""Histories after which rollups stayed wrong, or could not be advanced any more."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from accounts.models import Merchant
from accounts.services import merchant_create
from analytics.models import AttemptRollup
from providers.base import CustomerFacts, DeclineFacts, EventKind, InvoiceFacts, PaymentFacts
from recovery_site.common.errors import InvalidInput
from tests.analytics.test_rollups import UTC, folded, follow, kept, ledger, shown
from tests.console.world import NOW, World, method

pytestmark = pytest.mark.django_db(transaction=True)
ANN = CustomerFacts(id="cus_ann")


@pytest.mark.parametrize("paid", [True, False])
def test_a_card_that_is_told_after_the_payment_is_counted(paid: bool) -> None:
    """The biller's word came first; the payment's own event adds nothing but the card, and writes no event."""
    world = World(at=NOW)
    facts = InvoiceFacts(id="in_1", amount_minor=4_990, currency="USD", issued_at=NOW)
    world.tell(EventKind.INVOICE_PAID if paid else EventKind.INVOICE_FAILED, customer=ANN, invoice=facts)
    follow()
    payment = PaymentFacts(
        charge_id="ch_1",
        amount_minor=4_990,
        currency="USD",
        invoice_id="in_1",
        method=method("tok_ok"),
        decline=None if paid else DeclineFacts(),
    )
    world.tell(EventKind.PAYMENT_SUCCEEDED if paid else EventKind.PAYMENT_FAILED, customer=ANN, payment=payment)
    assert shown(world.merchant, world.at, UTC) == folded(world.merchant, world.at, UTC)
    follow()
    assert kept(world.merchant) == ledger(world.merchant, UTC)
    assert AttemptRollup.objects.filter(facet="network", key="visa").count() == 1


def test_a_zone_that_postgresql_does_not_know_stops_nobody() -> None:
    with pytest.raises(InvalidInput, match="no time zone"):
        merchant_create(name="Odder", timezone="localtime")  # a file of this machine, no zone to the database
    odd, world = World(name="Odd", at=NOW), World(at=NOW)
    Merchant.objects.filter(pk=odd.merchant.pk).update(timezone="localtime")
    odd.fail()
    world.fail()
    follow()
    assert kept(world.merchant) == ledger(world.merchant, UTC)


def test_a_payment_at_the_beginning_of_time_stops_nobody() -> None:
    odd, world = World(name="Odd", at=NOW), World(at=NOW)
    Merchant.objects.filter(pk=odd.merchant.pk).update(timezone="America/New_York")
    odd.tell(
        EventKind.PAYMENT_FAILED,
        occurred_at=datetime(1, 1, 1, 3, tzinfo=UTC),
        customer=ANN,
        payment=PaymentFacts(charge_id="ch_1", amount_minor=100, currency="USD", invoice_id="in_1"),
    )
    world.fail()
    follow()
    assert kept(world.merchant) == ledger(world.merchant, UTC)


@pytest.mark.parametrize("name", ["CET", "EET", "MET", "WET"])
def test_a_zone_whose_name_is_also_an_abbreviation_has_summer_time(name: str) -> None:
    """AT TIME ZONE 'CET' is UTC+1 all year round in PostgreSQL, `ZoneInfo("CET")` is not."""
    zone = ZoneInfo(name)
    midnight = datetime(2026, 7, 16, 0, 30, tzinfo=zone)
    world = World(at=midnight.astimezone(UTC))
    Merchant.objects.filter(pk=world.merchant.pk).update(timezone=name)
    world.fail()
    follow()
    assert kept(world.merchant) == ledger(world.merchant, zone)
