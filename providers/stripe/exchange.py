"""One request to Stripe through its SDK: a reply, or what exactly went wrong, as a value.

Nothing here raises, and no text of the SDK or of Stripe becomes part of a message: those may quote keys and
payers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any

import stripe

from providers.stripe.reading import Node
from providers.stripe.transport import BoundedHTTPClient, NoReply, NotSent

# Names of request errors (ChargeResult.error_code) that are not Stripe's own codes.
NETWORK_ERROR = "network_error"
RATE_LIMITED = "rate_limit_exceeded"
UNAUTHORISED = "authentication_failed"

_MAX_WAIT = timedelta(days=1)


class Fault(StrEnum):
    REFUSED_PAYMENT = "refused_payment"  # asked and declined: HTTP 402
    REFUSED_REQUEST = "refused_request"  # nothing was tried
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"  # the request may have had its effect


@dataclass(frozen=True, slots=True)
class Reply:
    """A 2xx answer that is a JSON object; `record` holds what is worth keeping about the exchange."""

    body: Node
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`reason` completes "Stripe ..." for people; `code` is Stripe's or one of the names above."""

    fault: Fault
    reason: str
    code: str = ""
    status: int | None = None
    request_id: str = ""
    error: Node = field(default_factory=lambda: Node({}, "error"))
    retry_after: timedelta | None = None

    @property
    def record(self) -> dict[str, Any]:
        kept = {name: _safe_code(self.error, name) for name in ("type", "code", "decline_code", "param")}
        known = {"request_id": self.request_id, **kept}
        return {"http_status": self.status, **{name: value for name, value in known.items() if value}}


Answer = Reply | Problem


class Exchange:
    """The SDK's client, pointed at one base URL with one key and, with Connect, one account."""

    def __init__(self, api_key: str, base_url: str, timeout_seconds: float, account: str = "") -> None:
        self._sdk = stripe.StripeClient(
            api_key,
            base_addresses={"api": base_url},
            stripe_account=account or None,
            max_network_retries=0,
            http_client=BoundedHTTPClient(timeout_seconds),
        )

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Answer:
        return self._send("get", path, params or {}, {})

    def post(self, path: str, params: Mapping[str, Any], idempotency_key: str = "") -> Answer:
        """Without a key the SDK makes one up: for writes that may be repeated at will."""
        return self._send("post", path, params, {"idempotency_key": idempotency_key or None})

    def _send(self, method: str, path: str, params: Mapping[str, Any], options: Mapping[str, Any]) -> Answer:
        try:
            response = self._sdk.raw_request(method, path, **params, **options)
        except NotSent as error:
            return Problem(fault=Fault.NOT_SENT, reason=f"could not be reached ({error})", code=NETWORK_ERROR)
        except NoReply as error:
            return Problem(fault=Fault.UNKNOWN, reason=f"sent no whole answer ({error})")
        except stripe.StripeError as error:
            return _problem(error)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # The SDK stumbles over error bodies that are JSON of another shape than Stripe's.
            return Problem(fault=Fault.UNKNOWN, reason=f"sent an answer that is not Stripe's ({type(error).__name__})")
        record: dict[str, Any] = {"http_status": response.code}
        if request_id := _header(response.headers, "request-id"):
            record["request_id"] = request_id[:100]
        if _header(response.headers, "idempotent-replayed") == "true":
            record["replayed"] = True
        if not isinstance(response.data, dict):
            return Problem(fault=Fault.UNKNOWN, reason="sent an answer that is no object", status=response.code)
        return Reply(Node(response.data, str(response.data.get("object", "answer"))[:40]), record)


def _problem(error: stripe.StripeError) -> Problem:
    body = error.json_body.get("error") if isinstance(error.json_body, dict) else None
    node = Node(body if isinstance(body, dict) else {}, "error")
    code = _safe_code(node, "code") or _safe_code(node, "type")
    told: dict[str, Any] = {
        "status": error.http_status,
        "request_id": _header(error.headers, "request-id")[:100],
        "error": node,
    }
    refused = partial(Problem, fault=Fault.REFUSED_REQUEST, **told)
    if isinstance(error, stripe.CardError):
        return Problem(fault=Fault.REFUSED_PAYMENT, reason="declined", code=code, **told)
    if isinstance(error, stripe.RateLimitError):
        # A lock time-out is 429 too, but concerns one object, not the account's rate.
        limit = code if code == "lock_timeout" else RATE_LIMITED
        return refused(reason="is asked too often", code=limit, retry_after=_retry_after(error.headers))
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        reason = "refuses the API key; replace it in the connection's settings"
        return refused(reason=reason, code=UNAUTHORISED)
    if isinstance(error, stripe.InvalidRequestError) and node:
        return refused(reason=f"refused the request ({code or error.http_status})", code=code)
    # Also: another request under the same key is under way (409), or was made with other values (400).
    what = "idempotency_error" if isinstance(error, stripe.IdempotencyError) else code
    detail = ", ".join(part for part in (f"HTTP {error.http_status}" if error.http_status else "", what) if part)
    return Problem(fault=Fault.UNKNOWN, reason=f"gave no usable answer ({detail})", code=what, **told)


def _safe_code(error: Node, name: str) -> str:
    """A code as long as it looks like one; an error body can hold anything."""
    value = error.values.get(name)
    return value if isinstance(value, str) and len(value) <= 100 and value.replace("_", "").isalnum() else ""


def _retry_after(headers: Mapping[str, str] | None) -> timedelta | None:
    value = _header(headers, "retry-after").strip()
    if not (value.isascii() and value.isdigit()) or len(value) > 9:
        return None
    return min(timedelta(seconds=int(value)), _MAX_WAIT)


def _header(headers: Mapping[str, str] | None, name: str) -> str:
    return str((headers or {}).get(name, ""))
