"""Notes and assignment on the case page: kept for good, of members only, audited, and no viewer's business."""

from collections.abc import Callable

import pytest
from django.core.management import call_command
from django.db import Error, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import Merchant, User
from accounts.services import membership_set
from invoices.models import Invoice, StaffNote
from invoices.services.casework import note_add
from recovery_site.console.actions import act
from retries.services.manual import case_pause
from tests.console.test_case_page import address, text_of
from tests.console.world import World

LogIn = Callable[[User], Client]


def test_a_note_is_kept_with_author_and_time_escaped_and_out_of_the_ledger(
    world: World, log_in: LogIn, caplog: pytest.LogCaptureFixture
) -> None:
    invoice = world.fail()
    ann = world.person("support", first_name="Ann", last_name="Lee")
    client = log_in(ann)
    text = "Maria <b>called</b>:\npays on Friday"
    assert client.post(address(invoice, "note"), {"text": text}).status_code == 302
    note = StaffNote.objects.get()
    assert (note.text, note.author, note.written_at) == (text, f"user:{ann.pk}", world.at)
    page = client.get(address(invoice)).content.decode()
    assert "Maria &lt;b&gt;called&lt;/b&gt;:<br>pays on Friday" in page
    assert "Ann Lee" in text_of(page)
    event = invoice.events.get(kind="staff.note")
    assert (event.actor, event.data) == (f"user:{ann.pk}", {"note": note.public_id})
    assert "Maria" not in caplog.text
    call_command("verify_ledger", "--json")


def test_whoever_acts_while_charging_is_off_is_told_that_it_waits(world: World) -> None:
    invoice, user = world.fail(), world.person()
    Merchant.objects.update(charging_enabled=False)
    told = act("retry", invoice, user=user, reason="asked", now=world.at)
    assert told.endswith("is booked; nothing is sent, because charging is switched off.")


def test_resuming_says_what_comes_next(world: World) -> None:
    invoice, user = world.fail(code="expired_card"), world.person()
    case_pause(invoice_pk=invoice.pk, stamp=world.stamp(f"user:{user.pk}"), reason="wait")
    told = act("resume", invoice, user=user, reason="go on", now=world.at)
    assert told == f"The pause is over. {world.case(invoice).why}"
    assert world.case(invoice).why


def test_a_note_can_be_neither_changed_nor_deleted(world: World) -> None:
    note = note_add(invoice_pk=world.fail().pk, text="so it is", stamp=world.stamp("user:1"))
    for spoil in (lambda: StaffNote.objects.update(text="or not"), lambda: StaffNote.objects.get().delete()):
        with pytest.raises(Error, match="Cannot"), transaction.atomic():
            spoil()
    assert StaffNote.objects.get().text == note.text


def test_card_numbers_are_kept_neither_in_notes_nor_in_reasons(world: World, log_in: LogIn) -> None:
    invoice, client = world.fail(), log_in(world.person())
    client.post(address(invoice, "note"), {"text": "card 4242 4242 4242 4242, call back"})
    assert StaffNote.objects.get().text == "card [filtered], call back"
    client.post(address(invoice, "pause"), {"reason": "gave me 4242424242424242"})
    paused = invoice.events.get(kind="staff.pause")
    assert (paused.data["reason"], paused.cause) == ("gave me [filtered]", "staff: gave me [filtered]")


def test_a_reason_that_is_longer_without_its_secrets_is_refused_in_words(world: World, log_in: LogIn) -> None:
    answer = log_in(world.person()).post(address(world.fail(), "pause"), {"reason": "password=1 " * 16})
    assert (answer.status_code, "Keep the reason below" in answer.content.decode()) == (400, True)


@pytest.mark.parametrize("path", ["note", "retry", "assign"])
def test_whoever_comes_back_to_a_forms_address_lands_on_its_page(world: World, log_in: LogIn, path: str) -> None:
    """Signing in again leads to the address that the form was sent to."""
    invoice = world.fail()
    answer = log_in(world.person()).get(address(invoice, path))
    assert (answer.status_code, answer["Location"]) == (302, address(invoice))


@pytest.mark.parametrize("text", ["", "  \n ", "x" * 2_001])
def test_an_empty_or_endless_note_is_refused_and_what_was_typed_stays(world: World, log_in: LogIn, text: str) -> None:
    answer = log_in(world.person()).post(address(world.fail(), "note"), {"text": text})
    assert answer.status_code == 400
    assert "Write a note of 1 to 2,000 characters." in answer.content.decode()
    assert text in answer.content.decode()
    assert not StaffNote.objects.exists()


def test_an_invoice_is_assigned_to_a_member_and_the_chain_says_so(world: World, log_in: LogIn) -> None:
    invoice, bob = world.fail(), world.person("viewer", first_name="Bob", last_name="Ray")
    client = log_in(world.person("support", first_name="Ann", last_name="Lee"))
    assert "Assigned to nobody yet" in text_of(client.get(address(invoice)).content.decode())
    client.post(address(invoice, "assign"), {"assignee": bob.pk})
    assert Invoice.objects.get().assignee == bob
    client.post(address(invoice, "assign"), {"assignee": bob.pk})
    text = text_of(client.get(address(invoice)).content.decode())
    assert "Assigned to Bob Ray. " in text
    client.post(address(invoice, "assign"), {"assignee": ""})
    told = [event.data for event in invoice.events.filter(kind="staff.assign").order_by("seq")]
    assert told == [{"from": "", "to": f"user:{bob.pk}"}, {"from": f"user:{bob.pk}", "to": ""}]
    assert Invoice.objects.get().assignee is None


def test_only_active_members_can_be_assigned(world: World, log_in: LogIn) -> None:
    invoice, other = world.fail(), World(name="Other")
    stranger, gone = other.person("owner", username="stranger"), world.person(username="gone")
    User.objects.filter(pk=gone.pk).update(is_active=False)
    client = log_in(world.person())
    page = client.get(address(invoice)).content.decode()
    assert "stranger" not in page
    assert "gone" not in page
    for chosen in (stranger.pk, gone.pk, "x", "9" * 30):
        assert client.post(address(invoice, "assign"), {"assignee": chosen}).status_code == 302
    assert Invoice.objects.get().assignee is None
    membership_set(user=stranger, merchant=world.merchant, role="viewer")
    client.post(address(invoice, "assign"), {"assignee": stranger.pk})
    assert Invoice.objects.get().assignee == stranger


def test_viewers_read_and_strangers_do_not_even_know(world: World, log_in: LogIn) -> None:
    invoice, viewer = world.fail(), world.person("viewer")
    note_add(invoice_pk=invoice.pk, text="so it is", stamp=world.stamp("user:1"))
    stranger = World(name="Other").person("owner")
    for user, status in ((viewer, 403), (stranger, 404)):
        for path, body in (("note", {"text": "x"}), ("assign", {"assignee": viewer.pk})):
            assert log_in(user).post(address(invoice, path), body).status_code == status
    page = log_in(viewer).get(address(invoice)).content.decode()
    assert "so it is" in page
    assert "Keep the note" not in page
    assert (StaffNote.objects.count(), Invoice.objects.get().assignee) == (1, None)


def test_many_notes_cost_no_more_queries_than_one(world: World, log_in: LogIn) -> None:
    invoice, client = world.fail(), log_in(world.person())

    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            client.get(address(invoice))
        return len(seen)

    queries()
    note_add(invoice_pk=invoice.pk, text="one", stamp=world.stamp("user:1"))
    one = queries()
    for number in range(4):
        note_add(invoice_pk=invoice.pk, text="more", stamp=world.stamp(f"user:{number}"))
    assert queries() == one


def test_news_brings_notes_and_assignee_without_touching_the_forms(world: World, log_in: LogIn) -> None:
    invoice, client = world.fail(), log_in(world.person())
    seq = Invoice.objects.get().last_seq
    note_add(invoice_pk=invoice.pk, text="from a colleague", stamp=world.stamp("user:1"))
    news = client.get(address(invoice, "live"), {"seq": seq}).content.decode()
    assert "from a colleague" in news
    assert 'id="assignee"' in news
    assert 'name="text"' not in news
