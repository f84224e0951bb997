"""Braintree's gateway: XML, keys inside the request, a search in two steps."""

import re
from typing import Any

from braintree.util.xml_util import XmlUtil

from tests.contract.wire.server import SECRET, Answer, Imitation, Payment, Seen

_STATUS = {"ok": "submitted_for_settlement", "pending": "authorizing", "decline": "processor_declined"}
_REFUND = {"ok": "settled", "pending": "submitted_for_settlement", "decline": "settlement_declined"}
_CURRENCIES = {"acme_eur": "EUR", "acme_usd": "USD"}


def _xml(status: int, **body: Any) -> Answer:
    return Answer(status, XmlUtil.xml_from_dict(body).encode(), {"Content-Type": "application/xml"})


class Braintree(Imitation):
    provider = "braintree"
    config = {
        "merchant_id": "acme",
        "public_key": "public",
        "private_key": SECRET,
        "environment": "sandbox",
        "merchant_accounts": "EUR=acme_eur, USD=acme_usd",
    }
    declined_with = ("2001", "51", "02")
    absent = Answer(404, b"")
    broken = Answer(500, b"<html>Broken</html>")
    unauthorised = Answer(401, b"")
    too_many = Answer(429, b"")

    def authorised(self, seen: Seen) -> bool:
        return seen.basic() == f"public:{SECRET}"

    def is_charge(self, seen: Seen) -> bool:
        return (seen.method, seen.path) == ("POST", "/merchants/acme/transactions")

    def key_of(self, seen: Seen) -> str:
        return str(self.told(seen)["api_request_key"])

    @staticmethod
    def told(seen: Seen) -> dict[str, Any]:
        found: dict[str, Any] = XmlUtil.dict_from_xml(seen.body)["transaction"]
        return found

    def answer(self, seen: Seen) -> Answer:
        match (seen.method, *seen.parts[2:]):
            case ("POST", "transactions"):
                return self._sale(seen)
            case ("POST", "transactions", paid, "refund"):
                return self._refund(seen, paid)
            case ("POST", "transactions", "advanced_search_ids"):
                found = self._searched(seen)
                ids = "".join(f"<item>{one.id}</item>" for one in found)
                ids = f"<page-size type='integer'>50</page-size><ids type='array'>{ids}</ids>"
                return Answer(200, f"<search-results>{ids}</search-results>".encode())
            case ("POST", "transactions", "advanced_search"):
                rows = "".join(self._bare(one) for one in self._searched(seen))
                return Answer(
                    200, f"<credit-card-transactions type='collection'>{rows}</credit-card-transactions>".encode()
                )
            case ("GET", "transactions", found):
                kept = self.payments.get(found)
                return self.absent if kept is None else self.show(kept, 200)
            case ("GET", "merchant_accounts", account):
                return _xml(200, merchant_account={"id": account, "currency_iso_code": _CURRENCIES[account]})
        return self.absent

    def _sale(self, seen: Seen) -> Answer:
        told = self.told(seen)
        assert told["type"] == "sale"
        assert told["transaction_source"] == "recurring"
        return self.write(
            seen,
            self.show,
            reference=told["order_id"],
            amount=int(told["amount"].replace(".", "")),
            currency=_CURRENCIES[told["merchant_account_id"]],
            token=told["payment_method_token"],
        )

    def _refund(self, seen: Seen, paid: str) -> Answer:
        told = self.told(seen)
        if paid not in self.payments:
            return self.absent
        return self.write(
            seen,
            self.show,
            reference=told["order_id"],
            amount=int(told["amount"].replace(".", "")),
            currency=self.payments[paid].currency,
            token="",
            of=paid,
        )

    def _searched(self, seen: Seen) -> list[Payment]:
        """By order id, or by ids; everything else of a search lets all through."""
        body = seen.body.decode()
        orders = re.findall(r"<order_id><is>(.*?)</is></order_id>", body.replace("-", "_").replace("\n", ""))
        credit = "<item>credit</item>" in body
        rows = [one for one in self.payments.values() if bool(one.of) is credit]
        return [one for one in rows if not orders or one.reference in orders]

    def show(self, one: Payment, status: int = 201) -> Answer:
        shown = self._transaction(one)
        if one.status == "decline" and status == 201:
            errors = {"errors": {"errors": []}, "message": "Insufficient Funds", "transaction": shown}
            return _xml(422, api_error_response=errors)
        return _xml(status, transaction=shown)

    def _bare(self, one: Payment) -> str:
        return str(XmlUtil.xml_from_dict({"transaction": self._transaction(one)}))

    def _transaction(self, one: Payment) -> dict[str, Any]:
        failed = one.status == "decline"
        return {
            "id": one.id,
            "type": "credit" if one.of else "sale",
            "status": (_REFUND if one.of else _STATUS)[one.status],
            "amount": f"{one.amount / 100:.2f}",
            "currency_iso_code": one.currency,
            "order_id": one.reference,
            "created_at": one.at.replace(microsecond=0),
            "payment_instrument_type": "credit_card",
            "customer": {"id": "cus_1"},
            "credit_card": {"token": one.token, "last_4": "1111", "card_type": "Visa", "bin": "411111"},
            **({"refunded_transaction_id": one.of} if one.of else {}),
            **(
                {
                    "processor_response_code": "2001",
                    "processor_response_text": "Insufficient Funds",
                    "network_response_code": "51",
                    "merchant_advice_code": "02",
                }
                if failed
                else {}
            ),
        }
