"""The sandbox client against the real server process, and against servers that misbehave in ways it cannot script."""

import contextlib
import dataclasses
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests

from providers import registry
from providers.base import (
    ChargeRequest,
    ChargeResult,
    ClientTraits,
    DeclineFacts,
    Lookup,
    Outcome,
    ProviderUnavailable,
    ProviderUncertain,
    RefundRequest,
    Settles,
)
from providers.sandbox.client import SandboxClient
from recovery_site.common.errors import InvalidInput
from tests.contract.sandbox_process import Psp, servers

TIMEOUT_SECONDS = 1.0
_numbers = count(1)


@pytest.fixture(scope="module")
def psp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Psp]:
    with servers(tmp_path_factory.mktemp("psp")) as make:
        yield make("--hold", "10")


@pytest.fixture
def client(psp: Psp) -> SandboxClient:
    return SandboxClient({"base_url": psp.url, "timeout_seconds": TIMEOUT_SECONDS})


def order(token: str = "tok_ok", **changes: Any) -> ChargeRequest:
    number = next(_numbers)
    request = ChargeRequest(
        amount_minor=1250,
        currency="EUR",
        token=token,
        customer="cus_1",
        reference=f"att_{number}",
        idempotency_key=f"key-{number}",
        metadata={"invoice": "inv_1"},
    )
    return dataclasses.replace(request, **changes)


def scripted(psp: Psp, *steps: str) -> ChargeRequest:
    request = order(f"tok_ok__{next(_numbers)}")
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


@pytest.mark.parametrize(
    "step", ["timeout_before", "timeout_after_charge", "reset_after_charge", "malformed"]
)
def test_sending_again_under_the_same_key_ends_with_one_charge(
    psp: Psp, client: SandboxClient, step: str
) -> None:
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


# Surely not sent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def unsent(base_url: str) -> ChargeResult:
    result = SandboxClient({"base_url": base_url, "timeout_seconds": TIMEOUT_SECONDS}).charge(order())
    assert (result.outcome, result.error_code, result.provider_id) == (Outcome.ERRORED, "network_error", "")
    return result


def test_a_refused_connection_is_unsent() -> None:
    assert unsent(f"http://127.0.0.1:{free_port()}").raw == {"error": "NewConnectionError"}
    assert unsent(f"https://127.0.0.1:{free_port()}").raw == {"error": "NewConnectionError"}


def test_an_unknown_host_is_unsent() -> None:
    assert unsent("http://nowhere.invalid").raw == {"error": "NameResolutionError"}


def test_a_connect_timeout_is_unsent() -> None:
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # The backlog is full as soon as one connection waits in it; further ones get no answer.
        stack.enter_context(socket.create_connection(full.getsockname(), timeout=5))
        assert unsent(f"http://127.0.0.1:{full.getsockname()[1]}").raw == {"error": "ConnectTimeoutError"}


def test_a_failed_tls_handshake_is_unsent(psp: Psp) -> None:
    """The sandbox speaks plain HTTP: the handshake fails before any request leaves."""
    assert unsent(psp.url.replace("http://", "https://")).raw == {"error": "NewConnectionError"}


def test_a_handshake_that_is_never_answered_is_unsent() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        assert unsent(f"https://127.0.0.1:{silent.getsockname()[1]}").raw == {"error": "NewConnectionError"}


# Servers of our own, for answers that the sandbox never gives


@contextlib.contextmanager
def answering(*answers: bytes, hold: bool = False) -> Iterator[tuple[str, list[bytes]]]:
    """Serve each connection one raw answer to one request; yields the URL and the requests received."""
    received: list[bytes] = []
    done = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                received.append(_request(connection))
                connection.sendall(answer)
                if hold:
                    done.wait(20)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", received
    finally:
        done.set()
        listener.close()
        thread.join(5)


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ),
        0,
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def http(status: str, body: object = "", *headers: str) -> bytes:
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def record(request: ChargeRequest, **changes: Any) -> dict[str, Any]:
    return {
        "id": "ch_1",
        "status": "succeeded",
        "amount": request.amount_minor,
        "currency": request.currency,
        "token": request.token,
        "reference": request.reference,
        "created_at": "2026-01-01T00:00:00.000000Z",
    } | changes


def charge_answered(answer: bytes, request: ChargeRequest, **config: Any) -> ChargeResult:
    with answering(answer) as (url, _):
        settings = {"base_url": url, "timeout_seconds": TIMEOUT_SECONDS} | config
        return SandboxClient(settings).charge(request)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"amount": 1251}, "about another amount"),
        ({"currency": "USD"}, "about another currency"),
        ({"reference": "att_other"}, "about another reference"),
        ({"reference": None}, "about another reference"),
        ({"token": "tok_other"}, "about another token"),
        ({"amount": 1, "token": "t"}, "about another token and amount"),
        ({"status": "captured"}, "impossible status"),
        ({"status": None}, "impossible status"),
        ({"amount": 1250.0}, "impossible amount"),
        ({"amount": "1250"}, "impossible amount"),
        ({"amount": True}, "impossible amount"),
        ({"id": ""}, "impossible id"),
        ({"created_at": "yesterday"}, "impossible created_at"),
        ({"card": "visa"}, "impossible card"),
    ],
)
def test_an_answer_that_makes_no_sense_is_uncertain(changes: dict[str, Any], what: str) -> None:
    request = order()
    with pytest.raises(ProviderUncertain, match=what) as caught:
        charge_answered(http("200 OK", record(request, **changes)), request)
    assert caught.value.data["status"] == 200


@pytest.mark.parametrize(
    "answer",
    [
        http("200 OK", "[]"),
        http("200 OK", "null"),
        http("204 No Content"),
        http("302 Found", "", "Location: http://127.0.0.1:1/charges"),
        http("408 Request Timeout"),
        http("409 Conflict", {"error": {"code": "in_progress"}}),
        http("502 Bad Gateway", "<h1>Bad gateway</h1>"),
        http("503 Service Unavailable", {"error": {"code": "ledger_unavailable"}}),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
def test_other_answers_that_prove_nothing_are_uncertain(answer: bytes) -> None:
    with pytest.raises(ProviderUncertain):
        charge_answered(answer, order())


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (http("401 Unauthorized", {"error": {"code": "bad_key"}}), "authentication_failed"),
        (http("403 Forbidden"), "authentication_failed"),
        (http("404 Not Found"), "http_404"),
        (http("422 Unprocessable", {"error": {"code": "unknown_currency"}}), "unknown_currency"),
        (
            http("429 Too Many Requests", "", "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT"),
            "rate_limit_exceeded",
        ),
    ],
)
def test_refusals_say_which(answer: bytes, code: str) -> None:
    result = charge_answered(answer, order())
    assert (result.outcome, result.error_code, result.retry_after) == (Outcome.ERRORED, code, None)


def test_what_is_kept_of_a_bad_answer_is_scrubbed_and_short() -> None:
    answer = http("500 Error", "card 4111111111111111 " + "x" * 5000)
    with pytest.raises(ProviderUncertain) as caught:
        charge_answered(answer, order())
    kept = caught.value.data["body"]
    assert kept.startswith("card [filtered] xxx")
    assert len(kept) == 2048


def test_a_dripping_answer_is_given_up_in_time() -> None:
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            _request(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not stop.wait(0.05):
                connection.sendall(b"x")

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with pytest.raises(ProviderUncertain, match="answer too slow"):
            SandboxClient({"base_url": url, "timeout_seconds": 0.4}).charge(order())
    finally:
        stop.set()
        listener.close()
        thread.join(5)


def test_a_flood_is_given_up() -> None:
    with pytest.raises(ProviderUncertain, match="answer too large"):
        charge_answered(http("200 OK", "x" * 2_000_000), order())


def test_the_request_is_sent_once_with_key_and_credentials() -> None:
    request = order()
    with answering(b"", b"") as (url, received):
        client = SandboxClient(
            {"base_url": url + "/", "api_key": "sk_abc", "timeout_seconds": TIMEOUT_SECONDS}
        )
        with pytest.raises(ProviderUncertain):
            client.charge(request)
        assert len(received) == 1
        head, _, body = received[0].partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert lines[0] == "POST /charges HTTP/1.1"
        assert f"Idempotency-Key: {request.idempotency_key}" in lines
        assert "Authorization: Bearer sk_abc" in lines
        assert json.loads(body) == {
            "amount": 1250,
            "currency": "EUR",
            "token": "tok_ok",
            "customer": "cus_1",
            "reference": request.reference,
            "metadata": {"invoice": "inv_1"},
        }


def test_a_proxy_of_the_environment_is_not_used(psp: Psp, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(requests.ConnectionError):
        requests.get(psp.url + "/health", timeout=5)
    client = SandboxClient({"base_url": psp.url, "timeout_seconds": TIMEOUT_SECONDS})
    assert client.charge(order()).outcome is Outcome.SUCCEEDED


# Reads


def test_what_the_provider_does_not_know_is_none(client: SandboxClient) -> None:
    assert client.charge_get("ch_none") is None
    assert client.charge_get("../ledger?x=1") is None
    assert client.charge_find("att_none") is None
    assert client.refund_get("re_none") is None
    assert client.refund_find("ref_none") is None


READS: list[Callable[[SandboxClient], object]] = [
    lambda client: client.charge_get("ch_1"),
    lambda client: client.charge_find("att_1"),
    lambda client: list(client.charges_list(datetime(2026, 1, 1, tzinfo=UTC))),
    lambda client: client.refund_get("re_1"),
    lambda client: client.refund_find("att_1"),
]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        http("500 Error"),
        http("404 Not Found"),
        http("401 Unauthorized"),
        http("200 OK", "[]"),
        http("200 OK", {"data": [{"id": 1}]}),
        http("200 OK", {"data": [None]}),
    ],
)
def test_trouble_while_reading_is_unavailable_never_none(
    read: Callable[[SandboxClient], object], answer: bytes
) -> None:
    with answering(answer) as (url, _), pytest.raises(ProviderUnavailable):
        read(SandboxClient({"base_url": url, "timeout_seconds": TIMEOUT_SECONDS}))


@pytest.mark.parametrize("read", READS)
def test_a_dead_server_is_unavailable(read: Callable[[SandboxClient], object]) -> None:
    client = SandboxClient(
        {"base_url": f"http://127.0.0.1:{free_port()}", "timeout_seconds": TIMEOUT_SECONDS}
    )
    with pytest.raises(ProviderUnavailable, match="check that it runs"):
        read(client)


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


def refund_order(charge_id: str, **changes: Any) -> RefundRequest:
    number = next(_numbers)
    request = RefundRequest(
        charge_id=charge_id,
        amount_minor=500,
        currency="EUR",
        reference=f"att_{number}",
        idempotency_key=f"key-{number}",
        reason="requested_by_customer",
    )
    return dataclasses.replace(request, **changes)


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


# Config


def test_the_traits_promise_what_the_design_demands(psp: Psp) -> None:
    made = registry.client("sandbox", {"base_url": psp.url})
    assert isinstance(made, SandboxClient)
    assert made.traits == ClientTraits(
        key_ttl=timedelta(hours=24), lookup=Lookup.AUTHORITATIVE, settles=Settles.NOW, timeout_seconds=10.0
    )


@pytest.mark.parametrize("base_url", [None, "", "127.0.0.1:8100", "ftp://127.0.0.1", 5])
def test_a_base_url_is_demanded(base_url: object) -> None:
    with pytest.raises(InvalidInput, match="Set base_url of the sandbox connection"):
        SandboxClient({"base_url": base_url})


@pytest.mark.parametrize("seconds", [0, -1, 121, "10", True, float("nan")])
def test_a_timeout_that_makes_no_sense_is_refused(seconds: object) -> None:
    with pytest.raises(InvalidInput, match="timeout_seconds of the sandbox connection"):
        SandboxClient({"base_url": "http://127.0.0.1:1", "timeout_seconds": seconds})
