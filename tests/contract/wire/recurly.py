"""Recurly's API v3: one invoice with its transactions, and the credit invoices that refunds make."""

from dataclasses import replace
from typing import Any

from tests.contract.wire.server import REQUEST, SECRET, Answer, Imitation, Payment, Seen

INVOICE = "e28zov4fw0v2"
_STATUS = {"ok": "success", "pending": "processing", "decline": "declined"}


def _error(status: int, kind: str, **more: Any) -> Answer:
    return Answer(status, {"error": {"type": kind, "message": "As Recurly words it.", "params": [], **more}})


class Recurly(Imitation):
    provider = "recurly"
    config = {"api_key": SECRET, "automatic_retries": "off"}
    declined_with = ("insufficient_funds", "51", "")
    absent = _error(404, "not_found")
    broken = _error(500, "internal_server_error")
    unauthorised = _error(401, "unauthorized")
    too_many = _error(429, "rate_limited")
    request = replace(REQUEST, collect_invoice=INVOICE)

    def reset(self) -> None:
        super().reset()
        self.collection_method = "manual"
        self.state = "past_due"
        self.subscriptions: dict[str, str] = {}

    def authorised(self, seen: Seen) -> bool:
        return seen.basic() == f"{SECRET}:"

    def is_charge(self, seen: Seen) -> bool:
        return seen.path.endswith("/collect")

    def key_of(self, seen: Seen) -> str:
        """Nothing is promised for a key."""
        return ""

    def answer(self, seen: Seen) -> Answer:
        match (seen.method, *seen.parts):
            case ("GET", "subscriptions", found) if found in self.subscriptions:
                return Answer(200, {"uuid": found, "state": self.subscriptions[found]})
            case ("GET", "sites"):
                return Answer(200, {"object": "list", "has_more": False, "data": [{"subdomain": "acme"}]})
            case ("GET", "accounts", found) if found == f"code-{self.request.customer}":
                return Answer(200, {"object": "account", "hosted_login_token": "a92468579e9c4231"})
            case ("GET", "invoices"):
                return self._list([self.credit(one) for one in self.payments.values() if one.of])
            case ("GET", "invoices", found, "related_invoices"):
                return self._list([self.credit(one) for one in self.payments.values() if one.of])
            case ("GET", "invoices", found):
                return Answer(200, self.invoice()) if found == INVOICE else self.absent
            case ("PUT", "invoices", found, "collect") if found == INVOICE:
                return self._collect(seen)
            case ("POST", "invoices", found, "transactions") if found == INVOICE:
                return self._note(seen)
            case ("POST", "invoices", found, "refund") if found == INVOICE:
                return self._refund(seen)
            case ("GET", "transactions"):
                return self._list([self.transaction(one) for one in self.payments.values() if not one.of])
            case ("GET", "transactions", found):
                kept = self.payments.get(found)
                return self.absent if kept is None else Answer(200, self.transaction(kept))
        return self.absent

    def _collect(self, seen: Seen) -> Answer:
        token = seen.json["billing_info_id"]
        return self.write(seen, self.show, reference="", amount=4900, currency="EUR", token=token, invoice=INVOICE)

    def _note(self, seen: Seen) -> Answer:
        told = seen.json
        return self.write(
            seen,
            lambda one: Answer(201, self.transaction(one)),
            reference=told["description"].split()[0],
            amount=round(told["amount"] * 100),
            currency="EUR",
            token="",
            invoice=INVOICE,
            noted=True,
        )

    def _refund(self, seen: Seen) -> Answer:
        told = seen.json
        paid = next(one.id for one in self.payments.values() if not one.of)
        return self.write(
            seen,
            lambda one: Answer(201, self.credit(one)),
            reference=told["credit_customer_notes"].split()[1],
            amount=round(told["amount"] * 100),
            currency="EUR",
            token="",
            of=paid,
            noted="external_refund" in told,
        )

    def _list(self, data: list[dict[str, Any]]) -> Answer:
        return Answer(200, {"object": "list", "has_more": False, "next": None, "data": data})

    def show(self, one: Payment) -> Answer:
        if one.status == "decline":
            error = {
                "object": "transaction_error",
                "transaction_id": one.id,
                "category": "soft",
                "code": "insufficient_funds",
                "decline_code": "51",
                "merchant_advice": "The card has insufficient funds.",
            }
            return _error(422, "transaction", transaction_error=error)
        return Answer(200, {**self.invoice(), "id": one.invoice, "transactions": [self.transaction(one)]})

    def invoice(self) -> dict[str, Any]:
        return {
            "object": "invoice",
            "id": INVOICE,
            "number": "1000",
            "type": "charge",
            "state": self.state,
            "currency": "EUR",
            "balance": 49.0,
            "paid": 0.0,
            "collection_method": self.collection_method,
            "created_at": "2026-01-01T09:00:00Z",
            "transactions": [self.transaction(one) for one in self.payments.values() if not one.of],
        }

    def credit(self, one: Payment) -> dict[str, Any]:
        return {
            "object": "invoice",
            "id": f"credit_{one.id}",
            "type": "credit",
            "customer_notes": f"Refund {one.reference}",
            "transactions": [self.transaction(one)],
        }

    def transaction(self, one: Payment) -> dict[str, Any]:
        return {
            "object": "transaction",
            "id": one.id,
            "uuid": one.id,
            "type": "refund" if one.of else "purchase",
            "origin": "external_recovery" if one.noted else "api_force_collect",
            "status": _STATUS[one.status],
            "amount": one.amount / 100,
            "currency": one.currency,
            "account": {"code": "cus_1"},
            "invoice": {"id": INVOICE, "number": "1000"},
            "created_at": one.at.isoformat(),
            "description": f"{one.reference} as told" if one.reference else None,
            "payment_method": {"card_type": "Visa", "last_four": "1111", "exp_month": 3, "exp_year": 2030},
            **({"original_transaction_id": one.of} if one.of else {}),
            **({"status_code": "insufficient_funds"} if one.status == "decline" else {}),
        }
