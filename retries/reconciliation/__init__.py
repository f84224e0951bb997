"""Promise 3: what got stuck is found, asked about, and ends somewhere. Never starts a new charge or refund."""

from retries.reconciliation.sweep import ReconcileCounts as ReconcileCounts
from retries.reconciliation.sweep import reconcile as reconcile
