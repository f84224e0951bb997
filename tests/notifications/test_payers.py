"""The payer's pages: what is owed and what can be done, for the holder of the link only; charges by the one road."""

import re
from datetime import timedelta
from html import unescape
from pathlib import Path

import pytest
from django.http import HttpResponse
from django.test import Client

from accounts.states import Role
from invoices.models import Invoice
from notifications.catalogue import LANGUAGES, wording
from notifications.links import link_token, unsubscribe_token
from notifications.models import PaymentLink, Suppression
from notifications.services.links import link_issue, links_revoke
from recovery_site.common.errors import Conflict
from retries.models import RetryJob
from retries.policy import preset_document
from retries.services.cases import policy_version_create
from retries.services.manual import case_pause, customer_pay, invoice_cancel
from tests.console.world import kinds
from tests.notifications.post import WARM, Post
from tokens.models import Token

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Post:
    made = Post()
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: made.at)
    return made


def owed(world: Post, *, code: str = "expired_card", **known: object) -> Invoice:
    invoice = world.fail(code=code, number="INV-7", **known)  # type: ignore[arg-type]
    world.know(invoice, **{**WARM, "timezone": "Europe/Berlin"})
    return invoice


def link_to(world: Post, invoice: Invoice) -> str:
    """The address of a page, by a link that support has issued."""
    return address(link_issue(invoice=invoice, issued_by="user:1", now=world.at))


def address(link: PaymentLink) -> str:
    return f"/pay/{link_token(link.public_id)}/"


def text_of(response: HttpResponse) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))).replace(
        "\N{NO-BREAK SPACE}", " "
    )


def test_page_says_what_is_owed_to_whom_and_why_and_keeps_itself_secret(world: Post, client: Client) -> None:
    invoice = owed(world)
    response = client.get(link_to(world, invoice))
    page = text_of(response)
    for part in ("Payment to Acme", "$49.90", "Invoice INV-7", "Visa ending in 4242", "The card has expired."):
        assert part in page
    assert "expired_card" not in response.content.decode()
    assert "<script" not in response.content.decode()
    assert response.cookies == {}
    assert response["Referrer-Policy"] == "no-referrer"
    assert "no-store" in response["Cache-Control"]
    assert response["X-Robots-Tag"].startswith("noindex")
    assert response["X-Frame-Options"] == "DENY"
    policy = response["Content-Security-Policy"]
    assert "script-src 'none'" in policy
    assert "form-action 'self' https:" in policy
    assert "default-src 'self'" in policy


@pytest.mark.parametrize("language", LANGUAGES)
def test_page_speaks_the_customers_language_and_others_on_demand(world: Post, client: Client, language: str) -> None:
    invoice = owed(world)
    link = link_to(world, invoice)
    title = wording(language).say("page", "title", merchant="Acme")
    assert title in text_of(client.get(f"{link}?lang={language}"))
    world.know(invoice, locale=f"{language}-XX")
    page = client.get(link).content.decode()
    assert title in page
    assert f'<html lang="{language}"' in page


def test_links_that_do_not_work_get_a_kind_page_that_tells_nothing(world: Post, client: Client) -> None:
    invoice = owed(world)
    good = link_issue(invoice=invoice, issued_by="user:1", now=world.at)
    token = link_token(good.public_id)
    foreign = link_token("lnk_" + "0" * 26)  # ours by its signature, but nobody's
    answers = set()
    for bad in (token[:-1], token[:-2] + ("aa" if token[-2:] != "aa" else "bb"), token.replace(".", "x"), foreign, "x"):
        for method in ("get", "post"):
            for part in ("", "pay/", "method/", "confirm/"):
                if (method, part) in {("post", ""), ("get", "pay/"), ("get", "method/")}:
                    continue
                response = getattr(client, method)(f"/pay/{bad}/{part}")
                assert response.status_code == 404
                answers.add(response.content)
    assert len(answers) == 1  # tampered, foreign and invented links cannot be told apart
    page = text_of(client.get(f"/pay/{token[:-1]}/", headers={"accept-language": "pt, de-CH;q=0.8"}))
    assert "Dieser Link funktioniert nicht" in page
    secret = ("Acme", "49.90", "INV-7", "4242", "Ann")
    links_revoke(invoice_pk=invoice.pk, by="user:1", now=world.at)
    revoked = client.get(address(good))
    assert revoked.status_code == 410
    world.wait(days=30)
    expired = client.get(link_to_past(world, invoice))
    assert expired.status_code == 410
    assert revoked.content == expired.content
    for response in (page, text_of(revoked)):
        assert not any(word in response for word in secret)
    assert not RetryJob.objects.filter(trigger="customer").exists()


def link_to_past(world: Post, invoice: Invoice) -> str:
    return address(link_issue(invoice=invoice, issued_by="user:1", now=world.at - timedelta(days=30)))


def test_paid_and_canceled_invoices_get_a_kind_page_without_amounts(world: Post, client: Client) -> None:
    paid, canceled = owed(world), owed(world, customer="cus_bob", token="tok_bob")
    links = [link_to(world, invoice) for invoice in (paid, canceled)]
    world.pay(paid)
    invoice_cancel(invoice_pk=canceled.pk, stamp=world.stamp(), reason="x")
    for link, title in zip(links, ("All paid, thank you", "Nothing to pay"), strict=True):
        page = text_of(client.get(link))
        assert title in page
        assert "49.90" not in page
        assert client.post(f"{link}pay/").status_code == 303
    assert not RetryJob.objects.filter(status="SCHEDULED").exists()


def test_pay_now_books_one_charge_at_once_by_the_charge_protocol(world: Post, client: Client) -> None:
    invoice = owed(world, code="insufficient_funds")
    link = link_to(world, invoice)
    world.wait(hours=2)
    assert "Pay $49.90 now" in text_of(client.get(link))
    assert client.post(f"{link}pay/")["Location"] == link
    job = RetryJob.objects.get(invoice=invoice)
    assert (job.status, job.trigger, job.due_at) == ("SCHEDULED", "customer", world.at)
    assert job.requested_by == "customer"
    page = client.get(link)
    assert "Your payment is being processed" in text_of(page)
    # It may look for news by itself, and says by a header when there are some; without script there is the link.
    assert "script-src 'self'" in page["Content-Security-Policy"]
    assert client.head(link)["X-Payment-Working"] == "1"
    assert f'<a class="button quiet" href="{link}">Check again</a>' in page.content.decode()
    client.post(f"{link}pay/")  # the page offers nothing any more: a second click books nothing
    assert kinds(invoice).count("customer.pay") == 1
    attempt = world.charge("ok")
    assert (attempt.trigger, world.again(invoice).status) == ("customer", "SETTLED")
    page = client.get(link)
    assert "All paid, thank you" in text_of(page)
    assert "X-Payment-Working" not in page.headers
    assert world.case(invoice).recovered_by == "customer"


def test_declined_payment_comes_back_with_the_reason_in_words(world: Post, client: Client) -> None:
    invoice = owed(world, code="insufficient_funds")
    link = link_to(world, invoice)
    client.post(f"{link}pay/")
    world.charge("card_velocity_exceeded")
    page = text_of(client.get(link))
    assert "The last payment did not go through. The card's limit was reached." in page
    assert "velocity" not in page


def test_new_card_resumes_the_case_at_once_and_network_limits_hold(world: Post, client: Client) -> None:
    invoice = owed(world)
    link = link_to(world, invoice)
    assert "Pay $49.90 now" not in text_of(client.get(link))  # the expired card is not offered
    assert client.post(f"{link}method/", {"card": "nonsense"})["Location"].endswith("?notice=refused")
    assert client.post(f"{link}method/", {"card": "ok"})["Location"] == link
    token = Token.objects.filter(customer=invoice.customer).latest("pk")
    job = RetryJob.objects.get(invoice=invoice, status="SCHEDULED")
    assert (job.trigger, job.token_id, job.due_at) == ("card_update", token.pk, world.at)
    assert token.is_default
    assert kinds(invoice)[-1] == "page.method_updated"
    attempt = world.charge("ok")
    assert (attempt.trigger, attempt.token_id) == ("card_update", token.pk)
    assert world.again(invoice).status == "SETTLED"


def test_where_no_automatic_charge_may_go_the_payers_own_payment_does(world: Post, client: Client) -> None:
    """After a lost dispute a new card resumes nothing by itself: the payer, who was told the amount, pays."""
    invoice = owed(world)
    case = world.case(invoice)
    type(case).objects.filter(pk=case.pk).update(automatic_barred=True)
    link = link_to(world, invoice)
    assert "Your bank has taken the payment back." in text_of(client.get(link))
    client.post(f"{link}method/", {"card": "ok"})
    job = RetryJob.objects.get(invoice=invoice, status="SCHEDULED")
    assert job.trigger == "customer"


def test_policys_budget_for_customers_holds_and_the_card_that_was_given_stays(world: Post, client: Client) -> None:
    document = preset_document("standard")
    document["budgets"] = {**document["budgets"], "customer": 0, "card_update": 0}
    policy_version_create(merchant_id=world.merchant.pk, document=document, note="", created_by="test")
    invoice = owed(world)
    link = link_to(world, invoice)
    client.post(f"{link}method/", {"card": "ok"})
    assert not RetryJob.objects.filter(invoice=invoice, trigger__in=("customer", "card_update")).exists()
    assert Token.objects.filter(customer=invoice.customer).count() == 2
    with pytest.raises(Conflict, match="The policy's 0 tries by the customer of this case are used up"):
        customer_pay(invoice_pk=invoice.pk, stamp=world.stamp())
    assert client.post(f"{link}pay/")["Location"].endswith("?notice=refused")
    assert "That is not possible right now." in text_of(client.get(f"{link}?notice=refused"))


def test_payer_may_pay_a_case_that_staff_have_paused_and_the_pause_stays(world: Post, client: Client) -> None:
    invoice = owed(world, code="insufficient_funds")
    case_pause(invoice_pk=invoice.pk, stamp=world.stamp("user:1"), reason="will call")
    client.post(f"{link_to(world, invoice)}pay/")
    world.charge("insufficient_funds")
    case = world.case(invoice)
    assert (case.paused_by, case.next_step) == ("user:1", "paused")


def test_bank_that_asks_is_answered_and_the_charge_goes_out(
    world: Post, client: Client, tmp_path: Path, settings: object
) -> None:
    settings.DATA_DIR = tmp_path  # type: ignore[attr-defined]
    invoice = owed(world, code="authentication_required", token="tok_decline_authentication_required__ann")
    link = link_to(world, invoice)
    page = text_of(client.get(link))
    assert "Confirm with my bank" in page
    assert "Pay $49.90 now" not in page
    bank = client.post(f"{link}confirm/")
    assert "Yes, it is me" in text_of(bank)
    assert client.post(f"{link}confirm/", {"answer": "no"})["Location"] == link
    assert not RetryJob.objects.filter(trigger="customer").exists()
    assert client.post(f"{link}confirm/", {"answer": "yes"})["Location"] == link
    assert RetryJob.objects.get(invoice=invoice, status="SCHEDULED").trigger == "customer"
    assert "page.confirmed" in kinds(invoice)


def test_click_is_one_touch_per_visit_and_robots_leave_none(world: Post, client: Client) -> None:
    invoice = owed(world)
    world.drain()
    message = world.message(invoice, "update_card")
    assert message.link is not None
    link = address(message.link)
    client.head(link)
    client.get(link, headers={"sec-purpose": "prefetch"})
    assert "message.clicked" not in kinds(invoice)
    client.get(link)
    client.get(link)
    world.wait(hours=2)
    client.get(link)
    assert kinds(invoice).count("message.clicked") == 2
    message = world.message(invoice, "update_card")
    assert message.clicked_at is not None
    assert message.last_clicked_at == message.clicked_at + timedelta(hours=2)
    client.post(f"{link}method/", {"card": "ok"})
    assert world.message(invoice, "update_card").acted_at == world.at


@pytest.mark.parametrize("provider", ["generic", "stripe"])
def test_provider_without_pages_names_the_merchants_own(world: Post, client: Client, provider: str) -> None:
    """Stripe has pages, but none can be asked for by a connection that only watches and has no key."""
    generic = Post(name="Northwind", provider="generic")
    invoice = generic.fail(code="expired_card")
    type(generic.connection).objects.filter(pk=generic.connection.pk).update(provider=provider, mode="observe")
    link = link_to(generic, invoice)
    page = text_of(client.get(link))
    assert "To change your payment method, please contact Northwind." in page
    assert "Pay $49.90 now" not in page
    assert client.post(f"{link}method/", {"card": "ok"})["Location"].endswith("?notice=refused")
    generic.settings(method_url="https://shop.example/account", contact="help@shop.example")
    page = client.get(link).content.decode()
    assert 'href="https://shop.example/account"' in page
    assert "Questions? help@shop.example" in page


def test_unsubscribing_takes_one_click_of_a_mail_program_or_two_of_a_person(world: Post, client: Client) -> None:
    invoice = owed(world)
    world.drain()
    message = world.message(invoice, "update_card")
    stop = f"/pay/stop/{unsubscribe_token(message.public_id)}/"
    page = text_of(client.get(stop))
    assert "Acme will no longer write to this address" in page
    assert not Suppression.objects.exists()  # scanners follow links
    strict = Client(enforce_csrf_checks=True)
    done = strict.post(stop, {"List-Unsubscribe": "One-Click"})
    assert done.status_code == 200
    assert "You are unsubscribed" in text_of(done)
    strict.post(stop)
    row = Suppression.objects.get()
    assert (row.address, row.reason, row.message_id) == ("cus_ann@example.com", "opt_out", message.pk)
    assert client.post("/pay/stop/x.y/").status_code == 404
    world.wait(days=400)
    assert client.get(stop).status_code == 200  # an opt-out outlives every payment link
    assert client.get(f"/pay/{unsubscribe_token(message.public_id)}/").status_code == 404


def test_payers_link_on_the_message_page_is_for_those_who_may_act(world: Post, client: Client) -> None:
    invoice = owed(world)
    world.drain()
    message = world.message(invoice, "update_card")
    page = f"/dashboard/messages/{message.public_id}/"
    client.force_login(world.person(Role.VIEWER, username="vera"))
    shown = client.get(page).content.decode()
    assert "Please update your payment method for Acme" in shown
    assert "/pay/" not in shown
    frame = client.get(f"{page}html/")
    assert "/pay/" not in frame.content.decode()
    assert frame["X-Frame-Options"] == "SAMEORIGIN"
    assert "script-src 'none'" in frame["Content-Security-Policy"]
    client.force_login(world.person(Role.SUPPORT, username="sofia"))
    assert message.link is not None
    assert address(message.link) in client.get(page).content.decode()
    other = Post(name="Northwind")
    client.force_login(other.person(Role.OWNER, username="olga"))
    assert client.get(page).status_code == 404
