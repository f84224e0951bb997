"""What providers tell beyond money: whose event it is, which card it was, what runs out and by when to answer."""

import copy
import json
from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import pytest
from django.test import Client

from accounts.models import Merchant
from invoices.models import Attempt, Dispute
from invoices.services.parties import connection_create
from recovery_site.console.report import story_json
from recovery_site.console.story import invoice_story
from retries.models import Case, RetryJob
from tests.contract import dialect_fixtures
from tests.contract.dialect_fixtures import FIXTURES
from tests.contract.stripe_fixtures import load
from tests.support.signing import SECRETS, delivery
from tests.webhooks.conftest import NewDoor
from tests.webhooks.door import Door, faults, ledger
from tests.webhooks.renewal import BASIL, OLD, Renewal, moment
from tokens.models import Card, Token
from webhooks.services import endpoint_create, inbox_drain

pytestmark = pytest.mark.django_db
SOON = moment(60)
DUE = datetime(2026, 1, 20, 12, tzinfo=UTC)


def test_events_of_another_account_of_the_platform_change_nothing(new_door: NewDoor) -> None:
    for account, status in (("acct_other", "IGNORED"), ("acct_ours", "PROCESSED"), (None, "PROCESSED")):
        door = new_door(account="acct_ours")
        door.tell(SOON, Renewal(OLD).charge_failed() | {"account": account})
        assert [row[1] for row in door.inbox()] == [status], account
        assert Attempt.objects.filter(merchant=door.merchant).count() == (status == "PROCESSED")


def expiring(method: str, number: int) -> Any:
    """customer.source.expiring of the card in the fixture, which is good until September 2027."""
    event = copy.deepcopy(load("2019-12-03/customer.source.updated.json"))
    event |= {"id": f"evt_expiring_{number}", "type": "customer.source.expiring", "created": int(SOON.timestamp())}
    event["data"] = {"object": event["data"]["object"] | {"id": method, "fingerprint": f"fp_{method}"}}
    return event


def test_a_card_that_runs_out_is_learned_and_tried_only_if_it_was_not_known(door: Door) -> None:
    renewal = Renewal(OLD, token="card_known")
    door.tell(SOON, renewal.charge_failed(code="stolen_card"), expiring("card_known", 1))
    assert [row[1:] for row in door.inbox()] == [("PROCESSED", "")] * 2
    assert (door.case().next_step, RetryJob.objects.filter(merchant=door.merchant).count()) == ("customer", 0)
    door.tell(SOON, expiring("card_new", 2))
    card = Token.objects.select_related("card").get(provider_token="card_new").card
    assert (card.network, card.last4, card.exp_month, card.exp_year) == ("amex", "0005", 9, 2027)
    assert RetryJob.objects.get(merchant=door.merchant).token == Token.objects.get(provider_token="card_new")
    assert (door.case().next_step, faults(door.merchant)) == ("booked", [])


def test_the_issuer_the_network_s_id_and_the_last_day_for_evidence_are_kept_and_shown(door: Door) -> None:
    renewal = Renewal(BASIL)
    paid = renewal.charge_succeeded()
    paid["data"]["object"]["payment_method_details"]["card"] |= {
        "iin": "424242",
        "issuer": "ING BANK",
        "network_transaction_id": "MCC000007",
    }
    dispute: dict[str, Any] = renewal.dispute(1, "created", "needs_response")
    dispute["data"]["object"]["evidence_details"] = {"due_by": int(DUE.timestamp())}
    earlier = copy.deepcopy(dispute) | {"id": "evt_earlier"}
    earlier["data"]["object"]["evidence_details"] = {"due_by": int(DUE.timestamp()) - 86_400}
    door.tell(moment(900), paid, dispute, earlier)
    card = Card.objects.get(merchant=door.merchant)
    assert (card.bin, card.issuer) == ("424242", "ING BANK")
    assert Attempt.objects.get(merchant=door.merchant).network_reference == "MCC000007"
    assert Dispute.objects.get(merchant=door.merchant).respond_by == DUE, "a deadline only moves on"
    shown = json.loads(json.dumps(story_json(invoice_story(door.invoice(), now=moment(1000)))))
    assert shown["attempts"][0]["network_reference"] == "MCC000007"
    assert [(one["bin"], one["issuer"]) for one in shown["tokens"]] == [("424242", "ING BANK")]
    assert shown["disputes"][0]["respond_by"] == "2026-01-20T12:00:00+00:00"
    assert faults(door.merchant) == []


def adyen_item(**values: Any) -> dict[str, Any]:
    (item, *_) = dialect_fixtures.load("adyen", "batch")["notificationItems"]
    extra = item["NotificationRequestItem"]["additionalData"]
    for name in ("merchantAdviceCode", "refusalReasonRaw", "retry.rescueScheduled"):
        extra.pop(name)
    item["NotificationRequestItem"] |= values
    return {"live": "false", "notificationItems": [item]}


ADYEN_TOKEN = {
    "eventId": "evt_token",
    "type": "recurring.token.updated",
    "createdAt": "2026-01-02T10:00:00+01:00",
    "data": {"storedPaymentMethodId": "M5NORTHWIND", "shopperReference": "northwind", "type": "mc"},
}
BRAINTREE_FAILED = (FIXTURES / "braintree/subscription_charged_unsuccessfully.xml").read_bytes()
# A code that is in no table, and nothing of the network's: Braintree's own word is all there is.
BRAINTREE_HARD = (
    BRAINTREE_FAILED.replace(b">2001<", b">3999<")
    .replace(b"<network-response-code>51</network-response-code>", b"")
    .replace(b"<merchant-advice-code>24</merchant-advice-code>", b"")
    .replace(b"51 : DECLINED", b"")
    .replace(b"<credit-card>", b"<processor-response-type>hard_declined</processor-response-type><credit-card>")
)
BRAINTREE_UPDATED = (
    b"<notification><kind>recipient_updated_granted_payment_method</kind><timestamp>2026-01-02T09:00:00Z</timestamp>"
    b"<subject><granted-payment-instrument-update><token>tok_northwind</token></granted-payment-instrument-update>"
    b"</subject></notification>"
)
# A card that was refused for good, and the word that its issuer has given out another one.
UPDATES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "adyen": (
        adyen_item(reason="Expired Card"),
        ADYEN_TOKEN,
        {"api_key": "k", "merchant_account": "NorthwindECOM", "environment": "test"},
    ),
    "braintree": (
        BRAINTREE_HARD,
        BRAINTREE_UPDATED,
        {
            "merchant_id": "m",
            "public_key": "p",
            "private_key": "k",
            "environment": "sandbox",
            "merchant_accounts": "EUR=a",
        },
    ),
}


@pytest.mark.parametrize("provider", UPDATES)
def test_a_new_card_behind_a_refused_token_is_charged_at_once(provider: str) -> None:
    failed, updated, config = UPDATES[provider]
    merchant = Merchant.objects.create(name=provider)
    connection = connection_create(merchant=merchant, provider=provider, config={**config, "mode": "charge"})
    endpoint = endpoint_create(merchant=merchant, provider=provider, secret=SECRETS[provider], connection=connection)
    found = []
    for body in (failed, updated):
        sent = delivery(provider, body)
        path = f"/webhooks/{provider}/{endpoint.uuid}/"
        Client().post(path, data=sent.body, content_type=sent.content_type, headers=dict(sent.headers))
        assert inbox_drain(now=datetime(2026, 1, 2, 9, 5, tzinfo=UTC)).processed == 1
        jobs = RetryJob.objects.filter(merchant=merchant, status="SCHEDULED")
        found.append(
            (
                Case.objects.get(merchant=merchant).next_step,
                Token.objects.get(merchant=merchant).status,
                list(jobs.values_list("trigger", "token__status")),
            )
        )
    assert found == [("customer", "declined", []), ("booked", "live", [("card_update", "live")])]
    assert faults(merchant) == []


def test_a_failed_invoice_with_its_payment_expanded_is_the_one_try_in_every_order(new_door: NewDoor) -> None:
    renewal = Renewal(BASIL)
    charge, intent, invoice = renewal.charge_failed(), renewal.intent_failed(), renewal.invoice_failed()
    invoice["data"]["object"]["payments"] = {"data": [{"payment": {"payment_intent": intent["data"]["object"]}}]}
    expected = None
    for told in permutations((charge, intent, invoice)):
        door = new_door()
        door.tell(SOON, *told)
        found = ledger(door.merchant)
        assert [(one["invoice"], len(one["attempts"]), one["cases"][0][2]) for one in found] == [
            ("in_1", 1, "insufficient_funds")
        ]
        expected = expected or found
        assert (found, faults(door.merchant)) == (expected, [])
