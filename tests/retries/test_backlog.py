"""A backlog is worked off in batches of 50 per phase and tick, and no hopeless row keeps another from its turn."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.db import connection

from invoices.models import Attempt, Connection, Transaction
from invoices.services.parties import connection_switch
from providers.base import ChargeResult, ProviderUnavailable
from providers.sandbox.client import SandboxClient
from retries.reconciliation import reconcile
from tests.retries.refunding import ask, collected, refund_of
from tests.retries.refunding import sandbox as sandbox
from tests.support.shop import Shop

pytestmark = pytest.mark.django_db(transaction=True)

# Attempts that others made, told as on their way; the provider does not answer for them.
_CLONE = """
INSERT INTO invoices_attempt (merchant_id, connection_id, customer_id, invoice_id, transaction_id, public_id,
    kind, origin, trigger, number, status, amount_minor, currency, provider_id, provider_payment_id, raw_code,
    network_code, advice_code, message, category, explanation, counts, decision, attempted_at, resends, extended)
SELECT merchant_id, connection_id, customer_id, invoice_id, transaction_id, %(name)s || '_' || n,
    kind, 'PROVIDER', trigger, number + n, 'SENDING', amount_minor, currency, %(name)s || '_' || n, '', '',
    '', '', '', '', '', counts, '{}', %(at)s, 0, false
FROM invoices_attempt, generate_series(1, %(rows)s) AS n WHERE id = %(model)s
"""
_OPEN = """
UPDATE invoices_attempt SET status = %(status)s, expected_by = %(at)s::timestamptz + interval '90 days',
    next_check_at = %(at)s::timestamptz + substring(public_id FROM '[0-9]+$')::int * interval '1 second'
WHERE public_id LIKE %(name)s || '\\_%%'
"""


def pile(model: Attempt, rows: int, name: str, status: str, at: datetime) -> None:
    """`rows` open attempts like `model`, due one second after the other from `at` on."""
    values = {"model": model.pk, "rows": rows, "name": name, "status": status, "at": at}
    with connection.cursor() as cursor:
        cursor.execute(_CLONE, values)
        cursor.execute(_OPEN, values)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What the provider is asked about; it knows nothing of it."""
    questions: Counter[str] = Counter()

    def look(self: SandboxClient, provider_id: str) -> ChargeResult | None:
        questions[provider_id] += 1
        return None

    for name in ("charge_get", "charge_find", "refund_get", "refund_find"):
        monkeypatch.setattr(SandboxClient, name, look)
    monkeypatch.setattr(SandboxClient, "charges_list", lambda self, created_after: iter(()))
    return questions


def names(name: str, first: int, last: int) -> Counter[str]:
    return Counter(f"{name}_{number}" for number in range(first, last + 1))


def test_ten_thousand_stuck_rows_are_worked_fifty_per_phase_and_tick(shop: Shop, asked: Counter[str]) -> None:
    bill = collected(shop)
    ask(shop, bill, 100)
    shop.drain()
    refund = Attempt.objects.get(kind="REFUND")
    pile(shop.attempt(bill), 10_000, "unknown", "UNKNOWN", shop.at)
    pile(shop.attempt(bill), 500, "awaiting", "AWAITING", shop.at)
    pile(refund, 500, "refund", "AWAITING", shop.at)
    shop.wait(days=1)
    for tick in range(3):
        before = Counter(asked)
        counts = reconcile(now=shop.at)
        first, last = tick * 50 + 1, tick * 50 + 50
        assert asked - before == names("unknown", first, last) + names("awaiting", first, last) + names(
            "refund", first, last
        )
        assert sum(counts.charges.values()) == 100
        assert counts.refunds == {**dict.fromkeys(counts.refunds, 0), "waiting": 50}
        assert counts.errors == 0
        shop.wait(minutes=1)


def test_command_works_the_whole_backlog_off_and_asks_about_each_row_once(shop: Shop, asked: Counter[str]) -> None:
    bill = collected(shop)
    pile(shop.attempt(bill), 170, "awaiting", "AWAITING", shop.at)
    shop.wait(days=1)
    assert shop.reconcile().charges["waiting"] == 170
    assert asked == names("awaiting", 1, 170)


def test_rows_without_hope_do_not_keep_others_from_their_turn(shop: Shop, asked: Counter[str]) -> None:
    bill = collected(shop)
    ask(shop, bill, 100)
    shop.drain()
    pile(Attempt.objects.get(kind="REFUND"), 70, "old", "AWAITING", shop.at)
    shop.wait(hours=1)
    reconcile(now=shop.at)
    assert asked == names("old", 1, 50)
    shop.wait(hours=1)
    pile(Attempt.objects.get(kind="REFUND", origin="OURS"), 10, "new", "AWAITING", shop.at - timedelta(minutes=59))
    reconcile(now=shop.at)
    assert asked == names("old", 1, 50) + names("old", 51, 70) + names("old", 1, 30)
    shop.wait(hours=1)
    reconcile(now=shop.at)
    assert {"new_1", "new_10"} <= asked.keys()


def test_silent_provider_is_asked_three_times_a_tick_and_holds_nobody_up(
    shop: Shop, new_shop: Callable[..., Shop], asked: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = new_shop()
    pile(dead.attempt(collected(dead)), 200, "dead", "AWAITING", shop.at)
    pile(shop.attempt(collected(shop)), 80, "live", "AWAITING", shop.at + timedelta(hours=1))
    look = SandboxClient.charge_get

    def fall_silent(self: SandboxClient, provider_id: str) -> ChargeResult | None:
        look(self, provider_id)
        if provider_id.startswith("dead"):
            raise ProviderUnavailable("The provider is silent.")
        return None

    monkeypatch.setattr(SandboxClient, "charge_get", fall_silent)
    shop.wait(days=2)
    counts = reconcile(now=shop.at)
    assert asked == names("dead", 1, 3) + names("live", 1, 47)
    assert counts.charges["waiting"] == 50
    shop.wait(minutes=1)
    reconcile(now=shop.at)
    assert asked == names("dead", 1, 6) + names("live", 1, 80)
    shop.wait(minutes=1)
    counts = reconcile(now=shop.at, drain=True)
    assert asked == names("dead", 1, 9) + names("live", 1, 80)


def test_switched_off_connections_take_no_turns(shop: Shop, new_shop: Callable[..., Shop], asked: Counter[str]) -> None:
    off, broken = new_shop(), new_shop()
    for one in (off, broken):
        pile(one.attempt(collected(one)), 60, one.name, "AWAITING", shop.at)
    connection_switch(connection_pk=off.connection.pk, enabled=False)
    Connection.objects.filter(pk=broken.connection.pk).update(paused_reason="the key was refused")
    pile(shop.attempt(collected(shop)), 10, "live", "AWAITING", shop.at + timedelta(hours=1))
    shop.wait(days=2)
    counts = reconcile(now=shop.at)
    assert asked == names("live", 1, 10)
    assert (counts.charges["skipped"], counts.charges["waiting"]) == (120, 10)


def test_orphan_refunds_fail_fifty_a_tick(shop: Shop, asked: Counter[str]) -> None:
    bill = collected(shop)
    ask(shop, bill, 1)
    refund = refund_of(shop, bill)
    refund.jobs.all().delete()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO invoices_transaction (merchant_id, invoice_id, public_id, kind, status, amount_minor,"
            " currency, refund_of_id, reason, failure, created_by, started_at)"
            " SELECT merchant_id, invoice_id, 'txn_clone_' || n, kind, 'INIT', 1, currency, refund_of_id, '', '',"
            " created_by, started_at"
            " FROM invoices_transaction, generate_series(1, 119) AS n WHERE id = %s",
            [refund.pk],
        )
    shop.wait(minutes=6)
    assert [reconcile(now=shop.at).refunds["failed"] for _ in range(4)] == [50, 50, 20, 0]
    assert set(Transaction.objects.filter(kind="REFUND").values_list("status", flat=True)) == {"FAILED"}
    assert shop.invoice(bill).status == "SETTLED"


def test_tick_stops_when_it_is_told_to(shop: Shop, asked: Counter[str]) -> None:
    bill = collected(shop)
    pile(shop.attempt(bill), 30, "awaiting", "AWAITING", shop.at)
    shop.wait(days=1)
    turns = iter([True] * 8)
    reconcile(now=shop.at, keep_going=lambda: next(turns, False))
    assert asked == names("awaiting", 1, 6)
