"""The first sentence of an operation's description is its summary: what a list of operations shows beside the path."""

from typing import Any

_LONGEST = 120


def add_summaries(result: dict[str, Any], **known: Any) -> dict[str, Any]:
    """A hook of drf-spectacular, which knows no summaries of its own."""
    for operations in result["paths"].values():
        for operation in operations.values():
            told = operation.get("description", "") if isinstance(operation, dict) else ""
            summary = " ".join(told.partition(". ")[0].partition("\n\n")[0].split()).rstrip(".:")
            if 0 < len(summary) <= _LONGEST:
                operation.setdefault("summary", summary)
    return result
