"""The sandbox provider server over real sockets: charges, tokens, keys and steps."""

import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contract.sandbox_process import SECRET, Psp, all_at_once, eventually, raw_charge, servers

LEDGER_CHARGE = {
    "id", "idempotency_key", "reference", "token", "customer", "amount", "currency", "status", "created_at",
}  # fmt: skip
LEDGER_REFUND = {"id", "idempotency_key", "reference", "charge", "amount", "currency", "status", "created_at"}


@pytest.fixture
def make_psp(tmp_path: Path) -> Iterator[Callable[..., Psp]]:
    with servers(tmp_path) as make:
        yield make


@pytest.fixture
def psp(make_psp: Callable[..., Psp]) -> Psp:
    return make_psp()


@pytest.fixture(scope="module")
def shared_psp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Psp]:
    """One server for tests that leave nothing behind that another could see."""
    with servers(tmp_path_factory.mktemp("shared")) as make:
        yield make()


# Charges and look-ups


def test_a_charge_is_answered_kept_and_found(psp: Psp) -> None:
    order = {"customer": "c1", "reference": "att_1", "metadata": {"invoice": "i1"}}
    charge = psp.charge("tok_ok", key="k1", **order).json()
    assert charge == {
        "id": charge["id"], "status": "succeeded", "amount": 1000, "currency": "EUR", "token": "tok_ok",
        "decline_code": None, "network_code": None, "advice_code": None, "amount_refunded": 0,
        "created_at": charge["created_at"], "card": charge["card"], **order,
    }  # fmt: skip
    assert psp.get(f"/charges/{charge['id']}") == charge
    assert psp.by_reference("att_1") == [charge]
    assert psp.by_reference("att_2") == []
    assert psp.call("GET", "/charges/ch_none").json()["error"]["code"] == "not_found"
    assert psp.call("GET", "/charges/ch_none").status_code == 404


def test_the_ledger_shows_exactly_the_promised_fields(psp: Psp) -> None:
    charge = psp.charge("tok_ok", key="k1", reference="a", customer="c").json()
    refund = psp.refund(charge["id"], 300, key="k2", reference="b").json()
    ledger = psp.get("/ledger")
    assert set(ledger) == {"charges", "refunds"}
    assert ledger["charges"] == [{name: (charge | {"idempotency_key": "k1"})[name] for name in LEDGER_CHARGE}]
    assert ledger["refunds"] == [{name: (refund | {"idempotency_key": "k2"})[name] for name in LEDGER_REFUND}]


def test_created_after_lists_what_came_later_oldest_first(psp: Psp) -> None:
    charges = [psp.charge().json() for _ in range(4)]
    later = psp.get("/charges", created_after=charges[1]["created_at"])["data"]
    assert [charge["id"] for charge in later] == [charge["id"] for charge in charges[2:]]
    assert psp.get("/charges", created_after="2020-01-01T00:00:00+02:00", limit=1)["data"] == charges[:1]
    assert psp.get("/charges", created_after="4102444800")["data"] == []
    assert psp.call("GET", "/charges?created_after=2020-01-01T00:00:00").status_code == 400
    assert psp.call("GET", "/charges?refrence=typo").status_code == 400


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 0}, {"amount": -1}, {"amount": 10.5}, {"amount": "10"}, {"amount": True}, {"amount": None},
        {"currency": "eur"}, {"currency": "EURO"}, {"currency": None}, {"token": ""}, {"token": 7},
        {"metadata": []}, {"reference": 5},
    ],
)  # fmt: skip
def test_a_senseless_charge_is_refused_and_nothing_moves(shared_psp: Psp, change: dict[str, Any]) -> None:
    before = shared_psp.get("/ledger")
    reply = shared_psp.charge(**{"token": "tok_ok", **change})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_request")
    assert shared_psp.get("/ledger") == before


def test_requests_that_cannot_be_read_are_refused(psp: Psp) -> None:
    body = {"amount": 1, "currency": "EUR", "token": "tok_ok"}
    assert psp.call("POST", "/charges", body).json()["error"]["code"] == "idempotency_key_missing"
    assert psp.call("POST", "/charges", body).status_code == 400
    assert psp.call("PUT", "/script", data=b"{").status_code == 400
    assert psp.call("PUT", "/script", data=b"[1]").status_code == 400
    assert psp.call("GET", "/nothing").status_code == 404
    assert psp.call("DELETE", "/charges").status_code == 405
    assert psp.call("PUT", "/webhook", {"url": "ftp://x", "secret": SECRET}).status_code == 400
    assert psp.call("PUT", "/webhook", {"url": "http://x", "secret": "whsec_a"}).status_code == 400
    assert psp.get("/health") == {"status": "ok", "at_work": 0}


# Tokens


@pytest.mark.parametrize(
    ("token", "status", "code", "network_code"),
    [
        ("tok_ok", "succeeded", None, None),
        ("tok_ok__customer_7", "succeeded", None, None),
        ("tok_ok_mc_card_9", "succeeded", None, None),
        ("tok_decline_insufficient_funds", "declined", "insufficient_funds", "51"),
        ("tok_decline_do_not_honor__x", "declined", "do_not_honor", "05"),
        ("tok_decline_expired_card", "declined", "expired_card", "54"),
        ("tok_decline_lost_card_mc", "declined", "lost_card", "41"),
        ("tok_decline_stolen_card_card_7", "declined", "stolen_card", "43"),
        ("tok_decline_generic_decline", "declined", "generic_decline", "05"),
        ("tok_decline_card_declined", "declined", "card_declined", None),
        ("tok_decline_invalid_card_number", "declined", "invalid_card_number", None),
        ("tok_decline_expired_card_then_ok_1", "declined", "expired_card", "54"),
        ("tok_decline_lost_card_then_ok_0", "succeeded", None, None),
        ("tok_unheard_of", "declined", "invalid_token", None),
    ],
)
def test_a_token_name_says_how_its_charge_ends(
    shared_psp: Psp, token: str, status: str, code: str | None, network_code: str | None
) -> None:
    reply = shared_psp.charge(token, reference=token)
    charge = reply.json()
    assert reply.status_code == 200
    assert [charge[name] for name in ("status", "decline_code", "network_code")] == [
        status,
        code,
        network_code,
    ]
    assert [row["status"] for row in shared_psp.by_reference(token)] == [status]


def test_declines_are_counted_per_token(psp: Psp) -> None:
    token = "tok_decline_insufficient_funds_then_ok_2"
    assert psp.statuses(f"{token}__a", 4) == ["declined", "declined", "succeeded", "succeeded"]
    assert psp.statuses(f"{token}__b", 3) == ["declined", "declined", "succeeded"]


def test_a_card_follows_from_the_token_name(psp: Psp) -> None:
    def card(token: str) -> Any:
        return psp.charge(token).json()["card"]

    assert card("tok_ok__a") == card("tok_ok__a")
    assert set(card("tok_ok")) == {"brand", "last4", "fingerprint", "exp_month", "exp_year"}
    assert card("tok_ok__a")["fingerprint"] != card("tok_ok__b")["fingerprint"]
    assert card("tok_ok_card_7") == card("tok_decline_lost_card_card_7") == card("tok_ok__b_card_7")
    assert [card("tok_ok")["brand"], card("tok_ok_mc")["brand"], card("tok_ok__mc_4")["brand"]] == [
        "visa", "mastercard", "mastercard",
    ]  # fmt: skip


# Idempotency


def test_a_key_moves_money_once_and_belongs_to_one_request(psp: Psp) -> None:
    first = psp.charge(key="k", reference="r")
    assert psp.charge(key="k", reference="r").content == first.content
    other_order = {"reference": "r", "token": "tok_ok", "currency": "EUR", "amount": 1000}
    assert psp.post("/charges", other_order, key="k").content == first.content
    reused = psp.charge(key="k", amount=999, reference="r")
    assert (reused.status_code, reused.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert psp.refund(first.json()["id"], 1, key="k").status_code == 422
    assert len(psp.by_reference("r")) == 1
    assert psp.get("/ledger")["refunds"] == []


@pytest.mark.parametrize("steps", [["ok"], ["late:0.3"], ["slow:0.3"]])
def test_fifty_identical_requests_at_once_are_one_charge(psp: Psp, steps: list[str]) -> None:
    psp.put("/script", token="tok_ok", steps=steps)
    replies = all_at_once(50, lambda nth: psp.charge(key="same"))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.content for reply in replies}) == 1
    assert len(psp.get("/ledger")["charges"]) == 1
    all_at_once(50, lambda nth: psp.charge("tok_ok__free", key=f"own-{nth}"))
    assert len(psp.get("/ledger")["charges"]) == 51


def test_a_key_is_forgotten_after_its_lifetime(make_psp: Callable[..., Psp]) -> None:
    psp = make_psp("--key-ttl", "0.5")
    first = psp.charge(key="k").json()
    eventually(lambda: psp.charge(key="k").json()["id"] != first["id"])
    assert len(psp.get("/ledger")["charges"]) == 2


# Steps


def test_a_script_runs_in_order_and_repeats_its_last_step(psp: Psp) -> None:
    psp.put(
        "/script",
        token="tok_decline_lost_card",
        steps=["ok", "decline:insufficient_funds:51:24", "decline:x:05"],
    )
    charges = [psp.charge("tok_decline_lost_card").json() for _ in range(4)]
    names = ("status", "decline_code", "network_code", "advice_code")
    assert [tuple(charge[name] for name in names) for charge in charges] == [
        ("succeeded", None, None, None),
        ("declined", "insufficient_funds", "51", "24"),
        ("declined", "x", "05", None),
        ("declined", "x", "05", None),
    ]
    psp.put("/script", token="tok_decline_lost_card", steps=["pending"])
    assert psp.statuses("tok_decline_lost_card", 1) == ["pending"]
    psp.put("/script", token="tok_decline_lost_card", steps=[])
    assert psp.charge("tok_decline_lost_card").json()["decline_code"] == "lost_card"


def test_a_script_of_the_plain_name_serves_each_suffixed_token_on_its_own(psp: Psp) -> None:
    psp.put("/script", token="tok_ok", steps=["decline:do_not_honor", "ok"])
    psp.put("/script", token="tok_ok__c", steps=["pending"])
    assert psp.statuses("tok_ok__a", 2) == ["declined", "succeeded"]
    assert psp.statuses("tok_ok__b", 2) == ["declined", "succeeded"]
    assert psp.statuses("tok_ok__c", 1) == ["pending"]


@pytest.mark.parametrize("step", ["okay", "ok:1", "decline:", "decline:a:b:c:d", "http429:x", "slow:-1", "slow:61", 5])
def test_an_unknown_step_is_refused(shared_psp: Psp, step: object) -> None:
    reply = shared_psp.call("PUT", "/script", {"token": "tok_ok__steps", "steps": ["pending", step]})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_request")
    assert shared_psp.statuses("tok_ok__steps", 1) == ["succeeded"]


def test_a_pending_charge_is_settled_once(psp: Psp) -> None:
    psp.put("/script", token="tok_ok", steps=["pending"])
    won, lost = psp.charge(key="k").json(), psp.charge().json()
    assert psp.call("POST", f"/charges/{won['id']}/settle", {"status": "maybe"}).status_code == 400
    settled = psp.call("POST", f"/charges/{won['id']}/settle", {"status": "succeeded"}).json()
    assert settled == won | {"status": "succeeded"} == psp.get(f"/charges/{won['id']}")
    psp.call("POST", f"/charges/{lost['id']}/settle", {"status": "declined", "decline_code": "expired_card"})
    assert psp.get(f"/charges/{lost['id']}") == lost | {
        "status": "declined", "decline_code": "expired_card", "network_code": "54",
    }  # fmt: skip
    assert psp.call("POST", f"/charges/{won['id']}/settle", {"status": "declined"}).status_code == 409
    assert psp.call("POST", "/charges/ch_none/settle", {"status": "declined"}).status_code == 404
    assert psp.charge(key="k").json() == won, "the stored answer is the one given then"


def test_http500_is_stored_under_its_key_and_says_nothing_about_the_money(psp: Psp) -> None:
    psp.put("/script", token="tok_ok", steps=["http500_before", "http500_after_charge", "ok"])
    before = psp.charge(key="before", reference="before")
    after = psp.charge(key="after", reference="after")
    assert (before.status_code, after.status_code) == (500, 500)
    assert psp.by_reference("before") == []
    assert [charge["status"] for charge in psp.by_reference("after")] == ["succeeded"]
    assert psp.charge(key="before", reference="before").content == before.content
    assert psp.charge(key="after", reference="after").content == after.content
    assert (psp.by_reference("before"), len(psp.by_reference("after"))) == ([], 1)
    assert psp.statuses("tok_ok", 1) == ["succeeded"], "replays use up no step"


def test_http429_moves_nothing_and_is_not_stored(psp: Psp) -> None:
    psp.put("/script", token="tok_ok", steps=["http429:30", "ok"])
    limited = psp.charge(key="k", reference="r")
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "30")
    assert psp.by_reference("r") == []
    assert psp.charge(key="k", reference="r").json()["status"] == "succeeded"


def test_malformed_moves_money_behind_an_answer_nobody_can_read(psp: Psp) -> None:
    psp.put("/script", token="tok_ok", steps=["malformed"])
    reply = psp.charge(key="k", reference="r")
    assert reply.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        reply.json()
    assert psp.by_reference("r") == [psp.charge(key="k", reference="r").json()]


def test_a_timeout_before_holds_the_request_and_moves_nothing(psp: Psp) -> None:
    psp.put("/script", token="tok_ok", steps=["timeout_before", "ok"])
    with pytest.raises(requests.ReadTimeout):
        psp.charge(key="k", reference="r", timeout=0.3)
    eventually(lambda: '"step":"timeout_before"' in psp.ledger.read_text())
    assert psp.by_reference("r") == []
    assert psp.charge(key="k", reference="r").json()["status"] == "succeeded"
    assert len(psp.by_reference("r")) == 1


def test_a_timeout_after_charge_hides_money_that_moved(psp: Psp) -> None:
    psp.put("/script", token="tok_ok", steps=["timeout_after_charge"])
    with pytest.raises(requests.ReadTimeout):
        psp.charge(key="k", reference="r", timeout=0.3)
    moved = eventually(lambda: psp.by_reference("r"))
    assert moved == [psp.charge(key="k", reference="r").json()] == psp.by_reference("r")


def test_a_reset_after_charge_is_a_real_reset(psp: Psp) -> None:
    psp.put("/script", token="tok_ok", steps=["reset_after_charge"])
    with raw_charge(psp, "k", "r") as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    assert psp.by_reference("r") == [psp.charge(key="k", amount=5, reference="r").json()]


def test_many_held_requests_block_nobody_and_end_in_bounded_time(make_psp: Callable[..., Psp]) -> None:
    psp = make_psp("--hold", "2")
    psp.put("/script", token="tok_ok", steps=["timeout_before"])
    assert psp.process is not None
    held = [raw_charge(psp, f"k{nth}", "held") for nth in range(200)]
    tasks = Path(f"/proc/{psp.process.pid}/task")
    assert psp.statuses("tok_ok_mc", 3) == ["succeeded"] * 3
    eventually(lambda: len(list(tasks.iterdir())) < 20)
    assert [connection.recv(1) for connection in held] == [b""] * 200
    for connection in held:
        connection.close()
    assert psp.by_reference("held") == []


def test_a_held_request_is_let_go_when_its_client_leaves(psp: Psp) -> None:
    assert psp.process is not None
    sockets = Path(f"/proc/{psp.process.pid}/fd")
    psp.put("/script", token="tok_ok", steps=["timeout_after_charge"])
    before = len(list(sockets.iterdir()))
    connection = raw_charge(psp, "k", "r")
    eventually(lambda: psp.by_reference("r"))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    eventually(lambda: len(list(sockets.iterdir())) <= before)


def test_slow_moves_the_money_first_and_answers_late(psp: Psp) -> None:
    psp.put("/script", token="tok_ok", steps=["slow:0.5", "slow:60"])
    start = time.monotonic()
    psp.charge()
    assert time.monotonic() - start >= 0.5
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(psp.charge, key="k", reference="r")
        moved = eventually(lambda: psp.by_reference("r"))
        assert not slow.done()
        assert psp.end(signal.SIGTERM) == 0, "a stop lets requests at work finish"
        assert [slow.result().json()] == moved


def test_late_moves_the_money_last_whether_or_not_the_client_waits(psp: Psp) -> None:
    psp.put("/script", token="tok_ok", steps=["late:0.5", "late:60"])
    with pytest.raises(requests.ReadTimeout):
        psp.charge(key="left", reference="left", timeout=0.2)
    assert eventually(lambda: psp.by_reference("left")) == [psp.charge(key="left", reference="left").json()]
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(psp.charge, key="k", reference="r")
        eventually(lambda: psp.ledger.read_text().count('"step":"late"') == 2)
        assert psp.by_reference("r") == []
        psp.end(signal.SIGTERM)
        assert late.result().status_code == 503
    assert psp.start().by_reference("r") == []
