"""What customers read, in every shipped language: words, reasons, the pages' sentences and the default messages.

A small catalogue of our own instead of gettext (docs/adr): the languages differ per customer, not per request or
thread, the default messages are edited by merchants, and nothing has to be compiled. Dates and amounts come from CLDR.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.dates import format_date

from notifications.rendering import TextTemplate

LANGUAGES = ("en", "de", "fr", "es")
_FOLDER = Path(__file__).resolve().parent / "wording"


@dataclass(frozen=True, slots=True)
class Wording:
    """One language's sentences; `locale` may be narrower (de-AT) and rules dates and amounts."""

    language: str
    locale: str
    sentences: Mapping[str, Mapping[str, str]]

    def say(self, section: str, key: str, **values: str) -> str:
        """A sentence with its values; KeyError for one that does not exist."""
        return self.sentences[section][key].format(**values)

    def date(self, value: date | datetime, zone: tzinfo) -> str:
        """`2 March 2026` in the customer's zone and language."""
        local = value.astimezone(zone).date() if isinstance(value, datetime) else value
        return format_date(local, format="long", locale=self.locale.replace("-", "_"))

    def month(self, year: int, month: int) -> str:
        """`March 2026`, for a card's last month."""
        return format_date(date(year, month, 1), format="LLLL y", locale=self.locale.replace("-", "_"))


@cache
def _document(language: str) -> Mapping[str, Any]:
    return tomllib.loads((_FOLDER / f"{language}.toml").read_text(encoding="utf-8"))


def wording(locale: str) -> Wording:
    """The sentences for a locale such as `de-AT`; English for a language that is not shipped."""
    language = language_of(locale) or LANGUAGES[0]
    document = _document(language)
    sentences = {section: document[section] for section in ("words", "reasons", "mail", "page")}
    return Wording(language, _known(locale, language), sentences)


def language_of(locale: str) -> str:
    """The shipped language of a locale, empty if there is none."""
    language = locale.replace("_", "-").partition("-")[0].lower()
    return language if language in LANGUAGES else ""


def _known(locale: str, language: str) -> str:
    """`locale` if CLDR knows it in that language, else the bare language."""
    try:
        found = Locale.parse(locale.replace("-", "_"))
    except (ValueError, UnknownLocaleError):
        return language
    return str(found).replace("_", "-") if found.language == language else language


@cache
def shipped_templates() -> tuple[TextTemplate, ...]:
    """The default messages of all languages."""
    return tuple(
        TextTemplate(
            name=entry["name"],
            locale=language,
            segment="",
            category=entry.get("category", ""),
            subject=entry["subject"],
            body=entry["body"].strip(),
            button=entry["button"],
            source="/".join(filter(None, ("shipped", language, entry["name"], entry.get("category", "")))),
        )
        for language in LANGUAGES
        for entry in _document(language)["templates"]
    )


def shipped_names() -> tuple[str, ...]:
    """Names of the default messages, in the order of a case's life."""
    return tuple(dict.fromkeys(template.name for template in shipped_templates()))
