"""What the open cases may still bring, from how cases like them went. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

# With fewer cases a category says nothing; all categories together are used instead.
LEAST_CASES: Final = 20


@dataclass(slots=True)
class Curve:
    """How many of `cases` were recovered, by hours from their opening, rounded down."""

    cases: int = 0
    recovered: Counter[int] = field(default_factory=Counter)

    def add(self, cases: int, hour: int | None) -> None:
        """`hour` None: not recovered."""
        self.cases += cases
        if hour is not None:
            self.recovered[hour] += cases

    def later_share(self, age_hours: int) -> float:
        """Of those not recovered at this age, the share that was recovered later."""
        before = sum(count for hour, count in self.recovered.items() if hour < age_hours)
        left = self.cases - before
        return (self.recovered.total() - before) / left if left > 0 else 0.0


@dataclass(frozen=True, slots=True)
class OpenAmount:
    """What is due on open cases of one first category, currency and age."""

    category: str
    currency: str
    age_hours: int
    due_minor: int


@dataclass(frozen=True, slots=True)
class Expected:
    """Of `due_minor` at risk, `expected_minor` may still come; None without any history to judge by."""

    currency: str
    due_minor: int
    expected_minor: int | None


def forecast(curves: Mapping[str, Curve], amounts: Iterable[OpenAmount]) -> list[Expected]:
    """Per currency, the largest amount at risk first. `curves` by first category."""
    together = Curve()
    for curve in curves.values():
        together.cases += curve.cases
        together.recovered.update(curve.recovered)
    due: Counter[str] = Counter()
    hoped: dict[str, float] = defaultdict(float)
    shares: dict[tuple[str, int], float] = {}
    for amount in amounts:
        key = amount.category, amount.age_hours
        if key not in shares:
            curve = curves.get(amount.category, together)
            shares[key] = (curve if curve.cases >= LEAST_CASES else together).later_share(amount.age_hours)
        due[amount.currency] += amount.due_minor
        hoped[amount.currency] += amount.due_minor * shares[key]
    known = together.cases >= LEAST_CASES
    return [
        Expected(currency, minor, round(hoped[currency]) if known else None) for currency, minor in due.most_common()
    ]
