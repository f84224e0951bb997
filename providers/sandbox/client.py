"""The sandbox provider's API (docs/sandbox_psp.md)."""

import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from providers.base import (
    ChargeRequest,
    ChargeResult,
    ClientTraits,
    Lookup,
    Outcome,
    ProviderUnavailable,
    ProviderUncertain,
    RefundRequest,
    Settles,
)
from providers.sandbox.records import RecordMalformed, charge_result, refund_result
from providers.sandbox.transport import Answer, Transport, Unanswered, Unsent
from recovery_site.common.errors import InvalidInput
from recovery_site.common.scrubbing import scrub_text

DEFAULT_TIMEOUT_SECONDS = 10.0
MAX_TIMEOUT_SECONDS = 120.0
PAGE = 100
RAW_CHARACTERS = 2048

# Refusals that do not prove that nothing happened: the key is at work or used up, or a gateway gave up.
_UNCERTAIN_STATUS = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT})
_UNCERTAIN_CODES = frozenset({"idempotency_key_reused", "in_progress", "key_expired"})
# If one reference has several records, the one that moved money is the answer.
_MONEY_FIRST = (Outcome.SUCCEEDED, Outcome.AWAITING, Outcome.DECLINED)

Parse = Callable[[Mapping[str, Any]], ChargeResult]


class SandboxClient:
    """Config: `base_url`, optional `api_key` and `timeout_seconds` (default 10, for one whole call)."""

    key_ttl: ClassVar[timedelta] = timedelta(hours=24)

    def __init__(self, config: Mapping[str, Any]) -> None:
        timeout_seconds = _timeout(config)
        self.traits = ClientTraits(
            key_ttl=self.key_ttl,
            lookup=Lookup.AUTHORITATIVE,
            settles=Settles.NOW,
            timeout_seconds=timeout_seconds,
        )
        self._target = (_base_url(config), str(config.get("api_key") or ""), timeout_seconds)

    def charge(self, request: ChargeRequest) -> ChargeResult:
        body = {
            "amount": request.amount_minor,
            "currency": request.currency,
            "token": request.token,
            "customer": request.customer or None,
            "reference": request.reference,
            "metadata": dict(request.metadata),
        }
        expected = {"reference": request.reference, "token": request.token, "currency": request.currency}
        return self._send("/charges", body, request.idempotency_key, charge_result, expected)

    def charge_get(self, provider_id: str) -> ChargeResult | None:
        return self._get(f"/charges/{quote(provider_id, safe='')}", charge_result)

    def charge_find(self, reference: str) -> ChargeResult | None:
        return _best(self._list("/charges", {"reference": reference}, charge_result))

    def charges_list(self, created_after: datetime) -> Iterator[ChargeResult]:
        """Oldest first, read page by page while it is iterated."""
        after = created_after.astimezone(UTC)
        while True:
            parameters = {"created_after": after.isoformat(), "limit": str(PAGE)}
            page = self._list("/charges", parameters, charge_result)
            yield from page
            # The sandbox's times strictly rise, so the last one is where the next page starts.
            if len(page) < PAGE or page[-1].created_at is None:
                return
            after = page[-1].created_at

    def refund(self, request: RefundRequest) -> ChargeResult:
        body = {
            "charge": request.charge_id,
            "amount": request.amount_minor,
            "reason": request.reason or None,
            "reference": request.reference,
        }
        expected = {
            "reference": request.reference,
            "payment_id": request.charge_id,
            "currency": request.currency,
        }
        return self._send("/refunds", body, request.idempotency_key, refund_result, expected)

    def refund_get(self, provider_id: str) -> ChargeResult | None:
        return self._get(f"/refunds/{quote(provider_id, safe='')}", refund_result)

    def refund_find(self, reference: str) -> ChargeResult | None:
        return _best(self._list("/refunds", {"reference": reference}, refund_result))

    @property
    def _http(self) -> Transport:
        return _transport(os.getpid(), *self._target)

    # Writing: what is not surely known is ProviderUncertain.

    def _send(
        self, path: str, body: Mapping[str, Any], key: str, parse: Parse, expected: Mapping[str, str]
    ) -> ChargeResult:
        try:
            answer = self._http.post(path, body, idempotency_key=key)
        except Unsent as error:
            return _errored("network_error", raw={"error": str(error)})
        except Unanswered as error:
            raise _uncertain(f"The sandbox gave no answer ({error})", None) from error
        if _refused(answer):
            return _refusal(answer)
        if answer.status not in (HTTPStatus.OK, HTTPStatus.CREATED) or answer.body is None:
            raise _uncertain(f"The sandbox answered {answer.status} without a result", answer)
        try:
            result = parse(answer.body)
        except RecordMalformed as error:
            raise _uncertain(f"The sandbox answered with an impossible {error}", answer) from error
        wrong = [name for name, value in expected.items() if getattr(result, name) != value]
        if result.amount_minor != body["amount"]:
            wrong.append("amount")
        if wrong:
            raise _uncertain(f"The sandbox answered about another {' and '.join(wrong)}", answer)
        return result

    # Reading: any trouble is ProviderUnavailable, for nothing changed.

    def _get(self, path: str, parse: Parse) -> ChargeResult | None:
        answer = self._read(path, {})
        if answer.status == HTTPStatus.NOT_FOUND and _code(answer) == "not_found":
            return None
        return _parsed(parse, _success(answer), answer)

    def _list(self, path: str, parameters: Mapping[str, str], parse: Parse) -> list[ChargeResult]:
        answer = self._read(path, parameters)
        data = _success(answer).get("data")
        if not isinstance(data, list):
            raise _unreadable("without a list", answer)
        return [_parsed(parse, record, answer) for record in data]

    def _read(self, path: str, parameters: Mapping[str, str]) -> Answer:
        try:
            return self._http.get(path, parameters)
        except (Unsent, Unanswered) as error:
            raise ProviderUnavailable(
                f"The sandbox cannot be read now ({error}); check that it runs and try again."
            ) from error


@lru_cache(maxsize=64)
def _transport(process: int, base_url: str, api_key: str, timeout_seconds: float) -> Transport:
    """Clients come and go, connections are kept; per process, because a fork would share the sockets."""
    return Transport(base_url, api_key=api_key, timeout_seconds=timeout_seconds)


def _timeout(config: Mapping[str, Any]) -> float:
    value = config.get("timeout_seconds", DEFAULT_TIMEOUT_SECONDS)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_TIMEOUT_SECONDS:
        raise InvalidInput(
            f"timeout_seconds of the sandbox connection must be a number above 0, at most {MAX_TIMEOUT_SECONDS:g}."
        )
    return float(value)


def _base_url(config: Mapping[str, Any]) -> str:
    value = config.get("base_url")
    parts = urlsplit(value) if isinstance(value, str) else None
    if not isinstance(value, str) or not parts or parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput("Set base_url of the sandbox connection to its address, such as http://127.0.0.1:8100.")
    return value


def _refused(answer: Answer) -> bool:
    """True for a 4xx that proves that nothing was charged."""
    if not 400 <= answer.status < 500 or answer.status in _UNCERTAIN_STATUS:
        return False
    return _code(answer) not in _UNCERTAIN_CODES


def _refusal(answer: Answer) -> ChargeResult:
    raw = {"status": answer.status, "body": _shown(answer)}
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        wait = answer.retry_after_seconds
        return _errored("rate_limit_exceeded", raw=raw, retry_after=None if wait is None else timedelta(seconds=wait))
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return _errored("authentication_failed", raw=raw)
    return _errored(_code(answer) or f"http_{answer.status}", raw=raw)


def _errored(code: str, *, raw: Mapping[str, Any], retry_after: timedelta | None = None) -> ChargeResult:
    return ChargeResult(outcome=Outcome.ERRORED, error_code=code, retry_after=retry_after, raw=raw)


def _uncertain(what: str, answer: Answer | None) -> ProviderUncertain:
    facts = {"status": answer.status, "body": _shown(answer)} if answer else {}
    return ProviderUncertain(f"{what}; look the payment up before sending anything again.", **facts)


def _shown(answer: Answer) -> str:
    """The answer for the record; scrubbed before it is cut, so that no half of a card number stays."""
    return scrub_text(answer.text[: 4 * RAW_CHARACTERS])[:RAW_CHARACTERS]


def _code(answer: Answer) -> str:
    error = answer.body.get("error") if answer.body else None
    code = error.get("code") if isinstance(error, dict) else None
    return code[:100] if isinstance(code, str) else ""


def _success(answer: Answer) -> Mapping[str, Any]:
    if answer.status != HTTPStatus.OK or answer.body is None:
        raise _unreadable(f"with {answer.status}", answer)
    return answer.body


def _unreadable(how: str, answer: Answer) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"The sandbox answered a look-up {how}; try again later.", status=answer.status, body=_shown(answer)
    )


def _parsed(parse: Parse, record: object, answer: Answer) -> ChargeResult:
    try:
        return parse(record if isinstance(record, dict) else {})
    except RecordMalformed as error:
        raise _unreadable(f"with an impossible {error}", answer) from error


def _best(found: list[ChargeResult]) -> ChargeResult | None:
    return min(found, key=lambda result: _MONEY_FIRST.index(result.outcome), default=None)
