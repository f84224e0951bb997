"""What the inbound door answers, on both roads to it."""

from collections.abc import Mapping
from typing import Any

import structlog

from recovery_site.common.errors import NotFound, RecoveryError

log = structlog.get_logger()


class BodyTooLarge(RecoveryError):
    code = "body_too_large"
    http_status = 413


class BodyTooSlow(RecoveryError):
    code = "body_too_slow"
    http_status = 408


class EndpointUnknown(NotFound):
    code = "unknown_endpoint"


class TooMany(RecoveryError):
    code = "rate_limited"
    http_status = 429
    retryable = True


class Busy(RecoveryError):
    code = "busy"
    http_status = 503
    retryable = True


def accepted(new: int, where: Mapping[str, str]) -> dict[str, Any]:
    log.info("webhook_received", **where, new_items=new)
    return {"received": True, "new": new}


def refused(error: RecoveryError, where: Mapping[str, str]) -> dict[str, Any]:
    """The answer and the one log line. The reason stands in the log only: it helps operators, and attackers too."""
    if not error.data.get("unlogged"):
        note = log.error if error.http_status >= 500 else log.warning
        note("webhook_refused", **where, code=error.code, reason=error.message)
    advice = "Try again later." if error.http_status >= 500 or error.http_status == 429 else _ADVICE
    return {"error": error.code, "message": f"The webhook was not accepted. {advice}"}


_ADVICE = "Check its address, signature and body."
