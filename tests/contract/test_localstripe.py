"""The Stripe client against localstripe, an independent imitation of Stripe: a smoke test of the whole road.

It ignores idempotency keys, has no search and gives no decline codes, so nothing more is asked of it.
"""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import requests

from providers.base import ChargeRequest, Outcome, ProviderUnavailable, RefundRequest
from providers.stripe.client import StripeClient

KEY = "sk_test_localstripe"
# The package's own application, on a port that the system picks, without its copy of everything on disk.
SERVER = """
import socket
from aiohttp import web
from localstripe.resources import Store
from localstripe.server import app

Store.dump_to_disk = lambda self: None
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
web.run_app(app, sock=listener, print=None, access_log=None)
"""


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # The socket listens before its port is printed, so the first request waits instead of failing.
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


def _post(base_url: str, path: str, **form: str) -> str:
    answer = requests.post(f"{base_url}/v1/{path}", data=form, headers={"Authorization": f"Bearer {KEY}"}, timeout=20)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


@pytest.fixture(scope="module")
def customer(base_url: str) -> str:
    return _post(base_url, "customers", email="ap@northwind.example")


def _method(base_url: str, customer: str, number: str) -> str:
    card = {
        "type": "card",
        "card[number]": number,
        "card[exp_month]": "12",
        "card[exp_year]": "2030",
        "card[cvc]": "123",
    }
    token = _post(base_url, "payment_methods", **card)
    _post(base_url, f"payment_methods/{token}/attach", customer=customer)
    return token


def _request(token: str, customer: str) -> ChargeRequest:
    return ChargeRequest(
        amount_minor=4900,
        currency="EUR",
        token=token,
        customer=customer,
        reference="att_local",
        idempotency_key="key-local",
        metadata={"invoice": "inv_local", "transaction": "txn_local"},
        description="Team, January",
    )


@pytest.fixture
def client(base_url: str) -> StripeClient:
    return StripeClient({"api_key": KEY, "base_url": base_url, "mode": "charge", "timeout_seconds": 20})


def test_a_charge_is_made_read_back_listed_and_refunded(client: StripeClient, base_url: str, customer: str) -> None:
    token = _method(base_url, customer, "4242424242424242")
    made = client.charge(_request(token, customer))
    assert (made.outcome, made.amount_minor, made.currency) == (Outcome.SUCCEEDED, 4900, "EUR")
    assert (made.token, made.reference) == (token, "att_local")
    assert made.provider_id.startswith("ch_")

    by_intent = client.charge_get(made.payment_id)
    by_charge = client.charge_get(made.provider_id)
    assert by_intent is not None
    assert by_charge is not None
    assert (by_intent.outcome, by_intent.provider_id, by_intent.reference) == (
        Outcome.SUCCEEDED,
        made.provider_id,
        "att_local",
    )
    assert (by_charge.outcome, by_charge.payment_id, by_charge.amount_minor) == (
        Outcome.SUCCEEDED,
        made.payment_id,
        4900,
    )
    listed = client.charges_list(datetime.now(UTC) - timedelta(hours=1))
    assert made.provider_id in {charge.provider_id for charge in listed}

    refund = client.refund(
        RefundRequest(
            charge_id=made.provider_id,
            amount_minor=1900,
            currency="EUR",
            reference="att_refund",
            idempotency_key="key-refund",
            reason="requested_by_customer",
        )
    )
    assert (refund.outcome, refund.amount_minor, refund.reference) == (Outcome.SUCCEEDED, 1900, "att_refund")
    found = client.refund_find("att_refund")
    assert found is not None
    read = client.refund_get(refund.provider_id)
    assert read is not None
    assert found.provider_id == read.provider_id == refund.provider_id
    assert (read.outcome, read.reference) == (Outcome.SUCCEEDED, "att_refund")
    assert client.invoice_of_payment(made.payment_id) == ""


def test_a_card_that_cannot_be_charged_is_declined(client: StripeClient, base_url: str, customer: str) -> None:
    # Stripe's test card that can be stored but not charged.
    token = _method(base_url, customer, "4000000000000341")
    result = client.charge(_request(token, customer))
    assert result.outcome is Outcome.DECLINED
    assert result.decline is not None
    assert result.decline.raw_code == "card_declined"
    assert result.provider_id.startswith("ch_")
    read = client.charge_get(result.provider_id)
    assert read is not None
    assert read.outcome is Outcome.DECLINED


def test_a_card_that_wants_the_payer_is_cancelled_and_declined(
    client: StripeClient, base_url: str, customer: str
) -> None:
    token = _method(base_url, customer, "4000002500003155")
    result = client.charge(_request(token, customer))
    assert result.outcome is Outcome.DECLINED
    assert result.decline is not None
    assert result.decline.raw_code == "authentication_required"
    read = client.charge_get(result.payment_id)
    assert read is not None
    assert (read.outcome, read.error_code) == (Outcome.ERRORED, "payment_intent_canceled")


def test_a_token_that_it_does_not_know_is_refused(client: StripeClient, customer: str) -> None:
    result = client.charge(_request("pm_nobody", customer))
    assert (result.outcome, result.error_code) == (Outcome.ERRORED, "invalid_request_error")


def test_a_key_it_does_not_take_is_a_matter_of_settings(base_url: str, customer: str) -> None:
    client = StripeClient({"api_key": "rk_unknown", "base_url": base_url})
    result = client.charge(_request("pm_card_visa", customer))
    assert (result.outcome, result.error_code) == (Outcome.ERRORED, "authentication_failed")


def test_without_a_search_absence_is_not_claimed(client: StripeClient) -> None:
    with pytest.raises(ProviderUnavailable):
        client.charge_find("att_local")
    assert client.charge_get("pi_unknown") is None
