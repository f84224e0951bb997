"""The sandbox client against the real server process, with every fault the server can play."""

import dataclasses
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from providers.base import (
    ChargeRequest,
    ChargeResult,
    DeclineFacts,
    Outcome,
    ProviderUncertain,
)
from providers.sandbox.client import SandboxClient
from tests.contract.sandbox_orders import (
    TIMEOUT_SECONDS,
    numbers,
    order,
    refund_order,
)
from tests.contract.sandbox_process import Psp, servers


@pytest.fixture(scope="module")
def psp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Psp]:
    with servers(tmp_path_factory.mktemp("psp")) as make:
        yield make("--hold", "10")


@pytest.fixture
def client(psp: Psp) -> SandboxClient:
    return SandboxClient({"base_url": psp.url, "timeout_seconds": TIMEOUT_SECONDS})


def scripted(psp: Psp, *steps: str) -> ChargeRequest:
    request = order(f"tok_ok__{next(numbers)}")
    psp.put("/script", token=request.token, steps=list(steps))
    return request


def ledger_rows(psp: Psp, request: ChargeRequest) -> list[Any]:
    return [row for row in psp.get("/ledger")["charges"] if row["reference"] == request.reference]


# Definite answers


def test_a_success_carries_all_the_facts(psp: Psp, client: SandboxClient) -> None:
    request = order()
    result = client.charge(request)
    (row,) = ledger_rows(psp, request)
    assert dataclasses.replace(result, raw={}, card=None) == ChargeResult(
        outcome=Outcome.SUCCEEDED,
        provider_id=row["id"],
        amount_minor=1250,
        currency="EUR",
        token="tok_ok",
        customer=row["customer"],
        reference=request.reference,
        created_at=datetime.fromisoformat(row["created_at"]),
    )
    assert result.card
    assert (result.card.network, len(result.card.last4), result.card.fingerprint[:3]) == ("visa", 4, "fp_")
    assert result.raw["metadata"] == {"invoice": "inv_1"}
    assert (row["idempotency_key"], row["customer"], row["amount"]) == (
        request.idempotency_key,
        "cus_1",
        1250,
    )
    assert client.charge_get(row["id"]) == result
    assert client.charge_find(request.reference) == result


def test_a_decline_is_a_value(client: SandboxClient) -> None:
    result = client.charge(order("tok_decline_insufficient_funds"))
    assert result.outcome is Outcome.DECLINED
    assert result.decline == DeclineFacts(raw_code="insufficient_funds", network_code="51")


def test_network_and_advice_codes_arrive(psp: Psp, client: SandboxClient) -> None:
    result = client.charge(scripted(psp, "decline:do_not_honor:05:03"))
    assert result.decline == DeclineFacts(raw_code="do_not_honor", network_code="05", advice_code="03")


def test_a_pending_charge_is_awaited_and_later_read(psp: Psp, client: SandboxClient) -> None:
    request = scripted(psp, "pending")
    result = client.charge(request)
    assert (result.outcome, result.decline) == (Outcome.AWAITING, None)
    body = {"status": "declined", "decline_code": "insufficient_funds"}
    assert psp.call("POST", f"/charges/{result.provider_id}/settle", body).status_code == 200
    settled = client.charge_get(result.provider_id)
    assert settled
    assert (settled.outcome, settled.decline) == (
        Outcome.DECLINED,
        DeclineFacts(raw_code="insufficient_funds", network_code="51"),
    )


def test_a_slow_answer_within_the_timeout_counts(psp: Psp, client: SandboxClient) -> None:
    assert client.charge(scripted(psp, "slow:0.2")).outcome is Outcome.SUCCEEDED


def test_the_same_key_moves_money_once(psp: Psp, client: SandboxClient) -> None:
    request = order()
    assert client.charge(request) == client.charge(request)
    assert len(ledger_rows(psp, request)) == 1


def test_too_many_requests_says_when_to_come_back(psp: Psp, client: SandboxClient) -> None:
    request = scripted(psp, "http429:37")
    result = client.charge(request)
    assert (result.outcome, result.error_code) == (Outcome.ERRORED, "rate_limit_exceeded")
    assert result.retry_after == timedelta(seconds=37)
    assert ledger_rows(psp, request) == []


def test_a_refused_request_carries_the_providers_code(psp: Psp, client: SandboxClient) -> None:
    request = order(amount_minor=0)
    result = client.charge(request)
    assert (result.outcome, result.error_code) == (Outcome.ERRORED, "invalid_request")
    assert ledger_rows(psp, request) == []


# Nobody knows


@pytest.mark.parametrize(
    ("step", "moved", "status"),
    [
        ("timeout_before", False, None),
        ("timeout_after_charge", True, None),
        ("slow:5", True, None),
        ("reset_after_charge", True, None),
        ("http500_before", False, 500),
        ("http500_after_charge", True, 500),
        ("malformed", True, 200),
    ],
)
def test_a_lost_or_senseless_answer_is_uncertain_and_the_lookup_decides(
    psp: Psp, client: SandboxClient, step: str, moved: bool, status: int | None
) -> None:
    request = scripted(psp, step, "ok")
    with pytest.raises(ProviderUncertain) as caught:
        client.charge(request)
    assert caught.value.data.get("status") == status
    assert caught.value.message.endswith("; look the payment up before sending anything again.")
    found = client.charge_find(request.reference)
    assert (found is not None) == moved
    assert [row["status"] for row in ledger_rows(psp, request)] == ["succeeded"] * moved
    if found:
        assert (found.outcome, found.amount_minor, found.token) == (Outcome.SUCCEEDED, 1250, request.token)


@pytest.mark.parametrize("step", ["timeout_before", "timeout_after_charge", "reset_after_charge", "malformed"])
def test_sending_again_under_the_same_key_ends_with_one_charge(psp: Psp, client: SandboxClient, step: str) -> None:
    request = scripted(psp, step, "ok")
    with pytest.raises(ProviderUncertain):
        client.charge(request)
    assert client.charge(request).outcome is Outcome.SUCCEEDED
    assert len(ledger_rows(psp, request)) == 1


def test_a_key_used_for_another_charge_proves_nothing(psp: Psp, client: SandboxClient) -> None:
    request = order()
    client.charge(request)
    with pytest.raises(ProviderUncertain) as caught:
        client.charge(dataclasses.replace(request, amount_minor=9))
    assert caught.value.data["status"] == 422


# Reads


def test_what_the_provider_does_not_know_is_none(client: SandboxClient) -> None:
    assert client.charge_get("ch_none") is None
    assert client.charge_find("att_none") is None
    assert client.refund_get("re_none") is None
    assert client.refund_find("ref_none") is None


def test_if_a_reference_has_several_charges_the_paid_one_is_found(psp: Psp, client: SandboxClient) -> None:
    declined = order("tok_decline_do_not_honor")
    client.charge(declined)
    paid = client.charge(order(reference=declined.reference))
    client.charge(order("tok_decline_do_not_honor", reference=declined.reference))
    assert client.charge_find(declined.reference) == paid
    assert len(ledger_rows(psp, declined)) == 3


def test_the_list_reads_every_page_and_starts_after_the_instant(
    client: SandboxClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.sandbox.client.PAGE", 2)
    first = client.charge(order())
    assert first.created_at
    later = [client.charge(order()) for _ in range(4)]
    assert list(client.charges_list(first.created_at)) == later
    assert later[-1].created_at
    assert list(client.charges_list(later[-1].created_at)) == []


# Refunds


def test_a_refund_is_answered_and_found(client: SandboxClient) -> None:
    charge = client.charge(order())
    request = refund_order(charge.provider_id)
    result = client.refund(request)
    assert (result.outcome, result.payment_id, result.amount_minor, result.currency, result.reference) == (
        Outcome.SUCCEEDED,
        charge.provider_id,
        500,
        "EUR",
        request.reference,
    )
    assert client.refund(request) == result
    assert client.refund_get(result.provider_id) == result
    assert client.refund_find(request.reference) == result


def test_a_failed_and_a_refused_refund(psp: Psp, client: SandboxClient) -> None:
    charge = client.charge(order())
    psp.put("/script", token=f"refund:{charge.provider_id}", steps=["decline:card_expired", "pending"])
    failed = client.refund(refund_order(charge.provider_id))
    assert (failed.outcome, failed.decline) == (Outcome.DECLINED, DeclineFacts(raw_code="card_expired"))
    assert client.refund(refund_order(charge.provider_id)).outcome is Outcome.AWAITING
    too_much = client.refund(refund_order(charge.provider_id, amount_minor=5000))
    assert (too_much.outcome, too_much.error_code) == (Outcome.ERRORED, "refund_exceeds_charge")
    unknown = client.refund(refund_order("ch_none"))
    assert (unknown.outcome, unknown.error_code) == (Outcome.ERRORED, "not_found")


def test_a_refund_whose_answer_got_lost_is_uncertain(psp: Psp, client: SandboxClient) -> None:
    charge = client.charge(order())
    psp.put("/script", token=f"refund:{charge.provider_id}", steps=["timeout_after_charge"])
    request = refund_order(charge.provider_id)
    with pytest.raises(ProviderUncertain):
        client.refund(request)
    found = client.refund_find(request.reference)
    assert found
    assert found.outcome is Outcome.SUCCEEDED
