"""Answers of others as they came, kept for people to read."""

import json
from collections.abc import Mapping
from typing import Any

from recovery_site.common.scrubbing import scrub


def raw_answer(raw: Mapping[str, Any]) -> dict[str, Any]:
    """`raw` as JSON that can be stored: scrubbed, without what JSON or PostgreSQL cannot hold."""
    text = json.dumps(scrub(dict(raw)), default=str)
    kept: dict[str, Any] = json.loads(_without_nul(text))
    return kept


def _without_nul(text: str) -> str:
    r"""JSON text without the escape \u0000, which `jsonb` refuses; a backslash of its own before it stays."""
    parts = text.split("\\\\")
    return "\\\\".join(part.replace("\\u0000", "") for part in parts)
