"""What a request is answered with, refusals included."""

import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from providers.sandbox.server.records import StoredAnswer


class Problem(Exception):
    """A refused request, with the HTTP status and a message that says what to do."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Delivery(Enum):
    NORMAL = auto()
    HOLD = auto()
    RESET = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer and how it is to reach the client, or not."""

    status: int
    body: bytes
    content_type: str = "application/json"
    delivery: Delivery = Delivery.NORMAL
    delay_seconds: float = 0.0
    retry_after_seconds: int | None = None


def encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def error(status: int, code: str, message: str, *, retry_after_seconds: int | None = None) -> Answer:
    body = encode({"error": {"code": code, "message": message}})
    return Answer(status, body, retry_after_seconds=retry_after_seconds)


def stored(answer: StoredAnswer, *, delay_seconds: float = 0.0) -> Answer:
    """The answer kept under an Idempotency-Key: the record as it was then, or a 500."""
    if answer.record is None:
        return error(
            500,
            "internal_error",
            "Told to fail here; look the result up before you send it again.",
        )
    return Answer(200, encode(answer.record.public()), delay_seconds=delay_seconds)
