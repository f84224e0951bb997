"""`sandbox_psp --port N`: the local provider (docs/sandbox_psp.md)."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from providers.sandbox.server import serve


class Command(BaseCommand):
    help = "Run the sandbox provider until it is stopped; prints its address as one JSON line."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8900, help="0 picks a free one")
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--ledger", type=Path, default=None, help="default: the project's data folder")

    def handle(self, *args: Any, **options: Any) -> None:
        serve(
            options["host"],
            options["port"],
            options["ledger"] or settings.DATA_DIR / "sandbox" / "ledger.jsonl",
        )
