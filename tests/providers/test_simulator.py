"""The simulator's client: one charge per key, on the caller's clock, remembered over processes."""

import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from providers import registry
from providers.base import (
    ChargeRequest,
    ClientTraits,
    DeclineFacts,
    InboundItem,
    Lookup,
    Outcome,
    PaymentEvent,
    ProviderUnavailable,
    ProviderUncertain,
    RefundRequest,
    Settles,
)
from providers.simulator.client import SimulatorClient
from recovery_site.common.errors import InvalidInput

ROOT = Path(__file__).resolve().parents[2]
AT = datetime(2026, 3, 5, 9, 30, tzinfo=UTC)


def order(number: int | str, token: str = "tok_ok", **changes: Any) -> ChargeRequest:
    request = ChargeRequest(
        amount_minor=1250,
        currency="EUR",
        token=token,
        customer="cus_1",
        reference=f"att_{number}",
        idempotency_key=f"key-{number}",
        metadata={"at": AT.isoformat()},
    )
    return dataclasses.replace(request, **changes)


def at(moment: datetime) -> dict[str, str]:
    return {"at": moment.isoformat()}


@pytest.fixture
def client(tmp_path: Path) -> SimulatorClient:
    return SimulatorClient({"ledger": str(tmp_path / "ledger.sqlite3")})


def test_the_registry_makes_it_with_these_promises(tmp_path: Path) -> None:
    made = registry.client("simulator", {"ledger": str(tmp_path / "l"), "base_url": ""})
    assert isinstance(made, SimulatorClient)
    assert made.traits == ClientTraits(
        key_ttl=timedelta(hours=24), lookup=Lookup.AUTHORITATIVE, settles=Settles.NOW, timeout_seconds=5.0
    )


def test_its_events_carry_its_own_name() -> None:
    payload = {"type": "subscription.ended", "occurred_at": "2026-03-01T00:00:00Z", "subscription_id": "s"}
    event = registry.dialect("simulator").parse(InboundItem("evt_1", "subscription.ended", "s", payload))
    assert isinstance(event, PaymentEvent)
    assert event.provider == "simulator"


def test_a_charge_happens_at_the_callers_instant(client: SimulatorClient) -> None:
    result = client.charge(order(1, metadata=at(AT.astimezone())))
    assert (result.outcome, result.created_at, result.amount_minor, result.currency) == (
        Outcome.SUCCEEDED,
        AT,
        1250,
        "EUR",
    )
    assert (result.token, result.reference, result.decline) == ("tok_ok", "att_1", None)
    assert result.card
    assert len(result.card.last4) == 4
    assert client.charge_get(result.provider_id) == result
    assert client.charge_find("att_1") == result
    assert (client.charge_get("ch_none"), client.charge_find("att_none")) == (None, None)


def test_without_an_instant_the_system_clock_counts(client: SimulatorClient) -> None:
    before = datetime.now(UTC)
    created_at = client.charge(order(1, metadata={})).created_at
    assert created_at
    assert before <= created_at <= datetime.now(UTC)


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": {"at": "yesterday"}},
        {"metadata": {"at": "2026-03-05T09:30:00"}},
        {"amount_minor": 0},
        {"amount_minor": -5},
        {"idempotency_key": ""},
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_not_kept(
    client: SimulatorClient, changes: dict[str, Any]
) -> None:
    result = client.charge(order(1, **changes))
    assert (result.outcome, result.error_code) == (Outcome.ERRORED, "invalid_request")
    assert client.charge_find("att_1") is None


# Names that the sandbox knows too


def test_scripted_tokens_do_as_their_names_say(client: SimulatorClient) -> None:
    assert client.charge(order(1, "tok_ok__a")).outcome is Outcome.SUCCEEDED
    declined = client.charge(order(2, "tok_decline_insufficient_funds__a"))
    assert declined.outcome is Outcome.DECLINED
    assert declined.decline == DeclineFacts(raw_code="insufficient_funds", network_code="51")
    unknown = client.charge(order(3, "pm_elsewhere")).decline
    assert unknown
    assert unknown.raw_code == "invalid_token"


def test_then_ok_counts_declines_of_the_full_name(client: SimulatorClient) -> None:
    names = ("tok_decline_do_not_honor_then_ok_2__a", "tok_decline_do_not_honor_then_ok_2__b")
    outcomes = [client.charge(order(number, names[number % 2])).outcome.value for number in range(8)]
    assert outcomes == ["declined"] * 4 + ["succeeded"] * 4


def test_a_repeated_key_uses_nothing_up(client: SimulatorClient) -> None:
    token = "tok_decline_do_not_honor_then_ok_2"
    first = client.charge(order(1, token))
    assert [client.charge(order(1, token)) for _ in range(3)] == [first] * 3
    assert client.charge(order(2, token)).outcome is Outcome.DECLINED
    assert client.charge(order(3, token)).outcome is Outcome.SUCCEEDED


# One charge per key


def test_a_key_keeps_its_first_answer_whatever_the_time(client: SimulatorClient) -> None:
    token = "tok_sim_outage__x"
    first = client.charge(order(1, token))
    later = client.charge(order(1, token, metadata=at(AT + timedelta(days=5))))
    assert later == first


@pytest.mark.parametrize(
    "changes", [{"amount_minor": 9}, {"currency": "USD"}, {"token": "tok_ok__b"}, {"reference": "att_9"}]
)
def test_a_key_used_for_another_charge_proves_nothing(client: SimulatorClient, changes: dict[str, Any]) -> None:
    client.charge(order(1))
    with pytest.raises(ProviderUncertain, match="used for another charge"):
        client.charge(order(1, **changes))


WORKER = """
import contextlib, json, sys
from providers.simulator.client import SimulatorClient
from providers.simulator.ledger import Ledger
from tests.providers.test_simulator import order

ledger, guard, number = sys.argv[1:]
if guard == "off":
    Ledger.alone = lambda self: contextlib.nullcontext()
client = SimulatorClient({"ledger": ledger})
print("ready", flush=True)
sys.stdin.readline()
same = [client.charge(order(key, "tok_sim_generic__x")) for key in range(60)]
for key in range(40):
    client.charge(order(f"{number}-{key}", "tok_decline_do_not_honor_then_ok_50"))
print(json.dumps([[result.provider_id, result.outcome] for result in same]))
"""


def race(ledger: Path, guard: str) -> list[list[list[str]]]:
    """Three processes against each other: the same 60 keys, then 40 keys each on one counting token."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(ledger), guard, str(number)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(3)
    ]
    try:
        for worker in workers:
            assert worker.stdout
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin
            worker.stdin.write("go\n")
            worker.stdin.flush()
        outputs = [worker.communicate(timeout=60)[0] for worker in workers]
        # Without the guard a process may also stumble over the file's own lock and say nothing.
        return [json.loads(output) for output in outputs if output or guard == "on"]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def declines(ledger: Path) -> int:
    charges = SimulatorClient({"ledger": str(ledger)}).charges_list(AT - timedelta(days=1))
    return sum(charge.outcome is Outcome.DECLINED and charge.token.startswith("tok_decline") for charge in charges)


def test_processes_that_send_the_same_keys_at_once_get_one_charge_each(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    first, second, third = race(ledger, "on")
    assert first == second == third
    kept = list(SimulatorClient({"ledger": str(ledger)}).charges_list(AT - timedelta(days=1)))
    ours = sorted(charge.provider_id for charge in kept if charge.token == "tok_sim_generic__x")
    assert ours == sorted(name for name, _ in first)
    assert len(ours) == 60
    assert declines(ledger) == 50


def test_without_the_guard_processes_count_wrongly(tmp_path: Path) -> None:
    """Shows that the race above is real: two processes read the same count and both decline."""
    for number in range(10):
        ledger = tmp_path / f"ledger-{number}.sqlite3"
        race(ledger, "off")
        if declines(ledger) > 50:
            return
    pytest.fail("the race never happened, so the test above proves nothing")


def test_threads_share_one_client(client: SimulatorClient) -> None:
    gate = threading.Barrier(6)

    def run(_: int) -> list[str]:
        gate.wait(20)
        return [client.charge(order(number, f"tok_sim_flaky__{number % 5}")).provider_id for number in range(40)]

    with ThreadPoolExecutor(6) as pool:
        lists = list(pool.map(run, range(6)))
    assert all(ids == lists[0] for ids in lists)
    assert len(list(client.charges_list(AT - timedelta(days=1)))) == 40


def test_the_same_requests_get_the_same_answers_in_another_ledger(tmp_path: Path) -> None:
    requests = [order(number, f"tok_sim_generic__{number}") for number in range(50)]
    runs = [
        [SimulatorClient({"ledger": str(tmp_path / name)}).charge(request) for request in requests] for name in "ab"
    ]
    assert runs[0] == runs[1]
    assert {result.outcome for result in runs[0]} == {Outcome.SUCCEEDED, Outcome.DECLINED}


def test_the_list_is_in_time_order_and_starts_after_the_instant(client: SimulatorClient) -> None:
    for number, hours in enumerate((3, 1, 2, 0)):
        client.charge(order(number, metadata=at(AT + timedelta(hours=hours))))
    listed = [result.reference for result in client.charges_list(AT)]
    assert listed == ["att_1", "att_2", "att_0"]


def test_of_several_charges_of_a_reference_the_paid_one_is_found(client: SimulatorClient) -> None:
    client.charge(order(1, "tok_decline_do_not_honor", reference="att_x"))
    paid = client.charge(order(2, "tok_ok", reference="att_x"))
    client.charge(order(3, "tok_decline_do_not_honor", reference="att_x"))
    assert client.charge_find("att_x") == paid


# Refunds


def refund_order(number: int, charge: str, **changes: Any) -> RefundRequest:
    request = RefundRequest(
        charge_id=charge,
        amount_minor=1000,
        currency="EUR",
        reference=f"ref_{number}",
        idempotency_key=f"refund-{number}",
    )
    return dataclasses.replace(request, **changes)


def test_a_refund_goes_back_once_per_key_up_to_what_is_left(client: SimulatorClient) -> None:
    charge = client.charge(order(1)).provider_id
    first = client.refund(refund_order(1, charge))
    assert (first.outcome, first.payment_id, first.amount_minor, first.reference) == (
        Outcome.SUCCEEDED,
        charge,
        1000,
        "ref_1",
    )
    assert client.refund(refund_order(1, charge)) == first
    assert (client.refund_get(first.provider_id), client.refund_find("ref_1")) == (first, first)
    refused = client.refund(refund_order(2, charge, amount_minor=251))
    assert (refused.outcome, refused.error_code) == (Outcome.ERRORED, "refund_exceeds_charge")
    assert client.refund(refund_order(3, charge, amount_minor=250)).outcome is Outcome.SUCCEEDED
    assert (client.refund_find("ref_2"), client.refund_get("re_none")) == (None, None)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"charge_id": "ch_none"}, "not_found"),
        ({"currency": "USD"}, "not_refundable"),
        ({"amount_minor": 0}, "invalid_request"),
    ],
)
def test_a_refund_that_cannot_be_is_refused(client: SimulatorClient, changes: dict[str, Any], code: str) -> None:
    charge = client.charge(order(1)).provider_id
    assert client.refund(refund_order(1, charge, **changes)).error_code == code
    assert client.refund_find("ref_1") is None


def test_a_declined_charge_is_not_refundable(client: SimulatorClient) -> None:
    charge = client.charge(order(1, "tok_decline_lost_card")).provider_id
    assert client.refund(refund_order(1, charge)).error_code == "not_refundable"


def test_a_refund_key_used_for_another_refund_proves_nothing(client: SimulatorClient) -> None:
    charge = client.charge(order(1)).provider_id
    client.refund(refund_order(1, charge))
    with pytest.raises(ProviderUncertain, match="used for another refund"):
        client.refund(refund_order(1, charge, amount_minor=5))


# The file


def test_the_ledger_lies_in_the_data_directory(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path / "data"
    SimulatorClient({}).charge(order(1))
    assert (tmp_path / "data" / "simulator.sqlite3").is_file()


def test_a_ledger_that_is_no_path_is_refused() -> None:
    with pytest.raises(InvalidInput, match="must be the path of a file"):
        SimulatorClient({"ledger": 5})


READS: list[Callable[[SimulatorClient], object]] = [
    lambda client: client.charge_get("ch_1"),
    lambda client: client.charge_find("att_1"),
    lambda client: list(client.charges_list(AT)),
    lambda client: client.refund_get("re_1"),
    lambda client: client.refund_find("ref_1"),
]


def test_a_ledger_that_cannot_be_opened_is_no_answer(tmp_path: Path) -> None:
    client = SimulatorClient({"ledger": str(tmp_path)})
    with pytest.raises(ProviderUncertain, match="ledger failed"):
        client.charge(order(1))
    with pytest.raises(ProviderUncertain, match="ledger failed"):
        client.refund(refund_order(1, "ch_1"))
    for read in READS:
        with pytest.raises(ProviderUnavailable, match="cannot be read"):
            read(client)
