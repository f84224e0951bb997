"""An example beside every request and every answer of the OpenAPI document, composed from its schemas.

Names decide what stands there (`currency` is EUR wherever it appears); where a request needs fields that fit together
it is written out below. A test holds every example against its schema.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from accounts.api.problems import CONTENT_TYPE, KINDS, problem

_TAIL: Final = "01m8hp49n0edhsy38r1wgn6pdg"
_AT: Final = "2026-11-20T12:00:00Z"
_OUR_ID = re.compile(r"`([a-z]{3,5})_\.\.\.`")
# Names of related rows, which are told by their public ids.
_RELATED: Final = {
    "invoice": "inv",
    "customer": "cus",
    "connection": "con",
    "gateway": "con",
    "transaction": "txn",
    "refund_of": "txn",
    "duplicate_of": "txn",
    "token": "tok",
    "card": "crd",
    "case": "cas",
    "job": "job",
    "attempt": "att",
    "subject_id": "inv",
}
_BY_NAME: Final[Mapping[str, Any]] = {
    "currency": "EUR",
    "amount": 4990,
    "provider": "stripe",
    "email": "ann@example.com",
    "name": "Ann Example",
    "country": "DE",
    "timezone": "Europe/Berlin",
    "locale": "de",
    "number": "R-1042",
    "description": "Team plan",
    "url": "https://example.com/hooks/payments",
    "reason": "Not enough money; the next try is after payday.",
    "why": "Not enough money; the next try is after payday.",
    "code": "insufficient_funds",
    "decline_code": "insufficient_funds",
    "raw_code": "insufficient_funds",
    "last4": "4242",
    "network": "visa",
    "exp_month": 12,
    "exp_year": 2030,
    "segment": "standard",
    "user_id": "user_7",
    "transaction_id": "order-7",
    "charge_id": "ch_2",
    "payment_intent_id": "pi_7",
    "payment_method_id": "pm_7",
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "actor": "key:4k2m9x7w1q",
    "created_by": "key:4k2m9x7w1q",
    "next": f"https://recovery.example.com/api/v1/invoices?cursor={_TAIL}",
    "next_cursor": _TAIL,
}
_METADATA: Final = {
    "user_id": "user_7",
    "amount": "49.90",
    "currency": "EUR",
    "payment_intent_id": "pi_7",
    "payment_method_id": "pm_7",
    "description": "Team plan",
}
_ERROR: Final = {"code": "insufficient_funds", "message": "Not enough money."}
_WRITTEN: Final[Mapping[str, Any]] = {
    "RetryRequest": {"error": _ERROR, "metadata": _METADATA},
    "ProcessRequest": {"transaction_id": "order-7", "metadata": _METADATA},
    "AttemptReport": {"transaction_id": "order-7", "charge_id": "ch_2", "status": "declined", "error": _ERROR},
    "Reason": {"reason": "The customer asked for it."},
    "RetryNow": {"reason": "The customer has money now."},
    "RefundRequest": {"reason": "Returned goods.", "amount": "10.00"},
    "ConnectionRequest": {"provider": "stripe", "name": "Main account", "config": {"mode": "observe"}},
    "Credentials": {"secrets": {"api_key": "sk_live_..."}},
    "InboundRequest": {"provider": "stripe", "secret": "whsec_..."},
    "InboundSecret": {"secret": "whsec_..."},
    "OutboundRequest": {"url": "https://example.com/hooks/payments", "event_types": ["retry_scheduled"]},
    "OverrideRequest": {"provider": "stripe", "code": "odd_code", "category": "HARD_DECLINE"},
    "PolicyRequest": {"document": {"segments": [], "policies": {}}, "note": "See retries/policy.schema.json."},
}


def add_examples(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A drf-spectacular hook that runs after all others."""
    components = result.get("components", {}).get("schemas", {})
    for methods in result.get("paths", {}).values():
        for operation in methods.values():
            for media in operation.get("requestBody", {}).get("content", {}).values():
                media["example"] = _example(media["schema"], components)
            for status, answer in operation.get("responses", {}).items():
                for kind, media in answer.get("content", {}).items():
                    media["example"] = (
                        _problem(status) if kind == CONTENT_TYPE else _example(media["schema"], components)
                    )
    return result


def _problem(status: str) -> dict[str, Any]:
    kind = next(one for one in KINDS.values() if one.status == int(status))
    body = problem(kind.code, kind.status, f"{kind.title}.", instance="/api/v1/invoices")
    body["request_id"] = "5d1a0f6e-7c1b-4f0e-9d0a-2f4c1e7b8a90"
    if kind.code == "validation_failed" or status == "400":
        body["errors"] = [{"field": "metadata.amount", "code": "float_amount", "message": "This is not an amount."}]
    return body


def _example(schema: Mapping[str, Any], components: Mapping[str, Any], name: str = "") -> Any:
    if "$ref" in schema:
        component = schema["$ref"].rpartition("/")[2]
        return _WRITTEN.get(component) or _example(components[component], components, name)
    for key in ("allOf", "oneOf", "anyOf"):
        if key in schema:
            return _example(next(one for one in schema[key] if one.get("type") != "null"), components, name)
    if "enum" in schema:
        return next(one for one in schema["enum"] if one not in ("", None))
    kinds = schema.get("type", "object")
    kind = next(one for one in ([kinds] if isinstance(kinds, str) else kinds) if one != "null")
    if kind == "object":
        return _object(schema, components)
    if kind == "array":
        return [_example(schema["items"], components, name)]
    return _plain(kind, schema, name)


def _object(schema: Mapping[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties", {})
    if properties:
        return {name: _example(inner, components, name) for name, inner in properties.items()}
    inner = schema.get("additionalProperties")
    return {"EUR": _example(inner, components, "amount")} if isinstance(inner, dict) and inner else {}


def _plain(kind: str, schema: Mapping[str, Any], name: str) -> Any:
    if kind == "boolean":
        return True
    if kind in ("integer", "number"):
        known = _BY_NAME.get(name)
        number = known if isinstance(known, int) else 4990 if name.endswith("_minor") else 1
        return min(number, schema.get("maximum", number))
    by_format = {"date-time": _AT, "date": _AT[:10], "uuid": "0b5a5d3c-6d7e-4f20-9a51-3c2f7f0f6a11"}
    if schema.get("format") in by_format:
        return by_format[schema["format"]]
    if ours := _OUR_ID.search(schema.get("description", "")):
        return f"{ours[1]}_{_TAIL}"
    if name in _RELATED:
        return f"{_RELATED[name]}_{_TAIL}"
    known = _BY_NAME.get(name, name if name and not name.endswith("_at") else _AT)
    return known if isinstance(known, str) else str(name)
