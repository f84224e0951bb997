"""A stored decision says of every token why it was or was not chosen."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tokens.choice import considered
from tokens.selectors import TokenOption

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
CHOSEN = TokenOption(
    pk=1,
    public_id="tok_1",
    card_pk=1,
    label="Visa •••• 4242",
    network="visa",
    usable=True,
    obstacle="",
    allowed_at=NOW,
    limit_text="",
    remaining=15,
    is_default=True,
    last_success_at=NOW - DAY,
    last_attempt_at=None,
    expires_at=NOW + 100 * DAY,
)
RULE = "amex max_retries_per_day: 1 per 24 hours and card"


def reason(other: TokenOption, chosen: TokenOption | None = CHOSEN) -> str:
    options = [one for one in (chosen, other) if one is not None]
    return str(considered(options, chosen.pk if chosen else None)[-1]["reason"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"usable": False, "obstacle": "expired in 10/2026"}, "expired in 10/2026"),
        ({"allowed_at": NOW + DAY, "limit_text": RULE}, f"not before 2026-11-21 12:00 UTC: {RULE}"),
        ({"allowed_at": NOW - DAY}, "another one was asked for"),
        ({"last_success_at": None}, "another one was paid with more recently"),
        ({"last_success_at": NOW - 2 * DAY}, "another one was paid with more recently"),
        ({"last_success_at": NOW}, "another one was asked for"),
        ({"is_default": False}, "another one is the customer's default"),
        ({"expires_at": NOW + 90 * DAY}, "another one is good for longer"),
        ({"expires_at": None}, "another one is good for longer"),
        ({"expires_at": NOW + 200 * DAY}, "another one was asked for"),
        ({}, "another one is known for longer"),
        ({"pk": 0}, "another one was asked for"),
    ],
)
def test_every_other_token_has_its_reason(change: dict[str, object], why: str):
    assert reason(replace(CHOSEN, **{"pk": 2, **change})) == why  # type: ignore[arg-type]


def test_the_chosen_one_says_what_it_waits_for():
    assert considered([CHOSEN], 1)[0]["reason"] == "chosen"
    waiting = replace(CHOSEN, allowed_at=NOW + DAY, limit_text=RULE)
    assert considered([waiting], 1)[0] == {
        "token": "tok_1",
        "chosen": True,
        "reason": f"chosen; waits: {RULE}",
        "usable": True,
        "obstacle": "",
        "allowed_at": "2026-11-21T12:00:00+00:00",
        "limit": RULE,
        "remaining": 15,
    }


def test_where_none_was_chosen_each_says_what_holds_it_back():
    assert reason(CHOSEN, None) == "not asked for"
    assert reason(replace(CHOSEN, limit_text=RULE), None) == f"not before 2026-11-20 12:00 UTC: {RULE}"
