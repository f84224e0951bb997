"""What comes in is stored once, scrubbed, in one statement, before the sender hears 200."""

import hashlib
import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection as database
from django.test.utils import CaptureQueriesContext

from recovery_site.common.errors import InvalidInput, NotFound
from tests.webhooks.conftest import Lines
from tests.webhooks.door import SECRET, Door, encoded, rows, signature
from tests.webhooks.renewal import BASIL, OLD, Body, Renewal, moment
from webhooks.models import InboxEvent
from webhooks.services import endpoint_create, endpoint_rotate, endpoint_secrets

pytestmark = pytest.mark.django_db
# Test numbers that pass Luhn; nobody's card.
PAN = "4242424242424242"
SPACED = "4000 0566 5566 5556"


def event(**changes: object) -> Body:
    body = Renewal(OLD).charge_failed()
    body["data"]["object"] |= changes
    return body


# --- once ---------------------------------------------------------------------------------------------------------


def test_an_event_told_again_is_known_and_stored_once(door: Door, lines: Lines) -> None:
    body = encoded(event())
    answers = [door.post(body).json() for _ in range(3)]
    assert answers == [{"received": True, "new": 1}, {"received": True, "new": 0}, {"received": True, "new": 0}]
    assert InboxEvent.objects.count() == 1
    assert [(line["event"], line["new_items"]) for line in lines()] == [
        ("webhook_received", 1),
        ("webhook_received", 0),
        ("webhook_received", 0),
    ]


def test_the_first_word_stands_when_another_body_has_the_same_id(door: Door) -> None:
    first = event()
    door.deliver(first, first | {"created": 1, "type": "charge.succeeded"})
    (kept,) = InboxEvent.objects.all()
    assert (kept.event_type, kept.body_hash) == ("charge.failed", hashlib.sha256(encoded(first)).hexdigest())


def test_the_same_event_at_two_endpoints_is_two(door: Door, new_door: Callable[..., Door]) -> None:
    """Ids are unique per account only."""
    other = new_door()
    told = event()
    door.deliver(told)
    other.deliver(told)
    assert set(InboxEvent.objects.values_list("endpoint_id", "merchant_id")) == {
        (door.endpoint.pk, door.merchant.pk),
        (other.endpoint.pk, other.merchant.pk),
    }


def test_what_is_processed_already_stays_processed_when_told_again(door: Door) -> None:
    told = event()
    door.tell(moment(10), told)
    before = rows()
    door.tell(moment(20), told)
    assert (rows(), [status for _, status, _ in door.inbox()]) == (before, ["PROCESSED"])


@pytest.mark.django_db(transaction=True)
def test_the_same_event_from_many_senders_at_once_is_stored_once(door: Door) -> None:
    senders, bodies = 6, [encoded(event()) for _ in range(5)]
    for body in bodies:
        together = threading.Barrier(senders)
        signed = signature(body)

        def send(body: bytes = body, signed: str = signed, together: threading.Barrier = together) -> tuple[int, int]:
            try:
                together.wait(timeout=30)
                answer = door.post(body, header=signed)
                return answer.status_code, answer.json()["new"]
            finally:
                database.close()

        with ThreadPoolExecutor(senders) as pool:
            answers = sorted(future.result() for future in [pool.submit(send) for _ in range(senders)])
        assert answers == [(200, 0)] * (senders - 1) + [(200, 1)]
    assert InboxEvent.objects.count() == len(bodies)


# --- cheap --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeated", [False, True])
def test_a_webhook_costs_two_statements(door: Door, repeated: bool) -> None:
    """Find the endpoint, insert: the round trips are what an accepted webhook costs."""
    body = encoded(event())
    if repeated:
        door.post(body)
    with CaptureQueriesContext(
        database,
    ) as queries:
        assert door.post(body).status_code == 200
    first, second = [query["sql"] for query in queries]
    assert first.startswith("SELECT")
    assert "webhooks_webhookendpoint" in first
    assert second.strip().startswith("INSERT INTO webhooks_inboxevent")


def test_a_forged_webhook_costs_one_statement(door: Door) -> None:
    with CaptureQueriesContext(database) as queries:
        assert door.post(encoded(event()), header=signature(b"forged")).status_code == 400
    assert len(queries) == 1


# --- scrubbed -----------------------------------------------------------------------------------------------------


def test_card_numbers_and_secrets_are_not_kept(door: Door, lines: Lines) -> None:
    told = event(
        number=PAN,
        description=f"call me, my card is {SPACED}, thanks",
        client_secret="pi_1_secret_Zx81",
        failure_message=f"Card {PAN} was declined",
        metadata={f"card {PAN}": "x", "cvc": "7316", "note": f"sk_live_51abc {SECRET}"},
    )
    told["data"]["object"]["payment_method_details"]["card"] |= {"number": PAN, "cvc": "9482"}
    told["data"]["object"]["billing_details"] = {"name": f"Jo {PAN}", "pan": SPACED}
    body = encoded(told)
    assert door.post(body).status_code == 200
    (kept,) = InboxEvent.objects.all()
    assert kept.body_hash == hashlib.sha256(body).hexdigest()
    door.drain(moment(10))
    assert door.inbox() == [("charge.failed", "PROCESSED", "")]
    stored = everything_stored() + repr(lines())
    for secret in (PAN, SPACED, SPACED.replace(" ", ""), "Zx81", '7316"', '9482"', "sk_live_51abc", SECRET):
        assert secret not in stored, secret
    assert door.invoice().attempts.get().provider_id == "ch_1_1", "and what is needed is still there"


def everything_stored() -> str:
    """Every text of every table of the application, as PostgreSQL has it."""
    found = []
    with database.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT t::text FROM "{table}" t')  # noqa: S608
            found += [row for (row,) in cursor.fetchall()]
    return "\n".join(found)


def test_a_card_number_in_a_reason_is_not_kept(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)  # half a character in a report breaks pytest-xdist

    def quotes_its_input(**_: object) -> None:
        raise RuntimeError(f"{PAN} \x00\ud800!")

    monkeypatch.setattr("webhooks.services.draining.event_apply", quotes_its_input)
    door.tell(moment(10), event())
    assert door.inbox() == [("charge.failed", "RECEIVED", "RuntimeError: [filtered] !")]


@pytest.mark.parametrize("run", ["-", "x-", "a", "4242 ", "a://", "password", "1"])
def test_a_megabyte_of_anything_is_scrubbed_in_one_go(door: Door, run: str) -> None:
    """Scrubbing looks at what customers may have typed; its effort must not grow with the square (minutes, then)."""
    text = run * (900_000 // len(run)) + "=: "
    door.deliver(event(description=text))
    assert InboxEvent.objects.count() == 1


# --- nothing lost by storing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("a\x00b", "ab"),
        ("\x00", ""),
        ("half \ud83d a character", "half  a character"),
        ("\\u0000 spelled out", "\\u0000 spelled out"),
        ("\\", "\\"),
        ("C:\\u0000\\", "C:\\u0000\\"),
        ("Größe 💳 ✓", "Größe 💳 ✓"),
        ('quotes " and \\" more', 'quotes " and \\" more'),
        ("\u2028\x7f\x1b[31m", "\u2028\x7f\x1b[31m"),
        ("x" * 5000, "x" * 500),
    ],
)
def test_any_text_comes_through(door: Door, sent: str, stored: str) -> None:
    """Only what PostgreSQL's text cannot hold, NUL and half characters, is gone at the end."""
    door.tell(moment(10), event(failure_message=sent))
    (kept,) = InboxEvent.objects.all()
    assert json.loads(kept.body)["data"]["object"]["failure_message"] == sent
    assert (kept.status, kept.reason) == ("PROCESSED", "")
    assert door.invoice().attempts.get().message == stored.strip()


def test_numbers_come_through(door: Door) -> None:
    told = event(metadata={"big": 2**70, "small": -0.1, "whole": 1.0, "true": True, "none": None})
    door.deliver(told)
    (kept,) = InboxEvent.objects.all()
    assert json.loads(kept.body) == told


# --- secrets of the endpoint ----------------------------------------------------------------------------------------


def test_after_a_rotation_the_old_secret_is_still_good_until_the_next(door: Door) -> None:
    def accepted(secret: str) -> bool:
        body = encoded(event())
        return door.post(body, header=signature(body, secret=secret)).status_code == 200

    endpoint_rotate(endpoint_pk=door.endpoint.pk, secret="whsec_second")
    assert (accepted("whsec_second"), accepted(SECRET)) == (True, True)
    endpoint_rotate(endpoint_pk=door.endpoint.pk, secret="whsec_third")
    assert (accepted("whsec_third"), accepted("whsec_second"), accepted(SECRET)) == (True, True, False)


def test_one_of_several_signatures_is_enough(door: Door) -> None:
    """Stripe signs with both secrets for a day after its own rotation."""
    body = encoded(event())
    stamp, _, good = signature(body).partition(",")
    _, _, bad = signature(body, secret="whsec_old_one").partition(",")
    assert door.post(body, header=f"{stamp},{bad},{good},v0=00").status_code == 200


def test_the_secret_is_encrypted_in_the_database(door: Door) -> None:
    assert SECRET not in everything_stored()
    assert endpoint_secrets(door.endpoint) == [SECRET]


def test_an_endpoint_needs_a_secret_and_a_provider_that_is_known(door: Door) -> None:
    before = rows()
    with pytest.raises(InvalidInput, match="needs the secret"):
        endpoint_create(merchant=door.merchant, provider="stripe", secret="", connection=door.connection)
    with pytest.raises(InvalidInput, match="needs the secret"):
        endpoint_rotate(endpoint_pk=door.endpoint.pk, secret="")
    with pytest.raises(InvalidInput, match="Unknown provider"):
        endpoint_create(merchant=door.merchant, provider="strip", secret="x")
    with pytest.raises(NotFound):
        endpoint_rotate(endpoint_pk=0, secret="x")
    assert (rows(), endpoint_secrets(door.endpoint)) == (before, [SECRET])


@pytest.mark.parametrize("shape", [OLD, BASIL])
def test_an_item_knows_what_it_is_about(door: Door, shape: str) -> None:
    """The order key: the invoice, or from basil on the payment, because nothing names the invoice."""
    renewal = Renewal(shape)
    door.deliver(renewal.charge_failed(), renewal.intent_failed(), renewal.invoice_failed(), renewal.past_due())
    payment = "in_1" if shape == OLD else "pi_1"
    keys = InboxEvent.objects.order_by("pk").values_list("event_type", "order_key", "status", "attempts")
    assert list(keys) == [
        ("charge.failed", payment, "RECEIVED", 0),
        ("payment_intent.payment_failed", payment, "RECEIVED", 0),
        ("invoice.payment_failed", "in_1", "RECEIVED", 0),
        ("customer.subscription.updated", "cus_northwind", "RECEIVED", 0),
    ]
