"""What must not come in: the right status, one clear log line, and not a row."""

import time
from io import BytesIO
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings

from tests.webhooks.conftest import Lines
from tests.webhooks.door import SECRET, Door, encoded, rows, signature
from tests.webhooks.renewal import OLD, Renewal
from webhooks.models import WebhookEndpoint

pytestmark = pytest.mark.django_db
GOOD = encoded(Renewal(OLD).charge_failed())
DEEP = b'{"id": "evt_1", "type": "charge.failed", "data": {"object": ' + b"[" * 200_000 + b"]" * 200_000 + b"}}"


def assert_refused(
    door: Door, lines: Lines, answer: Any, before: dict[str, int], *, status: int, code: str, reason: str
) -> None:
    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert rows() == before
    (line,) = lines()
    told = {key: line.get(key) for key in ("event", "code", "provider", "endpoint", "level")}
    assert told == {
        "event": "webhook_refused",
        "code": code,
        "provider": "stripe",
        "endpoint": str(door.endpoint.uuid),
        "level": "warning",
    }
    assert reason in line["reason"]
    assert SECRET not in answer.content.decode() + repr(line)


def late(seconds: int) -> str:
    return signature(GOOD, at=time.time() - seconds)


HEADERS = {
    "none at all": "",
    "another secret": signature(GOOD, secret="whsec_another"),
    "another body": signature(GOOD + b" "),
    "the weak test scheme only": signature(GOOD).replace("v1=", "v0="),
    "no time": signature(GOOD).partition(",")[2],
    "no scheme": signature(GOOD).partition(",")[0],
    "nonsense": "\x01,=,t,v1",
    "not ASCII": f"t={int(time.time())},v1=é",
    "a time of 5000 digits": f"t={'9' * 5000},v1=00",
    "a negative time": f"t=-1,v1={'0' * 64}",
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_body_without_a_good_signature_is_refused(door: Door, lines: Lines, case: str) -> None:
    before = rows()
    answer = door.post(GOOD, header=HEADERS[case])
    assert_refused(
        door, lines, answer, before, status=400, code="signature_invalid", reason="check the endpoint's secret"
    )


@pytest.mark.parametrize("seconds", [330, 3600, -330, -3600], ids=["stale", "old", "future", "far future"])
def test_a_signature_that_is_not_of_now_is_refused(door: Door, lines: Lines, seconds: int) -> None:
    before = rows()
    answer = door.post(GOOD, header=late(seconds))
    assert_refused(
        door, lines, answer, before, status=400, code="signature_invalid", reason="check this server's clock"
    )


@pytest.mark.parametrize("seconds", [270, -270])
def test_a_signature_within_the_tolerance_is_accepted(door: Door, seconds: int) -> None:
    assert door.post(GOOD, header=late(seconds)).json() == {"received": True, "new": 1}


BODIES = {
    "empty": (b"", "not JSON"),
    "not JSON": (b"charge.failed", "not JSON"),
    "cut off": (GOOD[:-10], "not JSON"),
    "two objects": (GOOD + GOOD, "not JSON"),
    "a list": (b"[" + GOOD + b"]", "no object"),
    "a text": (b'"charge.failed"', "no object"),
    "null": (b"null", "no object"),
    "nested too deep": (DEEP, "not JSON"),
    "NaN": (b'{"id": "evt_1", "type": "charge.failed", "data": {"object": {"amount": NaN}}}', "not JSON"),
    "a number of 5000 digits": (b'{"id": "evt_1", "type": "x", "data": {"object": {"a": ' + b"9" * 5000 + b"}}}", ""),
    "no event": (b'{"object": "charge", "id": "ch_1"}', "no event"),
    "no data": (b'{"id": "evt_1", "type": "charge.failed"}', "no data.object"),
    "data is a list": (b'{"id": "evt_1", "type": "charge.failed", "data": [1]}', "no data.object"),
    "object is null": (b'{"id": "evt_1", "type": "charge.failed", "data": {"object": null}}', "no data.object"),
    "no id": (b'{"type": "charge.failed", "data": {"object": {}}}', "event's id"),
    "an id of 500 characters": (b'{"id": "%s", "type": "x", "data": {"object": {}}}' % (b"e" * 500), "event's id"),
    "NUL in the id": (b'{"id": "evt\\u0000", "type": "x", "data": {"object": {}}}', "event's id"),
    "half a character in the id": (b'{"id": "evt\\ud800", "type": "x", "data": {"object": {}}}', "event's id"),
    "the id is a number": (b'{"id": 1, "type": "x", "data": {"object": {}}}', "event's id"),
    "no type": (b'{"id": "evt_1", "data": {"object": {}}}', "event's type"),
    "half a character in the type": (b'{"id": "e", "type": "\\udfff", "data": {"object": {}}}', "event's type"),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_signed_body_that_is_no_event_is_refused(door: Door, lines: Lines, case: str) -> None:
    before = rows()
    body, reason = BODIES[case]
    assert_refused(door, lines, door.post(body), before, status=400, code="body_malformed", reason=reason)


@pytest.mark.parametrize("body", [GOOD.replace(b"northwind", b"northw\xefnd"), GOOD.decode().encode("utf-16")])
def test_a_signed_body_that_is_not_utf_8_is_refused(door: Door, lines: Lines, body: bytes) -> None:
    """Stripe's SDK reads the body as UTF-8 before it compares, so for it nobody signed these bytes."""
    before = rows()
    assert_refused(door, lines, door.post(body), before, status=400, code="signature_invalid", reason="No signing")


def chunked(body: bytes) -> dict[str, Any]:
    """What a WSGI server passes on for a chunked request: no length, but an input that ends by itself."""
    return {"CONTENT_LENGTH": "", "wsgi.input_terminated": True, "wsgi.input": BytesIO(body)}


class Endless:
    """A chunked body that never ends, and counts what was taken from it."""

    def __init__(self) -> None:
        self.taken = 0

    def read(self, size: int) -> bytes:
        self.taken += size
        return b"x" * size

    readline = read


def test_a_declared_size_over_the_limit_is_refused_without_reading(door: Door, lines: Lines) -> None:
    before, endless = rows(), Endless()
    over = {"CONTENT_LENGTH": str(settings.WEBHOOK_MAX_BODY_BYTES + 1), "wsgi.input": endless}
    assert_refused(
        door,
        lines,
        door.post(GOOD, environ=over),
        before,
        status=413,
        code="body_too_large",
        reason="larger than",
    )
    assert endless.taken == 0


def test_a_chunked_body_is_read_no_further_than_the_limit(door: Door, lines: Lines) -> None:
    before, endless = rows(), Endless()
    environ = chunked(b"") | {"wsgi.input": endless}
    assert_refused(
        door,
        lines,
        door.post(GOOD, environ=environ),
        before,
        status=413,
        code="body_too_large",
        reason="larger than",
    )
    assert endless.taken == settings.WEBHOOK_MAX_BODY_BYTES + 1


def test_a_chunked_body_is_accepted(door: Door) -> None:
    assert door.post(GOOD, environ=chunked(GOOD)).json() == {"received": True, "new": 1}


def test_a_body_just_within_the_limit_is_accepted(door: Door) -> None:
    body = GOOD + b" " * (settings.WEBHOOK_MAX_BODY_BYTES - len(GOOD))
    assert door.post(body).json() == {"received": True, "new": 1}


@pytest.mark.parametrize("length", ["-1", "abc", "1.5", "²", "9" * 5000, "0x10"])
def test_a_length_that_is_no_number_is_refused(door: Door, lines: Lines, length: str) -> None:
    before = rows()
    answer = door.post(GOOD, environ={"CONTENT_LENGTH": length})
    code, status = ("body_too_large", 413) if length.isascii() and length.isdecimal() else ("body_malformed", 400)
    assert_refused(door, lines, answer, before, status=status, code=code, reason="")


def test_a_body_shorter_than_declared_is_refused(door: Door, lines: Lines) -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise OSError("the client went away")

        readline = read

    before = rows()
    answer = door.post(GOOD, environ={"wsgi.input": Broken()})
    assert_refused(door, lines, answer, before, status=400, code="body_malformed", reason="broke off")


def test_an_unknown_endpoint_does_not_exist(door: Door, lines: Lines) -> None:
    before = rows()
    answer = door.post(GOOD, path=f"/webhooks/stripe/{uuid4()}/")
    assert (answer.status_code, answer.json()["error"], rows()) == (404, "unknown_endpoint", before)
    (line,) = lines()
    assert (line["event"], line["code"]) == ("webhook_refused", "unknown_endpoint")


def test_another_provider_in_the_path_does_not_exist(door: Door, lines: Lines) -> None:
    before = rows()
    for provider in ("generic", "adyen"):
        answer = door.post(GOOD, path=f"/webhooks/{provider}/{door.endpoint.uuid}/")
        assert (answer.status_code, answer.json()["error"], rows()) == (404, "unknown_endpoint", before)
    assert [(line["event"], line["reason"]) for line in lines()] == [
        ("webhook_refused", "This endpoint is for stripe; send there what its address says.")
    ] * 2


def test_a_disabled_endpoint_does_not_exist(door: Door, lines: Lines) -> None:
    WebhookEndpoint.objects.update(enabled=False)
    before = rows()
    answer = door.post(GOOD)
    assert_refused(door, lines, answer, before, status=404, code="unknown_endpoint", reason="switched off")


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete", "head"])
def test_only_post_is_spoken(door: Door, method: str) -> None:
    before = rows()
    answer = getattr(door.client, method)(door.path)
    assert (answer.status_code, answer["Allow"], rows()) == (405, "POST", before)


def test_no_browser_and_no_session_is_needed(door: Door) -> None:
    """The endpoint is for machines: it asks for no CSRF token and sets no cookie."""
    door.client.handler.enforce_csrf_checks = True
    answer = door.post(GOOD)
    assert (answer.status_code, dict(answer.cookies)) == (200, {})
