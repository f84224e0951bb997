"""`run_demo`, the last step of `make run`: history, web server, worker and traffic, until Ctrl-C."""

import logging
import os
import signal
import time
from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from tqdm import tqdm

from recovery_site.common.clock import ClockAnchor
from recovery_site.common.errors import RecoveryError
from recovery_site.demo.cast import DAYS, USERNAME, Cast, cast_ensure, onlooker_admit
from recovery_site.demo.delivery import CASES_PER_DAY, DAY, deliveries_of
from recovery_site.demo.history import history_fill, newest_instant, told_until
from recovery_site.demo.payers import LivePayers
from recovery_site.demo.stage import (
    HOST,
    Stop,
    port_require,
    stream_part,
    take_down,
    wait_until_ready,
    web_part,
    worker_part,
)
from recovery_site.demo.traffic import Traffic

# A day in one minute: a newcomer sees something recovered within it.
SPEED = 1440.0
# Far enough for any demo; deliveries are made while they are read.
_FUTURE = 36_500 * DAY


class Command(BaseCommand):
    help = "Fill 90 days of invented history (once), then serve it with live traffic on an accelerated clock."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--days", type=int, default=DAYS, help="days of history (default: 90)")
        parser.add_argument(
            "--cases-per-day", type=float, default=CASES_PER_DAY, help="new failing customers per merchant"
        )
        parser.add_argument("--processes", type=int, default=2, help="processes that fill the history")
        parser.add_argument("--log-dir", type=Path, default=settings.DATA_DIR, help="where the logs go")
        parser.add_argument("--fill-only", action="store_true", help="stop once the history is there")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError(
                "run_demo fills the ledger with invented customers and does not run with ENVIRONMENT=production:"
                " start the web server and `manage.py run_worker` instead."
            )
        try:
            if not options["fill_only"]:
                port_require(settings.DEMO_PORT)
                port_require(settings.DEMO_PORT + 1)
            logging.getLogger().setLevel(logging.WARNING)  # the parts have logs of their own
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            cast = cast_ensure(days=options["days"])
            self._fill(cast, options)
            if not options["fill_only"]:
                self._play(cast, options["cases_per_day"], options["log_dir"])
        except RecoveryError as error:
            raise CommandError(error.message) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped before the history was complete; the next start goes on from here.") from None

    def _fill(self, cast: Cast, options: dict[str, Any]) -> None:
        days = options["days"]
        done = min(days, (newest_instant(cast) - cast.since) // DAY)
        if done == days:
            return
        tqdm.monitor_interval = 0  # its thread would be forked with us
        with tqdm(total=days, initial=done, desc="Living through the last months", unit="day") as bar:
            history_fill(
                cast, processes=options["processes"], cases_per_day=options["cases_per_day"], progress=bar.update
            )

    def _play(self, cast: Cast, cases_per_day: float, log_dir: Path) -> None:
        """Web server, worker and traffic until SIGINT or SIGTERM; DemoBroken if a part ends by itself."""
        stop = Stop()
        speed = settings.CLOCK_SPEED if settings.CLOCK_SPEED != 1 else SPEED
        anchor = ClockAnchor(real=datetime.now(UTC), virtual=max(newest_instant(cast), cast.until))
        deliveries = deliveries_of(cast, start=told_until(cast), end=cast.until + _FUTURE, cases_per_day=cases_per_day)
        password = onlooker_admit(cast)
        connections.close_all()
        settings.CLOCK_SPEED, settings.CLOCK_ANCHOR = speed, anchor
        base_url, stream_url = (f"http://{HOST}:{port}" for port in (settings.DEMO_PORT, settings.DEMO_PORT + 1))
        environment = {
            "PUBLIC_URL": base_url,
            "STREAM_URL": stream_url,
            **os.environ,
            "CLOCK_SPEED": f"{speed:g}",
            "CLOCK_ANCHOR": f"{anchor.real.isoformat()}/{anchor.virtual.isoformat()}",
        }
        web, worker = web_part(settings.DEMO_PORT, environment, log_dir), worker_part(environment, log_dir)
        stream = stream_part(settings.DEMO_PORT + 1, environment, log_dir)
        parts, traffic = (worker, web, stream), Traffic(cast, deliveries, base_url)
        payers = LivePayers([player.merchant.pk for player in cast.players.values()])
        try:
            for part in parts:
                part.start()
            wait_until_ready(web, base_url, stop)
            self._announce(base_url, stream_url, password, speed, [part.log for part in parts])
            traffic.start()
            payers.start()
            while not stop.asked:
                for part in parts:
                    part.check()
                time.sleep(0.3)
            self.stdout.write("Stopping ...")
        finally:
            payers.stop()
            traffic.stop()
            take_down(parts)

    def _announce(self, base_url: str, stream_url: str, password: str, speed: float, logs: list[Path]) -> None:
        day = timedelta(days=1) / speed
        minutes = day.total_seconds() / 60
        self.stdout.write(
            f"\nThe demo runs on {base_url}/\n"
            f"  log in as   {USERNAME}\n"
            f"  password    {password}    (a new one at each start)\n"
            f"One day passes in {minutes:.1f} minutes; payments fail and are recovered while you watch.\n"
            f"Live stream of events: {stream_url}/api/v1/stream (docs/stream.md).\n"
            f"Logs: {', '.join(os.path.relpath(log) for log in logs)}. Ctrl-C stops everything.\n"
        )
        self.stdout.flush()
