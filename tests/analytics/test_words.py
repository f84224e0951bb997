"""One vocabulary: every state has words and a tone, every event worth telling has a sentence."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.template import Context, Template

from analytics.icons import ICONS
from analytics.selectors.activity import event_line
from analytics.selectors.operations import duration_text
from analytics.templatetags.ui import distance
from analytics.words import CATEGORY_NAMES, CHOICES, TONES, category_name, state_label, state_tone
from providers.categories import Category

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
_TONES = {"accent", "success", "warning", "danger", "info", "violet", "neutral"}


def render(text: str, **context: object) -> str:
    return Template("{% load ui %}" + text).render(Context({"now": NOW, **context}))


@pytest.mark.parametrize("kind", list(CHOICES))
def test_every_state_has_a_label_and_a_known_tone(kind: str) -> None:
    for state in CHOICES[kind].values:
        assert state_label(kind, state)
        assert state_tone(kind, state) in _TONES
    assert set(TONES[kind]) <= set(CHOICES[kind].values)


def test_unknown_state_is_shown_as_it_is_stored() -> None:
    assert render('{% badge "invoice" state %}', state="<odd>") == (
        '<span class="badge" data-tone="neutral">&lt;odd&gt;</span>'
    )


def test_every_category_has_a_name_a_colour_and_no_second_name() -> None:
    assert set(CATEGORY_NAMES) == set(Category)
    assert len(set(CATEGORY_NAMES.values())) == len(CATEGORY_NAMES)
    others = ("other", "usual", "incident", "passed")  # the rest of a chart, and the series of an incident's
    tones = (Path(settings.BASE_DIR) / "static" / "css" / "tones.css").read_text()
    assert set(re.findall(r'\[data-category="(\w+)"\]', tones)) == {*(c.lower() for c in Category), *others}
    assert (category_name(""), category_name("NEW_ONE")) == ("Not classified", "New one")


@pytest.mark.parametrize(
    ("gap", "text"),
    [
        (timedelta(0), "just now"),
        (timedelta(seconds=-59), "just now"),
        (timedelta(seconds=1), "in under a minute"),
        (timedelta(minutes=-1), "1 min ago"),
        (timedelta(minutes=59), "in 59 min"),
        (timedelta(hours=1), "in 1 h"),
        (timedelta(hours=-47), "47 h ago"),
        (timedelta(hours=48), "in 2 days"),
        (timedelta(days=-400), "400 days ago"),
    ],
    ids=str,
)
def test_distances_are_told_in_their_largest_unit(gap: timedelta, text: str) -> None:
    assert distance(NOW + gap, NOW) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (86_400, "24 h"), (172_800, "2 days")],
)
def test_durations_are_told_in_their_largest_unit(seconds: int, text: str) -> None:
    assert duration_text(seconds) == text


def test_times_and_money_in_templates() -> None:
    assert render("{% when at %}", at=NOW) == (
        '<time datetime="2026-11-20T12:00:00+00:00" title="Friday 20 November 2026, 12:00:00 UTC">'
        "Fri 20 Nov, 12:00</time>"
    )
    assert ">20 Nov</time>" in render("{% day at now %}", at=NOW)
    assert ">20 Nov 2025</time>" in render("{% day at now %}", at=NOW - timedelta(days=365))
    assert render("{% when at %}{% day at now %}{% ago at now %}", at=None) == "\N{EN DASH}" * 3
    assert render('{{ 123456|money:"USD" }} {{ 500|money:"JPY" }} {{ 1|money:"KWD" }}') == "$1,234.56 ¥500 KWD0.001"
    assert render('{{ nothing|money:"USD" }}', nothing=None) == ""


def test_figure_without_a_definition_cannot_be_shown() -> None:
    with pytest.raises(KeyError):
        render('{% define "made_up" %}')


def test_icons_are_decoration() -> None:
    assert all('aria-hidden="true"' in icon for icon in ICONS.values())


@pytest.mark.parametrize(
    ("kind", "data", "to_state", "line"),
    [
        ("case.closed", {"amount_minor": 4990}, "RECOVERED", ("Recovered $49.90", "success")),
        ("case.closed", {"amount_minor": 4990, "currency": "JPY"}, "RECOVERED", ("Recovered ¥4,990", "success")),
        ("case.closed", {}, "WRITTEN_OFF", ("Recovery ended: written off", "neutral")),
        (
            "attempt.decline",
            {"category": "SOFT_DECLINE", "raw_code": "do_not_honor"},
            "DECLINED",
            ("Charge failed: soft decline (do_not_honor)", "danger"),
        ),
        (
            "attempt.decline",
            {"category": "INSUFFICIENT_FUNDS", "raw_code": "insufficient_funds"},
            "DECLINED",
            ("Charge failed: insufficient funds", "danger"),
        ),
        ("attempt.error", {}, "ERRORED", ("Charge failed: not classified", "danger")),
        ("alert.paid_twice", {"text": "Paid twice."}, "", ("Paid twice.", "danger")),
        ("alert.odd", {}, "", ("Alert", "danger")),
        ("transaction.created", {}, "INIT", None),
        ("case.planned", {}, "", None),
        ("something.new", {}, "", None),
    ],
)
def test_events_worth_telling_have_a_sentence(
    kind: str, data: dict[str, object], to_state: str, line: tuple[str, str] | None
) -> None:
    assert event_line(kind, data, to_state, "USD") == line
