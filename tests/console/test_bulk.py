"""Bulk actions: foreseen without a trace, worked one by one, stopped, and never for somebody else's invoices."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import User
from invoices.models import Event, Invoice
from recovery_site.common.errors import InvalidInput
from retries.models import BulkItem, BulkRun, RetryJob
from retries.services import bulk
from retries.services.bulk import BulkOrder, bulk_drain, bulk_foresee, bulk_progress, bulk_start, bulk_stop
from retries.states import BulkAction, TokenRule
from retries.tasks import drain_bulk
from tests.console.test_admin import act, staff
from tests.console.world import World

LogIn = Callable[[User], Client]


def several(world: World, number: int) -> list[Invoice]:
    return [world.fail(customer=f"cus_{n}", token=f"tok_{n}") for n in range(number)]


def start(world: World, invoices: list[Invoice], order: BulkOrder, reason: str = "why") -> BulkRun:
    pks = [invoice.pk for invoice in invoices]
    return bulk_start(
        merchant=world.merchant, invoice_pks=pks, order=order, reason=reason, stamp=world.stamp("user:7", "staff")
    )


def test_what_is_foreseen_is_what_happens_and_leaves_no_trace(world: World) -> None:
    invoices = several(world, 2)
    world.pay(invoices[1])
    events = Event.objects.count()
    order = BulkOrder(action=BulkAction.RETRY, due_at=world.at + timedelta(hours=5))
    foreseen = bulk_foresee(invoices, order, stamp=world.stamp("user:7"))
    assert [one.will for one in foreseen] == [True, False]
    due = f"{world.at + timedelta(hours=5):%Y-%m-%d %H:%M}"
    assert foreseen[0].text == f"A retry with the Visa •••• 4242 is booked for {due} UTC."
    assert "nothing is due that could be retried" in foreseen[1].text
    assert Event.objects.count() == events
    assert RetryJob.objects.get(invoice=invoices[0]).trigger == "automatic"
    run = start(world, invoices, order)
    assert bulk_drain(now=world.at).as_dict() == {"done": 1, "refused": 1}
    assert [item.message for item in BulkItem.objects.order_by("pk")] == [one.text for one in foreseen]
    run.refresh_from_db()
    assert run.finished_at == world.at
    job = RetryJob.objects.get(invoice=invoices[0])
    assert (job.trigger, job.due_at, job.requested_by) == ("staff", world.at + timedelta(hours=5), "user:7")
    event = invoices[0].events.get(kind="staff.retry")
    assert (event.actor, event.cause, event.data["reason"]) == ("user:7", "staff: why", "why")


def test_another_payment_method_is_another_than_the_one_that_failed(world: World) -> None:
    first, second = several(world, 2)
    world.add_token(first, "tok_spare", last4="1881")
    order = BulkOrder(action=BulkAction.RETRY, token_rule=TokenRule.OTHER)
    texts = [one.text for one in bulk_foresee([first, second], order, stamp=world.stamp("user:7"))]
    assert texts[0].startswith("A retry with the Visa •••• 1881 is booked now")
    assert texts[1] == "This customer has no other payment method that could be charged."


def test_an_invoice_that_breaks_stops_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    invoices = several(world, 3)
    real = bulk._act

    def poison(invoice_pk: int, *rest: object) -> str:
        if invoice_pk == invoices[1].pk:
            raise RuntimeError("no luck")
        return real(invoice_pk, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(bulk, "_act", poison)
    run = start(world, invoices, BulkOrder(action=BulkAction.PAUSE))
    assert drain_bulk() == {"done": 2, "refused": 1}
    assert bulk_progress(run) == {"waiting": 0, "done": 2, "refused": 1, "skipped": 0}
    assert BulkItem.objects.get(invoice=invoices[1]).message == "RuntimeError: no luck"
    assert bulk_drain(now=world.at).as_dict() == {"done": 0, "refused": 0}


def test_a_run_that_is_stopped_leaves_the_rest_alone(world: World, log_in: LogIn) -> None:
    invoices = several(world, 3)
    run = start(world, invoices, BulkOrder(action=BulkAction.CANCEL))
    bulk_drain(now=world.at, limit=1)
    client = log_in(staff(world, "support"))
    address = reverse("admin:retries_bulkrun_change", args=[run.pk])
    page = client.get(address).content.decode()
    assert ("Working: 1 of 3." in page, 'http-equiv="refresh"' in page) == (True, True)
    page = client.post(address, follow=True).content.decode()
    assert "Stopped after 1 of 3." in page
    assert bulk_drain(now=world.at).done == 0
    assert sorted(world.again(invoice).status for invoice in invoices) == ["CANCELED", "PROCESSING", "PROCESSING"]
    with pytest.raises(Exception, match="nothing left to stop"):
        bulk_stop(run_pk=run.pk, stamp=world.stamp("user:7"))


def test_a_large_selection_goes_on_in_the_worker(world: World, log_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recovery_site.console.admin.AT_ONCE", 2)
    invoices = several(world, 5)
    client = log_in(staff(world, "support"))
    page = act(client, Invoice, "pause", invoices[:1], confirmed="yes", reason="r", select_across="1")
    assert page.redirect_chain[-1][0].startswith("/admin/retries/bulkrun/")
    assert "Working: 2 of 5." in page.content.decode()
    assert drain_bulk()["done"] == 3
    assert "Finished" in client.get(page.redirect_chain[-1][0]).content.decode()
    assert {world.case(invoice).next_step for invoice in invoices} == {"paused"}


def test_the_form_foresees_another_time_before_it_is_confirmed(world: World, log_in: LogIn) -> None:
    (invoice,) = several(world, 1)
    client = log_in(staff(world, "support"))
    due = f"{world.at + timedelta(days=2):%Y-%m-%d} 08:00"
    page = act(client, Invoice, "retry", [invoice], confirmed="preview", due_at=due).content.decode()
    assert f"is booked for {due} UTC." in page
    assert "Say why" not in page
    page = act(client, Invoice, "retry", [invoice], confirmed="yes", due_at="2020-01-01 08:00", reason="r")
    assert "This time is over" in page.content.decode()
    assert not BulkRun.objects.exists()


def test_a_run_holds_only_its_merchants_invoices_and_needs_a_reason(world: World) -> None:
    mine, theirs = world.fail(), World(name="Zebra", at=world.at).fail()
    run = start(world, [mine, theirs], BulkOrder(action=BulkAction.PAUSE))
    assert list(BulkItem.objects.filter(run=run).values_list("invoice", flat=True)) == [mine.pk]
    for invoices, reason in (([theirs], "why"), ([mine], " ")):
        with pytest.raises(InvalidInput):
            start(world, invoices, BulkOrder(action=BulkAction.PAUSE), reason)
