"""What nothing proves is asked of the provider's API before anything irreversible; the API's word is what counts."""

from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from django.test import Client

from accounts.models import Merchant
from invoices.services.parties import connection_create
from providers.base import DeclineFacts
from retries.categories import Category
from retries.services.outcomes import verdict_of
from tests.contract.dialect_fixtures import changed, load
from tests.contract.wire.chargebee import INVOICE, Chargebee
from tests.contract.wire.server import Payment
from tests.support.signing import SECRETS, delivery
from tests.webhooks.door import faults, ledger
from tokens.models import Token
from webhooks.models import InboxEvent, WebhookEndpoint
from webhooks.services import endpoint_create, inbox_drain

NOW = datetime(2026, 1, 1, 10, tzinfo=UTC)
TRANSACTION = "txn_northwind_1"
FAILED = changed(load("chargebee", "payment_failed"), content__invoice__id=INVOICE, content__customer__id="cus_1")
PAID = changed(
    FAILED, id="ev_paid", event_type="payment_succeeded", content__transaction__status="success", content__invoice=None
)
STOLEN = changed(FAILED, id="ev_stolen", content__transaction__error_detail={"decline_code": "stolen_card"})
_numbers = count(1)


def door(wire: Chargebee, mode: str = "collect") -> WebhookEndpoint:
    merchant = Merchant.objects.create(name=f"Confirming {next(_numbers)}")
    config = {**wire.config, "base_url": wire.url, "mode": mode, "timeout_seconds": 30}
    connection = connection_create(merchant=merchant, provider="chargebee", config=config)
    return endpoint_create(merchant=merchant, provider="chargebee", secret=SECRETS["chargebee"], connection=connection)


def tell(endpoint: WebhookEndpoint, body: dict[str, Any]) -> None:
    sent = delivery("chargebee", body)
    path = f"/webhooks/chargebee/{endpoint.uuid}/"
    answer = Client().post(path, data=sent.body, content_type=sent.content_type, headers=dict(sent.headers))
    assert answer.status_code == 200
    assert inbox_drain(now=NOW).failed == 0


def ends(endpoint: WebhookEndpoint) -> list[tuple[str, str]]:
    return list(InboxEvent.objects.filter(endpoint=endpoint).order_by("pk").values_list("status", "reason"))


def attempts(endpoint: WebhookEndpoint) -> list[tuple[Any, ...]]:
    return [attempt[1:3] + attempt[5:7] for one in ledger(endpoint.merchant) for attempt in one["attempts"]]


@pytest.mark.django_db
def test_a_payment_is_believed_once_the_api_knows_it_and_as_the_api_tells_it() -> None:
    with Chargebee() as wire:
        assert isinstance(wire, Chargebee)
        endpoint = door(wire)
        tell(endpoint, PAID)
        ((status, reason),) = ends(endpoint)
        assert (status, ledger(endpoint.merchant)) == ("RECEIVED", [])
        assert "API knows no such payment" in reason

        wire.payments[TRANSACTION] = Payment(TRANSACTION, "", 4900, "EUR", "pm_1", "decline", invoice=INVOICE)
        InboxEvent.objects.update(due_at=datetime(2020, 1, 1, tzinfo=UTC))
        assert inbox_drain(now=NOW).processed == 1
        assert attempts(endpoint) == [("DECLINED", TRANSACTION, "insufficient_funds", "INSUFFICIENT_FUNDS")]
        assert faults(endpoint.merchant) == []


@pytest.mark.django_db
def test_a_soft_failure_needs_no_question_and_one_that_would_end_a_card_does() -> None:
    with Chargebee() as wire:
        assert isinstance(wire, Chargebee)
        soft, hard = door(wire), door(wire)
        tell(soft, FAILED)
        assert (ends(soft), wire.seen) == ([("PROCESSED", "")], [])
        tell(hard, STOLEN)
        assert [status for status, _ in ends(hard)] == ["RECEIVED"]
        assert [seen.method for seen in wire.seen] == ["GET"]
        assert ledger(hard.merchant) == []


@pytest.mark.django_db
def test_what_is_said_to_be_over_is_over_once_the_api_says_so() -> None:
    with Chargebee() as wire:
        assert isinstance(wire, Chargebee)
        endpoint = door(wire)
        wire.subscriptions, wire.sources = {"sub_northwind": "active"}, {"pm_northwind_1": "cus_1/pm_1"}
        removed = load("chargebee", "payment_source_updated") | {"event_type": "payment_source_deleted"}
        ended = changed(load("chargebee", "subscription_cancelled"), content__customer={"id": "cus_1"})
        for told in (FAILED, removed, ended):
            tell(endpoint, told)
        not_so = ("IGNORED", "Nothing proves this event, and the API says that it is not over.")
        assert ends(endpoint) == [("PROCESSED", ""), not_so, not_so]
        ((invoice, token),) = [(one["status"], one["attempts"][0][-1]) for one in ledger(endpoint.merchant)]
        assert (invoice, Token.objects.get(provider_token=token).status) == ("PROCESSING", "live")

        wire.subscriptions, wire.deleted = {"sub_northwind": "cancelled"}, {"pm_northwind_1"}
        for told in (removed, ended):
            tell(endpoint, {**told, "id": f"{told['id']}_again"})
        assert ends(endpoint)[3:] == [("PROCESSED", "")] * 2
        assert [one["status"] for one in ledger(endpoint.merchant)] == ["CANCELED"]
        assert (Token.objects.get(provider_token=token).status, faults(endpoint.merchant)) == ("removed", [])


@pytest.mark.django_db
def test_a_connection_that_only_observes_believes_the_password() -> None:
    with Chargebee() as wire:
        assert isinstance(wire, Chargebee)
        endpoint = door(wire, mode="observe")
        tell(endpoint, PAID)
        assert (ends(endpoint), wire.seen) == ([("PROCESSED", "")], [])


def test_nothing_lasting_follows_from_a_reason_that_nobody_vouches_for() -> None:
    def verdict(code: str, *, trusted: bool) -> Any:
        facts = DeclineFacts(raw_code=code, advice_code="03", trusted=trusted)
        return verdict_of(facts, provider="adyen", network="mastercard")

    believed, doubted = verdict("Blocked Card", trusted=True), verdict("Blocked Card", trusted=False)
    assert (believed.category, believed.stop) == (Category.HARD_DECLINE, True)
    assert (doubted.category, doubted.stop, doubted.machine_may_retry) == (Category.SOFT_DECLINE, False, False)
    assert "Nobody vouches" in doubted.explanation
    mild = DeclineFacts(raw_code="Not enough balance", trusted=False)
    assert verdict_of(mild, provider="adyen", network="visa").category is Category.INSUFFICIENT_FUNDS
