"""Messages of a case: planned, decided, sent once, written down; never after payment, never to who said no."""

import smtplib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.db import IntegrityError

from invoices.models import Event
from notifications.links import link_read, unsubscribe_read
from notifications.models import Message, PaymentLink, Suppression
from notifications.services.mailing import Passage, Result
from notifications.services.planning import messages_follow
from notifications.services.suppressions import address_suppress, suppression_lift
from notifications.services.work import BACK_OFF, message_answer, messages_drain
from notifications.states import Sender, SuppressionReason
from recovery_site.common.db import DatabaseClock
from retries.services.manual import case_pause, case_resume
from tests.console.world import kinds
from tests.notifications.post import WARM, Post, html_of, sent

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> Post:
    """It is 12:00 UTC: 07:00 in New York, where it is still quiet, 13:00 in Berlin."""
    return Post()


def hard(world: Post, **facts: str) -> Any:
    """A failure that only the customer can mend; they live where it is day."""
    invoice = world.fail(code="expired_card", number="INV-7")
    world.know(invoice, **{**WARM, "timezone": "Europe/Berlin", **facts})
    return invoice


def test_case_gets_one_row_per_step_however_often_its_events_are_told(world: Post) -> None:
    invoice = hard(world)
    world.drain()
    for event in Event.objects.filter(invoice=invoice):
        messages_follow(event)
    rows = Message.objects.filter(invoice=invoice).order_by("step")
    assert [(row.step, row.template, row.planned_for - world.at) for row in rows] == [
        (0, "authentication_link", timedelta()),
        (1, "update_card", timedelta()),
        (2, "payment_failed", timedelta(hours=3)),
        (3, "reminder", timedelta(days=7)),
        (4, "final_notice", timedelta(days=14)),
    ]
    with pytest.raises(IntegrityError):
        Message.objects.bulk_create([Message(**{name: getattr(rows[0], name) for name in _COPIED})])


_COPIED = ("merchant_id", "customer_id", "invoice_id", "case_id", "audience", "template", "step", "planned_for")


def test_hard_decline_asks_for_another_card_in_plain_text_and_html(world: Post) -> None:
    invoice = hard(world)
    assert world.drain() == {"waiting": 1, "sent": 1}
    (told,) = sent()
    assert told.to == ["cus_ann@example.com"]
    assert told.from_email == "Acme <recovery@localhost>"
    assert told.subject == "Please update your payment method for Acme"
    message = world.message(invoice, "update_card")
    link = told.body.partition("Update payment method:\n")[2].partition("\n")[0]
    token = link.removeprefix("http://127.0.0.1:8000/pay/").rstrip("/")
    assert message.link is not None
    assert link_read(token) == message.link.public_id
    assert told.body.startswith(
        "Hello Ann Lee,\n\nWe could not collect $49.90 for Invoice INV-7. The card has expired.\n\n"
        "It will not work with Visa ending in 4242 any more."
    )
    assert html_of(told).count(f'href="{link}"') == 2
    assert "We could not collect $49.90 for Invoice INV-7. The card has expired." in html_of(told)
    assert "expired_card" not in told.body + html_of(told)
    assert "%%" not in told.body + html_of(told)
    # What is stored holds no secret.
    assert token not in message.text + message.html
    assert (message.status, message.sent_at, message.address) == ("SENT", world.at, "cus_ann@example.com")
    assert (message.locale, message.source) == ("en-US", "shipped/en/update_card")
    failure = invoice.attempts.get()
    assert message.attempt_id == failure.pk
    wanted, left = invoice.events.filter(kind__startswith="message.").order_by("seq")
    assert (wanted.kind, left.kind) == ("message.wanted", "message.sent")
    assert wanted.data == {
        "message": message.public_id,
        "template": "update_card",
        "segment": "new_customer",
        "category": "HARD_DECLINE",
        "locale": "en-US",
        "case": world.case(invoice).public_id,
        "attempt": failure.public_id,
        "sender": "ours",
    }


def test_headers_let_people_stop_it_with_one_click_and_machines_know_it(world: Post) -> None:
    invoice = hard(world)
    world.settings(reply_to="help@acme.example", sender_name="Acme Billing", contact="help@acme.example")
    world.drain()
    (told,) = sent()
    headers = dict(told.message().items())
    message = world.message(invoice, "update_card")
    address = headers["List-Unsubscribe"].strip("<>")
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert unsubscribe_read(address.removeprefix("http://127.0.0.1:8000/pay/stop/").rstrip("/")) == message.public_id
    assert headers["Message-ID"] == f"<{message.public_id}@127.0.0.1>"
    assert headers["Auto-Submitted"] == "auto-generated"
    assert headers["Reply-To"] == "help@acme.example"
    assert told.from_email == "Acme Billing <recovery@localhost>"
    assert "Questions? help@acme.example" in told.body
    assert address in told.body


@pytest.mark.parametrize(
    ("locale", "subject", "amount"),
    [
        ("de-AT", "Bitte aktualisieren Sie Ihr Zahlungsmittel für Acme", "$ 49,90"),
        ("fr_FR", "Veuillez mettre à jour votre moyen de paiement pour Acme", "49,90 $US"),
        ("es", "Actualice su método de pago para Acme", "49,90 US$"),
        ("nl-NL", "Please update your payment method for Acme", "$49.90"),
        ("", "Please update your payment method for Acme", "$49.90"),
        ("not a locale", "Please update your payment method for Acme", "$49.90"),
    ],
)
def test_customer_reads_their_own_language(world: Post, locale: str, subject: str, amount: str) -> None:
    hard(world, locale=locale)
    world.drain()
    (told,) = sent()
    assert told.subject == subject
    assert amount in told.body.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")


def test_merchants_default_language_serves_those_whose_own_is_not_shipped(world: Post) -> None:
    hard(world, locale="nl-NL")
    world.settings(default_locale="de")
    world.drain()
    assert sent()[0].subject.startswith("Bitte aktualisieren")


def test_merchants_own_text_is_used_where_it_fits(world: Post) -> None:
    world.template(subject="Own {invoice}", body="For {name}: {reason}\n\nBye", category="HARD_DECLINE")
    world.template(subject="Not this", segment="high_value", category="HARD_DECLINE")
    world.template(subject="Nor this", locale="de")
    invoice = hard(world, name="<b>Ann</b>\nBcc: eve@example.com")
    world.drain()
    (told,) = sent()
    assert told.subject == "Own INV-7"
    assert told.body.startswith("For <b>Ann</b> Bcc: eve@example.com: The card has expired.\n")
    assert "&lt;b&gt;Ann&lt;/b&gt; Bcc: eve@example.com" in html_of(told)
    assert world.message(invoice, "update_card").source.startswith("template ")


def test_silent_retries_come_first_and_the_message_is_about_the_one_that_failed(world: Post) -> None:
    invoice = world.fail(code="insufficient_funds")
    world.know(invoice, **WARM)
    assert world.drain() == {"waiting": 2}
    assert world.drain_after(hours=3) == {"waiting": 1}
    assert world.message(invoice, "payment_failed").due_at is None  # waits for a retry to fail, without being asked
    assert world.drain_after(hours=20) == {}
    world.wait(hours=2)
    retry = world.charge("insufficient_funds")
    assert world.drain() == {"waiting": 2, "sent": 1}
    message = world.message(invoice, "payment_failed")
    assert (message.status, message.attempt_id) == ("SENT", retry.pk)
    assert "there was not enough money available on Visa ending in 4242" in sent()[0].body
    # The same attempt is never told twice.
    assert world.drain_after(minutes=1) == {}
    assert len(sent()) == 1


def test_nothing_is_sent_after_payment_or_cancellation(world: Post) -> None:
    invoice = hard(world)
    world.pay(invoice)
    assert world.drain() == {}
    other = hard(world)
    case = world.case(other)
    world.drain()
    mail.outbox.clear()
    world.pay(other)
    # Even if nobody has told the planner yet: the decision asks the ledger itself.
    world.wait(days=8)
    assert messages_drain(now=world.at) == {"canceled": 2}
    world.drain()
    assert set(Message.objects.filter(case=case).exclude(status="SENT").values_list("status", flat=True)) == {
        "CANCELED"
    }
    assert sent() == []


def test_quiet_hours_put_it_off_until_the_customers_morning(world: Post) -> None:
    invoice = hard(world, timezone="America/New_York")
    assert world.drain() == {"waiting": 2}
    message = world.message(invoice, "update_card")
    assert (message.why, message.due_at) == (
        "Waits for the end of the customer's quiet hours.",
        world.at + timedelta(hours=1),
    )
    assert world.drain_after(minutes=59) == {}
    assert world.drain_after(minutes=1) == {"sent": 1}


def test_merchants_zone_serves_customers_whose_own_is_not_known(world: Post) -> None:
    type(world.merchant).objects.filter(pk=world.merchant.pk).update(timezone="Asia/Tokyo")
    invoice = hard(world, timezone="")
    assert world.drain() == {"waiting": 2}  # 21:00 in Tokyo
    assert world.message(invoice, "update_card").due_at == world.at + timedelta(hours=11)


def test_one_address_is_not_flooded_by_several_invoices(world: Post) -> None:
    first = hard(world)
    second = world.fail(code="expired_card", token="tok_two", customer="cus_twin")
    world.know(second, email="CUS_ANN@example.com ", timezone="Europe/Berlin")
    assert world.drain()["sent"] == 1
    assert [world.message(one, "update_card").status for one in (first, second)] == ["SENT", "PLANNED"]
    assert world.message(second, "update_card").due_at == world.at + timedelta(hours=20)
    assert world.drain_after(hours=20)["sent"] == 1


def test_opt_out_bounce_and_missing_address_hold_it_back(world: Post) -> None:
    address_suppress(
        merchant_pk=world.merchant.pk, address="cus_ann@example.com", reason=SuppressionReason.OPT_OUT, now=world.at
    )
    out, nobody = hard(world), world.fail(code="expired_card", customer="cus_bob", token="tok_bob")
    world.know(nobody, email="", timezone="Europe/Berlin")
    assert world.drain() == {"waiting": 2, "suppressed": 2}
    assert world.message(out, "update_card").why == "This address gets no mail: unsubscribed."
    assert world.message(nobody, "update_card").why == "The customer's mail address is not known."
    assert sent() == []
    suppression = Suppression.objects.get()
    assert suppression_lift(suppression_pk=suppression.pk, by="user:1", now=world.at)
    assert not suppression_lift(suppression_pk=suppression.pk, by="user:1", now=world.at)
    assert world.drain_after(days=7)["sent"] == 1  # the reminder


def test_paused_case_is_left_alone_until_it_goes_on(world: Post) -> None:
    invoice = hard(world)
    case_pause(invoice_pk=invoice.pk, stamp=world.stamp(), reason="she called")
    assert world.drain() == {"waiting": 2}
    case_resume(invoice_pk=invoice.pk, stamp=world.stamp(), reason="go on")
    assert world.drain_after(hours=6)["sent"] == 1


def test_merchant_that_writes_itself_hears_an_event_and_we_stay_silent(world: Post) -> None:
    world.settings(sender=Sender.MERCHANT)
    invoice = hard(world)
    assert world.drain() == {"waiting": 1, "handed_over": 1}
    assert sent() == []
    message = world.message(invoice, "update_card")
    assert (message.status, message.wanted_at, message.text) == ("HANDED_OVER", world.at, "")
    wanted = invoice.events.get(kind="message.wanted")
    assert (wanted.data["sender"], wanted.data["template"]) == ("merchant", "update_card")
    assert PaymentLink.objects.get(invoice=invoice).expires_at == world.at + timedelta(days=30)


def test_staff_step_becomes_an_alert(world: Post) -> None:
    for number in range(3):
        paid = world.fail(code="insufficient_funds", amount=90_000, token="tok_rich", invoice=f"in_rich_{number}")
        world.pay(paid)
    invoice = world.fail(code="insufficient_funds", amount=90_000, token="tok_rich")
    assert world.case(invoice).segment == "high_value"
    world.drain()
    assert world.drain_after(hours=24)["alerted"] == 1
    alert = invoice.events.get(kind="alert.high_value_failing")
    assert alert.data["text"] == "Still unpaid 24 hours after its first failure, in segment high value."
    assert world.message(invoice, "staff_high_value_failing").status == "HANDED_OVER"


# --- the mail system ----------------------------------------------------------------------------------------------


@contextmanager
def mail_fails(monkeypatch: pytest.MonkeyPatch, error: Exception, *, at_open: bool = False) -> Iterator[None]:
    """The mail system answers with `error`, at the door or when it is given a mail."""

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(EmailBackend, "open" if at_open else "send_messages", fail)
        yield


def test_unreachable_mail_system_is_tried_again_and_everything_is_asked_again(
    world: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoice = hard(world)
    with mail_fails(monkeypatch, ConnectionRefusedError("no"), at_open=True):
        assert world.drain() == {"waiting": 1, "retried": 1}
        message = world.message(invoice, "update_card")
        assert (message.status, message.sent_at, message.tries) == ("PLANNED", None, 1)
        assert message.due_at == world.at + BACK_OFF[0]
    assert world.drain_after(minutes=1) == {"sent": 1}
    assert len(sent()) == 1
    assert kinds(invoice).count("message.wanted") == 1
    other = world.fail(code="expired_card", customer="cus_eve", token="tok_eve")
    world.know(other, timezone="Europe/Berlin")
    with mail_fails(monkeypatch, ConnectionRefusedError("no"), at_open=True):
        world.drain()
    world.pay(other)
    world.drain_after(minutes=1)
    assert world.message(other, "update_card").status == "CANCELED"


@pytest.mark.parametrize(
    ("error", "counted", "status"),
    [
        (smtplib.SMTPDataError(451, b"later"), "retried", "PLANNED"),
        (smtplib.SMTPDataError(554, b"spam"), "failed", "FAILED"),
        (smtplib.SMTPSenderRefused(550, b"no", "a@b"), "failed", "FAILED"),
        (smtplib.SMTPRecipientsRefused({"a@b": (450, b"busy")}), "retried", "PLANNED"),
        (smtplib.SMTPRecipientsRefused({"a@b": (550, b"unknown")}), "bounced", "BOUNCED"),
        (smtplib.SMTPServerDisconnected("gone"), "unconfirmed", "UNCONFIRMED"),
        (TimeoutError("slow"), "unconfirmed", "UNCONFIRMED"),
    ],
)
def test_what_the_mail_system_says_decides_whether_it_may_be_sent_again(
    world: Post, monkeypatch: pytest.MonkeyPatch, error: Exception, counted: str, status: str
) -> None:
    invoice = hard(world)
    with mail_fails(monkeypatch, error):
        assert world.drain() == {"waiting": 1, counted: 1}
    assert world.message(invoice, "update_card").status == status
    assert Suppression.objects.filter(reason="bounce").exists() == (status == "BOUNCED")
    world.drain_after(hours=1)
    assert len(sent()) == (1 if counted == "retried" else 0)


def test_mail_system_that_stays_away_is_given_up(world: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    invoice = hard(world, timezone="Europe/Lisbon")
    with mail_fails(monkeypatch, ConnectionRefusedError("no"), at_open=True):
        world.drain()
        for pause in BACK_OFF:
            world.wait(seconds=pause.total_seconds())
            world.drain()
    message = world.message(invoice, "update_card")
    assert (message.status, message.tries, message.sent_at) == ("FAILED", len(BACK_OFF) + 1, None)


def test_message_whose_worker_died_is_never_sent_again(world: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the commit and the mail system's answer nobody can know; a mail cannot be taken back."""
    invoice = hard(world)
    with pytest.raises(KeyboardInterrupt), mail_fails(monkeypatch, KeyboardInterrupt()):  # type: ignore[arg-type]
        world.drain()
    assert world.message(invoice, "update_card").status == "SENDING"
    assert world.drain() == {}
    Message.objects.filter(status="SENDING").update(lease_until=DatabaseClock() - timedelta(seconds=1))
    assert world.drain() == {"unconfirmed": 1}
    assert world.drain_after(hours=1) == {}
    assert sent() == []


def test_answer_that_comes_after_all_changes_nothing_any_more(world: Post) -> None:
    invoice = hard(world)
    world.drain()
    message = world.message(invoice, "update_card")
    assert message_answer(message.pk, Result(Passage.UNSENT), now=world.at) == "skipped"
    assert world.message(invoice, "update_card").status == "SENT"


def test_row_that_cannot_be_prepared_stops_no_other(world: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned, fine = hard(world), world.fail(code="expired_card", customer="cus_bob", token="tok_bob")
    world.know(fine, timezone="Europe/Berlin")
    real: Callable[..., Any] = __import__("notifications.services.work", fromlist=["write"]).write

    def write(template: object, matter: Any, *rest: object, **more: object) -> Any:
        if matter.invoice.pk == poisoned.pk:
            raise RuntimeError("poison")
        return real(template, matter, *rest, **more)

    monkeypatch.setattr("notifications.services.work.write", write)
    assert world.drain() == {"waiting": 2, "errors": 1, "sent": 1}
    message = world.message(poisoned, "update_card")
    assert (message.status, message.last_error) == ("PLANNED", "RuntimeError")
    assert message.due_at == world.at + timedelta(hours=1)
