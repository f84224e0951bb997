"""`verify`: is the ledger what its events say, and were the promises kept? Reads in batches, writes nothing."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

from django.db import connection, transaction

from accounts.models import Merchant
from invoices.models import Attempt, Dispute, Event, Invoice, ReviewItem, Transaction
from invoices.states import ReviewKind, TransactionKind, TransactionStatus
from recovery_site.console.verification import limits, replay, steps
from recovery_site.console.verification.types import MUST_BE_ZERO as MUST_BE_ZERO
from recovery_site.console.verification.types import Bundle as Bundle
from recovery_site.console.verification.types import Problem as Problem
from recovery_site.console.verification.types import Report as Report
from retries.models import Case, RetryJob
from retries.states import JOB_OPEN, JOB_SLOT

_BATCH = 500


def verify(*, merchant: Merchant | None = None, progress: Callable[[int], None] = lambda done: None) -> Report:
    """Check every invoice, or those of one merchant. `progress` is told how many are done after each batch.

    Each batch is read in one snapshot, so that a ledger that is written meanwhile shows no false differences.
    """
    problems: list[Problem] = []
    done = after = 0
    while True:
        with snapshot():
            bundles = _bundles(merchant, after)
        if not bundles:
            break
        problems += chain.from_iterable(map(bundle_problems, bundles))
        done, after = done + len(bundles), bundles[-1].invoice.pk
        progress(done)
    with snapshot():
        problems += limits.card_rule_problems(merchant)
        problems += limits.token_problems(merchant)
    return Report(invoices=done, problems=tuple(problems))


def bundle_problems(bundle: Bundle) -> list[Problem]:
    """Everything that can be said about one invoice by itself."""
    checks = (
        replay.chain_problems,
        replay.state_problems,
        replay.amount_problems,
        replay.order_problems,
        steps.step_problems,
        steps.slot_problems,
        steps.open_charge_problems,
        limits.invoice_rule_problems,
        _paid_beyond,
    )
    return list(chain.from_iterable(check(bundle) for check in checks))


def _paid_beyond(bundle: Bundle) -> Iterator[Problem]:
    """Two successes beyond the amount are recorded, never refused, but staff must have been asked about them."""
    invoice = bundle.invoice
    paid = [
        row
        for row in bundle.transactions
        if row.kind == TransactionKind.CHARGE and row.status == TransactionStatus.DONE
    ]
    beyond = invoice.paid_minor > invoice.amount_minor - invoice.credited_minor
    kinds = (ReviewKind.PAID_TWICE, ReviewKind.PAID_AFTER_CANCEL, ReviewKind.OVERPAID)
    if len(paid) > 1 and beyond and not any(item.kind in kinds for item in bundle.reviews):
        detail = f"{invoice.paid_minor} {invoice.currency} came in over {len(paid)} charges and nobody was asked."
        yield bundle.problem("paid_beyond_the_amount", detail)


@contextmanager
def snapshot() -> Iterator[None]:
    """A read-only transaction in which every query sees the same instant; inside another one it joins that."""
    if connection.in_atomic_block:
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def _bundles(merchant: Merchant | None, after: int) -> list[Bundle]:
    """The next invoices by primary key with all that hangs on them: nine queries whatever their number."""
    invoices = Invoice.objects.filter(pk__gt=after).order_by("pk")
    if merchant is not None:
        invoices = invoices.filter(merchant=merchant)
    batch = list(invoices[:_BATCH])
    pks = [invoice.pk for invoice in batch]
    events = _by_invoice(Event.objects.filter(invoice__in=pks).order_by("invoice_id", "seq"))
    transactions = _by_invoice(Transaction.objects.filter(invoice__in=pks).order_by("id"))
    attempts = _by_invoice(Attempt.objects.filter(invoice__in=pks).select_related("card").order_by("id"))
    disputes = _by_invoice(Dispute.objects.filter(invoice__in=pks).order_by("id"))
    cases = _by_invoice(Case.objects.filter(invoice__in=pks).order_by("id"))
    jobs = _by_invoice(RetryJob.objects.filter(invoice__in=pks, status__in=JOB_OPEN).order_by("id"))
    reviews = _by_invoice(ReviewItem.objects.filter(invoice__in=pks).order_by("id"))
    slots = RetryJob.objects.filter(
        customer__in={invoice.customer_id for invoice in batch}, kind=TransactionKind.CHARGE, status__in=JOB_SLOT
    )
    held = set(slots.values_list("customer_id", flat=True))
    return [
        Bundle(
            invoice=invoice,
            events=events[invoice.pk],
            transactions=transactions[invoice.pk],
            attempts=attempts[invoice.pk],
            disputes=disputes[invoice.pk],
            cases=cases[invoice.pk],
            jobs=jobs[invoice.pk],
            reviews=reviews[invoice.pk],
            slot_held=invoice.customer_id in held,
        )
        for invoice in batch
    ]


def _by_invoice(rows: Iterable[Any]) -> defaultdict[int, list[Any]]:
    grouped: defaultdict[int, list[Any]] = defaultdict(list)
    for row in rows:
        grouped[row.invoice_id].append(row)
    return grouped
