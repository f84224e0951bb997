"""Stripe: payment intents, refunds, and the invoices and credit notes of Billing."""

from typing import Any

from tests.contract.wire.server import SECRET, Answer, Imitation, Payment, Seen

INVOICE = "in_1"
_STATUS = {"ok": "succeeded", "pending": "processing", "decline": "requires_payment_method"}


def _error(status: int, kind: str, **more: Any) -> Answer:
    return Answer(status, {"error": {"type": kind, "message": "As Stripe words it.", **more}})


class Stripe(Imitation):
    provider = "stripe"
    config = {"api_key": SECRET, "emulator": False}
    declined_with = ("insufficient_funds", "51", "02")
    absent = _error(404, "invalid_request_error", code="resource_missing")
    broken = _error(500, "api_error")
    unauthorised = _error(401, "invalid_request_error")
    too_many = _error(429, "invalid_request_error", code="rate_limit")

    def reset(self) -> None:
        super().reset()
        self.invoice_status = "open"
        self.advances = True
        self.credit_notes: list[dict[str, Any]] = []

    def authorised(self, seen: Seen) -> bool:
        return seen.headers.get("authorization") == f"Bearer {SECRET}"

    def is_charge(self, seen: Seen) -> bool:
        return (seen.method, seen.path) == ("POST", "/v1/payment_intents")

    def answer(self, seen: Seen) -> Answer:
        match (seen.method, *seen.parts[1:]):
            case ("POST", "payment_intents"):
                return self._pay(seen)
            case ("POST", "refunds"):
                return self._refund(seen)
            case ("GET", "payment_intents", "search"):
                wanted = seen.query["query"].rpartition("'")[0].rpartition("'")[2]
                found = [one for one in self.payments.values() if not one.of and one.reference == wanted]
                return self._page([self.intent(one) for one in found])
            case ("GET", "charges"):
                return self._page([self.charge(one) for one in self.payments.values() if not one.of])
            case ("GET", "refunds"):
                return self._page([self.refund(one) for one in self.payments.values() if one.of])
            case ("GET", "charges" | "refunds", found):
                kept = self.payments.get(found)
                return self.absent if kept is None else Answer(200, self.refund(kept) if kept.of else self.charge(kept))
            case ("GET", "invoices", found):
                return Answer(200, self.invoice()) if found == INVOICE else self.absent
            case ("POST", "invoices", found):
                self.advances = seen.form["auto_advance"] == "true"
                return Answer(200, self.invoice())
            case ("POST", "invoices", found, "pay") if "paid_out_of_band" in seen.form:
                return self._out_of_band(seen)
            case ("POST", "invoices", found, "pay"):
                return self._collect(seen)
            case ("GET", "credit_notes"):
                return self._page(self.credit_notes)
            case ("POST", "credit_notes"):
                return self._credit(seen)
        return self.absent

    def _pay(self, seen: Seen) -> Answer:
        form = seen.form
        return self.write(
            seen,
            self.show,
            reference=form["metadata[attempt]"],
            amount=int(form["amount"]),
            currency=form["currency"],
            token=form["payment_method"],
        )

    def _collect(self, seen: Seen) -> Answer:
        token = seen.form["payment_method"]
        self.invoice_status = "paid"

        def show(one: Payment) -> Answer:
            return Answer(200, {**self.invoice(), "payment_intent": self.intent(one)})

        return self.write(seen, show, reference="", amount=4900, currency="eur", token=token)

    def _refund(self, seen: Seen) -> Answer:
        form = seen.form
        if form["charge"] not in self.payments:
            return self.absent
        return self.write(
            seen,
            lambda one: Answer(200, self.refund(one)),
            reference=form["metadata[attempt]"],
            amount=int(form["amount"]),
            currency="eur",
            token="",
            of=form["charge"],
        )

    def _out_of_band(self, seen: Seen) -> Answer:
        step = self.steps.pop(0) if self.steps else "ok"
        assert seen.form["paid_out_of_band"] == "true"
        if step == "500_before":
            return self.broken
        self.invoice_status = "paid"
        return self.broken if step == "500_after" else Answer(200, self.invoice())

    def _credit(self, seen: Seen) -> Answer:
        step = self.steps.pop(0) if self.steps else "ok"
        if step == "500_before":
            return self.broken
        form = seen.form
        note = {
            "id": f"cn_{len(self.credit_notes) + 1}",
            "object": "credit_note",
            "out_of_band_amount": int(form["out_of_band_amount"]),
            "metadata": {"refund": form["metadata[refund]"]},
        }
        self.credit_notes.append(note)
        return self.broken if step == "500_after" else Answer(200, note)

    def _page(self, data: list[dict[str, Any]]) -> Answer:
        return Answer(200, {"object": "list", "data": data, "has_more": False})

    def show(self, one: Payment) -> Answer:
        if one.status != "decline":
            return Answer(200, self.intent(one))
        return _error(
            402,
            "card_error",
            code="card_declined",
            decline_code="insufficient_funds",
            network_decline_code="51",
            network_advice_code="02",
            charge=one.id,
            payment_intent=self.intent(one),
        )

    def intent(self, one: Payment) -> dict[str, Any]:
        failure = {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds"}
        return {
            "id": f"pi_{one.id}",
            "object": "payment_intent",
            "status": _STATUS[one.status],
            "amount": one.amount,
            "amount_received": one.received if one.status == "ok" else 0,
            "currency": one.currency.lower(),
            "created": int(one.at.timestamp()),
            "customer": "cus_1",
            "payment_method": one.token,
            "metadata": {"attempt": one.reference},
            "latest_charge": self.charge(one),
            "last_payment_error": failure if one.status == "decline" else None,
        }

    def charge(self, one: Payment) -> dict[str, Any]:
        return {
            "id": one.id,
            "object": "charge",
            "status": {"ok": "succeeded", "pending": "pending", "decline": "failed"}[one.status],
            "captured": True,
            "amount": one.amount,
            "amount_captured": one.amount,
            "currency": one.currency.lower(),
            "created": int(one.at.timestamp()),
            "customer": "cus_1",
            "livemode": False,
            "metadata": {"attempt": one.reference},
            "payment_intent": f"pi_{one.id}",
            "payment_method": one.token,
            "payment_method_details": {"type": "card", "card": {"brand": "visa", "last4": "1111"}},
        }

    def refund(self, one: Payment) -> dict[str, Any]:
        return {
            "id": one.id,
            "object": "refund",
            "status": {"ok": "succeeded", "pending": "pending", "decline": "failed"}[one.status],
            "amount": one.amount,
            "currency": one.currency.lower(),
            "charge": one.of,
            "created": int(one.at.timestamp()),
            "metadata": {"attempt": one.reference},
        }

    def invoice(self) -> dict[str, Any]:
        return {
            "id": INVOICE,
            "object": "invoice",
            "status": self.invoice_status,
            "currency": "eur",
            "amount_due": 4900,
            "amount_paid": 4900 if self.invoice_status == "paid" else 0,
            "attempt_count": 1,
            "auto_advance": self.advances,
            "created": 1767258000,
            "customer": "cus_1",
            "next_payment_attempt": 1900000000 if self.advances else None,
        }
