"""The sandbox provider server over real sockets: refunds, faults, restarts, kill -9 and webhooks."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contract.sandbox_process import (
    ROOT,
    SECRET,
    Psp,
    Receiver,
    all_at_once,
    eventually,
    receivers,
    servers,
)


@pytest.fixture
def make_psp(tmp_path: Path) -> Iterator[Callable[..., Psp]]:
    with servers(tmp_path) as make:
        yield make


@pytest.fixture
def psp(make_psp: Callable[..., Psp]) -> Psp:
    return make_psp()


@pytest.fixture
def make_receiver() -> Iterator[Callable[..., Receiver]]:
    with receivers() as make:
        yield make


# Refunds


def test_refunds_are_idempotent_and_capped(psp: Psp) -> None:
    charge = psp.charge().json()
    refund = psp.refund(charge["id"], 700, key="k", reason="asked", reference="r1").json()
    assert refund == {
        "id": refund["id"], "charge": charge["id"], "amount": 700, "currency": "EUR", "reason": "asked",
        "reference": "r1", "status": "succeeded", "failure_code": None, "created_at": refund["created_at"],
    }  # fmt: skip
    assert psp.refund(charge["id"], 700, key="k", reason="asked", reference="r1").json() == refund
    assert psp.get(f"/refunds/{refund['id']}") == refund
    assert psp.get("/refunds", reference="r1") == {"data": [refund]}
    too_much = psp.refund(charge["id"], 301)
    assert (too_much.status_code, too_much.json()["error"]["code"]) == (422, "refund_exceeds_charge")
    assert "300" in too_much.json()["error"]["message"]
    assert psp.get(f"/charges/{charge['id']}") == charge | {"amount_refunded": 700}
    assert psp.refund("ch_none", 1).status_code == 404
    assert psp.refund(psp.charge("tok_decline_lost_card").json()["id"], 1).status_code == 422
    assert psp.call("GET", "/refunds/re_none").status_code == 404
    assert len(psp.get("/ledger")["refunds"]) == 1


def test_refunds_at_once_never_exceed_the_charge(psp: Psp) -> None:
    charge = psp.charge().json()
    replies = all_at_once(20, lambda nth: psp.refund(charge["id"], 300, key=f"refund-{nth}"))
    assert Counter(reply.status_code for reply in replies) == {200: 3, 422: 17}
    assert sum(row["amount"] for row in psp.get("/ledger")["refunds"]) == 900


def test_refunds_follow_scripts_and_a_failed_one_gives_its_amount_back(psp: Psp) -> None:
    charge = psp.charge().json()
    psp.put(
        "/script",
        token=f"refund:{charge['id']}",
        steps=["pending", "decline:account_closed", "http500_after_charge"],
    )
    pending = psp.refund(charge["id"], 1000).json()
    assert pending["status"] == "pending"
    assert psp.refund(charge["id"], 1).status_code == 422
    failed = psp.call("POST", f"/refunds/{pending['id']}/settle", {"status": "failed", "failure_code": "closed"}).json()
    assert failed == pending | {"status": "failed", "failure_code": "closed"}
    assert psp.get(f"/charges/{charge['id']}")["amount_refunded"] == 0
    refused = psp.refund(charge["id"], 1000).json()
    assert (refused["status"], refused["failure_code"]) == ("failed", "account_closed")
    assert psp.refund(charge["id"], 1000, reference="lost").status_code == 500
    assert [row["status"] for row in psp.get("/refunds", reference="lost")["data"]] == ["succeeded"]
    psp.put("/script", token="refund", steps=["pending"])
    assert psp.refund(psp.charge().json()["id"], 5).json()["status"] == "pending"


# Faults


def fault_pattern(psp: Psp, seed: int) -> list[int]:
    psp.put("/faults", seed=seed, rates={"http500_before": 0.3, "http429:1": 0.2, "http500_after_charge": 0.1})
    return [psp.charge("tok_ok__faulty").status_code for _ in range(60)]


def test_faults_come_out_the_same_for_the_same_seed(psp: Psp, make_psp: Callable[..., Psp]) -> None:
    pattern = fault_pattern(psp, 7)
    assert {200, 429, 500} == set(pattern)
    assert fault_pattern(psp, 7) == pattern
    assert fault_pattern(make_psp(), 7) == pattern
    assert fault_pattern(psp, 8) != pattern
    psp.put("/faults", seed=7, rates={"http500_before": 1.0})
    assert psp.charge().status_code == 500
    psp.put("/faults", seed=7, rates={})
    assert psp.charge().status_code == 200


def test_a_fault_loses_the_reply_but_keeps_what_the_token_name_says(psp: Psp) -> None:
    psp.put("/faults", seed=1, rates={"http500_after_charge": 1})
    assert psp.charge("tok_decline_lost_card", reference="r").status_code == 500
    assert [charge["decline_code"] for charge in psp.by_reference("r")] == ["lost_card"]
    psp.put("/script", token="tok_ok", steps=["ok"])
    assert psp.charge("tok_ok").status_code == 200, "a script comes before faults"


def test_senseless_rates_are_refused(psp: Psp) -> None:
    for rates in (
        {"ok": 1.1},
        {"pending": -0.1},
        {"ok": 0.6, "pending": 0.6},
        {"nonsense": 0.1},
        {"ok": True},
        None,
    ):
        assert psp.call("PUT", "/faults", {"seed": 1, "rates": rates}).status_code == 400, rates
    assert psp.charge().status_code == 200


# Durability


def test_a_restart_keeps_ledger_keys_and_positions(psp: Psp) -> None:
    token = "tok_decline_insufficient_funds_then_ok_2"
    psp.put("/script", token="tok_ok__s", steps=["ok", "pending", "http500_before", "decline:x"])
    pattern = fault_pattern(psp, 7)
    assert len(set(pattern[30:])) == 3
    psp.put("/faults", seed=7, rates={"http500_before": 0.3, "http429:1": 0.2, "http500_after_charge": 0.1})
    first_half = [psp.charge("tok_ok__faulty").status_code for _ in range(30)]
    assert psp.statuses("tok_ok__s", 2) == ["succeeded", "pending"]
    assert psp.charge("tok_ok__s", key="stored").status_code == 500
    before = psp.get("/ledger")
    assert psp.end(signal.SIGTERM) == 0
    psp.start()
    assert psp.get("/ledger") == before
    assert first_half + [psp.charge("tok_ok__faulty").status_code for _ in range(30)] == pattern
    psp.put("/faults", seed=7, rates={})
    assert psp.charge("tok_ok__s", key="stored").status_code == 500
    assert psp.statuses("tok_ok__s", 2) == ["declined", "declined"]
    assert psp.statuses(token, 1) == ["declined"]
    assert psp.end(signal.SIGINT) == 0
    psp.start()
    assert psp.statuses(token, 2) == ["declined", "succeeded"]


def test_kill_9_under_load_forgets_nothing_it_answered(psp: Psp) -> None:
    answered: dict[str, Any] = {}
    sent: list[str] = []

    def work(lane: int) -> None:
        for nth in count():
            key = f"{lane}-{nth}"
            sent.append(key)
            try:
                answered[key] = psp.charge(f"tok_ok__{lane}", key=key, reference=key).json()
            except requests.ConnectionError:
                return

    with ThreadPoolExecutor(8) as pool:
        for lane in range(8):
            pool.submit(work, lane)
        eventually(lambda: len(answered) > 100)
        psp.end(signal.SIGKILL)
    psp.start()
    kept = Counter(row["idempotency_key"] for row in psp.get("/ledger")["charges"])
    assert set(answered) <= set(kept) <= set(sent)
    for key in sent:
        reply = psp.charge(f"tok_ok__{key.split('-')[0]}", key=key, reference=key).json()
        assert answered.get(key, reply) == reply
        assert psp.by_reference(key) == [reply]
    assert len(psp.get("/ledger")["charges"]) == len(sent)


def test_a_torn_last_line_is_cut_off_and_damage_elsewhere_refused(psp: Psp) -> None:
    charge = psp.charge(key="k").json()
    psp.end(signal.SIGKILL)
    whole = psp.ledger.read_bytes()
    psp.ledger.write_bytes(whole + whole[: len(whole) // 2])
    psp.start()
    assert psp.charge(key="k").json() == charge
    psp.charge(key="k2")
    before = psp.get("/ledger")
    assert [row["idempotency_key"] for row in before["charges"]] == ["k", "k2"]
    psp.end(signal.SIGKILL)
    psp.start()
    assert psp.get("/ledger") == before
    psp.end(signal.SIGTERM)
    psp.ledger.write_bytes(b'{"type": broken\n' + psp.ledger.read_bytes())
    assert "damaged in line 1" in psp.refusal()


def test_two_servers_never_share_a_ledger(psp: Psp) -> None:
    assert "in use by another server" in psp.refusal()
    assert psp.charge().status_code == 200


def test_the_server_needs_no_django() -> None:
    code = "import sys, providers.sandbox.server; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=False).returncode == 0


# Webhooks


def test_every_result_is_sent_signed_also_behind_a_lost_reply(psp: Psp, make_receiver: Callable[..., Receiver]) -> None:
    receiver = make_receiver()
    psp.put("/webhook", url=receiver.url, secret=SECRET)
    psp.put(
        "/script",
        token="tok_ok",
        steps=["ok", "http500_after_charge", "pending", "http500_before", "decline:lost_card"],
    )
    references = [f"r{nth}" for nth in range(5)]
    for reference in references:
        psp.charge(reference=reference)
    pending = psp.by_reference("r2")[0]
    psp.call("POST", f"/charges/{pending['id']}/settle", {"status": "declined", "decline_code": "expired_card"})
    psp.refund(psp.by_reference("r0")[0]["id"], 10)
    events = [receiver.next() for _ in range(6)]
    assert [(event["type"], event["data"]["reference"]) for event, _ in events] == [
        ("charge.succeeded", "r0"),
        ("charge.succeeded", "r1"),
        ("charge.pending", "r2"),
        ("charge.declined", "r4"),
        ("charge.declined", "r2"),
        ("refund.succeeded", None),
    ]
    assert all(event["id"] == header for event, header in events)
    assert len({header for _, header in events}) == 6
    assert events[1][0]["data"] == psp.by_reference("r1")[0]
    assert events[4][0]["data"] == psp.by_reference("r2")[0]
    assert events[0][0]["timestamp"] == psp.by_reference("r0")[0]["created_at"]


def test_a_webhook_is_tried_again_under_the_same_id(psp: Psp, make_receiver: Callable[..., Receiver]) -> None:
    receiver = make_receiver(500, 503)
    psp.put("/webhook", url=receiver.url, secret=SECRET)
    psp.charge(reference="r")
    tries = [receiver.next() for _ in range(3)]
    assert len({header for _, header in tries}) == 1
    assert tries[0][0] == tries[1][0] == tries[2][0]
    psp.put("/webhook", url=None)
    psp.charge()
    psp.put("/webhook", url=receiver.url, secret=SECRET)
    psp.charge(reference="last")
    assert receiver.next()[0]["data"]["reference"] == "last"


def test_a_webhook_cut_off_by_kill_9_is_sent_after_the_restart(
    psp: Psp, make_receiver: Callable[..., Receiver]
) -> None:
    receiver = make_receiver(500)
    psp.put("/webhook", url=receiver.url, secret=SECRET)
    psp.charge(reference="r")
    first = receiver.next()
    psp.end(signal.SIGKILL)
    psp.start()
    assert receiver.next() == first
    delivered = f'"type":"delivered","id":"{first[1]}","ok":true'
    eventually(lambda: psp.charge() and delivered in psp.ledger.read_text())
    psp.end(signal.SIGKILL)
    psp.start()
    psp.charge(reference="after")
    seen = [receiver.next() for _ in range(2)]
    while seen[-1][0]["data"]["reference"] != "after":
        seen.append(receiver.next())
    assert first[1] not in [header for _, header in seen]
