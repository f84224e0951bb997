"""Before a billing system is asked about a charge: is there any point in asking?

Asking costs calls to its API and, the first time, switches its own collection off. Redis says in one round trip
whether the customer's slot or the token's budget stands in the way. It may only say no, and PostgreSQL has to confirm
that under the locks of step 2 before the job is put off; a "no" that it takes back delays nothing (docs/tokens.md).
"""

from datetime import datetime, timedelta

from invoices.selectors.parties import connection_client
from retries.engine.claim import Claim
from retries.engine.prepare import Refused, attempt_refuse
from retries.models import RetryJob
from tokens.mirror import Answer, Selection, slot_entry_keep, slot_entry_refute, tokens_select


def refused_early(claim: Claim, *, now: datetime, lease: timedelta) -> Refused | None:
    """Why the claimed job cannot be charged now, confirmed and re-planned; None if nothing is known against it.

    No transaction is open. Gateways are not asked anything before step 2, so for them there is nothing to save.
    """
    job = RetryJob.objects.select_related("connection", "customer__connection", "transaction").get(pk=claim.job_pk)
    if not connection_client(job.connection).traits.bills:
        return None
    owner = job.transaction.public_id
    found = tokens_select(
        customer=job.customer,
        owner=owner,
        invoice_pk=job.invoice_id,
        amount_minor=job.transaction.amount_minor,
        currency=job.transaction.currency,
        not_before=now,
    )
    if _allows(found, job.token_id, now):
        slot_entry_keep(job.customer, owner=owner, lease=lease)
        return None
    refused = attempt_refuse(claim, now=now)
    if refused is None:
        slot_entry_refute(job.customer, owner=found.locked_by)
    return refused


def _allows(found: Selection, token_pk: int | None, now: datetime) -> bool:
    return found.answer is Answer.RANKED and any(one.pk == token_pk and one.allowed_at <= now for one in found.tokens)
