"""A Stripe connection's settings and what its client promises."""

from datetime import timedelta
from typing import Any

import pytest

from providers import registry
from providers.base import (
    Lookup,
    Settles,
)
from providers.stripe.client import StripeClient
from providers.stripe.config import read_config
from recovery_site.common.errors import InvalidInput
from tests.contract.stripe_wire import (
    KEY,
)
from tests.contract.wire.stripe import Stripe


@pytest.mark.parametrize(
    ("base_url", "emulator"),
    [
        (None, False),
        ("https://api.stripe.com/", False),
        ("https://eu.api.stripe.com", False),
        ("https://stripe.com.example", True),
        ("https://notstripe.com", True),
        ("http://localhost:8420", True),
    ],
)
def test_what_is_taken_for_an_imitation(base_url: str | None, emulator: bool) -> None:
    assert read_config({"api_key": KEY, "base_url": base_url}).emulator is emulator
    assert read_config({"api_key": KEY, "base_url": base_url, "emulator": not emulator}).emulator is not emulator


def test_what_the_client_promises() -> None:
    traits = StripeClient({"api_key": KEY}).traits
    assert (traits.key_ttl, traits.lookup, traits.settles) == (
        timedelta(hours=24),
        Lookup.EVENTUAL,
        Settles.NOW,
    )
    assert (traits.timeout_seconds, traits.bills) == (30.0, True)
    assert StripeClient({"api_key": KEY, "timeout_seconds": 8}).traits.timeout_seconds == 8.0


def test_the_registry_makes_this_client() -> None:
    assert isinstance(registry.client("stripe", {"api_key": KEY}), StripeClient)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({}, "api_key"),
        ({"api_key": ""}, "api_key"),
        ({"api_key": 7}, "api_key"),
        ({"api_key": KEY, "account": "northwind"}, "account"),
        ({"api_key": KEY, "account": 7}, "account"),
        ({"api_key": "sk_test\nX-Injected: 1"}, "api_key"),
        ({"api_key": KEY, "base_url": "ftp://api.stripe.com"}, "base_url"),
        ({"api_key": KEY, "base_url": "api.stripe.com"}, "base_url"),
        ({"api_key": KEY, "base_url": "https://user:pass@api.stripe.com"}, "base_url"),
        ({"api_key": KEY, "base_url": "https://api.stripe.com/?x=1"}, "base_url"),
        ({"api_key": KEY, "base_url": "http://[::1"}, "base_url"),
        ({"api_key": KEY, "timeout_seconds": 0}, "timeout_seconds"),
        ({"api_key": KEY, "timeout_seconds": "30"}, "timeout_seconds"),
        ({"api_key": KEY, "timeout_seconds": float("nan")}, "timeout_seconds"),
        ({"api_key": KEY, "emulator": "yes"}, "emulator"),
    ],
)
def test_bad_settings_say_what_to_set(config: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidInput, match=names) as caught:
        StripeClient(config)
    assert "sk_test" not in caught.value.message


@pytest.mark.parametrize("account", ["", "acct_9"])
def test_every_request_is_made_for_the_connected_account(account: str) -> None:
    with Stripe() as wire:
        client = wire.client(account=account)
        client.check()
        client.charge(wire.request)
        assert {seen.headers.get("stripe-account", "") for seen in wire.seen} == {account}
        assert [seen.method for seen in wire.seen] == ["GET", "POST"]
