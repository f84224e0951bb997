"""A world per test and people who log in."""

from collections.abc import Callable

import pytest
from django.test import Client

from accounts.models import User
from invoices.models import Invoice
from tests.console.world import World


@pytest.fixture
def world(db: None, monkeypatch: pytest.MonkeyPatch) -> World:
    """A merchant whose clock is also the clock of every page."""
    made = World()
    monkeypatch.setattr("recovery_site.common.clock.now", lambda: made.at)
    return made


@pytest.fixture
def log_in(client: Client) -> Callable[[User], Client]:
    def as_user(user: User) -> Client:
        client.force_login(user)
        return client

    return as_user


@pytest.fixture
def recovered(world: World) -> Invoice:
    """Declined, retried by us, paid."""
    invoice = world.fail()
    world.wait(hours=25)
    world.charge("ok")
    return world.again(invoice)


@pytest.fixture
def booked(world: World) -> Invoice:
    """Declined, its retry booked."""
    return world.fail()
