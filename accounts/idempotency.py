"""What a POST answered, kept under the caller's Idempotency-Key (per merchant).

Three things make it safe. A session lock of PostgreSQL says "in flight": it ends with the connection, so a process that
died holds nothing. The row, the effect and the answer are written in one transaction wherever the effect is only
the database: after a crash there are all or none. Where a provider is called, the row is committed first, and a row
without an answer is run again: what it does is then found in the ledger, under the same names.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now
from rest_framework.exceptions import APIException

from accounts.models import IdempotencyRecord, Merchant
from recovery_site.common.crypto import decrypt_json, encrypt_json
from recovery_site.common.errors import RecoveryError


class IdempotencyInFlight(RecoveryError):
    code = "idempotency_in_flight"
    http_status = 409
    retryable = True


class IdempotencyMismatch(RecoveryError):
    code = "idempotency_key_reused"
    http_status = 422


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent and what is kept. `headers` are those that belong to the answer itself."""

    status_code: int
    body: Any
    headers: Mapping[str, str]
    replayed: bool = False


def run_once(
    *, merchant: Merchant, key: str, fingerprint: str, work: Callable[[], Answer], calls_out: bool = False
) -> Answer:
    """Run `work` unless this key has an answer already: then that one. Kept are answers of calls that did something.

    `calls_out`: the work calls a provider, so it cannot run inside one transaction. A refusal (an exception) changes
    nothing and keeps nothing. Raises IdempotencyInFlight, IdempotencyMismatch.
    """
    keep = settings.IDEMPOTENCY_RETENTION
    with _alone(merchant, key):
        found = IdempotencyRecord.objects.filter(merchant=merchant, key=key, created_at__gt=Now() - keep).first()
        if found is not None and found.fingerprint != fingerprint:
            raise IdempotencyMismatch(
                "This Idempotency-Key was used for another request: send a new key with every new request."
            )
        if found is not None and found.status_code is not None:
            kept = decrypt_json(found.answer_encrypted)
            return Answer(found.status_code, json.loads(kept["body"]), kept["headers"], replayed=True)
        if calls_out:
            record = found or _insert(merchant, key, fingerprint)
            answer = _run_or_forget(record, work)
            _store(record, answer)
            return answer
        with transaction.atomic():
            record = found or _insert(merchant, key, fingerprint)
            answer = work()
            _store(record, answer)
        return answer


def _run_or_forget(record: IdempotencyRecord, work: Callable[[], Answer]) -> Answer:
    try:
        return work()
    except (RecoveryError, APIException):
        record.delete()  # refused: nothing was done, so the same key may be sent again
        raise


def _insert(merchant: Merchant, key: str, fingerprint: str) -> IdempotencyRecord:
    # One whose time is over may be there until the next purge.
    IdempotencyRecord.objects.filter(merchant=merchant, key=key).delete()
    return IdempotencyRecord.objects.create(merchant=merchant, key=key, fingerprint=fingerprint)


def _store(record: IdempotencyRecord, answer: Answer) -> None:
    record.status_code = answer.status_code
    # As text, so that a replay is the same to the byte.
    kept = {"body": json.dumps(answer.body), "headers": dict(answer.headers)}
    record.answer_encrypted = encrypt_json(kept)
    record.save(update_fields=["status_code", "answer_encrypted"])


@contextmanager
def _alone(merchant: Merchant, key: str) -> Iterator[None]:
    """Hold the key's lock on this connection, or raise IdempotencyInFlight."""
    name = int.from_bytes(hashlib.sha256(f"{merchant.pk}:{key}".encode()).digest()[:8], signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [name])
        if not cursor.fetchone()[0]:
            raise IdempotencyInFlight("A request with this Idempotency-Key is running: wait a moment, then ask again.")
    try:
        yield
    finally:
        # A connection that broke meanwhile has given its locks back.
        with suppress(DatabaseError), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [name])
