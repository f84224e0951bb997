"""Why a payment failed, in the customer's words: a key of the catalogue's reasons. Pure.

Never a raw code, and never a suspicion: whatever a bank or a filter calls lost, stolen or fraudulent is, for the person
who reads it, a payment that their bank did not approve.
"""

from collections.abc import Mapping

from retries.categories import Category

_EXPIRED = frozenset({"expired_card", "card_expired", "expired", "54", "invalid_expiry_year", "invalid_expiry_month"})
_LIMIT = frozenset(
    {
        "card_velocity_exceeded",
        "withdrawal_count_limit_exceeded",
        "withdrawal_amount_limit_exceeded",
        "exceeds_limit",
        "61",
        "65",
    }
)
# Hard declines whose true reason nobody should read in a mail.
_SILENT = frozenset(
    {
        "lost_card",
        "stolen_card",
        "pickup_card",
        "pick_up_card",
        "fraudulent",
        "merchant_blacklist",
        "highest_risk_level",
        "security_violation",
        "restricted_card",
        "04",
        "07",
        "34",
        "41",
        "43",
        "59",
        "62",
        "63",
    }
)
_TECHNICAL = frozenset(
    {
        Category.NETWORK_ERROR,
        Category.PROCESSING_ERROR,
        Category.SERVICE_UNAVAILABLE,
        Category.RATE_LIMITED,
        Category.CONFIG_ERROR,
    }
)
_BY_CATEGORY: Mapping[str, str] = {
    Category.INSUFFICIENT_FUNDS: "funds",
    Category.AUTHENTICATION_REQUIRED: "confirm",
    Category.HARD_DECLINE: "card_unusable",
    Category.SOFT_DECLINE: "bank",
    Category.FRAUD_FLAGGED: "bank",
}


def reason_key(category: str, code: str = "", *, expired: bool = False, returned: bool = False) -> str:
    """The key of the sentence. `expired`: the card's last month is over; `returned`: the bank took the money back."""
    code = code.lower()
    if returned:
        return "returned"
    if category == Category.FRAUD_FLAGGED or code in _SILENT:
        return "bank"
    if expired or code in _EXPIRED:
        return "expired"
    if code in _LIMIT:
        return "limit"
    if category in _TECHNICAL:
        return "technical"
    return _BY_CATEGORY.get(category, "bank")
