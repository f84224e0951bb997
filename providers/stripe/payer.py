"""Stripe's own pages for payers: the customer portal for payment methods, the hosted invoice for confirmations.

Both tell of what the payer did by webhook (payment_method.attached, customer.updated, invoice.paid).
Source: https://docs.stripe.com/api/customer_portal/sessions/create, https://docs.stripe.com/invoicing/hosted-invoice-page
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from providers.base import ProviderUnavailable
from providers.payer import page_address
from providers.stripe.config import read_config
from providers.stripe.exchange import Answer, Exchange, Reply


class StripePayer:
    """Built from a connection's config, as the client is."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings = read_config(config)
        self._exchange = Exchange(settings.api_key, settings.base_url, settings.timeout_seconds)

    def method_page(self, *, customer: str, return_url: str) -> str:
        params = {
            "customer": customer,
            "return_url": return_url,
            "flow_data": {
                "type": "payment_method_update",
                "after_completion": {"type": "redirect", "redirect": {"return_url": return_url}},
            },
        }
        return _address(self._exchange.post("/v1/billing_portal/sessions", params), "url")

    def confirm_page(self, *, customer: str, invoice: str, return_url: str) -> str:
        """The hosted page of a Stripe Billing invoice; a bare payment intent has none that could be linked to."""
        if not invoice.startswith("in_"):
            return ""
        return _address(self._exchange.get(f"/v1/invoices/{quote(invoice, safe='')}"), "hosted_invoice_url")


def _address(answer: Answer, field: str) -> str:
    """An https address out of a reply; empty if there is none. Raises ProviderUnavailable."""
    if not isinstance(answer, Reply):
        raise ProviderUnavailable(f"Stripe {answer.reason}; the payer has to come back later.")
    return page_address(answer.body.values.get(field))
