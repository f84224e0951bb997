"""Holding our ledger against the sandbox's, to the cent, and against itself: an independent reading of the promises."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db.models import Q

from invoices.chain import Link, link_hash
from invoices.models import Attempt, Event, Invoice, ReviewItem
from retries.models import Case, RetryJob
from tests.support.shop import Shop
from tokens.rules import Key
from tokens.selectors import network_rules

MOVED = {"SUCCEEDED": "succeeded", "DECLINED": "declined", "AWAITING": "pending"}


def assert_books_agree(shop: Shop) -> None:
    """Every charge at the sandbox is one attempt of ours and the other way round, with the same end and amount.

    A charge whose attempt is still SENDING or UNKNOWN may have any end; an ERRORED attempt moved nothing.
    """
    customers = [*shop.connection.customers.values_list("connector_customer_id", flat=True)]
    theirs = {charge["reference"]: charge for charge in shop.sandbox.charges(*customers)}
    ours = {
        attempt.public_id: attempt
        for attempt in Attempt.objects.filter(merchant=shop.merchant, kind="CHARGE", origin="OURS").select_related(
            "token", "customer"
        )
    }
    assert theirs.keys() <= ours.keys(), "the sandbox has charges that this ledger never sent"
    for reference, attempt in ours.items():
        charge = theirs.get(reference)
        if attempt.status in ("SENDING", "UNKNOWN"):
            continue
        if attempt.status == "ERRORED":
            assert charge is None, f"{reference} counts as unsent, but the sandbox has {charge}"
            continue
        assert charge is not None, f"{reference} is {attempt.status}, but the sandbox never got it"
        told = (charge["status"], charge["amount"], charge["currency"], charge["token"], charge["customer"])
        assert told == (
            MOVED[attempt.status],
            attempt.amount_minor,
            attempt.currency,
            attempt.token.provider_token if attempt.token else None,
            attempt.customer.connector_customer_id,
        )
        assert attempt.provider_id in (charge["id"], None)


def assert_charged_once(shop: Shop) -> None:
    """The sandbox took no more for an invoice than it was for, unless staff have been asked about it."""
    taken: Counter[str] = Counter()
    customers = [*shop.connection.customers.values_list("connector_customer_id", flat=True)]
    invoices = dict(Attempt.objects.filter(merchant=shop.merchant).values_list("public_id", "invoice__public_id"))
    for charge in shop.sandbox.charges(*customers):
        if charge["status"] == "succeeded":
            taken[invoices[charge["reference"]]] += charge["amount"]
    for invoice in Invoice.objects.filter(merchant=shop.merchant):
        asked = ReviewItem.objects.filter(
            invoice=invoice, kind__in=("paid_twice", "paid_after_cancel", "overpaid", "mismatch")
        ).exists()
        unknown = Attempt.objects.filter(invoice=invoice, status__in=("UNKNOWN", "SENDING")).exists()
        lost = invoice.disputes.filter(status="LOST", applied_at__isnull=False)
        kept = taken[invoice.public_id] - sum(dispute.amount_minor for dispute in lost)
        assert kept <= invoice.amount_minor or asked or unknown, (
            f"{invoice.public_id} is for {invoice.amount_minor}, but {kept} was taken and not returned"
        )


def assert_totals(shop: Shop) -> None:
    """`paid_minor` is the money of the DONE charges less what was taken back, `credited_minor` what staff said of money
    in other currencies that stayed; SETTLED means that nothing is due."""
    for invoice in Invoice.objects.filter(merchant=shop.merchant):
        done = invoice.transactions.filter(kind="CHARGE", status="DONE", currency=invoice.currency)
        lost: Counter[Attempt] = Counter()
        applied = invoice.disputes.filter(status="LOST", applied_at__isnull=False).select_related("attempt")
        for dispute in applied.filter(attempt__currency=invoice.currency):
            lost[dispute.attempt] += dispute.amount_minor
        back = sum(min(taken, attempt.captured_minor or 0) for attempt, taken in lost.items())
        assert invoice.paid_minor == sum(charge.captured_minor or 0 for charge in done) - back
        gone = applied.values_list("attempt__transaction", flat=True)
        said = invoice.transactions.filter(status="DONE", settles_minor__isnull=False).exclude(pk__in=gone)
        assert invoice.credited_minor == sum(charge.settles_minor or 0 for charge in said)
        if invoice.status == "SETTLED":
            assert invoice.due_minor == 0, f"{invoice.public_id} is settled, but {invoice.due_minor} is due"


def assert_chain(invoice: Invoice) -> None:
    """Seq without gaps, every hash right, and the events replayed give the rows as they stand."""
    events = list(Event.objects.filter(invoice=invoice).order_by("seq"))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    previous, states = "", dict[tuple[str, str], str]()
    for event in events:
        previous = link_hash(previous, _link(invoice, event))
        assert event.hash == previous, f"event {event.seq} of {invoice.public_id} was changed"
        if event.to_state:
            before = states.get((event.subject_type, event.subject_id), "")
            if event.from_state:
                assert event.from_state == (before or event.from_state), f"event {event.seq} leaves another state"
            states[event.subject_type, event.subject_id] = event.to_state
    assert (invoice.last_seq, invoice.last_hash) == (len(events), previous)
    assert states["invoice", invoice.public_id] == invoice.status
    rows: list[Any] = [*invoice.transactions.all(), *invoice.attempts.all(), *invoice.disputes.all()]
    for row in rows:
        kind = type(row).__name__.lower()
        assert states.get((kind, row.public_id)) == row.status, f"{kind} {row.public_id} and its events disagree"


def _link(invoice: Invoice, event: Event) -> Link:
    return Link(
        invoice=invoice.public_id,
        seq=event.seq,
        subject_type=event.subject_type,
        subject_id=event.subject_id,
        kind=event.kind,
        from_state=event.from_state,
        to_state=event.to_state,
        actor=event.actor,
        cause=event.cause,
        data=event.data,
        occurred_at=event.occurred_at,
    )


def assert_next_steps(shop: Shop) -> None:
    """Promise 3: every open invoice has exactly one next step, and a row that carries it."""
    for invoice in Invoice.objects.filter(merchant=shop.merchant):
        case = Case.objects.filter(invoice=invoice, status="OPEN").first()
        flying = Attempt.objects.filter(invoice=invoice, kind="CHARGE", status__in=("SENDING", "AWAITING", "UNKNOWN"))
        if case is None:
            assert invoice.status != "PROCESSING" or flying.exists() or _asked(invoice), (
                f"{invoice.public_id} is processing, but nothing will happen to it"
            )
            assert not _open_jobs(invoice), f"{invoice.public_id} is {invoice.status} without a case, but has a job"
            continue
        assert invoice.status in ("PROCESSING", "PROCESS_FAILED", "INIT"), f"{invoice.status} with an open case"
        assert case.why, "a next step without a reason"
        assert _real(case, invoice, flying), f"{invoice.public_id} claims {case.next_step}, but no row carries it"


def _open_jobs(invoice: Invoice) -> list[str]:
    jobs = RetryJob.objects.filter(invoice=invoice, kind="CHARGE")
    return sorted(
        jobs.filter(status__in=("QUEUED", "SCHEDULED", "RUNNING", "PAUSED", "NEEDS_REVIEW")).values_list(
            "status", flat=True
        )
    )


def _asked(invoice: Invoice) -> bool:
    return ReviewItem.objects.filter(invoice=invoice, resolved_at=None).exists()


def _real(case: Case, invoice: Invoice, flying: Any) -> bool:
    jobs = _open_jobs(invoice)
    match case.next_step:
        case "booked":
            return jobs in (["SCHEDULED"], ["RUNNING"])
        case "queued":
            holder = RetryJob.objects.filter(
                customer=invoice.customer, kind="CHARGE", status__in=("SCHEDULED", "RUNNING")
            )
            return jobs == ["QUEUED"] and holder.exclude(invoice=invoice).exists()
        case "sending" | "awaiting" | "resolving" as step:
            wanted = {"sending": "SENDING", "awaiting": "AWAITING", "resolving": "UNKNOWN"}[step]
            return flying.filter(status=wanted).exists() and jobs in ([], ["RUNNING"])
        case "provider":
            return case.next_step_at is not None and not jobs
        case "paused":
            return bool(case.paused_by) and jobs in ([], ["PAUSED"])
        case "customer":
            return case.next_step_at is not None and not jobs
        case "staff":
            return (_asked(invoice) and jobs in ([], ["NEEDS_REVIEW"])) or (flying.exists() and not jobs)
        case _:
            return False


def assert_slots(shop: Shop) -> None:
    """At most one slot holder per customer, each of an open case, and nobody queued behind an empty slot."""
    held = RetryJob.objects.filter(merchant=shop.merchant, kind="CHARGE", status__in=("SCHEDULED", "RUNNING"))
    assert all(number == 1 for number in Counter(held.values_list("customer_id", flat=True)).values())
    for job in held.select_related("case", "attempt"):
        assert job.case is not None
        assert job.case.status == "OPEN", f"job {job.pk} holds a slot for a case that is {job.case.status}"
        assert job.attempt is None or job.attempt.status == "SENDING", "a slot is kept for a charge that is over"
    queued = RetryJob.objects.filter(merchant=shop.merchant, kind="CHARGE", status="QUEUED")
    assert set(queued.values_list("customer_id", flat=True)) <= set(held.values_list("customer_id", flat=True))


def assert_rules_kept(shop: Shop) -> None:
    """No charge of ours went out while its card's window was full of attempts that the ledger knew then.

    Recounted from the rows alone: an attempt knows those with a smaller primary key. What was unresolved then
    counts as declined only if it did not turn out to have succeeded or never to have happened.
    """
    groups: dict[object, list[Attempt]] = defaultdict(list)
    rows = Attempt.objects.filter(merchant=shop.merchant, kind="CHARGE", card__isnull=False)
    for attempt in rows.select_related("card").order_by("id"):
        assert attempt.card is not None
        groups[attempt.card.budget_group].append(attempt)
    for attempts in groups.values():
        for index, attempt in enumerate(attempts):
            if attempt.origin == "OURS" and attempt.status != "ERRORED":
                _assert_room(attempt, attempts[:index])


def _assert_room(attempt: Attempt, known: Sequence[Attempt]) -> None:
    assert attempt.card is not None
    for rule in network_rules(attempt.card.network):
        if rule.key is Key.INVOICE or not rule.active_at(attempt.attempted_at):
            continue
        inside = [
            one.attempted_at
            for one in known
            if one.counts
            and (one.status not in ("SUCCEEDED", "ERRORED") or one.returned_at is not None)
            and rule.leaves_at(one.attempted_at) > attempt.attempted_at
            and (rule.key is Key.CARD or (one.amount_minor, one.currency) == (attempt.amount_minor, attempt.currency))
        ]
        assert len(inside) < rule.limit, f"{attempt.public_id} broke {rule}: {len(inside)} were in the window"


def assert_no_charge_after_a_hard_decline(shop: Shop) -> None:
    """Ours never went out on a token whose refusal for good stood in the ledger already (no success came since).

    By the order of the events, which the customer's lock makes the order in which things became known: a charge of
    another invoice may leave while ours is UNKNOWN, for that blocks its own invoice alone (DESIGN section 5), and the
    refusal found out afterwards forbids nothing that was sent before.
    """
    rows = Attempt.objects.filter(merchant=shop.merchant, kind="CHARGE", token__isnull=False).select_related("token")
    attempts = {attempt.public_id: attempt for attempt in rows}
    dead: dict[str, datetime] = {}
    paid: dict[str, datetime] = {}
    for event in Event.objects.filter(merchant=shop.merchant, subject_id__in=attempts).order_by("id"):
        attempt = attempts[event.subject_id]
        assert attempt.token is not None
        token, tried = attempt.token.provider_token, attempt.attempted_at
        if event.kind == "attempt.sending":
            assert token not in dead, f"{token} was refused for good at {dead[token]} and charged again at {tried}"
        elif event.to_state == "SUCCEEDED":
            paid[token] = max(paid.get(token, tried), tried)
            if token in dead and tried >= dead[token]:
                del dead[token]
        elif event.data.get("category") in ("HARD_DECLINE", "FRAUD_FLAGGED") and paid.get(token, tried) <= tried:
            dead[token] = tried


def assert_promises(shop: Shop) -> None:
    """Everything above."""
    assert_books_agree(shop)
    assert_charged_once(shop)
    assert_totals(shop)
    assert_next_steps(shop)
    assert_slots(shop)
    assert_rules_kept(shop)
    assert_no_charge_after_a_hard_decline(shop)
    for invoice in Invoice.objects.filter(merchant=shop.merchant):
        assert_chain(invoice)
    owed = Q(status__in=("SENDING", "UNKNOWN", "AWAITING"), kind="CHARGE", origin="OURS")
    open_ones = Attempt.objects.filter(owed, merchant=shop.merchant).values_list("invoice_id", flat=True)
    assert len(open_ones) == len(set(open_ones)), "two charges of one invoice are open"
