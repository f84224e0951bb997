"""Typed errors: a stable code, an HTTP status, a sentence that says what to do next."""

from typing import Any, ClassVar


class RecoveryError(Exception):
    """Base of every error this project raises on purpose.

    `code` is stable and machine-readable, `http_status` what an API answers, `retryable` whether the same call
    may succeed later, `data` the facts (no personal data, no secrets).
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 400
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class NotFound(RecoveryError):
    code = "not_found"
    http_status = 404


class Conflict(RecoveryError):
    """The thing exists but is not in a state in which this is allowed."""

    code = "conflict"
    http_status = 409


class InvalidInput(RecoveryError):
    code = "invalid_input"
    http_status = 400


class LockMissing(RecoveryError):
    """A ledger write was tried without the row lock that protects it: a programming error."""

    code = "lock_missing"
    http_status = 500
