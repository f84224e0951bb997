"""Through the web server of production: chunked bodies, sizes, the same webhook at several workers at once."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import requests
from django.conf import settings

from tests.contract.sandbox_process import eventually
from tests.support.ports import free_port
from tests.webhooks.door import SECRET, Door, encoded, signature
from tests.webhooks.renewal import OLD, Renewal
from webhooks.models import InboxEvent

pytestmark = pytest.mark.django_db(transaction=True)


APPLICATIONS = {
    "asgi": ("--interface", "asgi", "recovery_site.web:application"),
    "wsgi": ("--interface", "wsgi", "recovery_site.wsgi:application"),
}


@contextmanager
def serving(
    environment: Mapping[str, str], interface: str = "asgi", **variables: str
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A server with two worker processes on this test's database: its address and its process."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "granian", "--no-ws", "--log-level", "warning", "--host", "127.0.0.1"),
        *("--port", str(port), "--workers", "2", "--workers-kill-timeout", "5", *APPLICATIONS[interface]),
    ]
    server = subprocess.Popen(
        command,
        cwd=settings.BASE_DIR,
        env={**environment, "LOG_LEVEL": "ERROR", **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: _alive(f"{address}/health/live"), seconds=60)
        yield address, server
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(timeout=20)


@contextmanager
def served(environment: Mapping[str, str], interface: str = "asgi", **variables: str) -> Iterator[str]:
    with serving(environment, interface, **variables) as (address, _):
        yield address


def _alive(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


@pytest.mark.parametrize("interface", APPLICATIONS)
def test_a_real_server_takes_what_it_should_and_no_more(
    process_environment: dict[str, str], door: Door, interface: str
) -> None:
    renewals = [Renewal(OLD, name=f"{number}", customer=f"cus_{number}") for number in range(6)]
    bodies = [encoded(renewal.charge_failed()) for renewal in renewals]
    with served(process_environment, interface) as address:
        where = f"{address}{door.path}"

        def post(body: bytes, *, chunks: bool = False, padding: int = 0) -> tuple[int, int | None]:
            whole = body + b" " * padding
            parts = [whole[start : start + 50_000] for start in range(0, len(whole), 50_000)]
            answer = requests.post(
                where,
                data=iter(parts) if chunks else whole,
                headers={"Stripe-Signature": signature(whole), "Content-Type": "application/json"},
                timeout=30,
            )
            return answer.status_code, answer.json().get("new")

        limit = settings.WEBHOOK_MAX_BODY_BYTES
        assert post(bodies[0]) == (200, 1)
        assert post(bodies[1], chunks=True) == (200, 1)
        assert post(bodies[2], chunks=True, padding=limit - len(bodies[2])) == (200, 1)
        assert post(bodies[3], padding=limit - len(bodies[3]) + 1) == (413, None)
        assert post(bodies[3], chunks=True, padding=limit - len(bodies[3]) + 1) == (413, None)

        together = threading.Barrier(8)

        def at_once(body: bytes) -> tuple[int, int | None]:
            together.wait(timeout=30)
            return post(body)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(at_once, [bodies[4], bodies[5]] * 4))
        assert sorted(answers[0::2]) == sorted(answers[1::2]) == [(200, 0)] * 3 + [(200, 1)]
    assert InboxEvent.objects.count() == 5, "every 200 with something new is a row, and nothing else is"


def connection(address: str) -> socket.socket:
    place = urlsplit(address)
    made = socket.create_connection((place.hostname, place.port))
    made.settimeout(60)
    return made


def test_clients_that_dribble_are_cut_off_and_hold_up_nobody(process_environment: dict[str, str], door: Door) -> None:
    """More of them than there are threads, at the door and at a page; a WSGI server would be full with them."""
    body = encoded(Renewal(OLD).charge_failed())
    head = f"Host: 127.0.0.1\r\nStripe-Signature: {signature(body)}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    variables = {"WEBHOOK_READ_TIMEOUT": "2s", "WEB_READ_TIMEOUT": "2s", "WEB_THREADS": "2"}
    with served(process_environment, **variables) as address:
        slow = []
        for path in [door.path, "/accounts/login/"] * 8:
            slow.append(connection(address))
            slow[-1].sendall(f"POST {path} HTTP/1.1\r\n".encode() + head + body[:100])
        answer = requests.post(f"{address}{door.path}", data=body, headers={"Stripe-Signature": signature(body)})
        assert (answer.status_code, answer.json()) == (200, {"received": True, "new": 1})
        assert requests.get(f"{address}/accounts/login/").status_code == 200
        for one in slow:
            assert one.recv(65_536).startswith(b"HTTP/1.1 408 ")
            while one.recv(65_536):
                pass  # the rest of the answer, then the end
    assert InboxEvent.objects.count() == 1


def test_floods_are_told_to_come_later_and_bad_signatures_lock_nobody_out(
    process_environment: dict[str, str], door: Door, new_door: Callable[[], Door]
) -> None:
    other = new_door()
    bodies = [encoded(Renewal(OLD, name=f"{n}", customer=f"cus_{n}").charge_failed()) for n in range(30)]
    with served(
        process_environment, WEBHOOK_RATE_LIMIT="5", WEBHOOK_BAD_LIMIT="3", WEBHOOK_RATE_WINDOW="1h"
    ) as address:

        def post(number: int, *, secret: str = SECRET, to: Door = door) -> requests.Response:
            signed = signature(bodies[number], secret=secret)
            return requests.post(f"{address}{to.path}", data=bodies[number], headers={"Stripe-Signature": signed})

        bad = [post(0, secret="whsec_wrong") for _ in range(12)]
        assert {answer.status_code for answer in bad} == {400, 429}
        assert sum(answer.status_code == 400 for answer in bad) <= 2 * 3, "each of two processes counts for itself"
        good = [post(number) for number in range(20)]
        accepted = sum(answer.status_code == 200 for answer in good)
        assert 5 <= accepted <= 2 * 5
        late = next(answer for answer in good if answer.status_code == 429)
        assert (late.json()["error"], 0 < int(late.headers["retry-after"]) <= 3600) == ("rate_limited", True)
        assert post(0, to=other).status_code == 200, "limits are per endpoint"
    assert InboxEvent.objects.filter(endpoint=door.endpoint).count() == accepted


def test_the_web_process_serves_pages_and_streams_as_wsgi_does(process_environment: dict[str, str]) -> None:
    with served(process_environment) as address:
        page = requests.get(f"{address}/accounts/login/")
        assert (page.status_code, "Log in" in page.text, "csrftoken" in page.cookies) == (200, True, True)
        style = requests.get(f"{address}/static/css/base.css")
        assert (style.status_code, style.headers["content-type"]) == (200, 'text/css; charset="utf-8"')
        assert requests.head(f"{address}/static/css/base.css").text == ""
        sent = {"username": "nobody", "password": "wrong", "csrfmiddlewaretoken": page.cookies["csrftoken"]}
        refused = requests.post(f"{address}/accounts/login/", data=sent, cookies=page.cookies)
        assert (refused.status_code, "correct username" in refused.text) == (200, True)
        assert requests.get(f"{address}/", allow_redirects=False).headers["location"] == "/accounts/login/"
        assert requests.post(f"{address}/api/v1/payments/process", data=b"{}").json()["status"] == 401
        huge = requests.post(f"{address}/accounts/login/", data=b" " * (17 * 1024 * 1024))
        assert huge.status_code == 413
        assert requests.get(f"{address}/health/live", headers={"Host": "evil.example"}).status_code == 400
