"""The routes: reads requests, refuses what makes no sense, asks the engine."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from standardwebhooks import Webhook

from providers.sandbox.server.answers import Answer, Problem, encode
from providers.sandbox.server.engine import Engine
from providers.sandbox.server.faults import FaultsError, check_rates
from providers.sandbox.server.orders import ChargeOrder, RefundOrder, Settlement, settlement
from providers.sandbox.server.records import DECLINED, FAILED, SUCCEEDED, Charge, Hook, Refund, timestamp
from providers.sandbox.server.steps import StepError, parse_step

MAX_TEXT = 255
_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True)
class Request:
    """`query` holds the last value of each parameter, `body` the parsed JSON object (empty for GET)."""

    method: str
    path: str
    query: Mapping[str, str]
    idempotency_key: str | None
    body: Mapping[str, Any]

    def fingerprint(self) -> str:
        """Equal for requests that mean the same, whatever the order of their fields."""
        text = json.dumps([self.method, self.path, self.body], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Api:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._state = engine.state
        self._routes: tuple[tuple[str, re.Pattern[str], Callable[..., Answer]], ...] = tuple(
            (method, re.compile(path), handler)
            for method, path, handler in (
                ("GET", r"/health", self._health),
                ("POST", r"/charges", self._create_charge),
                ("GET", r"/charges", self._list_charges),
                ("GET", r"/charges/([^/]+)", self._get_charge),
                ("POST", r"/charges/([^/]+)/settle", self._settle_charge),
                ("POST", r"/refunds", self._create_refund),
                ("GET", r"/refunds", self._list_refunds),
                ("GET", r"/refunds/([^/]+)", self._get_refund),
                ("POST", r"/refunds/([^/]+)/settle", self._settle_refund),
                ("PUT", r"/script", self._put_script),
                ("PUT", r"/faults", self._put_faults),
                ("PUT", r"/webhook", self._put_webhook),
                ("GET", r"/ledger", self._get_ledger),
            )
        )

    def dispatch(self, request: Request) -> Answer:
        """Answer a request; raises Problem if it is refused, LedgerError if the ledger cannot be written."""
        allowed: list[str] = []
        for method, path, handler in self._routes:
            if match := path.fullmatch(request.path):
                if method == request.method:
                    return handler(request, *match.groups())
                allowed.append(method)
        if allowed:
            raise Problem(405, "method_not_allowed", f"{request.path} answers {' and '.join(allowed)} only.")
        raise Problem(404, "no_such_route", f"Nothing at {request.path}; docs/sandbox_psp.md lists the routes.")

    def _health(self, request: Request) -> Answer:
        return _ok({"status": "ok", "at_work": self._engine.at_work()})

    def _create_charge(self, request: Request) -> Answer:
        key = _demand_key(request)
        body = request.body
        currency = body.get("currency")
        if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
            raise _bad("currency must be three upper-case letters, as in EUR.")
        metadata = body.get("metadata")
        if metadata is not None and not isinstance(metadata, dict):
            raise _bad("metadata must be an object.")
        order = ChargeOrder(
            amount=_amount(body),
            currency=currency,
            token=_text(body, "token"),
            customer=_optional_text(body, "customer"),
            reference=_optional_text(body, "reference"),
            metadata=metadata or {},
        )
        return self._engine.charge(key, request.fingerprint(), order)

    def _create_refund(self, request: Request) -> Answer:
        key = _demand_key(request)
        order = RefundOrder(
            charge=_text(request.body, "charge"),
            amount=_amount(request.body),
            reason=_optional_text(request.body, "reason"),
            reference=_optional_text(request.body, "reference"),
        )
        return self._engine.refund(key, request.fingerprint(), order)

    def _settle_charge(self, request: Request, charge_id: str) -> Answer:
        return _ok(self._engine.settle_charge(charge_id, _settlement(request.body, DECLINED, "decline_code")))

    def _settle_refund(self, request: Request, refund_id: str) -> Answer:
        return _ok(self._engine.settle_refund(refund_id, _settlement(request.body, FAILED, "failure_code")))

    def _get_charge(self, request: Request, charge_id: str) -> Answer:
        with self._engine.locked():
            charge = self._state.charges.get(charge_id)
            if charge is None:
                raise Problem(404, "not_found", f"There is no charge {charge_id!r}.")
            shown = self._state.public_charge(charge)
        return _ok(shown)

    def _get_refund(self, request: Request, refund_id: str) -> Answer:
        with self._engine.locked():
            refund = self._state.refunds.get(refund_id)
        if refund is None:
            raise Problem(404, "not_found", f"There is no refund {refund_id!r}.")
        return _ok(refund.public())

    def _list_charges(self, request: Request) -> Answer:
        reference, after, limit = _filters(request.query)
        with self._engine.locked():
            found: list[Charge] = self._state.find_charges(reference, after)[:limit]
            data = [self._state.public_charge(charge) for charge in found]
        return _ok({"data": data})

    def _list_refunds(self, request: Request) -> Answer:
        reference, after, limit = _filters(request.query)
        with self._engine.locked():
            found: list[Refund] = self._state.find_refunds(reference, after)[:limit]
        return _ok({"data": [refund.public() for refund in found]})

    def _put_script(self, request: Request) -> Answer:
        token, steps = _text(request.body, "token"), request.body.get("steps")
        if not isinstance(steps, list):
            raise _bad('steps must be a list such as ["decline:lost_card", "ok"]; an empty one ends the script.')
        _check_steps(steps)
        self._engine.set_script(token, steps)
        return _ok({"token": token, "steps": steps})

    def _put_faults(self, request: Request) -> Answer:
        seed = request.body.get("seed", 0)
        if isinstance(seed, bool) or not isinstance(seed, int):
            seed = _text(request.body, "seed")
        try:
            rates = check_rates(request.body.get("rates"))
        except FaultsError as error:
            raise _bad(str(error)) from None
        _check_steps(list(rates))
        self._engine.set_faults(seed, rates)
        return _ok({"seed": seed, "rates": rates})

    def _put_webhook(self, request: Request) -> Answer:
        if request.body.get("url") is None:
            self._engine.set_hook(None)
            return _ok({"url": None})
        url, secret = _text(request.body, "url", limit=2048), _text(request.body, "secret")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise _bad("url must be an http or https address; null switches webhooks off.")
        try:
            Webhook(secret)
        except (ValueError, RuntimeError):
            raise _bad("secret must be base64, with or without the prefix whsec_.") from None
        self._engine.set_hook(Hook(url, secret))
        return _ok({"url": url})

    def _get_ledger(self, request: Request) -> Answer:
        with self._engine.locked():
            charges = self._state.find_charges(None, None)
            refunds = self._state.find_refunds(None, None)
        return _ok(
            {
                "charges": [row.ledger_row() for row in charges],
                "refunds": [row.ledger_row() for row in refunds],
            }
        )


def _ok(body: dict[str, Any]) -> Answer:
    return Answer(200, encode(body))


def _bad(message: str) -> Problem:
    return Problem(400, "invalid_request", message)


def _demand_key(request: Request) -> str:
    key = request.idempotency_key
    if not key or len(key) > MAX_TEXT:
        raise Problem(400, "idempotency_key_missing", f"Send an Idempotency-Key header of 1 to {MAX_TEXT} characters.")
    return key


def _amount(body: Mapping[str, Any]) -> int:
    amount = body.get("amount")
    if isinstance(amount, bool) or not isinstance(amount, int) or amount <= 0:
        raise _bad("amount must be a positive integer of minor units.")
    return amount


def _text(body: Mapping[str, Any], name: str, limit: int = MAX_TEXT) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
        raise _bad(f"{name} must be a string of 1 to {limit} printable characters.")
    return value


def _optional_text(body: Mapping[str, Any], name: str) -> str | None:
    return None if body.get(name) is None else _text(body, name)


def _check_steps(steps: list[Any]) -> None:
    try:
        for step in steps:
            parse_step(step)
    except StepError as error:
        raise _bad(str(error)) from None


def _settlement(body: Mapping[str, Any], bad_end: str, code_field: str) -> Settlement:
    status = body.get("status")
    if status not in (SUCCEEDED, bad_end):
        raise _bad(f"status must be {SUCCEEDED} or {bad_end}.")
    code, network_code, advice_code = (
        _optional_text(body, name) for name in (code_field, "network_code", "advice_code")
    )
    return settlement(status, code, network_code, advice_code)


def _filters(query: Mapping[str, str]) -> tuple[str | None, str | None, int | None]:
    """reference, created_after and limit; a misspelt filter would show everything, so it is refused."""
    for name in query:
        if name not in ("reference", "created_after", "limit"):
            raise _bad(f"Unknown filter {name!r}; use reference, created_after or limit.")
    limit = query.get("limit")
    if limit is not None and not (limit.isascii() and limit.isdigit() and int(limit) > 0):
        raise _bad("limit must be a positive integer.")
    after = query.get("created_after")
    return (
        query.get("reference"),
        _moment(after) if after is not None else None,
        int(limit) if limit else None,
    )


def _moment(text: str) -> str:
    try:
        if text.isascii() and text.isdigit():
            return timestamp(datetime.fromtimestamp(int(text), UTC))
        # An unescaped "+" of a time zone arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        if moment.tzinfo is None:
            raise ValueError("no time zone")
        return timestamp(moment)
    except (ValueError, OverflowError, OSError):
        raise _bad("created_after must be ISO 8601 with a time zone, or whole Unix seconds.") from None
