"""The sandbox provider's API (docs/sandbox_psp.md)."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from providers.base import (
    ChargeRequest,
    ChargeResult,
    ClientTraits,
    Lookup,
    ProviderUnavailable,
    RefundRequest,
    Settles,
)
from providers.sandbox.records import charge_result, refund_result
from providers.wire.api import Parse, ProviderApi, best
from providers.wire.reading import RecordMalformed, parts
from providers.wire.transport import Answer, transport
from recovery_site.common.errors import InvalidInput

DEFAULT_TIMEOUT_SECONDS = 10.0
MAX_TIMEOUT_SECONDS = 120.0
PAGE = 100
# Errors that do not prove that nothing happened: the key is at work or used up.
_UNCERTAIN_CODES = frozenset({"idempotency_key_reused", "in_progress", "key_expired"})


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
        api_key = str(config.get("api_key") or "")
        credentials = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._target = (_base_url(config), credentials, timeout_seconds)

    def check(self) -> str:
        self._api.understood(self._api.read("/charges", {"created_after": datetime.now(UTC).isoformat()}), _data)
        return "The sandbox answers."

    def charge(self, request: ChargeRequest) -> ChargeResult:
        body = {
            "amount": request.amount_minor,
            "currency": request.currency,
            "token": request.token,
            "customer": request.customer or None,
            "reference": request.reference,
            "metadata": dict(request.metadata),
        }
        return self._send(
            "/charges",
            body,
            request.idempotency_key,
            charge_result,
            reference=request.reference,
            token=request.token,
            currency=request.currency,
        )

    def charge_get(self, provider_id: str) -> ChargeResult | None:
        return self._get(f"/charges/{quote(provider_id, safe='')}", charge_result)

    def charge_find(self, reference: str) -> ChargeResult | None:
        return best(self._list("/charges", {"reference": reference}, charge_result))

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

    def script(self, token: str, steps: list[str]) -> None:
        """Tell the sandbox how this token's next charges end. Raises ProviderUnavailable."""
        answer = self._api.write("PUT", "/script", json={"token": token, "steps": steps})
        if not isinstance(answer, Answer) or answer.status != HTTPStatus.OK:
            raise ProviderUnavailable("The sandbox does not take the script now; try again later.")

    def refund(self, request: RefundRequest) -> ChargeResult:
        body = {
            "charge": request.charge_id,
            "amount": request.amount_minor,
            "reason": request.reason or None,
            "reference": request.reference,
        }
        return self._send(
            "/refunds",
            body,
            request.idempotency_key,
            refund_result,
            reference=request.reference,
            payment_id=request.charge_id,
            currency=request.currency,
        )

    def refund_get(self, provider_id: str) -> ChargeResult | None:
        return self._get(f"/refunds/{quote(provider_id, safe='')}", refund_result)

    def refund_find(self, reference: str) -> ChargeResult | None:
        return best(self._list("/refunds", {"reference": reference}, refund_result))

    def _send(
        self, path: str, body: Mapping[str, Any], key: str, parse: Parse[ChargeResult], **expected: str
    ) -> ChargeResult:
        answer = self._api.write("POST", path, json=body, headers={"Idempotency-Key": key})
        if isinstance(answer, ChargeResult):
            return answer
        return self._api.result(answer, parse, **expected, amount_minor=body["amount"])

    def _get(self, path: str, parse: Parse[ChargeResult]) -> ChargeResult | None:
        answer = self._api.read(path)
        return self._api.found(answer, parse, absent="not_found")

    def _list(self, path: str, parameters: Mapping[str, str], parse: Parse[ChargeResult]) -> list[ChargeResult]:
        answer = self._api.read(path, parameters)
        return self._api.understood(answer, lambda page: [parse(record) for record in _data(page)])

    @property
    def _api(self) -> ProviderApi:
        return ProviderApi(
            "The sandbox",
            transport(*self._target, proxied=False),
            _code,
            uncertain_codes=_UNCERTAIN_CODES,
            bare_refusals=True,
            unread_hint="check that it runs and try again",
        )


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


def _code(answer: Answer) -> str:
    error = answer.body.get("error") if answer.body else None
    code = error.get("code") if isinstance(error, dict) else None
    return code[:100] if isinstance(code, str) else ""


def _data(page: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "data" not in page:
        raise RecordMalformed("data")
    return parts(page, "data")
