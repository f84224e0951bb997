"""The case page: who sees it, what it shows, what its buttons do, and how it follows the ledger."""

import re
from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from accounts.services import membership_set
from invoices.models import Event, Invoice, Transaction
from retries.models import RetryJob
from tests.console.world import World, kinds

LogIn = Callable[[User], Client]


def address(invoice: Invoice, action: str = "") -> str:
    return f"/console/invoices/{invoice.public_id}/{f'{action}/' if action else ''}"


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


# --- who ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["viewer", "support", "manager", "owner"])
def test_members_of_every_role_may_read(world: World, log_in: LogIn, role: str) -> None:
    response = log_in(world.person(role)).get(address(world.fail()))
    assert response.status_code == 200


def test_a_stranger_cannot_tell_it_from_an_invoice_that_does_not_exist(world: World, log_in: LogIn) -> None:
    invoice, stranger = world.fail(), World(name="Other").person("owner")
    client = log_in(stranger)
    paths = [address(invoice), address(invoice, "live"), "/console/invoices/inv_nothing/"]
    assert [client.get(path).status_code for path in paths] == [404, 404, 404]
    assert client.post(address(invoice, "retry"), {"reason": "r"}).status_code == 404
    assert RetryJob.objects.get().requested_by == "provider:simulator"


def test_a_superuser_needs_no_membership(world: World, log_in: LogIn) -> None:
    boss = User.objects.create_superuser("boss", password="x")
    assert log_in(boss).get(address(world.fail())).status_code == 200


def test_without_a_log_in_there_is_only_the_log_in(world: World, client: Client) -> None:
    invoice = world.fail()
    response = client.get(address(invoice))
    assert response.status_code == 302
    assert "/login/" in response["Location"]
    polled = client.get(address(invoice, "live"))
    assert (polled.status_code, polled.content, polled["HX-Refresh"]) == (204, b"", "true")


def test_an_account_that_was_switched_off_sees_nothing(world: World, log_in: LogIn) -> None:
    ann = world.person()
    client = log_in(ann)
    ann.is_active = False
    ann.save()
    assert client.get(address(world.fail())).status_code == 302


# --- what it shows --------------------------------------------------------------------------------


def test_everything_stands_on_one_page(world: World, log_in: LogIn) -> None:
    invoice = world.fail(number="INV-7")
    world.wait(hours=25)
    world.charge("processing_error")
    response = log_in(world.person()).get(address(invoice))
    text = text_of(response.content.decode())
    for expected in (
        "INV-7",
        "$49.90",
        "Retry booked",
        "Retry 1 of 3 after processing error.",
        "Insufficient funds",
        "Processing error",
        "Visa •••• 4242",
        "13 of 15 attempts left",
        "Visa's 15 declines in 30 days for the same amount".replace("'", "&#x27;"),
        "Recovery began: $49.90 at risk.",
        "new customer",
        "version 1",
        "cus_ann@example.com",
        invoice.provider_invoice_id or "",
    ):
        assert expected in text, expected


def test_no_secret_and_no_token_of_the_provider_is_on_the_page(world: World, log_in: LogIn) -> None:
    page = log_in(world.person()).get(address(world.fail(token="tok_secret_9"))).content.decode()
    assert "tok_secret_9" not in page
    assert "fp_tok_secret_9" not in page


def test_what_outsiders_wrote_is_escaped(world: World, log_in: LogIn) -> None:
    invoice = world.fail(number="<script>alert(1)</script>", code="<img src=x>")
    page = log_in(world.person()).get(address(invoice)).content.decode()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_buttons_are_only_for_legal_moves_and_for_those_who_may(world: World, log_in: LogIn) -> None:
    invoice = world.fail()
    support, viewer = world.person("support"), world.person("viewer")

    def buttons(user: User) -> set[str]:
        page = log_in(user).get(address(invoice)).content.decode()
        moves = set(re.findall(rf'action="{address(invoice)}([a-z_]+)/"', page))
        return moves - {"note", "assign"}  # which move nothing

    assert buttons(support) == {"retry", "pause", "cancel", "write_off"}
    assert buttons(viewer) == set()
    world.wait(hours=25)
    world.charge("ok")
    assert buttons(support) == {"refund"}


def test_every_form_works_without_script_and_names_its_fields(world: World, log_in: LogIn) -> None:
    page = log_in(world.person()).get(address(world.fail())).content.decode()
    forms = re.findall(r"<form.*?</form>", page, re.DOTALL)
    console = [form for form in forms if "/console/" in form]
    assert len(console) == 6
    for form in console:
        assert 'method="post"' in form
        assert "csrfmiddlewaretoken" in form
        assert 'name="reason" required' in form or "/note/" in form or "/assign/" in form
    assert "onclick" not in page
    assert "style=" not in page


# --- what the buttons do --------------------------------------------------------------------------


def test_retry_now_books_it_for_the_person_and_says_so(world: World, log_in: LogIn) -> None:
    invoice, ann = world.fail(), world.person(first_name="Ann", last_name="Lee")
    client = log_in(ann)
    response = client.post(address(invoice, "retry"), {"reason": "called us"}, follow=True)
    assert response.redirect_chain == [(address(invoice), 302)]
    assert "The retry with Visa •••• 4242 is booked and leaves within moments." in response.content.decode()
    job = RetryJob.objects.get()
    assert (job.trigger, job.due_at, job.requested_by) == ("staff", world.at, f"user:{ann.pk}")
    event = Event.objects.get(kind="staff.retry")
    assert (event.actor, event.cause, event.data["reason"]) == (f"user:{ann.pk}", "staff: called us", "called us")
    assert "Ann Lee" in client.get(address(invoice)).content.decode()
    (attempt,) = world.send()
    assert (attempt.trigger, attempt.origin) == ("staff", "OURS")


def test_retry_with_a_chosen_card_at_a_chosen_time(world: World, log_in: LogIn) -> None:
    invoice = world.fail()
    world.add_token(invoice, "tok_spare", network="mastercard", last4="4444")
    client = log_in(world.person())
    page = client.get(address(invoice)).content.decode()
    (spare,) = re.findall(r'<option value="(tok_\w+)">Mastercard', page)
    client.post(address(invoice, "retry"), {"reason": "r", "token": spare, "due_at": "2026-11-23T08:30"})
    job = RetryJob.objects.select_related("token__card").get(status="SCHEDULED")
    assert job.token is not None
    assert (job.token.card.last4, job.due_at.isoformat()) == ("4444", "2026-11-23T08:30:00+00:00")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "Say why; the reason is kept in the invoice&#x27;s history."),
        ({"reason": "   "}, "Say why; the reason is kept in the invoice&#x27;s history."),
        ({"reason": "x" * 181}, "Keep the reason below 180 characters."),
        ({"reason": "r", "token": "tok_other"}, "Choose one of the customer&#x27;s payment methods."),
        ({"reason": "r", "due_at": "tomorrow"}, "Write the time like 2026-11-21 09:00 (UTC), or leave it empty."),
        ({"reason": "r", "due_at": "2026-11-19T12:00"}, "This time is over; leave it empty to retry now."),
    ],
)
def test_a_form_that_is_not_filled_in_comes_back_open(
    world: World, log_in: LogIn, fields: dict[str, str], error: str
) -> None:
    invoice = world.fail()
    before = kinds(invoice)
    response = log_in(world.person()).post(address(invoice, "retry"), fields)
    page = response.content.decode()
    assert response.status_code == 400
    assert error in page
    assert page.count('<details class="dialog" open>') == 1
    assert kinds(invoice) == before


def test_what_was_typed_survives_a_refusal(world: World, log_in: LogIn) -> None:
    """A network's limit is in the way: the question stays open with the reason and says from when on it works."""
    invoice = world.fail(network="mastercard", code="processing_error")
    for _ in range(9):
        world.fail(invoice=invoice.provider_invoice_id or "", network="mastercard", code="processing_error")
    response = log_in(world.person()).post(address(invoice, "retry"), {"reason": "long explanation"})
    page = response.content.decode()
    assert response.status_code == 409
    assert "may not be charged before 2026-11-21 12:00 UTC" in page
    assert ">long explanation</textarea>" in page
    assert page.count('<details class="dialog" open>') == 1


def test_a_refusal_is_told_even_when_its_button_is_gone(world: World, log_in: LogIn) -> None:
    """A charge went out between looking and asking."""
    invoice, client = world.fail(), log_in(world.person())
    world.wait(hours=25)
    world.send()
    response = client.post(address(invoice, "retry"), {"reason": "r"})
    page = response.content.decode()
    assert response.status_code == 409
    assert "The result of an earlier charge is still open" in page
    assert 'role="alert"' in page
    assert world.send() == []


def test_pause_and_resume(world: World, log_in: LogIn) -> None:
    invoice, client = world.fail(), log_in(world.person())
    client.post(address(invoice, "pause"), {"reason": "wait for the customer"})
    assert (world.case(invoice).next_step, RetryJob.objects.get().status) == ("paused", "PAUSED")
    client.post(address(invoice, "resume"), {"reason": "go on"})
    assert (world.case(invoice).next_step, RetryJob.objects.get().status) == ("booked", "SCHEDULED")


@pytest.mark.parametrize(("action", "status"), [("cancel", "CANCELED"), ("write_off", "WRITTEN_OFF")])
def test_cancel_and_write_off(world: World, log_in: LogIn, action: str, status: str) -> None:
    invoice, client = world.fail(), log_in(world.person())
    response = client.post(address(invoice, action), {"reason": "bankrupt"}, follow=True)
    assert response.status_code == 200
    assert (world.again(invoice).status, world.case(invoice).status) == ("CANCELED", status)
    assert client.post(address(invoice, action), {"reason": "again"}).status_code == 409


def test_refunds_in_the_invoices_own_currency(world: World, log_in: LogIn) -> None:
    invoice, client = world.fail(currency="KWD", amount=12_500), log_in(world.person())
    world.wait(hours=25)
    world.charge("ok")
    refused = client.post(address(invoice, "refund"), {"reason": "r", "amount": "12.501"})
    assert refused.status_code == 400
    assert "Enter an amount above zero, at most KWD" in text_of(refused.content.decode())
    assert client.post(address(invoice, "refund"), {"reason": "r", "amount": "0"}).status_code == 400
    assert client.post(address(invoice, "refund"), {"reason": "r", "amount": "1.2345"}).status_code == 400
    assert not Transaction.objects.filter(kind="REFUND").exists()
    client.post(address(invoice, "refund"), {"reason": "half", "amount": "2.5"})
    assert Transaction.objects.get(kind="REFUND").amount_minor == 2_500
    client.post(address(invoice, "refund"), {"reason": "rest"})
    assert sorted(Transaction.objects.filter(kind="REFUND").values_list("amount_minor", flat=True)) == [2_500, 10_000]


def test_viewers_cannot_act_even_by_hand(world: World, log_in: LogIn) -> None:
    invoice, client = world.fail(), log_in(world.person("viewer"))
    before = kinds(invoice)
    for action in ("retry", "pause", "cancel", "write_off", "refund", "resume"):
        assert client.post(address(invoice, action), {"reason": "r"}).status_code == 403
    assert kinds(invoice) == before


def test_actions_are_posts_with_a_token_of_their_own(world: World) -> None:
    invoice, ann = world.fail(), world.person()
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(ann)
    assert strict.get(address(invoice, "pause")).status_code == 302
    assert strict.post(address(invoice, "pause"), {"reason": "r"}).status_code == 403
    assert world.case(invoice).paused_by == ""


def test_an_action_nobody_knows_is_not_found(world: World, log_in: LogIn) -> None:
    assert log_in(world.person()).post(address(world.fail(), "explode"), {"reason": "r"}).status_code == 404


def test_a_role_that_was_taken_away_ends_at_once(world: World, log_in: LogIn) -> None:
    invoice, ann = world.fail(), world.person()
    client = log_in(ann)
    membership_set(user=ann, merchant=world.merchant, role=None)
    assert client.post(address(invoice, "pause"), {"reason": "r"}).status_code == 404


# --- how it follows -------------------------------------------------------------------------------


def poll_url(page: str) -> str:
    (url,) = re.findall(r'hx-get="([^"]+)"', page)
    return url.replace("&amp;", "&")


def test_polling_brings_only_what_changed(world: World, log_in: LogIn) -> None:
    invoice, client = world.fail(), log_in(world.person())
    page = client.get(address(invoice)).content.decode()
    quiet = client.get(poll_url(page)).content.decode()
    assert 'id="next-step"' in quiet
    assert "hx-swap-oob" not in quiet
    world.wait(hours=25)
    world.send()
    news = client.get(poll_url(page)).content.decode()
    swapped = set(re.findall(r'id="([a-z-]+)"[^>]*hx-swap-oob="true"', news))
    assert swapped == {"status", "attempts", "timeline", "amounts", "methods", "case", "notes", "assignee", "actions"}
    assert "Sending" in news
    assert poll_url(news) != poll_url(page)
    assert "hx-swap-oob" not in client.get(poll_url(news)).content.decode()


def test_a_closed_invoice_is_asked_for_news_less_often(world: World, log_in: LogIn) -> None:
    invoice, client = world.fail(), log_in(world.person())
    assert 'hx-trigger="every 5s"' in client.get(address(invoice)).content.decode()
    world.pay(invoice)
    assert 'hx-trigger="every 30s"' in client.get(address(invoice)).content.decode()


def test_the_page_costs_a_constant_number_of_queries(
    world: World, log_in: LogIn, django_assert_num_queries: Callable[..., object]
) -> None:
    invoice, client = world.fail(), log_in(world.person())
    client.get(address(invoice))
    with CaptureQueriesContext(connection) as few:
        client.get(address(invoice))
    assert len(few) < 30
    for _ in range(3):
        world.wait(hours=30)
        world.fail(invoice=invoice.provider_invoice_id or "")
    world.add_token(invoice, "tok_spare", last4="1111")
    with django_assert_num_queries(len(few)):
        client.get(address(invoice))
