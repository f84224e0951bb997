"""Is there work now? Asked twice a second, so each answer is one look into an index."""

from datetime import datetime

from django.db import connection

from retries.engine.claim import jobs_due

# Inbox and outbox live on the database clock, what is sent to people on the service's. A job whose worker died before
# it wrote an attempt down is work, too.
_WAITING = """
SELECT
    EXISTS (SELECT 1 FROM webhooks_inboxevent WHERE status = 'RECEIVED' AND due_at <= clock_timestamp()),
    EXISTS (SELECT 1 FROM invoices_outboxmessage
            WHERE done_at IS NULL AND dead_at IS NULL AND due_at <= clock_timestamp()),
    EXISTS (SELECT 1 FROM retries_retryjob
            WHERE status = 'RUNNING' AND attempt_id IS NULL AND lease_until < clock_timestamp()),
    EXISTS (SELECT 1 FROM notifications_alertdelivery
            WHERE status = 'PENDING' AND due_at <= %(now)s
              AND (lease_until IS NULL OR lease_until < clock_timestamp()))
    OR EXISTS (SELECT 1 FROM notifications_message WHERE status = 'PLANNED' AND due_at <= %(now)s),
    EXISTS (SELECT 1 FROM webhooks_outboundendpoint endpoint
            WHERE enabled AND (rests_until IS NULL OR rests_until <= clock_timestamp())
              AND EXISTS (SELECT 1 FROM webhooks_delivery WHERE endpoint_id = endpoint.id AND status = 'PENDING'
                          AND due_at <= clock_timestamp())),
    EXISTS (SELECT 1 FROM retries_bulkrun WHERE finished_at IS NULL)
"""


def sweeps_due(now: datetime) -> set[str]:
    """Names of the sweeps that would find something to do at `now`."""
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, {"now": now})
        inbox, outbox, abandoned, people, deliveries, bulk = cursor.fetchone()
    retries = abandoned or bool(jobs_due(now=now, limit=1))
    answers = {
        "drain_inbox": inbox,
        "drain_outbox": outbox,
        "drain_retries": retries,
        "drain_messages": people,
        "drain_deliveries": deliveries,
        "drain_bulk": bulk,
    }
    return {name for name, due in answers.items() if due}
