"""Rollups against a slow count of the ledger in plain Python, after random histories and wherever the follower is."""

from collections import Counter, defaultdict
from datetime import date, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection, transaction
from django.db.models.expressions import RawSQL

from accounts.models import Merchant
from analytics.models import AttemptRollup, CaseRollup, HourRollup, RecoveryRollup, RollupPosition
from analytics.period import period_of
from analytics.rollups import advance
from analytics.rollups.advance import RollupCounts, rollups_advance, rollups_build
from analytics.rollups.reading import Figures
from invoices.models import Attempt, Dispute, Invoice, Transaction
from invoices.services.casework import note_add
from invoices.services.ledger import Stamp
from providers.base import DisputeFacts, DisputeStatus
from retries.models import Case
from tests.analytics.history import month
from tests.console.world import NOW, World
from tests.support.quiet import quiet
from tests.webhooks.door import Door, door_open
from tests.webhooks.renewal import BASIL, Renewal, moment
from tokens.models import Card

pytestmark = pytest.mark.django_db(transaction=True)
BERLIN, UTC = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")
Book = dict[str, Counter[tuple[Any, ...]]]


@pytest.fixture
def door() -> Door:
    return door_open(Merchant.objects.create(name="Halves"))


def ledger(merchant: Merchant, zone: ZoneInfo) -> Book:
    """What the rollups should say, counted row by row; every measure of a row is a key of its own."""
    book: Book = defaultdict(Counter)
    for attempt in Attempt.objects.filter(merchant=merchant, kind="CHARGE").select_related("card"):
        card, day = attempt.card, attempt.attempted_at.astimezone(zone).date()
        facets = {
            "code": attempt.raw_code,
            "network": card.network if card else "",
            "country": card.country if card else "",
            "number": str(min(attempt.number, 8)),
            "sender": f"{attempt.origin} {attempt.trigger}",
        }
        _hour(book, attempt, day, "all", "")
        for facet, key in facets.items():
            name = day, attempt.connection_id, facet, key, attempt.category
            book["attempts"][(*name, "attempts")] += 1
            if facet in ("code", "country") and facets[facet]:
                _hour(book, attempt, day, facet, facets[facet])
            if attempt.status in ("SUCCEEDED", "DECLINED", "ERRORED"):
                book["attempts"][(*name, attempt.status.lower())] += 1
    for case in Case.objects.filter(merchant=merchant).select_related("policy_version"):
        _case(book, case, zone)
    for invoice in Invoice.objects.filter(merchant=merchant, cases__status="RECOVERED").distinct():
        _recoveries(book, invoice, zone)
    return book


def _hour(book: Book, attempt: Attempt, day: date, facet: str, key: str) -> None:
    if attempt.status not in ("SUCCEEDED", "DECLINED", "ERRORED", "UNKNOWN"):
        return
    hour = attempt.attempted_at.replace(minute=0, second=0, microsecond=0)
    name = day, attempt.connection_id, hour, facet, key, attempt.number > 1
    book["hours"][(*name, "attempts")] += 1
    book["hours"][(*name, "failed")] += attempt.status != "SUCCEEDED"


def _case(book: Book, case: Case, zone: ZoneInfo) -> None:
    day = case.opened_at.astimezone(zone).date()
    first = Attempt.objects.filter(invoice=case.invoice, kind="CHARGE", card__isnull=False).order_by("id").first()
    hours = ""
    if case.status == "RECOVERED":
        assert case.closed_at is not None
        took = int((case.closed_at - case.opened_at) / timedelta(hours=1))
        hours = str(min(1440, took if took < 72 else took // 6 * 6))
    facets = {
        "segment": case.segment,
        "policy": f"{case.policy_version.version} {case.segment}",
        "code": case.first_code,
        "network": first.card.network if first and first.card else "",
        "country": first.card.country if first and first.card else "",
        "hours": hours,
        "source": case.recovered_by,
    }
    for facet, key in facets.items():
        name = day, case.connection_id, facet, key, case.first_category, case.currency, case.status
        book["cases"][(*name, "cases")] += 1
        book["cases"][(*name, "amount")] += case.amount_minor
        book["cases"][(*name, "recovered")] += case.recovered_minor


def _recoveries(book: Book, invoice: Invoice, zone: ZoneInfo) -> None:
    """Newest episode first; what went back beyond one goes on to the one before."""
    episodes = list(Case.objects.filter(invoice=invoice, status="RECOVERED").order_by("closed_at", "id"))
    lost = list(Dispute.objects.filter(invoice=invoice, status="LOST", applied_at__isnull=False))
    refunds = Transaction.objects.filter(invoice=invoice, kind="REFUND", status="DONE", reversed_at=None)
    left = invoice.paid_minor + sum(dispute.amount_minor for dispute in lost)
    gross = []
    for case in episodes:
        gross.append(max(0, min(case.recovered_minor, left)))
        left -= case.recovered_minor
    returned = [(one.applied_at, one.amount_minor) for one in lost]
    returned += [(one.finished_at, one.captured_minor or one.amount_minor) for one in refunds]
    over, until = 0, None
    for case, came in reversed(list(zip(episodes, gross, strict=True))):
        back = over + sum(
            minor for at, minor in returned if at and at >= case.closed_at and (until is None or at < until)
        )
        taken, over, until = min(came, back), max(0, back - came), case.closed_at
        paid = (
            Attempt.objects.filter(invoice=invoice, kind="CHARGE", status="SUCCEEDED")
            .filter(finished_at__gte=case.opened_at, finished_at__lte=case.closed_at)
            .order_by("-finished_at", "-id")
            .first()
        )
        assert case.closed_at is not None
        day = case.closed_at.astimezone(zone).date()
        name = day, case.connection_id, case.currency, case.recovered_by, min(paid.number, 8) if paid else 0
        book["recoveries"][(*name, "cases")] += 1
        book["recoveries"][(*name, "gross")] += came
        book["recoveries"][(*name, "back")] += taken


def kept(merchant: Merchant) -> Book:
    """The rollup tables in the same form."""
    book: Book = defaultdict(Counter)
    for a in AttemptRollup.objects.filter(merchant=merchant):
        name: tuple[Any, ...] = (a.day, a.connection_id, a.facet, a.key, a.category)
        for measure in ("attempts", "succeeded", "declined", "errored"):
            book["attempts"][(*name, measure)] += getattr(a, measure)
    for h in HourRollup.objects.filter(merchant=merchant):
        for measure in ("attempts", "failed"):
            book["hours"][h.day, h.connection_id, h.hour, h.facet, h.key, h.again, measure] += getattr(h, measure)
    for c in CaseRollup.objects.filter(merchant=merchant):
        name = (c.day, c.connection_id, c.facet, c.key, c.category, c.currency, c.status)
        for measure in ("cases", "amount", "recovered"):
            book["cases"][(*name, measure)] += getattr(c, measure if measure == "cases" else f"{measure}_minor")
    for r in RecoveryRollup.objects.filter(merchant=merchant):
        name = (r.day, r.connection_id, r.currency, r.source, r.number)
        for measure in ("cases", "gross", "back"):
            book["recoveries"][(*name, measure)] += getattr(r, measure if measure == "cases" else f"{measure}_minor")
    return {kind: +rows for kind, rows in book.items()}


def shown(merchant: Merchant, until: datetime, zone: ZoneInfo) -> Book:
    """What the pages read for the last 90 days, in a form that `folded` brings the ledger into."""
    figures = Figures(merchant, period_of(90, until, zone))
    book: Book = defaultdict(Counter)
    for a in figures.attempts:
        for measure in ("attempts", "succeeded", "declined", "errored"):
            book["attempts"][a.day, a.connection_pk, a.facet, a.key, a.category, measure] += getattr(a, measure)
    for h in figures.hours:
        for measure in ("attempts", "failed"):
            book["hours"][None, h.connection_pk, h.hour, h.facet, h.key, h.again, measure] += getattr(h, measure)
    for c in figures.cases:
        row = (c.day, c.connection_pk, c.facet, c.key, c.category, c.currency, c.status)
        book["cases"][(*row, "cases")] += c.cases
        book["cases"][(*row, "amount")] += c.amount_minor
        book["cases"][(*row, "recovered")] += c.recovered_minor
    for length in figures.lengths:
        if length.within:
            book["lengths"][length.category, length.status, length.hours] += length.cases
    for one in figures.open_cases:
        facts = (one.step, one.category, one.currency, one.age_days)
        book["open"][(*facts, "cases")] += one.cases
        book["open"][(*facts, "due")] += one.due_minor
    for r in figures.recoveries:
        line = (r.day, r.connection_pk, r.currency, r.source, r.number)
        book["recoveries"][(*line, "cases")] += r.cases
        book["recoveries"][(*line, "gross")] += r.gross_minor
        book["recoveries"][(*line, "back")] += r.back_minor
    return {kind: +rows for kind, rows in book.items()}


def folded(merchant: Merchant, until: datetime, zone: ZoneInfo) -> Book:
    """The ledger without the days that the pages do not need, and what is open in it."""
    found: Book = defaultdict(Counter)
    for case in Case.objects.filter(merchant=merchant, status="OPEN").select_related("invoice"):
        facts = (case.next_step, case.first_category, case.invoice.currency, max(0, (until - case.opened_at).days))
        found["open"][(*facts, "cases")] += 1
        found["open"][(*facts, "due")] += case.invoice.due_minor
    for kind, rows in ledger(merchant, zone).items():
        for (day, where, facet, *rest), number in rows.items():
            if (kind, facet) == ("cases", "hours"):
                key, category, _, status, measure = rest
                if measure == "cases":
                    found["lengths"][category, status, int(key) if key else None] += number
                continue
            keeps = kind == "recoveries" or facet == {"attempts": "network", "cases": "segment"}.get(kind)
            found[kind][(day if keeps else None, where, facet, *rest)] += number
    return {kind: +rows for kind, rows in found.items()}


def follow() -> RollupCounts:
    """Advance to the end of the ledger, whatever transactions other tests hold open beside this one."""
    quiet()
    return rollups_advance()


def live(world: World, random: Random, *, days: int) -> None:
    """Some days with failures, retries, refunds; sometimes a dispute is lost, a charge is told late, a card re-read."""
    start = world.at
    month(world, until=start + timedelta(days=days), days=days, per_day=2.5, seed=random.randrange(1_000_000))
    settled = list(Invoice.objects.filter(merchant=world.merchant, status="SETTLED", cases__isnull=False).distinct())
    if settled and random.random() < 0.8:
        invoice = random.choice(settled)
        charge = invoice.attempts.filter(kind="CHARGE", status="SUCCEEDED").first()
        if charge is not None and charge.provider_id:
            for status in (DisputeStatus.OPEN, random.choice((DisputeStatus.LOST, DisputeStatus.WON))):
                facts = DisputeFacts(
                    id=f"dp_{charge.pk}", amount_minor=900, currency="USD", status=status, charge_id=charge.provider_id
                )
                world.dispute(charge.provider_id, facts)
    card = Card.objects.filter(merchant=world.merchant).order_by("pk").first()
    if card is not None:
        card.country = random.choice(("DE", "FR", "US"))
        card.save(update_fields=["country"])


@pytest.mark.parametrize("seed", [3, 11])
def test_rollups_say_what_the_ledger_says_whenever_they_are_advanced(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advance, "EVENTS_AT_ONCE", 40)
    random = Random(seed)
    world, other = World(at=NOW - timedelta(days=40)), World(name="Other", at=NOW)
    Merchant.objects.filter(pk=world.merchant.pk).update(timezone=BERLIN.key)
    follow()
    other.fail()
    for _ in range(3):
        live(world, random, days=3)
        assert shown(world.merchant, world.at, BERLIN) == folded(world.merchant, world.at, BERLIN)
        if random.random() < 0.7:
            follow()
            assert Figures(world.merchant, period_of(90, world.at, BERLIN)).pending == []
            assert kept(world.merchant) == ledger(world.merchant, BERLIN)
    follow()
    followed = kept(world.merchant)
    assert followed == ledger(world.merchant, BERLIN)
    assert sum(followed["recoveries"].values()) > 0
    assert kept(other.merchant) == ledger(other.merchant, UTC)
    rollups_build(world.merchant)
    assert kept(world.merchant) == followed


def test_invoices_that_are_counted_again_change_nothing() -> None:
    world = World(at=NOW - timedelta(days=9))
    follow()
    month(world, until=NOW, days=9)
    follow()
    counted = kept(world.merchant)
    RollupPosition.objects.update(event_id=0, xid=RawSQL("'3'::xid8", []))
    assert follow().invoices == Invoice.objects.count()
    assert kept(world.merchant) == counted == ledger(world.merchant, UTC)


def test_a_page_is_exact_though_the_follower_moves_on_while_it_is_read() -> None:
    """What was pending when the page began has been counted by the time that its figures are read."""
    world = World(at=NOW)
    world.fail()
    follow()
    world.fail(customer="cus_second")
    figures = Figures(world.merchant, period_of(7, world.at, UTC))
    assert len(figures.pending or []) == 1
    follow()
    assert sum(row.attempts for row in figures.attempts if row.facet == "network") == 2
    assert sum(row.cases for row in figures.cases if row.facet == "segment") == 2


def test_an_attempt_that_moves_while_its_merchant_is_built_is_counted_once() -> None:
    world = World(at=NOW - timedelta(days=20))
    first = world.fail()
    world.at = NOW
    world.fail(customer="cus_second")

    def move(done: int, total: int) -> None:
        Attempt.objects.filter(invoice=first).update(attempted_at=NOW)

    rollups_build(world.merchant, progress=move)
    assert sum(AttemptRollup.objects.filter(facet="network").values_list("attempts", flat=True)) == 2
    note_add(invoice_pk=first.pk, text="Moved.", stamp=Stamp(actor="user:1", cause="test", now=NOW))
    follow()
    assert kept(world.merchant) == ledger(world.merchant, UTC)


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_a_try_that_goes_to_another_invoice_is_counted_once_at_every_step(
    door: Door, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Both invoices have events of it, which the follower may read one after the other."""
    monkeypatch.setattr(advance, "EVENTS_AT_ONCE", at_once)
    renewal, day = Renewal(BASIL), 86_400
    now = moment(5 * day + 60)
    follow()
    door.tell(now, renewal.invoice_failed(), renewal.invoice_paid(3, after=5 * day + 1))
    door.tell(now, renewal.charge_failed(2, after=3 * day), renewal.invoice_failed(2, after=3 * day + 2))
    follow()
    assert _tries_and_cases() == (4, 2)
    named = Invoice.objects.get(provider_invoice_id="in_1")
    note_add(invoice_pk=named.pk, text="Look.", stamp=Stamp(actor="user:1", cause="test", now=now))
    door.tell(now, renewal.charge_succeeded(3, after=5 * day))
    assert Invoice.objects.filter(cancel_reason="superseded").count() == 1
    follow()
    assert _tries_and_cases() == (3, 1)
    before = kept(door.merchant)
    rollups_build(door.merchant)
    assert kept(door.merchant) == before


def _tries_and_cases() -> tuple[int, int]:
    tries = AttemptRollup.objects.filter(facet="code").values_list("attempts", flat=True)
    return sum(tries), sum(CaseRollup.objects.filter(facet="segment").values_list("cases", flat=True))


def test_another_time_zone_cuts_the_days_again() -> None:
    world = World(at=datetime(2026, 11, 19, 23, 30, tzinfo=UTC))
    world.fail()
    follow()
    assert set(AttemptRollup.objects.values_list("day", flat=True)) == {date(2026, 11, 19)}
    Merchant.objects.filter(pk=world.merchant.pk).update(timezone=BERLIN.key)
    assert shown(world.merchant, world.at, BERLIN) == folded(world.merchant, world.at, BERLIN)
    assert follow().built == 1
    assert set(AttemptRollup.objects.values_list("day", flat=True)) == {date(2026, 11, 20)}


def test_what_commits_late_is_not_passed_over() -> None:
    """Without the stop below the oldest open transaction its events would be behind the position when they appear."""
    world = World(at=NOW)
    follow()
    second = connection.copy()
    try:
        with second.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT pg_current_xact_id()")
            world.fail()
            rollups_advance()
            assert not AttemptRollup.objects.exists(), "the older transaction may still bring an earlier event"
            assert shown(world.merchant, world.at, UTC) == folded(world.merchant, world.at, UTC)
            cursor.execute("COMMIT")
    finally:
        second.close()
    follow()
    assert kept(world.merchant) == ledger(world.merchant, UTC)


def test_only_one_advances_and_the_other_returns() -> None:
    world = World(at=NOW)
    follow()
    world.fail()
    quiet()
    second = connection.copy()
    try:
        with second.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT 1 FROM analytics_rollupposition FOR NO KEY UPDATE")
            assert rollups_advance().events == 0
            cursor.execute("COMMIT")
    finally:
        second.close()
    assert follow().events > 0
    with transaction.atomic():
        assert RollupPosition.objects.count() == 1
