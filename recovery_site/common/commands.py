"""What every management command of the fixed surface shares (DESIGN section 16)."""

import json
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.dateparse import parse_datetime

from recovery_site.common import clock
from recovery_site.common.errors import RecoveryError


def instant(text: str) -> datetime:
    """An ISO 8601 time; without a zone it is UTC."""
    try:
        value = parse_datetime(text)
    except ValueError:
        value = None
    if value is None:
        raise ArgumentTypeError(f"{text!r} is not a time; write it like 2026-11-21T09:00:00Z.")
    return value if value.tzinfo else value.replace(tzinfo=UTC)


class RecoveryCommand(BaseCommand):
    """`--json` prints exactly one object on stdout; a RecoveryError becomes one clear line and a non-zero exit."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print exactly one JSON object")

    def add_at(self, parser: ArgumentParser) -> None:
        parser.add_argument("--at", type=instant, help="the `now` of every decision, ISO 8601 (default: now)")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            result = self.run(**options)
        except RecoveryError as error:
            raise CommandError(error.message) from error
        if result is not None:
            self.stdout.write(json.dumps(result) if options["json"] else self.human(result))

    def run(self, **options: Any) -> Mapping[str, Any] | None:
        """The command's work; what it returns is printed."""
        raise CommandError("This command does nothing.")

    def human(self, result: Mapping[str, Any]) -> str:
        """The result for people."""
        return "\n".join(f"{name}: {value}" for name, value in result.items())

    @staticmethod
    def now(options: Mapping[str, Any]) -> datetime:
        at: datetime | None = options.get("at")
        return at or clock.now()
