"""The hash chain of an invoice's events: pure, so that `verify_ledger` recomputes exactly what was written."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Link:
    """The hashed fields of one event. `data` is JSON, `occurred_at` aware."""

    invoice: str
    seq: int
    subject_type: str
    subject_id: str
    kind: str
    from_state: str
    to_state: str
    actor: str
    cause: str
    data: Mapping[str, Any]
    occurred_at: datetime


def link_hash(previous: str, link: Link) -> str:
    """SHA-256 (hex) over the previous hash and the canonical JSON of the link."""
    content = [
        previous,
        link.invoice,
        link.seq,
        link.subject_type,
        link.subject_id,
        link.kind,
        link.from_state,
        link.to_state,
        link.actor,
        link.cause,
        link.data,
        link.occurred_at.astimezone(UTC).isoformat(timespec="microseconds"),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
