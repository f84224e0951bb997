"""Money: integer minor units beside an ISO 4217 code; never a float."""

from decimal import Decimal, DecimalException

from babel import Locale
from babel.numbers import format_currency, list_currencies

from recovery_site.common.errors import InvalidInput

# ISO 4217 exponents that are not 2. CLDR's "digits" are display habits that differ from ISO (IQD, UGX).
_EXPONENTS = {
    **dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
    **dict.fromkeys("CLF UYW".split(), 4),
}
_KNOWN = frozenset(list_currencies())

# Larger than any recurring charge and far below bigint: a value past it is a unit mistake, not money.
MAX_AMOUNT_MINOR = 10**15
_MOST_DIGITS = 30


def currency_code(value: object) -> str:
    """Upper-cased ISO 4217 code, or InvalidInput."""
    code = value.strip().upper() if isinstance(value, str) else ""
    if code not in _KNOWN:
        raise InvalidInput(f"{value!r} is not an ISO 4217 currency code; send three letters such as USD.")
    return code


def exponent(currency: str) -> int:
    """Number of decimal places of one major unit: JPY 0, USD 2, KWD 3."""
    return _EXPONENTS.get(currency, 2)


def amount_minor(value: object, *, minimum: int = 0) -> int:
    """Check an integer amount in minor units. Booleans, floats, text and values past 10^15 are refused."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput("An amount must be an integer in minor units or a decimal string, not a float.")
    if not minimum <= value <= MAX_AMOUNT_MINOR:
        raise InvalidInput(f"The amount {value} is outside {minimum}..{MAX_AMOUNT_MINOR} minor units.")
    return value


def from_decimal_string(value: str, currency: str) -> int:
    """'12.34', USD -> 1234. More decimals than the currency has are an error, never rounded."""
    try:
        scaled = Decimal(value).scaleb(exponent(currency))
    except DecimalException:
        scaled = Decimal("NaN")
    # A number such as 1e999999 must not be written out digit by digit.
    if not scaled.is_finite() or scaled.adjusted() > _MOST_DIGITS or scaled != scaled.to_integral_value():
        raise InvalidInput(f"{value!r} is not an amount with at most {exponent(currency)} decimals ({currency}).")
    return amount_minor(int(scaled))


def to_decimal(minor: int, currency: str) -> Decimal:
    """1234, USD -> Decimal('12.34')."""
    return Decimal(minor).scaleb(-exponent(currency))


def format_money(minor: int, currency: str, *, locale: str = "en") -> str:
    """For people: '$12.34', with ISO's number of decimals."""
    digits = exponent(currency)
    pattern = "¤#,##0" + ("." + "0" * digits if digits else "")
    return format_currency(to_decimal(minor, currency), currency, format=pattern, locale=locale, currency_digits=False)


def format_money_locally(minor: int, currency: str, locale: str) -> str:
    """As people of that locale write it: `$12.34`, `12,34 €`; with ISO's number of decimals."""
    known = Locale.parse(locale.replace("-", "_"))
    digits = exponent(currency)
    pattern = known.currency_formats["standard"].pattern.partition(";")[0]
    pattern = pattern.replace(".00", "." + "0" * digits if digits else "")
    return format_currency(to_decimal(minor, currency), currency, format=pattern, locale=known, currency_digits=False)
