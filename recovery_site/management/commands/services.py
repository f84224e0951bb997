"""`manage.py services`: addresses of PostgreSQL and Redis, started here when none are set."""

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from recovery_site.embedded import EmbeddedServiceError, ensure_services, stop_services
from recovery_site.environment import Env


class Command(BaseCommand):
    """Starts the embedded services unless both addresses are set; `--stop` stops them, data stays."""

    help = "Say where PostgreSQL and Redis are, starting the embedded ones unless both addresses are set."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument("--stop", action="store_true", help="stop the embedded services of this checkout")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            answer = self._stop() if options["stop"] else self._start()
        except EmbeddedServiceError as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(answer))
        else:
            for name, value in answer.items():
                self.stdout.write(f"{name}={value}")

    def _start(self) -> dict[str, Any]:
        env = Env()
        addresses = {"DATABASE_URL": env.text("DATABASE_URL"), "REDIS_URL": env.text("REDIS_URL")}
        if not all(addresses.values()):
            urls = ensure_services(settings.DATA_DIR)
            embedded = {"DATABASE_URL": urls.database_url, "REDIS_URL": urls.redis_url}
            addresses = {name: value or embedded[name] for name, value in addresses.items()}
        return addresses

    def _stop(self) -> dict[str, Any]:
        return {"stopped": stop_services(settings.DATA_DIR)}
