"""`run_retries --dry-run`: what a sweep would do with each due job and why, and what holds other due jobs back."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection as database
from django.db import transaction

from accounts.models import GlobalSwitch
from invoices.models import Connection
from invoices.selectors.parties import charging_obstacle
from invoices.states import TransactionKind
from recovery_site.common.money import format_money
from retries.engine.claim import job_claim, jobs_due
from retries.engine.prepare import attempt_refuse_within
from retries.models import Case, RetryJob
from retries.selectors import provider_bar

# The claim that asks the questions is taken back before anybody could see it.
_NO_TIME = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Foresight:
    """One due job: `would` is charge, refund, refuse or wait; `why` says with what, or what is in the way and next."""

    job: str
    invoice: str
    merchant: str
    would: str
    why: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def jobs_explain(*, now: datetime, limit: int) -> list[Foresight]:
    """The due jobs in the order in which a sweep would take them. Each is asked step 2's questions under its locks and
    put back; no provider is asked anything."""
    return [_explain(pk, now) for pk in jobs_due(now=now, limit=limit, rated=False)]


def _explain(job_pk: int, now: datetime) -> Foresight:
    job = RetryJob.objects.select_related("invoice", "merchant", "transaction", "token__card", "connection__gate").get(
        pk=job_pk
    )
    amount = format_money(job.transaction.amount_minor, job.transaction.currency)
    if job.kind == TransactionKind.REFUND:
        return _line(job, "refund", f"give {amount} back")
    bar = provider_bar(job.connection, now)
    if bar is not None:
        return _line(job, "wait", f"{bar[1]}, until {bar[0]:%Y-%m-%d %H:%M}")
    with transaction.atomic():
        claim = job_claim(job_pk, lease=_NO_TIME)
        refused = attempt_refuse_within(claim, now=now) if claim is not None else None
        case = Case.objects.filter(pk=job.case_id or 0).first()
        transaction.set_rollback(True)
    if claim is None:
        return _line(job, "wait", "another worker has taken it")
    if refused is not None:
        then = f" Then: {case.get_next_step_display().lower()}. {case.why}" if case is not None else ""
        return _line(job, "refuse", f"{refused.reason}.{then}")
    return _line(job, "charge", f"{amount} with the {job.token}. {job.why}")


def _line(job: RetryJob, would: str, why: str) -> Foresight:
    return Foresight(job.public_id, job.invoice.public_id, job.merchant.name, would, why)


# Due jobs of one connection, counted no further than people want to know.
_HELD = """
SELECT count(*) FROM (
    SELECT 1 FROM generate_series(0, 9) AS band_number CROSS JOIN LATERAL (
        SELECT 1 FROM retries_retryjob WHERE status = 'SCHEDULED' AND merchant_id = %(merchant)s
          AND connection_id = %(connection)s AND band = band_number AND due_at <= %(now)s LIMIT 1000
    ) one LIMIT 1000
) counted
"""


def lanes_held(*, now: datetime) -> list[dict[str, Any]]:
    """Connections with due jobs that a sweep would pass over: how many (at most 1,000 are counted) and why."""
    held = []
    everybody = GlobalSwitch.objects.filter(charging_enabled=False).first()
    for account in Connection.objects.select_related("gate", "merchant").order_by("pk"):
        bar = provider_bar(account, now)
        why = charging_obstacle(account) or (f"{bar[1]}, until {bar[0]:%Y-%m-%d %H:%M}" if bar else "")
        if everybody is not None:
            why = f"charging is switched off for everybody: {everybody.reason}"
        elif not account.merchant.charging_enabled:
            why = "charging is switched off for the merchant"
        if not why:
            continue
        with database.cursor() as cursor:
            cursor.execute(_HELD, {"merchant": account.merchant_id, "connection": account.pk, "now": now})
            (due,) = cursor.fetchone()
        if due:
            held.append({"connection": account.public_id, "merchant": account.merchant.name, "due": due, "why": why})
    return held
