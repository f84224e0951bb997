"""Random faults that come out the same for the same seed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass


class FaultsError(ValueError):
    """Rates that make no sense; the message says what to send."""


@dataclass(frozen=True, slots=True)
class Faults:
    """`rates` maps a step to the share of calls it strikes, 0 to 1; `version` tells settings apart."""

    version: int
    seed: int | str
    rates: Mapping[str, float]

    def draw(self, lane: str, nth: int) -> str | None:
        """The step that strikes the nth call on `lane`, or None.

        Hashed from (seed, lane, nth), not drawn from one running generator: what strikes one card does not
        depend on how threads serving other cards interleave.
        """
        digest = hashlib.sha256(f"{self.seed}\0{lane}\0{nth}".encode()).digest()
        point = int.from_bytes(digest[:8]) / 2**64
        for step in sorted(self.rates):
            point -= self.rates[step]
            if point < 0:
                return step
        return None


def check_rates(rates: object) -> dict[str, float]:
    """Shares as floats; raises FaultsError if one is not within 0..1 or they sum to more than 1."""
    if not isinstance(rates, dict):
        raise FaultsError('rates must be an object such as {"timeout_after_charge": 0.1}.')
    for step, share in rates.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise FaultsError(f"The share of {step!r} must be a number from 0 to 1.")
    if sum(rates.values()) > 1 + 1e-9:
        raise FaultsError("The shares sum to more than 1; lower them.")
    return {step: float(share) for step, share in rates.items()}
