"""What a payer may do at a provider: give another payment method, or confirm a payment at the bank.

A real provider has a page of its own for that, and tells of the result by webhook like of everything else. The test
providers have no page: ours shows their form and tells what came of it in the same words.
"""

from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from providers.base import MethodFacts


@runtime_checkable
class PayerPages(Protocol):
    """A provider's own pages. Raise ProviderUnavailable; an empty address means that there is no such page."""

    def method_page(self, *, customer: str, return_url: str) -> str:
        """Where this customer gives another payment method, and then comes back to `return_url`."""

    def confirm_page(self, *, customer: str, invoice: str, return_url: str) -> str:
        """Where this customer confirms the payment of the provider's invoice at the bank."""


def page_address(told: object) -> str:
    """An address that a provider told, empty unless it is an https address."""
    return told if isinstance(told, str) and urlsplit(told).scheme == "https" else ""


class TrialCard(StrEnum):
    """How a test card behaves, in the order in which the form offers them."""

    OK = "ok"
    FUNDS = "funds"
    EXPIRED = "expired"


@runtime_checkable
class TrialForm(Protocol):
    """A test provider: the form is shown by us."""

    def card_add(self, card: TrialCard, *, serial: str, at: datetime) -> MethodFacts:
        """A new payment method that behaves as chosen; `serial` (letters and digits) makes it one of its own."""

    def confirm(self, token: str) -> None:
        """The payer has confirmed at the test bank: the next charge of this token needs no confirmation any more."""
