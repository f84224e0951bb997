"""What a batch costs must not grow with the ledger."""

import pytest

from invoices.services.parties import customer_lock
from recovery_site.common.in_step import in_step
from tests.retries.test_no_scans import crowded as crowded
from tests.retries.test_no_scans import scanned
from tests.support.shop import Shop
from tokens.services import cards_lock

pytestmark = pytest.mark.django_db(transaction=True)


def test_many_customers_cards_are_locked_without_reading_all_cards(crowded: Shop) -> None:
    pks = [crowded.customer(crowded.failed_bill()).pk for _ in range(2)]
    lock = lambda pk: [card.pk for card in cards_lock(customer_lock(pk))]  # noqa: E731
    assert scanned(lambda: in_step([lambda pk=pk: lock(pk) for pk in pks])) == {}


def test_a_batch_of_events_reads_no_whole_table(crowded: Shop) -> None:
    crowded.receive(*(crowded.bill().attempt(crowded.at).charge_failed() for _ in range(2)))
    assert scanned(crowded.process) == {}


def test_a_batch_of_charges_reads_no_whole_table(crowded: Shop) -> None:
    bills = [crowded.failed_bill() for _ in range(2)]
    from retries.models import RetryJob

    RetryJob.objects.exclude(pk__in=[crowded.job(bill).pk for bill in bills]).update(status="CANCELED")
    crowded.wait(days=1)
    assert scanned(crowded.drain) == {}
