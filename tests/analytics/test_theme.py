"""The look keeps its promises: contrast, nothing from elsewhere, nothing inline, everything on a page defined."""

import re
from pathlib import Path

import pytest
from django.conf import settings

STATIC = Path(settings.BASE_DIR) / "static"
TEMPLATES = sorted((Path(settings.BASE_DIR) / "templates").rglob("*.html"))
TONES = ("accent", "success", "warning", "danger", "info", "violet", "neutral")
CATEGORIES = (
    "hard_decline",
    "fraud_flagged",
    "insufficient_funds",
    "soft_decline",
    "authentication_required",
    "network_error",
    "processing_error",
    "service_unavailable",
    "rate_limited",
    "config_error",
)

_PAIR = re.compile(r"(--[\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);")
_PLAIN = re.compile(r"(--[\w-]+): (#[0-9a-f]{6});")


def _tokens() -> tuple[dict[str, str], dict[str, str]]:
    text = (STATIC / "css" / "theme.css").read_text()
    light, dark = {}, {}
    for name, one, other in _PAIR.findall(text):
        light[name], dark[name] = one, other
    for name, one in _PLAIN.findall(text):
        light[name] = dark[name] = one
    return light, dark


LIGHT, DARK = _tokens()
THEMES = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])


def _luminance(colour: str) -> float:
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_computed_as_wcag_does() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    assert _contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@THEMES
def test_text_has_aa_contrast_on_every_ground(theme: dict[str, str]) -> None:
    pairs = [
        (text, ground)
        for text in ("--text", "--text-2", "--text-3", "--accent")
        for ground in ("--bg", "--surface", "--surface-2", "--surface-3")
        if (text, ground) != ("--text-3", "--surface-3")  # quiet text never stands on a hovered row's ground
    ]
    pairs += [(f"--{tone}-fg", f"--{tone}-bg") for tone in TONES]
    pairs += [(f"--{tone}-fg", "--surface") for tone in TONES]
    pairs += [("--on-accent", "--accent-strong"), ("--on-accent", "--accent-hover")]
    pairs += [("--on-accent", "--danger-strong"), ("--on-accent", "--danger-hover")]
    low = {pair: round(_contrast(theme[pair[0]], theme[pair[1]]), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}


@THEMES
def test_marks_and_control_borders_stand_out_from_the_surface(theme: dict[str, str]) -> None:
    marks = [*(f"--{tone}-mark" for tone in TONES), *(f"--cat-{name}" for name in CATEGORIES)]
    low = {mark: round(_contrast(theme[mark], theme["--surface"]), 2) for mark in (*marks, "--line-strong", "--focus")}
    assert {mark: ratio for mark, ratio in low.items() if ratio < 3} == {}


def test_every_category_has_its_own_colour() -> None:
    for theme in (LIGHT, DARK):
        colours = [theme[f"--cat-{name}"] for name in CATEGORIES]
        assert len(set(colours)) == len(CATEGORIES)


def test_every_variable_that_is_used_is_defined() -> None:
    sheets = {path.name: path.read_text() for path in (STATIC / "css").glob("*.css")}
    defined = {name for text in sheets.values() for name in re.findall(r"(--[\w-]+):", text)}
    used = {name for text in sheets.values() for name in re.findall(r"var\((--[\w-]+)", text)}
    assert used - defined == set()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(settings.BASE_DIR)))
def test_template_needs_nothing_that_the_content_policy_forbids(path: Path) -> None:
    text = path.read_text()
    if path.parent.name == "mail":
        # Mail programs load no stylesheet: there, and only there, styles stand within (notifications/frames.py).
        text = text.replace(" style=", " ").replace("<style>", "")
    assert re.findall(r"\sstyle\s*=|<style|\son\w+\s*=|javascript:|hx-on", text) == []
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert re.findall(r"(?:src|href|action)=\"(?:https?:)?//", text) == []


def test_own_styles_and_scripts_ask_no_other_host() -> None:
    for path in [*(STATIC / "css").glob("*.css"), *(STATIC / "js").glob("*.js")]:
        text = path.read_text()
        assert re.findall(r"url\(|@import|https?://|\beval\(|new Function|innerHTML", text) == [], path.name


def test_vendored_htmx_comes_with_its_licence() -> None:
    assert "Zero-Clause BSD" in (STATIC / "vendor" / "htmx" / "LICENSE").read_text()
    assert "sourceMappingURL" not in (STATIC / "vendor" / "htmx" / "htmx.min.js").read_text()
