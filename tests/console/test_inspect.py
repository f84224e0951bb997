"""`inspect` and the look-up behind it: any id leads to its invoice, or one clear line says why not."""

import inspect as standard_inspect
import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.models import Merchant
from invoices.models import Attempt, Dispute, Invoice, ReviewItem, Transaction
from providers.base import DisputeFacts, DisputeStatus, RefundFacts, RefundStatus
from recovery_site.common.errors import Conflict, NotFound
from recovery_site.console.lookup import invoice_find, invoice_pks_find
from retries.models import Case, RetryJob
from tests.console.world import World


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("inspect", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def rich(world: World) -> Invoice:
    """Paid by a retry, partly refunded, disputed."""
    invoice = world.fail(invoice="in_rich", number="INV-77", charge="ch_first")
    world.wait(hours=25)
    attempt = world.charge("ok")
    charge = attempt.provider_id or ""
    world.refund(
        RefundFacts(id="re_7", amount_minor=100, currency="USD", status=RefundStatus.SUCCEEDED, charge_id=charge)
    )
    dispute = DisputeFacts(
        id="dp_7",
        amount_minor=4_990,
        currency="USD",
        status=DisputeStatus.OPEN,
        charge_id=charge,
        reason_code="general",
    )
    world.dispute("", dispute)
    world.pay(invoice)
    return invoice


def test_every_id_leads_to_the_invoice(world: World, rich: Invoice) -> None:
    ours = Attempt.objects.get(origin="OURS", kind="CHARGE")
    references = [
        rich.public_id,
        "in_rich",
        "INV-77",
        "pi_in_rich",
        "ch_first",
        ours.provider_id,
        ours.public_id,
        ours.idempotency_key,
        "re_7",
        "dp_7",
        *Transaction.objects.values_list("public_id", flat=True),
        *Attempt.objects.values_list("public_id", flat=True),
        Dispute.objects.get().public_id,
        Case.objects.get().public_id,
        RetryJob.objects.filter(kind="CHARGE").latest("id").public_id,
        ReviewItem.objects.filter(kind="paid_twice").get().public_id,
    ]
    merchants = Merchant.objects.all()
    world.fail(customer="cus_other", token="tok_other")
    assert {reference: invoice_pks_find(str(reference), merchants) for reference in references} == {
        reference: [rich.pk] for reference in references
    }
    assert invoice_find(f"  {rich.public_id}\n", merchants).pk == rich.pk


@pytest.mark.parametrize(
    "reference",
    ["", " ", "inv_00000000000000000000000000", "ch_nothing", "x" * 201, "a\x00b", "%", "in_ric", "IN_RICH"],
)
def test_what_is_not_known_is_not_guessed(world: World, rich: Invoice, reference: str) -> None:
    assert invoice_pks_find(reference, Merchant.objects.all()) == []
    with pytest.raises(NotFound):
        invoice_find(reference, Merchant.objects.all())


def test_an_id_that_two_merchants_use_is_ambiguous_until_one_is_named(world: World, rich: Invoice) -> None:
    other = World(name="Other").fail(invoice="in_rich")
    with pytest.raises(Conflict) as caught:
        invoice_find("in_rich", Merchant.objects.all())
    assert rich.public_id in caught.value.message
    assert other.public_id in caught.value.message
    assert invoice_find("in_rich", Merchant.objects.filter(name="Other")).pk == other.pk


def test_a_providers_id_that_looks_like_ours_is_still_found(world: World) -> None:
    invoice = world.fail(invoice="inv_of_the_provider")
    assert invoice_pks_find("inv_of_the_provider", Merchant.objects.all()) == [invoice.pk]


def test_foreign_merchants_are_not_searched(world: World, rich: Invoice) -> None:
    stranger = World(name="Other").merchant
    mine = Merchant.objects.filter(pk=stranger.pk)
    assert [invoice_pks_find(text, mine) for text in (rich.public_id, "in_rich", "INV-77", "re_7")] == [[], [], [], []]


def test_json_is_one_object_with_the_promised_keys(world: World, rich: Invoice) -> None:
    answer: dict[str, Any] = json.loads(run(rich.public_id, "--json", "--at", world.at.isoformat()))
    assert {
        "invoice", "status", "next_step", "attempts", "tokens", "timeline", "transactions", "case",
    } <= set(answer)  # fmt: skip
    assert (answer["invoice"], answer["status"]) == (rich.public_id, "SETTLED")
    assert set(answer["next_step"]) == {"step", "at", "why", "notes"}
    assert [row["status"] for row in answer["attempts"] if row["kind"] == "CHARGE"] == [
        "DECLINED",
        "SUCCEEDED",
        "SUCCEEDED",
    ]
    assert {row["status"] for row in answer["transactions"]} == {"DONE"}
    assert answer["case"]["recovered_by"] == "retry"
    assert answer["tokens"][0]["remaining"] == 14
    assert answer["timeline"][0]["text"] == "The invoice over $49.90 arrived."
    assert [row["reason_code"] for row in answer["disputes"]] == ["general"]


def test_the_next_step_of_an_open_invoice_in_json(world: World) -> None:
    invoice = world.fail()
    step = json.loads(run(invoice.public_id, "--json", "--at", world.at.isoformat()))["next_step"]
    assert step == {
        "step": "booked",
        "at": "2026-11-21T12:00:00+00:00",
        "why": "Retry 1 of 2 after insufficient funds. With the Visa •••• 4242: There was not enough money on the"
        " account, so it may be tried again later.",
        "notes": [],
    }


def test_at_is_the_now_of_budgets_and_distances(world: World) -> None:
    invoice = world.fail()
    later = json.loads(run(invoice.public_id, "--json", "--at", "2026-12-25T12:00:00Z"))
    assert later["tokens"][0]["remaining"] == 15
    assert later["next_step"]["notes"] == ["It has been due for 34 days and leaves as soon as a worker takes it."]


def test_for_people(world: World, rich: Invoice) -> None:
    text = run("re_7", "--at", world.at.isoformat())
    assert text.startswith(f"Invoice INV-77 ({rich.public_id}) of Acme: Settled\n")
    assert "Next step: Nothing left to do\n" in text
    assert "  2. Sat 21 Nov 13:00 UTC  $49.90  Visa •••• 4242  Succeeded\n" in text


def test_an_unknown_id_is_one_clear_line(world: World) -> None:
    with pytest.raises(CommandError) as caught:
        run("ch_nothing", "--json")
    assert str(caught.value) == (
        "Nothing is known under 'ch_nothing'; give an invoice, transaction, attempt, payment, charge or refund id."
    )


def test_an_unknown_merchant_is_one_clear_line(world: World) -> None:
    with pytest.raises(CommandError, match="There is no merchant 'Nobody'"):
        run("INV-1", "--merchant", "Nobody")


def test_the_command_does_not_hide_the_standard_library() -> None:
    assert standard_inspect.__name__ == "inspect"
    assert hasattr(standard_inspect, "signature")
