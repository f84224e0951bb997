"""Amounts as Stripe counts them, against ISO 4217 minor units.

Stripe differs from ISO in three currencies (its list of special cases): ISK and UGX have no decimals any
more but are still sent with two, so that 5 kr is 500; MGA is sent in whole ariary although ISO gives it two
decimals.
"""

from recovery_site.common.errors import InvalidInput
from recovery_site.common.money import amount_minor, exponent

_STRIPE_EXPONENTS = {"ISK": 2, "UGX": 2, "MGA": 0}
# Stripe's partners take these three-decimal currencies in tens of minor units only: no 5.124 KWD.
_LAST_DIGIT_ZERO = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})


def from_stripe(amount: int, currency: str) -> int:
    """Stripe's integer -> ISO minor units. InvalidInput for a fraction that the currency does not have."""
    return _shift(amount, currency, exponent(currency) - _stripe_exponent(currency))


def to_stripe(amount: int, currency: str) -> int:
    """ISO minor units -> the integer Stripe expects. InvalidInput for an amount that it cannot charge."""
    if currency in _LAST_DIGIT_ZERO and amount % 10:
        raise InvalidInput(f"Stripe charges {currency} in tens of minor units only; {amount} must end in 0.")
    return _shift(amount, currency, _stripe_exponent(currency) - exponent(currency))


def _stripe_exponent(currency: str) -> int:
    return _STRIPE_EXPONENTS.get(currency, exponent(currency))


def _shift(amount: int, currency: str, places: int) -> int:
    if places >= 0:
        return amount_minor(amount * 10**places)
    whole, rest = divmod(amount, 10**-places)
    if rest:
        raise InvalidInput(
            f"{amount} is not a whole number of units of {currency}; it must be divisible by {10**-places}."
        )
    return amount_minor(whole)
