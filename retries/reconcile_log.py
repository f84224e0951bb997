"""The one greppable line of everything that reconciliation does: `grep '"event": "reconcile"'` tells the whole night.

Each line has the action, what it was about, the status that it has now, and how long it had been stuck.
"""

from datetime import datetime, timedelta

import structlog

from invoices.models import Attempt

log = structlog.get_logger()
# What people should see even where information is not kept.
_WARNINGS = frozenset({"to_staff", "refund_to_staff", "no_plan", "staff_waits", "scan_refused"})
_ERRORS = frozenset({"refund_failed"})


def reconcile_line(action: str, *, status: str, stuck: timedelta, **names: str) -> None:
    """Log one action. `names` say what it was about (attempt=, transactionId=, case=, ...) and why (reason=)."""
    say = log.error if action in _ERRORS else log.warning if action in _WARNINGS else log.info
    say("reconcile", action=action, status=status, stuck=str(stuck).split(".")[0], **names)


def attempt_line(action: str, attempt: Attempt, now: datetime, **more: str) -> None:
    """As `reconcile_line`, about a charge or refund call that is stuck since it was made."""
    reconcile_line(action, status=attempt.status, stuck=now - attempt.attempted_at, attempt=attempt.public_id, **more)
