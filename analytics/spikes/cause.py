"""What an incident probably is, from where its additional failures lie. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from analytics.spikes.detect import Cell, Dimension, Subject
from analytics.words import category_name
from providers.categories import Category

# So much of the additional failures is "mostly".
_MOSTLY, _BEYOND_TRAFFIC = 0.6, 0.2
UNANSWERED: Final = "unanswered"

_THEIRS = "a disturbance at the provider"
_LIKELY: Mapping[str, str] = {
    UNANSWERED: "the provider does not answer",
    Category.SERVICE_UNAVAILABLE: _THEIRS,
    Category.PROCESSING_ERROR: _THEIRS,
    Category.NETWORK_ERROR: "the way to the provider is disturbed",
    Category.RATE_LIMITED: "more requests than the provider takes",
    Category.CONFIG_ERROR: "our set-up at the provider, such as a key or an account that is no longer valid",
    Category.FRAUD_FLAGGED: "a fraud rule that became stricter, or stolen cards being tested",
    Category.AUTHENTICATION_REQUIRED: "banks that ask for a confirmation more often than before",
    Category.INSUFFICIENT_FUNDS: "empty accounts, as before payday",
}


@dataclass(frozen=True, slots=True)
class Lead:
    """The value with most additional failures, its share of them, and its share of the attempts."""

    name: str
    share: float
    of_attempts: float = 0.0

    @property
    def stands_out(self) -> bool:
        """Most of the additional failures, and clearly more than its part of the traffic explains."""
        return self.share >= _MOSTLY and self.share >= self.of_attempts + _BEYOND_TRAFFIC


@dataclass(frozen=True, slots=True)
class Cause:
    """What leads among codes, categories, countries and connections; None where nothing does."""

    code: Lead | None
    category: Lead | None
    country: Lead | None
    connection: Lead | None


def cause_of(cells: Sequence[Cell], leader: Subject, usual: Mapping[Subject, float]) -> Cause:
    """`usual` is the share of failures of each subject in peace; a code's is its share of all attempts."""
    by_code = leader.dimension is Dimension.CODE
    traffic = [cell for cell in cells if by_code or cell.belongs(leader)]
    attempts = sum(cell.attempts for cell in traffic)
    more = {
        code: failed - usual.get(Subject(Dimension.CODE, code), 0.0) * attempts
        for code, failed in _failed(traffic, lambda cell: cell.code).items()
    }
    code = Lead(leader.key, 1.0) if by_code else _most(more)
    mine = [cell for cell in traffic if cell.belongs(leader)]
    kinds = _failed([cell for cell in mine if code is None or cell.code == code.name], lambda cell: cell.category)

    def place(dimension: Dimension, name: Callable[[Cell], str]) -> Lead | None:
        seen: dict[str, int] = {}
        for cell in traffic:
            seen[name(cell)] = seen.get(name(cell), 0) + cell.attempts
        more = {
            key: failed - usual.get(leader if by_code else Subject(dimension, key), 0.0) * seen[key]
            for key, failed in _failed(mine, name).items()
        }
        found = _most(more)
        return found and Lead(found.name, found.share, seen[found.name] / attempts)

    return Cause(
        code=code,
        category=_most({kind: float(failed) for kind, failed in kinds.items()}),
        country=place(Dimension.COUNTRY, lambda cell: cell.country),
        connection=place(Dimension.CONNECTION, lambda cell: cell.connection),
    )


def _failed(cells: Iterable[Cell], name: Callable[[Cell], str]) -> dict[str, int]:
    failed: dict[str, int] = {}
    for cell in cells:
        if name(cell):
            failed[name(cell)] = failed.get(name(cell), 0) + cell.failed
    return failed


def _most(more: Mapping[str, float]) -> Lead | None:
    positive = {name: surplus for name, surplus in more.items() if surplus > 0}
    if not positive:
        return None
    name = max(sorted(positive), key=lambda one: positive[one])
    return Lead(name, positive[name] / sum(positive.values()))


def cause_words(cause: Cause, leader: Subject, *, connections: Mapping[str, str], countries: int) -> str:
    """One or two sentences: what stands out, and what that usually means.

    `connections`: names by primary key; `countries`: how many the merchant's cards come from.
    """
    told = []
    if leader.dimension is not Dimension.CODE and cause.code and cause.code.stands_out:
        told.append(f"code {cause.code.name} ({_share(cause.code)})")
    if leader.dimension is not Dimension.COUNTRY and countries > 1 and cause.country and cause.country.stands_out:
        told.append(f"cards from {cause.country.name} ({_share(cause.country)})")
    many = leader.dimension is not Dimension.CONNECTION and len(connections) > 1
    if many and cause.connection and cause.connection.stands_out:
        told.append(f"{connections.get(cause.connection.name, 'one connection')} ({_share(cause.connection)})")
    facts = f"Of the additional failures mostly {', '.join(told)}. " if told else ""
    return f"{facts}Likely cause: {_likely(cause, leader)}."


def _share(lead: Lead) -> str:
    return f"{lead.share:.0%}".replace("%", " %")


def _likely(cause: Cause, leader: Subject) -> str:
    category = cause.category.name if cause.category and cause.category.stands_out else ""
    if category in _LIKELY:
        return _LIKELY[category]
    if leader.dimension is Dimension.COUNTRY:
        return f"banks in {leader.key} refuse more than usual"
    if cause.country and cause.country.stands_out:
        return f"banks in {cause.country.name} refuse more than usual"
    if category:
        return f"more answers of the kind “{category_name(category).lower()}”"
    return "not clear, the additional failures have several reasons"
