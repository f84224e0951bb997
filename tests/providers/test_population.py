"""The demo's traffic: valid, in time order, the same every time, and close to the published decline mix."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from providers.base import EventKind, InboundRequest, PaymentEvent
from providers.generic.dialect import GenericDialect
from providers.simulator import issuer
from providers.simulator.people import DECLINE_MIX
from providers.simulator.population import STORY, Delivery, population

ROOT = Path(__file__).resolve().parents[2]
START = datetime(2026, 1, 10, 14, 0, tzinfo=UTC)
MERCHANTS = ("Acme Software", "Paper Moon")
DAYS = 90


def traffic(**changes: Any) -> list[Delivery]:
    arguments: dict[str, Any] = {"seed": 1, "merchants": MERCHANTS, "start": START, "days": DAYS} | changes
    return list(population(**arguments))


TRAFFIC = traffic()


def event_of(delivery: Delivery) -> PaymentEvent:
    dialect = GenericDialect()
    raw = json.dumps(delivery.body).encode()
    (item,) = dialect.split(InboundRequest(raw, {"webhook-id": delivery.event_id}))
    event = dialect.parse(item)
    assert isinstance(event, PaymentEvent)
    return event


def of_type(*types: str) -> list[Delivery]:
    return [delivery for delivery in TRAFFIC if delivery.body["type"] in types]


def test_every_body_is_valid_and_says_when_it_happened() -> None:
    kinds = set()
    for delivery in TRAFFIC:
        event = event_of(delivery)
        kinds.add(event.kind)
        assert event.occurred_at == delivery.at.replace(microsecond=0)
        assert delivery.merchant in MERCHANTS
    assert kinds == {
        EventKind.PAYMENT_FAILED,
        EventKind.PAYMENT_SUCCEEDED,
        EventKind.METHOD_UPDATED,
        EventKind.INVOICE_PAID,
        EventKind.INVOICE_VOIDED,
        EventKind.SUBSCRIPTION_ENDED,
        EventKind.REFUND_UPDATED,
        EventKind.DISPUTE_UPDATED,
    }


def test_it_comes_in_time_order_inside_the_window_with_unique_ids() -> None:
    moments = [delivery.at for delivery in TRAFFIC]
    assert moments == sorted(moments)
    assert moments[0] >= START
    assert moments[-1] < START + timedelta(days=DAYS)
    assert len({delivery.event_id for delivery in TRAFFIC}) == len(TRAFFIC)


def digest(deliveries: list[Delivery]) -> str:
    text = json.dumps([[d.merchant, d.at.isoformat(), d.event_id, d.body] for d in deliveries])
    return hashlib.sha256(text.encode()).hexdigest()


def test_another_process_makes_exactly_the_same() -> None:
    script = "from tests.providers.test_population import *; print(digest(TRAFFIC))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "42"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == digest(TRAFFIC)


def test_another_seed_or_merchant_makes_something_else() -> None:
    assert digest(traffic(seed=2, days=5)) != digest(traffic(days=5))
    ids = {delivery.event_id for delivery in traffic(days=5)}
    assert ids.isdisjoint(delivery.event_id for delivery in traffic(days=5, merchants=("Other",)))


@pytest.mark.parametrize("cut", [1, 33, 89])
def test_windows_join_without_a_seam(cut: int) -> None:
    later = START + timedelta(days=cut)
    joined = traffic(days=cut) + traffic(start=later, days=DAYS - cut, since=START)
    assert digest(joined) == digest(TRAFFIC)


def test_a_window_long_after_the_beginning_needs_no_history() -> None:
    far = START + timedelta(days=400)
    window = traffic(start=far, days=3, since=START)
    assert window
    assert digest(window) == digest(traffic(start=far, days=3, since=far - STORY - timedelta(days=1)))


def test_it_is_made_while_it_is_read() -> None:
    endless = population(seed=1, merchants=MERCHANTS, start=START, days=365 * 100)
    assert [delivery.event_id for delivery in islice(endless, 50)] == [delivery.event_id for delivery in TRAFFIC[:50]]


# Believable


def test_nothing_refers_to_what_was_never_told() -> None:
    paid: set[str] = set()
    failed: dict[str, Delivery] = {}
    for delivery in TRAFFIC:
        body = delivery.body
        match body["type"]:
            case "payment.succeeded":
                paid.add(body["payment"]["charge_id"])
            case "payment.failed":
                failed[body["invoice"]["id"]] = delivery
            case "refund.updated":
                assert body["refund"]["charge_id"] in paid
            case "dispute.updated":
                assert body["dispute"]["charge_id"] in paid
            case "invoice.paid" | "invoice.voided":
                assert failed[body["invoice"]["id"]].body["invoice"]["amount"] == body["invoice"]["amount"]
    assert len(of_type("refund.updated", "dispute.updated", "invoice.paid", "invoice.voided")) > 100


def test_the_first_failures_follow_the_published_mix() -> None:
    count: dict[str, Counter[str]] = defaultdict(Counter)
    for delivery in traffic(cases_per_day=40, successes_per_day=0, days=60):
        body = delivery.body
        name = body.get("payment_method", {}).get("token", "")
        if body["type"] == "payment.failed" and issuer.is_random(name):
            began = issuer.card_of(name, delivery.at)
            count[began.funding][name.removeprefix("tok_sim_").partition("__")[0]] += 1
    for funding, mix in DECLINE_MIX.items():
        total, whole = count[funding].total(), sum(mix.values())
        assert total > 1000
        for profile in ("generic", "flaky", "funds", "fraud", "hard"):
            assert count[funding][profile] / total == pytest.approx(mix[profile] / whole, abs=0.05)


def test_a_failure_tells_what_the_issuer_would_say() -> None:
    for delivery in of_type("payment.failed"):
        error, name = delivery.body["error"], delivery.body["payment_method"]["token"]
        decline = issuer.usual_decline(name, delivery.at)
        assert error["code"] == decline.raw_code
        card = issuer.card_of(name, delivery.at)
        told = delivery.body["payment_method"]["card"]
        assert (told["fingerprint"], told["last4"], told["network"]) == (
            card.fingerprint,
            card.last4,
            card.network,
        )
        assert ("advice_code" in error) <= (card.network == "mastercard")


def test_a_card_that_works_is_charged_successfully_when_the_issuer_says_so() -> None:
    for delivery in of_type("payment.succeeded"):
        payment, name = delivery.body["payment"], delivery.body["payment_method"]["token"]
        assert issuer.decide(name, delivery.at, payment["charge_id"]).approved


def test_new_cases_come_at_the_asked_rate_for_every_merchant() -> None:
    deliveries = traffic(cases_per_day=10, successes_per_day=0, days=60)
    for merchant in MERCHANTS:
        customers = {
            delivery.body["customer"]["id"]
            for delivery in deliveries
            if delivery.merchant == merchant and delivery.body["type"] == "payment.failed"
        }
        assert 10 * 60 * 0.85 < len(customers) < 10 * 60 * 1.15


def test_customers_have_second_cards_second_invoices_and_mend_their_cards() -> None:
    failing: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in of_type("payment.failed"):
        failing[delivery.body["customer"]["id"]].append(delivery)
    together = sum(len(group) > 1 and group[1].at - group[0].at <= timedelta(minutes=1) for group in failing.values())
    assert 0.08 < together / len(failing) < 0.17
    methods = of_type("payment_method.updated")
    second = [d for d in methods if not d.body["payment_method"]["is_default"]]
    network = [d for d in methods if d.body["payment_method"].get("updated_by_network")]
    fixed = [d for d in methods if d not in second and d not in network]
    assert 0.18 < len(second) / len(failing) < 0.32
    assert len(network) > 5
    assert len(fixed) > 30
    for delivery in fixed:
        assert delivery.body["payment_method"]["token"].startswith("tok_ok")
    for delivery in network:
        told = delivery.body["payment_method"]
        assert told["previous_card"]["exp_year"] < told["card"]["exp_year"]
        assert issuer.clears_at(told["token"], delivery.at) == delivery.at - timedelta(minutes=1)


def test_customers_are_invented_and_of_several_countries_and_currencies() -> None:
    customers = {d.body["customer"]["id"]: d.body["customer"] for d in of_type("payment.failed")}
    for customer in customers.values():
        assert customer["email"].partition("@")[2] in {"example.com", "example.org"}
    assert len({customer["country"] for customer in customers.values()}) >= 5
    assert {d.body["invoice"]["currency"] for d in of_type("payment.failed")} == {"USD", "EUR"}
    networks = Counter(d.body["payment_method"]["card"]["network"] for d in of_type("payment.failed"))
    assert set(networks) == {"visa", "mastercard", "amex", "discover"}
    assert networks["visa"] > networks["mastercard"] > networks["amex"]


def test_a_customer_whose_card_never_works_is_not_billed_for_ever() -> None:
    failures = Counter(d.body["payment_method"]["token"] for d in of_type("payment.failed"))
    hopeless = [name for name in failures if issuer.clears_at(name, START + STORY) is None]
    lasting = [name for name in hopeless if "tok_sim_hard" in name or "tok_sim_fraud" in name]
    assert len(lasting) > 20
    # At most two invoices at once, never another one a month later.
    assert max(failures[name] for name in lasting) <= 2
