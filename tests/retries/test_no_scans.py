"""What an event or a charge costs does not grow with the ledger: nothing of it reads a whole table."""

from collections.abc import Callable
from functools import partial

import pytest

from invoices.models import ProviderPayment
from retries.engine.drain import job_work
from tests.support.copies import copy_rows, whole_reads
from tests.support.shop import Shop
from tests.support.stripe import BASIL, OLD

pytestmark = pytest.mark.django_db
# More than a page of anything has, less than the planner would read at once.
MANY = 3_000


@pytest.fixture
def crowded(shop: Shop) -> Shop:
    """A shop with 3,000 other customers whose bill has failed, each with card, case and booked retry."""
    bill = shop.failed_bill()
    (attempt,), token = shop.attempts(bill), shop.token(bill)
    copy_rows(
        {
            "invoices_customer": shop.customer(bill).pk,
            "tokens_card": token.card_id,
            "tokens_token": token.pk,
            "invoices_invoice": attempt.invoice_id,
            "invoices_transaction": attempt.transaction_id,
            "invoices_attempt": attempt.pk,
            "invoices_providerpayment": ProviderPayment.objects.get(invoice=attempt.invoice_id).pk,
            "retries_case": shop.case(bill).pk,
            "retries_retryjob": shop.job(bill).pk,
        },
        MANY,
    )
    return shop


def scanned(work: Callable[[], object]) -> dict[str, int]:
    """Tables of which `work` has read whole runs of rows."""
    before = whole_reads()
    work()
    read = {name: rows - before.get(name, 0) for name, rows in whole_reads().items()}
    return {name: rows for name, rows in read.items() if rows >= MANY}


@pytest.mark.parametrize("version", [OLD, BASIL])
def test_no_event_of_a_story_reads_a_whole_table(crowded: Shop, version: str) -> None:
    bill = crowded.bill(version=version)
    first, second = bill.attempt(crowded.at), bill.attempt(crowded.wait(hours=1))
    story = [
        *(*first.failed(), first.linked(), first.invoice_updated(), bill.method_attached(crowded.at)),
        *(second.charge_pending(), *second.succeeded(), second.linked()),
        second.charge_refunded(1000, 0, crowded.wait(days=1)),
        second.refund("1", 1000, crowded.at),
        second.dispute("needs_response", crowded.wait(days=1)),
        second.dispute("lost", crowded.wait(days=1)),
        *(bill.method_detached(crowded.at), bill.voided(crowded.at)),
    ]
    for event in story:
        assert scanned(partial(crowded.tell, event)) == {}, event.type
    assert (len(crowded.attempts(bill)), crowded.invoice(bill).refunded_minor) == (2, 1000)


def test_a_charge_reads_no_whole_table(crowded: Shop) -> None:
    bill = crowded.failed_bill()
    crowded.wait_for(bill)
    assert scanned(lambda: job_work(crowded.job(bill).pk, now=crowded.at)) == {}
    assert [attempt.status for attempt in crowded.attempts(bill)] == ["DECLINED", "SUCCEEDED"]
