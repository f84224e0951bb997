import re
from pathlib import Path

from django.conf import settings

from analytics.definitions import DEFINITIONS
from analytics.selectors.invariants import NAMES


def test_every_definition_says_what_it_counts_and_in_what() -> None:
    for key, definition in DEFINITIONS.items():
        assert definition.key == key
        assert definition.name
        assert definition.sentence.endswith(".")
        assert definition.unit
        assert not definition.unit.endswith(".")


def test_pages_define_exactly_the_figures_there_are() -> None:
    templates = Path(settings.BASE_DIR) / "templates"
    used = {key for path in templates.rglob("*.html") for key in re.findall(r'{% define "(\w+)" %}', path.read_text())}
    reports = Path(settings.BASE_DIR, "analytics", "reports.py").read_text()
    tables = set(re.findall(r'[tT]able\(\s*"(\w+)"', reports))
    assert used | tables | set(NAMES) == set(DEFINITIONS)
