"""Work queues: what waits is counted, capped, listed oldest first, handled in bulk, and nobody else's."""

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import User
from invoices.models import Invoice
from recovery_site.console import work
from retries.models import Case, RetryJob
from retries.services.manual import case_pause
from retries.states import NextStep
from tests.console.test_case_page import text_of
from tests.console.world import World
from webhooks.models import InboxEvent
from webhooks.services import endpoint_create

LogIn = Callable[[User], Client]


def waiting(world: World, number: int) -> list[Invoice]:
    """Invoices that wait for their customers: the card can never be charged again."""
    found = []
    for index in range(number):
        found.append(
            world.fail(customer=f"cus_{index}", token=f"tok_{index}", code="expired_card", number=f"INV-{index}")
        )
        world.wait(minutes=10)
    return found


def failed_webhook(world: World, number: int = 0) -> InboxEvent:
    endpoint = endpoint_create(merchant=world.merchant, provider="simulator", secret="whsec_" + "x" * 32)
    event = InboxEvent.objects.create(
        merchant=world.merchant,
        endpoint=endpoint,
        provider_event_id=f"evt_bad{number}",
        event_type="charge.failed",
        body="{}",
        body_hash="0" * 64,
        received_at=world.at,
    )
    InboxEvent.objects.filter(pk=event.pk).update(status="FAILED", reason="KeyError: amount")
    return event


def counts(page: str) -> dict[str, str]:
    found = re.findall(r'class="queue-count"[^>]*>([^<]+)</span><span>([^<]+)<', page)
    return {label: number for number, label in found}


def test_every_queue_is_counted_and_the_busiest_is_shown(world: World, log_in: LogIn) -> None:
    first, second = waiting(world, 2)
    paused, late = (
        world.fail(customer="cus_p", token="tok_p"),
        world.fail(customer="cus_l", token="tok_l", number="LATE"),
    )
    Case.objects.filter(invoice=paused).update(next_step=NextStep.PAUSED, paused_by="configuration", next_step_at=None)
    RetryJob.objects.filter(invoice=paused).update(status="PAUSED")
    failed_webhook(world)
    world.at = world.case(late).next_step_at + timedelta(hours=2)
    client = log_in(world.person())
    page = client.get("/console/work/").content.decode()
    assert counts(page) == {
        "Staff queue": "0",
        "Waiting for the customer": "2",
        "Paused by configuration": "1",
        "Paused by staff": "0",
        "Failed webhooks": "1",
        "Failed deliveries": "0",
        "Stuck": "1",
    }
    assert page.index(first.public_id) < page.index(second.public_id)
    assert "KeyError: amount" in text_of(client.get("/console/work/?queue=webhooks").content.decode())
    stuck = text_of(client.get("/console/work/?queue=stuck").content.decode())
    assert "LATE" in stuck
    assert "2 h" in stuck


def test_counting_stops_and_says_so(world: World, log_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "COUNT_LIMIT", 1)
    waiting(world, 2)
    assert counts(log_in(world.person()).get("/console/work/").content.decode())["Waiting for the customer"] == "1+"


def test_pages_continue_where_the_last_ended(world: World, log_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "PAGE", 2)
    invoices, client = waiting(world, 3), log_in(world.person())
    first = client.get("/console/work/?queue=customer").content.decode()
    (following,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = client.get("/console/work/" + following.replace("&amp;", "&")).content.decode()
    shown = [[invoice.public_id in page for invoice in invoices] for page in (first, second)]
    assert shown == [[True, True, False], [False, False, True]]
    assert 'rel="next"' not in second


def test_rows_of_other_merchants_are_neither_counted_nor_shown(world: World, log_in: LogIn) -> None:
    waiting(world, 1)
    failed_webhook(world)
    page = (
        log_in(World(name="Other", at=world.at).person("owner")).get("/console/work/?queue=customer").content.decode()
    )
    assert set(counts(page).values()) == {"0"}
    assert "INV-0" not in page


def test_a_long_queue_costs_no_more_queries_than_a_short_one(world: World, log_in: LogIn) -> None:
    client = log_in(world.person("support", is_staff=True))

    def queries(path: str) -> int:
        with CaptureQueriesContext(connection) as seen:
            assert client.get(path).status_code == 200
        return len(seen)

    waiting(world, 1)
    failed_webhook(world)
    paths = ("/console/work/?queue=customer", "/console/work/?queue=webhooks", "/admin/")
    before = [queries(path) for path in paths for _ in range(2)][1::2]
    for index in range(1, 5):
        world.fail(customer=f"cus_more{index}", token=f"tok_more{index}", code="expired_card")
        failed_webhook(world, index)
    assert [queries(path) for path in paths] == before


def test_many_are_handled_at_once_after_a_preview(world: World, log_in: LogIn) -> None:
    invoices = waiting(world, 2)
    client = log_in(world.person("support", is_staff=True))
    page = client.get("/console/work/?queue=customer").content.decode()
    assert 'action="/admin/invoices/invoice/"' in page
    pks = re.findall(r'name="_selected_action" value="(\d+)"', page)
    assert pks == [str(invoice.pk) for invoice in invoices]
    chosen = {"index": "0", "action": "cancel", "_selected_action": pks}
    foreseen = client.post("/admin/invoices/invoice/", chosen)
    assert "Nothing more is collected." in text_of(foreseen.content.decode())
    assert set(Invoice.objects.values_list("status", flat=True)) == {"PROCESS_FAILED"}
    client.post("/admin/invoices/invoice/", {**chosen, "confirmed": "yes", "reason": "closed shop"})
    assert set(Invoice.objects.values_list("status", flat=True)) == {"CANCELED"}


def test_who_may_not_act_or_enter_the_admin_has_no_bulk_buttons(world: World, log_in: LogIn) -> None:
    waiting(world, 1)
    for user in (world.person("viewer", is_staff=True), world.person("support")):
        page = log_in(user).get("/console/work/?queue=customer").content.decode()
        assert "INV-0" in page
        assert "_selected_action" not in page


def test_admin_pages_carry_the_counts_in_their_header(world: World, log_in: LogIn) -> None:
    waiting(world, 1)
    client = log_in(world.person("support", is_staff=True))
    for path in ("/admin/", "/admin/invoices/invoice/"):
        text = text_of(client.get(path).content.decode())
        assert "Waiting for the customer 1 Paused by configuration 0" in text, path
    assert "Waiting for the customer" not in client.get(reverse("login")).content.decode()


def test_the_admin_finds_invoices_by_the_last_digits_of_a_card(world: World, log_in: LogIn) -> None:
    world.fail(last4="7731", number="INV-CARD")
    World(name="Other", at=world.at).fail(last4="7731", number="INV-OTHER")
    page = log_in(world.person("support", is_staff=True)).get("/admin/invoices/invoice/?q=7731").content.decode()
    assert "INV-CARD" in page
    assert "INV-OTHER" not in page


def test_what_staff_paused_waits_in_a_queue_of_its_own(world: World, log_in: LogIn) -> None:
    invoice = world.fail(number="INV-held")
    case_pause(invoice_pk=invoice.pk, stamp=world.stamp("user:1"), reason="on holiday")
    page = log_in(world.person()).get("/console/work/?queue=held").content.decode()
    assert counts(page)["Paused by staff"] == "1"
    assert "INV-held" in page
    assert "on holiday" in page


def test_a_bulk_action_leads_back_to_the_queue_it_was_begun_on(world: World, log_in: LogIn) -> None:
    (invoice,) = waiting(world, 1)
    client, place = log_in(world.person("support", is_staff=True)), "/console/work/?queue=customer"
    sent = {"index": "0", "action": "cancel", "back": place}
    nothing = client.post("/admin/invoices/invoice/", sent)
    assert (nothing.status_code, nothing["Location"]) == (302, place)
    assert "Select at least one row first." in client.get(place).content.decode()
    chosen = {**sent, "_selected_action": [invoice.pk]}
    assert f'href="{place}">Back' in client.post("/admin/invoices/invoice/", chosen).content.decode()
    done = client.post("/admin/invoices/invoice/", {**chosen, "confirmed": "yes", "reason": "closed shop"})
    assert (done.status_code, done["Location"]) == (302, place)
    elsewhere = client.post("/admin/invoices/invoice/", {**sent, "back": "https://elsewhere.example/"})
    assert "elsewhere" not in elsewhere.get("Location", "")


def test_a_disputed_payment_is_not_charged_again_in_bulk(world: World, log_in: LogIn) -> None:
    (invoice,) = waiting(world, 1)
    Case.objects.update(automatic_barred=True)
    chosen = {"index": "0", "action": "retry", "_selected_action": [invoice.pk]}
    page = log_in(world.person("support", is_staff=True)).post("/admin/invoices/invoice/", chosen).content.decode()
    assert "returned or disputed; retry it on its own page" in text_of(page)
    assert 'value="yes" disabled' in page
    assert str(invoice.customer) in text_of(page)
    single = log_in(world.person()).get(f"/console/invoices/{invoice.public_id}/").content.decode()
    assert ("Charge again only with the customer" in single) == ("Charge this customer again?" in single)
