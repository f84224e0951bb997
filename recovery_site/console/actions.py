"""The moves a person can make with an invoice: one table for buttons, forms, bulk actions and the audit trail."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from accounts.models import User
from invoices.models import Invoice
from invoices.services.ledger import Stamp
from recovery_site.common.money import format_money
from recovery_site.console.words import card_label, moment_text
from retries.engine.prepare import charging_switched_off
from retries.models import Case, RetryJob
from retries.refunding import refund_request
from retries.services.manual import case_pause, case_resume, invoice_cancel, retry_now
from retries.states import CaseStatus, JobStatus


@dataclass(frozen=True, slots=True)
class Action:
    """`button` opens the question, `title` and `text` ask it, `confirm` is the real button, `done` the message."""

    name: str
    button: str
    title: str
    text: str
    confirm: str
    done: str
    tone: str = ""


ACTIONS: Mapping[str, Action] = {
    action.name: action
    for action in (
        Action(
            "retry",
            "Retry now",
            "Charge this customer again?",
            "The customer is charged what is due. Network limits and charges in flight are checked once more before"
            " anything is sent.",
            "Book the retry",
            "The retry is booked.",
            "primary",
        ),
        Action(
            "resume",
            "Resume",
            "Resume automatic retries?",
            "A manual retry that the pause stopped is booked again; else the next step is planned anew.",
            "Resume",
            "The pause is over.",
            "primary",
        ),
        Action(
            "pause",
            "Pause",
            "Pause automatic retries?",
            "Nothing is charged automatically until somebody resumes it. A charge already on its way is not stopped.",
            "Pause",
            "Automatic retries are paused.",
        ),
        Action(
            "refund",
            "Refund",
            "Give money back?",
            "The refund is sent through the provider. Above the merchant's limit a second person has to release it.",
            "Book the refund",
            "The refund is booked.",
        ),
        Action(
            "cancel",
            "Cancel invoice",
            "Cancel this invoice for good?",
            "Nothing more is collected. A charge already on its way is not stopped; if it succeeds, you are asked.",
            "Cancel the invoice",
            "The invoice is canceled.",
            "danger",
        ),
        Action(
            "write_off",
            "Write off",
            "Write this invoice off as a loss?",
            "Nothing more is collected and the case counts as written off.",
            "Write it off",
            "The invoice is written off.",
            "danger",
        ),
    )
}


def staff_stamp(user: User, reason: str, now: datetime) -> Stamp:
    """The signature of a person's action in the ledger."""
    return Stamp(actor=f"user:{user.pk}", cause=f"staff: {reason}", now=now)


def act(
    name: str,
    invoice: Invoice,
    *,
    user: User,
    reason: str,
    now: datetime,
    token_pk: int | None = None,
    due_at: datetime | None = None,
    amount_minor: int | None = None,
    charge: str = "",
) -> str:
    """Do it through the engine's services; returns a sentence about what happened. Raises RecoveryError."""
    stamp = staff_stamp(user, reason, now)
    match name:
        case "retry":
            job = retry_now(invoice_pk=invoice.pk, stamp=stamp, reason=reason, token_pk=token_pk, due_at=due_at)
            return _booked(job, now, _held(invoice))
        case "refund":
            refund = refund_request(
                invoice_pk=invoice.pk, amount_minor=amount_minor, reason=reason, stamp=stamp, charge_id=charge
            )
            return f"The refund of {format_money(refund.amount_minor, refund.currency)} is booked{_held(invoice)}."
        case "pause":
            case_pause(invoice_pk=invoice.pk, stamp=stamp, reason=reason)
        case "resume":
            case_resume(invoice_pk=invoice.pk, stamp=stamp, reason=reason)
            why = Case.objects.filter(invoice=invoice, status=CaseStatus.OPEN).values_list("why", flat=True).first()
            return f"{ACTIONS[name].done} {why or ''}".strip()
        case "cancel" | "write_off":
            invoice_cancel(invoice_pk=invoice.pk, stamp=stamp, reason=reason, write_off=name == "write_off")
    return ACTIONS[name].done


def _held(invoice: Invoice) -> str:
    held = charging_switched_off(invoice.merchant_id)
    return "; nothing is sent, because charging is switched off" if held else ""


def _booked(job: RetryJob, now: datetime, held: str) -> str:
    card = job.token.card if job.token else None
    on = f" with {card_label(card.network, card.last4)}" if card else ""
    if job.status == JobStatus.QUEUED:
        return f"The retry{on} is queued behind another invoice of this customer{held}."
    if job.due_at <= now:
        return f"The retry{on} is booked{held or ' and leaves within moments'}."
    return f"The retry{on} is booked for {moment_text(job.due_at, now)}{held}."
