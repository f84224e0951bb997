"""The policy editor: messages name the field, a preview shows what an invoice would get, versions are compared."""

import json
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.urls import reverse

from accounts.models import User
from retries.documents import documents_diff
from retries.models import DeclineOverride, PolicyVersion
from retries.policy import PRESETS, parse_policy, preset_document
from retries.previews import policy_preview
from retries.services.cases import policy_version_create, policy_version_current
from retries.unlisted import unlisted_codes
from tests.console.test_admin import staff
from tests.console.world import World

LogIn = Callable[[User], Client]


def editor(world: World) -> str:
    return reverse("admin:retries_policy_edit", args=[world.merchant.public_id])


def changed(**changes: Any) -> dict[str, Any]:
    return {**preset_document("standard"), **changes}


def send(client: Client, world: World, document: object, **more: str) -> Any:
    text = document if isinstance(document, str) else json.dumps(document)
    return client.post(editor(world), {"document": text, **more})


# --- the editor ---------------------------------------------------------------------------------------------------


def test_a_new_version_is_saved_and_running_cases_keep_theirs(world: World, log_in: LogIn) -> None:
    running = world.fail()
    client = log_in(staff(world, "manager"))
    page = client.get(editor(world))
    assert (page.status_code, '"name": "standard"' in page.content.decode().replace("&quot;", '"')) == (200, True)
    document = changed(horizon="10d")
    saved = send(client, world, document, save="yes", note="Shorter, because finance asked", based_on="1")
    assert saved.status_code == 302
    version = policy_version_current(world.merchant.pk)
    assert (version.version, version.document["horizon"], version.note) == (2, "10d", "Shorter, because finance asked")
    assert version.created_by.startswith("user:")
    assert world.case(running).policy_version.version == 1
    assert world.case(world.fail(customer="cus_2", token="tok_2")).policy_version.version == 2
    page = client.get(saved["Location"]).content.decode()
    assert "1 open case follows this version" in page


@pytest.mark.parametrize(
    ("document", "field", "words"),
    [
        ("{", "", "This is no JSON"),
        ("[]", "", "has the wrong type"),
        (changed(horizon="soon"), "/horizon", "write a duration like"),
        (changed(grace="1d"), "/grace", "ends before the horizon"),
        (changed(quiet_hours={"start": "21:00"}), "/quiet_hours/end", "missing"),
        (changed(unknown_code={"strategy": "magic"}), "/unknown_code/strategy", "no timing strategy"),
        (changed(budgets={"automatic": -1}), "/budgets/automatic", "too low"),
    ],
)
def test_messages_name_the_field_and_nothing_is_saved(
    world: World, log_in: LogIn, document: object, field: str, words: str
) -> None:
    page = send(log_in(staff(world, "owner")), world, document, save="yes", note="x")
    text = page.content.decode()
    assert (page.status_code, words in text) == (400, True)
    assert f"<code>{field}</code>" in text or not field
    assert PolicyVersion.objects.filter(merchant=world.merchant).count() == 1
    assert page.context["draft"].text == (document if isinstance(document, str) else json.dumps(document))


def test_a_version_needs_a_note_a_change_and_a_basis_that_still_holds(world: World, log_in: LogIn) -> None:
    client, document = log_in(staff(world, "owner")), changed(horizon="10d")
    policy_version_current(world.merchant.pk)
    assert "Say what changed" in send(client, world, document, save="yes").content.decode()
    unchanged = send(client, world, preset_document("standard"), save="yes", note="x").content.decode()
    assert "Nothing differs from the version in force." in unchanged
    other = changed(name="other")
    policy_version_create(merchant_id=world.merchant.pk, document=other, note="n", created_by="user:9")
    late = send(client, world, document, save="yes", note="x", based_on="1").content.decode()
    assert "Somebody saved another version meanwhile" in late
    assert policy_version_current(world.merchant.pk).version == 2


def test_the_preview_shows_the_attempts_and_messages_this_invoice_would_get(world: World, log_in: LogIn) -> None:
    invoice = world.fail()
    page = send(log_in(staff(world, "owner")), world, changed(), check="yes", invoice=invoice.public_id)
    preview = page.context["draft"].preview
    assert (preview.segment, preview.category, preview.code) == (
        "new_customer",
        "INSUFFICIENT_FUNDS",
        "insufficient_funds",
    )
    assert [step.at - world.at for step in preview.tries] == [timedelta(days=1), timedelta(days=2)]
    assert preview.ends == "All 2 retries after insufficient funds are spent."
    assert [step.what for step in preview.messages] == ["reminder", "final_notice"]
    text = page.content.decode()
    assert "Retry 2 of 2 after insufficient funds." in text
    assert "the case closes and the invoice stays open" in text
    missing = send(log_in(staff(world, "owner")), world, changed(), check="yes", invoice="inv_nobody")
    assert "has no invoice inv_nobody" in missing.content.decode()


def test_the_preview_counts_the_networks_limits_and_other_codes(world: World) -> None:
    invoice = world.fail()
    policy = parse_policy(
        changed(
            categories={
                **preset_document("standard")["categories"],
                "SOFT_DECLINE": {"strategy": "fixed", "delays": ["1h"], "max_attempts": 20},
            },
            budgets={"automatic": None},
        )
    )
    preview = policy_preview(policy, invoice, code="do_not_honor", now=world.at)
    hours = [step.at - world.at for step in preview.tries]
    # Visa allows 15 declines in 30 days: two have happened (the real one and the one supposed), so 13 more fit.
    assert hours == [timedelta(hours=number + 1) for number in range(13)]
    assert preview.ends == "The network's limits leave no room before the policy's horizon."
    assert policy_preview(policy, invoice, code="lost_card", now=world.at).tries == ()


def test_who_may_not_change_a_policy_sees_no_editor(world: World, log_in: LogIn) -> None:
    assert log_in(staff(world, "support")).get(editor(world)).status_code == 403
    assert log_in(staff(World(name="Zebra", at=world.at), "owner")).get(editor(world)).status_code == 404


# --- differences --------------------------------------------------------------------------------------------------


def test_the_difference_between_two_versions_names_every_value(world: World, log_in: LogIn) -> None:
    before = policy_version_current(world.merchant.pk)
    after = policy_version_create(
        merchant_id=world.merchant.pk, document=changed(horizon="10d"), note="", created_by="x"
    )
    client = log_in(staff(world, "viewer"))
    page = client.get(reverse("admin:policy_compare", args=[before.pk, after.pk])).content.decode()
    assert "<code>/horizon</code>" in page
    assert page.count("<del>") == 1
    stranger = log_in(staff(World(name="Zebra", at=world.at), "owner"))
    assert stranger.get(reverse("admin:policy_compare", args=[before.pk, after.pk])).status_code == 404


def test_moving_a_segment_is_no_change_of_what_it_says() -> None:
    document = preset_document("standard")
    moved = {**document, "segments": document["segments"][::-1]}
    assert documents_diff(document, moved) == []
    without = {**document, "segments": document["segments"][1:]}
    assert {change.pointer.split("/")[2] for change in documents_diff(document, without)} == {"high_value"}
    assert all(change.after == "" for change in documents_diff(document, without))


# --- files --------------------------------------------------------------------------------------------------------


def run(*arguments: str, **options: Any) -> dict[str, Any]:
    out = StringIO()
    call_command("policy", *arguments, "--json", stdout=out, **options)
    return json.loads(out.getvalue())


def test_a_policy_is_exported_changed_and_imported(world: World, tmp_path: Path) -> None:
    name, path = world.merchant.name, tmp_path / "policy.json"
    told = run("export", merchant=name)
    assert (told["version"], told["document"]) == (1, preset_document("standard"))
    told["document"]["horizon"] = "10d"
    path.write_text(json.dumps(told), encoding="utf-8")
    change = [{"field": "/horizon", "before": '"21d"', "after": '"10d"'}]
    assert run("import", merchant=name, file=str(path), dry_run=True)["changes"] == change
    assert policy_version_current(world.merchant.pk).version == 1
    assert run("import", merchant=name, file=str(path), note="why")["version"] == 2
    assert run("export", merchant=name, number=1)["document"]["horizon"] == "21d"
    assert [one["note"] for one in run("list", merchant=name)["versions"]] == ["why", "Shipped preset: standard"]


def test_a_bad_file_is_refused_with_every_field(world: World, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(changed(horizon="soon", grace="never")), encoding="utf-8")
    with pytest.raises(CommandError, match=r"(?s)/grace:.*/horizon:"):
        run("import", merchant=world.merchant.name, file=str(path))
    with pytest.raises(CommandError, match="cannot be read as JSON"):
        run("check", file=str(tmp_path / "nowhere.json"))


def test_every_shipped_preset_is_valid_and_explained() -> None:
    text = Path("docs/policies.md").read_text(encoding="utf-8")
    for name in PRESETS:
        assert run("check", preset=name)["name"] == name
        assert f"`{name}`" in text


# --- codes --------------------------------------------------------------------------------------------------------


def report(world: World) -> list[tuple[str, int]]:
    return [(one.code, one.count) for one in unlisted_codes([world.merchant], now=world.at)]


def test_unknown_codes_are_counted_and_one_click_makes_them_known(world: World, log_in: LogIn) -> None:
    for number, code in enumerate(("brand_new_code", "brand_new_code", "Odd One")):
        world.fail(customer=f"cus_{number}", token=f"tok_{number}", code=code)
    assert report(world) == [("brand_new_code", 2), ("Odd One", 1)]
    address = reverse("admin:retries_unknown_codes")
    client = log_in(staff(world, "manager"))
    page = client.get(address).content.decode()
    assert "brand_new_code" in page
    data = {"merchant": str(world.merchant.pk), "provider": world.connection.provider, "code": "brand_new_code"}
    page = client.post(address, {**data, "category": "HARD_DECLINE"}, follow=True).content.decode()
    assert f"The code brand_new_code of {world.connection.provider} is read as hard decline from now on." in page
    assert report(world) == [("Odd One", 1)]
    later = world.fail(customer="cus_9", token="tok_9", code="brand_new_code")
    assert (world.case(later).category, world.case(later).next_step) == ("HARD_DECLINE", "customer")
    out = StringIO()
    call_command("unknown_codes", merchant=world.merchant.name, at=world.at, stdout=out)
    assert "Odd One" in out.getvalue()


def test_overrides_are_versioned_and_taken_back(world: World, log_in: LogIn) -> None:
    client = log_in(staff(world, "manager"))
    add = reverse("admin:retries_declineoverride_add")
    data = {"merchant": world.merchant.pk, "provider": world.connection.provider, "code": "do_not_honor", "note": "n"}
    for category in ("HARD_DECLINE", "INSUFFICIENT_FUNDS", ""):
        assert client.post(add, {**data, "category": category}).status_code == 302
    rows = DeclineOverride.objects.order_by("version").values_list("version", "category")
    assert list(rows) == [(1, "HARD_DECLINE"), (2, "INSUFFICIENT_FUNDS"), (3, "")]
    assert world.case(world.fail(code="do_not_honor")).category == "SOFT_DECLINE"
    page = client.post(add, {**data, "code": "never_seen", "category": ""}, follow=True).content.decode()
    assert "There is no override of this code that could be taken back." in page
    assert log_in(staff(world, "support")).get(add).status_code == 403


def test_a_viewer_reads_the_report_and_changes_nothing(world: World, log_in: LogIn) -> None:
    world.fail(code="brand_new_code")
    client, address = log_in(staff(world, "viewer")), reverse("admin:retries_unknown_codes")
    assert "a manager decides" in client.get(address).content.decode()
    data = {"merchant": str(world.merchant.pk), "provider": world.connection.provider, "code": "brand_new_code"}
    assert client.post(address, {**data, "category": "HARD_DECLINE"}).status_code == 403
    assert not DeclineOverride.objects.exists()


def test_each_missing_field_is_named_once(world: World, log_in: LogIn) -> None:
    told = send(log_in(staff(world, "manager")), world, {}).content.decode()
    for name in ("format", "name", "horizon", "categories"):
        assert told.count(f"<code>/{name}</code>") == 1, name


def test_a_document_without_end_is_refused_in_words(world: World, log_in: LogIn) -> None:
    assert "nested too deeply" in send(log_in(staff(world, "manager")), world, "[" * 50_000).content.decode()
