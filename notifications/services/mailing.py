"""Handing a mail to the mail system, and what can be known afterwards."""

import smtplib
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formataddr, parseaddr
from enum import StrEnum
from typing import Any, Self
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend

from recovery_site.common.scrubbing import scrub_text


class Passage(StrEnum):
    """What became of a mail that was handed over."""

    SENT = "sent"
    UNSENT = "unsent"  # provably: may be tried again
    REFUSED = "refused"  # for good, but not for the address
    NO_SUCH_ADDRESS = "no_such_address"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Result:
    passage: Passage
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """`id` becomes the Message-ID, by which a bounce names the mail."""

    id: str
    to: str
    subject: str
    text: str
    html: str
    sender_name: str
    reply_to: str
    unsubscribe_url: str

    def headers(self) -> Mapping[str, str]:
        """Those of a machine that can be told to stop with one click (RFC 2369, 3834, 8058)."""
        return {
            "Message-ID": mail_id(self.id),
            "List-Unsubscribe": f"<{self.unsubscribe_url}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            "Auto-Submitted": "auto-generated",
            "X-Auto-Response-Suppress": "All",
        }


def mail_id(public_id: str) -> str:
    """The Message-ID of a message of ours."""
    return f"<{public_id}@{urlsplit(settings.PUBLIC_URL).hostname}>"


@dataclass
class Postman:
    """One connection to the mail system for as many mails as one has; opened with the first, closed at the end."""

    _connection: BaseEmailBackend | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def hand_over(self, mail: Mail) -> Result:
        """Send one mail. What fails before the server was spoken to about it is surely unsent."""
        try:
            connection = self._open()
        except (smtplib.SMTPException, OSError) as error:
            return Result(Passage.UNSENT, _words(error))
        message = EmailMultiAlternatives(
            mail.subject,
            mail.text,
            formataddr((mail.sender_name, parseaddr(settings.DEFAULT_FROM_EMAIL)[1])),
            [mail.to],
            connection=connection,
            headers=dict(mail.headers()),
            reply_to=[mail.reply_to] if mail.reply_to else None,
        )
        message.attach_alternative(mail.html, "text/html")
        try:
            message.send()
        except (smtplib.SMTPException, OSError, ValueError) as error:
            self._close()
            return Result(passage_of(error), _words(error))
        return Result(Passage.SENT)

    def _open(self) -> BaseEmailBackend:
        if self._connection is None:
            connection = get_connection()
            connection.open()
            self._connection = connection
        return self._connection

    def _close(self) -> None:
        """The mail system may have hung up already; that changes nothing about what was sent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except (smtplib.SMTPException, OSError):
                return


def passage_of(error: Exception) -> Passage:
    """What an error of the mail system proves. An answer with a code is definite, silence is not (RFC 5321 4.2.1)."""
    match error:
        case smtplib.SMTPRecipientsRefused(recipients=refused):
            codes = [int(code) for code, _ in refused.values()]
            return Passage.NO_SUCH_ADDRESS if codes and all(500 <= code < 600 for code in codes) else Passage.UNSENT
        case smtplib.SMTPNotSupportedError():
            return Passage.REFUSED
        case smtplib.SMTPResponseException(smtp_code=code):
            return Passage.REFUSED if 500 <= int(code) < 600 else Passage.UNSENT
        case ValueError():  # an address or header that cannot be written
            return Passage.REFUSED
        case _:
            return Passage.UNKNOWN


def _words(error: Any) -> str:
    return scrub_text(f"{type(error).__name__}: {error}")[:500]
