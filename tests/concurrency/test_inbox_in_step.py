"""Inbox items that are worked in step."""

import threading
import time
from collections import Counter
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import structlog
from django.db import connection

import webhooks.services.draining as draining
from invoices.models import Invoice
from recovery_site.common.in_step import at_end, in_step
from retries.handler import EventWaits, event_apply
from tests.support.shop import Shop
from tests.support.stripe import BASIL
from tokens.services import token_succeed
from webhooks.models import InboxEvent
from webhooks.services import inbox_drain

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=[32, 1], ids=["in step", "alone"])
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(draining, "TOGETHER", request.param)
    return int(request.param)


def test_method_that_is_removed_right_after_its_first_charge_is_removed(shop: Shop, together: int) -> None:
    """Stripe names no customer in a detached method: its event has an order key of its own."""
    bill = shop.bill()
    failed = bill.attempt(shop.at).charge_failed()
    shop.receive(failed, bill.method_detached(shop.at + timedelta(seconds=30)))
    shop.process()
    items = InboxEvent.objects.order_by("id").values_list("event_type", "status", "reason")
    assert shop.token(bill).status == "removed", list(items)


def test_biller_word_behind_its_payment_is_not_passed_over(shop: Shop, together: int) -> None:
    """From basil on a charge does not name its invoice: the two have two order keys."""
    bill = shop.bill(version=BASIL)
    failed = bill.attempt(shop.at).charge_failed()
    void = bill.updated(shop.at + timedelta(seconds=30), status="void")
    shop.receive(failed, void)
    shop.process()
    items = InboxEvent.objects.order_by("id").values_list("event_type", "status", "reason")
    assert [one.status for one in Invoice.objects.filter(connection=shop.connection)] == ["CANCELED"], list(items)


def test_waiting_item_is_not_looked_at_for_each_event_of_another_key(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    waits = [shop.bill().attempt(shop.at).refund("1", 100, shop.at) for _ in range(3)]
    bill = shop.bill()
    events = [e for n in range(4) for e in bill.attempt(shop.at + timedelta(minutes=n)).failed()]
    shop.receive(*waits, *events)
    looks: Counter[str] = Counter()

    def counting(**known: Any) -> Any:
        looks[known["event"].event_type] += 1
        return event_apply(**known)

    monkeypatch.setattr(draining, "event_apply", counting)
    shop.process()
    assert looks["refund.created"] <= 4 * len(waits), looks


def test_drain_ends_though_more_wait_than_it_looks_at_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """A pass over a thousand waiting items takes longer than the two seconds after which the others are due again."""
    monkeypatch.setattr(draining, "_WAITING_LOOKED_AT", 1)
    waits = [shop.bill().attempt(shop.at).refund("1", 100, shop.at) for _ in range(3)]
    shop.receive(*waits)

    def patient(**known: Any) -> Any:
        raise EventWaits("Not yet.", retry_after=timedelta())

    monkeypatch.setattr(draining, "event_apply", patient)
    asked = []

    def keep_going() -> bool:
        asked.append(1)
        return len(asked) < 200

    inbox_drain(now=shop.at, keep_going=keep_going)
    assert len(asked) < 200, "it would never have ended"


def test_what_is_logged_has_happened(shop: Shop, monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    good, bad = shop.bill().updated(shop.at), shop.bill().attempt(shop.at).charge_failed()
    shop.receive(good, bad)

    def breaks(**known: Any) -> Any:
        handled = event_apply(**known)
        if known["event"].event_id == bad.id:
            raise ZeroDivisionError("after it has written")
        return handled

    monkeypatch.setattr(draining, "event_apply", breaks)
    with structlog.testing.capture_logs() as logs:
        inbox_drain(now=shop.at)
    told = [(line["event"], line["inbox_event"]) for line in logs if "inbox_event" in line]
    assert max(Counter(told).values()) == 1, told


def test_what_a_batch_takes_back_is_logged_when_it_is_done_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [shop.bill().attempt(shop.at).charge_failed() for _ in range(3)]
    shop.receive(*events)

    def refuse() -> None:
        raise ZeroDivisionError("after all of them have ended")

    def breaks(**known: Any) -> Any:
        handled = event_apply(**known)
        at_end("refused", refuse)
        return handled

    monkeypatch.setattr(draining, "event_apply", breaks)
    with structlog.testing.capture_logs() as logs:
        assert inbox_drain(now=shop.at).processed == 3
    assert "in_step_broken" in [line["event"] for line in logs]
    told = Counter(line["inbox_event"] for line in logs if line["event"] == "inbox_item")
    assert sorted(told.values()) == [1, 1, 1], told


def test_same_token_succeeds_twice_in_one_batch_keeps_the_latest(shop: Shop, together: int) -> None:
    """Two customers who pay with one token (told as one customer's first, so the other's attempts name it too)."""
    one = shop.failed_bill()
    shop.wait(minutes=90)
    two = shop.failed_bill(one.token)
    assert {a.token_id for bill in (one, two) for a in shop.attempts(bill)} == {shop.token(one).pk}
    assert shop.customer(one).pk != shop.customer(two).pk
    early, late = (shop.attempts(bill)[0] for bill in (one, two))
    first, second = one.attempt(one.at), two.attempt(two.at)
    first.charge, second.charge = early.provider_id or "", late.provider_id or ""
    shop.receive(first.invoice_paid(), second.invoice_paid())
    shop.process()
    assert [shop.invoice(bill).status for bill in (one, two)] == ["SETTLED", "SETTLED"]
    assert shop.token(one).last_success_at == max(early.attempted_at, late.attempted_at)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_token_succeeds_twice(shop: Shop, order: tuple[int, int]) -> None:
    token = shop.token(shop.failed_bill())
    times = [shop.at, shop.at + timedelta(days=1)]
    done = in_step([partial(token_succeed, token_pk=token.pk, at=times[n]) for n in order])
    for n, one in zip(order, done, strict=True):
        if one is None:
            token_succeed(token_pk=token.pk, at=times[n])
    token.refresh_from_db()
    assert token.last_success_at == times[1]


def test_items_of_one_key_are_begun_in_order_while_others_are_asked_about(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    a, b = shop.bill(), shop.bill()
    a1, b1 = a.attempt(shop.at).charge_failed(), b.attempt(shop.at).charge_failed()
    b2 = b.voided(shop.at + timedelta(minutes=1))
    shop.receive(a1, b1, b2)
    begun: list[str] = []
    asking, other_done = threading.Event(), threading.Event()

    def slow(meaning: Any, connection: Any) -> Any:
        if meaning.event_id == a1.id:
            asking.set()
            other_done.wait(30)
        return meaning

    def noting(**known: Any) -> Any:
        begun.append(known["event"].event_id)
        return event_apply(**known)

    monkeypatch.setattr(draining, "must_ask", lambda meaning, connection: meaning.event_id in (a1.id, b1.id))
    monkeypatch.setattr(draining, "event_ask", slow)
    monkeypatch.setattr(draining, "event_apply", noting)

    def second() -> None:
        try:
            asking.wait(30)
            inbox_drain(now=shop.at)
        finally:
            other_done.set()
            connection.close()

    other = threading.Thread(target=second)
    other.start()
    inbox_drain(now=shop.at)
    other.join()
    names = {a1.id: "a1", b1.id: "b1", b2.id: "b2"}
    told = [names[one] for one in begun]
    assert told.index("b1") < told.index("b2"), told


def test_item_is_asked_about_once(shop: Shop, monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    """Each question may take two minutes; those of a batch are asked one after the other."""
    monkeypatch.setattr(draining, "_ASKS_FOR", timedelta(seconds=2))
    events = [shop.bill().attempt(shop.at).charge_failed() for _ in range(3)]
    shop.receive(*events)
    asked: list[str] = []
    began = threading.Event()

    def slow(meaning: Any, connection: Any) -> Any:
        began.set()
        asked.append(meaning.event_id)
        time.sleep(1.2)
        return meaning

    monkeypatch.setattr(draining, "must_ask", lambda meaning, connection: True)
    monkeypatch.setattr(draining, "event_ask", slow)

    def second() -> None:
        try:
            began.wait(30)
            time.sleep(2.2)  # while the second of three is asked about
            inbox_drain(now=shop.at)
        finally:
            connection.close()

    other = threading.Thread(target=second)
    other.start()
    inbox_drain(now=shop.at)
    other.join()
    assert max(Counter(asked).values()) == 1, Counter(asked)


def test_item_that_failed_elsewhere_meanwhile_is_not_tried_before_it_is_due(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """A batch is taken back; before its items go alone, another drain has them."""
    good, bad = shop.bill().attempt(shop.at).charge_failed(), shop.bill().attempt(shop.at).charge_failed()
    shop.receive(bad, good)

    def breaks(**known: Any) -> Any:
        handled = event_apply(**known)
        if known["event"].event_id == bad.id:
            raise ZeroDivisionError("after it has written")
        return handled

    alone, seen = draining._alone, []

    def meanwhile(*given: Any) -> Any:
        if not seen:
            seen.append(1)
            with monkeypatch.context() as patch:
                patch.setattr(draining, "TOGETHER", 1)
                thread = threading.Thread(target=lambda: (inbox_drain(now=shop.at), connection.close()))
                thread.start()
                thread.join()
        return alone(*given)

    monkeypatch.setattr(draining, "event_apply", breaks)
    monkeypatch.setattr(draining, "_alone", meanwhile)
    inbox_drain(now=shop.at)
    item = InboxEvent.objects.get(provider_event_id=bad.id)
    assert item.attempts == 1, "tried again at once, without its ten seconds"
