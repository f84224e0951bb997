"""Customers with any history of tries, put straight into the tables: events would take seconds for one test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pgtrigger

from accounts.models import Merchant
from accounts.services import merchant_create
from invoices.models import Attempt, Connection, Customer, Invoice, Transaction
from invoices.services.parties import connection_create, customer_ensure
from providers.base import CardFacts, CustomerFacts, MethodFacts
from tokens.mirror import Answer, Selection, mirror_customer, selection_read, tokens_select
from tokens.mirror.keys import CustomerKeys, customer_keys
from tokens.models import Card, Token
from tokens.services import method_ensure

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
_serial = count(1)


@dataclass
class Book:
    """One merchant and one connection; nothing here writes events."""

    merchant: Merchant = field(default_factory=lambda: merchant_create(name=f"Merchant {next(_serial)}").merchant)
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = connection_create(merchant=self.merchant, provider="simulator", config={})

    def customer(self, name: str = "") -> Customer:
        pk = customer_ensure(
            connection=self.connection, facts=CustomerFacts(id=name or f"cus_{next(_serial)}"), now=NOW
        )
        return Customer.objects.select_related("connection").get(pk=pk)

    def token(
        self,
        customer: Customer,
        *,
        network: str = "visa",
        kind: str = "card",
        fingerprint: str = "",
        expiry: tuple[int, int] | None = (12, 2030),
        **values: Any,
    ) -> Token:
        name = f"tok_{next(_serial)}"
        month, year = expiry or (None, None)
        card = CardFacts(
            fingerprint=fingerprint or f"fp_{name}", network=network, last4="4242", exp_month=month, exp_year=year
        )
        keys = method_ensure(customer=customer, method=MethodFacts(token=name, kind=kind, card=card), now=NOW)
        Token.objects.filter(pk=keys.token_pk).update(**values)
        return Token.objects.select_related("card").get(pk=keys.token_pk)

    def card(self, token: Token, **values: Any) -> None:
        Card.objects.filter(pk=token.card_id).update(**values)
        token.card.refresh_from_db()

    def invoice(self, customer: Customer, *, amount: int = 4_990, currency: str = "USD") -> Invoice:
        invoice = Invoice.objects.create(
            merchant=self.merchant,
            connection=self.connection,
            customer=customer,
            amount_minor=amount,
            currency=currency,
            issued_at=NOW,
        )
        Transaction.objects.create(
            merchant=self.merchant, invoice=invoice, amount_minor=amount, currency=currency, started_at=NOW
        )
        return invoice

    def tries(self, token: Token, invoice: Invoice, times: Sequence[datetime], **values: Any) -> list[Attempt]:
        """Reported tries of this token for this invoice; DECLINED unless `status` says otherwise."""
        charge = invoice.transactions.get()
        rows = [
            Attempt(
                **{
                    "merchant": self.merchant,
                    "connection": self.connection,
                    "customer_id": token.customer_id,
                    "invoice": invoice,
                    "transaction": charge,
                    "card_id": token.card_id,
                    "token": token,
                    "origin": "PROVIDER",
                    "number": 1,
                    "status": "DECLINED",
                    "amount_minor": invoice.amount_minor,
                    "currency": invoice.currency,
                    "attempted_at": at,
                    **values,
                }
            )
            for at in times
        ]
        with pgtrigger.ignore():
            return Attempt.objects.bulk_create(rows)

    def keys(self, customer: Customer) -> CustomerKeys:
        return customer_keys(self.connection.public_id, customer.connector_customer_id)


def ask(
    function: Callable[..., Selection],
    invoice: Invoice,
    at: datetime = NOW,
    *,
    owner: str = "txn_mine",
    amount: int | None = None,
    currency: str = "",
) -> Selection:
    return function(
        customer=Customer.objects.select_related("connection").get(pk=invoice.customer_id),
        owner=owner,
        invoice_pk=invoice.pk,
        amount_minor=invoice.amount_minor if amount is None else amount,
        currency=currency or invoice.currency,
        not_before=at,
    )


def both(invoice: Invoice, at: datetime = NOW, **question: Any) -> Selection:
    """Redis's answer to the question, written anew and warm; it must be PostgreSQL's."""
    assert mirror_customer(invoice.customer_id)
    warm = ask(tokens_select, invoice, at, **question)
    assert warm.warm
    assert plain(warm) == plain(ask(selection_read, invoice, at, **question))
    return warm


def plain(found: Selection) -> tuple[Answer, list[tuple[int, datetime]], str]:
    return found.answer, [(one.pk, one.allowed_at) for one in found.tokens], found.locked_by
