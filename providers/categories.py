"""The words in which a decline is understood, shared by the decline tables here and by the layers above.

They stand in this layer because the tables do; `retries.categories` offers them under the name people look
for.
"""

from enum import StrEnum


class Category(StrEnum):
    """Why a payment did not go through (DESIGN section 8)."""

    HARD_DECLINE = "HARD_DECLINE"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    SOFT_DECLINE = "SOFT_DECLINE"
    AUTHENTICATION_REQUIRED = "AUTHENTICATION_REQUIRED"
    NETWORK_ERROR = "NETWORK_ERROR"
    PROCESSING_ERROR = "PROCESSING_ERROR"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    RATE_LIMITED = "RATE_LIMITED"
    CONFIG_ERROR = "CONFIG_ERROR"
    FRAUD_FLAGGED = "FRAUD_FLAGGED"


class RetryClass(StrEnum):
    """Whether the same card may be charged again, and what has to happen first."""

    NEVER = "never"
    LATER = "later"
    IMMEDIATE = "immediate"
    AFTER_CUSTOMER_ACTION = "after_customer_action"
    AFTER_ENGINEERING_FIX = "after_engineering_fix"


class Scope(StrEnum):
    """What the answer is about, so what has to wait: this invoice, this token, or everything on the
    connection."""

    INVOICE = "invoice"
    TOKEN = "token"  # noqa: S105 - a word of the domain
    CONNECTION = "connection"


class Actor(StrEnum):
    """Who has to act next."""

    MACHINE = "machine"
    CUSTOMER = "customer"
    ENGINEERING = "engineering"
    STAFF = "staff"
