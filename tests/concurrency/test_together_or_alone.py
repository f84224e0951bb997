"""Whether work is done in step with other work or by itself: the ledger ends the same."""

from pathlib import Path
from typing import Any

import pytest

from invoices.models import Event, OutboxMessage
from recovery_site.common import in_step
from retries.engine import drain
from tests.support.sandbox import sandbox_running
from tests.support.shop import Shop
from tests.support.stripe import Bill
from webhooks.services import draining

pytestmark = pytest.mark.django_db(transaction=True)
# What the provider does with a charge of each bill.
STEPS = (
    ("ok",),
    ("decline:insufficient_funds", "ok"),
    ("decline:insufficient_funds", "decline:do_not_honor", "ok"),
    ("decline:lost_card",),
    ("decline:stolen_card",),
    ("decline:processing_error", "ok"),
    ("timeout_after_charge",),
    ("pending",),
    ("ok",),
    ("http500_before", "ok"),
)


def story(shop: Shop) -> list[Bill]:
    bills = [shop.bill(amount=2500 + n) for n in range(len(STEPS))]
    for bill, steps in zip(bills, STEPS, strict=True):
        shop.sandbox.script(bill.token, *steps)
        shop.receive(*bill.attempt(shop.at).failed())
    shop.process()
    for _ in range(8):
        shop.wait(days=3)
        shop.drain()
        shop.expire_leases()
        shop.reconcile()
    return bills


def told(shop: Shop, bill: Bill) -> dict[str, Any]:
    """Everything but names and instants."""
    invoice = shop.invoice(bill)
    events = Event.objects.filter(invoice=invoice).order_by("seq")
    return {
        "invoice": (invoice.status, invoice.paid_minor, invoice.due_minor),
        "attempts": [
            (one.origin, one.number, one.status, one.raw_code, one.category, one.counts, one.token_id is not None)
            for one in shop.attempts(bill)
        ],
        "case": (shop.case(bill).status, shop.case(bill).category, shop.case(bill).next_step, shop.case(bill).segment),
        "job": (shop.job(bill).status, shop.job(bill).trigger, shop.job(bill).band),
        "events": list(events.values_list("seq", "kind", "from_state", "to_state", "actor")),
        "owed": OutboxMessage.objects.filter(event__invoice=invoice).count(),
        "alerts": shop.alerts(bill),
    }


def ledger_after(folder: Path) -> list[dict[str, Any]]:
    """Of a shop with a provider of its own: it would take in what others charge there."""
    folder.mkdir()
    with sandbox_running(folder) as sandbox:
        shop = Shop(sandbox)
        return [told(shop, bill) for bill in story(shop)]


def test_charges_and_webhooks_end_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = in_step._Steps._step
    sizes = list[int]()

    def counted(self: Any) -> None:
        sizes.append(len(self._asked))
        steps(self)

    monkeypatch.setattr(in_step._Steps, "_step", counted)
    ours = ledger_after(tmp_path / "together")
    assert max(sizes) >= 5, "work is done together here"

    sizes.clear()
    with pytest.MonkeyPatch.context() as one_by_one:
        one_by_one.setattr(draining, "TOGETHER", 1)
        one_by_one.setattr(drain, "_is_only_sent", lambda claim, owner, now: False)
        theirs = ledger_after(tmp_path / "alone")
    assert max(sizes) == 1, "and not there"
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        assert mine == other, f"{STEPS[number]}"
    assert {one["invoice"][0] for one in ours} > {"SETTLED"}
