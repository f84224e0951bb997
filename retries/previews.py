"""What a policy would do with one invoice: the tries it would get and the messages that would go out.

Reads what the engine would read and changes nothing. It supposes that the charge fails now and that every try fails in
the same way, so it shows the longest road; the network's limits are counted with the tries before.
"""

from dataclasses import dataclass
from datetime import datetime

from invoices.models import Attempt, Customer, Invoice
from invoices.states import AttemptStatus, TransactionKind
from providers.decline_tables import decline_tables
from retries.classification import Classification, ClassificationInput, classify
from retries.planning import CaseProgress, plan_retry
from retries.policy import Policy, SegmentPolicy
from retries.segments import segment_of
from retries.selectors import customer_zone, decline_overrides, segment_facts
from retries.timing import next_allowed_instant
from tokens.budgets import AttemptMark, earliest_allowed
from tokens.models import Card, Token
from tokens.selectors import card_marks, invoice_marks, merchant_limits, network_rules, token_obstacle


@dataclass(frozen=True, slots=True)
class PreviewStep:
    """A try or a message. `late` says which of the network's limits moved a try beyond the policy's own time."""

    at: datetime
    what: str
    why: str
    late: str = ""


@dataclass(frozen=True, slots=True)
class Preview:
    """`ends` says why there is no further try, `final` what happens at `grace_until` without money."""

    segment: str
    code: str
    category: str
    explanation: str
    method: str
    tries: tuple[PreviewStep, ...]
    messages: tuple[PreviewStep, ...]
    ends: str
    final: str
    grace_until: datetime


def last_code(invoice: Invoice) -> str:
    """The code of the invoice's last decline, empty if there was none or it had none."""
    declined = Attempt.objects.filter(invoice=invoice, kind=TransactionKind.CHARGE, status=AttemptStatus.DECLINED)
    return declined.order_by("-attempted_at").values_list("raw_code", flat=True).first() or ""


def policy_preview(policy: Policy, invoice: Invoice, *, code: str, now: datetime) -> Preview:
    """What `policy` would do if a charge of `invoice` failed now with `code`. Read the invoice with its connection and
    customer."""
    segment = segment_of(policy.segments, segment_facts(invoice.customer, invoice, now))
    chosen = policy.for_segment(segment)
    card = _card(invoice)
    verdict = _verdict(invoice, card, code)
    tries, ends = _tries(policy, segment, invoice, card, verdict, now)
    return Preview(
        segment=segment,
        code=code,
        category=verdict.category.value,
        explanation=verdict.explanation,
        method=str(card) if card else "",
        tries=tries,
        messages=_messages(chosen, invoice.customer, verdict, tries, now),
        ends=ends,
        final=chosen.final_action.value,
        grace_until=now + chosen.grace,
    )


def _card(invoice: Invoice) -> Card | None:
    """The card of the customer's first token that could be charged."""
    tokens = Token.objects.filter(customer=invoice.customer).select_related("card").order_by("-is_default", "pk")
    return next((token.card for token in tokens if not token_obstacle(token, token.card)), None)


def _verdict(invoice: Invoice, card: Card | None, code: str) -> Classification:
    provider = invoice.connection.provider
    failure = ClassificationInput(provider=provider, raw_code=code, network=card.network if card else "unknown")
    return classify(failure, decline_tables(provider), decline_overrides(invoice.merchant_id, provider, code))


def _tries(
    policy: Policy, segment: str, invoice: Invoice, card: Card | None, verdict: Classification, now: datetime
) -> tuple[tuple[PreviewStep, ...], str]:
    if card is None:
        return (), "No payment method of this customer can be charged."
    zone, horizon_at = customer_zone(invoice.customer), now + policy.for_segment(segment).horizon
    rules = network_rules(card.network, merchant_limits(invoice.merchant_id))
    amount, currency = invoice.due_minor or invoice.amount_minor, invoice.currency
    tried = AttemptMark(now, amount, currency, declined=True, network=card.network)
    marks, owed = [*card_marks([card], now)[card.budget_group], tried], [*invoice_marks(invoice.pk), tried]
    steps: list[PreviewStep] = []
    while True:
        progress = CaseProgress(
            opened_at=now,
            failed_at=marks[-1].at,
            retries_of_kind=len(steps),
            automatic_retries=len(steps),
            seed=f"preview:{invoice.public_id}",
        )
        plan = plan_retry(policy, segment, verdict, progress, zone)
        if plan.at is None:
            return tuple(steps), plan.reason
        at = earliest_allowed(marks, rules, plan.at, amount, currency, owed)
        if at > horizon_at:
            return tuple(steps), "The network's limits leave no room before the policy's horizon."
        late = "" if at == plan.at else "moved by the network's limits"
        steps.append(PreviewStep(at, f"Try {len(steps) + 1}", plan.reason, late))
        mark = AttemptMark(at, amount, currency, declined=True, network=card.network)
        marks.append(mark)
        owed.append(mark)


def _messages(
    chosen: SegmentPolicy,
    customer: Customer,
    verdict: Classification,
    tries: tuple[PreviewStep, ...],
    now: datetime,
) -> tuple[PreviewStep, ...]:
    steps = []
    for step in chosen.messages:
        at = now + step.after
        if chosen.quiet is not None and chosen.quiet.messages:
            at = next_allowed_instant(at, customer_zone(customer), chosen.quiet.hours)
        failed = sum(1 for one in tries if one.at <= at)
        if step.concerns(verdict.category, failed):
            steps.append(PreviewStep(at, step.template, f"to {step.audience.value}"))
    return tuple(steps)
