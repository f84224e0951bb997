"""The live stream through its own process: complete, sealed, resumable, and nobody holds up anybody else."""

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from django.conf import settings as django_settings
from django.contrib.sessions.models import Session
from django.db import connection as database
from django.db import transaction
from django.test import Client as Browser

from accounts.models import ApiAccess, Membership, User
from accounts.services import api_key_create, api_key_revoke, membership_set
from accounts.states import Role
from invoices.models import Event
from invoices.services.outbox import outbox_drain
from recovery_site.common import clock
from tests.contract.sandbox_process import eventually
from tests.support.quiet import quiet
from tests.webhooks.conftest import NewDoor
from tests.webhooks.door import Door
from tests.webhooks.renewal import OLD, Renewal, moment
from tests.webhooks.stream_process import Client, streaming
from webhooks.models import Delivery, InboxEvent
from webhooks.outbound.catalogue import EventType
from webhooks.outbound.endpoints import outbound_endpoint_create
from webhooks.outbound.messages import public_event
from webhooks.services.draining import Effect, InboxCounts, item_apply
from webhooks.stream import reading
from webhooks.stream.access import Access
from webhooks.stream.feeds import Hub, Limits, TooManyReaders
from webhooks.stream.reading import Message, Position, Window, position_from, position_now, window_read

NOW = moment(60)
Environment = dict[str, str]
real = pytest.mark.django_db(transaction=True)


def key_of(door: Door, *scopes: str) -> str:
    return api_key_create(merchant=door.merchant, name="stream", scopes=list(scopes) or ["read"]).text


def fail(door: Door, name: str) -> None:
    door.tell(NOW, Renewal(OLD, name=name, customer=f"cus_{name}", token=f"pm_{name}").charge_failed())


def fail_within(door: Door, name: str) -> None:
    """In the caller's transaction, where no drain begins."""
    door.deliver(Renewal(OLD, name=name, customer=f"cus_{name}", token=f"pm_{name}").charge_failed())
    event = InboxEvent.objects.select_related("endpoint__connection").latest("pk")
    assert item_apply(event, NOW, InboxCounts()) is Effect.MOVED


def public_ids(door: Door) -> list[str]:
    """Of every public event of the merchant, in the order of their transactions."""
    told = [public_event(event) for event in Event.objects.filter(merchant=door.merchant).order_by("pk")]
    return [one.id for one in told if one]


def work_off() -> None:
    """What the worker does: hand the events to their consumers, which wakes the stream."""
    quiet()
    outbox_drain(now=NOW)


# --- complete and resumable -------------------------------------------------------------------------------------------


@real
def test_a_drop_loses_and_doubles_nothing_and_bodies_are_those_of_webhooks(
    process_environment: Environment, door: Door, tmp_path: Path
) -> None:
    outbound_endpoint_create(merchant=door.merchant, url="http://127.0.0.1:9/hooks", event_types=[])
    key = key_of(door)
    with streaming(process_environment, tmp_path) as served:
        first = served.open(key).comment("welcome")
        assert first.answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert first.answer.headers["cache-control"] == "no-store, no-transform"
        assert first.answer.headers["x-accel-buffering"] == "no"
        fail(door, "ann")
        work_off()
        (opened,) = first.events(1)
        first.close()
        fail(door, "ben")
        work_off()
        whole = public_ids(door)
        rest = served.open(key, after=opened.id).events(len(whole) - 1)
        told = [opened, *rest]
        assert [one.data["id"] for one in told] == whole
        assert {one.data["id"]: one.data for one in told} == {
            one.message_id: _document(one) for one in Delivery.objects.filter(merchant=door.merchant)
        }
        names = {one.data["type"]: one.name for one in told}
        assert names == {"case_opened": "case_opened", "retry_scheduled": "payment_retry_notification"}
        # A client that had nothing to hear resumes from its heartbeat; what happens next comes once.
        waiting = served.open(key).comment("heartbeat")
        waiting.close()
        fail(door, "cleo")
        work_off()
        new = public_ids(door)[len(whole) :]
        assert [one.data["id"] for one in served.open(key, after=waiting.last).events(len(new))] == new
    assert ApiAccess.objects.filter(merchant=door.merchant, route="api/v1/stream", status_code=200).count() == 4


@real
def test_a_server_that_is_stopped_ends_its_open_streams(
    process_environment: Environment, door: Door, tmp_path: Path
) -> None:
    key = key_of(door)
    with streaming(process_environment, tmp_path) as served:
        readers = [served.open(key).comment("welcome") for _ in range(3)]
        served.process.terminate()
        served.process.wait(timeout=60)
        for reader in readers:
            # Ended or cut: both make a browser connect again, from the position that it was told last.
            with suppress(requests.RequestException):
                assert not [event for event in reader.blocks() if "data" in event]


def _document(delivery: Delivery) -> Any:
    return json.loads(delivery.body)


@real
@pytest.mark.parametrize("guarded", [False, True], ids=["without the horizon", "with it"])
def test_a_transaction_that_commits_late_is_not_lost(
    door: Door, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """It took its number first and its event is committed last. Without the horizon the reader has gone past it."""
    if not guarded:
        monkeypatch.setattr(reading, "_NEXT", reading._NEXT.replace("AND xid < %(horizon)s::text::xid8", ""))
        monkeypatch.setattr(reading, "position_now", lambda: Position(0, 0))
    quiet()
    start = position_now()
    begun, go_on = threading.Event(), threading.Event()

    def late() -> None:
        try:
            with transaction.atomic():
                with database.cursor() as cursor:
                    cursor.execute("SELECT pg_current_xact_id()")
                begun.set()
                assert go_on.wait(timeout=30)
                fail_within(door, "late")
        finally:
            database.close()

    told: list[str] = []

    def read(position: Position) -> Position:
        window = window_read(door.merchant.pk, position)
        told.extend(message.body for message in window.messages)
        return window.until if guarded else max([position, *(message.position for message in window.messages)])

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(late)
        assert begun.wait(timeout=30)
        fail(door, "early")
        between = read(start)
        assert bool(told) is not guarded
        go_on.set()
        running.result(timeout=60)
    quiet()
    read(between)
    heard = [name for name in ("late", "early") if any(f'"connector_customer_id":"cus_{name}"' in one for one in told)]
    assert heard == (["late", "early"] if guarded else ["early"])
    if guarded:
        assert len(told) == len(set(told)) == len(public_ids(door))


def test_a_position_is_read_as_it_is_written() -> None:
    assert position_from(str(Position(12, 7))) == Position(12, 7)
    assert [position_from(text) for text in ("", "12", "12-", "-1-2", "1-2-3", "\u0661-\u0662", "9" * 20 + "-1")] == [
        None
    ] * 7
    assert Position(2, 1) > Position(1, 99)


# --- sealed -----------------------------------------------------------------------------------------------------------


@real
def test_each_hears_of_its_own_only_and_strangers_of_nothing(
    process_environment: Environment, new_door: NewDoor, tmp_path: Path
) -> None:
    mine, other = new_door(), new_door()
    user = User.objects.create_user("sofia")
    membership_set(user=user, merchant=mine.merchant, role=Role.VIEWER)
    browser = Browser()
    browser.force_login(user)
    cookie = browser.cookies[django_settings.SESSION_COOKIE_NAME].value
    key = key_of(mine)
    with streaming(process_environment, tmp_path, STREAM_CONNECTIONS_PER_MERCHANT="2") as served:

        def get(path: str = "/api/v1/stream", **headers: str) -> requests.Response:
            known = {name.replace("_", "-"): value for name, value in headers.items()}
            return requests.get(f"{served.address}{path}", headers=known, stream=True, timeout=60)

        def page(merchant: str, session: str = cookie) -> requests.Response:
            return get(
                f"/dashboard/stream/?merchant={merchant}", cookie=f"{django_settings.SESSION_COOKIE_NAME}={session}"
            )

        refusals = {
            "no key": (get(), 401, "credentials_invalid"),
            "a wrong key": (get(authorization=f"Bearer {key}x"), 401, "credentials_invalid"),
            "no scope": (get(authorization=f"Bearer {key_of(mine, 'payments')}"), 403, "scope_missing"),
            "another's id": (get(authorization=f"Bearer {key}", last_event_id="evt_1"), 400, "invalid_input"),
            "the future": (get(authorization=f"Bearer {key}", last_event_id=f"{10**18}-1"), 400, "invalid_input"),
            "no session": (page(mine.merchant.public_id, "nonsense"), 401, "credentials_invalid"),
            "another merchant": (page(other.merchant.public_id), 401, "credentials_invalid"),
            "another host": (get(authorization=f"Bearer {key}", host="evil.example"), 400, "invalid_input"),
            "another page": (get("/admin/"), 404, "not_found"),
        }
        for name, (answer, status, code) in refusals.items():
            assert (answer.status_code, answer.json()["code"]) == (status, code), name
            assert answer.headers["content-type"] == "application/problem+json", name

        mine_stream, other_stream = served.open(key), served.open(key_of(other))
        dashboard = Client(page(mine.merchant.public_id))
        full = get(authorization=f"Bearer {key}")
        assert (full.status_code, full.headers["retry-after"]) == (429, "30")
        for one in (mine_stream, other_stream, dashboard):
            one.comment("welcome")
        fail(mine, "ann")
        fail(other, "ben")
        work_off()
        for stream, door in ((mine_stream, mine), (other_stream, other), (dashboard, mine)):
            ids = public_ids(door)
            assert [one.data["id"] for one in stream.events(len(ids))] == ids
            assert stream.comment("heartbeat")

        # A place is free again once somebody has left, a revoked key and a lost membership end what is open.
        mine_stream.close()
        again = eventually(lambda: (found := served.open(key)).answer.status_code == 200 and found, seconds=60)
        api_key_revoke(api_key_pk=mine.merchant.api_keys.get(name="stream", scopes=["read"]).pk, now=clock.now())
        Membership.objects.all().delete()
        assert [block for stream in (again, dashboard) for block in stream.blocks() if "data" in block] == []
        assert get(authorization=f"Bearer {key}").status_code == 401
        assert Session.objects.count() == 1
        assert served.log().count("why=revoked") == 2
        allowed = get(origin=django_settings.PUBLIC_URL).headers
        assert (allowed["access-control-allow-origin"], allowed["access-control-allow-credentials"]) == (
            django_settings.PUBLIC_URL,
            "true",
        )
        assert "access-control-allow-origin" not in get(origin="https://evil.example").headers


# --- many, and slow ones ----------------------------------------------------------------------------------------------

# More than all buffers between the two can hold.
_COPIES = """
INSERT INTO invoices_event (merchant_id, invoice_id, seq, subject_type, subject_id, kind, from_state, to_state, actor,
    cause, data, occurred_at, hash)
SELECT merchant_id, invoice_id, seq + 1000 + n, subject_type, subject_id, kind, from_state, to_state, actor, cause,
    jsonb_build_object('text', repeat('x', 500000)), occurred_at, hash
FROM invoices_event, generate_series(1, 30) n WHERE kind = 'case.opened'
"""


@real
def test_many_listen_over_one_connection_and_a_slow_one_is_dropped(
    process_environment: Environment, door: Door, tmp_path: Path
) -> None:
    key = key_of(door)
    fail(door, "ann")
    with streaming(process_environment, tmp_path) as served:
        with database.cursor() as cursor:
            cursor.execute(_COPIES)
        quiet()
        # It asks for everything and reads nothing: what the kernel and the server hold of it is bounded.
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        place = urlsplit(served.address)
        slow.connect((place.hostname, place.port))
        slow.sendall(
            f"GET /api/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
            "Last-Event-ID: 0-0\r\n\r\n".encode()
        )
        clients = [served.open(key).comment("welcome") for _ in range(20)]
        eventually(lambda: "why=slow" in served.log(), seconds=120)
        slow.close()
        before = len(public_ids(door))
        fail(door, "ben")
        work_off()
        new = public_ids(door)[before:]
        for client in clients:
            assert [one.data["id"] for one in client.events(len(new))] == new
        with database.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'recovery stream' AND query LIKE 'LISTEN%'"
            )
            assert cursor.fetchone() == (1,)


def test_the_web_process_says_where_the_stream_is(settings: Any) -> None:
    for address, words in (
        ("", "proxy in front must send"),
        ("https://live.example", "ask at https://live.example/api/"),
    ):
        settings.STREAM_URL = address
        answer = Browser().get("/api/v1/stream")
        assert (answer.status_code, answer.json()["code"]) == (421, "misdirected")
        assert words in answer.json()["detail"]


def message(number: int) -> Message:
    return Message(Position(1, number), EventType.CASE_OPENED, "{}")


def test_a_reader_that_lags_is_dropped_and_the_others_go_on() -> None:
    async def story() -> None:
        windows = asyncio.Queue[Window]()

        async def read(merchant_pk: int, after: Position) -> Window:
            return await windows.get()

        hub = Hub(read, Limits(readers=2, backlog=3))
        access = Access(7, "mer_7", "key", "abc")
        lagging, swift = hub.admit(access), hub.admit(access)
        with pytest.raises(TooManyReaders):
            hub.admit(access)
        assert hub.join(lagging, Position(0, 0))
        assert hub.join(swift, Position(1, 2))
        heard: list[int] = []
        for number in range(1, 6):
            await windows.put(Window((message(number),), Position(1, number), True))
            if number > 2:
                heard += [one.position.event for one in await swift.next(30)]
        assert heard == [3, 4, 5], "what it had been told before it joined does not come again"
        assert (lagging.ended, await lagging.next(30)) == ("slow", [])
        late = Access(7, "mer_7", "key", "def")
        hub.leave(lagging)
        behind = hub.admit(late)
        assert not hub.join(behind, Position(1, 4)), "the feed has gone past it: it must read on"
        assert hub.join(behind, Position(1, 5))
        hub.leave(behind)
        hub.leave(swift)
        assert hub._feeds == {}

    asyncio.run(story())
