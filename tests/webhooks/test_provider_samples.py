"""Webhooks of every provider through the front door into the ledger: own fixtures, and the collected payloads in place.

One merchant per payload, observed only. The table says how the item ends; whatever is not in it has to end without a
fault all the same.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from accounts.models import Merchant
from tests.contract.dialect_fixtures import FIXTURES
from tests.support.signing import SECRETS, delivery
from tests.webhooks.door import faults, ledger
from tokens.models import Token
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.services import endpoint_create, inbox_drain

pytestmark = pytest.mark.django_db
SAMPLES = Path(__file__).parents[2].parent / "shared" / "samples"
NOW = datetime(2026, 11, 30, tzinfo=UTC)
PROVIDERS = ("hyperswitch", "adyen", "braintree", "paddle", "chargebee", "recurly")
# How each collected payload ends, looked through by hand: what its items became, the invoices, the payment methods.
_COLLECTED = Path(__file__).parents[1] / "fixtures" / "collected_ends.txt"
ENDS = {"PROCESSED", "IGNORED", "RECEIVED"}
# Of our own fixtures: invoice, its status, and of each attempt the status, the charge, the code and the category.
OWN: dict[str, tuple[str, str, list[tuple[str, str, str, str]]]] = {
    "hyperswitch/payment_failed": (
        "204",
        "PROCESS_FAILED",
        [
            ("DECLINED", "pay_northwind_1", "Refused", "SOFT_DECLINE"),
            ("DECLINED", "pay_northwind_2", "insufficient_funds", "INSUFFICIENT_FUNDS"),
        ],
    ),
    "adyen/batch": (
        "order:204",
        "PROCESS_FAILED",
        [("DECLINED", "PSPNORTHWIND1", "Not enough balance", "INSUFFICIENT_FUNDS")],
    ),
    "braintree/subscription_charged_unsuccessfully": (
        "northwind_team:7",
        "PROCESS_FAILED",
        [("DECLINED", "bt_northwind_2", "2001", "INSUFFICIENT_FUNDS")],
    ),
    "paddle/transaction.payment_failed": (
        "inv_northwind",
        "PROCESS_FAILED",
        [("DECLINED", "8a1f-2", "not_enough_balance", "INSUFFICIENT_FUNDS")],
    ),
    "chargebee/payment_failed": (
        "204",
        "PROCESS_FAILED",
        [("DECLINED", "txn_northwind_1", "insufficient_funds", "INSUFFICIENT_FUNDS")],
    ),
}


def endpoint_of(provider: str, name: str) -> WebhookEndpoint:
    merchant = Merchant.objects.create(name=f"{provider} {name}"[:100])
    return endpoint_create(merchant=merchant, provider=provider, secret=SECRETS[provider])


def post(endpoint: WebhookEndpoint, payload: dict[str, Any] | bytes) -> dict[str, Any]:
    sent = delivery(endpoint.provider, payload)
    answer = Client().post(
        f"/webhooks/{endpoint.provider}/{endpoint.uuid}/",
        data=sent.body,
        content_type=sent.content_type,
        headers=dict(sent.headers),
    )
    assert answer.status_code == 200, answer.content
    found: dict[str, Any] = answer.json()
    return found


def fixture(path: str) -> dict[str, Any] | bytes:
    file = FIXTURES / f"{path}.json"
    if file.exists():
        body: dict[str, Any] = json.loads(file.read_bytes())
        return body
    return (FIXTURES / f"{path}.xml").read_bytes()


def test_own_fixtures_end_in_the_expected_ledger() -> None:
    found: dict[str, Any] = {}
    merchants = {}
    for path in OWN:
        endpoint = endpoint_of(*path.split("/", 1))
        merchants[path] = endpoint.merchant
        new = post(endpoint, fixture(path))["new"]
        assert new > 0
        assert post(endpoint, fixture(path))["new"] == 0, "told twice, known once"
    assert inbox_drain(now=NOW).failed == 0
    for path, merchant in merchants.items():
        (invoice,) = ledger(merchant)
        attempts = sorted(
            (status, charge, code, category) for _, status, charge, _, _, code, category, _ in invoice["attempts"]
        )
        found[path] = (invoice["invoice"], invoice["status"], attempts)
        assert faults(merchant) == []
    assert found == OWN


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_collected_payload_is_accepted_and_leaves_the_ledger_whole(provider: str) -> None:
    files = [path for path in sorted((SAMPLES / provider).glob("*.json")) if not path.name.startswith("api.")]
    if not files:
        pytest.skip("the collected payloads are not beside this checkout")
    endpoints = {}
    for path in files:
        body = json.loads(path.read_bytes())
        endpoint = endpoint_of(provider, path.stem)
        post(endpoint, body["_xml"].encode() if "_xml" in body else body)
        endpoints[path.stem] = endpoint
    assert inbox_drain(now=NOW).failed == 0
    items = InboxEvent.objects.filter(endpoint__in=endpoints.values())
    assert set(items.values_list("status", flat=True)) <= ENDS
    assert not items.filter(attempts__gt=0).exists()
    assert not items.exclude(status="PROCESSED").filter(reason="").exists(), "what does nothing says why"
    for endpoint in endpoints.values():
        assert faults(endpoint.merchant) == []
    expected = dict(line.split(" || ", 1) for line in _COLLECTED.read_text(encoding="utf-8").splitlines())
    found = {
        name: summary(endpoint) for stem, endpoint in endpoints.items() if (name := f"{provider}/{stem}") in expected
    }
    assert found == {name: expected[name] for name in found}


def summary(endpoint: WebhookEndpoint) -> str:
    """How a payload's items ended; each invoice with its attempts; each payment method."""
    items = InboxEvent.objects.filter(endpoint=endpoint).values_list("status", "reason")
    ends = sorted({status if status == "PROCESSED" else f"{status}: {reason}" for status, reason in items})
    owed = []
    for invoice in ledger(endpoint.merchant):
        tries = " ".join(
            f"{kind}:{status}:{minor}:{code or '-'}:{category or '-'}"
            for kind, status, _, _, minor, code, category, _ in invoice["attempts"]
        )
        minor, currency = invoice["amount"]
        owed.append(f"{invoice['status']} {minor} {currency} [{tries}]")
    methods = Token.objects.filter(merchant=endpoint.merchant).order_by("card__network", "card__last4", "status")
    cards = ["/".join(row) for row in methods.values_list("card__network", "card__last4", "status")]
    return " || ".join((" | ".join(ends), "; ".join(owed), " ".join(cards))).rstrip()
