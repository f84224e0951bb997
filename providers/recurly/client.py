"""Recurly's API for one connection: it collects its invoices when told to, and notes what others collected.

Its documentation promises nothing for a repeated request, so none is ever repeated: what got lost is read back from
the invoice, which lists its payments.
"""

import base64
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

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
from providers.billing import (
    CollectionSought,
    CollectionStays,
    GatewayMethod,
    NoteOutcome,
    NoteResult,
    PaymentNote,
    RefundNote,
)
from providers.guide import settings_read
from providers.recurly.config import GUIDE
from providers.recurly.results import (
    MADE_ELSEWHERE,
    invoice_facts,
    newest_payment,
    payment_result,
    refund_result,
    refused,
)
from providers.wire.api import ProviderApi, best, errored, shown
from providers.wire.notes import note_result
from providers.wire.reading import RecordMalformed, identifier, part, parts, required, text
from providers.wire.transport import Answer, transport
from recovery_site.common.money import to_decimal

VERSION = "application/vnd.recurly.v2021-02-25+json"
_PAGES = {"us": "recurly.com", "eu": "eu.recurly.com"}
_HOSTS = {"us": "https://v3.recurly.com", "eu": "https://v3.eu.recurly.com"}
_ABSENT = "not_found"
# Another request is working on the same account or invoice, or Recurly gave up in the middle.
_UNCERTAIN_CODES = frozenset({"simultaneous_request", "internal_server_error", "service_not_available"})
_PAGE = 200
_CLOCKS_DIFFER = timedelta(minutes=2)
_OPEN = frozenset({"pending", "past_due", "processing", "open"})
_OVER = frozenset({"canceled", "expired", "failed"})
_IDS = 11  # ids are longer than this, invoice numbers shorter


class RecurlyClient:
    """Config: the settings of the guide. `gateway` is not the client's business: it charges nothing by itself."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings = settings_read(GUIDE, config)
        credentials = base64.b64encode(f"{settings['api_key']}:".encode()).decode()
        timeout = float(settings["timeout_seconds"])
        self._pages_host = _PAGES[settings["region"]]
        self._retries_off = settings["automatic_retries"] == "off"
        self._target = (
            settings["base_url"] or _HOSTS[settings["region"]],
            {"Authorization": f"Basic {credentials}", "Accept": VERSION},
            timeout,
        )
        self.traits = ClientTraits(
            key_ttl=timedelta(0),
            # What it was told to collect carries no reference of ours; it is found by its invoice.
            lookup=Lookup.NONE,
            refund_lookup=Lookup.EVENTUAL,
            settles=Settles.NOW,
            timeout_seconds=timeout,
            charges=False,
            bills=True,
            collects=True,
            records=True,
            payer_is_method=True,
        )

    def check(self) -> str:
        return f"Recurly answers for the site {self._site() or 'of this key'}."

    def _site(self) -> str:
        sites = self._api.understood(self._api.read("/sites", {"limit": "1"}), _data)
        return text(sites[0], "subdomain") if sites else ""

    # --- collecting -------------------------------------------------------------------------------------------------

    def charge(self, request: ChargeRequest) -> ChargeResult:
        """Tell Recurly to collect its invoice; it charges nothing without an invoice.

        The token is a billing info of the account's wallet, or the account's only one.
        """
        if not request.collect_invoice:
            return errored("no_invoice_to_collect", raw={})
        started = datetime.now(UTC)
        body = {"billing_info_id": request.token} if request.token and request.token != request.customer else {}
        path = f"{_invoice(request.collect_invoice)}/collect"
        answer = self._api.write("PUT", path, json=body, headers=_key(request.idempotency_key))
        if isinstance(answer, ChargeResult):
            return answer
        error = part(_error(answer), "transaction_error")
        if answer.status == 422 and error:
            return ChargeResult(
                outcome=Outcome.DECLINED,
                provider_id=identifier(error, "transaction_id"),
                token=request.token,
                decline=refused(error),
                raw={"status": answer.status, "body": shown(answer)},
            )

        def collected(invoice: Mapping[str, Any]) -> ChargeResult:
            if request.collect_invoice not in (invoice.get("id"), invoice.get("number")):
                raise RecordMalformed("invoice")
            made = newest_payment(
                invoice,
                since=started - _CLOCKS_DIFFER,
                amount_minor=request.amount_minor,
                currency_code=request.currency,
            )
            if made is None:
                raise RecordMalformed("transactions")
            return payment_result(made)

        return self._api.result(answer, collected, currency=request.currency)

    def collection_find(self, sought: CollectionSought) -> ChargeResult | None:
        """The newest payment of the invoice with this amount since then; see BillerClient."""
        since = sought.sent_at - _CLOCKS_DIFFER

        def found(invoice: Mapping[str, Any]) -> ChargeResult | None:
            made = newest_payment(invoice, since=since, amount_minor=sought.amount_minor, currency_code=sought.currency)
            return None if made is None else payment_result(made)

        return self._api.found(self._api.read(_invoice(sought.invoice_id)), found, absent=_ABSENT)

    def charge_get(self, provider_id: str) -> ChargeResult | None:
        return self._api.found(self._api.read(_transaction(provider_id)), payment_result, absent=_ABSENT)

    def charge_find(self, reference: str) -> ChargeResult | None:
        return None

    def charges_list(self, created_after: datetime) -> Iterator[ChargeResult]:
        """Oldest first, read page by page. Payments that were only written down are left out: they were made elsewhere.

        Raises ProviderUnavailable for one that cannot be read only after all others were yielded.
        """
        parameters = {
            "type": "purchase",
            "sort": "created_at",
            "order": "asc",
            "begin_time": created_after.astimezone(UTC).isoformat(),
            "limit": str(_PAGE),
        }
        return self._api.listed(self._pages("/transactions", parameters), _made_here)

    def refund(self, request: RefundRequest) -> ChargeResult:
        """Refund what Recurly collected for an invoice; the refund's own invoice carries our reference in its notes."""
        paid = self._api.found(self._api.read(_transaction(request.charge_id)), lambda one: one, absent=_ABSENT)
        invoice_id = identifier(part(paid, "invoice"), "id") if paid is not None else ""
        if not invoice_id:
            return errored("not_found", raw={"charge": request.charge_id})
        body = {
            "type": "amount",
            "amount": float(to_decimal(request.amount_minor, request.currency)),
            "refund_method": "all_transaction",
            "credit_customer_notes": f"Refund {request.reference}",
        }
        answer = self._api.write(
            "POST", f"{_invoice(invoice_id)}/refund", json=body, headers=_key(request.idempotency_key)
        )
        if isinstance(answer, ChargeResult):
            return answer
        return self._api.result(answer, _refunded, currency=request.currency, amount_minor=request.amount_minor)

    def refund_get(self, provider_id: str) -> ChargeResult | None:
        return self._api.found(self._api.read(_transaction(provider_id)), refund_result, absent=_ABSENT)

    def refund_find(self, reference: str) -> ChargeResult | None:
        """Our reference in the notes of the newest 200 credit invoices; None proves nothing."""
        parameters = {"type": "credit", "sort": "created_at", "order": "desc", "limit": str(_PAGE)}
        newest = self._api.understood(self._api.read("/invoices", parameters), _data)
        ours = [one for one in newest if reference in str(one.get("customer_notes") or "").split()]
        try:
            return best([_refunded(one) for one in ours])
        except RecordMalformed as error:
            raise ProviderUnavailable(
                f"Recurly answered with an impossible {error}; it is asked again later."
            ) from None

    # --- invoices ---------------------------------------------------------------------------------------------------

    def invoice_get(self, invoice_id: str) -> InvoiceFacts | None:
        answer = self._api.read(_invoice(invoice_id))
        return self._api.found(answer, lambda invoice: invoice_facts(invoice, invoice_id), absent=_ABSENT)

    def stop_collection(self, invoice_id: str) -> str:
        """Recurly's API cannot stop its own retries: an invoice is collected by hand, or the account's retries are
        switched off and the connection says so, or nobody else may charge it."""
        invoice = self._api.found(self._api.read(_invoice(invoice_id)), lambda one: one, absent=_ABSENT)
        if invoice is None:
            raise CollectionStays("Recurly does not know this invoice, so nobody knows who collects it.")
        method = text(invoice, "collection_method")
        if method == "manual":
            return "collection_method=manual: Recurly collects nothing itself"
        if self._retries_off:
            return f"collection_method={method or 'automatic'}, automatic_retries=off by the connection's settings"
        raise CollectionStays(
            "Recurly goes on collecting this invoice itself and its API cannot stop that; switch its automatic retries"
            " off in the dunning settings, then set automatic_retries of the connection to off."
        )

    def invoice_of_payment(self, payment_id: str) -> str:
        """The number of the invoice that a transaction belongs to: by it Recurly's webhooks name invoices."""
        paid = self._api.found(
            self._api.read(_transaction(payment_id)), lambda one: part(one, "invoice"), absent=_ABSENT
        )
        return "" if paid is None else str(paid.get("number") or "")

    def method_at_gateway(self, customer: str, token: str) -> GatewayMethod | None:
        """The gateway's references of a billing info: Recurly keeps the method's, and the payer's where it has one."""
        path = f"/accounts/code-{quote(customer, safe='')}/billing_infos/{quote(token, safe='')}"
        info = self._api.found(self._api.read(path), lambda one: one, absent=_ABSENT)
        if info is None:
            return None
        told = {str(one.get("reference_type")): str(one.get("token") or "") for one in _references(info)}
        payer = next((token for kind, token in told.items() if "customer" in kind), "")
        method = next((token for kind, token in told.items() if "customer" not in kind), "")
        method = method or str(part(info, "payment_method").get("gateway_token") or "")
        return GatewayMethod(method, payer) if method else None

    def method_gone(self, token: str) -> bool:
        """No notification says so: an account without a billing info gets another one under the same name."""
        return False

    def subscription_over(self, subscription_id: str) -> bool:
        answer = self._api.read(f"/subscriptions/uuid-{quote(subscription_id, safe='')}")
        state = self._api.found(answer, lambda one: text(one, "state"), absent=_ABSENT)
        return state is None or state in _OVER

    # --- payments made elsewhere ------------------------------------------------------------------------------------

    def payment_note(self, note: PaymentNote) -> NoteResult:
        invoice = self._api.found(self._api.read(_invoice(note.invoice_id)), lambda one: one, absent=_ABSENT)
        if invoice is None:
            return NoteResult(outcome=NoteOutcome.REFUSED, why="Recurly does not know this invoice.")
        if known := _noted(invoice, note.reference):
            return NoteResult(outcome=NoteOutcome.KNOWN, record_id=known)
        state, method = text(invoice, "state"), text(invoice, "collection_method")
        if state not in _OPEN:
            return NoteResult(outcome=NoteOutcome.REFUSED, why=f"Recurly's invoice is {state or 'without a state'}.")
        if method != "manual":
            why = "Recurly takes down payments made elsewhere for manual invoices only; this one is automatic."
            return NoteResult(outcome=NoteOutcome.REFUSED, why=why)
        body = {
            "payment_method": "other",
            "description": f"{note.reference} paid with {note.paid_with} ({note.payment_id})"[:250],
            "amount": float(to_decimal(note.amount_minor, note.currency)),
            "collected_at": note.paid_at.astimezone(UTC).isoformat(),
        }
        path = f"{_invoice(note.invoice_id)}/transactions"
        return self._write_note(path, body, note.idempotency_key)

    def refund_note(self, note: RefundNote) -> NoteResult:
        related = self._api.found(
            self._api.read(f"{_invoice(note.invoice_id)}/related_invoices", {"limit": str(_PAGE)}),
            _data,
            absent=_ABSENT,
        )
        for invoice in related or []:
            if known := _noted(invoice, note.reference):
                return NoteResult(outcome=NoteOutcome.KNOWN, record_id=known)
        body = {
            "type": "amount",
            "amount": float(to_decimal(note.amount_minor, note.currency)),
            "external_refund": {
                "payment_method": "other",
                "description": f"{note.reference} refunded with {note.refunded_with} ({note.refund_id})"[:250],
                "refunded_at": note.refunded_at.astimezone(UTC).isoformat(),
            },
            "credit_customer_notes": f"Refund {note.reference}",
        }
        path = f"{_invoice(note.invoice_id)}/refund"
        return self._write_note(path, body, note.idempotency_key)

    def _write_note(self, path: str, body: Mapping[str, Any], key: str) -> NoteResult:
        answer = self._api.write("POST", path, json=body, headers=_key(key))
        return note_result(self._api, answer, lambda written: required(written, "id"))

    # --- pages for payers (PayerPages) ------------------------------------------------------------------------------

    def method_page(self, *, customer: str, return_url: str) -> str:
        """The customer's hosted account page, which does not lead back; empty if Recurly does not know the customer.

        Source: `hosted_login_token` of https://recurly.com/developers/api/v2021-02-25/#tag/account
        """
        answer = self._api.read(f"/accounts/{quote(f'code-{customer}', safe='')}")
        token = self._api.found(answer, lambda account: text(account, "hosted_login_token"), absent=_ABSENT)
        site = self._site() if token else ""
        if not token or not token.isalnum() or not all(label.isalnum() for label in site.split("-")):
            return ""
        return f"https://{site}.{self._pages_host}/account/{token}"

    def confirm_page(self, *, customer: str, invoice: str, return_url: str) -> str:
        """What is due is paid on the same page."""
        return self.method_page(customer=customer, return_url=return_url)

    # --- the exchange -----------------------------------------------------------------------------------------------

    @property
    def _api(self) -> ProviderApi:
        return ProviderApi("Recurly", transport(*self._target), _code, uncertain_codes=_UNCERTAIN_CODES, echoes=False)

    def _pages(self, path: str, parameters: dict[str, str]) -> Iterator[list[Mapping[str, Any]]]:
        while True:
            answer = self._api.read(path, parameters)
            yield self._api.understood(answer, _data)
            following = answer.body.get("next") if answer.body and answer.body.get("has_more") is True else None
            if not isinstance(following, str):
                return
            parameters = dict(parse_qsl(urlsplit(following).query))


def _refunded(credit: Mapping[str, Any]) -> ChargeResult:
    """The refund inside the credit invoice that Recurly made for it."""
    made = [one for one in parts(credit, "transactions") if text(one, "type") == "refund"]
    if not made:
        raise RecordMalformed("transactions")
    return refund_result(made[0])


def _made_here(transaction: Mapping[str, Any]) -> ChargeResult | None:
    return None if text(transaction, "origin") in MADE_ELSEWHERE else payment_result(transaction)


def _references(info: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = info.get("payment_gateway_references")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _noted(invoice: Mapping[str, Any], reference: str) -> str:
    """The id of the transaction that carries our reference in its description, or an empty string."""
    for transaction in invoice.get("transactions") or []:
        if isinstance(transaction, dict) and reference in str(transaction.get("description") or "").split():
            return str(transaction.get("id") or "")
    return ""


def _data(page: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "data" not in page:
        raise RecordMalformed("data")
    return parts(page, "data")


def _error(answer: Answer) -> Mapping[str, Any]:
    error = answer.body.get("error") if answer.body else None
    return error if isinstance(error, dict) else {}


def _code(answer: Answer) -> str:
    kind = _error(answer).get("type")
    return kind[:100] if isinstance(kind, str) else ""


def _key(key: str) -> Mapping[str, str]:
    """Sent in case it helps; nothing is built on it."""
    return {"Idempotency-Key": key}


def _invoice(name: str) -> str:
    """An invoice by id or by number, which the path has to tell apart."""
    return f"/invoices/{quote(name if len(name) > _IDS else f'number-{name}', safe='')}"


def _transaction(name: str) -> str:
    """A transaction by id or, as webhooks name it, by its 32-digit uuid."""
    return f"/transactions/{quote(f'uuid-{name}' if len(name) == 32 else name, safe='')}"
