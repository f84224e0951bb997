"""The state tables are one truth in three places: constants, decorated methods, database triggers."""

from collections.abc import Callable
from typing import Any

import pgtrigger
import pytest
from django.apps import apps
from django.db import Error, IntegrityError, connection, models, transaction
from django_fsm import TransitionNotAllowed

from accounts.models import Merchant
from analytics.models import (
    AttemptFact,
    AttemptRollup,
    CaseFact,
    CaseRollup,
    HourRollup,
    RecoveryFact,
    RecoveryRollup,
)
from invoices.models import Attempt, BillerNote, Dispute, Event, Invoice, OutboxMessage, Transaction
from invoices.services.casework import note_add
from invoices.services.ledger import Stamp
from invoices.states import (
    ATTEMPT_MOVES,
    DISPUTE_MOVES,
    INVOICE_MOVES,
    TRANSACTION_MOVES,
    AttemptStatus,
    DisputeStatus,
    InvoiceStatus,
    TransactionStatus,
)
from notifications.models import AlertDelivery, CaseAttribution, Message, Suppression
from notifications.services.alert_delivery import alert_route_set
from notifications.services.alerts import alert_write
from notifications.services.links import link_issue
from notifications.services.planning import messages_follow
from notifications.states import DELIVERY_MOVES, MESSAGE_MOVES, AlertChannel, DeliveryStatus, MessageStatus
from recovery_site.common.states import Move, mermaid
from retries.models import BulkItem, BulkRun, Case, Outage, ProviderGate, RetryJob
from retries.states import CASE_MOVES, JOB_MOVES, CaseStatus, JobStatus
from tests.support.shop import Shop
from tests.support.stripe import Bill
from tokens.models import ImportedMark
from webhooks.models import Delivery, DeliveryTry, InboxEvent
from webhooks.outbound.deliveries import deliveries_write
from webhooks.outbound.endpoints import outbound_endpoint_create
from webhooks.states import DELIVERY_MOVES as WEBHOOK_MOVES
from webhooks.states import INBOX_MOVES, InboxStatus
from webhooks.states import DeliveryStatus as WebhookStatus

Moves = tuple[Move, ...]
MACHINES: dict[type[models.Model], tuple[Moves, type[models.TextChoices], tuple[str, ...]]] = {
    Invoice: (INVOICE_MOVES, InvoiceStatus, ("INIT",)),
    Transaction: (TRANSACTION_MOVES, TransactionStatus, ("INIT",)),
    Attempt: (ATTEMPT_MOVES, AttemptStatus, ("SENDING",)),
    Dispute: (DISPUTE_MOVES, DisputeStatus, ("OPEN",)),
    Case: (CASE_MOVES, CaseStatus, ("OPEN",)),
    RetryJob: (JOB_MOVES, JobStatus, ("QUEUED", "SCHEDULED")),
    InboxEvent: (INBOX_MOVES, InboxStatus, ("RECEIVED",)),
    AlertDelivery: (DELIVERY_MOVES, DeliveryStatus, ("PENDING",)),
    Message: (MESSAGE_MOVES, MessageStatus, ("PLANNED",)),
    Delivery: (WEBHOOK_MOVES, WebhookStatus, ("PENDING",)),
}
pytestmark = pytest.mark.django_db
EVERY = pytest.mark.parametrize("model", MACHINES, ids=lambda model: model.__name__)


# --- constants and methods ----------------------------------------------------------------------------------------


@EVERY
def test_the_decorated_methods_are_exactly_the_table(model: type[models.Model]) -> None:
    moves, _, _ = MACHINES[model]
    field: Any = model._meta.get_field("status")
    decorated = {(one.name, one.source, one.target) for one in field.get_all_transitions(model)}
    assert decorated == {(move.name, source, move.target) for move in moves for source in move.sources}


@EVERY
def test_every_state_can_be_reached_and_no_move_leads_nowhere(model: type[models.Model]) -> None:
    moves, states, initial = MACHINES[model]
    reached, grown = set(initial), True
    while grown:
        more = {move.target for move in moves if reached & set(move.sources)} - reached
        reached, grown = reached | more, bool(more)
    assert reached == set(states.values)
    assert {source for move in moves for source in move.sources} <= reached


@EVERY
def test_the_diagram_of_the_documentation_shows_every_move(model: type[models.Model]) -> None:
    moves, _, _ = MACHINES[model]
    drawn = mermaid(moves).splitlines()[1:]
    assert drawn == [f"    {source} --> {move.target}: {move.name}" for move in moves for source in move.sources]


def test_a_method_refuses_a_move_from_another_state() -> None:
    invoice = Invoice(amount_minor=1, currency="USD")
    with pytest.raises(TransitionNotAllowed):
        invoice.finish_refund()
    assert invoice.status == "INIT"


def test_a_state_cannot_be_assigned() -> None:
    invoice = Invoice(amount_minor=1, currency="USD")
    with pytest.raises(AttributeError):
        invoice.status = "SETTLED"


# --- the net in the database --------------------------------------------------------------------------------------


@pytest.fixture
def story(shop: Shop) -> Shop:
    """A shop with at least one row of everything that has states or an owner."""
    return told(shop)


def told(shop: Shop) -> Shop:
    shop.failed_bill()
    disputed = paid(shop)
    attempt = shop.attempts(disputed)[0]
    dispute = disputed.attempt(charge=attempt.provider_id or "").dispute("lost", shop.wait(days=1))
    refunded = paid(shop)
    charge = shop.attempts(refunded)[0].provider_id or ""
    shop.tell(dispute, refunded.attempt(charge=charge).refund("a", 1000, shop.wait(days=1)))
    twice = paid(shop)
    shop.tell(twice.attempt().charge_succeeded())
    alert_route_set(
        merchant=shop.merchant, name="staff", channel=AlertChannel.MAIL, target="staff@example.com", actor="test"
    )
    write_to(shop, shop.failed_bill(code="expired_card"))
    alert_write(Event.objects.filter(merchant=shop.merchant, kind="alert.paid_twice").latest("id"))
    outbound_endpoint_create(merchant=shop.merchant, url="https://hooks.example.com/")
    deliveries_write(Event.objects.filter(merchant=shop.merchant, kind="case.opened").latest("id"))
    DeliveryTry.objects.create(merchant=shop.merchant, delivery=row_of(Delivery, shop), duration_ms=1)
    charge_row = shop.attempts(twice)[0].transaction
    BillerNote.objects.create(
        merchant=shop.merchant, connection=shop.connection, invoice=charge_row.invoice, transaction=charge_row
    )
    note_add(invoice_pk=charge_row.invoice_id, text="Called.", stamp=Stamp(actor="user:1", cause="test", now=shop.at))
    protected_and_counted(shop, charge_row.invoice)
    token = shop.token(twice)
    ImportedMark.objects.create(
        merchant=shop.merchant, token=token, card=token.card, at=shop.at, count=1, source=shop.name
    )
    return shop


def protected_and_counted(shop: Shop, invoice: Invoice) -> None:
    """What the engine keeps of a connection and of bulk work, and one row of each rollup and of its facts."""
    owner: dict[str, Any] = {"merchant": shop.merchant, "connection": shop.connection}
    ProviderGate.objects.get_or_create(connection=shop.connection, defaults={"merchant": shop.merchant})
    Outage.objects.create(**owner, began_at=shop.at, ended_at=shop.at)
    run = BulkRun.objects.create(
        merchant=shop.merchant, action="retry", reason="test", actor="test", created_at=shop.at, finished_at=shop.at
    )
    BulkItem.objects.create(merchant=shop.merchant, run=run, invoice=invoice)
    owner["day"] = shop.at.date()
    counts = {"attempts": 1, "succeeded": 1, "declined": 0, "errored": 0}
    AttemptRollup.objects.create(**owner, facet="network", key="visa", category="", **counts)
    HourRollup.objects.create(**owner, hour=shop.at, facet="all", key="", again=False, attempts=1, failed=0)
    money = {"currency": "USD", "cases": 1}
    CaseRollup.objects.create(
        **owner, **money, facet="segment", key="x", category="", status="OPEN", amount_minor=1, recovered_minor=0
    )
    RecoveryRollup.objects.create(**owner, **money, source="retry", number=1, gross_minor=1, back_minor=0)
    fact = owner | {"id": invoice.pk, "invoice_id": invoice.pk}
    AttemptFact.objects.create(**fact, hour=shop.at, number=1)
    CaseFact.objects.create(**fact, policy=1, amount_minor=1, recovered_minor=0)
    RecoveryFact.objects.create(**fact, number=1, gross_minor=1, back_minor=0)


def write_to(shop: Shop, bill: Bill) -> None:
    """A planned message with everything it can point to, and an address that hears no more."""
    invoice = shop.invoice(bill)
    messages_follow(invoice.events.get(kind="case.opened"))
    message = Message.objects.filter(invoice=invoice).latest("pk")
    message.link = link_issue(invoice=invoice, issued_by="test", now=shop.at)
    message.attempt = invoice.attempts.get()
    message.save()
    Suppression.objects.create(
        merchant=shop.merchant, address=f"{shop.name}@example.com", reason="bounce", since=shop.at, message=message
    )
    CaseAttribution.objects.create(
        merchant=shop.merchant,
        case=message.case,
        message=message,
        source="message",
        rule="test",
        amount_minor=1,
        currency="USD",
        recovered_at=shop.at,
    )


def paid(shop: Shop) -> Bill:
    bill = shop.bill()
    shop.tell(*bill.attempt().succeeded())
    return bill


def row_of(model: type[models.Model], shop: Shop) -> Any:
    return model._default_manager.filter(merchant=shop.merchant).latest("pk")


def set_status(row: Any, status: str) -> None:
    type(row)._base_manager.filter(pk=row.pk).update(status=status)


@EVERY
def test_an_update_is_refused_exactly_where_the_table_has_no_move(model: type[models.Model], story: Shop) -> None:
    moves, states, _ = MACHINES[model]
    legal = {(source, move.target) for move in moves for source in move.sources}
    row, tried = row_of(model, story), set()
    for source in states.values:
        for target in states.values:
            if source == target:
                continue
            try:
                with transaction.atomic():
                    with pgtrigger.ignore():
                        set_status(row, source)
                    set_status(row, target)
                    tried.add((source, target))
                    transaction.set_rollback(True)
            except Error as error:
                if "Invalid transition of field" not in str(error):
                    tried.add((source, target))  # a constraint on other columns of this row, not the state table
    assert tried == legal


@EVERY
def test_a_row_cannot_be_created_past_its_initial_state(model: type[models.Model], story: Shop) -> None:
    _, states, initial = MACHINES[model]
    row = row_of(model, story)
    fields = [field for field in model._meta.concrete_fields if field.name not in ("id", "status", "public_id")]
    copy = {field.attname: getattr(row, field.attname) for field in fields}
    refused = set()
    for status in states.values:
        try:
            with transaction.atomic():
                model._base_manager.create(status=status, **copy)
        except Error as error:
            if "a new row must start in" in str(error):
                refused.add(status)
    assert refused == set(states.values) - set(initial)


def test_create_is_stopped_by_the_database_where_the_model_lets_it_pass(shop: Shop) -> None:
    """`protected` stops neither `create(status=...)` nor `update()`: both were measured, hence the triggers."""
    bill = shop.failed_bill()
    invoice = shop.invoice(bill)
    with pytest.raises(Error, match="a new row must start in INIT"), transaction.atomic():
        Invoice.objects.create(
            merchant=shop.merchant,
            connection=shop.connection,
            customer=invoice.customer,
            amount_minor=1,
            currency="USD",
            issued_at=shop.at,
            status="SETTLED",
        )
    with pytest.raises(Error, match="Invalid transition"), transaction.atomic():
        Invoice.objects.filter(pk=invoice.pk).update(status="REFUNDED")
    assert shop.invoice(bill).status == "PROCESSING"


# --- what never changes -------------------------------------------------------------------------------------------

FROZEN: dict[str, Any] = {
    "amount_minor": 1,
    "currency": "EUR",
    "kind": "REFUND",
    "idempotency_key": "other",
    "public_id": "att_other",
}
FINISHED: dict[str, Any] = {
    "raw_code": "lost_card",
    "provider_id": "ch_other",
    "captured_minor": 1,
    "finished_at": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize("column", FROZEN)
@pytest.mark.parametrize("status", ["SENDING", "DECLINED"])
def test_what_an_attempt_is_never_changes(shop: Shop, column: str, status: str) -> None:
    bill = shop.failed_bill()
    attempt = shop.attempts(bill)[0]
    with pgtrigger.ignore():
        set_status(attempt, status)
    with pytest.raises(Error, match="never change"), transaction.atomic():
        Attempt.objects.filter(pk=attempt.pk).update(**{column: FROZEN[column]})


@pytest.mark.parametrize("column", FINISHED)
def test_the_outcome_of_a_finished_attempt_never_changes(shop: Shop, column: str) -> None:
    bill = shop.failed_bill()
    attempt = shop.attempts(bill)[0]
    with pytest.raises(Error, match="the outcome of a finished attempt is protected"), transaction.atomic():
        Attempt.objects.filter(pk=attempt.pk).update(**{column: FINISHED[column]})
    with pytest.raises(Error, match="Invalid transition"), transaction.atomic():
        Attempt.objects.filter(pk=attempt.pk).update(status="AWAITING")


def test_a_late_success_is_the_one_change_that_passes(shop: Shop) -> None:
    bill = shop.failed_bill()
    failed = shop.attempts(bill)[0]
    shop.tell(bill.attempt(charge=failed.provider_id or "").charge_succeeded())
    (attempt,) = shop.attempts(bill)
    assert (attempt.pk, attempt.status, attempt.captured_minor) == (failed.pk, "SUCCEEDED", 2500)
    assert "late_success" in shop.alerts(bill)


@pytest.mark.parametrize("operation", ["update", "delete", "raw update", "raw delete"])
def test_events_can_only_be_appended(shop: Shop, operation: str) -> None:
    bill = shop.failed_bill()
    events = Event.objects.filter(invoice=shop.invoice(bill))
    before = list(events.order_by("seq").values())
    with pytest.raises(Error, match="Cannot"), transaction.atomic():
        change_events(events, operation)
    assert list(events.order_by("seq").values()) == before


def change_events(events: models.QuerySet[Event], operation: str) -> None:
    with connection.cursor() as cursor:
        match operation:
            case "update":
                events.update(actor="nobody")
            case "delete":
                events.delete()
            case "raw update":
                cursor.execute("UPDATE invoices_event SET data = '{}'")
            case _:
                cursor.execute("DELETE FROM invoices_event")


def test_every_trigger_of_the_models_is_installed_and_on() -> None:
    status = {
        trigger.get_pgid(model): trigger.get_installation_status(model) for model, trigger in pgtrigger.registered()
    }
    assert status
    assert {state for state, _ in status.values()} == {"INSTALLED"}


# --- tenants ------------------------------------------------------------------------------------------------------


def tenant_links() -> list[tuple[type[models.Model], models.ForeignKey[Any, Any]]]:
    """Every foreign key from a row with a merchant to another row with a merchant."""
    owned = [model for model in apps.get_models() if _has_merchant(model)]
    return [
        (model, field)
        for model in owned
        for field in model._meta.concrete_fields
        if isinstance(field, models.ForeignKey) and _has_merchant(field.related_model)
    ]


def _has_merchant(model: Any) -> bool:
    return any(field.name == "merchant" and field.related_model is Merchant for field in model._meta.concrete_fields)


# What else has to change so that no rule but the tenant's is in the way: the place may be taken at the other one.
FREE: dict[type[models.Model], dict[str, Any]] = {
    Event: {"seq": 10_000},
    OutboxMessage: {"consumer": "another"},
    Message: {"step": 99},
    Case: {"status": "LOST"},
}


def test_no_row_can_point_at_another_merchants_row(shop: Shop, new_shop: Callable[..., Shop]) -> None:
    """Generated over the models: a new table with a merchant is tested, or fails here for want of a row."""
    mine, theirs = told(shop), told(new_shop())
    assert len(tenant_links()) >= 34
    refused = []
    for model, field in tenant_links():
        row, foreign = row_of(model, mine), row_of(field.related_model, theirs)
        name = f"{model._meta.db_table}_{field.column}_tenant_fk"
        try:
            with pgtrigger.ignore(), transaction.atomic():
                if field.one_to_one:
                    model._base_manager.filter(**{field.name: foreign}).delete()
                model._base_manager.filter(pk=row.pk).update(**{field.attname: foreign.pk}, **FREE.get(model, {}))
        except IntegrityError as error:
            refused.append(name if name in str(error) else str(error))
        else:
            refused.append(f"{name} let it pass")
    assert refused == [f"{model._meta.db_table}_{field.column}_tenant_fk" for model, field in tenant_links()]
