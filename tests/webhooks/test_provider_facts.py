"""What providers tell beyond money: whose event it is, which card it was, what runs out and by when to answer."""

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from invoices.models import Attempt, Dispute
from recovery_site.console.report import story_json
from recovery_site.console.story import invoice_story
from retries.models import RetryJob
from tests.contract.stripe_fixtures import load
from tests.webhooks.conftest import NewDoor
from tests.webhooks.door import Door, faults
from tests.webhooks.renewal import BASIL, OLD, Renewal, moment
from tokens.models import Card, Token

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
