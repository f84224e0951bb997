"""Promise 1 against the worst: every worker killed with SIGKILL at random moments, a provider that loses replies."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from django.conf import settings

from accounts.models import Merchant
from invoices.models import Attempt, Connection, Invoice
from invoices.services.parties import connection_create
from invoices.states import AttemptStatus, InvoiceStatus
from providers.base import (
    CardFacts,
    CustomerFacts,
    DeclineFacts,
    EventKind,
    InvoiceFacts,
    MethodFacts,
    PaymentEvent,
    PaymentFacts,
)
from retries.engine.drain import retries_drain
from retries.handler import event_handle
from retries.reconciliation import reconcile
from tests.contract.sandbox_process import servers
from tests.durability.worker_process import eventually

pytestmark = pytest.mark.django_db(transaction=True)
INVOICES = 200
WORKERS = 3
FAILED_AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
RETRY_AT = FAILED_AT + timedelta(hours=25)
AMOUNT = 1999


def failure_of(number: int) -> PaymentEvent:
    """One failed renewal of one customer, told with everything it needs."""
    return PaymentEvent(
        kind=EventKind.PAYMENT_FAILED,
        provider="sandbox",
        event_id=f"evt_{number}",
        event_type="payment.failed",
        occurred_at=FAILED_AT,
        customer=CustomerFacts(id=f"cus_{number}"),
        invoice=InvoiceFacts(id=f"in_{number}", amount_minor=AMOUNT, currency="USD"),
        payment=PaymentFacts(
            charge_id=f"ch_first_{number}",
            amount_minor=AMOUNT,
            currency="USD",
            invoice_id=f"in_{number}",
            method=MethodFacts(
                token=f"tok_ok__{number}", card=CardFacts(fingerprint=f"fp_{number}", network="visa", last4="4242")
            ),
            decline=DeclineFacts(raw_code="insufficient_funds", network_code="51"),
        ),
    )


@pytest.fixture
def sandbox(tmp_path: Path):
    with servers(tmp_path) as start:
        yield start()


def worker(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "manage.py", "run_retries", "--once", "--at", RETRY_AT.isoformat(), "--json"]
    return subprocess.Popen(
        command,
        cwd=settings.BASE_DIR,
        env={**environment, "RETRY_LOCK_TIMEOUT": "5s"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_no_invoice_is_charged_twice_however_often_workers_are_killed(process_environment, sandbox, settings) -> None:
    settings.RETRY_LOCK_TIMEOUT = timedelta(seconds=5)
    merchant = Merchant.objects.create(name="kill -9")
    config = {"base_url": sandbox.url, "mode": "charge", "timeout_seconds": 0.8}
    connection = connection_create(merchant=merchant, provider="sandbox", config=config)
    for number in range(INVOICES):
        event_handle(event=failure_of(number), connection=connection, cause="test", now=FAILED_AT)
    rates = {"timeout_after_charge": 0.08, "http500_after_charge": 0.12, "reset_after_charge": 0.05}
    requests.put(f"{sandbox.url}/faults", json={"seed": 7, "rates": rates}, timeout=5).raise_for_status()

    killed = kill_workers_at_random(process_environment, random.Random(7))
    assert killed >= 5, "the test killed too few workers to prove anything"
    assert (
        Attempt.objects.filter(status=AttemptStatus.SENDING).exists()
        or Attempt.objects.filter(status=AttemptStatus.UNKNOWN).exists()
    ), "no kill or fault left a charge open: the test proves nothing"

    finish(connection)
    charges = requests.get(f"{sandbox.url}/ledger", timeout=30).json()["charges"]
    paid = [charge for charge in charges if charge["status"] == "succeeded"]
    assert Counter(charge["token"] for charge in paid) == {f"tok_ok__{number}": 1 for number in range(INVOICES)}
    assert {charge["amount"] for charge in paid} == {AMOUNT}
    assert set(Invoice.objects.values_list("status", "paid_minor")) == {(InvoiceStatus.SETTLED, AMOUNT)}
    ours = Attempt.objects.filter(origin="OURS", status=AttemptStatus.SUCCEEDED)
    assert set(ours.values_list("provider_id", flat=True)) == {charge["id"] for charge in paid}
    assert_ledger_is_clean(process_environment)


def kill_workers_at_random(environment: dict[str, str], dice: random.Random) -> int:
    """Run three workers at a time and kill each at a random moment of their work, until most invoices were tried."""
    killed, ours = 0, Attempt.objects.filter(origin="OURS")
    for _ in range(5):
        before = ours.count()
        running = [worker(environment) for _ in range(WORKERS)]
        # However long they take to start: the moments that matter come after the first charge.
        eventually(lambda: ours.count() > before or all(one.poll() is not None for one in running), 60)  # noqa: B023
        deadlines = [time.monotonic() + dice.uniform(0.0, 1.5) for _ in running]
        for process, deadline in zip(running, deadlines, strict=True):
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
    return killed


def finish(connection: Connection) -> None:
    """Restart and sweep: later and later, until nothing is open; leases run out on the database's clock."""
    at = RETRY_AT
    for _ in range(60):
        if not Invoice.objects.exclude(status=InvoiceStatus.SETTLED).exists():
            return
        at += timedelta(minutes=20)
        reconcile(now=at, drain=True)
        retries_drain(now=at)
        time.sleep(0.25)  # real time: leases of five seconds must run out
    still = list(Invoice.objects.exclude(status=InvoiceStatus.SETTLED).values_list("public_id", "status"))
    raise AssertionError(f"still open after all sweeps: {still[:5]} ({len(still)} in all)")


def assert_ledger_is_clean(environment: dict[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, "manage.py", "verify_ledger", "--json"],
        cwd=settings.BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
