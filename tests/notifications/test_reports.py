"""Bounces and complaints: read from the mail itself or from a service's JSON, they stop all further mail."""

import io
import json
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from django.core.management import call_command
from django.test import Client
from standardwebhooks import Webhook

from notifications.models import Message, Suppression
from notifications.reports import Report, Told, report_of_json, report_of_mail
from recovery_site.common.errors import InvalidInput
from tests.console.world import kinds
from tests.notifications.post import Post

ID = "msg_" + "0123456789abcdefghjkmnpqrs"


def bounce(message: str = ID, *, action: str = "failed", status: str = "5.1.1", text: str = "Nobody here.") -> bytes:
    return f"""From: MAILER-DAEMON@mx.example.com
To: recovery@localhost
Subject: Undelivered Mail Returned to Sender
Content-Type: multipart/report; report-type=delivery-status; boundary="b"
MIME-Version: 1.0

--b
Content-Type: text/plain

{text}

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.com

Final-Recipient: rfc822; ann@example.com
Action: {action}
Status: {status}
Diagnostic-Code: smtp; 550 no such user

--b
Content-Type: text/rfc822-headers

From: Acme <recovery@localhost>
Message-ID: <{message}@recovery.example>
Subject: x

--b--
""".encode()


COMPLAINT = f"""Content-Type: multipart/report; report-type=feedback-report; boundary="b"
MIME-Version: 1.0

--b
Content-Type: text/plain

Spam!

--b
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: x/1

--b
Content-Type: message/rfc822

From: Acme <recovery@localhost>
Message-ID: <{ID}@recovery.example>
Subject: x

Hello

--b--
""".encode()


@pytest.mark.parametrize(
    ("raw", "report"),
    [
        (bounce(), Report(Told.BOUNCED, ID, "5.1.1")),
        (bounce(action="delayed", status="4.4.1"), None),
        (bounce(action="failed", status="4.4.7"), None),
        (bounce(action="delivered", status="2.0.0"), Report(Told.DELIVERED, ID, "2.0.0")),
        (COMPLAINT, Report(Told.COMPLAINED, ID, "feedback report")),
        # An id that only stands in the text proves nothing.
        (bounce("someone", text=f"<{ID}@recovery.example>"), None),
        (b"Subject: Out of office\n\nI am away.", None),
        (b"", None),
        (b"\xff\xfe\x00 garbage", None),
    ],
)
def test_report_is_read_from_the_returned_mail(raw: bytes, report: Report | None) -> None:
    assert report_of_mail(raw) == report


def test_report_of_a_mail_service() -> None:
    assert report_of_json({"type": "bounced", "message_id": f"<{ID}@x>"}) == Report(
        Told.BOUNCED, ID, "reported by the mail service"
    )
    assert report_of_json({"type": "bounced", "message_id": ID, "permanent": False}) is None
    assert report_of_json({"type": "opened", "message_id": ID}) is None
    with pytest.raises(InvalidInput):
        report_of_json({"type": "bounced", "message_id": "<someone@else>"})
    with pytest.raises(InvalidInput):
        report_of_mail(b"x" * 1_048_577)


@pytest.fixture
def told(db: None) -> tuple[Post, Message]:
    """A world with one message that was sent."""
    world = Post()
    invoice = world.fail(code="expired_card")
    world.know(invoice, timezone="Europe/Berlin")
    world.drain()
    return world, world.message(invoice, "update_card")


def read(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(raw)))
    call_command("mail_report", "--json", stdout=out)
    answer: dict[str, object] = json.loads(out.getvalue())
    return answer


def test_bounce_stops_all_further_mail_to_the_address(
    told: tuple[Post, Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, message = told
    raw = bounce(message.public_id)
    assert read(raw, monkeypatch) == {"message": message.public_id, "told": "bounced", "changed": True}
    assert read(raw, monkeypatch)["changed"] is False
    message = Message.objects.get(pk=message.pk)
    assert (message.status, message.why) == ("BOUNCED", "The mail came back (5.1.1).")
    assert Suppression.objects.get().reason == "bounce"
    assert kinds(message.invoice)[-1] == "message.bounced"
    assert world.drain_after(days=7) == {"waiting": 1, "suppressed": 1}
    assert read(b"Subject: hello\n\n", monkeypatch) == {"message": None, "told": None, "changed": False}


def test_mail_service_reports_with_a_signature(told: tuple[Post, Message], client: Client) -> None:
    message = told[1]
    out = io.StringIO()
    call_command("mail_report", "address", "--merchant", "Acme", "--json", stdout=out)
    made = json.loads(out.getvalue())

    def post(body: bytes, *, secret: str = made["secret"], kind: str = "application/json", url: str = made["url"]):  # type: ignore[no-untyped-def]
        at = datetime.fromtimestamp(int(time.time()), UTC)
        headers = {
            "webhook-id": "evt_1",
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret).sign("evt_1", at, body.decode()),
        }
        return client.post(url, body, content_type=kind, headers=headers)

    def json_of(**body: object) -> bytes:
        return json.dumps({"message_id": f"<{message.public_id}@x>", **body}).encode()

    assert post(json_of(type="delivered")).json() == {"changed": True}
    assert Message.objects.get(pk=message.pk).status == "DELIVERED"
    assert post(json_of(type="delivered")).json() == {"changed": False}
    assert post(json_of(type="complained")).json() == {"changed": True}
    assert Suppression.objects.get().reason == "complaint"
    assert post(bounce(message.public_id), kind="message/rfc822").json() == {"changed": True}
    assert Message.objects.get(pk=message.pk).status == "BOUNCED"
    wrong = "whsec_" + "A" * 32
    assert post(json_of(type="bounced"), secret=wrong).status_code == 400
    assert post(b"[]").status_code == 400
    assert post(json_of(type="bounced"), url="/mail/reports/00000000-0000-0000-0000-000000000000/").status_code == 404
    # Another merchant's address says nothing about this merchant's mail.
    Post(name="Northwind")
    out = io.StringIO()
    call_command("mail_report", "address", "--merchant", "Northwind", "--json", stdout=out)
    theirs = json.loads(out.getvalue())
    assert post(json_of(type="bounced"), **theirs).status_code == 404
