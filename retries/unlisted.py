"""Which decline codes nobody knows: seen in attempts, in no shipped table and in no override of the merchant."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Max

from accounts.models import Merchant
from invoices.models import Attempt
from invoices.states import AttemptStatus
from providers.decline_tables import decline_table, providers_with_codes
from retries.classification.types import newest_overrides, override_key
from retries.models import DeclineOverride

DAYS = 90


@dataclass(frozen=True, slots=True)
class UnlistedCode:
    """`example` is the newest attempt's invoice (public id), `message` what the provider said beside the code."""

    merchant_pk: int
    merchant: str
    provider: str
    code: str
    count: int
    customers: int
    last_at: datetime
    example: str
    message: str


def unlisted_codes(
    merchants: Iterable[Merchant], *, now: datetime, days: int = DAYS, limit: int = 200
) -> Sequence[UnlistedCode]:
    """The codes of the last `days`, most frequent first, at most `limit`."""
    mine = {merchant.pk: merchant for merchant in merchants}
    seen = (
        Attempt.objects.filter(merchant__in=mine, attempted_at__gt=now - timedelta(days=days))
        .filter(status__in=(AttemptStatus.DECLINED, AttemptStatus.ERRORED))
        .exclude(raw_code="")
        .values("merchant_id", "connection__provider", "raw_code")
        .annotate(count=Count("id"), customers=Count("customer", distinct=True), last=Max("id"), at=Max("attempted_at"))
        .order_by("-count", "raw_code")
    )
    rows = [row for row in seen if not _listed(row["connection__provider"], row["raw_code"])]
    overruled = _overruled(mine)
    rows = [
        row
        for row in rows
        if (row["merchant_id"], override_key(row["connection__provider"], row["raw_code"])) not in overruled
    ][:limit]
    newest = Attempt.objects.filter(pk__in=[row["last"] for row in rows])
    examples = {pk: (invoice, text) for pk, invoice, text in newest.values_list("pk", "invoice__public_id", "message")}
    return [
        UnlistedCode(
            merchant_pk=row["merchant_id"],
            merchant=mine[row["merchant_id"]].name,
            provider=row["connection__provider"],
            code=row["raw_code"],
            count=row["count"],
            customers=row["customers"],
            last_at=row["at"],
            example=examples[row["last"]][0],
            message=examples[row["last"]][1],
        )
        for row in rows
    ]


# Names that our own clients give to calls that did not happen; no provider sent them.
_OURS = frozenset({"network_error", "unsent", "rate_limit_exceeded", "authentication_failed", "request_refused"})


def _listed(provider: str, code: str) -> bool:
    if code in _OURS or (provider not in providers_with_codes()):
        return True
    return code in decline_table(provider)


def _overruled(merchants: Iterable[int]) -> set[tuple[int, tuple[str, str]]]:
    found = set()
    for pk in merchants:
        rows = DeclineOverride.objects.filter(merchant=pk)
        found |= {(pk, key) for key in newest_overrides(rows)}
    return found
