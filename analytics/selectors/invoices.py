"""The invoice list: filters from the address, keyset pages, no count of the whole."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from urllib.parse import urlencode

from django.db.models import Exists, OuterRef, Q, QuerySet

from accounts.models import Merchant
from analytics.definitions import DEFINITIONS
from analytics.period import LENGTHS, period_of, zone_of
from analytics.search import invoice_pks_matching
from analytics.selectors.invariants import NAMES, breaches
from analytics.words import category_name, state_label
from invoices.models import Attempt, Invoice
from invoices.states import AttemptStatus, InvoiceStatus, TransactionKind
from providers.categories import Category
from retries.models import Case
from retries.states import CaseStatus, NextStep

PAGE = 50
_EXPORT_CHUNK = 1000
_FAILED = (AttemptStatus.DECLINED, AttemptStatus.ERRORED)
# Stands for "nothing told" (no code, no country), which an empty parameter cannot say.
NO_CODE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceFilter:
    """What the address asks for; an empty field asks for nothing. `opened`, `closed`, `failed` are local days
    up to now; `failed` turns `category` and `code` from the case's into those of a failed attempt, and is the
    period of `check`. `network` and `country` are a failed attempt's card's, `segment` and `policy` (version) a case's,
    `connection` is a public id."""

    q: str = ""
    status: str = ""
    case: str = ""
    next_step: str = ""
    category: str = ""
    currency: str = ""
    opened: str = ""
    closed: str = ""
    failed: str = ""
    code: str = ""
    network: str = ""
    country: str = ""
    segment: str = ""
    policy: str = ""
    connection: str = ""
    check: str = ""

    def query(self, **changes: str) -> str:
        """The same filter as a query string, with `changes`."""
        changed = replace(self, **changes)
        return urlencode({one.name: value for one in fields(changed) if (value := getattr(changed, one.name))})

    @property
    def active(self) -> list[tuple[str, str]]:
        """The filters in force as (field, words), for the chips."""
        words = {
            "q": f"“{self.q}”",
            "status": state_label("invoice", self.status),
            "case": f"Case {state_label('case', self.case).lower()}",
            "next_step": state_label("step", self.next_step),
            "category": category_name(self.category),
            "currency": self.currency,
            "opened": f"Case opened in the last {self.opened} days",
            "closed": f"Case closed in the last {self.closed} days",
            "failed": f"Attempt failed in the last {self.failed} days",
            "code": "Without a decline code" if self.code == NO_CODE else f"Code {self.code}",
            "network": f"Network {self.network}",
            "country": "Without a card country" if self.country == NO_CODE else f"Card from {self.country}",
            "segment": f"Segment {self.segment.replace('_', ' ')}",
            "policy": f"Policy version {self.policy}",
            "connection": "One connection",
            "check": DEFINITIONS[self.check].name if self.check else "",
        }
        if self.check:  # its period only; the attempts need not have failed
            words["failed"] = f"In the last {self.failed} days"
        return [(name, text) for name, text in words.items() if getattr(self, name)]


_ALLOWED: Mapping[str, frozenset[str]] = {
    "status": frozenset(InvoiceStatus.values),
    "case": frozenset(CaseStatus.values),
    "next_step": frozenset(NextStep.values),
    "category": frozenset(category.value for category in Category),
    "opened": frozenset(map(str, LENGTHS)),
    "closed": frozenset(map(str, LENGTHS)),
    "failed": frozenset(map(str, LENGTHS)),
    "check": frozenset(NAMES),
}


def filter_from(parameters: Mapping[str, str]) -> InvoiceFilter:
    """Read the address; values that mean nothing are dropped, so that old links still open (`address_check` tells)."""
    found = {}
    for one in fields(InvoiceFilter):
        value = str(parameters.get(one.name, "")).strip()[:300].replace("\x00", "")
        if value and (one.name not in _ALLOWED or value in _ALLOWED[one.name]):
            found[one.name] = value
    if not re.fullmatch(r"[0-9]{1,9}", found.get("policy", "0")):
        del found["policy"]
    return InvoiceFilter(**found)


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    """One invoice with its newest case, if it ever failed."""

    invoice: Invoice
    case: Case | None

    @property
    def open_case(self) -> Case | None:
        return self.case if self.case is not None and self.case.status == CaseStatus.OPEN else None


@dataclass(frozen=True, slots=True)
class InvoicePage:
    """One page, newest first; `older_than` is the cursor of the next page, None at the end."""

    rows: tuple[InvoiceRow, ...]
    older_than: int | None


def invoice_page(
    merchant: Merchant, wanted: InvoiceFilter, *, now: datetime, older_than: int | None, size: int = PAGE
) -> InvoicePage:
    """A page of the merchant's invoices by descending primary key; a fixed number of queries whatever its
    size.
    """
    found = invoices_matching(merchant, wanted, now).select_related("customer")
    if older_than is not None:
        found = found.filter(pk__lt=older_than)
    invoices = list(found.order_by("-pk")[: size + 1])
    shown = invoices[:size]
    cases = _newest_cases(merchant, [invoice.pk for invoice in shown])
    rows = tuple(InvoiceRow(invoice, cases.get(invoice.pk)) for invoice in shown)
    return InvoicePage(rows, shown[-1].pk if len(invoices) > size else None)


def invoices_matching(merchant: Merchant, wanted: InvoiceFilter, now: datetime) -> "QuerySet[Invoice]":
    """The merchant's invoices that pass the filter, in no order yet."""
    found = Invoice.objects.filter(merchant=merchant)
    if wanted.q:
        found = found.filter(pk__in=invoice_pks_matching(merchant, wanted.q))
    if wanted.status:
        found = found.filter(status=wanted.status)
    if wanted.currency:
        found = found.filter(currency=wanted.currency.upper())
    if wanted.connection:
        found = found.filter(connection__public_id=wanted.connection)
    if wanted.check:
        period = period_of(int(wanted.failed or LENGTHS[1]), now, zone_of(merchant.timezone))
        found = found.filter(pk__in=breaches(wanted.check, merchant, period))
    elif wanted.failed or wanted.code or wanted.network or wanted.country:
        found = found.filter(Exists(_failed_attempts(merchant, wanted, now)))
    of_case = (wanted.case, wanted.next_step, wanted.opened, wanted.closed, wanted.segment, wanted.policy)
    if any(of_case) or (wanted.category and not wanted.failed):
        found = found.filter(Exists(_cases(merchant, wanted, now)))
    return found


def _since(merchant: Merchant, days: str, now: datetime) -> datetime:
    return period_of(int(days), now, zone_of(merchant.timezone)).start


def _failed_attempts(merchant: Merchant, wanted: InvoiceFilter, now: datetime) -> "QuerySet[Attempt]":
    attempts = Attempt.objects.filter(
        merchant=merchant, invoice=OuterRef("pk"), kind=TransactionKind.CHARGE, status__in=_FAILED
    )
    if wanted.failed:
        attempts = attempts.filter(attempted_at__gte=_since(merchant, wanted.failed, now))
    if wanted.category:
        attempts = attempts.filter(category=wanted.category)
    if wanted.code:
        attempts = attempts.filter(raw_code="" if wanted.code == NO_CODE else wanted.code)
    if wanted.network:
        attempts = attempts.filter(card__network=wanted.network)
    if wanted.country:
        attempts = attempts.filter(card__country="" if wanted.country == NO_CODE else wanted.country)
    return attempts


def _cases(merchant: Merchant, wanted: InvoiceFilter, now: datetime) -> "QuerySet[Case]":
    """All conditions must hold for one and the same case; a next step belongs to an open one."""
    conditions = Q(merchant=merchant, invoice=OuterRef("pk"))
    if wanted.case:
        conditions &= Q(status=wanted.case)
    if wanted.next_step:
        conditions &= Q(status=CaseStatus.OPEN, next_step=wanted.next_step)
    if wanted.opened:
        conditions &= Q(opened_at__gte=_since(merchant, wanted.opened, now))
    if wanted.closed:
        conditions &= Q(closed_at__gte=_since(merchant, wanted.closed, now))
    if wanted.category and not wanted.failed:
        conditions &= Q(category=wanted.category)
    if wanted.segment:
        conditions &= Q(segment=wanted.segment)
    if wanted.policy:
        conditions &= Q(policy_version__version=int(wanted.policy))
    return Case.objects.filter(conditions)


def _newest_cases(merchant: Merchant, invoice_pks: list[int]) -> dict[int, Case]:
    cases = (
        Case.objects.filter(merchant=merchant, invoice__in=invoice_pks)
        .order_by("invoice_id", "-pk")
        .distinct("invoice_id")
    )
    return {case.invoice_id: case for case in cases}


def invoices_for_export(merchant: Merchant, wanted: InvoiceFilter, now: datetime) -> Iterator[InvoiceRow]:
    """Every matching invoice, newest first, read in keyset chunks so that memory stays flat."""
    older_than: int | None = None
    while True:
        page = invoice_page(merchant, wanted, now=now, older_than=older_than, size=_EXPORT_CHUNK)
        yield from page.rows
        if page.older_than is None:
            return
        older_than = page.older_than
