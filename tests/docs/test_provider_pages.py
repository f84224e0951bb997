"""Each provider's page says what its connection form asks for and which events to enable."""

import textwrap

import pytest
from django.conf import settings

from providers import registry
from providers.guide import Guide

WRITTEN = ("hyperswitch", "adyen", "braintree", "paddle", "chargebee", "recurly")


def connecting(name: str, guide: Guide) -> str:
    """The section of the page, as the guide tells it."""
    config = " ".join(f'"{one.name}": "..."' for one in guide.settings if one.required).replace('" "', '", "')
    command = f"manage.py connection create --merchant NAME --provider {name}"
    mode = f'"mode": "{guide.modes[0]}"'
    lines = [
        "## Connecting an account",
        "",
        "In the browser under Connections, or by",
        f"`{command} --config '{{{', '.join(part for part in (mode, config) if part)}}}'`.",
        "",
        "| config key | needed | meaning |",
        "|---|---|---|",
        f"| `mode` | no | {', '.join(f'`{one}`' for one in guide.modes)}; the first is the default |",
    ]
    for one in guide.settings:
        choices = f" ({' or '.join(one.choices)})" if one.choices else ""
        default = f"; default {one.default:g}" if isinstance(one.default, float) else ""
        default = f"; default `{one.default}`" if isinstance(one.default, str) else default
        lines.append(f"| `{one.name}` | {'yes' if one.required else 'no'} | {one.help}{choices}{default} |")
    events = textwrap.wrap("  ".join(guide.events), 116, break_long_words=False, break_on_hyphens=False)
    lines += [
        "",
        f"Webhooks are set up in {guide.where}",
        f"Their secret here: {guide.signed_with}",
        "Events to enable:",
        "",
        *(f"    {line}" for line in events),
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", WRITTEN)
def test_the_page_says_what_the_form_asks_for(name: str) -> None:
    page = (settings.BASE_DIR / "docs" / "providers" / f"{name}.md").read_text(encoding="utf-8")
    assert connecting(name, registry.guide(name)) in page


def test_stripes_own_page_names_every_event_and_setting() -> None:
    page = (settings.BASE_DIR / "docs" / "providers" / "stripe.md").read_text(encoding="utf-8")
    guide = registry.guide("stripe")
    told = {*(one.name for one in guide.settings), *guide.events}
    assert sorted(name for name in told if name not in page) == []
