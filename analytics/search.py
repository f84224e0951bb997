"""Finding invoices by whatever a person has at hand: any id of ours or of a provider, an e-mail, the
beginning of a customer's name, a card's last four.
"""

import re
from collections.abc import Iterable
from typing import Final

from django.db.models import QuerySet

from accounts.models import Merchant
from invoices.models import Connection, Invoice

# Per way of matching; a search that hits more than this is too vague to be read anyway.
_LIMIT = 200
_OURS: Final = re.compile(r"(inv|txn|att|cas|job|cus|tok|crd|dsp|rev)_[0-9a-z]{26}")
_BY_OUR_ID: Final = {
    "inv": "public_id",
    "txn": "transactions__public_id",
    "att": "attempts__public_id",
    "cas": "cases__public_id",
    "job": "jobs__public_id",
    "cus": "customer__public_id",
    "tok": "customer__tokens__public_id",
    "crd": "customer__tokens__card__public_id",
    "dsp": "disputes__public_id",
    "rev": "review_items__public_id",
}
# Every one is answered by an index that begins with the connection, so they are asked per connection of the
# merchant.
_BY_PROVIDER_ID: Final = (
    ("connection__in", "provider_invoice_id"),
    ("connection__in", "subscription_id"),
    ("customer__connection__in", "customer__connector_customer_id"),
    ("provider_payments__connection__in", "provider_payments__provider_payment_id"),
    ("attempts__connection__in", "attempts__provider_payment_id"),
    ("customer__tokens__connection__in", "customer__tokens__provider_token"),
)


def invoice_pks_matching(merchant: Merchant, text: str) -> list[int]:
    """Primary keys of the merchant's invoices that match `text`, at most a few hundred. One or two queries."""
    wanted = text.strip().strip("•").strip()
    if not wanted or "\x00" in wanted or len(wanted) > 300:
        return []
    mine = Invoice.objects.filter(merchant=merchant)
    ours = _OURS.fullmatch(wanted.lower())
    if ours:
        return _first(mine.filter(**{_BY_OUR_ID[ours.group(1)]: wanted.lower()}))
    if "@" in wanted:
        # As stored, and in lower case: the index holds addresses as providers spell them.
        return _first(mine.filter(customer__merchant=merchant, customer__email__in={wanted, wanted.lower()}))
    ways = list(_by_provider_id(mine, merchant, wanted))
    ways.append(mine.filter(number=wanted))
    if len(wanted) > 2:
        ways.append(mine.filter(customer__merchant=merchant, customer__name__istartswith=wanted))
    if re.fullmatch(r"[0-9]{4}", wanted):
        ways.append(mine.filter(customer__tokens__card__merchant=merchant, customer__tokens__card__last4=wanted))
    queries = [way.order_by("-pk").values_list("pk", flat=True)[:_LIMIT] for way in ways]
    return sorted(set(queries[0].union(*queries[1:])), reverse=True)


def _by_provider_id(mine: "QuerySet[Invoice]", merchant: Merchant, wanted: str) -> "Iterable[QuerySet[Invoice]]":
    connections = list(Connection.objects.filter(merchant=merchant).values_list("pk", flat=True))
    for scope, field in _BY_PROVIDER_ID:
        yield mine.filter(**{scope: connections, field: wanted})
    for kind in ("CHARGE", "REFUND"):
        yield mine.filter(attempts__connection__in=connections, attempts__kind=kind, attempts__provider_id=wanted)


def _first(rows: "QuerySet[Invoice]") -> list[int]:
    return sorted(set(rows.values_list("pk", flat=True)[:_LIMIT]), reverse=True)
