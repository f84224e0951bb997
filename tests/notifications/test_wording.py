"""What customers read: complete in every language, never a raw code, never a suspicion."""

import csv
import re
from datetime import UTC, datetime
from string import Formatter
from zoneinfo import ZoneInfo

import pytest
from django.conf import settings
from hypothesis import given
from hypothesis import strategies as st

from notifications.catalogue import LANGUAGES, _document, language_of, shipped_names, shipped_templates, wording
from notifications.reasons import reason_key
from notifications.rendering import (
    LINK_MARK,
    PLACEHOLDERS,
    TextTemplate,
    choose_template,
    fill,
    plain_text,
    problems_in,
    with_links,
)
from recovery_site.common.money import format_money_locally
from retries.categories import Category
from retries.policy import Audience, parse_policy, preset_document

_SUSPICION = re.compile(r"fraud|stolen|lost card|betrug|gestohlen|verdacht|fraude|volé|robad|sospech", re.IGNORECASE)


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_the_same_things_with_the_same_values(language: str) -> None:
    mine, english = _document(language), _document("en")
    for section in ("words", "reasons", "mail", "page"):
        assert {key: fields(text) for key, text in mine[section].items()} == {
            key: fields(text) for key, text in english[section].items()
        }
    names = [(entry["name"], entry.get("category", "")) for entry in mine["templates"]]
    assert names == [(entry["name"], entry.get("category", "")) for entry in english["templates"]]
    for entry in mine["templates"]:
        for part in ("subject", "body", "button"):
            assert problems_in(entry[part]) == []
    assert not _SUSPICION.search(str(mine))


def test_every_customer_step_of_the_shipped_policies_has_a_text() -> None:
    for name in ("standard", "doubling", "high_value", "low_value"):
        policy = parse_policy(preset_document(name))
        for chosen in (policy.default, *policy.by_segment.values()):
            used = {step.template for step in chosen.messages if step.audience is Audience.CUSTOMER}
            assert used <= set(shipped_names())


def test_no_decline_code_of_any_provider_is_told_to_the_payer_or_makes_them_a_suspect() -> None:
    """Over all decline tables that are shipped: the payer reads one of the catalogue's sentences."""
    known, codes = set(_document("en")["reasons"]), 0
    for table in sorted((settings.BASE_DIR / "providers").glob("*/declines.csv")):
        with table.open(encoding="utf-8", newline="") as rows:
            for row in csv.DictReader(rows):
                code = next((row[name] for name in ("code", "raw_code") if name in row), "")
                for category in Category:
                    assert reason_key(category, code) in known
                codes += 1
    assert codes > 100


@pytest.mark.parametrize(
    ("category", "code", "key"),
    [
        ("FRAUD_FLAGGED", "fraudulent", "bank"),
        ("HARD_DECLINE", "stolen_card", "bank"),
        ("HARD_DECLINE", "lost_card", "bank"),
        ("HARD_DECLINE", "incorrect_number", "card_unusable"),
        ("HARD_DECLINE", "expired_card", "expired"),
        ("INSUFFICIENT_FUNDS", "51", "funds"),
        ("SOFT_DECLINE", "do_not_honor", "bank"),
        ("SOFT_DECLINE", "card_velocity_exceeded", "limit"),
        ("AUTHENTICATION_REQUIRED", "authentication_required", "confirm"),
        ("NETWORK_ERROR", "", "technical"),
        ("", "", "bank"),
    ],
)
def test_reasons_in_the_customers_words(category: str, code: str, key: str) -> None:
    assert reason_key(category, code) == key
    assert reason_key(category, code, returned=True) == "returned"


def test_locales_find_their_language_and_write_dates_and_amounts_their_way() -> None:
    late = datetime(2026, 3, 2, 23, 30, tzinfo=UTC)
    assert wording("de-AT").date(late, ZoneInfo("Europe/Vienna")) == "3. März 2026"
    assert wording("en-US").date(late, ZoneInfo("America/New_York")) == "March 2, 2026"
    assert wording("es").month(2027, 1) == "enero 2027"
    assert (language_of("fr_CA"), language_of("nl-NL"), language_of("")) == ("fr", "", "")
    assert wording("nl-NL").language == "en"
    amounts = [format_money_locally(123_450, currency, "de") for currency in ("EUR", "JPY", "KWD")]
    assert [amount.replace("\N{NO-BREAK SPACE}", " ") for amount in amounts] == [
        "1.234,50 €",
        "123.450 ¥",
        "123,450 KWD",
    ]


def text(**known: str) -> TextTemplate:
    return TextTemplate(
        **{
            "name": "reminder",
            "locale": "en",
            "segment": "",
            "category": "",
            "subject": "s",
            "body": "b",
            "button": "go",
            "source": "",
            **known,
        }
    )


def test_customers_language_comes_before_the_merchants_text_and_the_narrowest_text_before_wider_ones() -> None:
    own = [
        text(source="any"),
        text(source="vip", segment="high_value"),
        text(source="funds", category="INSUFFICIENT_FUNDS"),
        text(source="both", segment="high_value", category="INSUFFICIENT_FUNDS"),
        text(source="other", name="final_notice", locale="fr"),
    ]

    def choose(locales: list[str], segment: str = "standard", category: str = "SOFT_DECLINE") -> str:
        chosen = choose_template(
            own, shipped_templates(), name="reminder", locales=locales, segment=segment, category=category
        )
        return chosen.source if chosen else ""

    assert choose(["en"]) == "any"
    assert choose(["en"], segment="high_value") == "vip"
    assert choose(["en"], category="INSUFFICIENT_FUNDS") == "funds"
    assert choose(["en"], segment="high_value", category="INSUFFICIENT_FUNDS") == "both"
    assert choose(["de-AT", "de", "en"]) == "shipped/de/reminder"
    assert choose(["nl-NL", "nl", "en"]) == "any"
    assert choose_template(own, (), name="unknown", locales=["en"], segment="", category="") is None


@pytest.mark.parametrize(
    "bad",
    [
        "{nobody}",
        "{name.__class__}",
        "{name[0]}",
        "{name!r}",
        "{amount:>1000000000}",
        "{",
        "}",
        "{}",
        "%%link%%",
    ],
)
def test_placeholder_that_reaches_for_anything_else_is_refused(bad: str) -> None:
    assert problems_in(bad)


def test_curly_brackets_can_be_written() -> None:
    assert problems_in("{{braces}} {amount}") == []


@given(st.dictionaries(st.sampled_from(sorted(PLACEHOLDERS)), st.text(max_size=40)))
def test_outside_text_adds_no_line_no_header_and_no_link(values: dict[str, str]) -> None:
    values = {**dict.fromkeys(PLACEHOLDERS, "x"), **values}
    template = next(one for one in shipped_templates() if one.name == "update_card")
    filled = fill(template, values)
    assert set("\r\n").isdisjoint(filled.subject)
    assert len(filled.paragraphs) <= len(template.body.split("\n\n"))
    assert plain_text(filled, ["why"]).count(LINK_MARK) == 1


def test_secrets_are_put_in_last() -> None:
    filled = fill(text(body="Hello\n\nPay.\n\nBye\nShop", button="Pay"), {})
    assert with_links(plain_text(filled, ["Foot"]), link="https://l", unsubscribe="https://u") == (
        "Hello\n\nPay.\n\nPay:\nhttps://l\n\nBye\nShop\n\n--\nFoot\n"
    )
