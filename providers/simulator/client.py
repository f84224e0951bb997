"""A provider inside this process for the demo and for quick tests: no network, any clock, same answers."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from providers.base import (
    ChargeRequest,
    ChargeResult,
    ClientTraits,
    DeclineFacts,
    Lookup,
    Outcome,
    ProviderUnavailable,
    ProviderUncertain,
    RefundRequest,
    Settles,
)
from providers.simulator import issuer
from providers.simulator.ledger import ChargeRow, Ledger, RefundRow
from recovery_site.common.errors import InvalidInput

LEDGER_NAME = "simulator.sqlite3"
SUCCEEDED, DECLINED = "succeeded", "declined"
AUTHENTICATION_REQUIRED = "authentication_required"
Row = TypeVar("Row")


class SimulatorClient:
    """Config: optional `ledger`, the path of its file (default: in the data directory).

    A charge happens at `metadata["at"]`, an ISO time with offset, so that it lives on the caller's clock;
    without it on the system's. A key is remembered for good, longer than `key_ttl` promises.
    """

    traits: ClassVar[ClientTraits] = ClientTraits(
        key_ttl=timedelta(hours=24), lookup=Lookup.AUTHORITATIVE, settles=Settles.NOW, timeout_seconds=5.0
    )

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._ledger = simulator_ledger(config)

    def check(self) -> str:
        _reading(lambda: self._ledger.charge_of_id("ch_none"))
        return "The simulator's ledger can be read."

    def charge(self, request: ChargeRequest) -> ChargeResult:
        at = _instant(request.metadata.get("at"))
        if at is None:
            return _errored("invalid_request", "metadata.at must be an ISO 8601 time with an offset.")
        if request.amount_minor <= 0 or not request.idempotency_key:
            return _errored("invalid_request", "A charge needs a positive amount and an idempotency key.")
        row = _writing(lambda: self._charge(request, at))
        same = (row.reference, row.token, row.amount, row.currency)
        if same != (request.reference, request.token, request.amount_minor, request.currency):
            raise ProviderUncertain("This idempotency key was used for another charge; look that one up.")
        return _charge_result(row)

    def charge_get(self, provider_id: str) -> ChargeResult | None:
        return _found(_reading(lambda: self._ledger.charge_of_id(provider_id)), _charge_result)

    def charge_find(self, reference: str) -> ChargeResult | None:
        return _found(_reading(lambda: self._ledger.charge_of_reference(reference)), _charge_result)

    def charges_list(self, created_after: datetime) -> Iterator[ChargeResult]:
        rows = _reading(lambda: self._ledger.charges_after(_timestamp(created_after)))
        return (_charge_result(row) for row in rows)

    def refund(self, request: RefundRequest) -> ChargeResult:
        """Refunds succeed at once, up to what the charge has left."""
        if request.amount_minor <= 0 or not request.idempotency_key:
            return _errored("invalid_request", "A refund needs a positive amount and an idempotency key.")
        row = _writing(lambda: self._refund(request))
        if isinstance(row, str):
            return _errored(row, "The charge is unknown, did not succeed or has less left.")
        if (row.reference, row.charge, row.amount) != (
            request.reference,
            request.charge_id,
            request.amount_minor,
        ):
            raise ProviderUncertain("This idempotency key was used for another refund; look that one up.")
        return _refund_result(row)

    def refund_get(self, provider_id: str) -> ChargeResult | None:
        return _found(_reading(lambda: self._ledger.refund_of_id(provider_id)), _refund_result)

    def refund_find(self, reference: str) -> ChargeResult | None:
        return _found(_reading(lambda: self._ledger.refund_of_reference(reference)), _refund_result)

    def _charge(self, request: ChargeRequest, at: datetime) -> ChargeRow:
        if issuer.is_random(request.token):
            # Depends on nothing that others write, so two equal requests may both try to add the same row.
            return self._ledger.charge_add(self._decided(request, at, declines_so_far=0))
        with self._ledger.alone():
            known = self._ledger.charge_of_key(request.idempotency_key)
            if known is not None:
                return known
            declines = self._ledger.declines(request.token)
            return self._ledger.charge_add(self._decided(request, at, declines_so_far=declines))

    def _decided(self, request: ChargeRequest, at: datetime, *, declines_so_far: int) -> ChargeRow:
        """The issuer's answer; what only wanted the payer's confirmation goes through once that was given."""
        row = _charge_row(request, at, declines_so_far=declines_so_far)
        if row.raw_code == AUTHENTICATION_REQUIRED and self._ledger.confirmed(request.token):
            return replace(row, status=SUCCEEDED, raw_code="", network_code="", advice_code="")
        return row

    def _refund(self, request: RefundRequest) -> RefundRow | str:
        """The refund that counts, or an error code."""
        with self._ledger.alone():
            known = self._ledger.refund_of_key(request.idempotency_key)
            if known is not None:
                return known
            charge = self._ledger.charge_of_id(request.charge_id)
            if charge is None:
                return "not_found"
            if charge.status != SUCCEEDED or charge.currency != request.currency:
                return "not_refundable"
            if request.amount_minor > charge.amount - self._ledger.refunded(charge.id):
                return "refund_exceeds_charge"
            row = RefundRow(
                key=request.idempotency_key,
                id=_id("re", request.idempotency_key),
                reference=request.reference,
                charge=charge.id,
                amount=request.amount_minor,
                currency=charge.currency,
            )
            return self._ledger.refund_add(row)


def simulator_ledger(config: Mapping[str, Any]) -> Ledger:
    """The ledger of a connection, by its config."""
    return _ledger(_ledger_path(config))


@lru_cache(maxsize=64)
def _ledger(path: Path) -> Ledger:
    """One per file and process, so that clients made for one charge each share the connections."""
    return Ledger(path)


def _ledger_path(config: Mapping[str, Any]) -> Path:
    told = config.get("ledger")
    if told:
        if not isinstance(told, str | Path):
            raise InvalidInput("ledger of the simulator connection must be the path of a file.")
        return Path(told)
    try:
        folder: str | Path = settings.DATA_DIR
    except (AttributeError, ImproperlyConfigured):
        folder = ".data"
    return Path(folder) / LEDGER_NAME


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return datetime.now(UTC)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo else None


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _id(prefix: str, key: str) -> str:
    return f"{prefix}_sim_{hashlib.blake2b(key.encode(), digest_size=12).hexdigest()}"


def _charge_row(request: ChargeRequest, at: datetime, *, declines_so_far: int) -> ChargeRow:
    verdict = issuer.decide(request.token, at, request.reference, declines_so_far)
    decline = verdict.decline or DeclineFacts()
    return ChargeRow(
        key=request.idempotency_key,
        id=_id("ch", request.idempotency_key),
        reference=request.reference,
        token=request.token,
        customer=request.customer,
        amount=request.amount_minor,
        currency=request.currency,
        status=SUCCEEDED if verdict.approved else DECLINED,
        raw_code=decline.raw_code,
        network_code=decline.network_code,
        advice_code=decline.advice_code,
        created_at=_timestamp(at),
    )


def _charge_result(row: ChargeRow) -> ChargeResult:
    created_at = datetime.fromisoformat(row.created_at)
    decline = DeclineFacts(raw_code=row.raw_code, network_code=row.network_code, advice_code=row.advice_code)
    return ChargeResult(
        outcome=Outcome.SUCCEEDED if row.status == SUCCEEDED else Outcome.DECLINED,
        provider_id=row.id,
        amount_minor=row.amount,
        currency=row.currency,
        token=row.token,
        reference=row.reference,
        decline=None if row.status == SUCCEEDED else decline,
        card=issuer.card_of(row.token, created_at),
        created_at=created_at,
        raw={"id": row.id, "status": row.status, "code": row.raw_code},
    )


def _refund_result(row: RefundRow) -> ChargeResult:
    """`payment_id` is the charge that is refunded; refunds have no time, for their requests carry none."""
    return ChargeResult(
        outcome=Outcome.SUCCEEDED,
        provider_id=row.id,
        payment_id=row.charge,
        amount_minor=row.amount,
        currency=row.currency,
        reference=row.reference,
        raw={"id": row.id, "status": SUCCEEDED},
    )


def _errored(code: str, why: str) -> ChargeResult:
    return ChargeResult(outcome=Outcome.ERRORED, error_code=code, raw={"error": why})


def _found(row: Row | None, result: Callable[[Row], ChargeResult]) -> ChargeResult | None:
    return None if row is None else result(row)


def _writing(write: Callable[[], Row]) -> Row:
    try:
        return write()
    except (sqlite3.Error, OSError) as error:
        raise ProviderUncertain(f"The simulator's ledger failed ({type(error).__name__}); try later.") from error


def _reading(read: Callable[[], Row]) -> Row:
    try:
        return read()
    except (sqlite3.Error, OSError) as error:
        raise ProviderUnavailable(
            f"The simulator's ledger cannot be read ({type(error).__name__}); try later."
        ) from error
