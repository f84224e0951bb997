"""Webhooks out: who is told what, signed how, how often it is tried, and what becomes of a receiver that is gone."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db.models.functions import Now
from standardwebhooks import Webhook, WebhookVerificationError

from invoices.models import Event, OutboxMessage
from invoices.services.ledger import Stamp
from invoices.services.outbox import outbox_drain
from recovery_site.common.errors import Conflict, InvalidInput, NotFound
from recovery_site.common.targets import TargetRefused
from tests.support.listener import Listener, listening
from tests.support.quiet import quiet
from tests.webhooks.door import Door
from tests.webhooks.renewal import OLD, Renewal, moment
from webhooks.models import Delivery, DeliveryTry, OutboundEndpoint
from webhooks.outbound.catalogue import EventType, kind_wanted, kinds_of
from webhooks.outbound.deliveries import deliveries_recover, deliveries_write, delivery_replay
from webhooks.outbound.endpoints import (
    ENDPOINTS_PER_MERCHANT,
    NewSecret,
    outbound_endpoint_create,
    outbound_endpoint_rotate,
    outbound_endpoint_switch,
    outbound_endpoint_update,
    secret_generate,
    signing_secrets,
)
from webhooks.outbound.messages import public_event
from webhooks.outbound.sending import BACK_OFF, MAX_TRIES, THREADS, DeliveryCounts, deliveries_drain

pytestmark = pytest.mark.django_db
NOW = moment(60)
STAFF = Stamp(actor="user:1", cause="receiver repaired", now=NOW)
Tell = Callable[..., list[Event]]


@pytest.fixture
def receiver() -> Iterator[Listener]:
    with listening() as place:
        yield place


@pytest.fixture
def new(door: Door, receiver: Listener) -> NewSecret:
    return outbound_endpoint_create(merchant=door.merchant, url=receiver.url, event_types=["case_opened"])


@pytest.fixture
def fail(door: Door) -> Tell:
    """Let further invoices fail at the door's merchant and hand their events to the consumer; those of one kind."""

    def failed(count: int = 1, kind: str = "case.opened") -> list[Event]:
        before = Event.objects.count()
        for _ in range(count):
            name = f"{before}{Event.objects.count()}"
            door.tell(NOW, Renewal(OLD, name=name, customer=f"cus_{name}", token=f"pm_{name}").charge_failed())
        events = list(Event.objects.filter(kind=kind).order_by("pk"))[-count:]
        for event in events:
            deliveries_write(event)
        return events

    return failed


def drain(**known: Any) -> dict[str, int]:
    return deliveries_drain(now=NOW, **known).as_dict()


def counts(**known: int) -> dict[str, int]:
    return DeliveryCounts(**known).as_dict()


def due_now() -> None:
    """As if the time of every delivery, and of every resting endpoint, had come."""
    Delivery.objects.update(due_at=Now() - timedelta(seconds=1))
    OutboundEndpoint.objects.update(rests_until=None)


# --- what is told, and to whom ----------------------------------------------------------------------------------------


def test_the_catalogue_of_the_documentation_is_the_one_in_the_code(door: Door) -> None:
    page = (django_settings.BASE_DIR / "docs" / "webhooks_out.md").read_text(encoding="utf-8")
    told = {name: json.loads(example) for name, example in re.findall(r"### `(\w+)`\n.*?```json\n(.*?)```", page, re.S)}
    assert set(told) == set(EventType.values)
    assert {name: document["type"] for name, document in told.items()} == {name: name for name in told}
    assert all(document["id"].startswith("evt_") and document["timestamp"].endswith("Z") for document in told.values())
    for kind in EventType:
        assert kind.label in page
        assert all(kind_wanted(one) for one in kinds_of(kind))


def test_the_examples_of_the_documentation_have_the_shape_of_what_is_sent(door: Door) -> None:
    renewal = Renewal(OLD)
    door.tell(NOW, renewal.charge_failed(), renewal.invoice_failed())
    door.tell(moment(600), renewal.charge_succeeded(2, after=500), renewal.invoice_paid(2, after=501))
    page = (django_settings.BASE_DIR / "docs" / "webhooks_out.md").read_text(encoding="utf-8")
    told = {name: json.loads(example) for name, example in re.findall(r"### `(\w+)`\n.*?```json\n(.*?)```", page, re.S)}
    seen = set()
    for event in Event.objects.order_by("pk"):
        document = public_event(event)
        if document is not None:
            seen.add(document.type.value)
            assert shape(document.document()) == shape(told[document.type])
    assert {"case_opened", "retry_scheduled", "retry_success", "invoice_settled"} <= seen


def shape(document: Any) -> Any:
    """Names without values."""
    return {name: shape(value) for name, value in document.items()} if isinstance(document, dict) else None


def test_a_booked_retry_is_told_with_its_time_and_count(door: Door) -> None:
    renewal = Renewal(OLD)
    door.tell(NOW, renewal.charge_failed(), renewal.invoice_failed())
    event = Event.objects.filter(kind="case.planned").latest("pk")
    told = public_event(event)
    assert told is not None
    case = door.case()
    assert told.type == "retry_scheduled"
    assert told.id == f"evt_{door.invoice().public_id.removeprefix('inv_')}_{event.seq}"
    assert told.data["retry"] == {
        "transaction_id": door.invoice().transactions.get().public_id,
        "attempt_count": 0,
        "max_attempts": 2,
        "next_retry_at": case.next_step_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "priority": case.jobs.get().band,
        "error_code": "insufficient_funds",
        "category": "INSUFFICIENT_FUNDS",
    }
    assert told.data["message"] == case.why
    assert told.data["invoice"]["due_minor"] == 4900


def test_nothing_that_is_told_names_a_person(door: Door) -> None:
    door.tell(NOW, Renewal(OLD).charge_failed(), Renewal(OLD).invoice_failed())
    customer = door.invoice().customer
    personal = {customer.email, customer.name} - {""}
    assert personal, "the story names somebody"
    bodies = [told.body() for event in Event.objects.all() if (told := public_event(event))]
    assert bodies
    assert [body for body in bodies for text in personal if text in body] == []


def test_endpoints_hear_of_their_types_and_their_merchant_only(
    door: Door, new_door: Callable[..., Door], receiver: Listener, fail: Tell
) -> None:
    stranger = new_door().merchant
    everything = outbound_endpoint_create(merchant=door.merchant, url=receiver.url).endpoint
    refunds = outbound_endpoint_create(merchant=door.merchant, url=receiver.url, event_types=["refund_failed"]).endpoint
    other = outbound_endpoint_create(merchant=stranger, url=receiver.url).endpoint
    off = outbound_endpoint_create(merchant=door.merchant, url=receiver.url).endpoint
    outbound_endpoint_switch(endpoint_pk=off.pk, enabled=False, reason="not yet", now=NOW)
    (event,) = fail()
    deliveries_write(event)
    (delivery,) = Delivery.objects.all()
    assert (delivery.endpoint, delivery.event_type, delivery.status) == (everything, "case_opened", "PENDING")
    assert not Delivery.objects.filter(endpoint__in=[refunds, other, off]).exists()
    assert json.loads(delivery.body)["id"] == delivery.message_id


@pytest.mark.django_db(transaction=True)
def test_the_outbox_brings_the_event_from_the_ledger_to_the_receiver(door: Door, receiver: Listener) -> None:
    """An event and the word that it must be told are committed together; nothing else is needed."""
    new = outbound_endpoint_create(merchant=door.merchant, url=receiver.url)
    door.tell(NOW, Renewal(OLD).charge_failed())
    assert OutboxMessage.objects.filter(consumer="webhooks", done_at=None).exists()
    quiet()
    outbox_drain(now=NOW)
    assert drain()["delivered"] == len(receiver.bodies) > 0
    # Each is sent by a thread of its own, and who comes first is nobody's promise.
    assert "case_opened" in {body["type"] for body in receiver.bodies}
    headers, body = receiver.requests[0]
    assert Webhook(new.secret).verify(body, dict(headers)) == receiver.bodies[0]


# --- signatures -------------------------------------------------------------------------------------------------------


def test_a_message_is_signed_as_standard_webhooks_says(new: NewSecret, receiver: Listener, fail: Tell) -> None:
    fail()
    assert drain() == counts(delivered=1)
    ((headers, body),) = receiver.requests
    Webhook(new.secret).verify(body, dict(headers))
    delivery = Delivery.objects.get()
    assert (headers["webhook-id"], body.decode()) == (delivery.message_id, delivery.body)
    for wrong_secret, wrong_body in ((secret_generate(), body), (new.secret, body + b" ")):
        with pytest.raises(WebhookVerificationError):
            Webhook(wrong_secret).verify(wrong_body, dict(headers))


def test_both_secrets_sign_while_one_is_replaced_and_only_the_new_one_after(
    new: NewSecret, receiver: Listener, fail: Tell
) -> None:
    second = outbound_endpoint_rotate(endpoint_pk=new.endpoint.pk, now=NOW, overlap=timedelta(hours=1))
    fail(2)
    drain(limit=1)
    deliveries_drain(now=NOW + timedelta(hours=1), limit=1)
    during, after = receiver.requests
    for headers, body in (during, after):
        Webhook(second.secret).verify(body, dict(headers))
    Webhook(new.secret).verify(during[1], dict(during[0]))
    with pytest.raises(WebhookVerificationError):
        Webhook(new.secret).verify(after[1], dict(after[0]))
    assert len(signing_secrets(OutboundEndpoint.objects.get(), NOW)) == 2
    assert second.secret not in OutboundEndpoint.objects.get().secrets_encrypted


# --- tries ------------------------------------------------------------------------------------------------------------


def test_a_receiver_that_fails_gets_it_again_with_the_same_id_and_body(
    new: NewSecret, receiver: Listener, fail: Tell
) -> None:
    receiver.statuses[:] = [500, 200]
    receiver.answer = b"sorry, card 4242 4242 4242 4242 \x00 broke it"
    fail()
    assert drain() == counts(retried=1)
    assert drain() == counts(), "not before its time"
    due_now()
    assert drain() == counts(delivered=1)
    (first, body), (second, again) = receiver.requests
    assert (first["webhook-id"], body) == (second["webhook-id"], again)
    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.tries, delivery.last_status, delivery.last_error) == ("DELIVERED", 2, 200, "")
    log = list(DeliveryTry.objects.order_by("pk").values_list("status_code", "error", "answer"))
    kept = "sorry, card [filtered]  broke it"
    assert log == [(500, "The receiver answered 500.", kept), (200, "", kept)]
    assert OutboundEndpoint.objects.get().failing_since is None


def test_tries_are_spread_over_three_days_with_jitter_then_it_is_given_up_and_listed(
    door: Door, new: NewSecret, receiver: Listener, fail: Tell
) -> None:
    receiver.statuses[:] = [503]
    fail()
    pauses = []
    for _ in BACK_OFF:
        assert drain() == counts(retried=1)
        due = Delivery.objects.annotate(now=Now()).get()
        pauses.append(due.due_at - due.now)
        due_now()
    assert drain() == counts(dead=1)
    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.tries, delivery.finished_at) == ("DEAD", MAX_TRIES, NOW)
    assert DeliveryTry.objects.count() == MAX_TRIES == len(receiver.requests)
    slack = timedelta(minutes=1)
    for pause, planned in zip(pauses, BACK_OFF, strict=True):
        assert planned - slack <= pause <= planned * 1.2 + slack
    assert timedelta(days=3) <= sum(BACK_OFF, timedelta()) <= timedelta(days=3.5)
    assert len({pause / planned for pause, planned in zip(pauses, BACK_OFF, strict=True)}) == len(BACK_OFF)


def test_a_receiver_may_say_when_to_come_again_but_not_never(new: NewSecret, receiver: Listener, fail: Tell) -> None:
    receiver.statuses[:] = [429]
    fail()
    for asked, granted in (("7200", 7200), ("99999999", 24 * 3600), ("-5", 6), ("soon", 6), ("1" * 50, 6)):
        receiver.headers["Retry-After"] = asked
        Delivery.objects.update(tries=0)
        due_now()
        drain()
        due = Delivery.objects.annotate(now=Now()).get()
        assert granted - 60 <= (due.due_at - due.now).total_seconds() <= granted


def test_a_redirect_is_a_failure(new: NewSecret, receiver: Listener, fail: Tell) -> None:
    receiver.statuses[:] = [301]
    receiver.headers["Location"] = receiver.url
    fail()
    assert drain() == counts(retried=1)
    assert (len(receiver.requests), Delivery.objects.get().last_status) == (1, 301)


def test_a_name_that_has_moved_into_a_private_network_gets_nothing(
    new: NewSecret, receiver: Listener, fail: Tell, settings: Any
) -> None:
    settings.PRIVATE_TARGETS = []
    fail()
    assert drain() == counts(retried=1)
    assert receiver.requests == []
    assert "private network" in Delivery.objects.get().last_error


def test_one_dead_receiver_does_not_keep_the_others_waiting(door: Door, new: NewSecret, fail: Tell) -> None:
    """After three failures it gets one try at a time, and rests; without that every one of its deliveries is tried."""
    with listening() as healthy:
        OutboundEndpoint.objects.update(url="http://127.0.0.1:9/")
        outbound_endpoint_create(merchant=door.merchant, url=healthy.url, event_types=["case_opened"])
        fail(12)
        assert drain() == counts(delivered=12, retried=DeliveryTry.objects.filter(status_code=None).count())
        tried = Delivery.objects.filter(endpoint=new.endpoint, tries__gt=0).count()
        assert 3 <= tried <= THREADS
        endpoint = OutboundEndpoint.objects.get(pk=new.endpoint.pk)
        assert endpoint.rests_until is not None
        OutboundEndpoint.objects.update(rests_until=None)
        drain()
        assert Delivery.objects.filter(endpoint=new.endpoint, tries__gt=0).count() == tried + 1
        OutboundEndpoint.objects.update(url=healthy.url, rests_until=None)
        drain()
        assert OutboundEndpoint.objects.get(pk=new.endpoint.pk).failures == 0


def test_what_is_being_sent_when_told_to_stop_is_waited_for(new: NewSecret, fail: Tell) -> None:
    fail(3)
    left = iter([True, False, False, False])
    assert drain(keep_going=lambda: next(left)) == counts(delivered=3)
    fail(1)
    assert drain(keep_going=lambda: False) == counts()


# --- the end of an endpoint -------------------------------------------------------------------------------------------


def test_an_endpoint_that_has_accepted_nothing_for_days_is_switched_off_with_an_alert(
    door: Door, new: NewSecret, receiver: Listener, fail: Tell
) -> None:
    receiver.statuses[:] = [500]
    fail(2)
    drain(limit=1)
    OutboundEndpoint.objects.update(failing_since=Now() - timedelta(days=4, hours=23))
    due_now()
    drain(limit=1)
    assert OutboundEndpoint.objects.get().enabled
    OutboundEndpoint.objects.update(failing_since=Now() - timedelta(days=5))
    due_now()
    drain()
    endpoint = OutboundEndpoint.objects.get()
    assert (endpoint.enabled, endpoint.disabled_at) == (False, NOW)
    assert endpoint.disabled_reason.startswith("Switched off: it has accepted nothing since ")
    assert door.alerts().count("alert.webhook_endpoint_disabled") == 1
    due_now()
    assert drain() == counts(), "nothing more is sent there"
    receiver.statuses[:] = [200]
    outbound_endpoint_switch(endpoint_pk=endpoint.pk, enabled=True, reason="repaired", now=NOW)
    assert drain() == counts(delivered=2), "what waited was kept"


def test_a_receiver_that_says_gone_is_believed_at_once(
    door: Door, new: NewSecret, receiver: Listener, fail: Tell
) -> None:
    receiver.statuses[:] = [410]
    fail()
    drain()
    endpoint = OutboundEndpoint.objects.get()
    assert (endpoint.enabled, endpoint.disabled_reason) == (False, "Switched off: it answered 410 Gone.")
    assert "alert.webhook_endpoint_disabled" in door.alerts()


# --- replay and recovery ----------------------------------------------------------------------------------------------


def test_replay_sends_the_same_message_again(new: NewSecret, receiver: Listener, fail: Tell) -> None:
    fail()
    drain()
    delivery = Delivery.objects.get()
    delivery_replay(delivery_pk=delivery.pk, stamp=STAFF)
    with pytest.raises(Conflict, match="still on its way"):
        delivery_replay(delivery_pk=delivery.pk, stamp=STAFF)
    assert drain() == counts(delivered=1)
    assert receiver.requests[0][1] == receiver.requests[1][1]
    outbound_endpoint_switch(endpoint_pk=new.endpoint.pk, enabled=False, reason="x", now=NOW)
    with pytest.raises(Conflict, match="switched off"):
        delivery_replay(delivery_pk=delivery.pk, stamp=STAFF)
    with pytest.raises(NotFound):
        delivery_replay(delivery_pk=0, stamp=STAFF)


def test_what_was_missed_while_it_was_off_is_made_good_once(new: NewSecret, receiver: Listener, fail: Tell) -> None:
    since = datetime.now(UTC) - timedelta(hours=1)
    fail()
    outbound_endpoint_switch(endpoint_pk=new.endpoint.pk, enabled=False, reason="x", now=NOW)
    fail(2)
    endpoint = outbound_endpoint_switch(endpoint_pk=new.endpoint.pk, enabled=True, reason="", now=NOW)
    assert Delivery.objects.count() == 1
    assert deliveries_recover(endpoint=endpoint, since=since + timedelta(days=1)) == 0
    assert deliveries_recover(endpoint=endpoint, since=since) == 2
    assert deliveries_recover(endpoint=endpoint, since=since) == 0
    assert {body["type"] for body in receiver.bodies} <= {"case_opened"}
    assert drain() == counts(delivered=3)


# --- endpoints --------------------------------------------------------------------------------------------------------


def test_endpoints_refuse_what_makes_no_sense(door: Door, settings: Any) -> None:
    url = "https://hooks.example.com/in"
    with pytest.raises(InvalidInput, match="no event type 'retry_sucess'"):
        outbound_endpoint_create(merchant=door.merchant, url=url, event_types=["retry_sucess"])
    for _ in range(ENDPOINTS_PER_MERCHANT):
        endpoint = outbound_endpoint_create(merchant=door.merchant, url=url, description=" Shop ").endpoint
    with pytest.raises(Conflict):
        outbound_endpoint_create(merchant=door.merchant, url=url)
    with pytest.raises(TargetRefused):
        outbound_endpoint_update(endpoint_pk=endpoint.pk, url="https://10.0.0.1/")
    with pytest.raises(InvalidInput):
        outbound_endpoint_update(endpoint_pk=endpoint.pk, event_types=["nothing"])
    with pytest.raises(NotFound):
        outbound_endpoint_update(endpoint_pk=0, url=url)
    OutboundEndpoint.objects.update(failures=9, failing_since=Now())
    changed = outbound_endpoint_update(
        endpoint_pk=endpoint.pk, url=url + "2", event_types=["retry_success"], description="Other"
    )
    assert (changed.failures, changed.failing_since, str(changed)) == (0, None, "Other")
    assert changed.event_types == ["retry_success"]
