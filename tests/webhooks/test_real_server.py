"""Through the web server of production: chunked bodies, sizes, the same webhook at several workers at once."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests
from django.conf import settings

from tests.contract.sandbox_process import eventually
from tests.webhooks.door import Door, encoded, signature
from tests.webhooks.renewal import OLD, Renewal
from webhooks.models import InboxEvent

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def served(environment: Mapping[str, str]) -> Iterator[str]:
    """The address of a server with two worker processes on this test's database."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "granian", "--interface", "wsgi", "--no-ws", "--log-level", "warning"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "2", "recovery_site.wsgi:application"),
    ]
    server = subprocess.Popen(
        command,
        cwd=settings.BASE_DIR,
        env={**environment, "LOG_LEVEL": "ERROR"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: _alive(f"{address}/health/live"), seconds=60)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(timeout=20)


def _alive(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def test_the_production_server_takes_what_it_should_and_no_more(
    process_environment: dict[str, str], door: Door
) -> None:
    renewals = [Renewal(OLD, name=f"{number}", customer=f"cus_{number}") for number in range(6)]
    bodies = [encoded(renewal.charge_failed()) for renewal in renewals]
    with served(process_environment) as address:
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
