"""What mail systems report about a mail of ours: bounces (RFC 3464), complaints (RFC 5965), or JSON. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from enum import StrEnum
from typing import Any

from recovery_site.common.errors import InvalidInput

# Our Message-ID, wherever a report quotes it.
_OURS = re.compile(r"\b(msg_[0-9a-hjkmnp-tv-z]{26})@")
_MAX_BYTES = 1_048_576
_SERVICE_WORDS = {
    "delivered": "delivered",
    "delivery": "delivered",
    "bounced": "bounced",
    "bounce": "bounced",
    "complained": "complained",
    "complaint": "complained",
    "spam": "complained",
}


class Told(StrEnum):
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    COMPLAINED = "complained"


@dataclass(frozen=True, slots=True)
class Report:
    """`message` is the public id of the mail it is about; `why` the mail system's own status, never its text."""

    told: Told
    message: str
    why: str = ""


def report_of_json(body: Mapping[str, Any]) -> Report | None:
    """`{"type": "bounced" | "delivered" | "complained", "message_id", "permanent"?}`; None for what changes nothing.

    A bounce with `permanent: false` is a delay. Raises InvalidInput for a report about no mail of ours.
    """
    told = _SERVICE_WORDS.get(str(body.get("type", "")).lower())
    found = _OURS.search(f"{body.get('message_id', '')}@")
    if found is None:
        raise InvalidInput("message_id must be the Message-ID of a mail that this service sent.")
    if told is None or (told == Told.BOUNCED and body.get("permanent") is False):
        return None
    return Report(Told(told), found[1], "reported by the mail service")


def report_of_mail(raw: bytes) -> Report | None:
    """A bounce or complaint as it came back by mail; None for a delay, an answer or anything else."""
    if len(raw) > _MAX_BYTES:
        raise InvalidInput("A report has at most 1 MiB.")
    mail = BytesParser(policy=policy.default).parsebytes(raw)
    if mail.get_content_type() != "multipart/report":
        return None
    message = _quoted(mail)
    if not message:
        return None
    if mail.get_param("report-type") == "feedback-report":
        return Report(Told.COMPLAINED, message, "feedback report")
    for fields in _statuses(mail):
        action, status = fields.get("action", "").strip().lower(), fields.get("status", "").strip()
        if action == "failed" and status.startswith("5"):
            return Report(Told.BOUNCED, message, status[:20])
        if action == "delivered":
            return Report(Told.DELIVERED, message, status[:20])
    return None


def _statuses(mail: EmailMessage) -> Iterator[Mapping[str, str]]:
    """The groups of fields of every delivery-status part."""
    for part in mail.walk():
        if part.get_content_type() == "message/delivery-status":
            for group in part.iter_parts() if part.is_multipart() else ():
                yield {name.lower(): str(value) for name, value in group.items()}


def _quoted(mail: EmailMessage) -> str:
    """Our id in the returned headers of the mail; not in its text, which anybody could have written."""
    for part in mail.walk():
        if part.get_content_type() == "message/rfc822" and part.is_multipart():
            for returned in part.iter_parts():
                if found := _OURS.search(str(returned.get("Message-ID", ""))):
                    return found[1]
        elif part.get_content_type() == "text/rfc822-headers":
            headers = BytesParser(policy=policy.default).parsebytes(part.get_content().encode(), headersonly=True)
            if found := _OURS.search(str(headers.get("Message-ID", ""))):
                return found[1]
    return ""
