"""States and legal moves of the ledger (DESIGN section 5)."""

from django.db import models

from recovery_site.common.states import Move


class ConnectionMode(models.TextChoices):
    CHARGE = "charge", "We charge"
    COLLECT = "collect", "The billing system collects"
    OBSERVE = "observe", "Observe only"
    SCHEDULE = "schedule", "The merchant charges when told"


# Through these this service calls the provider.
MODES_WE_CALL = (ConnectionMode.CHARGE, ConnectionMode.COLLECT)


class InvoiceStatus(models.TextChoices):
    INIT = "INIT", "New"
    PROCESSING = "PROCESSING", "Processing"
    SETTLED = "SETTLED", "Settled"
    PROCESS_FAILED = "PROCESS_FAILED", "Failed"
    REFUNDING = "REFUNDING", "Refunding"
    REFUNDED = "REFUNDED", "Refunded"
    CANCELED = "CANCELED", "Canceled"


class TransactionKind(models.TextChoices):
    CHARGE = "CHARGE", "Charge"
    REFUND = "REFUND", "Refund"


class TransactionStatus(models.TextChoices):
    INIT = "INIT", "New"
    PROCESSING = "PROCESSING", "Processing"
    RETRYING = "RETRYING", "Retrying"
    DONE = "DONE", "Done"
    FAILED = "FAILED", "Failed"
    CANCELED = "CANCELED", "Canceled"


class AttemptStatus(models.TextChoices):
    SENDING = "SENDING", "Sending"
    SUCCEEDED = "SUCCEEDED", "Succeeded"
    DECLINED = "DECLINED", "Declined"
    ERRORED = "ERRORED", "Did not happen"
    AWAITING = "AWAITING", "Awaiting settlement"
    UNKNOWN = "UNKNOWN", "Unknown, being resolved"


class Origin(models.TextChoices):
    """Who sent the attempt."""

    OURS = "OURS", "This service"
    PROVIDER = "PROVIDER", "The provider"
    OUTSIDE = "OUTSIDE", "Outside"


class Trigger(models.TextChoices):
    """Why it was sent."""

    AUTOMATIC = "automatic", "Automatic"
    CARD_UPDATE = "card_update", "Card update"
    STAFF = "staff", "Staff"
    CUSTOMER = "customer", "Customer"


class DisputeKind(models.TextChoices):
    DISPUTE = "DISPUTE", "Card dispute"
    RETURN = "RETURN", "Bank return"


class DisputeStatus(models.TextChoices):
    OPEN = "OPEN", "Open"
    WON = "WON", "Won"
    LOST = "LOST", "Lost"


class ReviewKind(models.TextChoices):
    """What no machine may decide alone."""

    UNKNOWN_ATTEMPT = "unknown_attempt", "Nobody knows whether this was charged"
    OVERDUE_SETTLEMENT = "overdue_settlement", "A settlement is overdue"
    MISMATCH = "mismatch", "The provider's answer differs from what we sent"
    PAID_TWICE = "paid_twice", "Paid twice"
    PAID_AFTER_CANCEL = "paid_after_cancel", "Paid after it was canceled"
    OVERPAID = "overpaid", "Paid more than was owed"
    WRONG_CURRENCY = "wrong_currency", "Paid in another currency"
    DISPUTED = "disputed", "Disputed or returned"
    CONFIGURATION = "configuration", "Something is configured wrongly"
    FRAUD = "fraud", "Flagged as fraud"
    NO_PLAN = "no_plan", "No automatic step is possible"
    UNMATCHED_PAYMENT = "unmatched_payment", "A payment that fits no single invoice"
    REFUND_STUCK = "refund_stuck", "A refund got stuck"
    REFUND_APPROVAL = "refund_approval", "A refund needs a second person"


class NoteStatus(models.TextChoices):
    """How far a billing system knows of a payment or refund that was made elsewhere."""

    WAITING = "WAITING", "Not written yet"
    LATER = "LATER", "When all is paid"
    WRITTEN = "WRITTEN", "In its books"
    REFUSED = "REFUSED", "Refused by the biller"
    FAILED = "FAILED", "Given up"


INVOICE_OPEN = (InvoiceStatus.INIT, InvoiceStatus.PROCESSING, InvoiceStatus.PROCESS_FAILED)
INVOICE_PAID = (InvoiceStatus.SETTLED, InvoiceStatus.REFUNDING, InvoiceStatus.REFUNDED)
ATTEMPT_OPEN = (AttemptStatus.SENDING, AttemptStatus.AWAITING, AttemptStatus.UNKNOWN)
ATTEMPT_FINISHED = (AttemptStatus.SUCCEEDED, AttemptStatus.DECLINED, AttemptStatus.ERRORED)
TRANSACTION_OPEN = (TransactionStatus.INIT, TransactionStatus.PROCESSING, TransactionStatus.RETRYING)

INVOICE_MOVES = (
    Move("start", (InvoiceStatus.INIT,), InvoiceStatus.PROCESSING),
    Move(
        "settle",
        (InvoiceStatus.INIT, InvoiceStatus.PROCESSING, InvoiceStatus.PROCESS_FAILED),
        InvoiceStatus.SETTLED,
    ),
    Move("fail", (InvoiceStatus.PROCESSING,), InvoiceStatus.PROCESS_FAILED),
    Move("resume", (InvoiceStatus.PROCESS_FAILED,), InvoiceStatus.PROCESSING),
    Move("begin_refund", (InvoiceStatus.SETTLED,), InvoiceStatus.REFUNDING),
    Move("finish_refund", (InvoiceStatus.REFUNDING,), InvoiceStatus.REFUNDED),
    Move("settle_again", (InvoiceStatus.REFUNDING, InvoiceStatus.REFUNDED), InvoiceStatus.SETTLED),
    Move("reverse", (InvoiceStatus.SETTLED,), InvoiceStatus.PROCESS_FAILED),
    Move("cancel", INVOICE_OPEN, InvoiceStatus.CANCELED),
)

TRANSACTION_MOVES = (
    Move("submit", (TransactionStatus.INIT, TransactionStatus.RETRYING), TransactionStatus.PROCESSING),
    Move(
        "succeed",
        (*TRANSACTION_OPEN, TransactionStatus.FAILED, TransactionStatus.CANCELED),
        TransactionStatus.DONE,
    ),
    Move("retry_later", (TransactionStatus.PROCESSING,), TransactionStatus.RETRYING),
    Move("fail", TRANSACTION_OPEN, TransactionStatus.FAILED),
    Move("cancel", (TransactionStatus.INIT, TransactionStatus.RETRYING), TransactionStatus.CANCELED),
)

ATTEMPT_MOVES = (
    Move("succeed", ATTEMPT_OPEN, AttemptStatus.SUCCEEDED),
    Move("decline", ATTEMPT_OPEN, AttemptStatus.DECLINED),
    Move("error", ATTEMPT_OPEN, AttemptStatus.ERRORED),
    # An UNKNOWN attempt that the provider reports as pending is no longer unknown (docs/adr/0003).
    Move("wait", (AttemptStatus.SENDING, AttemptStatus.UNKNOWN), AttemptStatus.AWAITING),
    Move("lose_track", (AttemptStatus.SENDING,), AttemptStatus.UNKNOWN),
    Move("late_success", (AttemptStatus.DECLINED, AttemptStatus.ERRORED), AttemptStatus.SUCCEEDED),
)

DISPUTE_MOVES = (
    Move("win", (DisputeStatus.OPEN, DisputeStatus.LOST), DisputeStatus.WON),
    Move("lose", (DisputeStatus.OPEN, DisputeStatus.WON), DisputeStatus.LOST),
)
