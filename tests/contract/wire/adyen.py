"""Adyen's Checkout API: it can be told things, and asked nothing."""

from typing import Any

from tests.contract.wire.server import SECRET, Answer, Imitation, Payment, Seen

_RESULT = {"ok": "Authorised", "pending": "Received", "decline": "Refused"}


def _error(status: int, code: str) -> Answer:
    body = {"status": status, "errorCode": code, "message": "As Adyen words it.", "errorType": "validation"}
    return Answer(status, body)


class Adyen(Imitation):
    provider = "adyen"
    config = {"api_key": SECRET, "merchant_account": "AcmeECOM", "environment": "test"}
    declined_with = ("Refused", "05", "02")
    absent = _error(422, "167")
    broken = _error(500, "905")
    unauthorised = _error(401, "000")
    too_many = _error(429, "029")

    def authorised(self, seen: Seen) -> bool:
        return seen.headers.get("x-api-key") == SECRET

    def is_charge(self, seen: Seen) -> bool:
        return seen.path == "/payments"

    def answer(self, seen: Seen) -> Answer:
        match (seen.method, *seen.parts):
            case ("POST", "paymentMethods"):
                return Answer(200, {"paymentMethods": [{"type": "scheme"}]})
            case ("POST", "payments"):
                return self._pay(seen)
            case ("POST", "payments", paid, "refunds"):
                return self._refund(seen, paid)
        return Answer(404, b"")

    def _pay(self, seen: Seen) -> Answer:
        told = seen.json
        assert told["merchantAccount"] == "AcmeECOM"
        assert told["shopperInteraction"] == "ContAuth"
        assert told["paymentMethod"]["type"] == "scheme"
        return self.write(
            seen,
            self.show,
            reference=told["reference"],
            amount=told["amount"]["value"],
            currency=told["amount"]["currency"],
            token=told["paymentMethod"]["storedPaymentMethodId"],
        )

    def _refund(self, seen: Seen, paid: str) -> Answer:
        told = seen.json
        if paid not in self.payments:
            return self.absent
        return self.write(
            seen,
            self.show_refund,
            reference=told["reference"],
            amount=told["amount"]["value"],
            currency=told["amount"]["currency"],
            token="",
            of=paid,
        )

    def show(self, one: Payment) -> Answer:
        body: dict[str, Any] = {
            "pspReference": one.id,
            "resultCode": _RESULT[one.status],
            "merchantReference": one.reference,
            "amount": {"value": one.amount, "currency": one.currency},
            "additionalData": {"cardSummary": "1111", "expiryDate": "3/2030"},
        }
        if one.status == "decline":
            body |= {"refusalReason": "Refused", "refusalReasonCode": "2"}
            body["additionalData"] |= {
                "refusalReasonRaw": "05 : Do not honor",
                "merchantAdviceCode": "02 : Try Again Later",
            }
        return Answer(200, body)

    def show_refund(self, one: Payment) -> Answer:
        body = {
            "merchantAccount": "AcmeECOM",
            "paymentPspReference": one.of,
            "pspReference": one.id,
            "reference": one.reference,
            "status": "received",
            "amount": {"value": one.amount, "currency": one.currency},
        }
        return Answer(201, body)
