"""The story of one invoice: the next step and its reason, budgets, timeline, in a constant number of queries."""

from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.services import global_charging_set, merchant_charging_set
from invoices.models import Invoice
from invoices.services.parties import connection_pause, connection_switch
from providers.base import CustomerFacts, DisputeFacts, DisputeStatus, EventKind, InvoiceFacts
from recovery_site.console.actions import act
from recovery_site.console.story import invoice_story
from recovery_site.console.story.types import InvoiceStory
from retries.models import RetryJob
from tests.console.world import NOW, World


def story(world: World, invoice: Invoice) -> InvoiceStory:
    return invoice_story(world.again(invoice), now=world.at)


def queries(world: World, invoice: Invoice) -> int:
    fresh = world.again(invoice)
    with CaptureQueriesContext(connection) as captured:
        invoice_story(fresh, now=world.at)
    return len(captured)


# --- the next step and why ------------------------------------------------------------------------


def test_a_booked_retry_says_which_one_it_is_and_why(world: World) -> None:
    step = story(world, world.fail()).next_step
    assert (step.step, step.label, step.at) == ("booked", "Retry booked", NOW + timedelta(hours=24))
    assert (step.at_text, step.distance) == ("Sat 21 Nov 12:00 UTC", "in 1 day")
    assert step.why == (
        "Retry 1 of 2 after insufficient funds. With the Visa •••• 4242: There was not enough money on the account,"
        " so it may be tried again later."
    )
    assert step.notes == ()


def test_a_retry_that_a_network_holds_back_names_the_rule_and_its_end(world: World) -> None:
    invoice = world.fail(network="mastercard", last4="4444", code="processing_error")
    for _ in range(9):
        world.wait(minutes=1)
        world.fail(
            invoice=invoice.provider_invoice_id or "", network="mastercard", last4="4444", code="processing_error"
        )
    step = story(world, invoice).next_step
    assert step.at == NOW + timedelta(hours=24)
    assert step.why == (
        "Waits until Sat 21 Nov 12:00 UTC because Mastercard's 10 declines in 24 hours are used up until then."
    )


def test_the_policys_own_delay_is_not_blamed_on_a_rule(world: World) -> None:
    """A card with a rule that still has room: the 24 hours are the policy's."""
    assert "because Visa's" not in story(world, world.fail()).next_step.why


def test_a_queued_invoice_names_the_one_in_front(world: World) -> None:
    first = world.fail(number="INV-1")
    world.wait(minutes=1)
    second = world.fail(number="INV-2", amount=900)
    step = story(world, second).next_step
    assert step.step == "queued"
    assert step.notes == ("Invoice INV-1 of the same customer goes first, on Sat 21 Nov 12:00 UTC.",)
    world.wait(hours=24)
    world.send()
    assert story(world, second).next_step.notes == ("Invoice INV-1 of the same customer is being charged right now.",)
    assert story(world, first).next_step.step == "sending"


def test_kill_switches_and_broken_connections_are_told_beside_the_plan(world: World) -> None:
    invoice, boss = world.fail(), world.person("owner")
    merchant_charging_set(merchant_pk=world.merchant.pk, enabled=False, reason="prices", user=boss)
    global_charging_set(enabled=False, reason="incident 7.", user=boss)
    connection_switch(connection_pk=world.connection.pk, enabled=False)
    step = story(world, invoice).next_step
    assert step.step == "booked"
    assert step.notes == (
        "Nothing is sent, because charging is switched off for everybody: incident 7.",
        "Nothing is sent, because charging is switched off for Acme.",
        "Nothing is sent through simulator: the connection is disabled.",
    )
    merchant_charging_set(merchant_pk=world.merchant.pk, enabled=True, reason="ok", user=boss)
    global_charging_set(enabled=True, reason="over", user=boss)
    connection_switch(connection_pk=world.connection.pk, enabled=True)
    assert story(world, invoice).next_step.notes == ()
    connection_pause(connection_pk=world.connection.pk, reason="The key was refused.")
    assert story(world, invoice).next_step.notes == ("Nothing is sent through simulator: The key was refused.",)


def test_a_retry_that_is_late_says_so_and_keeps_its_error(world: World) -> None:
    invoice = world.fail()
    world.wait(hours=24, minutes=1)
    assert story(world, invoice).next_step.notes == ()
    world.wait(hours=2)
    assert story(world, invoice).next_step.notes == (
        "It has been due for 2 h 1 min and leaves as soon as a worker takes it.",
    )
    RetryJob.objects.update(last_error="ValueError: odd")
    assert "The last try to prepare it ended with an error: ValueError: odd" in story(world, invoice).next_step.notes


def test_an_unknown_result_is_being_resolved_and_offers_no_second_charge(world: World) -> None:
    invoice = world.fail()
    world.wait(hours=25)
    world.charge("lost")
    told = story(world, invoice)
    assert told.next_step.step == "resolving"
    assert told.next_step.why == "Nobody knows yet whether the last charge went through; it is being looked up."
    assert told.actions == {"pause", "cancel", "write_off"}


def test_a_pause_names_the_person(world: World) -> None:
    invoice, ann = world.fail(), world.person(first_name="Ann", last_name="Lee")
    act("pause", invoice, user=ann, reason="customer asked", now=world.at)
    told = story(world, invoice)
    assert (told.next_step.step, told.next_step.why) == ("paused", "Paused: customer asked")
    assert told.case is not None
    assert told.case.paused_by == "Ann Lee"
    assert told.actions == {"retry", "resume", "cancel", "write_off"}
    (entry,) = [entry for entry in told.timeline if entry.kind == "staff.pause"]
    assert (entry.text, entry.detail, entry.who, entry.cause) == (
        "Automatic retries were paused.",
        "customer asked",
        "Ann Lee",
        "customer asked",
    )


def test_a_refused_card_waits_for_the_customer_until_the_end_of_grace(world: World) -> None:
    invoice = world.fail(code="card_declined")
    told = story(world, invoice)
    assert told.next_step.step == "customer"
    assert told.next_step.at is not None
    assert told.next_step.notes[0].startswith("Without a payment by ")
    (token,) = told.tokens
    assert (token.usable, token.status) == (False, "declined")
    assert token.obstacle == "was declined for good (card_declined)"


def test_closed_invoices_say_how_they_ended(world: World) -> None:
    paid, canceled, lost = (world.fail(customer=f"cus_{n}", token=f"tok_{n}") for n in range(3))
    world.pay(paid)
    act("cancel", canceled, user=world.person(), reason="wrong order", now=world.at)
    act("write_off", lost, user=world.person(), reason="too old", now=world.at)
    assert story(world, paid).next_step.why == (
        "Nothing is left to do: the invoice was settled on Fri 20 Nov 12:00 UTC."
    )
    assert story(world, canceled).next_step.why == "Nothing is left to do: the invoice was canceled."
    assert story(world, lost).next_step.why == "Nothing is left to do: the invoice was written off."
    assert {story(world, one).next_step.step for one in (paid, canceled, lost)} == {"none"}
    assert story(world, canceled).actions == frozenset()


def test_a_lost_dispute_bars_automatic_charges_and_says_so(world: World) -> None:
    invoice = world.fail()
    world.wait(hours=25)
    attempt = world.charge("ok")
    world.wait(days=9)
    world.dispute(
        "",
        DisputeFacts(
            id="dp_1",
            amount_minor=4_990,
            currency="USD",
            status=DisputeStatus.LOST,
            charge_id=attempt.provider_id or "",
        ),
    )
    told = story(world, invoice)
    assert told.next_step.step == "customer"
    assert "No automatic charge is allowed any more; only staff or the customer can start one." in told.next_step.notes
    assert told.next_step.notes[-1].endswith("Disputed or returned; nobody has taken it yet.")
    assert [row.status for row in told.disputes] == ["LOST"]
    assert len(told.earlier_cases) == 1
    assert told.refundable == ()


# --- attempts, tokens, money ----------------------------------------------------------------------


def test_attempts_carry_codes_and_words(world: World) -> None:
    invoice = world.fail()
    world.wait(hours=25)
    world.charge("processing_error")
    first, second = story(world, invoice).attempts
    assert (first.origin_label, first.raw_code, first.category) == (
        "The provider",
        "insufficient_funds",
        "INSUFFICIENT_FUNDS",
    )
    assert first.category_words == "There was not enough money on the account at that moment."
    assert (second.origin_label, second.trigger, second.status, second.card) == (
        "This service",
        "automatic",
        "DECLINED",
        "Visa •••• 4242",
    )
    assert second.why.startswith("Retry 1 of 2 after insufficient funds.")


def test_tokens_show_every_rule_and_the_one_that_binds(world: World) -> None:
    invoice = world.fail(network="mastercard", last4="4444")
    world.add_token(invoice, "tok_spare", network="visa", last4="1111")
    tokens = {token.label: token for token in story(world, invoice).tokens}
    assert set(tokens) == {"Mastercard •••• 4444", "Visa •••• 1111"}
    mastercard = tokens["Mastercard •••• 4444"]
    assert {rule.words: (rule.used, rule.remaining) for rule in mastercard.rules} == {
        "Mastercard's 10 declines in 24 hours": (1, 9),
        "Mastercard's 35 declines in 30 days": (1, 34),
    }
    assert mastercard.remaining == 9
    assert [rule.words for rule in mastercard.rules if rule.binding] == ["Mastercard's 10 declines in 24 hours"]
    assert mastercard.rules[0].releases_at is not None
    assert (tokens["Visa •••• 1111"].remaining, tokens["Visa •••• 1111"].blocked) == (15, False)


def test_what_is_left_of_a_payment_can_be_refunded_once(world: World) -> None:
    invoice = world.fail()
    world.wait(hours=25)
    world.charge("ok")
    told = story(world, invoice)
    (charge,) = told.refundable
    assert (str(charge.left), charge.card) == ("$49.90", "Visa •••• 4242")
    assert told.actions == {"refund"}
    act("refund", invoice, user=world.person(), reason="too slow", now=world.at, amount_minor=1_000)
    told = story(world, invoice)
    assert [str(charge.left) for charge in told.refundable] == ["$39.90"]
    assert [str(row.amount) for row in told.refunds] == ["$10.00"]


def test_a_payment_without_the_providers_id_cannot_be_refunded_here(world: World) -> None:
    """A biller that only says "paid" names no charge that its gateway's API could refund."""
    invoice = world.fail()
    world.tell(
        EventKind.INVOICE_PAID,
        customer=CustomerFacts(id="cus_ann"),
        invoice=InvoiceFacts(
            id=invoice.provider_invoice_id or "", amount_minor=4_990, paid_minor=4_990, currency="USD", issued_at=NOW
        ),
    )
    told = story(world, invoice)
    assert (told.invoice.status, told.refundable, told.actions) == ("SETTLED", (), frozenset())


def test_the_timeline_is_complete_and_in_order(world: World) -> None:
    invoice = world.fail()
    world.wait(hours=25)
    world.charge("ok")
    told = story(world, invoice)
    assert [entry.seq for entry in told.timeline] == list(range(1, told.invoice.last_seq + 1))
    assert [entry.text for entry in told.timeline if not entry.minor] == [
        "The invoice over $49.90 arrived.",
        "Recovery began: $49.90 at risk.",
        "First failure of a customer in segment new customer.",
        "Attempt 1 on Visa •••• 4242 was declined: insufficient funds (insufficient_funds).",
        "Next step: Retry booked, Sat 21 Nov 12:00 UTC.",
        "Attempt 2: charging $49.90 on Visa •••• 4242.",
        "Attempt 2 succeeded: $49.90 on Visa •••• 4242.",
        "The invoice is settled.",
        "The money was recovered by a retry.",
    ]


# --- reading costs --------------------------------------------------------------------------------


def test_the_number_of_queries_does_not_depend_on_how_much_there_is(world: World) -> None:
    short = world.fail(customer="cus_short", token="tok_short")
    few = queries(world, short)
    long = world.fail(customer="cus_long", token="tok_long")
    for number in range(4):
        world.add_token(long, f"tok_{number}", network="mastercard", last4=f"000{number}")
        world.wait(hours=30)
        world.fail(invoice=long.provider_invoice_id or "", customer="cus_long", token="tok_long")
    world.fail(customer="cus_long", token="tok_long", amount=700)
    assert few == 17
    assert queries(world, long) == few


@pytest.mark.parametrize("gone", [True, False])
def test_a_person_who_left_is_still_named_as_somebody(world: World, gone: bool) -> None:
    invoice, ann = world.fail(), world.person(first_name="Ann", last_name="Lee")
    act("pause", invoice, user=ann, reason="r", now=world.at)
    if gone:
        ann.delete()
    who = {entry.who for entry in story(world, invoice).timeline if entry.kind == "staff.pause"}
    assert who == {"A former member of staff" if gone else "Ann Lee"}


def test_reading_writes_nothing_and_locks_nothing(world: World) -> None:
    invoice = world.again(world.fail())
    with CaptureQueriesContext(connection) as captured:
        invoice_story(invoice, now=datetime.now(NOW.tzinfo))
    statements = [query["sql"].strip("( ").split()[0] for query in captured.captured_queries]
    assert set(statements) == {"SELECT"}
    assert not [query for query in captured.captured_queries if "FOR " in query["sql"] and "UPDATE" in query["sql"]]
