"""Which retry goes first: a band from 0 (first) to 9, and the expected value that orders a customer's queue. Pure."""

from datetime import datetime, timedelta

from invoices.models import Invoice
from recovery_site.common.money import to_decimal
from retries.models import Case

# Amounts are compared in major units: currencies differ by less than their minor units do. One band per factor of ten.
_AMOUNT_STEPS = (10_000, 1_000, 100, 10)
_SEGMENT_SHIFT = {"high_value": -2, "low_value": 2}
_LATE = timedelta(days=3)
# Share of each kind of failure that a retry brings back, in percent; only the order matters
# (timing facts section 6: technical failures nearly always, low funds often, generic refusals seldom).
_CHANCE = {
    "NETWORK_ERROR": 90,
    "SERVICE_UNAVAILABLE": 90,
    "PROCESSING_ERROR": 80,
    "RATE_LIMITED": 80,
    "INSUFFICIENT_FUNDS": 55,
    "SOFT_DECLINE": 35,
    "AUTHENTICATION_REQUIRED": 20,
    "HARD_DECLINE": 10,
}


def priority_band(invoice: Invoice, case: Case | None, now: datetime) -> int:
    """0..9 from the amount, the segment and how little of the first 30 days is left."""
    major = to_decimal(invoice.due_minor, invoice.currency)
    band = 3 + sum(1 for step in _AMOUNT_STEPS if major < step)
    if case is not None:
        band += _SEGMENT_SHIFT.get(case.segment, 0)
        if case.opened_at + timedelta(days=30) - now < _LATE:
            band -= 1
    return min(9, max(0, band))


def expected_value(due_minor: int, category: str) -> int:
    """Amount times chance, in minor units."""
    return due_minor * _CHANCE.get(category, 35) // 100
