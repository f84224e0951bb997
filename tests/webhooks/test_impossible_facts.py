"""A signed event may still say what cannot be: it is put aside with its reason, whole or not at all."""

import copy
import json
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from django.db.models.functions import Now
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invoices.models import Customer
from providers.stripe.methods import expanded_customer
from providers.stripe.reading import Node
from recovery_site.common.db import fit
from tests.contract.stripe_fixtures import FIXTURES
from tests.support.sizes import LONG, MARKS
from tests.webhooks.conftest import Lines
from tests.webhooks.door import Body, Door, encoded, faults, ledger, rows
from tests.webhooks.renewal import BASIL, OLD, Renewal, moment
from webhooks.models import InboxEvent

pytestmark = [pytest.mark.django_db, *MARKS]
NOW = moment(60)
EXAMPLES = 5_000 if LONG else 120


def changed(event: Body, **changes: object) -> Body:
    event["data"]["object"] |= changes
    return event


def failed(**changes: object) -> Body:
    return changed(Renewal(OLD).charge_failed(), **changes)


def bill(**changes: object) -> Body:
    return changed(Renewal(OLD).invoice_failed(), **changes)


# --- refused: FAILED, and nothing of it in the ledger --------------------------------------------------------------

REFUSED = {
    "an unknown currency": (failed(currency="xbt"), "charge.currency is 'xbt'"),
    "no currency": (failed(currency=None), "charge.currency is None"),
    "a currency that is a number": (failed(currency=978), "charge.currency is 978"),
    "a negative amount": (failed(amount=-1), "charge.amount cannot be used"),
    "a huge amount": (failed(amount=10**16), "charge.amount cannot be used"),
    "a very huge amount": (failed(amount=10**40), "charge.amount cannot be used"),
    "a float": (failed(amount=49.0), "charge.amount cannot be used"),
    "an amount in words": (failed(amount="4900"), "charge.amount cannot be used"),
    "true as amount": (failed(amount=True), "charge.amount cannot be used"),
    "no amount": (failed(amount=None), "charge.amount is missing"),
    "a fraction of a króna": (failed(currency="isk", amount=4950), "must be divisible by 100"),
    "a negative invoice": (bill(amount_due=-4900), "invoice.amount_due cannot be used"),
    "a float invoice": (bill(amount_due=0.5), "invoice.amount_due cannot be used"),
    "an invoice without a currency": (bill(currency=""), "invoice.currency is ''"),
    "an invoice without an id": (bill(id=None), "invoice.id is missing"),
    "a charge without an id": (failed(id=""), "charge.id is missing"),
    "an id of 500 characters": (failed(id="ch_" + "x" * 497), "charge.id is no id"),
    "a customer's id of 500 characters": (failed(customer="c" * 500), "charge.customer is no id"),
    "a token of 500 characters": (failed(payment_method="p" * 500), "charge.payment_method is no id"),
    "NUL in an id": (failed(id="ch_\x00"), "charge.id is no id"),
    "half a character in an id": (failed(customer="cus_\ud800"), "charge.customer is no id"),
    "a line break in an id": (failed(invoice="in_1\n"), "charge.invoice is no id"),
    "a customer that is a list": (failed(customer=["cus_1"]), "charge.customer must be an id"),
    "a customer that is a number": (failed(customer=7), "charge.customer must be an id"),
    "an outcome that is a number": (failed(outcome=5), "charge.outcome must be an object"),
    "a time before time": (failed(created=-1), "charge.created must be a whole number"),
    "a time after time": (failed(created=10**12), "charge.created must be a whole number"),
    "a time with a fraction": (failed(created=1767258000.5), "charge.created must be a whole number"),
    "no time of the event": (failed() | {"created": None}, "event.created is missing"),
    "lines that are a text": (bill(lines="none"), "invoice.lines must be a list"),
    "a count of tries below zero": (bill(attempt_count=-1), "invoice.attempt_count must be a whole number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_as_a_whole(door: Door, lines: Lines, case: str) -> None:
    event, reason = REFUSED[case]
    before = rows()
    door.deliver(event)
    counts = door.drain(NOW)
    assert counts.as_dict() == {"processed": 0, "failed": 1, "ignored": 0}
    ((kind, status, told),) = door.inbox()
    assert (kind, status) == (event["type"], "FAILED")
    assert reason in told
    assert told.endswith("open it in Stripe's dashboard to see what was sent.")
    assert rows() == before | {"InboxEvent": 1}
    received, refused = lines()
    assert (received["event"], refused["event"]) == ("webhook_received", "inbox_item_refused")
    assert (refused["level"], refused["type"], refused["reason"]) == ("warning", event["type"], told)
    assert door.drain(NOW).as_dict() == {"processed": 0, "failed": 0, "ignored": 0}, "and not tried again"


# --- left alone: IGNORED with the reason ----------------------------------------------------------------------------

_NO_CUSTOMER = "names no customer, so nobody could be asked or charged again."
LEFT_ALONE = {
    "a payment without a customer": (failed(customer=None), _NO_CUSTOMER),
    "an invoice without a customer": (bill(customer=None), _NO_CUSTOMER),
    "an unheard-of type": (failed() | {"type": "charge.teleported"}, "carries nothing that a payment recovery needs."),
    "a type of another world": (failed() | {"type": "💳"}, "carries nothing that a payment recovery needs."),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_concerns_nobody_is_left_alone(door: Door, lines: Lines, case: str) -> None:
    event, reason = LEFT_ALONE[case]
    before = rows()
    door.tell(NOW, event)
    ((kind, status, told),) = door.inbox()
    assert (kind, status) == (event["type"], "IGNORED")
    assert told.endswith(reason)
    assert rows() == before | {"InboxEvent": 1}
    received, ignored = lines()
    assert (received["event"], ignored["event"]) == ("webhook_received", "inbox_item")
    assert (ignored["status"], ignored["reason"]) == ("IGNORED", told)


def test_a_number_that_no_float_can_hold_is_refused(door: Door) -> None:
    body = encoded(failed()).replace(b'"amount": 4900', b'"amount": 1e400')
    assert b"1e400" in body
    door.post(body)
    door.drain(NOW)
    ((_, status, reason),) = door.inbox()
    assert (status, "charge.amount cannot be used" in reason) == ("FAILED", True)


def test_a_payment_of_zero_is_left_alone(door: Door) -> None:
    door.tell(NOW, failed(amount=0))
    assert door.inbox() == [("charge.failed", "IGNORED", "A payment of zero moves no money.")]
    assert ledger(door.merchant) == []


def test_an_expanded_customer_is_as_good_as_an_id(door: Door) -> None:
    customer = {"id": "cus_northwind", "object": "customer", "email": "ap@northwind.example", "name": "N\x00orth\ud800"}
    door.tell(NOW, failed(customer=customer))
    assert door.inbox() == [("charge.failed", "PROCESSED", "")]
    (known,) = Customer.objects.all()
    assert (known.connector_customer_id, known.email, known.name) == ("cus_northwind", "ap@northwind.example", "North")


# --- anything, anywhere ---------------------------------------------------------------------------------------------

_FILES = sorted(FIXTURES.glob("*/*.json"))
_ids = count(1)
_HOSTILE: list[Any] = [
    None, [], {}, "", "\x00", "\ud800", "x" * 500, -1, 0, 1.5, 10**30, True, False, [None], [[]], {"id": None},
    {"id": {"id": "x"}}, {"object": "list", "data": None}, {"data": [1]}, "4242424242424242", "🏦" * 60, "\n",
]  # fmt: skip


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a JSON structure."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(found for key, child in children for found in _places(child, (*path, key)))]


@st.composite
def _damaged(draw: st.DrawFn) -> Body:
    event: Body = copy.deepcopy(json.loads(draw(st.sampled_from(_FILES)).read_bytes()))
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(_places(event["data"])[1:]))
        node = event["data"]
        for key in parents:
            node = node[key]
        if draw(st.booleans()) and isinstance(node, dict):
            del node[last]
        else:
            node[last] = copy.deepcopy(draw(st.sampled_from(_HOSTILE)))
        if not isinstance(event["data"].get("object"), dict):
            event["data"]["object"] = {}
    return event


def test_no_damage_is_an_accident(door: Door) -> None:
    """Whatever stands wherever: understood, left alone or refused with a reason; never an exception nobody expected,
    never half of it in the ledger."""

    @settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
    @given(event=_damaged())
    def told(event: Body) -> None:
        # Those that wait would be due again in a moment, and what became of them would be held against this one.
        InboxEvent.objects.filter(status="RECEIVED").update(due_at=Now() + timedelta(days=1))
        before = rows()
        event["id"] = f"evt_damaged_{next(_ids)}"
        door.tell(NOW, event)
        _, status, reason = door.inbox()[-1]
        if status == "RECEIVED":
            assert reason.endswith(("is not known yet.", "is known yet.")), reason
        if status != "PROCESSED":
            assert reason
            received = {"InboxEvent": before.get("InboxEvent", 0) + 1}
            assert _without_customers(rows()) == _without_customers(before | received)

    told()
    assert faults(door.merchant) == []


def test_a_language_that_no_column_holds_stops_no_event() -> None:
    told = expanded_customer(Node({"id": "cus_1", "preferred_locales": ["d\x00e\ud800"]}, "customer"))
    assert told is not None
    assert told.locale == "de"
    assert fit(Customer, "name", "A\x00nn\ud800") == "Ann"


def _without_customers(counted: dict[str, int]) -> dict[str, int]:
    """An event that is left alone may still have introduced its customer."""
    return {name: number for name, number in counted.items() if name != "Customer"}


@pytest.mark.parametrize("file", _FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_null_everywhere_is_no_accident(door: Door, file: Any) -> None:
    event: Body = json.loads(file.read_bytes())
    event["data"]["object"] = dict.fromkeys(event["data"]["object"]) | {"object": event["data"]["object"]["object"]}
    before = rows()
    door.tell(NOW, event)
    ((_, status, reason),) = door.inbox()
    assert (status in ("IGNORED", "FAILED"), bool(reason)) == (True, True), (status, reason)
    assert rows() == before | {"InboxEvent": 1}


def test_the_shapes_are_those_of_this_module() -> None:
    assert {file.parent.name for file in _FILES} >= {OLD, BASIL}


def test_a_refund_and_a_dispute_of_zero_move_nothing(door: Door) -> None:
    renewal = Renewal(BASIL)
    door.tell(moment(900), renewal.charge_succeeded())
    (before,) = ledger(door.merchant)
    door.tell(
        moment(900),
        renewal.refund(1, "refund.created", "succeeded", amount=0),
        changed(renewal.dispute(1, "created", "needs_response"), amount=0),
    )
    assert [row[1:] for row in door.inbox()[1:]] == [
        ("IGNORED", "A refund of zero moves no money."),
        ("IGNORED", "A dispute of zero takes no money."),
    ]
    assert (ledger(door.merchant), faults(door.merchant)) == ([before], [])
