"""`run_worker`: everything that happens without a person: inbox, retries, outbox, reconciliation."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from recovery_site.worker.schedules import schedules_ensure
from recovery_site.worker.supervisor import ClusterBroken, Supervisor


class Command(BaseCommand):
    help = "Run the worker: retries, inbound webhooks, deliveries, reconciliation. Ends cleanly on SIGTERM."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.description = (
            "Starts two task clusters (one for inbound webhooks, one for the rest), gives them work when there is any"
            " and restarts one that hangs. SIGTERM lets charges that are being sent finish; a second one does not."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        schedules_ensure()
        try:
            Supervisor().run()
        except ClusterBroken as error:
            raise CommandError(error.message) from error
