"""Budgets and slots under real concurrency: each test first shows the race with the guard off, then the guard."""

import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import pytest
import redis
from django.db import connection

from invoices.models import Attempt, Invoice
from providers.base import CustomerFacts, EventKind, InvoiceFacts, PaymentFacts
from providers.base import DeclineFacts as Decline
from retries.engine import prepare
from retries.engine.claim import jobs_claim
from retries.engine.prepare import Prepared, Refused, attempt_prepare
from retries.models import RetryJob
from tests.console.world import World, method
from tests.tokens.history import ask, plain
from tokens.card_budgets import card_budget
from tokens.mirror import mirror_customer, selection_read, tokens_select
from tokens.models import Card, Token
from tokens.states import TokenStatus

DAY = timedelta(days=1)
LEASE, TIMEOUT = timedelta(minutes=5), timedelta(seconds=5)
Result = TypeVar("Result")


@pytest.fixture
def world(transactional_db: None, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: made.at)
    return made


def together(work: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run all at once, each in a thread with a database connection of its own; what they returned, in order."""
    results: dict[int, Result] = {}
    errors: list[BaseException] = []
    start = threading.Barrier(len(work))

    def run(place: int, one: Callable[[], Result]) -> None:
        try:
            start.wait(timeout=60)
            results[place] = one()
        except BaseException as error:  # noqa: BLE001  (shown by the assertion below, in the test's own thread)
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(work)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert errors == []
    return [results[place] for place in range(len(work))]


class Gate:
    """Holds everybody who has checked until all have: the moment in which a race happens, if it can.

    Where a lock keeps the others out (`guarded`) nobody else comes, and the wait soon ends; else they surely come,
    however busy the machine is.
    """

    def __init__(self, parties: int, *, guarded: bool = False) -> None:
        self._barrier = threading.Barrier(parties)
        self._seconds = 1 if guarded else 60

    def after(self, check: Callable[..., Result]) -> Callable[..., Result]:
        def checked(*arguments: Any, **named: Any) -> Result:
            result = check(*arguments, **named)
            with suppress(threading.BrokenBarrierError):
                self._barrier.wait(timeout=self._seconds)
            return result

        return checked


def without_card_locks(customer: Any, *, also: Sequence[int] = ()) -> list[Card]:
    groups = Card.objects.filter(tokens__customer=customer).values("budget_group")
    return list(Card.objects.filter(budget_group__in=groups).order_by("pk"))


def prepare_together(world: World) -> list[Prepared | Refused]:
    """Step 2 of every due job at once."""
    claims = jobs_claim(now=world.at, lease=LEASE, limit=10)
    return together(
        [
            lambda claim=claim: attempt_prepare(claim, now=world.at, lease=LEASE, timeout=TIMEOUT)  # type: ignore[misc]
            for claim in claims
        ]
    )


def two_customers_of_one_card(world: World, network: str) -> list[Invoice]:
    """Two due retries with different customers' tokens of the same card, and room for one try more."""
    invoices = [
        world.fail(customer=f"cus_{name}", token=f"tok_{name}", fingerprint="shared", network=network)
        for name in ("ann", "bob")
    ]
    world.at = max(job.due_at for job in RetryJob.objects.all()) + 3 * DAY
    return invoices


@pytest.fixture
def racing(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Both workers have asked for the token before either writes its attempt."""
    gate = Gate(2, guarded=request.node.callspec.params["guarded"])
    monkeypatch.setattr(prepare, "token_options", gate.after(prepare.token_options))


# --- counting -------------------------------------------------------------------------------------------------------


def test_parallel_failures_of_one_card_count_exactly(world: World, redis_client: redis.Redis):
    number = 8
    # The guard off: a count that is read, raised and written back, as a hash of counts invites to.
    redis_client.set("count", 0)
    read = Gate(number).after(lambda: int(redis_client.get("count")))  # type: ignore[arg-type]
    together([lambda: redis_client.set("count", read() + 1)] * number)
    assert int(redis_client.get("count")) == 1, "seven of eight failures were lost"  # type: ignore[arg-type]

    together([lambda place=place: fail(world, place) for place in range(number)])  # type: ignore[misc]
    token = Token.objects.select_related("card", "customer").get()
    (use,) = card_budget(token.card, world.at).uses
    assert (use.used, use.remaining) == (number, 15 - number)
    history = redis_client.hvals(f"customer:{{{world.connection.public_id}:cus_ann}}:tokens")[0]
    assert json.loads(history)["retry_history"] == {"2026-11-20": number}
    invoice = Invoice.objects.order_by("pk").first()
    assert invoice is not None
    warm = ask(tokens_select, invoice, world.at)
    assert (warm.warm, plain(warm)) == (True, plain(ask(selection_read, invoice, world.at)))


def fail(world: World, place: int) -> None:
    world.tell(
        EventKind.PAYMENT_FAILED,
        customer=CustomerFacts(id="cus_ann"),
        invoice=InvoiceFacts(id=f"in_{place}", amount_minor=4_990, currency="USD", issued_at=world.at),
        payment=PaymentFacts(
            charge_id=f"ch_{place}",
            payment_id=f"pi_{place}",
            amount_minor=4_990,
            currency="USD",
            invoice_id=f"in_{place}",
            method=method("tok_ann"),
            decline=Decline(raw_code="insufficient_funds"),
        ),
    )


@pytest.mark.usefixtures("racing")
@pytest.mark.parametrize("guarded", [False, True])
def test_two_workers_never_take_the_last_try_of_one_card_both(
    world: World, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    if not guarded:
        monkeypatch.setattr("retries.locking.cards_lock", without_card_locks)
    two_customers_of_one_card(world, "amex")
    answers = prepare_together(world)
    sent = Attempt.objects.filter(status="SENDING").count()
    assert sent == sum(isinstance(one, Prepared) for one in answers)
    if not guarded:
        assert sent == 2, "without the cards' locks both count one try too few"
        return
    assert sent == 1
    assert [one.rebooked for one in answers if isinstance(one, Refused)] == [True]


@pytest.mark.usefixtures("racing")
@pytest.mark.parametrize("guarded", [False, True])
def test_two_invoices_of_one_card_are_never_in_flight_together(
    world: World, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    if not guarded:
        monkeypatch.setattr("retries.locking.cards_lock", without_card_locks)
    two_customers_of_one_card(world, "visa")
    answers = prepare_together(world)
    sent = list(Attempt.objects.filter(status="SENDING"))
    if not guarded:
        assert len(sent) == 2, "there was budget for both, so nothing else stops them"
        return
    assert len(sent) == 1
    (refused,) = [one for one in answers if isinstance(one, Refused)]
    assert refused.reason == "another charge of this card is being sent"
    job = RetryJob.objects.exclude(invoice_id=sent[0].invoice_id).get()
    assert (job.status, job.due_at) == ("SCHEDULED", world.at + timedelta(seconds=30))
    world.answer(sent[0], "insufficient_funds")
    world.wait(seconds=30)
    assert [attempt.invoice_id for attempt in world.send()] == [job.invoice_id]


@pytest.mark.parametrize("guarded", [False, True])
def test_the_limit_is_asked_again_when_the_charge_is_due(world: World, monkeypatch: pytest.MonkeyPatch, guarded: bool):
    if not guarded:
        monkeypatch.setattr(prepare._Check, "_token", _as_it_was_planned)
    invoice = world.fail(network="amex", fingerprint="shared")
    world.at = RetryJob.objects.get(invoice=invoice).due_at
    # Somebody else's bill was tried with the same card five minutes ago; the booked retry knows nothing of it.
    booked = RetryJob.objects.get(invoice=invoice)
    world.fail(customer="cus_bob", token="tok_bob", fingerprint="shared", network="amex")
    assert RetryJob.objects.get(pk=booked.pk).due_at == booked.due_at
    sent = world.send()
    if not guarded:
        assert [attempt.invoice_id for attempt in sent] == [invoice.pk], "one try too many"
        return
    assert sent == []
    job = RetryJob.objects.get(pk=booked.pk)
    assert (job.status, job.due_at) == ("SCHEDULED", world.at + DAY)
    assert "amex max_retries_per_day" in world.case(invoice).why


def _as_it_was_planned(check: Any) -> str:
    options = prepare.token_options(
        customer=check.scope.customer,
        cards=check.scope.cards,
        invoice_pk=check.scope.invoice.pk,
        amount_minor=check.charge.amount_minor,
        currency=check.charge.currency,
        not_before=check.now,
    )
    check.option = next(option for option in options if option.pk == check.job.token_id)
    return ""


# --- one token and the other ----------------------------------------------------------------------------------------


def test_an_update_of_one_token_never_changes_another(world: World, redis_client: redis.Redis):
    invoice = world.fail(token="tok_a")
    world.add_token(invoice, "tok_b", last4="1111")
    customer = invoice.customer

    # The guard off: everybody reads all tokens, changes one and writes all back.
    redis_client.set("tokens", json.dumps({"tok_a": 0, "tok_b": 0}))
    read = Gate(2).after(lambda: json.loads(redis_client.get("tokens")))  # type: ignore[arg-type]
    together(
        [lambda name=name: redis_client.set("tokens", json.dumps(read() | {name: 1})) for name in ("tok_a", "tok_b")]  # type: ignore[misc]
    )
    assert sorted(json.loads(redis_client.get("tokens")).values()) == [0, 1], "one update is lost"  # type: ignore[arg-type]

    for round_number in range(5):
        together(
            [
                lambda: world.fail(token="tok_a", code="stolen_card"),  # type: ignore[list-item,return-value]
                lambda number=round_number: world.add_token(  # type: ignore[misc]
                    invoice, "tok_b", last4=f"{number:04d}"
                ),
            ]
        )
        first, second = Token.objects.select_related("card").filter(customer=customer).order_by("pk")
        assert (first.status, first.decline_code) == (TokenStatus.DECLINED, "stolen_card")
        assert (second.status, second.card.last4) == (TokenStatus.LIVE, f"{round_number:04d}")
        stored = {
            name.decode(): json.loads(value)["hard_decline"]
            for name, value in redis_client.hgetall(f"customer:{{{world.connection.public_id}:cus_ann}}:tokens").items()
        }
        assert stored == {first.public_id: True, second.public_id: False}


def test_two_writers_of_redis_leave_what_postgresql_says(world: World, redis_client: redis.Redis):
    invoice = world.fail(token="tok_a", network="amex")
    redis_client.flushdb()
    together([lambda: mirror_customer(invoice.customer_id)] * 6)
    owner = invoice.transactions.get().public_id
    warm = ask(tokens_select, invoice, world.at, owner=owner)
    assert (warm.warm, plain(warm)) == (True, plain(ask(selection_read, invoice, world.at, owner=owner)))
