"""`mail_report`: a bounce or complaint on stdin, as a mail system's pipe delivers it; `mail_report address`: where to
post them instead."""

import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from accounts.services import merchant_require
from notifications.reports import report_of_mail
from notifications.services.reports import report_address_create, report_apply
from recovery_site.common.commands import RecoveryCommand


class Command(RecoveryCommand):
    help = "Take in a bounce or complaint mail (stdin or --file), or make the address that mail services post to."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        self.add_at(parser)
        parser.add_argument("action", nargs="?", choices=["read", "address"], default="read")
        parser.add_argument("--file", type=Path, help="read: the mail (default: stdin)")
        parser.add_argument("--merchant", help="address: whose")

    def run(self, **options: Any) -> Mapping[str, Any]:
        if options["action"] == "address":
            if not options["merchant"]:
                raise CommandError("mail_report address needs --merchant.")
            made = report_address_create(merchant=merchant_require(options["merchant"]), actor="command")
            return {"url": made.url, "secret": made.secret}
        raw = options["file"].read_bytes() if options["file"] else sys.stdin.buffer.read()
        report = report_of_mail(raw)
        if report is None:
            return {"message": None, "told": None, "changed": False}
        changed = report_apply(report=report, now=self.now(options))
        return {"message": report.message, "told": report.told.value, "changed": changed}
