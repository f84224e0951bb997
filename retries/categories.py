"""Decline categories and the few facts about them that several parts of the engine need."""

from providers.categories import Actor as Actor
from providers.categories import Category as Category
from providers.categories import RetryClass as RetryClass
from providers.categories import Scope as Scope

# DESIGN section 8: no charge on this token is ever the machine's own idea after one of these.
STOPPING = frozenset({Category.HARD_DECLINE, Category.FRAUD_FLAGGED, Category.CONFIG_ERROR})
# Not about the payer or the card: something between us and the bank failed.
TECHNICAL = frozenset(
    {Category.NETWORK_ERROR, Category.PROCESSING_ERROR, Category.SERVICE_UNAVAILABLE, Category.RATE_LIMITED}
)
