"""The few words that every console page says the same way: moments, distances, networks, rules, categories. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from analytics.words import category_name, network_name
from providers.categories import Category
from tokens.rules import Counts, Key, Rule

_CATEGORY_WORDS: Mapping[str, str] = {
    Category.HARD_DECLINE: "The bank will never accept this card; another one is needed.",
    Category.INSUFFICIENT_FUNDS: "There was not enough money on the account at that moment.",
    Category.SOFT_DECLINE: "The bank said no this time; a later try may go through.",
    Category.AUTHENTICATION_REQUIRED: "The bank wants the customer to confirm the payment.",
    Category.NETWORK_ERROR: "The request did not reach the provider; nothing was charged.",
    Category.PROCESSING_ERROR: "The processor failed while it handled the payment.",
    Category.SERVICE_UNAVAILABLE: "The provider was not available.",
    Category.RATE_LIMITED: "The provider or the network wants fewer requests for a while.",
    Category.CONFIG_ERROR: "Our set-up at the provider is wrong; somebody has to repair it first.",
    Category.FRAUD_FLAGGED: "Refused on suspicion of fraud; the payer is not told why.",
}
_UNITS = (
    ("day", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("min", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
)


def moment_text(at: datetime, now: datetime) -> str:
    """`Fri 21 Nov 09:00 UTC`; with the year when it is not this one."""
    here = at.astimezone(UTC)
    year = f" {here.year}" if here.year != now.astimezone(UTC).year else ""
    return f"{here:%a} {here.day} {here:%b}{year} {here:%H:%M} UTC"


def distance_text(at: datetime, now: datetime) -> str:
    """`in 3 h 20 min`, `2 days ago`, `now`: the two largest units, the second only where it matters."""
    gap = abs(at - now)
    if gap < timedelta(seconds=1):
        return "now"
    text = duration_text(gap)
    return f"in {text}" if at > now else f"{text} ago"


def duration_text(gap: timedelta) -> str:
    """`3 h 20 min`; days carry hours only below three days."""
    for place, (unit, size) in enumerate(_UNITS):
        count = gap // size
        if not count:
            continue
        text = _count(count, unit)
        if place + 1 < len(_UNITS) and count < 3 and unit != "s":
            smaller, smaller_size = _UNITS[place + 1]
            rest = (gap - count * size) // smaller_size
            text += f" {_count(rest, smaller)}" if rest else ""
        return text
    return "less than a second"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' if unit == 'day' and number != 1 else ''}"


def card_label(network: str, last4: str) -> str:
    """`Visa •••• 4242`, or the network alone where no digits are known."""
    title = network_name(network)
    if network == "unknown":
        title = "Card"
    return f"{title} •••• {last4}" if last4 else title


def rule_words(rule: Rule) -> str:
    """`Visa's 15 declines in 30 days for the same amount`: a rule as people speak of it."""
    whose = "our own limit of" if rule.network == "unknown" else f"{network_name(rule.network)}'s"
    what = "declines" if rule.counts is Counts.DECLINES else "attempts"
    window = "a calendar month" if rule.window is None else rule.window_text
    scope = {Key.CARD: "", Key.CARD_AMOUNT: " for the same amount", Key.INVOICE: " for one invoice"}[rule.key]
    return f"{whose} {rule.limit} {what} in {window}{scope}"


def category_title(category: str) -> str:
    """The category's name; an empty one is a failure whose reason is not known yet."""
    return category_name(category) if category else "Reason not known yet"


def category_words(category: str) -> str:
    """One sentence that says what the category means."""
    if not category:
        return "The provider has not told the reason yet."
    return _CATEGORY_WORDS.get(category, "This category has no description.")


def plain(identifier: str) -> str:
    """`paid_after_cancel` as words."""
    return identifier.replace("_", " ").replace(".", " ").strip()
