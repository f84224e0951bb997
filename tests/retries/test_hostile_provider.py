"""A provider that answers with nonsense: never a success or a failure by default, and its words are kept."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from invoices.models import Attempt
from providers.base import BodyMalformed, InboundRequest
from providers.sandbox.server.records import Event
from providers.sandbox.server.webhook_sender import signed
from recovery_site.common.clock import database_now
from recovery_site.console.verification import verify
from retries.models import RetryJob
from tests.retries.hostile import Body, Hostile, Reply, as_json, hostile_running
from tests.retries.refunding import (
    HOOK,
    alerts,
    ask,
    call_of,
    owed,
    question,
    refunds,
    sandbox_endpoint,
    totals,
)
from tests.support.books import assert_next_steps, assert_slots
from tests.support.sandbox import Sandbox
from tests.support.shop import Shop
from tests.support.stripe import Bill
from webhooks.services import inbox_receive

pytestmark = pytest.mark.django_db(transaction=True)
Twist = Callable[[Body], Reply]


@pytest.fixture
def provider() -> Iterator[Hostile]:
    with hostile_running() as running:
        yield running


@pytest.fixture
def sandbox(provider: Hostile) -> Sandbox:
    return Sandbox(provider.url)


def changed(**fields: Any) -> Twist:
    """The honest record with other values; `...` leaves a field out."""

    def twist(record: Body) -> Reply:
        return as_json({name: value for name, value in {**record, **fields}.items() if value is not ...})

    return twist


def exactly(body: bytes | None, status: int = 200, **headers: str) -> Twist:
    return lambda record: Reply(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


HTML = b"<html><body>We are down for maintenance</body></html>"
# Answers that are no answer about our charge, whichever way they are asked for.
NONSENSE: dict[str, Twist] = {
    "another reference": changed(reference="att_of_somebody_else"),
    "no reference": changed(reference=None),
    "another token": changed(token="tok_ok__of_another"),
    "negative amount": changed(amount=-2500),
    "no amount": changed(amount=0),
    "more than asked": changed(amount=2501),
    "amount as float": changed(amount=2500.0),
    "amount as text": changed(amount="2500"),
    "amount as truth": changed(amount=True),
    "another currency": changed(currency="EUR"),
    "currency missing": changed(currency=...),
    "status never seen": changed(status="captured_maybe"),
    "status missing": changed(status=...),
    "status as object": changed(status={"is": "succeeded"}),
    "no id": changed(id=None),
    "date without zone": changed(created_at="2026-03-03T09:00:00"),
    "html": exactly(HTML, Content_Type="text/html"),
    "nothing": exactly(b""),
    "hang-up": exactly(None),
    "a list": exactly(b"[]"),
    "null": exactly(b"null"),
    "half of it": exactly(b'{"id": "ch_1", "status": "succ'),
    "no content": exactly(b"", 204),
    "a detour": exactly(b"", 302, Location="http://127.0.0.1:9/"),
    "an error page": exactly(HTML, 503),
    "deep": exactly(b"[" * 50_000),
    "endless": exactly(b" " * ((1 << 20) + 1)),
}


def by_token(twists: dict[str, Twist]) -> Twist:
    """Each token's charges are answered by their own twist."""
    return lambda record: twists[record["token"]](record)


@pytest.fixture(autouse=True)
def _no_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer on its own: so many of them in a row would count as an outage."""
    monkeypatch.setattr("retries.breaker.SHUT_AT", 10_000)


def named(shop: Shop, names: Iterable[str]) -> dict[str, Bill]:
    """A failed bill of a customer of its own for each name."""
    wanted = list(names)
    return dict(zip(wanted, owed(shop, len(wanted)), strict=True))


def sent(shop: Shop, provider: Hostile, twists: dict[str, Twist]) -> dict[str, Bill]:
    """A charge for each twist, answered like this."""
    bills = named(shop, twists)
    provider.write = by_token({bills[name].token: twist for name, twist in twists.items()})
    shop.wait(days=1, minutes=1)
    counts = shop.drain()
    assert (counts.claimed, counts.unknown) == (len(bills), len(bills))
    shop.expire_leases()
    return bills


def assert_unknown(shop: Shop, bill: Bill, name: str = "") -> None:
    """Nobody knows, so nothing has happened: no money, no decline, no second charge."""
    attempt = shop.attempt(bill)
    facts = (attempt.status, attempt.provider_id, attempt.raw_code, attempt.captured_minor)
    assert facts == ("UNKNOWN", None, "", None), name
    assert totals(shop, bill) == ("PROCESSING", 0, 0), name
    jobs = RetryJob.objects.filter(invoice=shop.invoice(bill), status__in=("SCHEDULED", "QUEUED", "RUNNING"))
    assert not jobs.exists(), name
    assert len(shop.attempts(bill)) == 2, name


def honest_record(provider: Hostile, **wanted: str) -> Body:
    (row,) = [row for row in provider.records if all(row.get(key) == value for key, value in wanted.items())]
    return {name: value for name, value in row.items() if not name.startswith("_")}


def kept_answer(twist: Twist, record: Body) -> Body:
    answer = twist(record)
    return {"status": answer.status, "body": (answer.body or b"").decode()[:2048]}


# --- answers to a charge ------------------------------------------------------------------------------


def test_nonsense_in_answer_to_a_charge_leaves_it_unknown(shop: Shop, provider: Hostile) -> None:
    bills = sent(shop, provider, NONSENSE)
    for name, bill in bills.items():
        assert_unknown(shop, bill, name)
        assert shop.case(bill).next_step == "resolving", name
        if name not in ("hang-up", "endless"):
            kept = shop.attempt(bill).decision["raw_answer"]
            assert kept == kept_answer(NONSENSE[name], honest_record(provider, token=bill.token)), name
    assert len(provider.posts) == len(bills)
    # The look-up is honest, so the truth comes to light, and everybody was charged once.
    provider.honest()
    shop.wait(minutes=31)
    assert shop.reconcile().charges["adopted"] == len(bills)
    for name, bill in bills.items():
        assert (shop.attempt(bill).status, totals(shop, bill)) == ("SUCCEEDED", ("SETTLED", 2500, 0)), name
    assert len(provider.posts) == len(bills)
    assert verify(merchant=shop.merchant).problems == ()


def test_id_of_another_payment_in_answer_to_a_charge(shop: Shop, provider: Hostile) -> None:
    first = shop.failed_bill()
    assert shop.retry(first).succeeded == 1
    taken = shop.attempt(first).provider_id
    bill = sent(shop, provider, {"taken": changed(id=taken)})["taken"]
    assert_unknown(shop, bill)
    assert shop.attempt(bill).decision["raw_answer"]["raw"]["id"] == taken
    assert (shop.attempt(first).provider_id, totals(shop, first)) == (taken, ("SETTLED", 2500, 0))
    # Looked up, it says the same: a person has to compare the two.
    provider.read = lambda record: changed(id=taken)(record or {})
    shop.wait(minutes=31)
    assert shop.reconcile().charges["staff"] == 1
    item = question(shop, bill)
    assert (item.kind, item.facts["difference"]) == ("mismatch", "another payment's id")
    assert item.facts["raw"]["id"] == taken
    assert_unknown(shop, bill)


# --- answers to a look-up -----------------------------------------------------------------------------

# What looks like a record and contradicts ours is a question at once; what is unreadable is asked again for a day.
CONTRADICTS = {
    "another reference": "another reference",
    "another token": "another token",
    "no amount": "amount 0 instead of 2500",
    "more than asked": "amount 2501 instead of 2500",
    "another currency": "currency EUR instead of USD",
}


def test_nonsense_in_answer_to_a_look_up_is_never_believed(shop: Shop, provider: Hostile) -> None:
    # A record that carries no reference was still found by ours, so it is believed.
    twists = {name: twist for name, twist in NONSENSE.items() if name != "no reference"}
    bills = sent(shop, provider, {name: exactly(HTML, 500) for name in twists})
    told = by_token({bills[name].token: twist for name, twist in twists.items()})
    provider.read = lambda record: told(record) if record else as_json(None)
    shop.wait(minutes=31)
    for _ in range(10):  # a provider that gives no answer is asked three times a tick at most
        shop.reconcile()
    unreadable = bills.keys() - CONTRADICTS.keys()
    for name, bill in bills.items():
        assert_unknown(shop, bill, name)
        if name in CONTRADICTS:
            item = question(shop, bill)
            assert (item.kind, item.facts["difference"]) == ("mismatch", CONTRADICTS[name])
            assert item.facts["raw"]["id"] == honest_record(provider, token=bill.token)["id"]
            assert shop.case(bill).next_step == "staff", name
        else:
            assert (shop.reviews(bill), shop.case(bill).next_step) == ([], "resolving"), name
    shop.wait(hours=24)
    for _ in range(len(unreadable)):
        shop.reconcile()
    for name in unreadable:
        item = question(shop, bills[name])
        assert (item.kind, bool(item.facts["raw"])) == ("unknown_attempt", True), name
        if name not in ("hang-up", "endless"):
            twisted = NONSENSE[name](honest_record(provider, token=bills[name].token))
            assert (twisted.body or b"").decode()[:500] in item.facts["raw"]["body"], name
        assert_unknown(shop, bills[name], name)
    assert {name: alerts(shop, bill)[:1] for name, bill in bills.items()} == {
        name: ["mismatch" if name in CONTRADICTS else "unknown_attempt"] for name in bills
    }
    assert_next_steps(shop)
    assert_slots(shop)
    # Honest answers later close the questions, and nothing was sent again.
    provider.honest()
    shop.wait(hours=25)
    assert shop.reconcile().charges["adopted"] == len(bills)
    for name, bill in bills.items():
        assert (totals(shop, bill), shop.reviews(bill)) == (("SETTLED", 2500, 0), []), name
    assert len(provider.posts) == len(bills)
    assert verify(merchant=shop.merchant).problems == ()


@pytest.mark.parametrize("name", ["html", "hang-up", "negative amount", "status never seen"])
def test_nonsense_about_a_pending_charge_leaves_it_awaiting(shop: Shop, provider: Hostile, name: str) -> None:
    bill = shop.failed_bill()
    provider.write = changed(status="pending")
    assert shop.retry(bill).awaiting == 1
    provider.read = lambda record: NONSENSE[name](record or {})
    shop.wait(days=5)
    assert shop.reconcile().charges["waiting"] == 1
    attempt = shop.attempt(bill)
    assert (attempt.status, attempt.provider_id, attempt.extended) == ("AWAITING", "ch_1", False)
    assert totals(shop, bill) == ("PROCESSING", 0, 0)


def test_id_of_another_payment_in_answer_to_a_look_up_by_id(shop: Shop, provider: Hostile) -> None:
    bill = shop.failed_bill()
    provider.write = changed(status="pending")
    assert shop.retry(bill).awaiting == 1
    provider.read = lambda record: changed(id="ch_999")(record or {})
    shop.wait(days=5)
    assert shop.reconcile().charges["staff"] == 1
    assert question(shop, bill).facts["difference"] == "another payment's id"
    assert (shop.attempt(bill).status, shop.attempt(bill).provider_id) == ("AWAITING", "ch_1")


# --- answers to a refund ------------------------------------------------------------------------------

REFUND_NONSENSE = {name: twist for name, twist in NONSENSE.items() if name != "another token"} | {
    "another payment": changed(charge="ch_999"),
}
# Looked up by our reference these still name our refund.
REFUND_BELIEVED = ("no reference", "another payment")


def test_nonsense_in_answer_to_a_refund_leaves_it_unknown(shop: Shop, provider: Hostile) -> None:
    bills = named(shop, REFUND_NONSENSE)
    shop.wait(days=1, minutes=1)
    assert shop.drain().succeeded == len(bills)
    twists = {shop.attempt(bill).provider_id: REFUND_NONSENSE[name] for name, bill in bills.items()}

    def lie(record: Body | None) -> Reply:
        return twists[record["charge"]](record) if record else as_json(None)

    provider.write = lie
    for bill in bills.values():
        ask(shop, bill)
    assert shop.drain().unknown == len(bills)
    shop.expire_leases()

    def assert_nothing_known(name: str) -> None:
        call = call_of(shop, bills[name])
        assert (call.status, call.provider_id) == ("UNKNOWN", None), name
        assert (refunds(shop, bills[name]), totals(shop, bills[name])) == (
            [("PROCESSING", 2500)],
            ("REFUNDING", 2500, 0),
        ), name

    for name, bill in bills.items():
        assert_nothing_known(name)
        if name not in ("hang-up", "endless"):
            record = honest_record(provider, charge=shop.attempt(bill).provider_id or "")
            assert call_of(shop, bill).decision["raw_answer"] == kept_answer(REFUND_NONSENSE[name], record), name
    # Looked up for more than a day, it lies in the same way: questions with the raw answer, and nothing else.
    provider.read = lie
    shop.wait(hours=25)
    assert shop.drain().claimed == 0
    for _ in range(10):
        shop.reconcile()
    for name in bills.keys() - set(REFUND_BELIEVED):
        assert_nothing_known(name)
        silent = name in ("hang-up", "endless")
        item = question(shop, bills[name])
        assert (item.kind, item.facts.get("raw") in (None, {})) == ("refund_stuck", silent), name
    provider.honest()
    shop.wait(hours=25)
    shop.reconcile()
    for name, bill in bills.items():
        assert (totals(shop, bill), shop.reviews(bill)) == (("REFUNDED", 2500, 2500), []), name
    assert len([post for post in provider.posts if post[0] == "/refunds"]) == len(bills)
    assert verify(merchant=shop.merchant).problems == ()


# --- webhooks that lie --------------------------------------------------------------------------------


def told(shop: Shop, data: Body, kind: str = "") -> int:
    """The provider's signed word about a charge; how many items were new."""
    event = Event(
        f"evt_{json.dumps(data, sort_keys=True)}"[:200], kind or f"charge.{data['status']}", data["created_at"], data
    )
    body, headers = signed(event, HOOK, database_now())
    return inbox_receive(
        endpoint=sandbox_endpoint(shop),
        request=InboundRequest(body=body, headers=headers),
        now=shop.at,
        clock=float(headers["webhook-timestamp"]),
        tolerance_seconds=300,
    )


def honest(provider: Hostile) -> Body:
    return {name: value for name, value in provider.records[-1].items() if not name.startswith("_")}


@pytest.mark.parametrize(
    "lie", [{"amount": -2500}, {"amount": 2500.5}, {"currency": None}, {"status": "captured"}, {"created_at": "soon"}]
)
def test_webhook_that_makes_no_sense_is_refused_at_the_door(shop: Shop, provider: Hostile, lie: Body) -> None:
    bill = sent(shop, provider, {"lost": exactly(None)})["lost"]
    with pytest.raises(BodyMalformed):
        told(shop, {**honest(provider), **lie}, "charge.succeeded")
    assert_unknown(shop, bill)


@pytest.mark.parametrize(
    ("lie", "difference"),
    [
        ({"amount": 9900}, "amount 9900 instead of 2500"),
        ({"currency": "EUR"}, "currency EUR instead of USD"),
        ({"currency": "EUR", "status": "declined", "decline_code": "lost_card"}, "currency EUR instead of USD"),
    ],
)
def test_webhook_that_contradicts_what_was_sent_is_a_question(
    shop: Shop, provider: Hostile, lie: Body, difference: str
) -> None:
    bill = sent(shop, provider, {"lost": exactly(None)})["lost"]
    assert told(shop, {**honest(provider), **lie}) == 1
    counts = shop.process()
    assert (counts.processed, counts.ignored) == (0, 1)
    assert_unknown(shop, bill)
    item = question(shop, bill)
    assert (item.kind, item.facts["difference"]) == ("mismatch", difference)
    assert item.choices == [*(["charged_as_told"] if lie == {"amount": 9900} else []), "charged", "not_charged"]
    assert item.facts["raw"]["currency"] == lie.get("currency", "USD")
    assert alerts(shop, bill) == ["mismatch"]
    # The right word later is believed, and the question is answered.
    assert told(shop, honest(provider)) == 1
    assert shop.process().processed == 1
    assert (totals(shop, bill), shop.reviews(bill)) == (("SETTLED", 2500, 0), [])


def test_webhook_with_our_reference_and_the_id_of_another_payment(shop: Shop, provider: Hostile) -> None:
    first = shop.failed_bill()
    assert shop.retry(first).succeeded == 1
    bill = sent(shop, provider, {"lost": exactly(None)})["lost"]
    told(shop, {**honest(provider), "id": shop.attempt(first).provider_id})
    assert shop.process().ignored == 1
    assert_unknown(shop, bill)
    assert question(shop, bill).facts["difference"] == "another payment's id"
    assert Attempt.objects.filter(provider_id=shop.attempt(first).provider_id).count() == 1
