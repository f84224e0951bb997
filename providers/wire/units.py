"""Amounts as a provider counts them, against ISO 4217 minor units."""

from collections.abc import Mapping
from dataclasses import dataclass

from recovery_site.common.errors import InvalidInput
from recovery_site.common.money import amount_minor, exponent


@dataclass(frozen=True, slots=True)
class Units:
    """`exponents` are those in which the provider differs from ISO; `tens` are currencies it charges in tens only."""

    title: str
    exponents: Mapping[str, int]
    tens: frozenset[str] = frozenset()

    def inbound(self, amount: int, currency: str) -> int:
        """The provider's integer -> ISO minor units. InvalidInput for a fraction that the currency does not have."""
        return _shift(amount, currency, exponent(currency) - self._exponent(currency))

    def outbound(self, amount: int, currency: str) -> int:
        """ISO minor units -> the integer the provider expects. InvalidInput for an amount that it cannot charge."""
        if currency in self.tens and amount % 10:
            raise InvalidInput(f"{self.title} charges {currency} in tens of minor units only; {amount} must end in 0.")
        return _shift(amount, currency, self._exponent(currency) - exponent(currency))

    def _exponent(self, currency: str) -> int:
        return self.exponents.get(currency, exponent(currency))


def _shift(amount: int, currency: str, places: int) -> int:
    if places >= 0:
        return amount_minor(amount * 10**places)
    whole, rest = divmod(amount, 10**-places)
    if rest:
        raise InvalidInput(
            f"{amount} is not a whole number of units of {currency}; it must be divisible by {10**-places}."
        )
    return amount_minor(whole)
