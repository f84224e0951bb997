"""The admin: every list and page opens, shows one's own merchants only, changes nothing, and acts through services."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django_q.models import OrmQ

from accounts.admin.base import LIST_LIMIT, TenantAdmin
from accounts.models import ApiKey, GlobalSwitch, Membership, Merchant, User
from invoices.models import (
    Attempt,
    BillerNote,
    Connection,
    Customer,
    Event,
    Invoice,
    OutboxMessage,
    ReviewItem,
    Transaction,
)
from invoices.services.casework import note_add
from invoices.services.notes import NAME
from providers.base import DisputeFacts, DisputeStatus
from recovery_site.console.work import COUNT_LIMIT
from retries.models import Case, RetryJob
from tests.console.world import World, kinds
from tokens.models import Card
from webhooks.models import Delivery, DeliveryTry, InboxEvent, OutboundEndpoint
from webhooks.outbound.deliveries import deliveries_write
from webhooks.outbound.endpoints import outbound_endpoint_create, signing_secrets
from webhooks.services import endpoint_create

LogIn = Callable[[User], Client]
OURS = {"accounts", "invoices", "tokens", "retries", "webhooks", "notifications"}
TENANT: list[type[Model]] = [
    model
    for model, model_admin in admin.site._registry.items()
    if model._meta.app_label in OURS and isinstance(model_admin, TenantAdmin)
]


def changelist(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def change(row: Model) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def staff(world: World, role: str, **names: str) -> User:
    user = world.person(role, **names)
    user.is_staff = True
    user.save()
    return user


def fill(world: World) -> Invoice:
    """A row of every kind."""
    invoice = world.fail(invoice=f"in_{world.name}", number=f"NUMBER-{world.name}", customer=f"cus_{world.name}")
    world.wait(hours=25)
    attempt = world.charge("ok")
    dispute = DisputeFacts(
        id=f"dp_{world.name}",
        amount_minor=4_990,
        currency="USD",
        status=DisputeStatus.OPEN,
        charge_id=attempt.provider_id or "",
    )
    world.dispute("", dispute)
    world.pay(invoice)
    endpoint = endpoint_create(
        merchant=world.merchant, provider="sandbox", secret="whsec_hidden", connection=world.connection
    )
    InboxEvent.objects.create(
        merchant=world.merchant,
        endpoint=endpoint,
        provider_event_id=f"evt_{world.name}",
        event_type=f"type.{world.name}",
        body='{"a": 1}',
        body_hash="0" * 64,
        received_at=world.at,
    )
    outbound_endpoint_create(merchant=world.merchant, url="https://hooks.example.com/", description=world.name)
    note_add(invoice_pk=invoice.pk, text="Called.", stamp=world.stamp("user:1"))
    deliveries_write(Event.objects.filter(merchant=world.merchant, kind="case.opened").latest("pk"))
    delivery = Delivery.objects.get(merchant=world.merchant)
    DeliveryTry.objects.create(merchant=world.merchant, delivery=delivery, duration_ms=12)
    return invoice


# --- everything is there, nothing can be written --------------------------------------------------


def test_every_model_of_ours_is_registered() -> None:
    models = {model for app in OURS for model in apps.get_app_config(app).get_models()}
    assert {model.__name__ for model in models if not admin.site.is_registered(model)} == set()


def test_lists_and_pages_open_for_a_member_and_show_only_his_merchant(world: World, log_in: LogIn) -> None:
    fill(world)
    other = World(name="Zebra")
    fill(other)
    mine, stranger = staff(world, "owner"), staff(other, "owner")
    client = log_in(mine)
    opened = 0
    for model in TENANT:
        model_admin = admin.site.get_model_admin(model)
        page = client.get(changelist(model))
        assert (page.status_code, "Zebra" in page.content.decode()) == (200, False), model
        own = list(model_admin.get_queryset(Requester(mine)))
        foreign = list(model_admin.get_queryset(Requester(stranger)))
        assert {row.pk for row in own}.isdisjoint({row.pk for row in foreign}), model
        for row in own[:1]:
            assert client.get(change(row), follow=True).status_code == 200, model
            opened += 1
        for row in foreign[:1]:
            response = client.get(change(row), follow=True)
            assert response.redirect_chain[-1][0] == reverse("admin:index"), model
            assert "Zebra" not in response.content.decode(), model
    assert opened >= 18


class Requester:
    """As much of a request as `get_queryset` looks at."""

    def __init__(self, user: User) -> None:
        self.user = user


WRITABLE = {
    "DeclineOverride",
    "Merchant",
    "Membership",
    "ApiKey",
    "OAuthApplication",
    "OutboundEndpoint",
    "RetryLimit",
} | {
    "AlertRoute",
    "MessageTemplate",
    "MessageSettings",
}


def test_nobody_not_even_a_superuser_can_write_ledger_rows(world: World, rf: Any) -> None:
    request = rf.get("/")
    for user in (staff(world, "owner"), User.objects.create_superuser("boss", password="x")):
        request.user = user
        for model in TENANT:
            model_admin = admin.site.get_model_admin(model)
            allowed = (
                model_admin.has_add_permission(request),
                model_admin.has_change_permission(request),
                model_admin.has_delete_permission(request),
            )
            assert any(allowed) == (model.__name__ in WRITABLE), model


def test_a_post_to_a_ledger_row_changes_nothing(world: World, log_in: LogIn) -> None:
    fill(world)
    attempt = Attempt.objects.filter(status="SUCCEEDED").latest("id")
    client = log_in(User.objects.create_superuser("boss", password="x"))
    assert client.post(change(attempt), {"amount_minor": "1"}).status_code == 403
    delete = reverse("admin:invoices_attempt_delete", args=[attempt.pk])
    assert client.post(delete, {"post": "yes"}).status_code == 403
    assert Attempt.objects.get(pk=attempt.pk).amount_minor == 4_990


def test_no_list_offers_to_delete(world: World, rf: Any) -> None:
    request = rf.get("/")
    request.user = User.objects.create_superuser("boss", password="x")
    for model in TENANT:
        assert "delete_selected" not in admin.site.get_model_admin(model).get_actions(request), model


def test_a_person_without_membership_sees_an_empty_admin(world: World, log_in: LogIn) -> None:
    fill(world)
    nobody = User.objects.create_user("nobody", password="x", is_staff=True)
    client = log_in(nobody)
    assert "have permission to view or edit anything." in client.get(reverse("admin:index")).content.decode()
    assert client.get(changelist(Invoice)).status_code == 403


# --- secrets --------------------------------------------------------------------------------------


def test_no_secret_is_on_any_page(world: World, log_in: LogIn) -> None:
    fill(world)
    key = ApiKey.objects.first()
    assert key is not None
    client = log_in(User.objects.create_superuser("boss", password="x"))
    hidden = [
        key.key_hash,
        world.connection.secrets_encrypted or "never",
        "secrets_encrypted",
        "whsec_hidden",
        "key_hash",
    ]
    for model in TENANT:
        pages = [client.get(changelist(model)).content.decode()]
        row = model._default_manager.first()
        if row is not None and model is not Invoice:
            pages.append(client.get(change(row)).content.decode())
        for page in pages:
            assert [secret for secret in hidden if secret in page] == [], model


@pytest.mark.parametrize(
    "query",
    [
        "key_hash__startswith=a",
        "merchant__api_keys__key_hash__startswith=a",
        "merchant__name=Zebra",
        "prefix__startswith=a",
    ],
)
def test_a_hash_cannot_be_guessed_through_filters(world: World, log_in: LogIn, query: str) -> None:
    response = log_in(staff(world, "owner")).get(f"{changelist(ApiKey)}?{query}")
    assert response.status_code == 400


def test_secrets_cannot_be_guessed_on_connections_either(world: World, log_in: LogIn) -> None:
    client = log_in(staff(world, "owner"))
    assert client.get(f"{changelist(Connection)}?secrets_encrypted__startswith=g").status_code == 400
    assert client.get(f"{changelist(Connection)}?connection__secrets_encrypted__startswith=g").status_code == 400
    assert client.get(f"{changelist(Connection)}?enabled__exact=1").status_code == 200


# --- tenants in filters and pickers ---------------------------------------------------------------


def test_filters_offer_only_own_merchants_and_connections(world: World, log_in: LogIn) -> None:
    World(name="Zebra")
    second = World(name="Second")
    user = staff(world, "owner")
    Membership.objects.create(user=user, merchant=second.merchant, role="viewer")
    page = log_in(user).get(changelist(Invoice)).content.decode()
    assert "Second" in page
    assert "Zebra" not in page


def test_autocomplete_offers_only_own_rows(world: World, log_in: LogIn) -> None:
    World(name="Zebra")
    boss = User.objects.create_superuser("boss", password="x")
    ask = {"app_label": "accounts", "model_name": "membership", "field_name": "merchant", "term": ""}
    names = {row["text"] for row in log_in(boss).get("/admin/autocomplete/", ask).json()["results"]}
    assert names == {"Acme", "Zebra"}
    member = log_in(staff(world, "owner")).get("/admin/autocomplete/", ask).json()
    assert {row["text"] for row in member["results"]} == {"Acme"}


# --- big tables -----------------------------------------------------------------------------------


def test_lists_never_count_a_whole_table(world: World, log_in: LogIn) -> None:
    fill(world)
    client = log_in(staff(world, "support"))
    for model in TENANT:
        with CaptureQueriesContext(connection) as captured:
            client.get(changelist(model))
        asked = [query["sql"].upper() for query in captured.captured_queries]
        # Those of the header stop at a limit.
        counting = [sql for sql in asked if "COUNT(*)" in sql and f"LIMIT {COUNT_LIMIT + 1})" not in sql]
        assert counting == [], model


def test_the_list_says_when_it_stops_counting(world: World, log_in: LogIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        world.fail(customer=f"cus_{number}", token=f"tok_{number}")
    client = log_in(staff(world, "support"))
    assert "4 invoices" in client.get(changelist(Invoice)).content.decode()
    monkeypatch.setattr("accounts.admin.base.LIST_LIMIT", 3)
    page = client.get(changelist(Invoice)).content.decode()
    assert "the newest 3 invoices; filter or search for others" in page
    assert LIST_LIMIT == 2_000


def test_a_list_costs_the_same_however_many_rows_it_shows(world: World, log_in: LogIn) -> None:
    client = log_in(staff(world, "support"))
    costs = []
    for number in range(4):
        world.fail(customer=f"cus_{number}", token=f"tok_{number}")
        with CaptureQueriesContext(connection) as captured:
            for model in (Invoice, Attempt, Case, RetryJob, Card):
                client.get(changelist(model))
        costs.append(len(captured))
    assert costs[1] == costs[3]


# --- finding --------------------------------------------------------------------------------------


def test_invoices_are_found_by_any_id_and_link_to_the_case_page(world: World, log_in: LogIn) -> None:
    invoice = fill(world)
    world.fail(customer="cus_other", token="tok_other")
    ours = Attempt.objects.filter(origin="OURS", kind="CHARGE").get()
    client = log_in(staff(world, "support"))
    for text in (invoice.public_id, "in_Acme", "NUMBER-Acme", ours.public_id, ours.provider_id, "cus_Acme@example.com"):
        page = client.get(changelist(Invoice), {"q": text}).content.decode()
        assert re.findall(r'href="(/console/invoices/[^"]+)"', page) == [f"/console/invoices/{invoice.public_id}/"], (
            text
        )
    assert "/console/invoices/" not in client.get(changelist(Invoice), {"q": "nothing"}).content.decode()
    assert client.get(change(invoice))["Location"] == f"/console/invoices/{invoice.public_id}/"


@pytest.mark.parametrize("text", ["nothing", "a\x00b", "%", "' OR 1=1 --", "x" * 400])
def test_odd_searches_find_nothing_and_break_nothing(world: World, log_in: LogIn, text: str) -> None:
    fill(world)
    client = log_in(staff(world, "owner"))
    for model in (Invoice, Attempt, Customer, ApiKey, Merchant):
        assert client.get(changelist(model), {"q": text}).status_code == 200, model


def test_attempts_are_found_by_the_providers_id(world: World, log_in: LogIn) -> None:
    fill(world)
    ours = Attempt.objects.get(origin="OURS", kind="CHARGE")
    page = log_in(staff(world, "support")).get(changelist(Attempt), {"q": ours.provider_id}).content.decode()
    assert "1 attempt\n" in page
    assert ours.public_id in page


# --- bulk actions ---------------------------------------------------------------------------------


def act(client: Client, model: type[Model], name: str, rows: list[Any], **more: str) -> Any:
    data = {"action": name, "_selected_action": [row.pk for row in rows], **more}
    return client.post(changelist(model), data, follow=True)


def test_bulk_pause_lists_what_will_happen_then_does_it(world: World, log_in: LogIn) -> None:
    running, paid = world.fail(customer="cus_1", token="tok_1"), world.fail(customer="cus_2", token="tok_2")
    world.pay(paid)
    ann = staff(world, "support")
    client = log_in(ann)
    page = act(client, Invoice, "pause", [running, paid]).content.decode()
    assert "Automatic retries stop until somebody resumes them." in page
    assert "Nothing: There is no open case that could be paused." in page
    assert world.case(running).paused_by == ""
    page = act(client, Invoice, "pause", [running, paid], confirmed="yes", reason="holiday").content.decode()
    assert "Done for one of the selected rows." in page
    assert "There is no open case that could be paused." in page
    assert world.case(running).paused_by == f"user:{ann.pk}"
    assert running.events.get(kind="staff.pause").cause == "staff: holiday"


@pytest.mark.parametrize("reason", ["", "   ", "x" * 181])
def test_a_bulk_action_without_a_reason_asks_again(world: World, log_in: LogIn, reason: str) -> None:
    invoice = world.fail()
    before = kinds(invoice)
    page = act(log_in(staff(world, "support")), Invoice, "cancel", [invoice], confirmed="yes", reason=reason)
    assert "Say why, in at most 180 characters" in page.content.decode()
    assert kinds(invoice) == before


def test_bulk_retry_resume_and_cancel_go_through_the_services(world: World, log_in: LogIn) -> None:
    invoice, client = world.fail(), log_in(staff(world, "support"))
    for name in ("pause", "resume", "retry", "cancel"):
        act(client, Invoice, name, [invoice], confirmed="yes", reason="r")
    assert [kind for kind in kinds(invoice) if kind.startswith("staff.")] == [
        "staff.pause",
        "staff.resume",
        "staff.retry",
        "staff.cancel",
    ]
    assert world.again(invoice).status == "CANCELED"


def test_viewers_have_no_bulk_actions(world: World, log_in: LogIn) -> None:
    invoice = world.fail()
    client = log_in(staff(world, "viewer"))
    assert 'name="action"' not in client.get(changelist(Invoice)).content.decode()
    act(client, Invoice, "cancel", [invoice], confirmed="yes", reason="r")
    assert world.again(invoice).status == "PROCESSING"


def test_a_role_at_one_merchant_does_not_act_for_another(world: World, log_in: LogIn) -> None:
    """Support here, viewer there: selected together, only one's own are touched."""
    second = World(name="Second", at=world.at)
    mine, theirs = world.fail(), second.fail()
    user = staff(world, "support")
    Membership.objects.create(user=user, merchant=second.merchant, role="viewer")
    act(log_in(user), Invoice, "cancel", [mine, theirs], confirmed="yes", reason="r")
    assert (world.again(mine).status, second.again(theirs).status) == ("CANCELED", "PROCESSING")


def test_an_invoice_of_a_foreign_merchant_cannot_be_slipped_in(world: World, log_in: LogIn) -> None:
    theirs = World(name="Zebra", at=world.at).fail()
    act(log_in(staff(world, "owner")), Invoice, "cancel", [theirs], confirmed="yes", reason="r")
    assert Invoice.objects.get(pk=theirs.pk).status == "PROCESSING"


def test_inbox_events_are_replayed_with_a_trace(world: World, log_in: LogIn) -> None:
    fill(world)
    event = InboxEvent.objects.get()
    event.fail()
    event.save()
    ann = staff(world, "support")
    page = act(log_in(ann), InboxEvent, "replay", [event])
    assert "Runs again through the same handler" in page.content.decode()
    act(log_in(ann), InboxEvent, "replay", [event], confirmed="yes", reason="fixed the handler")
    again = InboxEvent.objects.get()
    assert (again.status, again.attempts, again.reason) == ("RECEIVED", 0, f"Replayed by user:{ann.pk}")
    page = act(log_in(ann), InboxEvent, "replay", [event], confirmed="yes", reason="again").content.decode()
    assert "already waiting to be processed" in page


def test_a_note_that_a_billing_system_would_not_have_is_told_again(world: World, log_in: LogIn) -> None:
    invoice = fill(world)
    paid = Transaction.objects.get(invoice=invoice, kind="CHARGE", status="DONE", attempts__origin="OURS")
    note = BillerNote.objects.create(
        merchant=world.merchant,
        connection=world.connection,
        invoice=invoice,
        transaction=paid,
        status="REFUSED",
        why="The invoice is void there.",
        tries=3,
    )
    act(log_in(staff(world, "viewer")), BillerNote, "retry", [note], confirmed="yes", reason="r")
    assert BillerNote.objects.get().status == "REFUSED"
    ann = staff(world, "support")
    page = act(log_in(ann), BillerNote, "retry", [note]).content.decode()
    assert "Last time: The invoice is void there." in page
    assert BillerNote.objects.get().status == "REFUSED", "asked first"
    page = act(log_in(ann), BillerNote, "retry", [note], confirmed="yes", reason="reopened there").content.decode()
    again = BillerNote.objects.get()
    assert (again.status, again.tries) == ("WAITING", 0)
    event = Event.objects.get(invoice=invoice, kind="note.retried")
    assert (event.actor, event.cause) == (f"user:{ann.pk}", "staff: reopened there")
    succeeded = Event.objects.get(invoice=invoice, kind="transaction.succeed", subject_id=paid.public_id)
    assert OutboxMessage.objects.get(event=succeeded, consumer=NAME).done_at is None
    page = act(log_in(ann), BillerNote, "retry", [note], confirmed="yes", reason="twice").content.decode()
    assert "there is nothing to try again" in page


def test_everything_that_failed_is_replayed_at_once(world: World, log_in: LogIn) -> None:
    fill(world)
    first = InboxEvent.objects.get()
    first.fail()
    first.save()
    for number in range(3):
        more = InboxEvent(
            merchant=world.merchant,
            endpoint=first.endpoint,
            provider_event_id=f"evt_more_{number}",
            event_type="x",
            body="{}",
            body_hash="0" * 64,
            received_at=world.at,
        )
        more.save()
        if number:
            more.fail()
            more.save()
    page = act(log_in(staff(world, "viewer")), InboxEvent, "replay_failed", [first], confirmed="yes", reason="r")
    assert InboxEvent.objects.filter(status="FAILED").count() == 3, page.content.decode()
    act(log_in(staff(world, "support")), InboxEvent, "replay_failed", [first], confirmed="yes", reason="repaired")
    assert InboxEvent.objects.filter(status="RECEIVED").count() == 4


def test_managers_make_outbound_endpoints_and_see_the_secret_once(world: World, log_in: LogIn) -> None:
    page = "/admin/webhooks/outboundendpoint/add/"
    assert log_in(staff(world, "support")).post(page, {}).status_code == 403
    client = log_in(staff(world, "manager"))
    told = {"merchant": world.merchant.pk, "url": "https://hooks.example.com/in", "event_types": ["retry_success"]}
    refused = client.post(page, {**told, "url": "https://10.0.0.1/"}).content.decode()
    assert "leads into a private network" in refused
    shown = client.post(page, told)
    endpoint = OutboundEndpoint.objects.get()
    assert (endpoint.merchant, endpoint.event_types) == (world.merchant, ["retry_success"])
    (secret,) = re.findall(r"<code>(whsec_[^<]+)</code>", shown.content.decode())
    assert signing_secrets(endpoint, world.at) == [secret]
    assert "no-store" in shown["Cache-Control"]
    assert secret not in client.get(change(endpoint)).content.decode()
    client.post(change(endpoint), {"url": "https://hooks.example.com/new", "description": "Shop"})
    endpoint = OutboundEndpoint.objects.get()
    assert (endpoint.url, str(endpoint), endpoint.event_types) == ("https://hooks.example.com/new", "Shop", [])
    rotated = act(client, OutboundEndpoint, "new_secret", [endpoint], confirmed="yes", reason="leaked")
    assert f"<code>{signing_secrets(OutboundEndpoint.objects.get(), world.at)[0]}</code>" in rotated.content.decode()
    act(client, OutboundEndpoint, "switch_off", [endpoint], confirmed="yes", reason="moving")
    assert OutboundEndpoint.objects.get().disabled_reason == "moving"
    act(client, OutboundEndpoint, "switch_on", [endpoint], confirmed="yes", reason="moved")
    assert OutboundEndpoint.objects.get().enabled is True


def test_support_sends_deliveries_again_and_managers_all_that_was_given_up(world: World, log_in: LogIn) -> None:
    fill(world)
    delivery = Delivery.objects.get()
    delivery.give_up()
    delivery.save()
    client = log_in(staff(world, "support"))
    log = client.get(change(delivery)).content.decode()
    assert "12" in log
    assert "case_opened" in log
    act(client, Delivery, "replay", [delivery], confirmed="yes", reason="repaired")
    again = Delivery.objects.get()
    assert (again.status, again.tries) == ("PENDING", 0)
    assert "still on its way" in act(
        client, Delivery, "replay", [delivery], confirmed="yes", reason="repaired"
    ).content.decode().replace("&#x27;", "'")
    again.give_up()
    again.save()
    act(client, OutboundEndpoint, "replay_dead", [delivery.endpoint], confirmed="yes", reason="r")
    assert Delivery.objects.get().status == "DEAD", "not for support"
    act(
        log_in(staff(world, "manager")),
        OutboundEndpoint,
        "replay_dead",
        [delivery.endpoint],
        confirmed="yes",
        reason="repaired",
    )
    assert Delivery.objects.get().status == "PENDING"


def test_connections_are_switched_by_managers_only(world: World, log_in: LogIn) -> None:
    act(log_in(staff(world, "support")), Connection, "disable", [world.connection], confirmed="yes", reason="r")
    assert Connection.objects.get().enabled is True
    act(log_in(staff(world, "manager")), Connection, "disable", [world.connection], confirmed="yes", reason="r")
    assert Connection.objects.get().enabled is False
    act(log_in(staff(world, "manager")), Connection, "enable", [world.connection], confirmed="yes", reason="r")
    assert Connection.objects.get().enabled is True


def test_reconciliation_is_ordered_by_managers_only(world: World, log_in: LogIn) -> None:
    """The third way beside the schedule and the command: the worker carries it out, the page does not wait for it."""
    act(log_in(staff(world, "support")), Connection, "reconcile", [world.connection], confirmed="yes", reason="x")
    assert not OrmQ.objects.exists()
    manager = log_in(staff(world, "manager"))
    page = act(manager, Connection, "reconcile", [world.connection]).content.decode()
    assert "looked up at the provider now" in page
    assert not OrmQ.objects.exists()
    act(manager, Connection, "reconcile", [world.connection], confirmed="yes", reason="a webhook was lost")
    assert [order.func() for order in OrmQ.objects.all()] == ["retries.tasks.reconcile_sweep"]


def test_review_items_are_answered_in_the_queue_not_here(world: World, log_in: LogIn) -> None:
    fill(world)
    item = ReviewItem.objects.get(kind="paid_twice")
    page = log_in(staff(world, "owner")).get(change(item)).content.decode()
    assert "invoice_amount_minor" in page
    assert 'name="resolution"' not in page


def test_global_rows_are_for_superusers(world: World, log_in: LogIn) -> None:
    client = log_in(staff(world, "owner"))
    assert client.get(changelist(GlobalSwitch)).status_code == 403
    assert client.get(reverse("admin:retries_beat_changelist")).status_code == 403
    assert client.get(changelist(User)).status_code == 403
    assert Merchant.objects.count() == 1
