"""When a payment that is still under way should be decided, by rail."""

from datetime import datetime, timedelta

# Business days until Stripe knows, by its payment method pages (ACH up to 4, SEPA up to 14, Bacs 4 and with a
# new mandate 7, BECS 3, ACSS 5), the short ones with some to spare for bank holidays. A card payment is only
# ever under way where a rule makes it wait (India: announced a day ahead).
_BUSINESS_DAYS = {"card": 3, "ach": 5, "sepa": 14, "bacs": 7, "becs": 5, "nz_becs": 5, "acss": 7}
_OTHER_BUSINESS_DAYS = 14
# A card authorisation that nobody captures lapses after 7 days.
AUTHORISATION_DAYS = 7
# Stripe gives refunds 5 to 10 business days to arrive; those of bank debits are pending for that long.
REFUND_BUSINESS_DAYS = 10


def expected_by(kind: str, started_at: datetime) -> datetime:
    """The instant by which a payment of this rail, started at an aware time, is normally decided."""
    return add_business_days(started_at, _BUSINESS_DAYS.get(kind, _OTHER_BUSINESS_DAYS))


def add_business_days(start: datetime, days: int) -> datetime:
    """`days` weekdays later, at the same time of day; bank holidays are not known here."""
    end = start
    while days:
        end += timedelta(days=1)
        if end.weekday() < 5:
            days -= 1
    return end
