"""From a text with {placeholders} to subject, plain text and HTML paragraphs. Pure.

One body feeds both parts of the mail, so that they can never say different things. A placeholder is a bare name: no
attribute, index or format can be reached from a template that a merchant typed in.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

# What a template may use. All are texts for people.
PLACEHOLDERS: Mapping[str, str] = {
    "greeting": "A greeting, with the customer's name where it is known",
    "name": "The customer's name",
    "merchant": "Your name",
    "amount": "What is owed, with its currency",
    "description": "What it is for",
    "invoice": "The invoice's number",
    "reason": "Why the payment failed, in one sentence of the customer's language",
    "card": "The payment method, such as Visa ending in 4242",
    "deadline": "The day on which recovery ends",
    "expiry": "The card's last month",
    "renewal": "The day of the next renewal",
}
# Marks for what is secret; they are replaced when the mail is made and never stand for a stored link.
LINK_MARK, UNSUBSCRIBE_MARK = "%%link%%", "%%unsubscribe%%"
# Whatever breaks a line, but not the spaces that hold an amount and its currency together.
_SPACE = re.compile(r"[^\S\u00a0\u202f]+")
_MARKS = (LINK_MARK, UNSUBSCRIBE_MARK)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTemplate:
    """A message's text. Empty `segment` or `category`: for all; `source` names where it came from."""

    name: str
    locale: str
    segment: str
    category: str
    subject: str
    body: str
    button: str
    source: str


@dataclass(frozen=True, slots=True)
class Filled:
    """A template with its values: paragraphs of lines, the button's word, the subject on one line."""

    subject: str
    paragraphs: tuple[tuple[str, ...], ...]
    button: str

    @property
    def before_button(self) -> tuple[tuple[str, ...], ...]:
        """All but the closing paragraph, if there are several."""
        return self.paragraphs[:-1] if len(self.paragraphs) > 1 else self.paragraphs

    @property
    def after_button(self) -> tuple[tuple[str, ...], ...]:
        return self.paragraphs[len(self.before_button) :]


def choose_template(
    own: Sequence[TextTemplate],
    shipped: Sequence[TextTemplate],
    *,
    name: str,
    locales: Iterable[str],
    segment: str,
    category: str,
) -> TextTemplate | None:
    """The text to use: the customer's language first, then the merchant's own before the shipped one, then the
    narrowest (segment and category, category, segment, neither). None if no language has the message at all.

    `locales` from the best to the last, such as de-AT, de, en.
    """
    for locale in locales:
        for templates in (own, shipped):
            fitting = [
                template
                for template in templates
                if template.name == name
                and template.locale.lower() == locale.lower()
                and template.segment in ("", segment)
                and template.category in ("", category)
            ]
            if fitting:
                return max(fitting, key=lambda template: (bool(template.category), bool(template.segment)))
    return None


def problems_in(text: str) -> list[str]:
    """What is wrong with a template's text, in sentences; empty if nothing is."""
    try:
        fields = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(text) if name is not None]
    except ValueError:
        return ["A curly bracket is not closed; write {{ or }} for a bracket that shall be read."]
    found = []
    for name, spec, conversion in fields:
        if name not in PLACEHOLDERS or spec or conversion:
            shown = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            found.append(f"There is no placeholder {{{shown}}}; use {', '.join(f'{{{one}}}' for one in PLACEHOLDERS)}.")
    found += [f"{mark} is reserved; leave it out." for mark in _MARKS if mark in text]
    return found


def fill(template: TextTemplate, values: Mapping[str, str]) -> Filled:
    """The template with its values. Raises KeyError for a placeholder without one; see `problems_in`."""
    clean = {name: _clean(value) for name, value in values.items()}
    body = template.body.replace("\r\n", "\n").strip()
    paragraphs = tuple(
        tuple(line.strip() for line in paragraph.strip().split("\n"))
        for paragraph in body.format_map(clean).split("\n\n")
        if paragraph.strip()
    )
    return Filled(
        subject=" ".join(template.subject.format_map(clean).split())[:200],
        paragraphs=paragraphs,
        button=" ".join(template.button.format_map(clean).split())[:80],
    )


def _clean(value: str) -> str:
    """Outside text on one line, without our marks: a name must not be able to add a line or a link."""
    value = _SPACE.sub(" ", value).strip()
    for mark in _MARKS:
        value = value.replace(mark, "")
    return value


def plain_text(filled: Filled, footer: Sequence[str]) -> str:
    """The plain part, with marks where the links go."""
    parts = ["\n".join(lines) for lines in filled.before_button]
    parts.append(f"{filled.button}:\n{LINK_MARK}")
    parts += ["\n".join(lines) for lines in filled.after_button]
    parts.append("\n".join(("--", *footer)))
    return "\n\n".join(parts) + "\n"


def with_links(text: str, *, link: str, unsubscribe: str) -> str:
    """A stored text with its secrets put in."""
    return text.replace(LINK_MARK, link).replace(UNSUBSCRIBE_MARK, unsubscribe)
