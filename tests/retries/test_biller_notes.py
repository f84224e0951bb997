"""Payments and refunds that were made past a billing system are written into its books: once, or visibly not."""

from collections.abc import Iterator

import pytest

from invoices.models import BillerNote, OutboxMessage
from invoices.services import notes
from invoices.services.ledger import Stamp
from invoices.services.notes import NAME, note_retry
from invoices.services.outbox import MAX_TRIES
from providers.base import EventKind
from providers.billing import NoteResult
from recovery_site.common.errors import Conflict
from retries.engine.drain import retries_drain
from retries.refunding import refund_request
from tests.contract.wire import stripe
from tests.contract.wire.stripe import Stripe
from tests.support.biller import BillerShop

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def stripe_running() -> Iterator[Stripe]:
    with Stripe() as server:
        assert isinstance(server, Stripe)
        yield server


@pytest.fixture
def biller(stripe_running: Stripe) -> Stripe:
    stripe_running.reset()
    return stripe_running


@pytest.fixture
def shop(biller: Stripe) -> BillerShop:
    """Stripe Billing's invoice, charged directly: Billing itself hears nothing of it."""
    shop = BillerShop(biller, stripe.INVOICE, config={"mode": "charge"})
    shop.failed("ch_theirs")
    return shop


def paid_out_of_band(biller: Stripe) -> int:
    return sum(seen.path.endswith("/pay") for seen in biller.seen)


def note_alerts(shop: BillerShop) -> list[str]:
    return [name for name in shop.alerts() if name.startswith("note_")]


def refund(shop: BillerShop, amount_minor: int) -> None:
    stamp = Stamp(actor="user:ann", cause="test", now=shop.at)
    refund_request(invoice_pk=shop.invoice().pk, amount_minor=amount_minor, reason="goodwill", stamp=stamp)
    retries_drain(now=shop.at)


def test_a_payment_and_its_refund_are_in_stripes_books(shop: BillerShop, biller: Stripe) -> None:
    assert shop.retry().succeeded == 1
    shop.deliver()
    assert [(note.status, note.record_id) for note in shop.notes()] == [("WRITTEN", "in_1")]
    assert (biller.invoice_status, paid_out_of_band(biller)) == ("paid", 1)
    refund(shop, 900)
    shop.deliver()
    assert [note.status for note in shop.notes()] == ["WRITTEN", "WRITTEN"]
    assert [note["out_of_band_amount"] for note in biller.credit_notes] == [900]
    kinds = list(shop.invoice().events.values_list("kind", flat=True))
    assert kinds.count("note.closed") == 2
    assert shop.deliver().done == 0, "and nothing is left to tell"


def test_a_refund_waits_for_its_payment(shop: BillerShop, biller: Stripe) -> None:
    shop.retry()
    refund(shop, 900)
    biller.steps = ["500_before"]
    shop.deliver()
    first, second = shop.notes()
    assert (first.status, first.tries, second.status) == ("WAITING", 1, "WAITING")
    assert "not in the biller's books yet" in second.why
    shop.deliver()
    shop.deliver()
    assert [note.status for note in shop.notes()] == ["WRITTEN", "WRITTEN"]


def test_a_part_is_told_once_the_whole_invoice_is_paid(shop: BillerShop, biller: Stripe) -> None:
    biller.steps = ["partial"]
    shop.retry()
    assert shop.invoice().paid_minor == 2000
    shop.deliver()
    assert [(note.status, paid_out_of_band(biller)) for note in shop.notes()] == [("LATER", 0)]
    shop.retry()
    assert shop.invoice().status == "SETTLED"
    shop.deliver()
    assert [note.status for note in shop.notes()] == ["WRITTEN", "WRITTEN"]
    assert paid_out_of_band(biller) == 1


def test_a_part_that_is_judged_while_the_rest_is_paid_is_told_at_once(
    shop: BillerShop, biller: Stripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event of the settlement may be worked before the part is found to be one: nobody would come again for it."""
    biller.steps = ["partial"]
    shop.retry()
    judge = notes._tell

    def settled_meanwhile(note: BillerNote) -> NoteResult:
        result = judge(note)
        monkeypatch.undo()
        shop.retry()
        return result

    monkeypatch.setattr(notes, "_tell", settled_meanwhile)
    notes.notes_deliver(shop.invoice().events.get(kind="transaction.succeed"))
    (note,) = shop.notes()
    assert (shop.invoice().status, note.status, paid_out_of_band(biller)) == ("SETTLED", "WRITTEN", 1)


def test_a_note_whose_answer_got_lost_is_not_written_twice(shop: BillerShop, biller: Stripe) -> None:
    shop.retry()
    biller.steps = ["500_after"]
    assert shop.deliver().retried == 1
    (note,) = shop.notes()
    assert (note.status, note.tries) == ("WAITING", 1)
    shop.deliver()
    (note,) = shop.notes()
    assert (note.status, paid_out_of_band(biller)) == ("WRITTEN", 1)


def test_a_biller_that_stays_away_is_seen_and_then_given_up(shop: BillerShop, biller: Stripe) -> None:
    shop.retry()
    biller.reads_fail = True
    for _ in range(3):
        shop.deliver()
    (note,) = shop.notes()
    assert (note.status, note.tries, note_alerts(shop)) == ("WAITING", 3, ["note_late"])
    assert "HTTP 500" in note.why
    for _ in range(MAX_TRIES - 3):
        shop.deliver()
    (note,) = shop.notes()
    assert (note.status, note.tries, note_alerts(shop)) == ("FAILED", MAX_TRIES, ["note_late", "note_failed"])
    assert not OutboxMessage.objects.filter(consumer=NAME, done_at=None).exists()
    # A person tries again once the biller is back.
    biller.reads_fail = False
    stamp = Stamp(actor="user:ann", cause="test", now=shop.at)
    note_retry(note_pk=note.pk, stamp=stamp)
    shop.deliver()
    (note,) = shop.notes()
    assert (note.status, paid_out_of_band(biller)) == ("WRITTEN", 1)
    with pytest.raises(Conflict, match="in its books"):
        note_retry(note_pk=note.pk, stamp=stamp)


def test_a_refusal_is_shown_with_its_reason_and_not_repeated(shop: BillerShop, biller: Stripe) -> None:
    shop.retry()
    biller.invoice_status = "void"
    shop.deliver()
    (note,) = shop.notes()
    assert (note.status, note.why, note_alerts(shop)) == ("REFUSED", "Stripe's invoice is void.", ["note_refused"])
    asked = len(biller.seen)
    refund(shop, 900)
    shop.deliver()
    assert [one.status for one in shop.notes()] == ["REFUSED", "REFUSED"]
    assert not [seen for seen in biller.seen[asked:] if "credit_notes" in seen.path]


def test_what_others_paid_is_not_ours_to_tell(shop: BillerShop, biller: Stripe) -> None:
    shop.tell(shop.payment(EventKind.PAYMENT_SUCCEEDED, "ch_of_the_customer"))
    shop.deliver()
    assert (shop.invoice().status, BillerNote.objects.filter(merchant=shop.merchant).count()) == ("SETTLED", 0)
    assert biller.seen == []
