"""Hyperswitch v1: payments and refunds under ids that the caller chooses."""

from dataclasses import replace
from typing import Any

from tests.contract.wire.server import REQUEST, SECRET, Answer, Imitation, Payment, Seen

_STATUS = {"ok": "succeeded", "pending": "processing", "decline": "failed"}


def _error(code: str, message: str = "As Hyperswitch words it.") -> dict[str, Any]:
    return {"error": {"type": "invalid_request", "message": message, "code": code}}


class Hyperswitch(Imitation):
    provider = "hyperswitch"
    config = {"api_key": SECRET}
    declined_with = ("card_declined", "43", "03")
    absent = Answer(404, _error("HE_02"))
    broken = Answer(500, _error("HE_00"))
    unauthorised = Answer(401, _error("IR_01"))
    too_many = Answer(429, _error("HE_04"))
    request = replace(REQUEST, token="pm_1")

    def reset(self) -> None:
        super().reset()
        self.told: dict[str, dict[str, Any]] = {}

    def authorised(self, seen: Seen) -> bool:
        return seen.headers.get("api-key") == SECRET

    def is_charge(self, seen: Seen) -> bool:
        return (seen.method, seen.path) == ("POST", "/payments")

    def key_of(self, seen: Seen) -> str:
        """Hyperswitch itself knows only the id."""
        assert seen.headers["idempotency-key"].startswith("recovery-att_")
        return ""

    def new_id(self, seen: Seen, facts: Any) -> str:
        told = seen.json
        return str(told["refund_id"] if facts.get("of") else told["payment_id"])

    def answer(self, seen: Seen) -> Answer:
        match (seen.method, *seen.parts):
            case ("POST", "payments"):
                return self._pay(seen)
            case ("POST", "refunds"):
                return self._refund(seen)
            case ("GET", "payments", "list"):
                shown = [self.payment(one) for one in self.payments.values() if not one.of]
                return Answer(200, {"count": len(shown), "data": shown})
            case ("GET", "payments" | "refunds", found):
                kept = self.payments.get(found)
                return self.absent if kept is None else self.show(kept)
        return self.absent

    def _pay(self, seen: Seen) -> Answer:
        told = seen.json
        assert len(told["payment_id"]) == 30
        assert told["metadata"]["order_id"] == told["metadata"]["invoice"]
        if told["payment_id"] in self.payments and not self.steps:
            return Answer(400, _error("HE_01"))
        self.told[told["payment_id"]] = told
        return self.write(
            seen,
            self.show,
            reference=told["metadata"]["attempt"],
            amount=told["amount"],
            currency=told["currency"],
            token=told["recurring_details"]["data"],
        )

    def _refund(self, seen: Seen) -> Answer:
        told = seen.json
        assert told["refund_type"] == "instant"
        if told["refund_id"] in self.payments:
            return Answer(400, _error("HE_01"))
        if told["payment_id"] not in self.payments:
            return self.absent
        return self.write(
            seen,
            self.show,
            reference=told["metadata"]["attempt"],
            amount=told["amount"],
            currency=self.payments[told["payment_id"]].currency,
            token="",
            of=told["payment_id"],
        )

    def show(self, one: Payment) -> Answer:
        return Answer(200, self.refund(one) if one.of else self.payment(one))

    def payment(self, one: Payment) -> dict[str, Any]:
        failed = one.status == "decline"
        return {
            "payment_id": one.id,
            "status": _STATUS[one.status],
            "amount": one.amount,
            "amount_received": one.amount if one.status == "ok" else None,
            "currency": one.currency,
            "customer_id": self.told.get(one.id, {}).get("customer_id", "cus_1"),
            "payment_method_id": one.token,
            "created": one.at.isoformat(),
            "metadata": {"attempt": one.reference, **self.told.get(one.id, {}).get("metadata", {})},
            "payment_method_data": {"card": {"last4": "4242", "card_network": "Visa", "card_exp_year": "30"}},
            "error_code": "card_declined" if failed else None,
            "error_message": "Your card was declined." if failed else None,
            "issuer_error_code": "43" if failed else None,
            "network_details": {"network_advice_code": "03"} if failed else None,
        }

    def refund(self, one: Payment) -> dict[str, Any]:
        status = {"ok": "succeeded", "pending": "pending", "decline": "failed"}[one.status]
        return {
            "refund_id": one.id,
            "payment_id": one.of,
            "amount": one.amount,
            "currency": one.currency,
            "status": status,
            "metadata": {"attempt": one.reference},
            "created_at": one.at.isoformat(),
        }
