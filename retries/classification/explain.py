"""One plain sentence for staff, and the key of the text that the payer may read."""

from datetime import timedelta

from providers.decline_tables import DeclineRow
from retries.categories import TECHNICAL, Category, RetryClass
from retries.classification.types import ClassificationInput
from tokens.advice import AdviceEffect

_MEANING = {
    Category.HARD_DECLINE: "The card or account was refused for good",
    Category.INSUFFICIENT_FUNDS: "There was not enough money on the account",
    Category.SOFT_DECLINE: "The bank refused this time",
    Category.AUTHENTICATION_REQUIRED: "The bank wants the customer to confirm the payment",
    Category.NETWORK_ERROR: "The way to the bank was broken",
    Category.PROCESSING_ERROR: "The processor failed while handling the payment",
    Category.SERVICE_UNAVAILABLE: "The provider was not available",
    Category.RATE_LIMITED: "The provider or network has had enough requests for now",
    Category.CONFIG_ERROR: "The request or our set-up at the provider is wrong",
    Category.FRAUD_FLAGGED: "The payment was refused on suspicion of fraud",
}
_NEXT = {
    RetryClass.NEVER: "it is not tried again on this token",
    RetryClass.LATER: "it may be tried again later",
    RetryClass.IMMEDIATE: "it may be tried again soon",
    RetryClass.AFTER_CUSTOMER_ACTION: "the customer has to act first",
    RetryClass.AFTER_ENGINEERING_FIX: "someone has to correct that first",
}


def explain(failure: ClassificationInput, row: DeclineRow, effect: AdviceEffect, source: str, *, known: bool) -> str:
    """What happened, what follows from it, and on whose word."""
    code = failure.code
    if row.look_up:
        what, following = "The payment may already have gone through", "its outcome is looked up first"
    elif not known and code:
        what, following = f"The code {code!r} is in none of our tables", "it is treated as a soft decline"
    elif not known:
        given = "a message but no decline code" if failure.message_present else "neither a code nor a message"
        what, following = f"The provider gave {given}", "it is treated as a soft decline"
    else:
        what, following = _MEANING[row.category], _NEXT[row.retry]
    if effect.wait is not None:
        following += f", at the earliest {effect.wait // timedelta(hours=1)} hours after the answer"
    detail = f"{source}; code {code}" if code and known else source
    return f"{what}, so {following} ({detail})."


def payer_text_key(category: Category, row: DeclineRow) -> str:
    """Which text the payer may read. Fraud, lost and stolen cards look like any other refusal."""
    if category is Category.HARD_DECLINE:
        expired = "expired" in row.code.casefold() or row.note.casefold().startswith("expired card:")
        return "card_expired" if expired else "card_not_usable"
    if category is Category.INSUFFICIENT_FUNDS:
        return "insufficient_funds"
    if category is Category.AUTHENTICATION_REQUIRED:
        return "authentication_needed"
    if category in TECHNICAL or category is Category.CONFIG_ERROR:
        return "temporary_problem"
    return "declined"
