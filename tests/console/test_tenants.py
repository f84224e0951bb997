"""Every page and every form of the console, the dashboards and the admin, asked by another merchant's owner for the
ids of this one: refused, and nothing changes. The addresses come from the resolver, so a new one is asked, too."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from accounts.models import User
from analytics.models import Incident
from analytics.spikes.detect import Dimension
from invoices.models import Invoice, ReviewItem
from notifications.models import Alert, Message, MessageTemplate
from retries.models import PolicyVersion
from retries.policy import preset_document
from retries.services.cases import policy_version_create
from retries.services.overrides import decline_override_set
from tests.console.test_admin import TENANT, change, changelist, fill, staff
from tests.console.world import World
from tests.support.snapshot import changed, snapshot
from tokens.models import RetryLimit

LogIn = Callable[[User], Client]
# Addresses whose parts are nobody's: names of reports and providers, the admin's own.
_NOBODYS = {
    "dashboard-report",
    "dashboard-report-export",
    "console:connection-new",
    "admin:app_list",
    "admin:None",
}
# Who knows such an address is the one it is for (an unguessable token or a signature), as with all of `hosted:`.
_SECRET = {"webhook-receive", "mail-reports"}
_REFUSED = (302, 403, 404, 405)


def patterns(found: list[Any] | None = None, space: str = "") -> Iterator[tuple[str, URLPattern]]:
    """Every pattern outside the API with its full name."""
    for one in get_resolver().url_patterns if found is None else found:
        if isinstance(one, URLResolver):
            if not str(one.pattern).startswith("api/"):
                yield from patterns(one.url_patterns, f"{one.namespace}:" if one.namespace else space)
        else:
            yield f"{space}{one.name}", one


def per_row(name: str) -> bool:
    """The admin's four pages per row, which are asked for every model."""
    return name.startswith("admin:") and name.endswith(("_history", "_delete", "_change", "password_change"))


@pytest.fixture
def theirs(world: World) -> World:
    """What the stranger must not see, a row of every kind."""
    zebra = World(name="Zebra")
    fill(zebra)
    lost = zebra.fail(invoice="in_zebra_2", customer="cus_zebra_2", token="tok_zebra_2")
    zebra.wait(hours=25)
    zebra.charge("lost")
    ReviewItem.objects.create(
        merchant=zebra.merchant,
        invoice=lost,
        kind="unknown_attempt",
        subject_type="attempt",
        subject_id=lost.attempts.latest("pk").public_id,
        choices=["charged", "not_charged"],
        opened_at=zebra.at,
    )
    about = {"merchant": zebra.merchant, "invoice": lost}
    Message.objects.create(
        **about, customer=lost.customer, audience="customer", template="update_card", note_key="x", planned_for=zebra.at
    )
    times = dict.fromkeys(("started_at", "found_at", "seen_at"), zebra.at)
    Incident.objects.create(
        merchant=zebra.merchant,
        dimension=Dimension.CODE,
        key="x",
        name="Zebra",
        attempts=1,
        failed=1,
        expected=0,
        **times,
    )
    Alert.objects.create(**about, kind="exhausted", text="Zebra", raised_at=zebra.at)
    MessageTemplate.objects.create(
        merchant=zebra.merchant, name="update_card", locale="en", subject="Zebra", body="Zebra", button="Pay"
    )
    policy_version_create(
        merchant_id=zebra.merchant.pk, document=preset_document("low_value"), note="Zebra", created_by="user:1"
    )
    decline_override_set(
        merchant=zebra.merchant, provider="stripe", code="odd", category="HARD_DECLINE", note="Zebra", created_by="x"
    )
    RetryLimit.objects.create(merchant=zebra.merchant, network="visa", name="max_retries_per_day", limit=1)
    return zebra


def addresses(zebra: World) -> dict[str, dict[str, Any]]:
    """For every name with parts: one of theirs."""
    invoice = Invoice.objects.filter(merchant=zebra.merchant).latest("pk")
    review = ReviewItem.objects.get(merchant=zebra.merchant, resolved_at=None, kind="unknown_attempt")
    message = Message.objects.get(merchant=zebra.merchant)
    template = MessageTemplate.objects.get(merchant=zebra.merchant)
    old, new = PolicyVersion.objects.filter(merchant=zebra.merchant).order_by("pk")[:2]
    connection = {"public_id": zebra.connection.public_id}
    content = ContentType.objects.get_for_model(Invoice)
    return {
        **{f"console:{name}": {"public_id": review.public_id} for name in ("queue-take", "queue-answer")},
        **{
            f"console:{name}": {"public_id": invoice.public_id}
            for name in ("invoice", "invoice-live", "invoice-note", "invoice-assign")
        },
        "console:invoice-act": {"public_id": invoice.public_id, "action": "cancel"},
        **{f"console:connection{part}": connection for part in ("", "-live", "-check", "-credentials", "-webhooks")},
        "dashboard-incident": {"public_id": Incident.objects.get(merchant=zebra.merchant).public_id},
        "dashboard-message": {"public_id": message.public_id},
        "dashboard-message-html": {"public_id": message.public_id},
        "admin:view_on_site": {"content_type_id": content.pk, "object_id": invoice.pk},
        "admin:auth_user_password_change": {"id": zebra.person("owner").pk},
        "admin:retries_policy_edit": {"public_id": zebra.merchant.public_id},
        "admin:policy_compare": {"old": old.pk, "new": new.pk},
        "admin:notifications_message_html": {"pk": message.pk},
        "admin:notifications_messagetemplate_preview": {"pk": template.pk},
        "admin:notifications_messagetemplate_preview_html": {"pk": template.pk},
    }


FORM = {"reason": "x", "choice": "charged", "confirmed": "1", "secret": "whsec_x", "api_key": "x", "password": "x"}


def test_no_address_knows_the_ids_of_another_merchant(world: World, theirs: World, log_in: LogIn) -> None:
    named = addresses(theirs)
    asked, wrong = 0, []
    stranger, nobody = log_in(staff(world, "owner")), Client()
    before = snapshot()
    for name, pattern in patterns():
        if (
            not pattern.pattern.regex.groups
            or name in _NOBODYS | _SECRET
            or name.startswith("hosted:")
            or per_row(name)
        ):
            continue
        if pattern.name is None:
            continue  # the admin's address of a row without what to do with it, which leads to `change`
        assert name in named, f"{name} takes an id that this test does not know yet"
        address = reverse(name, kwargs=named[name])
        for client in (stranger, nobody):
            for answer in (client.get(address), client.post(address, FORM)):
                asked += 1
                refused = answer.status_code in _REFUSED or (client is nobody and answer.status_code == 204)
                if not refused or b"Zebra" in answer.content:
                    wrong.append((name, answer.request["REQUEST_METHOD"], answer.status_code))
    assert wrong == []
    assert asked >= 60
    assert changed(before) == set()


@pytest.mark.parametrize("app", sorted({model._meta.app_label for model in admin.site._registry}))
def test_lists_forms_and_actions_of_the_admin_touch_only_ones_own(
    world: World, theirs: World, log_in: LogIn, app: str
) -> None:
    user = staff(world, "owner")
    stranger, before, wrong = log_in(user), snapshot(), []
    asking = RequestFactory().get("/")
    asking.user = user
    for model, model_admin in admin.site._registry.items():
        if model._meta.app_label != app:
            continue
        listed = stranger.get(changelist(model))
        if model not in TENANT:
            forms = [stranger.get(changelist(model)), stranger.post(f"{changelist(model)}add/", {})]
            wrong += [(model.__name__, one.status_code) for one in forms if one.status_code != 403]
            continue
        filtered = stranger.get(changelist(model), {"merchant__id__exact": theirs.merchant.pk})
        if b"Zebra" in listed.content + filtered.content:
            wrong.append((model.__name__, "list"))
        row = row_of(model, theirs)
        if row is None:
            continue
        for suffix in ("change/", "delete/", "history/"):
            address = change(row).removesuffix("change/") + suffix
            for answer in (stranger.get(address), stranger.post(address, {"post": "yes", **FORM})):
                if answer.status_code not in _REFUSED or b"Zebra" in answer.content:
                    wrong.append((model.__name__, suffix, answer.status_code))
        for action in model_admin.get_actions(asking):
            stranger.post(changelist(model), {"action": action, "_selected_action": [row.pk], **FORM})
        stranger.post(f"{changelist(model)}add/", {"merchant": theirs.merchant.pk, "name": "x", "scopes": ["read"]})
    assert wrong == []
    assert changed(before) == set()


def row_of(model: type[Model], zebra: World) -> Model | None:
    model_admin = admin.site.get_model_admin(model)
    path = getattr(model_admin, "merchant_path", "merchant") or "pk"
    return model._default_manager.filter(**{path: zebra.merchant.pk}).first()


def test_no_page_takes_another_merchant_from_its_address(world: World, theirs: World, log_in: LogIn) -> None:
    stranger, seen = log_in(staff(world, "owner")), 0
    unread = Alert.objects.filter(merchant=theirs.merchant).values_list("pk", flat=True)
    before = snapshot()
    for name, pattern in patterns():
        if pattern.pattern.regex.groups or not name.startswith(("console:", "dashboard")):
            continue
        address = f"{reverse(name)}?merchant={theirs.merchant.public_id}"
        for answer in (stranger.get(address), stranger.post(address, {"alert": list(unread)})):
            assert answer.status_code in (404, 405), (name, answer.status_code)
            seen += 1
    assert seen >= 18
    stranger.post(reverse("dashboard-alerts-seen"), {"alert": list(unread)})
    assert changed(before) == set()
