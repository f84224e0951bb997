"""Stripe's API for one connection: charges, refunds, look-ups, and the invoices of Stripe Billing."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from providers.base import (
    ChargeRequest,
    ChargeResult,
    ClientTraits,
    InvoiceFacts,
    Lookup,
    Outcome,
    ProviderUnavailable,
    RefundRequest,
    Settles,
)
from providers.billing import CollectionSought, GatewayMethod, NoteResult, PaymentNote, RefundNote
from providers.stripe import facts
from providers.stripe.amounts import to_stripe
from providers.stripe.answers import read_result, unavailable, understood, write_result
from providers.stripe.config import read_config
from providers.stripe.exchange import Answer, Exchange, Fault, Problem, Reply
from providers.stripe.notes import payment_write, refund_write
from providers.stripe.reading import Node
from providers.stripe.results import (
    NEEDS_ACTION,
    charge_result,
    found_intent,
    intent_result,
    paid_invoice_result,
    refund_result,
)
from recovery_site.common.errors import InvalidInput

KEY_TTL = timedelta(hours=24)
_CANCEL_SHARE = 0.2
_PAGE = 100
# Refunds cannot be searched, only listed, newest first: this far back.
_REFUND_PAGES = 10
_REFUND_REASONS = frozenset({"duplicate", "fraudulent", "requested_by_customer"})
_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


class StripeClient:
    """Speaks to Stripe, or to anything at `base_url` that speaks like it.

    Config: `api_key`; optional `base_url`, `timeout_seconds`, and `emulator` (true: send only parameters that
    every imitation of Stripe knows; the default for a base URL outside stripe.com).
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings = read_config(config)
        self._emulator = settings.emulator
        # A charge that wants the payer is cancelled at once; both requests have to fit into one time-out.
        total = settings.timeout_seconds
        exchange = partial(Exchange, settings.api_key, settings.base_url, account=settings.account)
        self._exchange = exchange(total * (1 - _CANCEL_SHARE))
        self._cancel_exchange = exchange(total * _CANCEL_SHARE)
        self.traits = ClientTraits(
            key_ttl=KEY_TTL,
            # The search index lags behind by up to a minute, in an outage by an hour: absent proves nothing.
            lookup=Lookup.EVENTUAL,
            settles=Settles.NOW,
            timeout_seconds=total,
            bills=True,
            collects=True,
            records=True,
        )

    def check(self) -> str:
        """Read the newest charge, which every key that may charge may do; see ProviderClient.check."""
        answer = self._exchange.get("/v1/charges", {"limit": 1})
        if isinstance(answer, Problem):
            raise unavailable(answer)
        live = understood(answer.body.first, "data").flag("livemode")
        mode = "" if live is None else ", in live mode" if live else ", in test mode"
        return f"Stripe answers{mode}."

    def charge(self, request: ChargeRequest) -> ChargeResult:
        """Create and confirm a payment intent without the payer, or let Billing collect; see ProviderClient.charge."""
        if request.collect_invoice:
            return self.invoice_pay(request.collect_invoice, request.token, request.idempotency_key)
        try:
            params = self._charge_params(request)
        except InvalidInput:
            return ChargeResult(outcome=Outcome.ERRORED, error_code="invalid_charge_amount")
        answer = self._exchange.post("/v1/payment_intents", params, request.idempotency_key)
        if isinstance(answer, Reply) and answer.body.values.get("status") in NEEDS_ACTION:
            answer = self._cancelled(answer, request.idempotency_key)
        return write_result(answer, intent_result, "charge")

    def charge_get(self, provider_id: str) -> ChargeResult | None:
        """Read a charge (`ch_`, `py_`) or payment intent (`pi_`) as it is now; None if unknown to Stripe."""
        if provider_id.startswith("pi_"):
            return read_result(
                self._exchange.get(_path("payment_intents", provider_id), {"expand": ["latest_charge"]}),
                intent_result,
            )
        return read_result(self._exchange.get(_path("charges", provider_id)), charge_result)

    def charge_find(self, reference: str) -> ChargeResult | None:
        """Search payment intents for our reference; None proves nothing, as the index lags behind."""
        quoted = reference.replace("\\", "\\\\").replace("'", "\\'")
        params = {
            "query": f"metadata['{facts.REFERENCE_KEY}']:'{quoted}'",
            "limit": 10,
            "expand": ["data.latest_charge"],
        }
        answer = self._exchange.get("/v1/payment_intents/search", params)
        return read_result(answer, lambda page, _: found_intent(page, reference), absence_counts=False)

    def charges_list(self, created_after: datetime) -> Iterator[ChargeResult]:
        """Every charge from that second on, newest first.

        Raises ProviderUnavailable; for a charge that cannot be read only after all others were yielded.
        """
        unreadable = ""
        # Stripe's bound is exclusive and in whole seconds.
        created = {"gt": int(created_after.timestamp()) - 1}
        for charge in self._listed("/v1/charges", {"created": created}):
            try:
                result = charge_result(charge)
            except InvalidInput as error:
                unreadable = error.message
                continue
            yield result
        if unreadable:
            raise ProviderUnavailable(f"At least one charge at Stripe could not be read. {unreadable}")

    def refund(self, request: RefundRequest) -> ChargeResult:
        """Refund a charge (or payment intent), in whole or in part; see ProviderClient.refund."""
        try:
            amount = to_stripe(request.amount_minor, request.currency)
        except InvalidInput:
            return ChargeResult(outcome=Outcome.ERRORED, error_code="invalid_charge_amount")
        params: dict[str, Any] = {
            "payment_intent" if request.charge_id.startswith("pi_") else "charge": request.charge_id,
            "amount": amount,
            "metadata": {facts.REFERENCE_KEY: request.reference},
        }
        if request.reason in _REFUND_REASONS and not self._emulator:
            params["reason"] = request.reason
        answer = self._exchange.post("/v1/refunds", params, request.idempotency_key)
        return write_result(answer, refund_result, "refund")

    def refund_get(self, provider_id: str) -> ChargeResult | None:
        """Read one refund; None if Stripe does not know it. Raises ProviderUnavailable."""
        return read_result(self._exchange.get(_path("refunds", provider_id)), refund_result)

    def refund_find(self, reference: str) -> ChargeResult | None:
        """Our reference in the newest 1000 refunds; None proves nothing. Raises ProviderUnavailable."""
        for refund in self._listed("/v1/refunds", {}, most_pages=_REFUND_PAGES):
            if understood(facts.reference, refund) == reference:
                return understood(refund_result, refund)
        return None

    def invoice_get(self, invoice_id: str) -> InvoiceFacts | None:
        """The invoice as it is now, with its payment; see BillerClient.invoice_get."""
        params = {} if self._emulator else {"expand": ["payments"]}
        answer = self._exchange.get(_path("invoices", invoice_id), params)
        return read_result(answer, lambda invoice, _: facts.invoice(invoice))

    def stop_collection(self, invoice_id: str) -> str:
        """Set `auto_advance` to false: Stripe's own retries of this invoice end. Returns its answer in words.

        Repeating it changes nothing, so any failure, a refusal included, is ProviderUnavailable.
        """
        answer = self._exchange.post(_path("invoices", invoice_id), {"auto_advance": False})
        if isinstance(answer, Problem):
            raise unavailable(answer)
        if understood(answer.body.flag, "auto_advance") is not False:
            raise ProviderUnavailable("Stripe still collects this invoice itself; nothing was charged.")
        retry = understood(answer.body.instant, "next_payment_attempt")
        status = understood(answer.body.text, "status", 40)
        planned = retry.isoformat() if retry else "none"
        return f"auto_advance=false, status={status}, next_payment_attempt={planned}"

    def invoice_of_payment(self, payment_id: str) -> str:
        """The invoice of a payment intent or charge, or an empty string. Raises ProviderUnavailable.

        From basil on only invoice payments know it; older versions have it on the payment itself.
        """
        kind = "payment_intent" if payment_id.startswith("pi_") else "charge"
        params = {"payment": {"type": kind, kind: payment_id}, "limit": 1}
        answer = self._exchange.get("/v1/invoice_payments", params)
        if isinstance(answer, Reply):
            return understood(lambda page: page.first("data").identifier("invoice"), answer.body)
        if answer.status != 404:
            raise unavailable(answer)
        answer = self._exchange.get(_path(f"{kind}s", payment_id))
        return read_result(answer, lambda payment, _: payment.identifier("invoice")) or ""

    def invoice_pay(self, invoice_id: str, token: str, idempotency_key: str) -> ChargeResult:
        """Let Stripe Billing collect its invoice with this token (mode collect); outcomes as for charges.

        Stripe makes the payment, so it carries no reference of ours and `charge_find` cannot find it.
        """
        params: dict[str, Any] = {"payment_method": token, "off_session": True}
        if not self._emulator:
            params["expand"] = ["payments.data.payment.payment_intent"]
        answer = self._exchange.post(f"{_path('invoices', invoice_id)}/pay", params, idempotency_key)
        return write_result(answer, paid_invoice_result, "charge")

    def method_at_gateway(self, customer: str, token: str) -> GatewayMethod | None:
        """Stripe Billing's payment methods are Stripe's own."""
        return GatewayMethod(token, customer)

    def collection_find(self, sought: CollectionSought) -> ChargeResult | None:
        """The payment of an invoice that is paid by now, by whatever means; see BillerClient.collection_find."""
        params = {} if self._emulator else {"expand": ["payments.data.payment.payment_intent"]}
        answer = self._exchange.get(_path("invoices", sought.invoice_id), params)
        return read_result(answer, _paid)

    def payment_note(self, note: PaymentNote) -> NoteResult:
        return payment_write(self._exchange, _path("invoices", note.invoice_id), note)

    def refund_note(self, note: RefundNote) -> NoteResult:
        return refund_write(self._exchange, note, emulator=self._emulator)

    def _charge_params(self, request: ChargeRequest) -> dict[str, Any]:
        params: dict[str, Any] = {
            "amount": to_stripe(request.amount_minor, request.currency),
            "currency": request.currency.lower(),
            "payment_method": request.token,
            "confirm": True,
            "off_session": True,
            "metadata": {**request.metadata, facts.REFERENCE_KEY: request.reference},
            "expand": ["latest_charge"],
        }
        if request.customer:
            params["customer"] = request.customer
        if not self._emulator:
            if request.description:
                params["description"] = request.description[:1000]
            # Any method that works without sending the payer elsewhere; else Stripe wants a return URL.
            params["automatic_payment_methods"] = {"enabled": True, "allow_redirects": "never"}
        return params

    def _cancelled(self, reply: Reply, key: str) -> Answer:
        """Close an intent that wants the payer, who is not here.

        Left open it could still be completed later, beside the payment that is tried next: two charges. If it
        does not close, nobody knows how it ends, and that is the answer.
        """
        intent_id = reply.body.values.get("id")
        if isinstance(intent_id, str) and _ID.fullmatch(intent_id):
            path = f"{_path('payment_intents', intent_id)}/cancel"
            answer = self._cancel_exchange.post(path, {}, f"{key}-cancel")
            if isinstance(answer, Reply) and answer.body.values.get("status") == "canceled":
                return reply
        return Problem(fault=Fault.UNKNOWN, reason="asks for the payer and did not cancel the payment")

    def _listed(self, path: str, params: Mapping[str, Any], most_pages: int | None = None) -> Iterator[Node]:
        """All objects of a list, page by page. Raises ProviderUnavailable."""
        after: dict[str, str] = {}
        pages = 0
        while most_pages is None or pages < most_pages:
            answer = self._exchange.get(path, {**params, "limit": _PAGE, **after})
            if isinstance(answer, Problem):
                raise unavailable(answer)
            entries = understood(answer.body.nodes, "data")
            yield from entries
            last = understood(entries[-1].identifier, "id") if entries else ""
            if answer.body.values.get("has_more") is not True or not last:
                return
            after = {"starting_after": last}
            pages += 1


def _paid(invoice: Node, record: Mapping[str, Any]) -> ChargeResult | None:
    return paid_invoice_result(invoice, record) if invoice.text("status") == "paid" else None


def _path(collection: str, provider_id: str) -> str:
    """Ids become part of the path, so only what can be one of Stripe's ids may."""
    if not _ID.fullmatch(provider_id):
        raise InvalidInput(f"{provider_id[:40]!r} is no id of an object at Stripe.")
    return f"/v1/{collection}/{provider_id}"
