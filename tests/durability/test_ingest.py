"""The web server killed while webhooks come in: what it has acknowledged is there."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import psutil
import pytest
import requests

from tests.webhooks.conftest import door as door
from tests.webhooks.conftest import new_door as new_door
from tests.webhooks.door import Door, encoded, signature
from tests.webhooks.renewal import OLD, Renewal
from tests.webhooks.test_real_server import serving
from webhooks.models import InboxEvent

SENDERS, AT_LEAST = 8, 60
pytestmark = pytest.mark.django_db(transaction=True)


def test_an_acknowledged_webhook_survives_kill_nine(process_environment: dict[str, str], door: Door) -> None:
    numbers, acknowledged = count(), set[str]()
    enough = threading.Event()

    def send(address: str) -> None:
        with requests.Session() as session:
            while True:
                number = next(numbers)
                told = Renewal(OLD, name=f"{number}", customer=f"cus_{number}").charge_failed()
                body = encoded(told)
                try:
                    answer = session.post(
                        f"{address}{door.path}", data=body, headers={"Stripe-Signature": signature(body)}, timeout=30
                    )
                except requests.RequestException:
                    return
                assert answer.status_code == 200
                acknowledged.add(told["id"])
                if len(acknowledged) >= AT_LEAST:
                    enough.set()

    with serving(process_environment) as (address, server), ThreadPoolExecutor(SENDERS) as pool:
        senders = [pool.submit(send, address) for _ in range(SENDERS)]
        assert enough.wait(timeout=60)
        for process in [*psutil.Process(server.pid).children(recursive=True), server]:
            process.kill()
        for sender in senders:
            sender.result(timeout=60)
    stored = set(InboxEvent.objects.values_list("provider_event_id", flat=True))
    assert len(acknowledged) >= AT_LEAST
    assert acknowledged - stored == set()
