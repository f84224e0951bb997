"""What nothing proves is asked of the provider's API before anything that cannot be taken back.

Some providers sign nothing (Chargebee, Recurly's XML), others name only ids (Recurly's JSON). No call happens inside a
transaction, so the caller asks first and applies what the API said: docs/adr/0008-what-nobody-signed.md.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import cast

from invoices.models import Connection, Invoice
from invoices.selectors.parties import connection_client
from invoices.states import ConnectionMode
from providers.base import (
    INVOICE_KINDS,
    PAYMENT_KINDS,
    REFUND_STATUSES,
    ChargeResult,
    CustomerFacts,
    DeclineFacts,
    EventKind,
    Ignored,
    InvoiceFacts,
    Outcome,
    PaymentEvent,
    PaymentFacts,
    ProviderClient,
    ProviderUnavailable,
    RefundFacts,
    RefundStatus,
    Thin,
)
from providers.billing import BillerClient, KnowsEnds
from recovery_site.common.errors import InvalidInput
from recovery_site.common.money import currency_code
from retries.categories import Category
from retries.handler.resolve import EventWaits
from retries.services.outcomes import verdict_of

_INVOICE_KINDS = frozenset(
    {
        EventKind.INVOICE_FAILED,
        EventKind.INVOICE_PAID,
        EventKind.INVOICE_UPDATED,
        EventKind.INVOICE_VOIDED,
        EventKind.INVOICE_UNCOLLECTIBLE,
    }
)
# Told by a body that nothing proves, these change nothing for good: a failure opens a case whose first charge reads the
# biller's invoice anew, a payment method is only tried.
_REVERSIBLE = frozenset(
    {
        EventKind.PAYMENT_FAILED,
        EventKind.PAYMENT_PENDING,
        EventKind.PAYMENT_LINKED,
        EventKind.INVOICE_FAILED,
        EventKind.METHOD_UPDATED,
    }
)
_ENDS = frozenset({EventKind.METHOD_REMOVED, EventKind.SUBSCRIPTION_ENDED})
_OPEN_STATUSES = frozenset({"open", "payment_due", "not_paid", "past_due", "posted", "pending", "processing", ""})
_PATIENCE = timedelta(minutes=1)
_UNKNOWN = "The API knows no such {}; what nothing proves is not believed."


@dataclass(frozen=True, slots=True)
class _Api:
    client: ProviderClient
    biller: BillerClient | None


def must_ask(meaning: PaymentEvent | Thin, connection: Connection) -> bool:
    """True if the API has to be asked before `meaning` may be applied.

    A connection that only observes acts on nothing, so there a password is proof enough.
    """
    if isinstance(meaning, Thin) or _lacks_currency(meaning):
        return True
    if meaning.trusted or connection.mode == ConnectionMode.OBSERVE:
        return False
    if meaning.kind is EventKind.INVOICE_UPDATED and meaning.invoice is not None:
        return meaning.invoice.status not in _OPEN_STATUSES
    return meaning.kind not in _REVERSIBLE or _ends_something(meaning)


def _lacks_currency(event: PaymentEvent) -> bool:
    return event.payment is not None and not event.payment.currency


def _with_currency(event: PaymentEvent, connection: Connection) -> PaymentEvent | Ignored:
    """A payment that names no currency has that of its invoice, or of an account that has only one."""
    if event.payment is None:
        return event
    named = Invoice.objects.filter(connection=connection, provider_invoice_id=event.payment.invoice_id)
    currency = named.values_list("currency", flat=True).first() or connection.settings.get("currency")
    if not currency:
        return Ignored(
            "The event names no currency and its invoice is not known here: give the connection an API key, or the"
            " currency of an account that has only one."
        )
    return replace(event, payment=replace(event.payment, currency=currency_code(currency)))


def _ends_something(event: PaymentEvent) -> bool:
    """A refusal that would end the card, the token or the case."""
    payment = event.payment
    if payment is None or payment.decline is None:
        return False
    network = payment.method.card.network if payment.method and payment.method.card else "unknown"
    verdict = verdict_of(payment.decline, provider=event.provider, network=network)
    return verdict.stop or verdict.category in (Category.HARD_DECLINE, Category.FRAUD_FLAGGED)


def event_ask(meaning: PaymentEvent | Thin, connection: Connection) -> PaymentEvent | Ignored:
    """What the provider's API says about an event, as an event that can be believed. No transaction may be open.

    Raises EventWaits while the API cannot be reached or does not know of it (yet).
    """
    try:
        client = connection_client(connection)
    except InvalidInput as error:
        if isinstance(meaning, Thin):
            return Ignored(
                f"The event does not tell all of it and the API cannot be asked for the rest: {error.message}"
            )
        if connection.mode == ConnectionMode.OBSERVE:
            return _with_currency(meaning, connection)
        raise EventWaits(f"Nothing proves this event and the API cannot be asked: {error.message}") from None
    api = _Api(client, cast(BillerClient, client) if client.traits.bills else None)
    try:
        return _read(meaning, api) if isinstance(meaning, Thin) else _confirm(meaning, api)
    except ProviderUnavailable as error:
        raise EventWaits(f"The API has to confirm this event: {error.message}", retry_after=_PATIENCE) from None


def _confirm(event: PaymentEvent, api: _Api) -> PaymentEvent | Ignored:
    """The same event with the API's facts in the place of its own."""
    reads = api.client.traits.reads
    if event.payment is not None and event.payment.charge_id and reads:
        result = _charge(event.payment.charge_id, api)
        payment = _payment(result, event.payment.invoice_id, event.payment, api)
        invoice = _invoice(event.invoice.id, api) if event.invoice is not None else None
        return replace(event, kind=PAYMENT_KINDS[result.outcome], payment=payment, invoice=invoice, trusted=True)
    if event.refunds and all(refund.id for refund in event.refunds) and reads:
        refunds = tuple(_refund(refund, api) for refund in event.refunds)
        return replace(event, refunds=refunds, payment=None, trusted=True)
    if event.kind in _INVOICE_KINDS and event.invoice is not None and api.biller is not None:
        return _of_invoice(event.invoice.id, api, event)
    if event.kind in _ENDS and isinstance(api.client, KnowsEnds):
        return _over(event, api.client)
    return Ignored("Nothing proves this event, and the API has no answer by which it could be confirmed.")


def _over(event: PaymentEvent, client: KnowsEnds) -> PaymentEvent | Ignored:
    gone = event.method is not None and client.method_gone(event.method.token)
    if gone or (event.subscription_id and client.subscription_over(event.subscription_id)):
        return replace(event, trusted=True)
    return Ignored("Nothing proves this event, and the API says that it is not over.")


def _read(thin: Thin, api: _Api) -> PaymentEvent | Ignored:
    """The facts of what a thin event names."""
    event = PaymentEvent(
        kind=EventKind.INVOICE_UPDATED,
        provider=thin.provider,
        event_id=thin.event_id,
        event_type=thin.event_type,
        occurred_at=thin.occurred_at,
        customer=thin.customer,
    )
    if thin.refund_id:
        blank = RefundFacts(id=thin.refund_id, amount_minor=0, currency="", status=RefundStatus.PENDING)
        return replace(event, kind=EventKind.REFUND_UPDATED, refunds=(_refund(blank, api),))
    if thin.charge_id:
        result = _charge(thin.charge_id, api)
        invoice_id = thin.invoice_id or (api.biller.invoice_of_payment(thin.charge_id) if api.biller else "")
        return replace(
            event,
            kind=PAYMENT_KINDS[result.outcome],
            customer=event.customer or (CustomerFacts(id=result.customer) if result.customer else None),
            payment=_payment(result, invoice_id, None, api),
            invoice=_invoice(invoice_id, api) if invoice_id and api.biller else None,
        )
    if thin.invoice_id and api.biller is not None:
        return _of_invoice(thin.invoice_id, api, event)
    return Ignored("The event names only ids that the API cannot be asked about.")


def _charge(charge_id: str, api: _Api) -> ChargeResult:
    result = api.client.charge_get(charge_id)
    if result is None:
        raise EventWaits(_UNKNOWN.format("payment"), retry_after=_PATIENCE)
    return result


def _payment(result: ChargeResult, invoice_id: str, told: PaymentFacts | None, api: _Api) -> PaymentFacts:
    """The API's word on a payment; what only the event could know, such as a method's details, is kept."""
    amount = result.amount_minor if result.amount_minor is not None else (told.amount_minor if told else None)
    currency = result.currency or (told.currency if told else "")
    if amount is None or not currency:
        raise EventWaits("The API named no amount for this payment.", retry_after=_PATIENCE)
    method = api.client.traits.method_of(result)
    if told is not None and told.method is not None and (method is None or method.token == told.method.token):
        method = replace(told.method, card=told.method.card or (method.card if method else None))
    succeeded = result.outcome is Outcome.SUCCEEDED
    # Taken back by the merchant before it settled: no money, and no failure that somebody could try again.
    ended = result.outcome is Outcome.ERRORED
    return PaymentFacts(
        charge_id=result.provider_id or (told.charge_id if told else ""),
        payment_id=result.payment_id or (told.payment_id if told else ""),
        amount_minor=amount,
        currency=currency,
        captured_minor=amount if succeeded else None,
        invoice_id=invoice_id,
        reference=result.reference or (told.reference if told else ""),
        method=method,
        decline=result.decline or (DeclineFacts(raw_code=result.error_code) if ended else None),
        occurred_at=result.created_at or (told.occurred_at if told else None),
        names_invoice=told.names_invoice if told else True,
        undone=ended or (told is not None and told.undone),
        network_reference=told.network_reference if told else "",
        gateway_reference=result.gateway_reference or (told.gateway_reference if told else ""),
    )


def _refund(told: RefundFacts, api: _Api) -> RefundFacts:
    result = api.client.refund_get(told.id)
    if result is None or result.amount_minor is None or not result.currency:
        raise EventWaits(_UNKNOWN.format("refund"), retry_after=_PATIENCE)
    failure = result.decline.raw_code or result.decline.message if result.decline else ""
    return replace(
        told,
        amount_minor=result.amount_minor,
        currency=result.currency,
        status=REFUND_STATUSES[result.outcome],
        charge_id=told.charge_id or result.payment_id,
        payment_id=told.payment_id or result.payment_id,
        reference=result.reference or told.reference,
        failure_reason=failure or told.failure_reason,
    )


def _of_invoice(invoice_id: str, api: _Api, event: PaymentEvent) -> PaymentEvent:
    """The biller's invoice as it is now, whatever the event said: its status is the news."""
    facts = _invoice(invoice_id, api)
    if facts is None:
        raise EventWaits(_UNKNOWN.format("invoice"), retry_after=_PATIENCE)
    kind = INVOICE_KINDS.get(facts.status, EventKind.INVOICE_UPDATED)
    return replace(event, kind=kind, invoice=facts, payment=None, trusted=True)


def _invoice(invoice_id: str, api: _Api) -> InvoiceFacts | None:
    return api.biller.invoice_get(invoice_id) if api.biller is not None else None
