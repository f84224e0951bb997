"""Python hooks: they run from the outbox, each for itself, and are tried again when they raise."""

import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from invoices import outbox
from invoices.models import Event, OutboxMessage
from invoices.services.outbox import outbox_drain
from recovery_site.common.errors import InvalidInput
from tests.support.quiet import quiet
from tests.webhooks.door import Door
from tests.webhooks.renewal import OLD, Renewal, moment
from webhooks.hooks import PublicEvent, hooks_load, on

NOW = moment(60)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks of one test are gone after it."""
    monkeypatch.setattr(outbox, "_consumers", dict(outbox._consumers))


@pytest.mark.django_db(transaction=True)
def test_hooks_hear_of_their_type_after_the_commit_and_are_tried_again(door: Door) -> None:
    heard: list[PublicEvent] = []
    tries: list[str] = []

    @on("case_opened")
    def remember(event: PublicEvent) -> None:
        heard.append(event)

    @on("case_opened")
    def breaks(event: PublicEvent) -> None:
        tries.append(event.id)
        if len(tries) == 1:
            raise ZeroDivisionError("not now")

    @on("retry_exhausted")
    def never(event: PublicEvent) -> None:
        pytest.fail("another type")

    door.tell(NOW, Renewal(OLD).charge_failed())
    assert heard == []
    quiet()
    outbox_drain(now=NOW)
    opened = Event.objects.get(kind="case.opened")
    assert [(event.type, event.occurred_at) for event in heard] == [("case_opened", opened.occurred_at)]
    assert heard[0].data["invoice"]["id"] == door.invoice().public_id
    handed = OutboxMessage.objects.filter(event=opened, consumer__startswith="hook:").order_by("consumer")
    assert list(handed.values_list("consumer", "done_at", "last_error")) == [
        ("hook:breaks", None, "ZeroDivisionError: not now"),
        ("hook:remember", NOW, ""),
    ]
    OutboxMessage.objects.filter(done_at=None).update(due_at=opened.recorded_at)
    quiet()
    outbox_drain(now=NOW)
    assert (len(heard), tries) == (1, [heard[0].id] * 2)


@pytest.mark.django_db
def test_without_a_hook_for_it_nothing_is_written_for_one(door: Door) -> None:
    @on("retry_exhausted")
    def later(event: PublicEvent) -> None: ...

    door.tell(NOW, Renewal(OLD).charge_failed())
    assert not OutboxMessage.objects.filter(consumer__startswith="hook:").exists()


def test_an_unknown_type_and_a_taken_name_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no event type 'retry_sucess'; there are case_opened, "):
        on("retry_sucess")

    def hook(event: PublicEvent) -> None: ...

    on("retry_success")(hook)
    with pytest.raises(InvalidInput, match="already"):
        on("retry_exhausted")(hook)

    def a_hook_whose_name_is_far_too_long_for_the_column_that_has_to_hold_it(event: PublicEvent) -> None: ...

    with pytest.raises(InvalidInput, match="shorter name"):
        on("retry_success")(a_hook_whose_name_is_far_too_long_for_the_column_that_has_to_hold_it)


def test_modules_named_in_the_settings_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    source = 'from webhooks.hooks import on\n\n@on("retry_success")\ndef celebrate(event): ...\n'
    (tmp_path / "shop_hooks.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    settings.EVENT_HOOKS = ["shop_hooks"]
    try:
        hooks_load()
        assert outbox.consumer("hook:celebrate") is not None
    finally:
        sys.modules.pop("shop_hooks", None)
    settings.EVENT_HOOKS = ["shop_hoks"]
    with pytest.raises(ImproperlyConfigured, match="EVENT_HOOKS names 'shop_hoks'"):
        hooks_load()
