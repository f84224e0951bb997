"""The one error of the embedded services."""

from pathlib import Path


class EmbeddedServiceError(Exception):
    """An embedded server could not be started or stopped; the text says what to do next."""


def log_tail(log: Path, lines: int = 8) -> str:
    """The last lines of a server's log, for an error message."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(empty log)"
