"""The sandbox client before and beyond the sandbox: nothing sent, senseless answers, bad configuration."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from providers import registry
from providers.base import (
    ChargeRequest,
    ChargeResult,
    ClientTraits,
    Lookup,
    Outcome,
    ProviderUnavailable,
    ProviderUncertain,
    Settles,
)
from providers.sandbox.client import SandboxClient
from recovery_site.common.errors import InvalidInput
from tests.contract.sandbox_orders import (
    TIMEOUT_SECONDS,
    answering,
    http,
    order,
    read_request,
)
from tests.contract.sandbox_process import Psp, servers
from tests.support.ports import free_port


@pytest.fixture(scope="module")
def psp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Psp]:
    with servers(tmp_path_factory.mktemp("psp")) as make:
        yield make("--hold", "10")


# Surely not sent


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
        http("409 Conflict"),
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
            read_request(connection)
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
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_a_flood_is_given_up() -> None:
    with pytest.raises(ProviderUncertain, match="answer too large"):
        charge_answered(http("200 OK", "x" * 2_000_000), order())


def test_the_request_is_sent_once_with_key_and_credentials() -> None:
    request = order()
    with answering(b"", b"") as (url, received):
        client = SandboxClient({"base_url": url + "/", "api_key": "sk_abc", "timeout_seconds": TIMEOUT_SECONDS})
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
    client = SandboxClient({"base_url": f"http://127.0.0.1:{free_port()}", "timeout_seconds": TIMEOUT_SECONDS})
    with pytest.raises(ProviderUnavailable, match="check that it runs"):
        read(client)


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
