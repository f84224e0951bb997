"""Chargebee's API v2: one invoice, its payments and refunds, and what was only written down."""

from dataclasses import replace
from typing import Any

from tests.contract.wire.server import REQUEST, SECRET, Answer, Imitation, Payment, Seen

INVOICE = "in_1"
_STATUS = {"ok": "success", "pending": "in_progress", "decline": "failure"}


def _error(status: int, code: str, kind: str = "invalid_request") -> Answer:
    body = {"message": "As Chargebee words it.", "type": kind, "api_error_code": code, "http_status_code": status}
    return Answer(status, body)


class Chargebee(Imitation):
    provider = "chargebee"
    config = {"site": "acme-test", "api_key": SECRET}
    declined_with = ("insufficient_funds", "51", "")
    key_header = "chargebee-idempotency-key"
    absent = _error(404, "resource_not_found")
    broken = _error(500, "internal_error")
    unauthorised = _error(401, "api_authentication_failed")
    too_many = _error(429, "api_request_limit_exceeded")
    request = replace(REQUEST, collect_invoice=INVOICE)

    def reset(self) -> None:
        super().reset()
        self.dunning = "in_progress"
        self.stops = True
        self.shows_payments = True
        self.invoice_status = "payment_due"
        self.sources: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.subscriptions: dict[str, str] = {}
        self.leads_to = ""

    def authorised(self, seen: Seen) -> bool:
        return seen.basic() == f"{SECRET}:"

    def is_charge(self, seen: Seen) -> bool:
        return seen.path.endswith("/collect_payment")

    def answer(self, seen: Seen) -> Answer:
        match (seen.method, *seen.parts):
            case ("GET", "invoices"):
                return Answer(200, {"list": [{"invoice": self.invoice()}]})
            case ("GET", "invoices", invoice_id):
                return Answer(200, {"invoice": self.invoice()}) if invoice_id == INVOICE else self.absent
            case ("GET", "invoices", _, "payments") if not self.shows_payments:
                return self.broken
            case ("GET", "invoices", invoice_id, "payments"):
                return self._list([one for one in self.payments.values() if not one.of and one.invoice == invoice_id])
            case ("POST", "invoices", invoice_id, action) if invoice_id == INVOICE:
                return self._act(seen, action)
            case ("POST", "hosted_pages", kind):
                return self._hosted(seen.form, kind)
            case ("GET", "payment_sources", found) if found in self.sources:
                source = {"id": found, "reference_id": self.sources[found], "deleted": found in self.deleted}
                return Answer(200, {"payment_source": source})
            case ("GET", "subscriptions", found) if found in self.subscriptions:
                return Answer(200, {"subscription": {"id": found, "status": self.subscriptions[found]}})
            case ("POST", "transactions", paid, "refund"):
                return self._refund(seen, paid)
            case ("GET", "transactions"):
                return self._list(self._filtered(seen))
            case ("GET", "transactions", found):
                kept = self.payments.get(found)
                return self.absent if kept is None else Answer(200, {"transaction": self.transaction(kept)})
        return self.absent

    def _act(self, seen: Seen, action: str) -> Answer:
        form = seen.form
        if action == "stop_dunning":
            self.dunning = "stopped" if self.stops else self.dunning
            return Answer(200, {"invoice": self.invoice()})
        if action == "collect_payment":
            assert form["payment_initiator"] == "merchant"
            return self.write(
                seen,
                self.show,
                reference="",
                amount=int(form["amount"]),
                currency="EUR",
                token=form["payment_source_id"],
                invoice=INVOICE,
            )
        paid = next((one.id for one in self.payments.values() if one.noted and not one.of), "")
        return self.write(
            seen,
            self.show,
            reference=form["transaction[reference_number]"],
            amount=int(form["transaction[amount]"]),
            currency="EUR",
            token="",
            invoice=INVOICE,
            noted=True,
            of=paid if action == "record_refund" else "",
        )

    def _hosted(self, form: dict[str, str], kind: str) -> Answer:
        if form["customer[id]"] != self.request.customer:
            return self.absent
        self.leads_to = form["redirect_url"]
        page = {"id": "hp_1", "type": kind, "url": f"https://acme-test.chargebee.com/pages/v4/hp_1/{kind}"}
        return Answer(200, {"hosted_page": page})

    def _refund(self, seen: Seen, paid: str) -> Answer:
        if paid not in self.payments:
            return self.absent
        amount = int(seen.form["amount"])
        return self.write(seen, self.show, reference="", amount=amount, currency="EUR", token="", of=paid)

    def _filtered(self, seen: Seen) -> list[Payment]:
        kind, reference = seen.query.get("type[is]"), seen.query.get("reference_number[is]")
        rows = [one for one in self.payments.values() if ("refund" if one.of else "payment") == kind]
        return [one for one in rows if reference is None or one.reference == reference]

    def _list(self, rows: list[Payment]) -> Answer:
        return Answer(200, {"list": [{"transaction": self.transaction(one)} for one in rows]})

    def show(self, one: Payment) -> Answer:
        if one.status == "decline":
            return _error(400, "payment_processing_failed", "payment")
        invoice = {**self.invoice(), "id": one.invoice or INVOICE}
        return Answer(200, {"invoice": invoice, "transaction": self.transaction(one)})

    def invoice(self) -> dict[str, Any]:
        payments = [one for one in self.payments.values() if not one.of]
        return {
            "id": INVOICE,
            "status": self.invoice_status,
            "currency_code": "EUR",
            "amount_due": 4900,
            "amount_paid": 0,
            "dunning_status": self.dunning,
            "next_retry_at": 1900000000,
            "date": 1767258000,
            "subscription_id": "sub_1",
            "linked_payments": [{"txn_id": one.id, "txn_status": _STATUS[one.status]} for one in payments],
        }

    def transaction(self, one: Payment) -> dict[str, Any]:
        failed = one.status == "decline"
        detail = {"decline_code": "insufficient_funds", "network_error_code": "51"}
        return {
            "id": one.id,
            "type": "refund" if one.of else "payment",
            "status": _STATUS[one.status],
            "amount": one.amount,
            "currency_code": one.currency,
            "customer_id": "cus_1",
            "date": int(one.at.timestamp()),
            **({"payment_source_id": one.token} if one.token else {}),
            **({"reference_number": one.reference} if one.reference else {}),
            **({"refunded_txn_id": one.of} if one.of else {}),
            **({"error_text": "Insufficient funds", "error_detail": detail} if failed else {}),
        }
