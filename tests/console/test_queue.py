"""The staff queue: oldest first, taken, released, answered, each answer with its effect."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from invoices.models import Attempt, Event, Invoice, ReviewItem
from invoices.services.reviews import review_open
from invoices.states import ReviewKind
from recovery_site.console.answers import answers_of, guidance
from recovery_site.console.queue import Filter
from retries.locking import scope_lock
from tests.console.world import NOW, World

LogIn = Callable[[User], Client]


def ask(world: World, invoice: Invoice, kind: ReviewKind, choices: list[str], subject: str = "") -> ReviewItem:
    scope = scope_lock(customer_pk=invoice.customer_id, invoice_pk=invoice.pk)
    return review_open(
        invoice=scope.invoice,
        kind=kind,
        subject_type="attempt" if subject else "invoice",
        subject_id=subject or invoice.public_id,
        facts={"sent_at": world.at.isoformat(), "amount_minor": 4_990, "currency": "USD"},
        choices=choices,
        stamp=world.stamp(),
    )


@pytest.fixture
def unknown(world: World) -> ReviewItem:
    """Our charge whose result nobody could find out."""
    invoice = world.fail(number="INV-9")
    world.wait(hours=25)
    attempt = world.charge("lost")
    world.wait(hours=25)
    return ask(world, invoice, ReviewKind.UNKNOWN_ATTEMPT, ["charged", "not_charged"], attempt.public_id)


def test_a_question_shows_facts_age_and_answers(world: World, unknown: ReviewItem, log_in: LogIn) -> None:
    world.wait(hours=3, minutes=20)
    page = log_in(world.person()).get("/console/queue/").content.decode()
    attempt = Attempt.objects.get(status="UNKNOWN")
    for expected in (
        "Nobody knows whether this was charged",
        "waiting for 3 h",
        "INV-9",
        "Nobody yet",
        f"Attempt 2 on Visa •••• 4242, reference {attempt.public_id}",
        "Sun 22 Nov 14:00 UTC",
        "It was charged",
        "It was not charged",
        "Take it",
    ):
        assert expected in page, expected


def test_viewers_read_the_queue_but_have_no_buttons(world: World, unknown: ReviewItem, log_in: LogIn) -> None:
    client = log_in(world.person("viewer"))
    page = client.get("/console/queue/").content.decode()
    assert "Nobody knows whether this was charged" in page
    assert "/answer/" not in page
    assert "/take/" not in page
    assert client.post(f"/console/queue/{unknown.public_id}/take/").status_code == 403
    answer = {"choice": "charged", "reason": "r"}
    assert client.post(f"/console/queue/{unknown.public_id}/answer/", answer).status_code == 403
    assert Attempt.objects.filter(status="UNKNOWN").count() == 1


def test_other_merchants_questions_do_not_exist(world: World, unknown: ReviewItem, log_in: LogIn) -> None:
    client = log_in(World(name="Other").person("owner"))
    assert "INV-9" not in client.get("/console/queue/").content.decode()
    answer = {"choice": "charged", "reason": "r"}
    assert client.post(f"/console/queue/{unknown.public_id}/answer/", answer).status_code == 404
    assert client.post(f"/console/queue/{unknown.public_id}/take/").status_code == 404


def test_take_and_release(world: World, unknown: ReviewItem, log_in: LogIn) -> None:
    ann = world.person(first_name="Ann", last_name="Lee")
    client = log_in(ann)
    client.post(f"/console/queue/{unknown.public_id}/take/")
    unknown.refresh_from_db()
    assert unknown.owner == ann
    page = client.get("/console/queue/?show=mine").content.decode()
    assert "Ann Lee" in page
    assert "Release it" in page
    assert "INV-9" not in client.get("/console/queue/?show=free").content.decode()
    client.post(f"/console/queue/{unknown.public_id}/take/", {"release": "1"})
    unknown.refresh_from_db()
    assert unknown.owner is None


@pytest.mark.parametrize(
    ("choice", "attempt_status", "invoice_status"),
    [("charged", "SUCCEEDED", "SETTLED"), ("not_charged", "ERRORED", "PROCESSING")],
)
def test_answering_an_unknown_charge(
    world: World, unknown: ReviewItem, log_in: LogIn, choice: str, attempt_status: str, invoice_status: str
) -> None:
    ann = world.person()
    # Before that the call could still arrive, and "not charged" would be refused.
    Attempt.objects.filter(public_id=unknown.subject_id).update(lease_until=Now() - timedelta(minutes=1))
    response = log_in(ann).post(
        f"/console/queue/{unknown.public_id}/answer/",
        {"choice": choice, "reason": "seen at the provider"},
        follow=True,
    )
    assert response.redirect_chain == [("/console/queue/", 302)]
    attempt = Attempt.objects.select_related("invoice").get(public_id=unknown.subject_id)
    assert (attempt.status, attempt.invoice.status) == (attempt_status, invoice_status)
    unknown.refresh_from_db()
    assert (unknown.resolution, unknown.resolved_by, unknown.note) == (choice, f"user:{ann.pk}", "seen at the provider")
    assert Event.objects.get(kind="staff.resolve").actor == f"user:{ann.pk}"


def test_an_answer_needs_a_note_and_must_be_one_of_the_choices(
    world: World, unknown: ReviewItem, log_in: LogIn
) -> None:
    client = log_in(world.person())
    address = f"/console/queue/{unknown.public_id}/answer/"
    assert "say in the note how you know" in client.post(address, {"choice": "charged"}, follow=True).content.decode()
    refused = client.post(address, {"choice": "keep", "reason": "r"}, follow=True).content.decode()
    assert "is not one of the answers" in refused
    unknown.refresh_from_db()
    assert unknown.resolved_at is None
    assert Attempt.objects.filter(status="UNKNOWN").count() == 1


def test_two_people_answer_at_once_and_the_second_is_told(world: World, unknown: ReviewItem, log_in: LogIn) -> None:
    address = f"/console/queue/{unknown.public_id}/answer/"
    client = log_in(world.person())
    client.post(address, {"choice": "charged", "reason": "r"})
    page = client.post(address, {"choice": "not_charged", "reason": "r"}, follow=True).content.decode()
    assert "already answered" in page
    assert Attempt.objects.filter(status="SUCCEEDED").count() == 1


def test_a_question_is_answered_on_the_invoices_own_page_too(world: World, unknown: ReviewItem, log_in: LogIn) -> None:
    client, invoice = log_in(world.person()), unknown.invoice
    assert invoice is not None
    page = client.get(f"/console/invoices/{invoice.public_id}/").content.decode()
    assert f"/console/queue/{unknown.public_id}/answer/" in page
    response = client.post(
        f"/console/queue/{unknown.public_id}/answer/",
        {"choice": "charged", "reason": "r", "invoice": invoice.public_id},
    )
    assert response["Location"] == f"/console/invoices/{invoice.public_id}/"
    answered = client.get(f"/console/invoices/{invoice.public_id}/").content.decode()
    assert f"/console/queue/{unknown.public_id}/answer/" not in answered


def test_money_that_came_twice_goes_back_with_one_click(world: World, log_in: LogIn) -> None:
    invoice = world.fail()
    world.wait(hours=25)
    world.charge("ok")
    world.pay(invoice)
    item = ReviewItem.objects.get(kind="paid_twice")
    log_in(world.person()).post(f"/console/queue/{item.public_id}/answer/", {"choice": "refund", "reason": "as agreed"})
    item.refresh_from_db()
    refunds = invoice.transactions.filter(kind="REFUND").values_list("amount_minor", "refund_of__public_id")
    assert (item.resolution, list(refunds)) == ("refund", [(4_990, item.subject_id)])


def test_every_kind_has_guidance_and_every_offered_answer_has_words(world: World) -> None:
    assert [kind for kind in ReviewKind.values if guidance(kind) == guidance("something else")] == []
    offered = {
        "charged", "not_charged", "refunded", "not_refunded", "refund", "keep", "approve", "refuse", "noted",
        "repaired", "paid", "not_paid", "recover", "cancel", "write_off", "again", "give_up",
    }  # fmt: skip
    assert all(answer.effect for answer in answers_of(ReviewItem(choices=sorted(offered))))
    own = {"wrong_currency": ["pays", "refund", "keep"], "mismatch": ["charged_as_told", "charged", "not_charged"]}
    assert all(
        answer.effect for kind, names in own.items() for answer in answers_of(ReviewItem(kind=kind, choices=names))
    )
    keep = answers_of(ReviewItem(kind="wrong_currency", choices=["keep"]))[0]
    assert "may charge the customer the whole debt once more" in keep.effect
    (unheard,) = answers_of(ReviewItem(choices=["call_back"]))
    assert (unheard.label, unheard.effect) == ("Call back", "")


def test_oldest_first_page_by_page_without_counting(world: World, log_in: LogIn) -> None:
    invoice = world.fail()
    for number in range(27):
        ReviewItem.objects.create(
            merchant=world.merchant,
            invoice=invoice,
            subject_type="invoice",
            subject_id=f"subject-{number:02d}",
            kind=ReviewKind.DISPUTED,
            choices=["noted"],
            # Two of each age, so that the place between pages needs both the instant and the key.
            opened_at=NOW - timedelta(hours=number // 2),
        )
    client = log_in(world.person())
    with CaptureQueriesContext(connection) as captured:
        first = client.get("/console/queue/")
    assert not [
        query for query in captured.captured_queries if "COUNT(*)" in query["sql"] and "LIMIT" not in query["sql"]
    ]
    page = first.context["page"]
    ages = [question.opened_at for question in page.questions]
    assert (len(ages), ages == sorted(ages)) == (25, True)
    second = client.get("/console/queue/", {"after": page.following}).context["page"]
    seen = [question.subject_id for question in (*page.questions, *second.questions)]
    assert (len(seen), len(set(seen)), second.following) == (27, 27, "")


def test_the_cost_of_a_page_does_not_grow_with_its_questions(world: World, log_in: LogIn) -> None:
    client = log_in(world.person())
    costs = []
    for number in range(3):
        invoice = world.fail(customer=f"cus_{number}", token=f"tok_{number}")
        ask(world, invoice, ReviewKind.DISPUTED, ["noted"])
        with CaptureQueriesContext(connection) as captured:
            client.get("/console/queue/")
        costs.append(len(captured))
    assert costs[1] == costs[2]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, Filter()),
        ({"show": "mine", "kind": "disputed"}, Filter(show="mine", kind="disputed")),
        ({"show": "everything", "kind": "x", "after": "x"}, Filter()),
        ({"after": "2026-11-20T12:00:00+00:00~5"}, Filter(after=(NOW, 5))),
        ({"after": "2026-11-20T12:00:00~5"}, Filter()),
        ({"after": "2026-13-20T12:00:00+00:00~5"}, Filter()),
        ({"after": "2026-11-20T12:00:00+00:00~" + "9" * 30}, Filter()),
        ({"after": "2026-11-20T12:00:00+00:00~٣"}, Filter()),
    ],
)
def test_a_filter_from_the_address_bar(query: dict[str, str], expected: Filter) -> None:
    assert Filter.read(query) == expected


def test_answered_questions_can_be_looked_up(world: World, unknown: ReviewItem, log_in: LogIn) -> None:
    ann = world.person(first_name="Ann", last_name="Lee")
    client = log_in(ann)
    client.post(f"/console/queue/{unknown.public_id}/answer/", {"choice": "charged", "reason": "seen there"})
    page = client.get("/console/queue/?show=answered").content.decode()
    assert "Ann Lee" in page
    assert "seen there" in page
    assert "Nothing waits for a person" in client.get("/console/queue/").content.decode()
