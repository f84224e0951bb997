"""Notes before anything fails, and what each recovery is put down to."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoices.models import Invoice
from notifications.attribution import WINDOW, Kind, Payment, Source, Touch, attribute
from notifications.models import CaseAttribution, Message
from notifications.renewals import next_renewal
from notifications.services.attributing import cases_attribute, closing_follow
from notifications.services.notes import notes_plan
from tests.notifications.post import Post, sent
from tokens.models import Card, Token

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


def at(days: float) -> datetime:
    return AT + timedelta(days=days)


@pytest.mark.parametrize(
    ("issued", "interval", "now", "renewal"),
    [
        ("2026-01-31", "month", "2026-02-01", "2026-02-28"),
        ("2026-01-15", "month", "2026-02-20", "2026-03-15"),
        ("2026-01-15", "month", "2026-06-01", None),  # long ended
        ("2024-02-29", "year", "2024-06-01", "2025-02-28"),
        ("2026-01-15", "week", "2026-01-16", "2026-01-22"),
        ("2026-01-15", "fortnight", "2026-01-16", None),
        ("2026-01-15", "", "2026-01-16", None),
    ],
)
def test_next_renewal(issued: str, interval: str, now: str, renewal: str | None) -> None:
    def day(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    assert next_renewal(day(issued), interval, day(now)) == (day(renewal) if renewal else None)


@pytest.fixture
def world(db: None) -> Post:
    return Post()


def subscriber(world: Post, *, month: int, year: int, paid: float = -10, interval: str = "month") -> Invoice:
    """Somebody who paid `paid` days ago and whose card ends with that month."""
    invoice = world.fail(customer="cus_ann", code="insufficient_funds")
    world.pay(invoice)
    Invoice.objects.filter(pk=invoice.pk).update(
        subscription_id="sub_1", interval=interval, plan="Team", issued_at=world.at + timedelta(days=paid)
    )
    Card.objects.filter(tokens__customer=invoice.customer).update(exp_month=month, exp_year=year)
    world.know(invoice, timezone="Europe/Berlin", name="")
    world.drain()
    return invoice


def test_card_that_expires_soon_is_told_once_in_time(world: Post) -> None:
    subscriber(world, month=12, year=26)  # until 1 January; 21 days before is 11 December
    assert notes_plan(now=world.at) == 0
    world.wait(days=21)
    Invoice.objects.update(issued_at=world.at - timedelta(days=10))
    assert notes_plan(now=world.at) == 1
    assert notes_plan(now=world.at) == 0  # it was looked at just now
    assert world.drain() == {"sent": 1}
    (told,) = sent()
    assert told.subject == "Your card for Acme expires soon"
    assert "Visa ending in 4242, with which you pay Acme, expires at the end of December 2026." in told.body
    world.wait(days=1)
    assert notes_plan(now=world.at) == 0
    assert Message.objects.exclude(note_key="").count() == 1


def test_renewal_that_the_card_will_not_see_is_told_before_it(world: Post) -> None:
    invoice = subscriber(world, month=11, year=2026, paid=-20)  # card until 1 December, renewal on 30 November
    Invoice.objects.filter(pk=invoice.pk).update(issued_at=world.at - timedelta(days=16))  # renewal on 4 December
    notes_plan(now=world.at)
    world.drain()
    mails = [told.subject for told in sent()]
    assert mails == ["Your card for Acme expires soon"]
    world.wait(days=9)  # 29 November: five days before
    notes_plan(now=world.at)
    assert world.drain() == {"sent": 1}
    assert sent()[-1].subject == "Your renewal at Acme on December 4, 2026"


def test_note_whose_reason_is_gone_is_not_sent(world: Post) -> None:
    invoice = subscriber(world, month=12, year=2026)
    world.wait(days=21)
    Invoice.objects.update(issued_at=world.at - timedelta(days=10))
    notes_plan(now=world.at)
    Card.objects.filter(tokens__customer=invoice.customer).update(exp_year=2030)
    assert world.drain() == {"canceled": 1}
    assert sent() == []


@pytest.mark.parametrize("why", ["switched off", "no subscription", "ended", "other default", "failing", "removed"])
def test_note_is_only_planned_for_a_card_that_will_be_charged(world: Post, why: str) -> None:
    invoice = subscriber(world, month=11, year=2026)
    token = Token.objects.get(customer=invoice.customer)
    match why:
        case "switched off":
            world.settings(card_notes=False)
        case "no subscription":
            Invoice.objects.update(subscription_id="")
        case "ended":
            Invoice.objects.update(issued_at=world.at - timedelta(days=90))
        case "other default":
            Token.objects.filter(pk=token.pk).update(is_default=False)
            other = Token.objects.get(pk=token.pk)
            other.pk, other.public_id, other.provider_token, other.is_default = None, "tok_x", "tok_x", True
            other.card = _fresh_card(token.card)
            other.save(force_insert=True)
        case "failing":
            world.fail(customer="cus_ann", code="insufficient_funds")
        case "removed":
            Token.objects.update(status="REMOVED")
    assert notes_plan(now=world.at) == 0


def _fresh_card(card: Card) -> Card:
    card.pk, card.public_id, card.fingerprint, card.exp_year = None, "crd_x", "fp_x", 2030
    card.save(force_insert=True)
    return card


# --- attribution --------------------------------------------------------------------------------------------------

CLICK, SENT = Touch(Kind.CLICKED, at(-1), "msg_click"), Touch(Kind.SENT, at(-2), "msg_sent")


@pytest.mark.parametrize(
    ("payment", "touches", "source", "message"),
    [
        (Payment(AT, True, "automatic"), [], Source.RETRY, ""),
        # A message that was only sent never takes a retry's recovery.
        (Payment(AT, True, "automatic"), [SENT], Source.RETRY, ""),
        (Payment(AT, True, "automatic"), [SENT, CLICK], Source.MESSAGE, "msg_click"),
        (Payment(AT, True, "card_update"), [], Source.CARD_UPDATE, ""),
        (Payment(AT, True, "card_update"), [SENT], Source.MESSAGE, "msg_sent"),
        (Payment(AT, True, "customer"), [], Source.CARD_UPDATE, ""),
        (Payment(AT, True, "customer"), [CLICK], Source.MESSAGE, "msg_click"),
        (Payment(AT, True, "staff"), [CLICK], Source.STAFF, ""),
        (Payment(AT, False), [], Source.OUTSIDE, ""),
        (Payment(AT, False), [SENT], Source.OUTSIDE, ""),
        (Payment(AT, False), [CLICK], Source.MESSAGE, "msg_click"),
        # Seven days, and nothing after the payment.
        (Payment(AT, True, "card_update"), [Touch(Kind.SENT, at(-7), "m")], Source.MESSAGE, "m"),
        (Payment(AT, True, "card_update"), [Touch(Kind.SENT, at(-7.01), "m")], Source.CARD_UPDATE, ""),
        (Payment(AT, True, "automatic"), [Touch(Kind.CLICKED, at(0.01), "m")], Source.RETRY, ""),
        # The last click counts.
        (Payment(AT, False), [Touch(Kind.CLICKED, at(-3), "old"), CLICK], Source.MESSAGE, "msg_click"),
    ],
)
def test_rule_of_attribution(payment: Payment, touches: list[Touch], source: Source, message: str) -> None:
    found = attribute(payment, touches)
    assert (found.source, found.message) == (source, message)


@given(
    touches=st.lists(
        st.builds(Touch, st.sampled_from(Kind), st.integers(-30, 5).map(at), st.sampled_from(["a", "b"])), max_size=8
    ),
    ours=st.booleans(),
    trigger=st.sampled_from(["automatic", "card_update", "customer", "staff"]),
)
def test_every_recovery_has_one_source_whatever_the_order_of_its_touches(
    touches: list[Touch], ours: bool, trigger: str
) -> None:
    found = attribute(Payment(AT, ours, trigger), touches)
    assert found.source == attribute(Payment(AT, ours, trigger), touches[::-1]).source
    assert (found.source is Source.MESSAGE) == bool(found.message)
    near = [touch for touch in touches if AT - WINDOW <= touch.at <= AT]
    if not near:
        assert found.source is not Source.MESSAGE


def test_recovery_is_put_down_when_its_case_closes_and_can_be_worked_out_again(world: Post) -> None:
    invoice = world.fail(code="insufficient_funds")
    world.wait(hours=25)
    world.charge("ok")
    outside = world.fail(code="expired_card", customer="cus_bob", token="tok_bob")
    world.pay(outside)
    for one in (invoice, outside):
        event = one.events.get(kind="case.closed")
        closing_follow(event)
        closing_follow(event)
    rows = dict(CaseAttribution.objects.values_list("case__invoice_id", "source"))
    assert rows == {invoice.pk: "retry", outside.pk: "outside"}
    CaseAttribution.objects.filter(case__invoice=invoice).update(source="outside")
    assert cases_attribute(merchant_pk=world.merchant.pk) == {"cases": 2, "changed": 1}
    assert cases_attribute() == {"cases": 2, "changed": 0}
