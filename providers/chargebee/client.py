"""Chargebee's API for one connection: it collects its invoices when told to, and notes what others collected."""

import base64
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from providers.base import (
    ChargeRequest,
    ChargeResult,
    ClientTraits,
    DeclineFacts,
    InvoiceFacts,
    Lookup,
    Outcome,
    ProviderUnavailable,
    RefundRequest,
    Settles,
)
from providers.billing import (
    CollectionSought,
    CollectionStays,
    GatewayMethod,
    NoteOutcome,
    NoteResult,
    PaymentNote,
    RefundNote,
)
from providers.chargebee.config import GUIDE
from providers.chargebee.results import invoice_facts, newest_payment, payment_result, refund_result
from providers.guide import settings_read
from providers.payer import page_address
from providers.wire.api import ProviderApi, errored, shown
from providers.wire.notes import note_result
from providers.wire.reading import RecordMalformed, identifier, part, required, text
from providers.wire.transport import Answer, transport
from recovery_site.common.errors import InvalidInput

# "Chargebee has an idempotency window of 30 minutes."
KEY_TTL = timedelta(minutes=30)
_ABSENT = "resource_not_found"
# The request is at work, or Chargebee gave up in the middle of it.
_UNCERTAIN_CODES = frozenset({"lock_timeout", "internal_error", "internal_temporary_error", "duplicate_entry"})
_READ_SHARE = 0.3
_PAGE = 100
_CLOCKS_DIFFER = timedelta(minutes=2)
_COLLECTABLE = frozenset({"payment_due", "not_paid", "posted"})


class ChargebeeClient:
    """Config: the settings of the guide. `gateway` is not the client's business: it charges nothing by itself."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings = settings_read(GUIDE, config)
        site = settings["site"]
        if not all(label.isalnum() for label in site.split("-")):
            raise InvalidInput("site of the Chargebee connection is only its name, such as acme-test.")
        credentials = base64.b64encode(f"{settings['api_key']}:".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}", "Accept": "application/json"}
        address = settings["base_url"] or f"https://{site}.chargebee.com/api/v2"
        total = float(settings["timeout_seconds"])
        self._site = site
        # A declined collection is read back for its reason; both requests have to fit into one time-out.
        self._target = (address, headers, total * (1 - _READ_SHARE))
        self._reading = (address, headers, total * _READ_SHARE)
        self.traits = ClientTraits(
            key_ttl=KEY_TTL,
            # What it was told to collect carries no reference of ours; it is found by its invoice.
            lookup=Lookup.NONE,
            settles=Settles.NOW,
            timeout_seconds=total,
            charges=False,
            bills=True,
            collects=True,
            records=True,
        )

    def check(self) -> str:
        self._api.understood(self._api.read("/invoices", {"limit": "1"}), _list)
        return f"Chargebee answers for the site {self._site}."

    # --- collecting -------------------------------------------------------------------------------------------------

    def charge(self, request: ChargeRequest) -> ChargeResult:
        """Tell Chargebee to collect its invoice with this payment source; it charges nothing without an invoice."""
        if not request.collect_invoice:
            return errored("no_invoice_to_collect", raw={})
        started = datetime.now(UTC)
        form = {
            "amount": request.amount_minor,
            "payment_source_id": request.token,
            "payment_initiator": "merchant",
            "comment": f"Recovery attempt {request.reference}",
        }
        path = f"/invoices/{_quoted(request.collect_invoice)}/collect_payment"
        answer = self._api.write("POST", path, data=form, headers=_key(request.idempotency_key))
        if isinstance(answer, ChargeResult):
            return answer
        if answer.status in (400, 402) and text(_body(answer), "type") == "payment":
            return self._declined(request, answer, started)

        def collected(body: Mapping[str, Any]) -> ChargeResult:
            if identifier(part(body, "invoice"), "id") != request.collect_invoice:
                raise RecordMalformed("invoice")
            return payment_result(part(body, "transaction"))

        return self._api.result(answer, collected, token=request.token, currency=request.currency)

    def collection_find(self, sought: CollectionSought) -> ChargeResult | None:
        """The newest payment of the invoice with this amount and source since then; see BillerClient."""
        payments = self._payments(self._api, sought.invoice_id)
        since = sought.sent_at - _CLOCKS_DIFFER
        found = newest_payment(payments, since=since, amount_minor=sought.amount_minor, token=sought.token)
        return None if found is None else _understood(payment_result, found)

    def charge_get(self, provider_id: str) -> ChargeResult | None:
        answer = self._api.read(f"/transactions/{_quoted(provider_id)}")
        return self._api.found(answer, lambda body: payment_result(part(body, "transaction")), absent=_ABSENT)

    def charge_find(self, reference: str) -> ChargeResult | None:
        return None

    def charges_list(self, created_after: datetime) -> Iterator[ChargeResult]:
        """Oldest first, read page by page. Payments that were only written down are left out: they were made elsewhere.

        Raises ProviderUnavailable for one that cannot be read only after all others were yielded.
        """
        parameters = {
            "limit": str(_PAGE),
            "type[is]": "payment",
            "date[after]": str(int(created_after.timestamp()) - 1),
            "sort_by[asc]": "date",
        }
        return self._api.listed(self._pages("/transactions", parameters), _made_here)

    def refund(self, request: RefundRequest) -> ChargeResult:
        """Refund a payment that Chargebee made, in whole or in part; see ProviderClient.refund."""
        form = {"amount": request.amount_minor, "comment": f"{request.reference} {request.reason}"[:250]}
        path = f"/transactions/{_quoted(request.charge_id)}/refund"
        answer = self._api.write("POST", path, data=form, headers=_key(request.idempotency_key))
        if isinstance(answer, ChargeResult):
            return answer
        return self._api.result(
            answer,
            lambda body: refund_result(part(body, "transaction")),
            currency=request.currency,
            amount_minor=request.amount_minor,
        )

    def refund_get(self, provider_id: str) -> ChargeResult | None:
        answer = self._api.read(f"/transactions/{_quoted(provider_id)}")
        return self._api.found(answer, lambda body: refund_result(part(body, "transaction")), absent=_ABSENT)

    def refund_find(self, reference: str) -> ChargeResult | None:
        return None

    # --- invoices ---------------------------------------------------------------------------------------------------

    def invoice_get(self, invoice_id: str) -> InvoiceFacts | None:
        answer = self._api.read(f"/invoices/{_quoted(invoice_id)}")
        return self._api.found(answer, lambda body: invoice_facts(part(body, "invoice")), absent=_ABSENT)

    def stop_collection(self, invoice_id: str) -> str:
        """Stop dunning: Chargebee's own retries of this invoice end, and collecting it when told to goes on."""
        path = f"/invoices/{_quoted(invoice_id)}"
        invoice = self._api.found(self._api.read(path), lambda body: part(body, "invoice"), absent=_ABSENT)
        if invoice is None:
            raise CollectionStays("Chargebee does not know this invoice, so nobody knows who collects it.")
        if text(invoice, "dunning_status") != "in_progress":
            return f"dunning_status={text(invoice, 'dunning_status') or 'none'}, status={text(invoice, 'status')}"
        answer = self._api.ask("POST", f"{path}/stop_dunning", data={"comment": "Collected by revenue recovery"})
        if self._api.refused(answer) and answer.status not in (401, 403, 429):
            raise CollectionStays(f"Chargebee does not stop dunning this invoice ({_code(answer) or answer.status}).")
        stopped = self._api.understood(answer, lambda body: part(body, "invoice"))
        if text(stopped, "dunning_status") == "in_progress":
            raise CollectionStays("Chargebee still collects this invoice itself; nothing was charged.")
        return f"dunning_status={text(stopped, 'dunning_status') or 'none'}, status={text(stopped, 'status')}"

    def invoice_of_payment(self, payment_id: str) -> str:
        """Chargebee's payments name their invoices themselves."""
        return ""

    def method_at_gateway(self, customer: str, token: str) -> GatewayMethod | None:
        """A payment source's reference: the gateway's payer and method with a slash between them, or the method."""
        answer = self._api.read(f"/payment_sources/{_quoted(token)}")
        source = self._api.found(answer, lambda body: part(body, "payment_source"), absent=_ABSENT)
        reference = "" if source is None else _understood(lambda one: identifier(one, "reference_id"), source)
        payer, _, method = reference.rpartition("/")
        return GatewayMethod(method, payer) if method else None

    def method_gone(self, token: str) -> bool:
        """Chargebee keeps what was deleted and says so, for a while."""
        answer = self._api.read(f"/payment_sources/{_quoted(token)}")
        source = self._api.found(answer, lambda body: part(body, "payment_source"), absent=_ABSENT)
        return source is None or source.get("deleted") is True

    def subscription_over(self, subscription_id: str) -> bool:
        answer = self._api.read(f"/subscriptions/{_quoted(subscription_id)}")
        status = self._api.found(answer, lambda body: text(part(body, "subscription"), "status"), absent=_ABSENT)
        return status is None or status == "cancelled"

    # --- payments made elsewhere ------------------------------------------------------------------------------------

    def payment_note(self, note: PaymentNote) -> NoteResult:
        known = self._noted(note.reference, "payment")
        if known:
            return NoteResult(outcome=NoteOutcome.KNOWN, record_id=known)
        invoice = self._api.found(
            self._api.read(f"/invoices/{_quoted(note.invoice_id)}"), lambda body: part(body, "invoice"), absent=_ABSENT
        )
        status = text(invoice, "status") if invoice is not None else "unknown there"
        if status not in _COLLECTABLE:
            return NoteResult(outcome=NoteOutcome.REFUSED, why=f"Chargebee's invoice is {status}.")
        form = {
            "transaction[amount]": note.amount_minor,
            "transaction[payment_method]": "other",
            "transaction[reference_number]": note.reference,
            "transaction[id_at_gateway]": note.payment_id[:100],
            "transaction[date]": int(note.paid_at.timestamp()),
            "transaction[status]": "success",
            "comment": f"Paid with {note.paid_with} ({note.payment_id})"[:300],
        }
        return self._write_note(f"/invoices/{_quoted(note.invoice_id)}/record_payment", form, note.idempotency_key)

    def refund_note(self, note: RefundNote) -> NoteResult:
        known = self._noted(note.reference, "refund")
        if known:
            return NoteResult(outcome=NoteOutcome.KNOWN, record_id=known)
        form = {
            "transaction[amount]": note.amount_minor,
            "transaction[payment_method]": "other",
            "transaction[reference_number]": note.reference,
            "transaction[date]": int(note.refunded_at.timestamp()),
            "credit_note[reason_code]": "other",
            "comment": f"Refunded with {note.refunded_with} ({note.refund_id})"[:300],
        }
        return self._write_note(f"/invoices/{_quoted(note.invoice_id)}/record_refund", form, note.idempotency_key)

    def _noted(self, reference: str, kind: str) -> str:
        """The id of what was written down under our reference before, or an empty string."""
        parameters = {"limit": "10", "type[is]": kind, "reference_number[is]": reference}
        found = self._api.understood(self._api.read("/transactions", parameters), _list)
        ids = [str(one.get("id", "")) for one in found if one.get("reference_number") == reference]
        return ids[0] if ids else ""

    def _write_note(self, path: str, form: Mapping[str, Any], key: str) -> NoteResult:
        answer = self._api.write("POST", path, data=form, headers=_key(key))
        return note_result(self._api, answer, lambda body: required(part(body, "transaction"), "id"))

    # --- pages for payers (PayerPages) ------------------------------------------------------------------------------

    def method_page(self, *, customer: str, return_url: str) -> str:
        return self._hosted_page("manage_payment_sources", customer, return_url)

    def confirm_page(self, *, customer: str, invoice: str, return_url: str) -> str:
        """Chargebee collects there whatever this customer owes, and asks the bank's question."""
        return self._hosted_page("collect_now", customer, return_url)

    def _hosted_page(self, kind: str, customer: str, return_url: str) -> str:
        """Made for this customer and this visit. Source: https://apidocs.chargebee.com/docs/api/hosted_pages"""
        form = {"customer[id]": customer, "redirect_url": return_url}
        answer = self._api.ask("POST", f"/hosted_pages/{kind}", data=form)
        return self._api.understood(answer, lambda body: page_address(part(body, "hosted_page").get("url")))

    # --- the exchange -----------------------------------------------------------------------------------------------

    @property
    def _api(self) -> ProviderApi:
        return self._speak(self._target)

    def _speak(self, target: tuple[str, dict[str, str], float]) -> ProviderApi:
        return ProviderApi("Chargebee", transport(*target), _code, uncertain_codes=_UNCERTAIN_CODES, echoes=False)

    def _declined(self, request: ChargeRequest, answer: Answer, started: datetime) -> ChargeResult:
        """A refused collection. The error tells hardly more than that, the payment itself tells why; if it cannot be
        read now, its webhook brings the reason."""
        refusal = ChargeResult(
            outcome=Outcome.DECLINED,
            token=request.token,
            decline=DeclineFacts(raw_code=_code(answer), message=text(_body(answer), "message")[:500]),
            raw={"status": answer.status, "body": shown(answer)},
        )
        try:
            payments = self._payments(self._speak(self._reading), request.collect_invoice)
            since = started - _CLOCKS_DIFFER
            made = newest_payment(payments, since=since, amount_minor=request.amount_minor, token=request.token)
            told = None if made is None else payment_result(made)
        except (ProviderUnavailable, RecordMalformed):
            return refusal
        return told if told is not None and told.outcome is Outcome.DECLINED else refusal

    def _payments(self, api: ProviderApi, invoice_id: str) -> list[Mapping[str, Any]]:
        answer = api.read(f"/invoices/{_quoted(invoice_id)}/payments", {"limit": str(_PAGE)})
        return api.found(answer, _list, absent=_ABSENT) or []

    def _pages(self, path: str, parameters: dict[str, str]) -> Iterator[list[Mapping[str, Any]]]:
        while True:
            answer = self._api.read(path, parameters)
            yield self._api.understood(answer, _list)
            offset = text(_body(answer), "next_offset")
            if not offset:
                return
            parameters["offset"] = offset


def _made_here(transaction: Mapping[str, Any]) -> ChargeResult | None:
    return payment_result(transaction) if identifier(transaction, "payment_source_id") else None


def _understood(read: Any, record: Mapping[str, Any]) -> Any:
    try:
        return read(record)
    except RecordMalformed as error:
        raise ProviderUnavailable(f"Chargebee answered with an impossible {error}; it is asked again later.") from None


def _list(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The resources of a list, each in an object under its own name."""
    entries = body.get("list")
    if not isinstance(entries, list):
        raise RecordMalformed("list")
    found = []
    for entry in entries:
        values = [value for value in entry.values() if isinstance(value, dict)] if isinstance(entry, dict) else []
        if not values:
            raise RecordMalformed("list")
        found.append(entry.get("transaction") or entry.get("invoice") or values[0])
    return found


def _body(answer: Answer) -> Mapping[str, Any]:
    return answer.body or {}


def _code(answer: Answer) -> str:
    code = _body(answer).get("api_error_code")
    return code[:100] if isinstance(code, str) else ""


def _key(key: str) -> Mapping[str, str]:
    return {"chargebee-idempotency-key": key}


def _quoted(part_of_path: str) -> str:
    return quote(part_of_path, safe="")
